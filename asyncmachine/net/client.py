"""The far end of a link: calls, and what comes back for the mirrors here.

Guarantees: a call ends with its answer, with the error that the other side tells, with
``ConnectionLostError`` when the other side has gone, or with ``TimeoutError``. Calls that
are made while the connection is down wait until it is up.
"""

from __future__ import annotations

from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Final

from asyncmachine.net import errors, wire
from asyncmachine.net.errors import ConnectionLostError, ProtocolError
from asyncmachine.net.link import Link
from asyncmachine.net.values import rebuild_error
from asyncmachine.oneshot import OneShot, deadline_after, time_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.net.remote import RemoteMachine
    from asyncmachine.net.values import Values

__all__ = ["Call", "Client"]


class Call(OneShot):
    """A call that waits for its answer.

    Attributes:
        number: its number on the link.
        reply: the answer.
        error: why there is none.

    """

    __slots__ = ("error", "number", "reply")

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.reply: wire.Message | None = None
        self.error: Exception | None = None

    def when_done(self, callback: Callable[[Call], object]) -> None:
        """Have a function called once it has ended."""
        self._add_callback(callback)

    def answer(self, reply: wire.Message) -> None:
        """End it with an answer."""
        self.reply = reply
        self._fire()

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        if self.reply is None and self.error is None:
            self.error = error
        self._fire()


class _Up(OneShot):
    """The connection is up, or over."""

    def tell(self) -> None:
        self._fire()


class Client:
    """Calls the other side of a link.

    Args:
        name: the other side, for errors.
        values: packs and unpacks args.
        call_timeout: seconds that a call may take.
        outbox_limit: how many mutations are kept for those who must not wait.
        on_down: called when a connection has ended, with the error.
        retain: whether the connection may be made again.

    """

    def __init__(
        self,
        name: str,
        values: Values,
        *,
        call_timeout: float,
        outbox_limit: int,
        on_down: Callable[[Client, Exception | None], object],
        retain: bool = True,
        max_frame: int = wire.MAX_FRAME,
    ) -> None:
        self.name = name
        self.values = values
        self.call_timeout = call_timeout
        self.outbox_limit = outbox_limit
        self.max_frame = max_frame
        self.peer_max_frame = wire.MAX_FRAME
        self._on_down = on_down
        self._retain = retain
        self._numbers = count(1)
        self._lock = Lock()  # guards what follows
        self._calls: dict[int, Call] = {}
        self._remotes: dict[int, RemoteMachine] = {}
        self._up = _Up()
        self._lost: Exception | None = None
        self.link = self.new_link()

    def new_link(self) -> Link:
        """Make a link for a session that the other side knows nothing of."""
        return Link(
            self._take, self._went_down, retain=self._retain, stealing=True, max_frame=self.max_frame
        )

    # Calls --------------------------------------------------------------------------------

    def begin(self) -> Call:
        """Begin a call; what is sent with its number is answered.

        Raises:
            ConnectionLostError: if the other side is gone for good.

        """
        call = Call(next(self._numbers))
        self._calls[call.number] = call
        if self._lost is not None:
            self._calls.pop(call.number, None)
            raise ConnectionLostError(str(self._lost))
        return call

    def await_up(self, timeout: float | None) -> None:
        """Wait until the connection is up."""
        up = self._up
        if not up.happened and not up.wait(timeout):
            msg = f"{self.name} can not be reached, for {timeout} s now"
            raise TimeoutError(msg)

    def finish(self, call: Call, timeout: float | None = None) -> wire.Message:
        """Wait for the answer of a call.

        Raises:
            MachineError: what the other side tells.
            ConnectionLostError: if it is gone.
            TimeoutError: if it did not answer in time.

        """
        patience = self.call_timeout if timeout is None else timeout
        try:
            if not self.link.read_until(call, patience):
                msg = f"{self.name} has not answered for {patience} s"
                raise TimeoutError(msg)
        finally:
            self._calls.pop(call.number, None)
        if call.error is not None:
            raise call.error
        assert call.reply is not None
        if isinstance(call.reply, wire.Failed):
            raise failure(call.reply)
        return call.reply

    def call(
        self, make: Callable[[int], wire.Message], timeout: float | None = None
    ) -> wire.Message:
        """Make a call and wait for its answer."""
        patience = self.call_timeout if timeout is None else timeout
        deadline = deadline_after(patience)
        self.await_up(patience)
        call = self.begin()
        try:
            self.link.post(make(call.number))
        except BaseException:
            self._calls.pop(call.number, None)
            raise
        return self.finish(call, time_left(deadline))

    def post(self, message: wire.Message) -> None:
        """Send something that is not answered, if the other side is there."""
        try:
            self.link.post(message)
        except ConnectionLostError:
            pass

    # Machines -----------------------------------------------------------------------------

    def join(self, channel: int, remote: RemoteMachine) -> None:
        """Have a mirror told of what comes for a channel."""
        self._remotes[channel] = remote

    def leave(self, channel: int) -> None:
        """Have a mirror told no more."""
        if self._remotes.pop(channel, None) is not None and self._lost is None:
            self.post(wire.CloseChannel(channel))

    @property
    def remotes(self) -> list[RemoteMachine]:
        """All mirrors that are told."""
        return list(self._remotes.values())

    # The connection -----------------------------------------------------------------------

    def came_up(self) -> None:
        """Let go on who waits for the connection."""
        self._up.tell()

    def _went_down(self, error: Exception | None) -> None:
        with self._lock:
            if self._up.happened:
                self._up = _Up()
        for remote in self.remotes:
            remote.paused()
        self._on_down(self, error)

    def forget_calls(self, error: Exception) -> None:
        """End all calls that wait for an answer which will not come."""
        for number in list(self._calls):
            call = self._calls.pop(number, None)
            if call is not None:
                call.fail(error)

    def forget_machines(self) -> list[RemoteMachine]:
        """Give the mirrors, which have to be told anew of a process that begins afresh."""
        remotes, self._remotes = self.remotes, {}
        return remotes

    def lose(self, error: Exception) -> None:
        """The other side is gone for good."""
        self._lost = error
        self.link.close()
        self.forget_calls(ConnectionLostError(str(error)))
        for remote in self.forget_machines():
            remote.lost(str(error))
        self._up.tell()

    @property
    def is_lost(self) -> bool:
        """Whether the other side is gone for good."""
        return self._lost is not None

    # What comes ---------------------------------------------------------------------------

    def _take(self, messages: list[wire.Message]) -> bool:
        for message in messages:
            kind = type(message)
            if kind is wire.Done:
                self._done(message)
            elif kind in _ANSWERS:
                call = self._calls.pop(message.call, None)  # type: ignore[union-attr]
                if call is not None:
                    call.answer(message)
            elif kind in _NEWS:
                remote = self._remotes.get(message.channel)  # type: ignore[union-attr]
                if remote is not None:
                    remote.hear(message)
            else:
                raise ProtocolError(f"a {kind.__name__} is nothing to send here")
        return True

    def _done(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Done)
        call = self._calls.pop(message.call, None)
        remote = self._remotes.get(message.channel)
        if remote is not None and message.total:
            remote.hear(message, call)
        elif call is not None:
            call.answer(message)


_ANSWERS: Final = frozenset(
    {wire.Canceled, wire.Failed, wire.Value, wire.Opened, wire.Built}
)
_NEWS: Final = frozenset(
    {wire.Changed, wire.Snapshot, wire.Applied, wire.Event, wire.Overflowed, wire.Gone}
)


def failure(reply: wire.Failed) -> Exception:
    """Give the error that an answer tells of.

    Example:
        >>> failure(wire.Failed(1, "NotAllowedError", wire.ErrorInfo("", "add Foo")))
        NotAllowedError('add Foo')

    """
    kind = getattr(errors, reply.kind, None) if reply.kind in errors.__all__ else None
    if kind is None or kind is errors.RemoteError:
        return rebuild_error(reply.error)
    error = kind(reply.error.message)
    assert isinstance(error, Exception)
    return error
