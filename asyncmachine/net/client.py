"""The far end of a link: calls, and what comes back for the mirrors here.

Guarantees: a call ends with its answer, with the error that the other side tells, with
``ConnectionLostError`` when the other side has gone, or with ``TimeoutError``. Calls that
are made while the connection is down wait until it is up.
"""

from __future__ import annotations

from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncmachine.net import errors, wire
from asyncmachine.net.errors import ConnectionLostError, ProtocolError
from asyncmachine.net.gate import Gate
from asyncmachine.net.link import Link
from asyncmachine.net.values import rebuild_error
from asyncmachine.oneshot import OneShot, deadline_after, time_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.net.remote import RemoteMachine
    from asyncmachine.net.statistics import LinkStatistics
    from asyncmachine.net.values import Values
    from asyncmachine.schema import Schema

__all__ = ["Call", "Client", "Home"]

# News of so many machines are remembered to have come before the machines were known.
_MOST_EARLY: Final = 65536


class Home(NamedTuple):
    """Where a machine is reached.

    Attributes:
        link: the link.
        channel: number of the machine on it.

    """

    link: Link
    channel: int


class Call(OneShot):
    """A call that waits for its answer.

    Attributes:
        number: its number on the link.
        link: where it was sent; None while it is kept.
        remote: the mirror that hears the answer first, if any.
        reply: the answer.
        error: why there is none.

    """

    __slots__ = ("error", "link", "number", "remote", "reply")

    def __init__(self, number: int, link: Link, remote: RemoteMachine | None = None) -> None:
        super().__init__()
        self.number = number
        self.link: Link | None = link
        self.remote = remote
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


class Client:
    """Calls the other side of a link.

    Args:
        name: the other side, for errors.
        values: packs and unpacks args.
        call_timeout: seconds that a call may take.
        outbox_limit: how many mutations are kept for those who must not wait.
        on_down: called when a connection has ended, with the error.
        retain: whether the connection may be made again.
        max_frame: bytes that a frame of the other side may have.

    Attributes:
        link: the link of the present session.
        peer_max_frame: bytes that the other side takes in one frame.
        on_lost: called when the other side is given up, or None.
        pipes: what to call when a pipe that was laid there has closed, by its number.

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
        self.on_lost: Callable[[], object] | None = None
        self.pipes: dict[int, Callable[[], object]] = {}
        self._on_down = on_down
        self._retain = retain
        self._numbers = count(1)
        self._calls: dict[int, Call] = {}
        self._lock = Lock()  # guards the joining of machines
        self._remotes: dict[int, RemoteMachine] = {}
        self._early: dict[int, bool] = {}
        self._schemas: set[Schema] = set()
        self._up = Gate()
        self._lost: Exception | None = None
        self._links: list[Link] = []  # the newest
        self.link = self.new_link()

    def new_link(self) -> Link:
        """Make a link for a session that the other side knows nothing of."""
        link = Link(
            self._take,
            self._went_down,
            retain=self._retain,
            stealing=True,
            max_frame=self.max_frame,
        )
        for before in self._links:
            link.count_on(before)
        self._links[:] = [link]
        return link

    def statistics(self, name: str = "") -> LinkStatistics:
        """Give what went over this link and those before it.

        Args:
            name: what it is to be called; its own name if not given.

        """
        return self.link.statistics(name or self.name)

    # Calls --------------------------------------------------------------------------------

    def begin(self, link: Link | None = None, remote: RemoteMachine | None = None) -> Call:
        """Begin a call; what is sent with its number is answered.

        Args:
            link: where it will be sent; the present link if not given.
            remote: the mirror that hears of the answer before the caller does.

        Raises:
            ConnectionLostError: if the other side is gone for good.

        """
        call = Call(next(self._numbers), link or self.link, remote)
        self._calls[call.number] = call
        if self._lost is not None:
            self._calls.pop(call.number, None)
            raise ConnectionLostError(str(self._lost))
        return call

    def await_up(self, timeout: float | None) -> None:
        """Wait until the connection is up."""
        if not self._up.wait(timeout):
            raise self.unreachable(timeout)

    def unreachable(self, timeout: float | None) -> TimeoutError:
        """Give the error for who has waited for the connection in vain."""
        return TimeoutError(f"{self.name} can not be reached, for {timeout:.3g} s now")

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
                late = TimeoutError(f"{self.name} has not answered for {patience:.3g} s")
                call.fail(late)
                raise late
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
        self.submit(call, self.link, make(call.number))
        return self.finish(call, time_left(deadline))

    def submit(self, call: Call, link: Link, message: wire.Message) -> None:
        """Send what a call asks; if that can not be, the call is over."""
        call.link = link
        try:
            link.post(message)
        except BaseException:
            self._calls.pop(call.number, None)
            raise

    def post(self, message: wire.Message) -> None:
        """Send something that is not answered, if the other side is there."""
        try:
            self.link.post(message)
        except ConnectionLostError:
            pass

    # Machines -----------------------------------------------------------------------------

    def join(self, channel: int, remote: RemoteMachine) -> None:
        """Have a mirror told of what comes for a channel.

        What has come before is not lost: the mirror asks for the whole clock then.
        """
        self._schemas.add(remote.schema)
        with self._lock:
            self._remotes[channel] = remote
            gone = self._early.pop(channel, None)
        if gone:
            remote.hear(wire.Gone(channel))
        elif gone is not None:
            self.post(wire.Whole(channel))

    def _came_early(self, message: wire.Message) -> RemoteMachine | None:
        """Remember that there were news of a machine that is not known yet."""
        channel: int = message.channel  # type: ignore[union-attr]  # all news have one
        with self._lock:
            remote = self._remotes.get(channel)
            if remote is None:
                gone = isinstance(message, wire.Gone)
                self._early[channel] = self._early.pop(channel, False) or gone
                if len(self._early) > _MOST_EARLY:
                    del self._early[next(iter(self._early))]
        return remote

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
        self._up.open()

    def _went_down(self, error: Exception | None) -> None:
        self._up.shut()
        if self._lost is not None:  # given up at the same time: nobody is to wait for it
            self._up.open()
        why = error or (self.link.farewell and ConnectionLostError(self.link.farewell))
        for remote in self.remotes:
            remote.paused(why or None)
        self._on_down(self, error)

    def forget_calls(self, error: Exception, link: Link | None = None) -> None:
        """End the calls that wait for an answer which will not come.

        Args:
            error: what they end with.
            link: the link that they were sent on; all if not given. What is kept and was
                not sent yet goes on waiting.

        """
        for number, call in list(self._calls.items()):
            sent = call.link
            if sent is None or (link is not None and sent is not link):
                continue
            if self._calls.pop(number, None) is not None:
                call.fail(error)

    def forget_machines(self) -> list[RemoteMachine]:
        """Give the mirrors, which have to be told anew of a process that begins afresh."""
        with self._lock:
            remotes = list(self._remotes.values())
            self._remotes = {}
            self._early.clear()
        self.pipes.clear()
        return remotes

    def lose(self, error: Exception) -> None:
        """The other side is gone for good."""
        self._lost = error
        if self.on_lost is not None:
            self.on_lost()
        self.link.close()
        for call in list(self._calls.values()):
            if self._calls.pop(call.number, None) is not None:
                call.fail(ConnectionLostError(str(error)))
        for remote in self.forget_machines():
            remote.lost(str(error))
        self._up.open()

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
                self._answered(message)
            elif kind in _NEWS:
                remote = self._remotes.get(message.channel)  # type: ignore[union-attr]
                if remote is None:
                    remote = self._came_early(message)
                if remote is not None:
                    remote.hear(message)
            elif kind is wire.PipeClosed:
                closed = self.pipes.pop(message.number, None)  # type: ignore[union-attr]
                if closed is not None:
                    closed()
            else:
                raise ProtocolError(f"a {kind.__name__} is nothing to send here")
        return True

    def _answered(self, message: wire.Message) -> None:
        call = self._calls.pop(message.call, None)  # type: ignore[union-attr]
        if call is None:
            if isinstance(message, wire.Opened):  # nobody waits any longer
                self.post(wire.CloseChannel(message.channel))
        elif call.remote is not None:
            call.remote.hear(message, call)
        else:
            call.answer(message)

    def _done(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Done)
        call = self._calls.pop(message.call, None)
        remote = self._remotes.get(message.channel)
        if remote is not None:
            remote.hear(message, call)
        elif call is not None:
            call.answer(message)


_ANSWERS: Final = frozenset({wire.Canceled, wire.Failed, wire.Value, wire.Opened, wire.Built})
_NEWS: Final = frozenset(
    {wire.Changed, wire.Snapshot, wire.Applied, wire.Event, wire.Overflowed, wire.Gone}
)


def failure(reply: wire.Failed) -> Exception:
    """Give the error that an answer tells of.

    Example:
        >>> failure(wire.Failed(1, "NotAllowedError", wire.ErrorInfo("", "add Foo")))
        NotAllowedError('add Foo')

    """
    if reply.kind == "TimeoutError":
        return TimeoutError(reply.error.message)
    kind = getattr(errors, reply.kind, None) if reply.kind in errors.__all__ else None
    if kind is None or kind is errors.RemoteError:
        return rebuild_error(reply.error)
    error = kind(reply.error.message)
    assert isinstance(error, Exception)
    return error
