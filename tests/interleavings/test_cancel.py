"""Of a waiter's cancellation and what it waits for exactly one decides, and all wake."""

# ruff: noqa: SLF001 - these tests look behind the scenes

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from asyncmachine import Machine, State, as_future
from tests.interleavings.exploring import explore, known

if TYPE_CHECKING:
    from asyncmachine import StateContext, Waiter

SCHEMA = known({"A": State(), "B": State()}, "add A", "add B", "remove B")


class Scene:
    """A machine in which B is active, and a waiter for A."""

    def __init__(self) -> None:
        self.machine = Machine(SCHEMA)
        self.machine.add("B")
        self.waiter = self.machine.when("A", ctx=self.context())
        self.told: list[bool] = []
        self.waiter.on_done(self.tell)

    def context(self) -> StateContext | None:
        return None

    def tell(self, waiter: Waiter) -> None:
        assert waiter.is_set()
        self.told.append(waiter.canceled)


class Bound(Scene):
    """The same, with a context that cancels the waiter."""

    def context(self) -> StateContext:
        return self.machine.state_ctx("B")


def cancel(scene: Scene) -> None:
    scene.waiter.cancel()


def activate(scene: Scene) -> None:
    scene.machine.add("A")


def wait(scene: Scene) -> None:
    assert scene.waiter.wait()


def one_has_decided(scene: Scene) -> None:
    assert scene.waiter.is_set()
    assert scene.told == [scene.waiter.canceled]
    assert scene.machine.waiters_pending == 0
    assert scene.machine.is_active("A")


def test_a_waiter_is_canceled_or_set_but_not_both() -> None:
    explore(Scene, cancel, activate, holds=one_has_decided, dpor=True)


def test_a_thread_that_waits_wakes_whoever_decides() -> None:
    explore(Scene, wait, cancel, activate, holds=one_has_decided, drawn=50)


def test_who_cancels_twice_decides_once() -> None:
    def it_was_told_once(scene: Scene) -> None:
        assert scene.told == [True]

    explore(Scene, cancel, cancel, holds=it_was_told_once)


def test_a_context_that_expires_and_the_condition_do_not_both_decide() -> None:
    def deactivate(scene: Scene) -> None:
        scene.machine.remove("B")

    explore(Bound, deactivate, activate, cancel, holds=one_has_decided, drawn=30)


def test_a_callback_that_is_added_meanwhile_runs_once() -> None:
    def listen(scene: Scene) -> None:
        scene.waiter.on_done(scene.tell)

    def both_have_run(scene: Scene) -> None:
        assert scene.told == [scene.waiter.canceled] * 2
        assert scene.machine.waiters_pending == 0

    explore(Scene, listen, activate, holds=both_have_run)
    explore(Scene, listen, cancel, holds=both_have_run)


def test_a_first_callback_that_is_added_meanwhile_runs_once() -> None:
    class Unheard(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.waiter = self.machine.when("A")

    def listen(scene: Scene) -> None:
        scene.waiter.on_done(scene.tell)

    def it_has_run(scene: Scene) -> None:
        assert scene.told == [False, False]  # that of the first waiter, too
        assert scene.machine.waiters_pending == 0
        assert not scene.machine._waiters().held

    explore(Unheard, listen, activate, holds=it_has_run)


def test_a_future_ends_as_its_waiter_does() -> None:
    class Promised(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.future: Future[Waiter] = as_future(self.waiter)

    def give_up(scene: Promised) -> None:
        scene.future.cancel()

    def both_agree(scene: Promised) -> None:
        one_has_decided(scene)
        assert scene.future.done()
        assert scene.future.cancelled() or scene.future.result(timeout=0) is scene.waiter
        if scene.waiter.canceled:
            assert scene.future.cancelled()

    explore(Promised, give_up, activate, holds=both_agree)
