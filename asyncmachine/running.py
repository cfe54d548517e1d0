"""What the current thread is carrying out, and which threads wait for whom.

A thread that runs a handler may call other machines, whose handlers run on top: a chain
of frames, the innermost first. It tells who caused a mutation, and which waits could
never end.

Guarantees: a thread changes its own chain only; chains of others are looked at only while
their threads are blocked, under the guard. A frame whose machine is ``None`` has lost the
turn, for its handler was late.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, Protocol

from asyncmachine.locking import FreshLock

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LOCAL", "Blocked", "Frame", "Here", "Running", "in_handler", "is_inside"]


class Running(Protocol):
    """Something of a machine that a thread is carrying out."""

    @property
    def machine(self) -> object:
        """Whose turn the thread has."""

    @property
    def outer(self) -> Running | None:
        """What the thread was carrying out when this began."""


class Frame:
    """A link of the chain: a transition, or a task, that a thread is carrying out.

    A transition that nobody watches and that begins a chain is its own link.

    Attributes:
        machine: whose turn the thread has; ``None`` once it has lost that.
        transition: the transition, if it is one.
        outer: what the thread was carrying out when this began.

    """

    __slots__ = ("machine", "outer", "transition")

    def __init__(self, machine: object, outer: Running | None, transition: object = None) -> None:
        self.machine = machine
        self.outer = outer
        self.transition = transition


class Here:
    """What one thread is carrying out.

    Attributes:
        top: the innermost link of its chain.
        fork: the fork that the thread runs, if it does.

    """

    __slots__ = ("fork", "top")

    def __init__(self) -> None:
        self.top: Running | None = None
        self.fork: object = None


class _Local(threading.local):
    def __init__(self) -> None:
        self.here = Here()


LOCAL: Final = _Local()


def in_handler() -> bool:
    """Whether the current thread is in a handler, or a task, of any machine."""
    return LOCAL.here.top is not None


def is_inside(machine: object) -> bool:
    """Whether the current thread is in a handler, or a task, of this machine."""
    return _holds(LOCAL.here.top, machine)


def _holds(top: Running | None, machine: object) -> bool:
    while top is not None:
        if top.machine is machine:
            return True
        top = top.outer
    return False


# Threads that wait, from inside one machine's handler, for another machine.
_blocked: Final[dict[int, tuple[object, Running]]] = {}
_guard: Final = FreshLock()

if hasattr(os, "register_at_fork"):  # a child has no other threads
    os.register_at_fork(after_in_child=_blocked.clear)


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
        top = LOCAL.here.top
        if top is None:  # we hold nothing that anybody could wait for
            return True
        # What an interrupt has kept from being taken back is overwritten here.
        with _guard.now:
            if _waits_for_us(self._machine, top):
                return False
            self._me = threading.get_ident()
            _blocked[self._me] = (self._machine, top)
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._me:
            with _guard.now:
                _blocked.pop(self._me, None)


def _waits_for_us(machine: object, mine: Running) -> bool:
    for _ in range(len(_blocked) + 1):
        if _holds(mine, machine):
            return True
        for awaited, top in _blocked.values():
            if _holds(top, machine):
                machine = awaited
                break
        else:
            return False
    return False
