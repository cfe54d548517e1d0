"""Plans: shared, bounded, made afresh for other handlers, and able to say why."""

from __future__ import annotations

import pytest

from asyncmachine import Event, Machine, Result, Schema, State, UnknownStateError
from asyncmachine.handlers import Bound
from asyncmachine.plans import MOST_GRAPHS, MOST_PLANS, Graph, graph_of


class Handlers:
    def Foo_enter(self, event: Event) -> bool | None:
        return event.args.get("verdict", True) is True

    def Foo_state(self, event: Event) -> None:
        if "error" in event.args:
            raise ValueError(event.args["error"])


def _foo_bar_baz(**options: object) -> Machine:
    return Machine(
        {"Foo": State(), "Bar": State(require="Foo"), "Baz": State(remove="Foo")},
        **options,  # type: ignore[arg-type]
    )


def _graph(schema: Schema) -> Graph:
    """The graph of machines without handlers."""
    return graph_of(schema, Bound().shape)


# -------------------------------------------------------------------------- sharing


def test_machines_of_one_schema_without_handlers_share_their_graph() -> None:
    schema = Machine({"Foo": State()}).schema

    assert _graph(schema) is _graph(schema)
    first, second = Machine(schema), Machine(schema)
    assert first.add("Foo")
    plans = _graph(schema).plans
    assert second.add("Foo")
    assert _graph(schema).plans == plans


def test_machines_that_share_plans_share_nothing_else() -> None:
    heard: list[str] = []
    first = Machine({"Foo": State()}, handlers={"Foo_state": lambda event: heard.append("first")})
    second = Machine({"Foo": State()}, handlers={"Foo_state": lambda event: heard.append("second")})

    first.add("Foo")
    assert not second.is_active("Foo")
    second.add("Foo")

    assert heard == ["first", "second"]


def test_a_graph_grows_no_further_than_it_may_and_the_machine_works_on() -> None:
    names = [f"S{i}" for i in range(14)]
    mach = Machine({name: State() for name in names})
    graph = _graph(mach.schema)
    most = 0

    for step in range(1, MOST_PLANS + 1000):  # a Gray code: a new set of states each time
        name = names[(step & -step).bit_length() - 1]
        assert mach.toggle(name) == Result.EXECUTED
        most = max(most, graph.plans, len(graph.nodes) - 1)

    gray = (MOST_PLANS + 999) ^ (MOST_PLANS + 999) >> 1
    assert {*mach.active_states()} == {n for i, n in enumerate(names) if gray >> i & 1}
    assert mach.time_sum() == MOST_PLANS + 999
    assert most <= MOST_PLANS


def test_auto_plans_count_too() -> None:
    mach = Machine({"Foo": State(), "Bar": State(auto=True, require="Foo")})
    graph = _graph(mach.schema)
    before = graph.plans

    mach.add("Foo")

    assert mach.is_active("Bar")
    assert graph.plans == before + 2


def test_shapes_of_handlers_do_not_pile_up_for_ever() -> None:
    names = [f"S{i}" for i in range(MOST_GRAPHS + 10)]
    mach = Machine({name: State() for name in names})

    for name in names:
        with mach.on(f"{name}_state", lambda event: None):
            mach.toggle(name)

    assert len(mach.schema.graphs) <= MOST_GRAPHS
    assert mach.time_sum() == len(names)


def test_states_and_clocks_stay_when_handlers_are_bound_and_unbound() -> None:
    mach = _foo_bar_baz()
    mach.add("Foo", "Bar")

    binding = mach.bind(Handlers())
    assert mach.describe() == "(Foo:1 Bar:1)[Baz:0 Exception:0]"
    mach.remove("Foo")
    binding.unbind()

    assert mach.describe() == "()[Foo:2 Bar:2 Baz:0 Exception:0]"


def test_unbinding_takes_the_handlers_out_of_plans_that_have_been_used() -> None:
    mach = _foo_bar_baz()
    binding = mach.bind(Handlers())
    assert mach.add("Foo", verdict=False) == Result.CANCELED

    binding.unbind()

    assert mach.add("Foo", verdict=False) == Result.EXECUTED


def test_unknown_names_never_become_plans() -> None:
    mach = _foo_bar_baz()
    plans = _graph(mach.schema).plans

    for _ in range(3):
        with pytest.raises(UnknownStateError, match="Qux"):
            mach.add("Foo", "Qux")

    assert _graph(mach.schema).plans == plans


# ------------------------------------------------------------------------------ why


def test_why_names_a_requirement_that_is_inactive() -> None:
    assert _foo_bar_baz().add("Bar").why == "Bar requires Foo, which is inactive"


def test_why_names_a_state_that_stays_active_and_removes() -> None:
    mach = _foo_bar_baz()
    mach.add("Baz")

    assert mach.add("Foo").why == "Foo is removed by Baz, which stays active"


def test_why_names_a_state_called_beside_it_that_removes() -> None:
    why = _foo_bar_baz().add("Foo", "Baz").why

    assert why.startswith("Foo is removed by Baz")
    assert "stays active" not in why


def test_why_follows_a_chain_of_requirements() -> None:
    mach = Machine(
        {
            "A": State(require="B"),
            "B": State(require="C"),
            "C": State(),
            "D": State(remove="C"),
            "E": State(require="C", add="C"),
        }
    )

    assert mach.add("A", "B").why == "A requires B, which requires C, which is inactive"
    mach.add("D")
    assert mach.add("E").why == "E requires C, which is removed by D, which stays active"


def test_why_comes_to_an_end_for_requirements_in_a_circle() -> None:
    mach = Machine({"A": State(require=["B", "C"]), "B": State(require="A"), "C": State()})

    why = mach.add("A", "B").why

    assert "C" in why
    assert "A" in why


def test_why_is_told_for_set_and_for_dry_runs_as_well() -> None:
    mach = _foo_bar_baz()

    assert mach.set("Bar").why == "Bar requires Foo, which is inactive"
    assert mach.can_add("Bar").why == "Bar requires Foo, which is inactive"
    assert mach.can_set("Bar").why == "Bar requires Foo, which is inactive"


def test_why_of_a_set_does_not_call_inactive_what_the_set_itself_would_drop() -> None:
    mach = _foo_bar_baz()
    mach.add("Foo")

    why = mach.set("Bar").why

    assert mach.is_active("Foo")
    assert why.startswith("Bar requires Foo")
    assert "is inactive" not in why


def test_why_is_empty_unless_it_was_canceled() -> None:
    mach = _foo_bar_baz()

    assert mach.add("Foo").why == ""
    assert mach.eval(lambda: mach.remove("Foo")).why == ""
    assert mach.can_remove("Foo").why == ""


def test_why_names_the_handler_that_vetoed() -> None:
    mach = _foo_bar_baz(handlers=Handlers())

    assert mach.add("Foo", verdict=False).why == "vetoed by Handlers.Foo_enter"
    assert mach.can_add("Foo", verdict=False).why == "vetoed by Handlers.Foo_enter"


def test_why_names_the_handler_of_a_mapping_by_its_name_alone() -> None:
    mach = _foo_bar_baz(handlers={"Any_enter": lambda event: False})

    assert mach.add("Foo").why == "vetoed by Any_enter"


def test_why_still_names_the_handler_after_it_has_been_unbound() -> None:
    mach = _foo_bar_baz()
    binding = mach.bind(Handlers())
    result = mach.add("Foo", verdict=False)

    binding.unbind()

    assert result.why == "vetoed by Handlers.Foo_enter"


def test_why_names_the_second_of_two_objects() -> None:
    class More:
        def Foo_enter(self, event: Event) -> bool:
            return False

    mach = _foo_bar_baz(handlers=[Handlers(), More()])

    assert mach.add("Foo").why == "vetoed by More.Foo_enter"


def test_why_tells_the_error_in_a_handler() -> None:
    class Handlers:
        def Foo_enter(self, event: Event) -> None:
            raise ValueError("no good")

    mach = _foo_bar_baz(handlers=Handlers())

    assert mach.add("Foo").why == "ValueError in Handlers.Foo_enter: no good"
    assert mach.can_add("Foo").why == "ValueError in Handlers.Foo_enter: no good"


def test_why_tells_the_error_in_a_final_handler() -> None:
    mach = _foo_bar_baz(handlers=Handlers())

    assert mach.add("Foo", error="too late").why == "ValueError in Handlers.Foo_state: too late"


def test_an_error_that_can_not_be_shown_is_an_error_like_any_other() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def fail(event: Event) -> None:
        raise MuteError

    mach = _foo_bar_baz(handlers={"Foo_enter": fail})

    assert mach.add("Foo") == Result.CANCELED
    assert mach.is_active("Exception")
    assert isinstance(mach.error, MuteError)


def test_why_tells_that_the_queue_is_full() -> None:
    mach = Machine({"Foo": State(multi=True)})

    def fill() -> Result:
        for n in range(1000):
            assert mach.add("Foo", n=n) == Result.QUEUED
        return mach.add("Foo", n=1000)

    assert mach.eval(fill).why == "the queue is full (1000)"
    assert mach.tick("Foo") == 1 + 2 * 999


def test_why_tells_that_the_machine_is_disposed() -> None:
    mach = _foo_bar_baz()
    mach.dispose()

    for result in (
        mach.add("Foo"),
        mach.remove("Foo"),
        mach.set(),
        mach.toggle("Foo"),
        mach.add_error("late"),
        mach.send("add", "Foo"),
        mach.can_add("Foo"),
        mach.can_remove("Foo"),
        mach.can_set("Foo"),
    ):
        assert result == Result.CANCELED
        assert result.why == "the machine is disposed"
