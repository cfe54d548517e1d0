"""Putting together what a feed sends in parts: whole records, with every name resolved.

Assumes that one thread at a time calls it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from asyncmachine.debugger.errors import FeedError
from asyncmachine.debugger.records import (
    CauseRecord,
    ClockRecord,
    DisposedRecord,
    DroppedRecord,
    EndRecord,
    HandlerRecord,
    MachineRecord,
    Record,
    StepRecord,
    TransitionRecord,
)
from asyncmachine.telemetry.packets import (
    FIGURES,
    FORMAT,
    VERSION,
    Clock,
    Define,
    Drop,
    Farewell,
    Forget,
    Hello,
    Introduce,
    Leave,
    Row,
    Rows,
    Run,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Sized

    from asyncmachine.telemetry.packets import Packet

__all__ = ["Assembler"]

# What one connection may have at most; honest senders stay far below.
MOST_PLANS: Final = 65_536
MOST_MACHINES: Final = 1_000_000

_Moves: TypeAlias = "dict[str, int]"


class _Plan:
    """A plan, and what it is for machines of one list of names."""

    __slots__ = ("as_defined", "called", "moves", "names", "steps", "target")

    def __init__(self, as_defined: Define) -> None:
        self.as_defined = as_defined
        self.names: tuple[str, ...] | None = None
        self.steps = tuple(StepRecord(*each) for each in as_defined.steps)
        self.called: tuple[str, ...] = ()
        self.target: tuple[str, ...] = ()
        self.moves: _Moves = {}

    def resolve(self, names: tuple[str, ...]) -> None:
        """Look the names up."""
        plan = self.as_defined
        self.called = tuple(names[i] for i in _checked(plan.called, names))
        self.target = tuple(names[i] for i in _checked(plan.target, names))
        self.moves = _named(plan.moves, names)
        self.names = names


def _checked(positions: tuple[int, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    for position in positions:
        if not 0 <= position < len(names):
            msg = f"there is no state {position} among {len(names)}"
            raise FeedError(msg)
    return positions


def _check_size(table: Sized, most: int, what: str) -> None:
    if len(table) > most:
        msg = f"more than {most} {what}"
        raise FeedError(msg)


def _rows(packet: Run) -> list[Row]:
    if len(packet.figures) % FIGURES:
        msg = f"{len(packet.figures)} figures, of which {FIGURES} make a transition"
        raise FeedError(msg)
    each = [iter(packet.figures)] * FIGURES
    return [Row(*figures) for figures in zip(*each, strict=True)]


def _named(moves: tuple[tuple[int, int], ...], names: tuple[str, ...]) -> _Moves:
    _checked(tuple(i for i, _ in moves), names)
    named: _Moves = {}
    for i, ticks in moves:
        named[names[i]] = named.get(names[i], 0) + ticks
    return named


class Assembler:
    """Turns the frames of one connection into records.

    Attributes:
        hello: who speaks, once that is known.
        received: how many transitions have come.
        dropped: how many the sender has told to be missing.

    """

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self.received = self.dropped = 0
        self._machines: dict[int, MachineRecord] = {}
        self._plans: dict[int, _Plan] = {}

    def take(self, payload: bytes | bytearray | memoryview) -> list[Record]:
        """Give the records of a frame, without its length.

        Raises:
            FeedError: if it is malformed, or does not fit what came before.

        """
        try:
            packets = decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            msg = f"a malformed frame: {error}"
            raise FeedError(msg) from error
        records: list[Record] = []
        for packet in packets:
            self._take(packet, records)
        return records

    def _take(self, packet: Packet, records: list[Record]) -> None:
        if self.hello is None:
            self._greet(packet)
            return
        match packet:
            case Run():
                self._resolve(packet.number, packet.first, _rows(packet), records)
            case Rows():
                self._resolve(packet.number, packet.first, packet.rows, records)
            case Define():
                self._plans[packet.number] = _Plan(packet)
                _check_size(self._plans, MOST_PLANS, "plans")
            case Forget():
                self._plans.clear()
            case Introduce():
                records.append(self._introduce(packet))
            case Clock():
                records.append(self._clock(packet))
            case Drop():
                machine = self._machine(packet.number)
                self.dropped += packet.count
                records.append(DroppedRecord(machine.key, machine.machine_id, packet.count))
            case Leave():
                machine = self._machine(packet.number)
                records.append(DisposedRecord(machine.key, machine.machine_id, packet.reason))
                del self._machines[packet.number]
            case Farewell():
                records.append(EndRecord(self.hello.process, "closed"))
            case Hello():
                msg = "a second greeting"
                raise FeedError(msg)

    def _greet(self, packet: Packet) -> None:
        if not isinstance(packet, Hello) or packet.format != FORMAT:
            msg = "it does not begin as a feed does"
            raise FeedError(msg)
        if packet.version > VERSION:
            msg = f"it speaks version {packet.version}, and only {VERSION} is known here"
            raise FeedError(msg)
        self.hello = packet

    def _machine(self, number: int) -> MachineRecord:
        machine = self._machines.get(number)
        if machine is None:
            msg = f"there is no machine {number}"
            raise FeedError(msg)
        return machine

    def _introduce(self, packet: Introduce) -> MachineRecord:
        hello = self.hello
        assert hello is not None
        _check_size(self._machines, MOST_MACHINES, "machines")
        machine = self._machines[packet.number] = MachineRecord(
            key=f"{hello.process}:{packet.number}",
            machine_id=packet.machine_id,
            host=hello.host,
            pid=hello.pid,
            program=hello.program,
            process=hello.process,
            parent=packet.parent,
            tags=packet.tags,
            names=packet.names,
            schema=packet.schema,
        )
        return machine

    def _clock(self, packet: Clock) -> ClockRecord:
        machine = self._machine(packet.number)
        if len(packet.ticks) != len(machine.names):
            msg = f"{len(packet.ticks)} ticks for {len(machine.names)} states"
            raise FeedError(msg)
        try:
            ticks = tuple(int(tick) for tick in packet.ticks)
        except ValueError as error:
            msg = f"a tick is no number: {error}"
            raise FeedError(msg) from error
        return ClockRecord(machine.key, ticks)

    def _resolve(
        self, machine_number: int, number: int, rows: list[Row], records: list[Record]
    ) -> None:
        machine = self._machine(machine_number)
        assert self.hello is not None
        offset_ns = self.hello.offset_ns
        names = machine.names
        for row in rows:
            plan = self._plans.get(row.plan)
            if plan is None:
                msg = f"there is no plan {row.plan}"
                raise FeedError(msg)
            if plan.names is not names:
                plan.resolve(names)
            records.append(_transition(machine, number, row, plan, offset_ns))
            number += 1
        self.received += len(rows)


def _transition(
    machine: MachineRecord, number: int, row: Row, plan: _Plan, offset_ns: int
) -> TransitionRecord:
    static = plan.as_defined
    outcome = row.outcome or ("executed" if static.accepted else "rejected")
    steps = plan.steps
    handlers: tuple[HandlerRecord, ...] = ()
    if row.handlers:
        handlers = tuple(HandlerRecord(*each) for each in row.handlers)
        steps += tuple(StepRecord("handler", "", each.name) for each in handlers)
    if outcome == "vetoed" and handlers:
        steps += (StepRecord("veto", "", handlers[-1].name),)
    elif outcome == "failed" and row.at:
        steps += (StepRecord("error", "", row.at),)
    if row.moves is not None:
        moves = _named(row.moves, machine.names)
    else:
        moves = plan.moves if outcome == "executed" else {}
    return TransitionRecord(
        machine.key,
        machine.machine_id,
        number,
        row.id,
        static.kind,
        plan.called,
        static.auto,
        row.accepted if row.outcome else static.accepted,
        outcome,
        moves,
        plan.target,
        steps,
        handlers,
        row.log,
        row.queue,
        CauseRecord(*row.cause) if row.cause is not None else None,
        row.args,
        row.error,
        row.start_ns + offset_ns,
        row.duration_ns,
    )
