"""What a feed does on the thread of a machine: one tuple into a ring, nothing else.

Guarantees: the machine never waits: there is no lock, and no call that may block. The
ring keeps the newest transitions; the oldest fall out by themselves. Values of args do
not outlive the transition.
Assumes that a machine tells of one transition at a time, and that appending to a deque is
atomic. A handler may be over on another thread than the one it began on.
"""

from __future__ import annotations

from collections import deque
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias
from weakref import ref

from asyncmachine.errors import described
from asyncmachine.logs import format_args
from asyncmachine.tracing import Tracer

if TYPE_CHECKING:
    from asyncmachine.handlers import Binding
    from asyncmachine.machine import Machine
    from asyncmachine.moments import Moment
    from asyncmachine.plans import Plan
    from asyncmachine.schema import Schema
    from asyncmachine.transition import Mutation, Transition

__all__ = ["Details", "Entry", "Keeper", "Notable", "Sketch", "Tap"]


class Notable(Protocol):
    """Who empties the rings."""

    def note(self, number: int) -> None:
        """Take note that there is something of a tap; never blocks."""


class Idle:
    """Whether the next entry of a ring has to be noted, for nobody is to look otherwise."""

    __slots__ = ("idle",)

    def __init__(self) -> None:
        self.idle = True


class Details(NamedTuple):
    """What only some transitions have.

    Attributes:
        outcome: what became of it.
        accepted: whether relations and negotiation agreed.
        moves: what it has moved, if that is not what its plan says.
        at: the handler that refused it or failed.
        error: type and text of its error.
        args: the args that may be shown.
        log: the lines that were logged.
        calls: names, starts and ends of its handlers.

    """

    outcome: str
    accepted: bool
    moves: tuple[tuple[int, int], ...] | None
    at: str
    error: str
    args: str
    log: tuple[str, ...]
    calls: tuple[str | int, ...]


class Sketch:
    """What is kept of a transition whose args, errors and data must not be kept."""

    __slots__ = ("ended_ns", "id", "moment", "plan", "request", "started_ns", "ticks")

    def __init__(self, tx: Transition) -> None:
        self.plan: Plan = tx.plan
        self.ticks: list[int] = tx.ticks
        self.moment: Moment | None = tx.moment
        self.id: int = tx.id
        self.started_ns: int = tx.started_ns
        self.ended_ns: int = tx.ended_ns
        # Of a request only the cause is looked at.
        self.request: _Caused | None = _Caused(tx.request) if tx.request is not None else None


class _Caused:
    __slots__ = ("cause",)

    def __init__(self, request: Mutation) -> None:
        self.cause = request.cause


# Number, transition, length of the queue, and what else there is.
Entry: TypeAlias = "tuple[int, Transition | Sketch, int, Details | None]"


class Keeper(Tracer):
    """Keeps what takes tracers from a machine; only the machine keeps it.

    A binding refers to its machine: kept by a feed, it would keep the machine for ever.
    """

    def __init__(self) -> None:
        self._bindings: list[Binding] = []

    def bind(self, machine: Machine, tracer: Tracer | None = None) -> None:
        """Add a tracer to the machine, to be taken from it with this one."""
        if tracer is not None:
            self._bindings.append(machine.add_tracer(tracer))
        self._bindings.append(machine.add_tracer(self))

    def unbind(self) -> None:
        """Take all from the machine."""
        for binding in self._bindings:
            binding.unbind()


class Tap(Tracer):
    """Takes down the transitions of one machine for one sender.

    Args:
        machine: the machine.
        sender: who empties the ring.
        size: how many transitions the ring holds.
        number: its number there.

    Attributes:
        number: as given.
        rest: to be set ``idle`` before somebody looks into the ring.
        ring: what has not been sent yet.
        machine_id: id of the machine.
        parent: id of its parent, or an empty text.
        tags: its tags.
        schema: its schema.
        start: its clocks when the tap began to hear; ``None`` before.
        over: why nothing more comes, or an empty text.

    """

    wants_ids = True

    def __init__(self, machine: Machine, sender: Notable, size: int, number: int) -> None:
        self.number = number
        self.rest = Idle()
        self.machine_id = machine.id
        self.parent = machine.parent.id if machine.parent is not None else ""
        self.tags = tuple(machine.tags)
        self.schema: Schema = machine.schema
        self.ring: deque[Entry] = deque(maxlen=size)
        self.start: list[int] | None = None
        self.over = ""
        self._sender = sender
        self._machine = ref(machine, self._forgotten)
        self._make_hooks()

    def _make_hooks(self) -> None:
        """Make the hot hooks closures: what they need costs less than attributes."""
        rest = self.rest
        note_tap = self._sender.note
        tap = self.number
        append = self.ring.append
        number = count(1).__next__
        calls: list[Transition | str | int] = []  # of the transition that is going on
        note = calls.append

        def transition_end(tx: Transition) -> None:
            if tx.rare is not None or tx.args or calls:
                append(_detailed(number(), tx, calls))
            else:
                append((number(), tx, tx.machine.queue_length, None))
            if rest.idle:
                rest.idle = False
                note_tap(tap)

        def handler_start(tx: Transition, name: str) -> None:
            if not calls:
                note(tx)
            elif calls[0] is not tx:  # left over
                calls[:] = (tx,)
            note(name)
            note(perf_counter_ns())

        def handler_end(_tx: Transition, _name: str) -> None:
            note(perf_counter_ns())

        self.transition_end = transition_end  # type: ignore[method-assign]
        self.handler_start = handler_start  # type: ignore[method-assign]
        self.handler_end = handler_end  # type: ignore[method-assign, assignment]

    @property
    def machine(self) -> Machine | None:
        """The machine, if it is still there."""
        return self._machine()

    def machine_init(self, mach: Machine) -> None:
        """Take note of the clocks that the first transition begins with."""
        self.start = list(mach.time())
        self._alarm()

    def machine_dispose(self, mach: Machine) -> None:
        """Have the sender tell that nothing more comes."""
        self.end("disposed")

    def _forgotten(self, _: object) -> None:
        self.end("forgotten")

    def end(self, reason: str) -> None:
        """Have the sender tell what is left, and that nothing more comes; the first counts."""
        self.over = self.over or reason
        self._alarm()

    def _alarm(self) -> None:
        self._sender.note(self.number)


def _detailed(number: int, tx: Transition, calls: list[Transition | str | int]) -> Entry:
    """Make the entry of a transition that is more than a move of clocks."""
    called: tuple[str | int, ...] = ()
    if calls:
        if calls[0] is tx:
            called = tuple(calls[1:])  # type: ignore[arg-type]  # only the first is a transition
        calls.clear()
    rare = tx.rare
    error = at = ""
    log: tuple[str, ...] = ()
    if rare is not None:
        log = tuple(rare.log)
        if rare.at is not None:
            at = rare.at[0]
        if rare.error is not None:
            error = described(rare.error)
    shown = tx.machine.log_args if tx.args else ()
    args = format_args(tx.args, shown).strip() if shown else ""
    outcome = tx.outcome
    moves = tx.moves
    as_planned = tx.plan.moves if outcome == "executed" else ()
    details = Details(
        outcome, tx.accepted, None if moves == as_planned else moves, at, error, args, log, called
    )
    return number, Sketch(tx), tx.machine.queue_length, details
