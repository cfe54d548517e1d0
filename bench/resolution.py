"""The one case that looks inside the core: ``asyncmachine.relations.resolve`` by itself."""

from __future__ import annotations

from asyncmachine.relations import resolve
from bench import amdbg
from bench.measure import Loop

__all__ = ["uncached_resolution"]


def uncached_resolution() -> Loop:
    """Make a loop that resolves the cycle of am-dbg, with nothing remembered in between.

    A step is one resolution, so the figure is the mean over the cycle.
    """
    mach = amdbg.machine()
    find = mach.schema.find
    names: dict[str, object] = {"resolve": resolve, "schema": mach.schema}
    lines = []
    for number, call in enumerate(amdbg.load().cycle):
        names[f"before{number}"] = find(mach.active_states())
        names[f"called{number}"] = find(call.states)
        lines.append(f"resolve(schema, before{number}, {call.kind!r}, called{number})")
        amdbg.apply(mach, [call])
    return Loop("\n".join(lines), names=names, steps=len(lines))
