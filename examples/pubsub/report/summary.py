"""A run in a few figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from statistics import median
from typing import Final, NamedTuple, Self

from examples.pubsub.outcome import Outcome, Sample

__all__ = ["Summary", "quantile"]


class Summary(NamedTuple):
    """The figures that a run is judged by. What can not be told, like a ratio to 0, is None.

    Attributes:
        published: messages that were sent.
        expected: deliveries that were promised.
        received: promised deliveries that arrived.
        missed: promised deliveries whose deadline has passed.
        open: promised deliveries that were still on their way at the end.
        delivery: received, of those that are not open; 1 is all.
        duplicates_per_delivery: copies that came too often, for each delivery.
        hops_mean: hosts that a delivery came through.
        hops_max: the most of them.
        latency_p50: seconds from publishing to receiving, within which half of them arrived.
        latency_p90: the same for 90 %.
        latency_p99: the same for 99 %.
        latency_max: the same for all.
        mesh_min: peers in the smallest mesh, in the last sample that has any.
        mesh_median: peers in the middle one.
        mesh_max: peers in the largest one.
        control_per_payload: bytes that carried no message, for each byte of a message.
        transitions: transitions of all machines.
        transitions_per_wall_second: how many there were in a real second.
        transitions_per_run_second: how many there were in a second of the run's clock.
        peak_memory: the most memory, in bytes.
        memory_growth: median memory in the last third of the samples less that in the first
            third, in bytes.

    """

    published: int
    expected: int
    received: int
    missed: int
    open: int
    delivery: float | None
    duplicates_per_delivery: float | None
    hops_mean: float | None
    hops_max: int | None
    latency_p50: float | None
    latency_p90: float | None
    latency_p99: float | None
    latency_max: float | None
    mesh_min: int | None
    mesh_median: float | None
    mesh_max: int | None
    control_per_payload: float | None
    transitions: int
    transitions_per_wall_second: float | None
    transitions_per_run_second: float | None
    peak_memory: int | None
    memory_growth: float | None

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Work out the figures of a run, finished or not.

        Args:
            outcome: what the run came to; anything in it may be empty.

        """
        last = outcome.samples[-1] if outcome.samples else _NOTHING
        # The last sample may be older than the last verdicts, or the other way round. These
        # counts only grow, so the larger one is the later one.
        verdicts = outcome.verdicts
        published = max(last.published, len(verdicts))
        expected = max(last.expected, sum(verdict.expected for verdict in verdicts))
        received = max(last.received, sum(verdict.received for verdict in verdicts))
        missed = max(last.missed, sum(len(verdict.missed) for verdict in verdicts))
        latencies = sorted(outcome.latencies)
        deliveries = sum(outcome.hops.values())
        all_hops = sum(hops * times for hops, times in outcome.hops.items())
        mesh = _last_mesh(outcome.samples)
        return cls(
            published=published,
            expected=expected,
            received=received,
            missed=missed,
            open=max(0, expected - received - missed),
            delivery=_ratio(received, received + missed),
            duplicates_per_delivery=_ratio(last.duplicates, received),
            hops_mean=_ratio(all_hops, deliveries),
            hops_max=max((hops for hops, times in outcome.hops.items() if times), default=None),
            latency_p50=quantile(latencies, 0.5),
            latency_p90=quantile(latencies, 0.9),
            latency_p99=quantile(latencies, 0.99),
            latency_max=quantile(latencies, 1.0),
            mesh_min=min(mesh, default=None),
            mesh_median=median(mesh) if mesh else None,
            mesh_max=max(mesh, default=None),
            control_per_payload=_ratio(last.control_bytes, last.payload_bytes),
            transitions=last.transitions,
            transitions_per_wall_second=_ratio(last.transitions, outcome.wall_seconds),
            transitions_per_run_second=_ratio(last.transitions, outcome.seconds),
            peak_memory=max((sample.memory for sample in outcome.samples), default=None),
            memory_growth=_growth([sample.memory for sample in outcome.samples]),
        )


_NOTHING: Final = Sample._make((0,) * (len(Sample._fields) - 1) + ((),))


def quantile(ordered: Sequence[float], part: float) -> float | None:
    """Give the smallest value that so large a part of the values does not exceed.

    It is one of the values, never something in between.

    Args:
        ordered: the values, the smallest first.
        part: which part of them, more than 0 and at most 1.

    Example:
        >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0, 3.0, 4.0], 0.9)
        (2.0, 4.0)

    """
    if not ordered:
        return None
    # Less a little: 0.99 * 100 may come out above 99, which would be the next rank.
    rank = int(part * len(ordered) - 1e-9)
    return ordered[min(rank, len(ordered) - 1)]


def _ratio(count: float, of: float) -> float | None:
    return count / of if of else None


def _last_mesh(samples: Sequence[Sample]) -> tuple[int, ...]:
    """Mesh of the last sample that has one: at the very end, peers may have left already."""
    return next((sample.mesh for sample in reversed(samples) if sample.mesh), ())


def _growth(memory: Sequence[int]) -> float | None:
    third = len(memory) // 3
    if not third:
        return None
    return median(islice(reversed(memory), third)) - median(islice(memory, third))
