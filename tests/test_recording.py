"""The recorded program: every step of 120 machines that can be derived, derived.

``shared/data/pubsub-sim-600s.jsonl.gz`` holds 100,342 transitions of 91 machines (29 of
the 120 have none). Each falls into one of three classes:

- *refused*, 2,359: the rules let them through, the program's handlers did not.
- *gap*, 50: a machine's first step, of which the clock before is not recorded and is not
  zero either, since zero does not lead to the recorded clock; nothing to derive it from.
- *derived*, 97,933: all the others; the clock before is the one after the step before.

Two tests replay them. One asks the rules of ``oracle.py`` as a pure function of schema,
clock before, kind and called; an auto step is one of them, called what was recorded.

The other drives real machines, each from its first step to its last, through nothing but
their public methods; only before a gap a clock is imported. There the program's handlers are
played by an ``Any_enter`` handler, which refuses what the recording says was refused. Auto
steps are never requested: a real machine has to come up with each of them by itself, right
after the recorded cause and nowhere else. An ``Any_state`` handler notes the clock after
each transition, so that a step and its auto round are told apart.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import pytest

from asyncmachine import Event, Machine, Result, Schema
from tests import oracle
from tests.oracle import Kind, Moves, Names, RuleBook, SchemaData

RECORDING = Path(__file__).parents[2] / "shared" / "data" / "pubsub-sim-600s.jsonl.gz"
TOTALS = {"derived": 97_933, "refused": 2_359, "gap": 50}

pytestmark = pytest.mark.skipif(
    not RECORDING.exists(), reason=f"the recording is not there: {RECORDING}"
)

Clock = tuple[int, ...]
StepClass = Literal["derived", "refused", "gap"]


class Step(NamedTuple):
    """One recorded transition, with the clock before it."""

    kind: Kind
    called: Names
    accepted: bool
    auto: bool
    before: Clock
    after: Clock


class Run(NamedTuple):
    """What one machine did, from its first recorded step to its last."""

    machine: str
    names: Names
    schema: SchemaData
    steps: list[Step]


class _Header(TypedDict):
    machine: str
    names: list[str]
    schema: SchemaData


class _Line(TypedDict, total=False):
    kind: Kind
    called: list[str]
    accepted: bool
    auto: bool
    clock: list[int]


@cache
def recorded_runs() -> list[Run]:
    """Every machine that has a recorded step, in the order of the recording."""
    runs: dict[str, Run] = {}
    with gzip.open(RECORDING, "rt", encoding="utf-8") as lines:
        for line in lines:
            data = json.loads(line)
            if "schema" in data:
                runs[data["machine"]] = _read_header(data)
            else:
                run = runs[data["machine"]]
                run.steps.append(_read_step(data, run))
    return [run for run in runs.values() if run.steps]


def _read_header(data: _Header) -> Run:
    return Run(data["machine"], tuple(data["names"]), data["schema"], [])


def _read_step(data: _Line, run: Run) -> Step:
    return Step(
        kind=data["kind"],
        called=tuple(data["called"]),
        accepted=data["accepted"],
        auto=data.get("auto", False),
        before=run.steps[-1].after if run.steps else (0,) * len(run.names),
        after=tuple(data["clock"]),
    )


# ---------------------------------------------------------------- the rules alone


class Rulings:
    """The rules of one schema, remembering what they said: the same steps come often."""

    def __init__(self, run: Run) -> None:
        self.book: RuleBook = oracle.read_schema(run.schema)
        self._moves: dict[tuple[Names, Kind, Names], Moves] = {}

    def derived_clock(self, step: Step) -> Clock | None:
        """The clock that a step leads to; ``None`` if the rules do not accept it."""
        clock = dict(zip(self.book, step.before, strict=True))
        moves = self._moves_from(tuple(n for n in clock if clock[n] % 2), step)
        if not oracle.is_accepted(step.kind, step.called, moves.target, auto=step.auto):
            return None
        return tuple(oracle.clock_after(clock, moves).values())

    def _moves_from(self, before: Names, step: Step) -> Moves:
        key = (before, step.kind, step.called)
        if key not in self._moves:
            target = oracle.resolve(self.book, *key)
            self._moves[key] = oracle.moves_of(self.book, *key, target)
        return self._moves[key]


@cache
def all_rulings() -> dict[str, Rulings]:
    """The rulings for each machine; machines of one schema share them."""
    by_schema: dict[str, Rulings] = {}
    return {
        run.machine: by_schema.setdefault(json.dumps(run.schema), Rulings(run))
        for run in recorded_runs()
    }


def starts_in_a_gap(run: Run) -> bool:
    """Whether the machine had run before its first recorded step."""
    first = run.steps[0]
    return first.accepted and all_rulings()[run.machine].derived_clock(first) != first.after


def class_of(run: Run, index: int) -> StepClass:
    """Whether a step was refused, follows a gap, or must be derivable."""
    if not run.steps[index].accepted:
        return "refused"
    return "gap" if index == 0 and starts_in_a_gap(run) else "derived"


def test_the_rules_derive_every_recorded_step() -> None:
    counts: Counter[StepClass] = Counter()
    for run in recorded_runs():
        rulings = all_rulings()[run.machine]
        for index, step in enumerate(run.steps):
            kind_of_step = class_of(run, index)
            counts[kind_of_step] += 1
            if kind_of_step == "derived":
                assert rulings.derived_clock(step) == step.after, (run.machine, index, step)
    assert counts == TOTALS


def test_refused_steps_are_let_through_by_the_rules_and_change_nothing() -> None:
    refused = [
        (all_rulings()[run.machine], step)
        for run in recorded_runs()
        for step in run.steps
        if not step.accepted
    ]

    assert all(step.after == step.before for _, step in refused)
    assert all(rulings.derived_clock(step) is not None for rulings, step in refused)


# ---------------------------------------------------------------- real machines


class Player:
    """A real machine, with handlers that answer as the recorded program's did."""

    def __init__(self, run: Run) -> None:
        self.machine = Machine(Schema.from_dict(run.schema), id=run.machine)
        self.machine.bind({"Any_enter": self._answer, "Any_state": self._note})
        self._lets_through = True
        self._noted: list[tuple[bool, Clock]] = []

    def play(self, step: Step, auto_round: Step | None) -> None:
        """Drive one step, and check it and the auto round that it causes."""
        self._lets_through = step.accepted
        self._noted.clear()

        result = self._request(step)

        assert result == (Result.EXECUTED if step.accepted else Result.CANCELED)
        if self._is_a_transition(step):
            assert self._noted == [(s.auto, s.after) for s in (step, auto_round) if s]
        last = auto_round or step
        assert self.machine.time() == last.after
        assert set(self.machine.active_states()) == active_in(self.machine.states, last.after)

    def take_over(self, clock: Clock) -> None:
        """Import a clock, as after a gap."""
        names, ticks = list(self.machine.states), list(clock)
        self.machine.import_state({"id": self.machine.id, "names": names, "ticks": ticks})
        assert self.machine.time() == clock

    def _request(self, step: Step) -> Result:
        machine = self.machine
        calls = {"add": machine.add, "remove": machine.remove, "set": machine.set}
        return calls[step.kind](*step.called)

    def _is_a_transition(self, step: Step) -> bool:
        """Whether handlers run: not if refused, nor for removing what is inactive."""
        active = active_in(self.machine.states, step.before)
        return step.accepted and (step.kind != "remove" or not active.isdisjoint(step.called))

    def _answer(self, event: Event) -> bool:
        return event.mutation.auto or self._lets_through

    def _note(self, event: Event) -> None:
        self._noted.append((event.mutation.auto, event.machine.time()))


def active_in(names: Names, clock: Clock) -> set[str]:
    """The states whose tick is odd."""
    return {name for name, tick in zip(names, clock, strict=True) if tick % 2}


def before_gap(run: Run) -> Clock:
    """A clock that may have been there before a first step that follows a gap.

    It is the recorded one less a tick of each called state: enough to play the step and to
    see its auto round, if nothing to compare the step itself with. Auto steps are not
    called; after one of them the clock is the recorded one.
    """
    first = run.steps[0]
    called = () if first.auto else first.called
    ticks = zip(run.names, first.after, strict=True)
    return tuple(tick - 1 if name in called else tick for name, tick in ticks)


def play_run(run: Run) -> Counter[StepClass]:
    """Play one run on a machine of its own, and count its steps."""
    player = Player(run)
    if class_of(run, 0) == "gap":
        player.take_over(before_gap(run))
    for step, following in zip(run.steps, [*run.steps[1:], None], strict=True):
        if not step.auto:  # an auto step is played together with its cause
            player.play(step, following if following and following.auto else None)
    return Counter(class_of(run, index) for index in range(len(run.steps)))


def test_real_machines_take_every_recorded_step() -> None:
    counts: Counter[StepClass] = Counter()
    for run in recorded_runs():
        counts += play_run(run)

    assert counts == TOTALS
