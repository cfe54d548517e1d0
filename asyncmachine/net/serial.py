"""Things done one after the other, by whichever thread comes along.

Guarantees: what is given is done in order, never two at a time, by the thread that gives
it, or by one that is at it already; nothing is left behind. No lock is held meanwhile.

Assumes that ``del list[0]`` and ``deque`` operations are atomic, as CPython has it with
and without the interpreter lock.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Serial"]

_FREE: Final = (None,)


class Serial:
    """A line of things to do."""

    __slots__ = ("_baton", "_line")

    def __init__(self) -> None:
        self._baton = [None]
        self._line: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    def do(self, thing: Callable[..., object], *args: object) -> None:
        """Do a thing after all that were given before; now, unless another thread is at it."""
        self._line.append((thing, args))
        self.serve()

    def serve(self) -> None:
        """Do what is in the line, unless another thread is at it."""
        line, baton = self._line, self._baton
        while line:
            try:
                del baton[0]
            except IndexError:
                return  # who has it looks into the line after giving it back
            try:
                while line:
                    thing, args = line.popleft()
                    thing(*args)
            finally:
                baton += _FREE

    def __len__(self) -> int:
        return len(self._line)
