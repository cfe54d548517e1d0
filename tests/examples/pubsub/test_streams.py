from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncmachine import Event, Machine, Pipe, State
from examples.pubsub.args import args_of
from examples.pubsub.clock import VirtualClock
from examples.pubsub.streams import DeadEnd, DelayedStream, LocalStream, RemoteStream, Stream

_SCHEMA = {
    "IncomingRPC": State(multi=True),
    "PeersDead": State(multi=True),
    "To1": State(multi=True),
}


class End:
    """One end of a stream: a machine that keeps what it gets, and when.

    Attributes:
        came: sender and frame of all that has come.
        times: when that was.
        dead: peers that it was told are dead.

    """

    def __init__(self, name: str, clock: VirtualClock) -> None:
        self._clock = clock
        self.came: list[tuple[str, bytes]] = []
        self.times: list[float] = []
        self.dead: list[list[str]] = []
        self.machine = Machine(_SCHEMA, id=name, handlers=self)

    def IncomingRPC_state(self, event: Event) -> None:
        self.came.append((args_of(event)["peer"], args_of(event)["rpc"]))
        self.times.append(self._clock.now())

    def PeersDead_state(self, event: Event) -> None:
        self.dead.append(args_of(event)["peers"])


def at(clock: VirtualClock, *calls: Callable[[], object]) -> None:
    """Make calls on the clock, and work off all that comes of them at once."""
    for call in calls:
        clock.call_soon(call)
    clock.run(clock.now())


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def ends(clock: VirtualClock) -> tuple[End, End]:
    return End("a", clock), End("b", clock)


def test_frames_arrive_in_order_with_the_name_of_who_sent_them(
    clock: VirtualClock, ends: tuple[End, End]
) -> None:
    a, b = ends
    there, back = LocalStream(a.machine, b.machine), LocalStream(b.machine, a.machine)
    at(
        clock,
        *[partial(there.send, b"%d" % number) for number in range(20)],
        lambda: back.send(b"answer"),
    )

    assert b.came == [("a", b"%d" % number) for number in range(20)]
    assert a.came == [("b", b"answer")]


def test_a_stream_that_is_closed_has_said_so_and_is_dead_for_its_source(
    clock: VirtualClock, ends: tuple[End, End]
) -> None:
    a, b = ends
    stream = LocalStream(a.machine, b.machine)
    at(clock, lambda: stream.send(b"last"), stream.close, lambda: stream.send(b"too late"))

    assert b.came == [("a", b"last"), ("a", b"")]
    assert a.dead == [["b"]]


def test_a_target_that_is_gone_is_told_at_the_next_frame(
    clock: VirtualClock, ends: tuple[End, End]
) -> None:
    a, b = ends
    stream = LocalStream(a.machine, b.machine)
    at(clock, b.machine.dispose)
    assert a.dead == []

    at(clock, lambda: stream.send(b"hello?"))

    assert a.dead == [["b"]]
    assert b.came == []


def test_what_goes_to_a_dead_end_is_lost() -> None:
    stream: Stream = DeadEnd()
    stream.send(b"hello?")
    stream.close()


def test_a_delayed_frame_takes_its_time(clock: VirtualClock, ends: tuple[End, End]) -> None:
    a, b = ends
    stream = DelayedStream(LocalStream(a.machine, b.machine), clock, lambda: 0.25)
    stream.send(b"one")
    clock.run(0.125)
    stream.send(b"two")
    clock.run(0.24)
    assert b.came == []
    clock.run(1.0)

    assert b.came == [("a", b"one"), ("a", b"two")]
    assert b.times == [0.25, 0.375]


def test_what_is_under_way_arrives_also_if_its_sender_is_gone_by_then(
    clock: VirtualClock, ends: tuple[End, End]
) -> None:
    a, b = ends
    stream = DelayedStream(LocalStream(a.machine, b.machine), clock, lambda: 0.25)
    at(clock, lambda: stream.send(b"last words"), stream.close, a.machine.dispose)
    clock.run(1.0)

    assert b.came == [("a", b"last words"), ("a", b"")]


def test_a_quicker_frame_does_not_overtake(clock: VirtualClock, ends: tuple[End, End]) -> None:
    a, b = ends
    latencies = iter([0.5, 0.125, 2.0, 0.5])
    stream = DelayedStream(LocalStream(a.machine, b.machine), clock, lambda: next(latencies))
    stream.send(b"slow")
    stream.send(b"quick")
    clock.run(1.0)
    stream.send(b"slowest")
    stream.close()
    clock.run(9.0)

    assert b.came == [("a", b"slow"), ("a", b"quick"), ("a", b"slowest"), ("a", b"")]
    assert b.times == [0.5, 0.5, 3.0, 3.0]
    assert a.dead == []


_LEGS = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), min_size=2, max_size=12)


@given(_LEGS)
@example([(0.012, 0.333), (0.072, 0.0)])
def test_delayed_frames_stay_in_order_whatever_the_latencies(
    legs: list[tuple[float, float]],
) -> None:
    """Sums of seconds are rounded, which must not turn two frames around."""
    clock = VirtualClock()
    a, b = End("a", clock), End("b", clock)
    latencies = iter([*(latency for _, latency in legs), 0.0])
    stream = DelayedStream(LocalStream(a.machine, b.machine), clock, lambda: next(latencies))
    frames = [b"%d" % number for number in range(len(legs))]
    for (pause, _), frame in zip(legs, frames):
        clock.run(clock.now() + pause)
        stream.send(frame)
    stream.close()
    clock.run(99.0)

    assert [frame for _, frame in b.came] == [*frames, b""]
    assert a.dead == []


def test_a_farewell_takes_its_time_too(clock: VirtualClock, ends: tuple[End, End]) -> None:
    a, b = ends
    stream = DelayedStream(LocalStream(a.machine, b.machine), clock, lambda: 0.25)
    stream.close()
    clock.run(1.0)

    assert b.came == [("a", b"")]
    assert b.times == [0.25]


@pytest.mark.parametrize("farewell", [True, False])
@pytest.mark.parametrize("delayed", [True, False])
def test_a_stream_that_is_closed_leaves_nothing_at_its_machines(
    clock: VirtualClock, ends: tuple[End, End], delayed: bool, farewell: bool
) -> None:
    a, b = ends

    def use() -> None:
        stream: Stream = LocalStream(a.machine, b.machine)
        if delayed:
            stream = DelayedStream(stream, clock, lambda: 0.25)
        stream.send(b"last words")
        stream.close(farewell=farewell)

    at(clock, use)
    clock.run(1.0)
    assert b.came == [("a", b"last words"), *[("a", b"")] * farewell]
    gc.collect()

    pipes = [each for each in gc.get_objects() if isinstance(each, Pipe)]
    assert [pipe for pipe in pipes if pipe.source is a.machine] == []


def test_a_remote_stream_is_one_of_many_in_its_carrier(clock: VirtualClock) -> None:
    carried: list[dict[str, object]] = []
    carrier = Machine(_SCHEMA, id="site-0")
    carrier.on("To1_state", lambda event: carried.append(dict(event.args)))
    stream = RemoteStream(carrier, "To1", "a", 0, "b")
    other = RemoteStream(carrier, "To1", "c", 0, "b")
    at(clock, lambda: other.send(b"of another"), lambda: stream.send(b"hi"))
    at(clock, stream.close, lambda: stream.send(b"too late"))

    assert [(each["what"], each["site"], each["to"]) for each in carried] == [("rpc", 0, "b")] * 3
    assert [(each["peer"], each["rpc"]) for each in carried] == [
        ("c", b"of another"),
        ("a", b"hi"),
        ("a", b""),
    ]
