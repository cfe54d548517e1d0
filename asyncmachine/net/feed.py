"""What one link is told of the clocks of one machine.

Guarantees: each message says what has moved since the one before, so the other side can
follow; whoever tells has the lock from looking to posting, so messages are in order. What
moves while nobody can be told is told at once later: there is never more than one
message to come.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from asyncmachine.mirror import expected_order
from asyncmachine.net.errors import ConnectionLostError
from asyncmachine.net.values import describe_error
from asyncmachine.net.wire import Changed, Done, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.machine import Machine
    from asyncmachine.net.link import Link
    from asyncmachine.net.wire import ErrorInfo, Message

__all__ = ["Feed"]


class Feed:
    """Tells one link of the clocks of one machine.

    Args:
        machine: whose clocks.
        channel: the machine's number on the link.
        link: who is told.
        schedule: what to call, once, when there is something to tell.

    """

    __slots__ = (
        "_binding",
        "_channel",
        "_dirty",
        "_error",
        "_link",
        "_lock",
        "_machine",
        "_moment",
        "_order",
        "_schedule",
        "_ticks",
    )

    def __init__(
        self, machine: Machine, channel: int, link: Link, schedule: Callable[[Feed], object]
    ) -> None:
        self._machine = machine
        self._channel = channel
        self._link = link
        self._schedule = schedule
        self._lock = Lock()
        self._dirty = False
        self._moment: object = None
        self._error: BaseException | None = None
        self._ticks: list[int] = []
        self._order: tuple[int, ...] = ()
        self._binding = machine.observe(self._touched)

    def close(self) -> None:
        """Tell nothing any more."""
        self._binding.unbind()

    def _touched(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._schedule(self)

    def whole(self) -> Snapshot:
        """Give the whole clock, from which on changes are told."""
        with self._lock:
            return self._whole_locked()

    def tell_whole(self) -> None:
        """Tell the whole clock."""
        with self._corked():
            self._post(self._whole_locked())

    def _whole_locked(self) -> Snapshot:
        machine = self._machine
        self._moment = machine.moment
        self._error = machine.error
        self._ticks, self._order = machine.present()
        return Snapshot(
            self._channel, self._ticks.copy(), list(self._order), _described(self._error)
        )

    def flush(self) -> None:
        """Tell what has moved, if anything has."""
        self._dirty = False
        machine = self._machine
        if machine.moment is self._moment and machine.error is self._error:
            return
        with self._corked():
            moved, order = self._moved_locked()
            if moved is None:
                self._post(self._whole_locked())
            elif moved or order:
                total = sum(self._ticks)
                self._link.post_volatile(Changed(self._channel, moved, total, order))

    def done(self, call: int) -> None:
        """Tell that a call is done, and what has moved."""
        self._dirty = False
        link = self._link
        link.cork()  # nothing is written while the feed is locked
        try:
            with self._lock:
                moved, order = self._moved_locked()
                if moved is None:
                    self._post(self._whole_locked())
                    moved, order = [], []
                self._post(Done(call, self._channel, moved, sum(self._ticks), order))
        finally:
            link.uncork()

    def _post(self, message: Message) -> None:
        try:
            self._link.post(message)
        except ConnectionLostError:
            pass  # nobody is there to be told

    def _moved_locked(self) -> tuple[list[int] | None, list[int]]:
        """Give what has moved, and the order if it can not be guessed; None for all."""
        machine = self._machine
        moment = machine.moment
        if moment is self._moment and machine.error is self._error:
            return [], []
        before, guess = self._ticks, self._order
        ticks, order = machine.present()
        if machine.error is not self._error:
            return None, []
        self._moment = moment
        self._ticks, self._order = ticks, order
        moved: list[int] = []
        for i, tick in enumerate(ticks):
            if tick != before[i]:
                if tick < before[i]:  # an import has put it back
                    return None, []
                moved += (i, tick)
        told = [] if order == expected_order(guess, moved) else list(order)
        return moved, told

    def _corked(self) -> _Corked:
        return _Corked(self._lock, self._link)


class _Corked:
    """The lock of a feed, with the writing put off until it is released."""

    __slots__ = ("_link", "_lock")

    def __init__(self, lock: Lock, link: Link) -> None:
        self._lock = lock
        self._link = link

    def __enter__(self) -> None:
        self._link.cork()
        self._lock.acquire()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._lock.release()
        self._link.uncork()


def _described(error: BaseException | None) -> ErrorInfo | None:
    return None if error is None else describe_error(error)
