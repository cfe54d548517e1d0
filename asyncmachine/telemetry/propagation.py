"""Which span a piece of work belongs to, across handlers, threads and processes.

Guarantees: every function here may be called by any thread. What is remembered is
bounded. Attaching and detaching never disturbs a thread, not even one whose handler was
late, so that another thread has to detach what the first one attached.

Assumes that single operations on dictionaries are atomic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import INVALID_SPAN, SpanContext, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from asyncmachine.running import LOCAL, Frame
from asyncmachine.transition import Transition

if TYPE_CHECKING:
    from collections.abc import Hashable

    from opentelemetry.trace import Span

    from asyncmachine.running import Running

__all__ = [
    "Contexts",
    "Lease",
    "below",
    "give_out",
    "given_out",
    "parse",
    "span_context_before",
    "span_context_here",
    "traceparent",
    "transition_around",
]

# A traceparent of version 00 has 55 characters; later versions may have more.
_LONGEST: Final = 512
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_EMPTY: Final = Context()
# Where a context keeps the current span; `set_span_in_context` knows, but costs more.
_KEY: Final = next(iter(set_span_in_context(INVALID_SPAN, _EMPTY)))


def traceparent(context: SpanContext) -> str:
    """Give the W3C ``traceparent`` of a span, or an empty text if it is not valid.

    Example:
        >>> traceparent(SpanContext(0xabc, 0x1, is_remote=False))
        '00-00000000000000000000000000000abc-0000000000000001-00'

    """
    trace_id, span_id, _, flags, _, valid = context
    return f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}" if valid else ""


def parse(text: str) -> SpanContext | None:
    """Give the span that a W3C ``traceparent`` names; ``None`` if the text is no such thing.

    Example:
        >>> parse("00-00000000000000000000000000000abc-0000000000000001-01").span_id
        1
        >>> parse("nonsense") is None
        True

    """
    if not text or len(text) > _LONGEST:
        return None
    found = _PROPAGATOR.extract({"traceparent": text}, _EMPTY)
    context = get_current_span(found).get_span_context()
    return context if context.is_valid else None


def span_context_here() -> SpanContext | None:
    """Give the span that is current in this thread; ``None`` if none is."""
    if not get_current():  # the usual case, and a cheap one
        return None
    context = get_current_span().get_span_context()
    return context if context.is_valid else None


def span_context_before() -> SpanContext | None:
    """Give the span that was current in this thread before the transition it carries out.

    What another tracer has made current for that transition does not count.
    """
    current = get_current()
    top = LOCAL.here.top
    while isinstance(current, Lease) and top is not None and current.made_in is top:
        current = current.outer
    if not current:
        return None
    context = get_current_span(current).get_span_context()
    return context if context.is_valid else None


def transition_around(inner: Transition | None = None) -> Transition | None:
    """Give the transition in which this thread is, in a handler or a callback of a waiter.

    Args:
        inner: a transition that this thread is carrying out itself, and that does not count.

    """
    top = LOCAL.here.top
    while top is not None:
        tx = top.transition if isinstance(top, Frame) else top
        if isinstance(tx, Transition) and tx is not inner:
            return tx
        top = top.outer
    return None


class Contexts:
    """Remembers the spans of the latest transitions, and of the latest traceparents.

    Args:
        most: how many are remembered at least; never more than twice as many.

    Example:
        >>> contexts = Contexts(most=100)
        >>> contexts["machine", 1] = SpanContext(1, 2, is_remote=False)
        >>> contexts.get(("machine", 1)).span_id, contexts.get(("machine", 2))
        (2, None)

    """

    __slots__ = ("_latest", "_most", "_older")

    def __init__(self, most: int = 8192) -> None:
        self._most = most
        self._latest: dict[Hashable, SpanContext] = {}
        self._older: dict[Hashable, SpanContext] = {}

    def __setitem__(self, key: Hashable, context: SpanContext) -> None:
        latest = self._latest
        latest[key] = context
        if len(latest) >= self._most and latest is self._latest:
            self._older, self._latest = latest, {}

    def get(self, key: Hashable) -> SpanContext | None:
        """Give what is remembered under a key."""
        return self._latest.get(key) or self._older.get(key)


# What traceparents have been given out here, so that they need not be read again.
_GIVEN: Final = Contexts()


def give_out(context: SpanContext) -> str:
    """Give the ``traceparent`` of a span, and remember what it stands for."""
    text = traceparent(context)
    _GIVEN[text] = context
    return text


def given_out(text: str) -> SpanContext | None:
    """Give the span of a ``traceparent`` that was given out in this process, lately."""
    return _GIVEN.get(text)


def below(span: Span) -> Context:
    """Give the context in which a span is current, and nothing else is."""
    return Context({_KEY: span})


class Lease(Context):
    """Makes a span the current one of this thread, until that is given back.

    A handler that overruns its time is left behind: another thread goes on with the
    transition, and gives the lease back. As that thread can not detach what is attached
    to the first one, the lease is over from then on: it shows what was current before. So
    it does when the first one has left the transition, which may be a moment earlier.

    Args:
        span: the span.

    Attributes:
        outer: what was current before.
        made_in: what its thread was carrying out when it was made; ``None`` when it is over.

    """

    __slots__ = ("_done", "_here", "_over", "_token", "made_in", "outer")

    outer: Context
    made_in: Running | None
    _done: bool
    _over: bool

    def __init__(self, span: Span) -> None:
        outer = get_current()
        while isinstance(outer, Lease) and outer.over:  # left behind by a late handler
            outer = outer.outer
        super().__init__({**outer, _KEY: span})
        self._over = self._done = False
        self.outer = outer
        self._here = here = LOCAL.here  # of this thread, and of no later one with the same ident
        self.made_in = here.top
        self._token = attach(self)

    def give_back(self) -> None:
        """Make current again what was before; to be called once, by any thread."""
        if LOCAL.here is not self._here:
            self.revoke()
            return
        if get_current() is not self:
            top = _lease_on_top()
            if top is not self and top is not None:  # that of another tracer, which comes later
                self._done = True
                return
        self.made_in = None  # who has copied the context shall not keep a machine alive
        detach(self._token)
        outer = self.outer
        if isinstance(outer, Lease) and outer._done:
            outer.give_back()

    def revoke(self) -> None:
        """Show what was current before, from now on, without detaching anything."""
        self._over = True
        self.made_in = None

    @property
    def over(self) -> bool:
        """Whether what was before is current again, though this may still be attached."""
        made_in = self.made_in  # read first: it is taken back last
        if made_in is None or self._over:
            return self._over
        return self._here is LOCAL.here and not _is_going_on(made_in)

    @property
    def left_behind(self) -> bool:
        """Whether it is over, and still attached to this thread."""
        return self.over and self._here is LOCAL.here

    # What a Context is asked for: `get` by OpenTelemetry, the others by whoever derives one.

    def get(self, key: str, default: object = None) -> object:
        """Give a value of the context."""
        return self.outer.get(key, default) if self.over else super().get(key, default)

    def copy(self) -> dict[str, object]:
        """Give all values of the context."""
        return self.outer.copy() if self.over else super().copy()

    def __getitem__(self, key: str) -> object:
        return self.outer[key] if self.over else super().__getitem__(key)


def _is_going_on(link: Running) -> bool:
    """Whether this thread is still carrying something out."""
    top = LOCAL.here.top
    while top is not None and top is not link:
        top = top.outer
    return top is link


def _lease_on_top() -> Lease | None:
    """Give the lease that is current in this thread, without those that are left behind."""
    top = get_current()
    while isinstance(top, Lease) and top.left_behind:
        detach(top._token)
        top = get_current()
    return top if isinstance(top, Lease) else None
