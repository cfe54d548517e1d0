"""How a machine changes in a transition, and what a refusal or an error does to it.

Everything here is done by the thread that has the machine's turn. Guarantees: whatever
ends a transition leaves clocks, active states and results consistent; see semantics.md
sections 4, 5 and 7.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from asyncmachine.awaiting import Awaiting
from asyncmachine.errors import described
from asyncmachine.handlers import Bound
from asyncmachine.logs import log_exception
from asyncmachine.moments import lay_over
from asyncmachine.plans import graph_of
from asyncmachine.relations import ADD
from asyncmachine.results import Canceled, Result
from asyncmachine.schema import EXCEPTION
from asyncmachine.tracing import tell
from asyncmachine.transition import Cause, ErrorSource, Mutation, Step

if TYPE_CHECKING:
    from asyncmachine.moments import Moment
    from asyncmachine.narration import Narrator
    from asyncmachine.plans import Plan
    from asyncmachine.schema import Schema
    from asyncmachine.tracing import Tracers
    from asyncmachine.transition import Transition

__all__ = ["AUTO", "RAISE", "Changing"]

NOTHING_BOUND: Final = Bound()
# What follows a transition, when that is the auto mutation.
AUTO: Final = Mutation(ADD, (), {}, auto=True)
# What follows it when an error is to be raised.
RAISE: Final = Mutation(ADD, (), {})


class Changing(Awaiting):
    """A machine that changes.

    Everything here is touched only by the thread that has the turn, but for reading.

    Attributes:
        error: the last error in a handler, or given to ``add_error``; ``None`` if there
            was none.
        catch_errors: whether an error in a handler becomes an ``Exception`` mutation, or
            is raised.

    """

    __slots__ = (
        "_bound",
        "_follow",
        "_handler_timeout",
        "_narrator",
        "_plain",
        "_raising",
        "_tells_drained",
        "_traced",
        "_tracers",
        "_tx",
        "_watched",
        "catch_errors",
        "error",
    )

    def __init__(
        self,
        machine_id: str,
        schema: Schema,
        handler_timeout: float | None,
        catch_errors: bool,
    ) -> None:
        super().__init__(machine_id, schema, graph_of(schema, NOTHING_BOUND.shape).start)
        self.error: BaseException | None = None
        self.catch_errors = catch_errors
        self._handler_timeout = handler_timeout
        self._bound = NOTHING_BOUND
        self._tracers: Tracers | None = None
        self._narrator: Narrator | None = None
        self._tx: Transition | None = None
        self._follow: Mutation | None = None
        self._raising: BaseException | None = None
        self._plain = True  # nobody but handlers looks at transitions
        self._traced = False  # only tracers do besides, and they want no steps
        self._tells_drained = False  # one of them wants to hear of the empty queue
        self._watched = handler_timeout is not None

    @property
    def handler_timeout(self) -> float | None:
        """Seconds that each handler may take; ``None`` for any time. May be changed."""
        return self._handler_timeout

    @handler_timeout.setter
    def handler_timeout(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            msg = f"handler_timeout must be a positive number of seconds, not {seconds!r}"
            raise ValueError(msg)
        self._handler_timeout = seconds
        self._look_who_watches()

    def _look_who_watches(self) -> None:
        """Take note that tracers, log level or disposal have changed."""
        told = self._tracers is not None or self._narrator is not None
        self._watched = told or self._handler_timeout is not None
        self._plain = not told and not self._disposed
        tracers = self._tracers
        light = tracers is not None and not tracers.wants_steps and self._narrator is None
        self._traced = light and not self._disposed
        self._tells_drained = tracers is not None and bool(tracers.queue_empty)

    # The change ----------------------------------------------------------------------

    def _advance(self, plan: Plan, tx: Transition | None = None) -> None:
        """Change the machine: publish the moment after the plan, then move the clocks."""
        ticks = self._ticks
        if plan.few:
            first = plan.first
            second = plan.second
            first_tick = ticks[first] + plan.first_by
            second_tick = ticks[second] + plan.second_by
            now: Moment = (plan.target, first, first_tick, second, second_tick)
            if tx is not None:
                tx.moment = now
            self._now = now
            ticks[first] = first_tick
            ticks[second] = second_tick
        else:
            moved: list[int] = []
            for i, by in plan.moves:
                moved += (i, ticks[i] + by)
            now = (plan.target, *moved)
            if tx is not None:
                tx.moment = now
            self._now = now
            for i, by in plan.moves:
                ticks[i] += by

    def _expire(self, plan: Plan) -> None:
        """End the state contexts of what has been deactivated, or activated again."""
        index = self._index
        if index is not None and index.contexts:
            index.expire(plan.changed)

    def _glide_down(self, plan: Plan, args: dict[str, object]) -> None:
        """See to contexts and waiters after the change that a ``bare`` plan makes."""
        index = self._index
        if index is not None:
            if index.contexts:
                index.expire(plan.changed)
            if index.inbox or index.interest & plan.changed or index.queries or index.observers:
                index.settle(plan.target, plan.changed, plan.enters, args)

    def _settle(self, tx: Transition) -> None:
        """Set the waiters whose condition holds now, and see to the auto states."""
        plan = tx.plan
        if self._tracers is not None:
            tell(self._tracers.transition_commit, tx)
        if plan.follow and not (tx.request is not None and tx.request.quiet):
            self._follow = AUTO
        index = self._index
        if index is not None and (
            index.inbox or index.interest & plan.changed or index.queries or index.observers
        ):
            woken = index.settle(plan.target, plan.changed, plan.enters, tx.args)
            if woken and self._narrator is not None:
                self._narrator.woken(tx, woken)

    def _end(self, tx: Transition, result: Result) -> Result:
        """Give the result to who waits for it, then let tracers know."""
        if not result and tx.moment is None:
            tx.more.accepted = False
        if tx.request is not None:
            tx.request.settle(result)
        self._tx = None
        if self._tracers is not None:
            tx.ended_ns = perf_counter_ns()
            tell(self._tracers.transition_end, tx)
        return result

    # Refusals and errors ----------------------------------------------------------------

    def _vetoed(self, tx: Transition, name: str, number: int) -> Result | None:
        """Give the refusal, or None if only one auto state is refused and the rest may go on."""
        bit = tx.plan.vetoed_auto(name)
        if bit:
            rest = tx.plan.source.auto_plan(tx.plan.barred | bit)
            if rest.accepted:
                tx.plan = rest
                return None
        return self._veto(tx, name, number)

    def _veto(self, tx: Transition, name: str, number: int) -> Result:
        if self._narrator is not None:
            self._narrator.vetoed(tx, name)
        bound = self._bound
        return Canceled(lambda: f"vetoed by {bound.label(number)}")

    def _fail(self, tx: Transition, error: BaseException) -> Result:
        """End a transition whose handler has failed; semantics.md section 7."""
        name, number = tx.more.at or ("", -1)
        label = self._bound.label(number) if tx.more.at else "the machine"
        tx.more.error = error
        if isinstance(error, Exception):
            self.error = error
            if self._narrator is not None:
                self._narrator.failed(tx, error)
            if self._tracers is not None and self._tracers.wants_steps:
                tx.steps.append(Step("error", "", name))
        if tx.moment is None:
            tx.more.accepted = False
        else:
            self._put_back(tx, name)
        if isinstance(error, Exception):
            self._raise_alarm(tx, name, label, error)
        return Canceled(lambda: described(error, label))

    def _put_back(self, tx: Transition, handler: str) -> None:
        """Undo the states whose final handler has not completed; parity of clocks stays true."""
        plan = tx.plan
        assert tx.moment is not None
        self._now = tx.moment  # an interrupt may have come before it was published
        lay_over(self._ticks, tx.moment)
        exits, enters = plan.not_completed(handler) if handler else ((), ())
        before, target = plan.source, plan.target
        withdrawn = [i for i in enters if not before.active >> i & 1]
        active = target.active
        for i in (*exits, *withdrawn):
            active ^= 1 << i
        # What was active before, in its order, then what is new.
        order = [i for i in before.order if active >> i & 1]
        order += [i for i in target.order if (active & ~before.active) >> i & 1]
        node = target.graph.node(tuple(order))
        _, *moved = tx.moment
        ticks = dict(zip(moved[::2], moved[1::2], strict=True))
        ticks.update((i, self._ticks[i] + 1) for i in (*exits, *withdrawn))
        now: Moment = (node, *(value for pair in ticks.items() for value in pair))
        tx.moment = self._now = now
        lay_over(self._ticks, now)
        if self._tracers is not None:
            tell(self._tracers.transition_commit, tx)
        index = self._index
        if index is not None:
            index.expire(plan.changed)
            index.settle(node, plan.changed, [i for i in plan.enters if i not in enters], tx.args)

    def _raise_alarm(self, tx: Transition, name: str, label: str, error: Exception) -> None:
        """Have an error in a handler become an ``Exception`` mutation, or be raised."""
        plan = tx.plan
        if EXCEPTION in plan.states:
            log_exception(
                "error while handling Exception, in %s of %s", label, self.id, error=error
            )
        elif self.catch_errors:
            source = ErrorSource(name, plan.states, plan.source.names, error.__traceback__)
            self._follow = Mutation(
                ADD,
                (EXCEPTION,),
                {"error": error, "source": source},
                cause=Cause(self.id, tx.id),
                quiet=plan.auto,
            )
            self._tell_queued(self._follow)
        elif self._raising is None:
            self._raising = error
            self._follow = RAISE
        else:
            log_exception("one more error, in %s of %s", label, self.id, error=error)

    def _tell_queued(self, mutation: Mutation) -> None:
        narrator = self._narrator
        if narrator is not None:
            narrator.queued(mutation)
        tracers = self._tracers  # read once: this may be any thread, and they may leave
        if tracers is not None:
            mutation.queued_ns = perf_counter_ns()
            tell(tracers.mutation_queued, self, mutation)
