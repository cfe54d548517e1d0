"""What a history tells: `Record`, one for each transition, and the windows to look into."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil, isnan, ulp
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from asyncmachine.transition import Cause

__all__ = ["FOREVER", "Instant", "Record", "Span", "Ticks", "Times", "Window", "span_of"]

# A point of wall time: seconds since 1970, as of ``time.time()``, or a datetime; one without
# a zone is local time, as everywhere in Python.
Instant: TypeAlias = "datetime | float"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# What is open at one end reaches to here.
FOREVER: Final = 2**62
_MOST_SECONDS: Final = FOREVER // 10**9


class Times(NamedTuple):
    """A window of wall time, both ends included.

    Attributes:
        start: its first moment; ``None`` reaches back to the beginning.
        end: its last moment; ``None`` reaches to now and on.

    """

    start: Instant | None = None
    end: Instant | None = None


class Ticks(NamedTuple):
    """A window of logical time, both ends included: the sum of all tracked clocks.

    Attributes:
        start: its first sum; ``None`` reaches back to the beginning.
        end: its last sum; ``None`` reaches to now and on.

    """

    start: int | None = None
    end: int | None = None


Window: TypeAlias = "Times | Ticks"


class Span(NamedTuple):
    """A window in whole numbers.

    Attributes:
        ticks: whether it counts ticks; else it is nanoseconds of wall time.
        start: the first number.
        end: the last number.

    """

    ticks: bool
    start: int
    end: int


def span_of(window: object) -> Span:
    """Check a window and put it into whole numbers.

    Args:
        window: a `Times`, a `Ticks`, or ``None`` for all time.

    Raises:
        TypeError: if it is neither, or its ends are not what it takes.
        ValueError: if it ends before it starts.

    Example:
        >>> span_of(Times(1, 2))
        Span(ticks=False, start=1000000000, end=2000000000)

    """
    if window is None:
        return Span(ticks=False, start=-FOREVER, end=FOREVER)
    if isinstance(window, Ticks):
        start, end = (_tick(each) for each in window)
    elif isinstance(window, Times):
        start, end = _nanoseconds(window.start, -1), _nanoseconds(window.end, 1)
    else:
        msg = f"a window is Times(start, end) or Ticks(start, end), not {window!r}"
        raise TypeError(msg)
    span = Span(
        isinstance(window, Ticks),
        -FOREVER if start is None else start,
        FOREVER if end is None else end,
    )
    if span.end < span.start:
        msg = f"{window!r} ends before it starts"
        raise ValueError(msg)
    return span


def _tick(given: object) -> int | None:
    if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
        msg = f"ticks are whole numbers, not {given!r}"
        raise TypeError(msg)
    return None if given is None else max(-FOREVER, min(FOREVER, given))


def _nanoseconds(given: object, side: int) -> int | None:
    """Nanoseconds since 1970, for the start (-1) or the end (1) of a window.

    Windows include what their ends can not tell apart: a datetime stands for the whole of
    its microsecond, and a float for its neighbours.
    """
    if given is None:
        return None
    if isinstance(given, datetime):
        try:
            moment = given.astimezone(UTC)
        except (ValueError, OverflowError):  # datetime.min or max, where that is none in UTC
            return FOREVER if given.year > _EPOCH.year else -FOREVER
        at_ns = (moment - _EPOCH) // _MICROSECOND * 1000 + (999 if side > 0 else 0)
        return max(-FOREVER, min(FOREVER, at_ns))
    if not isinstance(given, int | float) or isinstance(given, bool) or isnan(given):
        msg = f"a wall time is a datetime or seconds since 1970, not {given!r}"
        raise TypeError(msg)
    if abs(given) > _MOST_SECONDS:
        return FOREVER if given > 0 else -FOREVER
    if isinstance(given, int):
        return given * 10**9
    return round(given * 1e9) + side * ceil(ulp(given) * 1e9)


@dataclass(frozen=True, slots=True)
class Record:
    """One transition, as a history keeps it; it never changes.

    Attributes:
        seq: its number in the history of its machine: later ones are greater.
        machine_id: id of the machine.
        transition_id: id of the transition in the process that it happened in.
        kind: ``"add"``, ``"remove"`` or ``"set"``.
        called: names of the called states.
        auto: whether the machine requested it, for its auto states.
        outcome: ``"executed"``, ``"rejected"`` by the relations, ``"vetoed"`` by a handler,
            or ``"failed"`` with an error.
        error: type and text of the error, or empty.
        cause: the transition whose handler requested it, or ``None``.
        args: the args that the machine's ``log_args`` name, as text, or empty.
        names: the names of the tracked states.
        time: their clocks afterwards.
        moved: name and ticks of every one of these clocks that moved.
        wall_ns: when it was over, in nanoseconds since 1970.
        duration_ns: nanoseconds that it took.

    """

    seq: int
    machine_id: str
    transition_id: int
    kind: str
    called: tuple[str, ...]
    auto: bool
    outcome: str
    error: str
    cause: Cause | None
    args: str
    names: tuple[str, ...]
    time: tuple[int, ...]
    moved: tuple[tuple[str, int], ...]
    wall_ns: int
    duration_ns: int

    @property
    def accepted(self) -> bool:
        """Whether relations and negotiation agreed; it may have failed after that."""
        return self.outcome == "executed" or (self.outcome == "failed" and bool(self.moved))

    @property
    def at(self) -> datetime:
        """When it was over, in UTC."""
        return _EPOCH + timedelta(microseconds=self.wall_ns // 1000)

    @property
    def clock(self) -> dict[str, int]:
        """The clocks afterwards, by name."""
        return dict(zip(self.names, self.time, strict=True))

    @property
    def clock_before(self) -> dict[str, int]:
        """The clocks before, by name."""
        clock = self.clock
        for name, by in self.moved:
            clock[name] -= by
        return clock

    @property
    def time_before(self) -> tuple[int, ...]:
        """The clocks before, in the order of ``names``."""
        return tuple(self.clock_before.values())

    @property
    def time_sum(self) -> int:
        """The sum of the clocks afterwards."""
        return sum(self.time)

    @property
    def active(self) -> tuple[str, ...]:
        """The states that are active afterwards, in declared order."""
        return tuple(name for name, tick in zip(self.names, self.time, strict=True) if tick & 1)

    @property
    def active_before(self) -> tuple[str, ...]:
        """The states that were active before, in declared order."""
        return tuple(name for name, tick in self.clock_before.items() if tick & 1)

    @property
    def activated(self) -> tuple[str, ...]:
        """The states that became active, or were activated again."""
        clock = self.clock
        return tuple(name for name, _ in self.moved if clock[name] & 1)

    @property
    def deactivated(self) -> tuple[str, ...]:
        """The states that became inactive."""
        clock = self.clock
        return tuple(name for name, _ in self.moved if not clock[name] & 1)
