"""The runs of a point: both sides in turns, each in a process of its own."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Final

from bench.processes import STARTED_S, process
from bench.pubsub_course import LIMIT_S, Course, Side, Tally, run_course
from bench.rounds import Progress

__all__ = ["SIDES", "Point", "SideRuns", "run_points"]

MACHINES: Final = "machines"
PLAIN: Final = "plain"
SIDES: Final = (MACHINES, PLAIN)
# After the limit of a run: how long its process may take to dispose everything and answer.
_GRACE_S: Final = 10.0
_STATUS: Final = Path("/proc/self/status")


@dataclass(slots=True)
class SideRuns:
    """What the runs of one side of a point came to.

    Attributes:
        courses: the runs, in order.
        start_bytes: resident memory of its process before its first run.
        peak_bytes: the most resident memory that its process has had.

    """

    courses: list[Course] = field(default_factory=list)
    start_bytes: int = 0
    peak_bytes: int = 0

    @property
    def seconds(self) -> list[float]:
        """How long each run took that has not failed."""
        return [course.seconds for course in self.courses if not course.failure]

    @property
    def median(self) -> float | None:
        """The median of these; none if all have failed."""
        return median(self.seconds) if self.seconds else None

    @property
    def failures(self) -> list[str]:
        """Why runs have failed."""
        return [course.failure for course in self.courses if course.failure]

    @property
    def threads(self) -> int:
        """The most threads that were seen."""
        return max((course.threads for course in self.courses), default=0)

    def stage(self, name: str) -> float | None:
        """Median of the seconds of a stage."""
        found = [course.stages[name] for course in self.courses if not course.failure]
        return median(found) if found else None


@dataclass(slots=True)
class Point:
    """So many hosts and messages, and what the runs of both sides came to."""

    hosts: int
    messages: int
    sides: dict[str, SideRuns] = field(default_factory=lambda: {side: SideRuns() for side in SIDES})

    @property
    def machines(self) -> SideRuns:
        """The side with machines."""
        return self.sides[MACHINES]

    @property
    def plain(self) -> SideRuns:
        """The side without."""
        return self.sides[PLAIN]

    @property
    def overhead(self) -> float | None:
        """By how much the median with machines is above the other, as a share of that."""
        ours, theirs = self.machines.median, self.plain.median
        return None if ours is None or theirs is None else ours / theirs - 1


def run_points(
    sizes: Sequence[tuple[int, int]],
    runs: int,
    progress: Progress,
    before: Callable[[], object],
) -> tuple[list[Point], bool]:
    """Run all points; tells also whether Ctrl-C ended that early.

    Args:
        sizes: hosts and messages of each point.
        runs: how many of each side and point.
        progress: told what is being run.
        before: called before each point.

    Raises:
        KeyboardInterrupt: if it came before the first run.

    """
    points: list[Point] = []
    try:
        for hosts, messages in sizes:
            before()
            point = Point(hosts, messages)
            points.append(point)
            _run_point(point, runs, progress)
    except KeyboardInterrupt:
        progress.clear()
        known = [point for point in points if all(s.courses for s in point.sides.values())]
        if not known:
            raise
        return known, True
    progress.clear()
    return points, False


def _run_point(point: Point, runs: int, progress: Progress) -> None:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(_worker(name, point.hosts, point.messages, into))
            for name, into in point.sides.items()
        ]
        for run in range(runs):
            progress.say(f"run {run + 1} of {runs}: {point.hosts} hosts, {point.messages} messages")
            # Both get the same seed, and none is always the first.
            for worker in workers if run % 2 else reversed(workers):
                worker.run(_seed(point, run + 1))


def _seed(point: Point, run: int) -> int:
    return (point.hosts * 1000 + point.messages) * 1000 + run


class _Worker:
    """One side of a point in a process; a run that fails costs the process, too."""

    def __init__(self, side: str, hosts: int, messages: int, into: SideRuns) -> None:
        self._asked = (side, hosts, messages)
        self._into = into
        self._process = ExitStack()
        self._line: Connection[object, object] | None = None

    def run(self, seed: int) -> None:
        """Run once, and keep what that came to."""
        course = self._ask(seed)
        self._into.courses.append(course)
        if course.failure:  # What it may have left behind must not disturb the next one.
            self.close()

    def _ask(self, seed: int) -> Course:
        try:
            if self._line is None:
                self._line = self._process.enter_context(process(_serve, *self._asked))
                started = self._answer(STARTED_S)
                assert isinstance(started, int)
                self._into.start_bytes = self._into.start_bytes or started
            self._line.send(seed)
            answer = self._answer(LIMIT_S + _GRACE_S)
            assert isinstance(answer, tuple)
        except (EOFError, OSError):
            return Course(LIMIT_S, {}, 0, "the process has died")
        except TimeoutError as error:
            return Course(LIMIT_S, {}, 0, str(error))
        course, peak_bytes = answer
        self._into.peak_bytes = max(self._into.peak_bytes, peak_bytes)
        return course  # type: ignore[no-any-return]  # it is one

    def _answer(self, timeout: float) -> object:
        assert self._line is not None
        if not self._line.poll(timeout):
            raise TimeoutError("the process does not answer")
        return self._line.recv()

    def close(self) -> None:
        """End the process."""
        self._line = None
        try:
            self._process.close()
        except subprocess.TimeoutExpired:
            pass  # It was stuck, and has been killed.


@contextmanager
def _worker(side: str, hosts: int, messages: int, into: SideRuns) -> Iterator[_Worker]:
    worker = _Worker(side, hosts, messages, into)
    try:
        yield worker
    finally:
        worker.close()


# What runs in the other process.


def _serve(line: Connection[object, object], side: str, hosts: int, messages: int) -> None:
    make = _made(side)
    line.send(_peak_bytes())
    run_course(make, hosts, messages, 0)  # to warm up
    try:
        while True:
            seed = line.recv()
            assert isinstance(seed, int)
            gc.collect()
            course = run_course(make, hosts, messages, seed)
            line.send((course, _peak_bytes()))
    except (EOFError, OSError):
        pass


def _made(side: str) -> Callable[[int, int, Tally], Side]:
    # Each process loads its own side only, so that its memory is that of this side.
    if side == PLAIN:
        from bench.pubsub_plain import PlainSide

        return PlainSide
    from bench.pubsub_machines import MachinesSide

    return MachinesSide


def _peak_bytes() -> int:
    """Say the most resident memory that this process has had.

    On Linux ``ru_maxrss`` would also count that of the process which has started it.
    """
    try:
        status = _STATUS.read_text(encoding="ascii")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
