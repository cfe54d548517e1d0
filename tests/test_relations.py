"""Resolving targets: hand-made cases, through ``resolve`` and through a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from asyncmachine import Machine, Result, Schema, State
from asyncmachine.relations import Note, arrange, resolve

States = Mapping[str, State]


def _resolve(states: States, before: str, kind: str, called: str) -> str:
    schema = Schema(states)
    target = resolve(
        schema,
        [schema.index[name] for name in before.split()],
        kind,
        [schema.index[name] for name in called.split()],
    )
    return " ".join(schema.names[i] for i in target)


def _arranged(states: States, names: str) -> str:
    schema = Schema(states)
    order = arrange(schema, [schema.index[name] for name in names.split()])
    return " ".join(schema.names[i] for i in order)


def _machine(states: States, *active: str) -> Machine:
    """A machine whose active states are these, whatever their relations say."""
    mach = Machine(states)
    names = list(states)
    mach.import_state({"names": names, "ticks": [int(name in active) for name in names]})
    return mach


PLAIN: States = {name: State() for name in "ABCDEF"}
CHAIN: States = {
    "A": State(add="B"),
    "B": State(add="C"),
    "C": State(add="D"),
    "D": State(),
    "E": State(),
}
BREADTH: States = {
    "A": State(add=["B", "C"]),
    "B": State(add="D"),
    "C": State(add="E"),
    "D": State(),
    "E": State(),
}
RING: States = {
    "A": State(remove="B"),
    "B": State(remove="C"),
    "C": State(remove="A"),
    "D": State(),
}

CASES: Sequence[tuple[str, States, str, str, str, str]] = [
    # what it shows, schema, before, kind, called, target
    ("what is added comes first", PLAIN, "A B", "add", "C", "C A B"),
    ("the called keep the order of the call", PLAIN, "", "add", "C A B", "C A B"),
    ("a called state that is active moves to the front", PLAIN, "A B", "add", "B", "B A"),
    ("remove keeps the order of before", PLAIN, "C A B", "remove", "A", "C B"),
    ("set drops the rest", PLAIN, "A B", "set", "B C", "B C"),
    ("set of nothing drops all", PLAIN, "A B", "set", "", ""),
    ("add of nothing keeps all", PLAIN, "A B", "add", "", "A B"),
    ("set drops Exception too", PLAIN, "Exception A", "set", "A", "A"),
    (
        "set keeps Exception when it is called",
        PLAIN,
        "Exception",
        "set",
        "A Exception",
        "A Exception",
    ),
    # implying
    ("Add is followed to any depth", CHAIN, "", "add", "A", "A B C D"),
    ("implied states come breadth first", BREADTH, "", "add", "A", "A B C D E"),
    ("implied states come after the active ones", CHAIN, "E", "add", "A", "A E B C D"),
    ("what merely stays implies nothing", CHAIN, "A", "add", "E", "E A"),
    ("an active called state implies nothing", CHAIN, "A", "add", "A", "A"),
    ("a called active state stays in set, and implies nothing", CHAIN, "A B", "set", "A", "A"),
    (
        "an active multi state implies when it is called",
        {"A": State(add="B", multi=True), "B": State()},
        "A",
        "add",
        "A",
        "A B",
    ),
    (
        "an active multi state that stays does not re-add what is removed",
        {"A": State(add="B", multi=True), "B": State()},
        "A B",
        "remove",
        "B",
        "A",
    ),
    (
        "the removed are not implied again",
        {"A": State(), "B": State(add="A")},
        "A B",
        "remove",
        "A",
        "B",
    ),
    # requiring
    (
        "what requires goes with what it required",
        {"A": State(), "B": State(require="A")},
        "B A",
        "remove",
        "A",
        "",
    ),
    (
        "requirements are followed to any depth",
        {"A": State(), "B": State(require="A"), "C": State(require="B")},
        "C B A",
        "remove",
        "A",
        "",
    ),
    (
        "an implied state fulfils a requirement",
        {"A": State(add="B", require="B"), "B": State()},
        "",
        "add",
        "A",
        "A B",
    ),
    (
        "a lacking requirement keeps it out",
        {"A": State(require="B"), "B": State()},
        "",
        "add",
        "A",
        "",
    ),
    (
        "two that require each other can come together",
        {"A": State(require="B"), "B": State(require="A")},
        "",
        "add",
        "A B",
        "A B",
    ),
    ("a state may require itself", {"A": State(require="A")}, "", "add", "A", "A"),
    # removing
    (
        "what is active keeps out what it removes",
        {"A": State(), "B": State(remove="A")},
        "B",
        "add",
        "A",
        "B",
    ),
    (
        "the called pushes out what it removes",
        {"A": State(remove="B"), "B": State()},
        "B",
        "add",
        "A",
        "A",
    ),
    (
        "of two that remove each other the called one stays",
        {"A": State(remove="B"), "B": State(remove="A")},
        "B",
        "add",
        "A",
        "A",
    ),
    (
        "of two called that remove each other the first stays",
        {"A": State(remove="B"), "B": State(remove="A")},
        "",
        "add",
        "B A",
        "B",
    ),
    ("of a ring of three the first stays, and its prey's prey", RING, "", "add", "B C A", "B"),
    ("a ring next to a free state", RING, "D", "add", "A B C", "A D"),
    (
        "what is removed itself removes nobody",
        {"A": State(remove="B"), "B": State(remove="C"), "C": State()},
        "C",
        "add",
        "A B",
        "A C",
    ),
    (
        "what was implied only by a loser goes too",
        {"A": State(remove="B"), "B": State(add="C"), "C": State()},
        "",
        "add",
        "A B",
        "A",
    ),
    (
        "what was implied by a loser and a winner stays",
        {"A": State(remove="B", add="C"), "B": State(add="C"), "C": State()},
        "",
        "add",
        "A B",
        "A C",
    ),
    (
        "an implied state pushes out an active one",
        {"A": State(add="B"), "B": State(remove="C"), "C": State()},
        "C",
        "add",
        "A",
        "A B",
    ),
    (
        "an active state keeps out an implied one that it removes",
        {"A": State(add="B"), "B": State(), "C": State(remove="B")},
        "C",
        "add",
        "A",
        "A C",
    ),
    (
        "what is excluded in the end pushes nobody out",
        {"A": State(remove="B", require="C"), "B": State(), "C": State(), "D": State(remove="C")},
        "B D",
        "add",
        "C A",
        "B D",
    ),
    # hygiene
    ("a state never removes itself", {"A": State(remove="A")}, "", "add", "A", "A"),
    (
        "a state does not remove what it adds",
        {"A": State(add="B", remove="B"), "B": State()},
        "",
        "add",
        "A",
        "A B",
    ),
    ("a state that adds itself", {"A": State(add="A")}, "", "add", "A", "A"),
]


@pytest.mark.parametrize(
    ("states", "before", "kind", "called", "target"),
    [pytest.param(*rest, id=shown) for shown, *rest in CASES],
)
def test_the_target_of_a_mutation(
    states: States, before: str, kind: str, called: str, target: str
) -> None:
    assert _resolve(states, before, kind, called) == target


@pytest.mark.parametrize(
    ("states", "names", "arranged"),
    [
        ({"A": State(after="B"), "B": State()}, "A B", "B A"),
        ({"A": State(after="B"), "B": State()}, "A", "A"),
        ({"A": State(after="A")}, "A", "A"),
        ({"A": State(after="B"), "B": State(after="C"), "C": State()}, "A B C", "C B A"),
        # the first that is ready is taken, again and again
        ({"A": State(after="C"), "B": State(), "C": State()}, "A B C", "B C A"),
        # what is in a cycle keeps the order of names
        ({"A": State(after="B"), "B": State(after="A")}, "A B", "A B"),
        ({"A": State(after="B"), "B": State(after="A")}, "B A", "B A"),
        # the cycle runs through an absent state and counts all the same
        (
            {"A": State(after="B"), "B": State(after="C"), "C": State(after="A")},
            "A B",
            "A B",
        ),
        # absent states do not connect what they stand between
        ({"A": State(after="B"), "B": State(after="C"), "C": State()}, "A C", "A C"),
        # after something in a cycle, without being part of it
        (
            {"A": State(after="B"), "B": State(after="C"), "C": State(after="B")},
            "A B C",
            "B A C",
        ),
    ],
)
def test_after_orders_stably(states: States, names: str, arranged: str) -> None:
    assert _arranged(states, names) == arranged


def test_the_target_and_the_exits_are_ordered_by_after() -> None:
    states = {"A": State(after="B"), "B": State(), "C": State()}
    heard: list[str] = []
    mach = Machine(states)
    for name in states:
        mach.on(f"{name}_state", lambda event: heard.append(event.name))
        mach.on(f"{name}_end", lambda event: heard.append(event.name))

    mach.add("C", "A", "B")
    assert mach.active_states() == ("C", "B", "A")
    mach.set()

    assert heard == ["C_state", "B_state", "A_state", "C_end", "B_end", "A_end"]


@pytest.mark.parametrize("kind", ["add", "set"])
def test_a_called_state_that_is_not_in_the_target_cancels(kind: str) -> None:
    mach = _machine({"A": State(), "B": State(require="C"), "C": State()}, "A")

    result = mach.add("A", "B") if kind == "add" else mach.set("A", "B")

    assert result == Result.CANCELED
    assert mach.time() == (1, 0, 0, 0)


def test_remove_is_always_accepted() -> None:
    mach = _machine({"A": State(), "B": State(require="A")}, "A", "B")

    assert mach.remove("A") == Result.EXECUTED
    assert mach.time() == (2, 2, 0)


def test_the_same_again_changes_nothing_but_a_set_may_drop_what_the_first_one_implied() -> None:
    mach = Machine(CHAIN)

    mach.set("A")
    assert mach.active_states() == ("A", "B", "C", "D")
    mach.add("A")
    assert mach.active_states() == ("A", "B", "C", "D")
    mach.set("A")
    assert mach.active_states() == ("A",)


def test_barred_states_stay_out_even_when_implied() -> None:
    schema = Schema({"A": State(add="B"), "B": State()})

    assert resolve(schema, (), "add", (0,), barred=1 << 1) == (0,)


def test_notes_say_why() -> None:
    schema = Schema(
        {
            "A": State(add="B"),
            "B": State(remove="C"),
            "C": State(),
            "D": State(require="E"),
            "E": State(),
        }
    )
    notes: list[Note] = []

    target = resolve(schema, (2,), "add", (0, 3), notes=notes)

    assert target == (0, 1)
    assert Note("add", 1, 0) in notes
    assert Note("remove", 2, 1) in notes
    assert Note("require", 3, 4) in notes


def test_notes_of_rings_and_of_requirements_lost_in_a_contest() -> None:
    schema = Schema(
        {
            "A": State(remove="B"),
            "B": State(remove="A"),
            "C": State(require="B"),
        }
    )
    notes: list[Note] = []

    assert resolve(schema, (), "add", (0, 1, 2), notes=notes) == (0,)
    assert Note("remove", 1, 0) in notes
    assert Note("require", 2, 1) in notes
