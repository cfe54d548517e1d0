"""Of mutations that meet at a busy machine, none is left behind and none is mixed up."""

# ruff: noqa: SLF001 - these tests look behind the scenes

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from asyncmachine import Machine, Result, State, turns
from asyncmachine.oneshot import OneShot
from tests.interleavings.exploring import explore, known

if TYPE_CHECKING:
    from asyncmachine import Event, Schema


class Scene:
    """A machine, and what its threads got."""

    def __init__(self, schema: Schema, handlers: object = None) -> None:
        self.machine = Machine(schema, handlers=handlers)
        self.results: dict[str, Result] = {}
        self.heard: list[object] = []

    def rests(self) -> None:
        """Assert that nothing is left to be done."""
        assert self.machine.queue_length == 0
        assert self.machine._baton, "the turn has not been given back"
        for name, result in self.results.items():
            assert result.wait(timeout=0) in {Result.EXECUTED, Result.CANCELED}, name


def add(state: str, scene: Scene) -> None:
    scene.results[state] = scene.machine.add(state)


def add_and_wait(state: str, scene: Scene) -> None:
    scene.results[state] = scene.machine.add(state).wait()


TWO = known({"A": State(), "B": State()}, "add A", "add B")


def both_are_active(scene: Scene) -> None:
    scene.rests()
    assert scene.machine.time("A", "B") == (1, 1)
    assert scene.machine.is_active("A", "B")
    assert set(scene.results.values()) <= {Result.EXECUTED, Result.QUEUED}


def test_what_is_queued_as_a_drain_ends_is_carried_out_without_another_call() -> None:
    explore(
        lambda: Scene(TWO),
        partial(add, "A"),
        partial(add, "B"),
        holds=both_are_active,
        dpor=True,
    )


@pytest.mark.parametrize("kind", ["remove", "set"])
def test_the_same_for_other_kinds(kind: str) -> None:
    schema = known({"A": State(), "B": State()}, "add B", "remove A", "set A", "add A")

    def change(scene: Scene) -> None:
        scene.results[kind] = getattr(scene.machine, kind)("A")

    def the_other_is_active(scene: Scene) -> None:
        scene.rests()
        assert scene.machine.tick("B") in {1, 2}
        assert scene.machine.is_active("B") or kind == "set"

    explore(lambda: Scene(schema), change, partial(add, "B"), holds=the_other_is_active)


def test_the_same_for_a_queue_that_is_made_meanwhile_and_a_state_with_handlers() -> None:
    handlers = {"A_state": lambda event: None, "B_enter": lambda event: True}
    schema = known({"A": State(), "B": State()}, "add A", "add B", handlers=handlers)
    explore(
        lambda: Scene(schema, handlers), partial(add, "A"), partial(add, "B"), holds=both_are_active
    )


@pytest.mark.parametrize("call", ["add", "eval"])
def test_two_threads_never_have_the_turn_at_the_same_time(call: str) -> None:
    class Gated(Scene):
        """What is done with the turn waits for a gate, so that others could come in."""

        def __init__(self) -> None:
            super().__init__(TWO)
            self.gate = OneShot()
            self.machine.bind({"A_state": self.be_inside, "B_state": self.be_inside})

        def be_inside(self, event: object = None) -> None:
            assert "inside" not in self.heard
            self.heard.append("inside")
            self.gate.wait()
            self.heard.remove("inside")
            self.heard.append("left")

    def take_turn(state: str, scene: Gated) -> None:
        if call == "add":
            scene.machine.add(state)
        else:
            scene.machine.eval(scene.be_inside)

    def open_gate(scene: Gated) -> None:
        scene.gate._fire()

    def both_have_left(scene: Gated) -> None:
        scene.rests()
        assert scene.heard == ["left", "left"]
        assert not scene.machine.is_active("Exception")

    explore(
        Gated,
        partial(take_turn, "A"),
        partial(take_turn, "B"),
        open_gate,
        holds=both_have_left,
        drawn=0,
        every_order=True,
    )


def test_what_a_handler_queues_beside_another_thread_is_carried_out() -> None:
    def queue_another(event: Event) -> None:
        event.machine.add("C")

    handlers = {"A_state": queue_another}
    states = {"A": State(), "B": State(), "C": State()}
    schema = known(states, "add A", "add B", handlers=handlers)

    def all_are_active(scene: Scene) -> None:
        scene.rests()
        assert scene.machine.time("A", "B", "C") == (1, 1, 1)

    explore(
        lambda: Scene(schema, handlers), partial(add, "A"), partial(add, "B"), holds=all_are_active
    )


def test_every_caller_gets_the_result_of_its_own_mutation() -> None:
    schema = known({"A": State(), "B": State(require="C"), "C": State()}, "add A", "add B")

    def results_are_their_own(scene: Scene) -> None:
        scene.rests()
        assert scene.results["A"] == Result.EXECUTED
        assert scene.results["B"] == Result.CANCELED
        assert scene.results["B"].why == "B requires C, which is inactive"

    explore(
        lambda: Scene(schema),
        partial(add_and_wait, "A"),
        partial(add_and_wait, "B"),
        holds=results_are_their_own,
    )


def test_clocks_add_up_when_three_threads_call_one_multi_state() -> None:
    handlers = {"M_state": lambda event: None}
    schema = known({"M": State(multi=True)}, "add M", "add M", handlers=handlers)

    class Counting(Scene):
        def __init__(self) -> None:
            super().__init__(schema, {"M_state": lambda event: self.heard.append(event.args["n"])})

    def call(n: int, scene: Counting) -> None:
        scene.results[f"{n}"] = scene.machine.add("M", n=n)

    def each_has_counted(scene: Counting) -> None:
        scene.rests()
        assert {each.wait(timeout=0) for each in scene.results.values()} == {Result.EXECUTED}
        assert sorted(map(str, scene.heard)) == ["0", "1", "2"]
        assert scene.machine.tick("M") == 1 + 2 + 2

    explore(Counting, *(partial(call, n) for n in range(3)), holds=each_has_counted, drawn=20)


def test_a_thread_that_has_done_its_share_hands_over_to_a_background_thread() -> None:
    states = {"A": State(), "B": State(), "C": State()}
    schema = known(states, "add A", "add B", "add C")

    def add_two(scene: Scene) -> None:
        add("B", scene)
        add("C", scene)

    def all_are_active(scene: Scene) -> None:
        scene.rests()
        assert scene.machine.time("A", "B", "C") == (1, 1, 1)

    serve = turns.Turns._serve
    with patch.object(turns, "FAIR_SHARE", 1), patch.object(serve, "__defaults__", (1,)):
        explore(
            lambda: Scene(schema),
            partial(add, "A"),
            add_two,
            holds=all_are_active,
            background=True,
        )


def test_an_interrupted_thread_leaves_the_queue_in_other_hands() -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    handlers = {"A_enter": interrupt}
    schema = known({"A": State(), "B": State()}, "add B", handlers=handlers)

    def add_or_be_interrupted(state: str, scene: Scene) -> None:
        try:
            add(state, scene)
        except KeyboardInterrupt:
            scene.heard.append("interrupt")

    def the_other_is_served(scene: Scene) -> None:
        scene.rests()
        assert scene.heard == ["interrupt"]
        assert scene.machine.time("A", "B") == (0, 1)

    explore(
        lambda: Scene(schema, handlers),
        partial(add_or_be_interrupted, "A"),
        partial(add_or_be_interrupted, "B"),
        holds=the_other_is_served,
        background=True,
    )


def test_what_is_sent_to_the_background_is_carried_out_beside_a_mutation() -> None:
    def send(scene: Scene) -> None:
        scene.results["A"] = scene.machine.send("add", "A")

    explore(lambda: Scene(TWO), send, partial(add, "B"), holds=both_are_active, background=True)


def test_handlers_that_are_bound_beside_a_mutation_take_effect_without_another_call() -> None:
    def bind(scene: Scene) -> None:
        scene.machine.bind({"B_state": lambda event: scene.heard.append("B")})

    def they_hear(scene: Scene) -> None:
        scene.rests()
        scene.machine.add("B")
        assert scene.heard == ["B"]
        assert scene.machine.time("A", "B") == (1, 1)

    explore(lambda: Scene(TWO), bind, partial(add, "A"), holds=they_hear)


def test_a_dry_run_beside_a_mutation_is_answered_and_changes_nothing() -> None:
    schema = known({"A": State(remove="B"), "B": State(require="A")}, "add A", "add B")

    def ask(scene: Scene) -> None:
        scene.results["B"] = scene.machine.can_add("A")

    def it_was_answered(scene: Scene) -> None:
        scene.rests()
        assert scene.results["B"] == Result.EXECUTED
        assert scene.machine.time("A", "B") == (1, 0)

    explore(lambda: Scene(schema), ask, partial(add, "A"), holds=it_was_answered)


def test_who_waits_for_the_queue_to_be_drained_is_told() -> None:
    def wait(scene: Scene) -> None:
        assert scene.machine.when_queue_empty().wait()

    def it_was_told(scene: Scene) -> None:
        scene.rests()
        assert scene.machine.waiters_pending == 0

    explore(lambda: Scene(TWO), wait, partial(add, "A"), holds=it_was_told)


def test_who_waits_for_the_queue_as_a_busy_thread_comes_to_rest_is_told() -> None:
    class Held(Scene):
        def __init__(self) -> None:
            super().__init__(TWO)
            del self.machine._baton[0]  # as a thread does that carries something out

    def release(scene: Held) -> None:
        scene.machine._baton += [None]
        scene.machine._serve()

    def wait(scene: Held) -> None:
        assert scene.machine.when_queue_empty().wait()

    def it_was_told(scene: Held) -> None:
        scene.rests()
        assert scene.machine.waiters_pending == 0

    explore(Held, wait, release, holds=it_was_told)


def test_who_waits_for_a_queue_that_two_threads_fill_is_told() -> None:
    def wait(scene: Scene) -> None:
        assert scene.machine.when_queue_empty().wait()

    def it_was_told(scene: Scene) -> None:
        both_are_active(scene)
        assert scene.machine.waiters_pending == 0

    explore(
        lambda: Scene(TWO),
        wait,
        partial(add, "A"),
        partial(add, "B"),
        holds=it_was_told,
        drawn=60,
    )
