"""Memory: what things take that are kept, and what one step takes for a moment."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measure import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.measure import Subject

__all__ = ["Footprint", "footprint", "kilobytes_each"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of one repetition of a subject, in bytes a step."""

    peak: float
    kept: float


def kilobytes_each(build: Callable[[], object], count: int) -> float:
    """Build so many of a thing and say what each one takes, in kB.

    One is built beforehand, so that what all of them share is not counted.
    """
    build()
    things: list[object] = [None] * count
    with _traced():
        before, _ = tracemalloc.get_traced_memory()
        for index in range(count):
            things[index] = build()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    return (after - before) / count / 1000


def footprint(subject: Subject, times: int = 200) -> Footprint:
    """Say what a warm subject allocates at most at one time, and what it keeps, a step."""
    with _traced():
        subject.run(times)  # Tracing starts with nothing known: let it see what is reused.
        before, _ = tracemalloc.get_traced_memory()
        subject.run(times)
        after, _ = tracemalloc.get_traced_memory()
        # Running a loop takes something by itself.
        peak = _peak_of_one(subject) - _peak_of_one(Loop("pass"))
    return Footprint(
        peak=max(peak, 0) / subject.steps,
        kept=(after - before) / (times * subject.steps),
    )


def _peak_of_one(subject: Subject) -> int:
    subject.run(1)
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    subject.run(1)
    _, peak = tracemalloc.get_traced_memory()
    return peak - before


@contextmanager
def _traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
