"""Contests: one job done by several sides in turns, so that a slow moment hits all of them.

Each round measures every side once. What is reported is the median of the rounds, and the
median of the ratios of each round, which hardly depends on what else the computer does.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final, Protocol

from bench.measure import BenchError, iterations_for, no_garbage_collection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.measure import Ruler, Subject
    from bench.rounds import Progress

__all__ = [
    "OURS",
    "AtLeastRate",
    "AtLeastTimes",
    "AtMost",
    "AtMostBeyond",
    "AtMostTimes",
    "Contest",
    "Contested",
    "Goal",
    "MissingError",
    "hold",
]

OURS: Final = "ours"
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000


class MissingError(BenchError):
    """What a side needs is not installed."""


class Goal(Protocol):
    """What a contest has to come to."""

    @property
    def text(self) -> str:
        """How the table says it."""

    def ratio(self, ours: float, other: float) -> float:
        """Hold our figure against the other side's, as the goal is worded."""

    def worded(self, ratio: float) -> str:
        """How the table says what came of that."""

    def met(self, ours: float, ratio: float | None) -> bool:
        """Say whether it is reached."""


class _Times:
    """A goal that is held against the other side as a ratio."""

    __slots__ = ()

    def worded(self, ratio: float) -> str:
        """So many times the other."""
        return f"× {ratio:.2f}"


@dataclass(frozen=True, slots=True)
class AtMostTimes(_Times):
    """Ours costs at most so many times the other side."""

    limit: float

    @property
    def text(self) -> str:
        """How the table says it."""
        return f"at most × {self.limit:g}"

    def ratio(self, ours: float, other: float) -> float:
        """Ours by the other."""
        return ours / other

    def met(self, ours: float, ratio: float | None) -> bool:
        """Compare the ratio."""
        return ratio is not None and ratio <= self.limit


@dataclass(frozen=True, slots=True)
class AtLeastTimes(_Times):
    """Ours is at least so many times faster than the other side."""

    limit: float

    @property
    def text(self) -> str:
        """How the table says it."""
        return f"at least × {self.limit:g}"

    def ratio(self, ours: float, other: float) -> float:
        """The other by ours."""
        return other / ours

    def met(self, ours: float, ratio: float | None) -> bool:
        """Compare the ratio."""
        return ratio is not None and ratio >= self.limit


@dataclass(frozen=True, slots=True)
class AtLeastRate(_Times):
    """Ours makes so many steps a second, or such a share of what the other side makes."""

    per_second: float
    share: float | None = None

    @property
    def text(self) -> str:
        """How the table says it."""
        share = "" if self.share is None else f" or × {self.share:g}"
        return f"{self.per_second:,.0f} /s{share}"

    def ratio(self, ours: float, other: float) -> float:
        """Our rate by the other."""
        return other / ours

    def met(self, ours: float, ratio: float | None) -> bool:
        """Compare the rate, then the share."""
        if ours * self.per_second <= _NS_PER_S:
            return True
        return self.share is not None and ratio is not None and ratio >= self.share


@dataclass(frozen=True, slots=True)
class AtMost(_Times):
    """Ours is at most so much in its own unit; the ratio says the other side's share of it."""

    limit: float
    text: str

    def ratio(self, ours: float, other: float) -> float:
        """The other by ours."""
        return other / ours

    def met(self, ours: float, ratio: float | None) -> bool:
        """Compare the figure."""
        return ours <= self.limit


@dataclass(frozen=True, slots=True)
class AtMostBeyond:
    """Ours costs at most so many empty calls more than the other side; both are in E.

    Attributes:
        limit: in E.
        noise: what two runs of the same may differ by, in E.

    """

    limit: float
    noise: float = 0.0

    @property
    def text(self) -> str:
        """How the table says it."""
        noise = f" ± {self.noise:g}" if self.noise else ""
        return f"at most {self.limit:g}{noise} E beyond"

    def ratio(self, ours: float, other: float) -> float:
        """What ours costs beyond the other."""
        return ours - other

    def worded(self, ratio: float) -> str:
        """So many empty calls."""
        return f"{ratio:+.1f} E"

    def met(self, ours: float, ratio: float | None) -> bool:
        """Compare the difference."""
        return ratio is not None and ratio <= self.limit + self.noise


@dataclass(frozen=True, slots=True)
class Contest:
    """One row of a table.

    Attributes:
        key: what ``--only`` calls it.
        title: what the table calls it.
        enter: sets up the sides, by name: ours, then what it is judged by, then what else is
            of interest. What has to be ended goes on the stack. ``run`` of a side returns
            nanoseconds, or whatever the unit says.
        goal: what it must reach.
        unit: ``µs``, ``ns``, ``ms`` and ``s`` for each step, ``E`` for empty calls that are
            measured right before and after it, ``/s`` for a rate, or ``B`` for bytes.
        effort: lengthens what is timed at once.
        most_rounds: for what takes long.
        many_rounds: so many times the rounds, for a small difference of large figures.
        times: repetitions in each round, if they are not to be found out.

    """

    key: str
    title: str
    enter: Callable[[ExitStack], Mapping[str, Subject]]
    goal: Goal
    unit: str = "µs"
    effort: float = 1.0
    most_rounds: int | None = None
    many_rounds: int = 1
    times: int | None = None


@dataclass(slots=True)
class Contested:
    """A contest and what came of it.

    Attributes:
        contest: the contest.
        figures: of each side and round, for one step.
        call_ns: what an empty call took, now and then.
        fault: why it could not be held.
        missing: what it lacks.

    """

    contest: Contest
    figures: dict[str, list[float]] = field(default_factory=dict)
    call_ns: list[float] = field(default_factory=list)
    fault: str = ""
    missing: str = ""

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that have figures, ours first."""
        return tuple(name for name, figures in self.figures.items() if figures)

    @property
    def ours(self) -> float | None:
        """Our figure: the median."""
        return self.figure(OURS)

    @property
    def judge(self) -> str | None:
        """The side that ours is held against."""
        others = [name for name in self.sides if name != OURS]
        return others[0] if others else None

    @property
    def ratio(self) -> float | None:
        """The ratio to the side that counts."""
        return None if self.judge is None else self.ratio_to(self.judge)

    def figure(self, side: str) -> float | None:
        """Median of a side."""
        figures = self.figures.get(side)
        return median(figures) if figures else None

    def nanoseconds(self, side: str) -> float:
        """Median of a side, whatever its unit of time."""
        figure = self.figure(side) or 0.0
        return figure * median(self.call_ns) if self.contest.unit == "E" else figure

    def ratio_to(self, side: str) -> float | None:
        """Median of the rounds' ratios, worded as the goal is."""
        pairs = list(zip(self.figures.get(OURS, ()), self.figures.get(side, ()), strict=False))
        if not pairs:
            return None
        return median(self.contest.goal.ratio(ours, other) for ours, other in pairs)

    @property
    def verdict(self) -> str:
        """``ok``, ``OVER``, ``FAILED``, or ``missing`` for what is not installed."""
        if self.missing:
            return "missing"
        if self.fault or self.ours is None:
            return "FAILED"
        return "ok" if self.contest.goal.met(self.ours, self.ratio) else "OVER"


def hold(
    contests: Sequence[Contest], ruler: Ruler, rounds: int, part_ms: float, progress: Progress
) -> tuple[list[Contested], bool]:
    """Hold contests one after the other; tells also whether Ctrl-C ended that early.

    Raises:
        KeyboardInterrupt: if it came before the first figure.

    """
    held: list[Contested] = []
    try:
        for contest in contests:
            contested = Contested(contest)
            held.append(contested)
            try:
                _hold_one(contested, ruler, rounds, part_ms, progress)
            except MissingError as error:
                contested.missing = str(error)
            except Exception as error:
                contested.fault = f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        progress.clear()
        known = [contested for contested in held if contested.ours or contested.fault]
        if not known:
            raise
        return known, True
    progress.clear()
    return held, False


def _hold_one(
    contested: Contested, ruler: Ruler, rounds: int, part_ms: float, progress: Progress
) -> None:
    contest = contested.contest
    progress.say(f"preparing {contest.title}")
    with ExitStack() as stack:
        sides = contest.enter(stack)
        contested.figures = {name: [] for name in sides}
        part_ns = part_ms * contest.effort * _NS_PER_MS
        times = {
            name: contest.times or iterations_for(side, part_ns) for name, side in sides.items()
        }
        rounds = min(rounds, contest.most_rounds or rounds) * contest.many_rounds
        for number in range(1, rounds + 1):
            progress.say(f"round {number} of {rounds}: {contest.title}")
            before = ruler.read()
            # In turns, for what comes second may find the memory warmer.
            for name, side in [*sides.items()][:: 1 if number % 2 else -1]:
                with no_garbage_collection():
                    taken = side.run(times[name])
                figure = taken / times[name] / side.steps
                if contest.unit == "E":
                    after = ruler.read(part_ns)
                    contested.call_ns.append(after.empty_call_ns)
                    figure /= (before.empty_call_ns + after.empty_call_ns) / 2
                    before = after
                contested.figures[name].append(figure)
        for side in sides.values():
            side.close()
        progress.say(f"ending {contest.title}")
