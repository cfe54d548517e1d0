"""What is done while a machine rests, between two transitions: asking, evaluating, rebinding.

Guarantees: a wait for the machine's turn that could never end, for the thread that has it
waits for this one, is not begun; what was asked for is done on the spot instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from asyncmachine.conditions import Idle
from asyncmachine.index import UNTIDY
from asyncmachine.plans import graph_of
from asyncmachine.queueing import Task
from asyncmachine.running import Blocked, is_inside
from asyncmachine.transition import Mutation
from asyncmachine.turns import DISPOSED, Turns
from asyncmachine.waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.handlers import Bound
    from asyncmachine.results import Result
    from asyncmachine.waiting import StateContext

__all__ = ["Resting"]

# So many tasks may wait for the machine to rest before who adds one has to wait too.
MOST_URGENT: Final = 100

_T = TypeVar("_T")


class Resting(Turns):
    """A machine that can be asked, and that has things done between its transitions."""

    __slots__ = ()

    # Asking and evaluating --------------------------------------------------------------

    def _can(self, kind: str, states: tuple[str, ...], args: dict[str, object]) -> Result:
        """Make a dry run: at once inside the machine, else when its turn comes."""
        self.schema.find(states)
        if self._disposed:
            return DISPOSED
        request = Mutation(kind, states, args, dry=True)
        if is_inside(self):
            return self._probe(self._now[0].plan(kind, states), args, request)
        with Blocked(self) as safe:
            if not safe:
                return self._probe(self._now[0].plan(kind, states), args, request)
            try:
                ticket = self._put(request)
                self._serve()
            except BaseException:
                self._serve_later()
                raise
            ticket.wait()
        return ticket.result()

    def _evaluate(self, fn: Callable[[], _T], timeout: float | None) -> _T:
        """Run a function alone, between transitions, and give its value."""
        if is_inside(self):
            return fn()
        with Blocked(self) as safe:
            if not safe:
                return fn()
            task: Task[_T] = Task(fn, awaited=True)
            try:
                self._queue_made().put_task(task, urgent=True)
                self._serve()
                if not task.wait(timeout):
                    if task.claim():
                        msg = f"the machine was busy for {timeout} s"
                        raise TimeoutError(msg)
                    task.wait()  # its turn has come just now
            except BaseException:
                task.claim()  # after an interrupt it is not run either
                self._serve_later()
                raise
        return task.value()

    def _between(self, fn: Callable[[], object]) -> None:
        """Run a function before the next transition: at once if the machine is idle.

        Does not wait for it, unless so many are waiting that the machine can not keep up.
        """
        task = Task(fn)
        try:
            queue = self._queue_made()
            queue.put_task(task, urgent=True)
            self._serve()
        except BaseException:
            self._serve_later()
            raise
        if len(queue.urgent) > MOST_URGENT and not is_inside(self):
            with Blocked(self) as safe:
                if safe:
                    task.wait()

    def _rebind(
        self, change: Callable[[Bound], Bound], then: Callable[[], object] | None = None
    ) -> None:
        """Replace what is bound, from the next transition on."""

        def apply() -> None:
            now = self._now
            bound = change(self._bound)
            node = graph_of(self.schema, bound.shape).node(now[0].order)
            # Both or none: no interrupt can come between the two.
            self._bound = bound
            self._now = (node, *now[1:])
            if then is not None:
                then()

        self._between(apply)

    # Idleness ---------------------------------------------------------------------------

    def _busy(self) -> bool:
        queue = self._queue
        return not self._baton or (queue is not None and len(queue) > 0)

    def _when_idle(self, ctx: StateContext | None) -> Waiter:
        if self._disposed or (not self._busy() and ctx is None):
            waiter = Waiter()
            if self._disposed:
                waiter.set("disposed")
            return waiter
        waiter, condition = self._pending(Idle)
        waiter._condition = condition
        index = self._waiters()
        index.pending[condition] = None
        condition.list = self._queue_made().idlers
        condition.list[condition] = None
        if (not self._busy() or self._disposed) and index.claim(condition):
            waiter.set("disposed" if self._disposed else "idle")
        if ctx is not None:
            waiter.bind_to(ctx)
        if len(index.dead) > UNTIDY:
            self._tidy()
        return waiter

    def _tidy(self) -> None:
        """Clear away what has been abandoned, as far as that is possible now."""
        index = self._waiters()
        index.bury_unsorted()
        if index.graves and not self._busy():
            self._between(index.tidy)
