"""From what a history has taken down to the rows of its file, and back to records.

Used by one thread at a time, which has the file's lock.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from itertools import chain
from sqlite3 import SQLITE_LIMIT_VARIABLE_NUMBER
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from asyncmachine.history.errors import HistoryError
from asyncmachine.history.records import Record
from asyncmachine.history.tracks import clocks_after, moved_in
from asyncmachine.transition import Cause

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from asyncmachine.history.tracks import Note, Raw, Track
    from asyncmachine.plans import Plan

    Row: TypeAlias = tuple[object, ...]

__all__ = [
    "COLUMNS",
    "UNKNOWN",
    "Batch",
    "Fill",
    "Shelf",
    "from_row",
    "insert_many",
    "unpack_clocks",
]

COLUMNS: Final = "seq, ns, total, tx, duration, kind, called, auto, moved, layout, clocks, note"

# The tick of a state that is not known: neither odd nor even in SQL.
UNKNOWN: Final = -1

_MOST_PLANS: Final = 4096
# Rows for one statement: while SQLite is at it the interpreter is free for the machines, and
# getting it back takes long when they are busy, so that a statement a row would never end.
_ROWS: Final = (512, 64, 8, 1)

# What a row tells of a plan: kind, called, auto, moved, and which positions moved.
Told: TypeAlias = "tuple[str, str, bool, str, tuple[int, ...]]"


@dataclass(slots=True)
class Shelf:
    """The place of one machine in the file.

    Attributes:
        key: of its row.
        names: its states; the place of each in the file never changes.
        seq: number of its last record.
        wall_ns: of its last record.
        oldest: number of the oldest record that is kept.
        stored: that number of its last record which the file had when it was opened.

    """

    key: int
    names: list[str]
    seq: int
    wall_ns: int
    oldest: int
    stored: int

    @classmethod
    def of_row(cls, row: Row) -> Shelf:
        """Make it of key, names, seq, ns, oldest.

        Raises:
            ValueError: if the names are damaged.

        """
        key, names, seq, wall_ns, oldest = cast("tuple[int, str, int, int, int]", row)
        return cls(key, json.loads(names), seq, wall_ns, oldest, seq)


@dataclass(slots=True)
class Fill:
    """How one track is laid out in the file.

    Attributes:
        track: the track.
        layout: key of its layout.
        places: the place in the file of each of its positions.
        known: its clocks at the last record.
        pack: makes bytes of its tracked clocks.
        gone: places of states that earlier records tell of, and those to come do not.
        told: what rows tell of plans.

    """

    track: Track
    layout: int
    places: list[int]
    known: list[int]
    pack: Struct
    gone: list[int]
    told: dict[Plan, Told] = field(default_factory=dict)


class Batch:
    """The rows that some records make.

    Attributes:
        records: rows of records.
        facts: rows of facts.

    """

    def __init__(self) -> None:
        self.records: list[Row] = []
        self.facts: list[Row] = []

    def put(self, raw: Raw, shelf: Shelf, fill: Fill) -> None:
        """Make the rows of what was taken down."""
        track, _, plan, moment, ticks, wall_ns, duration_ns, tx_id, note = raw
        key = shelf.key
        shelf.seq = seq = shelf.seq + 1
        shelf.wall_ns = wall_ns = max(wall_ns, shelf.wall_ns)  # other processes, other clocks
        after = ticks if moment is None else clocks_after(raw)
        if plan is None:
            told: Told = ("", "[]", False, "{}", ())
        elif note is None or note.outcome == "executed":
            told = fill.told.get(plan) or _tell(fill, plan)
        else:
            told = _tell_unusual(track, plan, raw)
        kind, called, auto, moved, positions = told
        if fill.known == ticks:
            for i in positions:
                self.facts.append((key, fill.places[i], seq, after[i], 1))
        else:  # something has moved them that was not recorded
            for i in track.positions:
                if after[i] != fill.known[i] or i in positions:
                    self.facts.append((key, fill.places[i], seq, after[i], i in positions))
            self.facts += [(key, place, seq, UNKNOWN, 0) for place in fill.gone]
            fill.gone = []
        fill.known = after
        shown = after if len(track.positions) == len(after) else [after[i] for i in track.positions]
        self.records.append(
            (
                *(key, seq, wall_ns, sum(shown), tx_id, duration_ns),
                *(kind, called, auto, moved, fill.layout, fill.pack.pack(*shown)),
                None if note is None else _note_text(note),
            )
        )

    def insert(self, db: sqlite3.Connection) -> None:
        """Put the rows into the file."""
        insert_many(db, "records", self.records)
        insert_many(db, "facts", self.facts)


def _tell(fill: Fill, plan: Plan) -> Told:
    track = fill.track
    tracked = frozenset(track.positions)
    moves = [(i, by) for i, by in plan.moves if i in tracked]
    moved = {track.names[i]: by for i, by in moves}
    if len(fill.told) >= _MOST_PLANS:
        fill.told.clear()
    told = fill.told[plan] = (
        plan.kind,
        json.dumps(plan.states),
        plan.auto,
        json.dumps(moved),
        tuple(i for i, _ in moves),
    )
    return told


def _tell_unusual(track: Track, plan: Plan, raw: Raw) -> Told:
    tracked = frozenset(track.positions)
    moves = [(i, by) for i, by in moved_in(raw[3], raw[4]) if i in tracked]
    moved = {track.names[i]: by for i, by in moves}
    positions = tuple(i for i, _ in moves)
    return (plan.kind, json.dumps(plan.states), plan.auto, json.dumps(moved), positions)


def _note_text(note: Note) -> str:
    return json.dumps([note.outcome, note.error, note.cause, note.args])


def insert_many(db: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    """Insert rows, many with one statement."""
    start = 0
    most = db.getlimit(SQLITE_LIMIT_VARIABLE_NUMBER)
    for size in _ROWS:
        while len(rows) > start and size * len(rows[0]) <= most and len(rows) - start >= size:
            chunk = rows[start : start + size]
            marks = f"({','.join('?' * len(chunk[0]))})"
            db.execute(
                f"INSERT INTO {table} VALUES {','.join([marks] * size)}",  # noqa: S608 - no input
                tuple(chain.from_iterable(chunk)),
            )
            start += size


# And back ------------------------------------------------------------------------------


def unpack_clocks(blob: bytes) -> tuple[int, ...]:
    """Give the clocks that were packed."""
    return Struct(f"<{len(blob) // 8}Q").unpack(blob)


def from_row(row: Row, machine_id: str, layouts: dict[int, tuple[str, ...]]) -> Record:
    """Make a record of the columns that `COLUMNS` names.

    Raises:
        HistoryError: if they make none, so that the file must be damaged.

    """
    try:
        return _from_row(row, machine_id, layouts)
    except (ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
        msg = f"record {row[0]} of {machine_id} is damaged: {error}"
        raise HistoryError(msg) from error


def _from_row(row: Row, machine_id: str, layouts: dict[int, tuple[str, ...]]) -> Record:
    seq, ns, _, tx, duration, kind, called, auto, moved, layout, clocks, note = row
    outcome, error, cause, args = "executed", "", None, ""
    if note is not None:
        outcome, error, cause, args = json.loads(cast("str", note))
    names = layouts[cast("int", layout)]
    time = unpack_clocks(cast("bytes", clocks))
    if len(time) != len(names):
        msg = f"{len(time)} clocks for {len(names)} states"
        raise ValueError(msg)
    return Record(
        seq=cast("int", seq),
        machine_id=machine_id,
        transition_id=cast("int", tx),
        kind=cast("str", kind),
        called=tuple(json.loads(cast("str", called))),
        auto=bool(auto),
        outcome=outcome,
        error=error,
        cause=None if cause is None else Cause(*cause),
        args=args,
        names=names,
        time=time,
        moved=tuple(json.loads(cast("str", moved)).items()),
        wall_ns=cast("int", ns),
        duration_ns=cast("int", duration),
    )
