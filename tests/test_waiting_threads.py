"""Waiting among threads: no wake-up is lost, and of several ends exactly one is the end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest

from asyncmachine import (
    Event,
    Machine,
    Result,
    State,
    StateContext,
    Waiter,
    as_future,
    wait_all,
    wait_any,
)
from tests.races import (
    PATIENCE,
    Gate,
    await_rest,
    busy,
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


def _machine(handlers: object = None) -> Machine:
    schema = {
        "Foo": State(),
        "Bar": State(),
        "Hit": State(multi=True),
        "Work": State(),
        "Never": State(),
    }
    return Machine(schema, handlers=handlers)


KINDS: dict[str, Callable[[Machine], Waiter]] = {
    "when": lambda machine: machine.when("Foo"),
    "when both": lambda machine: machine.when("Foo", "Bar"),
    "when_not": lambda machine: machine.when_not("Work"),
    "when_any": lambda machine: machine.when_any("Never", "Foo"),
    "when_time": lambda machine: machine.when_time({"Foo": 1, "Bar": 1, "Work": 2}),
    "when_tick": lambda machine: machine.when_tick("Bar", 1),
    "when_query": lambda machine: machine.when_query(_foo_is_active),
}


def _foo_is_active(clock: Mapping[str, int]) -> bool:
    return clock["Foo"] % 2 == 1


def _fulfil(machine: Machine) -> bool:
    return bool(machine.set("Foo", "Bar", n=1).wait(PATIENCE))


# Registration against transitions -------------------------------------------------------------


@pytest.mark.parametrize("handled", ["no handler", "a handler", "queued"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_wake_up_is_lost_when_a_waiter_is_made_during_the_transition(
    kind: str, handled: str
) -> None:
    def wait(machine: Machine) -> bool:
        return KINDS[kind](machine).wait(PATIENCE)

    for _ in range(60):
        machine = _machine({"Foo_enter": lambda event: None} if handled == "a handler" else None)
        machine.add("Work")
        jobs = [partial(wait, machine), partial(_fulfil, machine), partial(wait, machine)]
        if handled == "queued":
            with busy(machine):
                futures = [start(job) for job in jobs]
            assert [outcome(each) for each in futures] == [True] * 3
        else:
            assert together(*jobs) == [True] * 3
        assert machine.waiters_pending == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["Any_Foo", "Foo_enter", "Foo_state", "Any_state"])
def test_a_waiter_that_is_made_in_the_middle_of_the_transition_is_set(name: str, kind: str) -> None:
    gate = Gate()
    machine = _machine()
    machine.add("Work")
    machine.bind({name: gate})
    caller = start(partial(_fulfil, machine))
    gate.await_reached()

    waiter = KINDS[kind](machine)

    gate.open()
    assert outcome(caller)
    assert waiter.wait(PATIENCE)


def test_a_waiter_that_is_made_inside_a_handler_is_set() -> None:
    waiters: list[Waiter] = []

    def wait(event: Event) -> None:
        waiters.append(machine.when("Bar", "Foo"))
        waiters.append(machine.when_args("Hit", {"n": 1}))
        waiters.append(machine.when_not("Foo"))

    machine = _machine({"Foo_state": wait})
    machine.add("Foo")
    machine.add("Bar")
    machine.add("Hit", n=1)
    machine.remove("Foo")

    assert [each.is_set() for each in waiters] == [True] * 3


def test_every_activation_with_args_finds_the_waiter_that_was_made_before_it() -> None:
    machine = _machine()

    def ask(thread: int) -> bool:
        for n in range(100):
            reply = machine.when_args("Hit", {"id": (thread, n)})
            machine.add("Hit", id=(thread, n), text="hi")
            if not reply.wait(PATIENCE) or reply.args != {"id": (thread, n), "text": "hi"}:
                return False
        return True

    assert together(*(partial(ask, thread) for thread in range(4))) == [True] * 4
    assert machine.waiters_pending == 0


def test_when_ticks_counts_from_the_moment_it_was_made() -> None:
    machine = _machine()

    def count() -> bool:
        for _ in range(60):
            before = machine.tick("Hit")
            waiter = machine.when_ticks("Hit", 4)
            for n in range(3):
                machine.add("Hit", n=n)
            if not waiter.wait(PATIENCE) or machine.tick("Hit") < before + 4:
                return False
        return True

    assert together(count, count, count) == [True] * 3


def test_threads_hand_a_ball_to_each_other_by_waiting() -> None:
    machine = Machine({"Ping": State(remove="Pong"), "Pong": State(remove="Ping")})

    def play(mine: str, theirs: str) -> int:
        for turn in range(150):
            if not machine.when(mine).wait(PATIENCE):
                return turn
            machine.add(theirs).wait(PATIENCE)
        return 150

    machine.add("Ping")
    assert together(partial(play, "Ping", "Pong"), partial(play, "Pong", "Ping")) == [150, 150]


# Cancel, expiry and disposal against being set ------------------------------------------------


def _ends(machine: Machine, waiter: Waiter) -> dict[str, Callable[[], object]]:
    return {
        "set": lambda: machine.add("Foo").wait(PATIENCE),
        "cancel": waiter.cancel,
        "cancel too": waiter.cancel,
        "expire": lambda: machine.remove("Work").wait(PATIENCE),
        "dispose": machine.dispose,
    }


def _note_how(noted: list[tuple[bool, bool]], waiter: Waiter) -> None:
    noted.append((waiter.canceled, waiter.disposed))


@pytest.mark.parametrize(
    "ends",
    [
        ("set", "cancel"),
        ("cancel", "cancel too"),
        ("set", "expire"),
        ("cancel", "expire"),
        ("cancel", "dispose"),
        ("set", "dispose"),
        ("expire", "dispose"),
        ("set", "cancel", "expire", "dispose"),
    ],
    ids="-".join,
)
def test_of_several_ends_exactly_one_is_the_end_of_a_waiter(ends: tuple[str, ...]) -> None:
    for _ in range(50):
        machine = _machine()
        machine.add("Work")
        waiter = machine.when("Foo", ctx=machine.state_ctx("Work"))
        called: list[tuple[bool, bool]] = []
        waiter.on_done(partial(_note_how, called))
        sleeper = start(partial(waiter.wait, PATIENCE))

        together(*(_ends(machine, waiter)[end] for end in ends))

        assert outcome(sleeper) is True
        assert called == [(waiter.canceled, waiter.disposed)]
        assert not (waiter.canceled and waiter.disposed)
        assert waiter.canceled or waiter.disposed or "set" in ends
        assert machine.waiters_pending == 0


def test_a_waiter_that_has_been_set_is_not_canceled_any_more() -> None:
    machine = _machine()
    with machine.when("Foo") as waiter:
        machine.add("Foo")
    waiter.cancel()
    assert (waiter.is_set(), waiter.canceled) == (True, False)


def test_a_canceled_waiter_wakes_its_threads_and_stays_canceled() -> None:
    machine = _machine()
    with machine.when("Foo") as waiter:
        sleepers = [start(partial(waiter.wait, PATIENCE)) for _ in range(3)]
    machine.add("Foo")

    assert [outcome(each) for each in sleepers] == [True] * 3
    assert (waiter.is_set(), waiter.canceled, waiter.disposed) == (True, True, False)


def test_callbacks_that_are_added_as_a_waiter_is_set_are_each_called_once() -> None:
    for _ in range(100):
        machine = _machine()
        waiter = machine.when("Foo")
        called: list[Waiter] = []

        def add(waiter: Waiter = waiter, called: list[Waiter] = called) -> None:
            for _ in range(5):
                waiter.on_done(called.append)

        together(add, partial(machine.add, "Foo"), add)
        await_rest(machine)
        assert called == [waiter] * 10


# Contexts -------------------------------------------------------------------------------------


def test_contexts_of_racing_activations_all_expire_at_the_end_of_theirs() -> None:
    machine = _machine()
    over = threading.Event()

    def toggle() -> None:
        for n in range(150):
            machine.add("Work", n=n)
            machine.remove("Work", n=n)
        over.set()

    def watch() -> list[StateContext]:
        contexts = []
        while not over.is_set():
            contexts.append(machine.state_ctx("Work"))
        return contexts

    made = together(watch, toggle, watch, until=over)
    machine.remove("Work")
    await_rest(machine)

    contexts = [*(made[0] or ()), *(made[2] or ())]
    assert all(each.expired for each in contexts)
    assert all(each.wait(0) for each in contexts)


def test_a_context_tells_its_threads_and_callbacks_once() -> None:
    for _ in range(60):
        machine = _machine()
        machine.add("Work")
        ctx = machine.state_ctx("Work")
        told: list[StateContext] = []

        def add(ctx: StateContext = ctx, told: list[StateContext] = told) -> bool:
            ctx.on_expire(told.append)
            return ctx.wait(PATIENCE)

        def end(machine: Machine = machine) -> bool:
            return bool(machine.remove("Work").wait(PATIENCE))

        assert together(add, end, add, add) == [True] * 4
        assert told == [ctx] * 3


def test_each_activation_of_a_multi_state_has_its_context() -> None:
    machine = _machine()
    contexts: list[StateContext] = []
    machine.bind({"Hit_state": lambda event: contexts.append(machine.state_ctx("Hit"))})

    def hit() -> None:
        for n in range(50):
            machine.add("Hit", n=n)

    together(hit, hit, hit)
    await_rest(machine)

    assert [each.expired for each in contexts] == [True] * 149 + [False]
    assert sorted({each.tick for each in contexts}) == list(range(1, 300, 2))


def test_a_waiter_bound_to_a_context_that_ends_meanwhile_is_never_forgotten() -> None:
    def wait(machine: Machine) -> bool:
        return machine.when("Never", ctx=machine.state_ctx("Work")).wait(PATIENCE)

    def end(machine: Machine) -> bool:
        return bool(machine.remove("Work").wait(PATIENCE))

    for _ in range(120):
        machine = _machine()
        machine.add("Work")
        assert (
            together(partial(wait, machine), partial(end, machine), partial(wait, machine))
            == [True] * 3
        )
        assert machine.waiters_pending == 0


# Several waiters ------------------------------------------------------------------------------


def test_wait_any_gives_one_that_is_set_whichever_comes_first() -> None:
    for _ in range(80):
        first, second = _machine(), _machine()
        waiters = [first.when("Foo"), second.when("Foo"), first.when("Never")]

        def wait(waiters: list[Waiter] = waiters) -> bool:
            found = wait_any(*waiters, timeout=PATIENCE)
            return found in waiters[:2] and found is not None and found.is_set()

        def add(machine: Machine) -> bool:
            return bool(machine.add("Foo"))

        assert together(wait, partial(add, first), wait, partial(add, second)) == [True] * 4


def test_wait_any_gives_the_first_in_order_of_those_that_are_set() -> None:
    machine = _machine()
    foo, bar, never = machine.when("Foo"), machine.when("Bar"), machine.when("Never")
    machine.add("Foo", "Bar")
    assert wait_any(never, bar, foo) is bar
    assert wait_any(never, timeout=0) is None
    assert wait_any(never, timeout=0.001) is None
    assert wait_any() is None


def test_wait_any_leaves_nothing_behind_on_the_waiters_that_were_not_set() -> None:
    machine = _machine()
    never = machine.when("Never")
    for _ in range(500):
        found = start(lambda: wait_any(never, machine.when("Foo"), timeout=PATIENCE))
        machine.add("Foo")
        assert outcome(found) is not None
        machine.remove("Foo")
        gc.collect(0)
    referred = [each for each in gc.get_referents(never) if isinstance(each, list)]
    assert [len(each) for each in referred] in ([], [0])


def test_wait_any_ends_with_cancel_expiry_and_disposal() -> None:
    for end in ("cancel", "expire", "dispose"):
        machine = _machine()
        machine.add("Work")
        waiter = machine.when("Foo", ctx=machine.state_ctx("Work"))
        waiting = start(partial(wait_any, machine.when("Never"), waiter, timeout=PATIENCE))
        _ends(machine, waiter)[end]()
        found = outcome(waiting)
        assert found is not None
        assert found.is_set()


def test_wait_all_waits_for_the_last() -> None:
    for _ in range(60):
        machines = [_machine() for _ in range(3)]
        waiters = [machine.when("Foo") for machine in machines]
        adds = [partial(machine.add, "Foo") for machine in machines]
        waits = [partial(wait_all, *waiters, timeout=PATIENCE)]
        results = together(*waits, *adds)
        assert results == [True, EXECUTED, EXECUTED, EXECUTED]


def test_wait_all_is_false_when_one_is_late() -> None:
    machine = _machine()
    machine.add("Foo")
    assert wait_all(machine.when("Foo"), machine.when("Never"), timeout=0.001) is False
    assert wait_all(machine.when("Foo"), timeout=0) is True
    assert wait_all() is True


def test_futures_are_settled_whichever_side_comes_first() -> None:
    for end in ("set", "cancel", "dispose"):
        for _ in range(25):
            machine = _machine()
            machine.add("Work")
            waiter = machine.when("Foo")
            future = as_future(waiter)
            together(_ends(machine, waiter)[end], future.cancel)
            done, _ = concurrent.futures.wait([future], timeout=PATIENCE)
            assert done == {future}
            assert waiter.wait(PATIENCE)
            assert future.cancelled() or future.result() is waiter


def test_futures_can_be_awaited() -> None:
    machine = _machine()

    async def wait() -> Waiter:
        wrapped = asyncio.wrap_future(as_future(machine.when("Foo")))
        adding = start(partial(machine.add, "Foo"))
        done = await asyncio.wait_for(wrapped, PATIENCE)
        outcome(adding)
        return done

    assert asyncio.run(wait()).is_set()


# Abandoned waiters ----------------------------------------------------------------------------


def test_abandoned_waiters_leave_the_machine_while_others_mutate_it() -> None:
    machine = _machine()
    done = threading.Event()

    def abandon() -> None:
        for _ in range(600):
            machine.when("Never", "Foo")
            machine.when_args("Never", {"a": 1})
            machine.when_tick("Never", 1)
            machine.state_ctx("Foo")
            with machine.when_any("Never"):
                pass
        done.set()

    def toggle() -> None:
        while not done.is_set():
            machine.toggle("Foo")

    together(abandon, toggle, until=done)
    gc.collect()
    machine.toggle("Foo")
    machine.add("Never")
    machine.remove("Never")

    assert machine.waiters_pending <= 64


def test_abandoned_waiters_cost_nothing_while_a_handler_keeps_the_machine_busy() -> None:
    machine = _machine()
    with busy(machine):
        for _ in range(3000):
            machine.when("Never")
        gc.collect()
        assert machine.waiters_pending <= 200
    machine.add("Foo")
    assert machine.waiters_pending <= 64


def test_a_waiter_with_a_callback_or_a_future_is_kept_until_it_is_set() -> None:
    machine = _machine()
    called: list[Waiter] = []
    machine.when("Foo").on_done(called.append)
    future = as_future(machine.when("Foo", "Bar"))
    machine.add("Work")
    machine.state_ctx("Work").on_expire(lambda ctx: called.append(machine.when("Foo")))
    gc.collect()
    machine.add("Foo")
    machine.add("Bar")
    machine.remove("Work")

    assert len(called) == 2
    assert future.result(PATIENCE).is_set()


def test_a_waiter_that_is_abandoned_as_it_is_set_does_no_harm() -> None:
    machine = _machine()
    done = threading.Event()

    def abandon() -> bool:
        while not done.is_set():
            machine.when("Foo").on_done(lambda _: None)
            machine.when_not("Foo").on_done(lambda _: None)
            machine.when_tick("Foo", 9999)
        return True

    def toggle() -> bool:
        for _ in range(300):
            machine.toggle("Foo")
        done.set()
        return True

    assert together(abandon, toggle, abandon, until=done) == [True] * 3
