"""Daemon threads that are kept for the next piece of work.

Starting a thread costs fifty times what waking one does. A thread that has done its work
waits a while for more, and ends when there is none.

Guarantees: the work is started at once, on a thread of its own, and never waits for other
work; the thread is a daemon, so that it never keeps a program from ending.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from asyncmachine.oneshot import Sleeper

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run_elsewhere"]

# How long a thread without work is kept, in seconds.
KEPT: Final = 10.0

_idle: Final[deque[_Worker]] = deque()


class _Worker:
    """One thread, and the work it has been given."""

    __slots__ = ("_bell", "_work")

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work
        self._bell = Sleeper()
        threading.Thread(target=self._live, name="asyncmachine", daemon=True).start()

    def give(self, work: Callable[[], object]) -> None:
        """Hand work to the thread; only who has taken it from the idle ones may."""
        self._work = work
        self._bell.wake()

    def _live(self) -> None:
        while True:
            work, self._work = self._work, None
            if work is not None:
                try:
                    work()
                except BaseException:  # noqa: BLE001 - the thread belongs to nobody
                    threading.excepthook(threading.ExceptHookArgs((*_exc_info(), None)))
                del work  # it may hold a machine
            _idle.append(self)
            if not self._bell.sleep(KEPT) and self._retire():
                return

    def _retire(self) -> bool:
        """Leave the idle ones; false if somebody has just taken us, with work to come."""
        try:
            _idle.remove(self)
        except ValueError:
            self._bell.sleep()
            return False
        return True


# A child made by fork() has none of the threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


def _exc_info() -> tuple[object, object, object]:
    from sys import exc_info

    return exc_info()


def run_elsewhere(work: Callable[[], object]) -> None:
    """Run a function on a background thread, now. Does not block.

    An error in it goes to `threading.excepthook`.
    """
    try:
        worker = _idle.pop()  # the one that slept last is the warmest
    except IndexError:
        _Worker(work)
    else:
        worker.give(work)
