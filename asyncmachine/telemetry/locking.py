"""A lock that a forked child finds free, whoever had it in the parent when it forked."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["FreshLock"]


class FreshLock:
    """A lock for ``with``; a machine in a forked child never waits for a thread left behind.

    It is for what single steps leave whole: what the other thread was about stays undone.

    Example:
        >>> lock = FreshLock()
        >>> with lock:
        ...     "alone"
        'alone'

    """

    def __init__(self) -> None:
        self._lock = Lock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def renew(self) -> None:  # pragma: no cover - in a forked child
        """Be free."""
        self._lock = Lock()


_LOCKS: Final[WeakSet[FreshLock]] = WeakSet()


def _renew_all() -> None:  # pragma: no cover - in a forked child
    for lock in _LOCKS:
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
