"""Daemon threads that are kept for the next piece of work, or none at all.

Starting a thread costs fifty times what waking one does. A thread that has done its work
waits a while for more, and ends when there is none.

Guarantees: the work is started at once, on a thread of its own, and never waits for other
work; the thread is a daemon, so that it never keeps a program from ending.

A simulation, or a test, may want everything in one order, the same each time. Within
`one_thread` nothing is done elsewhere: what a thread has given away waits until it runs it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncmachine.oneshot import Sleeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Background",
    "background_here",
    "one_thread",
    "run_aside",
    "run_background",
    "run_elsewhere",
]

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


def run_aside(work: Callable[[], object]) -> None:
    """Run something that belongs to a machine on a background thread, now.

    Within `one_thread` it waits for this thread instead: it must not block.
    """
    background = _HERE.background
    if background is None:
        run_elsewhere(work)
    else:
        background.put(work)


class Background:
    """What a thread has given away, and does itself when it likes."""

    def __init__(self) -> None:
        self._work: deque[Callable[[], object]] = deque()
        self._running = False

    def put(self, work: Callable[[], object]) -> None:
        """Put something after all that waits."""
        self._work.append(work)

    def run(self) -> None:
        """Do all that waits, and what that gives away in turn; within itself do nothing.

        An error in it goes to `threading.excepthook`, as on a thread of its own.
        """
        if self._running:
            return
        self._running = True
        try:
            while self._work:
                work = self._work.popleft()
                try:
                    work()
                except Exception:  # noqa: BLE001 - it belongs to nobody
                    threading.excepthook(threading.ExceptHookArgs((*_exc_info(), None)))
        finally:
            self._running = False

    def pass_on(self) -> None:
        """Have background threads do what waits, after an error here."""
        while self._work:
            run_elsewhere(self._work.popleft())


class _Here(threading.local):
    background: Background | None = None


_HERE: Final = _Here()


@contextmanager
def one_thread() -> Iterator[Background]:
    """Have the current thread do itself what machines would do on background threads.

    Pipes then deliver, and forks run, on this thread, in the order in which they were
    given away: after the mutation that a pipe follows, else when ``run()`` is called. What
    is left at the end is done then. Other threads are not concerned. Wait for nothing that
    has yet to be run: nobody else will.

    Returns:
        What waits, with ``run()`` to do it.

    Example:
        >>> from asyncmachine import Machine, State, pipe
        >>> source, target = Machine({"Ready": State()}), Machine({"Ready": State()})
        >>> link = pipe(source, "Ready", target, "Ready")
        >>> with one_thread():
        ...     _ = source.add("Ready")
        ...     target.is_active("Ready")
        True

    """
    outer, background = _HERE.background, Background()
    _HERE.background = background
    try:
        yield background
        background.run()
    finally:
        _HERE.background = outer
        background.pass_on()


def background_here() -> Background | None:
    """Give what waits within `one_thread`; None outside of it."""
    return _HERE.background


def run_background() -> bool:
    """Do what waits within `one_thread`; false outside of it."""
    background = background_here()
    if background is None:
        return False
    background.run()
    return True
