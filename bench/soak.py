"""A long life: millions of mutations on one machine, and what they leave behind.

What is counted is the memory blocks that CPython has handed out, which is exact and costs
nothing to ask, and the memory of the process. A machine remembers what it has resolved, so
most of the mixture below leads to sets of active states that were never met before: that
memory has to have a bound. Waiters and contexts are made, fired, canceled and abandoned.
"""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from random import Random
from statistics import median
from time import process_time_ns
from typing import TYPE_CHECKING, Final

from asyncmachine import Event, Machine, State, group
from bench.measure import BenchError

if TYPE_CHECKING:
    from bench.measure import Ruler
    from bench.rounds import Progress

__all__ = ["Moment", "Soak", "soak"]

_STATM: Final = Path("/proc/self/statm")
_BITS: Final = 40
_TOGGLES, _STEPS, _EVENTS = 40, 12, 4
_BATCH: Final = _TOGGLES + _STEPS + _EVENTS
# Before anything is counted, what is bounded may fill up.
_WARM_UP_BATCHES: Final = 1_000
_MOMENTS: Final = 100
# What is remembered comes and goes, so the peaks of both halves are compared. No moment
# need hit a peak, so they may differ by a tenth of the swing; one block left behind by
# every thousandth mutation is already a leak.
_SLACK_BLOCKS: Final = 2_000
_SWING: Final = 0.1
_LEAK: Final = 0.001


@dataclass(frozen=True, slots=True)
class Moment:
    """How things stand after so many mutations."""

    mutations: int
    ns_per_mutation: float
    empty_calls: float
    blocks: int
    resident_bytes: int | None


@dataclass(frozen=True, slots=True)
class Soak:
    """The moments of one long life."""

    moments: tuple[Moment, ...]

    @property
    def mutations(self) -> int:
        """How many were made after the warm-up."""
        return self.moments[-1].mutations

    @property
    def halves(self) -> tuple[tuple[Moment, ...], tuple[Moment, ...]]:
        """The first and the second half."""
        middle = (len(self.moments) + 1) // 2
        return self.moments[:middle], self.moments[middle:] or self.moments[-1:]

    @property
    def blocks_grown(self) -> int:
        """By how much the peak of the second half is above that of the first."""
        first, second = (max(moment.blocks for moment in half) for half in self.halves)
        return second - first

    @property
    def resident_grown(self) -> int | None:
        """The same for the memory of the process; ``None`` where it is not known."""
        peaks = []
        for half in self.halves:
            sizes = [m.resident_bytes for m in half if m.resident_bytes is not None]
            if not sizes:
                return None
            peaks.append(max(sizes))
        return peaks[1] - peaks[0]

    @property
    def slowed(self) -> float:
        """How much dearer a mutation of the second half is than one of the first."""
        first, second = (median(moment.empty_calls for moment in half) for half in self.halves)
        return second / first

    @property
    def verdict(self) -> str:
        """``flat`` or ``GROWS``."""
        first = [moment.blocks for moment in self.halves[0]]
        swing = max(first) - min(first)
        allowed = max(_SLACK_BLOCKS, swing * _SWING, self.mutations * _LEAK)
        return "flat" if self.blocks_grown <= allowed else "GROWS"


def soak(mutations: int, ruler: Ruler, progress: Progress) -> Soak:
    """Make so many mutations, rounded up. Ctrl-C ends it early, and what was seen counts."""
    life = _Life()
    batches = -(-mutations // (_BATCH * _MOMENTS))
    moments: list[Moment] = []
    try:
        progress.say("soak: warming up")
        life.live(_WARM_UP_BATCHES)
        for number in range(1, _MOMENTS + 1):
            progress.say(f"soak: {number * batches * _BATCH:,} of {mutations:,} mutations")
            # Garbage collection stays on, as in a real life.
            started = process_time_ns()
            life.live(batches)
            each = (process_time_ns() - started) / (batches * _BATCH)
            moments.append(_moment(number * batches * _BATCH, each, ruler))
        life.check()
    except KeyboardInterrupt:
        if not moments:
            raise
    progress.clear()
    return Soak(tuple(moments))


class _Handlers:
    def Foo_enter(self, event: Event) -> None: ...
    def Foo_state(self, event: Event) -> None: ...
    def Bar_end(self, event: Event) -> None: ...


class _Life:
    """A machine, and a mixture of what is done to machines."""

    def __init__(self) -> None:
        both = group("Foo", "Bar")
        self._bits = [f"Bit{number}" for number in range(_BITS)]
        states = {"Foo": State(remove=both), "Bar": State(remove=both), "Never": State()}
        states |= dict.fromkeys(self._bits, State()) | {"News": State(multi=True)}
        self._machine = Machine(states, id="soak", handlers=_Handlers())
        self._random = Random(1)
        self._batches = 0

    def live(self, batches: int) -> None:
        """Make so many batches of mutations."""
        for _ in repeat(None, batches):
            self._toggle()
            self._wander()
            self._hear_news()
            self._wait()
        self._batches += batches

    def check(self) -> None:
        """Prove that the mutations were carried out."""
        mach = self._machine
        ticks = {
            "Foo": _TOGGLES * self._batches,
            # One tick for the first activation, two for each that finds it active.
            "News": 2 * _EVENTS * self._batches - 1,
            "Never": 0,
        }
        found = mach.clock(*ticks)
        if found != ticks or mach.error is not None:
            msg = f"mutations are missing: {found} are the ticks, not {ticks}"
            raise BenchError(msg)

    def _toggle(self) -> None:
        add = self._machine.add
        fired = self._machine.when("Foo")
        for _ in repeat(None, _TOGGLES // 2):
            add("Foo")
            add("Bar")
        _require(fired.is_set(), self._machine)

    def _wander(self) -> None:
        for bit in self._random.choices(self._bits, k=_STEPS):
            self._machine.toggle(bit)

    def _hear_news(self) -> None:
        for number in range(_EVENTS):
            self._machine.add("News", number=number, batch=self._batches)

    def _wait(self) -> None:
        mach = self._machine
        mach.when("Bar").wait()
        mach.when("Never").cancel()
        abandoned = mach.when("Never", "Foo"), mach.when_not("Bar"), mach.when_ticks("Never", 9)
        _require(not any(waiter.is_set() for waiter in abandoned), mach)
        _require(not mach.state_ctx("Bar").expired, mach)


def _require(expected: bool, mach: Machine) -> None:
    if not expected:
        msg = f"a waiter or a context is wrong about {mach}"
        raise BenchError(msg)


def _moment(mutations: int, ns: float, ruler: Ruler) -> Moment:
    empty_calls = ns / ruler.read().empty_call_ns
    gc.collect()
    return Moment(mutations, ns, empty_calls, sys.getallocatedblocks(), _resident_bytes())


def _resident_bytes() -> int | None:
    """Memory of this process, where the system tells it in a file."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
