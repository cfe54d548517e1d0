"""Recording feeds into dump files, one after the other.

Guarantees: what has come is on disk a second later, also if nothing more comes. Each file
can be read without those before it. A file that can not be written ends the recording
with one clear error, and the files that are finished stay as they are.
"""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Final

from asyncmachine.debugger.dumps import DumpWriter
from asyncmachine.debugger.records import DroppedRecord, TransitionRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.debugger.records import Record

__all__ = ["Limits", "Recorder"]

_FLUSH: Final = 1.0  # seconds


class Limits:
    """When a file is full; ``None`` is never.

    Args:
        transitions: so many are in it.
        seconds: it is so old.
        size: it has so many bytes on disk, or a block more, and what it begins with.

    """

    def __init__(
        self,
        transitions: int | None = None,
        seconds: float | None = None,
        size: int | None = None,
    ) -> None:
        self.transitions = transitions
        self.seconds = seconds
        self.size = size

    def room(self, writer: DumpWriter) -> int | None:
        """Give how many transitions a file may still take; ``None`` for any number."""
        if self.seconds is not None and time.time() - writer.created >= self.seconds:
            return 0
        # What a file begins with does not count, or it could be full before anything is in it.
        if self.size is not None and writer.size - writer.start_size >= self.size:
            return 0
        if self.transitions is not None:
            return max(0, self.transitions - writer.transitions)
        return None


class Recorder:
    """A sink for a `Collector` that writes files.

    Args:
        name_of: gives the path of the first file, the second, …, by number from 1.
        limits: when the next file is begun.
        keep: how many files are kept, older ones of this recorder are deleted; ``None``
            for all.
        on_file: called with the path of each file that is begun.
        on_error: called with the error that ended the recording.

    Attributes:
        files: the paths of the files that are kept, the oldest first.
        transitions: how many were recorded.
        dropped: how many the senders have told to be missing.
        error: what ended the recording, or ``None``.

    """

    def __init__(
        self,
        name_of: Callable[[int], str],
        limits: Limits | None = None,
        *,
        keep: int | None = None,
        on_file: Callable[[str], object] = lambda _: None,
        on_error: Callable[[OSError], object] = lambda _: None,
    ) -> None:
        self._name_of = name_of
        self._limits = limits if limits is not None else Limits()
        self._keep = keep
        self._on_file = on_file
        self._on_error = on_error
        self._lock = Lock()  # guards the writer
        self._number = 1
        self._pending = Event()
        self._over = Event()
        self.files: list[str] = []
        self.transitions = self.dropped = 0
        self.error: OSError | None = None
        self._writer = self._begin([])
        self._flusher = Thread(target=self._flush_later, name="recorder", daemon=True)
        self._flusher.start()

    @property
    def size(self) -> int:
        """Bytes of the file that is being written."""
        return self._writer.size

    def __call__(self, records: list[Record]) -> None:
        """Record some records."""
        with self._lock:
            if self.error is not None or self._over.is_set():
                return
            try:
                self._write(records)
            except OSError as error:
                self.error = error
        if self.error is not None:
            self._on_error(self.error)
        self._pending.set()

    def _write(self, records: list[Record]) -> None:
        rest = records
        fresh = False
        while rest:
            room = self._limits.room(self._writer)
            if room == 0 and not fresh:
                self._rotate()
                fresh = True
                continue
            fresh = False
            end = _end_of(rest, room or None)  # one that is too old at once takes them, too
            part, rest = rest[:end], rest[end:]
            self._writer.write(part)
            for record in part:
                if isinstance(record, TransitionRecord):
                    self.transitions += 1
                elif isinstance(record, DroppedRecord):
                    self.dropped += record.count

    def _rotate(self) -> None:
        self._writer.flush()
        start = self._writer.start_of()
        self._writer.close()
        self._number += 1
        self._writer = self._begin(start)
        while self._keep is not None and len(self.files) > self._keep:
            Path(self.files.pop(0)).unlink(missing_ok=True)

    def _begin(self, start: list[Record]) -> DumpWriter:
        path = self._name_of(self._number)
        writer = DumpWriter(path, start=start)
        self.files.append(path)
        self._on_file(path)
        return writer

    def _flush_later(self) -> None:
        while not self._over.is_set():
            self._pending.wait()
            self._over.wait(_FLUSH)
            self._pending.clear()
            with self._lock:
                if self.error is None and not self._over.is_set():
                    try:
                        self._writer.flush()
                    except OSError as error:
                        self.error = error
            if self.error is not None:
                self._on_error(self.error)
                return

    def close(self) -> None:
        """Finish the file; again does no harm.

        Raises:
            OSError: if that can not be.

        """
        self._over.set()
        self._pending.set()
        with self._lock:
            self._writer.close()


def _end_of(records: list[Record], room: int | None) -> int:
    """Give how many records hold so many transitions at most."""
    if room is None:
        return len(records)
    for at, record in enumerate(records):
        if isinstance(record, TransitionRecord):
            if not room:
                return at
            room -= 1
    return len(records)
