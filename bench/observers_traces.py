"""OpenTelemetry under ``python -m bench observers``: what a span costs beyond the SDK's own.

A toggle of a traced machine makes two spans of transitions and two of activations. It is held
against a bare machine's toggle and the same spans made with the SDK by hand, of the same names,
attributes, links and number. Nothing is exported while it is timed, but right before.

That is a small difference of two large figures. So it is measured once more with an SDK that
does nothing, on both sides: what the SDK itself costs is not there then.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    Tracer,
    get_tracer,
    set_span_in_context,
)
from opentelemetry.trace import TracerProvider as TracerProviderApi

from asyncmachine.telemetry.otel import OtelTracer
from bench.contest import OURS
from bench.core import toggle, toggling_machine
from bench.measure import BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack
    from typing import Never

    from opentelemetry.sdk.trace import ReadableSpan

    from asyncmachine import Machine
    from bench.measure import Subject

__all__ = ["spans"]

_SPANS_OF_A_TOGGLE: Final = 4
_ROOM: Final = 1_000_000
_NEVER_MS: Final = 3_600_000.0


class _Counting(SpanExporter):
    """Takes spans, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.count += len(spans)
        return SpanExportResult.SUCCESS


class _Sdk:
    """The SDK with a batch processor, and what counts the spans."""

    def __init__(self) -> None:
        self._exporter = _Counting()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter, max_queue_size=_ROOM, schedule_delay_millis=_NEVER_MS
            )
        )

    def settle(self) -> None:
        self.provider.force_flush()

    def check(self, spans: int) -> None:
        self.settle()
        if self._exporter.count < spans - 1:  # the last activation goes on
            msg = f"{self._exporter.count:,} spans instead of {spans:,}"
            raise BenchError(msg)

    def end(self) -> None:
        self.provider.shutdown()


class _Idle(Tracer):
    """A tracer whose one span does nothing, though it looks like one that is recorded."""

    _span = NonRecordingSpan(SpanContext(1, 2, is_remote=False))

    def __init__(self) -> None:
        self.count = 0

    def start_span(self, *details: object, **more: object) -> Span:
        self.count += 1
        return self._span

    def start_as_current_span(self, *details: object, **more: object) -> Never:
        raise NotImplementedError


class _NoSdk(TracerProviderApi):
    """What stands for the SDK and costs next to nothing."""

    def __init__(self) -> None:
        self.provider = self
        self._tracer = _Idle()

    def get_tracer(self, *details: object, **more: object) -> Tracer:
        return self._tracer

    def settle(self) -> None: ...

    def check(self, spans: int) -> None:
        if self._tracer.count < spans:
            msg = f"{self._tracer.count:,} spans instead of {spans:,}"
            raise BenchError(msg)

    def end(self) -> None: ...


class _Side:
    """One side: a toggle, and what makes its spans."""

    steps = _SPANS_OF_A_TOGGLE
    loops = 1

    def __init__(self, machine: Machine, backend: _Sdk | _NoSdk) -> None:
        self.backend = backend
        self.machine = machine
        self._turns = 0

    def run(self, times: int) -> int:
        self.backend.settle()
        self._turns += times
        return self.turn(times)

    def turn(self, times: int) -> int:
        raise NotImplementedError

    def close(self) -> None:
        self.backend.check(self._turns * _SPANS_OF_A_TOGGLE)


class _Traced(_Side):
    def __init__(self, machine: Machine, backend: _Sdk | _NoSdk) -> None:
        super().__init__(machine, backend)
        machine.add_tracer(OtelTracer(backend.provider))

    def turn(self, times: int) -> int:
        add = self.machine.add
        began = perf_counter_ns()
        for _ in range(times):
            add("Foo")
            add("Bar")
        return perf_counter_ns() - began


class _ByHand(_Side):
    def __init__(self, machine: Machine, backend: _Sdk | _NoSdk) -> None:
        super().__init__(machine, backend)
        self._tracer = get_tracer("asyncmachine", tracer_provider=backend.provider)
        root = self._tracer.start_span("root", context=Context())
        self._above = set_span_in_context(root, Context())
        self._active: Span | None = None
        self._before = machine.time()

    def turn(self, times: int) -> int:
        add, step = self.machine.add, self._step
        began = perf_counter_ns()
        for number in range(times):
            add("Foo")
            step("[add] Foo", "Foo", ("Foo",), "Bar+1 Foo+1", number)
            add("Bar")
            step("[add] Bar", "Bar", ("Bar",), "Foo+1 Bar+1", number)
        return perf_counter_ns() - began

    def _step(self, name: str, state: str, called: tuple[str, ...], diff: str, number: int) -> None:
        """Make the spans of one transition, as one would write it."""
        span = self._tracer.start_span(
            name,
            context=self._above,
            attributes={
                "asyncmachine.span": "transition",
                "asyncmachine.transition.kind": "add",
                "asyncmachine.transition.called": called,
                "asyncmachine.transition.auto": False,
                "asyncmachine.transition.accepted": True,
                "asyncmachine.transition.outcome": "executed",
                "asyncmachine.transition.diff": diff,
                "asyncmachine.transition.time_before": self._before,
                "asyncmachine.transition.time_after": self._before,
                "asyncmachine.machine.id": "toggling",
                "asyncmachine.transition.id": number,
            },
        )
        span.end()
        if self._active is not None:
            self._active.end()
        self._active = self._tracer.start_span(
            state,
            context=self._above,
            attributes={
                "asyncmachine.span": "activation",
                "asyncmachine.machine.id": "toggling",
                "asyncmachine.state.name": state,
                "asyncmachine.state.tick": number,
            },
            links=(Link(span.get_span_context()),),
        )


def spans(stack: ExitStack, *, sdk: bool) -> Mapping[str, Subject]:
    """Set up both sides, with the SDK or with one that does nothing."""
    traced, by_hand = toggling_machine(), toggling_machine()
    for machine in (traced, by_hand):
        toggle(machine)  # which checks it
        stack.callback(machine.dispose)
    backends = [_Sdk() if sdk else _NoSdk() for _ in range(2)]
    for backend in backends:
        stack.callback(backend.end)
    return {OURS: _Traced(traced, backends[0]), "by hand": _ByHand(by_hand, backends[1])}
