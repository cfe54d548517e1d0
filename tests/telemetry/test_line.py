from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from asyncmachine.telemetry.addresses import Address
from asyncmachine.telemetry.line import Line
from tests.telemetry.feeding import environment

PATIENCE = 10.0  # seconds; only a failing test waits so long


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server: socket.socket) -> Address:
    host, port = server.getsockname()
    return Address(host, port)


def test_a_bell_that_rings_before_or_during_a_wait_ends_it(line: Line) -> None:
    for _ in range(200):
        waiting = threading.Thread(target=line.wait, args=(None,))
        waiting.start()
        line.ring()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()


def test_a_bell_that_rings_a_hundred_thousand_times_never_blocks(line: Line) -> None:
    for _ in range(100_000):
        line.ring()

    line.wait(None)


def test_what_is_sent_arrives_and_a_full_connection_takes_nothing(
    line: Line, receiver: socket.socket
) -> None:
    line.dial(address_of(receiver), PATIENCE)
    theirs, _ = receiver.accept()
    with theirs:
        block = memoryview(bytes(range(256)) * 4096)
        sent = bytearray()
        while taken := line.send(block):
            sent += block[:taken]
        assert line.send(block) == 0

        got = bytearray()
        while len(got) < len(sent):
            got += theirs.recv(1 << 20)
        assert got == sent
        line.wait_for_room(PATIENCE)
        assert line.send(block) > 0


def test_a_bell_ends_the_wait_for_room(line: Line, receiver: socket.socket) -> None:
    line.dial(address_of(receiver), PATIENCE)
    theirs, _ = receiver.accept()
    with theirs:
        while line.send(memoryview(bytes(1 << 20))):
            pass
        line.ring()
        line.wait_for_room(PATIENCE * 10)


def test_a_receiver_that_hangs_up_is_noticed_while_waiting(
    line: Line, receiver: socket.socket
) -> None:
    line.dial(address_of(receiver), PATIENCE)
    receiver.accept()[0].close()

    with pytest.raises(ConnectionResetError, match="the receiver has closed"):
        line.wait(PATIENCE)


def test_it_can_be_dialled_again(line: Line, receiver: socket.socket) -> None:
    for number in range(3):
        line.dial(address_of(receiver), PATIENCE)
        with receiver.accept()[0] as theirs:
            line.send(memoryview(b"%d" % number))
            assert theirs.recv(10) == b"%d" % number
        line.hang_up()
        line.hang_up()


def test_nobody_there_is_an_oserror_and_the_bell_still_works(line: Line) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = address_of(gone)

    with pytest.raises(OSError, match="refused"):
        line.dial(address, PATIENCE)
    line.ring()
    line.wait(None)


DYING_OF_BROKEN_PIPES = """
import signal, socket
from asyncmachine.telemetry.addresses import Address
from asyncmachine.telemetry.line import Line as Connection
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
with socket.create_server(("127.0.0.1", 0)) as server:
    line = Connection()
    line.dial(Address(*server.getsockname()), 10)
    server.accept()[0].close()
    for _ in range(1000):
        try:
            line.send(memoryview(b"x"))
        except BrokenPipeError:
            print("still here")
            break
"""


def test_a_receiver_that_hangs_up_ends_no_program_that_dies_of_broken_pipes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING_OF_BROKEN_PIPES],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "still here\n")


def test_a_dial_that_fails_late_leaves_no_connection_open(receiver: socket.socket) -> None:
    line = Line()
    line.close()

    with pytest.raises((ValueError, RuntimeError, OSError)):
        line.dial(address_of(receiver), PATIENCE)

    theirs, _ = receiver.accept()
    theirs.settimeout(PATIENCE)
    with theirs:
        assert theirs.recv(10) == b""


def test_who_rings_a_closed_line_is_not_heard(receiver: socket.socket) -> None:
    line = Line()
    line.dial(address_of(receiver), PATIENCE)
    theirs, _ = receiver.accept()
    line.close()

    line.ring()

    with theirs:
        assert theirs.recv(10) == b""
