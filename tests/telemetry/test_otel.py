"""Machines told to OpenTelemetry: trees, attributes, links and ends of spans."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from weakref import ref

import pytest
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import (
    NoOpTracerProvider,
    StatusCode,
    get_current_span,
    get_tracer_provider,
)

from asyncmachine import Event, LogLevel, Machine, State, pipe
from asyncmachine.telemetry.otel import OtelTracer
from asyncmachine.tracing import HOOKS, Tracers, propagate_with
from asyncmachine.transition import Cause
from tests.races import PATIENCE, busy
from tests.telemetry.spanning import Traced, assert_nested, get, identity, links, parent


@pytest.fixture(autouse=True)
def _nothing_current() -> Iterator[None]:
    token = attach(Context())
    yield
    detach(token)
    propagate_with(None)


def nothing(event: Event) -> None:
    """A handler that does nothing."""


def fail(event: Event) -> None:
    raise LookupError("it is not there")


def refuse(event: Event) -> bool:
    return False


# The tree -------------------------------------------------------------------------------


def test_all_spans_of_a_machine_form_one_tree() -> None:
    traced = Traced()
    handlers = {"Foo_enter": nothing, "Foo_state": nothing, "Bar_end": nothing}
    with traced.machine("Foo Bar", handlers=handlers) as machine:
        machine.add("Foo", "Bar")
        machine.remove("Bar")
    assert traced.tree() == [
        "m",
        "  states",
        "    Foo",
        "      Foo",
        "    Bar",
        "      Bar",
        "  transitions",
        "    [add] Foo Bar",
        "      Foo_enter",
        "      Foo_state",
        "    [remove] Bar",
        "      Bar_end",
    ]
    assert_nested(traced.spans)


def test_what_is_over_is_told_at_once_and_what_lasts_when_the_machine_is_disposed() -> None:
    traced = Traced()
    machine = traced.machine("Foo Bar")
    assert traced.spans == []
    machine.add("Foo")
    assert traced.tree() == ["[add] Foo"]
    machine.set("Bar")
    assert [span.name for span in traced.spans] == ["[add] Foo", "[set] Bar", "Foo"]
    machine.dispose()
    assert sorted(span.name for span in traced.spans[3:-3]) == ["Bar", "Bar", "Foo"]
    assert [span.name for span in traced.spans[-3:]] == ["transitions", "states", "m"]
    machine.dispose()
    assert len(traced.spans) == 9


def test_a_submachine_is_below_its_parent() -> None:
    traced = Traced()
    with traced.machine("Foo", id="top") as top:
        middle = Machine({"Bar": State()}, id="middle", parent=top)
        Machine({"Baz": State()}, id="low", parent=middle).add("Baz")
    assert parent(traced.one("machine", "top")) is None
    assert parent(traced.one("machine", "middle")) == identity(traced.one("machine", "top"))
    assert parent(traced.one("machine", "low")) == identity(traced.one("machine", "middle"))
    assert get(traced.one("machine", "low"), "machine.parent") == "middle"
    assert len(traced.of("transition")) == 1
    assert_nested(traced.spans)


def test_a_submachine_is_not_followed_unless_that_is_wanted() -> None:
    traced = Traced(inherit=False)
    with traced.machine("Foo", id="top") as top:
        Machine({"Bar": State()}, id="low", parent=top).add("Bar")
        own = traced.machine("Baz", id="own", parent=top)
        own.add("Baz")
    assert {get(span, "machine.id") for span in traced.spans} == {"top", "own"}
    assert parent(traced.one("machine", "own")) == identity(traced.one("machine", "top"))


def test_a_tracer_that_comes_late_follows_children_that_are_there_and_what_is_active() -> None:
    traced = Traced()
    top = Machine({"Foo": State(), "Bar": State()}, id="top")
    Machine({"Baz": State()}, id="low", parent=top).add("Baz")
    top.add("Foo")
    top.add_tracer(traced.tracer)
    assert traced.spans == []
    top.remove("Foo")
    activation = traced.one("activation", "Foo")
    assert get(activation, "state.tick") == 1
    assert links(activation) == []
    top.dispose()
    assert len(traced.of("activation", "Baz")) == 1
    assert parent(traced.one("machine", "low")) == identity(traced.one("machine", "top"))


def test_machines_of_one_id_are_told_apart() -> None:
    traced = Traced()
    first, second = traced.machine("Foo"), traced.machine("Foo")
    first.add("Foo")
    second.add("Foo")
    first.dispose()
    assert len(traced.of("activation")) == 1
    second.dispose()
    assert len(traced.of("activation")) == 2
    traces = {span.context.trace_id for span in traced.spans if span.context is not None}
    assert len(traces) == 2


# Attributes -----------------------------------------------------------------------------


def test_a_machine_says_what_it_is() -> None:
    traced = Traced()
    traced.machine("Foo", tags=["role:worker", "db"]).dispose()
    span = traced.one("machine")
    assert dict(span.attributes or {}) == {
        "asyncmachine.span": "machine",
        "asyncmachine.machine.id": "m",
        "asyncmachine.machine.tags": ("role:worker", "db"),
    }
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "asyncmachine"


def test_tags_that_are_no_texts_are_told_as_such() -> None:
    traced = Traced()
    tags: list[Any] = [1, None]
    traced.machine("Foo", tags=tags).dispose()
    assert get(traced.one("machine"), "machine.tags") == ("1", "None")


@pytest.mark.parametrize("handlers", [None, {"Foo_state": nothing}], ids=["bare", "handled"])
def test_a_transition_says_what_it_did(handlers: Any) -> None:
    traced = Traced()
    states = {"Foo": State(add="Bar"), "Bar": State(), "Baz": State()}
    machine = traced.machine(states, handlers=handlers, log_args=["key"])
    machine.add("Baz")
    before = machine.time()
    numbers: list[int] = []
    machine.on("Foo_state", lambda event: numbers.append(event.transition.id))
    machine.add("Foo", key=17, secret="s")
    span = traced.one("transition", "[add] Foo")
    assert dict(span.attributes or {}) == {
        "asyncmachine.span": "transition",
        "asyncmachine.machine.id": "m",
        "asyncmachine.transition.id": numbers[0],
        "asyncmachine.transition.kind": "add",
        "asyncmachine.transition.called": ("Foo",),
        "asyncmachine.transition.auto": False,
        "asyncmachine.transition.accepted": True,
        "asyncmachine.transition.outcome": "executed",
        "asyncmachine.transition.time_before": before,
        "asyncmachine.transition.time_after": machine.time(),
        "asyncmachine.transition.diff": "Foo+1 Bar+1",
        "asyncmachine.args.key": "17",
    }
    assert span.status.status_code is StatusCode.UNSET


def test_a_bare_transition_says_the_same_as_one_that_calls_something() -> None:
    told = []
    for handlers in (None, {"Foo_state": nothing}):
        traced = Traced()
        traced.machine("Foo Bar", handlers=handlers, log_args=["a"]).add("Foo", a="x" * 30)
        attributes = dict(traced.one("transition").attributes or {})
        assert attributes.pop("asyncmachine.transition.id")
        told.append(attributes)
    assert told[0] == told[1]
    assert told[0]["asyncmachine.args.a"] == "x" * 17 + "..."


def test_whatever_moves_is_told_the_same_whether_something_is_called_or_not() -> None:
    states = {
        "Foo": State(add="Bar"),
        "Bar": State(remove="Baz"),
        "Baz": State(),
        "Hit": State(multi=True),
        "Auto": State(auto=True, require=["Foo", "Hit"]),
    }
    names = list(states)
    told = []
    for handlers in (None, {"Any_enter": nothing, "Any_state": nothing}):
        traced = Traced(skip="Baz")
        machine = traced.machine(states, handlers=handlers, log_args=["a"])
        for number in range(200):
            kind = ("add", "set", "remove", "toggle")[number % 7 % 4]
            called = [name for i, name in enumerate(names) if number * 37 >> i & 1]
            getattr(machine, kind)(*called, a=number)
        machine.dispose()
        of_transitions = [dict(span.attributes or {}) for span in traced.of("transition")]
        for each in of_transitions:
            assert each.pop("asyncmachine.transition.id")
        assert (
            max(str(each["asyncmachine.transition.diff"]).count("+") for each in of_transitions) > 2
        )
        place = {identity(span): i for i, span in enumerate(traced.of("transition"))}
        told.append(
            (
                of_transitions,
                [[place[link] for link in links(span)] for span in traced.of("transition")],
                sorted(
                    (span.name, get(span, "state.tick"), [place[link] for link in links(span)])
                    for span in traced.of("activation")
                ),
            )
        )
        assert_nested(traced.spans)
    assert told[0] == told[1]


def test_a_handler_says_what_it_is() -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_enter": nothing, "Foo_state": nothing})
    machine.add("Foo")
    asked, told = traced.of("handler")
    assert dict(asked.attributes or {}) == {
        "asyncmachine.span": "handler",
        "asyncmachine.machine.id": "m",
        "asyncmachine.handler.name": "Foo_enter",
        "asyncmachine.handler.phase": "negotiation",
    }
    assert get(told, "handler.phase") == "final"
    assert parent(asked) == parent(told) == identity(traced.one("transition"))


def test_a_transition_that_the_relations_refuse_is_rejected() -> None:
    traced = Traced()
    machine = traced.machine({"Foo": State(require="Bar"), "Bar": State()})
    assert not machine.add("Foo")
    span = traced.one("transition", "[add] Foo")
    assert get(span, "transition.accepted") is False
    assert get(span, "transition.outcome") == "rejected"
    assert get(span, "transition.diff") == ""
    assert get(span, "transition.time_after") == get(span, "transition.time_before") == (0, 0, 0)
    assert traced.of("activation") == []


@pytest.mark.parametrize("handlers", [True, False])
def test_a_veto_is_told_with_the_handler(handlers: bool) -> None:
    traced = Traced(handlers=handlers)
    machine = traced.machine("Foo", handlers={"Foo_enter": refuse, "Any_Foo": nothing})
    assert not machine.add("Foo")
    span = traced.one("transition")
    assert get(span, "transition.outcome") == "vetoed"
    assert get(span, "transition.accepted") is False
    assert get(span, "transition.vetoed_by") == ("Foo_enter" if handlers else None)
    assert [each.name for each in traced.of("handler")] == ["Any_Foo", "Foo_enter"] * handlers
    machine.dispose()
    assert traced.of("activation") == []


# Activations ----------------------------------------------------------------------------


def test_an_activation_lasts_from_one_transition_to_another() -> None:
    traced = Traced()
    machine = traced.machine("Foo")
    machine.add("Foo")
    machine.remove("Foo")
    span = traced.one("activation")
    assert dict(span.attributes or {}) == {
        "asyncmachine.span": "activation",
        "asyncmachine.machine.id": "m",
        "asyncmachine.state.name": "Foo",
        "asyncmachine.state.tick": 1,
    }
    added, removed = traced.of("transition")
    assert links(span) == [identity(added)]
    assert (added.start_time or 0) <= (span.start_time or 0) <= (added.end_time or 0)
    assert (removed.start_time or 0) <= (span.end_time or 0) <= (removed.end_time or 0)


def test_a_multi_state_that_is_called_again_ends_one_activation_and_opens_the_next() -> None:
    traced = Traced()
    machine = traced.machine({"Hit": State(multi=True)})
    for _ in range(3):
        machine.add("Hit")
    assert [get(span, "state.tick") for span in traced.of("activation")] == [1, 3]
    machine.dispose()
    activations = traced.of("activation")
    assert [get(span, "state.tick") for span in activations] == [1, 3, 5]
    for before, after in pairwise(activations):
        assert before.end_time == after.start_time
    assert [links(span) for span in activations] == [
        [identity(span)] for span in traced.of("transition")
    ]


def test_an_activation_begins_before_the_final_handlers() -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_state": nothing})
    machine.add("Foo")
    machine.dispose()
    assert (traced.one("activation").start_time or 0) <= (traced.one("handler").start_time or 0)


def test_activations_follow_clocks_that_have_been_imported() -> None:
    traced = Traced()
    machine = traced.machine("Foo Bar")
    other = Machine({"Foo": State(), "Bar": State()}, id="m")
    other.set("Bar")
    machine.add("Foo")
    machine.import_state(other.export_state())
    machine.add("Foo")
    machine.dispose()
    assert [span.name for span in traced.of("activation")].count("Foo") == 2
    assert [span.name for span in traced.of("activation")].count("Bar") == 1


@pytest.mark.parametrize("handlers", [None, {"Any_enter": nothing}], ids=["bare", "handled"])
def test_what_was_imported_never_ends_before_it_begins(handlers: Any) -> None:
    traced = Traced()
    machine = traced.machine("Foo Bar", handlers=handlers)
    machine.import_state({"names": ["Foo", "Bar"], "ticks": [3, 0]})
    machine.set("Bar")
    machine.dispose()
    assert [get(span, "state.tick") for span in traced.of("activation", "Foo")] == [3]
    assert_nested(traced.spans)


@pytest.mark.parametrize("handlers", [None, {"Foo_state": nothing}], ids=["bare", "handled"])
def test_the_span_of_a_name_begins_with_its_first_activation(handlers: Any) -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers=handlers)
    for _ in range(3):
        machine.toggle("Foo")
    machine.dispose()
    first, _ = traced.of("activation", "Foo")
    assert traced.one("state", "Foo").start_time == first.start_time


# Errors ---------------------------------------------------------------------------------


def test_an_error_in_the_negotiation_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_enter": fail})
    machine.add("Foo")
    span, handler = traced.one("transition", "[add] Foo"), traced.one("handler")
    assert get(span, "transition.outcome") == "failed"
    for each in (span, handler):
        assert each.status.status_code is StatusCode.ERROR
        assert "it is not there" in (each.status.description or "")
        (event,) = each.events
        assert event.name == "exception"
        assert (event.attributes or {})["exception.type"] == "LookupError"
    alarm = traced.one("transition", "[add] Exception")
    assert links(alarm) == [identity(span)]
    machine.dispose()
    assert [each.name for each in traced.of("activation")] == ["Exception"]


def test_states_that_an_error_has_put_back_end_where_their_clocks_say() -> None:
    traced = Traced()
    machine = traced.machine("Foo Bar Baz", handlers={"Bar_state": fail})
    machine.add("Foo")
    machine.set("Bar", "Baz")
    assert machine.is_active("Exception")
    machine.dispose()
    clocks = machine.clock()
    for name, tick in clocks.items():
        ticks = [get(span, "state.tick") for span in traced.of("activation", name)]
        assert ticks == list(range(1, tick + 1, 2)), name
    span = traced.one("transition", "[set] Bar Baz")
    assert get(span, "transition.outcome") == "failed"
    before, after = get(span, "transition.time_before"), get(span, "transition.time_after")
    assert isinstance(before, tuple)
    assert isinstance(after, tuple)
    moved = [b - a for a, b in zip(before, after)]
    told = " ".join(f"{n}+{by}" for n, by in zip(machine.schema.names, moved) if by)
    assert get(span, "transition.diff") == told
    assert [each.name for each in traced.of("handler") if each.status.status_code.name == "ERROR"]


def test_an_error_that_can_not_be_told_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class NastyError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def raise_it(event: Event) -> None:
        raise NastyError

    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_state": raise_it})
    machine.add("Foo")
    assert traced.one("transition", "[add] Foo").status.status_code is StatusCode.ERROR
    assert machine.is_active("Exception")


def test_a_handler_that_is_interrupted_ends_its_spans() -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_state": interrupt})
    with pytest.raises(KeyboardInterrupt):
        machine.add("Foo")
    assert traced.one("handler").name == "Foo_state"
    assert get(traced.one("transition"), "transition.time_after") == machine.time()
    assert not get_current_span().get_span_context().is_valid
    machine.dispose()
    assert_nested(traced.spans)


def test_an_error_that_is_raised_to_the_caller_is_recorded() -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_state": fail}, catch_errors=False)
    with pytest.raises(LookupError):
        machine.add("Foo")
    assert traced.one("transition").status.status_code is StatusCode.ERROR
    assert not get_current_span().get_span_context().is_valid


# Causes ---------------------------------------------------------------------------------


def test_an_auto_transition_is_linked_to_what_it_follows() -> None:
    traced = Traced()
    machine = traced.machine({"Foo": State(), "Bar": State(auto=True, require="Foo")})
    machine.add("Foo")
    first, auto = traced.of("transition")
    assert get(auto, "transition.auto") is True
    assert auto.name == "[add] Bar"
    assert links(auto) == [identity(first)]


def test_what_a_handler_requests_is_linked_to_its_transition() -> None:
    traced = Traced()
    machine = traced.machine(
        "Foo Bar", handlers={"Foo_state": lambda event: event.machine.add("Bar") and None}
    )
    machine.add("Foo")
    asking, asked = traced.of("transition")
    assert (asking.name, asked.name) == ("[add] Foo", "[add] Bar")
    assert links(asked) == [identity(asking)]


@pytest.mark.parametrize("handlers", [True, False])
def test_what_a_handler_requests_of_another_machine_is_linked(handlers: bool) -> None:
    traced = Traced(handlers=handlers)
    other = traced.machine("Bar", id="other")
    machine = traced.machine("Foo", handlers={"Foo_state": lambda event: other.add("Bar") and None})
    machine.add("Foo")
    asked, asking = traced.of("transition")
    assert links(asked) == [identity(asking)]
    assert get(asked, "machine.id") == "other"


def test_what_a_pipe_carries_is_linked() -> None:
    traced = Traced()
    source, target = traced.machine("Foo", id="source"), traced.machine("Bar", id="target")
    with pipe(source, "Foo", target, "Bar"):
        source.add("Foo")
    carried, first = traced.one("transition", "[add] Bar"), traced.one("transition", "[add] Foo")
    assert links(carried) == [identity(first)]


@pytest.mark.parametrize("handlers", [None, {"Foo_state": nothing}], ids=["bare", "handled"])
def test_what_a_waiters_callback_requests_is_linked_to_what_has_set_it(handlers: Any) -> None:
    traced = Traced()
    other = traced.machine("Bar", id="other")
    machine = traced.machine("Foo", handlers=handlers)
    machine.when("Foo").on_done(lambda waiter: other.add("Bar"))
    machine.add("Foo")
    asked, asking = traced.one("transition", "[add] Bar"), traced.one("transition", "[add] Foo")
    assert links(asked) == [identity(asking)]


def test_a_transition_is_linked_to_the_span_that_is_current() -> None:
    traced = Traced()
    machine = traced.machine("Foo")
    with traced.provider.get_tracer("mine").start_as_current_span("work") as span:
        machine.add("Foo")
    context = span.get_span_context()
    assert links(traced.one("transition")) == [(context.trace_id, context.span_id)]
    machine.remove("Foo")
    assert links(traced.one("transition", "[remove] Foo")) == []


def test_what_had_to_wait_is_linked_to_the_span_it_was_requested_in() -> None:
    traced = Traced()
    machine = traced.machine("Foo Bar")
    mine = traced.provider.get_tracer("mine")
    with busy(machine):
        with mine.start_as_current_span("work") as span:
            result = machine.send("add", "Foo")
        machine.send("add", "Bar")
    assert result.wait(PATIENCE)
    machine.eval(lambda: None)
    context = span.get_span_context()
    assert links(traced.one("transition", "[add] Foo")) == [(context.trace_id, context.span_id)]
    assert links(traced.one("transition", "[add] Bar")) == []


def test_a_span_that_is_opened_in_a_callback_is_not_taken_for_the_one_around_it() -> None:
    traced = Traced()
    mine = traced.provider.get_tracer("mine")
    machine, other = traced.machine("Foo"), traced.machine("Bar", id="other")

    def ask() -> None:
        with mine.start_as_current_span("inner"):
            other.toggle("Bar")

    machine.when("Foo").on_done(lambda waiter: ask())
    with mine.start_as_current_span("outer") as span:
        machine.add("Foo")
    machine.remove("Foo")
    machine.when("Foo").on_done(lambda waiter: ask())
    machine.add("Foo")
    context = span.get_span_context()
    first, second = traced.of("transition", "[add] Foo")
    assert links(first) == [(context.trace_id, context.span_id)]
    assert links(second) == []
    assert links(traced.one("transition", "[add] Bar")) == [identity(first)]
    assert links(traced.one("transition", "[remove] Bar")) == [identity(second)]


def test_a_cause_of_another_process_is_not_taken_for_one_of_the_same_name_here() -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_state": nothing})
    machine.add("Foo")
    number = get(traced.one("transition"), "transition.id")
    assert isinstance(number, int)
    machine.deliver("remove", ("Foo",), {}, ("far",), cause=Cause("m", number))
    machine.eval(lambda: None, timeout=PATIENCE)
    machine.accept("add", ("Foo",), {}, cause=Cause("m", number))
    assert [links(span) for span in traced.of("transition")] == [[], [], []]


# What is current ------------------------------------------------------------------------


def test_spans_that_a_handler_opens_are_below_its_own() -> None:
    traced = Traced()
    mine = traced.provider.get_tracer("mine")

    def work(event: Event) -> None:
        with mine.start_as_current_span("work"):
            pass

    traced.machine("Foo", handlers={"Foo_state": work}).add("Foo")
    (span,) = [each for each in traced.spans if each.name == "work"]
    assert parent(span) == identity(traced.one("handler"))
    assert not get_current_span().get_span_context().is_valid


def test_without_handler_spans_those_are_below_the_transition() -> None:
    traced = Traced(handlers=False)
    seen: list[tuple[int, int]] = []

    def look(event: Event) -> None:
        context = get_current_span().get_span_context()
        seen.append((context.trace_id, context.span_id))

    traced.machine("Foo", handlers={"Foo_enter": look, "Foo_state": look}).add("Foo")
    assert seen == [identity(traced.one("transition"))] * 2


def test_a_listener_sees_the_transition_as_current() -> None:
    traced = Traced()
    seen: list[tuple[int, int]] = []
    machine = traced.machine("Foo")

    def look(event: Event) -> None:
        context = get_current_span().get_span_context()
        seen.append((context.trace_id, context.span_id))

    machine.on("Foo_state", look)
    machine.add("Foo")
    assert seen == [identity(traced.one("transition"))]


def test_log_lines_are_events_and_are_written_in_the_span() -> None:
    traced = Traced()
    seen: list[tuple[str, int]] = []

    class Catching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.getMessage(), get_current_span().get_span_context().span_id))

    logger = logging.getLogger("asyncmachine")
    catching, level = Catching(), logger.level
    logger.addHandler(catching)
    logger.setLevel(logging.INFO)
    try:
        traced.machine("Foo Bar", log_level=LogLevel.OPS).add("Foo")
    finally:
        logger.removeHandler(catching)
        logger.setLevel(level)
    span = traced.one("transition")
    lines = [(event.attributes or {})["asyncmachine.log.line"] for event in span.events]
    assert lines
    assert all(event.name == "asyncmachine.log" for event in span.events)
    assert [f"[m] {line}" for line in lines] == [message for message, _ in seen]
    assert {number for _, number in seen} == {identity(span)[1]}


# Options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, {"machine", "states", "state", "activation", "transitions", "transition", "handler"}),
        ({"states": False}, {"machine", "transitions", "transition", "handler"}),
        (
            {"handlers": False},
            {"machine", "states", "state", "activation", "transitions", "transition"},
        ),
        ({"transitions": False}, {"machine", "states", "state", "activation"}),
        ({"transitions": False, "states": False}, {"machine"}),
        ({"handlers": False, "states": False}, {"machine", "transitions", "transition"}),
    ],
)
def test_only_the_spans_that_are_wanted_are_made(options: Any, kinds: set[str]) -> None:
    traced = Traced(**options)
    with traced.machine("Foo", handlers={"Foo_state": nothing}) as machine:
        machine.add("Foo")
        machine.remove("Foo")
    assert {get(span, "span") for span in traced.spans} == kinds


def hooks(tracer: OtelTracer) -> set[str]:
    registered = Tracers((tracer,))
    return {hook for hook in HOOKS if getattr(registered, hook)}


LIFE = {"machine_init", "machine_dispose", "submachine"}


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"transitions": False, "states": False}, set()),
        ({"transitions": False}, {"transition_end", "handler_start"}),
        (
            {"handlers": False, "states": False},
            {"transition_init", "transition_end", "mutation_queued"},
        ),
        (
            {"states": False},
            {
                "transition_init",
                "transition_end",
                "mutation_queued",
                "handler_start",
                "handler_end",
            },
        ),
    ],
)
def test_hooks_that_are_not_needed_are_not_registered(options: Any, needed: set[str]) -> None:
    assert hooks(Traced(**options).tracer) - LIFE == needed


def test_only_allowed_states_and_what_calls_them_are_told() -> None:
    traced = Traced(allow=["Foo", "Bar"])
    with traced.machine("Foo Bar Baz", handlers={"Baz_state": nothing}) as machine:
        machine.add("Foo", "Baz")
        machine.remove("Baz")
        machine.add("Baz")
    assert [span.name for span in traced.of("transition")] == ["[add] Foo Baz"]
    assert [span.name for span in traced.of("activation")] == ["Foo"]
    assert [span.name for span in traced.of("state")] == ["Foo"]


def test_skipped_states_and_what_calls_only_them_are_left_out() -> None:
    traced = Traced(skip="Foo")
    with traced.machine("Foo Bar", handlers={"Foo_state": nothing}) as machine:
        machine.add("Foo")
        machine.set("Foo", "Bar")
    assert [span.name for span in traced.of("transition")] == ["[set] Foo Bar"]
    assert [span.name for span in traced.of("activation")] == ["Bar"]
    assert traced.of("handler") == []


def test_an_activation_is_told_though_no_called_state_is_allowed() -> None:
    traced = Traced(allow="Bar")
    with traced.machine({"Foo": State(add="Bar"), "Bar": State()}) as machine:
        machine.add("Foo")
    assert traced.of("transition") == []
    assert links(traced.one("activation")) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tracer_provider": "here"}, "tracer_provider must be a TracerProvider, not 'here'"),
        ({"tracer_provider": NoOpTracerProvider}, "must be a TracerProvider, not <class "),
        ({"allow": 7}, "allow takes names of states, not 7"),
        ({"skip": ["Foo", 7]}, "skip takes names of states, not 7"),
    ],
)
def test_wrong_options_are_refused(options: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        OtelTracer(**options)


# The end --------------------------------------------------------------------------------


def test_disposal_in_a_handler_ends_what_is_open() -> None:
    traced = Traced()

    def dispose(event: Event) -> None:
        event.machine.dispose()

    machine = traced.machine("Foo Bar", handlers={"Foo_state": dispose})
    machine.add("Bar")
    machine.add("Foo")
    assert machine.is_disposed
    assert {"m", "states", "transitions", "[add] Foo", "Foo_state"} <= {
        span.name for span in traced.spans
    }
    assert_nested(traced.spans)
    assert not get_current_span().get_span_context().is_valid


def test_close_ends_the_spans_of_all_machines_and_makes_no_more() -> None:
    traced = Traced()
    machines = [traced.machine("Foo", id=f"m{i}") for i in range(3)]
    Machine({"Bar": State()}, id="low", parent=machines[0]).add("Bar")
    for machine in machines:
        machine.add("Foo")
    traced.tracer.close()
    assert len(traced.of("machine")) == 4
    assert len(traced.of("activation")) == 4
    assert_nested(traced.spans)
    number = len(traced.spans)
    for machine in machines:
        machine.remove("Foo")
        machine.dispose()
    traced.machine("Baz").add("Baz")
    traced.tracer.close()
    assert len(traced.spans) == number


def test_spans_of_a_machine_that_is_forgotten_end_soon() -> None:
    traced = Traced()
    traced.machine("Foo", id="gone").add("Foo")
    gc.collect()
    traced.machine("Foo", id="next")
    assert get(traced.one("machine"), "machine.id") == "gone"
    assert len(traced.of("activation")) == 1


@pytest.mark.parametrize("handlers", [True, False])
def test_who_keeps_the_context_of_a_handler_keeps_no_machine_alive(handlers: bool) -> None:
    traced = Traced(handlers=handlers)
    kept: list[Context] = []
    machine = traced.machine(
        "Foo", handlers={"Foo_state": lambda event: kept.append(get_current())}
    )
    machine.add("Foo")
    gone = ref(machine)
    del machine
    gc.collect()
    assert kept
    assert gone() is None


def test_a_tracer_may_be_added_twice() -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_enter": nothing, "Foo_state": nothing})
    machine.add_tracer(traced.tracer)
    machine.add("Foo")
    machine.remove("Foo")
    machine.dispose()
    assert len(traced.of("transition")) == 2
    assert len(traced.of("handler")) == 2
    assert len(traced.of("activation")) == 1
    assert len(traced.of("machine")) == 1
    assert_nested(traced.spans)
    assert not get_current_span().get_span_context().is_valid


def test_a_tracer_that_is_removed_hears_nothing_more() -> None:
    traced = Traced()
    machine = Machine({"Foo": State()}, id="m")
    binding = machine.add_tracer(traced.tracer)
    machine.add("Foo")
    binding.unbind()
    machine.remove("Foo")
    machine.dispose()
    assert [span.name for span in traced.spans] == ["[add] Foo"]
    traced.tracer.close()
    assert "m" in [span.name for span in traced.spans]


def test_two_tracers_tell_of_one_machine_independently() -> None:
    first, second = Traced(), Traced()
    machine = first.machine(
        "Foo Bar", handlers={"Foo_state": lambda event: event.machine.add("Bar") and None}
    )
    machine.add_tracer(second.tracer)
    machine.add("Foo")
    machine.dispose()
    for traced in (first, second):
        asking, asked = traced.of("transition")
        assert links(asked) == [identity(asking)]
        assert traced.tree() == first.tree()
        assert_nested(traced.spans)
    assert not get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("kind", ["handlers", "listener", "log"])
def test_two_tracers_link_to_the_same_span_that_is_current(kind: str) -> None:
    first, second = Traced(handlers=False), Traced(handlers=False)
    handlers = {"Foo_state": nothing} if kind == "handlers" else None
    machine = first.machine("Foo", handlers=handlers)
    machine.add_tracer(second.tracer)
    if kind == "listener":
        machine.on("Foo_state", nothing)
    elif kind == "log":
        machine.log_level = LogLevel.OPS
    with first.provider.get_tracer("mine").start_as_current_span("work") as span:
        machine.add("Foo")
    machine.remove("Foo")
    context = span.get_span_context()
    for traced in (first, second):
        asked, later = traced.of("transition")
        assert links(asked) == [(context.trace_id, context.span_id)]
        assert links(later) == []


def test_without_an_sdk_the_machine_goes_on() -> None:
    assert get_tracer_provider() is not None
    for provider in (None, NoOpTracerProvider()):
        handlers = {"Foo_enter": nothing, "Foo_state": nothing}
        with Machine(
            {"Foo": State()}, tracers=[OtelTracer(provider)], handlers=handlers
        ) as machine:
            assert machine.add("Foo")
            assert machine.remove("Foo")


def test_asking_makes_no_spans() -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_enter": nothing})
    assert machine.can_add("Foo")
    assert traced.spans == []
    assert machine.add("Foo")
    assert len(traced.of("handler")) == 1


def test_what_an_untraced_machine_requests_is_linked_to_the_span_around_it() -> None:
    traced = Traced()
    machine = traced.machine("Foo")
    untraced = Machine(
        {"Ask": State()}, handlers={"Ask_state": lambda event: machine.add("Foo") and None}
    )
    with traced.provider.get_tracer("mine").start_as_current_span("work") as span:
        untraced.add("Ask")
    context = span.get_span_context()
    assert links(traced.one("transition")) == [(context.trace_id, context.span_id)]


def test_what_a_skipped_transition_requests_is_linked_to_the_span_around_it() -> None:
    traced = Traced(skip="Ask")
    machine = traced.machine(
        "Ask Foo", handlers={"Ask_state": lambda event: event.machine.add("Foo") and None}
    )
    with traced.provider.get_tracer("mine").start_as_current_span("work") as span:
        machine.add("Ask")
    context = span.get_span_context()
    assert links(traced.one("transition")) == [(context.trace_id, context.span_id)]


def test_a_transition_that_is_cut_off_is_unfinished() -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers={"Foo_state": lambda event: traced.tracer.close()})
    machine.add("Foo")
    assert get(traced.one("transition"), "transition.outcome") == "unfinished"


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("handlers", [None, {"Foo_state": nothing}], ids=["bare", "handled"])
def test_what_comes_with_a_trace_is_linked_to_that(handlers: Any) -> None:
    traced = Traced()
    machine = traced.machine("Foo", handlers=handlers)
    machine.deliver("add", ("Foo",), {}, (), trace=TRACE)
    machine.eval(lambda: None, timeout=PATIENCE)
    expected = (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    assert links(traced.one("transition")) == [expected]


@pytest.mark.parametrize("trace", ["nonsense", TRACE[:-3], TRACE.replace("0", "x"), "00-" * 1000])
def test_what_comes_with_nonsense_is_linked_to_nothing(trace: str) -> None:
    traced = Traced()
    machine = traced.machine("Foo")
    machine.deliver("add", ("Foo",), {}, (), trace=trace)
    machine.eval(lambda: None, timeout=PATIENCE)
    assert links(traced.one("transition")) == []
