"""Time as an object: that of the wall, or a virtual one that passes as fast as it is worked off.

Under virtual time everything runs on one thread, in the order of the clock, so a run with
the same seed does the same things in the same order.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from asyncmachine.logs import log_exception
from asyncmachine.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "Timer", "VirtualClock", "WallClock"]


class Timer:
    """A call to come; ``cancel()`` takes it back."""

    __slots__ = ("call", "canceled")

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.canceled = False

    def cancel(self) -> None:
        """Have it not called, if it has not been yet."""
        self.canceled = True


class Clock(Protocol):
    """What tells the time, and calls when it has come."""

    def now(self) -> float:
        """Seconds since the run began."""

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        """Have something called in so many seconds; it must be quick."""

    def call_soon(self, call: Callable[[], object]) -> object:
        """Have something called as soon as there is time; from any thread."""


class _Agenda:
    """Calls by time; equal times in the order in which they were asked for."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()

    def put(self, time: float, call: Callable[[], object]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._heap, (time, next(self._numbers), timer))
        return timer

    @property
    def next_time(self) -> float | None:
        while self._heap and self._heap[0][2].canceled:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self) -> Timer:
        return heapq.heappop(self._heap)[2]


class VirtualClock:
    """Time that passes while `run` works off what is to be called."""

    def __init__(self) -> None:
        self._agenda = _Agenda()
        self._now = 0.0

    def now(self) -> float:
        """Seconds since the run began."""
        return self._now

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        """Have something called in so many seconds."""
        return self._agenda.put(self._now + delay, call)

    def call_soon(self, call: Callable[[], object]) -> Timer:
        """Have something called as soon as there is time."""
        return self.call_later(0.0, call)

    def run(self, until: float, *, keep_on: Callable[[float], bool] = lambda _: True) -> None:
        """Work off all that is to be called until a time, on this thread.

        Args:
            until: seconds since the run began.
            keep_on: asked before each call, with its time: it may wait for the wall, look
                for an interrupt, or end the run by a false answer.

        """
        with one_thread() as background:
            background.run()
            while (time := self._agenda.next_time) is not None and time <= until:
                if not keep_on(time):
                    return
                if self._agenda.next_time != time:
                    continue  # it has been taken back
                self._now = time
                self._agenda.pop().call()
                background.run()
            self._now = max(self._now, until)


class WallClock:
    """The time of the wall: a background thread makes the calls.

    Whatever machines do in consequence of a call is done on that thread, too. Where the
    interpreter runs one thread at a time anyway, more of them would only get in each
    other's way.

    Args:
        began: ``time.monotonic()`` when the run began, which processes of one host share.

    """

    def __init__(self, began: float | None = None) -> None:
        self._began = monotonic() if began is None else began
        self._agenda = _Agenda()
        self._news = threading.Condition()  # guards the agenda, and that the thread sleeps
        self._soon: deque[Callable[[], object]] = deque()
        self._asleep = False
        self._closed = False
        self._thread = threading.Thread(target=self._live, name="clock", daemon=True)
        self._thread.start()

    def now(self) -> float:
        """Seconds since the run began."""
        return monotonic() - self._began

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        """Have something called in so many seconds."""
        time = self.now() + delay
        with self._news:
            first = self._agenda.next_time
            timer = self._agenda.put(time, call)
            if first is None or time < first:
                self._news.notify()
        return timer

    def call_soon(self, call: Callable[[], object]) -> None:
        """Have something called as soon as there is time."""
        self._soon.append(call)
        if self._asleep:  # else it looks again before it sleeps
            with self._news:
                self._news.notify()

    def close(self) -> None:
        """Make no more calls; waits for the one that is being made."""
        with self._news:
            self._closed = True
            self._news.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _live(self) -> None:
        with one_thread() as background:
            while (call := self._next()) is not None:
                try:
                    call()
                except Exception as error:  # noqa: BLE001 - all the others are still to come
                    log_exception("error in a call of the clock", error=error)
                background.run()

    def _next(self) -> Callable[[], object] | None:
        """Give what is due, or wait for it; None at the end."""
        with self._news:
            while not self._closed:
                first = self._agenda.next_time
                left = None if first is None else first - self.now()
                if left is not None and left <= 0:
                    return self._agenda.pop().call
                if self._soon:
                    return self._soon.popleft()
                self._asleep = True
                if not self._soon:  # whoever has put something there before did not see us sleep
                    self._news.wait(left)
                self._asleep = False
        return None
