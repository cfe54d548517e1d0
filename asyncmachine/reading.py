"""Reading a machine, or the mirror of a remote one. Nothing here ever blocks.

A read shows one moment, between two transitions: see moments.py. Reads take no lock, so a
handler that runs for an hour delays no reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncmachine.moments import lay_over

if TYPE_CHECKING:
    from asyncmachine.moments import Moment
    from asyncmachine.plans import Node
    from asyncmachine.schema import Schema

__all__ = ["Reading"]


class Reading:
    """The reading half of a machine.

    Attributes:
        id: the machine's name, unique in its program.
        schema: its states and relations.

    """

    __slots__ = ("__weakref__", "_masks", "_now", "_ticks", "id", "schema")

    def __init__(self, machine_id: str, schema: Schema, node: Node) -> None:
        self.id = machine_id
        self.schema = schema
        self._masks = schema.masks
        self._now: Moment = (node,)
        self._ticks = [0] * len(schema.names)

    # What is active -----------------------------------------------------------------

    def is_active(self, *states: str) -> bool:
        """Whether all of these states are active; true if none is given.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State(), "Bar": State()})
            >>> machine.add("Foo"), machine.is_active("Foo"), machine.is_active("Foo", "Bar")
            (Result.EXECUTED, True, False)

        """
        try:
            mask = self._masks[states]
        except (KeyError, TypeError):
            mask = self.schema.mask(states)
        return self._now[0].active & mask == mask

    def is_inactive(self, *states: str) -> bool:
        """Whether none of these states is active.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        return not self.active_mask() & self.schema.mask(states)

    def any_active(self, *states: str | tuple[str, ...]) -> bool:
        """Whether at least one of these is active; a tuple of names means all of them.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State(), "Bar": State(), "Baz": State()})
            >>> machine.add("Foo"), machine.any_active("Baz", ("Foo", "Bar"))
            (Result.EXECUTED, False)

        """
        active = self.active_mask()
        masks = [self.schema.mask(s if isinstance(s, tuple) else (s,)) for s in states]
        return any(active & mask == mask for mask in masks)

    def switch(self, *states: str) -> str | None:
        """Give the first of these states that is active, or ``None``.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Draft": State(), "Sent": State()})
            >>> machine.add("Sent"), machine.switch("Draft", "Sent")
            (Result.EXECUTED, 'Sent')

        """
        active = self.active_mask()
        positions = [self.schema.position(state) for state in states]
        return next((s for s, i in zip(states, positions, strict=True) if active >> i & 1), None)

    def active_states(self) -> tuple[str, ...]:
        """Give the names of the active states, in target order of the last transition."""
        return self._now[0].names

    @property
    def states(self) -> tuple[str, ...]:
        """All names, in declared order."""
        return self.schema.names

    def has(self, *states: str) -> bool:
        """Whether all of these are states of the machine; any name may be asked for."""
        known = self.schema.index
        return all(isinstance(state, str) and state in known for state in states)

    # Clocks -------------------------------------------------------------------------

    def tick(self, state: str) -> int:
        """Give the logical clock of one state: odd while it is active.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        return self.tick_at(self.schema.position(state))

    def time(self, *states: str) -> tuple[int, ...]:
        """Give several clocks of one moment; all, in declared order, if none is named.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        ticks = self.ticks_now()
        if not states:
            return tuple(ticks)
        return tuple(ticks[self.schema.position(state)] for state in states)

    def time_sum(self, *states: str) -> int:
        """Give the sum of several clocks of one moment; of all, if none is named.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        return sum(self.time(*states))

    def clock(self, *states: str) -> dict[str, int]:
        """Give several clocks of one moment by name; all, if none is named.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State(), "Bar": State()})
            >>> machine.add("Foo"), machine.clock()
            (Result.EXECUTED, {'Foo': 1, 'Bar': 0, 'Exception': 0})

        """
        names = states or self.schema.names
        return dict(zip(names, self.time(*states), strict=True))

    # As text and as data --------------------------------------------------------------

    def __str__(self) -> str:
        """Give the active states with their clocks, in declared order."""
        named = zip(self.schema.names, self.ticks_now(), strict=True)
        return f"({' '.join(f'{name}:{tick}' for name, tick in named if tick & 1)})"

    def describe(self) -> str:
        """Give all states with their clocks: the active ones first.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State(), "Bar": State()})
            >>> machine.add("Foo"), machine.describe()
            (Result.EXECUTED, '(Foo:1)[Bar:0 Exception:0]')

        """
        named = list(zip(self.schema.names, self.ticks_now(), strict=True))
        active = " ".join(f"{name}:{tick}" for name, tick in named if tick & 1)
        inactive = " ".join(f"{name}:{tick}" for name, tick in named if not tick & 1)
        return f"({active})[{inactive}]"

    def inspect(self, *states: str) -> str:
        """Give several lines about some states, or all: clocks, properties, relations.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State(require="Bar"), "Bar": State()}, id="example")
            >>> print(machine.inspect("Foo"))
            example
              [ ] Foo 0
                    require Bar

        """
        lines = [self.id]
        for name, tick in self.clock(*states).items():
            state = self.schema.states[name]
            properties = "".join(f" {p}" for p in ("auto", "multi") if getattr(state, p))
            lines.append(f"  [{'x' if tick & 1 else ' '}] {name} {tick}{properties}")
            for relation in ("require", "add", "remove", "after"):
                if others := getattr(state, relation):
                    lines.append(f"        {relation} {' '.join(others)}")
        return "\n".join(lines)

    def export_state(self) -> dict[str, object]:
        """Give a JSON-able snapshot of all clocks, for ``import_state``.

        Example:
            >>> from asyncmachine import Machine, State
            >>> Machine({"Foo": State()}, id="example").export_state()
            {'id': 'example', 'names': ['Foo', 'Exception'], 'ticks': [0, 0]}

        """
        return {"id": self.id, "names": list(self.schema.names), "ticks": self.ticks_now()}

    # For who works closely with it ------------------------------------------------------

    def active_mask(self) -> int:
        """Give the active states as a bit set of positions in the schema."""
        return self._now[0].active

    def tick_at(self, position: int) -> int:
        """Give the clock of the state at a position in the schema."""
        _, *moved = self._now
        for at in range(0, len(moved), 2):
            if moved[at] == position:
                return moved[at + 1]
        return self._ticks[position]

    @property
    def moment(self) -> Moment:
        """The present: another object after each change."""
        return self._now

    def present(self) -> tuple[list[int], tuple[int, ...]]:
        """Give all clocks, and the active states in order as positions, of one moment."""
        while True:
            now = self._now
            ticks = self.ticks_now()
            if self._now is now:
                return ticks, now[0].order

    def ticks_now(self) -> list[int]:
        """Give all clocks as they are at one moment."""
        while True:
            now = self._now
            ticks = self._ticks.copy()
            if self._now is now:
                lay_over(ticks, now)
                return ticks
            # Another transition has come to pass: each round of this loop is one of
            # theirs, so it is not waiting for anybody.
