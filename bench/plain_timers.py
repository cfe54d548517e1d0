"""Calls to come, made by one thread for everybody: the clock of the plain network."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count
from time import monotonic

__all__ = ["Call", "Timers"]


class Call:
    """A call to come; ``cancel()`` takes it back."""

    __slots__ = ("canceled", "function")

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.canceled = False

    def cancel(self) -> None:
        """Have it not made, if it has not been yet."""
        self.canceled = True


class Timers:
    """The time since it was made, and a thread that calls when it has come."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._news = threading.Condition()  # guards all below
        self._calls: list[tuple[float, int, Call]] = []
        self._numbers = count()  # equal times in the order in which they were asked for
        self._closed = False
        self._thread = threading.Thread(target=self._live, name="timers", daemon=True)
        self._thread.start()

    def now(self) -> float:
        """Seconds since it was made."""
        return monotonic() - self._began

    def call_later(self, delay: float, function: Callable[[], object]) -> Call:
        """Have something called in so many seconds; it must be quick."""
        call = Call(function)
        with self._news:
            heapq.heappush(self._calls, (self.now() + delay, next(self._numbers), call))
            if self._calls[0][2] is call:
                self._news.notify()
        return call

    def close(self) -> None:
        """Make no more calls; waits for the one that is being made."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join()

    def _live(self) -> None:
        while (call := self._await_next()) is not None:
            call.function()

    def _await_next(self) -> Call | None:
        with self._news:
            while not self._closed:
                while self._calls and self._calls[0][2].canceled:
                    heapq.heappop(self._calls)
                left = self._calls[0][0] - self.now() if self._calls else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._calls)[2]
                self._news.wait(left)
        return None
