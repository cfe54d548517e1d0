"""A thing that happens once: every race forced by an object that lets the other thread win."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import pytest

from asyncmachine.oneshot import OneShot, Sleeper, deadline_after, time_left
from tests.races import PATIENCE, outcome, start, switching_often, together


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


class Thing(OneShot):
    """One whose happening is at hand, and whose lists may be replaced by others."""

    def happen(self) -> None:
        self._fire()

    def then(self, callback: Callable[[Thing], object]) -> None:
        self._add_callback(callback)

    def add_sleeper(self, sleeper: Sleeper) -> None:
        self._add_sleeper(sleeper)

    def lie(self, *, sleepers: list[Sleeper] | None = None, callbacks: Any = None) -> None:
        if sleepers is not None:
            self._sleepers = sleepers
        if callbacks is not None:
            self._callbacks = callbacks

    def asleep(self) -> int:
        return len(self._sleepers or ())


class Eager(list[Any]):
    """A list that lets something happen just before, or just after, an element joins it."""

    def __init__(self, before: Callable[[], object], after: Callable[[], object]) -> None:
        super().__init__()
        self._before = before
        self._after = after

    def append(self, each: object) -> None:
        self._before()
        super().append(each)
        self._after()


def _nothing() -> None:
    pass


class GuardThatLosesTheRace:
    """Stands for the guard of list-making: another thread gets through just before us."""

    def __init__(self, first: Callable[[], object]) -> None:
        self._first = [first]
        self._real = threading.RLock()

    def __enter__(self) -> None:
        if self._first:
            self._first.pop()()
        self._real.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._real.release()


# Waiting --------------------------------------------------------------------------------------


def test_a_wait_ends_when_it_has_happened_before_meanwhile_or_after() -> None:
    thing = Thing()
    waits = [start(lambda: thing.wait(PATIENCE)) for _ in range(4)]
    thing.happen()

    assert [outcome(each) for each in waits] == [True] * 4
    assert thing.wait(0) is True
    assert thing.wait() is True


def test_a_wait_whose_time_runs_out_is_false_and_leaves_nothing_behind() -> None:
    thing = Thing()
    for _ in range(20):
        assert thing.wait(0) is False
        assert thing.wait(-1) is False
        assert thing.wait(0.0005) is False
    assert thing.asleep() == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_wake_up_is_lost_when_it_happens_as_a_sleeper_joins(when: str) -> None:
    thing = Thing()
    happen = thing.happen
    thing.lie(
        sleepers=Eager(
            happen if when == "before" else _nothing, happen if when == "after" else _nothing
        )
    )

    assert outcome(start(lambda: thing.wait(PATIENCE))) is True
    assert thing.asleep() == 0


def test_no_wake_up_is_lost_when_it_happens_as_the_list_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thing = Thing()
    monkeypatch.setattr("asyncmachine.oneshot.MAKING.now", GuardThatLosesTheRace(thing.happen))

    assert outcome(start(lambda: thing.wait(PATIENCE))) is True


def test_two_first_sleepers_share_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    thing = Thing()
    others: list[Any] = []

    def come_first() -> None:
        sleeper = Sleeper()
        thing.add_sleeper(sleeper)
        others.append(start(lambda: sleeper.sleep(PATIENCE)))

    monkeypatch.setattr("asyncmachine.oneshot.MAKING.now", GuardThatLosesTheRace(come_first))
    ours = Sleeper()
    thing.add_sleeper(ours)
    assert thing.asleep() == 2
    thing.happen()

    assert ours.sleep(PATIENCE)
    assert outcome(others[0])


def test_many_threads_wait_while_it_happens() -> None:
    for _ in range(150):
        thing = Thing()
        wait = partial(thing.wait, PATIENCE)
        assert together(wait, thing.happen, wait) == [True, None, True]


def test_it_may_happen_more_than_once_on_several_threads() -> None:
    thing = Thing()
    calls: list[Thing] = []
    thing.then(calls.append)
    together(*[thing.happen] * 4)

    assert calls == [thing]


# Callbacks ------------------------------------------------------------------------------------


def test_callbacks_are_called_in_order_and_those_that_come_later_at_once() -> None:
    thing = Thing()
    calls: list[object] = []

    def note(n: object, thing: Thing) -> None:
        calls.append(n)

    for n in range(3):
        thing.then(partial(note, n))
    thing.happen()
    thing.then(partial(note, "later"))

    assert calls == [0, 1, 2, "later"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_callback_that_is_added_as_it_happens_is_called_once(when: str) -> None:
    thing = Thing()
    calls: list[Thing] = []
    happen = thing.happen
    thing.lie(
        callbacks=Eager(
            happen if when == "before" else _nothing, happen if when == "after" else _nothing
        )
    )
    thing.then(calls.append)

    assert calls == [thing]


def test_a_first_callback_that_is_added_as_it_happens_is_called_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thing = Thing()
    calls: list[Thing] = []
    monkeypatch.setattr("asyncmachine.oneshot.MAKING.now", GuardThatLosesTheRace(thing.happen))
    thing.then(calls.append)

    assert calls == [thing]


def test_two_first_callbacks_are_both_called(monkeypatch: pytest.MonkeyPatch) -> None:
    thing = Thing()
    calls: list[str] = []

    def come_first() -> None:
        thing.then(lambda _: calls.append("theirs"))

    monkeypatch.setattr("asyncmachine.oneshot.MAKING.now", GuardThatLosesTheRace(come_first))
    thing.then(lambda _: calls.append("ours"))
    thing.happen()

    assert calls == ["theirs", "ours"]


class Taken(list[Any]):
    """Callbacks of which another thread takes the last one just before us."""

    def pop(self, at: Any = -1) -> Any:
        self.clear()
        return super().pop(at)


def test_a_callback_that_another_thread_has_taken_is_left_to_it() -> None:
    thing = Thing()
    calls: list[Thing] = []
    thing.lie(callbacks=Taken())
    thing.then(calls.append)
    thing.happen()

    assert calls == []


def test_callbacks_that_threads_add_while_it_happens_are_each_called_once() -> None:
    for _ in range(100):
        thing = Thing()
        calls: list[Thing] = []

        def add(thing: Thing = thing, calls: list[Thing] = calls) -> None:
            for _ in range(10):
                thing.then(calls.append)

        together(add, thing.happen, add)
        assert calls == [thing] * 20


def test_an_error_in_a_callback_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    thing = Thing()
    calls: list[Thing] = []

    def fail(thing: Thing) -> None:
        msg = "no luck"
        raise LookupError(msg)

    thing.then(fail)
    thing.then(calls.append)
    thing.happen()

    assert calls == [thing]
    assert "no luck" in caplog.text


def test_a_callback_may_wait_for_the_thing_itself() -> None:
    thing = Thing()
    calls: list[bool] = []
    thing.then(lambda each: calls.append(each.wait(PATIENCE)))
    thing.happen()

    assert calls == [True]


# Sleepers and deadlines -----------------------------------------------------------------------


def test_a_sleeper_that_is_woken_twice_or_before_it_sleeps_sleeps_no_more() -> None:
    sleeper = Sleeper()
    sleeper.wake()
    sleeper.wake()
    assert sleeper.sleep(PATIENCE) is True
    assert sleeper.sleep(0) is False
    sleeper.wake()
    assert sleeper.sleep() is True


def test_several_threads_may_wake_one_sleeper_at_once() -> None:
    for _ in range(150):
        sleeper = Sleeper()
        together(*[sleeper.wake] * 3)
        assert sleeper.sleep(PATIENCE)


@pytest.mark.parametrize("seconds", [1e10, float("inf")])
def test_a_time_out_that_no_lock_could_take_is_for_ever(seconds: float) -> None:
    thing = Thing()
    waiting = start(lambda: thing.wait(seconds))
    thing.happen()
    assert outcome(waiting) is True


def test_deadlines() -> None:
    assert deadline_after(None) is None
    assert time_left(None) is None
    assert time_left(deadline_after(-1)) == 0.0
    assert 0 < (time_left(deadline_after(100)) or 0) <= 100
