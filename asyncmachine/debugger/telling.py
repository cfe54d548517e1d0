"""Records as lines of text, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asyncmachine.debugger.records import (
    ClockRecord,
    DisposedRecord,
    DroppedRecord,
    EndRecord,
    MachineRecord,
    TransitionRecord,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncmachine.debugger.records import Record

__all__ = ["lines_of", "moment"]


def moment(time_ns: int) -> str:
    """Give a time as text, UTC.

    Example:
        >>> moment(1_000_000_123_456_789)
        '1970-01-12 13:46:40.123456'

    """
    seconds, rest = divmod(time_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest // 1000:06}"
    except (ValueError, OverflowError, OSError):  # a sender's clock is far off
        return f"{time_ns} ns"


def lines_of(record: Record, ids: Mapping[str, str] | None = None) -> Iterator[str]:
    """Give the lines that tell of a record.

    Args:
        record: the record.
        ids: the ids of machines by their keys, as far as they are known.

    Example:
        >>> list(lines_of(DroppedRecord("p:1", "door", 12)))
        ['door: 12 transitions are missing, they came faster than they were taken']

    """
    if isinstance(record, TransitionRecord):
        yield _headline(record)
        yield from (f"    {line}" for line in record.log)
        if record.error:
            yield f"    error: {record.error}"
    elif isinstance(record, MachineRecord):
        where = f"pid {record.pid} on {record.host}, {record.program}"
        child = f", child of {record.parent}" if record.parent else ""
        tags = f", tags {' '.join(record.tags)}" if record.tags else ""
        yield f"{record.machine_id}: {len(record.names)} states, {where}{child}{tags}"
    elif isinstance(record, ClockRecord):
        machine_id = (ids or {}).get(record.key, record.key)
        yield f"{machine_id}: clocks {' '.join(map(str, record.ticks))}"
    elif isinstance(record, DroppedRecord):
        missing = f"{record.count} transitions are missing"
        yield f"{record.machine_id}: {missing}, they came faster than they were taken"
    elif isinstance(record, DisposedRecord):
        yield f"{record.machine_id}: {record.reason}"
    elif isinstance(record, EndRecord):
        yield f"process {record.process}: connection {record.reason}"


def _headline(record: TransitionRecord) -> str:
    kind = f"{record.kind}:auto" if record.auto else record.kind
    parts = [
        moment(record.time_ns),
        f"{record.machine_id} #{record.id}",
        f"[{kind}] {' '.join(record.called)}",
    ]
    if record.args:
        parts.append(record.args)
    if record.outcome != "executed":
        parts.append(record.outcome)
    moved = [f"{name}+{by}" for name, by in record.moves.items()]
    parts.append(f"-> {' '.join(moved)}" if moved else "-> nothing")
    if record.cause is not None:
        parts.append(f"by {record.cause.machine_id} #{record.cause.transition_id}")
    parts.append(f"in {record.duration_ns / 1000:.1f} us")
    if record.handlers:
        called = (f"{each.name} {each.duration_ns / 1000:.1f} us" for each in record.handlers)
        parts.append(f"({', '.join(called)})")
    return " ".join(parts)
