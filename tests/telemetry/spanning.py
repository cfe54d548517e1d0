"""What the tests of traces share: machines with an exporter in memory, and trees of spans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asyncmachine import Machine, State
from asyncmachine.telemetry.otel import OtelTracer

PREFIX = "asyncmachine."


class Traced:
    """A tracer, and the spans that it has ended so far."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = OtelTracer(self.provider, **options)

    def machine(self, states: Mapping[str, State] | str, **options: Any) -> Machine:
        """Build a machine that is traced; states as a text are plain ones."""
        if isinstance(states, str):
            states = {name: State() for name in states.split()}
        options.setdefault("id", "m")
        return Machine(states, tracers=[self.tracer], **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        """All that have ended, in that order."""
        return list(self.exporter.get_finished_spans())

    def of(self, kind: str, name: str | None = None) -> list[ReadableSpan]:
        """Those of one kind that have ended, and of one name."""
        return [
            span for span in self.spans if get(span, "span") == kind and name in {None, span.name}
        ]

    def one(self, kind: str, name: str | None = None) -> ReadableSpan:
        """The only one of this kind and name."""
        found = self.of(kind, name)
        assert len(found) == 1, [(get(span, "span"), span.name) for span in self.spans]
        return found[0]

    def tree(self) -> list[str]:
        """Names of all ended spans, each indented below its parent, in order of their starts."""
        return tree(self.spans)


def get(span: ReadableSpan, attribute: str) -> object:
    """Give one of our attributes of a span, or None."""
    return (span.attributes or {}).get(PREFIX + attribute)


def identity(span: ReadableSpan) -> tuple[int, int]:
    """What a link to a span says."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def tree(spans: Iterable[ReadableSpan]) -> list[str]:
    """Names of spans, each indented below its parent, in order of their starts."""
    latest_first = [*spans][::-1]  # of those that begin at once, what ends last is above
    ordered = sorted(latest_first, key=lambda span: span.start_time or 0)
    known = {identity(span) for span in ordered}
    lines: list[str] = []

    def tell(above: tuple[int, int] | None, depth: int) -> None:
        for span in ordered:
            up = parent(span)
            if (up if up in known else None) == above:
                lines.append("  " * depth + span.name)
                tell(identity(span), depth + 1)

    tell(None, 0)
    return lines


def assert_nested(spans: Iterable[ReadableSpan]) -> None:
    """No span begins before its parent or lasts longer, and all have ended once."""
    every = list(spans)
    by_identity = {identity(span): span for span in every}
    assert len(by_identity) == len(every), "a span has ended twice"
    for span in every:
        up = by_identity.get(parent(span) or (0, 0))
        assert span.end_time is not None
        assert span.start_time is not None
        assert span.start_time <= span.end_time, span.name
        if up is not None:
            assert (up.start_time or 0) <= span.start_time, (up.name, span.name)
            assert (up.end_time or 0) >= span.end_time, (up.name, span.name)
