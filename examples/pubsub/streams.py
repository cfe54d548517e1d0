"""Streams between hosts: pipes of frames, wherever the two live."""

from __future__ import annotations

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
        """Send a frame; an empty one is the end."""

    def close(self) -> None:
        """Say that this was all, and send nothing any more."""


class LocalStream:
    """To a host of the same process: a pipe into its machine."""

    def __init__(self, source: Machine, target: Machine) -> None:
        self._pipe = Pipe(source, target)
        self._passed = (source.id,)

    def send(self, frame: bytes) -> None:
        pipe = self._pipe
        if pipe.closed:  # as a connection that is reset
            pipe.source.send("add", "PeersDead", peers=[pipe.target.id])
        else:
            args: dict[str, object] = {"peer": pipe.source.id, "rpc": frame}
            pipe.deliver("add", _INCOMING, args, self._passed)

    def close(self) -> None:
        self.send(b"")
        self._pipe.close()


class DeadEnd:
    """To a host that is not there any more: what is sent is lost, as on any network."""

    def send(self, frame: bytes) -> None: ...

    def close(self) -> None: ...


class DelayedStream:
    """The same over a network that takes its time; frames stay in order."""

    def __init__(self, stream: Stream, clock: Clock, latency: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._latency = latency
        self._last = 0.0  # when the last frame arrives

    def send(self, frame: bytes) -> None:
        now = self._clock.now()
        self._last = max(self._last, now + self._latency())
        self._clock.call_later(self._last - now, lambda: self._stream.send(frame))

    def close(self) -> None:
        now = self._clock.now()
        self._clock.call_later(max(self._last - now, 0.0), self._stream.close)


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

    def close(self) -> None:
        self.send(b"")
        self._closed = True
