"""Somebody who watches runs, and ends them when enough has been seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from examples.pubsub.outcome import Sample, SlowHandler


class Watcher:
    """Takes down what it is shown.

    Args:
        enough: whether a sample is the last one that is waited for; None to see all.

    Attributes:
        stop: set when it has seen enough.
        samples: what it was shown.
        latencies: how many latencies came with each.
        progress: how far the run was each time.
        handlers: the handlers that it was shown last.

    """

    def __init__(self, enough: Callable[[Sample], bool] | None = None) -> None:
        self._enough = enough
        self.stop = threading.Event()
        self.samples: list[Sample] = []
        self.latencies: list[int] = []
        self.progress: list[float | None] = []
        self.handlers: list[SlowHandler] = []

    def update(
        self,
        sample: Sample,
        handlers: Sequence[SlowHandler],
        latencies: Sequence[float],
        progress: float | None,
    ) -> None:
        self.samples.append(sample)
        self.latencies.append(len(latencies))
        self.progress.append(progress)
        self.handlers = list(handlers)
        if self._enough is not None and self._enough(sample):
            self.stop.set()
