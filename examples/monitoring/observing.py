"""What watches the shop: a collector for Prometheus, and spans for whoever takes OTLP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, start_http_server

from asyncmachine.telemetry.otel import OtelTracer
from asyncmachine.telemetry.prometheus import MachineCollector


@contextmanager
def metrics(host: str, port: int) -> Iterator[tuple[MachineCollector, int]]:
    """Serve metrics over HTTP; gives the collector, and the port."""
    registry = CollectorRegistry()
    server, thread = start_http_server(port, host, registry)
    with MachineCollector(registry=registry) as collector:
        yield collector, server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def traces(endpoint: str) -> Iterator[OtelTracer]:
    """Send spans to an OTLP receiver, like http://localhost:4318/v1/traces."""
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    tracer = OtelTracer(provider)
    yield tracer
    tracer.close()
    provider.shutdown()
