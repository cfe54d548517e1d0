"""Turning what the taps took down into packets, for one connection.

Assumes that one thread calls it. The hot function is `Packer.pack`: what it does is paid
by the machines, for there is one interpreter lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from asyncmachine.logs import log_warning
from asyncmachine.moments import lay_over
from asyncmachine.telemetry.packets import (
    CLOCK,
    DEFINE,
    DROP,
    FIGURES,
    FORGET,
    INTRODUCE,
    LEAVE,
    ROWS,
    RUN,
    portable_text,
    portable_ticks,
)
from asyncmachine.transition import Cause

if TYPE_CHECKING:
    from collections.abc import Iterable
    from weakref import ref

    from asyncmachine.plans import Plan
    from asyncmachine.schema import State
    from asyncmachine.telemetry.taps import Details, Entry, Keeper, Sketch, Tap
    from asyncmachine.transition import Transition

__all__ = ["Ledger", "Packer"]

# The table of plans starts afresh beyond this, as that of a graph does.
MOST_PLANS: Final = 4096
_FEW: Final = 5  # the length of a moment that moves two clocks
_MOST_LINES: Final = 100
_LONGEST_LINE: Final = 1000

Packets: TypeAlias = "list[tuple[int, tuple[object, ...]]]"


class Ledger:
    """What the sender knows of one tap.

    Attributes:
        tap: the tap.
        key: identifies its machine while that is there.
        number: its number, the same on all connections of the process.
        ticks: the clocks after all that has been packed; ``None`` if they are not known.
        expected: the number of the next transition.
        dropped: how many were missed.
        untold: those of them that no receiver has been told of.
        introduced: whether this connection has been told of the machine.
        truthful: whether this connection has been told of ``ticks``.
        keeper: gives what takes the tap from the machine.
        users: how many feeds it belongs to.
        warned: whether it has been logged that some were missed.

    """

    __slots__ = (
        "dropped",
        "expected",
        "introduced",
        "keeper",
        "key",
        "number",
        "tap",
        "ticks",
        "truthful",
        "untold",
        "users",
        "warned",
    )

    def __init__(self, tap: Tap, key: int) -> None:
        self.tap = tap
        self.key = key
        self.number = tap.number
        self.ticks: list[int] | None = None
        self.expected = 1
        self.dropped = self.untold = 0
        self.users = 1
        self.keeper: ref[Keeper] | None = None
        self.introduced = self.truthful = self.warned = False

    def miss(self, count: int) -> None:
        """Take note that some will never be sent, and log it once an episode."""
        self.dropped += count
        self.untold += count
        self.truthful = False
        if not self.warned:
            self.warned = True
            log_warning(self.tap.machine_id, "the feed drops transitions: its receiver is slow")

    @property
    def lost(self) -> int:
        """How many were missed, those included that the sender will only find missing."""
        ring = self.tap.ring
        try:
            newest = ring[0][0] - self.expected if self.expected else 0
            return self.dropped + max(0, newest)
        except IndexError:
            return self.dropped

    def reborn(self) -> None:  # pragma: no cover - in a forked child
        """Begin anew in a forked child: what has not been sent is the parent's."""
        self.tap.ring.clear()
        self.tap.rest.idle = True
        self.ticks = self.tap.start = None
        self.expected = 0  # whatever comes next
        self.dropped = self.untold = 0
        self.introduced = self.truthful = self.warned = False


class Packer:
    """Makes the packets of one connection."""

    __slots__ = ("_plans", "packets")

    def __init__(self) -> None:
        self._plans: dict[Plan, int] = {}
        self.packets: Packets = []

    def take(self) -> Packets:
        """Give what has been packed, and begin anew."""
        packets, self.packets = self.packets, []
        return packets

    def introduce(self, ledger: Ledger) -> None:
        """Tell of a machine that this connection does not know, and its clocks."""
        tap = ledger.tap
        ledger.introduced = True
        body = (
            ledger.number,
            portable_text(tap.machine_id),
            portable_text(tap.parent),
            tuple(portable_text(str(each)) for each in tap.tags),
            tuple(portable_text(each) for each in tap.schema.names),
            {portable_text(name): _options(state) for name, state in tap.schema.states.items()},
        )
        self.packets.append((INTRODUCE, body))
        ledger.truthful = False
        if ledger.ticks is not None:
            self.tell_clock(ledger, ledger.ticks)

    def tell_clock(self, ledger: Ledger, ticks: list[int]) -> None:
        """Tell what was missed, if anything was, and all clocks."""
        if ledger.untold:
            self.packets.append((DROP, (ledger.number, ledger.untold)))
            ledger.untold = 0
        self.packets.append((CLOCK, (ledger.number, portable_ticks(ticks))))
        ledger.truthful = True

    def leave(self, ledger: Ledger) -> None:
        """Tell that nothing more comes of a machine."""
        if ledger.untold and ledger.ticks is not None:
            self.tell_clock(ledger, ledger.ticks)
        self.packets.append((LEAVE, (ledger.number, ledger.tap.over)))

    def pack(  # noqa: PLR0915 - spelled out, for calls cost most
        self, ledger: Ledger, entries: Iterable[Entry]
    ) -> None:
        """Pack some transitions of one machine, the oldest first."""
        plans = self._plans
        known = plans.get
        ticks = ledger.ticks if ledger.truthful else None
        expected = ledger.expected
        figures: list[int] = []
        extend = figures.extend
        for number, tx, queue, details in entries:
            if number != expected:
                self._run(ledger, figures, expected)
                if expected:
                    ledger.miss(number - expected)
                    ticks = None
            expected = number + 1
            # Compared by identity first, so this costs next to nothing.
            if ticks != tx.ticks:
                self._run(ledger, figures, number)
                ticks = tx.ticks.copy()
                self.tell_clock(ledger, ticks)
            plan = known(tx.plan)
            if plan is None:
                if len(plans) >= MOST_PLANS:
                    self._run(ledger, figures, number)
                plan = self._define(tx.plan)
            request = tx.request
            if details is None and (request is None or request.cause is None):
                start = tx.started_ns
                # A tuple that is kept would have the garbage collector look for more.
                extend((plan, tx.id, start, tx.ended_ns - start, queue))
            else:
                self._run(ledger, figures, number)
                row = _row(plan, tx, queue, details)
                self.packets.append((ROWS, (ledger.number, number, (row,))))
            moment = tx.moment
            if moment is None:
                pass
            elif len(moment) == _FEW:
                _, first, first_tick, second, second_tick = moment
                ticks[first] = first_tick
                ticks[second] = second_tick
            else:
                lay_over(ticks, moment)
        self._run(ledger, figures, expected)
        if ticks is not None:
            ledger.ticks = ticks
        ledger.expected = expected

    def _run(self, ledger: Ledger, figures: list[int], expected: int) -> None:
        """Finish a packet of figures, and have an empty list for the next ones."""
        if figures:
            first = expected - len(figures) // FIGURES
            self.packets.append((RUN, (ledger.number, first, figures.copy())))
            figures.clear()

    def _define(self, plan: Plan) -> int:
        """Number a plan, and tell what it is."""
        plans = self._plans
        if len(plans) >= MOST_PLANS:
            plans.clear()
            self.packets.append((FORGET, ()))
        number = plans[plan] = len(plans)
        body = (
            number,
            plan.kind,
            plan.called,
            plan.auto,
            plan.accepted,
            plan.moves,
            plan.target.order,
            plan.steps(),
        )
        self.packets.append((DEFINE, body))
        return number


def _options(state: State) -> dict[str, object]:
    """Give the options of a state with texts that can be encoded."""
    return {
        option: [portable_text(each) for each in value] if isinstance(value, list) else value
        for option, value in state.to_dict().items()
    }


def _row(
    plan: int, tx: Transition | Sketch, queue: int, details: Details | None
) -> tuple[object, ...]:
    """Give the row of a transition that is more than a move of clocks."""
    start = tx.started_ns
    request = tx.request
    cause = request.cause if request is not None else None
    if cause is not None:
        cause = Cause(portable_text(cause.machine_id), cause.transition_id)
    row = (plan, tx.id, start, tx.ended_ns - start, queue, cause)
    if details is None:
        return row
    outcome, accepted, moves, at, error, args, log, calls = details
    lines: list[str] = [portable_text(line, _LONGEST_LINE) for line in log[:_MOST_LINES]]
    if len(log) > _MOST_LINES:
        lines.append(f"... and {len(log) - _MOST_LINES} more lines")
    return (
        *row,
        outcome,
        accepted,
        moves,
        at,
        portable_text(error),
        portable_text(args),
        lines,
        _handlers(calls, start, tx.ended_ns),
    )


def _handlers(calls: tuple[str | int, ...], start: int, end: int) -> list[tuple[str, int, int]]:
    """Pair names, starts and ends; who has not ended did so with the transition, at most."""
    handlers: list[tuple[str, int, int]] = []
    at = 0
    while at + 1 < len(calls):
        name, begun = calls[at], calls[at + 1]
        at += 2
        over: str | int = end
        if at < len(calls) and isinstance(calls[at], int):
            over = calls[at]
            at += 1
        if isinstance(name, str) and isinstance(begun, int) and isinstance(over, int):
            handlers.append((name, begun - start, over - begun))
    return handlers
