"""Whose turn it is: queueing, hand-over, order, results, eval and dry runs among threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from threading import get_ident

import pytest

from asyncmachine import Cause, Event, Machine, Result, State, Tracer
from asyncmachine.turns import FAIR_SHARE
from tests.races import (
    PATIENCE,
    Gate,
    assert_works,
    await_rest,
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


class Log:
    """Handlers that note the arg ``n`` of each Hit, and the thread that it was carried out on."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.threads: list[int] = []

    def Hit_state(self, event: Event) -> None:
        self.seen.append(event.args.get("n"))
        self.threads.append(get_ident())


def _hits(log: Log | None = None, **options: int) -> Machine:
    schema = {"Hit": State(multi=True), "Foo": State(), "Bar": State(require="Foo")}
    return Machine(schema, handlers=log, queue_limit=options.get("queue_limit", 1000))


# Who carries out what -------------------------------------------------------------------------


def test_a_thread_that_finds_the_machine_idle_carries_its_mutation_out_itself() -> None:
    log = Log()
    machine = _hits(log)

    for _ in range(3):
        result, thread = outcome(start(lambda: (machine.add("Hit"), get_ident())))
        assert result == EXECUTED
        assert log.threads[-1] == thread


def test_a_thread_carries_out_what_others_queue_meanwhile_before_its_call_returns() -> None:
    log, gate = Log(), Gate()
    machine = _hits(log)
    machine.bind({"Foo_state": gate})
    caller = start(lambda: (machine.add("Foo"), len(log.seen), get_ident()))
    gate.await_reached()
    queued = [machine.add("Hit", n=n) for n in range(5)]
    gate.open()

    result, done, thread = outcome(caller)

    assert result == EXECUTED
    assert done == 5
    assert log.threads == [thread] * 5
    assert [each.wait(0) for each in queued] == [EXECUTED] * 5


def test_a_call_inside_a_handler_of_the_machine_is_always_queued() -> None:
    results: list[Result] = []
    machine = _hits()

    def ask(event: Event) -> None:
        results.append(machine.add("Hit", event=event.name))

    machine.bind({"Foo_enter": ask, "Foo_state": ask})

    assert machine.add("Foo") == EXECUTED

    assert results == [QUEUED, QUEUED]
    assert [each.wait(0) for each in results] == [EXECUTED, EXECUTED]


def test_a_call_of_an_idle_machine_inside_a_handler_of_another_is_carried_out_at_once() -> None:
    results: list[Result] = []
    other, log = Machine({"Foo": State()}), Log()
    machine = _hits(log)
    other.bind({"Foo_state": lambda event: results.append(machine.add("Hit"))})

    assert other.add("Foo") == EXECUTED

    assert results == [EXECUTED]
    assert log.threads == [get_ident()]


def test_what_is_queued_is_carried_out_in_the_order_of_the_requests() -> None:
    log = Log()
    machine = _hits(log)
    with busy(machine):
        for n in range(50):
            outcome(start(partial(machine.add, "Hit", n=n)))
        assert machine.queue_length == 50
    await_rest(machine)

    assert log.seen == list(range(50))


def test_each_threads_mutations_are_carried_out_in_its_order() -> None:
    log = Log()
    machine = _hits(log)

    def add(thread: int) -> None:
        for n in range(200):
            machine.add("Hit", n=(thread, n))

    together(*(partial(add, thread) for thread in range(4)))
    await_rest(machine)

    for thread in range(4):
        mine = [each for each in log.seen if isinstance(each, tuple) and each[0] == thread]
        assert mine == [(thread, n) for n in range(200)]
    assert machine.tick("Hit") == 2 * 800 - 1


def test_handlers_never_run_at_the_same_time() -> None:
    inside: list[int] = []
    overlaps: list[int] = []

    def handler(event: Event) -> None:
        inside.append(get_ident())
        overlaps.extend(inside[1:])
        sum(range(50))  # time for a change of threads
        inside.pop()

    machine = _hits()
    machine.bind(dict.fromkeys(("Any_Hit", "Hit_Hit", "Hit_enter", "Hit_state"), handler))

    def add() -> None:
        for n in range(150):
            machine.add("Hit", n=n)

    together(*[add] * 4)
    await_rest(machine)

    assert overlaps == []


# Nothing is left behind -----------------------------------------------------------------------


class AtTheEnd(Tracer):
    """Does things at the moments when a drain ends and the turn is still held."""

    def __init__(self, *jobs: Callable[[], object]) -> None:
        self._jobs = list(jobs)

    def queue_empty(self, mach: Machine) -> None:
        if self._jobs:
            self._jobs.pop(0)()


@pytest.mark.parametrize("request_it", ["add", "can_add", "eval", "send", "dispose"])
def test_whatever_another_thread_asks_for_as_a_drain_ends_is_done(request_it: str) -> None:
    machine = _hits()

    def dispose() -> bool:
        machine.dispose()
        return machine.is_disposed

    jobs: dict[str, Callable[[], object]] = {
        "add": lambda: machine.add("Hit").wait(PATIENCE),
        "can_add": lambda: machine.can_add("Hit"),
        "eval": lambda: machine.eval(lambda: True),
        "send": lambda: machine.send("add", "Hit").wait(PATIENCE),
        "dispose": dispose,
    }
    asked = threading.Event()
    futures = []

    class Telling(Tracer):
        def mutation_queued(self, mach: Machine, mutation: object) -> None:
            asked.set()

    def ask() -> None:
        futures.append(start(jobs[request_it]))
        if request_it in ("add", "send"):
            assert asked.wait(PATIENCE)

    machine.add_tracer(Telling())
    machine.add_tracer(AtTheEnd(ask))
    machine.add("Foo")

    assert outcome(futures[0])


def test_what_the_last_tracer_asks_for_as_a_drain_ends_is_done() -> None:
    machine = _hits()
    results: list[Result] = []
    machine.add_tracer(AtTheEnd(*[lambda: results.append(machine.add("Hit"))] * 3))

    machine.add("Foo")

    assert [each.wait(PATIENCE) for each in results] == [EXECUTED] * 3


def test_racing_requests_of_every_kind_all_end() -> None:
    machine = _hits()
    for n in range(150):
        results = together(
            lambda: machine.add("Hit").wait(PATIENCE) == EXECUTED,
            lambda: machine.eval(lambda: True, timeout=PATIENCE),
            lambda: bool(machine.can_add("Hit")),
            lambda: machine.send("add", "Hit").wait(PATIENCE) == EXECUTED,
        )
        assert results == [True] * 4
        assert machine.tick("Hit") == 4 * n + 3


def test_the_queue_is_empty_once_and_only_when_nothing_waits() -> None:
    machine = _hits()
    with busy(machine):
        queued = machine.add("Hit")
        idle = [start(lambda: machine.when_queue_empty().wait(PATIENCE)) for _ in range(4)]
        assert not machine.when_queue_empty().is_set()

    assert [outcome(each) for each in idle] == [True] * 4
    assert queued.wait(PATIENCE) == EXECUTED
    await_rest(machine)
    assert machine.when_queue_empty().is_set()


def test_waiters_for_an_empty_queue_are_never_forgotten() -> None:
    machine = _hits()

    def add_and_wait() -> bool:
        machine.add("Hit")
        return machine.when_queue_empty().wait(PATIENCE)

    for _ in range(150):
        assert together(*[add_and_wait] * 3) == [True] * 3


# What comes first -----------------------------------------------------------------------------


def test_exception_then_auto_then_eval_come_before_the_queue() -> None:
    order: list[object] = []
    gate = Gate()
    schema = {"Foo": State(), "Later": State(), "Auto": State(auto=True, require="Exception")}

    def fail(event: Event) -> None:
        gate()
        raise ValueError

    handlers = {
        name: lambda event: order.append(event.name)
        for name in ("Exception_state", "Auto_state", "Later_state")
    }
    machine = Machine(schema, handlers=[{"Foo_state": fail}, handlers])
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()
    later = outcome(start(lambda: machine.add("Later")))
    value = start_queued(lambda: machine.eval(lambda: order.append("eval")))
    gate.open()

    assert outcome(caller) == CANCELED
    outcome(value)
    assert later.wait(PATIENCE) == EXECUTED
    assert order == ["Exception_state", "Auto_state", "eval", "Later_state"]


def test_the_auto_mutation_comes_before_what_a_handler_asked_for() -> None:
    order: list[str] = []
    schema = {"Foo": State(), "Later": State(), "Auto": State(auto=True)}

    def note(event: Event) -> None:
        order.append(event.name)
        if event.name == "Foo_state":
            machine.add("Later")

    machine = Machine(
        schema, handlers=dict.fromkeys(("Foo_state", "Later_state", "Auto_state"), note)
    )
    machine.add("Foo")

    assert order == ["Foo_state", "Auto_state", "Later_state"]


def test_evals_run_in_the_order_of_their_requests_and_before_the_queue() -> None:
    order: list[object] = []
    machine = _hits()
    machine.bind({"Hit_state": lambda event: order.append("Hit")})
    with busy(machine):
        machine.add("Hit")
        for n in range(3):
            start_queued(partial(machine.eval, partial(order.append, n)))
    await_rest(machine)

    assert order == [0, 1, 2, "Hit"]


# A caller's own result ------------------------------------------------------------------------


def test_a_caller_that_drains_for_others_gets_its_own_result() -> None:
    gate = Gate(verdict=False)
    machine = _hits()
    machine.bind({"Foo_enter": gate})
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()
    others = [machine.add("Hit", n=n) for n in range(10)]
    gate.open()

    assert outcome(caller).why.startswith("vetoed by")
    assert [each.wait(PATIENCE) for each in others] == [EXECUTED] * 10


def test_a_duplicate_shares_the_result_of_the_one_that_waits() -> None:
    calls: list[str] = []

    def refuse(event: Event) -> bool:
        calls.append(event.name)
        return False

    machine = Machine({"Foo": State(), "Bar": State()}, handlers={"Foo_enter": refuse})
    with busy(machine):
        results = [outcome(start(partial(machine.add, "Foo"))) for _ in range(4)]
        assert machine.queue_length == 1

    finals = [each.wait(PATIENCE) for each in results]
    assert finals == [CANCELED] * 4
    assert all(each.why.startswith("vetoed by") for each in finals)
    assert calls == ["Foo_enter"]


def test_a_mutation_with_something_between_is_no_duplicate() -> None:
    machine = Machine({"Foo": State(), "Bar": State()})
    with busy(machine):
        for request in (machine.add, machine.remove, machine.add):
            request("Foo")
        assert machine.queue_length == 3
    await_rest(machine)

    assert machine.tick("Foo") == 3


def test_racing_duplicates_all_get_a_result_and_the_last_request_holds() -> None:
    machine = Machine({"Foo": State()})

    def toggle() -> bool:
        for _ in range(100):
            if not machine.add("Foo").wait(PATIENCE) or not machine.remove("Foo").wait(PATIENCE):
                return False
        return True

    assert together(*[toggle] * 4) == [True] * 4
    assert machine.is_inactive("Foo")


def test_a_mutation_past_the_limit_is_canceled_and_the_urgent_pass() -> None:
    machine = _hits(queue_limit=5)
    with busy(machine):
        results = [machine.add("Hit", n=n) for n in range(8)]
        value = start_queued(lambda: machine.eval(lambda: 42))
        assert machine.queue_length == 6

    assert outcome(value) == 42
    assert [each.wait(PATIENCE) for each in results] == [EXECUTED] * 5 + [CANCELED] * 3
    assert results[-1].why == "the queue is full (5)"
    assert_works(machine, "Foo")


def test_racing_producers_never_pass_the_limit_and_lose_nothing() -> None:
    log = Log()
    machine = _hits(log, queue_limit=10)
    longest: list[int] = []

    def produce() -> list[Result]:
        results = []
        for n in range(300):
            results.append(machine.add("Hit", n=n))
            longest.append(machine.queue_length)
        return results

    finals = [each.wait(PATIENCE) for made in together(*[produce] * 4) for each in made]

    assert max(longest) <= 10
    assert finals.count(EXECUTED) == len(log.seen)
    assert finals.count(EXECUTED) + finals.count(CANCELED) == 1200


# A fair share ---------------------------------------------------------------------------------


def test_a_thread_hands_over_after_its_share_of_others_work() -> None:
    log, gate = Log(), Gate()
    machine = _hits(log)
    machine.bind({"Foo_state": gate})
    caller = start(lambda: (machine.add("Foo"), get_ident()))
    gate.await_reached()
    results = [machine.add("Hit", n=n) for n in range(3 * FAIR_SHARE)]
    gate.open()
    result, thread = outcome(caller)

    assert result == EXECUTED
    assert [each.wait(PATIENCE) for each in results] == [EXECUTED] * 3 * FAIR_SHARE
    assert log.seen == list(range(3 * FAIR_SHARE))
    assert log.threads.count(thread) <= FAIR_SHARE


def test_a_thread_carries_out_all_of_its_own_work() -> None:
    log = Log()
    machine = _hits(log)

    def ask(event: Event) -> None:
        for n in range(2 * FAIR_SHARE):
            machine.add("Hit", n=n)

    machine.bind({"Foo_state": ask})
    machine.add("Foo")

    assert log.threads == [get_ident()] * 2 * FAIR_SHARE


def test_a_caller_comes_back_while_others_keep_the_queue_full() -> None:
    machine = _hits()
    back = threading.Event()

    def produce() -> None:
        n = 0
        while not back.is_set():
            machine.add("Hit", n=n)
            n += 1

    def call() -> None:
        for _ in range(20):
            machine.toggle("Foo").wait(PATIENCE)
        back.set()

    together(produce, produce, call, until=back)
    assert_works(machine, "Foo")


def test_a_caller_comes_back_from_work_that_others_work_keeps_asking_for() -> None:
    gate, back = Gate(), threading.Event()
    machine = _hits()

    def ask_again(event: Event) -> None:
        if not back.is_set():
            machine.add("Hit", n=1)

    machine.bind({"Foo_state": gate, "Hit_state": ask_again})

    def call() -> Result:
        result = machine.add("Foo")
        back.set()
        return result

    caller = start(call)
    gate.await_reached()
    machine.add("Hit", n=0)  # ours, and so is what comes of it
    gate.open()

    try:
        assert outcome(caller) == EXECUTED
    finally:
        back.set()


# eval -----------------------------------------------------------------------------------------


def test_eval_gives_the_value_and_raises_the_error_also_on_a_busy_machine() -> None:
    machine = _hits()

    def fail() -> None:
        msg = "in eval"
        raise LookupError(msg)

    assert machine.eval(lambda: 42) == 42
    with pytest.raises(LookupError, match="in eval"):
        machine.eval(fail)
    with busy(machine):
        value, error = start(lambda: machine.eval(lambda: 43)), start(lambda: machine.eval(fail))
    assert outcome(value) == 43
    with pytest.raises(LookupError, match="in eval"):
        outcome(error)
    assert machine.error is None
    assert_works(machine, "Foo")


def test_evals_are_alone_among_themselves_and_with_handlers() -> None:
    count = [0]

    def increase(event: Event | None = None) -> None:
        before = count[0]
        sum(range(20))  # time for a change of threads
        count[0] = before + 1

    machine = _hits()
    machine.bind({"Hit_state": increase})

    def evaluate() -> None:
        for _ in range(100):
            machine.eval(increase)

    def add() -> None:
        for n in range(100):
            machine.add("Hit", n=n).wait(PATIENCE)

    together(evaluate, add, evaluate, add)

    assert count == [400]


def test_eval_sees_no_transition_half_done() -> None:
    machine = Machine({"Foo": State(remove="Bar"), "Bar": State(remove="Foo")})
    machine.add("Bar")
    done = threading.Event()

    def toggle() -> None:
        while not done.is_set():
            machine.add("Foo")
            machine.add("Bar")

    def look() -> bool:
        whole = all(
            machine.eval(lambda: (machine.transition, len(machine.active_states()))) == (None, 1)
            for _ in range(200)
        )
        done.set()
        return whole

    assert together(toggle, look, until=done)[1] is True


def test_mutations_in_an_eval_are_queued_and_carried_out_after_it() -> None:
    machine = _hits()

    def job() -> tuple[Result, bool]:
        return machine.add("Foo"), machine.is_active("Foo")

    result, active = machine.eval(job)
    assert (result, active) == (QUEUED, False)
    assert result.wait(PATIENCE) == EXECUTED
    assert machine.is_active("Foo")


def test_waiting_for_a_result_inside_an_eval_is_an_error() -> None:
    machine = _hits()
    with pytest.raises(RuntimeError):
        machine.eval(lambda: machine.add("Foo").wait())
    assert machine.when("Foo").wait(PATIENCE)


def test_dry_runs_inside_an_eval_are_answered_on_the_spot() -> None:
    machine = _hits()
    assert outcome(start(lambda: machine.eval(lambda: machine.can_add("Foo")))) == EXECUTED
    assert outcome(start(lambda: machine.eval(lambda: machine.can_add("Bar")))) == CANCELED


def test_eval_that_does_not_get_its_turn_in_time_never_runs() -> None:
    machine = _hits()
    ran: list[int] = []
    with busy(machine), pytest.raises(TimeoutError):
        machine.eval(lambda: ran.append(1), timeout=0.01)
    await_rest(machine)

    assert ran == []
    assert machine.queue_length == 0
    assert_works(machine, "Foo")


def test_eval_with_no_patience_runs_on_an_idle_machine_only() -> None:
    machine = _hits()
    assert machine.eval(lambda: 42, timeout=0) == 42
    with busy(machine), pytest.raises(TimeoutError):
        machine.eval(lambda: 42, timeout=0)
    assert machine.eval(lambda: 42, timeout=0) == 42


def test_eval_that_times_out_as_its_turn_comes_either_runs_or_raises() -> None:
    machine = _hits()
    for _ in range(60):
        ran: list[int] = []
        gate = Gate()
        holder = start(partial(machine.eval, gate))
        gate.await_reached()

        def attempt(ran: list[int] = ran) -> bool:
            try:
                machine.eval(lambda: ran.append(1), timeout=1e-4)
            except TimeoutError:
                return False
            return True

        returned, _ = together(attempt, lambda gate=gate: bool(gate.open()))  # type: ignore[misc]
        outcome(holder)
        await_rest(machine)
        assert len(ran) == returned


# Dry runs -------------------------------------------------------------------------------------


def test_a_dry_run_waits_for_its_turn() -> None:
    machine = _hits()
    with busy(machine):
        machine.add("Foo")
        asked = start_queued(lambda: machine.can_add("Bar"))

    assert outcome(asked) == EXECUTED  # for Foo came before
    assert machine.is_inactive("Bar")


def test_a_dry_run_inside_a_handler_is_answered_on_the_spot() -> None:
    answers: list[tuple[str, Result, Result, Result]] = []
    machine = _hits()

    def ask(event: Event) -> None:
        if event.transition is machine.transition:  # and not in the dry run itself
            answers.append(
                (event.name, machine.can_add("Bar"), machine.can_remove("Foo"), machine.can_set())
            )

    machine.bind(dict.fromkeys(("Foo_enter", "Foo_state"), ask))
    machine.add("Foo")

    assert answers == [
        ("Foo_enter", CANCELED, EXECUTED, EXECUTED),
        ("Foo_state", EXECUTED, EXECUTED, EXECUTED),
    ]
    assert answers[0][1].why == "Bar requires Foo, which is inactive"


def test_a_dry_run_changes_nothing() -> None:
    calls: list[str] = []
    names = ("Any_Foo", "Foo_enter", "Any_enter", "Foo_state", "Any_state")
    machine = _hits()
    machine.bind({name: lambda event: calls.append(event.name) for name in names})
    waiter = machine.when("Foo")

    assert outcome(start(lambda: machine.can_add("Foo"))) == EXECUTED
    assert calls == ["Any_Foo", "Foo_enter", "Any_enter"]
    assert machine.time_sum() == 0
    assert not waiter.is_set()


def test_an_error_in_a_handler_that_is_asked_is_a_refusal_and_nothing_more() -> None:
    def fail(event: Event) -> None:
        msg = "no idea"
        raise LookupError(msg)

    machine = _hits()
    machine.bind({"Foo_enter": fail})
    answers = together(*[lambda: machine.can_add("Foo")] * 3)

    assert answers == [CANCELED] * 3
    assert all("LookupError" in each.why and "no idea" in each.why for each in answers)
    assert machine.error is None
    assert machine.is_inactive("Exception")


def test_mutations_that_a_dry_run_asks_for_are_queued() -> None:
    results: list[Result] = []
    machine = _hits()

    def ask_and_refuse(event: Event) -> bool:
        results.append(machine.add("Hit"))
        return False

    machine.bind({"Foo_enter": ask_and_refuse})

    assert machine.can_add("Foo").why.startswith("vetoed by")
    assert results == [QUEUED]
    assert results[0].wait(PATIENCE) == EXECUTED


def test_tracers_do_not_hear_of_dry_runs() -> None:
    heard: list[str] = []

    class Hearing(Tracer):
        def mutation_queued(self, mach: Machine, mutation: object) -> None:
            heard.append("queued")

        def transition_init(self, tx: object) -> None:
            heard.append("init")

        def transition_end(self, tx: object) -> None:
            heard.append("end")

        def handler_start(self, tx: object, name: str) -> None:
            heard.append(name)

    machine = _hits()
    machine.bind({"Foo_enter": lambda event: None})
    machine.add_tracer(Hearing())
    with busy(machine):
        asked = start_queued(lambda: machine.can_add("Foo"))
    outcome(asked)

    assert heard == []


# Waiting for results --------------------------------------------------------------------------


def test_a_queued_result_that_is_late_raises_a_time_out_and_can_be_waited_for_again() -> None:
    machine = _hits()
    with busy(machine):
        result = machine.add("Foo")
        with pytest.raises(TimeoutError):
            result.wait(0)
        with pytest.raises(TimeoutError):
            result.wait(0.005)

    assert result.wait(PATIENCE) == EXECUTED
    assert result == QUEUED  # a result is a value, it does not change


def test_a_final_result_returns_itself_even_inside_a_handler() -> None:
    machine, other = _hits(), _hits()
    done = other.add("Foo")
    waits: list[bool] = []
    machine.bind({"Foo_state": lambda event: waits.append(done.wait() is done)})

    machine.add("Foo")

    assert waits == [True]


@pytest.mark.parametrize("name", ["Foo_enter", "Foo_state"])
def test_waiting_inside_a_handler_of_the_machine_is_an_error(name: str) -> None:
    errors: list[BaseException] = []
    machine = _hits()

    def wait(event: Event) -> None:
        try:
            machine.add("Hit", n=1).wait()
        except RuntimeError as error:
            errors.append(error)

    machine.bind({name: wait})

    assert outcome(start(lambda: machine.add("Foo"))) == EXECUTED
    assert len(errors) == 1
    assert_works(machine, "Foo")


def test_waiting_inside_a_handler_for_another_machine_is_fine() -> None:
    machine, other = _hits(), _hits()
    finals: list[Result] = []
    entered = threading.Event()

    def wait(event: Event) -> None:
        result = other.add("Foo")
        entered.set()
        finals.append(result.wait(PATIENCE))

    machine.bind({"Foo_state": wait})
    with busy(other):
        caller = start(lambda: machine.add("Foo"))
        assert entered.wait(PATIENCE)
    outcome(caller)

    assert finals == [EXECUTED]


def test_many_threads_may_wait_for_one_result() -> None:
    machine = _hits()
    with busy(machine):
        result = machine.add("Foo")
        waits = [start(partial(result.wait, PATIENCE)) for _ in range(8)]

    assert [outcome(each) for each in waits] == [EXECUTED] * 8


# Machines that wait for each other ------------------------------------------------------------


def _eval(machine: Machine) -> object:
    return machine.eval(lambda: 42)


def _ask(machine: Machine) -> object:
    return machine.can_add("Bar")


def _wait(machine: Machine) -> object:
    try:
        return machine.add("Bar", n=1).wait(PATIENCE)
    except RuntimeError as error:  # as it would never end
        return error


def _add(machine: Machine) -> object:
    return machine.add("Bar", n=1)


def _listen(machine: Machine) -> object:
    return machine.on("Bar_state", lambda event: None)


def _trace(machine: Machine) -> object:
    return machine.add_tracer(Tracer())


CALLS = {"eval": _eval, "can": _ask, "wait": _wait, "add": _add, "on": _listen, "trace": _trace}
RINGS = [
    *([name] * 2 for name in CALLS),
    *([name] * 3 for name in ("eval", "can", "wait")),
    ["eval", "can"],
    ["eval", "wait"],
    ["can", "wait"],
    ["eval", "can", "wait"],
    ["eval", "wait", "can", "add"],
]


def _ring(calls: list[str]) -> tuple[list[Machine], list[object]]:
    """Machines in a ring, each of which calls the next in a handler, all at the same time."""
    machines = [Machine({"Foo": State(), "Bar": State()}) for _ in calls]
    inside = threading.Barrier(len(calls))
    answers: list[object] = []

    def handler(name: str, target: Machine, event: Event) -> None:
        inside.wait(PATIENCE)
        answers.append(CALLS[name](target))

    for n, name in enumerate(calls):
        target = machines[(n + 1) % len(machines)]
        machines[n].bind({"Foo_state": partial(handler, name, target)})
    return machines, answers


@pytest.mark.parametrize("calls", RINGS, ids="-".join)
def test_machines_whose_handlers_wait_for_each_other_do_not_deadlock(calls: list[str]) -> None:
    for _ in range(10):
        machines, answers = _ring(calls)
        results = together(*(partial(each.add, "Foo") for each in machines))

        assert results == [EXECUTED] * len(calls)
        assert len(answers) == len(calls)
        assert [each.error for each in machines] == [None] * len(calls)
        for machine in machines:
            assert_works(machine, "Foo")


def test_a_handler_that_evaluates_in_a_machine_that_comes_back_does_not_deadlock() -> None:
    near, far = _hits(), _hits()
    values: list[object] = []

    def go_there(event: Event) -> None:
        values.append(far.eval(lambda: near.eval(lambda: bool(near.can_add("Bar")))))

    near.bind({"Foo_state": go_there})
    caller = start(lambda: near.add("Foo"))

    assert outcome(caller) == EXECUTED
    assert values == [True]
    with busy(far):  # so that another thread carries it out
        near.remove("Foo")
        again = start_queued(lambda: near.add("Foo"))
    assert outcome(again) == EXECUTED
    assert values == [True, True]


def test_two_machines_whose_handlers_mutate_each_other_never_deadlock() -> None:
    first, second = _hits(), _hits()
    first.bind({"Hit_state": lambda event: second.add("Foo") and second.remove("Foo")})
    second.bind({"Hit_state": lambda event: first.add("Foo") and first.remove("Foo")})

    def drive(machine: Machine) -> list[Result]:
        return [machine.add("Hit", n=n).wait(PATIENCE) for n in range(150)]

    for results in together(*(partial(drive, each) for each in (first, second, first, second))):
        assert results == [EXECUTED] * 150
    for machine in (first, second):
        assert_works(machine, "Foo")


# What is called back --------------------------------------------------------------------------


def _wait_for_it(machine: Machine) -> object:
    try:
        return machine.add("Hit", n=1).wait()
    except RuntimeError as error:
        return error


CALLS_BACK: dict[str, Callable[[Machine], object]] = {
    "eval": lambda machine: machine.eval(lambda: 42),
    "can_add": lambda machine: machine.can_add("Hit"),
    "wait": _wait_for_it,
    "dispose": lambda machine: (machine.dispose(), 42)[1],  # type: ignore[func-returns-value]
}
HOOKS = [name for name in vars(Tracer) if name.startswith(("transition_", "handler_"))]
HOOKS += ["queue_empty", "mutation_queued"]


@pytest.mark.parametrize("call", CALLS_BACK)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_tracer_may_call_the_machine_without_hanging_it(hook: str, call: str) -> None:
    calls: list[object] = []
    machine = _hits()

    def once(*args: object) -> None:
        if not calls:
            calls.append(call)
            calls.append(CALLS_BACK[call](machine))

    tracer = Tracer()
    setattr(tracer, hook, once)
    machine.bind({"Foo_state": lambda event: machine.add("Hit", n=0)})
    outcome(start(lambda: machine.add_tracer(tracer)))

    assert outcome(start(lambda: machine.add("Foo"))) in (EXECUTED, CANCELED)
    assert len(calls) == 2


def _on_done(machine: Machine, once: Callable[[object], None]) -> None:
    machine.when("Foo").on_done(once)


def _on_cancel(machine: Machine, once: Callable[[object], None]) -> None:
    machine.add("Bar")
    machine.when("Hit", ctx=machine.state_ctx("Bar")).on_done(once)


def _on_expire(machine: Machine, once: Callable[[object], None]) -> None:
    machine.add("Bar")
    machine.state_ctx("Bar").on_expire(once)


def _on_idle(machine: Machine, once: Callable[[object], None]) -> None:
    def ask(event: Event) -> None:
        machine.when_queue_empty().on_done(once)

    machine.bind({"Foo_state": ask})


def _on_hearing(machine: Machine, once: Callable[[object], None]) -> None:
    machine.on("Foo_state", once)


CALLED_BACK = {
    "done": _on_done,
    "cancel": _on_cancel,
    "expire": _on_expire,
    "idle": _on_idle,
    "listener": _on_hearing,
}


@pytest.mark.parametrize("handled", ["no handler", "a handler", "a tracer"])
@pytest.mark.parametrize("call", CALLS_BACK)
@pytest.mark.parametrize("kind", CALLED_BACK)
def test_a_callback_may_call_the_machine_without_hanging_it(
    kind: str, call: str, handled: str
) -> None:
    calls: list[object] = []
    schema = {"Foo": State(remove="Bar"), "Bar": State(), "Hit": State(multi=True)}
    machine = Machine(schema)
    if handled == "a handler":
        machine.bind({"Foo_enter": lambda event: None})
    elif handled == "a tracer":
        machine.add_tracer(Tracer())

    def once(_: object) -> None:
        if not calls:
            calls.append(call)
            calls.append(CALLS_BACK[call](machine))

    CALLED_BACK[kind](machine, once)

    assert outcome(start(lambda: machine.add("Foo"))) == EXECUTED
    assert len(calls) == 2


# Errors that are raised -----------------------------------------------------------------------


def test_an_error_is_raised_to_the_caller_whose_thread_ran_the_handler_and_the_queue_goes_on() -> (
    None
):
    gate = Gate()

    def fail(event: Event) -> None:
        gate()
        msg = "raised"
        raise LookupError(msg)

    machine = Machine(
        {"Foo": State(), "Bar": State(), "Hit": State(multi=True)},
        handlers={"Foo_state": fail},
        catch_errors=False,
    )
    caller = start(lambda: machine.add("Foo"))
    gate.await_reached()
    queued = [machine.add("Hit", n=n) for n in range(20)]
    gate.open()

    with pytest.raises(LookupError, match="raised"):
        outcome(caller)
    assert [each.wait(PATIENCE) for each in queued] == [EXECUTED] * 20
    assert machine.active_states() == ("Hit",)
    assert_works(machine, "Bar")


def test_a_queued_mutation_that_fails_is_canceled_for_who_waits_and_raised_where_it_ran() -> None:
    def fail(event: Event) -> None:
        msg = "raised"
        raise LookupError(msg)

    gate = Gate()
    machine = Machine(
        {"Foo": State(), "Bar": State(), "Gate": State()},
        handlers={"Foo_state": fail, "Gate_state": gate},
        catch_errors=False,
    )
    caller = start(lambda: machine.add("Gate"))
    gate.await_reached()
    result, after = machine.add("Foo"), machine.add("Bar")
    gate.open()

    with pytest.raises(LookupError, match="raised"):
        outcome(caller)
    final = result.wait(PATIENCE)
    assert final == CANCELED
    assert "LookupError" in final.why
    assert after.wait(PATIENCE) == EXECUTED
    assert_works(machine, "Bar")


# Mutations that come over a link


def test_what_comes_over_a_link_is_carried_out_by_an_idle_machine_at_once() -> None:
    machine = Machine({"Foo": State(), "Bar": State(require="Foo")})

    assert machine.accept("add", ("Bar",), {}) == Result.CANCELED
    assert machine.accept("add", ("Foo",), {}) == Result.EXECUTED
    assert machine.accept("add", ("Bar",), {}) == Result.EXECUTED
    assert machine.accept("set", (), {}) == Result.EXECUTED
    assert machine.active_states() == ()


def test_what_comes_over_a_link_keeps_its_cause_and_its_args() -> None:
    seen: list[tuple[object, object]] = []
    machine = Machine({"Foo": State(multi=True)})
    machine.bind({"Foo_state": lambda e: seen.append((e.args["n"], e.mutation.cause))})
    cause = Cause("elsewhere", 7)

    machine.accept("add", ("Foo",), {"n": 1}, (), cause)
    machine.eval(lambda: machine.accept("add", ("Foo",), {"n": 2}, (), cause))
    machine.accept("add", ("Foo",), {"n": 3}, ("elsewhere",))

    assert seen == [(1, cause), (2, cause), (3, None)]


def test_the_limit_of_the_queue_does_not_hold_for_what_comes_over_a_link() -> None:
    machine = Machine({"Foo": State(multi=True)}, queue_limit=2)
    with busy(machine):
        results = [machine.accept("add", ("Foo",), {"n": n}) for n in range(10)]
        assert machine.queue_length == 10
    assert [each.wait(PATIENCE) for each in results] == [Result.EXECUTED] * 10


def test_a_link_that_asks_for_what_already_is_moves_nothing() -> None:
    machine = Machine({"Foo": State()})
    machine.add("Foo")
    tracer = machine.add_tracer(Tracer())
    assert machine.accept("add", ("Foo",), {}, ("elsewhere",)) == Result.EXECUTED
    tracer.unbind()
    assert machine.tick("Foo") == 1


@pytest.mark.parametrize("busily", [False, True])
def test_a_function_is_told_the_final_result(busily: bool) -> None:
    machine = Machine({"Foo": State(), "Bar": State(require="Foo")})
    told: list[Result] = []
    if busily:
        with busy(machine):
            machine.add("Bar").on_done(told.append)
            last = machine.add("Foo", n=1)
            last.on_done(told.append)
            assert told == []
        assert last.wait(PATIENCE)
        await_rest(machine)
    else:
        machine.add("Bar").on_done(told.append)
        machine.add("Foo").on_done(told.append)
    assert told == [Result.CANCELED, Result.EXECUTED]


# What is counted ------------------------------------------------------------------------------


def test_mutations_that_found_the_queue_full_are_counted() -> None:
    machine = Machine({"Foo": State(multi=True)}, queue_limit=2)
    assert machine.queue_refused == 0
    results = machine.eval(lambda: [machine.add("Foo", n=n) for n in range(5)])
    assert [bool(each) for each in results] == [True, True, False, False, False]
    assert machine.queue_refused == 3


def test_pending_waiters_are_counted() -> None:
    machine = Machine({"Foo": State(), "Bar": State()})
    assert machine.waiters_pending == 0
    waiters = [machine.when("Foo"), machine.when("Bar"), machine.when_not("Foo")]
    assert machine.waiters_pending == 2
    machine.add("Foo")
    waiters[1].cancel()
    machine.add("Foo")
    assert machine.waiters_pending == 0
