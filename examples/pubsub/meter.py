"""A tracer that counts transitions and times handlers, by kind of machine."""

from __future__ import annotations

from hashlib import sha256
from time import perf_counter
from typing import TYPE_CHECKING

from asyncmachine import Tracer
from examples.pubsub.outcome import SlowHandler

if TYPE_CHECKING:
    from typing import TextIO

    from asyncmachine import Machine, Transition
    from examples.pubsub.clock import Clock

__all__ = ["Meter", "TransitionLog"]


class Meter(Tracer):
    """Counts for machines of one kind.

    Args:
        kind: what the machines are, like ``"host"``.

    Attributes:
        transitions: how many there were.

    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.transitions = 0
        self._handlers: dict[str, list[float]] = {}

    def transition_end(self, tx: Transition) -> None:
        self.transitions += 1

    def handler_start(self, tx: Transition, name: str) -> None:
        tx.data["began"] = perf_counter()

    def handler_end(self, tx: Transition, name: str) -> None:
        taken = perf_counter() - tx.data["began"]  # type: ignore[operator]
        found = self._handlers.get(name)
        if found is None:
            found = self._handlers.setdefault(name, [0, 0.0, 0.0])
        # Two threads may lose one of their counts: it is a statistic.
        found[0] += 1
        found[1] += taken
        found[2] = max(found[2], taken)

    def handlers(self) -> list[SlowHandler]:
        """Give what is known of each handler."""
        return [
            SlowHandler(self.kind, name, int(calls), seconds, longest)
            for name, (calls, seconds, longest) in list(self._handlers.items())
        ]


class TransitionLog(Tracer):
    """Writes a line for each transition of all machines of one process.

    Args:
        file: where to.
        clock: tells the time of the lines.

    """

    def __init__(self, file: TextIO, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._sum = sha256()

    def transition_end(self, tx: Transition) -> None:
        outcome = "" if tx.accepted else " refused"
        called = " ".join(tx.mutation.states)
        line = (
            f"{self._clock.now():.6f} {tx.machine.id} {tx.mutation.kind} {called}{outcome}"
            f" {','.join(map(str, tx.machine.time()))}\n"
        )
        self._sum.update(line.encode())
        self._file.write(line)

    @property
    def digest(self) -> str:
        """The sum of all lines so far."""
        return self._sum.hexdigest()

    def machine_dispose(self, mach: Machine) -> None:
        self._file.write(f"{self._clock.now():.6f} {mach.id} disposed\n")
