"""The trace that a mutation belongs to travels with it, on every way to another process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from asyncmachine import Event, Machine, State, Transition, pipe
from asyncmachine.api import MachineAPI
from asyncmachine.net import Network, RemoteMachine, connect, serve
from asyncmachine.tracing import PROPAGATORS, propagate_with, trace_here
from tests.races import PATIENCE, busy


def parent_of(tx: Transition | None) -> str:
    """What stands for a ``traceparent`` here: it says where it was asked for."""
    return f"{tx.machine.id} {' '.join(tx.mutation.states)}" if tx is not None else "nowhere"


class Noting:
    """A machine that tells which trace each activation of Hit came with."""

    made: ClassVar[dict[str, Noting]] = {}

    def __init__(self, machine_id: str) -> None:
        self.traces: list[str] = []
        states = {"Foo": State(), "Hit": State(multi=True)}
        self.machine = Machine(states, id=machine_id, handlers=self)
        self.made[machine_id] = self

    def Hit_state(self, event: Event) -> None:
        self.traces.append(event.mutation.trace)


def make(machine_id: str) -> Machine:
    """Built in another process, which hands traces on, too."""
    propagate_with(parent_of)
    return Noting(machine_id).machine


def traces(machine: Machine) -> list[str]:
    """What `eval` asks for where the machine lives."""
    return Noting.made[machine.id].traces


@pytest.fixture(autouse=True)
def _propagating() -> Iterator[None]:
    propagate_with(parent_of)
    yield
    propagate_with(None)
    assert not PROPAGATORS


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network(processes=2, id="net", call_timeout=PATIENCE) as network:
        yield network


@pytest.fixture
def remote(net: Network) -> Iterator[RemoteMachine]:
    made = net.spawn(make, "r", process=0)
    yield made
    made.dispose()


def _asked_by_a_handler(target: MachineAPI, kind: str) -> None:
    """Have a handler of a local machine request something of another."""

    def ask(event: Event) -> None:
        assert target.send("add", "Hit") if kind == "send" else target.add("Hit")

    Machine({"Ask": State()}, id="asker", handlers={"Ask_state": ask}).add("Ask")


def test_a_call_takes_along_the_trace_of_its_thread(remote: RemoteMachine) -> None:
    remote.add("Hit")
    remote.add("Hit", n=1)
    assert remote.eval(traces) == ["nowhere", "nowhere"]


@pytest.mark.parametrize("kind", ["call", "send"])
def test_what_a_handler_requests_takes_along_the_trace_of_its_transition(
    remote: RemoteMachine, kind: str
) -> None:
    _asked_by_a_handler(remote, kind)
    assert remote.eval(traces) == ["asker Ask"]


def test_what_is_sent_takes_along_the_trace_of_its_thread(remote: RemoteMachine) -> None:
    remote.send("add", "Hit")
    assert remote.eval(traces) == ["nowhere"]


def test_nothing_travels_when_nobody_traces(remote: RemoteMachine) -> None:
    propagate_with(None)
    remote.add("Hit")
    remote.send("add", "Hit")
    _asked_by_a_handler(remote, "send")
    assert remote.eval(traces) == ["", "", ""]


def test_a_pipe_to_another_process_takes_along_the_trace(remote: RemoteMachine) -> None:
    source = Machine({"Foo": State(multi=True)}, id="source")
    with pipe(source, "Foo", remote, "Hit", on="add"):
        source.add("Foo")
        assert remote.when_ticks("Hit", 1).wait(PATIENCE)
        remote.sync(PATIENCE)
    assert remote.eval(traces) == ["source Foo"]


def test_a_pipe_from_another_process_takes_along_the_trace(remote: RemoteMachine) -> None:
    target = Noting("target")
    with pipe(remote, "Foo", target.machine, "Hit", on="add"):
        came = target.machine.when("Hit")
        remote.add("Foo")
        assert came.wait(PATIENCE)
        target.machine.eval(lambda: None)
    assert target.traces == ["r Foo"]


def test_a_pipe_between_two_processes_takes_along_the_trace(
    net: Network, remote: RemoteMachine
) -> None:
    other = net.spawn(make, "other", process=1)
    with pipe(remote, "Foo", other, "Hit", on="add"):
        came = other.when("Hit")
        remote.add("Foo")
        assert came.wait(PATIENCE)
    assert other.eval(traces) == ["r Foo"]
    other.dispose()


def test_a_served_machine_gets_the_trace_while_it_is_busy(tmp_path: Path) -> None:
    served = Noting("served")
    with (
        serve(served.machine, f"unix:{tmp_path}/s", allow_eval=True) as server,
        connect(server.address) as remote,
    ):
        with busy(served.machine):
            remote.send("add", "Hit")
            _asked_by_a_handler(remote, "send")
        assert served.machine.when_tick("Hit", 3).wait(PATIENCE)
    assert served.traces == ["nowhere", "asker Ask"]


def test_a_propagator_that_raises_harms_no_mutation(
    remote: RemoteMachine, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(tx: Transition | None) -> str:
        raise LookupError("no trace")

    propagate_with(fail)
    assert remote.add("Hit")
    assert remote.eval(traces) == [""]
    assert trace_here(None) == ""
    assert "error in the propagator" in caplog.text
