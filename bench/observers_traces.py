"""OpenTelemetry under ``python -m bench observers``: what a span costs beyond the SDK's own.

A toggle of a traced machine makes two spans of transitions and two of activations. It is held
against a bare machine's toggle and the same spans made with the SDK by hand, of the same names,
attributes, links and number. Nothing is exported while it is timed, but right before.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, get_tracer, set_span_in_context

from asyncmachine.telemetry.otel import OtelTracer
from bench.contest import OURS
from bench.core import toggle, toggling_machine
from bench.measure import BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span

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


class _Side:
    """One side: a toggle, and what makes its spans."""

    steps = _SPANS_OF_A_TOGGLE
    loops = 1

    def __init__(self, machine: Machine) -> None:
        self.exporter = _Counting()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(
            BatchSpanProcessor(self.exporter, max_queue_size=_ROOM, schedule_delay_millis=_NEVER_MS)
        )
        self.machine = machine
        self._turns = 0

    def run(self, times: int) -> int:
        self.provider.force_flush()
        self._turns += times
        return self.turn(times)

    def turn(self, times: int) -> int:
        raise NotImplementedError

    def close(self) -> None:
        self.provider.force_flush()
        wanted = self._turns * _SPANS_OF_A_TOGGLE
        if self.exporter.count < wanted - 1:  # the last activation goes on
            msg = f"{self.exporter.count:,} spans instead of {wanted:,}"
            raise BenchError(msg)


class _Traced(_Side):
    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        machine.add_tracer(OtelTracer(self.provider))

    def turn(self, times: int) -> int:
        add = self.machine.add
        began = perf_counter_ns()
        for _ in range(times):
            add("Foo")
            add("Bar")
        return perf_counter_ns() - began


class _ByHand(_Side):
    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._tracer = get_tracer("asyncmachine", tracer_provider=self.provider)
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


def spans(stack: ExitStack) -> Mapping[str, Subject]:
    """Set up both sides."""
    traced, by_hand = toggling_machine(), toggling_machine()
    for machine in (traced, by_hand):
        toggle(machine)  # which checks it
        stack.callback(machine.dispose)
    sides: dict[str, _Side] = {OURS: _Traced(traced), "SDK and machine": _ByHand(by_hand)}
    for side in sides.values():
        stack.callback(side.provider.shutdown)
    return {**sides}
