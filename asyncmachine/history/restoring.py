"""Bringing a machine back to where a history saw it last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncmachine.errors import UnknownStateError
from asyncmachine.history.errors import HistoryError

if TYPE_CHECKING:
    from asyncmachine.history.queries import History
    from asyncmachine.machine import Machine

__all__ = ["restore"]


def restore(machine: Machine, history: History) -> dict[str, int] | None:
    """Bring a fresh machine to the last clocks that a history knows of its id.

    States that the machine has and the history lacks start at 0. As with
    ``import_state``, no handler, waiter or auto state is moved by it: an auto state comes
    with the next transition, and what was being done in an active state has to be begun
    again by whoever restores.

    Args:
        machine: one that has not changed yet.
        history: where it, or an earlier one of the same id, was recorded.

    Returns:
        The clocks that it has now, by name, or ``None`` if the history knows none of it.

    Raises:
        UnknownStateError: if the machine lacks a state that the history knows.
        HistoryError: if the machine is not fresh, or the history can not be read.

    Example:
        >>> from asyncmachine import Machine, State
        >>> from asyncmachine.history import MemoryHistory, restore
        >>> history = MemoryHistory()
        >>> with Machine({"Foo": State()}, id="m", tracers=[history]) as machine:
        ...     machine.add("Foo")
        Result.EXECUTED
        >>> again = Machine({"Foo": State()}, id="m", tracers=[history])
        >>> restore(again, history)
        {'Foo': 1, 'Exception': 0}
        >>> again.is_active("Foo")
        True

    """
    clocks = history.last_clocks(machine.id)
    if clocks is None:
        return None
    for name in clocks.names:
        if name not in machine.schema.index:
            raise UnknownStateError(name, machine.states, f"the history of {machine.id}")
    ticks = dict(zip(clocks.names, clocks.ticks, strict=True))
    goal = {name: ticks.get(name, 0) for name in machine.states}
    now = machine.clock()
    if any(now.values()) and now != goal:
        msg = (
            f"only a fresh machine is restored, and {machine.id} has changed: {machine.describe()}"
        )
        raise HistoryError(msg)
    machine.import_state({"names": list(goal), "ticks": list(goal.values())})
    history.restored(machine)
    return goal
