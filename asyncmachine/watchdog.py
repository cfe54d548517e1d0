"""Handler deadlines, watched by one daemon thread for the whole process.

The thread is started when a first handler is watched. It sleeps until the earliest
deadline. Calls that end in time do not wake it, but for the first after a pause: as long
as there were others lately it sleeps as long as the shortest of them might have lasted.

Guarantees: of a call that ends and its deadline that passes, exactly one is first.
"""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watch"]


_NEVER: Final = float("inf")


class Watch:
    """One call that is to be watched.

    Made first and started then, inside the ``try`` that stops it, so that an interrupt
    between the two can not leave it running.

    Args:
        timeout: seconds until the call is late.
        on_late: what to call then, on the watchdog's thread: it must be quick.

    """

    __slots__ = ("_claims", "deadline", "in_time", "on_late", "timeout")

    def __init__(self, timeout: float, on_late: Callable[[], object]) -> None:
        self.timeout = timeout
        self.on_late = on_late
        self.deadline = _NEVER
        self.in_time = False
        self._claims = [None]

    def start(self) -> None:
        """Begin to watch."""
        self.deadline = monotonic() + self.timeout
        _watchdog.add(self)

    def claim(self) -> bool:
        """Win the right to go on with the machine; only one ever does."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True

    def stop(self) -> bool:
        """End the watch; false if the call was late and somebody else has gone on.

        May be called again after an interrupt: taking the claim and noting that it was
        taken are statements, with no place for a signal handler in between.
        """
        try:
            del self._claims[0]
        except IndexError:
            pass
        else:
            self.in_time = True
        _watchdog.drop(self)
        return self.in_time


class _Watchdog:
    """The watches, by time-out: those of one length are late in the order they began."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Watch nothing, on no thread yet."""
        self._bell = threading.Condition()  # guards _wakes_at and _thread
        self._lanes: dict[float, dict[Watch, None]] = {}
        self._wakes_at = 0.0
        self._shortest_lately = _NEVER
        self._thread: threading.Thread | None = None

    def add(self, entry: Watch) -> None:
        self._shortest_lately = min(self._shortest_lately, entry.timeout)
        while True:
            lane = self._lanes.setdefault(entry.timeout, {})
            lane[entry] = None
            if self._lanes.get(entry.timeout) is lane:
                break  # else the watchdog has thrown the empty lane away meanwhile
        if entry.deadline < self._wakes_at or self._thread is None:
            self._ring(entry.deadline)

    def drop(self, entry: Watch) -> None:
        lane = self._lanes.get(entry.timeout)
        if lane is not None:
            lane.pop(entry, None)

    def _ring(self, deadline: float) -> None:
        with self._bell:
            if self._thread is None or not self._thread.is_alive():
                self._wakes_at = deadline
                self._thread = threading.Thread(
                    target=self._live, name="asyncmachine watchdog", daemon=True
                )
                self._thread.start()
            elif deadline < self._wakes_at:
                self._wakes_at = deadline
                self._bell.notify()

    def _live(self) -> None:
        while True:
            for entry in self._overdue():
                entry.on_late()

    def _throw_away(self, timeout: float, lane: dict[Watch, None]) -> None:
        """Drop an empty lane; back it comes if somebody was just adding to it."""
        self._lanes.pop(timeout, None)
        if lane:
            self._lanes.setdefault(timeout, lane).update(lane)

    def _overdue(self) -> list[Watch]:
        """Sleep until a deadline has passed; give the calls that are late."""
        with self._bell:
            # Whoever adds a watch from here on sees this and rings.
            self._wakes_at = _NEVER
            now = monotonic()
            lately, self._shortest_lately = self._shortest_lately, _NEVER
            late = []
            for timeout, lane in list(self._lanes.items()):
                if not lane:
                    self._throw_away(timeout, lane)
                for entry in list(lane):
                    if entry.deadline > now:
                        self._wakes_at = min(self._wakes_at, entry.deadline)
                        break
                    lane.pop(entry, None)
                    if entry.claim():
                        late.append(entry)
            if not late:
                self._wakes_at = min(self._wakes_at, now + lately)
                self._bell.wait(min(self._wakes_at - now, threading.TIMEOUT_MAX))
            return late


_watchdog: Final = _Watchdog()

# A child made by fork() has no thread that watches, and none that was watched but the one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watchdog.begin)
