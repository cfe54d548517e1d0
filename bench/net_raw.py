"""The raw carriers that a network is held against: sockets and pipes, and nothing on top.

The messages have the size of ours, four bytes of length in front. The other end is a
spawned process that reads the message and answers, and does not look into it.
"""

from __future__ import annotations

import socket
import struct
from contextlib import closing
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from bench.measure import BenchError, Loop
from bench.processes import STARTED_S, process

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from multiprocessing.connection import Connection
    from pathlib import Path

    from bench.measure import Subject

__all__ = ["pipe_round_trip", "socket_round_trip", "socket_stream"]

_LENGTH: Final = struct.Struct(">I")
_CHUNK: Final = 64 * 1024
_ACK: Final = b"\x01"


# Length-prefixed messages on a stream, as they are mostly written.


def _send(sock: socket.socket, payload: bytes) -> None:
    sock.sendall(_LENGTH.pack(len(payload)) + payload)


def _receive(sock: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    return _exactly(sock, length)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


class _Buffered:
    """The same with a buffer, which saves the second ``recv`` of a message."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()

    def receive(self) -> bytes:
        buffer = self._buffer
        while len(buffer) < 4 or len(buffer) < 4 + int.from_bytes(buffer[:4], "big"):
            part = self._sock.recv(_CHUNK)
            if not part:
                raise EOFError
            buffer += part
        end = 4 + int.from_bytes(buffer[:4], "big")
        payload = bytes(buffer[4:end])
        del buffer[:end]
        return payload


def socket_round_trip(
    stack: ExitStack, folder: Path, there: int, back: int, *, buffered: bool = False
) -> Subject:
    """Say so many bytes to a process over a unix socket, and hear so many, framing included."""
    path = str(folder / ("raw-buffered.sock" if buffered else "raw.sock"))
    sock = _joined(stack, path, _answer, _payload(back), buffered)
    receive = _Buffered(sock).receive if buffered else lambda: _receive(sock)
    payload, answer = _payload(there), _payload(back)

    def say_and_hear() -> bytes:
        _send(sock, payload)
        return receive()

    return _proven(Loop("ask()", names={"ask": say_and_hear}), say_and_hear, answer)


def pipe_round_trip(stack: ExitStack, there: int, back: int) -> Subject:
    """The same along a pipe of ``multiprocessing``, which adds its own length."""
    payload, answer = _payload(there), _payload(back)
    line = stack.enter_context(process(_answer_line, answer))

    def say_and_hear() -> bytes:
        line.send_bytes(payload)
        return line.recv_bytes()

    return _proven(Loop("ask()", names={"ask": say_and_hear}), say_and_hear, answer)


def socket_stream(stack: ExitStack, folder: Path, size: int) -> Subject:
    """Say many messages of so many bytes, framing included, in writes of 64 KiB.

    The other end takes them apart one by one, and says so in the end.
    """
    sock = _joined(stack, str(folder / "raw-stream.sock"), _take_apart)
    return _Stream(sock, _payload(size))


class _Stream:
    steps = 2  # What it is compared with is an add and a remove.
    loops = 1

    def __init__(self, sock: socket.socket, payload: bytes) -> None:
        self._sock = sock
        self._payload = payload

    def run(self, times: int) -> int:
        """Announce how many will come, send them, and wait for the answer."""
        sock, payload, pack = self._sock, self._payload, _LENGTH.pack
        many = times * self.steps
        started = perf_counter_ns()
        buffer = bytearray(_LENGTH.pack(many))
        for _ in range(many):
            buffer += pack(len(payload))
            buffer += payload
            if len(buffer) >= _CHUNK:
                sock.sendall(buffer)
                buffer.clear()
        sock.sendall(buffer)
        answer = sock.recv(1)
        taken = perf_counter_ns() - started
        if answer != _ACK:
            msg = f"the raw stream was answered with {answer!r}"
            raise BenchError(msg)
        return taken

    def close(self) -> None: ...


def _payload(size: int) -> bytes:
    return b"x" * max(size - _LENGTH.size, 1)


def _proven(loop: Loop, ask: Callable[[], bytes], answer: bytes) -> Loop:
    if ask() != answer:
        msg = "the raw carrier does not answer as it should"
        raise BenchError(msg)
    return loop


def _joined(
    stack: ExitStack, path: str, target: Callable[..., None], *args: object
) -> socket.socket:
    """Start a process that connects to here, so that none is left waiting for us."""
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(STARTED_S)
        stack.enter_context(process(target, path, *args))
        sock, _ = listener.accept()
    sock.setblocking(True)
    return stack.enter_context(closing(sock))


# What runs in the other process.


def _answer(_: Connection[object, object], path: str, answer: bytes, buffered: bool) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.connect(path)
        receive = _Buffered(sock).receive if buffered else lambda: _receive(sock)
        try:
            while True:
                receive()
                _send(sock, answer)
        except (EOFError, OSError):
            pass


def _answer_line(line: Connection[object, object], answer: bytes) -> None:
    try:
        while True:
            line.recv_bytes()
            line.send_bytes(answer)
    except (EOFError, OSError):
        pass


def _take_apart(_: Connection[object, object], path: str) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.connect(path)
        try:
            while True:
                _take_apart_one_run(sock)
        except (EOFError, OSError):
            pass


def _take_apart_one_run(sock: socket.socket) -> None:
    (left,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    unpack = _LENGTH.unpack_from
    data = b""
    while left:
        part = sock.recv(_CHUNK)
        if not part:
            raise EOFError
        data += part
        start, end = 0, len(data)
        while end - start >= 4:
            (length,) = unpack(data, start)
            if end - start < 4 + length:
                break
            payload = data[start + 4 : start + 4 + length]
            if not payload:
                raise EOFError
            start += 4 + length
            left -= 1
        data = data[start:]
    sock.sendall(_ACK)
