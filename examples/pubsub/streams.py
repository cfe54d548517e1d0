"""Streams between hosts: pipes of frames, wherever the two live."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from asyncmachine import Pipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine import Machine
    from examples.pubsub.clock import Clock

__all__ = ["DeadEnd", "DelayedStream", "LocalStream", "RemoteStream", "Stream"]

_INCOMING = "IncomingRPC"


class Stream(Protocol):
    """One direction of a connection between two hosts."""

    def send(self, frame: bytes) -> None:
        """Send a frame."""

    def close(self, *, farewell: bool = True) -> None:
        """Send nothing any more.

        Args:
            farewell: say so, with an empty frame; not to who has said so first.

        """


class LocalStream:
    """To a host of the same process: a pipe into its machine."""

    def __init__(self, source: Machine, target: Machine) -> None:
        self._pipe = Pipe(source, target)
        self._passed = (source.id,)
        self._closed = False

    def send(self, frame: bytes) -> None:
        pipe = self._pipe
        args: dict[str, object] = {"peer": pipe.source.id, "rpc": frame}
        if not pipe.closed:
            pipe.deliver("add", _INCOMING, args, self._passed)
        elif self._closed or pipe.target.is_disposed:  # as a connection that is reset
            pipe.source.send("add", "PeersDead", peers=[pipe.target.id])
        else:  # who has sent it is gone, but it was under way
            pipe.target.send("add", _INCOMING, **args)

    def close(self, *, farewell: bool = True) -> None:
        if farewell:
            self.send(b"")
        self._closed = True
        self._pipe.close()


class DeadEnd:
    """To a host that is not there any more: what is sent is lost, as on any network."""

    def send(self, frame: bytes) -> None: ...

    def close(self, *, farewell: bool = True) -> None: ...


class DelayedStream:
    """The same over a network that takes its time; frames stay in order."""

    def __init__(self, stream: Stream, clock: Clock, latency: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._latency = latency
        self._under_way: deque[bytes | None] = deque()
        self._last = 0.0  # when the last frame arrives
        self._closed = False

    def send(self, frame: bytes) -> None:
        if not self._closed:
            self._put(frame)

    def close(self, *, farewell: bool = True) -> None:
        if not self._closed:
            self._put(b"" if farewell else None)
        self._closed = True

    def _put(self, frame: bytes | None) -> None:
        now = self._clock.now()
        self._last = max(self._last, now + self._latency())
        self._under_way.append(frame)
        self._clock.call_later(self._last - now, self._arrive)

    def _arrive(self) -> None:
        # The oldest, whichever of two calls at about the same time this is.
        frame = self._under_way.popleft()
        if frame:
            self._stream.send(frame)
        else:
            self._stream.close(farewell=frame is not None)


class RemoteStream:
    """To a host of another process: one of many in the pipe between the two sites."""

    def __init__(self, carrier: Machine, state: str, source: str, site: int, target: str) -> None:
        self._carrier = carrier
        self._state = state
        self._args = {"what": "rpc", "to": target, "peer": source, "site": site}
        self._closed = False

    def send(self, frame: bytes) -> None:
        if not self._closed:
            self._carrier.add(self._state, **self._args, rpc=frame)

    def close(self, *, farewell: bool = True) -> None:
        if farewell:
            self.send(b"")
        self._closed = True
