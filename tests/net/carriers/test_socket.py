"""Sockets as carriers: plain, and with TLS; listening, connecting and ending."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from asyncmachine.net.carriers import Carrier
from asyncmachine.net.carriers.pipe import pipe_ends, taken_over
from asyncmachine.net.carriers.socket import (
    Address,
    Listener,
    SocketCarrier,
    TlsCarrier,
    carrier_for,
    dial,
    listen,
    parse,
    secure,
)
from asyncmachine.net.errors import ConnectError, InsecureAddressError
from asyncmachine.oneshot import deadline_after, time_left
from tests.races import PATIENCE, outcome, start, together


class Contexts(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {key} -out {cert} "
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return Contexts(server, ssl.create_default_context(cafile=str(cert)))


def plain_pair() -> tuple[Carrier, Carrier]:
    ours, theirs = socket.socketpair()
    return SocketCarrier(ours), SocketCarrier(theirs)


def tcp_pair() -> tuple[Carrier, Carrier]:
    listener = listen(parse("tcp://127.0.0.1:0"), secret=None, tls=None)
    client = dial(parse(listener.address), timeout=PATIENCE, tls=None)
    server = listener.accept()
    listener.close()
    return carrier_for(client), carrier_for(server)


def tls_pair(tls: Contexts) -> tuple[Carrier, Carrier]:
    listener = listen(parse("tcp://127.0.0.1:0"), secret=None, tls=tls.server)
    accepting = start(lambda: secure(listener.accept(), tls.server, timeout=PATIENCE))
    client = dial(parse(listener.address), timeout=PATIENCE, tls=tls.client)
    server = outcome(accepting)
    listener.close()
    return carrier_for(client), carrier_for(server)


@pytest.fixture(params=["plain", "tcp", "tls"])
def pair(request: pytest.FixtureRequest, tls: Contexts) -> Iterator[tuple[Carrier, Carrier]]:
    make: dict[str, Callable[[], tuple[Carrier, Carrier]]] = {
        "plain": plain_pair,
        "tcp": tcp_pair,
        "tls": partial(tls_pair, tls),
    }
    ours, theirs = make[request.param]()
    yield ours, theirs
    ours.close()
    theirs.close()


def send_all(carrier: Carrier, data: bytes) -> bytes:
    view = memoryview(data)
    while view:
        sent = carrier.send(view)
        view = view[sent:]
        if not sent:
            assert carrier.wait_writable(PATIENCE)
    return b""


def receive_all(carrier: Carrier, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = carrier.receive()
        assert more
        data += more
    return bytes(data)


def test_what_is_sent_arrives(pair: tuple[Carrier, Carrier]) -> None:
    ours, theirs = pair
    assert theirs.receive_now() is None
    assert not theirs.wait_readable(0)
    assert ours.send(b"hello") == 5
    assert theirs.wait_readable(PATIENCE)
    assert theirs.receive() == b"hello"
    assert theirs.receive_now() is None


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_what_arrives_in_time_is_received(
    pair: tuple[Carrier, Carrier], timeout: float | None
) -> None:
    ours, theirs = pair
    receiving = start(lambda: receive_within(theirs, timeout))
    assert ours.send(b"hello") == 5
    assert outcome(receiving) == b"hello"
    receiving = start(lambda: receive_within(theirs, timeout))
    ours.close()
    assert outcome(receiving) == b""


def receive_within(carrier: Carrier, timeout: float | None) -> bytes:
    deadline = deadline_after(timeout)
    while True:
        left = time_left(deadline)
        data = carrier.receive_within(left)
        if data is not None:
            return data
        assert left is None or left > 0, "it has not arrived"


def test_receiving_in_vain_ends_with_the_time(pair: tuple[Carrier, Carrier]) -> None:
    ours, theirs = pair
    for timeout in (0.0, 0.002, 0.02, 0.2):
        deadline = monotonic() + timeout
        tries = 0
        while (left := deadline - monotonic()) > 0 or not tries:
            assert theirs.receive_within(max(left, 0.0)) is None
            tries += 1
        assert tries < 15, "it has been polled"
    # What was set for that must not hurt others.
    receiving = start(theirs.receive)
    assert ours.send(b"late") == 4
    assert outcome(receiving) == b"late"


def test_long_and_short_messages_in_turn(pair: tuple[Carrier, Carrier]) -> None:
    ours, theirs = pair
    for size in (1, 16384, 16385, 1, 500_000, 3, 16384, 1):
        data = os.urandom(size)
        sent = start(lambda data=data: send_all(ours, data))  # type: ignore[misc]
        assert receive_all(theirs, size) == data
        outcome(sent)
        assert not theirs.is_buffered()
        assert theirs.receive_now() is None


def test_much_goes_both_ways_at_once(pair: tuple[Carrier, Carrier]) -> None:
    ours, theirs = pair
    there, back = os.urandom(3_000_000), os.urandom(3_000_000)
    done = together(
        lambda: send_all(ours, there),
        lambda: send_all(theirs, back),
        lambda: receive_all(theirs, len(there)),
        lambda: receive_all(ours, len(back)),
    )
    assert done[2:] == [there, back]


def test_sending_never_blocks(pair: tuple[Carrier, Carrier]) -> None:
    ours, _ = pair
    for _ in range(10_000):
        if not ours.send(b"x" * 65536):
            break
    else:
        pytest.fail("it took all")
    assert not ours.wait_writable(0.01)


def test_the_end_is_told(pair: tuple[Carrier, Carrier]) -> None:
    ours, theirs = pair
    ours.close()
    ours.close()
    assert theirs.wait_readable(PATIENCE)
    assert theirs.receive() == b""
    assert theirs.receive_now() == b""


def test_closing_wakes_who_receives(pair: tuple[Carrier, Carrier]) -> None:
    ours, _ = pair
    receiving = start(ours.receive)
    assert not receiving.done()
    ours.close()
    assert outcome(receiving) == b""


def test_closing_wakes_who_waits_to_send(pair: tuple[Carrier, Carrier]) -> None:
    ours, _ = pair
    while ours.send(b"x" * 65536):
        pass
    waiting = start(lambda: ours.wait_writable(PATIENCE))
    ours.close()
    assert outcome(waiting)
    with pytest.raises(OSError, match=r".*"):
        ours.send(b"x")


def test_the_end_races_with_its_users(tls: Contexts) -> None:
    for n in range(60):
        ours, theirs = plain_pair() if n % 3 else tls_pair(tls)

        def use(carrier: Carrier = ours) -> None:
            try:
                while carrier.receive():
                    carrier.send(b"more")
            except OSError:
                pass

        theirs.send(b"begin")
        together(use, ours.close, theirs.close)


def test_a_child_takes_its_end_over() -> None:
    our_end, their_end = pipe_ends()
    ours = SocketCarrier(our_end)
    inherited = taken_over(their_end.detach())
    assert not inherited.get_inheritable()
    child = SocketCarrier(inherited)
    assert child.send(b"up") == 2
    assert ours.receive() == b"up"
    child.close()
    assert ours.receive() == b""


def test_the_kind_of_carrier_fits_the_socket(tls: Contexts) -> None:
    ours, theirs = tls_pair(tls)
    assert isinstance(ours, TlsCarrier)
    assert ours.peer.startswith("tcp://127.0.0.1:")
    ours.close()
    theirs.close()


# Listening and connecting


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


def listen_at(path: Path) -> Listener:
    return listen(Address("unix", path=str(path)), secret=None, tls=None)


def test_a_socket_file_is_its_owners_alone_and_goes_with_the_listener(path: Path) -> None:
    listener = listen_at(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    listener.close()
    listener.close()
    assert list(path.parent.iterdir()) == []


def test_a_stale_socket_file_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    listener = listen_at(path)
    dial(Address("unix", path=str(path)), timeout=PATIENCE, tls=None).close()
    listener.close()


def test_a_socket_file_that_is_in_use_is_left_alone(path: Path) -> None:
    listener = listen_at(path)
    with pytest.raises(ConnectError, match="in use"):
        listen_at(path)
    dial(Address("unix", path=str(path)), timeout=PATIENCE, tls=None).close()
    listener.close()


def test_a_file_that_is_no_socket_is_never_replaced(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(ConnectError, match="no socket"):
        listen_at(path)
    assert path.read_text() == "precious"


def test_a_listener_does_not_take_away_what_is_not_its_own(path: Path) -> None:
    listener = listen_at(path)
    path.unlink()
    path.write_text("of somebody else")
    listener.close()
    assert path.read_text() == "of somebody else"


def test_a_long_path_can_be_listened_at(tmp_path: Path) -> None:
    path = tmp_path / ("x" * (100 - len(str(tmp_path))))
    listener = listen_at(path)
    dial(Address("unix", path=str(path)), timeout=PATIENCE, tls=None).close()
    listener.close()


def test_a_folder_that_is_missing_is_named(path: Path) -> None:
    with pytest.raises(ConnectError, match="nowhere.*No such file"):
        listen_at(path.parent / "nowhere" / "a.sock")


def test_a_port_that_is_in_use_is_named() -> None:
    listener = listen(parse("tcp://127.0.0.1:0"), secret=None, tls=None)
    with pytest.raises(ConnectError, match=listener.address):
        listen(parse(listener.address), secret=None, tls=None)
    listener.close()


def test_an_open_door_needs_a_lock() -> None:
    with pytest.raises(InsecureAddressError):
        listen(parse("tcp://0.0.0.0:0"), secret=None, tls=None)
    listen(parse("tcp://0.0.0.0:0"), secret="s", tls=None).close()


def test_closing_wakes_who_accepts(path: Path) -> None:
    for _ in range(50):
        listener = listen_at(path)
        accepting = start(listener.accept)
        listener.close()
        with pytest.raises(OSError, match=r".*"):
            outcome(accepting)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [("unix:/nowhere/a.sock", "no such file"), ("tcp://127.0.0.1:1", "nobody listens")],
)
def test_where_nobody_serves_is_named(address: str, complaint: str) -> None:
    with pytest.raises(ConnectError, match=f"{address}: .*{complaint}"):
        dial(parse(address), timeout=PATIENCE, tls=None)


def test_a_server_that_does_not_speak_tls_is_named(tls: Contexts) -> None:
    listener = listen(parse("tcp://127.0.0.1:0"), secret=None, tls=None)

    def answer_in_plain() -> None:
        with listener.accept() as sock:
            sock.recv(10)
            sock.sendall(b"this is no TLS at all, sorry")

    answering = start(answer_in_plain)
    with pytest.raises(ConnectError, match="TLS failed"):
        dial(parse(listener.address), timeout=PATIENCE, tls=tls.client)
    outcome(answering)
    listener.close()


def test_a_server_that_is_silent_is_given_up(tls: Contexts) -> None:
    listener = listen(parse("tcp://127.0.0.1:0"), secret=None, tls=None)
    with pytest.raises(ConnectError, match=r"has not answered for 0.1 s"):
        dial(parse(listener.address), timeout=0.1, tls=tls.client)
    listener.close()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_who_begin_to_listen_at_once_one_does(tmp_path: Path, *, stale: bool) -> None:
    for n in range(30):
        path = tmp_path / f"{n}.sock"
        if stale:
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path))

        def begin(path: Path = path) -> Listener | None:
            try:
                return listen_at(path)
            except ConnectError:
                return None

        begun = [each for each in together(*[begin] * 4) if each is not None]
        assert len(begun) == 1
        dial(Address("unix", path=str(path)), timeout=PATIENCE, tls=None).close()
        begun[0].close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    for n in range(100):
        path = tmp_path / str(n)

        def write(path: Path = path) -> bool:
            try:
                with path.open("x") as file:
                    file.write("precious")
            except OSError:
                return False
            return True

        def begin(path: Path = path) -> Listener | None:
            try:
                return listen_at(path)
            except ConnectError:
                return None

        written, begun = together(write, begin)
        assert written != (begun is not None)
        if isinstance(begun, Listener):
            begun.close()


def test_a_server_too_busy_to_accept_is_in_use_and_waited_for(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(0)
        address = Address("unix", path=str(path))
        first = dial(address, timeout=PATIENCE, tls=None)
        with pytest.raises(ConnectError, match=r"has not answered for 0.05 s"):
            dial(address, timeout=0.05, tls=None)
        with pytest.raises(ConnectError, match="in use"):
            listen_at(path)
        second = start(lambda: dial(address, timeout=PATIENCE, tls=None))
        server.accept()[0].close()
        outcome(second).close()
        first.close()
