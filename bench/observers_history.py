"""Histories under ``python -m bench observers``: writing them, and restoring from them."""

from __future__ import annotations

from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from asyncmachine import Machine, State
from asyncmachine.history import MemoryHistory, SQLiteHistory, restore
from bench.contest import OURS
from bench.measure import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from bench.measure import Subject

__all__ = ["TOGGLES", "into_memory", "into_sqlite", "restoring"]

TOGGLES: Final = 50_000
_MILLION: Final = 1_000_000
_STATES: Final = {"Foo": State(), "Bar": State()}


class _Timed:
    """Something that is timed as a whole, and that times itself."""

    steps = loops = 1

    def __init__(self, once: Callable[[], int]) -> None:
        self._once = once

    def run(self, times: int) -> int:
        return sum(self._once() for _ in range(times))

    def close(self) -> None: ...


def _toggle(machine: Machine, toggles: int) -> None:
    for _ in range(toggles // 2):
        machine.add("Foo")
        machine.remove("Foo")


def into_memory(stack: ExitStack) -> Mapping[str, Subject]:
    def once() -> int:
        history = MemoryHistory()
        machine = Machine(_STATES, id="m", tracers=[history])
        began = perf_counter_ns()
        _toggle(machine, TOGGLES)
        taken = perf_counter_ns() - began
        _check(sum(1 for _ in history.transitions()), TOGGLES)
        machine.dispose()
        return taken

    return {OURS: _Timed(once)}


def into_sqlite(folder: Path) -> Mapping[str, Subject]:
    numbers = count(1)

    def once() -> int:
        with SQLiteHistory(folder / f"{next(numbers)}.db") as history:
            machine = Machine(_STATES, id="m", tracers=[history])
            began = perf_counter_ns()
            _toggle(machine, TOGGLES)
            history.flush()
            taken = perf_counter_ns() - began
            _check(sum(1 for _ in history.transitions()), TOGGLES)
            machine.dispose()
        return taken

    return {OURS: _Timed(once)}


def restoring(folder: Path) -> Mapping[str, Subject]:
    """Restore a machine, the opening of the file included."""
    path = folder / "million.db"
    with SQLiteHistory(path) as history:
        machine = Machine(_STATES, id="m", tracers=[history])
        for _ in range(_MILLION // TOGGLES):
            _toggle(machine, TOGGLES)
            history.flush()
        machine.dispose()
        _check(sum(1 for _ in history.transitions()), _MILLION)

    def once() -> int:
        machine = Machine(_STATES, id="m")
        began = perf_counter_ns()
        with SQLiteHistory(path) as history:
            restore(machine, history)
            taken = perf_counter_ns() - began
        _check(machine.tick("Foo"), _MILLION)
        return taken

    return {OURS: _Timed(once)}


def _check(found: int, wanted: int) -> None:
    if found != wanted:
        msg = f"{found:,} instead of {wanted:,}"
        raise BenchError(msg)
