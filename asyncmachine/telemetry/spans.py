"""The spans of one machine: its own, and those of its transitions and their handlers.

Guarantees: each span is ended exactly once, the parents after their children. All but
`MachineSpans.close` is called by the thread that has the machine's turn, one transition at
a time. `MachineSpans.close` may be called by any thread at any time, while a handler never
returns, too: what the other thread opens meanwhile is ended by that thread.

Assumes that single operations on dictionaries and lists are atomic.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Final, TypeAlias

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link, SpanKind

from asyncmachine.logs import log_exception
from asyncmachine.telemetry import outlines as named
from asyncmachine.telemetry.activations import Activations
from asyncmachine.telemetry.causes import links_of
from asyncmachine.telemetry.handling import HandlerSpans
from asyncmachine.telemetry.outlines import MACHINE, TICK, TIME_AFTER, TIME_BEFORE, TRANSITION
from asyncmachine.telemetry.propagation import Lease, below
from asyncmachine.telemetry.taking import end_surely, taken
from asyncmachine.telemetry.telling import add_args, attributes_when_over, encodable, tell_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import Span, SpanContext
    from opentelemetry.util.types import AttributeValue

    from asyncmachine.machine import Machine
    from asyncmachine.telemetry.causes import Kit
    from asyncmachine.telemetry.outlines import Outline
    from asyncmachine.transition import Transition

__all__ = ["MachineSpans"]

INTERNAL: Final = SpanKind.INTERNAL
_OF_TWO: Final = 5  # length of a moment in which two clocks have moved
# A transition that is going on, its span, the context below that, and the lease that makes
# it current. A tuple, for it is made often.
Running: TypeAlias = "tuple[Transition, Span, Context, Lease | None]"


class MachineSpans:
    """The spans of one machine.

    Args:
        kit: what it has in common with the other machines of its tracer.
        machine: the machine.
        parent: the spans of its parent, if that is followed too.

    """

    __slots__ = (
        "_changed_ns",
        "_draw",
        "_handlers",
        "_id",
        "_key",
        "_kit",
        "_known",
        "_last",
        "_logged",
        "_previous",
        "_roots",
        "_running",
        "_start",
        "_states",
        "_transitions",
        "closed",
        "inside",
    )

    def __init__(self, kit: Kit, machine: Machine, parent: MachineSpans | None) -> None:
        self._kit = kit
        self._key = machine.id
        self._id = encodable(machine.id)
        self._start = kit.tracer.start_span
        self._known = kit.outlines.known
        self._draw = kit.outlines.draw
        self._roots: list[Span] = []
        self._running: list[Running] = []  # one, or none
        self._handlers = HandlerSpans(kit.tracer, self._id)
        self._logged = 0  # how many of its log lines have become events
        self._changed_ns = 0  # when the clocks moved, if final handlers have come since
        self._last = 0  # number of the latest transition that is over
        self._previous: SpanContext | None = None  # and its span
        self.closed = False
        tags = tuple(encodable(str(tag)) for tag in machine.tags)
        attributes: dict[str, AttributeValue] = {named.TAGS: tags}
        if machine.parent is not None:
            attributes[named.PARENT] = encodable(machine.parent.id)
        above = parent.inside if parent is not None else Context()
        self.inside: Context = self._root(self._id, "machine", above, attributes)
        self._states: Activations | None = None
        if kit.states:
            names = self._root("states", "states", self.inside)
            self._states = Activations(kit.tracer, kit.outlines, machine, names)
        self._transitions: Context | None = None
        if kit.transitions:
            self._transitions = self._root("transitions", "transitions", self.inside)

    def _root(
        self,
        name: str,
        kind: str,
        above: Context,
        attributes: dict[str, AttributeValue] | None = None,
    ) -> Context:
        """Begin one of the spans that last as long as the machine; give the context below it."""
        common: dict[str, AttributeValue] = {named.SPAN: kind, MACHINE: self._id}
        span = self._start(name, above, attributes=common | (attributes or {}))
        self._roots.append(span)
        return below(span)

    # Transitions ------------------------------------------------------------------------

    def begin(self, tx: Transition) -> None:
        """Begin the span of a transition before it calls anything."""
        self._changed_ns = 0
        running = self._running
        if running and running[-1][0] is tx:  # the tracer has been added twice
            return
        plan = tx.plan
        outline = self._known.get(plan) or self._draw(plan)
        if outline.whole is not None:
            # If nothing but handlers is called, their own spans are the current ones.
            self._open(
                tx,
                outline,
                current=plan.listened or not self._kit.handlers or bool(tx.machine.log_level),
            )

    @staticmethod
    def ending(  # noqa: PLR0915 - spelled out, for calls cost most
        machines: Mapping[int, MachineSpans],
    ) -> Callable[[Transition], None]:
        """Give what ends the spans of transitions, and sees to the activations.

        Args:
            machines: the spans of machines, by the ``id()`` of the machine.

        Returns:
            The hot function. It is one, and spells out the case that most transitions
            are, for calls cost most.

        """

        def end(tx: Transition) -> None:  # noqa: PLR0912, PLR0915 - for the same reason
            self = machines.get(id(tx.machine))
            if self is None:
                return
            number = tx.number or tx.id
            if number == self._last:  # the tracer has been added twice
                return
            self._last = number
            plan = tx.plan
            outline = self._known.get(plan) or self._draw(plan)
            now = time_ns()
            moment = tx.moment
            states = self._states
            if (
                moment is None
                or states is None
                or states.node is not plan.source
                or outline.whole is None
                or tx.rare is not None  # an error has put states back, say
                or self._running
                or self.closed  # after `_running`: who closes sets it before taking that
            ):
                self._end_slowly(tx, outline, now)
                return
            ticks = tx.ticks
            after = ticks.copy()
            if len(moment) == _OF_TWO:
                _, first, first_tick, second, second_tick = moment
                after[first] = first_tick
                after[second] = second_tick
            else:
                for i, by in plan.moves:
                    after[i] += by
            attributes = outline.whole.copy()
            attributes[MACHINE] = self._id
            attributes[TRANSITION] = number
            attributes[TIME_BEFORE] = ticks
            attributes[TIME_AFTER] = after
            if tx.args:
                add_args(tx, attributes)
            links: tuple[Link, ...] = ()
            if tx.request is not None or plan.auto or get_current():
                links = links_of(self._kit, tx, self._previous)
            begun = now - tx.ended_ns + tx.started_ns
            above = self._transitions
            try:
                span = self._start(outline.name, above, INTERNAL, attributes, links, begun)
            except BaseException:
                self._previous = None
                states.move(tx, outline, None, now, now)
                raise
            self._previous = context = span.get_span_context()
            try:
                span.end(now)
            finally:
                try:
                    active = states.active
                    for i in outline.ended:
                        activation = active.pop(i, None)
                        if activation is not None:
                            try:
                                activation.end(now)
                            except Exception:  # noqa: BLE001 - it is the user's code
                                log_exception("error in a span processor")
                    for i in outline.opened:
                        group = states.groups.get(i) or states.begin_group(i, now)
                        name, _, below_name, common = group
                        attributes = common.copy()
                        attributes[TICK] = after[i]
                        active[i] = self._start(
                            name, below_name, INTERNAL, attributes, (Link(context),), now
                        )
                    states.node = plan.target
                except BaseException:
                    states.node = None  # what is interrupted is made up for next time
                    raise
                finally:
                    if self.closed:
                        self.close()

        return end

    def _end_slowly(self, tx: Transition, outline: Outline, now: int) -> None:
        """End the span of a transition that has called something, or has not gone smoothly."""
        changed, self._changed_ns = self._changed_ns or now, 0
        context: SpanContext | None = None
        try:
            span = self._finish(tx, outline) if self._running else None
            if span is None and outline.whole is not None and not self.closed:
                span = self._make(tx, outline, now)
            if span is not None:
                context = span.get_span_context()
                span.end(now)
        finally:
            self._previous = context
            if tx.moment is not None and self._states is not None:
                self._states.move(tx, outline, context, changed, now)
            if self.closed:
                self.close()

    def _make(self, tx: Transition, outline: Outline, now: int) -> Span:
        """Make the span of a transition that is over."""
        try:
            begun = now - tx.ended_ns + tx.started_ns
        except AttributeError:  # interrupted before it had begun
            begun = now
        attributes = self._begun(tx, outline) | attributes_when_over(tx, outline)
        links = links_of(self._kit, tx, self._previous)
        span = self._start(outline.name, self._transitions, INTERNAL, attributes, links, begun)
        tell_error(span, tx)
        return span

    def _begun(self, tx: Transition, outline: Outline) -> dict[str, AttributeValue]:
        """The attributes that are known when a transition begins."""
        attributes = {
            **outline.begun,
            MACHINE: self._id,
            TRANSITION: tx.number or tx.id,
            TIME_BEFORE: tuple(tx.ticks),
        }
        if tx.args:
            add_args(tx, attributes)
        return attributes

    def _open(
        self, tx: Transition, outline: Outline, *, current: bool, begun: int | None = None
    ) -> Span:
        """Begin the span of a transition that is going on.

        Args:
            tx: the transition.
            outline: that of its plan.
            current: whether it becomes the current span of the thread.
            begun: when it began, in nanoseconds since 1970; now unless given.

        """
        attributes = self._begun(tx, outline)
        links: tuple[Link, ...] = ()
        # One that begins late does so in a callback, where a span of the user's may be current.
        if begun is None and (tx.request is not None or tx.plan.auto or get_current()):
            links = links_of(self._kit, tx, self._previous)
        span = self._start(outline.name, self._transitions, INTERNAL, attributes, links, begun)
        self._kit.contexts[self._key, tx.number] = span.get_span_context()
        self._handlers.latest = ""
        self._logged = 0
        self._running.append((tx, span, below(span), Lease(span) if current else None))
        if self.closed:
            self.close()
        return span

    def _finish(self, tx: Transition, outline: Outline) -> Span | None:
        """Complete the span of a transition that has been begun, and give it, if there is one."""
        try:
            running = self._running.pop()
        except IndexError:
            return None
        begun, span, _, lease = running
        if begun is not tx:
            self._drop(running)
            return None
        self._handlers.end(tx)
        if lease is not None:
            lease.give_back()
        elif not (tx.plan.negotiation or tx.plan.final):  # it has begun late
            for link in links_of(self._kit, tx, self._previous):
                span.add_link(link.context)
        attributes = attributes_when_over(tx, outline)
        if tx.rare is not None:
            self._tell_more(tx, span, attributes)
        span.set_attributes(attributes)
        return span

    def _tell_more(self, tx: Transition, span: Span, attributes: dict[str, AttributeValue]) -> None:
        """Tell of a transition that has been vetoed, has failed or has been logged."""
        self._log(tx, span)
        self._handlers.tell_failed(tx)
        if self._handlers.latest and tx.outcome == "vetoed":
            attributes[named.VETOED_BY] = self._handlers.latest
        tell_error(span, tx)

    def _log(self, tx: Transition, span: Span) -> None:
        """Make events of the log lines that have come since the last time."""
        rare = tx.rare
        if rare is not None and len(rare.log) > self._logged:
            lines = rare.log[self._logged :]
            self._logged += len(lines)
            for line in lines:
                span.add_event(named.LOG, {named.LINE: encodable(line)})

    # Causes -----------------------------------------------------------------------------

    def context_of(self, tx: Transition) -> SpanContext | None:
        """Give the span of a transition, and begin it if that has not been necessary so far.

        To be called in a handler or a callback of the transition.
        """
        number = tx.id
        found = self._kit.contexts.get((self._key, number))
        if found is not None:
            return found
        if number <= self._last:
            return self._previous if number == self._last else None
        outline = self._known.get(tx.plan) or self._draw(tx.plan)
        dry = tx.request is not None and tx.request.dry
        if dry or outline.whole is None or self.closed:
            return None
        begun = time_ns() - tx.duration_ns
        return self._open(tx, outline, current=False, begun=begun).get_span_context()

    # Handlers ---------------------------------------------------------------------------

    def begin_handler(self, tx: Transition, name: str) -> None:
        """Begin the span of a handler, and make it current."""
        if tx.moment is not None and not self._changed_ns:
            self._changed_ns = time_ns()
        try:
            begun, span, context, _ = self._running[-1]
        except IndexError:  # it has no span
            return
        if begun is not tx:
            return
        if tx.rare is not None:
            self._log(tx, span)
        if self._kit.handlers:
            self._handlers.begin(tx, name, context)
        if self.closed:
            self.close()

    def end_handler(self, tx: Transition) -> None:
        """End the span of a handler."""
        self._handlers.end(tx)
        if self.closed:
            self.close()

    # States -----------------------------------------------------------------------------

    def follow(self, ticks: tuple[int, ...]) -> None:
        """Open and end activations so that they agree with the clocks, whatever moved these.

        Args:
            ticks: all clocks.

        """
        if self._states is not None:
            self._states.follow(ticks, time_ns())
        if self.closed:
            self.close()

    # The end ----------------------------------------------------------------------------

    def _drop(self, running: Running) -> None:
        """End a transition that never comes to its end, or that nobody waits for."""
        self._handlers.drop()
        _, span, _, lease = running
        if lease is not None:
            lease.revoke()
        span.set_attribute(named.OUTCOME, "unfinished")
        end_surely(span)

    def close(self) -> None:
        """End everything that is open; may be called by any thread, and again."""
        self.closed = True
        self._handlers.drop()
        for running in taken(self._running):
            self._drop(running)
        if self._states is not None:
            self._states.close()
        for root in taken(self._roots):  # the latest first: the machine's own comes last
            end_surely(root)
