"""The spans of the handlers that one machine calls, each below that of its transition.

Guarantees: each span is ended exactly once. All but `HandlerSpans.drop` is called by the
thread that has the machine's turn; that may be called by any thread, and again.

Assumes that single operations on lists are atomic.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import SpanKind

from asyncmachine.telemetry.outlines import HANDLER, MACHINE, PHASE, SPAN
from asyncmachine.telemetry.propagation import Lease
from asyncmachine.telemetry.taking import end_surely, taken
from asyncmachine.telemetry.telling import tell_error

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from asyncmachine.transition import Transition

__all__ = ["HandlerSpans"]

INTERNAL: Final = SpanKind.INTERNAL


class HandlerSpans:
    """The spans of the handlers of one machine.

    Args:
        tracer: makes the spans.
        machine_id: the id of the machine.

    Attributes:
        latest: name of the latest handler of the transition; empty if it has called none.

    """

    __slots__ = ("_failed", "_machine_id", "_open", "_start", "latest")

    def __init__(self, tracer: Tracer, machine_id: str) -> None:
        self._start = tracer.start_span
        self._machine_id = machine_id
        self._open: list[tuple[Span, Lease]] = []  # one, or none
        self._failed: list[tuple[Span, int]] = []  # the one that has failed, and when
        self.latest = ""

    def begin(self, tx: Transition, name: str, above: Context) -> None:
        """Begin the span of a handler, and make it current.

        Args:
            tx: the transition that calls it.
            name: its name.
            above: the context below the transition's span.

        """
        if self._open:  # the tracer has been added twice
            return
        self.latest = name
        attributes = {
            SPAN: "handler",
            MACHINE: self._machine_id,
            HANDLER: name,
            PHASE: "negotiation" if tx.moment is None else "final",
        }
        span = self._start(name, above, INTERNAL, attributes)
        self._open.append((span, Lease(span)))

    def end(self, tx: Transition) -> None:
        """End the open span; later, if the handler has failed: its error is not known yet."""
        try:
            span, lease = self._open.pop()
        except IndexError:  # it has none
            return
        lease.give_back()
        rare = tx.rare
        if rare is None or rare.at is None:
            span.end()
        else:
            self._failed.append((span, time_ns()))

    def tell_failed(self, tx: Transition) -> None:
        """End the span of the handler that has failed, if one has, with its error."""
        for span, when in taken(self._failed):
            tell_error(span, tx)
            end_surely(span, when)

    def drop(self) -> None:
        """End what is open; may be called by any thread, and again."""
        for span, lease in taken(self._open):
            lease.revoke()
            end_surely(span)
        for span, when in taken(self._failed):
            end_surely(span, when)
