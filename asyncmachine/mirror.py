"""`Mirror`: what shows a machine that lives elsewhere.

All that reads and waits works on the mirror as on the machine itself. Somebody who hears
from the machine moves the mirror's clocks.

Guarantees: what moves the mirror is called by one thread at a time, which its owner sees
to; everything else may be called by any thread. Clocks only grow within one life, so what
comes twice, or late, changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncmachine.awaiting import Awaiting
from asyncmachine.conditions import Idle
from asyncmachine.forks import Fork, Forks
from asyncmachine.handlers import Bound, parse
from asyncmachine.plans import graph_of
from asyncmachine.schema import ANY
from asyncmachine.waiting import StateContext

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncmachine.moments import Moment
    from asyncmachine.schema import Schema
    from asyncmachine.transition import Event
    from asyncmachine.waiting import Waiter

__all__ = ["Mirror", "expected_order"]


class Mirror(Awaiting):
    """The clocks of a machine that lives elsewhere.

    Attributes:
        error: the last error of the machine, as far as it is known here.

    """

    __slots__ = ("_forks", "error", "total")

    def __init__(self, machine_id: str, schema: Schema) -> None:
        super().__init__(machine_id, schema, graph_of(schema, Bound().shape).start)
        self.error: BaseException | None = None
        self.total = 0
        self._forks = Forks(self._fork_failed)

    # Moved by its owner, one at a time ------------------------------------------------------

    def follow(
        self,
        moved: Sequence[int],
        order: Sequence[int] = (),
        entered: Sequence[int] = (),
        args: Mapping[str, object] | None = None,
    ) -> None:
        """Move clocks that have moved, expire contexts and set waiters.

        Args:
            moved: position and tick of each clock, in turn; those that are behind are left.
            order: positions of the active states in order, if it is not the expected one.
            entered: positions of the states that an event says were activated.
            args: what they were activated with.

        """
        ticks = self._ticks
        node = self._now[0]
        fresh: list[int] = []
        changed = grown = 0
        for at in range(0, len(moved), 2):
            position, tick = moved[at], moved[at + 1]
            if tick > ticks[position]:
                fresh += (position, tick)
                changed |= 1 << position
                grown += tick - ticks[position]
        if fresh:
            self.total += grown
            node = node.graph.node(tuple(order) if order else expected_order(node.order, fresh))
            now: Moment = (node, *fresh)
            self._now = now
            for at in range(0, len(fresh), 2):
                ticks[fresh[at]] = fresh[at + 1]
        index = self._index
        if index is None:
            return
        for position in entered:
            changed |= 1 << position
        if index.contexts and fresh:
            index.expire(changed)
        if changed and (index.inbox or index.interest & changed or index.queries):
            index.settle(node, changed, entered, args or {})

    def replace(self, ticks: Sequence[int], order: Sequence[int], *, anew: bool = False) -> None:
        """Show another clock as a whole; contexts of what differs expire.

        Args:
            ticks: all clocks.
            order: positions of the active states, in order.
            anew: whether a new life has begun, whose clocks have nothing to do with the old.

        """
        before = self.ticks_now()
        now = list(ticks)
        changed = sum(1 << i for i, tick in enumerate(now) if anew or tick != before[i])
        node = self._now[0].graph.node(tuple(order))
        self._now = (node, *(value for pair in enumerate(now) for value in pair))
        self._ticks[:] = now
        self.total = sum(now)
        index = self._index
        if index is None:
            return
        if anew:
            index.expire_all()
            index.begin_anew(before, now)
        else:
            index.expire(changed)
            index.doubt()
        index.settle(node, changed, (), {})

    def retire(self) -> None:
        """Take note that the machine is gone: every waiter is set, for good."""
        if self._finished:
            return
        self._disposed = self._finished = True
        if self._index is not None:
            self._index.dispose()
            self._index.finish()

    # Waiting --------------------------------------------------------------------------------

    def when_told(self, *, ctx: StateContext | None = None) -> tuple[Waiter, Callable[[], object]]:
        """Wait for something that no clock shows, and that somebody has to tell.

        Args:
            ctx: cancels the waiter when it expires.

        Returns:
            The waiter, and what sets it; that does not keep the waiter alive.

        """
        index = self._waiters()
        waiter, condition = self._pending(Idle)
        waiter._condition = condition
        index.pending[condition] = None

        def tell() -> None:
            told = condition()
            if told is not None and index.claim(condition):
                told.set("idle")

        self._look_again(waiter, condition, ctx)
        return waiter, tell

    # Background work ------------------------------------------------------------------------

    def fork(
        self,
        event: Event,
        fn: Callable[..., object],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Fork:
        """Run ``fn(ctx, *args, **kwargs)`` in the background; what `Event.fork` calls."""
        meaning = parse(self.schema, event.name)[0]
        ctx = self.lifetime() if meaning.state == ANY else self.state_ctx(meaning.state)
        if event.expired:
            ctx = StateContext(meaning.state, 0)
        named = dict(kwargs or {})
        return self._forks.start(ctx, lambda: fn(ctx, *args, **named))

    def lifetime(self) -> StateContext:
        """Give the context that lasts as long as the connection to the machine."""
        return self._waiters().lifetime

    @property
    def forks_running(self) -> int:
        """How many forks have not ended yet."""
        return len(self._forks.running)

    def awaits_args(self, position: int) -> bool:
        """Whether somebody waits for an activation of this state with args."""
        return self._index is not None and self._index.awaits_args(position)

    def _fork_failed(self, error: Exception) -> None:
        """Report an error in a fork."""


def expected_order(order: tuple[int, ...], moved: Sequence[int]) -> tuple[int, ...]:
    """Guess the order of the active states after clocks have moved.

    What stays active keeps its place, what has become active comes after it.

    Example:
        >>> expected_order((0, 3), [3, 2, 1, 1])
        (0, 1)

    """
    if len(moved) == 2:  # one clock, as mostly
        position = moved[0]
        if not moved[1] & 1:
            return tuple([each for each in order if each != position])
        return order if position in order else (*order, position)
    active = dict.fromkeys(order)
    for at in range(0, len(moved), 2):
        if moved[at + 1] & 1:
            active.setdefault(moved[at])
        else:
            active.pop(moved[at], None)
    return tuple(active)
