"""The home end of a link: does what the other side asks of the machines here.

Guarantees: what comes through a link is seen to in order, on the thread that reads. If a
handler keeps that thread for longer than ``PATIENCE``, another one goes on with what
comes after, so a slow handler delays its own machine and nobody else. Clocks and
acknowledgements are told at the end of each batch; what changes otherwise is told at
once, but not more often than every ``PACE`` seconds, and only when the link takes it. A
client that asks and does not read is disconnected once ``outbox_limit`` messages wait.

Assumes that ``list`` and ``deque`` operations are atomic.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncmachine.errors import MachineError
from asyncmachine.logs import log_exception, log_warning
from asyncmachine.net import wire
from asyncmachine.net.errors import (
    ConnectionLostError,
    NotAllowedError,
    NotSerialisableError,
    ProtocolError,
    RemoteError,
    UnknownMachineError,
)
from asyncmachine.net.feed import Feed
from asyncmachine.net.functions import find_function
from asyncmachine.net.inlet import Inlet
from asyncmachine.net.link import Link
from asyncmachine.net.schemas import packed
from asyncmachine.net.subscription import EVENT_WINDOW, Subscription
from asyncmachine.net.values import describe_error, rebuild_error
from asyncmachine.oneshot import Sleeper
from asyncmachine.relations import ADD, SET
from asyncmachine.results import EXECUTED as _EXECUTED
from asyncmachine.running import LOCAL
from asyncmachine.schema import EXCEPTION
from asyncmachine.threads import run_elsewhere
from asyncmachine.transition import Cause
from asyncmachine.watchdog import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.machine import Machine
    from asyncmachine.net.machines import Machines
    from asyncmachine.net.values import Values
    from asyncmachine.results import Result

__all__ = ["Policy", "Session"]

# How long a handler may keep the thread that reads a link, in seconds.
PATIENCE: Final = 0.005
# How often clocks are told at most, in seconds, when they change by themselves.
PACE: Final = 0.001

# So many answers may wait to be read besides, whatever the ``outbox_limit``.
_ANSWERS: Final = 8192

_FREE: Final = (None,)
# What is carried out in order, and how often one of them is looked at before it counts as late.
_MUTATIONS: Final = (wire.Mutate, wire.Forward)
_MANY_LOOKS: Final = 40


class Policy(NamedTuple):
    """What the other side of a link may do.

    Attributes:
        allow: the states that it may call; ``None`` for all.
        allow_eval: whether it may run functions.
        outbox_limit: how many events are kept for it.

    """

    allow: frozenset[str] | None = None
    allow_eval: bool = False
    outbox_limit: int = 100_000


class _Channel:
    """One machine, as one link uses it."""

    __slots__ = ("binding", "feed", "inlet", "machine", "named", "subscriptions")

    def __init__(self, machine: Machine, inlet: Inlet) -> None:
        self.machine = machine
        self.inlet = inlet
        self.feed: Feed | None = None
        self.named: dict[tuple[int, ...], tuple[str, ...]] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.binding: Callable[[], object] = lambda: None

    def names(self, positions: tuple[int, ...]) -> tuple[str, ...]:
        """Turn positions into names."""
        found = self.named.get(positions)
        if found is None:
            names = self.machine.schema.names
            if any(not 0 <= i < len(names) for i in positions):
                raise ProtocolError(f"{self.machine.id} has no state of the position {positions}")
            found = tuple(names[i] for i in positions)
            if len(self.named) < 1024:
                self.named[positions] = found
        return found

    def close(self) -> None:
        """Have nothing to do with the machine any more."""
        self.binding()
        if self.feed is not None:
            self.feed.close()
        for each in list(self.subscriptions.values()):
            each.close()
        self.subscriptions.clear()


class _Batch:
    """Messages that a thread goes through; another may take over while it is inside one."""

    __slots__ = ("_here", "_looks", "_outer", "_seen", "at", "inside", "messages", "over")

    def __init__(self, messages: list[wire.Message]) -> None:
        self._here = LOCAL.here
        self._outer = self._here.top
        self._looks = 0
        self.messages = messages
        self.at = 0
        self.over = False
        self.inside: list[int] = []
        self._seen = -1

    def overtake(self) -> bool:
        """Take the rest from the thread that goes through it, if it was inside one too long."""
        at, before = self.at, self._seen
        self._seen = at
        if at != before:
            self._looks = 0
            return False
        if not self._may_be_overtaken(at):
            return False
        try:
            self.inside.remove(at)
        except ValueError:  # it gets on
            return False
        return True

    def _may_be_overtaken(self, at: int) -> bool:
        """Whether what comes after a message can not get ahead of it any more.

        A mutation has its place once its thread is inside a transition. One that has been
        looked at so often in vain is held up elsewhere, as in a callback of a waiter.
        """
        if at < 1:
            return False
        self._looks += 1
        if type(self.messages[at - 1]) not in _MUTATIONS or self._looks >= _MANY_LOOKS:
            return True
        return self._here.top is not self._outer


class Session:
    """What one link does with the machines here.

    Args:
        machines: the machines that can be used.
        values: packs and unpacks args.
        policy: what the other side may do.
        on_down: called when the connection is down, with the error.
        retain: whether the link may be resumed with another carrier.
        max_frame: bytes that a frame of the other side may have.
        extra: how to see to messages of other kinds.

    """

    def __init__(
        self,
        machines: Machines,
        values: Values,
        policy: Policy,
        on_down: Callable[[Session, Exception | None], object],
        *,
        retain: bool = True,
        max_frame: int = wire.MAX_FRAME,
        extra: dict[type, Callable[[Session, wire.Message], object]] | None = None,
    ) -> None:
        self.machines = machines
        self.values = values
        self.policy = policy
        self.link = Link(self._take, partial(on_down, self), retain=retain, max_frame=max_frame)
        self.link.on_writable = self._became_writable
        self._channels: dict[int, _Channel] = {}
        self._told_schemas: set[bytes] = set()
        self._number = 0
        self._lock = Lock()  # guards _number and the making of channels
        self._dirty: deque[Feed | Inlet] = deque()
        self._inlets: dict[Inlet, int] = {}
        self._in_batch = 0
        self._batch = _Batch([])
        self._batch.over = True
        self._watching = [None]  # taken by who looks at the batch
        self._teller = [None]  # taken by who tells at once
        self._pacer = [None]  # taken by the thread that tells in time
        self._told_at = 0.0
        self.closed = False
        self.name = "a client"
        self._see_to: dict[type, Callable[[wire.Message], object]] = {
            wire.Mutate: self._bring_in,
            wire.Forward: self._forward,
            wire.Ask: self._ask,
            wire.Eval: self._eval,
            wire.Sync: self._sync,
            wire.Whole: self._tell_whole,
            wire.Open: self._open,
            wire.CloseChannel: self._close_channel,
            wire.Subscribe: self._subscribe,
            wire.Unsubscribe: self._unsubscribe,
            wire.Consumed: self._consumed,
            wire.Dispose: self._dispose,
            wire.Told: self._told,
        }
        for kind, function in (extra or {}).items():
            self._see_to[kind] = partial(function, self)

    def close(self) -> None:
        """Forget the other side and all that it asked for."""
        self.closed = True
        for channel in list(self._channels.values()):
            channel.close()
        self._channels.clear()
        self._inlets.clear()
        self.link.close()

    def resumed(self) -> None:
        """Tell all clocks as a whole, after a reconnect."""
        for channel in list(self._channels.values()):
            if channel.feed is not None:
                channel.feed.tell_whole()

    def post(self, message: wire.Message) -> None:
        """Tell the other side something, if it is there."""
        try:
            self.link.post(message)
        except ConnectionLostError:
            return
        self._check_room()

    def _check_room(self) -> None:
        """Part with a client that asks and does not read; events have a window of their own."""
        limit = self.policy.outbox_limit
        if self.link.pending > limit:
            heard = sum(len(each.subscriptions) for each in list(self._channels.values()))
            limit += _ANSWERS + 2 * EVENT_WINDOW * heard
            if self.link.pending > limit:
                self._overflow(f"{limit} messages were waiting to be read")

    # Reading ------------------------------------------------------------------------------

    def _take(self, messages: list[wire.Message]) -> bool:
        return self._go_through(_Batch(messages))

    def _go_through(self, batch: _Batch) -> bool:
        """See to messages; false if another thread has taken over meanwhile."""
        self.link.cork()
        self._in_batch += 1
        self._batch = batch
        if self._watching:
            self._watch()
        messages, inside = batch.messages, batch.inside
        try:
            while batch.at < len(messages) and not self.link.is_closed:
                message = messages[batch.at]
                batch.at += 1
                inside.append(batch.at)
                self._see_to_one(message)
                try:
                    del inside[0]
                except IndexError:
                    return False
        finally:
            batch.over = True
        self._in_batch -= 1
        self.flush()
        self.link.uncork()
        return True

    def _see_to_one(self, message: wire.Message) -> None:
        function = self._see_to.get(type(message))
        try:
            if function is None:
                raise ProtocolError(f"a {type(message).__name__} is nothing to send here")
            function(message)
        except ProtocolError as error:
            log_warning(self.name, f"closing the connection: {error}")
            self.link.abandon(str(error))
        except MachineError as error:
            self._refuse(message, error)
        except Exception as error:  # noqa: BLE001 - one message must not end the others
            log_exception("error at a %s", type(message).__name__, error=error)
            self._refuse(message, error)

    def _refuse(self, message: wire.Message, error: Exception) -> None:
        call = getattr(message, "call", 0)
        if call:
            self._fail(call, error)
        elif not isinstance(error, UnknownMachineError):  # it has gone on the way
            log_warning(self.name, f"a {type(message).__name__} was refused: {error}")

    def _watch(self) -> None:
        """Have somebody look at the batch again and again, until there is none."""
        try:
            del self._watching[0]
        except IndexError:
            return  # who looks sees this batch, too
        Watch(PATIENCE, self._look).start()

    def _look(self) -> None:
        """Have another thread go on, if the one that reads has been inside one message."""
        batch = self._batch
        if batch.over:
            self._watching += _FREE
            if not self._batch.over:  # begun just now by who saw that somebody looks
                self._watch()
            return
        if batch.overtake():
            run_elsewhere(partial(self._take_over, batch))
        Watch(PATIENCE, self._look).start()

    def _take_over(self, batch: _Batch) -> None:
        rest = _Batch(batch.messages[batch.at :])
        self._in_batch -= 1
        self.link.uncork()  # for the thread that is late
        if self._go_through(rest):
            self.link.read_on()

    # Telling ------------------------------------------------------------------------------

    def _schedule(self, what: Feed | Inlet) -> None:
        """Have something told: at the end of the batch, or now, or as soon as it may be."""
        self._dirty.append(what)
        if not self._in_batch and self.link.is_writable:
            self._tell_soon()

    def _became_writable(self) -> None:
        # Writing what is told gets here, too: that must not tell more within itself.
        if self._dirty and not self._in_batch:
            self._tell_soon()

    def _tell_soon(self) -> None:
        """Tell what there is to tell, or have a background thread do so in its time."""
        if self._told_at + PACE <= monotonic():
            try:
                del self._teller[0]
            except IndexError:
                pass
            else:
                try:
                    self.flush()
                finally:
                    self._teller += _FREE
                return
        try:
            del self._pacer[0]
        except IndexError:
            return
        run_elsewhere(self._pace)

    def _pace(self) -> None:
        bell = Sleeper()
        while self._dirty and self.link.is_writable:
            bell.sleep(PACE)
            self.flush()
        self._pacer += _FREE
        if self._dirty and self.link.is_writable:
            self.flush()

    def flush(self) -> None:
        """Tell all that there is to tell."""
        dirty = self._dirty
        if not dirty:
            return
        self._told_at = monotonic()
        for _ in range(len(dirty)):
            try:
                what = dirty.popleft()
            except IndexError:
                return
            if isinstance(what, Feed):
                what.flush()
            elif (number := self._inlets.get(what)) is not None:
                self.link.cork()  # nothing is written while the inlet is locked
                try:
                    what.report(partial(self._applied, number))
                finally:
                    self.link.uncork()

    def _applied(self, channel: int, count: int, refused: list[wire.Refusal]) -> None:
        self.post(wire.Applied(channel, count, refused))

    def _answer(self, channel: int, call: int, result: Result) -> None:
        found = self._channels.get(channel)
        feed = None if found is None else found.feed
        if result is not _EXECUTED and not result:
            if feed is not None:
                feed.flush()  # a handler's error may have activated Exception
            self.post(wire.Canceled(call, result.why))
        elif feed is None:
            self.post(wire.Done(call, channel))
        else:
            feed.done(call)
            if self.link.pending > self.policy.outbox_limit:
                self._check_room()

    def _fail(self, call: int, error: BaseException) -> None:
        kind = type(error).__name__ if type(error).__module__ == RemoteError.__module__ else ""
        self.post(wire.Failed(call, kind or "RemoteError", describe_error(error)))

    # Channels -----------------------------------------------------------------------------

    def _channel(self, number: int) -> _Channel:
        found = self._channels.get(number)
        if found is None:
            raise UnknownMachineError(f"the machine of channel {number} is gone")
        return found

    def _open(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Open)
        self._told_schemas.update(message.known)
        machine = self.machines.find(message.machine)
        self.post(self.opened(message.call, machine, mirror=message.mirror))

    def opened(self, call: int, machine: Machine, *, mirror: bool = True) -> wire.Opened:
        """Open a channel to a machine; give what the other side has to know of it."""
        with self._lock:
            self._number += 1
            number = self._number
        inlet = Inlet(machine, partial(self._answer, number), self._schedule)
        channel = _Channel(machine, inlet)
        self._inlets[inlet] = number
        digest, data = packed(machine.schema)
        ticks: list[int] = []
        order: list[int] = []
        error = None
        if mirror:
            channel.feed = Feed(machine, number, self.link, self._schedule)
            whole = channel.feed.whole()
            ticks, order, error = whole.ticks, whole.order, whole.error
        if digest in self._told_schemas:
            data = b""
        self._told_schemas.add(digest)
        self._channels[number] = channel
        if machine.is_disposed:
            self._gone(number)
        else:
            channel.binding = machine.on_dispose(lambda _: self._gone(number)).unbind
        return wire.Opened(call, number, machine.id, data, digest, ticks, order, error)

    def _gone(self, number: int) -> None:
        channel = self._channels.get(number)
        if channel is not None and channel.feed is not None:
            channel.feed.flush()
        self.post(wire.Gone(number))

    def _close_channel(self, message: wire.Message) -> None:
        assert isinstance(message, wire.CloseChannel)
        channel = self._channels.pop(message.channel, None)
        if channel is not None:
            self._inlets.pop(channel.inlet, None)
            channel.close()

    def _tell_whole(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Whole)
        feed = self._channel(message.channel).feed
        if feed is not None:
            feed.tell_whole()
            self._check_room()

    # Mutations ----------------------------------------------------------------------------

    def _forward(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Forward)
        origin = message.origin
        cause = Cause(origin.machine, origin.transition) if origin.machine else None
        self._bring_in(message, origin.passed, cause, origin.trace)

    def _bring_in(
        self,
        message: wire.Message,
        passed: tuple[str, ...] = (),
        cause: Cause | None = None,
        trace: str = "",
    ) -> None:
        assert isinstance(message, _MUTATIONS)
        channel = self._channels.get(message.channel)
        call = message.call
        if channel is None:
            if call:
                raise UnknownMachineError(f"the machine of channel {message.channel} is gone")
            return
        inlet = channel.inlet
        states = channel.named.get(message.states) or channel.names(message.states)
        kind = _kind(message.kind)
        args: dict[str, object] = {}
        if message.args or self.policy.allow is not None:
            try:
                self._check_allowed(channel.machine, kind, states)
                args = self.values.unpack(message.args)
            except (NotSerialisableError, NotAllowedError) as error:
                if call:
                    self._fail(call, error)
                else:
                    inlet.refuse(str(error), type(error).__name__)
                return
            failure = args.get("error")
            if isinstance(failure, RemoteError) and EXCEPTION in states:
                channel.machine.error = failure
        inlet.take(call, kind, states, args, passed, cause, trace)

    def _check_allowed(self, machine: Machine, kind: str, states: tuple[str, ...]) -> None:
        allow = self.policy.allow
        if allow is None:
            return
        wanted = [*states]
        if kind == SET:
            wanted += [name for name in machine.active_states() if name not in states]
        refused = [name for name in wanted if name not in allow]
        if refused or (not allow and not wanted):
            may = f"only {', '.join(sorted(allow))}" if allow else "only read"
            what = ", ".join(refused) or "nothing"
            raise NotAllowedError(f"{kind} {what} is not allowed here: clients may {may}")

    def _ask(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Ask)
        channel = self._channel(message.channel)
        machine, states = channel.machine, channel.names(message.states)
        kind = _kind(message.kind)
        self._check_allowed(machine, kind, states)
        asked = {"add": machine.can_add, "remove": machine.can_remove, "set": machine.can_set}
        self._answer(
            message.channel,
            message.call,
            asked[kind](*states, **self.values.unpack(message.args)),
        )

    def _eval(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Eval)
        channel = self._channel(message.channel)
        if not self.policy.allow_eval:
            raise NotAllowedError("eval is not allowed here; serve(..., allow_eval=True) allows it")
        function = find_function(message.function)
        machine = channel.machine
        begun: list[None] = []

        def run() -> object:
            begun.append(None)
            return function(machine)

        try:
            value = machine.eval(run, message.timeout)
        except TimeoutError as error:
            if begun:  # it is the function's own
                raise
            self.post(wire.Failed(message.call, "TimeoutError", describe_error(error)))
            return
        data = self.values.pack_value(value, f"what {message.function} returned")
        if channel.feed is not None:
            channel.feed.flush()
        self.post(wire.Value(message.call, data))

    def _sync(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Sync)
        channel = self._channel(message.channel)
        answer = partial(self._answer, message.channel, message.call, _EXECUTED)
        if message.idle:
            idle = channel.machine.when_queue_empty
            channel.inlet.after(lambda: idle().on_done(lambda _: answer()))
        else:
            answer()

    def _dispose(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Dispose)
        machine = self._channel(message.channel).machine
        if self.policy.allow is not None:
            raise NotAllowedError("disposing a machine is not allowed here")

        def dispose() -> None:
            try:
                machine.dispose(message.timeout)
            except Exception as error:  # noqa: BLE001 - told to who asked for it
                log_exception("error when disposing %s", machine.id, error=error)
                self._refuse(message, error)
            else:
                self._answer(message.channel, message.call, _EXECUTED)

        run_elsewhere(dispose)

    def _told(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Told)
        machine = self._channel(message.channel).machine
        self._check_allowed(machine, ADD, (EXCEPTION,))
        machine.add_error(rebuild_error(message.error))

    # Events -------------------------------------------------------------------------------

    def _subscribe(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Subscribe)
        channel = self._channel(message.channel)
        names = channel.names(message.bring_up)
        if any(f"{name}_state" not in message.names for name in names):
            raise ProtocolError("a state is to be brought up that nobody subscribes to")
        before = channel.subscriptions.pop(message.number, None)
        if before is not None:  # asked for again, for the answer was lost
            before.close()
        channel.subscriptions[message.number] = Subscription(
            channel.machine,
            message,
            self.link,
            channel.feed,
            self.values,
            self.policy.outbox_limit,
            self._overflow,
        )
        self._answer(message.channel, message.call, _EXECUTED)

    def _overflow(self, reason: str) -> None:
        if self.link.is_closed:
            return
        log_warning(self.name, f"disconnected, for it does not keep up: {reason}")
        self.link.abandon(f"too slow: {reason}")

    def _unsubscribe(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Unsubscribe)
        subscription = self._channel(message.channel).subscriptions.pop(message.number, None)
        if subscription is not None:
            subscription.close()

    def _consumed(self, message: wire.Message) -> None:
        assert isinstance(message, wire.Consumed)
        subscription = self._channel(message.channel).subscriptions.get(message.number)
        if subscription is not None:
            subscription.consumed(message.count)
            self._check_room()


def _kind(number: int) -> str:
    if not 0 <= number < len(wire.KINDS):
        raise ProtocolError(f"there is no kind of mutation {number}")
    return wire.KINDS[number]
