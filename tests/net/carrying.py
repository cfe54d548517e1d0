"""Carriers for tests of links that break."""

from __future__ import annotations

import socket

from asyncmachine.net.carriers.socket import SocketCarrier


class Cut(SocketCarrier):
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
