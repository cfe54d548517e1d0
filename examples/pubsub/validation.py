"""Where signatures are checked: beside the machines, for that takes long and needs no lock.

The library that does the arithmetic lets other threads run meanwhile, so several checks go
on at once where there are several cores.
"""

from __future__ import annotations

import threading
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from asyncmachine.logs import log_exception

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.pubsub.clock import Clock

__all__ = ["AtOnce", "Validation", "Workers"]


class Validation(Protocol):
    """Checks things for hosts."""

    def check(self, is_valid: Callable[[], bool], done: Callable[[bool], object]) -> None:
        """Have something checked; ``done`` gets the answer, on the thread of the clock."""

    def close(self) -> None:
        """Check nothing any more."""


def _answer(is_valid: Callable[[], bool]) -> bool:
    try:
        return is_valid()
    except Exception as error:  # noqa: BLE001 - a validator of the user's
        log_exception("error in a validator", error=error)
        return False


class AtOnce:
    """On the spot: under virtual time everything has its order."""

    def check(self, is_valid: Callable[[], bool], done: Callable[[bool], object]) -> None:
        """Check it, and give the answer."""
        done(_answer(is_valid))

    def close(self) -> None:
        """There is nothing to end."""


class Workers:
    """On threads of their own.

    Args:
        clock: where answers are given.
        threads: how many checks go on at a time.

    """

    def __init__(self, clock: Clock, threads: int) -> None:
        self._clock = clock
        self._jobs: SimpleQueue[tuple[Callable[[], bool], Callable[[bool], object]] | None]
        self._jobs = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"validation {n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def check(self, is_valid: Callable[[], bool], done: Callable[[bool], object]) -> None:
        """Have something checked by the next worker that is free."""
        self._jobs.put((is_valid, done))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            is_valid, done = job
            self._clock.call_soon(partial(done, _answer(is_valid)))

    def close(self) -> None:
        """Check nothing any more; waits for what is being checked."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
