"""Tools for tests of what several threads do at once.

Nothing here sleeps or polls: threads meet at barriers and wait for events. ``PATIENCE`` only
bounds what would hang; a test that passes never uses it up.
"""

from __future__ import annotations

import dis
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, TypeAlias, TypeVar
from unittest.mock import patch

import asyncmachine
from asyncmachine import Event, Machine
from asyncmachine.oneshot import OneShot
from asyncmachine.queueing import Queue

PATIENCE: Final = 20.0

_T = TypeVar("_T")


@contextmanager
def switching_often() -> Iterator[None]:
    """Have the interpreter change threads a thousand times as often, to provoke races."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect no garbage: what strikes a finaliser, and not us, is lost in there."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def untraced() -> Iterator[None]:
    """Have nobody trace this thread: what strikes the code of a tracer would break that."""
    before = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(before)


def start(job: Callable[[], _T]) -> Future[_T]:
    """Run a job on a thread of its own."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="racer", daemon=True).start()
    return future


def outcome(future: Future[_T]) -> _T:
    """Give what a job has returned, or raise what it has raised; it must end in time."""
    return future.result(PATIENCE)


def together(*jobs: Callable[[], _T], until: threading.Event | None = None) -> list[_T]:
    """Run jobs on a thread each, all from one moment on; give what they return, in order.

    Args:
        jobs: what to run.
        until: what some of them wait for to stop; it is set when one fails.

    """
    barrier = threading.Barrier(len(jobs))

    def from_the_barrier(job: Callable[[], _T]) -> _T:
        barrier.wait(PATIENCE)
        return job()

    futures = [start(partial(from_the_barrier, job)) for job in jobs]
    wait(futures, PATIENCE, FIRST_EXCEPTION)
    if until is not None:
        until.set()
    for future in futures:
        if future.done():
            future.result()  # what has failed first, before what it has kept from ending
    return [outcome(future) for future in futures]


class Gate:
    """A place where a thread stops until it is let through; may be bound as a handler.

    Attributes:
        verdict: what the handler returns then; False is a veto.

    """

    def __init__(self, verdict: object = None) -> None:
        self.verdict = verdict
        self._reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, event: Event | None = None) -> object:
        self._reached.set()
        assert self._open.wait(PATIENCE), "nobody opened the gate"
        return self.verdict

    def await_reached(self) -> None:
        assert self._reached.wait(PATIENCE), "nobody came to the gate"

    def open(self) -> None:
        self._open.set()


@contextmanager
def busy(machine: Machine) -> Iterator[None]:
    """Have another thread hold the machine's turn while the block runs."""
    gate = Gate()
    holder = start(lambda: machine.eval(gate))
    gate.await_reached()
    try:
        yield
    finally:
        gate.open()
        outcome(holder)


def start_queued(job: Callable[[], _T]) -> Future[_T]:
    """Run a job on a thread of its own; come back when it has put something into a queue."""
    put = threading.Event()
    with (
        patch.object(Queue, "put", _telling(put.set, Queue.put)),
        patch.object(Queue, "put_task", _telling(put.set, Queue.put_task)),
    ):
        future = start(job)
        assert put.wait(PATIENCE), "nothing has been queued"
    return future


@contextmanager
def whoever_sleeps(tell: Callable[[], object]) -> Iterator[None]:
    """Call something whenever a thread is about to sleep until something has happened."""
    add = OneShot._add_sleeper  # noqa: SLF001 - there is no other place to see it
    with patch.object(OneShot, "_add_sleeper", _telling(tell, add)):
        yield


def start_asleep(job: Callable[[], _T]) -> Future[_T]:
    """Run a job on a thread of its own; come back when it is about to sleep for something."""
    asleep = threading.Event()
    with whoever_sleeps(asleep.set):
        future = start(job)
        assert asleep.wait(PATIENCE), "it has not waited for anything"
    return future


def _telling(tell: Callable[[], object], method: Callable[..., object]) -> Callable[..., object]:
    def call(*args: object, **options: object) -> object:
        result = method(*args, **options)
        tell()
        return result

    return call


def assert_consistent(machine: Machine) -> None:
    """Odd clocks are those of the active states, and nothing is half done."""
    clock, active = machine.clock(), machine.active_states()
    assert sorted(name for name, tick in clock.items() if tick % 2) == sorted(active)
    assert machine.transition is None
    assert not machine.in_transition


def await_rest(machine: Machine) -> None:
    """Wait until the queue is drained and its last transition is over."""
    assert machine.when_queue_empty().wait(PATIENCE), "the queue was left behind"
    machine.eval(lambda: None, timeout=PATIENCE)


def assert_works(machine: Machine, state: str) -> None:
    """Nothing is stuck: what is queued is carried out, and so is what another thread asks."""
    await_rest(machine)
    assert_consistent(machine)
    assert machine.queue_length == 0
    before = machine.tick(state)
    result = outcome(start(lambda: machine.toggle(state, probe=True))).wait(PATIENCE)
    assert result, result.why
    assert machine.tick(state) == before + 1
    await_rest(machine)
    assert_consistent(machine)


# Striking at any instruction ------------------------------------------------------------------

PACKAGE: Final = str(Path(asyncmachine.__file__).parent)

# The interpreter looks for signals after calls, at the start of functions and in loops.
_LOOKS: Final = frozenset({"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"})

_Trace: TypeAlias = Callable[[FrameType, str, object], Any]  # its own kind, recursively


class Strike:
    """Does something at the n-th instruction of the package where a signal could arrive.

    Attributes:
        struck: whether there were so many.
        where: the function and line where it struck.

    """

    def __init__(self, place: int, strike: Callable[[], object]) -> None:
        self._left = place
        self._strike = strike
        self.struck = False
        self.where = "nowhere"

    def during(self, job: Callable[[], _T]) -> _T:
        """Run a job and strike in the middle of it, on this thread."""
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # noqa: SLF001 - else Python 3.12 overlooks others'
        sys.settrace(self._called)
        try:
            return job()
        finally:
            sys.settrace(before)

    def _called(self, frame: FrameType, kind: str, arg: object) -> _Trace | None:
        if self.struck or not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        looks = _looks_of(frame.f_code)
        guard: int | None = None  # what guards the last instruction, if the next is a place

        def stepped(frame: FrameType, kind: str, arg: object) -> _Trace | None:
            nonlocal guard
            if kind == "opcode":
                if guard is not None and guard == _guard_at(frame):
                    self._count(frame)
                guard = _guard_at(frame) if frame.f_lasti in looks else None
            return None if self.struck else stepped

        return stepped

    def _count(self, frame: FrameType) -> None:
        self._left -= 1
        if self._left < 0 and not self.struck:
            self.struck = True
            self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
            self._strike()


@cache
def _looks_of(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions after which the interpreter looks for signals."""
    return frozenset(each.offset for each in dis.get_instructions(code) if each.opname in _LOOKS)


@cache
def _guards_of(code: CodeType) -> tuple[tuple[int, int, int], ...]:
    """Where the instructions of a function begin and end that a handler of it guards."""
    entries = getattr(dis.Bytecode(code), "exception_entries", ())
    return tuple((each.start, each.end, each.target) for each in entries)


def _guard_at(frame: FrameType) -> int:
    """The offset of what catches an error here, or -1.

    Where this differs from the instruction before, there is no place to strike: a signal would
    have been raised under the guard of that one.
    """
    at = frame.f_lasti
    guards = _guards_of(frame.f_code)
    return next((target for start, end, target in guards if start <= at < end), -1)


def at_every_place(
    run: Callable[[Strike], object], strike: Callable[[], object], *, step: int = 1
) -> int:
    """Run something once for each place where a signal could arrive, and strike there.

    Args:
        run: sets up a fresh scene and calls ``strike.during(job)``.
        strike: what happens there: raises, or calls.
        step: at each how manyth place; all of them if ``ASYNCMACHINE_EVERY_PLACE`` is set.

    Returns:
        How many places there were, at least.

    """
    # Python 3.13 traces only instructions of what has been traced before, and fewer than others.
    run(Strike(sys.maxsize, strike))
    place = 0
    while True:
        each = Strike(place, strike)
        try:
            run(each)
        except BaseException as error:
            error.add_note(f"struck at place {place}, {each.where}")
            raise
        if not each.struck:
            return place
        place += 1 if "ASYNCMACHINE_EVERY_PLACE" in os.environ else step
