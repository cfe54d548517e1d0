"""The end of machines: disposal from everywhere, at any time, together."""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from weakref import ref

import pytest

from asyncmachine import (
    Event,
    Machine,
    MachineError,
    Result,
    State,
    StateContext,
    Tracer,
    Waiter,
)
from tests.races import (
    PATIENCE,
    Gate,
    busy,
    outcome,
    start,
    start_queued,
    switching_often,
    together,
)

EXECUTED, CANCELED, QUEUED = Result.EXECUTED, Result.CANCELED, Result.QUEUED


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


def _machine(handlers: object = None, **options: Machine) -> Machine:
    schema = {"Foo": State(), "Bar": State(), "Hit": State(multi=True)}
    return Machine(schema, handlers=handlers, parent=options.get("parent"))


def assert_gone(machine: Machine) -> None:
    """It is disposed: it refuses, and still can be read; nobody waits for it."""
    assert machine.is_disposed
    for request in (machine.add, machine.remove, machine.set, machine.toggle, machine.can_add):
        result = request("Foo")
        assert result == CANCELED
        assert result.why == "the machine is disposed"
    assert machine.when_disposed().wait(PATIENCE)
    assert machine.when("Foo", "Bar").wait(PATIENCE)
    assert machine.state_ctx("Foo").wait(PATIENCE)
    assert machine.queue_length == 0
    assert machine.waiters_pending == 0
    assert machine.describe().startswith("(")


# From everywhere ------------------------------------------------------------------------------


def test_a_disposed_machine_refuses_and_can_be_read() -> None:
    machine = _machine()
    machine.add("Foo")
    machine.dispose()

    assert_gone(machine)
    assert machine.is_active("Foo")
    assert machine.clock("Foo", "Bar") == {"Foo": 1, "Bar": 0}


def test_disposal_at_the_end_of_a_with_statement_also_after_an_error() -> None:
    with _machine() as machine:
        pass
    assert_gone(machine)
    with pytest.raises(LookupError), _machine() as machine:
        raise LookupError
    assert_gone(machine)


@pytest.mark.parametrize("name", ["Foo_enter", "Foo_state", "Any_state"])
def test_disposal_in_a_handler_comes_after_what_is_queued(name: str) -> None:
    results: list[Result] = []
    machine = _machine()

    def dispose(event: Event) -> None:
        if not results:
            results.append(machine.add("Hit", n=1))
            machine.dispose()
            results.append(machine.add("Hit", n=2))

    machine.bind({name: dispose})

    assert outcome(start(lambda: machine.add("Foo"))) == EXECUTED
    assert [each.wait(PATIENCE) for each in results] == [EXECUTED, CANCELED]
    assert machine.is_active("Foo")
    assert_gone(machine)


def _in_eval(machine: Machine) -> None:
    machine.eval(machine.dispose)


def _in_a_listener(machine: Machine) -> None:
    machine.on("Foo_state", lambda event: machine.dispose())
    machine.add("Foo")


def _in_a_callback(machine: Machine) -> None:
    machine.when("Foo").on_done(lambda waiter: machine.dispose())
    machine.add("Foo")


def _at_expiry(machine: Machine) -> None:
    machine.add("Foo")
    machine.state_ctx("Foo").on_expire(lambda ctx: machine.dispose())
    machine.remove("Foo")


def _in_a_query(machine: Machine) -> None:
    machine.bind({"Foo_enter": lambda event: machine.dispose()})
    machine.can_add("Foo")


def _in_a_tracer(machine: Machine) -> None:
    tracer = Tracer()
    tracer.transition_end = lambda tx: machine.dispose()  # type: ignore[method-assign]
    machine.add_tracer(tracer)
    machine.add("Foo")


def _in_on_dispose(machine: Machine) -> None:
    machine.on_dispose(lambda _: machine.dispose())
    machine.dispose()


def _twice(machine: Machine) -> None:
    machine.dispose()
    machine.dispose(timeout=0)


def _by_a_fork(machine: Machine) -> None:
    forks: list[bool] = []

    def work(ctx: StateContext) -> None:
        machine.dispose()
        forks.append(ctx.expired)

    machine.bind({"Foo_state": lambda event: event.fork(work).wait(PATIENCE) and None})
    machine.bind({"Bar_state": lambda event: event.fork(work)})
    machine.add("Bar")
    assert machine.when_disposed().wait(PATIENCE)


def _by_another_machine(machine: Machine) -> None:
    other = _machine({"Foo_state": lambda event: machine.dispose()})
    other.add("Foo")


WAYS = [
    _in_eval,
    _in_a_listener,
    _in_a_callback,
    _at_expiry,
    _in_a_query,
    _in_a_tracer,
    _in_on_dispose,
    _twice,
    _by_a_fork,
    _by_another_machine,
]


@pytest.mark.parametrize("way", WAYS)
def test_a_machine_can_be_disposed_from_everywhere(way: Callable[[Machine], None]) -> None:
    machine = _machine()
    outcome(start(partial(way, machine)))

    assert machine.when_disposed().wait(PATIENCE)
    assert_gone(machine)


def test_several_threads_dispose_together_and_each_comes_back_when_it_is_over() -> None:
    def dispose(machine: Machine) -> bool:
        machine.dispose()
        return machine.is_disposed and machine.when_disposed().is_set()

    for _ in range(100):
        machine = _machine()
        told: list[Machine] = []
        machine.on_dispose(told.append)
        assert together(*[partial(dispose, machine)] * 4) == [True] * 4
        assert told == [machine]
        assert_gone(machine)


# What is running and queued -------------------------------------------------------------------


def test_what_is_queued_before_disposal_is_carried_out() -> None:
    hits: list[object] = []
    machine = _machine({"Hit_state": lambda event: hits.append(event.args["n"])})
    with busy(machine):
        queued = [machine.add("Hit", n=n) for n in range(10)]
        disposing = start_queued(machine.dispose)
        late = machine.add("Hit", n=10)
    outcome(disposing)

    assert [each.wait(PATIENCE) for each in queued] == [EXECUTED] * 10
    assert hits == list(range(10))
    assert late.wait(PATIENCE).why == "the machine is disposed"
    assert_gone(machine)


def test_mutations_that_race_with_disposal_are_executed_or_canceled_and_none_is_stuck() -> None:
    def add(machine: Machine) -> list[Result]:
        return [machine.add("Hit", n=n).wait(PATIENCE) for n in range(15)]

    def dispose(machine: Machine) -> list[Result]:
        machine.dispose()
        return []

    for _ in range(60):
        hits: list[object] = []
        machine = _machine({"Hit_state": lambda event, h=hits: h.append(event.args["n"])})
        made = together(*[partial(add, machine)] * 3, partial(dispose, machine))
        finals = [each for results in made for each in results]
        assert finals.count(EXECUTED) == len(hits) == (machine.tick("Hit") + 1) // 2
        assert {each.why for each in finals} <= {"", "the machine is disposed"}
        assert_gone(machine)


def test_every_kind_of_call_that_races_with_disposal_comes_back() -> None:
    def call(machine: Machine) -> None:
        machine.can_add("Foo")
        machine.send("add", "Hit", n=1).wait(PATIENCE)
        machine.when("Foo", "Bar").wait(PATIENCE)
        machine.when_queue_empty().wait(PATIENCE)
        machine.on("Foo_state", lambda event: None).unbind()
        machine.state_ctx("Foo").on_expire(lambda ctx: None)

    for _ in range(60):
        machine = _machine()
        together(partial(call, machine), partial(call, machine), machine.dispose)
        machine.eval(lambda: None, timeout=PATIENCE)  # a background thread may still be at it
        assert_gone(machine)


@pytest.mark.parametrize("name", ["Foo_enter", "Foo_state"])
def test_disposal_with_a_time_out_leaves_a_stuck_handler_behind(name: str) -> None:
    gate = Gate()
    machine = _machine({name: gate})
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()
    queued = [machine.add("Hit", n=n) for n in range(3)]
    waiters = [machine.when("Bar"), machine.when_args("Hit", {"n": 1}), machine.when_disposed()]
    sleepers = [start(partial(each.wait, PATIENCE)) for each in waiters]

    outcome(start(lambda: machine.dispose(timeout=0.01)))

    assert_gone(machine)
    assert [outcome(each) for each in sleepers] == [True] * 3
    finals = [each.wait(PATIENCE) for each in queued]
    assert [each.why for each in finals] == ["the machine is disposed"] * 3
    assert machine.tick("Hit") == 0
    gate.open()
    outcome(caller)
    assert machine.tick("Hit") == 0
    assert_gone(machine)


def test_dry_runs_and_evals_that_wait_behind_a_stuck_handler_end_with_disposal() -> None:
    gate = Gate()
    machine = _machine({"Foo_state": gate})
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()
    asked = start_queued(lambda: machine.can_add("Bar"))
    evaluated = start_queued(lambda: machine.eval(lambda: 42))

    outcome(start(lambda: machine.dispose(timeout=0.01)))

    assert outcome(asked) == CANCELED
    assert isinstance(evaluated.exception(PATIENCE), MachineError)
    gate.open()
    outcome(caller)


def test_disposal_without_a_time_out_waits_for_the_running_handler() -> None:
    gate = Gate()
    machine = _machine({"Foo_state": gate})
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()
    disposing = start_queued(machine.dispose)
    assert not machine.is_disposed
    gate.open()
    outcome(disposing)

    assert outcome(caller) == EXECUTED
    assert machine.is_active("Foo")
    assert_gone(machine)


def test_several_disposals_with_and_without_patience_of_a_stuck_machine() -> None:
    gate = Gate()
    machine = _machine({"Foo_state": gate})
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()
    patient = [start_queued(machine.dispose) for _ in range(2)]
    outcome(start(lambda: machine.dispose(timeout=0.01)))

    assert_gone(machine)
    for each in patient:
        outcome(each)  # it is over, so they need not wait for the handler
    gate.open()
    outcome(caller)


def test_a_late_handler_does_not_keep_a_machine_from_being_disposed() -> None:
    gate = Gate()
    machine = Machine({"Foo": State()}, handlers={"Foo_state": gate}, handler_timeout=0.02)
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()

    outcome(start(machine.dispose))

    assert machine.is_disposed
    gate.open()
    assert outcome(caller) == CANCELED


# Machines that dispose each other -------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 3])
def test_machines_whose_handlers_dispose_each_other_do_not_deadlock(number: int) -> None:
    for _ in range(30):
        machines = [_machine() for _ in range(number)]
        inside = threading.Barrier(number)

        def dispose(target: Machine, event: Event, inside: threading.Barrier = inside) -> None:
            inside.wait(PATIENCE)
            target.dispose()

        for n, machine in enumerate(machines):
            machine.bind({"Foo_state": partial(dispose, machines[(n + 1) % number])})
        results = together(*(partial(machine.add, "Foo") for machine in machines))

        assert results == [EXECUTED] * number
        assert [m.when_disposed().wait(PATIENCE) for m in machines] == [True] * number


@pytest.mark.parametrize("name", ["Foo_enter", "Foo_state"])
def test_a_handler_of_a_child_may_dispose_the_parent(name: str) -> None:
    parent = _machine()
    child = _machine(parent=parent)
    child.bind({name: lambda event: parent.dispose()})

    assert outcome(start(lambda: child.add("Foo"))) == EXECUTED
    assert child.when_disposed().wait(PATIENCE)
    assert parent.when_disposed().wait(PATIENCE)


def test_a_handler_of_the_parent_may_dispose_it_with_its_busy_children() -> None:
    parent = _machine()
    children = [_machine(parent=parent) for _ in range(3)]
    parent.bind({"Foo_state": lambda event: parent.dispose()})
    for child in children:
        child.bind({"Foo_state": lambda event: parent.can_add("Bar") and None})

    together(*(partial(machine.add, "Foo") for machine in (parent, *children)))

    for machine in (parent, *children):
        assert machine.when_disposed().wait(PATIENCE)


# Children -------------------------------------------------------------------------------------


def test_children_are_disposed_first() -> None:
    order: list[str] = []
    root = Machine({}, id="root")
    branch = Machine({}, id="branch", parent=root)
    leaf = Machine({}, id="leaf", parent=branch)
    twig = Machine({}, id="twig", parent=root)
    for machine in (root, branch, leaf, twig):
        machine.on_dispose(lambda each: order.append(each.id))
    assert root.children == (branch, twig)

    root.dispose()

    assert sorted(order) == ["branch", "leaf", "root", "twig"]
    assert order.index("leaf") < order.index("branch")
    assert order[-1] == "root"
    assert list(root.children) == []


def test_a_child_that_is_disposed_leaves_its_parent() -> None:
    parent = _machine()
    children = [_machine(parent=parent) for _ in range(30)]

    together(*(partial(child.dispose) for child in children[::3]))

    assert set(parent.children) == set(children) - set(children[::3])
    together(*(child.dispose for child in children[1::3]), parent.dispose)
    assert all(child.is_disposed for child in children)
    assert parent.children == ()


def test_a_child_that_is_made_while_its_parent_is_disposed_is_refused_or_disposed() -> None:
    def make(parent: Machine) -> Machine | None:
        try:
            return _machine(parent=parent)
        except MachineError:
            return None

    def dispose(parent: Machine) -> None:
        parent.dispose()

    for _ in range(100):
        parent = _machine()
        made = together(*[partial(make, parent)] * 2, partial(dispose, parent))
        for child in made:
            if child is not None:
                assert child.when_disposed().wait(PATIENCE)
        with pytest.raises(MachineError):
            _machine(parent=parent)


# Who is told ----------------------------------------------------------------------------------


def test_every_waiter_is_set_with_disposed_and_every_context_expires() -> None:
    machine = _machine()
    machine.add("Bar")
    waiters: list[Waiter] = [
        machine.when("Foo"),
        machine.when_not("Bar"),
        machine.when_any("Foo", "Hit"),
        machine.when_args("Foo", {"a": 1}),
        machine.when_tick("Foo", 9),
        machine.when_error(),
        machine.when_query(lambda clock: clock["Foo"]),
    ]
    gone, ctx = machine.when_disposed(), machine.state_ctx("Bar")
    sleepers = [start(each.wait) for each in (*waiters, gone, ctx)]

    machine.dispose()

    assert [outcome(each) for each in sleepers] == [True] * 9
    assert [each.disposed for each in waiters] == [True] * 7
    assert [each.canceled for each in waiters] == [False] * 7
    assert gone.is_set()
    assert ctx.expired
    later = machine.when("Foo")
    assert (later.is_set(), later.disposed) == (True, True)
    assert machine.when_queue_empty().is_set()


def test_callbacks_are_called_with_the_machine_once_whenever_they_came() -> None:
    for _ in range(60):
        machine = _machine()
        told: list[Machine] = []

        def register(machine: Machine = machine, told: list[Machine] = told) -> None:
            for _ in range(10):
                machine.on_dispose(told.append)

        together(register, register, machine.dispose)
        assert told == [machine] * 20


def test_a_callback_that_was_taken_back_is_not_called() -> None:
    machine = _machine()
    told: list[Machine] = []
    machine.on_dispose(told.append).unbind()
    binding = machine.on_dispose(told.append)
    machine.dispose()
    binding.unbind()

    assert told == [machine]


def test_an_error_in_a_callback_is_logged_and_keeps_nobody_from_being_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = _machine()
    told: list[Machine] = []

    def fail(machine: Machine) -> None:
        msg = "no luck"
        raise LookupError(msg)

    machine.on_dispose(fail)
    machine.on_dispose(told.append)
    machine.dispose()

    assert told == [machine]
    assert "no luck" in caplog.text
    assert_gone(machine)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_callback_reaches_the_caller_and_disposal_can_be_finished(
    interrupt: type[BaseException],
) -> None:
    machine = _machine()
    told: list[Machine] = []

    def fail(machine: Machine) -> None:
        raise interrupt

    machine.on_dispose(fail)
    machine.on_dispose(told.append)

    with pytest.raises(interrupt):
        outcome(start(machine.dispose))
    outcome(start(machine.dispose))

    assert told == [machine]
    assert_gone(machine)


def test_tracers_are_told_once() -> None:
    told: list[object] = []

    class Told(Tracer):
        def machine_dispose(self, mach: Machine) -> None:
            told.append(mach)

    for _ in range(30):
        told.clear()
        machine = Machine({"Foo": State()}, tracers=[Told()])
        together(*[machine.dispose] * 3)
        assert told == [machine]


def test_a_disposed_machine_that_nobody_holds_is_gone_with_all_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Background threads of our own, which are gone as soon as they have nothing to do.
    monkeypatch.setattr("asyncmachine.threads.KEPT", 0.0)
    monkeypatch.setattr("asyncmachine.threads._idle", deque())
    before = set(threading.enumerate())
    machine = _machine({"Foo_state": lambda event: event.fork(lambda ctx: ctx.wait(PATIENCE))})
    child = _machine(parent=machine)
    machine.when("Bar").on_done(lambda waiter: None)
    machine.add("Foo")
    machine.send("add", "Hit").wait(PATIENCE)
    machine.dispose()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
    machines = [ref(machine), ref(child)]
    del machine, child
    gc.collect()

    assert [each() for each in machines] == [None, None]
