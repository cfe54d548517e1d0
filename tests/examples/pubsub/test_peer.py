"""The life of a peer on a site of real hosts, on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asyncmachine import Event, Machine, State, pipe
from asyncmachine.threads import one_thread
from examples.pubsub.peer import Peer
from tests.examples.pubsub.networks import SEED, TOPIC, Net, network


class Town:
    """A network with peers, and what they tell."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.told: list[dict[str, object]] = []
        self.ears = Machine({"PeerTold": State(multi=True)}, id="ears", handlers=self)

    def PeerTold_state(self, event: Event) -> None:
        self.told.append(dict(event.args))

    def peer(self, name: str, *topics: str) -> Peer:
        """Make a peer, and have it join topics."""
        made = Peer(name, self.net.site, SEED)
        pipe(made.machine, "FwdToSim", self.ears, "PeerTold", on="add")
        self.net.do(lambda: made.machine.add("Start"))
        for topic in topics:
            self.do(made, "JoiningTopic", topic=topic, alone=not self.advertised(topic))
        self.net.pass_time(1)
        return made

    def peers(self, count: int, topic: str = TOPIC) -> list[Peer]:
        return [self.peer(f"p{number}", topic) for number in range(count)]

    def do(self, peer: Peer, state: str, **args: object) -> bool:
        """Have something happen to a peer; whether it was accepted."""
        results: list[bool] = []
        self.net.do(lambda: results.append(bool(peer.machine.add(state, **args))))
        assert not peer.machine.is_active("Exception")
        return results[0]

    def stop(self, peer: Peer) -> None:
        """Stop a peer as its crowd does."""

        def end() -> None:
            peer.machine.remove("Start")
            peer.machine.dispose()

        self.net.do(end)

    def advertised(self, topic: str = TOPIC) -> list[str]:
        """Give who is found for a topic."""
        found: list[list[tuple[str, int]]] = []
        listened = self.net.site.seen_to["found"]
        self.net.site.seen_to["found"] = lambda args: found.append(args["found"])  # type: ignore[arg-type]
        self.net.do(
            lambda: self.net.site.send(0, "registry", ask="Find", topic=topic, host="", site=0)
        )
        self.net.site.seen_to["found"] = listened
        return sorted(name for name, _ in found[0])

    def neighbours(self, name: str, topic: str = TOPIC) -> set[str]:
        """Give whom a host knows to be in a topic."""
        return set(self.net.ask(self.net.site.hosts[name], "GetPeers", topic=topic))

    def topics_of(self, name: str) -> list[str]:
        return self.net.ask(self.net.site.hosts[name], "GetTopics")

    def take_told(self, of: str) -> list[dict[str, object]]:
        """Give what was told of something, and forget all that was told."""
        taken = [each for each in self.told if each["of"] == of]
        self.told.clear()
        return taken


@contextmanager
def a_town(router: str = "flood") -> Iterator[Town]:
    with network(router) as net:
        town = Town(net)
        yield town
        with one_thread():
            town.ears.dispose()


@pytest.fixture(params=["flood", "gossip"])
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    with a_town(request.param) as made:
        yield made


def test_a_peer_gets_an_identity_and_a_host_and_is_ready(town: Town) -> None:
    peer = Peer("p0", town.net.site, SEED)
    seen: list[str] = []
    for state in ("GenIdentity", "IdentityReady", "Connecting", "Connected", "Ready"):
        peer.machine.on(f"{state}_state", lambda event: seen.append(event.name))

    town.net.do(lambda: peer.machine.add("Start"))

    assert [name.removesuffix("_state") for name in seen] == [
        *("GenIdentity", "IdentityReady", "Connecting", "Connected", "Ready")
    ]
    assert peer.machine.is_active("Ready", "Connected", "IdentityReady")
    assert set(peer.machine.active_states()) & {"GenIdentity", "Connecting"} == set()
    assert list(town.net.site.hosts) == ["p0"]


def test_a_peer_tells_that_it_is_ready_once(town: Town) -> None:
    town.peer("p0")

    assert [(each["what"], each["of"], each["peer"]) for each in town.told] == [
        ("told", "ready", "p0")
    ]


@pytest.mark.parametrize("state", ["JoiningTopic", "LeavingTopic", "SendingMsgs"])
def test_nothing_is_done_before_there_is_a_connection(state: str) -> None:
    with a_town() as town:
        peer = Peer("p0", town.net.site, SEED)

        assert not town.do(peer, state, topic=TOPIC, alone=True, ids=["p0/1"])


def test_the_first_of_a_topic_has_joined_at_once(town: Town) -> None:
    peer = town.peer("p0")
    town.told.clear()

    assert town.do(peer, "JoiningTopic", topic=TOPIC, alone=True)

    assert [each["topic"] for each in town.take_told("joined")] == [TOPIC]
    assert town.topics_of("p0") == [TOPIC]
    assert town.advertised() == ["p0"]


def test_others_have_joined_when_they_know_somebody_there(town: Town) -> None:
    town.peer("p0", TOPIC)
    other = town.peer("p1")
    town.told.clear()

    town.do(other, "JoiningTopic", topic=TOPIC, alone=False)
    assert not town.take_told("joined")  # it is still looking
    assert town.topics_of("p1") == [TOPIC]

    town.net.pass_time(1)
    assert [(each["peer"], each["topic"]) for each in town.take_told("joined")] == [("p1", TOPIC)]
    assert town.neighbours("p1") == {"p0"}
    assert town.neighbours("p0") == {"p1"}
    assert town.advertised() == ["p0", "p1"]


def test_nobody_joins_twice(town: Town) -> None:
    peer = town.peer("p0", TOPIC)
    assert not town.do(peer, "JoiningTopic", topic=TOPIC, alone=True)

    town.do(peer, "JoiningTopic", topic="books", alone=False)
    assert not town.do(peer, "JoiningTopic", topic="books", alone=False)  # it is joining


def test_messages_reach_all_who_have_joined(town: Town) -> None:
    peers = town.peers(4)
    ids = ["p2/1", "p2/2"]

    assert town.do(peers[2], "SendingMsgs", topic=TOPIC, ids=ids)
    town.net.pass_time(1)

    assert [sorted(town.net.receivers(each)) for each in ids] == [["p0", "p1", "p2", "p3"]] * 2
    assert {each.message.data.split()[0] for each in town.net.deliveries} == {b"p2"}


def test_a_peer_tells_what_it_has_sent_and_when(town: Town) -> None:
    peer = town.peer("p0", TOPIC)
    town.told.clear()
    now = town.net.clock.now()

    town.do(peer, "SendingMsgs", topic=TOPIC, ids=["p0/1", "p0/2"])

    (told,) = town.take_told("sent")
    assert (told["peer"], told["topic"], told["ids"]) == ("p0", TOPIC, ["p0/1", "p0/2"])
    assert told["when"] == now


def test_nobody_sends_to_a_topic_that_it_has_not_joined(town: Town) -> None:
    town.peer("p0", TOPIC)
    peer = town.peer("p1")
    assert not town.do(peer, "SendingMsgs", topic=TOPIC, ids=["p1/1"])

    town.do(peer, "JoiningTopic", topic=TOPIC, alone=False)  # and is still looking
    assert not town.do(peer, "SendingMsgs", topic=TOPIC, ids=["p1/1"])


def test_who_leaves_tells_and_is_known_to_nobody(town: Town) -> None:
    peers = town.peers(3)
    town.told.clear()

    assert town.do(peers[1], "LeavingTopic", topic=TOPIC)

    assert [(each["peer"], each["topic"]) for each in town.take_told("left")] == [("p1", TOPIC)]
    assert town.topics_of("p1") == []
    assert town.advertised() == ["p0", "p2"]
    assert "p1" not in town.neighbours("p0") | town.neighbours("p2")


def test_who_has_left_gets_nothing_and_sends_nothing(town: Town) -> None:
    peers = town.peers(3)
    town.do(peers[1], "LeavingTopic", topic=TOPIC)

    assert not town.do(peers[1], "SendingMsgs", topic=TOPIC, ids=["p1/1"])
    town.do(peers[0], "SendingMsgs", topic=TOPIC, ids=["p0/1"])
    town.net.pass_time(1)

    assert sorted(town.net.receivers("p0/1")) == ["p0", "p2"]


def test_who_leaves_while_it_joins_never_has_joined(town: Town) -> None:
    town.peer("p0", TOPIC)
    peer = town.peer("p1")
    town.do(peer, "JoiningTopic", topic=TOPIC, alone=False)
    town.told.clear()

    assert town.do(peer, "LeavingTopic", topic=TOPIC)
    town.net.pass_time(5)

    assert [each["of"] for each in town.told] == ["left"]
    assert town.advertised() == ["p0"]


def test_who_has_left_may_join_again(town: Town) -> None:
    peers = town.peers(2)
    town.do(peers[1], "LeavingTopic", topic=TOPIC)
    assert not town.do(peers[1], "LeavingTopic", topic=TOPIC)
    town.told.clear()

    assert town.do(peers[1], "JoiningTopic", topic=TOPIC, alone=False)
    town.net.pass_time(1)

    assert [each["peer"] for each in town.take_told("joined")] == ["p1"]
    assert town.advertised() == ["p0", "p1"]


def test_a_peer_that_is_stopped_leaves_its_topics_before_it_is_gone(town: Town) -> None:
    peers = town.peers(3)
    machine = town.net.site.hosts["p1"].machine

    town.stop(peers[1])

    assert peers[1].machine.is_disposed
    assert machine.is_disposed
    assert town.advertised() == ["p0", "p2"]
    assert sorted(town.net.site.hosts) == ["p0", "p2"]
    assert list(town.net.site.discoveries) == ["p0", "p2"]
    for host in town.net.site.hosts.values():
        assert "p1" not in town.net.ask(host, "GetPeers")


def test_a_peer_that_is_stopped_while_it_joins_is_not_advertised(town: Town) -> None:
    town.peer("p0", TOPIC)
    peer = town.peer("p1")
    town.do(peer, "JoiningTopic", topic=TOPIC, alone=False)

    town.stop(peer)

    assert town.advertised() == ["p0"]


def test_messages_reach_the_others_when_one_is_stopped(town: Town) -> None:
    peers = town.peers(4)
    town.stop(peers[1])

    town.do(peers[0], "SendingMsgs", topic=TOPIC, ids=["p0/1"])
    town.net.pass_time(1)

    assert sorted(town.net.receivers("p0/1")) == ["p0", "p2", "p3"]


def test_a_peer_can_be_stopped_before_it_is_ready(town: Town) -> None:
    peer = Peer("p0", town.net.site, SEED)

    def start_and_stop() -> None:
        peer.machine.add("Start")
        peer.machine.remove("Start")  # the fork that makes its identity has yet to run

    town.net.do(start_and_stop)
    town.stop(peer)

    assert peer.machine.is_disposed
    assert not town.net.site.hosts
    assert not town.told
