"""Sends mutations that nobody waits for to one machine, as fast as it takes them.

Guarantees: they are sent in the order they were given. So many may be under way
(``SEND_WINDOW``); more wait here: whoever may wait does, and for whom must not (a handler)
they are kept, up to the limit. While the connection is down all are kept. No lock is held
while somebody waits or is told.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from asyncmachine.net.errors import NotAllowedError, NotSerialisableError
from asyncmachine.net.inlet import SEND_WINDOW
from asyncmachine.net.wire import Forward, Mutate, encode
from asyncmachine.oneshot import OneShot, deadline_after, time_left
from asyncmachine.results import EXECUTED, Canceled

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.net.link import Link
    from asyncmachine.net.wire import Origin, Refusal
    from asyncmachine.results import Result, Ticket

__all__ = ["Outlet", "Request"]

_ERRORS = {each.__name__: each for each in (NotAllowedError, NotSerialisableError)}


class Request(NamedTuple):
    """One mutation, on its way.

    Attributes:
        call: number of the call that waits for it, or 0.
        kind: position in ``KINDS``.
        states: positions of the states.
        args: packed args.
        origin: why it was requested, if there is something to tell.
        ticket: where its result is awaited.
        source: id of the machine that a pipe brings it from.

    """

    call: int
    kind: int
    states: tuple[int, ...]
    args: bytes
    origin: Origin | None = None
    ticket: Ticket | None = None
    source: str = ""


class _Room(OneShot):
    """There is room again."""

    def tell(self) -> None:
        self._fire()


class Outlet:
    """Where the mutations for one machine elsewhere go out.

    Args:
        limit: how many are kept for those who must not wait.
        refused: called with an error and the source when one was not allowed.

    """

    def __init__(self, limit: int, refused: Callable[[Exception, str], object]) -> None:
        self._limit = limit
        self._refused = refused
        self._lock = Lock()  # guards all that follows
        self._link: Link | None = None
        self._channel = 0
        self._sent = self._applied = 0
        self._under_way: deque[Request] = deque()
        self._outbox: deque[Request] = deque()
        self._room: _Room | None = None
        self._why_over = ""

    def __len__(self) -> int:
        return len(self._outbox)

    @property
    def kept(self) -> list[Request]:
        """What waits here."""
        with self._lock:
            return list(self._outbox)

    def send(self, request: Request, *, wait: bool, timeout: float | None) -> str:
        """Send a mutation that nobody waits for, or keep it.

        Returns:
            Why it is not taken, or an empty text.

        Raises:
            TimeoutError: if there was no room in time.

        """
        deadline = None
        while True:
            with self._lock:
                if self._why_over:
                    return self._why_over
                if (
                    self._link is not None
                    and not self._outbox
                    and self._sent - self._applied < SEND_WINDOW
                ):
                    self._sent += 1
                    self._under_way.append(request)
                    self._link.post_encoded(_encoded(request, self._channel), now=False)
                    return ""
                if not wait or len(self._under_way) + len(self._outbox) < SEND_WINDOW:
                    if len(self._outbox) >= self._limit:
                        return f"the outbox is full ({self._limit})"
                    self._outbox.append(request)
                    return ""
                room = self._room = self._room or _Room()
            deadline = deadline or deadline_after(timeout)
            if not room.wait(time_left(deadline)):
                msg = f"the machine took nothing for {timeout} s"
                raise TimeoutError(msg)

    def call(self, request: Request) -> None:
        """Send a mutation that somebody waits for, after what is kept."""
        with self._lock:
            if self._outbox or self._link is None:
                self._outbox.append(request)
                return
            link, channel = self._link, self._channel
        link.post_encoded(_encoded(request, channel))

    def _post_locked(self, request: Request, *, now: bool) -> None:
        assert self._link is not None
        if not request.call:
            self._sent += 1
            self._under_way.append(request)
        self._link.post_encoded(_encoded(request, self._channel), now=now)

    def applied(self, count: int, refusals: list[Refusal]) -> None:
        """Take note that so many have been carried out, and send more."""
        with self._lock:
            first = self._applied
            n = min(count - first, len(self._under_way))
            done = [self._under_way.popleft() for _ in range(n)]
            self._applied += len(done)
            self._release_locked()
            room, self._room = self._room, None
        if room is not None:
            room.tell()
        refused = {each.number: each for each in refusals}
        for number, request in enumerate(done, first):
            refusal = refused.get(number) if refused else None
            result: Result = EXECUTED if refusal is None else Canceled(refusal.why)
            if request.ticket is not None:
                request.ticket.settle(result)
            if refusal is not None and refusal.error:
                self._refused(_ERRORS.get(refusal.error, NotAllowedError)(refusal.why), request.source)

    def _release_locked(self) -> None:
        while self._outbox and self._link is not None:
            request = self._outbox[0]
            if not request.call and self._sent - self._applied >= SEND_WINDOW:
                return
            self._outbox.popleft()
            self._post_locked(request, now=not self._outbox)

    def pause(self) -> None:
        """The connection is down: keep what comes."""
        with self._lock:
            self._link = None

    def resume(self, link: Link, channel: int, *, afresh: bool) -> None:
        """The connection is up again.

        Args:
            link: the link to use.
            channel: number of the machine there.
            afresh: whether the other side knows nothing of what was under way.

        """
        lost: deque[Request] = deque()
        with self._lock:
            if afresh:
                lost, self._under_way = self._under_way, deque()
                self._sent = self._applied = 0
            self._link, self._channel = link, channel
            self._release_locked()
            room, self._room = self._room, None
        if room is not None:
            room.tell()
        _cancel(lost, "the process ended while the mutation was under way")

    def end(self, why: str) -> None:
        """Take nothing any more, and cancel what has not been carried out."""
        with self._lock:
            self._why_over = why
            self._link = None
            left = [*self._under_way, *self._outbox]
            self._under_way.clear()
            self._outbox.clear()
            room, self._room = self._room, None
        if room is not None:
            room.tell()
        _cancel(left, why)


def _cancel(requests: deque[Request] | list[Request], why: str) -> None:
    for request in requests:
        if request.ticket is not None:
            request.ticket.settle(Canceled(why))


def _encoded(request: Request, channel: int) -> bytes:
    if request.origin is None:
        return encode(Mutate(channel, request.call, request.kind, request.states, request.args))
    return encode(
        Forward(
            channel, request.call, request.kind, request.states, request.args, request.origin
        )
    )
