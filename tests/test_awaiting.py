"""Every ``when_…``: what sets it, what does not, and that abandoned waiters leave."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping

import pytest

from asyncmachine import Event, Machine, Result, State, StateContext, Waiter


def _machine() -> Machine:
    return Machine(
        {
            "Foo": State(),
            "Bar": State(),
            "Baz": State(),
            "Multi": State(multi=True),
            "Ctx": State(),
            "Adds": State(add=["Multi", "Foo"]),
        }
    )


@pytest.fixture
def mach() -> Machine:
    return _machine()


# -------------------------------------------------------------- active and inactive


def test_when_is_set_once_all_are_active_at_the_same_time(mach: Machine) -> None:
    waiter = mach.when("Foo", "Bar")

    mach.add("Foo")
    mach.set("Bar")
    assert not waiter.is_set()
    mach.add("Foo")

    assert waiter.is_set()
    assert waiter.wait(0)
    assert not waiter.canceled
    assert not waiter.disposed


def test_when_that_is_satisfied_already_is_set_when_it_is_returned(mach: Machine) -> None:
    mach.add("Foo", "Bar")

    assert mach.when("Foo", "Bar").is_set()
    assert mach.when().is_set()
    assert mach.waiters_pending == 0


def test_a_waiter_stays_set_when_its_condition_is_over(mach: Machine) -> None:
    waiter = mach.when("Foo")

    mach.add("Foo")
    mach.remove("Foo")

    assert waiter.is_set()
    assert not mach.when("Foo").is_set()


def test_when_not_is_set_once_all_are_inactive_at_the_same_time(mach: Machine) -> None:
    mach.add("Foo", "Bar")
    waiter = mach.when_not("Foo", "Bar")

    mach.set("Foo")
    mach.set("Bar")
    assert not waiter.is_set()
    mach.set()

    assert waiter.is_set()
    assert mach.when_not("Baz").is_set()
    assert mach.when_not().is_set()


def test_when_any_is_set_once_one_is_active(mach: Machine) -> None:
    waiter = mach.when_any("Foo", "Bar")

    mach.add("Baz")
    assert not waiter.is_set()
    mach.add("Bar")

    assert waiter.is_set()
    assert mach.when_any("Foo", "Bar").is_set()


def test_when_any_of_nothing_is_a_value_error(mach: Machine) -> None:
    with pytest.raises(ValueError, match="when_any"):
        mach.when_any()


def test_when_error_is_set_once_exception_is_active(mach: Machine) -> None:
    waiter = mach.when_error()

    mach.add("Foo")
    assert not waiter.is_set()
    mach.add_error("no")

    assert waiter.is_set()
    assert mach.when_error().is_set()


def test_a_canceled_transition_sets_nobody() -> None:
    mach = Machine({"Foo": State(), "Bar": State(require="Foo")})
    mach.bind({"Foo_enter": lambda event: False})
    waiters = [mach.when("Foo"), mach.when("Bar"), mach.when_any("Foo", "Bar")]
    waiters += [mach.when_tick("Foo", 1), mach.when_args("Foo", {})]
    waiters.append(mach.when_query(lambda clock: clock["Foo"] or clock["Bar"]))

    assert mach.add("Foo") == Result.CANCELED
    assert mach.add("Bar") == Result.CANCELED
    assert mach.can_set("Foo") == Result.CANCELED

    assert not any(waiter.is_set() for waiter in waiters)


def test_a_dry_run_sets_nobody(mach: Machine) -> None:
    waiters = [mach.when("Foo"), mach.when_args("Foo", {"id": 1}), mach.when_ticks("Foo", 1)]

    assert mach.can_add("Foo", id=1)

    assert not any(waiter.is_set() for waiter in waiters)


def test_waiters_are_set_after_the_final_handlers(mach: Machine) -> None:
    waiter = mach.when("Foo")
    seen: list[bool] = []
    mach.bind(dict.fromkeys(("Foo_state", "Any_state"), lambda event: seen.append(waiter.is_set())))

    mach.add("Foo")

    assert seen == [False, False]
    assert waiter.is_set()


def test_a_state_that_came_and_went_within_one_call_was_active(mach: Machine) -> None:
    mach.bind({"Foo_state": lambda event: mach.remove("Foo")})
    waiter = mach.when("Foo")

    mach.add("Foo")

    assert not mach.is_active("Foo")
    assert waiter.is_set()


def test_a_state_that_was_put_back_after_an_error_was_not_reached(mach: Machine) -> None:
    def fail(event: Event) -> None:
        raise ValueError

    mach.bind({"Foo_state": fail})
    present, error = mach.when("Foo"), mach.when_error()
    ticked = mach.when_ticks("Foo", 2)
    with_args = mach.when_args("Foo", {})

    mach.add("Foo")

    assert not present.is_set()
    assert not with_args.is_set()
    assert error.is_set()
    assert ticked.is_set()


# ------------------------------------------------------------------------------ args


def test_when_args_is_set_by_an_activation_with_all_of_these_args(mach: Machine) -> None:
    waiter = mach.when_args("Foo", {"id": 1, "kind": "a"})

    mach.add("Foo", id=1)
    mach.set()
    mach.add("Foo", id=2, kind="a")
    mach.set()
    assert not waiter.is_set()
    assert waiter.args is None
    mach.add("Foo", id=1, kind="a", more=3)

    assert waiter.is_set()
    assert waiter.args == {"id": 1, "kind": "a", "more": 3}


def test_when_args_waits_for_an_activation_to_come(mach: Machine) -> None:
    mach.add("Foo", id=1)

    waiter = mach.when_args("Foo", {"id": 1})
    mach.add("Foo", id=1)  # active already: no activation

    assert not waiter.is_set()


def test_when_args_compares_with_equality(mach: Machine) -> None:
    waiter = mach.when_args("Foo", {"id": 1.0, "list": [1]})

    mach.add("Foo", id=1, list=[1])

    assert waiter.is_set()


def test_when_args_is_set_by_a_multi_state_called_again(mach: Machine) -> None:
    mach.add("Multi", id=1)
    waiter = mach.when_args("Multi", {"id": 2})

    mach.add("Multi", id=1)
    assert not waiter.is_set()
    mach.add("Multi", id=2)

    assert waiter.args == {"id": 2}


def test_when_args_is_set_by_an_implied_activation(mach: Machine) -> None:
    waiter = mach.when_args("Foo", {"id": 1})

    mach.add("Adds", id=1)

    assert waiter.is_set()


def test_when_args_without_args_is_set_by_any_activation(mach: Machine) -> None:
    waiter = mach.when_args("Foo", {})

    mach.add("Bar")
    assert not waiter.is_set()
    mach.add("Foo", id=1)

    assert waiter.args == {"id": 1}


def test_a_second_when_args_does_not_replace_the_first(mach: Machine) -> None:
    first, second = mach.when_args("Multi", {"id": 1}), mach.when_args("Multi", {"id": 2})
    third = mach.when_args("Multi", {"id": 1})

    mach.add("Multi", id=2)
    assert [waiter.is_set() for waiter in (first, second, third)] == [False, True, False]
    mach.add("Multi", id=1)

    assert [waiter.is_set() for waiter in (first, second, third)] == [True, True, True]


def test_when_args_does_not_follow_its_mapping(mach: Machine) -> None:
    args = {"id": 1}
    waiter = mach.when_args("Foo", args)

    args["id"] = 2
    mach.add("Foo", id=1)

    assert waiter.is_set()


def test_when_args_made_in_a_handler_of_that_activation_waits_for_the_next(mach: Machine) -> None:
    made: list[Waiter] = []
    mach.bind({"Multi_state": lambda event: made.append(mach.when_args("Multi", {"id": 1}))})

    mach.add("Multi", id=1)
    assert not made[0].is_set()
    mach.add("Multi", id=1)

    assert made[0].is_set()
    assert not made[1].is_set()


def test_args_that_can_not_be_compared_are_logged_and_do_not_match(
    mach: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn:
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            raise ValueError("not comparable")

    waiter = mach.when_args("Foo", {"id": 1})

    assert mach.add("Foo", id=Stubborn()) == Result.EXECUTED

    assert not waiter.is_set()
    assert "not comparable" in caplog.text


def test_args_that_can_not_be_compared_do_not_match_later_either(
    mach: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn:
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            raise ValueError("not comparable")

    waiter = mach.when_args("Multi", {"id": 1})
    mach.add("Multi", id=2)

    mach.add("Multi", id=Stubborn())
    assert not waiter.is_set()
    mach.add("Multi", id=1)

    assert waiter.is_set()
    assert caplog.text.count("ValueError: not comparable") == 1


# ---------------------------------------------------------------------------- clocks


def test_when_time_is_set_once_every_clock_has_reached_its_tick(mach: Machine) -> None:
    waiter = mach.when_time({"Foo": 2, "Multi": 3})

    mach.add("Foo", "Multi")
    mach.remove("Foo")
    assert not waiter.is_set()
    mach.add("Multi")

    assert waiter.is_set()
    assert mach.when_time({"Foo": 1, "Multi": 3}).is_set()
    assert mach.when_time({}).is_set()


def test_when_time_is_set_when_a_clock_jumps_over_its_tick(mach: Machine) -> None:
    mach.add("Multi")
    waiter = mach.when_time({"Multi": 2})

    mach.add("Multi")

    assert waiter.is_set()


def test_when_ticks_counts_from_now(mach: Machine) -> None:
    mach.add("Foo")
    waiter = mach.when_ticks("Foo", 2)

    mach.remove("Foo")
    assert not waiter.is_set()
    mach.add("Foo")

    assert waiter.is_set()
    assert mach.when_ticks("Foo", 0).is_set()


def test_when_tick_waits_for_an_absolute_tick(mach: Machine) -> None:
    waiter = mach.when_tick("Foo", 2)

    mach.add("Foo")
    assert not waiter.is_set()
    mach.remove("Foo")

    assert waiter.is_set()
    assert mach.when_tick("Foo", 1).is_set()


def test_ticks_of_one_clock_are_reached_in_order(mach: Machine) -> None:
    waiters = [mach.when_tick("Foo", tick) for tick in (3, 1, 2, 1)]
    reached: list[list[bool]] = []

    for _ in range(3):
        mach.toggle("Foo")
        reached.append([waiter.is_set() for waiter in waiters])

    assert reached == [
        [False, True, False, True],
        [False, True, True, True],
        [True, True, True, True],
    ]


# ----------------------------------------------------------------- queries and queue


def test_when_query_is_true_now_or_after_a_later_transition(mach: Machine) -> None:
    seen: list[dict[str, int]] = []

    def query(clock: Mapping[str, int]) -> bool:
        seen.append(dict(clock))
        return clock["Foo"] > 2

    waiter = mach.when_query(query)
    assert seen[0] == mach.clock()
    for _ in range(2):
        mach.toggle("Foo")
    assert not waiter.is_set()
    mach.toggle("Foo")

    assert waiter.is_set()
    asked = len(seen)
    mach.toggle("Foo")
    assert len(seen) == asked
    assert mach.when_query(query).is_set()


def test_an_error_in_a_query_is_raised_when_it_is_made(mach: Machine) -> None:
    with pytest.raises(ZeroDivisionError):
        mach.when_query(lambda clock: 1 / clock["Foo"])

    mach.add("Foo")
    gc.collect()
    assert mach.when_query(lambda clock: 1 / clock["Foo"]).is_set()
    assert mach.waiters_pending == 0


def test_an_error_in_a_query_later_on_is_logged(
    mach: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    waiter = mach.when_query(lambda clock: 1 / (1 - clock["Foo"]) > 2)

    assert mach.add("Foo") == Result.EXECUTED

    assert not waiter.is_set()
    assert "ZeroDivisionError" in caplog.text
    assert mach.error is None


def test_when_queue_empty_is_set_at_once_when_nothing_is_queued(mach: Machine) -> None:
    assert mach.when_queue_empty().is_set()
    mach.add("Foo")
    assert mach.when_queue_empty().is_set()


def test_when_queue_empty_is_set_once_the_queue_has_been_drained(mach: Machine) -> None:
    waiters: list[Waiter] = []
    seen: list[bool] = []

    def ask(event: Event) -> None:
        waiters.append(mach.when_queue_empty())
        mach.add("Bar")

    mach.bind({"Foo_state": ask, "Bar_state": lambda event: seen.append(waiters[0].is_set())})
    mach.add("Foo")

    assert seen == [False]
    assert waiters[0].is_set()
    assert not waiters[0].canceled
    assert mach.waiters_pending == 0


def test_several_wait_for_the_queue(mach: Machine) -> None:
    waiters: list[Waiter] = []
    mach.bind({"Foo_state": lambda event: waiters.extend(mach.when_queue_empty() for _ in "abc")})

    mach.add("Foo")

    assert len(waiters) == 3
    assert all(waiter.is_set() for waiter in waiters)


# -------------------------------------------------------------------------- disposal


WAITS: dict[str, Callable[[Machine, StateContext | None], Waiter]] = {
    "when": lambda mach, ctx: mach.when("Foo", ctx=ctx),
    "when_not": lambda mach, ctx: mach.when_not("Ctx", ctx=ctx),
    "when_any": lambda mach, ctx: mach.when_any("Foo", "Bar", ctx=ctx),
    "when_args": lambda mach, ctx: mach.when_args("Foo", {"id": 1}, ctx=ctx),
    "when_time": lambda mach, ctx: mach.when_time({"Foo": 1, "Bar": 1}, ctx=ctx),
    "when_ticks": lambda mach, ctx: mach.when_ticks("Foo", 1, ctx=ctx),
    "when_tick": lambda mach, ctx: mach.when_tick("Foo", 9, ctx=ctx),
    "when_error": lambda mach, ctx: mach.when_error(ctx=ctx),
    "when_query": lambda mach, ctx: mach.when_query(lambda clock: clock["Foo"], ctx=ctx),
    "when_disposed": lambda mach, ctx: mach.when_disposed(ctx=ctx),
}
waits = pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)


@waits
def test_disposal_sets_every_waiter(
    mach: Machine, wait: Callable[[Machine, StateContext | None], Waiter]
) -> None:
    mach.add("Ctx")
    waiter = wait(mach, None)
    assert not waiter.is_set()

    mach.dispose()

    assert waiter.is_set()
    assert waiter.disposed
    assert not waiter.canceled
    assert mach.waiters_pending == 0


@waits
def test_a_waiter_made_after_disposal_is_set_at_once(
    mach: Machine, wait: Callable[[Machine, StateContext | None], Waiter]
) -> None:
    mach.add("Ctx")
    mach.dispose()

    waiter = wait(mach, None)

    assert waiter.is_set()
    assert waiter.disposed


def test_when_queue_empty_after_disposal_is_set_at_once(mach: Machine) -> None:
    mach.dispose()

    assert mach.when_queue_empty().is_set()
    assert mach.when_queue_empty().disposed


def test_when_disposed_comes_after_all_that_disposal_does(mach: Machine) -> None:
    gone, foo = mach.when_disposed(), mach.when("Foo")
    seen: list[tuple[bool, bool]] = []
    mach.on_dispose(lambda _: seen.append((foo.is_set(), gone.is_set())))

    mach.dispose()

    assert seen == [(True, False)]
    assert gone.is_set()
    assert mach.when_disposed().is_set()


# -------------------------------------------------------------------------- contexts


@waits
def test_a_waiter_is_canceled_when_its_context_expires(
    mach: Machine, wait: Callable[[Machine, StateContext | None], Waiter]
) -> None:
    other = _machine()
    mach.add("Ctx")
    other.add("Foo")
    ctx = other.state_ctx("Foo")
    waiter = wait(mach, ctx)
    assert not waiter.is_set()
    assert waiter.ctx is ctx

    other.remove("Foo")

    assert waiter.is_set()
    assert waiter.canceled
    assert not waiter.disposed
    assert mach.waiters_pending == 0


@waits
def test_a_waiter_made_with_an_expired_context_is_canceled_from_the_start(
    mach: Machine, wait: Callable[[Machine, StateContext | None], Waiter]
) -> None:
    mach.add("Ctx")
    ctx = mach.state_ctx("Bar")
    assert ctx.expired

    waiter = wait(mach, ctx)

    assert waiter.is_set()
    assert waiter.canceled
    assert mach.waiters_pending == 0


def test_when_queue_empty_is_canceled_by_its_context(mach: Machine) -> None:
    waiters: list[Waiter] = []
    other = _machine()
    other.add("Foo")
    ctx = other.state_ctx("Foo")

    def ask(event: Event) -> None:
        waiters.append(mach.when_queue_empty(ctx=ctx))
        other.remove("Foo")
        waiters.append(mach.when_queue_empty(ctx=ctx))

    mach.bind({"Foo_state": ask})
    mach.add("Foo")

    assert [waiter.canceled for waiter in waiters] == [True, True]


def test_a_waiter_that_is_set_already_is_not_canceled_by_its_context(mach: Machine) -> None:
    mach.add("Foo", "Ctx")
    waiter = mach.when("Foo", ctx=mach.state_ctx("Ctx"))
    assert waiter.is_set()

    mach.remove("Ctx")

    assert not waiter.canceled


def test_what_comes_true_with_the_expiry_of_its_context_is_canceled_or_set_but_not_both(
    mach: Machine,
) -> None:
    mach.add("Ctx")
    waiter = mach.when_not("Ctx", ctx=mach.state_ctx("Ctx"))

    mach.remove("Ctx")

    assert waiter.is_set()
    assert waiter.canceled  # contexts expire with the change, waiters are set at the end of it


def test_a_waiter_holds_its_context(mach: Machine) -> None:
    mach.add("Ctx")
    waiter = mach.when("Foo", ctx=mach.state_ctx("Ctx"))

    gc.collect()
    mach.remove("Ctx")

    assert waiter.canceled


# ------------------------------------------------------------------ state contexts


def test_a_context_is_alive_while_its_activation_lasts(mach: Machine) -> None:
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")

    mach.add("Foo", "Bar")
    assert not ctx.expired
    mach.remove("Foo")
    assert ctx.expired
    mach.add("Foo")
    assert ctx.expired
    assert not mach.state_ctx("Foo").expired


def test_a_context_of_an_inactive_state_has_expired_from_the_start(mach: Machine) -> None:
    assert mach.state_ctx("Foo").expired
    assert mach.state_ctx("Foo").wait(0)


def test_a_multi_state_that_is_activated_again_expires_the_older_context(mach: Machine) -> None:
    mach.add("Multi")
    ctx = mach.state_ctx("Multi")

    mach.add("Foo")
    assert not ctx.expired
    mach.add("Multi")

    assert ctx.expired
    assert not mach.state_ctx("Multi").expired


def test_one_activation_has_one_context(mach: Machine) -> None:
    mach.add("Foo")

    ctx = mach.state_ctx("Foo")
    assert mach.state_ctx("Foo") is ctx


def test_the_context_of_an_exit_is_alive_in_negotiation_and_expired_in_the_final_phase(
    mach: Machine,
) -> None:
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")
    seen: list[bool] = []
    mach.bind(dict.fromkeys(("Foo_exit", "Foo_end"), lambda event: seen.append(ctx.expired)))

    mach.remove("Foo")

    assert seen == [False, True]


def test_the_context_asked_for_in_the_state_handler_is_that_of_the_new_activation(
    mach: Machine,
) -> None:
    contexts: list[StateContext] = []
    mach.bind({"Multi_state": lambda event: contexts.append(mach.state_ctx("Multi"))})

    mach.add("Multi")
    mach.add("Multi")

    assert [ctx.expired for ctx in contexts] == [True, False]


def test_a_vetoed_exit_leaves_the_context_alive(mach: Machine) -> None:
    mach.bind({"Foo_exit": lambda event: False})
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")

    assert mach.remove("Foo") == Result.CANCELED

    assert not ctx.expired


def test_an_activation_that_is_put_back_expires_its_context(mach: Machine) -> None:
    contexts: list[StateContext] = []

    def fail(event: Event) -> None:
        contexts.append(mach.state_ctx("Foo"))
        raise ValueError

    mach.bind({"Foo_state": fail})
    mach.add("Foo")

    assert contexts[0].expired


def test_disposal_expires_every_context(mach: Machine) -> None:
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")

    mach.dispose()

    assert ctx.expired
    assert mach.state_ctx("Foo").expired


# --------------------------------------------------------------- abandoned waiters


@waits
def test_an_abandoned_waiter_leaves_by_itself(
    mach: Machine, wait: Callable[[Machine, StateContext | None], Waiter]
) -> None:
    mach.add("Ctx")
    gone = weakref.ref(wait(mach, None))

    gc.collect()

    assert gone() is None
    for _ in range(500):
        wait(mach, None)
    mach.add("Foo", id=1)
    gc.collect()
    wait(mach, None)
    mach.toggle("Foo")
    assert mach.waiters_pending < 100


@waits
def test_abandoned_waiters_that_were_sorted_in_leave_too(
    mach: Machine, wait: Callable[[Machine, StateContext | None], Waiter]
) -> None:
    mach.add("Ctx")
    held = [wait(mach, None) for _ in range(500)]
    mach.add("Baz")  # has them sorted in
    assert mach.waiters_pending == 500

    held.clear()
    gc.collect()
    for _ in range(3):
        wait(mach, None)
        mach.toggle("Baz")
        gc.collect()

    assert mach.waiters_pending < 100
    assert mach.add("Foo", "Bar", id=1) == Result.EXECUTED
    assert mach.set() == Result.EXECUTED


@waits
def test_canceled_waiters_leave(
    mach: Machine, wait: Callable[[Machine, StateContext | None], Waiter]
) -> None:
    mach.add("Ctx")
    held = [wait(mach, None) for _ in range(300)]
    mach.add("Baz")

    for waiter in held:
        waiter.cancel()

    assert mach.waiters_pending == 0
    assert all(waiter.canceled for waiter in held)
    mach.set("Foo")
    assert all(waiter.canceled for waiter in held)


def test_an_abandoned_context_leaves_by_itself(mach: Machine) -> None:
    mach.add("Foo")
    gone = weakref.ref(mach.state_ctx("Foo"))

    gc.collect()

    assert gone() is None
    assert not mach.state_ctx("Foo").expired
    mach.remove("Foo")


def test_a_waiter_with_a_callback_is_held_by_the_machine(mach: Machine) -> None:
    heard: list[Waiter] = []
    mach.when("Foo").on_done(heard.append)

    gc.collect()
    mach.add("Foo")

    assert len(heard) == 1
    gone = weakref.ref(heard.pop())
    gc.collect()
    assert gone() is None


def test_a_context_with_a_callback_is_held_by_the_machine(mach: Machine) -> None:
    heard: list[StateContext] = []
    mach.add("Foo")
    mach.state_ctx("Foo").on_expire(heard.append)

    gc.collect()
    mach.remove("Foo")

    assert [ctx.state for ctx in heard] == ["Foo"]


def test_a_machine_that_nobody_holds_is_gone_in_spite_of_waiters() -> None:
    mach = _machine()
    waiter = mach.when("Foo")
    gone = weakref.ref(mach)
    waiter.cancel()

    del mach, waiter
    gc.collect()

    assert gone() is None


def test_many_waiters_on_many_conditions_are_all_set_once_each(mach: Machine) -> None:
    heard: list[Waiter] = []
    waiters: list[Waiter] = []
    for n in range(1000):
        waiters += [
            mach.when("Foo", "Bar"),
            mach.when_any("Foo", "Baz"),
            mach.when_tick("Multi", n + 1),
            mach.when_args("Multi", {"n": n % 10}),
        ]
    for waiter in waiters:
        waiter.on_done(heard.append)

    mach.add("Foo")
    mach.add("Bar")
    for n in range(501):
        mach.add("Multi", n=n)

    assert all(waiter.is_set() for waiter in waiters)
    assert {id(waiter) for waiter in heard} == {id(waiter) for waiter in waiters}
    assert len(heard) == len(waiters)
    assert mach.waiters_pending == 0


def test_a_waiter_may_be_made_in_a_handler_and_is_set_by_that_transition(mach: Machine) -> None:
    made: list[Waiter] = []
    mach.bind({"Foo_enter": lambda event: made.append(mach.when("Foo"))})

    mach.add("Foo")

    assert made[0].is_set()


def test_imported_states_move_no_waiter_until_the_next_transition(mach: Machine) -> None:
    early = mach.when("Foo")
    ticks = mach.when_tick("Foo", 3)
    query = mach.when_query(lambda clock: clock["Foo"] == 5)
    mach.toggle("Baz")  # has them sorted in
    late = mach.when("Foo")

    mach.import_state({"names": ["Foo"], "ticks": [5]})
    assert not any(waiter.is_set() for waiter in (early, late, ticks, query))
    mach.toggle("Baz")

    assert [waiter.is_set() for waiter in (early, late, ticks, query)] == [True] * 4


def test_an_observer_is_told_of_every_change_until_it_is_unbound() -> None:
    machine = Machine({"Foo": State(), "Bar": State(auto=True, require="Foo")})
    seen: list[str] = []
    binding = machine.observe(lambda: seen.append(str(machine)))

    machine.add("Foo")
    machine.add("Foo")
    machine.import_state({"names": ["Foo"], "ticks": [0]})
    binding.unbind()
    machine.add("Foo")

    assert seen == ["(Foo:1)", "(Foo:1 Bar:1)", "()"]


def test_an_observer_is_told_of_states_that_are_put_back() -> None:
    machine = Machine({"Foo": State()})
    machine.bind({"Foo_state": lambda event: 1 / 0})
    seen: list[str] = []
    machine.observe(lambda: seen.append(str(machine)))

    machine.add("Foo")

    assert seen == ["()", "(Exception:1)"]
