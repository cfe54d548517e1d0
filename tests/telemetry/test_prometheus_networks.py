"""The collector on real networks: what links and mirrors tell, whatever becomes of a process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from threading import Event
from typing import Final

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from asyncmachine import Machine, State
from asyncmachine.net import Network, RemoteMachine, connect, serve
from asyncmachine.telemetry.prometheus import MachineCollector
from tests.net.making import make
from tests.races import PATIENCE
from tests.telemetry.prometheus_server import tool

LINK: Final = {"network": "net", "link": "process-0"}
COUNTERS: Final = ("link_bytes_total", "link_messages_total", "link_reconnects_total")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def net() -> Iterator[Network]:
    with Network(2, id="net", restart="on-failure") as made:
        yield made


def told(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"asyncmachine_{name}", labels)


def lag(registry: CollectorRegistry, machine: RemoteMachine) -> float | None:
    return told(registry, "mirror_lag_seconds", machine=machine.id)


def counts(registry: CollectorRegistry) -> dict[object, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.removeprefix("asyncmachine_") in COUNTERS
    }


def test_a_network_tells_what_it_consists_of(net: Network, registry: CollectorRegistry) -> None:
    MachineCollector(net, registry=registry)
    assert told(registry, "network_processes", network="net") == 2
    assert told(registry, "network_machines", network="net") == 0
    assert told(registry, "network_links", network="net") == 2
    net.spawn(make, "a")
    assert told(registry, "network_machines", network="net") == 1
    net.close()
    assert told(registry, "network_processes", network="net") == 0
    assert told(registry, "network_links", network="net") == 0


def test_what_goes_over_a_link_is_told_by_direction(
    net: Network, registry: CollectorRegistry
) -> None:
    machine = net.spawn(make, "a", process=0)
    MachineCollector(net, registry=registry)
    before = {
        (what, way): told(registry, f"link_{what}_total", **LINK, direction=way) or 0
        for what in ("bytes", "messages")
        for way in ("sent", "received")
    }
    for _ in range(50):
        machine.toggle("Foo")
    for (what, way), value in before.items():
        now = told(registry, f"link_{what}_total", **LINK, direction=way) or 0
        assert now - value >= 50 * (10 if what == "bytes" else 1), (what, way)
    sent = told(registry, "link_messages_total", **LINK, direction="sent")
    assert sent == net.statistics().links[0].messages_sent
    assert told(registry, "link_reconnects_total", **LINK) == 0


def test_a_process_that_is_built_again_counts_on(net: Network, registry: CollectorRegistry) -> None:
    machine = net.spawn(make, "a", process=0)
    MachineCollector(net, machine, registry=registry)
    machine.add("Foo")
    before = counts(registry)
    down = machine.connection.when("Disconnected")
    os.kill(net.processes[0].pid, signal.SIGKILL)
    assert down.wait(PATIENCE)
    assert machine.connection.when("Connected").wait(PATIENCE)
    machine.add("Foo")
    after = counts(registry)
    assert after.keys() == before.keys()
    assert all(after[key] >= value for key, value in before.items())
    assert told(registry, "link_reconnects_total", **LINK) == 1
    assert told(registry, "link_reconnects_total", **LINK | {"link": "process-1"}) == 0
    assert told(registry, "network_processes", network="net") == 2


def test_a_mirror_shows_what_its_machine_does(net: Network, registry: CollectorRegistry) -> None:
    machine = net.spawn(make, "a")
    MachineCollector(machine, registry=registry)
    machine.add("Foo")
    assert told(registry, "state_active", machine="a", state="Foo") == 1
    assert told(registry, "state_ticks_total", machine="a", state="Foo") == 1
    assert told(registry, "states", machine="a") == len(machine.states)
    assert not [each.name for each in registry.collect() if "transition" in each.name]


def test_a_mirror_is_as_old_as_the_last_answer_took(
    net: Network, registry: CollectorRegistry
) -> None:
    machine = net.spawn(make, "a")
    MachineCollector(machine, registry=registry)
    assert lag(registry, machine) is None  # nobody has asked before
    machine.sync()  # so what was asked first has been answered
    known = lag(registry, machine)
    assert known is not None
    assert 0 < known < PATIENCE


def test_a_mirror_grows_old_while_its_process_hangs(
    net: Network, registry: CollectorRegistry
) -> None:
    machine = net.spawn(make, "a", process=0)
    other = net.spawn(make, "b", process=1)
    MachineCollector(machine, other, registry=registry)
    os.kill(net.processes[0].pid, signal.SIGSTOP)
    try:
        ages = [lag(registry, machine) for _ in range(4)]
    finally:
        os.kill(net.processes[0].pid, signal.SIGCONT)
    assert ages[0] is None
    later = [age for age in ages[1:] if age is not None]
    assert later == sorted(set(later))
    assert len(later) == 3
    machine.sync()
    took = lag(registry, machine)
    assert took is not None
    assert took >= later[-1]


def test_a_mirror_grows_old_while_its_server_is_gone(registry: CollectorRegistry) -> None:
    with Machine({"Foo": State()}, id="served") as machine:
        server = serve(machine, "tcp://127.0.0.1:0")
        remote = connect(server.address)
        MachineCollector(remote, registry=registry)
        lag(registry, remote)
        remote.sync()
        took = lag(registry, remote)
        assert took is not None
        down = remote.connection.when("Disconnected")
        server.close()
        assert down.wait(PATIENCE)
        lag(registry, remote)
        Event().wait(took)
        age = lag(registry, remote)
        assert age is not None
        assert age > took
        remote.close()
        assert told(registry, "states", machine="served") == 2  # once more, as after a disposal


def test_one_id_here_and_elsewhere_makes_two_series(registry: CollectorRegistry) -> None:
    with Machine({"Foo": State()}, id="served") as machine:
        server = serve(machine, "tcp://127.0.0.1:0")
        with connect(server.address) as remote:
            MachineCollector(machine, remote, registry=registry)
            assert told(registry, "states", machine="served") == 2
            assert told(registry, "states", machine="served (2)") == 2
        server.close()


def test_promtool_finds_no_fault_in_any_metric(net: Network, registry: CollectorRegistry) -> None:
    promtool = tool("promtool")
    remote = net.spawn(make, "a")
    schema = {"Foo": State(), "Bar": State(auto=True, require="Foo")}
    local = Machine(schema, id='odd "id"\nof \\ two lines', handlers={"Foo_state": _next})
    collector = MachineCollector(net, remote, local, registry=registry)
    lag(registry, remote)
    remote.sync()
    local.add("Foo")
    local.add_error("one")
    text = generate_latest(registry)
    families = {family.name for family in parse(text.decode())}
    described = {family.name for family in collector.describe()}
    assert families == described  # all of them
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, timeout=30, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def _next(event: object) -> None:
    """A handler that has another mutation queued."""
    event.machine.add("Bar")  # type: ignore[attr-defined]
