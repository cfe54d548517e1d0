"""Forks: background work that is bound to the activation of a state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from asyncmachine import ContextExpired, Event, Fork, Machine, Result, State, StateContext
from tests.races import (
    PATIENCE,
    Gate,
    assert_works,
    await_rest,
    outcome,
    start,
    switching_often,
    together,
)

EXECUTED = Result.EXECUTED


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


class Forking:
    """Handlers that fork one function, and keep what it was called with."""

    def __init__(self, name: str, gate: Gate | None = None) -> None:
        self.forks: list[Fork] = []
        self.contexts: list[StateContext] = []
        self.expired: list[bool] = []
        self.threads: list[int] = []
        self._gate = gate
        self.handlers = {name: self._handler}

    def _handler(self, event: Event) -> None:
        self.forks.append(event.fork(self._work))

    def _work(self, ctx: StateContext) -> None:
        self.contexts.append(ctx)
        self.expired.append(ctx.expired)
        self.threads.append(threading.get_ident())
        if self._gate is not None:
            self._gate()


def _machine(*handlers: object) -> Machine:
    schema = {"Foo": State(), "Bar": State(remove="Foo"), "Spare": State()}
    return Machine(schema, handlers=list(handlers))


# What a fork gets -----------------------------------------------------------------------------


def test_a_fork_gets_its_context_and_what_was_given_to_it_on_a_thread_of_its_own() -> None:
    got: list[object] = []

    def work(ctx: StateContext, first: int, *, second: str) -> None:
        got.extend([ctx.state, first, second, threading.get_ident()])

    forks: list[Fork] = []
    machine = _machine({"Foo_state": lambda event: forks.append(event.fork(work, 1, second="b"))})
    machine.add("Foo")

    assert forks[0].wait(PATIENCE)
    assert got[:3] == ["Foo", 1, "b"]
    assert got[3] != threading.get_ident()
    assert (forks[0].done, forks[0].error) == (True, None)


@pytest.mark.parametrize(
    ("name", "state", "expired"),
    [
        ("Foo_state", "Foo", False),
        ("Foo_enter", "Foo", True),
        ("Any_Foo", "", False),
        ("Any_enter", "", False),
        ("Any_state", "", False),
    ],
)
def test_a_fork_is_bound_to_the_state_of_its_handler(
    name: str, state: str, *, expired: bool
) -> None:
    gate = Gate()
    forking = Forking(name, gate)
    machine = _machine(forking.handlers)
    machine.add("Foo")
    gate.await_reached()

    assert forking.contexts[0].state == state
    assert forking.expired == [expired]
    gate.open()
    assert forking.forks[0].wait(PATIENCE)


@pytest.mark.parametrize("name", ["Foo_exit", "Foo_Bar", "Foo_Any"])
def test_a_fork_of_a_state_that_is_about_to_leave_expires_when_it_does(name: str) -> None:
    gate = Gate()
    forking = Forking(name, gate)
    machine = _machine(forking.handlers, {"Foo_end": lambda event: gate.await_reached()})
    machine.add("Foo")
    machine.add("Bar")

    assert forking.contexts[0].state == "Foo"
    assert forking.contexts[0].expired
    gate.open()
    assert forking.forks[0].wait(PATIENCE)


def test_a_fork_of_a_handler_whose_state_has_left_has_expired_from_the_start() -> None:
    forking = Forking("Foo_end")
    machine = _machine(forking.handlers)
    machine.add("Foo")
    machine.add("Bar")
    assert forking.forks[0].wait(PATIENCE)

    assert forking.expired == [True]


def test_a_fork_of_any_state_lasts_as_long_as_the_machine() -> None:
    gate = Gate()
    forking = Forking("Any_Foo", gate)
    machine = _machine(forking.handlers)
    machine.add("Foo")
    machine.add("Bar")
    gate.await_reached()

    assert not forking.contexts[0].expired
    gate.open()
    machine.dispose()
    assert forking.contexts[0].expired


# What it does not do --------------------------------------------------------------------------


def test_a_fork_delays_neither_the_transition_nor_others() -> None:
    gate = Gate()
    forking = Forking("Foo_state", gate)
    machine = _machine(forking.handlers)

    assert machine.add("Foo") == EXECUTED
    assert machine.add("Spare") == EXECUTED
    gate.await_reached()
    assert machine.forks_running == 1
    gate.open()
    assert forking.forks[0].wait(PATIENCE)
    assert machine.forks_running == 0


def test_forks_run_at_the_same_time() -> None:
    barrier = threading.Barrier(8)
    forks: list[Fork] = []

    def work(ctx: StateContext) -> None:
        barrier.wait(PATIENCE)

    machine = _machine(
        {"Foo_state": lambda event: forks.extend(event.fork(work) for _ in range(8))}
    )
    machine.add("Foo")

    assert [fork.wait(PATIENCE) for fork in forks] == [True] * 8
    assert [fork.error for fork in forks] == [None] * 8


def test_a_fork_is_outside_the_machine() -> None:
    done: list[object] = []
    forks: list[Fork] = []

    def work(ctx: StateContext) -> None:
        done.append(machine.add("Spare", n=1).wait(PATIENCE))
        done.append(machine.eval(lambda: 42, timeout=PATIENCE))
        done.append(machine.can_add("Bar"))
        done.append(machine.add("Bar").wait(PATIENCE))
        done.append(ctx.wait(PATIENCE))

    machine = _machine({"Foo_state": lambda event: forks.append(event.fork(work))})
    machine.add("Foo")
    assert forks[0].wait(PATIENCE)

    assert forks[0].error is None
    assert done == [EXECUTED, 42, EXECUTED, EXECUTED, True]


# Errors ---------------------------------------------------------------------------------------


def test_an_error_in_a_fork_becomes_an_exception_mutation() -> None:
    error = LookupError("no luck")
    args: list[object] = []
    forks: list[Fork] = []

    def work(ctx: StateContext) -> None:
        raise error

    machine = _machine({"Foo_state": lambda event: forks.append(event.fork(work))})
    machine.bind({"Exception_state": lambda event: args.append(event.args["error"])})
    machine.add("Foo")

    assert machine.when_error().wait(PATIENCE)
    await_rest(machine)
    assert args == [error]
    assert machine.error is error
    assert forks[0].wait(PATIENCE)
    assert forks[0].error is error
    assert_works(machine, "Spare")


def test_an_error_in_a_fork_whose_context_has_expired_is_nobodys_business() -> None:
    forks: list[Fork] = []

    def work(ctx: StateContext) -> None:
        assert ctx.wait(PATIENCE)
        ctx.check()

    machine = _machine({"Foo_state": lambda event: forks.append(event.fork(work))})
    machine.add("Foo")
    machine.remove("Foo")
    assert forks[0].wait(PATIENCE)
    await_rest(machine)

    assert isinstance(forks[0].error, ContextExpired)
    assert machine.error is None
    assert machine.is_inactive("Exception")


def test_a_fork_that_fails_as_its_state_leaves_is_reported_or_not_but_never_hangs() -> None:
    for _ in range(60):
        forks: list[Fork] = []
        gate = Gate()

        def work(ctx: StateContext, gate: Gate = gate) -> None:
            gate()
            raise LookupError

        machine = _machine({"Foo_state": lambda e, f=forks, w=work: f.append(e.fork(w))})
        machine.add("Foo")
        gate.await_reached()
        together(gate.open, partial(_remove, machine))
        assert forks[0].wait(PATIENCE)
        await_rest(machine)
        assert machine.is_active("Exception") is (machine.error is not None)


def _remove(machine: Machine) -> None:
    assert machine.remove("Foo").wait(PATIENCE)


# Its end --------------------------------------------------------------------------------------


def test_a_fork_sees_the_end_of_its_activation() -> None:
    slept: list[bool] = []
    started = threading.Event()
    forks: list[Fork] = []

    def work(ctx: StateContext) -> None:
        started.set()
        slept.append(ctx.sleep(PATIENCE))

    machine = _machine({"Foo_state": lambda event: forks.append(event.fork(work))})
    machine.add("Foo")
    assert started.wait(PATIENCE)
    machine.add("Bar")

    assert forks[0].wait(PATIENCE)
    assert slept == [False]


def test_each_activation_has_its_own_forks() -> None:
    forks: list[Fork] = []
    ticks: list[tuple[int, bool]] = []

    def work(ctx: StateContext) -> None:
        ticks.append((ctx.tick, ctx.wait(PATIENCE)))

    machine = _machine({"Foo_state": lambda event: forks.append(event.fork(work))})

    def toggle() -> None:
        for _ in range(20):
            machine.add("Foo").wait(PATIENCE)
            machine.remove("Foo").wait(PATIENCE)

    together(toggle, toggle)

    assert [fork.wait(PATIENCE) for fork in forks] == [True] * len(forks)
    activations = machine.tick("Foo") // 2
    assert sorted(ticks) == [(2 * n + 1, True) for n in range(activations)]
    assert machine.forks_running == 0


def test_disposal_tells_forks_and_waits_for_them() -> None:
    ended: list[str] = []

    def work(ctx: StateContext) -> None:
        assert ctx.wait(PATIENCE)
        ended.append(ctx.state)

    machine = _machine({"Foo_state": lambda event: event.fork(work)})
    machine.bind({"Any_Foo": lambda event: event.fork(work) and None})
    machine.add("Foo")

    machine.dispose()

    assert sorted(ended) == ["", "Foo"]
    assert machine.forks_running == 0


def test_disposal_waits_a_bounded_time_for_a_fork_that_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncmachine.living.FORK_GRACE", 0.01)
    gate = Gate()
    forking = Forking("Foo_state", gate)
    machine = _machine(forking.handlers)
    machine.add("Foo")
    gate.await_reached()

    outcome(start(machine.dispose))

    assert machine.is_disposed
    assert forking.contexts[0].expired
    gate.open()
    assert forking.forks[0].wait(PATIENCE)


def test_disposal_with_a_time_out_waits_no_longer_for_a_fork() -> None:
    gate = Gate()
    forking = Forking("Foo_state", gate)
    machine = _machine(forking.handlers)
    machine.add("Foo")
    gate.await_reached()

    outcome(start(lambda: machine.dispose(timeout=0.01)))

    assert machine.is_disposed
    gate.open()
    assert forking.forks[0].wait(PATIENCE)


def test_an_error_in_a_fork_after_disposal_is_nobodys_business() -> None:
    forks: list[Fork] = []

    def work(ctx: StateContext) -> None:
        assert ctx.wait(PATIENCE)
        raise LookupError

    machine = _machine({"Foo_state": lambda event: forks.append(event.fork(work))})
    machine.add("Foo")
    machine.dispose()

    assert forks[0].wait(PATIENCE)
    assert machine.error is None


def test_a_fork_of_a_handler_that_runs_while_the_machine_is_disposed_ends() -> None:
    for _ in range(60):
        forks: list[Fork] = []
        waits: list[bool] = []

        def work(ctx: StateContext, waits: list[bool] = waits) -> None:
            waits.append(ctx.wait(PATIENCE))

        machine = _machine({"Foo_state": lambda e, f=forks, w=work: f.append(e.fork(w))})
        together(partial(machine.add, "Foo"), partial(_dispose, machine))

        assert [fork.wait(PATIENCE) for fork in forks] == [True] * len(forks)
        assert waits == [True] * len(forks)


def _dispose(machine: Machine) -> Result:
    machine.dispose()
    return machine.add("Foo")
