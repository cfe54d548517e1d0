"""What happens once wakes every sleeper and runs every callback, whoever comes first."""

# ruff: noqa: SLF001 - these tests look behind the scenes

from __future__ import annotations

from functools import partial

from asyncmachine import Machine, State, Waiter, wait_all, wait_any
from asyncmachine.oneshot import OneShot
from tests.interleavings.exploring import explore, known


class Scene:
    """Something that happens, and what was heard of it."""

    def __init__(self) -> None:
        self.event = OneShot()
        self.heard: list[OneShot] = []
        self.woken: list[bool] = []


def fire(scene: Scene) -> None:
    scene.event._fire()


def wait(scene: Scene) -> None:
    scene.woken.append(scene.event.wait())


def wait_in_time(scene: Scene) -> None:
    scene.woken.append(scene.event.wait(timeout=1))


def listen(scene: Scene) -> None:
    scene.event._add_callback(scene.heard.append)


def nobody_sleeps(scene: Scene) -> None:
    assert not scene.event._sleepers


def test_a_thread_that_waits_wakes() -> None:
    def it_woke(scene: Scene) -> None:
        nobody_sleeps(scene)
        assert scene.woken == [True]

    explore(Scene, wait, fire, holds=it_woke, dpor=True)


def test_two_threads_that_wait_wake() -> None:
    def both_woke(scene: Scene) -> None:
        nobody_sleeps(scene)
        assert scene.woken == [True, True]

    explore(Scene, wait, wait, fire, holds=both_woke, every_order=True)


def test_a_thread_that_waits_no_longer_leaves_nothing_behind() -> None:
    def it_is_gone(scene: Scene) -> None:
        nobody_sleeps(scene)
        assert len(scene.woken) == 1

    explore(Scene, wait_in_time, fire, holds=it_is_gone, timers=True)


def test_a_callback_runs_once() -> None:
    def it_ran(scene: Scene) -> None:
        assert scene.heard == [scene.event]

    explore(Scene, listen, fire, holds=it_ran, dpor=True)
    explore(Scene, listen, fire, fire, holds=it_ran, every_order=True)


def test_two_threads_that_run_callbacks_run_each_of_them_once() -> None:
    class Heard(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []
            for name in "ab":
                self.event._add_callback(partial(self.hear, name))

        def hear(self, name: str, event: OneShot) -> None:
            self.names.append(name)

    def each_ran_once(scene: Heard) -> None:
        assert sorted(scene.names) == ["a", "b"]

    explore(Heard, fire, fire, holds=each_ran_once, dpor=True)


def test_two_callbacks_run_once_each() -> None:
    def both_ran(scene: Scene) -> None:
        assert scene.heard == [scene.event, scene.event]

    explore(Scene, listen, listen, fire, holds=both_ran, every_order=True)


SCHEMA = known({"A": State(), "B": State()}, "add A", "add B")


class Two:
    """Two machines, a waiter of each, and what the wait for both gave."""

    def __init__(self) -> None:
        self.machines = [Machine(SCHEMA), Machine(SCHEMA)]
        self.waiters = [machine.when("A") for machine in self.machines]
        self.found: list[Waiter | None] = []

    def nobody_sleeps(self) -> None:
        assert not any(each._sleepers for each in self.waiters)


def add(number: int, scene: Two) -> None:
    scene.machines[number].add("A")


def wait_for_any(scene: Two) -> None:
    scene.found.append(wait_any(*scene.waiters))


def test_one_of_two_waiters_that_two_threads_set_is_found() -> None:
    def it_is_set(scene: Two) -> None:
        scene.nobody_sleeps()
        assert scene.found[0] in scene.waiters

    explore(Two, wait_for_any, partial(add, 0), partial(add, 1), holds=it_is_set)


def test_the_only_one_that_is_set_is_found() -> None:
    def it_is_the_second(scene: Two) -> None:
        scene.nobody_sleeps()
        assert scene.found == [scene.waiters[1]]

    explore(Two, wait_for_any, partial(add, 1), holds=it_is_the_second, dpor=True)


def test_two_threads_that_wait_for_the_same_two_wake() -> None:
    def both_woke(scene: Two) -> None:
        scene.nobody_sleeps()
        assert scene.found == [scene.waiters[1]] * 2

    explore(Two, wait_for_any, wait_for_any, partial(add, 1), holds=both_woke, drawn=30)


def test_all_of_two_waiters_that_two_threads_set_are_waited_for() -> None:
    def wait_for_all(scene: Two) -> None:
        assert wait_all(*scene.waiters)
        assert all(each.is_set() for each in scene.waiters)

    explore(Two, wait_for_all, partial(add, 0), partial(add, 1), holds=Two.nobody_sleeps)


def test_a_wait_for_any_that_runs_out_of_time_may_come_too_late_but_not_amiss() -> None:
    def wait_in_time(scene: Two) -> None:
        found = wait_any(*scene.waiters, timeout=1)
        assert found is None or found.is_set()

    explore(Two, wait_in_time, partial(add, 0), holds=Two.nobody_sleeps, timers=True)


def test_waiters_of_one_machine_that_one_transition_sets_are_found() -> None:
    class One(Two):
        def __init__(self) -> None:
            super().__init__()
            self.waiters = [self.machines[0].when("A"), self.machines[0].when_tick("A", 1)]

    def it_is_set(scene: One) -> None:
        assert scene.found[0] in scene.waiters
        assert all(each.is_set() for each in scene.waiters)

    explore(One, wait_for_any, partial(add, 0), holds=it_is_set)
