"""Waiters, state contexts and futures: their interface, seen from one thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
from collections.abc import Callable

import pytest

from asyncmachine import (
    ContextExpired,
    Machine,
    State,
    StateContext,
    Waiter,
    as_future,
    wait_all,
    wait_any,
)


@pytest.fixture
def mach() -> Machine:
    return Machine({"Foo": State(), "Bar": State(), "Baz": State()})


# --------------------------------------------------------------------------- waiters


def test_a_waiter_has_the_reading_half_of_an_event(mach: Machine) -> None:
    waiter = mach.when("Foo")

    assert waiter.is_set() is False
    assert waiter.wait(timeout=0) is False
    assert waiter.wait(0) is False
    assert waiter.wait(-1) is False
    mach.add("Foo")
    assert waiter.is_set() is True
    assert waiter.wait() is True
    assert waiter.wait(timeout=0) is True
    assert waiter.wait(1e12) is True


def test_a_waiter_shows_what_became_of_it(mach: Machine) -> None:
    reached, canceled, disposed = mach.when("Foo"), mach.when("Bar"), mach.when("Bar")
    assert repr(reached) == "<Waiter pending>"

    mach.add("Foo")
    canceled.cancel()
    mach.dispose()

    assert [repr(each) for each in (reached, canceled, disposed)] == [
        "<Waiter set>",
        "<Waiter canceled>",
        "<Waiter disposed>",
    ]


def test_canceling_sets_the_waiter_and_tells(mach: Machine) -> None:
    waiter = mach.when("Foo")

    waiter.cancel()
    waiter.cancel()

    assert waiter.is_set()
    assert waiter.canceled
    assert not waiter.disposed
    mach.add("Foo")
    assert waiter.canceled
    mach.dispose()
    assert not waiter.disposed


def test_canceling_what_is_set_changes_nothing(mach: Machine) -> None:
    waiter = mach.when("Foo")
    mach.add("Foo")
    satisfied = mach.when("Foo")

    waiter.cancel()
    satisfied.cancel()

    assert not waiter.canceled
    assert not satisfied.canceled


def test_leaving_the_with_block_cancels(mach: Machine) -> None:
    with mach.when("Foo") as pending:
        assert not pending.is_set()
    with mach.when("Bar") as reached:
        mach.add("Bar")

    assert pending.canceled
    assert not reached.canceled


def test_a_waiter_wakes_a_thread_that_sleeps_in_it(mach: Machine) -> None:
    waiter = mach.when("Foo")
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(waiter.wait(30)))
    thread.start()

    mach.add("Foo")
    thread.join(30)

    assert woken == [True]


def test_canceling_wakes_a_thread_that_sleeps_in_it(mach: Machine) -> None:
    waiter = mach.when("Foo")
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(waiter.wait(30)))
    thread.start()

    waiter.cancel()
    thread.join(30)

    assert woken == [True]


def test_a_short_wait_gives_up_and_leaves_nothing_behind(mach: Machine) -> None:
    waiter = mach.when("Foo")

    assert [waiter.wait(1e-6) for _ in range(3)] == [False] * 3
    assert wait_any(waiter, timeout=1e-6) is None
    mach.add("Foo")

    assert waiter.wait(1e-6)


def test_on_done_is_called_with_the_waiter_once(mach: Machine) -> None:
    heard: list[Waiter] = []
    waiter = mach.when("Foo")
    waiter.on_done(heard.append)
    waiter.on_done(heard.append)

    assert heard == []
    mach.add("Foo")
    mach.toggle("Foo")

    assert len(heard) == 2
    assert heard[0] is heard[1] is waiter


def test_on_done_of_what_is_set_is_called_at_once(mach: Machine) -> None:
    heard: list[Waiter] = []
    mach.add("Foo")

    mach.when("Foo").on_done(heard.append)

    assert len(heard) == 1


@pytest.mark.parametrize("end", [Waiter.cancel, None], ids=["canceled", "disposed"])
def test_on_done_is_called_when_the_waiter_ends_otherwise(
    mach: Machine, end: Callable[[Waiter], None] | None
) -> None:
    heard: list[tuple[bool, bool]] = []
    waiter = mach.when("Foo")
    waiter.on_done(lambda done: heard.append((done.canceled, done.disposed)))

    if end is None:
        mach.dispose()
    else:
        end(waiter)

    assert heard == [(end is not None, end is None)]


def test_callbacks_may_change_the_machine(mach: Machine) -> None:
    mach.when("Foo").on_done(lambda _: mach.add("Bar"))

    mach.add("Foo")

    assert mach.is_active("Foo", "Bar")


def test_an_error_in_a_callback_is_logged_and_the_others_are_called(
    mach: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Waiter] = []

    def fail(_: object) -> None:
        raise ValueError("in a callback")

    waiter = mach.when("Foo")
    waiter.on_done(fail)
    waiter.on_done(heard.append)

    assert mach.add("Foo")
    assert heard == [waiter]
    assert "ValueError: in a callback" in caplog.text
    assert mach.error is None


# -------------------------------------------------------------------------- contexts


def test_a_context_tells_whether_it_is_alive(mach: Machine) -> None:
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")

    assert ctx.expired is False
    assert ctx.wait(0) is False
    assert ctx.sleep(0) is True
    ctx.check()
    assert (ctx.state, ctx.tick) == ("Foo", 1)
    assert repr(ctx) == "<StateContext Foo:1 alive>"
    mach.remove("Foo")
    assert ctx.expired is True
    assert ctx.wait() is True
    assert ctx.sleep(1000) is False
    assert repr(ctx) == "<StateContext Foo:1 expired>"


def test_check_raises_once_it_has_expired(mach: Machine) -> None:
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")
    mach.remove("Foo")

    with pytest.raises(ContextExpired, match="Foo"):
        ctx.check()


def test_expiry_wakes_a_thread_that_sleeps_in_it(mach: Machine) -> None:
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")
    slept: list[bool] = []
    thread = threading.Thread(target=lambda: slept.append(ctx.sleep(30)))
    thread.start()

    mach.remove("Foo")
    thread.join(30)

    assert slept == [False]


def test_on_expire_is_called_with_the_context_once(mach: Machine) -> None:
    heard: list[StateContext] = []
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")
    ctx.on_expire(heard.append)

    assert heard == []
    mach.remove("Foo")
    mach.toggle("Foo")

    assert len(heard) == 1
    assert heard[0] is ctx


def test_on_expire_of_what_has_expired_is_called_at_once(mach: Machine) -> None:
    heard: list[StateContext] = []

    mach.state_ctx("Foo").on_expire(heard.append)

    assert len(heard) == 1
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")
    mach.remove("Foo")
    ctx.on_expire(heard.append)
    assert len(heard) == 2


def test_an_error_in_on_expire_is_logged(mach: Machine, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise ValueError("in a callback")

    mach.add("Foo")
    mach.state_ctx("Foo").on_expire(fail)

    assert mach.remove("Foo")
    assert "ValueError: in a callback" in caplog.text


def test_a_context_that_lives_long_does_not_collect_waiters_that_have_ended(mach: Machine) -> None:
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")
    held: list[Waiter] = []

    for n in range(1000):
        waiter = mach.when("Bar", ctx=ctx)
        if n % 100 == 0:
            held.append(waiter)
        else:
            waiter.cancel()
    gc.collect()
    mach.remove("Foo")

    assert len(held) == 10
    assert all(waiter.canceled for waiter in held)


# -------------------------------------------------------------------- any, all, futures


def test_wait_any_gives_the_first_that_is_set(mach: Machine) -> None:
    foo, bar = mach.when("Foo"), mach.when("Bar")

    assert wait_any(foo, bar, timeout=0) is None
    mach.add("Bar")
    assert wait_any(foo, bar) is bar
    assert wait_any(foo, bar, timeout=0) is bar
    mach.add("Foo")
    assert wait_any(foo, bar) is foo


def test_wait_any_of_nothing_gives_nothing() -> None:
    assert wait_any() is None
    assert wait_any(timeout=0) is None


def test_wait_any_wakes_for_waiters_of_several_machines(mach: Machine) -> None:
    other = Machine({"Foo": State()})
    waiters = [mach.when("Foo"), other.when("Foo")]
    found: list[Waiter | None] = []
    thread = threading.Thread(target=lambda: found.append(wait_any(*waiters, timeout=30)))
    thread.start()

    other.add("Foo")
    thread.join(30)

    assert found[0] is waiters[1]


def test_wait_any_gives_canceled_and_disposed_waiters_too(mach: Machine) -> None:
    foo, bar = mach.when("Foo"), mach.when("Bar")

    bar.cancel()
    assert wait_any(foo, bar) is bar
    mach.dispose()
    assert wait_any(foo, bar) is foo


def test_wait_all_waits_for_every_one(mach: Machine) -> None:
    foo, bar = mach.when("Foo"), mach.when("Bar")

    assert wait_all() is True
    assert wait_all(foo, bar, timeout=0) is False
    mach.add("Bar")
    assert wait_all(foo, bar, timeout=1e-6) is False
    mach.add("Foo")
    assert wait_all(foo, bar) is True
    assert wait_all(foo, bar, timeout=0) is True


def test_a_future_has_the_waiter_for_its_result(mach: Machine) -> None:
    waiter = mach.when("Foo")
    future = as_future(waiter)

    assert not future.done()
    mach.add("Foo")

    assert future.done()
    assert future.result(timeout=0) is waiter


def test_a_future_of_what_is_set_is_done_at_once(mach: Machine) -> None:
    mach.add("Foo")

    assert as_future(mach.when("Foo")).result(timeout=0).is_set()


def test_a_future_is_canceled_when_the_waiter_is(mach: Machine) -> None:
    waiter = mach.when("Foo")
    future = as_future(waiter)

    waiter.cancel()

    assert future.cancelled()
    assert as_future(waiter).cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=0)


def test_a_future_is_canceled_when_the_context_of_its_waiter_expires(mach: Machine) -> None:
    mach.add("Bar")
    future = as_future(mach.when("Foo", ctx=mach.state_ctx("Bar")))

    mach.remove("Bar")

    assert future.cancelled()


def test_canceling_a_future_cancels_the_waiter(mach: Machine) -> None:
    waiter = mach.when("Foo")

    assert as_future(waiter).cancel()

    assert waiter.canceled
    assert mach.waiters_pending == 0


def test_a_future_of_a_disposed_machine_is_done_and_tells(mach: Machine) -> None:
    future = as_future(mach.when("Foo"))

    mach.dispose()

    assert future.result(timeout=0).disposed


def test_a_future_is_held_by_the_machine(mach: Machine) -> None:
    heard: list[bool] = []
    as_future(mach.when("Foo")).add_done_callback(lambda done: heard.append(done.result().is_set()))

    gc.collect()
    mach.add("Foo")

    assert heard == [True]


def test_concurrent_futures_can_wait_for_waiters(mach: Machine) -> None:
    foo, bar = as_future(mach.when("Foo")), as_future(mach.when("Bar"))
    mach.add("Bar")

    done, pending = concurrent.futures.wait(
        [foo, bar], timeout=30, return_when=concurrent.futures.FIRST_COMPLETED
    )
    assert (done, pending) == ({bar}, {foo})

    foo.cancel()
    done, pending = concurrent.futures.wait([foo, bar], timeout=30)
    assert (done, pending) == ({foo, bar}, set())


def test_as_completed_gives_futures_as_they_come(mach: Machine) -> None:
    foo, bar = as_future(mach.when("Foo")), as_future(mach.when("Bar"))
    completed = concurrent.futures.as_completed([foo, bar], timeout=30)

    mach.add("Bar")
    assert next(completed) is bar
    mach.add("Foo")
    assert next(completed) is foo


def test_asyncio_can_await_a_waiter(mach: Machine) -> None:
    async def main() -> tuple[bool, bool]:
        reached = asyncio.wrap_future(as_future(mach.when("Foo")))
        given_up = asyncio.wrap_future(as_future(waiter := mach.when("Bar")))
        given_up.cancel()
        threading.Thread(target=mach.add, args=("Foo",)).start()
        done = await asyncio.wait_for(reached, 30)
        return done.is_set(), waiter.canceled

    assert asyncio.run(main()) == (True, True)
