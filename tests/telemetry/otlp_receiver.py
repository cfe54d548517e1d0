"""An OTLP receiver: takes what an exporter sends over HTTP, and parses its protobuf."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.races import PATIENCE

PATH = "/v1/traces"
PROTOBUF = "application/x-protobuf"
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


def value_of(value: AnyValue) -> object:
    """Give what an attribute holds."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(map(value_of, value.array_value.values))
    return None if kind is None else getattr(value, kind)


def attributes_of(pairs: list[KeyValue]) -> dict[str, object]:
    return {pair.key: value_of(pair.value) for pair in pairs}


@dataclass
class Received:
    """One span, as it has come over the wire."""

    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start_ns: int
    end_ns: int
    attributes: dict[str, object]
    links: list[tuple[bytes, bytes]]
    events: list[tuple[str, dict[str, object]]]
    failed: bool
    resource: dict[str, object]

    @property
    def kind(self) -> object:
        return self.attributes["asyncmachine.span"]

    @property
    def here(self) -> tuple[bytes, bytes]:
        """What a link to it says."""
        return self.trace_id, self.span_id


def received(span: Span, resource: dict[str, object]) -> Received:
    return Received(
        name=span.name,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_span_id,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=attributes_of(list(span.attributes)),
        links=[(link.trace_id, link.span_id) for link in span.links],
        events=[(event.name, attributes_of(list(event.attributes))) for event in span.events],
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        resource=resource,
    )


@dataclass
class Receiver:
    """What has been received so far.

    Attributes:
        endpoint: where exporters shall send it.
        answer: the HTTP status that they get.

    """

    endpoint: str = ""
    answer: int = 200
    requests: int = 0
    spans: list[Received] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        found = [
            received(span, attributes_of(list(group.resource.attributes)))
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        with self.changed:
            self.requests += 1
            if self.answer == 200:
                self.spans += found
            self.changed.notify_all()

    def wait_for(self, enough: Callable[[list[Received]], bool]) -> list[Received]:
        """Wait until what has been received is enough, and give it."""
        with self.changed:
            assert self.changed.wait_for(lambda: enough(self.spans), PATIENCE), [
                span.name for span in self.spans
            ]
            return list(self.spans)

    def one(self, kind: str, name: str, machine: str) -> Received:
        """Give the one span of this kind and name."""
        found = [
            span
            for span in self.spans
            if span.name == name
            and span.attributes.get("asyncmachine.span") == kind
            and span.attributes["asyncmachine.machine.id"] == machine
        ]
        assert len(found) == 1, [(span.name, span.attributes) for span in self.spans]
        return found[0]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            right = self.path == PATH and self.headers["Content-Type"] == PROTOBUF
            if right:
                receiver.take(UNPACK[self.headers.get("Content-Encoding", "")](body))
            reply = ExportTraceServiceResponse().SerializeToString()
            self.send_response(receiver.answer if right else 400)
            self.send_header("Content-Type", PROTOBUF)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of each request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.endpoint = f"http://127.0.0.1:{server.server_port}{PATH}"
    thread = threading.Thread(
        target=server.serve_forever, args=(0.01,), name="otlp-receiver", daemon=True
    )
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)
