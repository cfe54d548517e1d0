"""The faults of the Go original that must be impossible here, each forced by a test."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from functools import partial
from weakref import ref

import pytest

from asyncmachine import (
    Event,
    HandlerTimeoutError,
    Machine,
    Result,
    State,
    Tracer,
    Waiter,
    wait_all,
)
from tests.races import (
    PATIENCE,
    Gate,
    assert_works,
    busy,
    outcome,
    start,
    switching_often,
    together,
)

# A time-out for handlers that are meant to be late.
SHORT = 0.02


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


# A mutation queued as a drain ends is stuck until the next call -------------------------------


class AtTheEnd(Tracer):
    """Does something once, at the moment when a drain ends and the turn is still held."""

    def __init__(self, job: Callable[[], object]) -> None:
        self._jobs = [job]

    def queue_empty(self, mach: Machine) -> None:
        if self._jobs:
            outcome(start(self._jobs.pop()))


def test_a_mutation_that_another_thread_queues_as_a_drain_ends_is_carried_out() -> None:
    machine = Machine({"Foo": State(), "Late": State()})
    queued: list[Result] = []
    machine.add_tracer(AtTheEnd(lambda: queued.append(machine.add("Late"))))

    machine.add("Foo")

    assert queued == [Result.QUEUED]
    assert queued[0].wait(PATIENCE) == Result.EXECUTED
    assert machine.is_active("Late")


def test_no_mutation_of_two_racing_threads_is_ever_stuck() -> None:
    machine = Machine({"Foo": State(multi=True), "Bar": State(multi=True)})
    for _ in range(400):
        results = together(lambda: machine.add("Foo"), lambda: machine.add("Bar"))
        assert [each.wait(PATIENCE) for each in results] == [Result.EXECUTED] * 2
    assert machine.clock("Foo", "Bar") == {"Foo": 799, "Bar": 799}


# A caller gets another mutation's result ------------------------------------------------------


def _yes_and_no() -> Machine:
    return Machine(
        {"Yes": State(multi=True), "No": State(multi=True), "Never": State(require="No")},
        handlers={"No_enter": lambda event: False},
    )


def test_callers_that_queue_at_the_same_time_get_the_result_of_their_own_mutation() -> None:
    machine = _yes_and_no()
    with busy(machine):
        queued = [
            (state, outcome(start(partial(machine.add, state, n=n))))
            for n, state in enumerate(["Yes", "No", "Never", "Yes", "No", "Yes"])
        ]
    results = [(state, result.wait(PATIENCE)) for state, result in queued]

    for state, result in results:
        assert bool(result) is (state == "Yes")
        assert (
            result.why
            == {
                "Yes": "",
                "No": "vetoed by No_enter",
                "Never": "Never requires No, which is inactive",
            }[state]
        )


def test_racing_callers_get_the_result_of_their_own_mutation() -> None:
    machine = _yes_and_no()

    def ask(state: str) -> list[bool]:
        return [bool(machine.add(state, n=n).wait(PATIENCE)) for n in range(300)]

    answers = together(*(partial(ask, state) for state in ("Yes", "No", "Never", "Yes")))

    assert answers == [[True] * 300, [False] * 300, [False] * 300, [True] * 300]


# Overlapping waiters lose wake-ups ------------------------------------------------------------


def test_waiters_on_overlapping_states_all_wake() -> None:
    machine = Machine({name: State() for name in "ABC"})
    waiters = {
        "A": machine.when("A"),
        "A too": machine.when("A"),
        "B": machine.when("B"),
        "AB": machine.when("A", "B"),
        "BC": machine.when("B", "C"),
        "ABC": machine.when("A", "B", "C"),
        "A or C": machine.when_any("A", "C"),
        "not A": machine.when_not("A"),
        "A twice": machine.when_tick("A", 3),
    }

    def are_set() -> set[str]:
        return {name for name, waiter in waiters.items() if waiter.is_set()}

    assert are_set() == {"not A"}
    machine.add("A")
    assert are_set() == {"not A", "A", "A too", "A or C"}
    machine.add("B")
    assert are_set() == {"not A", "A", "A too", "A or C", "B", "AB"}
    machine.remove("A")
    machine.add("C")
    assert are_set() == {"not A", "A", "A too", "A or C", "B", "AB", "BC"}
    machine.add("A")
    assert are_set() == set(waiters)


def test_threads_that_wait_for_overlapping_states_all_wake() -> None:
    def wait(machine: Machine, wanted: str) -> bool:
        return machine.when(*wanted).wait(PATIENCE)

    def add(machine: Machine, state: str) -> bool:
        return bool(machine.add(state).wait(PATIENCE))

    for _ in range(60):
        machine = Machine({name: State() for name in "ABC"})
        waits = [partial(wait, machine, wanted) for wanted in ("A", "AB", "B", "BC", "ABC", "A")]
        adds = [partial(add, machine, state) for state in "ABC"]
        assert together(*waits, *adds) == [True] * 9


# A second when_args replaces the first --------------------------------------------------------


def test_a_second_when_args_leaves_the_first_alone() -> None:
    machine = Machine({"Replied": State(multi=True)})
    first = machine.when_args("Replied", {"id": 1})
    second = machine.when_args("Replied", {"id": 2})
    same = machine.when_args("Replied", {"id": 1})

    machine.add("Replied", id=1, text="one")
    assert (first.args, same.args) == ({"id": 1, "text": "one"},) * 2
    assert not second.is_set()
    machine.add("Replied", id=2, text="two")
    assert second.args == {"id": 2, "text": "two"}


# A waiter whose context has ended never resolves or leaks -------------------------------------


def _all_kinds(machine: Machine) -> list[Waiter]:
    ctx = machine.state_ctx("Working")
    return [
        machine.when("Never", ctx=ctx),
        machine.when_not("Working", "Idle", ctx=ctx),
        machine.when_any("Never", ctx=ctx),
        machine.when_args("Never", {"a": 1}, ctx=ctx),
        machine.when_time({"Never": 1}, ctx=ctx),
        machine.when_tick("Never", 1, ctx=ctx),
        machine.when_ticks("Never", 1, ctx=ctx),
        machine.when_error(ctx=ctx),
        machine.when_query(lambda clock: clock["Never"], ctx=ctx),
        machine.when_disposed(ctx=ctx),
    ]


def test_a_waiter_whose_context_ends_is_set_as_canceled_and_leaves_the_machine() -> None:
    machine = Machine({"Working": State(), "Idle": State(), "Never": State()})
    machine.add("Working", "Idle")
    waiters = _all_kinds(machine)
    assert machine.waiters_pending == len(waiters)
    sleepers = [start(waiter.wait) for waiter in waiters]

    machine.remove("Working")

    assert [outcome(sleeper) for sleeper in sleepers] == [True] * len(waiters)
    assert all(waiter.canceled for waiter in waiters)
    assert machine.waiters_pending == 0


def test_a_waiter_with_an_ended_context_is_set_as_canceled_from_the_start() -> None:
    machine = Machine({"Working": State(), "Idle": State(), "Never": State()})
    machine.add("Idle")
    waiters = _all_kinds(machine)

    assert [(each.is_set(), each.canceled) for each in waiters] == [(True, True)] * len(waiters)
    assert machine.waiters_pending == 0


def test_a_waiter_for_the_queue_whose_context_ends_is_set_as_canceled() -> None:
    machine = Machine({"Working": State()})
    machine.add("Working")

    def job() -> Waiter:
        waiter = machine.when_queue_empty(ctx=machine.state_ctx("Working"))
        machine.remove("Working")
        machine.add("Working")
        return waiter

    waiter = machine.eval(job)

    assert waiter.wait(PATIENCE)
    assert waiter.canceled


def test_thousands_of_waiters_with_ended_contexts_leave_nothing_behind() -> None:
    machine = Machine({"Working": State(), "Never": State()})
    waiters: list[ref[Waiter]] = []
    for _ in range(2000):
        machine.add("Working")
        waiter = machine.when("Never", ctx=machine.state_ctx("Working"))
        waiters.append(ref(waiter))
        machine.remove("Working")
        assert waiter.canceled

    assert machine.waiters_pending == 0
    assert sum(each() is not None for each in waiters) <= 1  # the last one
    conditions = [each for each in gc.get_objects() if type(each).__name__ == "Present"]
    assert len(conditions) < 500


# A late handler hangs the next one ------------------------------------------------------------


@pytest.mark.parametrize("late", ["Foo_enter", "Foo_state"])
def test_a_late_handler_does_not_hang_the_next_one(late: str) -> None:
    gate = Gate()
    heard = threading.Event()
    machine = Machine(
        {"Foo": State(), "Bar": State()},
        handlers={late: gate, "Bar_state": lambda event: heard.set()},
        handler_timeout=SHORT,
    )
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()

    assert outcome(start(lambda: machine.add("Bar"))).wait(PATIENCE) == Result.EXECUTED

    assert heard.is_set()
    assert isinstance(machine.error, HandlerTimeoutError)
    gate.open()
    assert outcome(caller) == Result.CANCELED


# An error while handling Exception hangs ------------------------------------------------------


@pytest.mark.parametrize("name", ["Exception_enter", "Exception_state", "Any_Exception"])
def test_an_error_while_handling_exception_does_not_hang(name: str) -> None:
    calls: list[str] = []

    def fail(event: Event) -> None:
        calls.append(event.name)
        raise ValueError(event.name)

    machine = Machine({"Foo": State(), "Bar": State()}, handlers={"Foo_state": fail, name: fail})

    assert outcome(start(lambda: machine.add("Foo"))) == Result.CANCELED
    assert calls == ["Foo_state", name]
    assert str(machine.error) == name
    assert_works(machine, "Bar")


# Disposal leaves waiters hanging --------------------------------------------------------------


def test_disposal_sets_every_waiter() -> None:
    machine = Machine({"Working": State(), "Idle": State(), "Never": State()})
    machine.add("Working", "Idle")
    waiters = _all_kinds(machine)
    expiry = machine.state_ctx("Working")
    sleepers = [start(waiter.wait) for waiter in waiters] + [start(expiry.wait)]

    machine.dispose()

    assert [outcome(sleeper) for sleeper in sleepers] == [True] * 11
    assert [waiter.disposed or waiter.canceled for waiter in waiters] == [True] * 10
    assert machine.waiters_pending == 0


def test_a_waiter_made_while_the_machine_is_disposed_is_set() -> None:
    for _ in range(150):
        machine = Machine({"Never": State()})

        def wait(machine: Machine = machine) -> bool:
            return machine.when("Never").wait(PATIENCE)

        def dispose(machine: Machine = machine) -> bool:
            machine.dispose()
            return machine.is_disposed

        assert together(wait, dispose, wait) == [True] * 3


# eval inside a handler deadlocks --------------------------------------------------------------


@pytest.mark.parametrize("name", ["Foo_enter", "Foo_state", "Any_enter", "Any_state"])
def test_eval_inside_a_handler_runs_at_once(name: str) -> None:
    values: list[object] = []
    machine = Machine(
        {"Foo": State()},
        handlers={name: lambda event: values.append(event.machine.eval(lambda: 42))},
    )

    assert outcome(start(lambda: machine.add("Foo"))) == Result.EXECUTED
    assert values == [42]


def test_eval_inside_a_listener_or_an_eval_runs_at_once() -> None:
    values: list[object] = []
    machine = Machine({"Foo": State()})
    machine.on("Foo_state", lambda event: values.append(machine.eval(lambda: 42)))

    assert outcome(start(lambda: machine.add("Foo"))) == Result.EXECUTED
    nested = start(lambda: machine.eval(lambda: machine.eval(lambda: 43)))

    assert [*values, outcome(nested)] == [42, 43]


# An auto state that always fails spins for ever -----------------------------------------------


@pytest.mark.parametrize("name", ["Auto_enter", "Auto_state"])
def test_an_auto_state_that_always_fails_is_tried_once_a_transition(name: str) -> None:
    tries: list[str] = []

    def fail(event: Event) -> None:
        tries.append(event.name)
        raise ValueError(event.name)

    machine = Machine({"Foo": State(), "Auto": State(auto=True)}, handlers={name: fail})

    assert outcome(start(lambda: machine.add("Foo"))) == Result.EXECUTED
    assert tries == [name]
    assert machine.active_states() == ("Exception", "Foo")
    assert_works(machine, "Foo")


def test_an_auto_state_that_always_vetoes_is_asked_once_a_transition() -> None:
    asked: list[str] = []

    def refuse(event: Event) -> bool:
        asked.append(event.name)
        return False

    machine = Machine({"Foo": State(), "Auto": State(auto=True)}, handlers={"Auto_enter": refuse})

    assert outcome(start(lambda: machine.add("Foo"))) == Result.EXECUTED
    assert asked == ["Auto_enter"]


# Two bare adds of a multi state collapse into one ---------------------------------------------


def test_two_bare_adds_of_a_multi_state_stay_two() -> None:
    calls: list[str] = []
    machine = Machine(
        {"Hit": State(multi=True)}, handlers={"Hit_state": lambda event: calls.append(event.name)}
    )
    with busy(machine):
        first, second = machine.add("Hit"), machine.add("Hit")
        assert machine.queue_length == 2

    assert (first.wait(PATIENCE), second.wait(PATIENCE)) == (Result.EXECUTED,) * 2
    assert calls == ["Hit_state"] * 2
    assert machine.tick("Hit") == 3


# A slow listener stalls the machine -----------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, SHORT])
@pytest.mark.parametrize("name", ["Foo_enter", "Foo_state"])
def test_a_slow_listener_does_not_stall_the_machine(name: str, timeout: float | None) -> None:
    gate = Gate()
    machine = Machine({"Foo": State(), "Bar": State()}, handler_timeout=timeout)
    machine.on(name, gate)
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()

    assert outcome(start(lambda: machine.add("Bar"))).wait(PATIENCE) == Result.EXECUTED

    assert machine.is_active("Foo", "Bar")  # it has not been canceled either
    assert machine.error is None
    gate.open()
    assert outcome(caller) == Result.EXECUTED


# Reading blocks while a handler runs ----------------------------------------------------------


def _read_everything(machine: Machine) -> list[object]:
    return [
        machine.is_active("Foo"),
        machine.is_inactive("Foo"),
        machine.any_active("Foo", ("Foo", "Bar")),
        machine.switch("Bar", "Foo"),
        machine.active_states(),
        machine.states,
        machine.schema,
        machine.has("Foo"),
        machine.tick("Foo"),
        machine.time(),
        machine.time_sum("Foo"),
        machine.clock(),
        machine.is_queued("add", "Foo"),
        machine.queue_length,
        machine.in_transition,
        machine.transition,
        machine.error,
        machine.is_disposed,
        str(machine),
        repr(machine),
        machine.describe(),
        machine.inspect(),
        machine.export_state(),
        machine.when("Foo").is_set(),
        machine.state_ctx("Foo").expired,
    ]


@pytest.mark.parametrize(("name", "active"), [("Foo_enter", False), ("Foo_state", True)])
def test_reading_does_not_wait_for_a_handler(name: str, active: bool) -> None:
    gate = Gate()
    machine = Machine({"Foo": State(), "Bar": State()}, handlers={name: gate})
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()

    seen = outcome(start(lambda: _read_everything(machine)))

    assert seen[0] is active
    assert seen[8] == int(active)
    assert seen[14] is True
    gate.open()
    assert outcome(caller) == Result.EXECUTED


def test_many_readers_and_waiters_do_not_wait_for_a_handler() -> None:
    gate = Gate()
    machine = Machine({"Foo": State(), "Bar": State()}, handlers={"Foo_state": gate})
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()

    together(*[lambda: _read_everything(machine)] * 8)
    assert wait_all(machine.when("Foo"), machine.when_not("Bar"), timeout=0)

    gate.open()
    assert outcome(caller) == Result.EXECUTED
