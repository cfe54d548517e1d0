"""What a link has still to write, and what it has written and may have to write again.

Guarantees:

- Messages leave in the order in which they came, volatile ones among them; those that are
  counted leave exactly once per session, however often the carrier changes.
- At most `WINDOW` messages or `WINDOW_BYTES` are unacknowledged at a time. What the
  receiver may hold back without an Ack (`ACK_EVERY`, `ACK_BYTES`) never fills a window,
  and a larger message passes once no more than that is on the way.
- ``add()`` never blocks, from any thread.

Assumes that one thread at a time calls what takes or rewinds (it holds the link's claim to
write), and that ``acknowledge()`` is not called while another thread rewinds.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from asyncmachine.net.errors import ProtocolError
from asyncmachine.net.wire import FRAME_OVERHEAD, MAX_FRAME, Ack, encode, frame

__all__ = ["ACK_BYTES", "ACK_EVERY", "WINDOW", "WINDOW_BYTES", "Outgoing", "Volatile"]

WINDOW: Final = 8192
WINDOW_BYTES: Final = 8 * 2**20
# The receiver tells what it has got after so many messages or bytes.
ACK_EVERY: Final = 512
ACK_BYTES: Final = 512 * 1024
# Larger frames cost latency: the receiver sees to none of it before all is there.
_BATCH: Final = 64 * 1024
# One write, of several frames.
_CHUNK: Final = 256 * 1024
_UNBOUNDED: Final = 1 << 62


class Volatile:
    """An encoded message that is dropped with the connection it was meant for."""

    __slots__ = ("connection", "data")

    def __init__(self, data: bytes, connection: object) -> None:
        self.data = data
        self.connection = connection


class Outgoing:
    """A queue of messages, and the window.

    Args:
        retain: whether to keep counted messages until they are acknowledged.

    Attributes:
        queue: what was never written; append encoded messages or `Volatile` ones.
        received: how many counted messages have arrived; who reads counts them.
        ack_due: set by who reads, *after* it has counted: the next chunk begins with an Ack.
        taken: how many messages were taken to be written, again or volatile ones included.

    """

    __slots__ = (
        "_acked",
        "_acked_bytes",
        "_batch",
        "_dropping",
        "_ending",
        "_last",
        "_retain",
        "_unacked",
        "_written",
        "_written_bytes",
        "ack_due",
        "queue",
        "received",
        "taken",
    )

    def __init__(self, *, retain: bool) -> None:
        self.queue: deque[bytes | Volatile] = deque()
        self.received = self.taken = 0
        self.ack_due = False
        self._retain = retain
        self._unacked: deque[bytes] = deque()
        # Who writes counts the first of each pair, who acknowledges the second.
        self._written = self._acked = 0
        self._written_bytes = self._acked_bytes = 0
        self._batch = min(_BATCH, MAX_FRAME) - FRAME_OVERHEAD
        self._ending = self._dropping = False
        self._last = b""

    @property
    def unacknowledged(self) -> int:
        """How many messages are kept in case that they must be written again."""
        return len(self._unacked)

    def is_ready(self) -> bool:
        """Whether there is something that may be written now."""
        if not self.queue:
            return self.ack_due or self._last != b""
        if not self._retain or self.ack_due or self._ending:
            return True
        if self._written - self._acked >= WINDOW:
            return type(self._first()) is Volatile
        on_the_way = self._written_bytes - self._acked_bytes
        if on_the_way < ACK_BYTES:
            return True
        first = self._first()
        return not isinstance(first, bytes) or on_the_way + len(first) <= WINDOW_BYTES

    def _first(self) -> bytes | Volatile | None:
        try:
            return self.queue[0]
        except IndexError:  # who writes has just taken it
            return None

    def take(self, connection: object) -> bytes:
        """Give the next frames that may be written, in one piece; nothing if there are none.

        Args:
            connection: where they will be written: volatile ones for another are dropped.

        """
        queue = self.queue
        if not (self.ack_due or self._last or self._dropping):
            if not queue:
                return b""
            if len(queue) == 1 and type(queue[0]) is bytes:
                return self._take_one(queue[0])
        frames: list[bytes] = []
        if self.ack_due:
            self.ack_due = False  # first: what arrives from here on asks again
            frames.append(frame([encode(Ack(self.received))], volatile=True))
        if self._dropping:
            queue.clear()
        size = 0
        while queue and size < _CHUNK:
            if type(queue[0]) is Volatile:
                made = self._take_volatile(connection)
            else:
                made = self._take_counted()
            if not made:
                break
            frames.append(made)
            size += len(made)
        if not queue and self._last:
            frames.append(self._last)
            self._last = b""
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _take_one(self, data: bytes) -> bytes:
        """Take the only message that waits: the way of most, for somebody waits for it."""
        size = len(data)
        if self._retain:
            room, bound = self._room()
            if room <= 0 or size > bound:
                return b""
            self._unacked.append(data)
        self.queue.popleft()
        self._written_bytes += size
        self._written += 1
        self.taken += 1
        return (size + 1).to_bytes(4, "big") + b"\x91" + data  # an array of one

    def _take_counted(self) -> bytes:
        room, bound = self._room()
        queue = self.queue
        limit = min(self._batch, bound)
        batch: list[bytes] = []
        size = 0
        while queue and len(batch) < room:
            data = queue[0]
            if type(data) is not bytes:
                break
            size += len(data)
            if size > bound:
                size -= len(data)
                break
            batch.append(data)
            queue.popleft()
            bound = limit
        if not batch:
            return b""
        if self._retain:
            self._unacked.extend(batch)
        self._written_bytes += size
        self._written += len(batch)
        self.taken += len(batch)
        return frame(batch)

    def _room(self) -> tuple[int, int]:
        """How many messages may be written, and how long the first one may be."""
        if not self._retain or self._ending:
            return WINDOW, _UNBOUNDED
        on_the_way = self._written_bytes - self._acked_bytes
        return (
            WINDOW - (self._written - self._acked),
            _UNBOUNDED if on_the_way < ACK_BYTES else WINDOW_BYTES - on_the_way,
        )

    def _take_volatile(self, connection: object) -> bytes:
        queue = self.queue
        batch: list[bytes] = []
        size = 0
        while queue:
            item = queue[0]
            if not isinstance(item, Volatile):
                break
            if item.connection is connection:
                size += len(item.data)
                if batch and size > self._batch:
                    break
                batch.append(item.data)
            queue.popleft()
        if batch:
            self.taken += len(batch)
            return frame(batch, volatile=True)
        # All were meant for another connection: go on with what comes after them.
        return self._take_counted() if queue else b""

    def acknowledge(self, count: int) -> None:
        """Forget messages that have arrived.

        Args:
            count: how many have arrived, all in all.

        Raises:
            ProtocolError: if so many were never written, or more were acknowledged before.

        """
        if not 0 <= count - self._acked <= len(self._unacked):
            raise self._impossible(count)
        for _ in range(count - self._acked):
            self._acked_bytes += len(self._unacked.popleft())
            self._acked += 1

    def _impossible(self, count: int) -> ProtocolError:
        return ProtocolError(
            f"the other side says that it has got {count} messages: {self._acked} were"
            f" acknowledged, {self._written} written and {len(self._unacked)} of them kept"
        )

    def rewind(self, count: int, max_frame: int) -> None:
        """Put what has not arrived back in front of the queue.

        Args:
            count: how many have arrived, all in all.
            max_frame: bytes that a frame may have from now on.

        Raises:
            ProtocolError: as for ``acknowledge()``.

        """
        missing = self._written - count
        if not 0 <= missing <= len(self._unacked):
            raise self._impossible(count)
        again = list(self._unacked)[len(self._unacked) - missing :]
        self._unacked.clear()
        self._written = self._acked = count
        self._acked_bytes = self._written_bytes
        self.ack_due = False
        self._batch = min(_BATCH, max_frame) - FRAME_OVERHEAD
        self.queue.extendleft(reversed(again))

    def end(self, last: bytes, *, drop: bool) -> None:
        """Have a frame written last; the window no longer counts.

        Args:
            last: that frame.
            drop: whether to drop what is queued.

        """
        self._dropping = drop
        self._last = last
        self._ending = True
