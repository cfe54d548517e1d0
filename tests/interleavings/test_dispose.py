"""Whatever meets the disposal of its machine ends, and no thread waits for ever."""

# ruff: noqa: SLF001 - these tests look behind the scenes

from __future__ import annotations

import pytest

from asyncmachine import Machine, MachineError, Result, State, StateContext, Tracer, Waiter
from tests.interleavings.exploring import explore, known

SCHEMA = known({"A": State(), "B": State()}, "add A", "add B")


class Scene:
    """A machine that one of the threads disposes."""

    def __init__(self) -> None:
        self.machine = Machine(SCHEMA)
        self.machine.add("B")
        self.results: list[Result] = []
        self.waiters: list[Waiter] = []
        self.contexts: list[StateContext] = []
        self.told: list[Machine] = []


def dispose(scene: Scene) -> None:
    scene.machine.dispose()
    assert scene.machine.is_disposed


def all_has_ended(scene: Scene) -> None:
    assert scene.machine.is_disposed
    assert scene.machine.add("A").why == "the machine is disposed"
    assert scene.machine.queue_length == 0
    assert scene.machine.waiters_pending == 0
    assert all(each.is_set() for each in scene.waiters)
    assert all(each.expired for each in scene.contexts)
    done = scene.machine.is_active("A")
    assert [bool(each.wait(timeout=0)) for each in scene.results] == [done] * len(scene.results)


def test_a_mutation_is_executed_or_canceled() -> None:
    def add(scene: Scene) -> None:
        scene.results.append(scene.machine.add("A").wait())

    explore(Scene, add, dispose, holds=all_has_ended)


def test_mutations_of_two_threads_are_executed_or_canceled() -> None:
    def add(scene: Scene) -> None:
        scene.results.append(scene.machine.add("A", by="one").wait())

    def remove(scene: Scene) -> None:
        assert scene.machine.remove("B", by="another").wait() is not None

    explore(Scene, add, remove, dispose, holds=all_has_ended, drawn=20)


@pytest.mark.parametrize("kind", ["when", "when_disposed", "when_queue_empty", "when_query"])
def test_a_waiter_that_is_made_meanwhile_is_set(kind: str) -> None:
    def wait(scene: Scene) -> None:
        machine = scene.machine
        if kind == "when":
            waiter = machine.when("A")
        elif kind == "when_query":
            waiter = machine.when_query(lambda clock: clock["A"] == 1)
        else:
            waiter = getattr(machine, kind)()
        scene.waiters.append(waiter)
        assert waiter.wait()

    explore(Scene, wait, dispose, holds=all_has_ended)
    print(kind)


def test_a_waiter_that_was_made_before_is_set_once() -> None:
    class Waiting(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.waiters = [self.machine.when("A")]
            self.set: list[bool] = []
            self.waiters[0].on_done(lambda waiter: self.set.append(waiter.disposed))

    def add(scene: Waiting) -> None:
        scene.machine.add("A")

    def one_has_decided(scene: Waiting) -> None:
        all_has_ended(scene)
        assert scene.set == [not scene.machine.is_active("A")]

    explore(Waiting, add, dispose, holds=one_has_decided)


def test_a_context_that_is_made_meanwhile_expires() -> None:
    def get_context(scene: Scene) -> None:
        scene.contexts.append(scene.machine.state_ctx("B"))

    explore(Scene, get_context, dispose, holds=all_has_ended)


def test_a_waiter_bound_to_the_lifetime_is_set() -> None:
    def wait(scene: Scene) -> None:
        waiter = scene.machine.when("A", ctx=scene.machine.lifetime())
        scene.waiters.append(waiter)
        assert waiter.wait()

    explore(Scene, wait, dispose, holds=all_has_ended)


def test_a_dry_run_and_an_eval_are_answered() -> None:
    def ask(scene: Scene) -> None:
        assert scene.machine.can_add("A") in {Result.EXECUTED, Result.CANCELED}

    def evaluate(scene: Scene) -> None:
        assert scene.machine.eval(lambda: 6 * 7) == 42

    explore(Scene, ask, dispose, holds=all_has_ended)
    explore(Scene, evaluate, dispose, holds=all_has_ended)


def test_a_callback_that_is_added_meanwhile_runs_once() -> None:
    def listen(scene: Scene) -> None:
        scene.machine.on_dispose(scene.told.append)

    def it_has_run(scene: Scene) -> None:
        all_has_ended(scene)
        assert scene.told == [scene.machine]

    explore(Scene, listen, dispose, holds=it_has_run)


def test_two_threads_dispose_once() -> None:
    class Told(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.machine.on_dispose(self.told.append)

    def it_has_run_once(scene: Scene) -> None:
        all_has_ended(scene)
        assert scene.told == [scene.machine]

    explore(Told, dispose, dispose, holds=it_has_run_once)


class Listening(Tracer):
    """Takes note of disposals."""

    def __init__(self, told: list[Machine]) -> None:
        self.told = told

    def machine_dispose(self, mach: Machine) -> None:
        self.told.append(mach)


class Held(Scene):
    """The same, while a thread has the machine's turn; `release` is what it does next."""

    def __init__(self) -> None:
        super().__init__()
        self.machine.add_tracer(Listening(self.told))
        del self.machine._baton[0]


def release(scene: Held) -> None:
    scene.machine._baton += [None]
    scene.machine._serve()


def dispose_in_time(scene: Scene) -> None:
    scene.machine.dispose(timeout=1)


def it_was_disposed_once(scene: Held) -> None:
    assert scene.told == [scene.machine]
    all_has_ended(scene)


def test_a_disposal_whose_time_is_up_happens_once_all_the_same() -> None:
    explore(Held, dispose_in_time, release, holds=it_was_disposed_once, timers=True)


@pytest.mark.parametrize("call", ["add", "can_add"])
def test_who_asks_a_stuck_machine_as_it_is_disposed_is_refused(call: str) -> None:
    def ask(scene: Held) -> None:
        scene.results.append(getattr(scene.machine, call)("A").wait())

    def it_was_refused(scene: Held) -> None:
        assert scene.told == [scene.machine]
        assert scene.machine.waiters_pending == 0
        assert scene.results == [Result.CANCELED]

    explore(Held, dispose_in_time, ask, holds=it_was_refused, timers=True)


class Parent(Scene):
    """A machine with children that it does not know of when its disposal begins."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[Machine] = []

    def build(self) -> None:
        try:
            self.children.append(Machine(SCHEMA, parent=self.machine))
        except MachineError:
            pass


def no_child_lives(scene: Parent) -> None:
    all_has_ended(scene)
    assert all(child.is_disposed for child in scene.children)
    assert scene.machine.children == ()


def test_a_child_that_is_built_meanwhile_is_refused_or_disposed() -> None:
    explore(Parent, Parent.build, dispose, holds=no_child_lives, background=True, drawn=0)


def test_all_children_that_were_built_meanwhile_are_disposed() -> None:
    class Late(Parent):
        def __init__(self) -> None:
            super().__init__()
            self.build()
            self.build()

    def retire(scene: Late) -> None:
        scene.machine._retire()  # as dispose() does when it has disposed who was there

    explore(Late, retire, holds=no_child_lives, background=True)


def test_a_child_and_its_parent_are_disposed_by_two_threads() -> None:
    class Family(Parent):
        def __init__(self) -> None:
            super().__init__()
            self.build()

    def dispose_child(scene: Family) -> None:
        scene.children[0].dispose()
        assert scene.children[0].is_disposed

    explore(Family, dispose_child, dispose, holds=no_child_lives, background=True, drawn=0)


def test_a_mutation_that_is_sent_to_the_background_is_executed_or_canceled() -> None:
    def send(scene: Scene) -> None:
        scene.results.append(scene.machine.send("add", "A"))

    explore(Scene, send, dispose, holds=all_has_ended, background=True, drawn=0)


def test_two_machines_whose_threads_dispose_each_other_end() -> None:
    class Two(Scene):
        def __init__(self) -> None:
            super().__init__()
            self.other = Machine(SCHEMA)
            self.machine.bind({"A_state": lambda event: self.other.dispose()})
            self.other.bind({"A_state": lambda event: self.machine.dispose()})

    def neither_waits(scene: Two) -> None:
        assert scene.machine.is_disposed or scene.other.is_disposed
        assert scene.machine.queue_length == scene.other.queue_length == 0

    explore(
        Two,
        lambda scene: scene.machine.add("A"),
        lambda scene: scene.other.add("A"),
        holds=neither_waits,
    )
