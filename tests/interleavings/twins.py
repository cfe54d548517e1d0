"""Twins of what frontrun can not see, made of what it sees; see exploring.py."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Background", "Lock", "Seen"]

_T = TypeVar("_T")


class Seen(list[_T]):
    """A list or deque whose every use is seen; each use is one call into C, still."""

    def __iadd__(self, more: object) -> Seen[_T]:  # type: ignore[override,misc]  # FREE alone comes
        self.append(None)  # type: ignore[arg-type]
        return self

    def __bool__(self) -> bool:
        return len(self) > 0

    def popleft(self) -> _T:
        return self.pop(0)

    def appendleft(self, item: _T) -> None:
        self.insert(0, item)


class Lock:
    """A lock that any thread may release, which frontrun does not expect of its own."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(1)

    def acquire(self, *, timeout: float = -1) -> bool:
        return self._free.acquire(timeout=None if timeout < 0 else timeout)

    def release(self) -> None:
        try:
            self._free.release()
        except ValueError:
            raise RuntimeError from None


class Background:
    """Stands for the threads of ``run_elsewhere``: one of the explored threads runs `work`.

    It ends when all others have called `leave`.
    """

    def __init__(self, others: int) -> None:
        self._others = others
        self._given: Seen[Callable[[], object]] = Seen()
        self._bell = threading.Semaphore(0)

    def run_elsewhere(self, work: Callable[[], object]) -> None:
        self._given.append(work)
        self._bell.release()

    def leave(self) -> None:
        self._bell.release()

    def work(self) -> None:
        left = 0
        while left < self._others:
            self._bell.acquire()
            if self._given:
                self._given.pop(0)()
            else:
                left += 1
