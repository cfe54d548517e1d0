"""The peers of one site, on a virtual clock, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asyncmachine import Event, Machine, State, Tracer, Transition, pipe
from asyncmachine.threads import one_thread
from examples.pubsub.crowd import Crowd, Stats, memory_of_this_process
from examples.pubsub.settings import Settings
from tests.examples.pubsub.networks import SEED, TOPIC, Net, network


class Counter(Tracer):
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def transition_end(self, tx: Transition) -> None:
        name = tx.machine.id
        self.counts[name] = self.counts.get(name, 0) + 1


class Town:
    """A crowd, and what it and its peers tell."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.told: list[dict[str, object]] = []
        self.ears = Machine({"PeerTold": State(multi=True)}, handlers=self)
        self.counter = Counter()
        self.crowd = Crowd(
            net.site, Settings(seed=SEED), self.told.append, self._join, (self.counter,)
        )

    def PeerTold_state(self, event: Event) -> None:
        self.told.append(dict(event.args))

    def _join(self, machine: Machine) -> None:
        pipe(machine, "FwdToSim", self.ears, "PeerTold", on="add")

    def make(self, *names: str) -> None:
        """Make peers that join the topic."""
        for name in names:
            self.net.do(lambda name=name: self.crowd.make(name))  # type: ignore[misc]
            self.add(name, "JoiningTopic", topic=TOPIC, alone=len(self.net.site.hosts) == 1)
        self.net.pass_time(2)

    def add(self, name: str, state: str, **args: object) -> None:
        self.net.do(lambda: self.crowd.add(name, state, args))

    def stop(self, name: str, *, crash: bool = False) -> None:
        self.net.do(lambda: self.crowd.stop(name, crash=crash))

    def stats(self) -> Stats:
        found: list[Stats] = []
        self.net.do(lambda: found.append(self.crowd.stats()))
        return found[0]

    def told_of(self, of: str) -> list[dict[str, object]]:
        return [each for each in self.told if each["of"] == of]

    def rows(self) -> list[tuple[str, str, int, float]]:
        return [row for each in self.told_of("received") for row in each["rows"]]  # type: ignore[attr-defined]


@contextmanager
def a_town(router: str = "flood") -> Iterator[Town]:
    with network(router, latency=lambda: 0.01) as net:
        town = Town(net)
        yield town
        with one_thread():
            town.ears.dispose()


def test_peers_are_made_and_tell_of_themselves() -> None:
    with a_town() as town:
        town.make("p0", "p1")

        assert [each["peer"] for each in town.told_of("ready")] == ["p0", "p1"]
        assert [each["peer"] for each in town.told_of("joined")] == ["p0", "p1"]
        assert sorted(town.net.site.hosts) == ["p0", "p1"]


def test_what_is_received_is_told_five_times_a_second_with_hops_and_seconds() -> None:
    with a_town() as town:
        town.make("p0", "p1", "p2")
        town.add("p0", "SendingMsgs", topic=TOPIC, ids=["p0/1", "p0/2"])
        assert not town.rows()

        town.net.pass_time(0.3)

        rows = {(message, receiver): rest for message, receiver, *rest in town.rows()}
        assert len(rows) == 6
        for message in ("p0/1", "p0/2"):
            assert rows[message, "p0"] == [0, 0.0]
            for receiver in ("p1", "p2"):
                hops, seconds = rows[message, receiver]
                assert hops == 1
                assert abs(seconds - 0.01) < 1e-9
        assert len(town.told_of("received")) <= 2


def test_nothing_is_told_if_nothing_was_received() -> None:
    with a_town() as town:
        town.make("p0")
        town.net.pass_time(10)

        assert not town.told_of("received")


def test_what_is_left_to_tell_can_be_told_at_once() -> None:
    with a_town() as town:
        town.make("p0")
        town.add("p0", "SendingMsgs", topic=TOPIC, ids=["p0/1"])

        town.net.do(town.crowd.tell_received)
        assert [row[:2] for row in town.rows()] == [("p0/1", "p0")]

        town.net.pass_time(1)
        assert len(town.rows()) == 1  # and it is not told again


def test_who_is_stopped_says_goodbye() -> None:
    with a_town() as town:
        town.make("p0", "p1")

        town.stop("p1")
        town.net.pass_time(0.1)

        (host,) = town.net.site.hosts.values()
        assert town.net.ask(host, "GetPeers") == []


def test_who_crashes_does_not_but_is_found_out() -> None:
    with a_town() as town:
        town.make("p0", "p1")
        host = town.net.site.hosts["p0"]
        gone = town.net.site.hosts["p1"]

        town.stop("p1", crash=True)
        assert gone.machine.is_disposed
        assert town.net.ask(host, "GetPeers") == ["p1"]

        town.add("p0", "SendingMsgs", topic=TOPIC, ids=["p0/1"])
        town.net.pass_time(0.1)
        assert town.net.ask(host, "GetPeers") == []


def test_who_is_not_there_is_told_nothing() -> None:
    with a_town() as town:
        town.make("p0")
        town.stop("p0")
        before = len(town.told)

        town.add("p0", "JoiningTopic", topic=TOPIC, alone=True)
        town.stop("p0")
        town.stop("p0", crash=True)

        assert len(town.told) == before


def test_stats_are_those_of_all_hosts() -> None:
    with a_town("gossip") as town:
        town.make("p0", "p1", "p2")
        before = town.stats()
        assert (before.payload_bytes, before.mesh) == (0, (2, 2, 2))
        assert before.streams == 6  # each to both others

        town.add("p0", "SendingMsgs", topic=TOPIC, ids=["p0/1"])
        town.net.pass_time(0.1)

        after = town.stats()
        assert after.frames >= before.frames + 2
        assert after.payload_bytes > 0
        assert after.control_bytes > before.control_bytes
        assert after.transitions > before.transitions
        hosts = town.net.site.hosts.values()
        assert after.frames == sum(host.counts.frames for host in hosts)
        assert after.duplicates == sum(host.counts.duplicates for host in hosts)


def test_what_hosts_have_done_stays_done_when_they_are_gone() -> None:
    with a_town() as town:
        town.make("p0", "p1", "p2")
        town.add("p0", "SendingMsgs", topic=TOPIC, ids=["p0/1"])
        town.net.pass_time(0.1)
        before = town.stats()

        town.stop("p0")
        town.stop("p1", crash=True)
        town.stop("p2")

        after = town.stats()
        assert (after.streams, after.mesh) == (0, ())
        assert after[:4] >= before[:4]
        assert all(now >= then for now, then in zip(after[:5], before[:5], strict=True))


def test_all_machines_are_observed() -> None:
    with a_town() as town:
        town.make("p0", "p1")

        transitions = town.stats().transitions

        assert {"p0", "p0-disc", "sim-p0", "p1", "p1-disc", "sim-p1", "site-0"} >= set(
            town.counter.counts
        ) - {name for name in town.counter.counts if "-bf-" in name}
        assert {"p0", "p0-disc", "sim-p0"} <= set(town.counter.counts)
        assert transitions == sum(town.counter.counts.values())


def test_handlers_are_told_by_kind_of_machine() -> None:
    with a_town() as town:
        town.make("p0", "p1")

        known = {(each.machine, each.handler) for each in town.crowd.handlers()}

        assert {
            ("host", "AddSubscription_state"),
            ("discovery", "AdvertisingTopic_state"),
            ("peer", "JoiningTopic_state"),
        } <= known


def test_memory_is_that_of_this_process() -> None:
    assert 10_000_000 < memory_of_this_process() < 10_000_000_000
