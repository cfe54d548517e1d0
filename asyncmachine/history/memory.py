"""A history in memory: quick, bounded, gone with the process.

Guarantees: it may be asked by any thread while its machines run. A question copies what is
there, which is atomic, and then works on the copy: it never waits for a machine, nor a
machine for it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from math import inf
from operator import itemgetter
from time import time_ns
from typing import TYPE_CHECKING, Final

from asyncmachine.history.queries import Clocks, Conditions, History
from asyncmachine.history.tracking import Bell, Recorder
from asyncmachine.history.tracks import RAW_NS, clocks_after, moved_in, to_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncmachine.history.records import Record, Span
    from asyncmachine.history.tracks import Raw, Track
    from asyncmachine.machine import Machine

__all__ = ["MemoryHistory"]

# What a record takes in memory, roughly: this, and so much for each state of the machine.
_RECORD_BYTES: Final = 480
_CLOCK_BYTES: Final = 8

_wall_ns = itemgetter(RAW_NS)


class MemoryHistory(Recorder, History):
    """Keeps the transitions of machines in memory.

    Add it to machines as a tracer. One history may keep several machines, each by itself.

    Args:
        called: keep only transitions that call one of these states, or meet ``changed``.
        changed: keep only those that move the clock of one of these, or meet ``called``.
        rejected: keep those that were refused, too.
        states: the states that are tracked; ``None`` for all. Transitions that neither
            call nor move one of them are not kept, and records tell only of them.
        max_count: how many records of each machine are kept at most.
        max_age: seconds that a record is kept at most; ``None`` for any time.
        max_bytes: how much memory the records of each machine may take, roughly; ``None``
            for what ``max_count`` allows.
        inherit: keep the children of its machines, too.

    Example:
        >>> from asyncmachine import Machine, State
        >>> history = MemoryHistory()
        >>> machine = Machine({"Foo": State(), "Bar": State()}, id="m", tracers=[history])
        >>> machine.add("Foo"), machine.set("Bar")
        (Result.EXECUTED, Result.EXECUTED)
        >>> history.activated_recently("Foo", 60), history.active_between("Foo", 0)
        (True, True)
        >>> history.latest(deactivated="Foo").called
        ('Bar',)
        >>> [(record.kind, record.active) for record in history.transitions()]
        [('add', ('Foo',)), ('set', ('Bar',))]

    """

    def __init__(
        self,
        *,
        called: Iterable[str] | str | None = None,
        changed: Iterable[str] | str | None = None,
        rejected: bool = False,
        states: Iterable[str] | str | None = None,
        max_count: int = 100_000,
        max_age: float | None = None,
        max_bytes: int | None = None,
        inherit: bool = False,
    ) -> None:
        super().__init__(
            Bell(),
            called=called,
            changed=changed,
            rejected=rejected,
            states=states,
            inherit=inherit,
        )
        check_limits(max_count=max_count, max_age=max_age, max_bytes=max_bytes)
        self._max_count = max_count
        self._max_age = max_age
        self._max_bytes = max_bytes

    @property
    def machines(self) -> tuple[str, ...]:
        """The ids of the machines that it knows."""
        return tuple(self._by_id.copy())

    def forget(self, machine: Machine | str) -> None:
        """Drop everything about a machine, which is recorded no longer."""
        machine_id = self._machine_id(machine)
        self._by_id.pop(machine_id, None)
        for key, track in self._tracks.copy().items():
            if track.id == machine_id:
                self._tracks.pop(key, None)
                self._machines.pop(key, None)

    # For its bases ----------------------------------------------------------------------

    def _new_raws(self, states: int) -> deque[Raw]:
        most = self._max_count
        if self._max_bytes is not None:
            most = min(most, self._max_bytes // (_RECORD_BYTES + states * _CLOCK_BYTES))
        return deque(maxlen=max(1, most))

    def _fault(self, machine_id: str) -> Exception | None:
        return self._faults.get(machine_id)

    def _knows(self, machine_id: str) -> bool:
        return machine_id in self._by_id

    def _now_ns(self) -> int:
        return time_ns()

    def _known(self, machine_id: str) -> tuple[Track, list[Raw]]:
        """The track of a machine and what is kept of it now, oldest first."""
        track = self._by_id[machine_id]
        raws = list(track.raws.copy())
        if self._max_age is not None:
            del raws[: bisect_left(raws, self._oldest_ns(self._max_age), key=_wall_ns)]
        return track, raws

    def _tidy(self, track: Track) -> None:
        if self._max_age is not None:
            oldest_ns = self._oldest_ns(self._max_age)
            while track.raws and track.raws[0][RAW_NS] < oldest_ns:
                track.raws.popleft()

    def _oldest_ns(self, max_age: float) -> int:
        return self._now_ns() - int(max_age * 1e9)

    def _last_activation(self, machine_id: str, state: str) -> int | None:
        track = self._by_id[machine_id]
        return track.activated_ns[track.position(state)] or None

    def _moved(self, machine_id: str, state: str, parity: int, span: Span) -> bool:
        track, raws = self._known(machine_id)
        track.position(state)
        return any(_moves(raw, state, parity) for raw in _inside(raws, span))

    def _held(self, machine_id: str, state: str, parity: int, span: Span) -> bool:
        track, raws = self._known(machine_id)
        track.position(state)
        if not span.ticks:
            before = bisect_right(raws, span.start, key=_wall_ns)
            if before and _parity(raws[before - 1], state) == parity:
                return True
        return any(_parity(raw, state) == parity for raw in _inside(raws, span))

    def _latest(self, machine_id: str, conditions: Conditions, span: Span) -> Record | None:
        track, raws = self._known(machine_id)
        for state in conditions.states:
            track.position(state)
        for raw in reversed(list(_inside(raws, span))):
            if raw[2] is not None and _meets(raw, conditions):
                return to_record(raw)
        return None

    def _records(self, machine_id: str, span: Span, newest_first: bool) -> Iterator[Record]:
        _, raws = self._known(machine_id)
        inside = [raw for raw in _inside(raws, span) if raw[2] is not None]
        return map(to_record, reversed(inside) if newest_first else inside)

    def _clocks(self, machine_id: str) -> Clocks | None:
        raw = self._by_id[machine_id].latest
        return None if raw is None else Clocks(raw[0].names, tuple(clocks_after(raw)))


def _inside(raws: list[Raw], span: Span) -> Iterable[Raw]:
    """Those in a window."""
    if span.ticks:
        return (raw for raw in raws if span.start <= _sum(raw) <= span.end)
    first = bisect_left(raws, span.start, key=_wall_ns)
    return raws[first : bisect_right(raws, span.end, key=_wall_ns, lo=first)]


def _sum(raw: Raw) -> int:
    after = clocks_after(raw)
    return sum([after[i] for i in raw[0].positions])


def _parity(raw: Raw, state: str) -> int:
    """1 if a state is active after it, 0 if not, -1 if there was no such state then."""
    at = raw[0].index.get(state)
    return -1 if at is None else clocks_after(raw)[at] & 1


def _moves(raw: Raw, state: str, parity: int) -> bool:
    """Whether it moved the clock of a state to an odd or even tick."""
    at = raw[0].index.get(state)
    return any(i == at and (raw[4][i] + by) & 1 == parity for i, by in moved_in(raw[3], raw[4]))


def _meets(raw: Raw, conditions: Conditions) -> bool:
    return (
        all(_parity(raw, state) == 1 for state in conditions.active)
        and all(_parity(raw, state) == 0 for state in conditions.inactive)
        and all(_moves(raw, state, 1) for state in conditions.activated)
        and all(_moves(raw, state, 0) for state in conditions.deactivated)
    )


def check_limits(**limits: float | None) -> None:
    """Refuse limits that allow nothing, or make none.

    Raises:
        TypeError: for a count or a size that is no whole number.
        ValueError: for the first one that is not positive, or infinite.

    """
    for name, limit in limits.items():
        if limit == inf:
            msg = f"{name} of a history must be finite, not {limit!r}"
            raise ValueError(msg)
        if limit is not None and not limit > 0:
            msg = f"{name} of a history must be positive, not {limit!r}"
            raise ValueError(msg)
        if name != "max_age" and not isinstance(limit, int | None):
            msg = f"{name} of a history must be a whole number, not {limit!r}"
            raise TypeError(msg)
