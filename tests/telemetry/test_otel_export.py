"""Traces over real HTTP, to an OTLP receiver that parses the protobuf; across processes, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from asyncmachine import Event, LogLevel, Machine, State, pipe
from asyncmachine.net import Network, RemoteMachine, connect, serve
from asyncmachine.telemetry.otel import OtelTracer
from asyncmachine.tracing import propagate_with
from tests.races import PATIENCE, busy
from tests.telemetry.exporting import PROVIDERS, flush, make, make_beside_a_double, provider_to
from tests.telemetry.otlp_receiver import Received, Receiver, receiving
from tests.telemetry.spanning import Traced

HERE = "service of near"

Spawn: TypeAlias = Callable[..., RemoteMachine]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    token = attach(Context())
    with receiving() as running:
        yield running
    detach(token)


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network(processes=2, id="net", call_timeout=PATIENCE) as network:
        yield network


def transition(receiver: Receiver, machine: str, name: str = "[add] Hit") -> Received:
    return receiver.one("transition", name, machine)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_arrives_is_what_has_happened(receiver: Receiver, zipped: bool) -> None:
    provider = provider_to(receiver.endpoint, "mine", zipped=zipped)

    def fail(event: Event) -> None:
        raise LookupError("it is not there")

    with Machine(
        {"Foo": State(), "Bar": State()},
        id="m",
        tags=["a", "b"],
        tracers=[OtelTracer(provider)],
        handlers={"Bar_state": fail},
        log_args=["key"],
    ) as machine:
        machine.add("Foo", key="täg")
        machine.add("Bar")
        clocks = machine.time()
    assert provider.force_flush()
    provider.shutdown()
    added = transition(receiver, "m", "[add] Foo")
    assert added.attributes == {
        "asyncmachine.span": "transition",
        "asyncmachine.machine.id": "m",
        "asyncmachine.transition.id": added.attributes["asyncmachine.transition.id"],
        "asyncmachine.transition.kind": "add",
        "asyncmachine.transition.called": ("Foo",),
        "asyncmachine.transition.auto": False,
        "asyncmachine.transition.accepted": True,
        "asyncmachine.transition.outcome": "executed",
        "asyncmachine.transition.time_before": (0, 0, 0),
        "asyncmachine.transition.time_after": (1, 0, 0),
        "asyncmachine.transition.diff": "Foo+1",
        "asyncmachine.args.key": "täg",
    }
    assert isinstance(added.attributes["asyncmachine.transition.id"], int)
    assert added.resource["service.name"] == "mine"
    root = receiver.one("machine", "m", "m")
    assert root.attributes["asyncmachine.machine.tags"] == ("a", "b")
    assert root.parent_id == b""
    transitions = receiver.one("transitions", "transitions", "m")
    assert (added.parent_id, transitions.parent_id) == (transitions.span_id, root.span_id)
    activation = receiver.one("activation", "Foo", "m")
    assert activation.links == [added.here]
    state = receiver.one("state", "Foo", "m")
    assert activation.parent_id == state.span_id
    assert state.parent_id == receiver.one("states", "states", "m").span_id
    failed = transition(receiver, "m", "[add] Bar")
    handler = receiver.one("handler", "Bar_state", "m")
    for span in (failed, handler):
        assert span.failed
        ((name, event),) = span.events
        assert name == "exception"
        assert event["exception.type"] == "LookupError"
        assert event["exception.message"] == "it is not there"
    assert handler.parent_id == failed.span_id
    alarm = transition(receiver, "m", "[add] Exception")
    assert alarm.links == [failed.here]
    assert alarm.attributes["asyncmachine.transition.time_after"] == clocks
    assert {span.trace_id for span in receiver.spans} == {root.trace_id}
    assert all(0 < span.start_ns <= span.end_ns <= root.end_ns for span in receiver.spans)


def test_texts_that_can_not_be_encoded_cost_no_spans(receiver: Receiver) -> None:
    odd, told = "caf\udce9.txt", r"caf\udce9.txt"  # a file name that is no UTF-8
    provider = provider_to(receiver.endpoint, "mine")

    def fail(event: Event) -> None:
        raise LookupError(odd)

    with Machine(
        {"Foo": State()},
        id=odd,
        tags=[odd],
        tracers=[OtelTracer(provider)],
        handlers={"Foo_state": fail},
        log_args=["path"],
        log_level=LogLevel.OPS,
    ) as machine:
        Machine({"Bar": State()}, id="low", parent=machine).add("Bar")
        machine.add("Foo", path=odd)
    assert provider.force_flush()
    provider.shutdown()
    assert receiver.one("machine", told, told).attributes["asyncmachine.machine.tags"] == (told,)
    assert receiver.one("machine", "low", "low").attributes["asyncmachine.machine.parent"] == told
    failed = transition(receiver, told, "[add] Foo")
    assert failed.attributes["asyncmachine.args.path"] == told
    (exception,) = (event for name, event in failed.events if name == "exception")
    assert exception["exception.message"] == told
    assert told in str(exception["exception.stacktrace"])
    lines = [event["asyncmachine.log.line"] for name, event in failed.events if "log" in name]
    assert f"[add] Foo (path={told})" in lines
    alarm = transition(receiver, told, "[add] Exception")
    assert alarm.links == [failed.here]
    assert receiver.one("handler", "Foo_state", told).failed
    assert receiver.one("activation", "Exception", told).links == [alarm.here]


@pytest.mark.parametrize("answer", [400, 503])
def test_a_receiver_that_refuses_harms_no_machine(receiver: Receiver, answer: int) -> None:
    receiver.answer = answer
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=receiver.endpoint, timeout=1)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1))
    with Machine({"Foo": State()}, id="m", tracers=[OtelTracer(provider)]) as machine:
        machine.add("Foo")
        with receiver.changed:
            assert receiver.changed.wait_for(lambda: receiver.requests > 0, PATIENCE)
        assert machine.remove("Foo")
    provider.shutdown()
    assert receiver.spans == []


def test_a_receiver_that_is_gone_harms_no_machine() -> None:
    with receiving() as receiver:
        endpoint = receiver.endpoint
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=1)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1))
    with Machine({"Foo": State()}, id="m", tracers=[OtelTracer(provider)]) as machine:
        for _ in range(100):
            assert machine.toggle("Foo")
    provider.shutdown()


# Across processes -----------------------------------------------------------------------


def end(*machines: Machine | RemoteMachine) -> None:
    """Have everything exported that machines have told of."""
    for machine in machines:
        if isinstance(machine, RemoteMachine):
            machine.sync(PATIENCE)
            assert machine.eval(flush)
        else:
            assert PROVIDERS[machine.id].force_flush()


@pytest.fixture
def spawned(net: Network, receiver: Receiver) -> Iterator[Spawn]:
    """Builds traced machines in other processes, and ends them and the local ones afterwards."""
    made: list[RemoteMachine] = []

    def spawn(machine_id: str, *args: object, process: int = 0) -> RemoteMachine:
        made.append(net.spawn(make, machine_id, receiver.endpoint, *args, process=process))
        return made[-1]

    yield spawn
    for remote in made:
        remote.dispose()


@pytest.fixture(autouse=True)
def _providers() -> Iterator[None]:
    yield
    for provider in PROVIDERS.values():
        provider.shutdown()
    PROVIDERS.clear()
    propagate_with(None)


@pytest.mark.parametrize("kind", ["add", "send"])
def test_what_a_handler_requests_of_another_process_is_linked(
    spawned: Spawn, receiver: Receiver, kind: str
) -> None:
    remote = spawned("far", process=0)
    near = make("near", receiver.endpoint)

    def ask(event: Event) -> None:
        assert remote.add("Hit") if kind == "add" else remote.send("add", "Hit")

    near.bind({"Hit_state": ask})
    near.add("Hit")
    end(near, remote)
    caused, cause = transition(receiver, "far"), transition(receiver, "near")
    assert caused.links == [cause.here]
    assert caused.trace_id != cause.trace_id
    assert caused.resource["service.name"] == "service of far"
    assert caused.resource["service.name"] != cause.resource["service.name"]


def test_what_is_requested_in_a_users_span_is_linked_to_that(
    spawned: Spawn, receiver: Receiver
) -> None:
    remote = spawned("far", process=0)
    near = make("near", receiver.endpoint)
    with PROVIDERS["near"].get_tracer("mine").start_as_current_span("work") as span:
        remote.add("Hit")
    end(near, remote)
    context = span.get_span_context()
    expected = context.trace_id.to_bytes(16), context.span_id.to_bytes(8)
    assert transition(receiver, "far").links == [expected]
    remote.remove("Hit")
    end(remote)
    assert transition(receiver, "far", "[remove] Hit").links == []


def test_a_machine_of_the_same_id_in_another_process_is_not_mistaken_for_the_cause(
    net: Network, receiver: Receiver
) -> None:
    near = make("near", receiver.endpoint)
    far = net.spawn(make_beside_a_double, "far", receiver.endpoint, "near", process=0)
    near.bind({"Hit_state": lambda event: far.send("add", "Hit") and None})
    for tick in range(1, 60, 2):
        near.add("Hit")
        assert far.when_tick("Hit", tick).wait(PATIENCE)
    end(near, far)
    caused = [span for span in receiver.spans if span.resource["service.name"] != HERE]
    links = [
        link
        for span in caused
        if span.kind == "transition" and span.attributes["asyncmachine.machine.id"] == "far"
        for link in span.links
    ]
    mine = {
        span.here
        for span in receiver.spans
        if span.kind == "transition" and span.resource["service.name"] == HERE
    }
    assert len(links) == len(set(links)) == 30
    assert set(links) == mine
    far.dispose()


def test_a_chain_of_processes_is_linked_from_one_to_the_next(
    spawned: Spawn, receiver: Receiver
) -> None:
    last = spawned("last", process=1)
    middle = spawned("middle", last, process=0)
    first = make("first", receiver.endpoint, middle)
    first.add("Hit")
    assert last.when_tick("Hit", 1).wait(PATIENCE)
    end(first, middle, last)
    assert transition(receiver, "middle").links == [transition(receiver, "first").here]
    assert transition(receiver, "last").links == [transition(receiver, "middle").here]
    assert len({span.resource["service.name"] for span in receiver.spans}) == 3


def test_a_pipe_between_two_processes_links_what_it_carries(
    spawned: Spawn, receiver: Receiver
) -> None:
    source = spawned("source", process=0)
    target = spawned("target", process=1)
    with pipe(source, "Foo", target, "Hit", on="add"):
        came = target.when("Hit")
        source.add("Foo")
        assert came.wait(PATIENCE)
    end(source, target)
    cause = transition(receiver, "source", "[add] Foo")
    assert transition(receiver, "target").links == [cause.here]


def test_a_served_machine_that_is_busy_links_to_the_other_side(
    tmp_path: Path, receiver: Receiver
) -> None:
    near, served = make("near", receiver.endpoint), make("served", receiver.endpoint)
    with (
        serve(served, f"unix:{tmp_path}/s") as server,
        connect(server.address) as remote,
    ):
        near.bind({"Hit_state": lambda event: remote.send("add", "Hit") and None})
        with busy(served):
            near.add("Hit")
            remote.sync(PATIENCE)
        assert served.when_tick("Hit", 1).wait(PATIENCE)
        served.eval(lambda: None)
    end(near, served)
    assert transition(receiver, "served").links == [transition(receiver, "near").here]


def test_spans_of_a_process_are_exported_when_its_machine_is_disposed(
    spawned: Spawn, receiver: Receiver
) -> None:
    remote = spawned("far", process=0)
    keeper = spawned("keeper", process=0)
    remote.add("Hit")
    remote.dispose()
    assert keeper.eval(flush_far)
    assert receiver.one("machine", "far", "far").parent_id == b""
    assert receiver.one("activation", "Hit", "far").links == [transition(receiver, "far").here]


def flush_far(machine: Machine) -> bool:
    """Asked for in the process of a machine that has been disposed."""
    return PROVIDERS["far"].force_flush()


def test_a_remote_machine_is_traced_where_it_lives_and_not_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traced = Traced()
    served = Machine({"Foo": State()}, id="served")
    with (
        serve(served, f"unix:{tmp_path}/s") as server,
        connect(server.address) as remote,
    ):
        remote.add_tracer(traced.tracer)
        for _ in range(5):
            remote.toggle("Foo")
        remote.sync(PATIENCE)
    traced.tracer.close()
    assert traced.spans == []
    assert "lives elsewhere: add an OtelTracer there" in caplog.text
    assert caplog.text.count("error in the tracer") == 1
