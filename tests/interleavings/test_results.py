"""The result of a queued mutation reaches everybody who waits for it."""

# ruff: noqa: SLF001 - these tests look behind the scenes

from __future__ import annotations

import pytest

from asyncmachine import Machine, Result, State
from asyncmachine.results import Canceled, Ticket
from tests.interleavings.exploring import explore, known

EXECUTED = Result.EXECUTED


class Scene:
    """A ticket, and what became of those who wait for its result."""

    def __init__(self) -> None:
        self.ticket = Ticket(self)
        self.result = self.ticket.result()
        self.found: list[Result] = []


def settle(scene: Scene) -> None:
    scene.ticket.settle(EXECUTED)


def wait(scene: Scene) -> None:
    scene.found.append(scene.result.wait())


def test_a_result_that_is_waited_for_meanwhile_arrives() -> None:
    def it_arrived(scene: Scene) -> None:
        assert scene.found == [EXECUTED]
        assert scene.ticket.result() is EXECUTED

    explore(Scene, wait, settle, holds=it_arrived, dpor=True)


def test_two_threads_that_wait_for_one_result_get_it() -> None:
    def it_arrived(scene: Scene) -> None:
        assert scene.found == [EXECUTED, EXECUTED]

    explore(Scene, wait, wait, settle, holds=it_arrived)


def test_a_result_that_is_waited_for_too_shortly_is_there_or_times_out() -> None:
    def wait_in_time(scene: Scene) -> None:
        try:
            scene.found.append(scene.result.wait(timeout=1))
        except TimeoutError:
            scene.found.append(Canceled("too late"))

    def it_is_one_of_both(scene: Scene) -> None:
        assert scene.found[0] in {EXECUTED, Result.CANCELED}
        assert scene.result.wait(timeout=0) == EXECUTED

    explore(Scene, wait_in_time, settle, holds=it_is_one_of_both, timers=True)


SCHEMA = known({"A": State(), "B": State()}, "add A", "add A", "remove A", "add B")


class Busy:
    """A machine, and the results of equal mutations."""

    def __init__(self) -> None:
        self.machine = Machine(SCHEMA)
        self.results: list[Result] = []

    def all_are_executed(self) -> None:
        assert self.machine.queue_length == 0
        assert self.results == [EXECUTED] * len(self.results)
        self.nothing_is_remembered()

    def nothing_is_remembered(self) -> None:
        """Assert that a mutation which was queued is not taken for one that was before."""
        machine = self.machine
        machine.remove("A")
        del machine._baton[0]
        assert machine.add("A") == Result.QUEUED
        machine._baton += [None]
        machine._serve()
        assert machine.is_active("A")


class Held(Busy):
    """The same, while a thread has the machine's turn; `release` is what it does next."""

    def __init__(self) -> None:
        super().__init__()
        del self.machine._baton[0]


def release(scene: Held) -> None:
    scene.machine._baton += [None]
    scene.machine._serve()


def add_twin(scene: Busy) -> None:
    scene.results.append(scene.machine.add("A").wait())


def add_other(scene: Busy) -> None:
    scene.results.append(scene.machine.add("B").wait())


def test_a_twin_that_comes_while_the_first_one_is_taken_out_gets_a_result() -> None:
    def one_activation(scene: Busy) -> None:
        assert scene.machine.time("A", "B") == (1, 1)
        scene.all_are_executed()

    explore(Busy, add_twin, add_twin, add_other, holds=one_activation, drawn=30)


def test_a_twin_is_not_mistaken_for_one_that_came_before_its_opposite() -> None:
    def add(scene: Busy) -> None:
        scene.results.append(scene.machine.add("A"))
        scene.results.append(scene.machine.remove("A"))
        scene.results.append(scene.machine.add("A"))

    def the_last_call_counts(scene: Busy) -> None:
        scene.results = [each.wait(timeout=0) for each in scene.results]
        assert scene.machine.time("A", "B") == (3, 1)
        scene.all_are_executed()

    explore(Busy, add, add_other, holds=the_last_call_counts)


def test_a_mutation_that_is_queued_as_the_queue_is_drained_is_forgotten_in_time() -> None:
    def one_activation(scene: Held) -> None:
        assert scene.machine.tick("A") == 1
        scene.all_are_executed()

    explore(Held, add_twin, release, holds=one_activation)


def test_twins_that_wait_behind_a_busy_thread_share_one_result() -> None:
    def one_activation(scene: Held) -> None:
        assert scene.machine.tick("A") == 1
        scene.all_are_executed()

    explore(Held, add_twin, add_twin, release, holds=one_activation, drawn=30)


def test_others_that_wait_behind_a_busy_thread_get_their_own_results() -> None:
    schema = known(
        {"A": State(), "B": State(require="C", remove="A"), "C": State()}, "add A", "add B"
    )

    class Related(Held):
        def __init__(self) -> None:
            super().__init__()
            self.machine = Machine(schema)
            del self.machine._baton[0]
            self.refusals: list[Result] = []

    def add_refused(scene: Related) -> None:
        scene.refusals.append(scene.machine.add("B").wait())

    def results_are_their_own(scene: Related) -> None:
        assert scene.results == [EXECUTED]
        assert [each.why for each in scene.refusals] == ["B requires C, which is inactive"]

    explore(Related, add_twin, add_refused, release, holds=results_are_their_own, drawn=30)


@pytest.mark.parametrize("caught", [True, False])
def test_an_error_in_a_handler_settles_the_result_of_who_asked(caught: bool) -> None:
    def fail(event: object) -> None:
        raise ValueError

    handlers = {"A_state": fail}
    schema = known({"A": State(), "B": State()}, "add B", handlers=handlers)

    class Failing(Busy):
        def __init__(self) -> None:
            super().__init__()
            self.machine = Machine(schema, handlers=handlers, catch_errors=caught)

    def add_failing(scene: Failing) -> None:
        try:
            assert scene.machine.add("A").wait() == Result.CANCELED
        except ValueError:
            assert not caught

    def add_working(scene: Failing) -> None:
        try:
            scene.machine.add("B").wait()
        except ValueError:  # it was this thread that carried out the other one, too
            assert not caught

    def both_are_done(scene: Failing) -> None:
        assert scene.machine.queue_length == 0
        assert scene.machine.is_active("B")
        assert not scene.machine.is_active("A")
        assert scene.machine.is_active("Exception") is caught

    explore(Failing, add_failing, add_working, holds=both_are_done, background=True, drawn=0)
