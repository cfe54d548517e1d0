"""OpenTelemetry traces of machines; ``pip install asyncmachine[otel]``.

Guarantees: an `OtelTracer` may serve many machines, whose hooks are told on many threads
at once. What it remembers is bounded. Whatever the backend does, the machines go on.

Assumes that single operations on dictionaries and deques are atomic.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final
from weakref import ref

try:
    from opentelemetry.trace import get_tracer
except ImportError as error:  # pragma: no cover - the tests need it
    msg = f"asyncmachine.telemetry.otel needs {error.name}: pip install 'asyncmachine[otel]'"
    raise ImportError(msg, name=error.name) from error

from asyncmachine.locking import FreshLock
from asyncmachine.machine import Machine
from asyncmachine.telemetry.causes import Kit
from asyncmachine.telemetry.outlines import Outlines, chooser
from asyncmachine.telemetry.propagation import (
    Contexts,
    give_out,
    span_context_here,
    transition_around,
)
from asyncmachine.telemetry.spans import MachineSpans
from asyncmachine.tracing import Tracer, propagate_with

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.trace import SpanContext, TracerProvider

    from asyncmachine.transition import Mutation, Transition

__all__ = ["OtelTracer"]

# What the tracers of the program know, for mutations that leave the process.
_KNOWN: Final[list[ref[OtelTracer]]] = []
_GUARD: Final = FreshLock()


class OtelTracer(Tracer):
    """Tells OpenTelemetry of machines: a span for each activation, transition and handler.

    The spans of a machine, each below the other::

        machine                  as long as the machine; below its parent's, if that is followed
          states
            Foo                  the name of a state that has been active
              Foo                one activation, linked to the transition that caused it
          transitions
            [add] Foo Bar        linked to what requested it
              Foo_enter          a handler
              Foo_state

    While its handlers run, the span of a transition, or of the handler, is the current
    one of the thread. Spans that last as long as the machine reach the backend when it is
    disposed, or with `close`.

    Args:
        tracer_provider: makes the spans; the global provider unless given.
        transitions: whether transitions get spans.
        handlers: whether handlers do, below those of their transitions.
        states: whether activations of states do.
        allow: names of states; if any are given, only these get spans of activations, and
            a transition gets one only if it calls one of these.
        skip: names of states that get no spans of activations; a transition that calls
            none but these gets none, nor do its handlers.
        inherit: whether it is added to the machines that are built with a machine of its
            own as ``parent``, too.

    Raises:
        TypeError: if the provider is none, or ``allow`` or ``skip`` name anything but states.

    Example:
        >>> from asyncmachine import Machine, State
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        >>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        >>> exporter, provider = InMemorySpanExporter(), TracerProvider()
        >>> provider.add_span_processor(SimpleSpanProcessor(exporter))
        >>> with Machine({"Foo": State()}, id="m", tracers=[OtelTracer(provider)]) as machine:
        ...     _ = machine.add("Foo")
        >>> [span.name for span in exporter.get_finished_spans()]
        ['[add] Foo', 'Foo', 'Foo', 'transitions', 'states', 'm']

    """

    wants_bare = False  # what calls nothing gets its span in one go, when it is over
    wants_ids = True

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        transitions: bool = True,
        handlers: bool = True,
        states: bool = True,
        allow: Iterable[str] | str = (),
        skip: Iterable[str] | str = (),
        inherit: bool = True,
    ) -> None:
        wrong = isinstance(tracer_provider, type) or not hasattr(tracer_provider, "get_tracer")
        if tracer_provider is not None and wrong:
            msg = f"tracer_provider must be a TracerProvider, not {tracer_provider!r}"
            raise TypeError(msg)
        self._inherit = inherit
        self._closed = False
        self._machines: dict[int, MachineSpans] = {}  # by the id() of the machine
        self._refs: dict[int, ref[Machine]] = {}
        self._orphans: deque[MachineSpans] = deque()
        self._kit = Kit(
            get_tracer("asyncmachine", tracer_provider=tracer_provider),
            Outlines(chooser(allow, skip), transitions=transitions),
            Contexts(),
            self.context_of,
            transitions,
            handlers and transitions,
            states,
        )
        # Hooks that are not needed are not even called.
        hooks: dict[str, object] = {}
        if transitions:
            hooks.update(transition_init=self._begin, mutation_queued=self._queued)
        if transitions or states:
            hooks.update(transition_end=MachineSpans.ending(self._machines))
        if self._kit.handlers or states:  # the clocks move before the first final handler
            hooks.update(handler_start=self._begin_handler)
        if self._kit.handlers:
            hooks.update(handler_end=self._end_handler)
        vars(self).update(hooks)
        with _GUARD.now:
            _KNOWN[:] = [*(each for each in _KNOWN if each() is not None), ref(self)]
        propagate_with(traceparent_of)

    # Machines ---------------------------------------------------------------------------

    def machine_init(self, mach: Machine) -> None:
        """Begin the spans of a machine, and of what is active already.

        Raises:
            TypeError: if the machine lives elsewhere: it is traced there.

        """
        self._bury()
        if not isinstance(mach, Machine):
            msg = f"{mach!r} lives elsewhere: add an OtelTracer there"
            raise TypeError(msg)
        if self._closed:
            return
        spans = self._machines.get(id(mach))
        if spans is None:
            parent = self._machines.get(id(mach.parent)) if mach.parent is not None else None
            spans = MachineSpans(self._kit, mach, parent)
            self._refs[id(mach)] = ref(mach, self._orphaned(id(mach)))
            self._machines[id(mach)] = spans
        spans.follow(mach.time())
        if self._inherit:
            for child in mach.children:
                self.submachine(mach, child)  # type: ignore[arg-type]  # children are Machines
        if self._closed:  # by another thread, just now
            self.close()

    def submachine(self, parent: Machine, child: Machine) -> None:
        """Follow a child, too, if that is wanted."""
        if self._inherit and self not in child.tracers:
            child.add_tracer(self)

    def machine_dispose(self, mach: Machine) -> None:
        """End all spans of the machine."""
        self._bury()
        self._refs.pop(id(mach), None)
        spans = self._machines.pop(id(mach), None)
        if spans is not None:
            spans.close()

    def close(self) -> None:
        """End all spans that are open, of all machines, and make no more.

        May be called by any thread, and again. It does not flush the provider.
        """
        self._closed = True
        self._refs.clear()
        while self._machines:
            try:
                # The youngest first, for a parent is older than its children.
                _, spans = self._machines.popitem()
            except KeyError:  # another thread has taken the last one
                break
            spans.close()
        self._bury()

    def _orphaned(self, key: int) -> _Orphaned:
        return _Orphaned(ref(self), key)

    def abandon(self, key: int) -> None:
        """Take note that a machine has been forgotten without being disposed.

        Args:
            key: the ``id()`` it had.

        """
        self._refs.pop(key, None)
        spans = self._machines.pop(key, None)
        if spans is not None:
            self._orphans.append(spans)

    def _bury(self) -> None:
        """End the spans of machines that have been forgotten.

        Not done at once: that moment may be any, while the SDK holds its locks, too.
        """
        while self._orphans:
            try:
                spans = self._orphans.popleft()
            except IndexError:  # another thread has taken the last one
                break
            spans.close()

    # Hooks ------------------------------------------------------------------------------

    def _begin(self, tx: Transition) -> None:
        try:
            plan = tx.plan
        except AttributeError:  # it is carried out elsewhere, and traced there
            return
        # What calls nothing gets its span in one go, when it is over; what is logged has a
        # request.
        if plan.negotiation or plan.final or (tx.request is not None and tx.machine.log_level):
            spans = self._machines.get(id(tx.machine))
            if spans is not None:
                spans.begin(tx)

    def _begin_handler(self, tx: Transition, name: str) -> None:
        spans = self._machines.get(id(tx.machine))
        if spans is not None:
            spans.begin_handler(tx, name)

    def _end_handler(self, tx: Transition, name: str) -> None:
        spans = self._machines.get(id(tx.machine))
        if spans is not None:
            spans.end_handler(tx)

    def _queued(self, mach: Machine, mutation: Mutation) -> None:
        """Note what a mutation that waits was requested in; the requesting thread tells."""
        if mutation.trace:
            return
        tx = transition_around()
        context = self.context_of(tx) if tx is not None else None
        if context is None:
            context = span_context_here()
        if context is not None:
            mutation.trace = give_out(context)

    def context_of(self, tx: Transition) -> SpanContext | None:
        """Give the span of a transition that is going on in this thread, or has been.

        Args:
            tx: the transition.

        Returns:
            Its span, or ``None`` if it has none or it has been forgotten.

        """
        spans = self._machines.get(id(tx.machine))
        return spans.context_of(tx) if spans is not None else None


class _Orphaned:
    """Tells a tracer, if it still lives, that one of its machines has been forgotten."""

    __slots__ = ("_key", "_tracer")

    def __init__(self, tracer: ref[OtelTracer], key: int) -> None:
        self._tracer = tracer
        self._key = key

    def __call__(self, machine: object) -> None:
        tracer = self._tracer()
        if tracer is not None:
            tracer.abandon(self._key)


def traceparent_of(tx: Transition | None) -> str:
    """Give the ``traceparent`` of a transition, else of what is current in this thread.

    Args:
        tx: the transition whose handler the thread is in, or ``None``.

    Returns:
        The text; an empty one if there is no span.

    """
    around = tx if tx is not None else transition_around()
    if around is not None:
        for each in tuple(_KNOWN):
            tracer = each()
            context = tracer.context_of(around) if tracer is not None else None
            if context is not None and context.is_valid:
                return give_out(context)
    here = span_context_here()
    return give_out(here) if here is not None else ""
