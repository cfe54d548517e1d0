"""What of a machine a history keeps, and the hook that takes it down.

Guarantees: the hook runs on the thread that has the machine's turn and takes no lock; it
appends one tuple that nobody changes afterwards, so a reader never sees half a record.
Everything else is made from that tuple later, by whoever asks or writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Final
from weakref import ref

from asyncmachine.errors import UnknownStateError, described
from asyncmachine.history.errors import HistoryError
from asyncmachine.history.tracks import Choice, Note, Track, moved_in
from asyncmachine.locking import FreshLock
from asyncmachine.logs import format_args
from asyncmachine.tracing import Tracer

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from asyncmachine.history.tracks import Raw
    from asyncmachine.machine import Machine
    from asyncmachine.transition import Transition

__all__ = ["Bell", "Recorder"]

# What is too old is looked for once in so many records; a power of two, less one.
_SELDOM: Final = 255


def names_of(given: Iterable[str] | str | None) -> tuple[str, ...] | None:
    """One name or several, or ``None`` for no condition."""
    if given is None or isinstance(given, str):
        return None if given is None else (given,)
    return tuple(given)


class Bell:
    """Whom to wake when something was taken down.

    Attributes:
        asleep: whether somebody wants to be woken.
        joining: held for a moment when the record of a machine begins or is put away.

    """

    asleep = False

    def __init__(self) -> None:
        self.joining = FreshLock()

    def wake(self) -> None:
        """Wake whoever looks after what was taken down."""


class Recorder(Tracer, ABC):
    """The tracing half of every history.

    Args:
        bell: whom to wake when something was taken down.
        called: keep only transitions that call one of these states, or meet ``changed``.
        changed: keep only those that move the clock of one of these, or meet ``called``.
        rejected: keep those that were refused, too.
        states: the states that are tracked; ``None`` for all. Transitions that neither
            call nor move one of them are not kept, and records tell only of them.
        inherit: add it to the children of its machines, too.

    """

    wants_ids = True

    def __init__(
        self,
        bell: Bell,
        *,
        called: Iterable[str] | str | None,
        changed: Iterable[str] | str | None,
        rejected: bool,
        states: Iterable[str] | str | None,
        inherit: bool,
    ) -> None:
        self._choice = Choice(names_of(called), names_of(changed), rejected, names_of(states))
        self._inherit = inherit
        # By id() of the machine: a dict by machine would keep it alive.
        self._tracks: dict[int, Track] = {}
        self._machines: dict[int, ref[Machine]] = {}
        self._by_id: dict[str, Track] = {}
        self._faults: dict[str, Exception] = {}
        self._bell = bell

    # To be filled in --------------------------------------------------------------------

    @abstractmethod
    def _new_raws(self, states: int) -> deque[Raw]:
        """Give where the records of a machine with so many states go."""

    def _tidy(self, track: Track) -> None:
        """Drop what is too old; called now and then, by who takes down."""

    def _ended(self, track: Track) -> None:
        """Take note that nothing more comes from a machine. Must be quick."""

    # Hooks ------------------------------------------------------------------------------

    def machine_init(self, mach: Machine) -> None:
        """Begin to record a machine; again does no harm.

        Raises:
            HistoryError: if another machine of this id is being recorded.
            UnknownStateError: if a state that shall be tracked is none of the machine's.

        """
        with self._bell.joining.now:
            self._join(mach)
        if self._bell.asleep:
            self._bell.wake()

    def _join(self, mach: Machine) -> None:
        key = id(mach)
        track = self._tracks.get(key)
        if track is not None:
            if self not in mach.tracers:  # it was taken away for a while
                raw = track.mark(list(mach.time()))
                if any(raw[4]):  # else it may be about to be restored
                    track.latest = raw
            return
        try:
            self._make_room(mach)
            earlier = self._by_id.get(mach.id)
            raws = self._new_raws(len(mach.schema.names)) if earlier is None else earlier.raws
            track = Track(mach.id, mach.schema, self._choice, raws)
        except (HistoryError, UnknownStateError) as fault:
            self._faults[mach.id] = fault  # who asks is told; here it is only logged
            raise
        self._faults.pop(mach.id, None)
        if earlier is not None:
            track.follow(earlier)
        tracks, machines = self._tracks, self._machines

        ended = self._ended

        def forget(_: object) -> None:
            machines.pop(key, None)
            if tracks.pop(key, None) is not None:
                ended(track)

        track.mark(list(mach.time()))
        self._by_id[mach.id] = track
        machines[key] = ref(mach, forget)
        tracks[key] = track

    def _make_room(self, mach: Machine) -> None:
        """End the record of an earlier machine of this id."""
        try:
            mach.id.encode()
        except UnicodeEncodeError:
            msg = f"a history keeps no machine of the id {mach.id!r}: it is not UTF-8"
            raise HistoryError(msg) from None
        if mach.id not in self._by_id:
            return
        for key, track in self._tracks.copy().items():
            if track.id == mach.id:
                known = self._machines.get(key)
                other = None if known is None else known()
                if not track.over and other is not None and self in other.tracers:
                    msg = f"a history keeps one machine of an id, and {mach.id} is being recorded"
                    raise HistoryError(msg)
                self._forget(key, track)

    def _forget(self, key: int, track: Track) -> None:
        self._machines.pop(key, None)
        if self._tracks.pop(key, None) is not None:
            self._ended(track)

    def machine_dispose(self, mach: Machine) -> None:
        """Let another machine of this id come; what is kept can still be asked for.

        A transition may be under way yet, if the machine did not wait for it, and what it
        does is taken down.
        """
        track = self._tracks.get(id(mach))
        if track is not None:
            track.over = True

    def submachine(self, parent: Machine, child: Machine) -> None:
        """Record a child, too, if that was asked for."""
        if self._inherit and self not in child.tracers:
            child.add_tracer(self)

    def transition_end(self, tx: Transition) -> None:
        """Take down a transition; the hot hook.

        It spells out what `_take_down` does for one that has nothing unusual.
        """
        track = self._tracks.get(id(tx.machine))
        if track is None:
            return
        started_ns = tx.started_ns
        if started_ns == track.started_ns:  # added twice, or taken down before it was over
            return
        track.started_ns = started_ns
        moment = tx.moment
        duration_ns = tx.ended_ns - started_ns
        usual = moment is not None and tx.rare is None and tx.request is None and not tx.args
        if not usual or not track.everything:
            self._take_down(track, tx, duration_ns)
            return
        plan = tx.plan
        wall_ns = time_ns()
        if wall_ns < track.wall_ns:  # noqa: PLR1730 - max() is a call; the clock was set back
            wall_ns = track.wall_ns
        track.wall_ns = wall_ns
        number = track.count + 1
        for i in plan.enters:
            track.activated_ns[i] = wall_ns
        tx_id = tx.number or tx.id
        raw: Raw = (track, number, plan, moment, tx.ticks, wall_ns, duration_ns, tx_id, None)
        track.latest = raw
        track.raws.append(raw)
        track.count = number  # after that, so that it never counts what is not there yet
        if self._bell.asleep:
            self._bell.wake()
        if not number & _SELDOM:
            self._tidy(track)

    def _take_down(self, track: Track, tx: Transition, duration_ns: int) -> bool:
        """Take a transition down, and wake who looks after that; whether clocks moved."""
        plan, moment, ticks = tx.plan, tx.moment, tx.ticks
        track.wall_ns = wall_ns = max(time_ns(), track.wall_ns)
        number = track.count + 1
        note = _note(tx)
        raw: Raw = (track, number, plan, moment, ticks, wall_ns, duration_ns, tx.id, note)
        if moment is None:
            kept = track.keeps_refused(plan)
        else:
            track.latest = raw
            kept = track.everything or track.keeps(plan)
        if kept:
            for i, by in moved_in(moment, ticks):
                if (ticks[i] + by) & 1:
                    track.activated_ns[i] = wall_ns
            track.raws.append(raw)
            track.count = number
            if not number & _SELDOM:
                self._tidy(track)
        if self._bell.asleep and (kept or moment is not None):
            self._bell.wake()
        return moment is not None

    def _take_down_early(self, track: Track, tx: Transition) -> bool:
        """Take down a transition that is not over yet, but has changed what it changes."""
        started_ns = tx.started_ns
        if started_ns == track.started_ns:
            return False
        track.started_ns = started_ns
        return self._take_down(track, tx, perf_counter_ns() - started_ns)

    # Who is kept ------------------------------------------------------------------------

    def restored(self, machine: Machine) -> None:
        """Take down the clocks that a machine was given by `restore`."""
        track = self._tracks.get(id(machine))
        if track is not None:
            machine.eval(lambda: track.mark(list(machine.time())))
            if self._bell.asleep:
                self._bell.wake()


def _note(tx: Transition) -> Note | None:
    """What is unusual about a transition, or None."""
    shown = tx.machine.log_args
    args = format_args(tx.args, shown)[2:-1] if shown and tx.args else ""
    cause = tx.cause
    outcome = tx.outcome
    if outcome == "executed" and cause is None and not args:
        return None
    error = tx.error
    return Note(outcome, described(error) if error is not None else "", cause, args)
