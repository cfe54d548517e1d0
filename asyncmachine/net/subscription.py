"""What one link has asked to hear of one machine: events, in order, as fast as it takes them.

Guarantees: events are sent in the order they happened. Who hears them may have so many
unread (``EVENT_WINDOW``); the rest is kept here, up to ``outbox_limit``. Then a pipe takes
no more, delivers what it kept and ends, and its machine is told; any other subscription
ends the link. Nothing here waits for the link; what is posted is posted under the lock, so that
nothing overtakes it.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Final

import msgspec

from asyncmachine.errors import PipeOverflowError
from asyncmachine.logs import log_warning
from asyncmachine.net.errors import ConnectionLostError, NotSerialisableError
from asyncmachine.net.wire import NUMBERS, Event, Origin, Overflowed, encode
from asyncmachine.tracing import Tracer, trace_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.handlers import Binding
    from asyncmachine.machine import Machine
    from asyncmachine.net.feed import Feed
    from asyncmachine.net.link import Link
    from asyncmachine.net.values import Values
    from asyncmachine.net.wire import Subscribe
    from asyncmachine.transition import Event as LocalEvent
    from asyncmachine.transition import Transition

__all__ = ["EVENT_WINDOW", "Subscription"]

# So many events of a subscription may be unread.
EVENT_WINDOW: Final = 1024


class Subscription:
    """Tells a link of the events of a machine that it asked for.

    Args:
        machine: the machine.
        wish: what was asked for.
        link: who is told.
        feed: the clocks that the link is told, to be sent ahead of each event.
        values: packs args.
        limit: how many events are kept.
        overflow: called with a reason when the link does not keep up.

    """

    def __init__(
        self,
        machine: Machine,
        wish: Subscribe,
        link: Link,
        feed: Feed | None,
        values: Values,
        limit: int,
        overflow: Callable[[str], object],
    ) -> None:
        self._machine = machine
        self._wish = wish
        self._link = link
        self._feed = feed
        self._values = values
        self._limit = limit
        self._overflow = overflow
        self._lock = Lock()  # guards what follows
        self._outbox: deque[bytes] = deque()
        self._sent = self._consumed = 0
        self._over = False
        self._binding: Binding | None = None
        self._binding = self._begin()

    def _begin(self) -> Binding:
        wish, machine = self._wish, self._machine
        if wish.names == ("*",):
            return machine.add_tracer(_Forwarder(self))
        listeners = {}
        for number, name in enumerate(wish.names):
            state = name.rpartition("_")[0]
            position = machine.schema.index.get(state, -1)
            listeners[name] = self._listener(number, name, position)
        return machine.listen(listeners, self._bring_up if wish.bring_up else None)

    def close(self) -> None:
        """Tell nothing any more."""
        if self._binding is not None:
            self._binding.unbind()
        with self._lock:
            self._over = True
            self._outbox.clear()

    def _listener(self, number: int, name: str, position: int) -> Callable[[LocalEvent], object]:
        def tell(event: LocalEvent) -> None:
            tx = event.transition
            tick = self._machine.tick_at(position) if position >= 0 else 0
            self.tell(number, name, tx, tick)

        return tell

    def _bring_up(self) -> None:
        machine = self._machine
        for position in self._wish.bring_up:
            if machine.active_mask() >> position & 1:
                wish = self._wish
                number = wish.names.index(f"{machine.schema.names[position]}_state")
                tick = machine.tick_at(position)
                self._put(encode(Event(wish.channel, wish.number, number, 0, (position,), tick, 0)))

    def tell(self, number: int, name: str, tx: Transition, tick: int) -> None:
        """Tell of one transition.

        Args:
            number: position of the name among those that were asked for.
            name: the handler name.
            tx: the transition.
            tick: the clock of the state that the name is about.

        """
        args = self._packed(tx, name)
        if args is None:
            return
        mutation, machine, wish = tx.mutation, self._machine, self._wish
        origin = None
        if mutation.cause is not None or mutation.passed or mutation.trace:
            cause = mutation.cause or ("", 0)
            origin = Origin(cause[0], cause[1], mutation.passed, mutation.trace)
        self._put(
            encode(
                Event(
                    wish.channel,
                    wish.number,
                    number,
                    NUMBERS[mutation.kind],
                    tuple(machine.schema.find(mutation.states)),
                    tick,
                    tx.id,
                    args,
                    origin,
                    mutation.auto,
                    tx.accepted,
                    trace_here(tx),
                )
            )
        )

    def _packed(self, tx: Transition, name: str) -> bytes | None:
        """Pack the args; None if that can not be, and its pipe leaves this one out."""
        args = tx.args
        try:
            return self._values.pack(args)
        except NotSerialisableError as error:
            if self._wish.pipe:
                text = f"an activation of {name.rpartition('_')[0]} was not piped: {error}"
                self._machine.add_error(NotSerialisableError(text))
                return None
            data, stays = self._values.without_what_stays(args)
            log_warning(self._machine.id, f"{name} is told without {', '.join(stays)}: {error}")
            return data

    def _put(self, data: bytes) -> None:
        self._tell_clocks()
        with self._lock:
            if self._over:
                return
            if not self._outbox and self._sent - self._consumed < EVENT_WINDOW:
                left_out = self._post_locked(data)
            elif len(self._outbox) < self._limit:
                self._outbox.append(data)
                return
            else:
                self._over = True
                left_out = None
        if left_out is not None:
            self._tell_of(left_out)
        elif self._over:
            self._overflowed()

    def _tell_clocks(self) -> None:
        if self._feed is not None:
            self._feed.flush()

    def _post_locked(self, data: bytes) -> NotSerialisableError | None:
        """Send an event; if it is too large, leave out its args or, for a pipe, all of it."""
        try:
            self._link.post_encoded(data, now=False)
        except NotSerialisableError as error:
            if not self._wish.pipe:
                self._link.post_encoded(_without_args(data), now=False)
                self._sent += 1
            return error
        except ConnectionLostError:
            pass  # nobody is there to be told
        self._sent += 1
        return None

    def _tell_of(self, error: NotSerialisableError) -> None:
        names = ", ".join(self._wish.names)
        if self._wish.pipe:
            text = f"an activation of {names} was not piped, for its args are too large: {error}"
            self._machine.add_error(NotSerialisableError(text))
        else:
            log_warning(self._machine.id, f"{names} is told without its args: {error}")

    def _overflowed(self) -> None:
        machine = self._machine
        what = f"{self._limit} events of {machine.id} were waiting to be read"
        if not self._wish.pipe:
            self._overflow(what)
            return
        if self._binding is not None:
            self._binding.unbind()
        machine.add_error(PipeOverflowError(f"{what}: the pipe takes no more, and closes"))

    def consumed(self, count: int) -> None:
        """Take note that so many have been read, and send more."""
        self._tell_clocks()
        left_out: list[NotSerialisableError] = []
        with self._lock:
            # Not more than were sent: who is told again from the start may count on.
            self._consumed = min(max(self._consumed, count), self._sent)
            left = len(self._outbox)
            while self._outbox and self._sent - self._consumed < EVENT_WINDOW:
                error = self._post_locked(self._outbox.popleft())
                if error is not None:
                    left_out.append(error)
            if self._over and left and not self._outbox and self._wish.pipe:
                self._post_locked(encode(Overflowed(self._wish.channel, self._wish.number)))
        for error in left_out:
            self._tell_of(error)


def _without_args(data: bytes) -> bytes:
    event = msgspec.msgpack.decode(data, type=Event)
    event.args = b""
    return encode(event)


class _Forwarder(Tracer):
    """Tells of every transition of a machine."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def transition_end(self, tx: Transition) -> None:
        self._subscription.tell(0, "*", tx, 0)
