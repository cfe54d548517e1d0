"""Timing a statement, and the empty function call that it is compared with.

A statement is compiled into a loop of its own, ``for _ in range(times)`` as anybody would
write it, so that nothing but the statement is timed. What the loop costs by itself stays
in the statement and in the empty call alike; on request it is measured with the same loop
around ``pass``, and taken off both.

Garbage collection is off while a loop runs, and made up for before the next case.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from textwrap import indent
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BenchError",
    "Loop",
    "Ruler",
    "Sample",
    "Subject",
    "Yardstick",
    "iterations_for",
    "no_garbage_collection",
]

_TEMPLATE: Final = """\
def loop(_times, _clock{parameters}):
    _started = _clock()
    for _ in _times:
{statement}
    return _clock() - _started
"""
# A reading of the yardstick takes about this long for each call, loops included. It has to
# be long enough that the clock's own cost and resolution do not show.
_READING_NS: Final = 20
_FEWEST_CALLS, _MOST_CALLS = 20_000, 2_000_000
_SHORTEST_NS: Final = 0.01


class BenchError(Exception):
    """A case did not do what it claims to measure, or cannot be measured here."""


class Subject(Protocol):
    """Something that can be repeated and timed."""

    @property
    def steps(self) -> int:
        """How many of the steps that are reported one repetition makes."""

    @property
    def loops(self) -> int:
        """How many turns of a loop one repetition takes."""

    def run(self, times: int) -> int:
        """Repeat it so often, and return the nanoseconds that this took, loop included."""

    def close(self) -> None:
        """Check that it did its work, and let go of what it holds."""


class Loop:
    """A statement in a loop, compiled once; names in it are local variables.

    Example:
        Loop('m.add("Foo"); m.add("Bar")', names={"m": machine}, steps=2)

    """

    __slots__ = ("_check", "_loop", "_names", "loops", "steps")

    def __init__(
        self,
        statement: str,
        *,
        names: dict[str, object] | None = None,
        steps: int = 1,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._names = names or {}
        self._check = check
        self.steps = steps
        self.loops = 1
        source = _TEMPLATE.format(
            parameters="".join(f", {name}" for name in self._names),
            statement=indent(statement, " " * 8),
        )
        namespace: dict[str, Callable[..., int]] = {}
        # The statements are this package's own.
        exec(compile(source, "<bench>", "exec"), namespace)  # noqa: S102
        self._loop = namespace["loop"]

    def run(self, times: int) -> int:
        """Repeat the statement so often; nanoseconds, loop included."""
        return self._loop(range(times), perf_counter_ns, **self._names)

    def close(self) -> None:
        """Run the check that the case came with."""
        if self._check is not None:
            self._check()


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What an empty call, and a loop around nothing, cost at one moment."""

    empty_call_ns: float
    loop_ns: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What one step of a subject cost in one round."""

    ns: float
    empty_calls: float


class Ruler:
    """Measures subjects in empty calls, each part between two readings of the call itself.

    A machine that has other work to do takes the processor away for milliseconds. Parts
    shorter than that are either hit or spared, and the median is of one that was spared.
    A reading takes about as long as the part that it stands beside, so that what has to
    be timed in one long piece is compared with calls that were disturbed as much.

    Args:
        net: take the loop's own cost off. If not, it stays in, as ``timeit`` has it, and
            an empty call looks dearer by a third.

    """

    def __init__(self, *, net: bool = False) -> None:
        self._net = net
        self._call = Loop("f()", names={"f": _empty_call()})
        self._nothing = Loop("pass")
        self.readings: list[Yardstick] = []

    def sample(self, subject: Subject, times: int, *, parts: int = 1, part_ns: float = 0) -> Sample:
        """Time so many repetitions of a subject, in so many parts; medians of the parts.

        Args:
            subject: what to time.
            times: repetitions in each part.
            parts: how many parts.
            part_ns: how long a part is meant to take.

        """
        samples = []
        with no_garbage_collection():
            before = self.read(part_ns)
            for _ in range(parts):
                turn_ns = subject.run(times) / times
                after = self.read(part_ns)
                samples.append(_compared(subject, turn_ns, before, after))
                before = after
        return Sample(
            median(sample.ns for sample in samples),
            median(sample.empty_calls for sample in samples),
        )

    def read(self, length_ns: float = 0) -> Yardstick:
        """Say what an empty call costs now, and take about so long for it."""
        calls = min(max(int(length_ns / _READING_NS), _FEWEST_CALLS), _MOST_CALLS)
        loop_ns = self._nothing.run(calls) / calls if self._net else 0.0
        call_ns = self._call.run(calls) / calls - loop_ns
        reading = Yardstick(max(call_ns, _SHORTEST_NS), loop_ns)
        self.readings.append(reading)
        return reading


def _compared(subject: Subject, turn_ns: float, before: Yardstick, after: Yardstick) -> Sample:
    loop_ns = (before.loop_ns + after.loop_ns) / 2
    call_ns = (before.empty_call_ns + after.empty_call_ns) / 2
    step_ns = max(turn_ns - loop_ns * subject.loops, _SHORTEST_NS) / subject.steps
    return Sample(step_ns, step_ns / call_ns)


def iterations_for(subject: Subject, part_ns: float) -> int:
    """Find how often to repeat a subject so that it takes about this long; warms it up."""
    times = 1
    while True:
        with no_garbage_collection():
            elapsed = subject.run(times)
        if elapsed >= part_ns:
            return times
        wanted = times * part_ns / max(elapsed, 1)
        times = max(times * 2, min(int(wanted * 1.1), times * 10))


def _empty_call() -> Callable[[], None]:
    # On one line, as the measure is defined; a docstring would change nothing.
    namespace: dict[str, Callable[[], None]] = {}
    exec("def f(): pass", namespace)  # noqa: S102
    return namespace["f"]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage once, then none until the end of the block."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
