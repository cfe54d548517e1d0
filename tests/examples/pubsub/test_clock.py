from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmachine import Event, Machine, State, pipe
from examples.pubsub.clock import Timer, VirtualClock, WallClock
from tests.races import PATIENCE, Gate, outcome, start, switching_often, together


def _note(noted: list[tuple[float, int]], clock: VirtualClock, number: int) -> None:
    noted.append((clock.now(), number))


def noting(clock: VirtualClock) -> tuple[list[tuple[str, float]], Callable[[str], object]]:
    """Give a list, and what puts a name and the time into it."""
    noted: list[tuple[str, float]] = []
    return noted, lambda name: noted.append((name, clock.now()))


# Virtual time --------------------------------------------------------------------------------


def test_virtual_calls_are_made_in_the_order_of_their_times() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    for name, delay in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        clock.call_later(delay, partial(note, name))

    clock.run(10.0)

    assert noted == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    assert clock.now() == 10.0


def test_virtual_calls_of_one_time_are_made_in_the_order_in_which_they_were_asked_for() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    clock.call_later(1.0, partial(clock.call_later, 1.0, lambda: note("later asked")))
    for number in range(50):
        clock.call_later(2.0, partial(note, str(number)))

    clock.run(2.0)

    assert noted == [(str(number), 2.0) for number in range(50)] + [("later asked", 2.0)]


@given(st.lists(st.floats(0, 100), max_size=30))
def test_virtual_time_never_goes_back_and_each_call_is_made_once(delays: list[float]) -> None:
    clock = VirtualClock()
    noted: list[tuple[float, int]] = []
    for number, delay in enumerate(delays):
        clock.call_later(delay, partial(_note, noted, clock, number))

    clock.run(100.0)

    assert noted == sorted((delay, number) for number, delay in enumerate(delays))


def test_what_is_due_at_the_end_is_called_and_what_is_not_waits_for_the_next_run() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    clock.call_later(5.0, lambda: note("due"))
    clock.call_later(5.5, lambda: note("not yet"))

    clock.run(5.0)
    assert noted == [("due", 5.0)]
    clock.run(6.0)
    assert noted == [("due", 5.0), ("not yet", 5.5)]


def test_a_run_to_an_earlier_time_does_not_turn_the_virtual_clock_back() -> None:
    clock = VirtualClock()
    clock.run(5.0)

    clock.run(3.0)

    assert clock.now() == 5.0


def test_delays_count_from_the_virtual_now() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    clock.run(2.0)
    clock.call_later(1.0, partial(clock.call_later, 1.0, lambda: note("second")))

    clock.run(9.0)

    assert noted == [("second", 4.0)]


def test_call_soon_comes_before_all_later_times_and_after_what_was_asked_for_before() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)

    def first() -> None:
        note("first")
        clock.call_soon(lambda: note("soon"))
        clock.call_later(0.5, lambda: note("later"))

    clock.call_later(1.0, first)
    clock.call_later(1.0, lambda: note("of the same time"))
    clock.run(9.0)

    assert noted == [("first", 1.0), ("of the same time", 1.0), ("soon", 1.0), ("later", 1.5)]


def test_a_canceled_virtual_call_is_not_made() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    timers = [clock.call_later(1.0, partial(note, str(number))) for number in range(4)]
    timers[0].cancel()
    timers[2].cancel()
    clock.call_later(0.5, timers[3].cancel)

    clock.run(9.0)

    assert noted == [("1", 1.0)]


def test_a_call_may_cancel_the_next_one_of_its_time() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    timers: list[Timer] = []
    clock.call_later(1.0, lambda: timers[0].cancel())  # noqa: PLW0108 - it comes later
    timers.append(clock.call_later(1.0, lambda: note("never")))

    clock.run(1.0)

    assert noted == []


def test_canceling_what_has_been_called_changes_nothing() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    timer = clock.call_later(1.0, lambda: note("once"))
    clock.run(1.0)

    timer.cancel()
    clock.run(9.0)

    assert noted == [("once", 1.0)]


def test_keep_on_is_asked_before_each_call_and_may_end_the_run_there() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    asked: list[float] = []
    for delay in (1.0, 2.0, 3.0):
        clock.call_later(delay, lambda: note("call"))

    def keep_on(time: float) -> bool:
        asked.append(time)
        return time < 2.5

    clock.run(9.0, keep_on=keep_on)

    assert asked == [1.0, 2.0, 3.0]
    assert noted == [("call", 1.0), ("call", 2.0)]
    assert clock.now() == 2.0
    clock.run(9.0)
    assert noted[2:] == [("call", 3.0)]


def test_what_keep_on_cancels_is_not_called() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    timer = clock.call_later(1.0, lambda: note("never"))

    def keep_on(time: float) -> bool:
        timer.cancel()
        return True

    clock.call_later(2.0, lambda: note("second"))
    clock.run(9.0, keep_on=keep_on)

    assert noted == [("second", 2.0)]


def test_pipes_and_forks_are_carried_out_before_the_next_virtual_call_on_the_same_thread() -> None:
    clock = VirtualClock()
    threads: list[int] = []
    source, target = (Machine({"Foo": State(multi=True)}) for _ in range(2))
    pipe(source, "Foo", target, "Foo")

    def fork(event: Event) -> None:
        event.fork(lambda ctx: threads.append(threading.get_ident()))

    target.bind({"Foo_state": fork})
    ticks: list[int] = []
    clock.call_later(1.0, lambda: source.add("Foo"))
    clock.call_later(1.0, lambda: ticks.append(target.tick("Foo")))
    clock.run(2.0)

    assert ticks == [1]
    assert threads == [threading.get_ident()]


def test_an_error_in_a_virtual_call_ends_the_run_and_the_next_run_goes_on() -> None:
    clock = VirtualClock()
    noted, note = noting(clock)
    clock.call_later(1.0, lambda: int("none"))
    clock.call_later(2.0, lambda: note("after"))

    with pytest.raises(ValueError, match="none"):
        clock.run(9.0)
    clock.run(9.0)

    assert noted == [("after", 2.0)]


# The wall -------------------------------------------------------------------------------------


@pytest.fixture
def wall() -> Iterator[WallClock]:
    clock = WallClock()
    with switching_often():
        yield clock
    clock.close()


def all_done(clock: WallClock) -> None:
    """Wait until the clock has come to a call that is put in now."""
    done = threading.Event()
    clock.call_soon(done.set)
    assert done.wait(PATIENCE)


def test_wall_calls_are_made_in_the_order_of_their_times_on_a_thread_of_the_clock(
    wall: WallClock,
) -> None:
    noted: list[tuple[str, float, int]] = []
    done = threading.Event()

    def note(name: str) -> None:
        noted.append((name, wall.now(), threading.get_ident()))
        if name == "c":
            done.set()

    asked = wall.now()
    for name, delay in (("c", 0.03), ("a", 0.01), ("b", 0.02)):
        wall.call_later(delay, partial(note, name))

    assert done.wait(PATIENCE)
    assert [name for name, _, _ in noted] == ["a", "b", "c"]
    for (_, time, _), delay in zip(noted, (0.01, 0.02, 0.03)):
        assert time >= asked + delay  # never too early
    threads = {thread for _, _, thread in noted}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_earlier_call_is_not_kept_waiting_by_one_far_away(wall: WallClock) -> None:
    called = threading.Event()
    wall.call_later(3600.0, lambda: None)
    all_done(wall)

    wall.call_later(0.001, called.set)

    assert called.wait(PATIENCE)


def test_the_wall_clock_counts_from_its_beginning() -> None:
    began = monotonic() - 100.0
    clock = WallClock(began)
    before, now, after = monotonic(), clock.now(), monotonic()
    clock.close()

    assert before - began <= now <= after - began


def test_calls_that_are_wanted_soon_are_made_in_their_order(wall: WallClock) -> None:
    noted: list[int] = []
    for number in range(1000):
        wall.call_soon(partial(noted.append, number))
    all_done(wall)

    assert noted == list(range(1000))


def test_a_canceled_wall_call_is_not_made(wall: WallClock) -> None:
    noted: list[str] = []
    done = threading.Event()
    gate = Gate()
    wall.call_soon(gate)
    gate.await_reached()
    canceled = wall.call_later(0.0, lambda: noted.append("canceled"))
    wall.call_later(0.0, lambda: noted.append("kept"))
    wall.call_later(0.0, done.set)
    canceled.cancel()
    gate.open()

    assert done.wait(PATIENCE)
    assert noted == ["kept"]


def test_what_machines_do_in_consequence_of_a_wall_call_is_done_on_its_thread(
    wall: WallClock,
) -> None:
    ran: list[tuple[str, int]] = []
    machines = [Machine({"Foo": State(multi=True)}, id=str(number)) for number in range(4)]
    for source, target in itertools.pairwise(machines):
        pipe(source, "Foo", target, "Foo")

    def fork(event: Event) -> None:
        ran.append(("handler", threading.get_ident()))
        event.fork(lambda ctx: ran.append(("fork", threading.get_ident())))

    machines[-1].bind({"Foo_state": fork})
    clock_thread: list[int] = []

    def call() -> None:
        clock_thread.append(threading.get_ident())
        machines[0].add("Foo")

    before = set(threading.enumerate())
    wall.call_soon(call)
    all_done(wall)

    assert ran == [("handler", clock_thread[0]), ("fork", clock_thread[0])]
    assert set(threading.enumerate()) <= before


def test_an_error_in_a_wall_call_is_logged_and_the_next_ones_are_made(
    wall: WallClock, caplog: pytest.LogCaptureFixture
) -> None:
    wall.call_soon(lambda: int("none"))
    wall.call_later(0.0, lambda: int("nor that"))
    all_done(wall)
    called = threading.Event()
    wall.call_later(0.001, called.set)

    assert called.wait(PATIENCE)
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert sorted(errors) == [
        "invalid literal for int() with base 10: 'none'",
        "invalid literal for int() with base 10: 'nor that'",
    ]


def test_closing_waits_for_the_call_that_is_made_and_makes_no_more() -> None:
    clock = WallClock()
    noted: list[str] = []
    gate = Gate()

    def call() -> None:
        gate()
        noted.append("first")

    clock.call_soon(call)
    gate.await_reached()
    closing = start(clock.close)
    assert not closing.done()
    gate.open()
    outcome(closing)
    after = list(noted)
    clock.call_soon(lambda: noted.append("too late"))
    clock.call_later(0.0, lambda: noted.append("too late"))

    assert noted == after == ["first"]


def test_a_clock_that_is_closed_in_one_of_its_calls_makes_no_more() -> None:
    clock = WallClock()
    noted: list[str] = []
    closed = threading.Event()

    def close() -> None:
        clock.close()
        clock.call_soon(lambda: noted.append("never"))
        closed.set()

    clock.call_soon(close)
    assert closed.wait(PATIENCE)
    clock.close()  # waits for its thread

    assert noted == []


def test_a_clock_that_sleeps_for_ever_is_closed_at_once() -> None:
    clock = WallClock()
    all_done(clock)
    outcome(start(clock.close))


def test_no_call_is_lost_or_made_twice_whoever_asks_for_it(wall: WallClock) -> None:
    """Each call is asked for while the clock falls asleep after the one before."""
    for _ in range(30):
        noted: list[tuple[str, int]] = []

        def ask(name: str, noted: list[tuple[str, int]] = noted) -> None:
            for number in range(20):
                called = threading.Event()

                def call(number: int = number, called: threading.Event = called) -> None:
                    noted.append((name, number))
                    called.set()

                if number % 2:
                    wall.call_soon(call)
                else:
                    wall.call_later(0.0, call)
                assert called.wait(PATIENCE), "the clock has slept through it"

        together(*[partial(ask, str(name)) for name in range(4)])

        assert sorted(noted) == [(str(n), i) for n in range(4) for i in range(20)]
        for name in range(4):
            assert [i for each, i in noted if each == str(name)] == list(range(20))


def test_closing_while_many_ask_never_hangs_and_nothing_is_called_afterwards() -> None:
    with switching_often():
        for _ in range(100):
            clock = WallClock()
            noted: list[int] = []
            stop = threading.Event()

            def ask(
                clock: WallClock = clock,
                noted: list[int] = noted,
                stop: threading.Event = stop,
            ) -> int:
                asked = 0
                while not stop.is_set() and asked < 200:
                    clock.call_soon(lambda: noted.append(1))
                    clock.call_later(0.0, lambda: noted.append(1))
                    asked += 2
                return asked

            def close(
                clock: WallClock = clock,
                noted: list[int] = noted,
                stop: threading.Event = stop,
            ) -> int:
                clock.close()
                made = len(noted)
                stop.set()
                return made

            made, *asked = together(close, ask, ask, until=stop)
            assert made == len(noted) <= sum(asked)
