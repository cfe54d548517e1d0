"""A connection to a receiver and a bell, which one thread waits for at once.

Guarantees: `Line.ring` may be called by any thread and never blocks; all else is called by
the thread that the line belongs to.
"""

from __future__ import annotations

import socket
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncmachine.telemetry.addresses import Address

__all__ = ["Line"]

_SEND_BUFFER: Final = 1 << 20  # bytes: a stopped receiver shall not be fed for minutes
# A program that has its own way with SIGPIPE shall not be ended by who hangs up here.
_QUIETLY: Final[int] = getattr(socket, "MSG_NOSIGNAL", 0)


class Line:
    """The bell, and the connection while there is one.

    Example:
        >>> line = Line()
        >>> line.ring()
        >>> line.wait(None)  # returns at once
        >>> line.close()

    """

    def __init__(self) -> None:
        self._heard, self._bell = socket.socketpair()
        self._heard.setblocking(False)
        self._bell.setblocking(False)
        self._selector = DefaultSelector()
        self._selector.register(self._heard, EVENT_READ)
        self._sock: socket.socket | None = None

    def ring(self) -> None:
        """End the wait of the thread, or the next one; never blocks."""
        try:
            self._bell.send(b"\0", _QUIETLY)
        except OSError:  # rung often enough, or over
            pass

    def dial(self, address: Address, patience: float) -> None:
        """Connect; to be called while there is no connection.

        Args:
            address: where the receiver listens.
            patience: how long it may take, in seconds.

        Raises:
            OSError: if nobody is there.

        """
        sock = socket.create_connection(address, patience)
        try:
            _make_ready(sock)
            self._selector.register(sock, EVENT_READ)
        except BaseException:  # it has hung up already, say
            sock.close()
            raise
        self._sock = sock

    def wait(self, timeout: float | None) -> None:
        """Wait so many seconds, or until the bell rings.

        Raises:
            ConnectionResetError: if the receiver is gone.

        """
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._heard:
                try:
                    self._heard.recv(4096)
                except BlockingIOError:  # pragma: no cover - somebody rang in vain
                    pass
            elif events & EVENT_READ and self._sock is not None and not self._sock.recv(4096):
                raise ConnectionResetError("the receiver has closed the connection")

    def send(self, frame: memoryview) -> int:
        """Send what there is room for, and give how many bytes that were."""
        assert self._sock is not None
        try:
            return self._sock.send(frame, _QUIETLY)
        except BlockingIOError:
            return 0

    def wait_for_room(self, timeout: float) -> None:
        """Wait so many seconds, or until the bell rings or something can be sent.

        Raises:
            ConnectionResetError: if the receiver is gone.

        """
        assert self._sock is not None
        self._selector.modify(self._sock, EVENT_READ | EVENT_WRITE)
        try:
            self.wait(timeout)
        finally:
            self._selector.modify(self._sock, EVENT_READ)

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._selector.unregister(sock)
            sock.close()

    def close(self) -> None:
        """Close the connection and the bell; who rings from now on is not heard."""
        self._selector.close()
        self._heard.close()
        self._bell.close()
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _make_ready(sock: socket.socket) -> None:
    if sock.getsockname() == sock.getpeername():  # pragma: no cover - TCP can do that
        raise ConnectionRefusedError("nobody listens but this connection itself")
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
