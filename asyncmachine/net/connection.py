"""One carrier in the use of a link, and who reads it.

Guarantees: one thread at a time is the reader. It may leave, hand the reading over to
another thread, or read on within itself (an ``on_messages`` that waits for a message);
whoever loses the reading inside of a nested call finds that out when it returns there.

`Standby` is how a background thread reads only what nobody else reads: it waits in an
epoll, which fires once each time that it is armed. Who reads in its place claims the
reading, disarms, reads, gives the claim back and *then* arms: a thread that got its event
too early fails its own claim, and waits for the arming that is sure to come.
"""

from __future__ import annotations

import os
import select
from _thread import allocate_lock, get_ident
from typing import TYPE_CHECKING, Final

from asyncmachine.net.wire import FrameReader

if TYPE_CHECKING:
    from asyncmachine.net.carriers import Carrier

__all__ = ["CAN_STAND_BY", "Connection", "Standby"]

CAN_STAND_BY: Final = hasattr(select, "epoll") and hasattr(os, "eventfd")


class Standby:
    """Waits until a carrier is readable and nobody else reads it.

    Args:
        carrier: what is read.

    Raises:
        OSError: if it is closed.

    """

    __slots__ = ("_armed", "_bell", "_disarmed", "_epoll", "_fd", "ident")

    def __init__(self, carrier: Carrier) -> None:
        self.ident = 0
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._armed = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
        # A hang-up is told even so, but only once.
        self._disarmed = select.EPOLLONESHOT
        self._epoll.register(self._bell, select.EPOLLIN)
        self._fd = carrier.fileno()
        self._epoll.register(self._fd, self._armed)

    def __del__(self) -> None:
        # Not earlier: whoever still holds us would wake a stranger of the same number.
        os.close(self._bell)

    def wait(self) -> None:
        """Block until there may be something to read, or somebody calls ``wake()``."""
        for fd, _ in self._epoll.poll():
            if fd == self._bell:
                os.eventfd_read(self._bell)

    def wake(self) -> None:
        """Have the thread that waits look for itself."""
        os.eventfd_write(self._bell, 1)

    def arm(self) -> None:
        """Wait for the carrier from now on."""
        self._modify(self._armed)

    def disarm(self) -> None:
        """Leave the carrier to another thread."""
        self._modify(self._disarmed)

    def _modify(self, events: int) -> None:
        try:
            self._epoll.modify(self._fd, events)
        except OSError:  # the carrier is closed, and who closed it calls wake()
            pass


class Connection:
    """A carrier, and what is known of it.

    Args:
        carrier: what is read and written.
        max_frame: bytes that a frame of the other side may have.

    Attributes:
        frames: cuts what arrives into frames.
        reading: held as long as there is a reader.
        standby: where a background thread waits for its turn to read, or None.
        has_reader: whether anybody was ever told to read.
        ended: whether it is of no use any more.
        told: whether somebody was told of that, or is about to be.
        broken: why it can not be written any more, or None.
        over: whether the other side has said that it ends.
        rest: what is left of a write that the carrier took in part.

    """

    __slots__ = (
        "_handed",
        "_reader",
        "broken",
        "carrier",
        "ended",
        "frames",
        "has_reader",
        "over",
        "reading",
        "rest",
        "standby",
        "told",
    )

    def __init__(self, carrier: Carrier, max_frame: int) -> None:
        self.carrier = carrier
        self.frames = FrameReader(max_frame)
        self.reading = allocate_lock()
        self.standby: Standby | None = None
        self.has_reader = False
        self.ended = self.told = False
        self.broken: Exception | None = None
        self.over = False
        self.rest: bytes | memoryview = b""
        self._reader = 0
        self._handed: set[int] = set()  # who was the reader, and handed that over

    def claim(self) -> bool:
        """Become the reader, if there is none and the connection has not ended."""
        if not self.reading.acquire(blocking=False):
            return False
        if self.ended:
            # Who ended it may not have waited for us: what still arrives is not ours.
            self.reading.release()
            return False
        me = get_ident()
        self._handed.discard(me)
        self._reader = me
        return True

    def is_mine(self) -> bool:
        """Whether this thread is the reader."""
        me = get_ident()
        return self._reader == me and me not in self._handed

    def leave(self) -> bool:
        """Be the reader no longer; false if this thread is not."""
        if not self.is_mine():
            return False
        self._reader = 0
        self.reading.release()
        return True

    def hand_over(self) -> None:
        """Leave the reading to a thread that calls ``take_over()``, or has called it."""
        self._handed.add(get_ident())

    def take_over(self) -> bool:
        """Be the reader in the place of another; true if that one stood by."""
        me = get_ident()
        before, self._reader = self._reader, me
        self._handed.discard(me)
        return self.standby is None or before == self.standby.ident

    def give_back(self) -> bool:
        """Leave the reading to who stands by; false if this thread is not the reader."""
        standby = self.standby
        if not self.leave():
            return False
        if standby is not None:
            if self.broken is not None or self.carrier.is_buffered():
                standby.wake()
            else:
                standby.arm()
        return True

    def shut(self) -> None:
        """Close the carrier; whoever waits for it wakes."""
        self.carrier.close()
        if self.standby is not None:
            self.standby.wake()
