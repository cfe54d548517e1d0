"""Whose turn it is: the baton, the queue, and who carries out what is queued.

Guarantees:

- Whoever has the *baton* has the machine's turn, alone: only that thread changes it.
- Whoever puts something into the queue tries to take the baton afterwards; whoever gives
  the baton back looks into the queue afterwards: nothing is left behind.
- No lock is held while handlers, tracers, callbacks or tasks run; others queue meanwhile.
- A thread carries out at most ``FAIR_SHARE`` requests of other threads before a background
  thread takes over, so no caller is held for ever.
- An interrupt (Ctrl-C) at any instruction leaves the machine consistent, the baton given
  back and the queue in somebody's hands.

The baton is a list of one element. ``del baton[0]`` takes it, or raises if it is taken;
``baton += FREE`` gives it back. Both are atomic, with and without the interpreter lock,
and both are statements: unlike around ``Lock.acquire()``, no signal handler can run
between taking it and the ``try`` that gives it back.
"""

from __future__ import annotations

import sys
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Final, TypeVar

from asyncmachine.changing import AUTO, RAISE
from asyncmachine.conducting import Conducting, TurnLost
from asyncmachine.errors import MachineError
from asyncmachine.logs import log_exception, log_warning
from asyncmachine.moments import lay_over
from asyncmachine.oneshot import MAKING, OneShot, deadline_after, time_left
from asyncmachine.queueing import Queue, Task
from asyncmachine.relations import ADD, REMOVE, SET
from asyncmachine.results import EXECUTED, Canceled, Result, Ticket
from asyncmachine.running import LOCAL, Frame
from asyncmachine.threads import run_aside, run_background
from asyncmachine.tracing import PROPAGATORS, tell, trace_here
from asyncmachine.transition import Cause, Mutation, cause_here, transition_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.plans import Plan
    from asyncmachine.schema import Schema

__all__ = ["FAIR_SHARE", "Turns"]

# What a thread carries out for others before it hands over to a background thread.
FAIR_SHARE: Final = 100

# How long the caller who moved a pipe's source waits for its target, in seconds.
PIPE_GRACE: Final = 0.05

FREE: Final = (None,)
NO_CALLER: Final = "error in a handler of %s, with no caller to raise it to"
DISPOSED: Final = Canceled("the machine is disposed")

_T = TypeVar("_T")


class Turns(Conducting):
    """A machine that threads take turns to change.

    Attributes:
        queue_limit: how many mutations may wait; more are canceled.

    """

    __slots__ = ("_abandoned", "_baton", "_handed", "_queue", "queue_limit")

    def __init__(
        self,
        machine_id: str,
        schema: Schema,
        handler_timeout: float | None,
        catch_errors: bool,
        queue_limit: int,
    ) -> None:
        super().__init__(machine_id, schema, handler_timeout, catch_errors)
        self._baton = [None]
        self._queue: Queue | None = None
        self._handed: list[OneShot] | None = None  # what pipes have handed over
        self._abandoned = False  # disposed while a handler was stuck with the turn
        self.queue_limit = queue_limit

    # Requests -------------------------------------------------------------------------

    def add(  # noqa: PLR0912, PLR0915 - spelled out, for calls cost most
        self, /, *states: str, **args: object
    ) -> Result:
        """Activate states.

        Args:
            states: names; the relations decide what else follows, or refuse.
            args: what the handlers get.

        Returns:
            The result: executed, canceled, or queued if the machine is busy.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        # This is the hot function. It is `_mutate` with what is called for a plan
        # without handlers spelled out in place.
        baton = self._baton
        try:
            del baton[0]
        except IndexError:
            return self._enqueue(ADD, states, args)
        try:
            try:
                plan = self._now[0].adds[states]
            except (KeyError, TypeError):
                plan = self._now[0].plan(ADD, states)
            queue = self._queue
            if not self._plain or (queue is not None and queue.waiting):
                if (
                    self._traced
                    and plan.bare
                    and not (queue is not None and (queue.waiting or queue.urgent))
                ):
                    result = self._carry_out_traced(plan, args)
                    if self._follow is not None:
                        self._follow_up()
                    if self._tells_drained:
                        self._tell_drained()
                else:
                    result = self._mutate_slowly(plan, args)
            elif plan.simple:
                ticks = self._ticks
                first = plan.first
                second = plan.second
                first_tick = ticks[first] + plan.first_by
                second_tick = ticks[second] + plan.second_by
                self._now = (plan.target, first, first_tick, second, second_tick)
                ticks[first] = first_tick
                ticks[second] = second_tick
                if plan.follow:
                    self._follow = AUTO
                if self._index is not None or plan.follow:
                    self._glide_down(plan, args)
                    if plan.follow:
                        self._follow_up()
                result = EXECUTED
            elif plan.direct and not self._watched:
                result = self._carry_out_directly(plan, args)
                if self._follow is not None:
                    self._follow_up()
            else:
                result = self._mutate_plainly(plan, args)
        except TurnLost as lost:
            return _known(lost)
        except BaseException as error:
            self._give_up(error)
            raise
        baton += FREE
        queue = self._queue
        if queue is not None:
            if queue.waiting or queue.urgent or queue.idlers:
                try:
                    self._serve()
                except BaseException:
                    self._serve_later()
                    raise
            if self._handed is not None:
                self._await_handed()
        return result

    def remove(self, /, *states: str, **args: object) -> Result:
        """Deactivate states.

        Args:
            states: names.
            args: what the handlers get.

        Returns:
            The result: executed, canceled, or queued if the machine is busy.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        return self._mutate(REMOVE, states, args)

    def set(self, /, *states: str, **args: object) -> Result:
        """Activate states and deactivate all others, but for what these imply.

        Args:
            states: names; none deactivates everything.
            args: what the handlers get.

        Returns:
            The result: executed, canceled, or queued if the machine is busy.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        return self._mutate(SET, states, args)

    def _mutate(self, kind: str, states: tuple[str, ...], args: dict[str, object]) -> Result:
        """Carry out a mutation now, or queue it if the machine is busy."""
        baton = self._baton
        try:
            del baton[0]
        except IndexError:
            return self._enqueue(kind, states, args)
        try:
            plan = self._now[0].plan(kind, states)
            queue = self._queue
            if not self._plain or (queue is not None and queue.waiting):
                result = self._mutate_slowly(plan, args)
            else:
                result = self._mutate_plainly(plan, args)
        except TurnLost as lost:
            return _known(lost)
        except BaseException as error:
            self._give_up(error)
            raise
        baton += FREE
        queue = self._queue
        if queue is not None:
            if queue.waiting or queue.urgent or queue.idlers:
                try:
                    self._serve()
                except BaseException:
                    self._serve_later()
                    raise
            if self._handed is not None:
                self._await_handed()
        return result

    def accept(
        self,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        passed: tuple[str, ...] = (),
        cause: Cause | None = None,
        trace: str = "",
    ) -> Result:
        """Take over a mutation that came from another process.

        It is carried out by this thread if the machine is idle, else queued. The queue's
        limit does not hold for it: who brings it looks for room first, and keeps it
        otherwise.

        Args:
            kind: ``"add"``, ``"remove"`` or ``"set"``.
            states: names.
            args: what the handlers get.
            passed: ids of the machines whose pipes have forwarded it.
            cause: the transition whose handler requested it.
            trace: the W3C ``traceparent`` of what it was requested in, if known.

        Returns:
            The result: executed, canceled, or queued if the machine is busy.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        baton = self._baton
        try:
            del baton[0]
        except IndexError:
            return self._enqueue(
                kind, states, args, passed=passed, cause=cause, trace=trace, exempt=True
            )
        try:
            plan = self._now[0].plan(kind, states)
            queue = self._queue
            comes_first = self._plain and not (queue is not None and queue.waiting)
            if comes_first and passed and plan.accepted and not plan.changed:
                result = EXECUTED  # a pipe asks for what already is
            elif comes_first and (plan.bare or (cause is None and not trace)):
                result = self._mutate_plainly(plan, args)
            else:
                request = Mutation(
                    kind, plan.states, args, passed=passed, cause=cause, trace=trace, exempt=True
                )
                result = self._mutate_slowly(plan, args, request)
        except TurnLost as lost:
            return _known(lost)
        except BaseException as error:
            self._give_up(error)
            raise
        baton += FREE
        if self._queue is not None:
            try:
                self._serve()
            except BaseException:
                self._serve_later()
                raise
        return result

    def _mutate_plainly(self, plan: Plan, args: dict[str, object]) -> Result:
        """Carry out a mutation that comes first, with at most handlers to look at it."""
        if plan.bare:
            result = self._glide(plan, args)
        elif plan.direct and not self._watched:
            result = self._carry_out_directly(plan, args)
        else:
            return self._mutate_slowly(plan, args)
        if self._follow is not None:
            self._follow_up()
        return result

    def _mutate_slowly(
        self, plan: Plan, args: dict[str, object], request: Mutation | None = None
    ) -> Result:
        """Carry out a mutation that somebody looks at, and all that is queued meanwhile."""
        if self._disposed:
            return DISPOSED
        if self._traced and plan.steady and (plan.bare or self._handler_timeout is None):
            queue = self._queue
            if queue is None or not (queue.waiting or queue.urgent):
                result = self._carry_out_traced(plan, args, request)
                if self._follow is not None:
                    self._follow_up()
                if self._tells_drained:
                    self._tell_drained()
                return result
        return self._mutate_watched(plan, args, request)

    def _mutate_watched(
        self, plan: Plan, args: dict[str, object], request: Mutation | None
    ) -> Result:
        """Carry out a mutation, and all that is queued, where a late handler may take the turn."""
        ticket: Ticket | None = None
        result: Result | None = None
        try:
            if self._queue is not None and len(self._queue):  # others came first
                ticket = self._put(request or Mutation(plan.kind, plan.states, args))
                self._drain(FAIR_SHARE)
                result = ticket.result()
            elif plan.idle:
                return EXECUTED
            else:
                ticket = Ticket(self)
                if request is None:
                    cause = cause_here()
                    request = Mutation(plan.kind, plan.states, args, cause=cause)
                request.ticket = ticket
                result = self._carry_out(plan, args, request)
                self._drain(FAIR_SHARE, moved=True)
        except TurnLost as lost:
            if result is None and ticket is not None:
                result = ticket.result()
            lost.result = result
            raise
        return result

    def _enqueue(
        self,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        *,
        passed: tuple[str, ...] = (),
        cause: Cause | None = None,
        trace: str = "",
        exempt: bool = False,
        serve: bool = True,
    ) -> Result:
        """Queue a mutation, and see to it that somebody carries it out."""
        positions = self.schema.find(states)
        if self._disposed:
            return DISPOSED
        if len(positions) < len(states):
            states = tuple(self.schema.names[i] for i in positions)
        try:
            ticket = self._put(
                Mutation(kind, states, args, passed=passed, cause=cause, trace=trace, exempt=exempt)
            )
            if serve:
                self._serve()
        except BaseException:
            self._serve_later()
            raise
        return ticket.result()

    def _put(self, mutation: Mutation) -> Ticket:
        """Put a mutation into the queue; give its ticket, or that of its twin there."""
        mutation.ticket = ticket = Ticket(self)
        mutation.thread, cause = _origin()
        if mutation.cause is None:
            mutation.cause = cause
        if PROPAGATORS and not mutation.trace and not mutation.dry:
            # Before anybody can take it: who carries it out may be quick.
            mutation.trace = trace_here(transition_here())
        queued = self._queue_made().put(mutation, self.queue_limit)
        if queued is None:
            why = f"the queue is full ({self.queue_limit})"
            log_warning(self.id, f"{why}: {mutation.kind} {' '.join(mutation.states)}")
            ticket.settle(Canceled(why))
        elif queued is not mutation:
            assert queued.ticket is not None
            return queued.ticket
        elif not mutation.dry:
            self._tell_queued(mutation)
        return ticket

    def _queue_made(self) -> Queue:
        queue = self._queue
        if queue is None:
            with MAKING.now:
                if self._queue is None:
                    self._queue = Queue(self.schema)
                queue = self._queue
        return queue

    # Carrying out ---------------------------------------------------------------------

    def _serve(self, share: int = FAIR_SHARE) -> None:
        """Carry out what is queued, unless another thread does; none is left behind.

        Args:
            share: how many requests of other threads this thread carries out at most.

        """
        queue = self._queue_made()
        baton = self._baton
        if self._abandoned:
            self._refuse_queued()
            return
        while queue.waiting or queue.urgent or self._follow is not None:
            if share <= 0:
                run_aside(self._serve_behind)
                return
            try:
                del baton[0]
            except IndexError:
                return  # who has it looks into the queue after giving it back
            try:
                share = self._drain(share)
            except TurnLost as lost:
                _known(lost)
                return
            except BaseException as error:
                self._give_up(error)
                raise
            baton += FREE
        if queue.idlers and baton:
            self._waiters().drained(queue.idlers)

    def _serve_later(self) -> None:
        """Have what is queued carried out although an interrupt came before this thread could."""
        queue = self._queue_made()
        if len(queue) or queue.idlers or self._follow is not None:
            run_aside(self._serve_behind)

    def _serve_behind(self) -> None:
        """Carry out what is queued, on a background thread: nobody waits for it to return."""
        try:
            self._serve(sys.maxsize)
        except Exception as error:  # noqa: BLE001 - it is the user's code
            log_exception(
                "error in a handler of %s, with no caller to raise it to", self.id, error=error
            )

    def _drain(self, share: int, *, moved: bool = False) -> int:
        """Carry out what is queued, having the turn; give what is left of the share.

        Args:
            share: how many requests of other threads to carry out at most.
            moved: whether this turn has carried out a mutation already.

        """
        self._follow_up()
        queue = self._queue
        if queue is not None:
            me = get_ident()
            while (item := queue.take()) is not None:
                if isinstance(item, Task):
                    self._run_task(item)
                else:
                    self._carry_out_queued(item)
                    self._follow_up()
                    moved = moved or not item.dry
                if item.thread != me:
                    share -= 1
                    if share <= 0 and len(queue):
                        return share
        if moved and self._tells_drained:
            self._tell_drained()
        return share

    def _tell_drained(self) -> None:
        """Tell tracers that the queue is empty, if it is."""
        tracers = self._tracers
        queue = self._queue
        if tracers is not None and not self._disposed and not (queue is not None and len(queue)):
            self._inside(partial(tell, tracers.queue_empty, self))

    def _inside(self, call: Callable[[], _T], transition: object = None) -> _T:
        """Call something that must not wait for the machine's turn, for it has it."""
        here = LOCAL.here
        outer = here.top
        try:
            here.top = Frame(self, outer, transition)
            return call()
        finally:
            here.top = outer

    def _carry_out_queued(self, request: Mutation) -> None:
        ticket = request.ticket
        assert ticket is not None
        if self._disposed:
            ticket.settle(DISPOSED)
            return
        node = self._now[0]
        args = request.own_args
        plan = node.plan(request.kind, request.states)
        if request.dry:
            ticket.settle(self._probe(plan, args, request))
        elif request.passed and plan.accepted and not plan.changed:
            ticket.settle(EXECUTED)  # a pipe asks for what already is
        elif plan.bare and self._plain:
            request.since = self._now
            ticket.settle(self._glide(plan, args))
        elif plan.direct and self._plain and not self._watched and LOCAL.here.top is None:
            request.since = self._now
            ticket.settle(self._carry_out_directly(plan, args, request))
        elif self._traced and plan.steady and (plan.bare or self._handler_timeout is None):
            request.since = self._now
            self._carry_out_traced(plan, args, request)
        else:
            self._carry_out(plan, args, request)

    def _follow_up(self) -> None:
        """Carry out what must come next: ``Exception`` after an error, or the auto mutation."""
        while (follow := self._follow) is not None:
            if follow is RAISE:
                self._follow = None
                error, self._raising = self._raising, None
                if error is not None:
                    raise error
                return
            if self._disposed:
                self._follow = None
                return
            node = self._now[0]
            if follow is not AUTO:
                plan = node.plan(follow.kind, follow.states)
                self._carry_out(plan, follow.own_args, follow)
                continue
            plan = node.auto_plan()
            if plan.bare and self._plain:
                self._follow = None
                self._glide(plan, {})
            elif plan.bare and self._traced:
                self._follow = None
                self._carry_out_traced(plan, {})
            else:
                self._carry_out(plan, {}, Mutation(plan.kind, plan.states, {}, auto=True))

    def _refuse_queued(self) -> None:
        """Refuse all that is queued, for whoever has the turn is stuck and disposal is over."""
        queue = self._queue_made()
        while (item := queue.take()) is not None:
            if isinstance(item, Mutation):
                assert item.ticket is not None
                item.ticket.settle(DISPOSED)
            elif item.claim():
                item.fail(MachineError(f"{DISPOSED.why}, and busy"))

    def _run_task(self, task: Task[object]) -> None:
        self._inside(task.run, task.transition)
        error = task.error
        if error is None or (task.awaited and task.thread == get_ident()):
            return
        if not isinstance(error, Exception):
            raise error  # an interrupt of this thread
        if not task.awaited:
            log_exception("error between transitions of %s", self.id, error=error)

    def _carry_on(self) -> None:
        """Go on with what is queued, having the turn, after a late handler."""
        try:
            self._drain(sys.maxsize)
        except TurnLost:
            return
        except BaseException as error:
            self._give_up(error)
            if not isinstance(error, Exception):
                raise
            log_exception(NO_CALLER, self.id)
            return
        self._baton += FREE
        self._serve_behind()

    def _give_up(self, error: BaseException) -> None:
        """Give the turn back after an error or interrupt, with the machine consistent."""
        lay_over(self._ticks, self._now)
        self._tx = None
        queue = self._queue
        if not isinstance(error, Exception):
            if queue is not None:
                queue.put_back(self._now)
            if self._index is not None:
                self._index.doubt()
                self._queue_made().put_task(Task(self._index.tidy), urgent=True)
        self._baton += FREE
        queue = self._queue  # read again: the first request to be queued may have made it
        if self._follow is not None or (queue is not None and (len(queue) or queue.idlers)):
            run_aside(self._serve_behind)

    # What pipes have handed over --------------------------------------------------------

    def _await_handed(self) -> None:
        """Give what pipes have handed over a moment, but not from inside a handler."""
        handed, self._handed = self._handed, None
        if handed is None or LOCAL.here.top is not None or run_background():
            return
        deadline = deadline_after(PIPE_GRACE)
        for delivery in handed:
            delivery.wait(time_left(deadline))


def _origin() -> tuple[int, Cause | None]:
    """On whose behalf, and because of what, the current thread asks for something.

    What a handler asks for is asked on behalf of who caused its transition.
    """
    tx = transition_here()
    if tx is None:
        return get_ident(), None
    thread = tx.request.thread if tx.request is not None else 0
    return thread or get_ident(), Cause(tx.machine.id, tx.id)


def _known(lost: TurnLost) -> Result:
    """The result of a thread that has lost the turn, or the interrupt that ended it."""
    if lost.interrupt is not None:
        raise lost.interrupt
    return EXECUTED if lost.result is None else lost.result
