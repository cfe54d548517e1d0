"""Takes mutations from one link to the queue of one machine.

Guarantees: they are carried out in the order they came, and none is dropped by the
machine's ``queue_limit``: while the queue has no room they are kept here, in order. Who
sends may have so many under way only (``SEND_WINDOW``), so little is kept.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncmachine.errors import described
from asyncmachine.logs import log_exception
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


class _Kept(NamedTuple):
    call: int
    kind: str
    states: tuple[str, ...]
    args: dict[str, object]
    passed: tuple[str, ...]
    cause: Cause | None


class Inlet:
    """Where the mutations for one machine come in.

    Args:
        machine: the machine.
        answer: called with the number of a call and its final result.
        schedule: what to call when mutations that nobody waits for are done.

    """

    __slots__ = (
        "_answer",
        "_backlog",
        "_dirty",
        "_lock",
        "_pump",
        "_refused",
        "_schedule",
        "_under_way",
        "count",
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
        self._lock = Lock()  # guards the counts
        self._backlog: deque[_Kept] = deque()
        self._pump = Serial()
        self._under_way = 0
        self._refused: list[Refusal] = []
        self._dirty = False
        self.count = 0

    def take(
        self,
        call: int,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        passed: tuple[str, ...] = (),
        cause: Cause | None = None,
    ) -> None:
        """Hand a mutation to the machine, or keep it while there is no room."""
        machine = self.machine
        if self._backlog or machine.queue_length >= machine.queue_limit:
            self._backlog.append(_Kept(call, kind, states, args, passed, cause))
            self._pump.do(self._hand_on)
            return
        self._hand(call, kind, states, args, passed, cause)

    def refuse(self, call: int, why: str, error: str) -> None:
        """Take note of a mutation that nobody waits for and that never reaches the machine."""
        self._note(Canceled(why), error)

    def _hand(
        self,
        call: int,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        passed: tuple[str, ...],
        cause: Cause | None,
    ) -> None:
        try:
            result = self.machine.accept(kind, states, args, passed, cause)
        except Exception as error:  # noqa: BLE001 - a machine with catch_errors=False
            log_exception("error in a handler of %s", self.machine.id, error=error)
            result = Canceled(described(error))
        if result is EXECUTED:
            if call:
                self._answer(call, result)
            else:
                self._note(result)
        elif result == QUEUED:
            with self._lock:
                self._under_way += 1
            result.on_done(partial(self._landed, call))
        elif call:
            self._answer(call, result)
        else:
            self._note(result)

    def _landed(self, call: int, result: Result) -> None:
        with self._lock:
            self._under_way -= 1
        if call:
            self._answer(call, result)
        else:
            self._note(result)
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
            self._hand(*self._backlog[0])
            self._backlog.popleft()

    def _room_again(self, waiter: object) -> None:
        self._pump.do(self._hand_on)

    def _note(self, result: Result, error: str = "") -> None:
        with self._lock:
            if not result:
                self._refused.append(Refusal(self.count, result.why, error))
            self.count += 1
            if self._dirty:
                return
            self._dirty = True
        self._schedule(self)

    def report(self) -> tuple[int, list[Refusal]]:
        """Give how many are done, and which of them were refused since the last report."""
        with self._lock:
            self._dirty = False
            refused, self._refused = self._refused, []
            return self.count, refused
