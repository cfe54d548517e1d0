"""Keeping the file of a history within its limits."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncmachine.history.converting import Shelf

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

__all__ = ["Limits", "shelves_in", "trim", "trim_bytes"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a history keeps.

    Attributes:
        count: how many records of each machine.
        age: for how many seconds.
        size: how many bytes in all.

    """

    count: int | None = None
    age: float | None = None
    size: int | None = None


def shelves_in(db: sqlite3.Connection, own: Mapping[int, Shelf]) -> list[Shelf]:
    """Every machine of the file, those that are recorded no longer or elsewhere, too."""
    rows = db.execute("SELECT key, names, seq, ns, oldest FROM machines").fetchall()
    shelves = []
    for row in rows:
        with suppress(ValueError):  # damaged: who opens that machine is told
            shelves.append(own.get(row[0]) or Shelf.of_row(row))
    return shelves


def trim(
    db: sqlite3.Connection, shelf: Shelf, limits: Limits, now_ns: int, *, exact: bool, all_: bool
) -> bool:
    """Drop the records of a machine that are too many or too old.

    Args:
        db: where, in a transaction.
        shelf: the machine.
        limits: what is kept.
        now_ns: the wall time.
        exact: drop every one; else a tenth more may stay for a while, which is quicker.
        all_: whether even the last one may be dropped: if others record the machine, they
            count on that.

    Returns:
        Whether none is left.

    """
    cut = shelf.oldest
    if limits.count is not None:
        slack = 0 if exact else limits.count // 10 + 100
        if shelf.seq - shelf.oldest + 1 > limits.count + slack:
            cut = shelf.seq - limits.count + 1
    if limits.age is not None:
        age_ns = int(limits.age * 1e9)
        slack = 0 if exact else age_ns // 10
        if _oldest_ns(db, shelf) < now_ns - age_ns - slack:
            cut = max(cut, _first_since(db, shelf, now_ns - age_ns))
    if not all_:
        cut = min(cut, shelf.seq)
    if cut > shelf.oldest:
        _cut(db, shelf, cut)
    return shelf.oldest > shelf.seq


def _oldest_ns(db: sqlite3.Connection, shelf: Shelf) -> int:
    row = db.execute(
        "SELECT ns FROM records WHERE machine = ? AND seq >= ? ORDER BY seq LIMIT 1",
        (shelf.key, shelf.oldest),
    ).fetchone()
    return 2**63 if row is None else int(row[0])


def _first_since(db: sqlite3.Connection, shelf: Shelf, wall_ns: int) -> int:
    row = db.execute(
        "SELECT seq FROM records WHERE machine = ? AND ns >= ? ORDER BY ns, seq LIMIT 1",
        (shelf.key, wall_ns),
    ).fetchone()
    return shelf.seq + 1 if row is None else int(row[0])


def _cut(db: sqlite3.Connection, shelf: Shelf, cut: int) -> None:
    """Drop the records before one; what is known of each state then is kept with that one."""
    for place in range(len(shelf.names)):
        at = (shelf.key, place, cut)
        if cut <= shelf.seq:
            db.execute(
                "INSERT OR IGNORE INTO facts SELECT machine, state, ?, tick, 0 FROM facts"
                " WHERE machine = ? AND state = ? AND seq < ? ORDER BY seq DESC LIMIT 1",
                (cut, *at),
            )
        db.execute("DELETE FROM facts WHERE machine = ? AND state = ? AND seq < ?", at)
    db.execute("DELETE FROM records WHERE machine = ? AND seq < ?", (shelf.key, cut))
    db.execute("UPDATE machines SET oldest = ? WHERE key = ?", (cut, shelf.key))
    shelf.oldest = cut


def trim_bytes(db: sqlite3.Connection, own: Mapping[int, Shelf], size: int) -> None:
    """Drop the oldest quarter of the records of every machine until they fit."""
    while _bytes_used(db) > size:
        full = [shelf for shelf in shelves_in(db, own) if shelf.oldest < shelf.seq]
        if not full:
            return  # there is nothing more to drop
        for shelf in full:
            _cut(db, shelf, shelf.oldest + max(1, (shelf.seq - shelf.oldest + 1) // 4))


def _bytes_used(db: sqlite3.Connection) -> int:
    ((pages,),) = db.execute("PRAGMA page_count")
    ((free,),) = db.execute("PRAGMA freelist_count")
    ((page_size,),) = db.execute("PRAGMA page_size")
    return int((pages - free) * page_size)
