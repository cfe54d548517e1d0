"""What every history can be asked: `History`, the base of all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from asyncmachine.errors import hint
from asyncmachine.history.errors import HistoryError
from asyncmachine.history.records import Span, Times, span_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from asyncmachine.history.records import Instant, Record, Window
    from asyncmachine.machine import Machine

__all__ = ["Clocks", "Conditions", "History", "machine_id_of", "window_of"]


class Clocks(NamedTuple):
    """The last clocks that a history knows of a machine.

    Attributes:
        names: the names of its states.
        ticks: their clocks.

    """

    names: tuple[str, ...]
    ticks: tuple[int, ...]


class Conditions(NamedTuple):
    """What a record has to meet.

    Attributes:
        active: states that are active afterwards.
        inactive: states that are inactive afterwards.
        activated: states that became active, or were activated again.
        deactivated: states that became inactive.

    """

    active: tuple[str, ...]
    inactive: tuple[str, ...]
    activated: tuple[str, ...]
    deactivated: tuple[str, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """All states that are named."""
        return (*self.active, *self.inactive, *self.activated, *self.deactivated)


class History(ABC):
    """What can be asked, whether it is kept in memory or in a file.

    Each takes ``machine``, a machine or its id; it may be left out if the history knows
    only one. Windows include both ends: a start and an end of wall time, each a datetime or
    seconds since 1970, or ``between=``, a `Times` or `Ticks`.
    """

    def activated_recently(
        self, state: str, seconds: float, *, machine: Machine | str | None = None
    ) -> bool:
        """Whether a state was activated within the last seconds. Takes constant time.

        Args:
            state: its name.
            seconds: how far to look back.
            machine: which one, if there are several.

        Raises:
            UnknownStateError: for a state that is not tracked.

        """
        machine_id, now_ns = self._machine_id(machine), self._now_ns()
        last_ns = self._last_activation(machine_id, state)
        return last_ns is not None and now_ns - last_ns <= seconds * 1e9

    def activated_between(
        self,
        state: str,
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        between: Window | None = None,
        machine: Machine | str | None = None,
    ) -> bool:
        """Whether a state was activated, or activated again, in a window.

        Args:
            state: its name.
            start: the first moment; ``None`` reaches back to the beginning.
            end: the last moment; ``None`` reaches to now.
            between: the window, instead of start and end.
            machine: which one, if there are several.

        Raises:
            UnknownStateError: for a state that is not tracked.

        """
        return self._moved(self._machine_id(machine), state, 1, window_of(start, end, between))

    def deactivated_between(
        self,
        state: str,
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        between: Window | None = None,
        machine: Machine | str | None = None,
    ) -> bool:
        """Whether a state was deactivated in a window; see `activated_between`."""
        return self._moved(self._machine_id(machine), state, 0, window_of(start, end, between))

    def active_between(
        self,
        state: str,
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        between: Window | None = None,
        machine: Machine | str | None = None,
    ) -> bool:
        """Whether a state was active at some moment of a window; see `activated_between`.

        It is if the state was activated in it, or had been before and stayed active.
        """
        return self._held(self._machine_id(machine), state, 1, window_of(start, end, between))

    def inactive_between(
        self,
        state: str,
        start: Instant | None = None,
        end: Instant | None = None,
        *,
        between: Window | None = None,
        machine: Machine | str | None = None,
    ) -> bool:
        """Whether a state was inactive at some moment of a window; see `active_between`."""
        return self._held(self._machine_id(machine), state, 0, window_of(start, end, between))

    def latest(
        self,
        *,
        active: Iterable[str] | str = (),
        inactive: Iterable[str] | str = (),
        activated: Iterable[str] | str = (),
        deactivated: Iterable[str] | str = (),
        between: Window | None = None,
        machine: Machine | str | None = None,
    ) -> Record | None:
        """Find the newest transition that meets all conditions.

        Args:
            active: states that it left active.
            inactive: states that it left inactive.
            activated: states that it activated.
            deactivated: states that it deactivated.
            between: when it happened.
            machine: which one, if there are several.

        Returns:
            Its record, or ``None`` if there is none.

        Raises:
            UnknownStateError: for a state that is not tracked.

        """
        given = (active, inactive, activated, deactivated)
        conditions = Conditions(*(_names(each) for each in given))
        return self._latest(self._machine_id(machine), conditions, span_of(between))

    def transitions(
        self,
        where: Callable[[Record], object] | None = None,
        *,
        newest_first: bool = False,
        between: Window | None = None,
        machine: Machine | str | None = None,
    ) -> Iterator[Record]:
        """Go through the transitions.

        Args:
            where: called with each record; those for which it is true are given.
            newest_first: begin with the newest one.
            between: when they happened.
            machine: which one, if there are several.

        Returns:
            An iterator of what had been recorded when it was asked for.

        """
        records = self._records(self._machine_id(machine), span_of(between), newest_first)
        return records if where is None else filter(where, records)

    def last_clocks(self, machine: Machine | str | None = None) -> Clocks | None:
        """Give the last clocks that are known of a machine, of all its states, tracked or not.

        Args:
            machine: which one, if there are several.

        Returns:
            Names and ticks, or ``None`` if no transition of it has moved a clock yet.

        """
        if machine is not None:
            machine_id = machine_id_of(machine)
            if self._fault(machine_id) is None and not self._knows(machine_id):
                return None
        return self._clocks(self._machine_id(machine))

    @property
    @abstractmethod
    def machines(self) -> tuple[str, ...]:
        """The ids of the machines that it knows."""

    @abstractmethod
    def restored(self, machine: Machine) -> None:
        """Take down the clocks that a machine was given by `restore`."""

    # What a backend does ----------------------------------------------------------------

    @abstractmethod
    def _now_ns(self) -> int:
        """Give the time that windows end with, in nanoseconds since 1970."""

    @abstractmethod
    def _fault(self, machine_id: str) -> Exception | None:
        """Say why a machine is not recorded, if it was refused."""

    @abstractmethod
    def _knows(self, machine_id: str) -> bool:
        """Say whether a machine has ever been recorded."""

    @abstractmethod
    def _last_activation(self, machine_id: str, state: str) -> int | None:
        """Give when a state was activated last, or ``None``."""

    @abstractmethod
    def _moved(self, machine_id: str, state: str, parity: int, span: Span) -> bool:
        """Say whether a state moved to this parity in a window."""

    @abstractmethod
    def _held(self, machine_id: str, state: str, parity: int, span: Span) -> bool:
        """Say whether a state had this parity at some moment of a window."""

    @abstractmethod
    def _latest(self, machine_id: str, conditions: Conditions, span: Span) -> Record | None:
        """Find the newest record of a window that meets the conditions."""

    @abstractmethod
    def _records(self, machine_id: str, span: Span, newest_first: bool) -> Iterator[Record]:
        """Go through the records of a window."""

    @abstractmethod
    def _clocks(self, machine_id: str) -> Clocks | None:
        """Give the last clocks of a machine, or ``None``."""

    def _machine_id(self, machine: Machine | str | None) -> str:
        """Find the machine that is meant."""
        machine_id = self._only_one() if machine is None else machine_id_of(machine)
        fault = self._fault(machine_id)
        if fault is not None:
            raise fault
        if not self._knows(machine_id):
            msg = f"this history knows no machine {machine_id!r}{hint(machine_id, self.machines)}"
            raise HistoryError(msg)
        return machine_id

    def _only_one(self) -> str:
        known = self.machines
        if len(known) == 1:
            return known[0]
        if known:
            some = ", ".join(sorted(known)[:5])
            msg = f"name the machine: this history knows {len(known)} of them, like {some}"
        else:
            msg = "this history knows no machine yet; add it to one as a tracer"
        raise HistoryError(msg)


def machine_id_of(machine: Machine | str) -> str:
    """The id of a machine, or itself if it is one."""
    return machine if isinstance(machine, str) else machine.id


def window_of(start: Instant | None, end: Instant | None, between: Window | None) -> Span:
    """Put the two ways to give a window together.

    Raises:
        TypeError: if both are given.

    """
    if between is not None and (start is not None or end is not None):
        msg = "give start and end, or between=, not both"
        raise TypeError(msg)
    return span_of(Times(start, end) if between is None else between)


def _names(given: Iterable[str] | str) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
