"""The collector: what a scrape tells, who is in it and for how long, and that it is valid."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from typing import Final
from weakref import ref

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from asyncmachine import Event, Machine, State
from asyncmachine.net import Network, connect, serve
from asyncmachine.telemetry.counting import BUCKETS
from asyncmachine.telemetry.prometheus import MOST_ENDED, MachineCollector
from tests.telemetry.forking import fork_in_a_crowd

STATES: Final = {
    "Foo": State(add="Bar"),
    "Bar": State(remove=("Baz", "Bad"), multi=True),
    "Baz": State(require="Foo", after="Bar"),
    "Bad": State(),
}


class Scrape:
    """One scrape, through text and parser, as Prometheus does it: names and labels to values."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.text = generate_latest(registry).decode()
        self.series: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self.kinds: dict[str, str] = {}
        for family in parse(self.text):
            self.kinds[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.series, f"twice: {key}"
                self.series[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.series.get((f"asyncmachine_{name}", frozenset(labels.items())))

    def machines(self) -> set[str]:
        found = {dict(labels).get("machine") for _, labels in self.series}
        return {each for each in found if each is not None}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def machine() -> Machine:
    return Machine(STATES, id="m")


# What is told ------------------------------------------------------------------------------


@pytest.mark.parametrize("histograms", [True, False])
def test_what_a_machine_shows_is_read_when_scraped(
    machine: Machine, registry: CollectorRegistry, *, histograms: bool
) -> None:
    with MachineCollector(machine, registry=registry, histograms=histograms):
        machine.add("Foo")
        machine.add("Bar")
        waiter = machine.when("Bad")
        found = Scrape(registry)
        del waiter

    assert found("states", machine="m") == 5
    assert found("states_active", machine="m") == 2
    for state in machine.states:
        assert found("state_active", machine="m", state=state) == machine.is_active(state)
        assert found("state_ticks_total", machine="m", state=state) == machine.tick(state)
    relations = {"add": 1, "remove": 2, "require": 1, "after": 1}
    for relation, count in relations.items():
        assert found("relations", machine="m", relation=relation) == count
    assert found("waiters_pending", machine="m") == 1
    assert found("queue_length", machine="m") == 0
    assert found("queue_refused_total", machine="m") == 0
    assert found("forks_running", machine="m") == 0


def test_what_waits_runs_and_is_refused_is_told_while_it_does(registry: CollectorRegistry) -> None:
    found: list[Scrape] = []

    def foo(event: Event) -> None:
        event.fork(lambda ctx: ctx.wait(30))
        for n in range(4):
            event.machine.add("Bad", n=n)
        found.append(Scrape(registry))

    machine = Machine(STATES, id="m", handlers={"Foo_state": foo}, queue_limit=3)
    with machine, MachineCollector(machine, registry=registry):
        machine.add("Foo")

    assert found[0]("queue_length", machine="m") == 3
    assert found[0]("queue_refused_total", machine="m") == 1
    assert found[0]("forks_running", machine="m") == 1


def test_what_is_counted_is_told(registry: CollectorRegistry) -> None:
    def fail(event: Event) -> None:
        raise ValueError("on purpose")

    machine = Machine(
        STATES, id="m", handlers={"Bad_state": fail, "Baz_enter": lambda event: False}
    )
    with MachineCollector(machine, registry=registry):
        machine.add("Foo")
        machine.remove("Bar")
        machine.add("Baz")
        machine.remove("Foo")
        machine.add("Baz")
        machine.add("Bad")
        found = Scrape(registry)

    def transitions(kind: str, outcome: str) -> float | None:
        return found("transitions_total", machine="m", kind=kind, outcome=outcome)

    assert transitions("add", "executed") == 2  # Foo, and Exception
    assert transitions("remove", "executed") == 2
    assert transitions("set", "executed") == 0
    assert transitions("add", "rejected") == 1
    assert transitions("add", "failed") == 1
    assert transitions("add", "vetoed") == 1
    assert found("auto_transitions_total", machine="m", outcome="executed") == 0
    assert found("handler_calls_total", machine="m") == 2
    assert found("errors_total", machine="m") == 1
    assert found("transition_seconds_count", machine="m") == 7
    assert found("handler_seconds_count", machine="m") == 2
    assert found("queue_wait_seconds_count", machine="m") == 1  # Exception


def test_histograms_are_cumulative_and_end_in_infinity(
    machine: Machine, registry: CollectorRegistry
) -> None:
    with MachineCollector(machine, registry=registry):
        for _ in range(50):
            machine.add("Bar")
        found = Scrape(registry)

    bounds = [*map(str, BUCKETS), "+Inf"]
    values = [found("transition_seconds_bucket", machine="m", le=bound) for bound in bounds]
    counts = [value for value in values if value is not None]
    assert len(counts) == len(BUCKETS) + 1
    assert counts == sorted(counts)
    assert counts[-1] == found("transition_seconds_count", machine="m") == 50
    total = found("transition_seconds_sum", machine="m")
    assert total is not None
    assert total > 0


def test_buckets_can_be_chosen(machine: Machine, registry: CollectorRegistry) -> None:
    with MachineCollector(machine, registry=registry, buckets=[0.5, 60.0]):
        machine.add("Foo")
        text = Scrape(registry).text

    assert 'le="0.5",machine="m"} 1.0' in text
    assert text.count("asyncmachine_transition_seconds_bucket{") == 3


def test_without_histograms_no_tracer_is_attached(
    machine: Machine, registry: CollectorRegistry
) -> None:
    with MachineCollector(machine, registry=registry, histograms=False):
        assert machine.tracers == ()
        machine.add("Foo")
        found = Scrape(registry)

    assert found("state_ticks_total", machine="m", state="Foo") == 1
    assert not [name for name, _ in found.series if "transition" in name or "handler" in name]


def test_both_formats_can_be_parsed_and_names_follow_the_conventions(
    machine: Machine, registry: CollectorRegistry
) -> None:
    machine.bind({"Foo_state": lambda event: event.machine.add("Bad")})
    with MachineCollector(machine, registry=registry):
        machine.add("Foo")
        plain = Scrape(registry)
        text = openmetrics(registry).decode()  # type: ignore[no-untyped-call]
        families = list(parse_open(text))  # type: ignore[no-untyped-call]

    assert {family.name for family in families} == {*plain.kinds} - {
        name for name in plain.kinds if name.endswith("_total")
    } | {name.removesuffix("_total") for name in plain.kinds if name.endswith("_total")}
    for family in families:
        assert family.name.startswith("asyncmachine_")
        assert family.documentation.endswith(".")
        assert not family.name.endswith("_total")


# Who is collected --------------------------------------------------------------------------


def test_a_machine_that_is_added_twice_is_collected_once(
    machine: Machine, registry: CollectorRegistry
) -> None:
    with MachineCollector(machine, machine, registry=registry) as collector:
        collector.add(machine)
        machine.add("Foo")

        assert len(machine.tracers) == 1
        assert Scrape(registry)("transition_seconds_count", machine="m") == 1


def test_machines_of_one_id_are_told_apart(registry: CollectorRegistry) -> None:
    machines = [Machine(STATES, id="same") for _ in range(3)]
    with MachineCollector(*machines, registry=registry):
        machines[1].add("Foo")
        found = Scrape(registry)

    assert found.machines() == {"same", "same (2)", "same (3)"}
    assert found("state_active", machine="same (2)", state="Foo") == 1
    assert found("state_active", machine="same", state="Foo") == 0


def test_a_machine_that_looks_like_a_numbered_one_is_no_clash(registry: CollectorRegistry) -> None:
    machines = [Machine(STATES, id=name) for name in ("same", "same (2)", "same")]

    with MachineCollector(*machines, registry=registry):
        assert Scrape(registry).machines() == {"same", "same (2)", "same (3)"}


def test_a_new_machine_takes_the_place_of_a_disposed_one(registry: CollectorRegistry) -> None:
    old, new = Machine(STATES, id="m"), Machine(STATES, id="m")
    with MachineCollector(old, registry=registry) as collector:
        old.add("Foo")
        old.dispose()
        collector.add(new)
        found = Scrape(registry)

    assert found.machines() == {"m"}
    assert found("state_ticks_total", machine="m", state="Foo") == 0


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "ü€🂡", "", " ", "{}", "a,b=c", "\x00"])
def test_odd_ids_do_no_harm(name: str, registry: CollectorRegistry) -> None:
    with MachineCollector(Machine(STATES, id=name), registry=registry):
        assert Scrape(registry).machines() == {name}


def test_an_id_that_is_no_text_spoils_no_scrape(registry: CollectorRegistry) -> None:
    with MachineCollector(Machine(STATES, id="a\ud800b"), registry=registry):
        assert Scrape(registry).machines() == {"a?b"}


def test_children_are_collected_those_that_come_later_too(registry: CollectorRegistry) -> None:
    parent = Machine(STATES, id="parent")
    Machine(STATES, id="early", parent=parent)
    with MachineCollector(parent, registry=registry):
        late = Machine(STATES, id="late", parent=parent)
        Machine(STATES, id="grandchild", parent=late)
        late.add("Foo")
        found = Scrape(registry)

    assert found.machines() == {"parent", "early", "late", "grandchild"}
    assert found("transition_seconds_count", machine="late") == 1
    assert not late.tracers
    parent.dispose()


def test_children_are_found_without_a_tracer_too(registry: CollectorRegistry) -> None:
    parent = Machine(STATES, id="parent")
    with MachineCollector(parent, registry=registry, histograms=False):
        Machine(STATES, id="grandchild", parent=Machine(STATES, id="child", parent=parent))

        assert Scrape(registry).machines() == {"parent", "child", "grandchild"}
    parent.dispose()


def test_a_machine_that_is_added_in_its_own_handler_brings_what_it_builds_there(
    registry: CollectorRegistry,
) -> None:
    def foo(event: Event) -> None:
        collector.add(machine)
        Machine(STATES, id="child", parent=machine)

    machine = Machine(STATES, id="m", handlers={"Foo_state": foo})
    with machine, MachineCollector(registry=registry) as collector:
        machine.add("Foo")

        assert Scrape(registry).machines() == {"m", "child"}


@pytest.mark.parametrize("histograms", [True, False])
def test_children_are_left_out_if_wanted(registry: CollectorRegistry, *, histograms: bool) -> None:
    parent = Machine(STATES, id="parent")
    Machine(STATES, id="early", parent=parent)
    with MachineCollector(parent, registry=registry, inherit=False, histograms=histograms):
        Machine(STATES, id="late", parent=parent)

        assert Scrape(registry).machines() == {"parent"}
    parent.dispose()


def test_what_is_removed_is_left_alone(machine: Machine, registry: CollectorRegistry) -> None:
    with MachineCollector(machine, registry=registry) as collector:
        collector.remove(machine)
        collector.remove(machine)

        assert machine.tracers == ()
        assert Scrape(registry).machines() == set()
        collector.add(machine)
        assert Scrape(registry).machines() == {"m"}


def test_what_can_not_be_collected_is_named(registry: CollectorRegistry) -> None:
    with pytest.raises(TypeError, match=r"a Machine, RemoteMachine or Network .* not 'm'"):
        MachineCollector("m", registry=registry)  # type: ignore[arg-type]

    collector = MachineCollector(registry=registry)  # nothing is left of the first one
    with collector, pytest.raises(TypeError, match="not 5"):
        collector.add(5)  # type: ignore[arg-type]


def test_machines_elsewhere_and_networks_are_let_go_too(registry: CollectorRegistry) -> None:
    with (
        Machine(STATES, id="m") as machine,
        serve(machine, "tcp://127.0.0.1:0") as server,
        connect(server.address) as remote,
        Network(1, id="net") as network,
        MachineCollector(remote, network, registry=registry, linger=0) as collector,
    ):
        assert "of 2" in repr(collector)
        collector.remove(remote)
        assert Scrape(registry).machines() == set()
        assert Scrape(registry)("network_processes", network="net") == 1
        network.close()
        assert Scrape(registry)("network_processes", network="net") == 0
        assert Scrape(registry).series == {}


# Its end -------------------------------------------------------------------------------------


def test_a_disposed_machine_is_told_once_more_with_all_that_it_did(
    machine: Machine, registry: CollectorRegistry
) -> None:
    with MachineCollector(machine, registry=registry, linger=0):
        machine.add("Foo")
        machine.dispose()

        assert Scrape(registry)("state_ticks_total", machine="m", state="Foo") == 1
        assert Scrape(registry).machines() == set()


def test_a_disposed_machine_is_told_to_others_for_a_while(
    machine: Machine, registry: CollectorRegistry
) -> None:
    with MachineCollector(machine, registry=registry, linger=3600):
        machine.dispose()

        for _ in range(3):
            assert Scrape(registry).machines() == {"m"}


def test_a_machine_that_is_disposed_already_can_be_added(
    machine: Machine, registry: CollectorRegistry
) -> None:
    machine.add("Foo")
    machine.dispose()

    with MachineCollector(machine, registry=registry, linger=0):
        assert Scrape(registry)("state_active", machine="m", state="Foo") == 1
        assert Scrape(registry).machines() == set()


def test_disposed_machines_that_nobody_scrapes_are_forgotten(registry: CollectorRegistry) -> None:
    count = MOST_ENDED + 5
    with MachineCollector(registry=registry) as collector:
        for number in range(count):
            with Machine({"Foo": State()}, id=f"m{number}") as machine:
                collector.add(machine)
        found = Scrape(registry).machines()

    assert len(found) == MOST_ENDED
    assert {"m4", "m5", f"m{count - 1}"} & found == {"m5", f"m{count - 1}"}


def test_a_machine_that_was_told_of_is_let_go(registry: CollectorRegistry) -> None:
    machine = Machine(STATES, id="m")
    gone = ref(machine)
    with MachineCollector(machine, registry=registry, linger=0):
        machine.dispose()
        del machine
        Scrape(registry)
        gc.collect()

        assert gone() is None


def test_closing_leaves_registry_and_machines(
    machine: Machine, registry: CollectorRegistry
) -> None:
    collector = MachineCollector(machine, registry=registry)
    collector.close()
    collector.close()

    assert machine.tracers == ()
    assert generate_latest(registry) == b""
    assert list(collector.collect()) == []
    with pytest.raises(ValueError, match="the collector is closed"):
        collector.add(machine)
    with MachineCollector(machine, registry=registry):  # there is room for another one
        assert Scrape(registry).machines() == {"m"}


def test_one_that_was_unregistered_can_be_closed(
    machine: Machine, registry: CollectorRegistry
) -> None:
    collector = MachineCollector(machine, registry=registry)
    registry.unregister(collector)
    collector.close()

    assert machine.tracers == ()


def test_a_child_that_comes_after_the_end_is_left_alone(registry: CollectorRegistry) -> None:
    parent = Machine(STATES, id="parent")
    found: list[Machine] = []

    def adopt(event: Event) -> None:
        collector.close()  # the tracer goes after this transition only
        found.append(Machine(STATES, parent=parent))

    parent.bind({"Foo_state": adopt})
    collector = MachineCollector(parent, registry=registry)
    parent.add("Foo")

    assert found[0].tracers == parent.tracers == ()
    parent.dispose()


def test_a_second_collector_is_refused_with_what_to_do(
    machine: Machine, registry: CollectorRegistry
) -> None:
    with MachineCollector(machine, registry=registry):
        with pytest.raises(ValueError, match=r"has a MachineCollector already: add\(\) machines"):
            MachineCollector(registry=registry)

        with MachineCollector(machine, registry=CollectorRegistry()):  # one each is fine
            assert len(machine.tracers) == 2


def test_one_machine_that_can_not_be_read_hides_no_other(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Machine):
        @property
        def waiters_pending(self) -> int:
            raise RuntimeError("no waiters today")

    machines = [Broken(STATES, id="broken"), Machine(STATES, id="sound")]
    with MachineCollector(*machines, registry=registry):
        found = Scrape(registry)

    assert found("waiters_pending", machine="sound") == 0
    assert "the metrics of broken can not be told" in caplog.text
    assert "no waiters today" in caplog.text


# Threads -------------------------------------------------------------------------------------


def test_machines_come_and_go_while_others_scrape(registry: CollectorRegistry) -> None:
    faults: list[BaseException] = []
    over = threading.Event()

    def guarded(work: object) -> threading.Thread:
        def run() -> None:
            try:
                work()  # type: ignore[operator]
            except BaseException as error:
                faults.append(error)

        return threading.Thread(target=run)

    def scrape() -> None:
        while not over.is_set():
            Scrape(registry)

    def churn() -> None:
        for _ in range(60):
            with Machine(STATES, id="m", queue_limit=10_000) as machine:
                collector.add(machine)
                Machine(STATES, id="child", parent=machine).add("Foo")
                machine.add("Foo")

    with MachineCollector(registry=registry, linger=0) as collector:
        scrapers, churners = [guarded(scrape) for _ in range(2)], [guarded(churn) for _ in range(3)]
        for thread in scrapers + churners:
            thread.start()
        for thread in churners:
            thread.join()
        over.set()
        for thread in scrapers:
            thread.join()
        assert not faults
        Scrape(registry)

        assert Scrape(registry).machines() == set()


def test_counters_never_fall_from_scrape_to_scrape(registry: CollectorRegistry) -> None:
    machine = Machine(STATES, id="m", queue_limit=100_000)
    before: Counter[object] = Counter()

    def work() -> None:
        for n in range(1500):
            machine.add("Bar", n=n)

    with MachineCollector(machine, registry=registry):
        worker = threading.Thread(target=work)
        worker.start()
        while worker.is_alive():
            found = Scrape(registry)
            buckets = found("transition_seconds_bucket", machine="m", le="+Inf")
            assert buckets == found("transition_seconds_count", machine="m")
            for key, value in found.series.items():
                if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
                    assert value >= before[key]
                    before[key] = value  # type: ignore[assignment]
        worker.join()

        final = Scrape(registry)
    assert final("transitions_total", machine="m", kind="add", outcome="executed") == 1500
    assert final("state_ticks_total", machine="m", state="Bar") == machine.tick("Bar")


def test_what_is_added_and_removed_at_once_keeps_no_tracer(registry: CollectorRegistry) -> None:
    with MachineCollector(registry=registry) as collector:
        for _ in range(200):
            machine = Machine({"Foo": State()})
            adding = threading.Thread(target=collector.add, args=(machine,))
            adding.start()
            collector.remove(machine)
            adding.join()
            collector.remove(machine)

            assert machine.tracers == ()


def test_a_machine_of_a_forked_child_waits_for_no_thread_of_the_parent() -> None:
    fork_in_a_crowd(
        "from prometheus_client import CollectorRegistry\n"
        "from asyncmachine.telemetry.prometheus import MachineCollector\n"
        "observer = MachineCollector(first, registry=CollectorRegistry())"
    )
