"""What waiters wait for, one class a kind of condition.

A condition is a weak reference to its waiter, so that a waiter which nobody holds is
gone; what is left of it is buried by the index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import ref

from asyncmachine.bits import members
from asyncmachine.waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncmachine.index import Index

__all__ = ["Condition", "Gone", "Idle", "Present", "Query", "Ticks", "WithArgs"]


class Clocks(Protocol):
    """Where conditions are read from: the present of a machine or of a mirror of one."""

    def active_mask(self) -> int:
        """The bit set of the active states."""

    def tick_at(self, position: int) -> int:
        """One clock."""

    def clock(self, *states: str) -> dict[str, int]:
        """All clocks by name."""


class Condition(ref[Waiter]):
    """Base of conditions.

    Attributes:
        sorted: whether it has been sorted in, and so has to be sorted out; unset before.

    """

    __slots__ = ("sorted",)

    sorted: bool

    # A waiter has one condition, so identity is all that dictionaries need.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def holds(self, clocks: Clocks) -> bool:
        """Whether it is true of the present."""
        return False

    def positions(self) -> list[int]:
        """Give the states that it is about, as positions in the schema."""
        return []

    def enlist(self, index: Index) -> None:
        """Join the index; only by the thread that has the turn."""

    def delist(self, index: Index) -> None:
        """Leave the index; only by the thread that has the turn."""


class Present(Condition):
    """States are active, or inactive, at the same time.

    Attributes:
        on: bit set of states that must be active: all of them, or any.
        off: bit set of states that must be inactive: all of them.
        any: whether one of ``on`` is enough.

    """

    __slots__ = ("any", "off", "on")

    on: int
    off: int
    any: bool

    def holds(self, clocks: Clocks) -> bool:
        return self.holds_of(clocks.active_mask())

    def holds_of(self, active: int) -> bool:
        """Whether it is true of a bit set of active states."""
        if self.any:
            return bool(active & self.on)
        return active & self.on == self.on and not active & self.off

    def positions(self) -> list[int]:
        return members(self.on | self.off)

    def enlist(self, index: Index) -> None:
        index.add_present(self)

    def delist(self, index: Index) -> None:
        index.drop_present(self)


class Ticks(Condition):
    """Clocks have reached their ticks.

    Attributes:
        ticks: the tick to reach by position of the state.
        relative: whether they were counted from the present, and so hold in another life
            of the machine with what remains of them.

    """

    __slots__ = ("relative", "ticks")

    ticks: dict[int, int]
    relative: bool

    def holds(self, clocks: Clocks) -> bool:
        return all(clocks.tick_at(position) >= tick for position, tick in self.ticks.items())

    def positions(self) -> list[int]:
        return list(self.ticks)

    def enlist(self, index: Index) -> None:
        index.add_ticks(self)

    def delist(self, index: Index) -> None:
        index.drop_ticks()


class WithArgs(Condition):
    """A state is activated with all of some args.

    Attributes:
        state: position of the state.
        args: what the activation must come with, at least.
        since: the tick of the state when the waiter was made: only later ones count.

    """

    __slots__ = ("args", "since", "state")

    state: int
    args: Mapping[str, object]
    since: int

    def positions(self) -> list[int]:
        return [self.state]

    def matches(self, args: Mapping[str, object]) -> bool:
        """Whether an activation came with what is asked for."""
        return all(name in args and args[name] == value for name, value in self.args.items())

    def enlist(self, index: Index) -> None:
        index.add_args(self)

    def delist(self, index: Index) -> None:
        index.drop_args(self)


class Query(Condition):
    """A function of the clocks is true.

    Attributes:
        asks: the function.

    """

    __slots__ = ("asks",)

    asks: Callable[[Mapping[str, int]], object]

    def holds(self, clocks: Clocks) -> bool:
        return bool(self.asks(clocks.clock()))

    def enlist(self, index: Index) -> None:
        index.queries[self] = None

    def delist(self, index: Index) -> None:
        index.queries.pop(self, None)


class Idle(Condition):
    """The queue has been drained.

    Attributes:
        list: where it is listed.

    """

    __slots__ = ("list",)

    list: dict[Idle, None]

    def leave(self) -> None:
        """Be listed no more; by any thread."""
        listed = getattr(self, "list", None)  # unset if an interrupt came while it was made
        if listed is not None:
            listed.pop(self, None)


class Gone(Condition):
    """Disposal has finished."""

    __slots__ = ()
