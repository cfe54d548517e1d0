"""Writing a history down behind the machines' backs, or before they go on.

Guarantees:

- What a machine pays, unless the history is durable, is one append: a daemon thread, which
  is started when there is something to write, does the rest in batches, one transaction
  each. The lock of the file is held while rows are made and committed, never by a machine
  that is not durable.
- The backlog is bounded. When the disk can not follow, the oldest records are dropped,
  counted and logged; the last clocks of every machine are written with each batch all the
  same, so that restoring is right.
- A batch that can not be written is kept and tried again with the next one.
- A machine that another process, or a later history, has begun to record is left to that one.
"""

from __future__ import annotations

import atexit
import sqlite3
from collections import deque
from functools import partial
from itertools import islice
from threading import Lock, RLock, Thread
from typing import TYPE_CHECKING, Final

from asyncmachine.errors import described
from asyncmachine.history.errors import HistoryError
from asyncmachine.history.filling import Filler, TakenOverError
from asyncmachine.history.storing import connect, explained, never_close
from asyncmachine.history.tracking import Bell
from asyncmachine.history.trimming import Limits
from asyncmachine.logs import log_exception, log_warning
from asyncmachine.oneshot import Sleeper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asyncmachine.history.tracks import Raw, Track

__all__ = ["Writer"]

# So many records make one transaction at most.
_BATCH: Final = 10_000


class Writer(Bell):
    """Who writes one file.

    Args:
        path: of the file.
        limits: what is kept.
        durable: whether every commit has to reach the disk.
        backlog: how many records may wait to be written.
        delay: seconds that the thread lets records gather.
        patience: seconds to wait for other processes that write to it.

    Attributes:
        backlog: what waits, oldest first.
        tracks: the tracks whose last clocks are written, by machine id.
        closed: whether it has been closed.

    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        durable: bool,
        backlog: int,
        delay: float,
        patience: float,
    ) -> None:
        super().__init__()
        self.backlog: deque[Raw] = deque(maxlen=backlog)
        self.tracks: dict[str, Track] = {}
        self.closed = False
        self._path = path
        self._delay = delay
        # Guards the connection and all that follows. Who has it may come again, in a signal
        # handler or a finaliser, and is then told by _at_it that it is there already.
        self._lock = RLock()
        self._at_it = False
        self._db = connect(path, durable=durable, patience=patience)
        self._filler = Filler(self._db, path, limits)
        self._limited = limits != Limits()
        self._kept: list[Raw] = []
        self._written = 0
        self._told = 0
        self._failing = False
        self._refused = 0
        self._ended: deque[Track] = deque()
        self._ended_count = 0
        self._sleeper = Sleeper()  # where the thread sleeps until there is something
        self._end = Sleeper()  # where it lets time pass: only closing wakes it
        self._thread: Thread | None = None
        self._starting = Lock()
        self._leaving: Callable[[], object] | None = None
        self._news: deque[tuple[str, str]] = deque()
        self.asleep = True
        atexit.register(self._close_safely)

    # The thread -------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the thread write what waits; start it if there is none."""
        self.asleep = False
        if self._thread is None:
            try:
                with self._starting:
                    self._start()
            except RuntimeError as error:  # what is taken down next tries again
                self.asleep = True
                if not self._failing:  # said once, until it works again
                    self._failing = True
                    log_warning(str(self._path), f"nothing is written for now: {error}")
        self._sleeper.wake()

    def _start(self) -> None:
        if self._thread is None and not self.closed:
            self._thread = Thread(target=self._live, name=f"history {self._path.name}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
                raise

    def _live(self) -> None:
        while not self.closed:
            if self._leaving is not None:
                self._close_safely()
                self._leaving()
                return
            self.asleep = True
            if not self._waiting() and self._leaving is None:
                self._sleeper.sleep()
            self.asleep = False
            if self._leaving is None:
                self._end.sleep(self._delay)  # more will come
            if not self.closed:
                self._write_all()

    def _waiting(self) -> bool:
        return bool(self.backlog or self._kept or self._stale())

    def _write_all(self) -> None:
        try:
            while not self.closed:
                self._alone(self._write_waiting)
                if not self.backlog:
                    return
        except HistoryError as error:
            if not self.closed and not self._failing:  # said once, until it works again
                self._failing = True
                log_exception("%s", error)
            self._end.sleep(max(self._delay, 1.0))  # give the disk a moment

    # Writing ----------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Write what waits now, and drop what is beyond the limits.

        Args:
            timeout: seconds to wait for others that write; ``None`` waits for ever.

        Raises:
            HistoryError: if it can not be written, or a machine was taken over.
            TimeoutError: if others did not end in time.

        """
        self.write(timeout)
        for track in self.tracks.copy().values():
            if track.lost is not None:
                raise track.lost

    def write(self, timeout: float | None = None) -> None:
        """Write what waits now; who asks does so first."""
        self._alone(partial(self._write_waiting, exact=True), timeout)

    def commit(self, track: Track) -> None:
        """Have what was last taken down of a machine on the disk, at once.

        Raises:
            HistoryError: if that can not be.

        """
        self._alone(partial(self._write_if_needed, track, track.latest))
        if track.lost is not None:
            raise track.lost

    def _alone(self, act: Callable[[], object], timeout: float | None = None) -> None:
        """Do something while nobody else writes.

        Raises:
            HistoryError: if this thread was interrupted while it was at it.
            TimeoutError: if others did not end in time.

        """
        held: list[bool] = []
        seconds = -1 if timeout is None else max(0.0, timeout)
        try:
            # One call in C: no interrupt can come between taking the lock and noting it.
            held.extend(map(self._lock.acquire, (True,), (seconds,)))
            if not held[0]:
                msg = f"the history {self._path} was still being written after {timeout} s"
                raise TimeoutError(msg)
            if self._at_it:
                msg = (
                    f"the history {self._path} is being written by what this signal handler or "
                    "finaliser has interrupted; what it has recorded is written after that"
                )
                raise HistoryError(msg)
            try:
                self._at_it = True
                act()
            finally:
                self._at_it = False
        finally:
            if held and held[0]:
                self._lock.release()
        while self._news:  # told now: a logging handler is the user's code
            log_warning(*self._news.popleft())

    @property
    def dropped(self) -> int:
        """How many records have been lost, for the disk could not follow."""
        made = self._ended_count + sum(track.count for track in self.tracks.copy().values())
        # In this order, so that what moves on meanwhile is counted twice and not as dropped.
        waiting = len(self.backlog) + len(self._kept)
        return max(0, made - waiting - self._written) + self._refused

    def close(self) -> None:
        """Write what waits and end; again does no harm.

        Raises:
            HistoryError: if it can not be written.

        """
        self._alone(self._write_last)
        atexit.unregister(self._close_safely)
        self._sleeper.wake()
        self._end.wake()

    def abandon(self) -> None:
        """Leave all to the process that this one was forked from."""
        self._lock, self._starting = RLock(), Lock()
        self._at_it = False
        self.closed = True
        self.backlog.clear()
        self._kept = []
        never_close(self._db)
        atexit.unregister(self._close_safely)

    def leave(self, then: Callable[[], object]) -> None:
        """Have the thread write what waits and end. Never blocks, and may be called anywhere.

        Args:
            then: what it is to do after that.

        """
        self._leaving = then
        self._end.wake()
        self.wake()
        if self._thread is None and not self.closed:
            self._close_safely()  # the interpreter ends and starts no more threads

    def _close_safely(self) -> None:
        try:
            self.close()
        except Exception:  # noqa: BLE001 - nobody is there to be told
            log_exception("the history %s could not be closed", self._path)

    def _stale(self) -> list[Track]:
        """The tracks whose last clocks are not in the file yet."""
        return [track for track in self.tracks.copy().values() if not self._filler.is_saved(track)]

    def _write_last(self) -> None:
        if not self.closed:
            try:
                self._write_waiting(exact=True)
            finally:
                self.closed = True
                self._db.close()

    def _write_if_needed(self, track: Track, raw: Raw | None) -> None:
        # Somebody may have written it meanwhile. If that was between the two, the clocks are
        # there already, and the record waits.
        if self._filler.saved.get(track.id) is not raw or self.backlog:
            self._write_waiting()

    def _write_waiting(self, *, exact: bool = False) -> None:
        """Write what waits now, and not what comes meanwhile."""
        if self.closed:
            return
        left = len(self.backlog) + len(self._kept)
        while True:
            raws = self._gather(left)
            left -= len(raws)
            if raws or (exact and self._limited) or self._stale():
                self._write(raws, exact=exact)
            if left <= 0 or not raws:
                break
        self._failing = False
        self._forget_ended()
        dropped = self.dropped
        if dropped > self._told:
            told = f"the history can not follow: {dropped} records dropped so far"
            self._news.append((str(self._path), told))
            self._told = dropped

    def _gather(self, most: int) -> list[Raw]:
        """Take the next batch; it stays in ``_kept`` until it is written, whatever happens."""
        raws = self._kept
        more = islice(iter(self.backlog.popleft, None), max(0, min(_BATCH, most) - len(raws)))
        try:
            # One call in C: no interrupt can come between taking one out and keeping it.
            raws.extend(more)
        except IndexError:
            pass  # somebody's newer ones have pushed them out
        return raws

    def ended(self, track: Track) -> None:
        """Take note that nothing more comes from a machine."""
        self._ended.append(track)

    def _forget_ended(self) -> None:
        """Drop what is only needed for machines that go on."""
        if not self._ended or self.backlog:
            return
        joining = self.joining.now
        held: list[bool] = []
        try:
            # Who has it may wait for the file, in a signal handler: then the next time. One
            # call in C, as above.
            held.extend(map(joining.acquire, (False,)))
            for _ in range(len(self._ended) if held[0] else 0):
                track = self._ended.popleft()
                self._filler.forget(track)
                if self.tracks.get(track.id) is track:
                    self._ended_count += track.count
                    del self.tracks[track.id]
                    self._filler.saved.pop(track.id, None)
        finally:
            if held and held[0]:
                joining.release()

    def _write(self, raws: list[Raw], *, exact: bool) -> None:
        """Write one batch."""
        while True:
            try:
                self._transact(raws, exact=exact)
                return
            except TakenOverError as conflict:
                (track,) = conflict.args
                track.lost = HistoryError(
                    f"the machine {track.id} is recorded in {self._path} by another history "
                    "since; this one records it no longer"
                )
                self._news.append((track.id, str(track.lost)))
            except HistoryError:
                raise  # the batch is kept
            except Exception as error:
                self._put_away(raws)  # it would never be written, nor anything after it
                self._refused += len(raws)
                msg = f"{len(raws)} records can not be kept in {self._path}: {described(error)}"
                raise HistoryError(msg) from error

    def _transact(self, raws: list[Raw], *, exact: bool) -> None:
        with explained(self._path):
            begun = False
            try:
                self._db.execute("BEGIN IMMEDIATE")  # an interrupt may come when it has begun
                begun = True
                refused = self._filler.fill(raws, self._stale(), exact=exact)
                self._db.execute("COMMIT")
                self._put_away(raws)
                self._refused += refused
                self._filler.committed()
            except BaseException as error:
                if begun:
                    if not self._db.in_transaction and not isinstance(error, sqlite3.Error):
                        self._filler.committed()  # an interrupt, just after the commit
                        if self._kept is raws:
                            self._put_away(raws)
                    self._filler.start_over()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _put_away(self, raws: list[Raw]) -> None:
        # One statement without a call: no interrupt can come in between.
        self._written, self._kept = self._written + len(raws), []
