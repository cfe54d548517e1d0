"""The pipe between a process and a child of its own: a pair of sockets without a name."""

from __future__ import annotations

import socket

__all__ = ["pipe_ends", "taken_over"]


def pipe_ends() -> tuple[socket.socket, socket.socket]:
    """Make a pipe; give our end, and the end that a child inherits."""
    return socket.socketpair()


def taken_over(fd: int) -> socket.socket:
    """Take over the end that was inherited; no program started from here inherits it again."""
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    return sock
