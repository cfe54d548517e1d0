"""How one transition is carried out, by the thread that has the machine's turn.

There are three ways through: the quick one, for a transition that only handlers look at;
the traced one, where tracers do, too, in traced.py; and the watched one, with log lines,
listeners, deadlines or steps. The watched one keeps its place in the transition, so that
another thread can go on when a handler is late.

Guarantees: an error, a veto, a deadline or an interrupt at any point leaves clocks, active
states and results consistent; see semantics.md sections 1, 3, 7 and 8.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from asyncmachine.changing import AUTO
from asyncmachine.errors import HandlerTimeoutError, described
from asyncmachine.logs import log_exception, log_warning
from asyncmachine.narration import record_steps
from asyncmachine.results import EXECUTED, Canceled, Result
from asyncmachine.running import LOCAL, Frame
from asyncmachine.threads import run_elsewhere
from asyncmachine.traced import Traced
from asyncmachine.tracing import tell
from asyncmachine.transition import Event, Mutation, Step, Transition, cause_here
from asyncmachine.watchdog import Watch

if TYPE_CHECKING:
    from asyncmachine.handlers import Handler
    from asyncmachine.plans import Plan

__all__ = ["Conducting", "TurnLost"]

# How long a machine without a handler_timeout waits for a listener, in seconds.
LISTENER_PATIENCE: Final = 1.0


class TurnLost(BaseException):
    """Unwinds a thread whose handler was late: another thread has the turn by now.

    Attributes:
        result: the result of the mutation that the thread had asked for, if it is known.
        interrupt: a KeyboardInterrupt or SystemExit that ended the late handler.

    """

    def __init__(self, interrupt: BaseException | None = None) -> None:
        super().__init__()
        self.result: Result | None = None
        self.interrupt = interrupt


class Conducting(Traced):
    """A machine that carries out transitions."""

    __slots__ = ()

    # The quick way --------------------------------------------------------------------

    def _carry_out_directly(  # noqa: PLR0915 - spelled out, for calls cost most
        self, plan: Plan, args: dict[str, object], request: Mutation | None = None
    ) -> Result:
        """Carry out a mutation that comes now, with nobody but handlers to look at it.

        It has no request yet, or one that was queued; who has taken that settles it. This
        is the hot function for plans with handlers. It spells out what `_carry_out` and
        those below it do, for plans that are ``direct``.
        """
        here = LOCAL.here
        if here.top is not None:
            if request is None:
                request = Mutation(plan.kind, plan.states, args, cause=cause_here())
            return self._carry_out(plan, args, request)
        ticks = self._ticks
        tx = Transition()
        tx.machine = self  # type: ignore[assignment]
        tx.plan = plan
        tx.args = args
        tx.ticks = ticks.copy()
        tx.request = request
        tx.moment = tx.rare = None
        tx.number = 0
        calls = self._bound.calls
        name, number = "", 0
        try:
            here.top = self._tx = tx
            for name, number in plan.negotiation:
                event = Event()
                event.name = name
                event.transition = tx
                if calls[number](event) is False:
                    here.top = None
                    return self._end(tx, self._veto(tx, name, number))
            name = ""  # no handler to blame
            if plan.few and self._index is None:
                first = plan.first
                second = plan.second
                first_tick = ticks[first] + plan.first_by
                second_tick = ticks[second] + plan.second_by
                tx.moment = self._now = (plan.target, first, first_tick, second, second_tick)
                ticks[first] = first_tick
                ticks[second] = second_tick
            else:
                self._advance(plan, tx)
                self._expire(plan)
            for name, number in plan.final:
                event = Event()
                event.name = name
                event.transition = tx
                calls[number](event)
            name = ""
            if plan.follow or self._index is not None:
                self._settle(tx)
            here.top = self._tx = None
        except BaseException as error:
            here.top = None
            if name:
                tx.more.at = (name, number)
            result = self._fail(tx, error)
            self._end(tx, result)
            if not isinstance(error, Exception):
                raise
            return result
        return EXECUTED

    def _carry_out(self, plan: Plan, args: dict[str, object], request: Mutation) -> Result:
        """Carry out one mutation, and note in ``_follow`` what must follow it."""
        here = LOCAL.here
        outer = here.top
        tx = self._transition(plan, args, request)
        try:
            here.top = Frame(self, outer, tx)
            return self._end(tx, self._conduct(tx))
        finally:
            here.top = outer

    def _conduct(self, tx: Transition) -> Result:
        """Carry it out, whatever happens, and note the result with the request."""
        request = tx.request
        assert request is not None
        try:
            self._tx = tx
            self._follow = None
            request.since = self._now
            request.outcome = result = self._ways(tx)
        except TurnLost:
            raise
        except BaseException as error:
            request.outcome = result = self._fail(tx, error)
            if not isinstance(error, Exception):
                self._end(tx, result)
                raise
        return result

    def _ways(self, tx: Transition) -> Result:
        """Take the watched way, or the quick one."""
        plan = tx.plan
        if self._watched or plan.listened:
            self._begin_watched(tx)
            return self._conduct_watched(tx)
        if not plan.accepted:
            return plan.refusal
        refusal = self._negotiate(tx)
        return self._complete(tx) if refusal is None else refusal

    def _transition(self, plan: Plan, args: dict[str, object], request: Mutation) -> Transition:
        tx = Transition()
        tx.machine = self  # type: ignore[assignment]  # every machine is a Machine
        tx.plan = plan
        tx.args = args
        tx.ticks = self._ticks.copy()
        tx.request = request
        tx.moment = tx.rare = None
        tx.number = 0
        return tx

    def _negotiate(self, tx: Transition) -> Result | None:
        """Ask the negotiation handlers; give a refusal, or None if all agree."""
        calls = self._bound.calls
        while True:
            for name, number in tx.plan.negotiation:
                event = Event()
                event.name = name
                event.transition = tx
                try:
                    verdict = calls[number](event)
                except BaseException:
                    tx.more.at = (name, number)
                    raise
                if verdict is False:
                    refusal = self._vetoed(tx, name, number)
                    if refusal is not None:
                        return refusal
                    break  # an auto state less: ask again
            else:
                return None

    def _complete(self, tx: Transition) -> Result:
        """Change the machine and tell the final handlers."""
        plan = tx.plan
        self._advance(plan, tx)
        self._expire(plan)
        calls = self._bound.calls
        for name, number in plan.final:
            event = Event()
            event.name = name
            event.transition = tx
            try:
                calls[number](event)
            except BaseException:
                tx.more.at = (name, number)
                raise
        self._settle(tx)
        return EXECUTED

    def _glide(self, plan: Plan, args: dict[str, object]) -> Result:
        """Carry out a plan that is ``bare``, which nobody looks at."""
        # Noted first: an interrupt may come as soon as the change has been made.
        if plan.follow:
            self._follow = AUTO
        self._advance(plan)
        self._glide_down(plan, args)
        return EXECUTED

    # The watched way --------------------------------------------------------------------

    def _begin_watched(self, tx: Transition) -> None:
        tracers = self._tracers
        if tracers is not None:
            tx.started_ns = perf_counter_ns()
            if tracers.wants_steps:
                record_steps(tx)
            tell(tracers.transition_init, tx)
        if self._narrator is not None:
            self._narrator.begun(tx)
        if tracers is not None:
            tell(tracers.transition_start, tx)

    def _conduct_watched(self, tx: Transition) -> Result:
        """Carry it out, or go on with it where the transition's ``step`` says."""
        more = tx.more
        if tx.moment is None:
            if not tx.accepted:
                if self._narrator is not None:
                    self._narrator.refused(tx)
                return tx.plan.refusal
            refusal = self._negotiate_watched(tx)
            if refusal is not None:
                return refusal
            self._advance(tx.plan, tx)
            self._expire(tx.plan)
            more.step = 0
            if self._narrator is not None:
                self._narrator.changed(tx)
        final = tx.plan.final
        while more.step < len(final):
            name, number = final[more.step]
            self._call_watched(tx, name, number)
            more.step += 1
        self._settle(tx)
        return EXECUTED

    def _negotiate_watched(self, tx: Transition) -> Result | None:
        more = tx.more
        while more.step < len(tx.plan.negotiation):
            name, number = tx.plan.negotiation[more.step]
            verdict = self._call_watched(tx, name, number)
            more.step += 1
            if verdict is False and number >= 0:
                if self._tracers is not None and self._tracers.wants_steps:
                    tx.steps.append(Step("veto", "", name))
                refusal = self._vetoed(tx, name, number)
                if refusal is not None:
                    return refusal
                more.step = 0  # an auto state less: ask again
        return None

    def _call_watched(self, tx: Transition, name: str, number: int) -> object:
        """Call one handler, or tell one listener."""
        event = Event()
        event.name = name
        event.transition = tx
        if number < 0:
            self._tell_listeners(tx, event)
            return None
        if number >= self._bound.own:  # a pipe is no handler of the user's
            return self._bound.calls[number](event)
        tracers = self._tracers
        if self._narrator is not None:
            self._narrator.handler(tx, name)
        if tracers is not None:
            if tracers.wants_steps:
                tx.steps.append(Step("handler", "", name))
            tell(tracers.handler_start, tx, name)
        verdict: object = None
        try:
            call = self._bound.calls[number]
            verdict = self._call_in_time(tx, event, call, number, self.handler_timeout)
        except TurnLost:
            raise
        except BaseException:
            tx.more.at = (name, number)
            if tracers is not None:
                tell(tracers.handler_end, tx, name)
            raise
        if tracers is not None:
            tell(tracers.handler_end, tx, name)
        return verdict

    def _tell_listeners(self, tx: Transition, event: Event) -> None:
        """Tell all listeners to one name, those that have not been told yet."""
        patience = self.handler_timeout if self.handler_timeout is not None else LISTENER_PATIENCE
        listeners = self._bound.listeners[event.name]
        more = tx.more
        while more.heard < len(listeners):
            call = listeners[more.heard]
            try:
                self._call_in_time(tx, event, call, -1, patience)
            except Exception:  # noqa: BLE001 - it is the user's code
                log_exception("error in a listener to %s of %s", event.name, self.id)
            more.heard += 1
        more.heard = 0

    def _call_in_time(
        self, tx: Transition, event: Event, call: Handler, number: int, timeout: float | None
    ) -> object:
        """Call a handler; if it is late, another thread has gone on when it returns."""
        if timeout is None:
            return call(event)
        frame = LOCAL.here.top
        assert isinstance(frame, Frame)
        watch = Watch(timeout, partial(self._late, tx, event, number, frame))
        try:
            watch.start()
            verdict = call(event)
            in_time = watch.stop()
        except BaseException as error:
            if watch.stop():
                raise
            raise TurnLost(None if isinstance(error, Exception) else error) from error
        if not in_time:
            raise TurnLost
        return verdict

    # Late handlers ----------------------------------------------------------------------

    def _late(self, tx: Transition, event: Event, number: int, stuck: Frame) -> None:
        """Have another thread go on; called by the watchdog when a handler is late."""
        event.expire()
        stuck.machine = None  # what the late handler does from now on, it does by itself
        run_elsewhere(partial(self._go_on, tx, event, number))

    def _go_on(self, tx: Transition, event: Event, number: int) -> None:
        """Go on with a transition whose handler or listener is late, on this thread."""
        here = LOCAL.here
        outer = here.top
        try:
            here.top = Frame(self, outer, tx)
            try:
                result = self._result_without(tx, event, number)
            except TurnLost:  # late once more: yet another thread goes on
                return
            except BaseException as error:  # noqa: BLE001 - it is the user's code
                result = self._fail(tx, error)
            if tx.request is not None and tx.request.dry:
                tx.request.settle(result)
            else:
                self._end(tx, result)
        finally:
            here.top = outer
        self._carry_on()

    def _result_without(self, tx: Transition, event: Event, number: int) -> Result:
        """What becomes of a transition without the handler, or listener, that is late."""
        if number < 0:
            log_warning(self.id, f"a listener to {event.name} is late, going on without it")
            tx.more.heard += 1
            return self._conduct_watched(tx)
        return self._time_out(tx, event, number)

    def _time_out(self, tx: Transition, event: Event, number: int) -> Result:
        tx.more.at = (event.name, number)
        label = self._bound.label(number)
        error = HandlerTimeoutError(f"{label} took longer than {self.handler_timeout} s")
        if tx.request is not None and tx.request.dry:
            return Canceled(described(error, label))
        if self._tracers is not None:
            tell(self._tracers.handler_end, tx, event.name)
        return self._fail(tx, error)

    def _carry_on(self) -> None:
        """Go on with what is queued, having the turn; see turns.py."""

    # Dry runs ---------------------------------------------------------------------------

    def _probe(self, plan: Plan, args: dict[str, object], request: Mutation) -> Result:
        """Ask the relations and the negotiation handlers, and change nothing."""
        if plan.idle:
            return EXECUTED
        if not plan.accepted:
            return plan.refusal
        here = LOCAL.here
        outer = here.top
        tx = self._transition(plan, args, request)
        timeout = self.handler_timeout if request.ticket is not None else None
        name, number = "", 0
        try:
            here.top = Frame(self, outer, tx)
            for name, number in plan.negotiation:
                if number < 0:
                    continue  # listeners hear of what happens
                event = Event()
                event.name = name
                event.transition = tx
                call = self._bound.calls[number]
                if self._call_in_time(tx, event, call, number, timeout) is False:
                    return Canceled(f"vetoed by {self._bound.label(number)}")
        except Exception as error:  # noqa: BLE001 - it is the user's code
            return Canceled(described(error, self._bound.label(number)))
        finally:
            here.top = outer
        return EXECUTED
