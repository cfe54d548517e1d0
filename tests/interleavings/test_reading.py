"""What is read together is of one moment, between two transitions."""

from __future__ import annotations

from asyncmachine import Machine, State
from tests.interleavings.exploring import explore, known

# Few clocks move in one transition, or many: two ways through the core.
FEW = {"A": State(remove="B"), "B": State(remove="A")}
MANY = {name: State() for name in "ABCDE"}


class Scene:
    """A machine that one thread changes, and what another one read."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.read: list[tuple[int, ...]] = []
        self.moments: list[tuple[int, ...]] = []


FEW_SCHEMA = known(FEW, "add A", "add B", "add A")
MANY_SCHEMA = known(MANY, "set A B C D E", "set", "set A B C D E")
CALLED = known(FEW, "add A", "add B", handlers={"A_state": lambda event: None})


def few() -> Scene:
    scene = Scene(Machine(FEW_SCHEMA))
    scene.moments = [(0, 0), (1, 0), (2, 1), (3, 2)]
    return scene


def few_with_handlers() -> Scene:
    scene = Scene(Machine(CALLED, handlers={"A_state": lambda event: None}))
    scene.moments = few().moments
    return scene


def many() -> Scene:
    scene = Scene(Machine(MANY_SCHEMA))
    scene.moments = [(n,) * 5 for n in range(4)]
    return scene


def toggle(scene: Scene) -> None:
    for state in "ABA":
        scene.machine.add(state)


def toggle_all(scene: Scene) -> None:
    for states in ("ABCDE", "", "ABCDE"):
        scene.machine.set(*states)


def read(scene: Scene) -> None:
    names = tuple("ABCDE"[: len(scene.moments[0])])
    scene.read += [scene.machine.time(*names) for _ in range(2)]


def nothing_is_torn(scene: Scene) -> None:
    assert set(scene.read) <= set(scene.moments)
    assert scene.read == sorted(scene.read)
    assert scene.machine.time()[: len(scene.moments[0])] == scene.moments[-1]


def test_two_clocks_that_move_together_are_read_together() -> None:
    explore(few, read, toggle, holds=nothing_is_torn, drawn=200)


def test_the_same_when_handlers_run() -> None:
    explore(few_with_handlers, read, toggle, holds=nothing_is_torn, drawn=200)


def test_many_clocks_that_move_together_are_read_together() -> None:
    explore(many, read, toggle_all, holds=nothing_is_torn, drawn=200)


def test_one_clock_never_goes_back() -> None:
    def read_one(scene: Scene) -> None:
        scene.read += [(scene.machine.tick("A"),) for _ in range(3)]

    def it_went_on(scene: Scene) -> None:
        assert scene.read == sorted(scene.read)

    explore(few, read_one, toggle, holds=it_went_on, drawn=200)


def test_what_is_active_agrees_with_its_clock() -> None:
    def look(scene: Scene) -> None:
        is_active = scene.machine.is_active("A")
        tick = scene.machine.tick("A")
        assert tick or not is_active
        assert str(scene.machine) in {"()", "(A:1)", "(B:1)", "(A:3)"}
        assert scene.machine.describe().startswith(("()", "(A:1)", "(B:1)", "(A:3)"))

    explore(few, look, toggle, holds=lambda scene: None)


def test_clocks_that_are_imported_are_read_together() -> None:
    def jump(scene: Scene) -> None:
        scene.machine.import_state({"names": ["A", "B"], "ticks": [7, 8]})

    def nothing_is_mixed(scene: Scene) -> None:
        assert set(scene.read) <= {(0, 0), (7, 8)}
        assert scene.machine.time("A", "B") == (7, 8)

    explore(few, read, jump, holds=nothing_is_mixed)
