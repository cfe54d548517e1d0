"""The pipe between a process and a child of its own."""

from __future__ import annotations

import socket

from asyncmachine.net.carriers.socket import SocketCarrier

__all__ = ["pipe_ends", "taken_over"]


def pipe_ends() -> tuple[SocketCarrier, socket.socket]:
    """Make a pipe; give our end, and the end that a child inherits."""
    ours, theirs = socket.socketpair()
    return SocketCarrier(ours), theirs


def taken_over(fd: int) -> SocketCarrier:
    """Take over the end that was inherited."""
    return SocketCarrier(socket.socket(fileno=fd))
