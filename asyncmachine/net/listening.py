"""Listeners to a machine that lives elsewhere.

Guarantees: the listeners of one binding hear of events in order, one at a time, on a
background thread of their own: one that is slow delays nobody else. What they have not
heard yet is kept by the machine's process, up to its ``outbox_limit``.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Final

from asyncmachine.logs import log_exception
from asyncmachine.net import wire
from asyncmachine.net.errors import ProtocolError
from asyncmachine.net.subscription import EVENT_WINDOW
from asyncmachine.running import LOCAL, Frame
from asyncmachine.threads import run_elsewhere
from asyncmachine.transition import Cause, Event, Mutation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncmachine.net.remote import RemoteMachine

__all__ = ["Listening", "RemoteTransition"]

_FREE: Final = (None,)


class RemoteTransition:
    """What is known here of a transition that was carried out elsewhere.

    It has what listeners and tracers read of a `Transition`: the clocks are those that the
    mirror showed when it heard of it.

    Attributes:
        id: number of the transition in its process.
        machine: the `RemoteMachine`.
        mutation: the request.
        request: the same; a transition at home may not have made it yet.
        args: what came with it.
        accepted: whether it was executed.
        time_before: all clocks before, as far as the mirror knew.
        time_after: all clocks afterwards.
        states_before: the active states before.
        target_states: the active states afterwards.
        data: a dict for its listeners.
        trace: the W3C ``traceparent`` of the transition, if it is traced at home.

    """

    __slots__ = (
        "accepted",
        "args",
        "data",
        "id",
        "machine",
        "mutation",
        "request",
        "states_before",
        "target_states",
        "time_after",
        "time_before",
        "trace",
    )

    error: BaseException | None = None
    duration_ns = 0
    steps: tuple[object, ...] = ()
    log_entries: tuple[str, ...] = ()

    def __init__(
        self,
        message: wire.Event,
        machine: RemoteMachine,
        args: dict[str, object],
        before: tuple[tuple[int, ...], tuple[str, ...]],
    ) -> None:
        origin = message.origin
        cause = Cause(origin.machine, origin.transition) if origin and origin.machine else None
        names = machine.schema.names
        states = tuple(names[i] for i in message.states if 0 <= i < len(names))
        self.id = message.transition
        self.machine = machine
        self.args = args
        if not 0 <= message.kind < len(wire.KINDS):
            raise ProtocolError(f"there is no kind of mutation {message.kind}")
        self.mutation = Mutation(
            wire.KINDS[message.kind],
            states,
            args,
            auto=message.auto,
            cause=cause,
            passed=origin.passed if origin else (),
            trace=origin.trace if origin else "",
        )
        self.request = self.mutation
        self.accepted = message.accepted
        self.trace = message.trace
        self.time_before, self.states_before = before
        self.time_after, self.target_states = machine.time(), machine.active_states()
        self.data: dict[str, object] = {}

    @property
    def cause(self) -> Cause | None:
        """The transition whose handler requested it, or ``None``."""
        return self.mutation.cause

    def __repr__(self) -> str:
        return f"<RemoteTransition {self.id} {self.mutation.kind} {' '.join(self.mutation.states)}>"


class Listening:
    """One binding of listeners.

    Args:
        remote: the machine they listen to.
        number: of the subscription.
        listeners: what to call, by handler name.
        pipe: whether it is one end of a pipe.
        bring_up: positions of states whose being active now is told.
        over: called when the pipe is over.

    Attributes:
        number: of the subscription.
        position: the state whose activations it hears of for waiters, or -1.

    """

    def __init__(
        self,
        remote: RemoteMachine,
        number: int,
        listeners: Mapping[str, list[Callable[[Event], object]]],
        *,
        pipe: bool = False,
        bring_up: tuple[int, ...] = (),
        over: Callable[[], object] | None = None,
        position: int = -1,
    ) -> None:
        self._remote = remote
        self.number = number
        self.position = position
        self._names = tuple(listeners)
        self._calls = [tuple(listeners[name]) for name in self._names]
        self._pipe = pipe
        self._bring_up = bring_up
        self._over = over
        self._line: deque[tuple[int, int, RemoteTransition] | None] = deque()
        self._baton = [None]
        self._lock = Lock()  # guards the counts
        self._life = 0  # of the process that tells; each counts from 0
        self._read = self._told = 0

    def wish(self, channel: int, call: int, *, again: bool = False) -> wire.Subscribe:
        """Give the message that asks for it, of a process that has not been asked yet.

        Args:
            channel: number of the machine.
            call: number of the call, or 0.
            again: whether another process was asked before.

        """
        with self._lock:
            self._life += 1
            self._read = self._told = 0
        bring_up = self._bring_up if not again or self._pipe else ()
        return wire.Subscribe(channel, call, self.number, self._names, self._pipe, bring_up)

    def put(self, name: int, tx: RemoteTransition) -> None:
        """Have the listeners of one name told, by a thread of their own."""
        if not 0 <= name < len(self._names):
            raise ProtocolError(f"an event of {self._remote.id} that nobody asked for")
        self._line.append((self._life, name, tx))
        self._serve()

    def count(self) -> None:
        """Take note of an event that needed no listener."""
        self._count(self._life)

    def _count(self, life: int) -> None:
        with self._lock:
            if life == self._life:
                self._read += 1
            due = self._read - self._told >= EVENT_WINDOW // 4
        if due:
            self._acknowledge()

    def end(self) -> None:
        """Have it end after what is in the line."""
        self._line.append(None)
        self._serve()

    def _serve(self) -> None:
        try:
            del self._baton[0]
        except IndexError:
            return
        run_elsewhere(self._work)

    def _work(self) -> None:
        line = self._line
        while True:
            while line:
                item = line.popleft()
                if item is None:
                    if self._over is not None:
                        self._over()
                    continue
                life, name, tx = item
                self._tell(name, tx)
                self._count(life)
            self._acknowledge()
            self._baton += _FREE
            if not line:
                return
            try:
                del self._baton[0]
            except IndexError:
                return

    def _acknowledge(self) -> None:
        with self._lock:
            read = self._read
            if read == self._told:
                return
            self._told = read
        self._remote.consumed(self.number, read)

    def _tell(self, name: int, tx: RemoteTransition) -> None:
        here = LOCAL.here
        outer = here.top
        event = Event()
        event.name = self._names[name]
        event.transition = tx  # type: ignore[assignment]  # it has what listeners read
        for call in self._calls[name]:
            try:
                # A pipe may wait for room at its target; a listener counts as a handler.
                if not self._pipe:
                    here.top = Frame(self._remote, outer, None)
                call(event)
            except Exception as error:  # noqa: BLE001 - it is the user's code
                log_exception(
                    "error in a listener to %s of %s", event.name, self._remote.id, error=error
                )
            finally:
                here.top = outer
