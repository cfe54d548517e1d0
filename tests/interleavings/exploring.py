"""Runs the threads of a test under every schedule: what all tests in this folder stand on.

Two searches, both over single bytecodes, both under frontrun's scheduler and virtual clock,
so that time passes only when all threads wait, and a wait without end is found at once:

- All schedules with one preemption: each thread is interrupted before each of its bytecodes
  by all others, which run until they end or have to wait, in both orders; where threads
  wait, the same once more after all others have begun to; and a number of schedules with
  two, drawn from a fixed seed. Bytecodes that touch nothing but the frame that they are in
  are left out, for no other thread could tell the difference. Nothing else is assumed.
- Where a test asks for it, frontrun's DPOR: one schedule for each order of accesses that
  conflict, with all ways to place two preemptions. What it does not see as an access it
  takes for harmless.

Blind spots of DPOR are ``baton += FREE``, whether a list is empty, and all that is done to
a deque; threads and locks made by ``_thread`` are out of reach for both. `explore` puts
twins in their place that do the same, as atomically, where it can be seen.
"""

from __future__ import annotations

import dis
import random
import time
from contextlib import ExitStack, contextmanager
from itertools import permutations
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from unittest.mock import patch

import frontrun  # type: ignore[import-untyped]
from frontrun._cooperative import get_context  # type: ignore[import-untyped]
from frontrun._opcode_observer import start_opcode_trace  # type: ignore[import-untyped]
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
    living,
    machine,
    oneshot,
    queueing,
    threads,
    turns,
    watchdog,
)
from tests.interleavings.twins import Background, Lock, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import CodeType

    from asyncmachine import State

__all__ = ["explore", "known"]

# A search by DPOR that comes so far is not complete, and fails.
MOST: Final = 4000
# How many schedules with two preemptions are drawn.
DRAWN: Final = 50
# Seconds in which nothing at all happens, until a schedule is given up.
PATIENCE: Final = 20.0
# In a plan, the thread that lets the next time-out fire.
CLOCK: Final = -1
# In a plan, until the thread ends or has to wait.
AS_FAR_AS_IT_GOES: Final = 1_000_000

# Bytecodes that touch nothing which another thread could see or change.
PRIVATE: Final = {
    dis.opmap[name]
    for name in (
        "BUILD_LIST BUILD_MAP BUILD_TUPLE CACHE CHECK_EXC_MATCH COPY COPY_FREE_VARS END_FOR"
        " EXTENDED_ARG IS_OP JUMP_BACKWARD JUMP_BACKWARD_NO_INTERRUPT JUMP_FORWARD KW_NAMES"
        " LOAD_CLOSURE LOAD_CONST LOAD_FAST LOAD_FAST_AND_CLEAR LOAD_FAST_BORROW"
        " LOAD_FAST_BORROW_LOAD_FAST_BORROW LOAD_FAST_CHECK LOAD_FAST_LOAD_FAST LOAD_GLOBAL"
        " LOAD_SMALL_INT MAKE_CELL MAKE_FUNCTION NOP NOT_TAKEN POP_EXCEPT"
        " POP_JUMP_BACKWARD_IF_NONE POP_JUMP_BACKWARD_IF_NOT_NONE POP_JUMP_FORWARD_IF_NONE"
        " POP_JUMP_FORWARD_IF_NOT_NONE POP_JUMP_IF_NONE POP_JUMP_IF_NOT_NONE PRECALL"
        " PUSH_EXC_INFO PUSH_NULL RERAISE RESUME RETURN_CONST RETURN_VALUE STORE_FAST"
        " STORE_FAST_LOAD_FAST STORE_FAST_STORE_FAST SWAP"
    ).split()
    if name in dis.opmap
}

_S = TypeVar("_S")


# What stands in for what frontrun can not see ----------------------------------------------


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


_made = turns.Turns.__init__


def _made_seen(self: turns.Turns, *args: object, **options: object) -> None:
    _made(self, *args, **options)  # type: ignore[arg-type]
    self._baton = Seen([None])


class _Filter(TraceFilter):  # type: ignore[misc]  # frontrun has no types
    """Threads are not to be interrupted in what interrupts them."""

    def should_trace_file(self, filename: str) -> bool:
        return filename != __file__ and bool(super().should_trace_file(filename))


@contextmanager
def _twins(run_elsewhere: Callable[[Callable[[], object]], None] | None) -> Iterator[None]:
    assert type(oneshot.MAKING.now).__module__.startswith("frontrun"), "use: make interleavings"
    with ExitStack() as stack:

        def put(place: object, name: str, twin: object) -> None:
            stack.enter_context(patch.object(place, name, twin))

        put(oneshot, "allocate_lock", Lock)
        for module in (oneshot, watchdog):
            put(module, "monotonic", lambda: time.monotonic())  # noqa: PLW0108 - looked up late
        for module in (queueing, index):
            put(module, "deque", Seen)
        put(turns.Turns, "__init__", _made_seen)
        put(threads, "_idle", Seen())
        if run_elsewhere is not None:
            put(conducting, "run_elsewhere", run_elsewhere)
            for module in (turns, living, machine, forks):
                put(module, "run_aside", run_elsewhere)
        set_active_trace_filter(_Filter())
        stack.callback(set_active_trace_filter, None)
        yield


# Searching ---------------------------------------------------------------------------------


def explore(
    setup: Callable[[], _S],
    *workers: Callable[[_S], object],
    holds: Callable[[_S], object],
    background: bool = False,
    real_pool: bool = False,
    dpor: bool = False,
    drawn: int = DRAWN,
    timers: bool = False,
    every_order: bool = False,
) -> None:
    """Run threads on a new state each time, and see whether an assertion holds at the end.

    Args:
        setup: makes the state.
        workers: what each thread does.
        holds: asserts what must be true after every schedule; it may not wait.
        background: whether what the core gives to background threads is run by one more
            thread; without it, that fails.
        real_pool: whether the pool of background threads itself is what is tested.
        dpor: whether frontrun's DPOR searches all schedules with two preemptions, too.
        drawn: how many schedules with two preemptions are drawn besides all with one.
        timers: whether every moment at which a time-out can fire is tried.
        every_order: whether the interrupted thread may go on before all others are done.

    """
    stage = _Stage(setup, workers, holds, background=background)
    with _twins(None if real_pool else stage.run_elsewhere):
        if dpor:
            _search(stage, timers=timers)
        _Sweep(stage, timers=timers, every_order=every_order).run(drawn)


class _Stage(Generic[_S]):
    """What runs anew in every schedule."""

    def __init__(
        self,
        setup: Callable[[], _S],
        workers: Sequence[Callable[[_S], object]],
        holds: Callable[[_S], object],
        *,
        background: bool,
    ) -> None:
        self._setup = setup
        self._holds = holds
        self._count = len(workers)
        self._background: Background | None = None
        self._wants_background = background
        self.workers = [self._leaving(worker) for worker in workers]
        if background:
            self.workers.append(self._work_elsewhere)

    def setup(self) -> _S:
        self._background = Background(self._count) if self._wants_background else None
        return self._setup()

    def holds(self, state: _S) -> bool:
        self._holds(state)
        return True

    def run_elsewhere(self, work: Callable[[], object]) -> None:
        assert self._background is not None, "nothing is expected to run in the background"
        self._background.run_elsewhere(work)

    def _leaving(self, worker: Callable[[_S], object]) -> Callable[[_S], None]:
        def work(state: _S) -> None:
            try:
                worker(state)
            finally:
                if self._background is not None:
                    self._background.leave()

        return work

    def _work_elsewhere(self, state: _S) -> None:
        assert self._background is not None
        self._background.work()


def _search(stage: _Stage[_S], *, timers: bool) -> None:
    result = frontrun.explore(
        setup=stage.setup,
        workers=stage.workers,
        invariant=stage.holds,
        preemption_bound=2,
        max_executions=MOST,
        reproduce_on_failure=0,
        detect_io=False,
        timeout_per_run=2 * PATIENCE,
        deadlock_timeout=PATIENCE,
        clock="explored" if timers else "virtual",
    )
    result.assert_holds()
    assert result.num_explored < MOST, "the search is not complete"
    print(f"DPOR: {result.num_explored} schedules")


class _Interrupting(OpcodeScheduler):  # type: ignore[misc]  # frontrun has no types
    """Runs one thread at a time, each until it ends or has to wait, but for a plan.

    The base lets the next thread go on while the last one is about to do its bytecode; here
    it has to wait until that has been done.

    Args:
        plan: threads, and how many bytecodes each does at first; or the `CLOCK`.
        order: who is preferred when the plan is done and somebody ends or has to wait.

    """

    def __init__(self, plan: Sequence[tuple[int, int]], order: Sequence[int]) -> None:
        super().__init__([], len(order), virtual_clock=VirtualClock(), clock_mode="virtual")
        self._plan = list(plan)
        self._order = order
        self._error: Exception | None = None
        self._steps = 0
        self._at_start: set[int] = set()
        self._current: int | None = None
        self._asked: set[int] = set()  # who waits with a time-out, and has looked once more
        self.has_waited: set[int] = set()
        # How many bytecodes each thread did before it ended, or had to wait.
        self.counts = [0] * len(order)

    def wait_for_turn(self, thread_id: int) -> bool:
        with self._condition:
            self._steps += 1
            if thread_id not in self.has_waited:
                self.counts[thread_id] += 1
            if len(self._at_start) < len(self._order):
                self._at_start.add(thread_id)
                if len(self._at_start) == len(self._order):
                    self._go_on()
            elif self._current == thread_id:
                self._go_on()
            while self._current != thread_id and self._error is None:
                before = self._steps
                if not self._condition.wait(timeout=PATIENCE) and self._steps == before:
                    self._error = TimeoutError(f"thread {self._current} waits out of reach")
                    self._condition.notify_all()
            return self._error is None

    def check(self) -> None:
        """Raise what has gone wrong, if anything has."""
        if self._error is not None:
            raise self._error

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
            self.has_waited.add(thread_id)

    def add_timed_wait(
        self, thread_id: int, deadline: float | None = None, *, timeout: float | None = None
    ) -> float:
        self.has_waited.add(thread_id)
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
            if thread == CLOCK:
                deadline = self._deadlines.next_deadline()
                if deadline is not None:
                    self._advance_clock_to(deadline)
            elif count and self._is_ready(thread):
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


class _Stepping(BytecodeShuffler):  # type: ignore[misc]  # frontrun has no types
    """Asks the scheduler before each bytecode that is not private."""

    def _start_opcode_trace(self) -> None:
        scheduler = self.scheduler
        codes: dict[CodeType, bytes] = {}

        def thread_id() -> int | None:
            context = get_context()
            return context[1] if context is not None and context[0] is scheduler else None

        def before(code: CodeType, offset: int, frame: object, thread: int) -> bool:
            raw = codes.get(code)
            if raw is None:
                raw = codes.setdefault(code, code.co_code)
            return raw[offset] not in PRIVATE and (scheduler.wait_for_turn(thread) or True)

        self._opcode_handle = start_opcode_trace(
            get_thread_id=thread_id,
            on_opcode=before,
            is_active=lambda: not scheduler.had_error,
            tool_name="interleavings",
            tool_kind="optimizer",
            monitor_returns=False,
        )


class _Sweep(Generic[_S]):
    """All schedules with one preemption, and some with two."""

    def __init__(self, stage: _Stage[_S], *, timers: bool, every_order: bool) -> None:
        self._stage = stage
        self._timers = timers
        self._every_order = every_order
        self._ran = 0

    def run(self, drawn: int) -> None:
        threads = range(len(self._stage.workers))
        lengths = [0 for _ in threads]
        for first in threads:
            others = [each for each in threads if each != first]
            for order in permutations(threads):
                if first == order[-1] or (self._every_order and first != order[0]):
                    ran = self._interrupt([], first, order)
                    lengths = [max(pair) for pair in zip(lengths, ran.counts, strict=True)]
            before = [(each, AS_FAR_AS_IT_GOES) for each in others]
            order = (*others, first)
            if self._schedule(before, (first, *others)).has_waited - {first}:
                self._interrupt(before, first, order)
                if self._timers:
                    self._interrupt(before, first, order, [(CLOCK, 1)])
        draw = random.Random(1)
        for _ in range(drawn):
            first, second = draw.sample(threads, 2)
            plan = [(each, draw.randrange(lengths[each])) for each in (first, second)]
            self._schedule(plan, [first, *(each for each in threads if each != first)])
        print(f"one preemption or two: {self._ran} schedules")

    def _interrupt(
        self,
        before: list[tuple[int, int]],
        first: int,
        order: Sequence[int],
        after: Sequence[tuple[int, int]] = (),
    ) -> _Interrupting:
        """Interrupt a thread before each of its bytecodes; give the first schedule."""
        ran = found = self._schedule([*before, (first, 0), *after], order)
        at = 0
        while found.counts[first] > at:  # it did not end, or have to wait, before
            at += 1
            found = self._schedule([*before, (first, at), *after], order)
        return ran

    def _schedule(self, plan: list[tuple[int, int]], order: Sequence[int]) -> _Interrupting:
        self._ran += 1
        scheduler = _Interrupting(plan, order)
        runner = _Stepping(scheduler, detect_io=False)
        try:
            with clock_scope(scheduler.virtual_clock), runner.patch_scope():
                state = self._stage.setup()
                runner.run(
                    [lambda w=w: w(state) for w in self._stage.workers], timeout=2 * PATIENCE
                )
                scheduler.check()
                self._stage.holds(state)
        except Exception as error:
            error.add_note(f"in the schedule {plan}, then {order}")
            raise
        return scheduler
