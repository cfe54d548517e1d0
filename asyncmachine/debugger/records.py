"""What a feed tells, as its readers see it: whole records, with every name resolved.

A reader gets, for each machine, a `MachineRecord`, then a `ClockRecord` with all clocks,
and from there on one `TransitionRecord` a transition, whose ``moves`` go on from those
clocks. A `ClockRecord` comes again whenever moves alone would not do: after transitions
that were dropped, after a reconnect, after `import_state`. `Clocks` keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from asyncmachine.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CauseRecord",
    "ClockRecord",
    "Clocks",
    "DisposedRecord",
    "DroppedRecord",
    "EndRecord",
    "HandlerRecord",
    "MachineRecord",
    "Record",
    "StepRecord",
    "TransitionRecord",
]


class MachineRecord(Struct, frozen=True, array_like=True):
    """A machine, once before anything else is told of it, and again after a reconnect.

    Attributes:
        key: names the machine in all records: ids of machines may occur twice.
        machine_id: its id.
        host: name of the host that it lives on.
        pid: the process that it lives in.
        program: what that process runs.
        process: names the process among all.
        parent: id of its parent, or an empty text.
        tags: its tags.
        names: its states in declared order, the order of all clocks.
        schema: as `Schema.to_dict` gives it.

    """

    key: str
    machine_id: str
    host: str
    pid: int
    program: str
    process: str
    parent: str
    tags: tuple[str, ...]
    names: tuple[str, ...]
    schema: dict[str, dict[str, list[str] | bool]]

    def as_schema(self) -> Schema:
        """Build the schema, to have a machine like it.

        Raises:
            SchemaError: if the sender has made it up.

        """
        return Schema.from_dict(self.schema)


class ClockRecord(Struct, frozen=True, array_like=True):
    """All clocks of a machine, as they are before the transition that comes next.

    Attributes:
        key: the machine.
        ticks: in declared order.

    """

    key: str
    ticks: tuple[int, ...]


class StepRecord(Struct, frozen=True, array_like=True):
    """One step of a transition; see `asyncmachine.transition.Step`.

    Attributes:
        kind: ``"called"``, ``"add"``, ``"require"``, ``"remove"``, ``"activate"``,
            ``"deactivate"``, ``"handler"``, ``"veto"`` or ``"error"``.
        state: the state that it is about, or an empty text.
        other: the state that caused it, or the name of the handler.

    """

    kind: str
    state: str
    other: str = ""


class HandlerRecord(Struct, frozen=True, array_like=True):
    """One call of a handler.

    Attributes:
        name: its name.
        start_ns: nanoseconds from the start of the transition to that of the handler.
        duration_ns: how long it took.

    """

    name: str
    start_ns: int
    duration_ns: int


class CauseRecord(Struct, frozen=True, array_like=True):
    """The transition whose handler requested another one.

    Attributes:
        machine_id: id of its machine.
        transition_id: its id.

    """

    machine_id: str
    transition_id: int


class TransitionRecord(Struct, frozen=True, array_like=True):
    """One transition.

    Attributes:
        key: the machine.
        machine_id: its id.
        number: counts the transitions of the machine from when it was attached, from 1.
        id: id of the transition, unique in its process.
        kind: ``"add"``, ``"remove"`` or ``"set"``.
        called: the called states.
        auto: whether the machine requested it, for its auto states.
        accepted: whether relations and negotiation agreed.
        outcome: ``"executed"``, ``"rejected"``, ``"vetoed"`` or ``"failed"``.
        moves: by how many ticks each clock has moved; clocks that have not are left out.
        target: the states that the relations wanted active afterwards, in their order.
        steps: what was decided and done.
        handlers: the handlers that were called.
        log: the lines that the machine logged about it.
        queue: how many mutations and tasks were waiting at its end.
        cause: what requested it, if that is known.
        args: the args named by ``log_args``, as text.
        error: type and text of the error that ended it, or an empty text.
        time_ns: when it began: nanoseconds since 1970, UTC.
        duration_ns: how long it took.

    """

    key: str
    machine_id: str
    number: int
    id: int
    kind: str
    called: tuple[str, ...]
    auto: bool
    accepted: bool
    outcome: str
    moves: dict[str, int]
    target: tuple[str, ...]
    steps: tuple[StepRecord, ...]
    handlers: tuple[HandlerRecord, ...]
    log: tuple[str, ...]
    queue: int
    cause: CauseRecord | None
    args: str
    error: str
    time_ns: int
    duration_ns: int


class DroppedRecord(Struct, frozen=True, array_like=True):
    """Transitions that came faster than they could be sent; a `ClockRecord` follows.

    Attributes:
        key: the machine.
        machine_id: its id.
        count: how many are missing at this place.

    """

    key: str
    machine_id: str
    count: int


class DisposedRecord(Struct, frozen=True, array_like=True):
    """Nothing more will be told of a machine.

    Attributes:
        key: the machine.
        machine_id: its id.
        reason: ``"disposed"``, ``"detached"`` from the feed, or ``"forgotten"`` by a
            program that dropped it without disposing it.

    """

    key: str
    machine_id: str
    reason: str


class EndRecord(Struct, frozen=True, array_like=True):
    """A process sends no more, or not for now.

    Attributes:
        process: the process, as in `MachineRecord`.
        reason: ``"closed"`` by the sender, or ``"lost"``: it may come back.

    """

    process: str
    reason: str


Record: TypeAlias = (
    MachineRecord | ClockRecord | TransitionRecord | DroppedRecord | DisposedRecord | EndRecord
)


class Clocks:
    """Replays records: the clocks of every machine after all that has been told.

    Attributes:
        machines: what is known of the machines that are there, by key.

    Example:
        >>> clocks = Clocks()
        >>> schema = {"Foo": {}, "Bar": {}}
        >>> machine = MachineRecord("p:1", "m", "host", 1, "x", "p", "", (), ("Foo", "Bar"), schema)
        >>> clocks.take([machine, ClockRecord("p:1", (3, 0))])
        >>> clocks["p:1"], clocks.active("p:1")
        ({'Foo': 3, 'Bar': 0}, ('Foo',))

    """

    def __init__(self) -> None:
        self.machines: dict[str, MachineRecord] = {}
        self._ticks: dict[str, dict[str, int]] = {}

    def take(self, records: Iterable[Record]) -> None:
        """Go on with some records."""
        for record in records:
            if isinstance(record, TransitionRecord):
                self._move(record)
            elif isinstance(record, ClockRecord):
                machine = self.machines.get(record.key)
                if machine is not None:
                    self._ticks[record.key] = dict(zip(machine.names, record.ticks, strict=False))
            elif isinstance(record, MachineRecord):
                self.machines[record.key] = record
            elif isinstance(record, DroppedRecord):
                self._ticks.pop(record.key, None)
            elif isinstance(record, DisposedRecord):
                self._drop(record.key)
            else:
                of_process = [k for k, m in self.machines.items() if m.process == record.process]
                for key in of_process:
                    self._drop(key)

    def _move(self, record: TransitionRecord) -> None:
        ticks = self._ticks.get(record.key)
        if ticks is not None:
            for name, by in record.moves.items():
                ticks[name] = ticks.get(name, 0) + by

    def _drop(self, key: str) -> None:
        self.machines.pop(key, None)
        self._ticks.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._ticks

    def __getitem__(self, key: str) -> dict[str, int]:
        """Give the ticks of a machine by name; KeyError if they are not known now."""
        return dict(self._ticks[key])

    def active(self, key: str) -> tuple[str, ...]:
        """Give the active states of a machine, in declared order."""
        return tuple(name for name, tick in self._ticks[key].items() if tick % 2)
