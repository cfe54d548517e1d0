"""What the machines of one tracer have in common, and what their transitions come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.trace import Link

from asyncmachine.telemetry.propagation import (
    given_out,
    parse,
    span_context_before,
    transition_around,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import SpanContext, Tracer

    from asyncmachine.telemetry.outlines import Outlines
    from asyncmachine.telemetry.propagation import Contexts
    from asyncmachine.transition import Transition

__all__ = ["Kit", "links_of"]


class Kit(NamedTuple):
    """What the machines of one tracer have in common.

    Attributes:
        tracer: makes the spans.
        outlines: what they carry.
        contexts: the spans of the latest transitions of all machines.
        context_of: finds the span of a transition of any of its machines.
        transitions, handlers, states: which spans are made.

    """

    tracer: Tracer
    outlines: Outlines
    contexts: Contexts
    context_of: Callable[[Transition], SpanContext | None]
    transitions: bool
    handlers: bool
    states: bool


def links_of(kit: Kit, tx: Transition, previous: SpanContext | None) -> tuple[Link, ...]:
    """Give the link of a transition to what has requested it, if that has a span.

    Args:
        kit: what knows the spans of transitions.
        tx: the transition; it is this thread that carries it out.
        previous: the span of the transition before, which auto transitions come from.

    """
    cause = _cause(kit, tx, previous)
    return (Link(cause),) if cause is not None else ()


def _cause(kit: Kit, tx: Transition, previous: SpanContext | None) -> SpanContext | None:
    if tx.plan.auto:
        return previous
    request = tx.request
    if request is None:
        return span_context_before()
    trace, cause = request.trace, request.cause
    given = given_out(trace) if trace else None
    if trace and given is None:  # it comes from another process, where ids may be the same
        given = parse(trace)
        if given is not None:
            return given
    if given is not None:  # by the first tracer; the cause may have a span of this one, too
        found = kit.contexts.get(cause) if cause is not None else None
        return found or given
    if cause is None and request.thread:
        return None  # requested by another thread, while nothing was current there
    # A cause without a trace is that of a handler around it, or of another process, which does
    # not trace, and where ids may be the same.
    found = None
    around = transition_around(tx)
    if around is not None and cause in (None, (around.machine.id, around.id)):
        found = kit.context_of(around)
    # What has waited was requested by another thread, with what was current there.
    return span_context_before() if found is None and not request.thread else found
