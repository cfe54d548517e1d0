"""Asking the file of an `SQLiteHistory`.

Guarantees: any thread may ask; the lock of the connection is held for one short question
at a time, also while an iterator goes through millions of records. Whoever writes is not
waited for: SQLite shows each question one state of the file.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

from asyncmachine.history.converting import COLUMNS, UNKNOWN, from_row
from asyncmachine.history.errors import HistoryError
from asyncmachine.history.queries import Clocks, Conditions
from asyncmachine.history.records import FOREVER, Span
from asyncmachine.history.storing import connect, explained, never_close

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncmachine.history.converting import Row
    from asyncmachine.history.records import Record

__all__ = ["Finder", "Found"]

_CHUNK: Final = 500

# The places of the states of four conditions.
Places: TypeAlias = "tuple[list[int], list[int], list[int], list[int]]"


class Found(NamedTuple):
    """A machine in the file.

    Attributes:
        id: its id.
        key: of its row.
        names: the names of all its states.
        tracked: those that the last record tells of.

    """

    id: str
    key: int
    names: tuple[str, ...]
    tracked: tuple[str, ...]


class Finder:
    """Who asks one file.

    Args:
        path: of the file.
        patience: seconds to wait for a file that is locked.

    """

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards the connection
        self._db = connect(path, durable=False, patience=patience)
        self._layouts: dict[int, tuple[str, ...]] = {}
        self._closed = False

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._closed = True
            self._db.close()

    def abandon(self) -> None:
        """Leave the file to the process that this one was forked from."""
        self._lock = threading.Lock()
        self._closed = True
        never_close(self._db)

    def _ask(self, question: str, *details: object) -> list[Row]:
        with self._lock:
            if self._closed:
                msg = f"the history {self._path} is closed"
                raise HistoryError(msg)
            with explained(self._path):
                return self._db.execute(question, details).fetchall()

    def _ask_one(self, question: str, *details: object) -> int | None:
        rows = self._ask(question, *details)
        return cast("int", rows[0][0]) if rows else None

    # Machines ---------------------------------------------------------------------------

    def machines(self) -> tuple[str, ...]:
        """The ids of all machines."""
        return tuple(cast("str", row[0]) for row in self._ask("SELECT id FROM machines"))

    def machine(self, machine_id: str) -> Found | None:
        """Find a machine, or None."""
        rows = self._ask("SELECT key, names FROM machines WHERE id = ?", machine_id)
        if not rows:
            return None
        key, names = rows[0]
        layout = self._ask_one(
            "SELECT layout FROM records WHERE machine = ? ORDER BY seq DESC LIMIT 1", key
        )
        everything = self._names(names, machine_id)
        tracked = everything if layout is None else self._layout(layout)
        return Found(machine_id, cast("int", key), everything, tracked)

    def clocks(self, machine_id: str) -> Clocks | None:
        """The last clocks of a machine, or None."""
        rows = self._ask("SELECT names, ticks FROM machines WHERE id = ?", machine_id)
        if not rows or rows[0][1] is None:
            return None
        names = self._names(rows[0][0], machine_id)
        ticks = self._loads(rows[0][1], machine_id)
        good = len(ticks) <= len(names) and all(
            each is None or (type(each) is int and each >= 0) for each in ticks
        )
        if not good:
            msg = f"the history {self._path} is damaged: clocks of {machine_id}"
            raise HistoryError(msg)
        known = [(name, tick) for name, tick in zip(names, ticks, strict=False) if tick is not None]
        return Clocks(
            tuple(name for name, _ in known), tuple(cast("int", tick) for _, tick in known)
        )

    def _names(self, text: object, machine_id: str) -> tuple[str, ...]:
        names = self._loads(text, machine_id)
        return tuple(cast("list[str]", names))

    def _loads(self, text: object, machine_id: str) -> list[object]:
        try:
            value = json.loads(cast("str", text))
        except (ValueError, TypeError):
            value = None
        if not isinstance(value, list):
            msg = f"the history {self._path} is damaged: states of {machine_id}"
            raise HistoryError(msg)
        return value

    def _layout(self, key: int) -> tuple[str, ...]:
        names = self._layouts.get(key)
        if names is None:
            rows = self._ask("SELECT names FROM layouts WHERE key = ?", key)
            if not rows:
                msg = f"the history {self._path} is damaged: layout {key} is missing"
                raise HistoryError(msg)
            names = self._layouts[key] = self._names(rows[0][0], f"layout {key}")
        return names

    # One state --------------------------------------------------------------------------

    def last_activation(self, found: Found, place: int) -> int | None:
        """Wall time of the last activation of a state, or None."""
        return self._ask_one(
            "SELECT r.ns FROM facts f JOIN records r ON r.machine = f.machine AND r.seq = f.seq"
            " WHERE f.machine = ? AND f.state = ? AND f.moved AND f.tick % 2 = 1"
            " ORDER BY f.seq DESC LIMIT 1",
            found.key,
            place,
        )

    def moved(self, found: Found, place: int, parity: int, span: Span) -> bool:
        """Whether a state moved to an odd or even tick in a window."""
        if span.ticks:
            rows = self._ask(
                "SELECT 1 FROM records r JOIN facts f ON f.machine = r.machine AND f.seq = r.seq"
                " WHERE r.machine = ? AND r.total BETWEEN ? AND ?"
                " AND f.state = ? AND f.moved AND f.tick % 2 = ? LIMIT 1",
                *(found.key, span.start, span.end, place, parity),
            )
            return bool(rows)
        first, last = self._between(found, span)
        if first is None or last is None:
            return False
        rows = self._ask(
            "SELECT 1 FROM facts WHERE machine = ? AND state = ? AND seq BETWEEN ? AND ?"
            " AND moved AND tick % 2 = ? LIMIT 1",
            *(found.key, place, first, last, parity),
        )
        return bool(rows)

    def held(self, found: Found, place: int, parity: int, span: Span) -> bool:
        """Whether a state was active, or inactive, at some moment of a window."""
        if span.ticks:
            rows = self._ask(
                "SELECT 1 FROM records r WHERE r.machine = ? AND r.total BETWEEN ? AND ? AND ("
                "SELECT f.tick % 2 FROM facts f WHERE f.machine = r.machine AND f.state = ?"
                " AND f.seq <= r.seq ORDER BY f.seq DESC LIMIT 1) = ? LIMIT 1",
                *(found.key, span.start, span.end, place, parity),
            )
            return bool(rows)
        before = self._last_until(found, span.start)
        if before is not None and self._parity(found, place, before) == parity:
            return True
        first, last = self._between(found, span)
        if first is None or last is None or first > last:
            return False
        if self._parity(found, place, first) == parity:
            return True
        rows = self._ask(
            "SELECT 1 FROM facts WHERE machine = ? AND state = ? AND seq BETWEEN ? AND ?"
            " AND tick % 2 = ? LIMIT 1",
            *(found.key, place, first, last, parity),
        )
        return bool(rows)

    def _parity(self, found: Found, place: int, seq: int) -> int | None:
        """1 if a state is active after a record, 0 if not, None if that is not known."""
        fact = self._fact(found, place, seq)
        return None if fact is None or fact[1] == UNKNOWN else fact[1] & 1

    def _fact(self, found: Found, place: int, seq: int) -> tuple[int, int] | None:
        """Number and tick of the last fact of a state up to a record."""
        rows = self._ask(
            "SELECT seq, tick FROM facts WHERE machine = ? AND state = ? AND seq <= ?"
            " ORDER BY seq DESC LIMIT 1",
            *(found.key, place, seq),
        )
        return cast("tuple[int, int]", rows[0]) if rows else None

    def _between(self, found: Found, span: Span) -> tuple[int | None, int | None]:
        """The first and the last record of a window of wall time."""
        first = self._ask_one(
            "SELECT seq FROM records WHERE machine = ? AND ns >= ? ORDER BY ns, seq LIMIT 1",
            *(found.key, span.start),
        )
        return first, self._last_until(found, span.end)

    def _last_until(self, found: Found, wall_ns: int) -> int | None:
        return self._ask_one(
            "SELECT seq FROM records WHERE machine = ? AND ns <= ?"
            " ORDER BY ns DESC, seq DESC LIMIT 1",
            *(found.key, wall_ns),
        )

    # Records ----------------------------------------------------------------------------

    def latest(self, found: Found, conditions: Conditions, span: Span) -> Record | None:
        """The newest record that meets all conditions, or None."""
        if span.ticks:
            records = self.records(found, span, newest_first=True)
            return next((each for each in records if _meets(each, conditions)), None)
        first, last = self._between(found, span)
        if first is None:
            return None
        places = Conditions(*([found.names.index(n) for n in names] for names in conditions))  # type: ignore[arg-type]
        at = last
        while at is not None:
            at = self._ask_one(
                "SELECT seq FROM records WHERE machine = ? AND seq BETWEEN ? AND ?"
                " AND kind <> '' ORDER BY seq DESC LIMIT 1",
                *(found.key, first, at),
            )
            if at is None:
                break
            earlier = self._next_candidate(found, cast("Places", places), at)
            if earlier == at:
                return self._record(found, at)
            at = earlier
        return None

    def _next_candidate(self, found: Found, places: Places, at: int) -> int | None:
        """Where to look next for a record that meets all conditions: there, if it does."""
        goal = at
        for parity, states in ((1, places[0]), (0, places[1])):
            for place in states:
                fact = self._fact(found, place, at)
                if fact is None:
                    return None
                if fact[1] == UNKNOWN or fact[1] & 1 != parity:
                    goal = min(goal, fact[0] - 1)  # it was otherwise at best before that
        for parity, states in ((1, places[2]), (0, places[3])):
            for place in states:
                moved = self._ask_one(
                    "SELECT seq FROM facts WHERE machine = ? AND state = ? AND seq <= ?"
                    " AND moved AND tick % 2 = ? ORDER BY seq DESC LIMIT 1",
                    *(found.key, place, at, parity),
                )
                if moved is None:
                    return None
                goal = min(goal, moved)
        return goal

    def _record(self, found: Found, seq: int) -> Record | None:
        rows = self._ask(
            f"SELECT {COLUMNS} FROM records WHERE machine = ? AND seq = ?",  # noqa: S608 - no input
            *(found.key, seq),
        )
        return self._made(found, rows[0]) if rows else None

    def records(self, found: Found, span: Span, *, newest_first: bool) -> Iterator[Record]:
        """Go through the records of a window, some hundred at a time."""
        if span.ticks:
            first, last = self._between(found, Span(ticks=False, start=0, end=FOREVER))
        else:
            first, last = self._between(found, span)
        if first is None or last is None:
            return iter(())
        return self._stream(found, span, first, last, newest_first)

    def _stream(
        self, found: Found, span: Span, first: int, last: int, newest_first: bool
    ) -> Iterator[Record]:
        # The + keeps SQLite from the index by total, and from sorting each time.
        inside = "AND +total BETWEEN ? AND ?" if span.ticks else ""
        limits = (span.start, span.end) if span.ticks else ()
        question = (
            f"SELECT {COLUMNS} FROM records WHERE machine = ? AND seq BETWEEN ? AND ?"  # noqa: S608
            f" AND kind <> '' {inside} ORDER BY seq {'DESC' if newest_first else ''} LIMIT {_CHUNK}"
        )
        while True:
            rows = self._ask(question, found.key, first, last, *limits)
            for row in rows:
                yield self._made(found, row)
            if len(rows) < _CHUNK:
                return
            if newest_first:
                last = cast("int", rows[-1][0]) - 1
            else:
                first = cast("int", rows[-1][0]) + 1

    def _made(self, found: Found, row: Row) -> Record:
        layout = cast("int", row[9])
        if layout not in self._layouts:
            self._layout(layout)
        return from_row(row, found.id, self._layouts)


def _meets(record: Record, conditions: Conditions) -> bool:
    active = record.active
    inactive = {*record.names}.difference(active)
    return (
        {*conditions.active}.issubset(active)
        and {*conditions.inactive} <= inactive
        and {*conditions.activated}.issubset(record.activated)
        and {*conditions.deactivated}.issubset(record.deactivated)
    )
