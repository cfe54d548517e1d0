"""Putting what was taken down into the file of a history, within its limits.

Used by one thread at a time, which has the file's lock.
"""

from __future__ import annotations

import json
from struct import Struct
from time import time_ns
from typing import TYPE_CHECKING, NamedTuple, cast

from asyncmachine.history.converting import UNKNOWN, Batch, Fill, Shelf
from asyncmachine.history.errors import HistoryError
from asyncmachine.history.tracks import clocks_after
from asyncmachine.history.trimming import shelves_in, trim, trim_bytes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from pathlib import Path

    from asyncmachine.history.tracks import Raw, Track
    from asyncmachine.history.trimming import Limits

__all__ = ["Filler", "TakenOverError"]


class _Place(NamedTuple):
    shelf: Shelf
    fill: Fill


class TakenOverError(Exception):
    """Somebody else records a machine now; its track is the only argument."""


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
        self._saving: dict[str, Raw] = {}  # what the open transaction adds to that
        # Number of the last record that the file had of each track, where that was known
        # before a transaction failed: should it have others by now, somebody took over.
        self._claims: dict[Track, int] = {}

    def is_saved(self, track: Track) -> bool:
        """Whether the last clocks of a machine are written, or not to be written."""
        raw = track.latest  # of an earlier machine of this id, if this one has not moved yet
        if raw is None or raw is self.saved.get(track.id):
            return True
        return track.lost is not None or raw[0].lost is not None

    def committed(self) -> None:
        """Take note that all has come true."""
        for place in self._places.values():
            place.shelf.stored = place.shelf.seq
        if self._claims:  # the places tell better
            self._claims = {
                track: seq for track, seq in self._claims.items() if track.id not in self._places
            }
        self.saved.update(self._saving)
        self._saving.clear()

    def start_over(self) -> None:
        """Take note that what it did since it was last committed has not come true."""
        self._claims.update(
            {place.fill.track: place.shelf.stored for place in self._places.values()}
        )
        self._places.clear()
        self._saving.clear()

    def forget(self, track: Track) -> None:
        """Drop what is only needed for a machine that goes on."""
        self._claims.pop(track, None)
        place = self._places.get(track.id)
        if place is not None and place.fill.track is track:
            del self._places[track.id]

    def fill(self, raws: list[Raw], stale: Iterable[Track], *, exact: bool) -> int:
        """Put everything into the open transaction.

        Args:
            raws: what was taken down.
            stale: the tracks whose last clocks are to be written.
            exact: drop every record that is beyond the limits.

        Returns:
            How many of the records belong to lost machines.

        Raises:
            TakenOverError: if a machine is recorded by others now.

        """
        batch = Batch()
        touched: dict[str, _Place] = {}
        refused = 0
        for raw in raws:
            track = raw[0]
            if track.lost is not None:
                refused += 1
                continue
            place = touched[track.id] = self._place(track)
            batch.put(raw, place.shelf, place.fill)
        for track in stale:
            place = touched[track.id] = self._place(track)
            self._save_clocks(track, place)
        for place in touched.values():
            self._check(place)
        batch.insert(self._db)
        shelves = {machine_id: place.shelf for machine_id, place in touched.items()}
        for shelf in shelves.values():
            self._db.execute(
                "UPDATE machines SET seq = ?, ns = ? WHERE key = ?",
                (shelf.seq, shelf.wall_ns, shelf.key),
            )
        self._trim(shelves, exact=exact)
        return refused

    def _check(self, place: _Place) -> None:
        """See that nobody else has recorded a machine since this one did."""
        shelf = place.shelf
        ((seq,),) = self._db.execute("SELECT seq FROM machines WHERE key = ?", (shelf.key,))
        if seq != shelf.stored:
            raise TakenOverError(place.fill.track)

    def _save_clocks(self, track: Track, place: _Place) -> None:
        """Write down where the machine is, to be restored from there."""
        raw = track.latest
        if raw is None:
            return
        after = clocks_after(raw)
        source = raw[0]  # of an earlier machine of this id, if this one has not moved yet
        self._make_places(place.shelf, source)  # its records may be yet to come, or dropped
        ticks: list[int | None] = [None] * len(place.shelf.names)
        for name, tick in zip(source.names, after, strict=True):
            ticks[place.shelf.names.index(name)] = tick
        self._db.execute(
            "UPDATE machines SET ticks = ? WHERE key = ?", (json.dumps(ticks), place.shelf.key)
        )
        self._saving[track.id] = raw

    def _place(self, track: Track) -> _Place:
        """Find the place of a machine in the file, or make it one."""
        place = self._places.get(track.id)
        if place is None:
            place = self._open(track, self._shelf(track))
        elif place.fill.track is not track:  # an earlier machine of this id has ended
            if place.shelf.seq == place.shelf.stored:  # others may have recorded it since
                place = self._open(track, self._shelf(track))
            else:
                self._check(place)
                self._claims[place.fill.track] = place.shelf.stored
                place = self._open(track, place.shelf, place.fill)
        return place

    def _open(self, track: Track, shelf: Shelf, earlier: Fill | None = None) -> _Place:
        """Lay out a track, after an earlier one whose rows are not in the file yet."""
        db = self._db
        names = shelf.names
        self._make_places(shelf, track)
        layout = json.dumps(track.tracked)
        db.execute("INSERT OR IGNORE INTO layouts (names) VALUES (?)", (layout,))
        ((layout_key,),) = db.execute("SELECT key FROM layouts WHERE names = ?", (layout,))
        places = [names.index(name) for name in track.names]
        facts = [self._last_fact(shelf.key, place) for place in range(len(names))]
        told = {place for place, tick in enumerate(facts) if tick != UNKNOWN}
        if earlier is not None:
            told.update(earlier.places[i] for i in earlier.track.positions)
        gone = told.difference(places[i] for i in track.positions)
        known = [facts[place] for place in places]
        if gone or earlier is not None:
            known = [UNKNOWN] * len(known)  # have the first record tell everything
        pack = Struct(f"<{len(track.tracked)}Q")
        fill = Fill(track, layout_key, places, known, pack, sorted(gone))
        place = self._places[track.id] = _Place(shelf, fill)
        return place

    def _make_places(self, shelf: Shelf, track: Track) -> None:
        """See that each state of a track has a place."""
        new = [name for name in track.names if name not in shelf.names]
        if new:
            shelf.names += new
            self._db.execute(
                "UPDATE machines SET names = ? WHERE key = ?", (json.dumps(shelf.names), shelf.key)
            )

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
            shelf = Shelf.of_row(row)
        except ValueError as error:
            msg = f"the history {self._path} is damaged: names of {track.id}: {error}"
            raise HistoryError(msg) from error
        shelf.stored = self._claims.get(track, shelf.stored)
        return shelf

    def _last_fact(self, key: int, place: int) -> int:
        row = self._db.execute(
            "SELECT tick FROM facts WHERE machine = ? AND state = ? ORDER BY seq DESC LIMIT 1",
            (key, place),
        ).fetchone()
        return UNKNOWN if row is None else cast("int", row[0])

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
                place.fill.known = [UNKNOWN] * len(place.fill.known)
