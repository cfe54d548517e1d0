"""What a run tells Prometheus: all machines of its process, and how the run is doing."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from asyncmachine import Tracer
from asyncmachine.telemetry.prometheus import MachineCollector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from asyncmachine import Machine
    from examples.pubsub.outcome import Sample

__all__ = ["Metrics"]


class _Joining(Tracer):
    """Has each machine that it is added to collected."""

    def __init__(self, collector: MachineCollector) -> None:
        self._collector = collector

    def machine_init(self, mach: Machine) -> None:
        self._collector.add(mach)


class Metrics:
    """Serves the metrics of this process over HTTP, on this host only.

    Args:
        port: where; 0 picks one.

    Attributes:
        tracer: add it to machines, and they are collected.
        machines: the collector, for what is not a machine of this process.
        registry: what is served.
        sample: how the run stands, once that is known.

    """

    def __init__(self, port: int) -> None:
        self.registry = CollectorRegistry()
        self.machines = MachineCollector(registry=self.registry)
        self.tracer = _Joining(self.machines)
        self.sample: Sample | None = None
        self.registry.register(self)
        self._port = port
        self._stack = ExitStack()
        self._stack.callback(self.machines.close)

    def start(self) -> None:
        """Serve, and say where."""
        server, thread = start_http_server(self._port, "127.0.0.1", self.registry)
        for end in (thread.join, server.server_close, server.shutdown):
            self._stack.callback(end)
        where = f"http://127.0.0.1:{server.server_port}/metrics"
        print(f"metrics: {where}", file=sys.stderr, flush=True)

    def collect(self) -> Iterator[Metric]:
        """Tell how the run stands; Prometheus asks."""
        sample = self.sample
        if sample is None:  # another process knows
            return
        yield GaugeMetricFamily("pubsub_peers", "Connected peers.", sample.peers)
        yield GaugeMetricFamily("pubsub_topics", "Topics.", sample.topics)
        yield GaugeMetricFamily("pubsub_streams", "Streams between hosts.", sample.streams)
        yield GaugeMetricFamily(
            "pubsub_memory_bytes", "Resident memory of all processes.", sample.memory
        )
        counts = {
            "messages": ("Messages sent.", sample.published),
            "deliveries": ("Promised deliveries that arrived.", sample.received),
            "missed": ("Deliveries that did not come in time.", sample.missed),
            "duplicates": ("Copies that were not the first to arrive.", sample.duplicates),
            "frames": ("Frames that hosts sent.", sample.frames),
            "control_bytes": ("Bytes of frames that carried no message.", sample.control_bytes),
            "payload_bytes": ("Bytes of messages.", sample.payload_bytes),
        }
        for name, (about, value) in counts.items():
            yield CounterMetricFamily(f"pubsub_{name}", about, value)

    def close(self) -> None:
        """Serve no more."""
        self._stack.close()
