"""A mirror shows what it is told, sets its waiters and expires its contexts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncmachine import Machine, Schema, State
from asyncmachine.bits import members
from asyncmachine.mirror import Mirror, expected_order
from tests.races import switching_often, together

SCHEMA = Schema({"Foo": State(), "Bar": State(), "Hit": State(multi=True)})


def mirror() -> Mirror:
    return Mirror("mirror", SCHEMA)


def test_clocks_only_grow() -> None:
    shown = mirror()
    shown.follow([0, 3, 1, 2])
    shown.follow([0, 1])
    assert shown.time() == (3, 2, 0, 0)
    assert shown.total == 5
    assert shown.active_states() == ("Foo",)


def test_the_order_is_guessed_or_told() -> None:
    shown = mirror()
    shown.follow([0, 1, 1, 1])
    assert shown.active_states() == ("Foo", "Bar")
    shown.follow([2, 1], order=[2, 1, 0])
    assert shown.active_states() == ("Hit", "Bar", "Foo")


@given(st.lists(st.sets(st.sampled_from(["Foo", "Bar", "Hit"])), max_size=10))
def test_a_mirror_that_is_told_everything_shows_the_machine(steps: list[set[str]]) -> None:
    machine = Machine(SCHEMA)
    shown = mirror()
    for step in steps:
        before = machine.time()
        guess = shown.active_states()
        machine.set(*sorted(step))
        moved = [
            each for i, tick in enumerate(machine.time()) if tick != before[i] for each in (i, tick)
        ]
        positions = tuple(SCHEMA.index[name] for name in machine.active_states())
        expected = expected_order(tuple(SCHEMA.index[name] for name in guess), moved)
        shown.follow(moved, () if expected == positions else positions)
        assert shown.time() == machine.time()
        assert shown.active_states() == machine.active_states()
        assert members(shown.active_mask()) == sorted(positions)


def test_an_event_sets_who_waits_for_its_args_even_if_the_clock_is_known() -> None:
    shown = mirror()
    waiter = shown.when_args("Hit", {"n": 1})
    other = shown.when_args("Hit", {"n": 2})
    assert shown.awaits_args(2)
    assert not shown.awaits_args(0)
    shown.follow([2, 1])
    shown.follow([2, 1], (), (2,), {"n": 1})
    assert waiter.is_set()
    assert waiter.args == {"n": 1}
    assert not other.is_set()


def test_what_is_shown_as_a_whole_expires_contexts_of_what_differs() -> None:
    shown = mirror()
    shown.follow([0, 1, 1, 1])
    foo, bar = shown.state_ctx("Foo"), shown.state_ctx("Bar")
    waiter = shown.when("Hit")
    shown.replace([1, 3, 1, 0], [0, 1, 2])
    assert not foo.expired
    assert bar.expired
    assert waiter.is_set()
    shown.replace([0, 0, 0, 0], [])
    assert foo.expired
    assert shown.total == 0


def test_another_life_expires_all_and_keeps_what_remains_to_be_waited_for() -> None:
    shown = mirror()
    shown.follow([0, 5, 2, 9])
    ctx = shown.state_ctx("Foo")
    relative = shown.when_ticks("Hit", 4)
    absolute = shown.when_tick("Hit", 11)
    lifetime = shown.lifetime()
    shown.follow([2, 11])
    assert absolute.is_set()
    shown.replace([5, 0, 1, 0], [0, 2], anew=True)
    assert ctx.expired
    assert not lifetime.expired
    shown.follow([2, 2])
    assert not relative.is_set()
    shown.follow([2, 3])
    assert relative.is_set()


def test_a_waiter_that_is_looked_at_twice_is_set_all_the_same() -> None:
    shown = mirror()
    waiters = [
        shown.when("Foo"),
        shown.when_tick("Foo", 3),
        shown.when_query(lambda c: c["Foo"] > 2),
    ]
    shown.follow([1, 1])  # sorts them in
    shown.replace([3, 1, 0, 0], [0, 1])
    assert all(waiter.is_set() for waiter in waiters)
    assert shown.waiters_pending == 0


def test_what_somebody_has_to_tell() -> None:
    shown = mirror()
    waiter, tell = shown.when_told()
    assert not waiter.is_set()
    tell()
    tell()
    assert waiter.is_set()
    assert not waiter.disposed
    ctx = shown.state_ctx("Foo")
    canceled, tell = shown.when_told(ctx=ctx)
    assert canceled.canceled
    abandoned, tell = shown.when_told()
    del abandoned
    tell()
    late, _ = shown.when_told()
    shown.retire()
    shown.retire()
    assert late.disposed
    assert shown.when_told()[0].disposed


def test_waiting_and_showing_at_once_loses_nothing() -> None:
    with switching_often():
        for n in range(300):
            shown = mirror()

            def show(shown: Mirror = shown, n: int = n) -> object:
                shown.follow([1, 1])
                if n % 2:
                    shown.replace([1, 1, 0, 0], [0, 1])
                else:
                    shown.follow([0, 1])
                return None

            def wait(shown: Mirror = shown) -> object:
                return shown.when("Foo")

            _, first, second = together(show, wait, wait)
            assert first.is_set()  # type: ignore[attr-defined]
            assert second.is_set()  # type: ignore[attr-defined]
