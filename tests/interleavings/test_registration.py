"""What is waited for while it happens: it is noticed, and once."""

# ruff: noqa: SLF001 - these tests look behind the scenes

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncmachine import Machine, Schema, State, StateContext, Waiter
from tests.interleavings.exploring import explore, known

if TYPE_CHECKING:
    from collections.abc import Callable


SCHEMA = known(
    {"A": State(remove="B"), "B": State(remove="A"), "C": State(), "M": State(multi=True)},
    "add A",
    "add B",
    "remove A",
    "add M",
    "add M",
)


class Scene:
    """A machine in which B is active, a waiter, and what was seen before and after."""

    def __init__(self, handlers: object = None, schema: Schema = SCHEMA) -> None:
        self.machine = Machine(schema, handlers=handlers)
        self.machine.add("B")
        self.waiter = Waiter()
        self.contexts: list[StateContext] = []
        self.ticks: list[int] = []


def activate(scene: Scene) -> None:
    scene.machine.add("A")


WAITERS: dict[str, Callable[[Machine], Waiter]] = {
    "when": lambda machine: machine.when("A"),
    "when_not": lambda machine: machine.when_not("B"),
    "when_any": lambda machine: machine.when_any("C", "A"),
    "when_tick": lambda machine: machine.when_tick("A", 1),
    "when_time": lambda machine: machine.when_time({"A": 1, "B": 2}),
    "when_query": lambda machine: machine.when_query(lambda clock: clock["A"] == 1),
}


@pytest.mark.parametrize("kind", WAITERS)
def test_a_waiter_made_during_the_transition_that_it_waits_for_is_set(kind: str) -> None:
    def wait(scene: Scene) -> None:
        scene.waiter = WAITERS[kind](scene.machine)
        assert scene.waiter.wait()

    def nothing_is_pending(scene: Scene) -> None:
        assert scene.waiter.is_set()
        assert not scene.waiter.canceled
        assert scene.machine.waiters_pending == 0

    explore(Scene, wait, activate, holds=nothing_is_pending)
    print(kind)


def test_the_same_when_handlers_run_and_others_wait_already() -> None:
    handlers = {"A_state": lambda event: None}
    schema = known({"A": State(), "B": State()}, "add A", "add B", handlers=handlers)

    class Busy(Scene):
        def __init__(self) -> None:
            super().__init__(handlers, schema)
            self.others = [self.machine.when("A"), self.machine.when("A", "B")]

    def wait(scene: Busy) -> None:
        scene.waiter = scene.machine.when("A")
        assert scene.waiter.wait()

    def all_are_set(scene: Busy) -> None:
        assert all(each.is_set() for each in scene.others)
        assert scene.machine.waiters_pending == 0

    explore(Busy, wait, activate, holds=all_are_set)


def test_two_waiters_that_two_threads_make_are_both_set() -> None:
    class Two(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.made: list[Waiter] = []

    def wait(scene: Two) -> None:
        waiter = scene.machine.when("A")
        scene.made.append(waiter)
        assert waiter.wait()

    def both_are_set(scene: Two) -> None:
        assert [each.is_set() for each in scene.made] == [True, True]
        assert scene.machine.waiters_pending == 0

    explore(Two, wait, wait, activate, holds=both_are_set, drawn=60)


def test_a_waiter_for_what_has_passed_stays_pending() -> None:
    def wait_for_another_tick(scene: Scene) -> None:
        scene.ticks.append(scene.machine.tick("A"))
        scene.waiter = scene.machine.when_ticks("A", 1)
        scene.ticks.append(scene.machine.tick("A"))

    def it_counts_from_its_making(scene: Scene) -> None:
        before, after = scene.ticks
        if before == after:  # it was made before the activation, or after it
            assert scene.waiter.is_set() == (before == 0)
        scene.machine.remove("A")
        assert scene.waiter.is_set()
        assert scene.machine.waiters_pending == 0

    explore(Scene, wait_for_another_tick, activate, holds=it_counts_from_its_making)


def test_an_activation_with_args_sets_who_waited_before_it_and_nobody_else() -> None:
    def wait_for_args(scene: Scene) -> None:
        scene.ticks.append(scene.machine.tick("M"))
        scene.waiter = scene.machine.when_args("M", {"id": 1})
        scene.ticks.append(scene.machine.tick("M"))

    def activate_with_args(scene: Scene) -> None:
        scene.machine.add("M", id=1, text="first")

    def it_counts_from_its_making(scene: Scene) -> None:
        waiter = scene.waiter
        before, after = scene.ticks
        if before == after:
            assert waiter.is_set() == (before == 0)
        text = "first" if waiter.is_set() else "second"
        scene.machine.add("M", id=2, text="other")
        scene.machine.add("M", id=1, text="second")
        assert waiter.is_set()
        assert waiter.args == {"id": 1, "text": text}
        assert scene.machine.waiters_pending == 0

    explore(Scene, wait_for_args, activate_with_args, holds=it_counts_from_its_making)


def test_two_waiters_for_args_get_each_its_own() -> None:
    class Two(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.machine.when_args("M", {"id": 1})
            self.second = self.machine.when_args("M", {"id": 2})

    def call(number: int, scene: Two) -> None:
        scene.machine.add("M", id=number)

    def each_has_its_own(scene: Two) -> None:
        assert (scene.first.args, scene.second.args) == ({"id": 1}, {"id": 2})

    explore(Two, lambda s: call(1, s), lambda s: call(2, s), holds=each_has_its_own)


def get_context(scene: Scene) -> None:
    scene.contexts.append(scene.machine.state_ctx("B"))


def reactivate(scene: Scene) -> None:
    scene.machine.add("A")
    scene.machine.add("B")


def contexts_tell_the_truth(scene: Scene) -> None:
    for ctx in scene.contexts:
        lives = ctx.tick == scene.machine.tick("B") and scene.machine.is_active("B")
        assert ctx.expired == (not lives)
    scene.machine.remove("B")
    assert all(ctx.expired for ctx in scene.contexts)


def test_a_context_made_while_its_activation_ends_expires() -> None:
    explore(Scene, get_context, activate, holds=contexts_tell_the_truth)


def test_a_context_made_while_its_state_is_activated_again_belongs_to_one_activation() -> None:
    explore(Scene, get_context, reactivate, holds=contexts_tell_the_truth)


def test_contexts_that_two_threads_make_while_their_activation_ends_expire() -> None:
    explore(Scene, get_context, get_context, activate, holds=contexts_tell_the_truth, drawn=60)


def test_a_context_made_while_another_one_of_its_state_expires_expires_too() -> None:
    class Known(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.contexts.append(self.machine.state_ctx("B"))

    explore(Known, get_context, reactivate, holds=contexts_tell_the_truth)


def test_a_context_made_while_those_of_the_last_activation_are_swept_out_is_kept() -> None:
    class Swept(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.machine.add("M")
            self.old = self.machine.state_ctx("M")
            index, self.machine._index = self.machine._index, None
            self.machine.add("M")  # now it is published, and contexts do not know yet
            self.machine._index = index

    def sweep(scene: Swept) -> None:
        scene.machine._waiters().expire(-1)

    def get(scene: Swept) -> None:
        scene.contexts.append(scene.machine.state_ctx("M"))

    def the_new_one_lives_on(scene: Swept) -> None:
        assert scene.old.expired
        assert not scene.contexts[0].expired
        scene.machine.remove("M")
        assert scene.contexts[0].expired

    explore(Swept, get, sweep, holds=the_new_one_lives_on)


def test_a_waiter_that_is_bound_to_a_context_while_that_expires_is_canceled() -> None:
    class Bound(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.contexts.append(self.machine.state_ctx("B"))

    def wait(scene: Bound) -> None:
        scene.waiter = scene.machine.when("C", ctx=scene.contexts[0])
        assert scene.waiter.wait()

    def it_is_canceled(scene: Bound) -> None:
        assert scene.waiter.canceled
        assert scene.machine.waiters_pending == 0

    explore(Bound, wait, activate, holds=it_is_canceled)


def test_a_callback_of_a_context_runs_once_however_it_meets_the_end() -> None:
    class Told(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.contexts.append(self.machine.state_ctx("B"))
            self.told: list[StateContext] = []

    def listen(scene: Told) -> None:
        scene.contexts[0].on_expire(scene.told.append)

    def it_ran_once(scene: Told) -> None:
        assert scene.told == scene.contexts

    explore(Told, listen, activate, holds=it_ran_once)
