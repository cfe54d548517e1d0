"""A history in a file: it outlives the process, and machines are restored from it.

Guarantees:

- Its file is never corrupt, whenever the process is killed: SQLite sees to that.
- After a kill it tells, and restores, what was true at some moment: the last one that was
  written. What was flushed is never lost.
- With ``durable=True`` whoever is told that a mutation was executed, by its result or by a
  waiter, can rely on it: the change is on the disk by then.
- It may be asked by any thread while its machines run. A question first writes what waits
  to be written, so that it sees all that was recorded before.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Final
from weakref import WeakSet, finalize

from asyncmachine.errors import UnknownStateError
from asyncmachine.history.errors import HistoryError
from asyncmachine.history.finding import Finder
from asyncmachine.history.memory import check_limits
from asyncmachine.history.queries import Conditions, History
from asyncmachine.history.tracking import Recorder
from asyncmachine.history.trimming import Limits
from asyncmachine.history.writing import Writer

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Iterator
    from typing import Self

    from asyncmachine.history.finding import Found
    from asyncmachine.history.queries import Clocks
    from asyncmachine.history.records import Record, Span
    from asyncmachine.history.tracks import Raw, Track
    from asyncmachine.transition import Transition

__all__ = ["SQLiteHistory"]


class SQLiteHistory(Recorder, History):
    """Keeps the transitions of machines in an SQLite file.

    Add it to machines as a tracer. One file may keep any number of machines, told apart by
    their ids; several processes may write to it, each its own machines. A machine that is
    recorded by two is left to the one that came later, and the other gets an error.

    It is written by a thread behind the machines' backs, unless it is durable. Used in a
    ``with`` statement it is closed at the end.

    Args:
        path: the file; it is made if it is not there. Beside it SQLite keeps two more,
            ``-wal`` and ``-shm``, as long as it is open.
        durable: commit each change before its result is given and its waiters are set.
            Each then takes the time of the disk, some milliseconds.
        called: keep only transitions that call one of these states, or meet ``changed``.
        changed: keep only those that move the clock of one of these, or meet ``called``.
        rejected: keep those that were refused, too.
        states: the states that are tracked; ``None`` for all. Transitions that neither
            call nor move one of them are not kept, and records tell only of them.
        max_count: how many records of each machine are kept at most.
        max_age: seconds that a record is kept at most.
        max_bytes: how large the file may grow, roughly.
        backlog: how many records may wait to be written; beyond that the oldest are dropped
            and counted.
        delay: seconds that records may wait to be written together.
        patience: seconds to wait for other processes that write to the file.
        inherit: keep the children of its machines, too.

    Raises:
        HistoryError: if the file can not be used: it is damaged, of a newer version, no
            history at all, or can not be written.

    Example:
        >>> from asyncmachine import Machine, State
        >>> from asyncmachine.history import restore
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with SQLiteHistory(folder.name + "/work.history") as history:
        ...     machine = Machine({"Foo": State()}, id="m", tracers=[history])
        ...     machine.add("Foo")
        Result.EXECUTED
        >>> with SQLiteHistory(folder.name + "/work.history") as history:
        ...     machine = Machine({"Foo": State()}, id="m", tracers=[history])
        ...     restore(machine, history)
        {'Foo': 1, 'Exception': 0}
        >>> folder.cleanup()

    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durable: bool = False,
        called: Iterable[str] | str | None = None,
        changed: Iterable[str] | str | None = None,
        rejected: bool = False,
        states: Iterable[str] | str | None = None,
        max_count: int | None = None,
        max_age: float | None = None,
        max_bytes: int | None = None,
        backlog: int = 100_000,
        delay: float = 0.05,
        patience: float = 5.0,
        inherit: bool = False,
    ) -> None:
        check_limits(max_count=max_count, max_age=max_age, max_bytes=max_bytes, backlog=backlog)
        self.path = Path(path)
        self.durable = durable
        limits = Limits(max_count, max_age, max_bytes)
        self._writer = Writer(
            self.path, limits, durable=durable, backlog=backlog, delay=delay, patience=patience
        )
        super().__init__(
            self._writer,
            called=called,
            changed=changed,
            rejected=rejected,
            states=states,
            inherit=inherit,
        )
        self._writer.tracks = self._by_id
        self._finder = Finder(self.path, patience)
        self._finalizer = finalize(self, self._writer.leave, self._finder.close)
        self._finalizer.atexit = False  # the writer sees to that itself
        if durable:  # only who has the hook is called
            vars(self)["transition_commit"] = self._commit
        _OPEN.add(self)

    # Life -------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Write all that has been recorded so far.

        Args:
            timeout: seconds to wait for others that write; ``None`` waits for ever.

        Raises:
            HistoryError: if it can not be written; it is kept, and tried again later. Also
                if a machine was taken over by another history.
            TimeoutError: if others did not end in time.

        """
        self._writer.flush(timeout)

    def close(self) -> None:
        """Write what waits, and end: nothing is recorded from now on. Again does no harm.

        Raises:
            HistoryError: if it can not be written.

        """
        self._tracks.clear()
        try:
            self._writer.close()
        finally:
            self._finder.close()
            self._finalizer.detach()

    @property
    def dropped(self) -> int:
        """How many records were lost, for the disk could not follow; exact after `flush`."""
        return self._writer.dropped

    @property
    def machines(self) -> tuple[str, ...]:
        """The ids of the machines that it knows."""
        return tuple(dict.fromkeys((*self._finder.machines(), *self._by_id.copy())))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SQLiteHistory {self.path}>"

    def _abandon(self) -> None:
        """Record nothing in a process that was forked: the file is its parent's."""
        self._tracks.clear()
        self._writer.abandon()
        self._finder.abandon()
        self._finalizer.detach()

    # For its bases ----------------------------------------------------------------------

    def _commit(self, tx: Transition) -> None:
        """Have a change on the disk before anybody is told of it."""
        track = self._tracks.get(id(tx.machine))
        if track is not None and self._take_down_early(track, tx):
            self._writer.commit(track)

    def _new_raws(self, states: int) -> deque[Raw]:
        return self._writer.backlog

    def _ended(self, track: Track) -> None:
        self._writer.ended(track)

    def _now_ns(self) -> int:
        return time_ns()

    def _fault(self, machine_id: str) -> Exception | None:
        return self._faults.get(machine_id)

    def _knows(self, machine_id: str) -> bool:
        return machine_id in self._by_id or self._finder.machine(machine_id) is not None

    def _found(self, machine_id: str, *states: str) -> Found:
        """Find a machine in the file, when all that was recorded is there."""
        self._writer.write()
        found = self._finder.machine(machine_id)
        if found is None:  # its first mark was dropped, and nothing came after it
            msg = f"this history has nothing of {machine_id}"
            raise HistoryError(msg)
        track = self._by_id.get(machine_id)
        tracked = found.tracked if track is None else track.tracked
        for state in states:
            if state not in tracked:
                raise UnknownStateError(state, tracked, f"the history of {machine_id}")
        return found

    def _last_activation(self, machine_id: str, state: str) -> int | None:
        track = self._by_id.get(machine_id)
        if track is not None:
            wall_ns = track.activated_ns[track.position(state)]
            if wall_ns:
                return wall_ns
            found = self._finder.machine(machine_id)  # of earlier ones: that is written
            if found is None or state not in found.names:
                return None
        else:
            found = self._found(machine_id, state)
        return self._finder.last_activation(found, found.names.index(state))

    def _moved(self, machine_id: str, state: str, parity: int, span: Span) -> bool:
        found = self._found(machine_id, state)
        return self._finder.moved(found, found.names.index(state), parity, span)

    def _held(self, machine_id: str, state: str, parity: int, span: Span) -> bool:
        found = self._found(machine_id, state)
        return self._finder.held(found, found.names.index(state), parity, span)

    def _latest(self, machine_id: str, conditions: Conditions, span: Span) -> Record | None:
        found = self._found(machine_id, *conditions.states)
        return self._finder.latest(found, conditions, span)

    def _records(self, machine_id: str, span: Span, newest_first: bool) -> Iterator[Record]:
        return self._finder.records(self._found(machine_id), span, newest_first=newest_first)

    def _clocks(self, machine_id: str) -> Clocks | None:
        self._writer.write()
        return self._finder.clocks(machine_id)


_OPEN: Final[WeakSet[SQLiteHistory]] = WeakSet()


def _leave_to_parent() -> None:
    """Close all histories in a process that was just forked, without touching their files."""
    for history in list(_OPEN):
        history._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
