"""What one proxy has asked to hear of its machine: listeners, and waiters for args.

Guarantees: once ``begin()`` has returned, everything that happens is heard (inside a
handler, everything that is asked for afterwards over the same link). A waiter for args
that is made while another one's subscription ends gets one of its own: the waiter is
registered first, then the subscription is looked for, under the lock under which it ends.
"""

from __future__ import annotations

from itertools import count
from threading import Lock
from typing import TYPE_CHECKING

from asyncmachine.logs import log_warning
from asyncmachine.net import wire
from asyncmachine.net.errors import NotSerialisableError
from asyncmachine.net.listening import Listening, RemoteTransition
from asyncmachine.running import in_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncmachine.handlers import Handler
    from asyncmachine.net.client import Call
    from asyncmachine.net.remote import RemoteMachine
    from asyncmachine.net.values import Values

__all__ = ["Listenings"]


class Listenings:
    """The subscriptions of one `RemoteMachine`.

    Args:
        remote: the machine.
        values: unpacks args.

    """

    def __init__(self, remote: RemoteMachine, values: Values) -> None:
        self._remote = remote
        self._values = values
        self._numbers = count(1)
        self._lock = Lock()  # guards what follows, and that what is in it has been asked for
        self._by_number: dict[int, Listening] = {}
        self._for_waiters: dict[int, tuple[Listening, Call | None]] = {}

    def begin(
        self,
        listeners: Mapping[str, list[Handler]],
        *,
        pipe: bool = False,
        bring_up: tuple[int, ...] = (),
        over: Callable[[], object] | None = None,
    ) -> int:
        """Hear of handler names; inside a handler that begins without waiting.

        Args:
            listeners: what to call, by handler name; ``"*"`` for every transition.
            pipe: whether it is one end of a pipe.
            bring_up: positions of states whose being active now is told.
            over: called when the pipe is over.

        Returns:
            A number, for ``end()``.

        Raises:
            ConnectionLostError: if the process goes away before it answers.
            TimeoutError: if it did not answer in time.

        """
        listening = Listening(
            self._remote, next(self._numbers), listeners, pipe=pipe, bring_up=bring_up, over=over
        )
        self._remote.await_home()
        try:
            with self._lock:
                call = self._ask_locked(listening)
            if call is not None:
                self._remote.finish(call)
        except BaseException:
            self.end(listening.number)
            raise
        return listening.number

    def hear_activations(self, position: int) -> None:
        """Hear of the activations of a state, for as long as somebody waits for args.

        Raises:
            ConnectionLostError: if the process goes away before it answers.
            TimeoutError: if it did not answer in time.

        """
        self._remote.await_home()
        with self._lock:
            found = self._for_waiters.get(position)
            if found is None:
                name = f"{self._remote.schema.names[position]}_state"
                listening = Listening(
                    self._remote, next(self._numbers), {name: []}, position=position
                )
                found = self._for_waiters[position] = listening, self._ask_locked(listening)
        # Also for one that another thread has asked for: it may not have been answered yet.
        # One whose process has gone is asked for again as soon as there is another.
        call = found[1]
        if call is not None and not call.happened and not in_handler():
            self._remote.finish(call)

    def _ask_locked(self, listening: Listening) -> Call | None:
        self._by_number[listening.number] = listening
        try:
            return self._remote.ask_for(listening)
        except BaseException:
            del self._by_number[listening.number]
            raise

    def end(self, number: int) -> None:
        """Hear no more of a subscription."""
        with self._lock:
            if self._by_number.pop(number, None) is None:
                return
        self._remote.tell(lambda channel: wire.Unsubscribe(channel, number))

    def ask_again(self, channel: int, ask: Callable[[wire.Message], object]) -> None:
        """Ask another process for everything."""
        with self._lock:
            for listening in list(self._by_number.values()):
                ask(listening.wish(channel, 0, again=True))

    def happened(self, message: wire.Event) -> None:
        """Take note of an event; by one thread at a time."""
        listening = self._by_number.get(message.number)
        if listening is None:
            return
        remote, position = self._remote, listening.position
        try:
            args = self._values.unpack(message.args)
        except NotSerialisableError as error:
            log_warning(remote.id, f"an event is told without its args: {error}")
            args = {}
        if position < 0:
            before = (remote.time(), remote.active_states())
            listening.put(message.name, RemoteTransition(message, remote, args, before))
            return
        remote.follow((position, message.tick), (), (position,), args)
        listening.count()
        if not remote.awaits_args(position):
            self._hear_no_more(position)

    def _hear_no_more(self, position: int) -> None:
        with self._lock:
            if self._remote.awaits_args(position):
                return
            found = self._for_waiters.pop(position, None)
        if found is not None:
            self.end(found[0].number)

    def overflowed(self, number: int) -> None:
        """Take note that a pipe was too slow: it ends after what was kept."""
        with self._lock:
            listening = self._by_number.pop(number, None)
        if listening is not None:
            listening.end()

    def close(self) -> None:
        """Have all of them end after what they have heard."""
        for listening in list(self._by_number.values()):
            listening.end()
