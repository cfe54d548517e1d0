"""What spans are called and what they carry: the names of attributes, and `Outline`.

What follows from a plan alone is worked out once, and shared by all its transitions.

Assumes that single operations on dictionaries are atomic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.util.types import AttributeValue

    from asyncmachine.plans import Plan

__all__ = ["Outline", "Outlines", "chooser", "diff"]

SPAN: Final = "asyncmachine.span"
MACHINE: Final = "asyncmachine.machine.id"
PARENT: Final = "asyncmachine.machine.parent"
TAGS: Final = "asyncmachine.machine.tags"
STATE: Final = "asyncmachine.state.name"
TICK: Final = "asyncmachine.state.tick"
TRANSITION: Final = "asyncmachine.transition.id"
KIND: Final = "asyncmachine.transition.kind"
CALLED: Final = "asyncmachine.transition.called"
AUTO: Final = "asyncmachine.transition.auto"
ACCEPTED: Final = "asyncmachine.transition.accepted"
OUTCOME: Final = "asyncmachine.transition.outcome"
TIME_BEFORE: Final = "asyncmachine.transition.time_before"
TIME_AFTER: Final = "asyncmachine.transition.time_after"
DIFF: Final = "asyncmachine.transition.diff"
VETOED_BY: Final = "asyncmachine.transition.vetoed_by"
ARGS: Final = "asyncmachine.args."
HANDLER: Final = "asyncmachine.handler.name"
PHASE: Final = "asyncmachine.handler.phase"
LOG: Final = "asyncmachine.log"
LINE: Final = "asyncmachine.log.line"

# So many plans are remembered, as many as a graph keeps.
_MOST: Final = 4096


def chooser(allow: Iterable[str] | str, skip: Iterable[str] | str) -> Callable[[str], bool]:
    """Give what says whether a state is chosen: allowed, if any are named, and not skipped.

    Raises:
        TypeError: if something else than names of states is given.

    Example:
        >>> chosen = chooser(["Foo", "Bar"], "Bar")
        >>> [chosen(name) for name in ("Foo", "Bar", "Baz")]
        [True, False, False]

    """
    allowed, skipped = _names("allow", allow), _names("skip", skip)
    return lambda name: (not allowed or name in allowed) and name not in skipped


def _names(option: str, given: Iterable[str] | str) -> frozenset[str]:
    try:
        names = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        msg = f"{option} takes names of states, not {given!r}"
        raise TypeError(msg) from None
    for name in names:
        if not isinstance(name, str):
            msg = f"{option} takes names of states, not {name!r}"
            raise TypeError(msg)
    return frozenset(str(name) for name in names)


def diff(names: tuple[str, ...], moves: Iterable[tuple[int, int]]) -> str:
    """Give the clocks that have moved, and by how much.

    Example:
        >>> diff(("Foo", "Bar"), [(1, 1), (0, 2)])
        'Bar+1 Foo+2'

    """
    return " ".join(f"{names[i]}+{by}" for i, by in moves)


class Outline:
    """What all transitions of one plan have in common.

    Attributes:
        name: of their spans.
        begun: the attributes that are known when they begin.
        done: those that an executed one has besides when it is over.
        whole: both; ``None`` if they get no spans, for no called state is chosen.
        ended: positions of the chosen states whose activation ends.
        opened: positions of the chosen states that activate.

    """

    __slots__ = ("begun", "done", "ended", "name", "opened", "whole")

    def __init__(self, plan: Plan, chosen: Callable[[str], bool], *, transitions: bool) -> None:
        names = plan.source.graph.schema.names
        self.name = f"[{plan.kind}] {' '.join(plan.states)}".rstrip()
        self.begun: dict[str, AttributeValue] = {
            SPAN: "transition",
            KIND: plan.kind,
            CALLED: plan.states,
            AUTO: plan.auto,
        }
        self.done: dict[str, AttributeValue] = {
            ACCEPTED: True,
            OUTCOME: "executed",
            DIFF: diff(names, plan.moves),
        }
        wanted = transitions and (not plan.states or any(map(chosen, plan.states)))
        self.whole = self.begun | self.done if wanted else None
        before = plan.source.active
        self.ended = tuple(i for i, _ in plan.moves if before >> i & 1 and chosen(names[i]))
        self.opened = tuple(i for i in plan.enters if chosen(names[i]))


class Outlines:
    """The outlines of the plans that have been met, so many that memory stays bounded.

    Args:
        chosen: says whether a state is chosen.
        transitions: whether transitions get spans at all.

    """

    __slots__ = ("_chosen", "_transitions", "known")

    def __init__(self, chosen: Callable[[str], bool], *, transitions: bool = True) -> None:
        self._chosen = chosen
        self._transitions = transitions
        self.known: dict[Plan, Outline] = {}

    def draw(self, plan: Plan) -> Outline:
        """Give the outline of a plan that is not among those known, and know it from now on."""
        if len(self.known) >= _MOST:
            self.known.clear()
        outline = self.known[plan] = Outline(plan, self._chosen, transitions=self._transitions)
        return outline

    def chosen(self, name: str) -> bool:
        """Whether a state gets spans of its activations."""
        return self._chosen(name)
