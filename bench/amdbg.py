"""The schema of a real program, asyncmachine-go's terminal debugger, and what it does.

Kept in ``amdbg-schema.json``: 34 states, the mutations that set them up, a cycle of six
mutations to repeat, and what must be active, and have ticked, after that.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict, cast

from asyncmachine import Machine, Schema
from bench.measure import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncmachine import Result

__all__ = ["AmDbg", "Call", "apply", "load", "machine"]

_FILE: Final = Path(__file__).with_name("amdbg-schema.json")
_PROVING_CYCLES: Final = 3


class Call(NamedTuple):
    """One mutation: ``add``, ``remove`` or ``set``, and the called states."""

    kind: str
    states: tuple[str, ...]


class AmDbg(NamedTuple):
    """The file, read."""

    schema: Schema
    setup: tuple[Call, ...]
    cycle: tuple[Call, ...]
    after_setup: frozenset[str]
    after_three_cycles: dict[str, int]


class _File(TypedDict):
    schema: dict[str, dict[str, object]]
    setup: list[list[str]]
    cycle: list[list[str]]
    after_setup: list[str]
    after_three_cycles: dict[str, int]


@cache
def load() -> AmDbg:
    """Read the file; the schema is compiled once."""
    data = cast("_File", json.loads(_FILE.read_text(encoding="utf-8")))
    return AmDbg(
        schema=Schema.from_dict(data["schema"]),
        setup=_calls(data["setup"]),
        cycle=_calls(data["cycle"]),
        after_setup=frozenset(data["after_setup"]),
        after_three_cycles=data["after_three_cycles"],
    )


def machine() -> Machine:
    """Build the machine and set it up. A twin has proved that the cycle does what it must."""
    _prove(_set_up())
    return _set_up()


def apply(mach: Machine, calls: Iterable[Call]) -> None:
    """Carry out these mutations, none of which may be canceled."""
    for kind, states in calls:
        result: Result = getattr(mach, kind)(*states)
        if not result:
            msg = f"am-dbg: {kind} {' '.join(states)} was canceled: {result.why}"
            raise BenchError(msg)


def _calls(lists: Iterable[list[str]]) -> tuple[Call, ...]:
    return tuple(Call(kind, tuple(states)) for kind, *states in lists)


def _set_up() -> Machine:
    mach = Machine(load().schema, id="am-dbg")
    apply(mach, load().setup)
    active = frozenset(mach.active_states())
    if active != load().after_setup:
        msg = f"am-dbg: active after setup are {sorted(active)}"
        raise BenchError(msg)
    return mach


def _prove(mach: Machine) -> None:
    for _ in range(_PROVING_CYCLES):
        apply(mach, load().cycle)
    ticks = {name: tick for name, tick in mach.clock().items() if tick}
    if ticks != load().after_three_cycles:
        msg = f"am-dbg: ticks after three cycles are {ticks}"
        raise BenchError(msg)
