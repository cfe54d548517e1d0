"""A real proxy between client and server, that can cut all connections at any byte."""

from __future__ import annotations

import select
import socket
import threading
from typing import Self


class Relay:
    """Relays TCP connections to an address, on a thread of its own.

    Attributes:
        address: where clients connect.
        cuts: how many connections were cut.

    """

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._left: list[int] = []
        self.refusing = False
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def cut_after(self, *sizes: int) -> None:
        """Cut the connections, one after the other, after so many bytes each."""
        with self._lock:
            self._left.extend(sizes)

    def cut(self) -> None:
        """Cut all connections now."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _shut(*pair)

    def aim(self, target: str) -> None:
        """Relay later connections to another address."""
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = (host, int(port))

    def close(self) -> None:
        self.refusing = True
        _shut(self._listener)
        self._thread.join()
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        threads = []
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                break
            if self.refusing:
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
                left = self._left.pop(0) if self._left else -1
            threads.append(threading.Thread(target=self._relay, args=(near, far, left)))
            threads[-1].start()
        self.cut()
        for thread in threads:
            thread.join()

    def _relay(self, near: socket.socket, far: socket.socket, left: int) -> None:
        other = {near: far, far: near}
        with near, far:
            while True:
                for each in select.select([near, far], [], [])[0]:
                    try:
                        data = each.recv(4096)
                        if left >= 0:
                            data = data[:left]
                            left -= len(data)
                        if data:
                            other[each].sendall(data)
                    except OSError:
                        data = b""
                    if not data or left == 0:
                        self.cuts += left == 0
                        _shut(near, far)
                        with self._lock:
                            self._pairs = [each for each in self._pairs if each[0] is not near]
                        return


def _shut(*socks: socket.socket) -> None:
    for sock in socks:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
