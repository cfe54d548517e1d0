"""The quick text: the very bytes of the library's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.metrics_core import Metric

from asyncmachine import Machine, State
from asyncmachine.telemetry.exposition import generate
from asyncmachine.telemetry.prometheus import MachineCollector

IDS = ["plain", "a-b", "", 'a "quote"', "two\nlines", "back\\slash\\n", "ünï ✓", "\u2028", "a,b={}"]


class Still:
    """A registry that was collected once, so that two texts tell of the same moment."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._metrics = list(registry.collect())

    def collect(self) -> Iterable[Metric]:
        return self._metrics


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    registry = CollectorRegistry()
    with MachineCollector(registry=registry) as collector:
        for each in IDS:
            machine = Machine({"Foo": State(multi=True), "Bar": State(require="Foo")}, id=each)
            collector.add(machine)
            machine.add("Foo")
            machine.add_error("one")
        yield registry


def test_it_is_what_the_library_writes(registry: CollectorRegistry) -> None:
    still = Still(registry)
    assert generate(still) == generate_latest(still)


def test_metrics_of_others_are_as_the_library_writes_them(registry: CollectorRegistry) -> None:
    Gauge("a", "Two\nlines \\ of help.", ["x"], registry=registry).labels('"').set(float("nan"))
    Counter("b", "Counts.", registry=registry).inc(1e9)
    Histogram("c", "Seconds.", registry=registry).observe(0.2)
    Info("d", "Info.", registry=registry).info({"version": "1"})
    still = Still(registry)
    assert generate(still) == generate_latest(still)


@pytest.mark.parametrize("tick", [999_998, 999_999, 1_000_000, 1_234_567, 10**15, 2**53 + 1])
def test_large_clocks_are_written_as_go_does(registry: CollectorRegistry, tick: int) -> None:
    machine = Machine({"Foo": State()}, id="old")
    machine.import_state({"id": "old", "names": ["Foo", "Exception"], "ticks": [tick, 0]})
    with MachineCollector(machine, registry=CollectorRegistry()) as collector:
        still = list(collector.collect())

    class Kept:
        def collect(self) -> Iterable[Metric]:
            return still

    assert generate(Kept()) == generate_latest(Kept())


def test_no_metric_is_no_text() -> None:
    assert generate(CollectorRegistry()) == b""
