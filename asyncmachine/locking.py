"""A lock that a forked child finds free, whoever had it in the parent when it forked."""

from __future__ import annotations

import os
from threading import RLock
from typing import Final
from weakref import WeakSet

__all__ = ["FreshLock"]


class FreshLock:
    """A lock that is new in a forked child: nobody there waits for a thread left behind.

    It is for what single steps leave whole: what the other thread was about stays undone.
    Who has it may come again, in a signal handler or a finaliser that makes a machine.

    Attributes:
        now: the lock itself, so that ``with`` gives back what it has taken, in a child, too,
            and that no interrupt can come between taking it and having to give it back.

    Example:
        >>> lock = FreshLock()
        >>> with lock.now:
        ...     "alone"
        'alone'

    """

    def __init__(self) -> None:
        self.now = RLock()
        _LOCKS.add(self)

    def renew(self) -> None:  # pragma: no cover - in a forked child
        """Be free."""
        self.now = RLock()


_LOCKS: Final[WeakSet[FreshLock]] = WeakSet()


def _renew_all() -> None:  # pragma: no cover - in a forked child
    for lock in _LOCKS:
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
