"""Putting what was taken down into the file of a history, within its limits.

Used by one thread at a time, which has the file's lock.
"""

from __future__ import annotations

import json
from struct import Struct
from time import time_ns
from typing import TYPE_CHECKING, NamedTuple, cast

from asyncmachine.history.converting import Batch, Fill, Shelf
from asyncmachine.history.errors import HistoryError
from asyncmachine.history.tracks import clocks_after
from asyncmachine.history.trimming import shelves_in, trim, trim_bytes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Container, Iterable
    from pathlib import Path

    from asyncmachine.history.tracks import Raw, Track
    from asyncmachine.history.trimming import Limits

__all__ = ["Filler", "TakenOverError"]


class _Place(NamedTuple):
    shelf: Shelf
    fill: Fill


class TakenOverError(Exception):
    """Somebody else records a machine now; its id is the only argument."""


class Filler:
    """Who knows where each machine has its place in a file.

    Args:
        db: the file.
        path: its name, for errors.
        limits: what is kept.

    Attributes:
        saved: what was taken down last of each machine whose last clocks are written.

    """

    def __init__(self, db: sqlite3.Connection, path: Path, limits: Limits) -> None:
        self.saved: dict[str, Raw | None] = {}
        self._db = db
        self._path = path
        self._limits = limits
        self._places: dict[str, _Place] = {}

    def is_saved(self, track: Track) -> bool:
        """Whether the last clocks of a machine are written."""
        return track.latest is self.saved.get(track.id)

    def committed(self) -> None:
        """Take note that all has come true."""
        for place in self._places.values():
            place.shelf.stored = place.shelf.seq

    def start_over(self) -> None:
        """Take note that what it knows may not have come true."""
        self._places.clear()
        self.saved.clear()

    def forget(self, track: Track) -> None:
        """Drop what is only needed for a machine that goes on."""
        self._places.pop(track.id, None)
        self.saved.pop(track.id, None)

    def fill(
        self, raws: list[Raw], stale: Iterable[Track], lost: Container[str], *, exact: bool
    ) -> int:
        """Put everything into the open transaction.

        Args:
            raws: what was taken down.
            stale: the tracks whose last clocks are to be written.
            lost: the ids of machines that are recorded by others now.
            exact: drop every record that is beyond the limits.

        Returns:
            How many of the records belong to lost machines.

        Raises:
            TakenOverError: if a machine is recorded by others now.

        """
        batch = Batch()
        touched: dict[str, Shelf] = {}
        refused = 0
        for raw in raws:
            track = raw[0]
            if track.id in lost:
                refused += 1
                continue
            place = self._place(track)
            touched[track.id] = place.shelf
            batch.put(raw, place.shelf, place.fill)
        for track in stale:
            place = self._place(track)
            touched[track.id] = place.shelf
            self._save_clocks(track, place)
        for machine_id, shelf in touched.items():
            ((seq,),) = self._db.execute("SELECT seq FROM machines WHERE key = ?", (shelf.key,))
            if seq != shelf.stored:
                raise TakenOverError(machine_id)
        batch.insert(self._db)
        for shelf in touched.values():
            self._db.execute(
                "UPDATE machines SET seq = ?, ns = ? WHERE key = ?",
                (shelf.seq, shelf.wall_ns, shelf.key),
            )
        self._trim(touched, exact=exact)
        return refused

    def _save_clocks(self, track: Track, place: _Place) -> None:
        """Write down where the machine is, to be restored from there."""
        raw = track.latest
        if raw is None:
            return
        after = clocks_after(raw)
        ticks: list[int | None] = [None] * len(place.shelf.names)
        source = raw[0]  # of an earlier machine of this id, if this one has not moved yet
        for name, tick in zip(source.names, after, strict=True):
            ticks[place.shelf.names.index(name)] = tick
        self._db.execute(
            "UPDATE machines SET ticks = ? WHERE key = ?", (json.dumps(ticks), place.shelf.key)
        )
        self.saved[track.id] = raw

    def _place(self, track: Track) -> _Place:
        """Find the place of a machine in the file, or make it one."""
        place = self._places.get(track.id)
        if place is None:
            place = self._open(track, self._shelf(track))
        elif place.fill.track is not track:  # an earlier machine of this id has ended
            place = self._open(track, place.shelf)
        return place

    def _open(self, track: Track, shelf: Shelf) -> _Place:
        db = self._db
        names = shelf.names
        new = [name for name in track.names if name not in names]
        if new:
            names += new
            db.execute(
                "UPDATE machines SET names = ? WHERE key = ?", (json.dumps(names), shelf.key)
            )
        layout = json.dumps(track.tracked)
        db.execute("INSERT OR IGNORE INTO layouts (names) VALUES (?)", (layout,))
        ((layout_key,),) = db.execute("SELECT key FROM layouts WHERE names = ?", (layout,))
        places = [names.index(name) for name in track.names]
        known = [self._last_fact(shelf.key, place) for place in places]
        fill = Fill(track, layout_key, places, known, Struct(f"<{len(track.tracked)}Q"))
        place = self._places[track.id] = _Place(shelf, fill)
        return place

    def _shelf(self, track: Track) -> Shelf:
        db = self._db
        row = db.execute(
            "SELECT key, names, seq, ns, oldest FROM machines WHERE id = ?", (track.id,)
        ).fetchone()
        if row is None:
            db.execute(
                "INSERT INTO machines (id, names, seq, ns, oldest) VALUES (?, ?, 0, 0, 1)",
                (track.id, json.dumps(track.names)),
            )
            return self._shelf(track)
        try:
            return Shelf.of_row(row)
        except ValueError as error:
            msg = f"the history {self._path} is damaged: names of {track.id}: {error}"
            raise HistoryError(msg) from error

    def _last_fact(self, key: int, place: int) -> int:
        row = self._db.execute(
            "SELECT tick FROM facts WHERE machine = ? AND state = ? ORDER BY seq DESC LIMIT 1",
            (key, place),
        ).fetchone()
        return -1 if row is None else cast("int", row[0])

    def _trim(self, touched: dict[str, Shelf], *, exact: bool) -> None:
        limits = self._limits
        own = {place.shelf.key: place.shelf for place in self._places.values()}
        if limits.count is not None or limits.age is not None:
            for shelf in shelves_in(self._db, own) if exact else touched.values():
                if trim(self._db, shelf, limits, time_ns(), exact=exact, all_=shelf.key in own):
                    self._forget_place(shelf)
        if limits.size is not None:
            trim_bytes(self._db, own, limits.size)

    def _forget_place(self, shelf: Shelf) -> None:
        """Have the next record tell all clocks: no earlier one does any more."""
        for place in self._places.values():
            if place.shelf is shelf:
                place.fill.known = [-1] * len(place.fill.known)
