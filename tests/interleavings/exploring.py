"""Runs the threads of a test under every schedule: what all tests in this folder stand on.

Two searches, both over single bytecodes, both under frontrun's scheduler and virtual clock,
so that time passes only when all threads wait, and a wait without end is found at once:

- frontrun's DPOR: one schedule for each order of accesses that conflict, up to a number of
  preemptions. It is quick, but what it does not see as an access it takes for harmless.
- All schedules with one preemption: each thread is interrupted after each of its bytecodes
  by all others, which run until they end or have to wait; and a fixed number of schedules
  with two. This knows nothing of accesses, so there is nothing that it does not see.

Blind spots of the former are ``baton += FREE``, whether a list is empty, and all that is
done to a deque; threads and locks made by ``_thread`` are out of reach for both. `explore`
puts twins in their place that do the same, as atomically, where it can be seen.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack, contextmanager
from itertools import permutations
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from unittest.mock import patch

import frontrun  # type: ignore[import-untyped]
from frontrun._tracing import (  # type: ignore[import-untyped]
    TraceFilter,
    set_active_trace_filter,
)
from frontrun._virtual_clock import VirtualClock, clock_scope  # type: ignore[import-untyped]
from frontrun.bytecode import (  # type: ignore[import-untyped]
    BytecodeShuffler,
    OpcodeScheduler,
)

from asyncmachine import (
    Machine,
    Schema,
    conducting,
    forks,
    index,
    machine,
    oneshot,
    queueing,
    turns,
    watchdog,
)
from asyncmachine import threads as pool
from tests.interleavings.twins import Background, Lock, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from asyncmachine import State

__all__ = ["explore", "known", "new_machine"]

# A search by DPOR that comes so far is not complete, and fails.
MOST: Final = 4000
# How many schedules with two preemptions are drawn.
DRAWN: Final = 100

_S = TypeVar("_S")


_background: Background | None = None


def _run_elsewhere(work: Callable[[], object]) -> None:
    assert _background is not None, "this test does not expect work for a background thread"
    _background.run_elsewhere(work)


def known(states: Mapping[str, State], *calls: str, handlers: object = None) -> Schema:
    """Compile a schema, and resolve what follows from calls in any order: ``"add A"``.

    So every schedule finds the same plans ready, and threads meet in the code of interest.
    """
    schema = Schema(states)
    for order in permutations(calls):
        machine = Machine(schema, handlers=handlers)
        for call in order:
            kind, *names = call.split()
            getattr(machine, kind)(*names)
    return schema


def new_machine(states: Mapping[str, State] | Schema, **options: object) -> Machine:
    """Build a machine whose baton is seen."""
    made = Machine(states, **options)  # type: ignore[arg-type]
    made._baton = Seen([None])  # noqa: SLF001
    return made


class _Filter(TraceFilter):  # type: ignore[misc]  # frontrun has no types
    """Threads are not to be interrupted in what interrupts them."""

    def should_trace_file(self, filename: str) -> bool:
        return filename != __file__ and bool(super().should_trace_file(filename))


@contextmanager
def _twins(*, pool_too: bool) -> Iterator[None]:
    assert type(oneshot.MAKING).__module__.startswith("frontrun"), "use: make interleavings"
    with ExitStack() as stack:

        def put(module: object, name: str, twin: object) -> None:
            stack.enter_context(patch.object(module, name, twin))

        put(oneshot, "allocate_lock", Lock)
        for module in (oneshot, watchdog):
            put(module, "monotonic", lambda: time.monotonic())  # noqa: PLW0108 - looked up late
        for module in (queueing, index):
            put(module, "deque", Seen)
        put(pool, "_idle", Seen())
        if not pool_too:
            for module in (turns, conducting, machine, forks):
                put(module, "run_elsewhere", _run_elsewhere)
        set_active_trace_filter(_Filter())
        stack.callback(set_active_trace_filter, None)
        yield


# Searching ---------------------------------------------------------------------------------


def explore(
    setup: Callable[[], _S],
    *workers: Callable[[_S], object],
    holds: Callable[[_S], object],
    background: bool = False,
    pool_too: bool = False,
    preemptions: int = 1,
    drawn: int = DRAWN,
    timers: bool = False,
) -> None:
    """Run threads on a new state each time, and see whether an assertion holds at the end.

    Args:
        setup: makes the state.
        workers: what each thread does.
        holds: asserts what must be true after every schedule; it may not wait.
        background: whether what the core gives to background threads is run by one more
            thread; without it, that fails.
        pool_too: whether the pool of background threads itself is what is tested.
        preemptions: how many of them DPOR tries in one schedule.
        drawn: how many schedules with two preemptions are drawn besides all with one.
        timers: whether every moment at which a time-out can fire is tried.

    """
    global _background

    def made() -> _S:
        global _background
        _background = Background(len(workers)) if background else None
        return setup()

    def leaving(worker: Callable[[_S], object]) -> Callable[[_S], None]:
        def work(state: _S) -> None:
            try:
                worker(state)
            finally:
                if _background is not None:
                    _background.leave()

        return work

    def elsewhere(_: _S) -> None:
        assert _background is not None
        _background.work()

    def fine(state: _S) -> bool:
        holds(state)
        return True

    all_workers = [leaving(worker) for worker in workers]
    if background:
        all_workers.append(elsewhere)
    with _twins(pool_too=pool_too):
        try:
            _search(made, all_workers, fine, preemptions, timers=timers)
            _Sweep(made, all_workers, fine).run(drawn)
        finally:
            _background = None


def _search(
    setup: Callable[[], _S],
    workers: list[Callable[[_S], None]],
    holds: Callable[[_S], bool],
    preemptions: int,
    *,
    timers: bool,
) -> None:
    result = frontrun.explore(
        setup=setup,
        workers=workers,
        invariant=holds,
        preemption_bound=preemptions,
        max_executions=MOST,
        reproduce_on_failure=0,
        detect_io=False,
        clock="explored" if timers else "virtual",
    )
    result.assert_holds()
    assert result.num_explored < MOST, "the search is not complete: try fewer preemptions"
    print(f"DPOR: {result.num_explored} schedules", end="; ")


class _Interrupting(OpcodeScheduler):  # type: ignore[misc]  # frontrun has no types
    """Runs one thread at a time, each until it ends or has to wait, but for a plan.

    The base lets the next thread go on while the last one is about to do its bytecode; here
    it has to wait until that has been done.

    Args:
        plan: threads, and how many bytecodes each does at first.
        order: who is preferred when the plan is done and somebody ends or has to wait.

    """

    def __init__(self, plan: Sequence[tuple[int, int]], order: Sequence[int]) -> None:
        super().__init__([], len(order), virtual_clock=VirtualClock(), clock_mode="virtual")
        self._plan = list(plan)
        self._order = order
        self._at_start: set[int] = set()
        self._current: int | None = None
        self._asked: set[int] = set()  # who waits with a time-out, and has looked once more
        self._has_waited: set[int] = set()
        # How many bytecodes each thread did before it ended, or had to wait.
        self.counts = [0] * len(order)

    def wait_for_turn(self, thread_id: int) -> bool:
        with self._condition:
            if thread_id not in self._has_waited:
                self.counts[thread_id] += 1
            if len(self._at_start) < len(self._order):
                self._at_start.add(thread_id)
                if len(self._at_start) == len(self._order):
                    self._go_on()
            elif self._current == thread_id:
                self._go_on()
            while self._current != thread_id and self._error is None:
                if not self._condition.wait(timeout=self.deadlock_timeout):
                    self._error = TimeoutError(f"thread {self._current} waits out of reach")
                    self._condition.notify_all()
            return self._error is None

    def mark_done(self, thread_id: int) -> None:
        super().mark_done(thread_id)
        with self._condition:
            if len(self._threads_done) < len(self._order) and self._current == thread_id:
                self._go_on()

    def note_blocking_spin(
        self, thread_id: int, resource_id: int, waiting: bool, *, timed_wait: bool = False
    ) -> None:
        super().note_blocking_spin(thread_id, resource_id, waiting, timed_wait=timed_wait)
        if waiting:
            self._has_waited.add(thread_id)

    def add_timed_wait(
        self, thread_id: int, deadline: float | None = None, *, timeout: float | None = None
    ) -> float:
        self._has_waited.add(thread_id)
        return float(super().add_timed_wait(thread_id, deadline, timeout=timeout))

    def _go_on(self) -> None:
        before = self._current
        self._current = self._next()
        if self._current is None and self._error is None:
            self._error = TimeoutError("all threads wait for ever")
        if self._current != before or self._current is None:
            self._condition.notify_all()

    def _next(self) -> int | None:
        while self._plan:
            thread, count = self._plan[0]
            if count and self._is_ready(thread):
                self._plan[0] = (thread, count - 1)
                return thread
            self._plan.pop(0)
            self._current = None  # now it is interrupted
        if self._current is not None and self._is_ready(self._current):
            return self._current
        for thread in self._order:
            if self._is_ready(thread):
                self._asked.clear()
                return thread
        return self._next_late()

    def _is_ready(self, thread: int) -> bool:
        return not (
            thread in self._threads_done
            or thread in self._spin_waiters
            or self._deadlines.in_timed_wait(thread)
        )

    def _next_late(self) -> int | None:
        """Let those with a time-out look once more, then let time pass."""
        late = [thread for thread in self._order if self._deadlines.in_timed_wait(thread)]
        for thread in late:
            if thread not in self._asked:
                self._asked.add(thread)
                return thread
        deadline = self._deadlines.next_deadline()
        if deadline is None:
            return None
        self._advance_clock_to(deadline)
        return next(thread for thread in late if self._is_ready(thread))


class _Sweep(Generic[_S]):
    """All schedules with one preemption, and some with two."""

    def __init__(
        self,
        setup: Callable[[], _S],
        workers: list[Callable[[_S], None]],
        holds: Callable[[_S], bool],
    ) -> None:
        self._setup = setup
        self._workers = workers
        self._holds = holds
        self._ran = 0

    def run(self, drawn: int) -> None:
        numbers = range(len(self._workers))
        counts = [0 for _ in numbers]
        for first in numbers:
            others = [number for number in numbers if number != first]
            for order in ([*others, first], [*reversed(others), first])[: len(others)]:
                at = 0
                while True:
                    found = self._schedule([(first, at)], order)
                    if at == 0:
                        counts = [max(pair) for pair in zip(counts, found, strict=True)]
                    if found[first] <= at:  # it had ended, or had to wait, before
                        break
                    at += 1
        draw = random.Random(1)
        for _ in range(drawn):
            first, second = draw.sample(numbers, 2)
            plan = [
                (first, draw.randrange(counts[first])),
                (second, draw.randrange(counts[second])),
            ]
            self._schedule(plan, [first, *(n for n in numbers if n != first)])
        print(f"one preemption or two: {self._ran} schedules")

    def _schedule(self, plan: list[tuple[int, int]], order: list[int]) -> list[int]:
        """Run one schedule; give how many bytecodes each thread did before it had to wait."""
        self._ran += 1
        scheduler = _Interrupting(plan, order)
        runner = BytecodeShuffler(scheduler, detect_io=False)
        try:
            with clock_scope(scheduler.virtual_clock), runner.patch_scope():
                state = self._setup()
                runner.run([lambda w=w: w(state) for w in self._workers])  # type: ignore[misc]
                if scheduler.had_error:
                    raise scheduler._error  # noqa: SLF001
                self._holds(state)
        except Exception as error:
            error.add_note(f"in the schedule {plan}, then {order}")
            raise
        return scheduler.counts
