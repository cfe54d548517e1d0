"""The metrics of machines and networks: their names, and the samples of one scrape."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncmachine.telemetry.counting import Histogram

__all__ = ["Families", "empty_families"]

_PREFIX: Final = "asyncmachine_"

# Name, kind and help of each; a counter's samples are called NAME_total.
_FAMILIES: Final = (
    ("states", "gauge", "States that the machine declares."),
    ("states_active", "gauge", "States that are active."),
    ("state_active", "gauge", "Whether a state is active: 1 or 0."),
    ("state_ticks", "counter", "Ticks of a state's clock: activations and deactivations."),
    ("relations", "gauge", "Relations that the states declare."),
    ("queue_length", "gauge", "Mutations and tasks that wait for their turn."),
    ("queue_refused", "counter", "Mutations that were refused, for the queue was full."),
    ("waiters_pending", "gauge", "Waiters that are not set yet."),
    ("forks_running", "gauge", "Forks that have not ended yet."),
    ("transitions", "counter", "Transitions that were requested, by kind and what became of them."),
    ("auto_transitions", "counter", "Transitions that the machine began, for its auto states."),
    ("handler_calls", "counter", "Calls of handlers."),
    ("errors", "counter", "Errors in handlers, and those that were reported with add_error()."),
    ("transition_seconds", "histogram", "Time from start to end of a transition, handlers too."),
    ("handler_seconds", "histogram", "Time that a call of a handler took."),
    ("queue_wait_seconds", "histogram", "Time in the queue of mutations that had to wait."),
    ("network_processes", "gauge", "Processes of a network that are alive."),
    ("network_machines", "gauge", "Machines of a network."),
    ("network_links", "gauge", "Links of a network that are up."),
    ("link_bytes", "counter", "Bytes that went over a link."),
    ("link_messages", "counter", "Messages that went over a link."),
    ("link_reconnects", "counter", "How often a link was made again."),
    ("mirror_lag_seconds", "gauge", "How old what the mirror of a remote machine shows may be."),
)


# Makes a sample of all its fields; as there are so many, what Sample() does besides shows.
_sample: Final = cast("Callable[[tuple[object, ...]], Sample]", partial(tuple.__new__, Sample))
_REST: Final = (None,) * (len(Sample("", {}, 0)) - 3)  # what comes after name, labels and value


class _Clocks(NamedTuple):
    """All clocks of one machine."""

    machine: str
    names: Sequence[str]
    ticks: Sequence[int]


class _OfStates:
    """Samples of all states, made one by one when they are asked for.

    Most samples are of this kind. Those that nobody keeps are gone before the garbage
    collector looks at them, which makes a scrape an eighth quicker.

    Args:
        name: of the metric.
        clocks: the clocks of the machines.
        mask: what of a tick is told: 1 for whether it is odd, -1 for all of it.

    """

    def __init__(self, name: str, clocks: list[_Clocks], *, mask: int) -> None:
        self._name = name
        self._clocks = clocks
        self._mask = mask

    def __iter__(self) -> Iterator[Sample]:
        full, mask = self._name, self._mask
        for machine, names, ticks in self._clocks:
            for name, tick in zip(names, ticks):
                labels = {"machine": machine, "state": name}
                yield _sample((full, labels, tick & mask, *_REST))

    def __len__(self) -> int:
        return sum(len(each.ticks) for each in self._clocks)


class Families:
    """The samples of one scrape, as they come in.

    Args:
        buckets: upper bounds of the buckets of histograms, in seconds.

    """

    def __init__(self, buckets: Sequence[float]) -> None:
        self._metrics = {each.name.removeprefix(_PREFIX): each for each in empty_families()}
        self._lists = {
            name: (f"{each.name}_total" if each.type == "counter" else each.name, each.samples)
            for name, each in self._metrics.items()
        }
        self._clocks: list[_Clocks] = []
        self._metrics["state_active"].samples = _OfStates(  # type: ignore[assignment]
            f"{_PREFIX}state_active", self._clocks, mask=1
        )
        self._metrics["state_ticks"].samples = _OfStates(  # type: ignore[assignment]
            f"{_PREFIX}state_ticks_total", self._clocks, mask=-1
        )
        self._bounds = (*(str(float(each)) for each in buckets), "+Inf")

    def add(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Add one sample of a gauge or counter."""
        full, samples = self._lists[name]
        samples.append(_sample((full, labels, value, *_REST)))

    def add_states(self, machine: str, names: Sequence[str], ticks: Sequence[int]) -> None:
        """Add what there is for each state."""
        self._clocks.append(_Clocks(machine, names, ticks))

    def add_histogram(self, name: str, machine: str, histogram: Histogram) -> None:
        """Add one histogram: buckets count what is below their bound, all in all.

        One that is empty has the last bucket only: it is there to be asked for, and tells the
        same with a fourth of the samples.
        """
        metric = self._metrics[name]
        counts, bounds = histogram.counts, self._bounds
        if not any(counts):
            counts, bounds = counts[-1:], bounds[-1:]
        full = f"{metric.name}_bucket"
        below = 0
        for bound, count in zip(bounds, counts, strict=True):
            below += count
            labels = {"machine": machine, "le": bound}
            metric.samples.append(_sample((full, labels, below, *_REST)))
        labels = {"machine": machine}
        metric.samples += (
            Sample(f"{metric.name}_count", labels, below),
            Sample(f"{metric.name}_sum", labels, histogram.seconds),
        )

    def metrics(self) -> Iterable[Metric]:
        """Give those that have samples."""
        return [each for each in self._metrics.values() if each.samples]


def empty_families() -> list[Metric]:
    """Give all metrics without samples: what a registry wants to know of a collector."""
    return [Metric(_PREFIX + name, about, kind) for name, kind, about in _FAMILIES]
