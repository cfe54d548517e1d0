"""The feed between real processes: receivers that stop, die and come back, forks, exits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from asyncmachine import Machine, State
from asyncmachine.debugger.records import ClockRecord, EndRecord, MachineRecord
from asyncmachine.telemetry.feed import Feed, attach
from tests.races import PATIENCE
from tests.telemetry.feeding import Receiver, environment, line_of, program, replay
from tests.telemetry.forking import fork_in_a_crowd

COUNTING = """
import sys
from asyncmachine.debugger.collector import Collector
from asyncmachine.debugger.records import MachineRecord
def hear(records):
    for each in records:
        if isinstance(each, MachineRecord):
            print("machine", each.machine_id, flush=True)
with Collector(hear, sys.argv[1]) as collector:
    print(collector.address, flush=True)
    collector.wait_idle()
    print(collector.received, collector.dropped, collector.malformed, flush=True)
"""
SHORT = """
from asyncmachine import Machine, State
machine = Machine({"Foo": State(multi=True)}, id="short")
for _ in range(1000):
    machine.add("Foo")
"""
FORKING = """
import os, sys
from asyncmachine import Machine, State
from asyncmachine.telemetry.feed import attach
machine = Machine({"Foo": State(multi=True)}, id="m")
feed = attach(machine, sys.argv[1])
machine.add("Foo")
assert feed.wait_connected(20) and feed.flush(20)
for _ in range(5):
    machine.add("Foo")
child = os.fork()
machine.add("Foo")
feed.close(20)
if child:
    os.waitpid(child, 0)
else:
    os._exit(0)
"""


def fill(machine: Machine, feed: Feed) -> int:
    """Have a machine do more than the connection holds; give how much that was."""
    made = 0
    while not made or feed.flush(1.0):
        for _ in range(50_000):
            machine.add("Foo")
        made += 50_000
    return made


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_a_program_that_ends_at_once_is_told_to_the_last() -> None:
    with Receiver() as receiver:
        subprocess.run(
            [sys.executable, "-c", SHORT],
            env=environment(AM_DBG=receiver.address),
            check=True,
            timeout=PATIENCE,
        )
        receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord) if heard else False)
        assert [each.number for each in receiver.transitions("short")] == list(range(1, 1001))
        assert receiver.records[-1] == EndRecord(receiver.machine("short").process, "closed")


def test_a_program_runs_as_ever_with_nobody_there_or_a_malformed_address() -> None:
    for address in (free_address(), "nonsense"):
        done = subprocess.run(
            [sys.executable, "-c", SHORT],
            env=environment(AM_DBG=address),
            check=True,
            timeout=PATIENCE,
            capture_output=True,
            text=True,
        )
        assert ("is ignored" in done.stderr) == (address == "nonsense")


def test_what_a_stopped_receiver_misses_is_counted() -> None:
    machine = Machine({"Foo": State(multi=True)}, id="m")
    with program(COUNTING, "127.0.0.1:0") as receiver:
        feed = attach(machine, line_of(receiver), ring=1000)
        assert feed.wait_connected(PATIENCE)
        assert line_of(receiver) == "machine m"
        os.kill(receiver.pid, signal.SIGSTOP)
        made = fill(machine, feed)
        assert feed.dropped > 0
        os.kill(receiver.pid, signal.SIGCONT)
        assert feed.flush(PATIENCE)
        machine.add("Foo")
        feed.close(PATIENCE)
        received, dropped, malformed = map(int, line_of(receiver).split())
    assert received + dropped == made + 1
    assert dropped == feed.dropped
    assert malformed == 0


def test_what_a_receiver_misses_that_dies_while_it_is_stopped_is_told_to_the_next() -> None:
    machine = Machine({"Foo": State(multi=True)}, id="m")
    with program(COUNTING, "127.0.0.1:0") as first:
        address = line_of(first)
        feed = attach(machine, address, ring=1000)
        assert line_of(first) == "machine m"
        os.kill(first.pid, signal.SIGSTOP)
        made = fill(machine, feed)
        for _ in range(5000):  # of which the ring keeps a fifth
            machine.add("Foo")
        made += 5000
        first.kill()
        first.wait(PATIENCE)
    with Receiver(address) as second:
        second.wait_for(lambda _: second.dropped)
        machine.add("Foo")
        feed.close(PATIENCE)
        second.wait_for(lambda heard: isinstance(heard[-1], EndRecord))
        *_, (last, clocks) = replay(second.records, second.machine("m").key)
        assert last.number == made + 1
        assert clocks["Foo"] == machine.tick("Foo")
        assert 0 < second.dropped <= feed.dropped  # the first one was told of some


def test_closing_ends_in_time_while_the_receiver_is_stopped() -> None:
    machine = Machine({"Foo": State(multi=True)}, id="m")
    with program(COUNTING, "127.0.0.1:0") as receiver:
        feed = attach(machine, line_of(receiver))
        assert feed.wait_connected(PATIENCE)
        os.kill(receiver.pid, signal.SIGSTOP)
        fill(machine, feed)
        assert not feed.flush(0.05)
        feed.close(0.2)
        assert not feed.connected


def test_a_new_receiver_on_the_same_port_is_told_schemas_and_clocks() -> None:
    machines = [Machine({"Foo": State(multi=True)}, id=f"m{n}") for n in range(3)]
    with program(COUNTING, "127.0.0.1:0") as first:
        address = line_of(first)
        feeds = [attach(each, address) for each in machines]
        assert {line_of(first) for _ in machines} == {f"machine m{n}" for n in range(3)}
        machines[0].add("Foo")
        assert feeds[0].flush(PATIENCE)
        first.kill()
        first.wait(PATIENCE)
    with Receiver(address) as second:
        second.wait_for(lambda heard: sum(isinstance(e, ClockRecord) for e in heard) >= 3)
        told = {e.machine_id: e.key for e in second.records if isinstance(e, MachineRecord)}
        assert set(told) == {"m0", "m1", "m2"}
        machines[0].add("Foo")
        for feed in feeds:
            feed.close(PATIENCE)
        second.wait_for(lambda heard: isinstance(heard[-1], EndRecord))
        *_, (_, clocks) = replay(second.records, told["m0"])
        assert clocks["Foo"] == machines[0].tick("Foo") == 3


def test_a_forked_child_dials_for_itself() -> None:
    with Receiver() as receiver:
        subprocess.run(
            [sys.executable, "-c", FORKING, receiver.address],
            env=environment(),
            check=True,
            timeout=PATIENCE,
        )
        receiver.wait_for(lambda heard: sum(isinstance(e, EndRecord) for e in heard) == 2)
        assert receiver.collector.malformed == 0
        machines = [e for e in receiver.records if isinstance(e, MachineRecord)]
        assert len({each.pid for each in machines}) == len(machines) == 2
        parent, child = (
            [(record.number, clocks["Foo"]) for record, clocks in replay(receiver.records, e.key)]
            for e in machines
        )
        if len(parent) < len(child):
            parent, child = child, parent
        assert parent == [(n, 2 * n - 1) for n in range(1, 8)]
        assert child == [(7, 13)]


def test_a_machine_of_a_forked_child_waits_for_no_thread_of_the_parent() -> None:
    fork_in_a_crowd(
        "from asyncmachine.telemetry.feed import attach; observer = attach(first, '127.0.0.1:9')",
        "observer.close(0)",
    )
