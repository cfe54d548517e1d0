"""Takes mutations from one link to the queue of one machine.

Guarantees: they are carried out in the order they came, and none is dropped by the
machine's ``queue_limit``: while the queue has no room they are kept here, in order. Who
sends may have so many under way only (``SEND_WINDOW``), so little is kept. What is told of
those that nobody waits for is told in the order they came, one report at a time, and no
lock of the counts is held meanwhile.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncmachine.errors import described
from asyncmachine.logs import log_exception
from asyncmachine.net.errors import ProtocolError
from asyncmachine.net.serial import Serial
from asyncmachine.net.wire import Refusal
from asyncmachine.results import EXECUTED, QUEUED, Canceled

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.machine import Machine
    from asyncmachine.results import Result
    from asyncmachine.transition import Cause

__all__ = ["SEND_WINDOW", "Inlet"]

# So many mutations that nobody waits for may be under way to one machine.
SEND_WINDOW: Final = 4096
# Nobody who keeps to that, and calls besides, ever has so many waiting here.
_MOST_KEPT: Final = 32 * SEND_WINDOW


class _Kept(NamedTuple):
    call: int
    number: int
    kind: str
    states: tuple[str, ...]
    args: dict[str, object]
    passed: tuple[str, ...]
    cause: Cause | None
    trace: str


class Inlet:
    """Where the mutations for one machine come in.

    Args:
        machine: the machine.
        answer: called with the number of a call and its final result.
        schedule: what to call when mutations that nobody waits for are done.

    """

    __slots__ = (
        "_answer",
        "_arrived",
        "_backlog",
        "_count",
        "_dirty",
        "_done",
        "_lock",
        "_pump",
        "_refused",
        "_schedule",
        "_telling",
        "_under_way",
        "machine",
    )

    def __init__(
        self,
        machine: Machine,
        answer: Callable[[int, Result], object],
        schedule: Callable[[Inlet], object],
    ) -> None:
        self.machine = machine
        self._answer = answer
        self._schedule = schedule
        self._telling = Lock()  # held by who reports, until that is posted
        self._lock = Lock()  # guards the counts
        self._backlog: deque[_Kept | Callable[[], object]] = deque()
        self._pump = Serial()
        self._under_way = 0
        self._refused: list[Refusal] = []
        self._dirty = False
        self._arrived = 0  # how many that nobody waits for have come; only by who reads
        self._count = 0  # so many of these are done, the first ones
        self._done: set[int] = set()  # and these, out of order

    def take(
        self,
        call: int,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        passed: tuple[str, ...] = (),
        cause: Cause | None = None,
        trace: str = "",
    ) -> None:
        """Hand a mutation to the machine, or keep it while there is no room.

        Raises:
            ProtocolError: if more are kept than anybody may send.

        """
        machine = self.machine
        number = self._arrived
        if not call:
            self._arrived += 1
        if self._backlog or machine.queue_length >= machine.queue_limit:
            if len(self._backlog) >= _MOST_KEPT:
                raise ProtocolError(f"more than {_MOST_KEPT} mutations wait for {machine.id}")
            self._backlog.append(_Kept(call, number, kind, states, args, passed, cause, trace))
            self._pump.do(self._hand_on)
            return
        self._hand(call, number, kind, states, args, passed, cause, trace)

    def after(self, call: Callable[[], object]) -> None:
        """Call something once all that has come is handed to the machine."""
        if not self._backlog:
            call()
        else:
            self._backlog.append(call)
            self._pump.do(self._hand_on)

    def refuse(self, why: str, error: str) -> None:
        """Take note of a mutation that nobody waits for and that never reaches the machine."""
        self._arrived += 1
        self._note(self._arrived - 1, Canceled(why), error)

    def _hand(
        self,
        call: int,
        number: int,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        passed: tuple[str, ...],
        cause: Cause | None,
        trace: str,
    ) -> None:
        try:
            result = self.machine.accept(kind, states, args, passed, cause, trace)
        except Exception as error:  # noqa: BLE001 - a machine with catch_errors=False
            log_exception("error in a handler of %s", self.machine.id, error=error)
            result = Canceled(described(error))
        if result is EXECUTED:
            if call:
                self._answer(call, result)
            else:
                self._note(number, result)
        elif result == QUEUED:
            with self._lock:
                self._under_way += 1
            result.on_done(partial(self._landed, call, number))
        elif call:
            self._answer(call, result)
        else:
            self._note(number, result)

    def _landed(self, call: int, number: int, result: Result) -> None:
        with self._lock:
            self._under_way -= 1
        if call:
            self._answer(call, result)
        else:
            self._note(number, result)
        if self._backlog:
            self._pump.do(self._hand_on)

    def _hand_on(self) -> None:
        """Hand on what is kept, as far as there is room."""
        machine = self.machine
        while self._backlog:
            if machine.queue_length >= machine.queue_limit and not machine.is_disposed:
                if not self._under_way:  # else the next to land looks again
                    machine.when_queue_empty().on_done(self._room_again)
                return
            # It is taken out afterwards: while it is there, nothing can overtake it.
            first = self._backlog[0]
            if isinstance(first, _Kept):
                self._hand(*first)
            else:
                first()
            self._backlog.popleft()

    def _room_again(self, waiter: object) -> None:
        self._pump.do(self._hand_on)

    def _note(self, number: int, result: Result, error: str = "") -> None:
        refusal = None if result else Refusal(number, result.why, error)
        with self._lock:
            if refusal is not None:
                self._refused.append(refusal)
            if number != self._count:
                self._done.add(number)
                return
            self._count += 1
            while self._done and self._count in self._done:
                self._done.remove(self._count)
                self._count += 1
            if self._dirty:
                return
            self._dirty = True
        self._schedule(self)

    def report(self, tell: Callable[[int, list[Refusal]], object]) -> None:
        """Tell how many are done, and which of them were refused since the last report.

        Args:
            tell: gets both; it must do no more than post them.

        """
        with self._telling:
            with self._lock:
                self._dirty = False
                count = self._count
                refused, self._refused = self._refused, []
                if self._done:  # what is refused out of order is told in its turn
                    late = [each for each in refused if each.number >= count]
                    refused = [each for each in refused if each.number < count]
                    self._refused = late
            tell(count, refused)
