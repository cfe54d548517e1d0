"""Late handlers: the machine goes on without them, and they can do it no harm."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from asyncmachine import Event, HandlerTimeoutError, Machine, Result, State, Tracer
from asyncmachine.watchdog import Watch
from tests.races import (
    PATIENCE,
    Gate,
    assert_works,
    await_rest,
    outcome,
    start,
    start_queued,
    switching_often,
    together,
)

EXECUTED, CANCELED = Result.EXECUTED, Result.CANCELED

# A time-out for handlers that are meant to be late.
SHORT = 0.02
# One that no handler here is late for.
LONG = 1000.0

NEGOTIATION = ["Old_exit", "Old_New", "Old_Any", "Any_New", "New_enter", "Any_enter"]
FINAL = ["Old_end", "New_state", "Any_state"]


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


def _machine(handlers: object = None, timeout: float = SHORT) -> Machine:
    schema = {
        "Old": State(),
        "New": State(remove="Old"),
        "Hit": State(multi=True),
        "Spare": State(),
    }
    machine = Machine(schema, handler_timeout=timeout)
    machine.add("Old")
    if handlers is not None:
        machine.bind(handlers)
    return machine


class Late(Gate):
    """A handler that is late once, and waits at a gate; it keeps what it knew at the end."""

    def __init__(self, verdict: object = None, then: Callable[[Event], object] | None = None):
        super().__init__(verdict)
        self._then = then
        self._calls: list[str] = []
        self.expired: list[bool] = []

    def __call__(self, event: Event | None = None) -> object:
        assert event is not None
        self._calls.append(event.name)
        if len(self._calls) > 1:
            return None
        self.expired.append(event.expired)
        verdict = super().__call__(event)
        self.expired.append(event.expired)
        if self._then is not None:
            self._then(event)
        return verdict


# What becomes of the transition ---------------------------------------------------------------


@pytest.mark.parametrize("name", NEGOTIATION)
def test_a_late_negotiation_handler_cancels(name: str) -> None:
    late = Late()
    machine = _machine({name: late})
    caller = start(lambda: machine.add("New"))

    assert machine.when_error().wait(PATIENCE)

    assert machine.active_states() == ("Exception", "Old")
    assert isinstance(machine.error, HandlerTimeoutError)
    assert isinstance(machine.error, TimeoutError)
    assert name in str(machine.error)
    late.open()
    result = outcome(caller)
    assert result == CANCELED
    assert "HandlerTimeoutError" in result.why
    assert name in result.why
    assert_works(machine, "Spare")


@pytest.mark.parametrize("name", FINAL)
def test_a_late_final_handler_ends_the_transition_as_an_error_there_would(name: str) -> None:
    late = Late()
    machine = _machine({name: late})
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)

    assert (
        machine.clock("Old", "New")
        == {
            "Old_end": {"Old": 3, "New": 2},
            "New_state": {"Old": 2, "New": 2},
            "Any_state": {"Old": 2, "New": 1},
        }[name]
    )
    late.open()
    assert outcome(caller) == CANCELED
    assert_works(machine, "Spare")


def test_no_handler_runs_after_a_late_one() -> None:
    calls: list[str] = []
    late = Late()

    def note(event: Event) -> None:
        if event.mutation.states == ("New",):
            calls.append(event.name)

    machine = _machine({"Old_end": late})
    machine.bind(dict.fromkeys([*NEGOTIATION, *FINAL], note))
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    late.open()
    outcome(caller)

    assert calls == NEGOTIATION


def test_a_late_handler_becomes_an_exception_mutation_with_error_and_source() -> None:
    args: list[dict[str, object]] = []
    late = Late()
    machine = _machine({"New_state": late})
    machine.bind({"Exception_state": lambda event: args.append(dict(event.args))})
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    await_rest(machine)
    late.open()
    outcome(caller)

    assert args[0]["error"] is machine.error
    assert args[0]["source"].handler == "New_state"  # type: ignore[attr-defined]


def test_a_late_handler_of_an_auto_state_is_not_tried_for_ever() -> None:
    late = Late()
    machine = Machine(
        {"Foo": State(), "Auto": State(auto=True)},
        handlers={"Auto_state": late},
        handler_timeout=SHORT,
    )
    caller = start(lambda: machine.add("Foo"))
    assert machine.when_error().wait(PATIENCE)
    await_rest(machine)

    assert machine.active_states() == ("Exception", "Foo")
    late.open()
    assert outcome(caller) == EXECUTED


def test_a_handler_that_is_in_time_is_left_alone() -> None:
    calls: list[str] = []
    machine = _machine(timeout=LONG)
    machine.bind(dict.fromkeys([*NEGOTIATION, *FINAL], lambda event: calls.append(event.name)))

    for _ in range(50):
        assert machine.add("New") == EXECUTED
        assert machine.set("Old") == EXECUTED

    assert machine.error is None
    assert calls.count("New_state") == 50


# What the late handler may know and do --------------------------------------------------------


@pytest.mark.parametrize("name", ["New_enter", "New_state"])
def test_a_late_handler_is_told_by_its_event(name: str) -> None:
    late = Late()
    machine = _machine({name: late})
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    late.open()
    outcome(caller)

    assert late.expired == [False, True]


@pytest.mark.parametrize("verdict", [False, True, None])
@pytest.mark.parametrize("name", ["New_enter", "New_state"])
def test_what_a_late_handler_returns_is_ignored(name: str, verdict: object) -> None:
    late = Late(verdict)
    machine = _machine({name: late})
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    await_rest(machine)
    before = machine.time()
    late.open()

    assert "HandlerTimeoutError" in outcome(caller).why
    assert machine.time() == before


@pytest.mark.parametrize("name", ["New_enter", "New_state"])
def test_what_a_late_handler_raises_is_ignored(name: str) -> None:
    def fail(event: Event) -> None:
        raise LookupError

    late = Late(then=fail)
    machine = _machine({name: late})
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    await_rest(machine)
    before = machine.time()
    late.open()

    assert "HandlerTimeoutError" in outcome(caller).why
    assert machine.time() == before
    assert isinstance(machine.error, HandlerTimeoutError)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["New_enter", "New_state"])
def test_an_interrupt_in_a_late_handler_reaches_the_caller(
    name: str, interrupt: type[BaseException]
) -> None:
    def fail(event: Event) -> None:
        raise interrupt

    late = Late(then=fail)
    machine = _machine({name: late})
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    late.open()

    with pytest.raises(interrupt):
        outcome(caller)
    assert_works(machine, "Spare")


@pytest.mark.parametrize("name", ["New_enter", "New_state"])
def test_what_a_late_handler_asks_for_are_ordinary_new_mutations(name: str) -> None:
    done: list[object] = []

    def go_on(event: Event) -> None:
        machine = event.machine
        done.append(machine.add("Hit", n=1).wait(PATIENCE))  # no error: it is outside by now
        done.append(machine.eval(lambda: machine.is_active("Hit"), timeout=PATIENCE))
        done.append(machine.can_add("Spare"))
        done.append(machine.add_error("late").wait(PATIENCE))

    late = Late(then=go_on)
    machine = _machine({name: late})
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    late.open()

    assert "HandlerTimeoutError" in outcome(caller).why
    assert done == [EXECUTED, True, EXECUTED, EXECUTED]
    assert str(machine.error) == "late"
    assert_works(machine, "Spare")


def test_a_late_handler_may_dispose_the_machine() -> None:
    late = Late(then=lambda event: event.machine.dispose())
    machine = _machine({"New_state": late})
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    late.open()

    assert outcome(caller) == CANCELED
    assert machine.is_disposed


def test_a_fork_of_a_late_handler_has_expired_from_the_start() -> None:
    expired: list[bool] = []
    late = Late(
        then=lambda event: event.fork(lambda ctx: expired.append(ctx.expired)).wait(PATIENCE)
    )
    machine = _machine({"New_state": late})
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    late.open()
    outcome(caller)

    assert expired == [True]


# The rest of the queue ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["New_enter", "New_state"])
def test_the_queue_goes_on_on_another_thread_and_in_its_order(name: str) -> None:
    carried_out: list[tuple[object, int]] = []
    late = Late()
    machine = _machine({name: late}, timeout=LONG)
    machine.handler_timeout = 0.3  # late by then, but not before we have queued
    machine.bind({"Hit_state": lambda e: carried_out.append((e.args["n"], threading.get_ident()))})
    caller = start(lambda: (machine.add("New"), threading.get_ident()))
    late.await_reached()
    results = [machine.add("Hit", n=n) for n in range(20)]

    assert [each.wait(PATIENCE) for each in results] == [EXECUTED] * 20

    late.open()
    _, stuck = outcome(caller)
    assert [n for n, _ in carried_out] == list(range(20))
    assert stuck not in {thread for _, thread in carried_out}
    assert_works(machine, "Spare")


def test_a_queued_mutation_whose_handler_is_late_is_canceled_for_who_waits_for_it() -> None:
    first, late = Gate(), Late()
    machine = _machine({"New_state": late, "Spare_state": first}, timeout=0.3)
    caller = start(lambda: machine.add("Spare"))
    first.await_reached()
    queued, after = machine.add("New"), machine.add("Hit")
    first.open()

    final = queued.wait(PATIENCE)
    assert final == CANCELED
    assert "HandlerTimeoutError" in final.why
    assert after.wait(PATIENCE) == EXECUTED
    late.open()
    assert outcome(caller) == EXECUTED  # its own was carried out in time


def test_two_late_handlers_in_a_row_are_both_left_behind() -> None:
    first, second = Late(), Late()
    machine = _machine({"New_state": first, "Hit_state": second})
    callers = [start(lambda: machine.add("New"))]
    first.await_reached()
    callers.append(start(lambda: machine.add("Hit")))
    second.await_reached()

    assert machine.add("Spare").wait(PATIENCE) == EXECUTED
    await_rest(machine)
    assert machine.clock("New", "Hit", "Spare") == {"New": 2, "Hit": 2, "Spare": 1}
    first.open()
    second.open()
    results = [outcome(each).wait(PATIENCE) for each in callers]
    assert results == [CANCELED, CANCELED]


def test_a_late_handler_of_exception_after_a_late_handler_is_left_behind() -> None:
    first, second = Late(), Late()
    machine = _machine({"New_state": first, "Exception_state": second})
    caller = start(lambda: machine.add("New"))
    second.await_reached()

    assert outcome(start(lambda: machine.add("Hit"))).wait(PATIENCE) == EXECUTED
    await_rest(machine)
    assert machine.is_inactive("New", "Exception")
    assert "Exception_state" in str(machine.error)
    first.open()
    second.open()
    assert outcome(caller) == CANCELED
    assert_works(machine, "Spare")


def test_many_late_handlers_of_many_machines_are_all_left_behind() -> None:
    lates = [Late() for _ in range(12)]
    machines = [_machine({"New_state": late}) for late in lates]
    callers = [start(partial(machine.add, "New")) for machine in machines]

    assert [machine.when_error().wait(PATIENCE) for machine in machines] == [True] * 12

    for late in lates:
        late.open()
    assert [outcome(caller) for caller in callers] == [CANCELED] * 12
    for machine in machines:
        assert_works(machine, "Spare")


def test_one_that_is_late_soon_is_noticed_beside_one_that_has_much_time() -> None:
    patient, late = Gate(), Late()
    slow, quick = _machine({"New_state": patient}, timeout=LONG), _machine({"New_state": late})
    callers = [start(lambda: slow.add("New"))]
    patient.await_reached()
    callers.append(start(lambda: quick.add("New")))

    assert quick.when_error().wait(PATIENCE)

    patient.open()
    late.open()
    assert [outcome(each) for each in callers] == [EXECUTED, CANCELED]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
def test_handlers_that_end_in_time_do_not_wake_the_watchdog() -> None:
    machine = _machine({"New_state": lambda event: None}, LONG)
    machine.add("New")
    (watchdog,) = [each for each in threading.enumerate() if each.name == "asyncmachine watchdog"]
    # It may be awake because of a test before this one: of several rounds one is quiet.
    fewest = min(_sleeps_while(machine, watchdog) for _ in range(5))
    assert fewest < 50


def _sleeps_while(machine: Machine, thread: threading.Thread) -> int:
    before = _sleeps(thread)
    for _ in range(300):
        machine.remove("New")
        machine.add("New")
        outcome(start(lambda: None))  # lets the watchdog run, if it would
    return _sleeps(thread) - before


def _sleeps(thread: threading.Thread) -> int:
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_a_watchdog_of_its_own() -> None:
    code = """
import os, signal, threading, warnings
warnings.simplefilter("ignore")
from asyncmachine import Machine, State
def build(handler, timeout):
    return Machine({"Foo": State()}, handlers={"Foo_state": handler}, handler_timeout=timeout)
build(lambda event: None, 0.3).add("Foo")  # the parent's looks again after that time
if os.fork() == 0:
    signal.alarm(20)  # what hangs is killed
    machine = build(lambda event: threading.Event().wait(), 0.5)
    late = machine.when("Exception")
    threading.Thread(target=machine.add, args=("Foo",), daemon=True).start()
    late.wait()
    os._exit(0)
print(os.wait()[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == "0"


def test_a_machine_that_raises_its_errors_goes_on_too() -> None:
    late = Late()
    machine = Machine(
        {"Foo": State(), "Hit": State(multi=True), "Spare": State()},
        handlers={"Foo_state": late},
        handler_timeout=SHORT,
        catch_errors=False,
    )
    caller = start(lambda: machine.add("Foo"))
    late.await_reached()

    assert outcome(start(lambda: machine.add("Hit"))).wait(PATIENCE) == EXECUTED

    late.open()
    try:
        assert outcome(caller) == CANCELED
    except HandlerTimeoutError:
        pass  # raised to the caller whose thread ran the handler, once it comes back
    assert machine.is_inactive("Foo", "Exception")
    assert isinstance(machine.error, HandlerTimeoutError)
    assert_works(machine, "Spare")


# Listeners, dry runs, tracers -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["New_enter", "New_state", "Any_state"])
def test_a_late_listener_is_left_behind_and_the_transition_completes(name: str) -> None:
    calls: list[str] = []
    late = Late()
    machine = _machine()
    machine.on(name, late)
    machine.on(name, lambda event: calls.append(event.name))
    machine.bind({"Any_state": lambda event: calls.append(event.name)})
    caller = start(lambda: machine.add("New"))
    late.await_reached()

    assert machine.add("Hit").wait(PATIENCE) == EXECUTED

    assert machine.is_active("New")
    assert calls[:2] in ([name, "Any_state"], ["Any_state", name])
    assert machine.error is None
    late.open()
    assert outcome(caller) == EXECUTED
    assert late.expired == [False, True]
    assert_works(machine, "Spare")


def test_a_late_listener_then_a_late_handler_are_both_left_behind() -> None:
    listener, handler = Late(), Late()
    machine = _machine({"New_state": handler})
    machine.on("Old_end", listener)
    caller = start(lambda: machine.add("New"))
    listener.await_reached()
    handler.await_reached()

    assert machine.when_error().wait(PATIENCE)
    await_rest(machine)
    assert machine.clock("Old", "New") == {"Old": 2, "New": 2}
    listener.open()
    handler.open()
    assert outcome(caller) == CANCELED
    assert_works(machine, "Spare")


def test_a_late_handler_in_a_dry_run_is_a_refusal_and_nothing_more() -> None:
    late = Late()
    machine = _machine({"New_enter": late})
    asked = start(lambda: machine.can_add("New"))
    late.await_reached()

    assert outcome(start(lambda: machine.add("Hit"))).wait(PATIENCE) == EXECUTED

    late.open()
    answer = outcome(asked)
    assert answer == CANCELED
    assert "HandlerTimeoutError" in answer.why
    assert "New_enter" in answer.why
    assert late.expired == [False, True]
    assert machine.error is None
    assert machine.is_inactive("Exception")
    assert_works(machine, "Spare")


def test_a_dry_run_is_answered_while_the_late_handler_is_still_stuck() -> None:
    busy, late = Gate(), Late()
    machine = _machine({"New_enter": late, "Spare_state": busy}, timeout=0.3)
    caller = start(lambda: machine.add("Spare"))
    busy.await_reached()
    asked = start_queued(lambda: machine.can_add("New"))
    busy.open()  # so that the caller carries it out

    answer = outcome(asked)

    assert answer == CANCELED
    assert "HandlerTimeoutError" in answer.why
    late.open()
    assert outcome(caller) == EXECUTED


def test_a_handler_that_is_late_in_a_dry_run_of_its_own_is_left_behind() -> None:
    late = Late()
    machine = _machine({"New_enter": late})
    machine.bind({"Hit_state": lambda event: machine.can_add("New")})
    caller = start(lambda: machine.add("Hit"))
    late.await_reached()

    assert outcome(start(lambda: machine.add("Old", "Spare"))).wait(PATIENCE) == EXECUTED

    assert isinstance(machine.error, HandlerTimeoutError)
    late.open()
    assert outcome(caller) == CANCELED


def test_a_handler_that_waits_in_another_machine_is_left_behind_by_its_own() -> None:
    late = Gate()
    far = Machine({"Foo": State(), "Bar": State()}, handlers={"Foo_state": late})
    near = _machine({"New_state": lambda event: far.add("Foo")})
    caller = start(lambda: near.add("New"))
    late.await_reached()

    assert near.when_error().wait(PATIENCE)
    assert near.add("Hit").wait(PATIENCE) == EXECUTED

    late.open()
    assert outcome(caller) == CANCELED
    assert far.is_active("Foo")
    assert_works(near, "Spare")
    assert_works(far, "Bar")


def test_both_machines_leave_behind_a_handler_that_both_wait_for() -> None:
    late = Late()
    far = Machine(
        {"Foo": State(), "Bar": State()}, handlers={"Foo_state": late}, handler_timeout=SHORT
    )
    near = _machine({"New_state": lambda event: far.add("Foo")})
    caller = start(lambda: near.add("New"))

    assert far.when_error().wait(PATIENCE)
    assert near.when_error().wait(PATIENCE)

    late.open()
    assert outcome(caller) == CANCELED
    assert_works(near, "Spare")
    assert_works(far, "Bar")


def test_tracers_hear_the_end_of_a_late_handler_and_of_its_transition() -> None:
    heard: list[str] = []

    class Hearing(Tracer):
        def handler_start(self, tx: object, name: str) -> None:
            heard.append(f"start {name}")

        def handler_end(self, tx: object, name: str) -> None:
            heard.append(f"end {name}")

        def transition_end(self, tx: object) -> None:
            heard.append(f"over {tx.mutation.states[0]}")  # type: ignore[attr-defined]

    late = Late()
    machine = _machine({"New_state": late})
    machine.add_tracer(Hearing())
    caller = start(lambda: machine.add("New"))
    assert machine.when_error().wait(PATIENCE)
    await_rest(machine)
    late.open()
    outcome(caller)

    assert heard == ["start New_state", "end New_state", "over New", "over Exception"]


# Of a call that ends and its deadline that passes, one is first -------------------------------


def test_a_handler_that_ends_as_its_time_does_is_either_in_time_or_late() -> None:
    """The watchdog's claim and the handler's end are made to race."""
    released: list[threading.Event] = []

    def wait(event: Event) -> None:
        released[-1].wait(SHORT)

    machine = _machine(timeout=SHORT)
    machine.bind({"New_state": wait})
    for n in range(25):
        released.append(threading.Event())
        before = machine.tick("New")
        result = machine.add("New", n=n).wait(PATIENCE)
        await_rest(machine)
        assert bool(result) is machine.is_active("New")
        assert machine.tick("New") == before + (1 if result else 2)
        assert bool(result) is machine.is_inactive("Exception")
        machine.set("Old")
        await_rest(machine)
    assert_works(machine, "Spare")


def test_of_stopping_and_being_late_exactly_one_wins() -> None:
    for _ in range(300):
        watch = Watch(LONG, lambda: None)
        watch.start()
        assert sorted(together(watch.claim, watch.stop)) == [False, True]


def test_a_watch_that_is_late_calls_once() -> None:
    calls: list[int] = []
    called = threading.Event()

    def late() -> None:
        calls.append(1)
        called.set()

    watch = Watch(SHORT, late)
    watch.start()
    assert called.wait(PATIENCE)

    assert watch.stop() is False
    assert calls == [1]


def test_a_watch_that_is_stopped_calls_never() -> None:
    calls: list[int] = []
    stopped, other = Watch(SHORT, lambda: calls.append(1)), threading.Event()
    stopped.start()
    if stopped.stop():
        after = Watch(2 * SHORT, other.set)
        after.start()
        assert other.wait(PATIENCE)
        assert calls == []


def test_watches_that_threads_start_and_stop_all_the_time_are_all_settled() -> None:
    def start_and_stop(timeout: float) -> int:
        stopped = 0
        for _ in range(150):
            late = threading.Event()
            watch = Watch(timeout, late.set)
            watch.start()
            if watch.stop():
                stopped += 1
            else:
                assert late.wait(PATIENCE)
        return stopped

    stopped = together(*(partial(start_and_stop, timeout) for timeout in (1e-6, 1e-4, LONG)))

    assert stopped[2] == 150


def test_nothing_is_watched_without_a_time_out() -> None:
    code = """
import threading
from asyncmachine import Machine, State
machine = Machine({"Foo": State()}, handlers={"Foo_state": lambda event: None})
machine.add("Foo")
print([thread.name for thread in threading.enumerate()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['MainThread']"
