"""The spans of a machine's states: one for each name, and below it one for each activation.

Guarantees: each span is ended exactly once. All but `Activations.close` is called by the
thread that has the machine's turn; that may be called by any thread, and again.

Assumes that single operations on dictionaries are atomic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.trace import Link, SpanKind

from asyncmachine.telemetry.outlines import MACHINE, SPAN, STATE, TICK
from asyncmachine.telemetry.propagation import below
from asyncmachine.telemetry.taking import end_surely, values_taken
from asyncmachine.telemetry.telling import encodable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer
    from opentelemetry.util.types import AttributeValue

    from asyncmachine.machine import Machine
    from asyncmachine.plans import Node
    from asyncmachine.telemetry.outlines import Outline, Outlines
    from asyncmachine.transition import Transition

__all__ = ["Activations"]

INTERNAL: Final = SpanKind.INTERNAL


class _Group(NamedTuple):
    """The span of a state's name, above those of its activations, and what these carry."""

    name: str
    span: Span
    context: Context
    attributes: dict[str, AttributeValue]


class Activations:
    """The activations of the states of one machine.

    Args:
        tracer: makes the spans.
        outlines: which states are chosen.
        machine: the machine.
        above: the parent of the names.

    Attributes:
        active: the spans of the open activations, by the positions of their states.
        node: the active states that these belong to, if that is known.

    """

    __slots__ = ("_above", "_id", "_names", "_outlines", "_start", "active", "groups", "node")

    def __init__(
        self, tracer: Tracer, outlines: Outlines, machine: Machine, above: Context
    ) -> None:
        self._start = tracer.start_span
        self._outlines = outlines
        self._id = encodable(machine.id)
        self._names = machine.schema.names
        self._above = above
        self.groups: dict[int, _Group] = {}
        self.active: dict[int, Span] = {}
        self.node: Node | None = None

    def follow(self, ticks: Sequence[int], now: int, node: Node | None = None) -> None:
        """Open and end activations so that they agree with the clocks, whatever moved these.

        Args:
            ticks: all clocks.
            now: when, in nanoseconds since 1970.
            node: the active states, if that is known.

        """
        for i, tick in enumerate(ticks):
            if not tick & 1:
                self.end((i,), now)
            elif i not in self.active:
                self._activate(i, tick, None, now)
        self.node = node

    def move(
        self, tx: Transition, outline: Outline, context: SpanContext | None, changed: int, now: int
    ) -> None:
        """Open and end activations as a transition has moved the clocks.

        Args:
            tx: the transition, which is over and has changed the machine.
            outline: that of its plan.
            context: its span, if it has one.
            changed: when it changed the machine, in nanoseconds since 1970.
            now: when it was over.

        """
        plan, moment, ticks = tx.plan, tx.moment, tx.ticks
        assert moment is not None
        if plan.source is not self.node:  # clocks have been imported, or it is the first one
            self.follow(ticks, changed, plan.source)
        self.node = None  # what is interrupted is made up for next time
        node = moment[0]
        if node is plan.target:
            self.end(outline.ended, changed)
            self.open(outline.opened, ticks, context, changed)
            self.node = node
            return
        for i, after in enumerate(tx.time_after):  # an error has put states back
            for tick in range(ticks[i] + 1, after + 1):
                when = changed if tick == ticks[i] + 1 else now
                if tick & 1:
                    self._activate(i, tick, context, when)
                else:
                    self.end((i,), when)
        self.node = node

    def end(self, positions: tuple[int, ...], now: int) -> None:
        """End the activations of some states.

        Args:
            positions: of the states.
            now: when, in nanoseconds since 1970.

        """
        for i in positions:
            span = self.active.pop(i, None)
            if span is not None:
                end_surely(span, now)

    def open(
        self,
        positions: tuple[int, ...],
        ticks: list[int] | dict[int, int],
        context: SpanContext | None,
        now: int,
    ) -> None:
        """Open activations of some states.

        Args:
            positions: of the states.
            ticks: the clocks before; those of states that are called again are odd.
            context: the transition that has activated them, if it has a span.
            now: when, in nanoseconds since 1970.

        """
        for i in positions:
            group = self.groups.get(i) or self.begin_group(i, now)
            attributes = group.attributes.copy()
            tick = ticks[i]
            attributes[TICK] = tick + 1 + (tick & 1)
            links = (Link(context),) if context is not None else ()
            self.active[i] = self._start(
                group.name, group.context, INTERNAL, attributes, links, now
            )

    def _activate(self, i: int, tick: int, context: SpanContext | None, now: int) -> None:
        if self._outlines.chosen(self._names[i]):
            self.open((i,), {i: tick - 1}, context, now)

    def begin_group(self, i: int, now: int) -> _Group:
        """Begin the span of a state's name, as early as its first activation."""
        name = self._names[i]
        common: dict[str, AttributeValue] = {MACHINE: self._id, STATE: name}
        own: dict[str, AttributeValue] = {SPAN: "state", **common}
        span = self._start(name, self._above, attributes=own, start_time=now)
        group = _Group(name, span, below(span), {SPAN: "activation", **common})
        self.groups[i] = group
        return group

    def close(self) -> None:
        """End everything that is open; may be called by any thread, and again."""
        for span in values_taken(self.active):
            end_surely(span)
        for group in values_taken(self.groups):
            end_surely(group.span)
