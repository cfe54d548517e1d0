"""What must not grow: the cost of a mutation, as a machine gets bigger, busier or older."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from bench.cases import Case
from bench.core import toggle, toggling_machine
from bench.measure import BenchError, Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.cases import Outcome

__all__ = ["CASES", "FLAT", "Growth", "growths"]

# The largest of a family may cost so many times the smallest and still count as flat:
# what caches and a busy host do to one statement stays well below, and anything linear
# in sizes that are a hundred times apart is far above.
FLAT: Final = 1.5

_OTHER_STATES: Final = 46
_SHORT_LIFE: Final = 250


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of the cost of a mutation over one family of sizes."""

    family: str
    outcomes: tuple[Outcome, ...]

    @property
    def factor(self) -> float | None:
        """How much dearer the largest is than the smallest; ``None`` for a single size."""
        smallest, largest = self.outcomes[0].value, self.outcomes[-1].value
        if smallest is None or largest is None or len(self.outcomes) == 1:
            return None
        return largest / smallest

    @property
    def verdict(self) -> str:
        """``flat`` or ``GROWS``; empty for a single size."""
        if self.factor is None:
            return ""
        return "flat" if self.factor <= FLAT else "GROWS"


class _ShortLives:
    """A toggle on one machine after another, each of which has made so many mutations."""

    def __init__(self, made: int) -> None:
        self._made = made
        self.steps = 2 * _SHORT_LIFE
        self.loops = _SHORT_LIFE
        self.run(1)

    def run(self, times: int) -> int:
        """Time a short stretch in the life of so many machines; nanoseconds in all."""
        return sum(self._one_life() for _ in range(times))

    def close(self) -> None:
        """Nothing is kept."""

    def _one_life(self) -> int:
        mach = toggling_machine(3)
        loop = toggle(mach)
        loop.run(self._made // 2)
        elapsed = loop.run(_SHORT_LIFE)
        if mach.tick("Foo") < _SHORT_LIFE:
            msg = f"mutations are missing: {mach.describe()}"
            raise BenchError(msg)
        return elapsed


def _among_states(states: int, *, active: bool) -> Loop:
    mach = toggling_machine(states)
    if active:
        mach.add(*(name for name in mach.states if name.startswith("Other")))
    return toggle(mach)


def _among_waiters(count: int) -> Loop:
    mach = toggling_machine(_OTHER_STATES + 2)
    waiters = [mach.when(f"Other{number % _OTHER_STATES}") for number in range(count)]

    def all_still_wait() -> None:
        if any(waiter.is_set() for waiter in waiters):
            msg = "a waiter was set by a mutation that it does not wait for"
            raise BenchError(msg)

    return toggle(mach, all_still_wait)


def _family(
    name: str,
    title: str,
    sizes: Sequence[int],
    variants: Callable[[int], Mapping[str, Callable[[], Loop | _ShortLives]]],
    effort: float = 1.0,
) -> tuple[Case, ...]:
    return tuple(
        Case(f"{name}-{size}", title.format(size), variants(size), effort=effort) for size in sizes
    )


def _by_states(size: int) -> dict[str, Callable[[], Loop]]:
    return {
        "the others inactive": partial(_among_states, size, active=False),
        "the others active": partial(_among_states, size, active=True),
    }


def _by_waiters(size: int) -> dict[str, Callable[[], Loop]]:
    return {"": partial(_among_waiters, size)}


def _by_age(size: int) -> dict[str, Callable[[], _ShortLives]]:
    return {"": partial(_ShortLives, size)}


CASES: Final = (
    *_family("states", "toggle among {:,} states", (3, 30, 300), _by_states),
    *_family(
        "waiters", "toggle, {:,} waiters pending on other states", (0, 1_000, 10_000), _by_waiters
    ),
    *_family(
        "mutations", "toggle, {:,} mutations already made", (0, 1_000, 10_000), _by_age, effort=0.2
    ),
)


def growths(outcomes: Sequence[Outcome]) -> list[Growth]:
    """Sort outcomes of these cases into families."""
    families: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.case in CASES:
            families.setdefault(outcome.case.key.rpartition("-")[0], []).append(outcome)
    return [Growth(family, tuple(members)) for family, members in families.items()]
