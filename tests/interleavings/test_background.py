"""Background threads lose no work, and of a call and its deadline exactly one is first."""

# ruff: noqa: SLF001 - these tests look behind the scenes

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import patch

from asyncmachine import Machine, Result, State, threads, watchdog
from asyncmachine.threads import _Worker
from asyncmachine.watchdog import Watch, _Watchdog
from tests.interleavings.exploring import explore, known

if TYPE_CHECKING:
    from collections.abc import Callable


# The pool --------------------------------------------------------------------------------


class Hired(_Worker):
    """A background thread that one of the explored threads plays, by calling ``_live``."""

    __slots__ = ()

    def __init__(self) -> None:
        with patch.object(threading, "Thread"):
            super().__init__(lambda: None)


class Pool:
    """One background thread, and what was done."""

    def __init__(self) -> None:
        threads._idle.clear()
        self.worker = Hired()
        self.done: list[str] = []


def live(scene: Pool) -> None:
    scene.worker._live()


def give(name: str, scene: Pool) -> None:
    threads.run_elsewhere(partial(scene.done.append, name))


def start_another(work: Callable[[], object]) -> None:
    """Stand for the making of one more thread."""
    work()


def all_is_done(names: list[str], scene: Pool) -> None:
    assert sorted(scene.done) == names
    assert not threads._idle


def test_work_that_is_given_as_the_thread_retires_is_done() -> None:
    with patch.object(threads, "_Worker", start_another):
        explore(
            Pool,
            live,
            partial(give, "a"),
            holds=partial(all_is_done, ["a"]),
            real_pool=True,
            timers=True,
        )


def test_work_that_two_threads_give_is_done_once_each() -> None:
    with patch.object(threads, "_Worker", start_another):
        explore(
            Pool,
            live,
            partial(give, "a"),
            partial(give, "b"),
            holds=partial(all_is_done, ["a", "b"]),
            real_pool=True,
        )


# The watchdog ----------------------------------------------------------------------------


class Kennel:
    """A watchdog whose thread one of the explored threads plays."""

    def __init__(self) -> None:
        self.dog = _Watchdog()
        self.dog._thread = threading.current_thread()  # one that is alive
        self.late: list[str] = []
        self.in_time: list[bool] = []
        self.watches = {name: Watch(1, partial(self.late.append, name)) for name in "ab"}
        watchdog._watchdog = self.dog  # type: ignore[misc]


def call(name: str, scene: Kennel) -> None:
    watch = scene.watches[name]
    watch.start()
    scene.in_time.append(watch.stop())


def look(scene: Kennel) -> None:
    """Do twice what the watchdog does for ever."""
    for _ in range(2):
        for entry in scene.dog._overdue():
            entry.on_late()


def bark(scene: Kennel) -> None:
    """Do what the watchdog does for ever, until a call is late."""
    for _ in range(4):
        if not scene.late:
            look(scene)


def ring(scene: Kennel) -> None:
    """End the sleep of a watchdog that nobody would wake any more."""
    with scene.dog._bell:
        scene.dog._bell.notify()


def test_a_call_is_late_or_in_time() -> None:
    def call_and_ring(scene: Kennel) -> None:
        call("a", scene)
        ring(scene)

    def one_was_first(scene: Kennel) -> None:
        assert scene.in_time == [scene.late == []]
        assert not any(scene.dog._lanes.values())

    with patch.object(watchdog, "_watchdog"):
        explore(Kennel, look, call_and_ring, holds=one_was_first, timers=True)


def test_of_two_who_claim_a_watch_one_wins() -> None:
    def stop(scene: Kennel) -> None:
        scene.in_time.append(scene.watches["a"].stop())

    def claim(scene: Kennel) -> None:
        scene.in_time.append(scene.watches["a"].claim())

    def one_won(scene: Kennel) -> None:
        assert sorted(scene.in_time) == [False, True]

    with patch.object(watchdog, "_watchdog"):
        explore(Kennel, stop, claim, holds=one_won, dpor=True)


def test_a_watch_that_is_added_as_the_watchdog_falls_asleep_wakes_it() -> None:
    def start(scene: Kennel) -> None:
        scene.watches["a"].start()

    def it_barked(scene: Kennel) -> None:
        assert scene.late == ["a"]

    with patch.object(watchdog, "_watchdog"):
        explore(Kennel, start, bark, holds=it_barked)
        explore(Kennel, start, partial(call, "b"), bark, holds=it_barked, drawn=30)


def test_a_watch_that_is_added_as_an_empty_lane_is_thrown_away_is_kept() -> None:
    class Left(Kennel):
        def __init__(self) -> None:
            super().__init__()
            call("b", self)

    def start(scene: Left) -> None:
        scene.watches["a"].start()

    def it_barked(scene: Left) -> None:
        assert scene.late == ["a"]

    with patch.object(watchdog, "_watchdog"):
        explore(Left, start, bark, holds=it_barked)


# Both ------------------------------------------------------------------------------------


def test_a_handler_that_ends_as_it_is_late_settles_its_mutation_once() -> None:
    handlers = {"A_state": lambda event: None}
    schema = known({"A": State(), "B": State()}, "add A", "add B", handlers=handlers)

    class Late(Kennel):
        def __init__(self) -> None:
            super().__init__()
            self.machine = Machine(schema, handlers=handlers, handler_timeout=1)
            self.results: list[Result] = []

    def add(scene: Late) -> None:
        scene.results.append(scene.machine.add("A"))
        scene.results.append(scene.machine.add("B"))
        ring(scene)

    def it_was_settled(scene: Late) -> None:
        machine = scene.machine
        assert machine.queue_length == 0
        assert machine._baton == [None]
        assert machine.is_active("B")
        late = machine.is_active("Exception")
        assert machine.is_active("A") is not late
        assert scene.results[1].wait(timeout=0) == Result.EXECUTED

    with patch.object(watchdog, "_watchdog"):
        explore(Late, add, look, holds=it_was_settled, background=True, timers=True, drawn=0)
