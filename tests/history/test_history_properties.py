"""Random machines: both backends against a naive oracle, and against the machine itself."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncmachine import Event, Machine, State, Transition
from asyncmachine.history import MemoryHistory, Record, SQLiteHistory, Ticks, Times, restore
from asyncmachine.tracing import Tracer


@pytest.fixture(autouse=True)
def _errors_of_handlers_are_not_logged() -> Iterator[None]:
    logger = logging.getLogger("asyncmachine")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


NAMES = ("A", "B", "C", "D", "E")


def random_schema(rnd: Random) -> dict[str, State]:
    def some(name: str) -> tuple[str, ...]:
        return tuple(n for n in NAMES if n != name and rnd.random() < 0.2)

    schema = {}
    for name in NAMES:
        require = some(name) if rnd.random() < 0.3 else ()
        schema[name] = State(
            add=some(name) if rnd.random() < 0.4 else (),
            remove=tuple(n for n in some(name) if n not in require),
            require=require,
            auto=rnd.random() < 0.2,
            multi=rnd.random() < 0.3,
        )
    return schema


class Handlers:
    """Veto, fail and request more, at random."""

    def __init__(self, rnd: Random) -> None:
        self.rnd = rnd

    def Any_enter(self, event: Event) -> bool | None:
        if self.rnd.random() < 0.1:
            raise ValueError("negotiation")
        return False if self.rnd.random() < 0.1 else None

    def A_state(self, event: Event) -> None:
        self._maybe(event)

    def B_end(self, event: Event) -> None:
        self._maybe(event)

    def Any_state(self, event: Event) -> None:
        self._maybe(event)

    def _maybe(self, event: Event) -> None:
        if self.rnd.random() < 0.15:
            raise ValueError("final")
        if self.rnd.random() < 0.1:
            event.machine.toggle(self.rnd.choice(NAMES))


class Seen(NamedTuple):
    """What a transition did, as the oracle saw it."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    kind: str
    called: tuple[str, ...]
    outcome: str


class Oracle(Tracer):
    """Writes down everything in the plainest way."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.at_last: tuple[int, ...] = ()

    def transition_end(self, tx: Transition) -> None:
        assert tx.time_after == tx.machine.time()
        if tx.moment is not None:
            self.at_last = tx.time_after
        self.seen.append(
            Seen(tx.time_before, tx.time_after, tx.plan.kind, tx.plan.states, tx.outcome)
        )


def act(rnd: Random, mach: Machine) -> None:
    kind = rnd.choice(["add", "add", "remove", "set", "toggle", "import"])
    states = rnd.sample(NAMES, rnd.randint(0, 2))
    if kind == "import" and rnd.random() < 0.3:
        mach.import_state({"names": states, "ticks": [rnd.randint(0, 9) for _ in states]})
    elif kind != "import":
        args = {"n": rnd.randint(0, 9)} if rnd.random() < 0.2 else {}
        getattr(mach, kind)(*states, **args)


def check(records: Sequence[Record], seen: Sequence[Seen], mach: Machine) -> None:
    assert [(r.time_before, r.time, r.kind, r.called, r.outcome) for r in records] == list(seen)
    if records and records[-1].moved:
        assert set(records[-1].names) == set(mach.states)


def naive(history: MemoryHistory | SQLiteHistory, records: Sequence[Record]) -> None:
    """Answer every kind of question by going through the records, and compare."""
    for record in records[:: max(1, len(records) // 4)]:
        window = Times(record.at, record.at)
        inside = [r for r in records if r.at == record.at]
        before = [r for r in records if r.wall_ns <= record.wall_ns // 1000 * 1000]
        for name in (*NAMES, "Exception"):
            assert history.activated_between(name, between=window) == any(
                name in r.activated for r in inside
            )
            assert history.deactivated_between(name, between=window) == any(
                name in r.deactivated for r in inside
            )
            moments = [name in r.active for r in (*before[-1:], *inside)]
            if before:
                assert history.active_between(name, between=window) == (True in moments)
                assert history.inactive_between(name, between=window) == (False in moments)
        sums = Ticks(record.time_sum, record.time_sum + 3)
        inside = [r for r in records if record.time_sum <= r.time_sum <= record.time_sum + 3]
        for name in NAMES:
            assert history.activated_between(name, between=sums) == any(
                name in r.activated for r in inside
            )
            # When the history came, all clocks were 0.
            moments = [name in r.active for r in inside] + [False] * (record.time_sum == 0)
            assert history.active_between(name, between=sums) == (True in moments)
            assert history.inactive_between(name, between=sums) == (False in moments)
        for name, other in ((NAMES[0], NAMES[1]), (NAMES[2], NAMES[3])):
            for conditions in (
                {"active": name, "inactive": other},
                {"activated": name},
                {"deactivated": name, "inactive": [other]},
                {"active": [name, other]},
                {"activated": name, "active": other},
            ):
                until = Times(None, record.at)
                expected = [
                    r
                    for r in records
                    if r.at <= record.at
                    and {*conditions.get("active", ())} <= {*r.active}
                    and not {*conditions.get("inactive", ())} & {*r.active}
                    and {*conditions.get("activated", ())} <= {*r.activated}
                    and {*conditions.get("deactivated", ())} <= {*r.deactivated}
                ]
                found = history.latest(**conditions, between=until)
                assert found == (expected[-1] if expected else None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_both_backends_tell_what_the_machine_did(seed: int, steps: int) -> None:
    rnd = Random(seed)
    oracle, memory = Oracle(), MemoryHistory(rejected=True)
    schema = random_schema(rnd)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        sqlite = SQLiteHistory(path, rejected=True, durable=rnd.random() < 0.2)
        mach = Machine(
            schema,
            id="m",
            handlers=Handlers(rnd) if rnd.random() < 0.7 else None,
            tracers=[oracle, memory, sqlite],
        )
        for _ in range(steps):
            act(rnd, mach)
        kept = list(memory.transitions())
        check(kept, oracle.seen, mach)
        written = list(sqlite.transitions())
        check(written, oracle.seen, mach)
        assert [r.moved for r in kept] == [r.moved for r in written]
        assert [r.error for r in kept] == [r.error for r in written]
        assert [r.cause for r in kept] == [r.cause for r in written]
        naive(memory, kept)
        naive(sqlite, written)
        sqlite.close()
        with SQLiteHistory(path) as reopened:
            assert list(reopened.transitions()) == written
            naive(reopened, written)
            for history in (memory, reopened):
                again = Machine(schema, id="m")
                clocks = restore(again, history)
                if oracle.at_last:
                    assert clocks == again.clock()
                    assert again.time() == oracle.at_last
                else:
                    assert clocks is None
        mach.dispose()
