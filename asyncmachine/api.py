"""`MachineAPI`: what a machine in this process and the mirror of a remote one share.

Functions that take a ``MachineAPI`` work with machines wherever they live; `Machine` says
what each call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal, Self

    from asyncmachine.handlers import Binding, Handler
    from asyncmachine.pipes import Pipe
    from asyncmachine.results import Result
    from asyncmachine.schema import Schema
    from asyncmachine.tracing import Tracer
    from asyncmachine.transition import Cause
    from asyncmachine.waiting import StateContext, Waiter

__all__ = ["MachineAPI"]


class MachineAPI(Protocol):
    """The calls of a machine, local or remote.

    Attributes:
        id: the machine's name, unique in its program.
        schema: its states and relations.
        error: the last error in a handler, or given to ``add_error``.

    """

    id: str
    schema: Schema
    error: BaseException | None

    # Mutations

    def add(self, /, *states: str, **args: object) -> Result:
        """Activate states."""

    def remove(self, /, *states: str, **args: object) -> Result:
        """Deactivate states."""

    def set(self, /, *states: str, **args: object) -> Result:
        """Activate states and deactivate all others."""

    def toggle(self, /, *states: str, **args: object) -> Result:
        """Remove states if all are active, else add them."""

    def add_error(self, /, error: BaseException | str, *states: str, **args: object) -> Result:
        """Add ``Exception`` with an error."""

    def send(
        self, kind: Literal["add", "remove", "set"], /, *states: str, **args: object
    ) -> Result:
        """Request a mutation without waiting for it."""

    def can_add(self, /, *states: str, **args: object) -> Result:
        """Ask whether ``add`` would be executed."""

    def can_remove(self, /, *states: str, **args: object) -> Result:
        """Ask whether ``remove`` would be executed."""

    def can_set(self, /, *states: str, **args: object) -> Result:
        """Ask whether ``set`` would be executed."""

    # Reading

    @property
    def states(self) -> tuple[str, ...]:
        """All names, in declared order."""

    def is_active(self, *states: str) -> bool:
        """Whether all of these states are active."""

    def is_inactive(self, *states: str) -> bool:
        """Whether none of these states is active."""

    def any_active(self, *states: str | tuple[str, ...]) -> bool:
        """Whether at least one of these is active."""

    def switch(self, *states: str) -> str | None:
        """The first of these states that is active."""

    def active_states(self) -> tuple[str, ...]:
        """The names of the active states."""

    def has(self, *states: str) -> bool:
        """Whether all of these are states of the machine."""

    def tick(self, state: str) -> int:
        """One logical clock."""

    def time(self, *states: str) -> tuple[int, ...]:
        """Several clocks of one moment."""

    def time_sum(self, *states: str) -> int:
        """The sum of several clocks of one moment."""

    def clock(self, *states: str) -> dict[str, int]:
        """Several clocks of one moment by name."""

    def describe(self) -> str:
        """All states with their clocks, in one line."""

    def inspect(self, *states: str) -> str:
        """Several lines about states."""

    def export_state(self) -> dict[str, object]:
        """A JSON-able snapshot of all clocks."""

    # Waiting

    def when(self, *states: str, ctx: StateContext | None = None) -> Waiter:
        """Wait until all are active."""

    def when_not(self, *states: str, ctx: StateContext | None = None) -> Waiter:
        """Wait until all are inactive."""

    def when_any(self, *states: str, ctx: StateContext | None = None) -> Waiter:
        """Wait until at least one is active."""

    def when_args(
        self, state: str, args: Mapping[str, object], *, ctx: StateContext | None = None
    ) -> Waiter:
        """Wait for an activation with these args."""

    def when_time(self, ticks: Mapping[str, int], *, ctx: StateContext | None = None) -> Waiter:
        """Wait until clocks have reached their ticks."""

    def when_ticks(self, state: str, n: int, *, ctx: StateContext | None = None) -> Waiter:
        """Wait for more ticks of a clock."""

    def when_tick(self, state: str, tick: int, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until a clock has reached a tick."""

    def when_error(self, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until ``Exception`` is active."""

    def when_query(
        self, fn: Callable[[Mapping[str, int]], object], *, ctx: StateContext | None = None
    ) -> Waiter:
        """Wait until a function of the clocks is true."""

    def when_queue_empty(self, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until the queue has been drained."""

    def when_disposed(self, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until disposal has finished."""

    def state_ctx(self, state: str) -> StateContext:
        """The context of the present activation of a state."""

    # Listening and life

    def bind(self, handlers: Mapping[str, Handler] | object) -> Binding:
        """Bind handlers."""

    def on(self, name: str, fn: Handler) -> Binding:
        """Have a function hear of one handler name."""

    def listen(
        self,
        listeners: Mapping[str, Handler],
        started: Callable[[], object] | None = None,
        *,
        pipes: bool = False,
    ) -> Binding:
        """Have functions hear of several handler names."""

    def add_tracer(self, tracer: Tracer) -> Binding:
        """Add an observer."""

    @property
    def is_disposed(self) -> bool:
        """Whether mutations are refused, for the machine is disposed."""

    def on_dispose(self, callback: Callable[[Self], object]) -> Binding:
        """Have a function called when the machine is disposed."""

    def dispose(self, timeout: float | None = None) -> None:
        """End the machine."""

    # Pipes

    def deliver(
        self,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        passed: tuple[str, ...],
        cause: Cause | None = None,
        trace: str = "",
    ) -> Result:
        """Take over a mutation that a pipe forwards."""

    def lay_pipe(
        self,
        target: MachineAPI,
        routes: list[tuple[str, str]],
        kinds: tuple[str, ...],
        *,
        sync: bool,
    ) -> Pipe | None:
        """Lay a pipe where the machine lives, if that is elsewhere."""

    def hand_over(self, source: object) -> None:
        """Have carried out what a pipe has delivered."""
