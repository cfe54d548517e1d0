"""The writing half of a link: many threads post, and one at a time writes.

Guarantees:

- ``post()`` never blocks. Whoever posts writes, if the carrier takes it and nobody else
  writes; else who writes goes on with it. No message stays queued that could be written.
- ``on_writable`` is called after a queue was emptied, and without any lock.

Assumes that ``Lock.acquire(False)``, ``deque.append``, ``deque.popleft``, ``list.append``
and ``list.pop`` are atomic and seen in order by other threads. Whoever queues a message
does that *before* it tries to become the writer; whoever writes stops being the writer
*before* it looks at the queue again: one of them sees the other.
"""

from __future__ import annotations

from _thread import allocate_lock
from typing import TYPE_CHECKING

from asyncmachine.net.errors import ConnectionLostError, NotSerialisableError
from asyncmachine.net.outgoing import Outgoing, Volatile
from asyncmachine.net.wire import FRAME_OVERHEAD, MAX_FRAME, encode
from asyncmachine.threads import run_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.net.connection import Connection
    from asyncmachine.net.wire import Message

__all__ = ["Writer"]


class Writer:
    """Base of `Link`: what it has to write, and how that is written.

    Args:
        retain: whether to keep counted messages until they are acknowledged.

    """

    def __init__(self, *, retain: bool) -> None:
        self.on_writable: Callable[[], object] | None = None
        self.bytes_sent = 0
        self._largest = MAX_FRAME - FRAME_OVERHEAD  # that a message may have; -1 once closed
        self._outgoing = Outgoing(retain=retain)
        self._queue = self._outgoing.queue
        self._connection: Connection | None = None
        self._writing = allocate_lock()  # held by who writes, or may not be disturbed by one
        self._corks: list[None] = []
        self._flushing = False

    def _end(self, connection: Connection, error: Exception | None) -> None:
        """Have done with a connection, and tell so; again does nothing."""
        raise NotImplementedError

    @property
    def is_up(self) -> bool:
        """Whether there is a carrier that works."""
        connection = self._connection
        return connection is not None and not connection.ended and connection.broken is None

    @property
    def is_closed(self) -> bool:
        """Whether it was closed or abandoned."""
        return self._largest < 0

    @property
    def is_writable(self) -> bool:
        """Whether it is up, and nothing is queued or half-written."""
        return not self._queue and not self._writing.locked() and self.is_up

    @property
    def received(self) -> int:
        """How many counted messages have arrived in this session."""
        return self._outgoing.received

    @property
    def messages_sent(self) -> int:
        """How many messages were given to carriers, again or volatile ones included."""
        return self._outgoing.taken

    @property
    def pending(self) -> int:
        """How many messages wait to be written, volatile ones among them."""
        return len(self._queue)

    @property
    def unacknowledged(self) -> int:
        """How many messages were written and are kept until they are acknowledged."""
        return self._outgoing.unacknowledged

    def post(self, message: Message, *, now: bool = True) -> None:
        """Send a message. Never blocks; while the link is down the message is kept.

        Args:
            message: what to send; it is counted.
            now: write it at once, with all that is queued; else that is left to a
                background thread, so that many messages are written together.

        Raises:
            NotSerialisableError: if it is larger than what the other side takes.
            ConnectionLostError: if the link is closed.

        """
        data = encode(message)
        if len(data) > self._largest:
            raise self._refusal(data)
        self._queue.append(data)
        if now:
            if not self._corks:
                self._write()
        elif not self._flushing:
            self._flush_later()

    def post_encoded(self, data: bytes, *, now: bool = True) -> None:
        """Send a message that is encoded already; else like ``post()``."""
        if len(data) > self._largest:
            raise self._refusal(data)
        self._queue.append(data)
        if now:
            if not self._corks:
                self._write()
        elif not self._flushing:
            self._flush_later()

    def post_volatile(self, message: Message) -> None:
        """Send a message that is neither counted nor kept: dropped if the link is down.

        Raises:
            NotSerialisableError: if it is larger than what the other side takes.

        """
        connection = self._connection
        if connection is None or connection.ended or self.is_closed:
            return
        data = encode(message)
        if len(data) > self._largest:
            raise self._refusal(data)
        self._queue.append(Volatile(data, connection))
        if not self._corks:
            self._write()

    def _refusal(self, data: bytes) -> NotSerialisableError | ConnectionLostError:
        if self.is_closed:
            return ConnectionLostError("the link is closed")
        return NotSerialisableError(
            f"a message of {len(data)} bytes, but the other side takes at most {self._largest}"
        )

    def cork(self) -> None:
        """Hold back what is posted, until as many calls of ``uncork()``."""
        self._corks.append(None)

    def uncork(self) -> None:
        """End a ``cork()``; the last one writes all that is queued."""
        self._corks.pop()
        if not self._corks:
            self._write()

    def _write(self, *, patient: bool = False) -> None:
        """Write what may be written, unless another thread does.

        Args:
            patient: wait for a carrier that takes no more; else a background thread does.

        """
        while (
            (connection := self._connection) is not None
            and not connection.ended
            and connection.broken is None
            and self._outgoing.is_ready()
            and self._writing.acquire(blocking=False)
        ):
            if not self._write_as_writer(patient=patient):
                return

    def _write_as_writer(self, *, patient: bool) -> bool:
        """Write all that may be, then stop being the writer; false if a thread goes on."""
        connection = self._connection
        if connection is None:  # detached, just before it became ours to write
            self._writing.release()
            return True
        carrier = connection.carrier
        take = self._outgoing.take
        error: Exception | None = None
        try:
            while not connection.ended and connection.broken is None:
                data = connection.rest or take(connection)
                if not data:
                    break
                taken = carrier.send(data)
                self.bytes_sent += taken
                if taken == len(data):
                    connection.rest = b""
                    continue
                connection.rest = memoryview(data)[taken:]
                if not patient:
                    run_elsewhere(self._write_on)
                    return False
                carrier.wait_writable(None)
        except OSError as caught:
            error = caught
        except BaseException as caught:
            # An interrupt: nobody knows what the carrier has taken.
            self._writing.release()
            self._break(connection, ConnectionLostError(f"interrupted by {caught!r}"))
            raise
        self._writing.release()
        if error is not None:
            self._break(connection, error)
        elif self.on_writable is not None:
            self._tell_writable()
        return True

    def _write_on(self) -> None:
        """Go on for a thread that could not wait, which has left us its being the writer."""
        self._write_as_writer(patient=True)
        self._write(patient=True)

    def _flush_later(self) -> None:
        """Have a background thread write what is queued, if that is possible."""
        # Who writes just now looks at the queue again afterwards.
        if self.is_up and not self._writing.locked() and self._outgoing.is_ready():
            self._flushing = True
            run_elsewhere(self._flush)

    def _flush(self) -> None:
        while True:
            self._write(patient=True)
            self._flushing = False
            # Who posted before that relied on us.
            if not (self.is_up and self._outgoing.is_ready()) or self._writing.locked():
                return
            self._flushing = True

    def _tell_writable(self) -> None:
        told = self.on_writable
        if told is not None and not self._queue and self.is_writable:
            told()

    def _break(self, connection: Connection, error: Exception) -> None:
        """Write no more. Who reads ends it, after what has arrived."""
        connection.broken = error
        if connection.ended:
            return
        try:
            readable = connection.carrier.wait_readable(0)
        except OSError:
            readable = False
        if not connection.has_reader:
            self._end(connection, error)
        elif not readable:
            connection.shut()
