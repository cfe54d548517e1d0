"""The tracer that counts for Prometheus, one for each machine, and what it has counted.

Guarantees: only the thread that has the machine's turn writes, so there is no lock. Another
thread reads at any time what may be one transition old; each number only grows, and the count
of a histogram is the sum of its buckets, for that is how it is made. Memory is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncmachine.machine import Machine
from asyncmachine.tracing import Tracer
from asyncmachine.transition import ErrorSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncmachine.plans import Plan
    from asyncmachine.transition import Transition

__all__ = ["BUCKETS", "Counter", "Histogram", "bounds_of"]

# Upper bounds of the buckets of all histograms, in seconds.
BUCKETS: Final = (1e-5, 5e-5, 2.5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 0.5, 2.5, 10.0)

_EXCEPTION: Final = "Exception"
_REMOVE: Final = "remove"
# So many plans of a machine are known at a time.
_MOST_PLANS: Final = 1024


class _Row(NamedTuple):
    """What transitions have in common that are counted together."""

    kind: str
    outcome: str
    auto: bool
    reported: bool


class Histogram(NamedTuple):
    """How often something took how long.

    Attributes:
        counts: how many in each bucket alone; the last one has what is above all bounds.
        seconds: all in all.

    """

    counts: tuple[int, ...]
    seconds: float


def bounds_of(buckets: Sequence[float]) -> list[int]:
    """Give bounds in seconds as whole nanoseconds.

    Raises:
        ValueError: unless they are above 0 and ever larger.

    Example:
        >>> bounds_of((1e-5, 1.0))
        [10000, 1000000000]

    """
    bounds = [round(each * 1e9) if 0 < each < 1e9 else 0 for each in buckets]
    if not bounds or bounds[0] < 1 or sorted(set(bounds)) != bounds:
        msg = f"buckets are ever larger numbers of seconds above 0, not {tuple(buckets)!r}"
        raise ValueError(msg)
    return bounds


class Counter(Tracer):
    """Counts the transitions of one machine, and perhaps its handlers.

    Args:
        bounds: upper bounds of the buckets of histograms, in nanoseconds.
        handlers: whether to count handlers.
        adopt: called with each machine that gets this one as its parent.

    """

    def __init__(
        self, bounds: list[int], *, handlers: bool, adopt: Callable[[Machine], object]
    ) -> None:
        self._adopt = adopt
        self._bounds = bounds
        self._rows: dict[_Row, list[int]] = {}  # buckets of how long they took
        self._by_plan: dict[Plan, list[int]] = {}  # the row of each plan, if nothing is rare
        self._waited = [0] * (len(bounds) + 1)
        self._waited_ns = 0
        self._handled = [0] * (len(bounds) + 1)
        self._handled_ns = [0]
        for kind in ("add", "remove", "set"):
            self._row(_Row(kind, "executed", auto=False, reported=False))
        # Functions that know all they need are quicker than methods.
        self.transition_end, self._taken_ns = self._ending()  # type: ignore[assignment, method-assign]
        if handlers:
            self.handler_start, self.handler_end = self._handling()  # type: ignore[assignment, method-assign]

    # Told by the machine ----------------------------------------------------------------------

    def machine_init(self, mach: Machine) -> None:
        for child in mach.children:  # built while the tracer was waiting to join
            if isinstance(child, Machine):
                self._adopt(child)

    def submachine(self, parent: Machine, child: Machine) -> None:
        self._adopt(child)

    def _ending(self) -> tuple[Callable[[Transition], None], Callable[[], int]]:
        """Make what counts a transition, the hot function, and what gives the time of all."""
        bounds, by_plan = self._bounds, self._by_plan
        row_of, count_wait = self._row_of, self._count_wait
        least = bounds[0]
        all_ns = 0

        def transition_end(tx: Transition) -> None:
            nonlocal all_ns
            ns = tx.ended_ns - tx.started_ns
            try:
                row = by_plan[tx.plan] if tx.rare is None else row_of(tx)
            except KeyError:
                row = row_of(tx)
            # To look first is quicker for those that are quick.
            row[0 if ns <= least else bisect_left(bounds, ns)] += 1
            all_ns += ns
            if tx.request is not None:
                count_wait(tx)

        return transition_end, lambda: all_ns

    def _handling(self) -> tuple[Callable[[Transition, str], None], ...]:
        """Make what counts a handler.

        The end of a late one is told on another thread than its beginning. The transition
        goes on there, so there is still one at a time.
        """
        bounds, handled, handled_ns = self._bounds, self._handled, self._handled_ns
        least = bounds[0]
        began_ns = [0]

        def handler_start(_tx: Transition, _name: str) -> None:
            began_ns[0] = perf_counter_ns()

        def handler_end(_tx: Transition, _name: str) -> None:
            ns = perf_counter_ns() - began_ns[0]
            handled[0 if ns <= least else bisect_left(bounds, ns)] += 1
            handled_ns[0] += ns

        return handler_start, handler_end

    def _row_of(self, tx: Transition) -> list[int]:
        """Find where a transition is counted."""
        plan = tx.plan
        calls_exception = plan.kind != _REMOVE and _EXCEPTION in plan.states
        # One of a handler has been counted already, as failed.
        reported = calls_exception and not isinstance(tx.args.get("source"), ErrorSource)
        row = self._row(_Row(plan.kind, tx.outcome, plan.auto, reported))
        if tx.rare is None and not calls_exception:
            if len(self._by_plan) >= _MOST_PLANS:
                self._by_plan.clear()
            self._by_plan[plan] = row
        return row

    def _row(self, key: _Row) -> list[int]:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = [0] * (len(self._bounds) + 1)
        return row

    def _count_wait(self, tx: Transition) -> None:
        request = tx.request
        if request is not None and request.queued_ns:
            ns = tx.started_ns - request.queued_ns
            self._waited[bisect_left(self._bounds, ns)] += 1
            self._waited_ns += ns

    # Read by who scrapes ------------------------------------------------------------------------

    def read(self) -> Counts:
        """Give all that was counted so far."""
        rows = [(key, tuple(row)) for key, row in self._rows.copy().items()]
        return Counts(
            rows,
            Histogram(_summed(row for _, row in rows), self._taken_ns() / 1e9),
            Histogram(tuple(self._waited), self._waited_ns / 1e9),
            Histogram(tuple(self._handled), self._handled_ns[0] / 1e9),
        )


class Counts(NamedTuple):
    """What was counted up to a moment.

    Attributes:
        rows: what is counted together, and how many took how long.
        taken: how long transitions took.
        waited: how long mutations waited in the queue, those that had to.
        handled: how long handlers took.

    """

    rows: list[tuple[_Row, tuple[int, ...]]]
    taken: Histogram
    waited: Histogram
    handled: Histogram

    def transitions(self) -> dict[tuple[str, str], int]:
        """Give how many were requested, by kind and outcome."""
        found: dict[tuple[str, str], int] = {}
        for key, row in self.rows:
            if not key.auto:
                at = (key.kind, key.outcome)
                found[at] = found.get(at, 0) + sum(row)
        return found

    def autos(self) -> dict[str, int]:
        """Give how many the machine began by itself, for its auto states, by outcome."""
        found = {"executed": 0}
        for key, row in self.rows:
            if key.auto:
                found[key.outcome] = found.get(key.outcome, 0) + sum(row)
        return found

    def errors(self) -> int:
        """Give how many errors there were: in handlers, and those that were reported."""
        return sum(sum(row) * ((key.outcome == "failed") + key.reported) for key, row in self.rows)


def _summed(rows: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows)))
