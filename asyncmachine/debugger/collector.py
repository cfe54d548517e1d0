"""Receiving feeds: listens, decodes, and gives whole records to a sink.

Guarantees: one thread serves all senders. A sender that sends what is malformed or too
large is closed, logged and counted, and harms no other one. What comes is decoded by
schema and never unpickled; of each sender no more than one frame is kept. A sink that is
slow slows down the senders, whose rings drop what does not fit; one that raises is logged.
"""

from __future__ import annotations

import logging
import socket
from selectors import EVENT_READ, DefaultSelector
from threading import Event, Thread, current_thread
from typing import TYPE_CHECKING, Final

from asyncmachine.debugger.assembling import Assembler
from asyncmachine.debugger.errors import FeedError
from asyncmachine.debugger.records import EndRecord
from asyncmachine.telemetry.addresses import Address
from asyncmachine.telemetry.packets import LENGTH, MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self, TypeAlias

    from asyncmachine.debugger.records import Record

    Sink: TypeAlias = Callable[[list[Record]], object]

__all__ = ["Collector"]

_log: Final = logging.getLogger("asyncmachine")
_CHUNK: Final = 1 << 18
_LAST_ROUNDS: Final = 64
_PAUSE: Final = 0.5  # before looking again for newcomers when there are no more files


class _Sender:
    """One connection."""

    def __init__(self, sock: socket.socket, name: str, most_bytes: int) -> None:
        self.sock = sock
        self.name = name
        self.assembler = Assembler()
        self.known = False  # others of the same process have been ended
        self.over = False  # it has said good-bye
        self._most_bytes = most_bytes
        self._buffer = bytearray()

    def receive(self) -> bool:
        """Read what has come; false if there is no more."""
        try:
            data = self.sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):  # pragma: no cover - the system's mood
            return True
        self._buffer += data
        return bool(data)

    def frames(self) -> Iterator[list[Record]]:
        """Give the records of each frame that is whole.

        Raises:
            FeedError: for the first one that is malformed.

        """
        buffer = self._buffer
        at = 0
        while len(buffer) - at >= LENGTH.size:
            (size,) = LENGTH.unpack_from(buffer, at)
            if size > self._most_bytes:
                msg = f"a frame of {size} bytes, where {self._most_bytes} are allowed"
                raise FeedError(msg)
            end = at + LENGTH.size + size
            if end > len(buffer):
                break
            records = self.assembler.take(bytes(buffer[at + LENGTH.size : end]))
            self.over = self.over or any(isinstance(each, EndRecord) for each in records[-1:])
            yield records
            at = end
        del buffer[:at]


class Collector:
    """Receives feeds until it is closed.

    Args:
        sink: called with a list of records, in the order in which they came; always by
            the same thread, one call at a time.
        address: where to listen: ``host:port``; port 0 takes a free one.
        most_bytes: no frame may be larger.
        most_senders: how many connections there may be; more are closed at once.

    Attributes:
        address: where it listens, with the real port.
        malformed: how many senders were closed for what they sent.

    Raises:
        ValueError: if the address is malformed.
        OSError: if nobody can listen there.

    Example:
        >>> from asyncmachine import Machine, State
        >>> from asyncmachine.telemetry.feed import attach
        >>> machine = Machine({"Foo": State()}, id="door")
        >>> heard = []
        >>> with Collector(heard.extend) as collector:
        ...     with attach(machine, collector.address) as feed:
        ...         machine.add("Foo"), feed.wait_connected(5)
        ...     collector.wait_idle(5)
        (Result.EXECUTED, True)
        True
        >>> [type(record).__name__ for record in heard][:3]
        ['MachineRecord', 'ClockRecord', 'TransitionRecord']

    """

    def __init__(
        self,
        sink: Sink,
        address: str = "localhost:0",
        *,
        most_bytes: int = MOST_BYTES,
        most_senders: int = 512,
    ) -> None:
        self._sink = sink
        self._most_bytes = most_bytes
        self._most_senders = most_senders
        self.malformed = 0
        self._received = self._dropped = 0  # from senders that are gone
        self._senders: set[_Sender] = set()
        self._closing = False
        self._listener = _listen(Address.parse(address))
        host, port = self._listener.getsockname()[:2]
        self.address = str(Address(host, port))
        self._heard, self._bell = socket.socketpair()
        self._selector = DefaultSelector()
        self._selector.register(self._listener, EVENT_READ)
        self._selector.register(self._heard, EVENT_READ)
        self._idle = Event()
        self._thread = Thread(target=self._run, name=f"collector at {self.address}", daemon=True)
        self._thread.start()

    @property
    def received(self) -> int:
        """How many transitions have come."""
        return self._received + sum(each.assembler.received for each in tuple(self._senders))

    @property
    def dropped(self) -> int:
        """How many transitions were dropped by their senders, as far as they have told."""
        return self._dropped + sum(each.assembler.dropped for each in tuple(self._senders))

    @property
    def senders(self) -> int:
        """How many connections there are."""
        return len(self._senders)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until a sender has come and none is there any more; false after ``timeout``."""
        return self._idle.wait(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Take what has arrived, and end.

        Args:
            timeout: seconds to wait for a sink that is busy.

        """
        self._closing = True
        try:
            self._bell.send(b"\0")
        except OSError:  # closed before
            return
        if current_thread() is not self._thread:
            self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    # On its thread ----------------------------------------------------------------------

    def _run(self) -> None:
        pause: float | None = None
        try:
            while not self._closing:
                ready = self._selector.select(pause)
                if pause is not None:
                    pause = None
                    self._selector.register(self._listener, EVENT_READ)
                for key, _ in ready:
                    if key.fileobj is self._listener:
                        if not self._welcome():
                            self._selector.unregister(self._listener)
                            pause = _PAUSE
                    elif key.data in self._senders:  # and not ended by another one
                        self._hear(key.data)
        except Exception:  # noqa: BLE001  # pragma: no cover - nothing is known to come here
            _log.exception("the collector at %s has ended with an error", self.address)
        finally:
            self._end()

    def _end(self) -> None:
        self._listener.close()
        # What has arrived is taken, as long as it is not more than that.
        for _ in range(_LAST_ROUNDS):
            arrived = [key.data for key, _ in self._selector.select(0)]
            senders = [each for each in arrived if isinstance(each, _Sender)]
            for sender in senders:
                if sender in self._senders:
                    self._hear(sender)
            if not senders:
                break
        for sender in tuple(self._senders):
            self._part(sender)
        self._selector.close()
        self._heard.close()
        self._bell.close()
        self._idle.set()

    def _welcome(self) -> bool:
        """Take a newcomer in; false if there are no more files to be had."""
        try:
            sock, peer = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return True  # it has gone again
        except OSError as error:
            _log.warning("the collector at %s takes nobody: %s", self.address, error)
            return False
        if len(self._senders) >= self._most_senders:
            _log.warning("the collector at %s has %d senders", self.address, self._most_senders)
            sock.close()
            return True
        sock.setblocking(False)
        # A host that is cut off says no good-bye, and nothing is ever sent to it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sender = _Sender(sock, str(Address(*peer[:2])), self._most_bytes)
        self._senders.add(sender)
        self._idle.clear()
        self._selector.register(sock, EVENT_READ, sender)
        return True

    def _hear(self, sender: _Sender) -> None:
        try:
            more = sender.receive()
            for records in sender.frames():
                if not sender.known:
                    self._end_former(sender)
                self._give(records)
        except FeedError as error:
            self.malformed += 1
            _log.warning("the feed from %s is closed: %s", sender.name, error)
            self._part(sender)
        except OSError:
            self._part(sender)
        else:
            if not more:
                self._part(sender)

    def _end_former(self, sender: _Sender) -> None:
        """End a connection that its process has given up, before that tells all anew.

        Its end may come much later: from a host that was cut off, or behind what is unread.
        """
        sender.known = True
        hello = sender.assembler.hello
        for other in tuple(self._senders):
            theirs = other.assembler.hello
            if other is sender or hello is None or theirs is None:
                continue
            if theirs.process == hello.process:
                for _ in range(_LAST_ROUNDS):
                    if other in self._senders:
                        self._hear(other)
                if other in self._senders:
                    self._part(other)

    def _part(self, sender: _Sender) -> None:
        self._selector.unregister(sender.sock)
        sender.sock.close()
        hello = sender.assembler.hello
        if hello is not None and not sender.over:
            self._give([EndRecord(hello.process, "lost")])
        self._received += sender.assembler.received
        self._dropped += sender.assembler.dropped
        self._senders.discard(sender)
        if not self._senders:
            self._idle.set()

    def _give(self, records: list[Record]) -> None:
        if not records:
            return
        try:
            self._sink(records)
        except Exception:  # noqa: BLE001 - it is the user's code
            _log.exception("the sink of the collector at %s has failed", self.address)


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.create_server(address, family=family, backlog=512)
    listener.setblocking(False)
    return listener
