"""An ordered stream of messages over a carrier, which may be replaced by another one.

Guarantees:

- Counted messages arrive exactly once and in order, also across carriers, as long as both
  sides tell each other at each ``attach()`` what they have received.
- ``post()`` never blocks; see writing.py.
- One thread at a time reads, and calls ``on_messages``. No lock is held while
  ``on_messages``, ``on_down`` or ``on_writable`` runs, and they may call everything here.
- ``on_down`` is called once for each carrier that ended by itself or by ``close()``, and
  by who reads, if anybody does: what had arrived is seen to before.

Assumes that a carrier behaves as `asyncmachine.net.carriers.Carrier` says.
"""

from __future__ import annotations

from _thread import allocate_lock, get_ident
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from asyncmachine.net.connection import CAN_STAND_BY, Connection, Standby
from asyncmachine.net.errors import ConnectionLostError
from asyncmachine.net.outgoing import ACK_BYTES, ACK_EVERY
from asyncmachine.net.statistics import LinkStatistics
from asyncmachine.net.wire import FRAME_OVERHEAD, MAX_FRAME, Ack, Bye, encode, frame
from asyncmachine.net.writing import Writer
from asyncmachine.oneshot import deadline_after, time_left
from asyncmachine.threads import run_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.net.carriers import Carrier
    from asyncmachine.net.wire import Message
    from asyncmachine.oneshot import OneShot

__all__ = ["Link"]

# How long the rest and the farewell may take, in seconds.
_CLOSING: Final = 1.0
_ABANDONING: Final = 5.0


class Link(Writer):
    """One end of the stream.

    Args:
        on_messages: gets what one read has completed, on the thread that reads; returns
            whether that thread is to read on. If not, another one has to call
            ``read_on()``, and may have done so already.
        on_down: told once of each carrier that has ended: the error, or None for an
            orderly end (then ``farewell`` is the reason that the other side gave, if any).
        retain: keep counted messages until they are acknowledged, for another carrier.
            Without it nothing is acknowledged.
        stealing: let threads that wait for a message read it themselves.
        max_frame: bytes that a frame of the other side may have.

    Attributes:
        on_writable: called by the thread that has just emptied the queue, or None.
        farewell: why the other side has ended the link, or None if it has not.
        reconnects: how many carriers there were after the first.
        bytes_sent: bytes that the carriers took.
        bytes_received: bytes that they gave.
        messages_received: messages that were handed over.

    """

    def __init__(
        self,
        on_messages: Callable[[list[Message]], bool],
        on_down: Callable[[Exception | None], object],
        *,
        retain: bool = True,
        stealing: bool = False,
        max_frame: int = MAX_FRAME,
    ) -> None:
        super().__init__(retain=retain)
        self.farewell: str | None = None
        self.reconnects = -1
        self.bytes_received = self.messages_received = 0
        self._on_messages = on_messages
        self._on_down = on_down
        self._retain = retain
        self._stealing = stealing and CAN_STAND_BY
        self._max_frame = max_frame
        self._lock = allocate_lock()  # guards which connection it is, and that it has ended
        self._ack_at = ACK_EVERY  # received
        self._unacked_bytes = 0  # received

    # The carrier ----------------------------------------------------------------------------

    def attach(
        self, carrier: Carrier, *, peer_received: int = 0, peer_max_frame: int = MAX_FRAME
    ) -> None:
        """Use a carrier from now on: first for what the other side has not received.

        Args:
            carrier: the new one; the old one, if any, is detached.
            peer_received: how many messages the other side has received in this session.
            peer_max_frame: bytes that it takes in one frame.

        Raises:
            ProtocolError: if it can not have received so many, or what it lacks is gone.
            ConnectionLostError: if the link is closed; the carrier is closed then, too.

        """
        self.detach()
        with self._writing:
            if not self.is_closed:
                self._outgoing.rewind(peer_received, peer_max_frame)
            with self._lock:
                closed = self.is_closed
                if not closed:
                    self._largest = peer_max_frame - FRAME_OVERHEAD
                    self._connection = Connection(carrier, self._max_frame)
                    self.farewell = None
                    self.reconnects += 1
                    # The other side was told what has arrived when it attached.
                    self._ack_at = self.received + ACK_EVERY
                    self._unacked_bytes = 0
        if closed:
            carrier.close()
            raise ConnectionLostError("the link is closed")
        self._write()
        self._tell_writable()

    def detach(self) -> int:
        """Close the carrier, and wait until no thread reads or writes with it.

        The thread that reads may call this itself. ``on_down`` is not called.

        Returns:
            How many counted messages have been received in this session.

        """
        connection = self._connection
        if connection is not None:
            with self._lock:
                connection.ended = True
            connection.shut()
            if not connection.leave():
                with connection.reading:
                    pass
            with self._writing:
                pass
            with self._lock:
                if self._connection is connection:
                    self._connection = None  # a carrier is let go when nobody refers to it
        return self.received

    def _end(self, connection: Connection, error: Exception | None) -> None:
        """Have done with a connection, and tell so; again does nothing."""
        first = self._is_first(connection, ended=True)
        connection.shut()
        connection.leave()
        if first:
            self._on_down(error)

    def _is_first(self, connection: Connection, *, ended: bool) -> bool:
        """Whether nobody was told of the end of a connection yet; somebody is then."""
        with self._lock:
            first = not (connection.ended or connection.told)
            connection.told = True
            connection.ended = connection.ended or ended
        return first

    # The end ----------------------------------------------------------------------------------

    def close(self, reason: str = "") -> None:
        """Write what is queued if that takes less than a second, say farewell, and close.

        Args:
            reason: what the other side is told.

        """
        if self._begin_end(reason, drop=False):
            self._finish(_CLOSING, linger=False)

    def abandon(self, reason: str) -> None:
        """Close in the face of a peer that does not keep up: drop what is queued.

        Returns at once. The peer gets the reason if it takes it within 5 s; what it sends
        until then is read and dropped, for what is left unread could make the system take
        back what was written.

        Args:
            reason: what the other side is told.

        """
        if self._begin_end(reason, drop=True):
            run_elsewhere(partial(self._finish, _ABANDONING, linger=True))

    def _begin_end(self, reason: str, *, drop: bool) -> bool:
        with self._lock:
            if self.is_closed:
                return False
            self._largest = -1
            self._outgoing.end(frame([encode(Bye(reason))], volatile=True), drop=drop)
        return True

    def _finish(self, limit: float, *, linger: bool) -> None:
        connection = self._connection
        if connection is None or connection.ended:
            return
        deadline = monotonic() + limit
        if self._writing.acquire(timeout=limit):
            try:
                self._write_the_rest(connection, deadline)
            except OSError:
                pass
            finally:
                self._writing.release()
        if linger and connection.has_reader and not connection.ended:
            connection.carrier.shut_writing()
            if self._is_first(connection, ended=False):
                self._on_down(None)
            left = max(0.0, deadline - monotonic())
            if not connection.is_mine() and connection.reading.acquire(timeout=left):
                connection.reading.release()
        self._end(connection, None)

    def _write_the_rest(self, connection: Connection, deadline: float) -> None:
        while not connection.ended and connection.broken is None:
            data = connection.rest or self._outgoing.take(connection)
            if not data:
                return
            taken = connection.carrier.send(data)
            self.bytes_sent += taken
            connection.rest = memoryview(data)[taken:]
            if connection.rest and not connection.carrier.wait_writable(
                max(0.0, deadline - monotonic())
            ):
                return

    # What it has done -------------------------------------------------------------------------

    def statistics(self, name: str) -> LinkStatistics:
        """Give what has gone over it, under a name for the other side."""
        return LinkStatistics(
            name,
            self.is_up,
            self.bytes_sent,
            self.bytes_received,
            self.messages_sent,
            self.messages_received,
            max(0, self.reconnects),
        )

    def count_on(self, before: Link) -> None:
        """Count on from where another link has stopped, in whose place this one comes."""
        self.bytes_sent += before.bytes_sent
        self.bytes_received += before.bytes_received
        self.messages_received += before.messages_received
        self._outgoing.taken += before.messages_sent
        self.reconnects = before.reconnects

    # Reading ----------------------------------------------------------------------------------

    def start_reading(self) -> None:
        """Have a background thread read the carrier until it ends."""
        connection = self._connection
        if connection is None or connection.has_reader:
            return
        connection.has_reader = True
        if self._stealing:
            try:
                connection.standby = Standby(connection.carrier)
            except (OSError, ValueError):  # closed meanwhile: the plain reader finds out
                pass
            else:
                connection.standby.wake()  # it may have been closed just before
                run_elsewhere(partial(self._stand_by, connection))
                return
        run_elsewhere(partial(self._read_alone, connection))

    def read_on(self) -> None:
        """Read on this thread, in the place of one whose ``on_messages`` returns False."""
        connection = self._connection
        if connection is None:
            return
        stood_by = connection.take_over()
        if connection.standby is None:
            self._read(connection)
        elif connection.over or connection.ended:
            self._end(connection, None)
        else:
            connection.give_back()
            if stood_by:
                self._stand_by(connection)

    def read_until(self, done: OneShot, timeout: float | None) -> bool:
        """Wait until something has happened that a message will bring about.

        The thread may read meanwhile, and call ``on_messages``: if it is the reader
        already (then it reads on within itself), or if the link is a stealing one and
        nobody else reads. While it does it sees no other cause of ``done`` than messages
        and the end of the carrier.

        Args:
            done: what to wait for.
            timeout: seconds to wait at most; ``None`` waits for ever.

        Returns:
            True if it has happened, False if the time ran out first.

        """
        deadline = deadline_after(timeout)
        connection = self._connection
        if connection is not None and not connection.ended:
            if connection.is_mine():
                self._read_within(connection, done, deadline)
            elif connection.standby is not None and connection.claim():
                try:
                    connection.standby.disarm()
                    self._read_within(connection, done, deadline)
                finally:
                    connection.give_back()
        return done.happened or done.wait(time_left(deadline))

    def _read_alone(self, connection: Connection) -> None:
        if connection.claim():
            self._read(connection)

    def _read(self, connection: Connection) -> None:
        """Read until the connection ends, or another thread goes on. We are the reader."""
        carrier = connection.carrier
        while not (connection.over or connection.ended):
            try:
                if connection.broken is None:
                    data: bytes | None = carrier.receive()
                else:
                    data = carrier.receive_now()
            except OSError as error:
                self._end(connection, error)
                return
            if not self._deliver(connection, data):
                return
        self._end(connection, None)

    def _read_within(self, connection: Connection, done: OneShot, deadline: float | None) -> None:
        """Read until ``done`` has happened. We are the reader, and may not be afterwards."""
        carrier = connection.carrier
        while not done.happened:
            if connection.over or connection.ended:
                self._end(connection, None)
                return
            try:
                if connection.broken is None:
                    left = time_left(deadline)
                    data = carrier.receive_within(left)
                    if data is None and left is not None and left <= 0:
                        return
                else:
                    data = carrier.receive_now()
            except OSError as error:
                self._end(connection, error)
                return
            if not self._deliver(connection, data):
                return

    def _stand_by(self, connection: Connection) -> None:
        """Read whenever nobody else does, until the connection ends."""
        standby = connection.standby
        assert standby is not None
        standby.ident = get_ident()
        while not connection.ended:
            standby.wait()
            if not connection.claim():
                continue  # who reads arms it again
            try:
                data = connection.carrier.receive_now()
            except OSError as error:
                self._end(connection, error)
                return
            if not self._deliver(connection, data):
                return
            connection.give_back()

    def _deliver(self, connection: Connection, data: bytes | None) -> bool:
        """See to what was read: nothing if None, the end if empty.

        Returns:
            Whether this thread is still the reader of something that may be read.

        """
        error = connection.broken
        if data is None:
            if error is None:
                return True
        elif data:
            try:
                if not self._take_in(connection, data):
                    connection.hand_over()
                    return False
            except Exception as caught:  # noqa: BLE001 - ours or the owner's: it can not go on
                error = caught
            except BaseException as caught:
                self._end(connection, ConnectionLostError(f"interrupted by {caught!r}"))
                raise
            else:
                if not connection.is_mine():
                    return False  # lost while the thread waited within itself
                if not (connection.over or connection.ended):
                    return True
                error = None
        self._end(connection, error)
        return False

    def _take_in(self, connection: Connection, data: bytes) -> bool:
        """Count and hand over the messages that are complete by now; whether to read on."""
        self.bytes_received += len(data)
        messages: list[Message] = []
        count = 0
        for counted, part in connection.frames.feed(data):
            count += counted
            some = part if counted else self._without_ours(connection, part)
            if messages:
                messages += some
            else:
                messages = some
            if connection.over:
                break
        outgoing = self._outgoing
        outgoing.received += count
        self.messages_received += len(messages)
        if self._retain:
            self._unacked_bytes += len(data)
            due = outgoing.received >= self._ack_at or self._unacked_bytes >= ACK_BYTES
            if due and count:
                self._ack_at = outgoing.received + ACK_EVERY
                self._unacked_bytes = connection.frames.incomplete
                outgoing.ack_due = True
                self._write()
        return self._on_messages(messages) if messages else True

    def _without_ours(self, connection: Connection, messages: list[Message]) -> list[Message]:
        """See to what is meant for the link itself; give the rest."""
        rest: list[Message] = []
        for message in messages:
            if isinstance(message, Ack):
                with self._lock:
                    if not connection.ended:
                        self._outgoing.acknowledge(message.count)
                self._flush_later()
            elif isinstance(message, Bye):
                self.farewell = message.reason
                connection.over = True
                break
            else:
                rest.append(message)
        return rest
