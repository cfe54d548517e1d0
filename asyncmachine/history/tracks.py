"""What a history takes down of one machine: raw tuples, and how they are read.

Guarantees: a raw tuple is whole when it is there, and nobody changes it afterwards.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from asyncmachine.errors import UnknownStateError
from asyncmachine.history.records import Record
from asyncmachine.moments import lay_over

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

    from asyncmachine.history.errors import HistoryError
    from asyncmachine.moments import Moment
    from asyncmachine.plans import Plan
    from asyncmachine.schema import Schema
    from asyncmachine.transition import Cause

__all__ = ["RAW_NS", "Choice", "Note", "Raw", "Track", "clocks_after", "moved_in", "to_record"]

# What is remembered of so many plans; then it starts afresh.
_MOST_PLANS: Final = 4096


class Note(NamedTuple):
    """What only some transitions have.

    Attributes:
        outcome: what became of it.
        error: type and text of the error, or empty.
        cause: the transition whose handler requested it, or ``None``.
        args: the args that ``log_args`` name, as text, or empty.

    """

    outcome: str
    error: str
    cause: Cause | None
    args: str


_USUAL: Final = Note("executed", "", None, "")

# The track; number in it; the plan, or None for a mark, which tells clocks without a
# transition; the moment, if clocks moved; all clocks before; nanoseconds of wall time; of
# duration; id of the transition; the note, if there is one.
Raw: TypeAlias = (
    "tuple[Track, int, Plan | None, Moment | None, list[int], int, int, int, Note | None]"
)
RAW_NS: Final = 5


class Choice(NamedTuple):
    """Which transitions are kept: see `Recorder`."""

    called: tuple[str, ...] | None
    changed: tuple[str, ...] | None
    rejected: bool
    states: tuple[str, ...] | None


class Track:
    """What a history knows about one machine, from when it was added to it.

    Attributes:
        id: id of the machine.
        names: the names of all its states.
        tracked: those that are kept.
        positions: positions of these.
        everything: whether every transition is kept that is not refused.
        raws: where its records go.
        count: how many have been taken down.
        wall_ns: the wall time of the last one; later ones never have less.
        over: whether the machine has been disposed.
        started_ns: when the last transition began, which is told only once.
        activated_ns: wall time of the last activation of each state, 0 for none.
        latest: the last one that moved a clock, kept or not, or told that others did;
            or ``None``.
        lost: why it is recorded no longer, if another history took over.
    """

    __slots__ = (
        "_called",
        "_changed",
        "_choice",
        "_kept",
        "_tracked_bits",
        "activated_ns",
        "count",
        "everything",
        "id",
        "index",
        "latest",
        "lost",
        "names",
        "over",
        "positions",
        "raws",
        "started_ns",
        "tracked",
        "wall_ns",
    )

    def __init__(self, machine_id: str, schema: Schema, choice: Choice, raws: deque[Raw]) -> None:
        self.id = machine_id
        self.names = schema.names
        self.index = schema.index
        self._choice = choice
        bits = {}
        for option in ("called", "changed", "states"):
            bits[option] = _bits(schema, getattr(choice, option), f"{option}= of a history")
        self._called, self._changed = bits["called"], bits["changed"]
        tracked = bits["states"]
        self._tracked_bits = (1 << len(schema.names)) - 1 if choice.states is None else tracked
        self.positions = tuple(i for i in range(len(self.names)) if self._tracked_bits >> i & 1)
        self.tracked = tuple(self.names[i] for i in self.positions)
        self.everything = choice[0] is choice[1] is choice[3] is None
        self._kept: dict[Plan, bool] = {}
        self.raws = raws
        self.count = 0
        self.wall_ns = 0
        self.started_ns = 0
        self.over = False
        self.activated_ns = [0] * len(self.names)
        self.latest: Raw | None = None
        self.lost: HistoryError | None = None

    def follow(self, earlier: Track) -> None:
        """Go on where the track of an earlier machine of this id has ended."""
        self.count = earlier.count
        self.wall_ns = earlier.wall_ns
        self.latest = earlier.latest
        for name, wall_ns in zip(earlier.names, earlier.activated_ns, strict=True):
            if name in self.index:
                self.activated_ns[self.index[name]] = wall_ns

    def keeps(self, plan: Plan) -> bool:
        """Whether transitions of a plan are kept if they are carried out."""
        kept = self._kept.get(plan)
        if kept is None:
            if len(self._kept) >= _MOST_PLANS:
                self._kept.clear()
            kept = self._kept[plan] = self._decide(plan, plan.changed)
        return kept

    def keeps_refused(self, plan: Plan) -> bool:
        """Whether transitions of a plan are kept if they are refused."""
        return self._choice.rejected and self._decide(plan, 0)

    def _decide(self, plan: Plan, changed: int) -> bool:
        called = 0
        for i in plan.called:
            called |= 1 << i
        if not (called | changed) & self._tracked_bits and self._choice.states is not None:
            return False
        if self._choice.called is None and self._choice.changed is None:
            return True
        return bool(called & self._called or changed & self._changed)

    def position(self, state: str) -> int:
        """The position of a tracked state.

        Raises:
            UnknownStateError: for a state that is not tracked, or that there is not.

        """
        at = self.index.get(state)
        if at is None or not self._tracked_bits >> at & 1:
            raise UnknownStateError(state, self.tracked, f"the history of {self.id}")
        return at

    def mark(self, ticks: list[int]) -> Raw:
        """Take down clocks that no transition has told, and give what was taken down."""
        self.wall_ns = wall_ns = max(self.wall_ns, time_ns())
        number = self.count + 1
        raw: Raw = (self, number, None, None, ticks, wall_ns, 0, 0, None)
        self.raws.append(raw)
        self.count = number
        return raw


def _bits(schema: Schema, names: tuple[str, ...] | None, where: str) -> int:
    bits = 0
    for name in names or ():
        if name not in schema.index:
            raise UnknownStateError(name, schema.names, where)
        bits |= 1 << schema.index[name]
    return bits


def moved_in(moment: Moment | None, ticks: list[int]) -> Iterator[tuple[int, int]]:
    """Position and ticks of every clock that a moment has moved, from the clocks before."""
    if moment is not None:
        _, *moved = moment
        for i, tick in dict(zip(moved[::2], moved[1::2], strict=True)).items():
            if tick != ticks[i]:
                yield i, tick - ticks[i]


def clocks_after(raw: Raw) -> list[int]:
    """All clocks after what was taken down."""
    after = raw[4].copy()
    if raw[3] is not None:
        lay_over(after, raw[3])
    return after


def to_record(raw: Raw) -> Record:
    """Make the record of what was taken down, which must not be a mark."""
    track, number, plan, moment, ticks, wall_ns, duration_ns, tx_id, note = raw
    assert plan is not None
    outcome, error, cause, args = note or _USUAL
    after = clocks_after(raw)
    moved = [(track.names[i], by) for i, by in moved_in(moment, ticks)]
    if len(track.tracked) < len(track.names):
        moved = [(name, by) for name, by in moved if name in track.tracked]
    return Record(
        seq=number,
        machine_id=track.id,
        transition_id=tx_id,
        kind=plan.kind,
        called=plan.states,
        auto=plan.auto,
        outcome=outcome,
        error=error,
        cause=cause,
        args=args,
        names=track.tracked,
        time=tuple([after[i] for i in track.positions]),
        moved=tuple(moved),
        wall_ns=wall_ns,
        duration_ns=duration_ns,
    )
