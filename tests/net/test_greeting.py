"""Two sides prove their secret to each other, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import NamedTuple

import msgspec
import pytest

from asyncmachine.net.errors import AuthenticationError, ConnectError, ProtocolError
from asyncmachine.net.greeting import Greeted, check_secret, greet_client, greet_server
from tests.races import PATIENCE, outcome, start

SOON = 0.2


class Ends(NamedTuple):
    client: socket.socket
    server: socket.socket


@pytest.fixture
def ends() -> Iterator[Ends]:
    client, server = socket.socketpair()
    with client, server:
        yield Ends(client, server)


def serving(
    ends: Ends,
    secret: str | bytes | None = None,
    *,
    timeout: float = PATIENCE,
    resume: Callable[[bytes], int | None] = lambda session: None,
) -> Future[Greeted]:
    def serve() -> Greeted:
        return greet_server(
            ends.server, secret=secret, max_frame=111, timeout=timeout, resume=resume
        )

    return start(serve)


def greet(
    ends: Ends,
    secret: str | bytes | None = None,
    *,
    timeout: float = PATIENCE,
    session: bytes = b"",
    received: int = 0,
) -> Greeted:
    return greet_client(
        ends.client,
        secret=secret,
        max_frame=222,
        timeout=timeout,
        session=session,
        received=received,
    )


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def take(sock: socket.socket) -> bytes:
    size = int.from_bytes(sock.recv(4), "big")
    return sock.recv(size)


@pytest.mark.parametrize("secret", [None, "geheim", b"\x00\xff"])
def test_both_sides_agree_on_a_new_session(ends: Ends, secret: str | bytes | None) -> None:
    serves = serving(ends, secret)
    theirs, ours = greet(ends, secret), outcome(serves)

    assert theirs.session == ours.session
    assert len(theirs.session) == 16
    assert (theirs.max_frame, ours.max_frame) == (111, 222)
    assert not theirs.resumed
    assert not ours.resumed


def test_a_text_and_its_bytes_are_the_same_secret(ends: Ends) -> None:
    serves = serving(ends, "grün")
    assert greet(ends, "grün".encode()).session == outcome(serves).session


def test_no_byte_beyond_the_greeting_is_taken_and_the_sockets_block_again(ends: Ends) -> None:
    serves = serving(ends, "s")
    greet(ends, "s")
    outcome(serves)
    ends.client.sendall(b"first")
    assert ends.server.recv(5) == b"first"
    assert ends.client.gettimeout() is None
    assert ends.server.gettimeout() is None


def test_a_session_that_is_known_goes_on(ends: Ends) -> None:
    asked: list[bytes] = []

    def known(session: bytes) -> int:
        asked.append(session)
        return 7

    serves = serving(ends, "s", resume=known)
    theirs = greet(ends, "s", session=b"x" * 16, received=3)

    assert theirs == Greeted(b"x" * 16, 7, resumed=True, max_frame=111)
    assert outcome(serves) == Greeted(b"x" * 16, 3, resumed=True, max_frame=222)
    assert asked == [b"x" * 16]


def test_a_session_that_is_not_known_begins_anew(ends: Ends) -> None:
    serves = serving(ends, "s")
    theirs = greet(ends, "s", session=b"x" * 16, received=3)

    assert theirs.session != b"x" * 16
    assert (theirs.received, outcome(serves).received) == (0, 0)


@pytest.mark.parametrize(
    ("client", "server", "client_says", "server_says"),
    [
        ("a", "b", "the secret is wrong", "the secret is wrong"),
        (None, "b", "a secret is needed", "a secret is needed"),
        ("a", None, "the server has no secret", "the client has a secret"),
    ],
)
def test_secrets_that_differ_are_refused_on_both_sides(
    ends: Ends, client: str | None, server: str | None, client_says: str, server_says: str
) -> None:
    asked: list[bytes] = []
    serves = serving(ends, server, resume=asked.append)
    with pytest.raises(AuthenticationError, match=client_says):
        greet(ends, client, session=b"x" * 16)
    with pytest.raises(AuthenticationError, match=server_says):
        outcome(serves)
    assert asked == []  # nobody is told whether a session is known


def test_a_proof_can_not_be_used_again(ends: Ends) -> None:
    spy, behind = socket.socketpair()
    with spy, behind:
        serves = serving(ends, "s")
        client = start(lambda: greet_client(behind, secret="s", max_frame=222, timeout=PATIENCE))
        spy.sendall(frame(take(ends.client)))  # the real challenge, handed on
        answer = take(spy)
        ends.client.sendall(frame(answer))
        spy.sendall(frame(take(ends.client)))
        assert outcome(client).session == outcome(serves).session

    client_end, server_end = socket.socketpair()
    with client_end, server_end:
        again = serving(Ends(client_end, server_end), "s")
        take(client_end)
        client_end.sendall(frame(answer))
        with pytest.raises(AuthenticationError, match="wrong"):
            outcome(again)


def test_a_server_that_lacks_the_secret_is_found_out(ends: Ends) -> None:
    client = start(lambda: greet(ends, "s"))
    challenge = ["asyncmachine", 1, b"n" * 32, True, 111]
    ends.server.sendall(frame(msgspec.msgpack.encode(challenge)))
    take(ends.server)
    welcome = ["", b"x" * 16, 0, False, b"p" * 32]
    ends.server.sendall(frame(msgspec.msgpack.encode(welcome)))
    with pytest.raises(AuthenticationError, match="could not prove"):
        outcome(client)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "another protocol"),
        (frame(b"\xc1garbage"), "can not be read"),
        (b"\x00\x00\xff\xff", "at most 4096"),
        (frame(msgspec.msgpack.encode(["asyncmachine", 99, b"", False, 1, b"", 0, b""])), "99"),
        (
            frame(msgspec.msgpack.encode(["other", 1, b"", False, 1, b"", 0, b""])),
            "no asyncmachine",
        ),
        (
            frame(msgspec.msgpack.encode(["asyncmachine", 1, b"", False, 111, b"", 0, b""])),
            "length",
        ),
    ],
)
def test_what_is_no_greeting_is_refused(ends: Ends, said: bytes, complaint: str) -> None:
    serves = serving(ends, "s")
    ends.client.sendall(said)
    with pytest.raises(ProtocolError, match=complaint):
        outcome(serves)


def test_an_end_in_the_middle_of_a_greeting_is_noticed(ends: Ends) -> None:
    serves = serving(ends, "s")
    take(ends.client)
    ends.client.sendall(b"\x00\x00\x00\x20half")
    ends.client.close()
    with pytest.raises(ProtocolError, match="closed"):
        outcome(serves)


def test_a_silent_client_is_given_up(ends: Ends) -> None:
    with pytest.raises(ProtocolError, match="said nothing"):
        outcome(serving(ends, "s", timeout=SOON))


def test_a_silent_server_is_given_up(ends: Ends) -> None:
    with pytest.raises(ConnectError, match="not answered"):
        greet(ends, "s", timeout=SOON)


def test_a_server_that_hangs_up_is_reported(ends: Ends) -> None:
    ends.server.close()
    with pytest.raises(ConnectError, match="closed the connection"):
        greet(ends, "s")


def test_a_client_that_drips_bytes_does_not_stretch_the_deadline(ends: Ends) -> None:
    serves = serving(ends, "s", timeout=SOON)
    take(ends.client)

    done = threading.Event()
    serves.add_done_callback(lambda _: done.set())

    def drip() -> int:
        n = 0
        for byte in b"\x00\x00\x0f\xff" + b"x" * 4000:
            if done.wait(SOON / 20):
                break
            ends.client.send(bytes([byte]))
            n += 1
        return n

    drips = start(drip)
    with pytest.raises(ProtocolError, match="said nothing"):
        outcome(serves)
    assert 0 < outcome(drips) < 4000


def test_an_empty_secret_is_none_and_refused() -> None:
    for secret in ("", b""):
        with pytest.raises(ValueError, match="empty"):
            check_secret(secret)
    with pytest.raises(TypeError, match="not int"):
        check_secret(5)  # type: ignore[arg-type]
