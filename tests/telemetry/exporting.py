"""Machines that export what they do over HTTP, for processes of their own to build."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from asyncmachine import Event, Machine, State
from asyncmachine.net import RemoteMachine
from asyncmachine.telemetry.otel import OtelTracer

PROVIDERS: dict[str, TracerProvider] = {}  # by the id of the machine


def provider_to(endpoint: str, service: str, *, zipped: bool = True) -> TracerProvider:
    """Build a provider that exports to an OTLP receiver, when it is flushed at the latest."""
    compression = Compression.Gzip if zipped else Compression.NoCompression
    exporter = OTLPSpanExporter(endpoint=endpoint, compression=compression, timeout=10)
    provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
    return provider


class Handlers:
    """Hand what they hear of to the next machine, if there is one."""

    def __init__(self, next_one: RemoteMachine | None) -> None:
        self.next_one = next_one

    def Hit_state(self, event: Event) -> None:
        if self.next_one is not None:
            self.next_one.send("add", "Hit")


def make(machine_id: str, endpoint: str, next_one: RemoteMachine | None = None) -> Machine:
    """Build a traced machine, here or in another process."""
    provider = PROVIDERS[machine_id] = provider_to(endpoint, f"service of {machine_id}")
    states = {"Foo": State(), "Hit": State(multi=True)}
    return Machine(
        states, id=machine_id, tracers=[OtelTracer(provider)], handlers=Handlers(next_one)
    )


DOUBLES: list[Machine] = []


def make_beside_a_double(machine_id: str, endpoint: str, double_id: str) -> Machine:
    """Build a traced machine beside one whose id a machine of another process has, too."""
    machine = make(machine_id, endpoint)
    double = Machine(machine.schema, id=double_id, tracers=machine.tracers, handlers=Handlers(None))
    for _ in range(100):
        double.add("Hit")
    DOUBLES.append(double)
    return machine


def flush(machine: Machine) -> bool:
    """What `eval` asks for where the machine lives: export what has ended."""
    return PROVIDERS[machine.id].force_flush()
