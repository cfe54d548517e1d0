"""Many threads and machines that change each other: no deadlock, no loss, nothing left."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from asyncmachine import Event, Machine, Result, State, Tracer, Transition, pipe, wait_all
from tests.races import (
    PATIENCE,
    assert_consistent,
    assert_works,
    await_rest,
    outcome,
    start,
    switching_often,
    together,
)


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


SCHEMA = {
    "Idle": State(auto=True, remove=["Busy"]),
    "Busy": State(remove=["Idle"]),
    "Hit": State(multi=True),
    "Passed": State(multi=True),
    "Needs": State(require="Busy"),
    "Echo": State(multi=True),
    "Spare": State(),
}


class Books(Tracer):
    """Counts what became of the mutations that were asked for with a number."""

    def __init__(self) -> None:
        self.ended: Counter[object] = Counter()
        self.refused: set[object] = set()

    def transition_end(self, tx: Transition) -> None:
        number = tx.mutation.args.get("number")
        if number is not None:
            self.ended[number] += 1
            if not tx.accepted:
                self.refused.add(number)


class Worker:
    """Handlers that change other machines.

    Attributes:
        asked: results of what the handlers have requested.

    """

    def __init__(self) -> None:
        self.others: list[Machine] = []
        self.asked: list[Result] = []
        self.handled = 0
        self._random = random.Random(7)

    def Hit_state(self, event: Event) -> None:
        self.handled += 1
        other = self._random.choice(self.others)
        if event.args.get("hops", 0):
            self.asked.append(other.add("Hit", hops=event.args["hops"] - 1))  # type: ignore[operator]
        self.asked.append(other.send("add", "Passed", source=event.machine.id))
        if self._random.random() < 0.1:
            assert other.eval(lambda: 42) == 42
            other.can_add("Needs")

    def Needs_enter(self, event: Event) -> bool:
        return bool(self._random.randrange(3))

    def Busy_state(self, event: Event) -> None:
        self.asked.append(event.machine.add("Needs"))


def _crowd(number: int) -> tuple[list[Machine], list[Worker]]:
    workers = [Worker() for _ in range(number)]
    machines = [
        Machine(SCHEMA, id=f"m{n}", handlers=worker, queue_limit=1_000_000)
        for n, worker in enumerate(workers)
    ]
    for n, worker in enumerate(workers):
        worker.others = machines[:n] + machines[n + 1 :]
    return machines, workers


def _drive(seed: int, machines: list[Machine], rounds: int) -> list[Result]:
    """Ask for all kinds of things of all machines."""
    chance = random.Random(seed)
    results: list[Result] = []
    for n in range(rounds):
        machine = chance.choice(machines)
        number = (seed, n)
        requests: list[Callable[[], Result]] = [
            partial(machine.add, "Hit", hops=3, number=number),
            partial(machine.add, "Busy", number=number),
            partial(machine.remove, "Busy", number=number),
            partial(machine.add, "Needs", number=number),
            partial(machine.set, "Spare", "Hit", hops=1, number=number),
            partial(machine.send, "add", "Hit", hops=0, number=number),
        ]
        results.append(chance.choice(requests)())
        if n % 20 == 0:
            results[-1] = results[-1].wait(PATIENCE)
    return results


def _rest(machines: list[Machine]) -> None:
    """Wait until no machine asks another one for anything any more."""
    while True:
        before = [machine.time_sum() for machine in machines]
        for machine in machines:
            await_rest(machine)
        if [machine.time_sum() for machine in machines] == before:
            return


def _finals(results: list[Result]) -> Counter[Result]:
    return Counter(result.wait(PATIENCE) for result in results)


@pytest.mark.parametrize("threads", [2, 6])
def test_machines_whose_handlers_change_each_other_lose_nothing(threads: int) -> None:
    machines, workers = _crowd(5)
    books = [Books() for _ in machines]
    for machine, book in zip(machines, books):
        machine.add_tracer(book)

    rounds = 600 // threads
    made = together(*(partial(_drive, seed, machines, rounds) for seed in range(threads)))
    _rest(machines)

    sent = [result for results in made for result in results]
    finals = _finals(sent)
    assert finals[Result.EXECUTED] + finals[Result.CANCELED] == len(sent) == threads * rounds
    carried_out: Counter[object] = sum((book.ended for book in books), Counter())
    assert set(carried_out.values()) == {1}
    refused = set().union(*(book.refused for book in books))
    assert len(refused) == finals[Result.CANCELED]
    asked = _finals([result for worker in workers for result in worker.asked])
    assert Result.QUEUED not in asked
    for machine in machines:
        assert machine.error is None
        assert_works(machine, "Spare")


def test_machines_without_observers_lose_nothing_either() -> None:
    machines, workers = _crowd(4)

    made = together(*(partial(_drive, seed, machines, 150) for seed in range(4)))
    _rest(machines)

    finals = _finals([result for results in made for result in results])
    assert sum(finals.values()) == 600
    passed = sum((machine.tick("Passed") + 1) // 2 for machine in machines)
    assert passed == sum(worker.handled for worker in workers)
    for machine in machines:
        assert machine.error is None
        assert_works(machine, "Spare")


def test_pipes_in_a_ring_carry_every_activation_between_busy_machines() -> None:
    machines = [Machine(SCHEMA, id=f"p{n}", queue_limit=1_000_000) for n in range(4)]
    for n, machine in enumerate(machines):
        pipe(machine, "Hit", machines[(n + 1) % 4], "Echo")

    def drive(machine: Machine) -> list[Result]:
        return [machine.add("Hit", number=n).wait(PATIENCE) for n in range(100)]

    together(*(partial(drive, machine) for machine in machines))
    waiters = [machine.when_tick("Echo", 199) for machine in machines]

    assert wait_all(*waiters, timeout=PATIENCE)
    _rest(machines)
    assert [machine.tick("Echo") for machine in machines] == [199] * 4
    for machine in machines:
        assert_works(machine, "Spare")


def test_handlers_that_fail_and_veto_at_random_leave_every_machine_sound() -> None:
    chance = random.Random(3)

    def misbehave(event: Event) -> object:
        draw = chance.random()
        if draw < 0.15:
            raise LookupError(event.name)
        return draw > 0.3

    machine = Machine(SCHEMA, queue_limit=1_000_000)
    names = ["Hit_enter", "Hit_state", "Busy_enter", "Busy_state", "Busy_exit", "Idle_enter"]
    machine.bind(dict.fromkeys(names, misbehave))

    made = together(*(partial(_drive, seed, [machine], 150) for seed in range(4)))
    await_rest(machine)

    finals = _finals([result for results in made for result in results])
    assert sum(finals.values()) == 600
    assert finals[Result.CANCELED] > 0
    assert_consistent(machine)
    assert_works(machine, "Spare")


def test_machines_that_come_and_go_take_everybody_with_them() -> None:
    def live(seed: int) -> int:
        total = 0
        for n in range(15):
            with Machine(SCHEMA, id=f"{seed}.{n}") as parent:
                child = Machine(SCHEMA, parent=parent)
                link = pipe(parent, "Hit", child, "Echo")
                waiter = child.when("Echo")
                parent.add("Hit")
                total += waiter.wait(PATIENCE)
                link.close()
            total += child.is_disposed
        return total

    assert together(*(partial(live, seed) for seed in range(4))) == [30] * 4


def test_no_background_thread_is_left_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    monkeypatch.setattr("asyncmachine.threads.KEPT", 0.01)
    machines, _ = _crowd(3)
    together(*(partial(_drive, seed, machines, 60) for seed in range(3)))
    _rest(machines)
    together(*(machine.dispose for machine in machines))

    started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(PATIENCE)
    assert [thread.name for thread in started if thread.is_alive()] == []


def test_one_machine_under_everything_at_once() -> None:
    machine = Machine(SCHEMA, queue_limit=1_000_000)
    done = threading.Event()

    def rebind() -> int:
        count = 0
        while not done.is_set():
            with machine.bind({"Hit_state": lambda event: None}):
                machine.on("Hit_state", lambda event: None).unbind()
                machine.add_tracer(Tracer()).unbind()
            count += 1
        return count

    def wait() -> int:
        count = 0
        while not done.is_set():
            with machine.when_ticks("Hit", 2) as waiter:
                machine.add("Hit", number=count)
                count += waiter.wait(PATIENCE)
            machine.when_query(lambda clock: clock["Hit"] > 10**9).cancel()
            machine.state_ctx("Busy").on_expire(lambda ctx: None)
        return count

    def evaluate() -> int:
        return sum(machine.eval(lambda: 1, timeout=PATIENCE) for _ in range(150))

    def drive() -> int:
        results = _drive(1, [machine], 300)
        finals = _finals(results)
        evaluating = outcome(start(evaluate))
        done.set()
        return sum(finals.values()) + evaluating

    counts = together(rebind, wait, drive, until=done)

    assert counts[2] == 450
    assert min(counts) > 0
    assert_works(machine, "Spare")
