"""A relay that stands between two ends of a connection and counts the bytes each way."""

from __future__ import annotations

import socket
from threading import Thread
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = ["Relay"]

_CHUNK: Final = 64 * 1024


class Relay:
    """Takes one connection on a unix socket and passes all of it on to another.

    Args:
        path: where to listen.
        target: path of the socket that is meant.

    Attributes:
        there: bytes that went to the target so far.
        back: bytes that came from it.

    """

    def __init__(self, path: str, target: str) -> None:
        self.there = self.back = 0
        self._target = target
        self._sockets: list[socket.socket] = []
        self._listener = self._kept(socket.socket(socket.AF_UNIX))
        self._listener.bind(path)
        self._listener.listen(1)
        self._threads = [Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _kept(self, sock: socket.socket) -> socket.socket:
        self._sockets.append(sock)
        return sock

    def _serve(self) -> None:
        try:
            client = self._kept(self._listener.accept()[0])
        except OSError:
            return  # It was closed before anybody came.
        server = self._kept(socket.socket(socket.AF_UNIX))
        server.connect(self._target)
        back = Thread(target=self._pump, args=(server, client, self._count_back), daemon=True)
        back.start()
        self._pump(client, server, self._count_there)
        back.join()

    def _pump(
        self, source: socket.socket, target: socket.socket, count: Callable[[int], None]
    ) -> None:
        try:
            while data := source.recv(_CHUNK):
                count(len(data))  # Before anybody can have seen them.
                target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _count_there(self, size: int) -> None:
        self.there += size

    def _count_back(self, size: int) -> None:
        self.back += size

    def close(self) -> None:
        """Break the connection and end the threads."""
        for each in tuple(self._sockets):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(5)
        for each in tuple(self._sockets):
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
