"""What the current thread is carrying out, and which threads wait for whom.

A thread that runs a handler may call other machines, whose handlers run on top: a stack
of frames, innermost last. It tells who caused a mutation, and which waits could never end.

Guarantees: a thread changes its own stack only; stacks of others are looked at only
while their threads are blocked, under the guard.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LOCAL", "LOST", "Blocked", "Frame", "TaskFrame", "is_inside"]


class Frame(Protocol):
    """Something of a machine that a thread is carrying out: a transition, or a task."""

    @property
    def machine(self) -> object:
        """Whose turn the thread has."""


class TaskFrame:
    """The frame of what is no transition: the function of an ``eval``, a dry run."""

    __slots__ = ("machine",)

    def __init__(self, machine: object) -> None:
        self.machine = machine


class _Local(threading.local):
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.fork: object = None  # the fork that runs on this thread, if one does


LOCAL: Final = _Local()

# Stands where a transition stood whose handler was late: the thread has lost the turn.
LOST: Final = TaskFrame(None)


def is_inside(machine: object) -> bool:
    """Whether the current thread is in a handler, or a task, of this machine."""
    return any(frame.machine is machine for frame in LOCAL.frames)


# Threads that wait, from inside one machine's handler, for another machine.
_blocked: Final[dict[int, tuple[object, list[Frame]]]] = {}
_guard: Final = threading.RLock()


class Blocked:
    """Declares that the current thread is about to wait for a machine.

    The wait is only safe if the ``with`` statement gives True; if it gives False, the
    machine's turn is held by a thread that waits, directly or through others, for a
    machine whose handler called us: nobody could ever go on.
    """

    __slots__ = ("_machine", "_me")

    def __init__(self, machine: object) -> None:
        self._machine = machine
        self._me = 0

    def __enter__(self) -> bool:
        frames = LOCAL.frames
        if not frames:  # we hold nothing that anybody could wait for
            return True
        with _guard:
            if _waits_for_us(self._machine, frames):
                return False
            self._me = threading.get_ident()
            _blocked[self._me] = (self._machine, frames)
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._me:
            with _guard:
                _blocked.pop(self._me, None)


def _waits_for_us(machine: object, mine: list[Frame]) -> bool:
    for _ in range(len(_blocked) + 1):
        if any(frame.machine is machine for frame in mine):
            return True
        for awaited, frames in _blocked.values():
            if any(frame.machine is machine for frame in frames):
                machine = awaited
                break
        else:
            return False
    return False
