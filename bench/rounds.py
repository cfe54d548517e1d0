"""Rounds: every case once, then again, so that a slow minute is shared by all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from bench.cases import Case, Outcome, Timing
from bench.measure import Ruler, Sample, Subject, iterations_for
from bench.weigh import Footprint, footprint

__all__ = ["Effort", "Progress", "Run", "measure"]

_NS_PER_MS: Final = 1_000_000
_WIDTH: Final = 78
_SECONDS_BETWEEN_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds, and in each the parts of a case and their least length."""

    rounds: int = 15
    parts: int = 15
    part_ms: float = 1.0

    def part_ns(self, case: Case) -> float:
        """Give the length of a part of this case."""
        return self.part_ms * case.effort * _NS_PER_MS

    def parts_of(self, case: Case) -> int:
        """Give the number of parts in which a round measures this case."""
        return 1 if case.whole else self.parts


class Progress:
    """One line on stderr that says what is being measured; rewritten on a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._rewrites = sys.stderr.isatty()
        self._next_line_at = 0.0

    def say(self, text: str) -> None:
        """Show this now. A log file gets a line every few seconds only."""
        if self._quiet:
            return
        if self._rewrites:
            print(f"\r{text[:_WIDTH]:<{_WIDTH}}", end="", file=sys.stderr, flush=True)
        elif monotonic() >= self._next_line_at:
            self._next_line_at = monotonic() + _SECONDS_BETWEEN_LINES
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line empty for what is printed next."""
        if self._rewrites and not self._quiet:
            print(f"\r{'':<{_WIDTH}}\r", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Run:
    """What one call of ``measure`` came to."""

    outcomes: tuple[Outcome, ...]
    rounds: int
    interrupted: bool


@dataclass(slots=True)
class _Course:
    """One variant of a case on its way through the rounds."""

    case: Case
    variant: str
    subject: Subject | None = None
    times: int = 0
    samples: list[Sample] = field(default_factory=list)
    footprint: Footprint | None = None
    reading: float | None = None
    fault: str = ""

    def attempt(self, step: Callable[[_Course], None]) -> None:
        """Take a step, unless one has failed. A fault here costs no other case its figures."""
        if self.fault:
            return
        try:
            step(self)
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"

    @property
    def label(self) -> str:
        return f"{self.case.title}{f' ({self.variant})' if self.variant else ''}"


def measure(cases: Sequence[Case], ruler: Ruler, effort: Effort, progress: Progress) -> Run:
    """Measure the cases in rounds. After Ctrl-C, return what the rounds so far say.

    Raises:
        KeyboardInterrupt: if it came before the first figure.

    """
    courses = [
        _Course(case, variant) for case in cases for variant in (*case.gauges, *case.variants)
    ]
    finished = 0
    interrupted = False
    try:
        _each(courses, "preparing", progress, lambda course: _prepare(course, effort))
        for number in range(1, effort.rounds + 1):
            name = f"round {number} of {effort.rounds}:"
            _each(courses, name, progress, lambda course: _sample(course, ruler, effort))
            finished = number
        _each(courses, "checking", progress, _conclude)
    except KeyboardInterrupt:
        interrupted = True
    progress.clear()
    outcomes = [_outcome(case, [c for c in courses if c.case is case]) for case in cases]
    known = tuple(outcome for outcome in outcomes if outcome is not None)
    if interrupted and not known:
        raise KeyboardInterrupt
    return Run(known, finished, interrupted)


def _each(
    courses: Sequence[_Course], doing: str, progress: Progress, step: Callable[[_Course], None]
) -> None:
    for course in courses:
        progress.say(f"{doing} {course.label}")
        course.attempt(step)


def _prepare(course: _Course, effort: Effort) -> None:
    if gauge := course.case.gauges.get(course.variant):
        course.reading = gauge()
        return
    subject = course.case.variants[course.variant]()
    course.times = iterations_for(subject, effort.part_ns(course.case))
    course.subject = subject


def _sample(course: _Course, ruler: Ruler, effort: Effort) -> None:
    if course.subject is not None:
        parts, part_ns = effort.parts_of(course.case), effort.part_ns(course.case)
        sample = ruler.sample(course.subject, course.times, parts=parts, part_ns=part_ns)
        course.samples.append(sample)


def _conclude(course: _Course) -> None:
    if course.subject is not None:
        if course.subject.loops == 1:
            course.footprint = footprint(course.subject)
        course.subject.close()


def _outcome(case: Case, courses: Sequence[_Course]) -> Outcome | None:
    """Sum up the variants of a case; ``None`` if Ctrl-C came before its first figure."""
    timings = {c.variant: Timing(tuple(c.samples), c.footprint) for c in courses if c.samples}
    readings = {c.variant: c.reading for c in courses if c.reading is not None}
    fault = next((c.fault for c in courses if c.fault), "")
    if not (timings or readings or fault):
        return None
    return Outcome(case, timings, readings, fault)
