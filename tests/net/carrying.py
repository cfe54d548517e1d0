"""Carriers for tests of links: plain sockets, and such as break."""

from __future__ import annotations

import select
import socket


class Plain:
    """A carrier over a connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.peer = "a test"

    def fileno(self) -> int:
        return self.sock.fileno()

    def receive(self) -> bytes:
        return self.sock.recv(1 << 16)

    def receive_now(self) -> bytes | None:
        try:
            return self.sock.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def wait_readable(self, timeout: float | None) -> bool:
        return self._wait(select.POLLIN, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return self._wait(select.POLLOUT, timeout)

    def _wait(self, events: int, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self.sock.fileno(), events)
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def send(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Cut(Plain):
    """A carrier whose connection breaks after so many bytes."""

    def __init__(self, sock: socket.socket, after: int) -> None:
        super().__init__(sock)
        self.left = after

    def send(self, data: bytes | memoryview) -> int:
        taken = super().send(memoryview(data)[: self.left])
        self.left -= taken
        if self.left == 0:
            self.close()
        return taken
