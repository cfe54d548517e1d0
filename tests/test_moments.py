"""The present is one object: clocks read together are of one moment."""

from __future__ import annotations

from asyncmachine import Event, Machine, State
from asyncmachine.handlers import Bound
from asyncmachine.moments import lay_over
from asyncmachine.plans import Node, graph_of


def _node(mach: Machine) -> Node:
    return graph_of(mach.schema, Bound().shape).node(())


def test_laying_a_moment_over_the_ticks_twice_is_as_good_as_once() -> None:
    mach = Machine({"A": State(), "B": State(), "C": State()})
    ticks = [0, 0, 0]

    for _ in range(2):
        lay_over(ticks, (_node(mach), 0, 1, 2, 5))
        assert ticks == [1, 0, 5]


def test_the_later_of_two_ticks_of_one_clock_counts() -> None:
    mach = Machine({"A": State()})
    ticks = [0]

    lay_over(ticks, (_node(mach), 0, 1, 0, 2))

    assert ticks == [2]


def test_a_moment_without_ticks_changes_none() -> None:
    ticks = [3]

    lay_over(ticks, (_node(Machine({"A": State()})),))

    assert ticks == [3]


def test_all_ways_of_reading_a_clock_agree_during_a_transition() -> None:
    mach = Machine({name: State() for name in "ABCDE"})
    seen: list[bool] = []

    def agree(event: Event) -> None:
        ticks = mach.time()
        seen.append(
            ticks == tuple(mach.tick(name) for name in mach.states)
            and dict(zip(mach.states, ticks, strict=True)) == mach.clock()
            and sum(ticks) == mach.time_sum()
            and mach.export_state()["ticks"] == list(ticks)
            and {n for n, t in zip(mach.states, ticks, strict=True) if t & 1}
            == {*mach.active_states()}
        )

    mach.bind({"Any_enter": agree, "Any_state": agree, "A_state": agree})
    mach.add("A", "B", "C")
    mach.set("C", "D")
    mach.toggle("E")
    mach.set()

    assert len(seen) == 9
    assert all(seen)


def test_all_ways_of_reading_a_clock_agree_after_an_error_in_a_final_handler() -> None:
    mach = Machine({"A": State(), "B": State(), "C": State()}, catch_errors=False)

    def fail(event: Event) -> None:
        raise ValueError

    mach.add("C")
    mach.bind({"B_state": fail})
    try:
        mach.set("A", "B")
    except ValueError:
        pass

    assert mach.time() == (1, 2, 2, 0)
    assert [mach.tick(name) for name in mach.states] == [1, 2, 2, 0]
    assert mach.active_states() == ("A",)
