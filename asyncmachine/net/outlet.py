"""Sends mutations to one machine elsewhere, as fast as it takes them.

Guarantees: they are sent in the order they were given. So many that nobody waits for may
be under way (``SEND_WINDOW``); more wait here: whoever may wait does, and for whom must not
(a handler) they are kept, up to the limit. While the connection is down all are kept. No
lock is held while somebody waits or is told.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from asyncmachine.net.errors import ConnectionLostError, NotAllowedError, NotSerialisableError
from asyncmachine.net.gate import Gate
from asyncmachine.net.inlet import SEND_WINDOW
from asyncmachine.net.wire import Canceled as CanceledThere
from asyncmachine.net.wire import Forward, Mutate
from asyncmachine.oneshot import deadline_after, time_left
from asyncmachine.results import EXECUTED, Canceled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncmachine.net.client import Call
    from asyncmachine.net.link import Link
    from asyncmachine.net.wire import Origin, Refusal
    from asyncmachine.results import Result, Ticket

__all__ = ["Outlet", "Request"]

_ERRORS = {each.__name__: each for each in (NotAllowedError, NotSerialisableError)}


class Request(NamedTuple):
    """One mutation, on its way.

    Attributes:
        call: the call that waits for it, if one does.
        kind: position in ``KINDS``.
        states: positions of the states.
        args: packed args.
        origin: why it was requested, if there is something to tell.
        ticket: where its result is awaited.
        source: id of the machine that a pipe brings it from.

    """

    call: Call | None
    kind: int
    states: tuple[int, ...]
    args: bytes
    origin: Origin | None = None
    ticket: Ticket | None = None
    source: str = ""


class Outlet:
    """Where the mutations for one machine elsewhere go out.

    Args:
        limit: how many are kept for those who must not wait.
        refused: called with an error and the source when one was not allowed.

    """

    def __init__(self, limit: int, refused: Callable[[Exception, str], object]) -> None:
        self._limit = limit
        self._refused = refused
        self._room = Gate()
        self._lock = Lock()  # guards all that follows
        self._link: Link | None = None
        self._channel = 0
        self._sent = self._applied = 0
        self._under_way: deque[Request] = deque()
        self._outbox: deque[Request] = deque()
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
            NotSerialisableError: if it is too large.
            TimeoutError: if there was no room in time.

        """
        deadline = None
        while True:
            with self._lock:
                if self._why_over:
                    return self._why_over
                link = self._link
                if (
                    link is not None
                    and not self._outbox
                    and self._sent - self._applied < SEND_WINDOW
                ):
                    if self._post_locked(link, request, now=False):
                        return ""
                    self._link = None  # closed: it will be another one
                if not wait or len(self._under_way) + len(self._outbox) < SEND_WINDOW:
                    if len(self._outbox) < self._limit:
                        self._outbox.append(request)
                        return ""
                    if not wait:
                        return f"the outbox is full ({self._limit})"
                self._room.shut()
            deadline = deadline or deadline_after(timeout)
            if not self._room.wait(time_left(deadline)):
                msg = f"the machine took nothing for {timeout} s"
                raise TimeoutError(msg)

    def call(self, request: Request) -> str:
        """Send a mutation that somebody waits for, after what is kept.

        Returns:
            Why it is not taken, or an empty text.

        Raises:
            NotSerialisableError: if it is too large.

        """
        call = request.call
        assert call is not None
        with self._lock:
            if self._why_over:
                return self._why_over
            link = None if self._outbox else self._link
            if link is not None:
                link.cork()  # it writes once the lock is released
            try:
                if link is None or not self._post_locked(link, request, now=True):
                    call.link = None
                    if not call.happened:  # else it was given up just now
                        self._outbox.append(request)
            except BaseException:
                if link is not None:
                    link.uncork()
                raise
        if link is not None:
            link.uncork()
        return ""

    def _post_locked(self, link: Link, request: Request, *, now: bool) -> bool:
        """Hand a request to the link; false if that is closed, and another one will come."""
        call, kind, states, args, origin, _, _ = request
        number = 0
        if call is not None:
            call.link, number = link, call.number
        message: Mutate | Forward
        if origin is None:
            message = Mutate(self._channel, number, kind, states, args)
        else:
            message = Forward(self._channel, number, kind, states, args, origin)
        try:
            link.post(message, now=now)
        except ConnectionLostError:
            return False
        if call is None:
            self._sent += 1
            self._under_way.append(request)
        return True

    def applied(self, count: int, refusals: list[Refusal]) -> None:
        """Take note that so many have been carried out, and send more."""
        with self._lock:
            first = self._applied
            n = min(count - first, len(self._under_way))
            done = [self._under_way.popleft() for _ in range(n)]
            self._applied += len(done)
            failed = self._release_locked()
        self._room.open()
        _fail(failed)
        if not refusals:
            for request in done:
                if request.ticket is not None:
                    request.ticket.settle(EXECUTED)
            return
        refused = {each.number: each for each in refusals}
        for number, request in enumerate(done, first):
            refusal = refused.get(number)
            result: Result = EXECUTED if refusal is None else Canceled(refusal.why)
            if request.ticket is not None:
                request.ticket.settle(result)
            if refusal is not None and refusal.error:
                error = _ERRORS.get(refusal.error, NotAllowedError)(refusal.why)
                self._refused(error, request.source)

    def _release_locked(self) -> list[tuple[Request, Exception]]:
        """Send what is kept, as far as it may go; give what the link does not take."""
        failed: list[tuple[Request, Exception]] = []
        while self._outbox and self._link is not None:
            request = self._outbox[0]
            if request.call is not None and request.call.happened:
                self._outbox.popleft()  # who called has given up
                continue
            if request.call is None and self._sent - self._applied >= SEND_WINDOW:
                break
            try:
                # What others wait for is written at once, together with what came before.
                if not self._post_locked(self._link, request, now=len(self._outbox) == 1):
                    self._link = None
                    break
            except NotSerialisableError as error:
                failed.append((request, error))
            self._outbox.popleft()
        return failed

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
        lost: list[Request] = []
        with self._lock:
            if afresh:
                lost.extend(self._under_way)
                self._under_way.clear()
                self._sent = self._applied = 0
            if not self._why_over:
                self._link, self._channel = link, channel
            failed = self._release_locked()
        self._room.open()
        _fail(failed)
        _cancel(lost, "the process ended while the mutation was under way")

    def end(self, why: str) -> None:
        """Take nothing any more, and cancel what has not been carried out."""
        with self._lock:
            self._why_over = self._why_over or why
            self._link = None
            left = [*self._under_way, *self._outbox]
            self._under_way.clear()
            self._outbox.clear()
        self._room.open()
        _cancel(left, why)


def _cancel(requests: Iterable[Request], why: str) -> None:
    for request in requests:
        if request.ticket is not None:
            request.ticket.settle(Canceled(why))
        if request.call is not None:
            request.call.answer(CanceledThere(request.call.number, why))


def _fail(requests: Iterable[tuple[Request, Exception]]) -> None:
    for request, error in requests:
        if request.ticket is not None:
            request.ticket.settle(Canceled(str(error)))
        if request.call is not None:
            request.call.fail(error)
