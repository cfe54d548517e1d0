"""How a transition is carried out that tracers look at, and nobody else but handlers.

A machine that is observed should stay quick: this does what the watched way of
conducting.py does, without listeners, log lines, deadlines and steps.

Guarantees: those of conducting.py.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING

from asyncmachine.changing import AUTO, Changing
from asyncmachine.logs import log_exception
from asyncmachine.results import EXECUTED
from asyncmachine.running import LOCAL, Frame
from asyncmachine.tracing import tell
from asyncmachine.transition import IDS, Event, Mutation, Transition, cause_here

if TYPE_CHECKING:
    from asyncmachine.plans import Plan
    from asyncmachine.results import Result
    from asyncmachine.tracing import Tracers

__all__ = ["Traced"]


class Traced(Changing):
    """A machine that carries out transitions while tracers look."""

    __slots__ = ()

    def _carry_out_traced(  # noqa: PLR0915 - spelled out, for calls cost most
        self, plan: Plan, args: dict[str, object], request: Mutation | None = None
    ) -> Result:
        """Carry out a plan that is ``steady`` while nobody but handlers and tracers looks.

        This is the third hot function. It spells out what is done for plans that are
        ``simple``.
        """
        tracers: Tracers = self._tracers  # type: ignore[assignment]  # there are some
        here = LOCAL.here
        outer = here.top
        if outer is not None and request is None:
            request = Mutation(plan.kind, plan.states, args, auto=plan.auto, cause=cause_here())
        tx = Transition()
        tx.machine = self  # type: ignore[assignment]
        tx.plan = plan
        tx.args = args
        ticks = self._ticks
        tx.ticks = ticks.copy()
        tx.request = request
        tx.moment = tx.rare = None
        tx.number = next(IDS) if tracers.wants_ids else 0
        try:
            here.top = tx if outer is None else Frame(self, outer, tx)
            self._tx = tx
            tx.started_ns = perf_counter_ns()
            if tracers.thorough or not plan.simple:
                return self._trace_thoroughly(tx, tracers)
            # Noted first: an interrupt may come as soon as the change has been made.
            if plan.follow:
                self._follow = AUTO
            first = plan.first
            second = plan.second
            first_tick = ticks[first] + plan.first_by
            second_tick = ticks[second] + plan.second_by
            tx.moment = self._now = (plan.target, first, first_tick, second, second_tick)
            ticks[first] = first_tick
            ticks[second] = second_tick
            if self._index is not None:
                self._glide_down(plan, args)
            if request is not None:
                request.settle(EXECUTED)
            self._tx = None
            tx.ended_ns = perf_counter_ns()
            if tracers.sole_end is None:
                tell(tracers.transition_end, tx)
            else:
                try:
                    tracers.sole_end(tx)
                except Exception:  # noqa: BLE001 - it is the user's code
                    log_exception("error in the tracer %r", tracers.sole_end)
        finally:
            here.top = outer
        return EXECUTED

    def _trace_thoroughly(self, tx: Transition, tracers: Tracers) -> Result:
        """Go on with one that tracers look at from its beginning, or that is not simple."""
        plan = tx.plan
        if tracers.early and (tracers.wants_bare or not plan.bare):
            tell(tracers.transition_init, tx)
            tell(tracers.transition_start, tx)
        if not plan.accepted:
            return self._end(tx, plan.refusal)
        return self._call_traced(tx, tracers)

    def _call_traced(  # noqa: PLR0915 - spelled out, for calls cost most
        self, tx: Transition, tracers: Tracers
    ) -> Result:
        """Ask and tell the handlers of a transition on the traced way."""
        plan = tx.plan
        bound = self._bound
        calls = bound.calls
        own = bound.own
        starts = tracers.handler_start
        ends = tracers.handler_end
        name, number = "", own
        try:
            for name, number in plan.negotiation:
                event = Event()
                event.name = name
                event.transition = tx
                if starts and number < own:
                    tell(starts, tx, name)
                verdict = calls[number](event)
                if ends and number < own:
                    tell(ends, tx, name)
                if verdict is False:
                    return self._end(tx, self._veto(tx, name, number))
            name, number = "", own  # no handler to blame
            self._advance(plan, tx)
            self._expire(plan)
            for name, number in plan.final:
                event = Event()
                event.name = name
                event.transition = tx
                if starts and number < own:
                    tell(starts, tx, name)
                calls[number](event)
                if ends and number < own:
                    tell(ends, tx, name)
            name, number = "", own
            self._settle(tx)
        except BaseException as error:
            if name:
                tx.more.at = (name, number)
                if number < own:
                    tell(ends, tx, name)
            result = self._fail(tx, error)
            if not isinstance(error, Exception):
                self._end(tx, result)
                raise
        else:
            result = EXECUTED
        return self._end(tx, result)
