"""Traces while threads, late handlers, disposal and a faulty SDK come in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from contextvars import copy_context
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from opentelemetry.trace import StatusCode, get_current_span

from asyncmachine import Event, Machine, State, Tracer, Transition, pipe
from asyncmachine.telemetry.otel import OtelTracer
from asyncmachine.tracing import propagate_with
from tests.races import (
    PATIENCE,
    Gate,
    Strike,
    assert_consistent,
    assert_works,
    at_every_place,
    await_rest,
    outcome,
    start,
    switching_often,
    together,
)
from tests.telemetry.spanning import Traced, assert_nested, get, identity, links, parent

TIMEOUT = 0.02  # seconds until a handler is late


@pytest.fixture(autouse=True)
def _nothing_current() -> Iterator[None]:
    token = attach(Context())
    yield
    assert not get_current_span().get_span_context().is_valid, "a span has stayed current"
    detach(token)
    propagate_with(None)


def here() -> int:
    return get_current_span().get_span_context().span_id


# Late handlers --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Foo_enter", "Foo_state"])
@pytest.mark.parametrize("handlers", [True, False])
def test_a_late_handler_is_left_behind_and_its_thread_gets_back_what_was_current(
    name: str, handlers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    traced = Traced(handlers=handlers)
    mine = traced.provider.get_tracer("mine")
    gate = Gate()
    seen: dict[str, int] = {}

    def late(event: Event) -> None:
        seen["in time"] = here()
        with mine.start_as_current_span("inside"):
            gate(event)
        seen["late"] = here()
        with mine.start_as_current_span("too late"):
            pass

    machine = traced.machine("Foo Bar", handlers={name: late}, handler_timeout=TIMEOUT)

    def work() -> None:
        with mine.start_as_current_span("outer") as span:
            seen["outer"] = span.get_span_context().span_id
            machine.add("Foo")
            seen["afterwards"] = here()
        seen["outside"] = here()

    worker = start(work)
    assert machine.when("Exception").wait(PATIENCE)
    await_rest(machine)
    failed = traced.one("transition", "[add] Foo")
    assert failed.status.status_code is StatusCode.ERROR
    assert get(failed, "transition.outcome") == "failed"
    for span in traced.of("handler", name):
        assert span.status.status_code is StatusCode.ERROR
    machine.add("Bar")
    gate.open()
    outcome(worker)
    assert seen["in time"] == identity(traced.of("handler" if handlers else "transition")[0])[1]
    assert seen["late"] == seen["afterwards"] == seen["outer"]
    assert seen["outside"] == 0
    (too_late,) = [span for span in traced.spans if span.name == "too late"]
    assert (parent(too_late) or (0, 0))[1] == seen["outer"]
    machine.dispose()
    assert "detach" not in caplog.text
    assert "error in the tracer" not in caplog.text


class Holding(Tracer):
    """Holds up who tells that a handler is over, and the tracers that come after it."""

    def __init__(self) -> None:
        self.gate = Gate()

    def handler_end(self, tx: Transition, name: str) -> None:
        if name == "Foo_state":
            self.gate()


@pytest.mark.parametrize("handlers", [True, False])
def test_a_late_handler_that_returns_before_anybody_has_noticed_leaves_nothing_current(
    handlers: bool,
) -> None:
    traced, holding, gate = Traced(handlers=handlers), Holding(), Gate()
    mine = traced.provider.get_tracer("mine")
    machine = Machine(
        {"Foo": State()},
        id="m",
        tracers=[holding, traced.tracer],
        handlers={"Foo_state": gate},
        handler_timeout=TIMEOUT,
    )
    seen: list[int] = []

    def work() -> None:
        with mine.start_as_current_span("outer") as span:
            machine.add("Foo")
            seen.extend((here(), span.get_span_context().span_id))
        seen.extend((here(), 0))

    worker = start(work)
    holding.gate.await_reached()
    gate.open()
    outcome(worker)
    holding.gate.open()
    assert machine.when("Exception").wait(PATIENCE)
    await_rest(machine)
    machine.dispose()
    assert seen[::2] == seen[1::2]


def test_a_late_listener_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    traced = Traced()
    gate = Gate()
    machine = traced.machine("Foo Bar", handler_timeout=TIMEOUT)
    machine.on("Foo_state", lambda event: gate(event) and None)
    seen: list[int] = []

    def work() -> None:
        machine.add("Foo")
        seen.append(here())

    worker = start(work)
    gate.await_reached()
    assert machine.when("Foo").wait(PATIENCE)
    assert outcome(start(lambda: machine.add("Bar"))).wait(PATIENCE)
    gate.open()
    outcome(worker)
    assert seen == [0]
    await_rest(machine)
    machine.dispose()
    assert get(traced.one("transition", "[add] Foo"), "transition.outcome") == "executed"
    assert len(traced.of("activation")) == 2
    assert "detach" not in caplog.text
    assert "error in the tracer" not in caplog.text


def test_many_late_handlers_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    traced = Traced()
    gate = Gate()
    machines = [
        traced.machine("Foo", id=f"m{i}", handlers={"Foo_state": gate}, handler_timeout=TIMEOUT)
        for i in range(5)
    ]

    def work(machine: Machine) -> int:
        machine.add("Foo")
        return here()

    workers = [start(lambda each=each: work(each)) for each in machines]  # type: ignore[misc]
    for machine in machines:
        assert machine.when("Exception").wait(PATIENCE)
        await_rest(machine)
        machine.dispose()
    gate.open()
    assert [outcome(worker) for worker in workers] == [0] * 5
    assert len(traced.of("handler")) == 5
    assert_nested(traced.spans)
    assert "detach" not in caplog.text


def test_a_late_handler_below_another_gives_back_what_was_current(
    caplog: pytest.LogCaptureFixture,
) -> None:
    traced = Traced()
    gate = Gate()
    seen: list[int] = []
    low = traced.machine("Foo", id="low", handlers={"Foo_state": gate}, handler_timeout=TIMEOUT)

    def ask(event: Event) -> None:
        seen.append(here())
        low.add("Foo")
        seen.append(here())

    top = traced.machine("Foo Bar", id="top", handlers={"Foo_state": ask, "Bar_state": ask})

    def work() -> int:
        top.add("Foo")
        top.add("Bar")
        return here()

    worker = start(work)
    assert low.when("Exception").wait(PATIENCE)
    await_rest(low)
    gate.open()
    assert outcome(worker) == 0
    first, again, second, once_more = seen
    assert first == again
    assert second == once_more
    assert {first, second} == {
        identity(span)[1] for span in traced.of("handler") if get(span, "machine.id") == "top"
    }
    low.dispose()
    top.dispose()
    assert_nested(traced.spans)
    assert "detach" not in caplog.text
    assert "error in the tracer" not in caplog.text


# Disposal -------------------------------------------------------------------------------


def test_disposal_while_a_handler_is_stuck_ends_everything() -> None:
    traced = Traced()
    gate = Gate()
    seen: list[int] = []

    def stuck(event: Event) -> None:
        gate(event)

    machine = traced.machine("Foo", handlers={"Foo_state": stuck})

    def work() -> None:
        machine.add("Foo")
        seen.append(here())

    worker = start(work)
    gate.await_reached()
    disposing = start(lambda: machine.dispose(timeout=0.01))
    traced.tracer.close()
    assert {"Foo_state", "[add] Foo", "m"} <= {span.name for span in traced.spans}
    gate.open()
    outcome(worker)
    outcome(disposing)
    assert seen == [0]
    assert_nested(traced.spans)
    assert len(traced.of("transition")) == 1
    assert len(traced.of("handler")) == 1


def test_close_in_a_handler_ends_everything() -> None:
    traced = Traced()
    machine = traced.machine(
        "Foo Bar",
        handlers={
            "Foo_enter": lambda event: traced.tracer.close(),
            "Foo_state": lambda event: None,
        },
    )
    machine.add("Bar")
    machine.add("Foo")
    machine.add("Bar")
    assert [span.name for span in traced.of("handler")] == ["Foo_enter"]
    assert len(traced.of("transition")) == 2
    assert len(traced.of("machine")) == 1
    assert_nested(traced.spans)


def test_close_while_machines_work_ends_each_span_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(15):
        traced = Traced()
        handlers = {"Foo_enter": lambda event: None, "Foo_state": lambda event: None}
        machines = [
            traced.machine("Foo Bar", id=f"m{i}", handlers=handlers if i % 2 else None)
            for i in range(4)
        ]

        def work(machine: Machine) -> None:
            for _ in range(30):
                machine.toggle("Foo")
                machine.toggle("Bar")

        with switching_often():
            together(
                *(lambda machine=machine: work(machine) for machine in machines),
                traced.tracer.close,
                traced.tracer.close,
                lambda machines=machines: machines[0].dispose(),  # type: ignore[misc]
            )
        assert len(traced.of("machine")) == 4
        every = traced.spans
        assert len({identity(span) for span in every}) == len(every)
        by_identity = {identity(span) for span in every}
        assert all((parent(span) or identity(span)) in by_identity for span in every)
        for machine in machines:
            machine.dispose()
        assert len(traced.spans) == len(every)
    assert "ended span" not in caplog.text
    assert "error in the tracer" not in caplog.text


# Many at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("handled", [True, False])
def test_many_threads_on_many_machines_lose_no_span(handled: bool) -> None:
    traced = Traced()
    states = {
        "Foo": State(),
        "Bar": State(remove="Foo"),
        "Hit": State(multi=True),
        "Auto": State(auto=True, require="Bar"),
    }

    def pass_on(event: Event) -> None:
        machines[(machines.index(event.machine) + 1) % len(machines)].send("add", "Foo")

    handlers = {"Hit_state": pass_on, "Foo_enter": lambda event: None} if handled else None
    machines = [traced.machine(states, id=f"m{i}", handlers=handlers) for i in range(4)]

    def work(number: int) -> None:
        for i in range(40):
            machine = machines[(number + i) % len(machines)]
            machine.add("Hit")
            machine.toggle("Foo")
            machine.toggle("Bar")

    with switching_often():
        together(*(lambda number=number: work(number) for number in range(4)))
        for _ in machines:  # what one passes on to the next
            for machine in machines:
                await_rest(machine)
    clocks = {machine.id: machine.clock() for machine in machines}
    for machine in machines:
        assert_consistent(machine)
        machine.dispose()
    ticks: dict[tuple[object, object], list[Any]] = {}
    for span in traced.of("activation"):
        ticks.setdefault((get(span, "machine.id"), span.name), []).append(get(span, "state.tick"))
    for machine_id, clock in clocks.items():
        for name, tick in clock.items():
            assert sorted(ticks.get((machine_id, name), [])) == list(range(1, tick + 1, 2))
    by_identity = {identity(span): span for span in traced.of("transition")}
    for span in traced.of("activation"):
        (link,) = links(span)
        assert get(by_identity[link], "machine.id") == get(span, "machine.id")
        assert f"{span.name}+" in str(get(by_identity[link], "transition.diff"))
    for machine in machines:  # clocks go on from transition to transition
        own = [span for span in by_identity.values() if get(span, "machine.id") == machine.id]
        for before, after in pairwise(own):
            assert get(before, "transition.time_after") == get(after, "transition.time_before")
    assert_nested(traced.spans)


@pytest.mark.parametrize("handled", [True, False])
def test_each_transition_is_linked_to_the_span_of_its_thread(handled: bool) -> None:
    traced = Traced()
    mine = traced.provider.get_tracer("mine")
    handlers = {"Hit_enter": lambda event: None, "Hit_state": lambda event: None}
    machine = traced.machine(
        {"Hit": State(multi=True)}, handlers=handlers if handled else None, log_args=["of"]
    )

    def work() -> None:
        for _ in range(60):
            with mine.start_as_current_span("work") as span:
                number = span.get_span_context().span_id
                machine.add("Hit", of=f"{number:x}")
                assert here() == number
        assert here() == 0

    with switching_often():
        together(work, work, work, work)
        await_rest(machine)
    every = traced.of("transition")
    assert len(every) == 240
    for span in every:
        ((_, number),) = links(span)
        assert f"{number:x}" == get(span, "args.of")
    machine.dispose()


def test_a_ring_of_requests_between_machines_is_linked_all_along() -> None:
    traced = Traced()
    first, second = traced.machine("Foo", id="first"), traced.machine("Foo", id="second")
    third = traced.machine("Foo", id="third")
    with pipe(first, "Foo", second, "Foo"), pipe(second, "Foo", third, "Foo"):
        first.add("Foo")
        assert third.when("Foo").wait(PATIENCE)
        await_rest(third)
    by_machine = {get(span, "machine.id"): span for span in traced.of("transition")}
    assert links(by_machine["third"]) == [identity(by_machine["second"])]
    assert links(by_machine["second"]) == [identity(by_machine["first"])]


def test_a_machine_that_calls_another_whose_handler_calls_back() -> None:
    traced = Traced()
    low = traced.machine(
        "Foo",
        id="low",
        handlers={"Foo_state": lambda event: machines["top"].send("add", "Bar") and None},
    )
    machines: dict[str, Machine] = {}
    machines["top"] = top = traced.machine(
        "Foo Bar", id="top", handlers={"Foo_state": lambda event: low.add("Foo") and None}
    )
    top.add("Foo")
    await_rest(top)
    asked = traced.one("transition", "[add] Bar")
    (low_foo,) = [s for s in traced.of("transition") if get(s, "machine.id") == "low"]
    assert links(asked) == [identity(low_foo)]
    assert links(low_foo) == [identity(traced.of("transition", "[add] Foo")[1])]


# A faulty SDK ---------------------------------------------------------------------------


class Faulty(SpanProcessor):
    """Raises at every how manyth span."""

    def __init__(self, at: str, every: int) -> None:
        self.at, self.every, self.calls = at, every, Counter[str]()

    def _count(self, what: str) -> None:
        self.calls[what] += 1
        if what == self.at and self.calls[what] % self.every == 0:
            raise RuntimeError("the processor is broken")

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._count("start")

    def on_end(self, span: ReadableSpan) -> None:
        self._count("end")


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("handled", [True, False])
def test_a_processor_that_raises_harms_no_machine(
    at: str, every: int, handled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Faulty(at, every))
    tracer = OtelTracer(provider, handlers=handled)
    handlers = {"Foo_enter": lambda event: None, "Foo_state": lambda event: None}
    for given in (handlers, None):
        machine = Machine(
            {"Foo": State(), "Bar": State()}, id="m", tracers=[tracer], handlers=given
        )
        for _ in range(10):
            assert machine.toggle("Foo")
            assert machine.toggle("Bar")
            assert here() == 0
        assert_works(machine, "Foo")
        machine.dispose()
    assert "error in the tracer" in caplog.text
    tracer.close()


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("ending", ["close", "dispose"])
def test_a_processor_that_raises_keeps_no_span_open(every: int, ending: str) -> None:
    faulty = Faulty("end", every)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(faulty)
    tracer = OtelTracer(provider)
    machine = Machine({"Foo": State(), "Bar": State()}, id="m", tracers=[tracer])
    Machine({"Foo": State(), "Bar": State()}, id="low", parent=machine).add("Foo", "Bar")
    machine.add("Foo", "Bar")
    if ending == "close":
        tracer.close()
    machine.dispose()
    assert faulty.calls["end"] == faulty.calls["start"]


class Closing(SpanProcessor):
    """Closes the tracer when one of the spans is started, or ended, and counts."""

    def __init__(self, at: str, number: int) -> None:
        self.at, self.number, self.calls = at, number, Counter[str]()
        self.tracer: OtelTracer | None = None

    def _count(self, what: str) -> None:
        self.calls[what] += 1
        if what == self.at and self.calls[what] == self.number and self.tracer is not None:
            outcome(start(self.tracer.close))  # by another thread, just then

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._count("start")

    def on_end(self, span: ReadableSpan) -> None:
        self._count("end")


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("number", range(1, 23))
def test_close_at_any_moment_ends_every_span(
    at: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    closing = Closing(at, number)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(closing)
    closing.tracer = tracer = OtelTracer(provider)

    def fail(event: Event) -> None:
        raise LookupError("it is not there")

    handlers = {"Foo_enter": lambda event: None, "Foo_state": fail}
    machine = Machine({"Foo": State(), "Bar": State()}, id="m", tracers=[tracer], handlers=handlers)
    low = Machine({"Foo": State(multi=True)}, id="low", parent=machine)
    machine.add("Bar")
    low.add("Foo")
    machine.add("Foo")
    low.add("Foo")
    assert machine.is_active("Exception", "Bar")
    assert here() == 0
    tracer.close()
    assert closing.calls["start"] == closing.calls["end"] >= number
    machine.dispose()
    assert closing.calls["start"] == closing.calls["end"]
    assert "ended span" not in caplog.text
    assert "error in the tracer" not in caplog.text


@pytest.mark.parametrize("handled", [True, False])
def test_close_at_every_place_tells_of_no_transition_twice(handled: bool) -> None:
    def nothing(event: Event) -> None:
        """Do nothing."""

    traced = Traced()

    def close() -> None:
        outcome(start(traced.tracer.close))

    def run(strike: Strike) -> None:
        nonlocal traced
        traced = Traced()
        handlers = {"Foo_enter": nothing, "Foo_state": nothing} if handled else None
        machine = traced.machine({"Foo": State(multi=True)}, handlers=handlers)
        machine.add("Foo")
        strike.during(lambda: machine.add("Foo"))
        traced.tracer.close()
        told = Counter(get(span, "transition.id") for span in traced.of("transition"))
        assert set(told.values()) == {1}
        assert_nested(span for span in traced.spans if get(span, "span") == "activation")
        assert here() == 0

    assert at_every_place(run, close) > 0


class FaultyAt(SpanProcessor):
    """Raises once, when a span of this name and kind is started, or ended."""

    def __init__(self, at: str, kind: str, name: str) -> None:
        self.what: tuple[str, object, str] | None = (at, kind, name)

    def _look(self, at: str, span: ReadableSpan) -> None:
        if self.what == (at, get(span, "span"), span.name):
            self.what = None
            raise RuntimeError("the processor is broken")

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._look("start", span)

    def on_end(self, span: ReadableSpan) -> None:
        self._look("end", span)


def faulty_at(at: str, kind: str, name: str) -> Traced:
    traced = Traced()
    traced.provider.add_span_processor(FaultyAt(at, kind, name))
    return traced


WAYS = pytest.mark.parametrize(
    "handlers", [None, {"Any_enter": lambda event: None}], ids=["bare", "handled"]
)


@WAYS
def test_an_activation_that_can_not_be_exported_costs_no_other(handlers: Any) -> None:
    traced = faulty_at("end", "activation", "Foo")
    machine = traced.machine({"Foo": State(), "Hit": State(multi=True)}, handlers=handlers)
    machine.add("Foo", "Hit")
    machine.set("Hit")
    machine.dispose()
    assert [get(span, "state.tick") for span in traced.of("activation", "Hit")] == [1, 3]
    assert_nested(traced.spans)


@WAYS
def test_a_multi_activation_that_can_not_be_opened_is_made_up_for(handlers: Any) -> None:
    traced = Traced()
    machine = traced.machine({"Hit": State(multi=True)}, handlers=handlers)
    machine.add("Hit")
    traced.provider.add_span_processor(FaultyAt("start", "activation", "Hit"))
    machine.add("Hit")
    machine.add("Hit", "Exception")
    machine.dispose()
    assert [get(span, "state.tick") for span in traced.of("activation", "Hit")] == [1, 3, 5]


@WAYS
def test_a_transition_whose_span_can_not_be_made_has_its_activations_all_the_same(
    handlers: Any,
) -> None:
    traced = faulty_at("start", "transition", "[add] Bar")
    machine = traced.machine(
        {"Foo": State(), "Bar": State(), "Auto": State(auto=True, require="Bar")},
        handlers=handlers,
    )
    machine.add("Foo")
    machine.add("Bar")
    machine.remove("Bar")
    machine.dispose()
    assert [get(span, "state.tick") for span in traced.of("activation", "Bar")] == [1]
    (auto,) = (
        span for span in traced.of("transition", "[add] Auto") if get(span, "transition.accepted")
    )
    if handlers is None:
        assert links(traced.one("activation", "Bar")) == links(auto) == []
    assert links(traced.one("activation", "Auto")) == [identity(auto)]
    assert_nested(traced.spans)


def test_a_change_whose_span_could_not_be_begun_dates_no_later_one() -> None:
    traced = faulty_at("start", "transition", "[add] Foo")
    handlers = {"Foo_state": lambda event: None, "Bar_state": lambda event: None}
    machine = traced.machine("Foo Bar Baz", handlers=handlers)
    machine.add("Baz")
    machine.add("Foo")
    machine.set("Bar")
    machine.dispose()
    (change,) = traced.of("transition", "[set] Bar")
    assert (traced.one("activation", "Bar").start_time or 0) >= (change.start_time or 0)
    assert_nested(traced.spans)


def test_a_failure_whose_span_could_not_be_begun_is_told_all_the_same() -> None:
    traced = faulty_at("start", "transition", "[set] Foo Bar")

    def fail(event: Event) -> None:
        raise LookupError("it is not there")

    machine = traced.machine("Foo Bar Baz", handlers={"Bar_state": fail}, catch_errors=False)
    machine.add("Baz")
    with pytest.raises(LookupError):
        machine.set("Foo", "Bar")
    clock = machine.clock()
    machine.dispose()
    failed = traced.one("transition", "[set] Foo Bar")
    assert get(failed, "transition.outcome") == "failed"
    assert failed.status.status_code is StatusCode.ERROR
    assert get(failed, "transition.diff") == "Foo+1 Bar+2 Baz+1"
    for name, tick in clock.items():
        ticks = [get(span, "state.tick") for span in traced.of("activation", name)]
        assert ticks == list(range(1, tick + 1, 2)), name
    assert_nested(traced.spans)


class Broken(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        raise ConnectionError("nobody listens")

    def shutdown(self) -> None:
        """Nothing to end."""


def test_an_exporter_that_fails_harms_no_machine() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Broken()))
    provider.add_span_processor(BatchSpanProcessor(Broken()))
    with Machine({"Foo": State()}, tracers=[OtelTracer(provider)]) as machine:
        assert machine.add("Foo")
        assert machine.remove("Foo")
    provider.shutdown()


def test_a_provider_that_has_been_shut_down_harms_no_machine() -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_state": lambda event: None})
    machine.add("Foo")
    traced.provider.shutdown()
    assert machine.remove("Foo")
    assert machine.add("Foo")
    machine.dispose()


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, TraceIdRatioBased(0.5)])
def test_what_is_not_sampled_harms_no_machine(sampler: Any) -> None:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracer = OtelTracer(provider)
    for _ in range(10):
        with Machine(
            {"Foo": State()}, tracers=[tracer], handlers={"Foo_state": lambda event: None}
        ) as machine:
            assert machine.add("Foo")
            assert machine.remove("Foo")


# Interrupts -----------------------------------------------------------------------------


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("handled", [True, False])
def test_an_interrupt_anywhere_leaves_a_machine_that_works(handled: bool) -> None:
    def run(strike: Strike) -> None:
        traced = Traced()
        handlers = {"Foo_enter": lambda event: None, "Foo_state": lambda event: None}
        machine = traced.machine("Foo Bar", handlers=handlers if handled else None)
        machine.add("Bar")
        here = copy_context()  # what is current may stay so, if it strikes just then
        with suppress(KeyboardInterrupt):
            here.run(strike.during, lambda: machine.set("Foo"))
        assert_works(machine, "Bar")
        machine.dispose()
        clock = machine.clock()
        told = [get(span, "state.tick") for span in traced.of("activation", "Foo")]
        assert told == list(range(1, clock["Foo"] + 1, 2))

    at_every_place(run, interrupt, step=3)


def test_a_handler_that_fails_on_a_machine_that_is_closed_meanwhile_ends_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    traced = Traced()

    def close_and_fail(event: Event) -> None:
        event.machine.dispose()
        raise LookupError("too late")

    machine = traced.machine("Foo", handlers={"Foo_enter": close_and_fail})
    machine.add("Foo")
    assert {"Foo_enter", "[add] Foo", "m"} <= {span.name for span in traced.spans}
    assert_nested(traced.spans)
    assert "ended span" not in caplog.text
    assert "error in the tracer" not in caplog.text
