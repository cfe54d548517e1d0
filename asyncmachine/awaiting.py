"""The waiting calls of a machine, or of the mirror of a remote one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from asyncmachine.conditions import Condition, Gone, Present, Query, Ticks, WithArgs
from asyncmachine.handlers import Binding
from asyncmachine.index import UNTIDY, Index
from asyncmachine.oneshot import MAKING
from asyncmachine.reading import Reading
from asyncmachine.schema import EXCEPTION
from asyncmachine.waiting import StateContext, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncmachine.plans import Node
    from asyncmachine.schema import Schema

__all__ = ["Awaiting"]

_C = TypeVar("_C", bound=Condition)


class Awaiting(Reading):
    """A machine that can be waited for.

    Each ``when…`` gives a `Waiter`, which is set already if its condition holds already.
    Each takes ``ctx``, a `StateContext` that cancels the waiter when it expires.
    """

    __slots__ = ("_disposed", "_finished", "_index")

    def __init__(self, machine_id: str, schema: Schema, node: Node) -> None:
        super().__init__(machine_id, schema, node)
        self._index: Index | None = None
        self._disposed = False  # mutations are refused from now on
        self._finished = False  # disposal is over

    def when(self, *states: str, ctx: StateContext | None = None) -> Waiter:
        """Wait until all of these states are active at the same time.

        Args:
            states: names; with none it is set at once.
            ctx: cancels the waiter when it expires.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State(), "Bar": State()})
            >>> both = machine.when("Foo", "Bar")
            >>> machine.add("Foo", "Bar"), both.is_set()
            (Result.EXECUTED, True)

        """
        try:
            mask = self._masks[states]
        except (KeyError, TypeError):
            mask = self.schema.mask(states)
        return self._when_present(mask, 0, ctx)

    def when_not(self, *states: str, ctx: StateContext | None = None) -> Waiter:
        """Wait until all of these states are inactive at the same time.

        Args:
            states: names; with none it is set at once.
            ctx: cancels the waiter when it expires.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        return self._when_present(0, self.schema.mask(states), ctx)

    def when_any(self, *states: str, ctx: StateContext | None = None) -> Waiter:
        """Wait until at least one of these states is active.

        Args:
            states: names, at least one.
            ctx: cancels the waiter when it expires.

        Raises:
            UnknownStateError: for a name that the schema lacks.
            ValueError: if no state is named, which could never come true.

        """
        if not states:
            msg = "when_any() needs at least one state"
            raise ValueError(msg)
        return self._when_present(self.schema.mask(states), 0, ctx, any_of=True)

    def when_error(self, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until ``Exception`` is active.

        Args:
            ctx: cancels the waiter when it expires.

        """
        return self.when(EXCEPTION, ctx=ctx)

    def when_args(
        self, state: str, args: Mapping[str, object], *, ctx: StateContext | None = None
    ) -> Waiter:
        """Wait for the next activation of a state that comes with all of these args.

        Args:
            state: the state.
            args: names and values, compared with ``==``; more may come along.
            ctx: cancels the waiter when it expires.

        Returns:
            A waiter whose ``args`` are what the activation came with, once it is set.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Replied": State(multi=True)})
            >>> reply = machine.when_args("Replied", {"id": 2})
            >>> machine.add("Replied", id=1), machine.add("Replied", id=2, text="hi")
            (Result.EXECUTED, Result.EXECUTED)
            >>> reply.args
            {'id': 2, 'text': 'hi'}

        """
        position = self.schema.position(state)
        waiter, condition = self._pending(WithArgs)
        condition.state = position
        condition.args = dict(args)
        condition.since = self.tick_at(position)
        return self._await(waiter, condition, ctx)

    def when_time(self, ticks: Mapping[str, int], *, ctx: StateContext | None = None) -> Waiter:
        """Wait until every one of these clocks has reached its tick.

        Args:
            ticks: the tick to reach by state.
            ctx: cancels the waiter when it expires.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        positions = {self.schema.position(state): tick for state, tick in ticks.items()}
        waiter, condition = self._pending(Ticks)
        condition.ticks = positions
        condition.relative = False
        return self._await(waiter, condition, ctx)

    def when_ticks(self, state: str, n: int, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until the clock of a state has moved by ``n`` more ticks from now.

        Args:
            state: the state.
            n: how many ticks; one activation, or one deactivation, is one.
            ctx: cancels the waiter when it expires.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        position = self.schema.position(state)
        waiter, condition = self._pending(Ticks)
        condition.ticks = {position: self.tick_at(position) + n}
        condition.relative = True
        return self._await(waiter, condition, ctx)

    def when_tick(self, state: str, tick: int, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until the clock of a state has reached a tick.

        Args:
            state: the state.
            tick: the tick to reach, or to have passed.
            ctx: cancels the waiter when it expires.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        self.schema.position(state)
        return self.when_time({state: tick}, ctx=ctx)

    def when_query(
        self, fn: Callable[[Mapping[str, int]], object], *, ctx: StateContext | None = None
    ) -> Waiter:
        """Wait until a function of the clocks is true, now or after a later transition.

        Args:
            fn: takes all clocks by name; runs here first, then on the threads that carry
                out transitions, so it should be quick. What it raises here is raised, an
                error later is logged.
            ctx: cancels the waiter when it expires.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State(multi=True)})
            >>> often = machine.when_query(lambda clock: clock["Foo"] > 4)
            >>> [machine.add("Foo") and often.is_set() for _ in range(3)]
            [False, False, True]

        """
        waiter, condition = self._pending(Query)
        condition.asks = fn
        return self._await(waiter, condition, ctx)

    def when_disposed(self, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until the machine's disposal has finished.

        Args:
            ctx: cancels the waiter when it expires.

        """
        waiter, condition = self._pending(Gone)
        return self._await(waiter, condition, ctx)

    def state_ctx(self, state: str) -> StateContext:
        """Give the context of the present activation of a state.

        Returns:
            A context that expires when the state deactivates, or is activated again;
            it has expired from the start if the state is inactive.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        position = self.schema.position(state)
        tick = self.tick_at(position)
        if self._disposed or not tick & 1:
            return StateContext(str(state), tick)
        ctx = self._waiters().context(position, str(state), tick)
        if self._disposed:
            ctx.expire()
        return ctx

    def observe(self, callback: Callable[[], object]) -> Binding:
        """Have a function called after each change of the clocks, for who mirrors them.

        It runs on the thread that makes the change, on its way: it must be quick, and must
        not raise, nor call the machine for more than reading.

        Returns:
            A binding, to stop it.

        """
        index = self._waiters()
        index.observe(callback)
        return Binding(lambda: index.forget(callback))

    @property
    def waiters_pending(self) -> int:
        """How many waiters have not been set yet."""
        return len(self._index.pending) if self._index is not None else 0

    def _waiters(self) -> Index:
        index = self._index
        if index is None:
            with MAKING.now:
                if self._index is None:
                    self._index = Index(self)
                index = self._index
        return index

    def _pending(self, kind: type[_C]) -> tuple[Waiter, _C]:
        index = self._index or self._waiters()
        waiter = Waiter(index)
        condition = kind(waiter, index.dead.append)
        return waiter, condition

    def _when_present(
        self, on: int, off: int, ctx: StateContext | None, *, any_of: bool = False
    ) -> Waiter:
        active = self._now[0].active
        holds = active & on if any_of else active & on == on and not active & off
        if holds and not self._disposed and ctx is None:
            return Waiter()
        index = self._index
        if index is None:
            index = self._waiters()
        waiter = Waiter(index)
        waiter._condition = condition = Present(waiter, index.dead.append)
        condition.on = on
        condition.off = off
        condition.any = any_of
        # Register first, look afterwards: see the guarantees of index.py.
        index.pending[condition] = None
        index.inbox[condition] = None
        if self._now[0].active != active or self._disposed or ctx is not None:
            self._look_again(waiter, condition, ctx)
        if index.dead and len(index.dead) > UNTIDY:
            self._tidy()
        return waiter

    def _await(self, waiter: Waiter, condition: Condition, ctx: StateContext | None) -> Waiter:
        """Register a waiter, then look whether it is to be set already, in this order."""
        index = self._waiters()
        waiter._condition = condition
        index.pending[condition] = None
        index.inbox[condition] = None
        self._look_again(waiter, condition, ctx)
        if len(index.dead) > UNTIDY:
            self._tidy()
        return waiter

    def _look_again(self, waiter: Waiter, condition: Condition, ctx: StateContext | None) -> None:
        """Set a waiter whose condition holds by now, and bind it to its context."""
        index = self._waiters()
        if self._finished or (self._disposed and not isinstance(condition, Gone)):
            if index.claim(condition):
                waiter.set("disposed")
        elif condition.holds(self) and index.claim(condition):
            waiter._fire()
        if ctx is not None:
            waiter.bind_to(ctx)

    def _tidy(self) -> None:
        """Clear away what has been abandoned, if nobody else is at work."""
