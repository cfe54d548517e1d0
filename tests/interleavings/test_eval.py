"""A function that is to run alone runs, or times out, but not both."""

# ruff: noqa: SLF001 - these tests look behind the scenes

from __future__ import annotations

from asyncmachine import Machine, State
from asyncmachine.queueing import Task
from tests.interleavings.exploring import explore, known

SCHEMA = known({"A": State(), "B": State()}, "add A", "add B")


class Scene:
    """A machine, and what became of the functions."""

    def __init__(self) -> None:
        self.machine = Machine(SCHEMA)
        self.ran: list[tuple[int, ...]] = []
        self.gave: list[object] = []

    def look(self) -> int:
        self.ran.append(self.machine.time("A", "B"))
        return len(self.ran)


def evaluate(scene: Scene) -> None:
    scene.gave.append(scene.machine.eval(scene.look))


def evaluate_in_time(scene: Scene) -> None:
    try:
        scene.gave.append(scene.machine.eval(scene.look, timeout=1))
    except TimeoutError:
        scene.gave.append("too late")


def add(scene: Scene) -> None:
    scene.machine.add("A", "B")


class Held(Scene):
    """The same, while a thread has the machine's turn; `release` is what it does next."""

    def __init__(self) -> None:
        super().__init__()
        del self.machine._baton[0]


def release(scene: Held) -> None:
    scene.machine._baton += [None]
    scene.machine._serve()


def test_it_runs_once_between_transitions() -> None:
    def it_saw_one_moment(scene: Scene) -> None:
        assert scene.gave == [1]
        assert scene.ran in ([(0, 0)], [(1, 1)])

    explore(Scene, evaluate, add, holds=it_saw_one_moment)


def test_it_runs_though_the_machine_comes_to_rest_meanwhile() -> None:
    def it_ran(scene: Held) -> None:
        assert scene.gave == [1]

    explore(Held, evaluate, release, holds=it_ran)


def test_two_threads_get_each_its_own_value() -> None:
    def they_took_turns(scene: Scene) -> None:
        assert sorted(map(str, scene.gave)) == ["1", "2"]

    explore(Scene, evaluate, evaluate, add, holds=they_took_turns, drawn=20)


def test_of_its_turn_and_its_time_out_one_is_first() -> None:
    def one_was_first(scene: Held) -> None:
        assert len(scene.ran) == (scene.gave != ["too late"])
        assert scene.machine.queue_length == 0

    explore(Held, evaluate_in_time, release, holds=one_was_first, background=True, timers=True)


def test_of_two_who_claim_a_task_one_wins() -> None:
    class Claimed:
        def __init__(self) -> None:
            self.task: Task[None] = Task(lambda: None)
            self.won: list[bool] = []

    def claim(scene: Claimed) -> None:
        scene.won.append(scene.task.claim())

    def one_won(scene: Claimed) -> None:
        assert sorted(scene.won) == [False, True]
        assert not scene.task.claimable

    explore(Claimed, claim, claim, holds=one_won, dpor=True)
