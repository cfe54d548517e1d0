"""The traced way tells what the watched way tells: the same of the same, in the same order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from itertools import cycle
from random import Random

import pytest

from asyncmachine import (
    Event,
    LogLevel,
    Machine,
    Mutation,
    Result,
    Schema,
    State,
    Tracer,
    Transition,
)
from tests.oracle import Request
from tests.races import PATIENCE, switching_often, together
from tests.test_properties import Case, random_case

CASES = 250


@pytest.fixture(autouse=True, scope="module")
def _errors_of_handlers_are_not_logged() -> Iterator[None]:
    logger = logging.getLogger("asyncmachine")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


class Witness(Tracer):
    """Notes everything that a transition says of itself, at every hook."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self._numbers: dict[int, int] = {}  # ids differ from run to run

    def _known(self, tx: Transition) -> int:
        return self._numbers.setdefault(tx.id, len(self._numbers))

    def _note(self, hook: str, tx: Transition, *more: object) -> None:
        mutation = tx.mutation
        cause = tx.cause
        self.heard.append(
            (
                hook,
                self._known(tx),
                (mutation.kind, mutation.states, mutation.auto, dict(mutation.args).keys()),
                self._numbers.get(cause.transition_id, "?") if cause else None,
                (tx.accepted, tx.outcome, repr(tx.error)),
                (tx.states_before, tx.target_states, tx.time_before, tx.time_after, tx.moves),
                tx.machine.time(),
                *more,
            )
        )

    def mutation_queued(self, mach: Machine, mutation: Mutation) -> None:
        self.heard.append(("queued", mutation.kind, mutation.states, mutation.queued_ns > 0))

    def transition_init(self, tx: Transition) -> None:
        self._note("init", tx)

    def transition_start(self, tx: Transition) -> None:
        self._note("start", tx)

    def handler_start(self, tx: Transition, name: str) -> None:
        self._note("handler", tx, name)

    def handler_end(self, tx: Transition, name: str) -> None:
        self._note("handled", tx, name)

    def transition_commit(self, tx: Transition) -> None:
        self._note("commit", tx)

    def transition_end(self, tx: Transition) -> None:
        self._note("end", tx, tx.duration_ns > 0)

    def queue_empty(self, mach: Machine) -> None:
        self.heard.append(("empty", mach.time()))


class Stepping(Witness):
    """The same on the watched way, for it wants the steps."""

    wants_steps = True


def _live(case: Case, witness: Witness, level: LogLevel = LogLevel.NOTHING) -> list[object]:
    """Live through a case before a witness: what it heard, and the results."""
    machine = Machine(Schema.from_dict(case.schema), id="m", tracers=[witness], log_level=level)
    asked = dict(case.asked)
    results: list[object] = []

    def request(each: Request, **args: object) -> Result:
        call = {"add": machine.add, "remove": machine.remove, "set": machine.set}[each.kind]
        return call(*each.called, **args)

    for script in case.scripts:
        turns: Mapping[str, Iterator[str]] = {
            name: cycle(outcomes) for name, outcomes in script.items()
        }

        def follow(event: Event, turns: Mapping[str, Iterator[str]] = turns) -> object:
            for each in asked.pop(event.name, ()):
                request(each, token=len(asked))
            outcome = next(turns[event.name])
            if outcome == "raise":
                raise LookupError(event.name)
            return outcome != "veto"

        machine.bind(dict.fromkeys(script, follow))
    for each in case.mutations:
        result = request(each)
        results.append((str(result), result.why, machine.describe(), repr(machine.error)))
    return [witness.heard, results]


@pytest.mark.parametrize(("objects", "asking"), [(0, False), (1, False), (1, True), (2, True)])
def test_every_hook_hears_the_same_on_the_traced_and_the_watched_way(
    objects: int, *, asking: bool
) -> None:
    for seed in range(CASES):
        case = random_case(Random(seed), objects=objects, asking=asking)
        traced = _live(case, Witness())
        assert traced == _live(case, Stepping()), f"seed {seed}: {case}"
        assert seed % 7 or traced == _live(case, Witness(), LogLevel.EVERYTHING)


@pytest.mark.parametrize("handlers", [None, {"Foo_state": lambda event: None}])
def test_what_is_committed_comes_before_waiters_and_results(handlers: object) -> None:
    seen: list[tuple[bool, bool]] = []

    class Committing(Tracer):
        def transition_commit(self, tx: Transition) -> None:
            seen.append((waiter.is_set(), bool(queued) and queued[0] == Result.EXECUTED))

    machine = Machine({"Foo": State(), "Go": State()}, handlers=handlers, tracers=[Committing()])
    waiter = machine.when("Foo")
    queued: list[Result] = []

    machine.eval(lambda: queued.append(machine.add("Foo")))

    assert seen == [(False, False)]
    assert waiter.is_set()
    assert queued[0].wait(PATIENCE) == Result.EXECUTED


@pytest.mark.parametrize("handlers", [None, {"Foo_state": lambda event: None}])
def test_nothing_is_missed_when_many_threads_change_a_traced_machine(handlers: object) -> None:
    class Adding(Tracer):
        def __init__(self) -> None:
            self.ticks = [0, 0, 0]
            self.last: tuple[int, ...] = ()
            self.torn = 0

        def transition_end(self, tx: Transition) -> None:
            self.torn += bool(self.last) and self.last != tx.time_before
            self.last = tx.time_after
            for position, ticks in tx.moves:
                self.ticks[position] += ticks

    def toggle(state: str) -> None:
        for n in range(400):
            machine.add(state, n=n)
            machine.remove(state)

    with switching_often():
        for _ in range(5):
            tracer = Adding()
            machine = Machine(
                {"Foo": State(multi=True), "Bar": State()},
                handlers=handlers,
                tracers=[tracer],
                queue_limit=100_000,
            )
            together(*(lambda state=state: toggle(state) for state in ("Foo", "Bar", "Foo")))
            assert machine.when_queue_empty().wait(PATIENCE)
            machine.eval(lambda: None)
            assert tuple(tracer.ticks) == machine.time()
            assert tracer.torn == 0


def test_a_tracer_that_joins_knows_the_clocks_it_starts_from() -> None:
    class Starting(Tracer):
        def __init__(self) -> None:
            self.known: tuple[int, ...] = ()
            self.missed = 0

        def machine_init(self, mach: Machine) -> None:
            self.known = mach.time()

        def transition_end(self, tx: Transition) -> None:
            self.missed += self.known != tx.time_before
            self.known = tx.time_after

    machine = Machine({"Foo": State(multi=True)}, queue_limit=1_000_000)
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            machine.add("Foo")

    def watch() -> None:
        for _ in range(200):
            tracer = Starting()
            with machine.add_tracer(tracer):
                machine.add("Foo", n=1)
            assert tracer.missed == 0
        over.set()

    with switching_often():
        together(change, watch)
