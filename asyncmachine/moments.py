"""The present of a machine: one object, replaced whole, so that no read is ever torn.

A moment is a flat tuple: the node (which states are active, in which order), then the
position and the new tick of every clock that moved on the way there. A machine publishes
its moment first and brings its list of ticks up to date after that; a reader who copies
the list and finds the same moment before and after lays the moment over the copy and has
all clocks as they were at that moment, however far the writer has got. Neither waits.

Assumes that copying a list and assigning an attribute are atomic and seen in order by
other threads, as CPython has it with and without the interpreter lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from asyncmachine.plans import Node

    Moment: TypeAlias = tuple[Node, *tuple[int, ...]]

__all__ = ["lay_over"]


def lay_over(ticks: list[int], moment: Moment) -> None:
    """Set the ticks that a moment came with; doing it twice is as good as once.

    Example:
        >>> ticks = [0, 0, 0]
        >>> lay_over(ticks, ("node", 0, 1, 2, 5))
        >>> ticks
        [1, 0, 5]

    """
    _, *moved = moment
    for at in range(0, len(moved), 2):
        ticks[moved[at]] = moved[at + 1]
