"""Pipes work alike wherever their ends live, and lose nothing in silence."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from asyncmachine import Event, Machine, UnknownStateError, pipe, pipe_all
from asyncmachine.api import MachineAPI
from asyncmachine.net import Network, RemoteMachine, connect, serve
from asyncmachine.net.inlet import SEND_WINDOW
from tests.net import making
from tests.races import PATIENCE, Gate, busy, together

MANY = 20_000


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network(processes=3, id="net", call_timeout=PATIENCE) as network:
        yield network


@pytest.fixture(autouse=True)
def _emptied(net: Network) -> Iterator[None]:
    yield
    for remote in list(net.machines.values()):
        remote.dispose()


class Local(making.Handlers):
    """A machine of this process that remembers what came."""

    def __init__(self, machine_id: str) -> None:
        super().__init__()
        self.machine = Machine(making.SCHEMA, id=machine_id, handlers=self)


# Every pair of places -------------------------------------------------------------------------


def _ends(net: Network, places: str) -> tuple[MachineAPI, MachineAPI]:
    made: list[MachineAPI] = []
    for name, place in zip("st", places, strict=True):
        if place == "L":
            made.append(Local(name).machine)
        else:
            made.append(net.spawn(making.make, name, process=int(place)))
    return made[0], made[1]


PLACES = ["00", "01", "0L", "L0"]


def _add(machine: MachineAPI, *states: str, **args: object) -> None:
    assert machine.add(*states, **args)


@pytest.mark.parametrize("places", PLACES)
def test_a_pipe_follows_its_state_with_args(net: Network, places: str) -> None:
    source, target = _ends(net, places)
    link = pipe(source, "Foo", target, "Bar")
    for n in range(20):
        with_args = target.when_args("Bar", {"n": n})
        _add(source, "Foo", n=n)
        assert with_args.wait(PATIENCE)
        source.remove("Foo")
        assert target.when_not("Bar").wait(PATIENCE)
    link.close()
    assert link.closed
    link.close()
    _add(source, "Foo")
    again = pipe(source, "Hit", target, "Hit")
    _add(source, "Hit")
    assert target.when("Hit").wait(PATIENCE)
    assert not target.is_active("Bar")
    again.close()


@pytest.mark.parametrize("places", PLACES)
def test_only_activations_or_only_deactivations(net: Network, places: str) -> None:
    source, target = _ends(net, places)
    target.add("Bar")
    adds = pipe(source, "Foo", target, "Foo", on="add")
    with adds, pipe(source, "Bar", target, "Bar", on="remove"):
        for _ in range(2):
            _add(source, "Foo", "Bar")
            assert target.when("Foo").wait(PATIENCE)
            source.remove("Foo")
            source.remove("Bar")
            assert target.when_not("Bar").wait(PATIENCE)
        assert target.tick("Bar") == 2
        assert target.tick("Foo") == 1


@pytest.mark.parametrize("places", PLACES)
def test_what_is_active_is_brought_up(net: Network, places: str) -> None:
    source, target = _ends(net, places)
    _add(source, "Foo", "Bar", "Hit", "Done")
    pipe(source, "Bar", target, "Bar", sync=False)
    pipe(source, "Done", target, "Done", on="remove")
    pipe(source, "Hit", target, "Hit")
    pipe(source, "Foo", target, "Foo")
    assert target.when("Foo").wait(PATIENCE)
    _add(source, "Hit")
    assert target.when("Hit").wait(PATIENCE)
    assert target.clock()["Hit"] == 1
    assert set(target.active_states()) == {"Foo", "Hit"}


@pytest.mark.parametrize("places", PLACES)
def test_all_that_both_have_is_mirrored(net: Network, places: str) -> None:
    source, target = _ends(net, places)
    _add(source, "Foo")
    link = pipe_all(source, target)
    assert target.when("Foo").wait(PATIENCE)
    source.set("Bar", "Done")
    assert target.when("Bar", "Done").wait(PATIENCE)
    assert target.when_not("Foo").wait(PATIENCE)
    source.add_error(ValueError("mine"))
    source.remove("Bar")
    assert target.when_not("Bar").wait(PATIENCE)
    assert target.error is None
    link.close()


@pytest.mark.parametrize("places", PLACES)
def test_wrong_pipes_are_refused(net: Network, places: str) -> None:
    source, target = _ends(net, places)
    for names in (("Fooo", "Foo"), ("Foo", "Fooo")):
        with pytest.raises(UnknownStateError):
            pipe(source, names[0], target, names[1])
    with pytest.raises(ValueError, match="two machines"):
        pipe(source, "Foo", source, "Bar")
    with pytest.raises(ValueError, match="on must be"):
        pipe(source, "Foo", target, "Foo", on="set")  # type: ignore[arg-type]


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("first", [True, False])
def test_a_pipe_ends_with_either_end(net: Network, places: str, first: bool) -> None:
    source, target = _ends(net, places)
    link = pipe(source, "Foo", target, "Foo")
    gone, left = (source, target) if first else (target, source)
    gone.dispose()
    assert gone.when("Stuck").wait(PATIENCE)
    assert link.closed
    assert left.add("Foo")
    assert left.error is None
    assert pipe(source, "Foo", target, "Foo").closed


@pytest.mark.parametrize("places", ["01", "L0", "0L", "00"])
def test_many_events_arrive_in_order(net: Network, places: str) -> None:
    heard: list[object] = []
    source: MachineAPI = Machine(making.SCHEMA, id="s")
    if places[0] != "L":
        source = net.spawn(making.make, "s", process=int(places[0]))
    if places[1] == "L":
        target: MachineAPI = Machine(
            making.SCHEMA, id="t", handlers={"Hit_state": lambda event: heard.append(event.args)}
        )
    else:
        target = net.spawn(making.make, "t", process=int(places[1]))
    pipe(source, "Hit", target, "Hit")
    all_there = target.when_time({"Hit": 2 * MANY - 1})
    if isinstance(source, RemoteMachine):
        source.eval(making.hit_often)
    else:
        making.hit_often(source)  # type: ignore[arg-type]
    assert all_there.wait(PATIENCE)
    if isinstance(target, RemoteMachine):
        assert target.eval(making.in_order) == MANY
    else:
        assert [each["n"] for each in heard] == list(range(MANY))  # type: ignore[index]
    assert source.error is None


def test_several_sources_and_threads_feed_one_target(net: Network) -> None:
    target = net.spawn(making.make, "t", process=0)
    sources = [net.spawn(making.make, f"s{i}", process=i % 3) for i in range(4)]
    for each in sources:
        pipe(each, "Hit", target, "Hit")
    done = target.when_time({"Hit": 2 * 800 - 1})
    together(*(partial(each.eval, making.hit_some) for each in sources))
    assert done.wait(PATIENCE)


# Straight from process to process -------------------------------------------------------------


def test_a_pipe_goes_on_while_the_process_that_laid_it_is_stopped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    os.mkfifo(out)
    with making.program("pipes", str(out), temp=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "laid\n"
        making.stop(process.pid)
        try:
            assert out.read_text() == "done"  # of the target's handler
        finally:
            process.send_signal(signal.SIGCONT)
    out.unlink()


# Rings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", ["012", "000", "0L1", "001"])
def test_rings_do_not_echo(net: Network, places: str) -> None:
    ring: list[MachineAPI] = []
    for name, place in zip("abc", places, strict=True):
        if place == "L":
            ring.append(Machine(making.SCHEMA, id=name))
        else:
            ring.append(net.spawn(making.make, name, process=int(place)))
    for n, each in enumerate(ring):
        pipe_all(each, ring[(n + 1) % 3], "Foo", "Hit")
    for n in range(10):
        each = ring[n % 3]
        ticks = [other.when_ticks("Hit", 1) for other in ring]
        _add(each, "Hit")
        each.toggle("Foo")
        assert all(tick.wait(PATIENCE) for tick in ticks)
        for other in ring:
            wanted = other.when("Foo") if n % 2 == 0 else other.when_not("Foo")
            assert wanted.wait(PATIENCE)
    # Whatever echoed would pass here before this does.
    last = [other.when_args("Hit", {"last": 1}) for other in ring[1:]]
    _add(ring[0], "Hit", last=1)
    assert all(each.wait(PATIENCE) for each in last)
    for each in ring:
        if isinstance(each, RemoteMachine):
            each.sync()
        assert (each.tick("Hit"), each.tick("Foo")) == (2 * 11 - 1, 10)


# Causes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", ["00", "01", "0L"])
def test_the_cause_is_the_source(net: Network, places: str) -> None:
    source, target = _ends(net, places)
    causes: list[str] = []

    def hear(event: Event) -> None:
        cause = event.transition.cause
        causes.append("" if cause is None else cause.machine_id)

    target.on("Hit_state", hear)
    pipe(source, "Hit", target, "Hit")
    heard = target.when("Hit")
    _add(source, "Hit")
    assert heard.wait(PATIENCE)
    if isinstance(target, RemoteMachine):
        assert target.eval(making.causes) == ["s"]
    else:
        assert causes == ["s"]


def test_the_cause_is_the_source_from_here_to_elsewhere(net: Network) -> None:
    source, target = _ends(net, "L0")
    pipe(source, "Hit", target, "Hit")
    _add(source, "Hit")
    assert target.when("Hit").wait(PATIENCE)
    assert target.eval(making.causes) == ["s"]  # type: ignore[attr-defined]


# What can not be carried ----------------------------------------------------------------------


@pytest.mark.parametrize("places", ["01", "0L", "L0"])
def test_args_that_can_not_travel_are_told_to_the_source(net: Network, places: str) -> None:
    source, target = _ends(net, places)
    link = pipe(source, "Hit", target, "Hit")
    second = target.when_args("Hit", {"n": 2})
    if isinstance(source, RemoteMachine):
        source.eval(making.hit_unfit)
    else:
        making.hit_unfit(source)  # type: ignore[arg-type]
    assert second.wait(PATIENCE)
    assert target.tick("Hit") == 1
    assert source.when_error().wait(PATIENCE)
    if isinstance(source, RemoteMachine):
        assert "RemoteError: NotSerialisableError" in source.eval(making.error_of) or (
            "NotSerialisableError" in source.eval(making.error_of)
        )
    text = str(source.error)
    assert "Hit" in text
    assert "lock" in text
    assert not link.closed


def _limited(limit: int) -> Network:
    return Network(processes=2, outbox_limit=limit, call_timeout=PATIENCE)


@pytest.mark.parametrize("places", ["01", "L0"])
def test_a_stuck_target_is_told_to_the_source_once_the_outbox_is_full(places: str) -> None:
    with _limited(300) as small:
        source, target = _ends(small, places)
        link = pipe(source, "Hit", target, "Hit")
        _add(source, "Hit", n=0)
        assert target.when("Hit").wait(PATIENCE)
        process = small.processes[0 if places == "L0" else 1]
        making.stop(process.pid)
        failed = source.when_error()
        n = 1
        try:
            while not failed.is_set():
                assert n < 50_000
                for _ in range(100):
                    source.send("add", "Hit", n=n)
                    n += 1
                if isinstance(source, RemoteMachine):
                    source.sync()
                else:
                    assert source.when_queue_empty().wait(PATIENCE)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert "takes no more of Hit" in str(source.error)
        if isinstance(source, RemoteMachine):
            source.sync()  # the news of it are on the same link
        assert link.closed
        assert isinstance(target, RemoteMachine)
        kept = SEND_WINDOW + 300  # and one more, if the first was known to have been carried out
        assert target.when_time({"Hit": 2 * kept - 1}).wait(PATIENCE)
        source.remove("Exception")
        _add(source, "Hit", n=n)
        assert not source.is_active("Exception")
        target.sync(PATIENCE)
        assert kept <= target.eval(making.in_order, PATIENCE) <= kept + 1


def test_a_slow_reader_of_a_pipe_from_elsewhere_is_told_to_the_source() -> None:
    with _limited(300) as small:
        source = small.spawn(making.make, "s", process=0)
        gate = Gate()
        seen: list[object] = []

        def hit(event: Event) -> None:
            seen.append(event.args["n"])
            gate()

        target = Machine(
            making.SCHEMA, id="t", handlers={"Hit_state": hit}, queue_limit=10, handler_timeout=None
        )
        link = pipe(source, "Hit", target, "Hit")
        failed = source.when_error()
        n = 0
        while not failed.is_set():
            assert n < 50_000
            for _ in range(100):
                source.send("add", "Hit", n=n)
                n += 1
            source.sync()
        assert "PipeOverflowError" in source.eval(making.error_of)
        gate.open()
        while not link.closed:
            target.when_queue_empty().wait(PATIENCE)
        target.when_queue_empty().wait(PATIENCE)
        assert seen == list(range(len(seen)))
        assert 300 <= len(seen) < n


def test_the_queue_limit_of_the_target_drops_nothing(net: Network) -> None:
    source = net.spawn(making.make, "s", process=0)
    target = net.spawn(making.make_small, "t", process=1)
    pipe(source, "Hit", target, "Hit")
    done = target.when_time({"Hit": 2 * 200 - 1})
    source.eval(making.hit_some)
    assert done.wait(PATIENCE)
    local = Machine(making.SCHEMA, id="l", queue_limit=4)
    pipe(source, "Hit", local, "Hit")
    done = local.when_time({"Hit": 2 * 200 - 1})
    with busy(local):
        source.eval(making.hit_some)
    assert done.wait(PATIENCE)


# By hand --------------------------------------------------------------------------------------


def test_between_two_served_machines() -> None:
    source, target = Local("s"), Local("t")
    with (
        serve(source.machine, "tcp://127.0.0.1:0") as one,
        serve(target.machine, "tcp://127.0.0.1:0") as other,
        connect(one.address) as near,
        connect(other.address) as far,
    ):
        link = pipe(near, "Hit", far, "Hit")
        done = far.when_time({"Hit": 2 * 500 - 1})
        for n in range(500):
            source.machine.add("Hit", n=n)
        assert done.wait(PATIENCE)
        assert [args["n"] for args, _ in target.heard] == list(range(500))
        assert {cause for _, cause in target.heard} == {"s"}
        link.close()
        near.sync()
        source.machine.add("Hit", n=0)
        near.sync()
        far.sync()
        assert len(target.heard) == 500


def test_a_pipe_of_two_proxies_ends_with_the_connection_of_one() -> None:
    source, target = Local("s"), Local("t")
    with (
        serve(source.machine, "tcp://127.0.0.1:0") as one,
        serve(target.machine, "tcp://127.0.0.1:0") as other,
        connect(one.address) as near,
    ):
        with connect(other.address) as far:
            link = pipe(near, "Hit", far, "Hit")
        assert link.closed


def test_laying_and_closing_pipes_leaves_nothing(net: Network) -> None:
    source, target = _ends(net, "01")
    for _ in range(50):
        pipe(source, "Foo", target, "Foo").close()
    source.sync()  # type: ignore[attr-defined]
    assert source.eval(making.pipes_here) == 0  # type: ignore[attr-defined]
    links = [pipe(source, "Foo", target, "Foo") for _ in range(5)]
    assert source.eval(making.pipes_here) == 5  # type: ignore[attr-defined]
    target.dispose()
    assert all(each.closed for each in links)
    source.sync()  # type: ignore[attr-defined]
    assert source.eval(making.pipes_here) == 0  # type: ignore[attr-defined]
