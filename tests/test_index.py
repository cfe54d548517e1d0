"""The index of who waits for what, where nothing public shows it: cost and tidiness."""

from __future__ import annotations

import gc

import pytest

from asyncmachine import Machine, State, Waiter
from asyncmachine.conditions import Condition, Gone, Present, Ticks
from asyncmachine.index import MOST_ASLEEP, UNTIDY, Index


def _machine() -> Machine:
    return Machine({f"S{i}": State() for i in range(14)})


def test_a_claim_is_won_once() -> None:
    index = Index(_machine())
    waiter = Waiter(index)
    condition = Gone(waiter)
    index.pending[condition] = None

    assert index.claim(condition)
    assert not index.claim(condition)


def test_conditions_are_told_apart_by_identity() -> None:
    index = Index(_machine())
    waiter = Waiter(index)

    first, second = Gone(waiter), Gone(waiter)

    assert first == first  # noqa: PLR0124 - that is the question
    assert len({first, second}) == 2


def test_the_plainest_condition_never_holds_and_is_about_nothing() -> None:
    mach = _machine()
    condition = Condition(Waiter(Index(mach)))

    assert not condition.holds(mach)
    assert condition.positions() == []
    condition.enlist(Index(mach))
    condition.delist(Index(mach))


def test_conditions_tell_what_they_are_about() -> None:
    waiter = Waiter(Index(_machine()))
    present, ticks = Present(waiter), Ticks(waiter)
    present.on, present.off, present.any = 0b101, 0b10, False
    ticks.ticks = {3: 1, 1: 2}

    assert present.positions() == [0, 1, 2]
    assert ticks.positions() == [3, 1]
    assert present.holds_of(0b101)
    assert not present.holds_of(0b111)
    present.any = True
    assert present.holds_of(0b100)


def test_conditions_join_and_leave_the_index_they_are_given() -> None:
    mach = _machine()
    index = Index(mach)
    waiter = Waiter(index)
    condition = Present(waiter)
    condition.on, condition.off, condition.any = 0b11, 0b100, False

    condition.enlist(index)
    assert index.interest == 0b111
    condition.delist(index)
    condition.delist(index)

    assert index.interest == 0


def test_a_machine_without_waiters_has_no_index_to_look_into() -> None:
    mach = _machine()

    mach.add("S0")

    assert mach.waiters_pending == 0
    assert mach.when("S0").is_set()
    assert mach.waiters_pending == 0


@pytest.mark.parametrize("kind", ["when", "when_tick", "when_args", "when_query"])
def test_a_machine_at_rest_does_not_pile_up_abandoned_waiters(kind: str) -> None:
    mach = _machine()

    def wait() -> Waiter:
        if kind == "when":
            return mach.when("S0", "S1")
        if kind == "when_tick":
            return mach.when_tick("S0", 5)
        if kind == "when_args":
            return mach.when_args("S0", {"id": 1})
        return mach.when_query(lambda clock: clock["S0"] > 5)

    for _ in range(UNTIDY * 20):
        wait()
    gc.collect()

    assert mach.waiters_pending <= UNTIDY + 2


def test_a_waiter_among_abandoned_ones_is_not_forgotten() -> None:
    mach = _machine()
    kept = [mach.when("S0"), mach.when_tick("S0", 1), mach.when_args("S0", {})]
    kept.append(mach.when_query(lambda clock: clock["S0"]))
    for _ in range(UNTIDY * 5):
        mach.when("S0")
        mach.when_tick("S0", 1)
        mach.when_args("S0", {})
        mach.when_query(lambda clock: clock["S0"])
    gc.collect()

    mach.add("S0")

    assert all(waiter.is_set() for waiter in kept)
    assert mach.waiters_pending == 0


def test_more_sets_of_states_than_are_remembered_wake_nobody_wrongly() -> None:
    mach = _machine()
    names = [name for name in mach.states if name.startswith("S")]
    last = mach.when(*names[:11])

    for step in range(1, 1 << 11):  # a Gray code: each set of eleven states once
        mach.toggle(names[(step & -step).bit_length() - 1])
        everything = mach.is_active(*names[:11])
        assert last.is_set() or not everything
        if not last.is_set():
            assert not everything

    assert last.is_set()
    assert MOST_ASLEEP < 1 << 11


def test_clocks_that_are_waited_for_by_many_forget_the_canceled_ones() -> None:
    mach = _machine()
    held = [mach.when_tick("S0", 1000 + n) for n in range(UNTIDY * 4)]
    mach.toggle("S1")

    for waiter in held:
        waiter.cancel()
    mach.toggle("S1")
    mach.toggle("S0")
    last = mach.when_tick("S0", 2)
    mach.toggle("S0")

    assert last.is_set()
    assert mach.waiters_pending == 0


def test_a_waiter_for_several_clocks_moves_on_from_the_first_to_the_next() -> None:
    mach = _machine()
    waiter = mach.when_time({"S0": 1, "S1": 1, "S2": 1})
    mach.toggle("S9")

    for name in ("S2", "S0"):
        mach.add(name)
        assert not waiter.is_set()
    mach.add("S1")

    assert waiter.is_set()


def test_a_waiter_canceled_after_it_was_sorted_in_is_passed_over_when_its_clock_moves() -> None:
    mach = _machine()
    canceled, kept = mach.when_tick("S0", 1), mach.when_tick("S0", 1)
    mach.toggle("S1")

    canceled.cancel()
    mach.toggle("S0")

    assert canceled.canceled
    assert kept.is_set()
    assert not kept.canceled
