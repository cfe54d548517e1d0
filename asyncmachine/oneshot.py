"""A thing that happens once, and that threads can wait for.

Guarantees:

- ``fire()`` may be called by any thread, more than once, and never blocks.
- A ``wait()`` that starts before, during or after ``fire()`` returns: no lost wake-up.
- A callback added before, during or after ``fire()`` runs exactly once.
- It fires once and can not be cleared.
- Everything here may be called in a signal handler or a finaliser: there is no lock that
  the interrupted code might hold.

Assumes that ``list.append``, ``list.pop`` and the assignment of an attribute are atomic
and seen in order by other threads, as CPython has it with and without the interpreter
lock. Whoever waits puts itself on a list *before* it looks whether the thing has
happened; whoever fires says so *before* it reads the list: one of them sees the other.

A list of sleepers is made when a thread has to sleep: a ``threading.Event`` makes a
condition, a lock and a deque up front, which costs about eighty function calls.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar

from asyncmachine.locking import FreshLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = [
    "MAKING",
    "OneShot",
    "Sleeper",
    "Told",
    "call_all",
    "call_safely",
    "deadline_after",
    "time_left",
]

# Guards only the making of the lists, which happens once for a thing that is waited for.
MAKING: Final = FreshLock()


class Sleeper:
    """What one thread sleeps on, and any number of others may wake."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def sleep(self, timeout: float | None = None) -> bool:
        """Block until woken; false if ``timeout`` seconds passed first."""
        return self._lock.acquire(timeout=-1 if timeout is None else _at_most(timeout))

    def wake(self) -> None:
        """End the sleep, or the next one; waking twice is as good as once."""
        try:
            self._lock.release()
        except RuntimeError:  # somebody was faster
            pass


def _at_most(timeout: float) -> float:
    """A time-out as the lock takes it: not negative, and what is too long is for ever."""
    return -1 if timeout > _LONGEST else max(timeout, 0.0)


_LONGEST: Final = 1e9


def deadline_after(timeout: float | None) -> float | None:
    """Turn seconds from now into a point of monotonic time; ``None`` is never."""
    return None if timeout is None else monotonic() + timeout


def time_left(deadline: float | None) -> float | None:
    """Turn a deadline back into the seconds until then."""
    return None if deadline is None else max(0.0, deadline - monotonic())


class OneShot:
    """Base of everything that happens once: waiters, contexts, results."""

    __slots__ = ("__weakref__", "_callbacks", "_fired", "_sleepers")

    def __init__(self) -> None:
        self._fired = False
        self._sleepers: list[Sleeper] | None = None
        self._callbacks: list[Callable[[Self], object]] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it has happened.

        Args:
            timeout: seconds to wait at most; ``None`` waits for ever.

        Returns:
            True if it has happened, False if the time ran out first.

        """
        if self._fired:
            return True
        if timeout is not None and timeout <= 0:
            return False
        sleeper = Sleeper()
        self._add_sleeper(sleeper)
        try:
            return sleeper.sleep(timeout) or self._fired
        finally:
            self._drop_sleeper(sleeper)

    @property
    def happened(self) -> bool:
        """Whether it has happened. Never blocks."""
        return self._fired

    def _fire(self) -> None:
        """Let it happen: wake every sleeper and run every callback; again does no harm."""
        self._fired = True
        try:
            self._wake()
        except BaseException:  # an interrupt: nobody sleeps on because of it
            self._wake()
            raise

    def _wake(self) -> None:
        sleepers = self._sleepers
        if sleepers is not None:
            for sleeper in tuple(sleepers):
                sleeper.wake()
        if self._callbacks is not None:
            self._run_callbacks()

    def _add_sleeper(self, sleeper: Sleeper) -> None:
        sleepers = self._sleepers
        if sleepers is None:
            with MAKING.now:
                if self._sleepers is None:
                    self._sleepers = []
                sleepers = self._sleepers
        sleepers.append(sleeper)
        if self._fired:
            sleeper.wake()

    def _drop_sleeper(self, sleeper: Sleeper) -> None:
        # A time-out or Ctrl-C: without this, waiting again and again would grow the list.
        if self._sleepers is not None:
            try:
                self._sleepers.remove(sleeper)
            except ValueError:
                pass

    def _add_callback(self, callback: Callable[[Self], object]) -> None:
        callbacks = self._callbacks
        if callbacks is None:
            with MAKING.now:
                if self._callbacks is None:
                    self._callbacks = []
                callbacks = self._callbacks
        callbacks.append(callback)
        if self._fired:
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        if self._callbacks is not None:
            call_all(self._callbacks, self)  # type: ignore[arg-type]  # a callback takes Self


class Told(OneShot):
    """Something that happens when somebody says so."""

    __slots__ = ()

    def tell(self) -> None:
        """Let it happen; again does no harm."""
        self._fire()


_T = TypeVar("_T")


def call_all(callbacks: list[Callable[[_T], object]], argument: _T) -> None:
    """Call each callback of a list once, whoever else is at it, and take it out."""
    while callbacks:
        try:
            callback = callbacks.pop(0)
        except IndexError:  # another thread took the last one
            return
        call_safely(callback, argument)


def call_safely(callback: Callable[[_T], object], argument: _T) -> None:
    """Call a callback of the user's; an error in it is logged and changes nothing."""
    try:
        callback(argument)
    except Exception:  # noqa: BLE001 - it is the user's code
        from asyncmachine.logs import log_exception

        log_exception("error in the callback %r", callback)
