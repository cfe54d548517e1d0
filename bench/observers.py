"""The cases of ``python -m bench observers``: what it costs to be watched.

A toggle of an observed machine is held against the same toggle of a bare one beside it, in
the same rounds; what it costs beyond that is given in empty function calls.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from asyncmachine import Machine, Tracer
from bench import observers_feed, observers_history, observers_metrics, observers_traces
from bench.contest import OURS, AtMost, AtMostBeyond, AtMostTimes, Contest
from bench.core import toggle, toggling_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.measure import Subject

__all__ = ["CONTESTS"]

_BARE: Final = "bare"
_MS: Final = 1e6
_S: Final = 1e9


def _beside_a_bare_one(
    stack: ExitStack, watch: Callable[[ExitStack, Machine], object]
) -> Mapping[str, Subject]:
    """Set up a machine that is watched, and one that is not."""
    watched, bare = toggling_machine(), toggling_machine()
    for machine in (watched, bare):
        stack.callback(machine.dispose)
    watch(stack, watched)
    return {OURS: toggle(watched), _BARE: toggle(bare)}


def _with_a_tracer(stack: ExitStack, machine: Machine) -> None:
    class Nothing(Tracer):
        def transition_end(self, tx: object) -> None: ...

    machine.add_tracer(Nothing())


def _folder(stack: ExitStack) -> Path:
    return Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))


def _stopped_and_live(stack: ExitStack) -> Mapping[str, Subject]:
    """A receiver that was stopped, beside one that takes what comes."""
    stopped, live = toggling_machine(), toggling_machine()
    for machine in (stopped, live):
        stack.callback(machine.dispose)
    observers_feed.feed(stack, live)
    observers_feed.feed(stack, stopped, stop=True)
    return {OURS: toggle(stopped), "live": toggle(live)}


CONTESTS: Final = (
    Contest(
        "tracer",
        "a tracer that does nothing",
        partial(_beside_a_bare_one, watch=_with_a_tracer),
        AtMostBeyond(25),
        unit="E",
    ),
    Contest(
        "prometheus",
        "a Prometheus collector, with histograms",
        partial(_beside_a_bare_one, watch=partial(observers_metrics.collect, histograms=True)),
        AtMostBeyond(25),
        unit="E",
    ),
    Contest(
        "prometheus-gauges",
        "a Prometheus collector, without",
        partial(_beside_a_bare_one, watch=partial(observers_metrics.collect, histograms=False)),
        AtMostBeyond(0, noise=0.5),
        unit="E",
    ),
    Contest(
        "feed",
        "the feed, with a live receiver",
        partial(_beside_a_bare_one, watch=observers_feed.feed),
        AtMostBeyond(80),
        unit="E",
        effort=10,
    ),
    Contest(
        "feed-stopped",
        "the feed, its receiver stopped (SIGSTOP)",
        _stopped_and_live,
        AtMostTimes(1.0),
        unit="E",
        effort=10,
    ),
    Contest(
        "otel",
        "an OpenTelemetry span, beyond the SDK's own cost",
        partial(observers_traces.spans, sdk=True),
        AtMostBeyond(30),
        unit="E",
        effort=0.25,
        many_rounds=20,
    ),
    Contest(
        "otel-alone",
        "the same, with an SDK that does nothing on both sides",
        partial(observers_traces.spans, sdk=False),
        AtMostBeyond(30),
        unit="E",
    ),
    Contest(
        "history-memory",
        f"{observers_history.TOGGLES:,} toggles into memory",
        observers_history.into_memory,
        AtMost(0.15 * _S, "under 0.15 s (Go: 0.147 s)"),
        unit="s",
        times=1,
    ),
    Contest(
        "history-sqlite",
        f"{observers_history.TOGGLES:,} toggles into SQLite, flushed",
        lambda stack: observers_history.into_sqlite(_folder(stack)),
        AtMost(0.8 * _S, "under 0.8 s (Go: 0.998 s)"),
        unit="s",
        times=1,
    ),
    Contest(
        "restore",
        "restore from a million transitions",
        lambda stack: observers_history.restoring(_folder(stack)),
        AtMost(50 * _MS, "under 50 ms"),
        unit="ms",
        times=1,
    ),
    Contest(
        "scrape",
        "scrape 1,000 machines of 30 states",
        observers_metrics.scrape,
        AtMost(0.5 * _S, "under 0.5 s"),
        unit="ms",
        times=1,
        most_rounds=7,
    ),
)
