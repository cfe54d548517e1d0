"""Several threads, each of which repeats a statement of its own at the same time."""

from __future__ import annotations

import threading
from time import perf_counter_ns
from typing import TYPE_CHECKING

from bench.measure import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.measure import Loop

__all__ = ["Crowd"]


class Crowd:
    """One thread for each given loop; timed from the first start to the last end.

    The threads are made and lined up before the clock starts. A repetition is one turn of
    each loop, so a crowd of four loops of two steps makes eight steps in one.
    """

    def __init__(self, loops: Sequence[Loop], *, check: Callable[[], None] | None = None) -> None:
        self._members = loops
        self._check = check
        self.steps = sum(loop.steps for loop in loops)
        self.loops = len(loops)

    def run(self, times: int) -> int:
        """Let every thread repeat its statement so often; nanoseconds for all of them."""
        line = threading.Barrier(len(self._members))
        spans: list[tuple[int, int]] = []
        errors: list[BaseException] = []

        def work(loop: Loop) -> None:
            try:
                line.wait()
                started = perf_counter_ns()
                loop.run(times)
                spans.append((started, perf_counter_ns()))
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=work, args=(loop,), daemon=True) for loop in self._members
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            msg = f"a thread of the crowd failed: {errors[0]!r}"
            raise BenchError(msg) from errors[0]
        return max(end for _, end in spans) - min(start for start, _ in spans)

    def close(self) -> None:
        """Run the check that the case came with."""
        if self._check is not None:
            self._check()
