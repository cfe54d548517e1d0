"""What a case is, what came of it, and how to pick some of them by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch
from statistics import median, quantiles
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bench.measure import Sample, Subject
    from bench.weigh import Footprint

__all__ = ["Case", "Named", "Outcome", "Timing", "chosen"]


class Named(Protocol):
    """Something that can be picked by its name."""

    @property
    def key(self) -> str:
        """What ``--only`` calls it."""

    @property
    def title(self) -> str:
        """What the tables call it."""


_NamedT = TypeVar("_NamedT", bound=Named)


@dataclass(frozen=True, slots=True)
class Case:
    """One row of a table: what is measured, and what it may cost.

    A case that can be set up in several fair ways lists them all, and the dearest is the
    one that counts.

    Attributes:
        key: what ``--only`` calls it.
        title: what the tables call it.
        variants: ways to set up what is timed, by name.
        gauges: or ways to find a figure in the case's own unit, without timing anything.
        unit: ``E`` for what is timed.
        limit: what it may cost at most.
        go_v0_5_0: what it costs in asyncmachine-go v0.5.0.
        go_v0_19: what it costs in asyncmachine-go v0.19.
        effort: lengthens or shortens what is timed at once.
        whole: is timed in one long piece, as threads need time to get in each other's way.

    """

    key: str
    title: str
    variants: Mapping[str, Callable[[], Subject]] = field(default_factory=dict)
    gauges: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    unit: str = "E"
    limit: float | None = None
    go_v0_5_0: float | None = None
    go_v0_19: float | None = None
    effort: float = 1.0
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """What all the rounds of one variant say."""

    samples: tuple[Sample, ...]
    footprint: Footprint | None = None

    @property
    def ns(self) -> float:
        """Median of a step, in nanoseconds."""
        return median(sample.ns for sample in self.samples)

    @property
    def empty_calls(self) -> float:
        """Median of each round's ratio to the empty calls right around it."""
        return median(sample.empty_calls for sample in self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the rounds lies between these, in empty calls."""
        ratios = [sample.empty_calls for sample in self.samples]
        if len(ratios) == 1:
            return ratios[0], ratios[0]
        lower, _, upper = quantiles(ratios, n=4, method="inclusive")
        return lower, upper


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case and what was measured of it."""

    case: Case
    timings: Mapping[str, Timing] = field(default_factory=dict)
    readings: Mapping[str, float] = field(default_factory=dict)
    fault: str = ""

    @property
    def worst(self) -> str | None:
        """The variant that counts: the dearest. ``None`` if nothing was measured."""
        if self.readings:
            return max(self.readings, key=self.readings.__getitem__)
        ratios = {name: timing.empty_calls for name, timing in self.timings.items()}
        return max(ratios, key=ratios.__getitem__, default=None)

    @property
    def timing(self) -> Timing | None:
        """Timing of the variant that counts, or ``None`` if none was timed."""
        return None if self.worst is None else self.timings.get(self.worst)

    @property
    def value(self) -> float | None:
        """The figure that is held against the limit, in the case's unit."""
        if self.readings and self.worst is not None:
            return self.readings[self.worst]
        return self.timing.empty_calls if self.timing else None

    @property
    def verdict(self) -> str:
        """``ok``, ``OVER`` or ``FAILED``; empty where there is no limit."""
        if self.fault or self.value is None:
            return "FAILED"
        if self.case.limit is None:
            return ""
        return "ok" if self.value <= self.case.limit else "OVER"


def chosen(cases: Iterable[_NamedT], pattern: str | None) -> list[_NamedT]:
    """Pick cases whose key matches a pattern, or whose key or title contains it."""
    if pattern is None:
        return list(cases)
    wanted = pattern.casefold()
    return [
        case
        for case in cases
        if fnmatch(case.key, wanted) or wanted in case.key or wanted in case.title.casefold()
    ]
