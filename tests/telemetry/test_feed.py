"""The feed tells everything, exactly, and never disturbs a machine."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from itertools import cycle
from random import Random
from weakref import WeakSet

import pytest

from asyncmachine import Event, LogLevel, Machine, Result, Schema, State, Tracer, Transition
from asyncmachine.debugger.collector import Collector
from asyncmachine.debugger.records import (
    CauseRecord,
    ClockRecord,
    DisposedRecord,
    DroppedRecord,
    EndRecord,
    MachineRecord,
    Record,
    StepRecord,
)
from asyncmachine.telemetry import sending
from asyncmachine.telemetry.addresses import Address
from asyncmachine.telemetry.feed import Feed, FeedTracer, attach, tracer_from_environment
from asyncmachine.telemetry.packing import Ledger
from asyncmachine.telemetry.sending import Sender
from tests.oracle import Request
from tests.races import PATIENCE, Gate, switching_often, together
from tests.telemetry.feeding import Receiver, first_clock, replay
from tests.test_properties import Case, random_case
from tests.test_recording import RECORDING

NOBODY = "127.0.0.1:1"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class Truth(Tracer):
    """What a machine says itself: of each transition its clocks afterwards, and the rest."""

    wants_steps = True

    def __init__(self) -> None:
        self.told: list[dict[str, object]] = []
        self.before: list[tuple[int, ...]] = []

    def transition_end(self, tx: Transition) -> None:
        mutation = tx.mutation
        names = tx.machine.schema.names
        self.before.append(tx.time_before)
        self.told.append(
            {
                "id": tx.id,
                "kind": mutation.kind,
                "called": mutation.states,
                "auto": mutation.auto,
                "accepted": tx.accepted,
                "outcome": tx.outcome,
                "cause": tx.cause and tx.cause.transition_id,
                "after": dict(zip(names, tx.time_after, strict=True)),
                "steps": [tuple(step) for step in tx.steps],
                "log": tuple(tx.log_entries),
            }
        )


def live(case: Case, machine: Machine) -> None:
    """Live through a case."""
    asked = dict(case.asked)

    def request(each: Request, **args: object) -> Result:
        call = {"add": machine.add, "remove": machine.remove, "set": machine.set}[each.kind]
        return call(*each.called, **args)

    for script in case.scripts:
        turns: Mapping[str, Iterator[str]] = {
            name: cycle(outcomes) for name, outcomes in script.items()
        }

        def follow(event: Event, turns: Mapping[str, Iterator[str]] = turns) -> object:
            for each in asked.pop(event.name, ()):
                request(each, token=len(asked))
            outcome = next(turns[event.name])
            if outcome == "raise":
                raise LookupError(event.name)
            return outcome != "veto"

        machine.bind(dict.fromkeys(script, follow))
    for each in case.mutations:
        request(each)


@pytest.mark.parametrize("level", [LogLevel.NOTHING, LogLevel.EVERYTHING])
def test_what_is_replayed_is_what_the_machine_says(receiver: Receiver, level: LogLevel) -> None:
    logger = logging.getLogger("asyncmachine")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    truths: dict[str, Truth] = {}
    try:
        feeds = []
        for seed in range(150):
            case = random_case(Random(seed), objects=seed % 3, asking=bool(seed % 2))
            machine = Machine(Schema.from_dict(case.schema), id=f"m{seed}", log_level=level)
            feeds.append(attach(machine, receiver.address))
            if case.clock:
                ticks = list(case.clock.values())
                machine.import_state({"names": list(case.clock), "ticks": ticks})
            truths[machine.id] = truth = Truth()
            if seed % 5:  # the watched way, which records steps
                machine.add_tracer(truth)
            live(case, machine)
            if not seed % 5:
                truths.pop(machine.id)
                assert feeds[-1].dropped == 0
        assert feeds[0].flush(PATIENCE)
        for feed in feeds:
            feed.close()
    finally:
        logger.setLevel(before)
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)

    failures = set()
    for machine_id, truth in truths.items():
        key = receiver.machine(machine_id).key
        told = [
            {
                "id": record.id,
                "kind": record.kind,
                "called": record.called,
                "auto": record.auto,
                "accepted": record.accepted,
                "outcome": record.outcome,
                "cause": record.cause and record.cause.transition_id,
                "after": clocks,
                "log": record.log,
            }
            for record, clocks in replay(receiver.records, key)
        ]
        known = [{k: v for k, v in each.items() if k != "steps"} for each in truth.told]
        assert told == known, machine_id
        failures |= {str(each["outcome"]) for each in truth.told}
    assert failures == {"executed", "rejected", "vetoed", "failed"}


def test_steps_are_those_that_a_machine_records_itself(receiver: Receiver) -> None:
    truth = Truth()
    schema = {"A": State(add="B", remove="C"), "B": State(), "C": State(), "D": State(require="C")}

    def fail(event: Event) -> None:
        raise LookupError

    handlers = {"A_enter": lambda _: None, "B_exit": lambda _: False, "C_state": fail}
    machine = Machine(schema, id="m", handlers=handlers, tracers=[truth])
    with attach(machine, receiver.address):
        machine.add("C")
        machine.add("A")
        machine.remove("B")
        machine.add("D", "A")
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)

    told = [[(e.kind, e.state, e.other) for e in each.steps] for each in receiver.transitions()]
    assert told == [each["steps"] for each in truth.told]
    assert StepRecord("error", "", "C_state") in receiver.transitions()[0].steps
    assert any(step[0] == "veto" for steps in told for step in steps)


@pytest.mark.skipif(not RECORDING.exists(), reason="the recording is not there")
def test_a_recorded_run_is_replayed_to_the_digit(receiver: Receiver) -> None:
    machines: dict[str, Machine] = {}
    expected: dict[str, list[tuple[int, ...]]] = {}
    feeds = []
    with gzip.open(RECORDING, "rt") as lines:
        for line, _ in zip(lines, range(12_000), strict=False):
            entry = json.loads(line)
            name = entry["machine"]
            if "schema" in entry:
                machines[name] = Machine(Schema.from_dict(entry["schema"]), id=name)
                feeds.append(attach(machines[name], receiver.address, ring=100_000))
                expected[name] = []
                continue
            call = getattr(machines[name], entry["kind"])
            call(*entry["called"])
            expected[name].append(machines[name].time())
    for feed in feeds:
        assert feed.flush(PATIENCE)
        assert feed.dropped == 0
    for feed in feeds:
        feed.close()
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)

    for name, clocks in expected.items():
        key = receiver.machine(name).key
        replayed = [after for _, after in replay(receiver.records, key)]
        if replayed:
            names = machines[name].schema.names
            assert tuple(replayed[-1][each] for each in names) == clocks[-1], name
            assert [tuple(each.values()) for each in replayed if True][-1] == clocks[-1]
            # Auto transitions come between those that were asked for.
            assert set(clocks) <= {tuple(each[n] for n in names) for each in replayed} | {
                first_clock(receiver.records, key)
            }


def test_a_record_tells_everything(receiver: Receiver) -> None:
    def greet(event: Event) -> None:
        other.add("Bar")

    other = Machine({"Bar": State()}, id="other")
    machine = Machine(
        {"Foo": State(add="Bar"), "Bar": State()},
        id="door",
        tags=["front"],
        handlers={"Foo_state": greet},
        log_args=["who"],
        log_level=LogLevel.CHANGES,
    )
    with attach(machine, receiver.address) as feed, attach(other, receiver.address):
        machine.add("Foo", who="ann", secret="xyz")
        assert feed.flush(PATIENCE)
        assert feed.connected
        assert repr(feed) == f"<Feed to {receiver.address}, connected, 0 dropped>"
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord))

    told = receiver.machine("door")
    assert told.names == ("Foo", "Bar", "Exception")
    assert told.tags == ("front",)
    assert told.as_schema() == machine.schema
    (record,) = receiver.transitions("door")
    assert (record.called, record.kind, record.auto, record.outcome) == (
        ("Foo",),
        "add",
        False,
        "executed",
    )
    assert record.args == "(who=ann)"
    assert record.moves == {"Foo": 1, "Bar": 1}
    assert record.target == ("Foo", "Bar")
    assert record.log == ("[state] +Foo +Bar (who=ann)",)
    (handler,) = record.handlers
    assert handler.name == "Foo_state"
    assert 0 < handler.start_ns < handler.start_ns + handler.duration_ns < record.duration_ns
    (caused,) = receiver.transitions("other")
    assert caused.cause == CauseRecord("door", record.id)
    assert abs(record.time_ns - caused.time_ns) < 5e9
    assert "xyz" not in repr(receiver.records)


def test_what_jumps_is_told_as_a_whole_clock(receiver: Receiver) -> None:
    machine = Machine({"Foo": State(multi=True), "Bar": State()}, id="m")
    huge = 2**70 + 1
    with attach(machine, receiver.address):
        machine.add("Foo")
        machine.import_state({"names": ["Foo", "Bar"], "ticks": [7, huge]})
        machine.add("Foo")
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)

    clocks = [e.ticks for e in receiver.records if isinstance(e, ClockRecord)]
    assert clocks == [(0, 0, 0), (7, huge, 0)]
    key = receiver.machine("m").key
    assert [list(c.values()) for _, c in replay(receiver.records, key)] == [
        [1, 0, 0],
        [9, huge, 0],
    ]


def test_children_are_sent_unless_that_is_not_wanted(receiver: Receiver) -> None:
    parent = Machine({"Foo": State()}, id="parent")
    Machine({"Foo": State()}, id="early", parent=parent)
    alone = Machine({"Foo": State()}, id="alone")
    with attach(parent, receiver.address), attach(alone, receiver.address, inherit=False):
        child = Machine({"Foo": State()}, id="late", parent=parent)
        Machine({"Foo": State()}, id="grandchild", parent=child).add("Foo")
        Machine({"Foo": State()}, id="other", parent=alone).add("Foo")
        parent.dispose()
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)

    told = {each.machine_id: each for each in receiver.records if isinstance(each, MachineRecord)}
    assert set(told) == {"parent", "early", "late", "grandchild", "alone"}
    assert told["grandchild"].parent == "late"
    gone = {e.machine_id: e.reason for e in receiver.records if isinstance(e, DisposedRecord)}
    assert gone == dict.fromkeys(["parent", "early", "late", "grandchild"], "disposed") | {
        "alone": "detached"
    }


def test_attached_twice_it_is_sent_once_and_until_the_last_one_is_closed(
    receiver: Receiver,
) -> None:
    machine = Machine({"Foo": State()}, id="m")
    first, second = attach(machine, receiver.address), attach(machine, receiver.address)
    machine.add("Foo")
    first.close()
    first.close()
    machine.remove("Foo")
    second.close()
    machine.add("Foo")
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)

    assert [each.number for each in receiver.transitions()] == [1, 2]
    assert machine.tracers == ()
    assert not any(each.name.startswith("feed to") for each in threading.enumerate())


def test_two_machines_of_one_id_are_told_apart(receiver: Receiver) -> None:
    machines = [Machine({"Foo": State()}, id="same") for _ in range(2)]
    feeds = [attach(each, receiver.address) for each in machines]
    for each in machines:
        each.add("Foo")
    for feed in feeds:
        feed.close()
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
    assert len({each.key for each in receiver.transitions("same")}) == 2


def test_a_machine_that_is_dropped_is_collected_and_told(receiver: Receiver) -> None:
    tracer = FeedTracer(receiver.address)
    Machine({"Foo": State()}, id="short", tracers=[tracer]).add("Foo")
    assert tracer.feed.flush(PATIENCE)
    gc.collect()
    receiver.wait_for(lambda heard: isinstance(heard[-1], DisposedRecord) if heard else False)
    tracer.feed.close()

    assert [e.reason for e in receiver.records if isinstance(e, DisposedRecord)] == ["forgotten"]


def test_args_errors_and_data_do_not_outlive_their_transition() -> None:
    class Heavy:
        pass

    heavy = Heavy()
    alive = gc.get_referrers
    machine = Machine({"Foo": State()}, handlers={"Foo_state": lambda event: event.args["it"]})
    with attach(machine, NOBODY) as feed:
        machine.add("Foo", it=heavy)
        known = [each for each in alive(heavy) if isinstance(each, dict) and "it" in each]
        assert known == []
        feed.close(0)


def test_texts_that_can_not_be_encoded_do_not_end_a_feed(
    receiver: Receiver,
) -> None:
    machine = Machine({"Foo": State()}, id="bad \udc80", log_args=["x"], tags=["\udc81"])
    with attach(machine, receiver.address):
        machine.add("Foo", x="\udc82")
        machine.add_error("long " * 10_000)
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
    assert [each.args for each in receiver.transitions()] == ["(x=?)", ""]
    assert receiver.transitions()[0].machine_id == "bad ?"


def test_a_full_ring_keeps_the_newest_and_tells_what_is_missing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    machine = Machine({"Foo": State(multi=True)}, id="m")
    feed = attach(machine, address, ring=10)
    for _ in range(100):
        machine.add("Foo")
    assert feed.dropped == 90
    assert not feed.connected
    with Receiver(address) as receiver:
        assert feed.wait_connected(PATIENCE)
        assert feed.flush(PATIENCE)
        machine.add("Foo")
        feed.close()
        receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
        key = receiver.machine("m").key
        after = [clocks["Foo"] for _, clocks in replay(receiver.records, key)]
        assert after == [2 * n - 1 for n in range(91, 102)]
        assert receiver.dropped == 90 == receiver.collector.dropped
        assert [type(each) for each in receiver.records[:4]] == [
            MachineRecord,
            ClockRecord,
            DroppedRecord,
            ClockRecord,
        ]


def test_many_machines_in_many_threads_are_told_to_the_last(receiver: Receiver) -> None:
    with switching_often():
        feeds = []

        def work(name: int) -> None:
            for n in range(3):
                machine = Machine({"Foo": State(multi=True), "Bar": State()}, id=f"{name}-{n}")
                feeds.append(attach(machine, receiver.address))
                for _ in range(60):
                    machine.add("Foo", n=1)
                    machine.add("Bar")
                    machine.remove("Bar")
                if n:
                    machine.dispose()

        together(*(lambda name=name: work(name) for name in range(6)))
    for feed in feeds:
        assert feed.flush(PATIENCE)
    dropped = sum(feed.dropped for feed in feeds)
    for feed in feeds:
        feed.close()
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)

    assert dropped == 0
    assert len(receiver.transitions()) == 6 * 3 * 180
    for name in range(6):
        for n in range(3):
            told = receiver.transitions(f"{name}-{n}")
            assert [each.number for each in told] == list(range(1, 181))
            key = told[0].key
            *_, (_, clocks) = replay(receiver.records, key)
            assert clocks == {"Foo": 119, "Bar": 120, "Exception": 0}


def test_many_thousand_machines_are_attached_one_by_one() -> None:
    schema = Schema({"Foo": State()})
    tracer = FeedTracer(NOBODY, inherit=False)
    # If each looked at all others, it would take minutes.
    machines = [Machine(schema, id=f"m{n}", tracers=[tracer]) for n in range(14_000)]
    for each in machines[::2]:
        each.dispose()
    Machine(schema, id="last", tracers=[tracer])
    tracer.feed.close(0)
    assert machines[1].tracers == (tracer,)


def test_what_a_machine_does_alone_is_sent_without_anybody_asking(receiver: Receiver) -> None:
    machines = [Machine({"Foo": State(multi=True)}, id=f"m{n}") for n in range(20)]
    feeds = [attach(each, receiver.address) for each in machines]
    assert feeds[0].wait_connected(PATIENCE)
    with switching_often():
        for count in range(1, 40):
            together(*(lambda each=each: each.add("Foo") for each in machines[:: count % 4 + 1]))
            receiver.wait_for(
                lambda _: (
                    len(receiver.transitions())
                    == sum((each.tick("Foo") + 1) // 2 for each in machines)
                )
            )
    for feed in feeds:
        feed.close()


def test_a_late_handler_is_told_with_the_time_that_it_had(receiver: Receiver) -> None:
    released = threading.Event()
    machine = Machine(
        {"Foo": State()},
        id="m",
        handler_timeout=0.02,
        handlers={"Foo_state": lambda _: released.wait(PATIENCE)},
    )
    with attach(machine, receiver.address) as feed:
        machine.send("add", "Foo")
        assert machine.when("Exception").wait(PATIENCE)
        released.set()
        assert feed.flush(PATIENCE)
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
    late = receiver.transitions()[0]
    assert late.outcome == "failed"
    assert late.error.startswith("HandlerTimeoutError")
    assert [each.name for each in late.handlers] == ["Foo_state"]
    assert late.handlers[0].duration_ns > 10_000_000


def test_more_plans_than_the_table_holds_are_numbered_anew(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncmachine.telemetry.packing.MOST_PLANS", 8)
    rnd = Random(1)
    names = [f"S{n}" for n in range(8)]
    machine = Machine({name: State() for name in names}, id="m")
    with attach(machine, receiver.address):
        for _ in range(300):
            machine.toggle(rnd.choice(names))
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
    key = receiver.machine("m").key
    *_, (last, clocks) = replay(receiver.records, key)
    assert last.number == 300
    assert tuple(clocks.values()) == machine.time()


def test_a_frame_that_is_too_large_is_parted_and_what_can_not_be_is_counted(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asyncmachine.telemetry.sending.MOST_BYTES", 700)

    def fail(_: Event) -> None:
        raise LookupError("x" * 1000)

    schema = {"Foo": State(multi=True), "Bad": State()}
    machine = Machine(schema, id="m", handlers={"Bad_state": fail})
    with attach(machine, receiver.address) as feed:
        for n in range(30):
            machine.add("Foo")
            if n == 15:
                machine.add("Bad")
        assert feed.flush(PATIENCE)
        machine.add("Foo")
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
    assert "can not send a packet" in caplog.text
    assert len(receiver.transitions()) == 32
    assert receiver.dropped == feed.dropped == 1
    *_, (_, clocks) = replay(receiver.records, receiver.machine("m").key)
    assert tuple(clocks.values()) == machine.time()


def test_all_rings_together_keep_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncmachine.telemetry.sending.MOST_KEPT", 40)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    machines = [Machine({"Foo": State(multi=True)}, id=f"m{n}") for n in range(4)]
    feeds = [attach(each, address) for each in machines]
    for each in machines:
        for _ in range(30):
            each.add("Foo")
    gone = Machine({"Foo": State()}, id="gone")
    feeds[0].add(gone)
    gone.dispose()
    trimmed = threading.Event()
    while sum(feed.dropped for feed in feeds) < 80:  # the next time that it has dialled
        assert not trimmed.wait(0.05)
    feeds[0].add(machines[0])
    with Receiver(address) as receiver:
        assert feeds[0].wait_connected(PATIENCE)
        for feed in feeds:
            feed.close(PATIENCE)
        receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
        assert len(receiver.transitions()) == 40
        assert receiver.dropped == 80


def test_a_ring_that_is_cut_down_while_it_is_sent_does_not_end_the_feed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncmachine.telemetry.sending.MOST_KEPT", 6000)

    def fail(_: Event) -> None:
        raise LookupError("x" * 5000)

    quiet = Machine({"Foo": State()}, id="quiet", handlers={"Foo_state": fail})
    busy = [Machine({"Foo": State(multi=True)}, id=f"busy {n}") for n in range(4)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    feed = attach(quiet, address)
    for _ in range(2500):
        quiet.add("Foo")  # which is far more than the connection holds
    for each in busy:
        feed.add(each)
    made = 2 * 2500 + 2 + 4 * 1500
    gate = Gate()
    heard: list[Record] = []

    def sink(records: list[Record]) -> None:
        gate()
        heard.extend(records)

    with Collector(sink, address) as collector:
        gate.await_reached()
        for each in busy:
            for _ in range(1500):
                each.add("Foo")
        cut = threading.Event()
        while feed.dropped < 100:  # it looks after the rings each second
            assert not cut.wait(0.05)
        gate.open()
        assert feed.flush(PATIENCE)
        quiet.add("Foo")
        feed.close(PATIENCE)
        assert collector.wait_idle(PATIENCE)
        assert collector.received + collector.dropped == made
    assert collector.dropped == feed.dropped
    assert heard[-1] == EndRecord(heard[0].process, "closed")  # type: ignore[union-attr]


def test_machines_that_come_and_go_while_the_receiver_hangs_are_forgotten_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncmachine.telemetry.sending.MOST_KEPT", 40)
    machine = Machine({"Foo": State(multi=True)}, id="m")
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        feed = attach(machine, f"127.0.0.1:{hanging.getsockname()[1]}")
        while feed.flush(0.5):
            for _ in range(50_000):
                machine.add("Foo")
        before = feed.dropped
        for _ in range(500):
            with Machine({"Foo": State()}) as short:
                feed.add(short)
                short.add("Foo")
        pause = threading.Event()
        while sum(isinstance(each, Ledger) for each in gc.get_objects()) > 100:
            assert not pause.wait(0.2)
            for _ in range(70):  # it looks who is gone when there is a crowd
                feed.add(Machine({"Foo": State()}))
            gc.collect()
        assert feed.dropped >= before + 500
        feed.close(0)


def test_a_feed_that_can_have_no_thread_begins_with_the_next_machine(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    machines = [Machine({"Foo": State()}, id=f"m{n}") for n in range(2)]
    before = threading.stack_size(1 << 46)  # more than any machine has
    try:
        feed = attach(machines[0], receiver.address)
    finally:
        threading.stack_size(before)
    assert f"the feed to {receiver.address} can not begin" in caplog.text
    machines[0].add("Foo")
    assert not feed.flush(0.05)
    feed.add(machines[1])
    feed.close(PATIENCE)
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
    assert len(receiver.transitions("m0")) == 1


def test_closing_with_nobody_there_ends_at_once_and_leaves_no_thread() -> None:
    machine = Machine({"Foo": State()})
    feed = attach(machine, NOBODY)
    machine.add("Foo")
    assert not feed.flush(0.05)
    feed.close(5)
    assert not feed.flush(1)
    machine.remove("Foo")
    feed.add(machine)
    assert machine.tracers == ()
    assert repr(feed).startswith(f"<Feed to {NOBODY}, closed")


def test_a_feed_may_be_closed_by_a_handler_of_its_machine(receiver: Receiver) -> None:
    feeds: list[Feed] = []
    close = {"Foo_state": lambda _: feeds[0].close()}
    machine = Machine({"Foo": State()}, id="m", handlers=close)
    feeds.append(attach(machine, receiver.address))
    assert machine.add("Foo") == Result.EXECUTED
    assert machine.remove("Foo") == Result.EXECUTED
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
    assert machine.tracers == ()


def test_the_environment_asks_for_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AM_DBG", raising=False)
    assert tracer_from_environment() is None
    monkeypatch.setenv("AM_DBG", "6831")
    assert tracer_from_environment() is None
    assert "AM_DBG is ignored: '6831' is no address" in caplog.text
    monkeypatch.setenv("AM_DBG", receiver.address)
    tracer = tracer_from_environment()
    assert isinstance(tracer, FeedTracer)
    assert tracer.feed.address == receiver.address
    tracer.feed.close()


@pytest.mark.parametrize(
    "address",
    [
        *("", "localhost", "localhost:", ":6831", "::1:6831", "a b:1", "h:99999", "h:-1", "/:1"),
        *("a..b:1", "a\0b:1", "\udcff:1", f"{'a' * 70}:1", f"h:{'9' * 5000}"),
    ],
)
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        attach(Machine({"Foo": State()}), address)
    with pytest.raises(ValueError, match="is no address"):
        Address.parse(address)


@pytest.mark.parametrize("ring", [0, -1, 1.5, "many"])
def test_a_ring_holds_something(ring: int) -> None:
    with pytest.raises(ValueError, match="ring must be at least 1"):
        FeedTracer(NOBODY, ring=ring)


@pytest.mark.parametrize("what", [5, None, State()])
def test_only_machines_are_sent(what: object) -> None:
    with pytest.raises(TypeError, match="a Machine can be sent, in its own process, not "):
        attach(what, NOBODY)  # type: ignore[arg-type]
    assert not any(each.name.startswith("feed to") for each in threading.enumerate())


def test_a_machine_that_is_disposed_already_is_told_as_such(receiver: Receiver) -> None:
    machine = Machine({"Foo": State()}, id="gone")
    machine.add("Foo")
    machine.dispose()
    with attach(machine, receiver.address) as feed:
        assert feed.flush(PATIENCE)
    receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
    _, clock, gone, _ = receiver.records
    assert isinstance(clock, ClockRecord)
    assert isinstance(gone, DisposedRecord)
    assert (clock.ticks, gone.reason) == ((1, 0), "disposed")


def test_a_signal_handler_may_make_a_machine_while_one_is_being_attached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Machine] = []
    tap = Sender.tap

    def make(*_: object) -> None:
        made.append(Machine({"Foo": State()}, id="made", tracers=[tracer]))

    def signalled_tap(sender: Sender, machine: Machine, size: int) -> tuple[Ledger, bool]:
        if machine.id == "m":
            signal.raise_signal(signal.SIGUSR1)
        return tap(sender, machine, size)

    monkeypatch.setattr(Sender, "tap", signalled_tap)
    before = signal.signal(signal.SIGUSR1, make)
    try:
        with Receiver() as receiver:
            tracer = FeedTracer(receiver.address)
            Machine({"Foo": State()}, id="m", tracers=[tracer])
            tracer.feed.close(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(made) == 1


def test_a_flush_that_nobody_waits_for_any_more_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: WeakSet[threading.Event] = WeakSet()

    class Noted(threading.Event):
        def __init__(self) -> None:
            super().__init__()
            made.add(self)

    feed = attach(Machine({"Foo": State()}), "127.0.0.1:9")
    monkeypatch.setattr(sending, "Event", Noted)
    try:
        assert not any(feed.flush(0.001) for _ in range(10))
        gc.collect()
        assert not made
    finally:
        feed.close(0)


def test_a_feed_that_is_closed_while_a_machine_is_attached_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine({"Foo": State()})
    feed = attach(Machine({"Foo": State()}), "127.0.0.1:9")
    monkeypatch.setattr(Sender, "begin", lambda _: feed.close(0))
    feed.add(machine)
    assert machine.tracers == ()
