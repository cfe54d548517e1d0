"""Sending what the taps of a process took down to one address, in the background.

Guarantees:

- A machine never waits for a sender: taps append to bounded rings and, once after a ring
  was emptied, note that and, if the sender is asleep, ring a bell; neither blocks.
- A receiver that is slow, stopped or gone costs nothing but what the rings hold. What
  falls out of them is counted, and told as soon as there is somebody to tell.
- After a lost connection it dials again by itself, waiting longer each time up to a few
  seconds; then each machine is introduced again, with all its clocks.
- `close` and `flush` end in the time that they are given, whatever the receiver does.
- A forked child never writes to the connection of its parent; it dials for itself once a
  machine changes in it.

Assumes that an attribute set by one thread and an entry appended by another are seen in
order: the sender says that a ring is idle *before* it looks into it, a tap appends *before*
it looks whether its ring is idle; and the sender says that it is asleep *before* it looks
what was noted, a tap makes its note *before* it looks whether the sender is asleep.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import time
from collections import deque
from itertools import count
from threading import Event, Thread
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from asyncmachine.locking import FreshLock
from asyncmachine.oneshot import deadline_after, time_left
from asyncmachine.telemetry.line import Line
from asyncmachine.telemetry.packets import (
    DROP,
    FAREWELL,
    FIGURES,
    FORMAT,
    HELLO,
    MOST_BYTES,
    ROWS,
    RUN,
    VERSION,
    encode,
    portable_text,
)
from asyncmachine.telemetry.packing import Ledger, Packer
from asyncmachine.telemetry.taps import Tap

if TYPE_CHECKING:
    from asyncmachine.machine import Machine
    from asyncmachine.telemetry.addresses import Address
    from asyncmachine.telemetry.packing import Packets

__all__ = ["Sender"]

_log: Final = logging.getLogger("asyncmachine")

# How long more is waited for once there is something to send, in seconds: sending in
# batches costs the machines a fraction of sending at once.
LINGER: Final = 0.004
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
DIALLING: Final = 5.0
EXIT_GRACE: Final = 1.0
_STALLED: Final = 1.0  # how often the rings are looked after while a receiver is stopped
_MOST_ROWS: Final = 1000  # a frame
MOST_KEPT: Final = 100_000  # transitions in all rings while nobody takes them

_numbers: Final = count(1)


class Sender:
    """Sends to one address; there is one for each address in a process.

    Args:
        address: where the receiver listens.

    Attributes:
        asleep: whether it has to be woken for what comes.
        connected: whether there is a connection.

    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.asleep = False
        self.connected = Event()
        self.process = uuid4().hex[:16]
        self._users = 0
        self._lock = FreshLock()  # guards users, ledgers, flushes, the start of the thread
        self._ledgers: dict[int, Ledger] = {}  # by number
        self._numbers: dict[int, int] = {}  # by the id of the machine: those there are now
        self._noted: deque[int] = deque()  # numbers of what there is something of
        self._flushes: list[Event] = []
        self._thread: Thread | None = None
        self._closing: float | None = None  # when to be done, by monotonic time
        self._complained = False
        self._line = Line()

    # Called by any thread ---------------------------------------------------------------

    @classmethod
    def of(cls, address: Address) -> Sender:
        """Give the sender to an address, one user more; `release` it once."""
        with _REGISTRY.now:
            sender = _SENDERS.get(address)
            if sender is None:
                sender = _SENDERS[address] = cls(address)
            sender._users += 1
        return sender

    def release(self, timeout: float) -> None:
        """Have one user less; the last one ends the sender, which sends what is left."""
        with _REGISTRY.now:
            self._users -= 1
            if self._users:
                return
            if _SENDERS.get(self.address) is self:
                del _SENDERS[self.address]
        self.close(timeout)

    def tap(self, machine: Machine, size: int) -> tuple[Ledger, bool]:
        """Give the ledger of a machine, and whether its tap is a new one.

        Then `begin`; and `untap` it once.
        """
        with self._lock.now:
            key = id(machine)
            ledger = self._ledgers.get(self._numbers.get(key, 0))
            if ledger is not None and ledger.tap.machine is machine and not ledger.tap.over:
                ledger.users += 1
                return ledger, False
            ledger = Ledger(Tap(machine, self, size, next(_numbers)), key)
            self._ledgers[ledger.number] = ledger
            self._numbers[key] = ledger.number
        return ledger, True

    def untap(self, ledger: Ledger) -> None:
        """Have one user of a ledger less; after the last one nothing more is sent of it."""
        with self._lock.now:
            ledger.users -= 1
            if ledger.users:
                return
            ledger.tap.over = ledger.tap.over or "detached"
        keeper = ledger.keeper() if ledger.keeper is not None else None
        if keeper is not None:
            keeper.unbind()
        ledger.tap.end("detached")

    def begin(self) -> None:
        """Start the thread, unless it runs or is to end; what is in the way is logged."""
        with self._lock.now:
            if self._thread is not None or self._closing is not None:
                return
            self._thread = Thread(target=self._run, name=f"feed to {self.address}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:  # the next machine that is attached tries again
                self._thread = None
                fault = error
            else:
                return
        self._complain("the feed to %s can not begin: %s", fault)

    def note(self, number: int) -> None:
        """Take note that there is something of a tap; never blocks."""
        self._noted.append(number)
        if self.asleep:
            self.wake()

    def wake(self) -> None:
        """Have it look what was noted; never blocks."""
        self.asleep = False
        if self._thread is None:  # a forked child
            self.begin()
        self._line.ring()

    def flush(self, timeout: float) -> bool:
        """Wait until all that has happened so far has been sent; false if it was not."""
        done = Event()
        with self._lock.now:
            if self._closing is not None or self._thread is None:
                return False
            self._flushes.append(done)
        self.wake()
        if done.wait(timeout):
            return True
        with self._lock.now:
            if done in self._flushes:  # nobody waits for it any more
                self._flushes.remove(done)
        return done.is_set()

    def close(self, timeout: float) -> None:
        """Send what is left, and end; whatever happens, in so many seconds."""
        with self._lock.now:
            if self._closing is None:
                self._closing = deadline_after(timeout)
            thread = self._thread
        self.wake()
        if thread is not None:
            thread.join(timeout + 0.1)
        else:
            self._line.close()

    def forget_parent(self) -> None:  # pragma: no cover - in a forked child
        """Begin anew in a forked child: what is open and not sent belongs to the parent."""
        self.connected = Event()
        self.process = uuid4().hex[:16]
        self._thread = None
        self._flushes = []
        self._noted = deque()
        self._line.close()
        self._line = Line()
        for ledger in self._ledgers.values():
            ledger.reborn()
        self.asleep = True  # the first transition starts the thread

    # On its thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._dial_and_send()
        except Exception:  # noqa: BLE001  # pragma: no cover - nothing is known to come here
            _log.exception("the feed to %s has ended with an error", self.address)
        finally:
            self.asleep = False
            self.connected.clear()
            self._line.close()

    def _dial_and_send(self) -> None:
        pause = FIRST_PAUSE
        while True:
            closing = self._closing
            reached = self._dial()
            if reached:
                begun = time.monotonic()
                try:
                    self._converse()
                except OSError as error:
                    # Who hangs up at once is not called again and again, nor complained of.
                    if time.monotonic() - begun > LONGEST_PAUSE:
                        pause = FIRST_PAUSE
                        self._complained = False
                    self._complain("the feed to %s is interrupted: %s", error)
                finally:
                    self._part()
            if closing is not None or (reached and self._closing is not None):
                return
            self._trim()
            self._rest(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _complain(self, message: str, error: Exception) -> None:
        """Log that nothing can be sent, once until something can be."""
        if not self._complained and self._closing is None:
            self._complained = True
            _log.warning(message, self.address, error)

    def _dial(self) -> bool:
        left = time_left(self._closing)
        patience = DIALLING if left is None else max(0.01, min(left, DIALLING))
        try:
            self._line.dial(self.address, patience)
        except OSError as error:
            self._complain("the feed to %s waits for a receiver: %s", error)
            return False
        return True

    def _part(self) -> None:
        """Take note that the receiver knows nothing any more."""
        self.connected.clear()
        self._line.hang_up()
        for ledger in self._known():
            ledger.introduced = ledger.truthful = False

    def _rest(self, seconds: float) -> None:
        """Wait so long, or until it is to close."""
        until = time.monotonic() + seconds
        while self._closing is None and (left := until - time.monotonic()) > 0:
            self._line.wait(left)

    def _known(self) -> tuple[Ledger, ...]:
        with self._lock.now:
            return tuple(self._ledgers.values())

    def _converse(self) -> None:
        """Send all that happens, until it is to close or the connection is lost."""
        packer = Packer()
        self._greet()
        self.connected.set()
        self._noted.extend(ledger.number for ledger in self._known())
        while True:
            self.asleep = True
            if not self._has_work():
                self._line.wait(None)
            self.asleep = False
            if self._closing is None and not self._flushes:
                self._line.wait(LINGER)
            closing = self._closing
            with self._lock.now:
                flushes, self._flushes = self._flushes, []
            if flushes or closing is not None:  # an interrupt may have kept one from a note
                self._noted.extend(ledger.number for ledger in self._known())
            try:
                self._send_all(packer)
            except BaseException:
                with self._lock.now:
                    self._flushes += flushes
                raise
            for flush in flushes:
                flush.set()
            if closing is not None:
                self._push(encode([(FAREWELL, ())]))
                return

    def _greet(self) -> None:
        offset_ns = time.time_ns() - time.perf_counter_ns()
        program = sys.argv[0] if sys.argv and sys.argv[0] else "python"
        body = (
            FORMAT,
            VERSION,
            self.process,
            portable_text(socket.gethostname()),
            os.getpid(),
            portable_text(program),
            offset_ns,
        )
        self._push(encode([(HELLO, body)]))

    def _has_work(self) -> bool:
        return bool(self._noted) or self._closing is not None or bool(self._flushes)

    def _take_noted(self) -> list[Ledger]:
        """Give those of which there is something; nothing comes of others."""
        noted = self._noted
        numbers = dict.fromkeys(noted.popleft() for _ in range(len(noted)))
        ledgers = self._ledgers
        return [ledgers[number] for number in numbers if number in ledgers]

    def _send_all(self, packer: Packer) -> None:
        """Send what is in the rings now."""
        left: list[Ledger] = []
        packed = 0
        for ledger in self._take_noted():
            if ledger.number not in self._ledgers:  # forgotten while this one waited
                continue
            tap = ledger.tap
            ring = tap.ring
            tap.rest.idle = True
            missed = ledger.dropped
            over = tap.over  # looked at first: nothing comes after it
            size = len(ring)
            if ledger.ticks is None:
                ledger.ticks = None if tap.start is None else tap.start.copy()
            if not ledger.introduced and (size or over or ledger.ticks is not None):
                packer.introduce(ledger)
            take = ring.popleft
            while size:
                part = min(size, _MOST_ROWS - packed)
                packer.pack(ledger, [take() for _ in range(part)])
                size -= part
                packed += part
                if packed >= _MOST_ROWS:
                    self._send(packer.take())
                    packed = 0
                    size = min(size, len(ring))  # while it waited, the oldest may have gone
            if not ring and ledger.dropped == missed:  # another episode would be a new one
                ledger.warned = False
            if over:
                packer.leave(ledger)
                left.append(ledger)
        if packer.packets:
            self._send(packer.take())
        for ledger in left:
            self._drop(ledger)

    def _drop(self, ledger: Ledger) -> None:
        with self._lock.now:
            self._ledgers.pop(ledger.number, None)
            if self._numbers.get(ledger.key) == ledger.number:
                del self._numbers[ledger.key]

    def _send(self, packets: Packets) -> None:
        """Send packets in frames; what can not be sent is counted as dropped."""
        try:
            frame = encode(packets)
            if len(frame) > MOST_BYTES:
                msg = f"a frame of {len(frame)} bytes"
                raise OverflowError(msg)
        except (TypeError, ValueError, OverflowError):
            half = len(packets) // 2
            if half:
                try:
                    self._send(packets[:half])
                except OSError:
                    self._miss(packets[half:])
                    raise
                self._send(packets[half:])
                return
            self._miss(packets)
            _log.exception("the feed to %s can not send a packet", self.address)
            return
        try:
            self._push(frame)
        except OSError:
            self._miss(packets)
            raise

    def _miss(self, packets: Packets) -> None:
        """Count what is in packets that nobody gets."""
        for tag, body in packets:
            if tag not in (RUN, ROWS, DROP):
                continue
            number, count, *rest = body
            ledger = self._ledgers.get(number)  # type: ignore[call-overload]
            if ledger is None:
                continue
            if tag == DROP:
                ledger.untold += count
            else:
                (rows,) = rest
                ledger.miss(len(rows) // FIGURES if tag == RUN else len(rows))  # type: ignore[arg-type]

    def _push(self, frame: bytes) -> None:
        """Send a frame, waiting while the receiver takes nothing."""
        view = memoryview(frame)
        while view:
            sent = self._line.send(view)
            if sent:
                view = view[sent:]
            else:
                self._await_room()

    def _await_room(self) -> None:
        left = time_left(self._closing)
        if left is not None and left <= 0:
            raise TimeoutError("there was no time left to send the rest")
        self._line.wait_for_room(_STALLED if left is None else min(left, _STALLED))
        self._trim()

    def _trim(self) -> None:
        """Keep the newest in all rings together, while nobody takes them."""
        if not self.connected.is_set():
            self._noted.clear()  # who connects looks at all of them
        else:  # each that is still there once
            self._noted.extend(ledger.number for ledger in self._take_noted())
        for ledger in self._known():
            if ledger.tap.over and not ledger.tap.ring and not ledger.introduced:
                self._drop(ledger)  # it came and went while nobody looked
        known = self._known()
        if sum(len(ledger.tap.ring) for ledger in known) > MOST_KEPT:
            share = MOST_KEPT // len(known)
            for ledger in known:
                _cut(ledger, share or int(ledger.introduced or not ledger.tap.over))


def _cut(ledger: Ledger, most: int) -> None:
    """Leave so many in a ring; who sends the next one finds out how many are missing."""
    ring = ledger.tap.ring
    newest = 0
    for _ in range(len(ring) - most):
        newest = ring.popleft()[0]
    if newest and ledger.tap.over and not ring:  # there is no next one
        ledger.dropped += newest + 1 - ledger.expected
        ledger.expected = newest + 1


# All senders of the process ---------------------------------------------------------------

_SENDERS: Final[dict[Address, Sender]] = {}
_REGISTRY: Final = FreshLock()  # guards the senders


def _close_all() -> None:  # pragma: no cover - when the interpreter ends
    """Send what is left when the interpreter ends."""
    with _REGISTRY.now:
        senders = list(_SENDERS.values())
        _SENDERS.clear()
    deadline = time.monotonic() + EXIT_GRACE
    for sender in senders:
        sender.close(max(0.0, deadline - time.monotonic()))


def _begin_anew() -> None:  # pragma: no cover - in a forked child
    for sender in _SENDERS.values():
        sender.forget_parent()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
