"""The collector takes what is well-formed, and closes who sends anything else."""

from __future__ import annotations

import os
import pickle
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from asyncmachine import Machine, State
from asyncmachine.debugger.assembling import Assembler
from asyncmachine.debugger.collector import Collector
from asyncmachine.debugger.errors import FeedError
from asyncmachine.debugger.records import EndRecord, Record, TransitionRecord
from asyncmachine.telemetry import packets
from asyncmachine.telemetry.addresses import Address
from asyncmachine.telemetry.feed import attach
from tests.races import PATIENCE, Gate
from tests.telemetry.feeding import Receiver

HELLO = (packets.HELLO, (packets.FORMAT, packets.VERSION, "p", "host", 1, "x", 0))
SCHEMA: dict[str, dict[str, object]] = {"Foo": {}}
MACHINE = (packets.INTRODUCE, (1, "m", "", (), ("Foo",), SCHEMA))
CLOCK = (packets.CLOCK, (1, (0,)))
PLAN = (packets.DEFINE, (0, "add", (0,), False, True, ((0, 1),), (0,), (("called", "Foo", ""),)))
RUN = (packets.RUN, (1, 1, [0, 5, 100, 10, 0]))
GOOD = (HELLO, MACHINE, CLOCK, PLAN, RUN)


def dial(address: str) -> socket.socket:
    return socket.create_connection(Address.parse(address), PATIENCE)


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


MALFORMED = {
    "nonsense": b"GET / HTTP/1.1\r\n\r\n" * 10,
    "too large": packets.LENGTH.pack(2**31),
    "pickle": packets.LENGTH.pack(20) + pickle.dumps(print)[:20].ljust(20),
    "no hello": packets.encode([MACHINE]),
    "other format": packets.encode([(0, ("other", 1, "p", "h", 1, "x", 0))]),
    "later version": packets.encode([(0, (packets.FORMAT, 99, "p", "h", 1, "x", 0))]),
    "two hellos": packets.encode([HELLO, HELLO]),
    "unknown machine": packets.encode([HELLO, CLOCK]),
    "unknown plan": packets.encode([HELLO, MACHINE, RUN]),
    "clock of other length": packets.encode([HELLO, MACHINE, (packets.CLOCK, (1, (0, 0)))]),
    "tick that is no number": packets.encode([HELLO, MACHINE, (packets.CLOCK, (1, ("x",)))]),
    "position out of range": packets.encode(
        [HELLO, MACHINE, (packets.DEFINE, (0, "add", (7,), False, True, (), (), ())), RUN]
    ),
    "odd figures": packets.encode([HELLO, MACHINE, PLAN, (packets.RUN, (1, 1, [0, 5]))]),
    "wrong type": packets.encode([(0, "hello")]),
    "deep": packets.LENGTH.pack(100_000) + b"\x91" * 100_000,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_who_sends_what_is_malformed_is_closed_and_harms_nobody(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine({"Foo": State()}, id="good")
    with Receiver() as receiver, attach(machine, receiver.address) as feed:
        machine.add("Foo")
        with dial(receiver.address) as bad:
            bad.sendall(data)
            assert is_closed(bad)
        assert receiver.collector.malformed == 1
        machine.remove("Foo")
        assert feed.flush(PATIENCE)
        receiver.wait_for(lambda _: len(receiver.transitions("good")) == 2)
    assert "is closed" in caplog.text


def test_what_comes_byte_by_byte_is_put_together() -> None:
    with Receiver() as receiver, dial(receiver.address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"".join(packets.encode([each]) for each in GOOD):
            sock.sendall(bytes([byte]))
        receiver.wait_for(lambda _: receiver.transitions())
        (record,) = receiver.transitions()
        assert (record.id, record.moves, record.called) == (5, {"Foo": 1}, ("Foo",))
        assert receiver.collector.senders == 1
        sock.close()
        receiver.wait_for(lambda heard: heard[-1] == EndRecord("p", "lost"))
        assert receiver.collector.wait_idle(PATIENCE)


def test_a_process_that_dials_again_has_lost_its_former_connection_before() -> None:
    with Receiver() as receiver, dial(receiver.address) as former, dial(receiver.address) as new:
        former.sendall(packets.encode(list(GOOD)))
        receiver.wait_for(lambda _: receiver.transitions())
        new.sendall(packets.encode(list(GOOD)))
        receiver.wait_for(lambda _: len(receiver.transitions()) == 2)
        assert is_closed(former)
        assert receiver.collector.senders == 1
    receiver.wait_for(lambda heard: sum(each == EndRecord("p", "lost") for each in heard) == 2)
    kinds = [type(each).__name__ for each in receiver.records]
    assert kinds == 2 * ["MachineRecord", "ClockRecord", "TransitionRecord", "EndRecord"]


def test_what_is_left_of_a_former_connection_is_told_first() -> None:
    runs = 3000
    gate = Gate()
    heard: list[Record] = []

    def sink(records: list[Record]) -> None:
        gate()
        heard.extend(records)

    with (
        Collector(sink) as collector,
        dial(collector.address) as former,
        dial(collector.address) as new,
    ):
        former.sendall(packets.encode(list(GOOD)))
        gate.await_reached()
        for _ in range(runs):
            former.sendall(packets.encode([(packets.RUN, (1, 1, [0, 5, 100, 10, 0] * 20))]))
        new.sendall(packets.encode([*GOOD, (packets.FAREWELL, ())]))
        new.close()
        gate.open()
        assert collector.wait_idle(PATIENCE)
    assert collector.received == 1 + 20 * runs + 1
    assert heard[-1] == EndRecord("p", "closed")
    assert heard[-5] == EndRecord("p", "lost")
    assert sum(isinstance(each, EndRecord) for each in heard) == 2


def test_tags_and_fields_of_later_versions_are_passed_over() -> None:
    more = (packets.RUN, (1, 1, [0, 5, 100, 10, 0], "more", [1]))
    records = Assembler().take(packets.encode([HELLO, (77, {"a": 1}), MACHINE, PLAN, more])[4:])
    assert isinstance(records[-1], TransitionRecord)


def test_no_bytes_make_it_fail_otherwise_than_by_an_error_of_its_own() -> None:
    payload = packets.encode(list(GOOD))[4:]
    for at in range(len(payload)):
        _take(payload[:at])
        for flip in (0x01, 0x80, 0xFF):
            _take(payload[:at] + bytes([payload[at] ^ flip]) + payload[at + 1 :])
    rnd = Random(1)
    for _ in range(2000):
        _take(rnd.randbytes(rnd.randint(0, 60)))


def _take(payload: bytes) -> None:
    try:
        Assembler().take(payload)
    except FeedError:
        pass


def test_a_sink_that_fails_is_logged_and_hears_on(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[list[Record]] = []
    both = threading.Event()

    def sink(records: list[Record]) -> None:
        heard.append(records)
        if len(heard) == 2:
            both.set()
        raise LookupError

    with Collector(sink) as collector, dial(collector.address) as sock:
        for part in (GOOD[:2], GOOD[2:]):
            sock.sendall(packets.encode(list(part)))
        assert both.wait(PATIENCE)
    assert caplog.text.count("has failed") >= 2


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="there is no /proc/net/tcp")
def test_senders_that_say_nothing_are_asked_by_the_system_whether_they_are_there() -> None:
    with Receiver() as receiver, dial(receiver.address) as sock:
        sock.sendall(packets.encode(list(GOOD)))
        receiver.wait_for(lambda _: receiver.transitions())
        _, port = Address.parse(receiver.address)
        connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        (timer,) = [
            timer
            for _, local, _, state, _, timer, *_ in connections[1:]
            if local.endswith(f":{port:04X}") and state == "01"  # established
        ]
        assert timer.startswith("02:")  # which keeps alive


def test_more_senders_than_allowed_are_closed() -> None:
    one = Collector(lambda _: None, most_senders=1)
    with one as collector, dial(collector.address) as first:
        first.sendall(packets.encode([HELLO]))
        with dial(collector.address) as second:
            assert is_closed(second)
        assert collector.senders == 1


@pytest.fixture
def few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 200), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_files")
def test_when_there_are_no_more_files_it_takes_newcomers_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Receiver() as receiver, dial(receiver.address) as first, socket.socket() as second:
        first.sendall(packets.encode(list(GOOD)))
        receiver.wait_for(lambda _: receiver.transitions())
        taken = []
        try:
            while True:
                taken.append(os.dup(first.fileno()))
        except OSError:
            pass
        second.connect(Address.parse(receiver.address))
        second.sendall(packets.encode(list(GOOD)))
        first.sendall(packets.encode([RUN]))
        receiver.wait_for(lambda _: len(receiver.transitions()) == 2)
        for each in taken:
            os.close(each)
        receiver.wait_for(lambda _: len(receiver.transitions()) == 3)
    assert "takes nobody" in caplog.text


def test_it_listens_where_it_is_told_or_says_why_not() -> None:
    with Collector(lambda _: None, "[::1]:0") as collector:
        assert collector.address.startswith("[::1]:")
        with pytest.raises(OSError, match="in use"):
            Collector(lambda _: None, collector.address)
    collector.close()
    with pytest.raises(ValueError, match="is no address"):
        Collector(lambda _: None, "nonsense")
