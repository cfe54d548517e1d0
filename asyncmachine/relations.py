"""The rules by which a mutation finds its target: semantics.md section 2, as a pure function.

States are positions in the schema; ordered sets are lists of positions, unordered ones
are bit sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asyncmachine.bits import members

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncmachine.schema import Schema

__all__ = ["ADD", "REMOVE", "SET", "Note", "arrange", "resolve"]

ADD: Final = "add"
REMOVE: Final = "remove"
SET: Final = "set"


class Note(NamedTuple):
    """One decision of a resolution, for who asks why.

    Attributes:
        kind: ``"add"`` (other implies state), ``"require"`` (state was dropped, for it
            lacks other), ``"remove"`` (state was dropped, for other removes it).
        state: position of the state that it is about.
        other: position of the state that caused it.

    """

    kind: str
    state: int
    other: int


def resolve(
    schema: Schema,
    before: Sequence[int],
    kind: str,
    called: Sequence[int],
    barred: int = 0,
    notes: list[Note] | None = None,
) -> tuple[int, ...]:
    """Find the states that are active after a mutation, in target order.

    Args:
        schema: the rules.
        before: active states, in the target order of the last transition.
        kind: ``"add"``, ``"remove"`` or ``"set"``.
        called: the states called, each once, in the order of the call.
        barred: bit set of states that may not be in the target.
        notes: where to write down why; what a later round overturns stays in it.

    Returns:
        The target. Whether it is accepted is not asked here.

    Example:
        >>> from asyncmachine.schema import Schema, State
        >>> schema = Schema({"A": State(add="B"), "B": State(), "C": State(remove="B")})
        >>> resolve(schema, (2,), "add", (0,))  # C is active and keeps B out
        (0, 2)

    """
    require = schema.require
    wanted, excluded, silent, own = _wanted(schema, before, kind, called)
    excluded |= barred
    while True:
        names, present = _expand(schema, wanted, silent, excluded, notes)
        lacking = 0
        for i in names:
            if require[i] & ~present:
                lacking |= 1 << i
                if notes is not None:
                    notes += (Note("require", i, j) for j in members(require[i] & ~present))
        if lacking:
            excluded |= lacking
            continue
        stay = _contest(schema, names, present, notes)
        if stay != present:
            if present & ~own:  # something was implied
                stay = _connected(schema, wanted, names, silent, stay)
            for i in reversed(names):
                if stay >> i & 1 and require[i] & ~stay:
                    break
            else:
                return arrange(schema, [i for i in names if stay >> i & 1])
            excluded |= 1 << i
            if notes is not None:
                notes += (Note("require", i, j) for j in members(require[i] & ~stay))
            continue
        return arrange(schema, names)


def _wanted(
    schema: Schema, before: Sequence[int], kind: str, called: Sequence[int]
) -> tuple[list[int], int, int, int]:
    """What is wanted, what is excluded, who implies nothing, and who needs not be implied."""
    was = calls = 0
    for i in before:
        was |= 1 << i
    for i in called:
        calls |= 1 << i
    if kind == REMOVE:
        return [i for i in before if not calls >> i & 1], calls, was, was
    # What was active already and merely stays implies nothing.
    silent = was & ~(schema.multi & calls)
    if kind == ADD:
        kept = (i for i in before if not calls >> i & 1)
        return [*called, *kept], 0, silent, calls | was
    return list(called), 0, silent, calls


def _expand(
    schema: Schema, wanted: list[int], silent: int, excluded: int, notes: list[Note] | None
) -> tuple[list[int], int]:
    """What is wanted, then everything it implies, breadth first, without the excluded."""
    names = [i for i in wanted if not excluded >> i & 1] if excluded else wanted.copy()
    present = 0
    for i in names:
        present |= 1 << i
    add_lists = schema.add_lists
    for i in names:  # grows while it is walked
        if add_lists[i] and not silent >> i & 1:
            for j in add_lists[i]:
                if not (present | excluded) >> j & 1:
                    present |= 1 << j
                    names.append(j)
                    if notes is not None:
                        notes.append(Note("add", j, i))
    return names, present


def _contest(schema: Schema, names: list[int], present: int, notes: list[Note] | None) -> int:
    """Who stays, when states of one set remove each other."""
    remove = schema.remove
    removed = 0
    for i in names:
        removed |= remove[i]
    if not removed & present:
        return present
    undecided, stay = present, 0
    while undecided:
        removed = 0
        for i in names:
            if undecided >> i & 1:
                removed |= remove[i]
        winners = undecided & ~removed or 1 << _first_of_rings(schema, names, undecided)
        stay |= winners
        undecided &= ~winners
        out = 0
        for i in names:
            if winners >> i & 1:
                out |= remove[i]
                if removed >> i & 1:  # the head of a ring: who removes it is out as well
                    out |= schema.removers[i]
        if notes is not None:
            _note_losers(schema, names, winners, out & undecided, notes)
        undecided &= ~out
    return stay


def _note_losers(
    schema: Schema, names: list[int], winners: int, losers: int, notes: list[Note]
) -> None:
    for i in names:
        if losers >> i & 1:
            by = winners & schema.removers[i] or winners & schema.remove[i]
            notes += (Note("remove", i, j) for j in names if by >> j & 1)


def _first_of_rings(schema: Schema, names: list[int], undecided: int) -> int:
    """The first undecided state that removes every state which so removes it."""
    for i in names:
        if undecided >> i & 1:
            attackers = _reach(schema.removers, i, undecided)
            if not attackers & ~_reach(schema.remove, i, undecided):
                return i
    raise AssertionError("every finite graph has a source")  # pragma: no cover


def _reach(edges: tuple[int, ...], start: int, within: int) -> int:
    """All that can be reached from a state through undecided ones."""
    reached = fresh = edges[start] & within
    while fresh:
        found = 0
        for i in members(fresh):
            found |= edges[i]
        fresh = found & within & ~reached
        reached |= fresh
    return reached


def _connected(schema: Schema, wanted: list[int], names: list[int], silent: int, stay: int) -> int:
    """Drop what was implied only by states that did not stay."""
    kept = 0
    for i in wanted:
        kept |= 1 << i
    kept &= stay
    held = names[:0]
    held += (i for i in wanted if kept >> i & 1)
    for i in held:  # grows while it is walked
        if not silent >> i & 1:
            for j in schema.add_lists[i]:
                if stay >> j & 1 and not kept >> j & 1:
                    kept |= 1 << j
                    held.append(j)
    return kept


def arrange(schema: Schema, names: list[int]) -> tuple[int, ...]:
    """Order states by ``after``: the stable topological order of semantics.md section 2.

    Args:
        schema: the rules.
        names: positions of states; their order decides where ``after`` does not.

    Example:
        >>> from asyncmachine.schema import Schema, State
        >>> arrange(Schema({"A": State(after="B"), "B": State()}), [0, 1])
        (1, 0)

    """
    after = schema.after
    present = later = 0
    for i in names:
        present |= 1 << i
        later |= after[i]
    if not later & present:
        return tuple(names)
    waiting, missing, ordered = list(names), present, []
    while waiting:
        for i in waiting:
            if not after[i] & missing:
                break
        ordered.append(i)
        waiting.remove(i)
        missing &= ~(1 << i)
    return tuple(ordered)
