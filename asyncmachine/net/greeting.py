"""How two sides prove to each other that they know a secret, and begin or resume a session.

The server sends a challenge, the client answers with a challenge of its own and a proof,
the server with its proof: HMAC-SHA256 over all that was said, keyed with the secret, with
a label for the role. So no proof can be used again, turned round or tampered with, and
the secret is never sent. Each step is one small frame; all of it has one deadline.
"""

from __future__ import annotations

import hmac
import os
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, TypeVar

import msgspec

from asyncmachine.net.errors import AuthenticationError, ConnectError, ProtocolError
from asyncmachine.net.wire import FRAME_OVERHEAD, VERSION

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["Greeted", "check_secret", "greet_client", "greet_server"]

_MAGIC: Final = "asyncmachine"
_LARGEST: Final = 4096
_NONCE: Final = 32
_SESSION: Final = 16


class Greeted(NamedTuple):
    """What two sides have agreed on.

    Attributes:
        session: what the session is known by.
        received: how many messages of it the other side has received.
        resumed: whether it goes on after a cut.
        max_frame: bytes that the other side accepts in a frame.

    """

    session: bytes
    received: int
    resumed: bool
    max_frame: int


_Size = Annotated[int, msgspec.Meta(ge=FRAME_OVERHEAD, le=2**31 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Head(msgspec.Struct, array_like=True):
    """What the greetings of all versions begin with."""

    magic: str
    version: int


class _Challenge(msgspec.Struct, array_like=True):
    magic: str
    version: int
    nonce: bytes
    secret: bool
    max_frame: _Size


class _Answer(msgspec.Struct, array_like=True):
    magic: str
    version: int
    nonce: bytes
    secret: bool
    max_frame: _Size
    session: bytes
    received: _Count
    proof: bytes


class _Welcome(msgspec.Struct, array_like=True):
    refusal: str
    session: bytes
    received: _Count
    resumed: bool
    proof: bytes


_T = TypeVar("_T", bound=msgspec.Struct)
_encode: Final = msgspec.msgpack.encode


class _Silence(Exception):  # noqa: N818 - what happened
    """The other side said nothing in time."""


class _Gone(Exception):  # noqa: N818 - what happened
    """The other side ended the connection."""


class _Wire:
    """Small frames over a socket, within one deadline."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock = sock
        self._deadline = monotonic() + timeout

    def send(self, message: msgspec.Struct) -> None:
        data = _encode(message)
        self._hurry()
        try:
            self._sock.sendall(len(data).to_bytes(4, "big") + data)
        except TimeoutError:
            raise _Silence from None
        except OSError:
            raise _Gone from None

    def receive(self, kind: type[_T]) -> _T:
        head = self._exactly(4)
        size = int.from_bytes(head, "big")
        if size > _LARGEST:
            if head.isascii() and head.decode().isprintable():
                raise ProtocolError(f"{head!r} is no greeting: this speaks another protocol")
            raise ProtocolError(f"a greeting of {size} bytes; at most {_LARGEST} are allowed")
        data = self._exactly(size)
        try:
            if kind is not _Welcome:  # other versions may go on in another way
                _check_version(msgspec.msgpack.decode(data, type=_Head))
            return msgspec.msgpack.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"a greeting that can not be read: {error}") from error

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._hurry()
            try:
                more = self._sock.recv(size - len(data))
            except TimeoutError:
                raise _Silence from None
            except OSError:
                raise _Gone from None
            if not more:
                raise _Gone
            data += more
        return bytes(data)

    def _hurry(self) -> None:
        left = self._deadline - monotonic()
        if left <= 0:
            raise _Silence
        self._sock.settimeout(left)


def check_secret(secret: str | bytes | None) -> None:
    """Refuse a secret that is none.

    Raises:
        ValueError: for an empty one, which everybody knows.
        TypeError: for what is neither text nor bytes.

    """
    if secret is not None and not isinstance(secret, str | bytes):
        msg = f"a secret is a text or bytes, not {type(secret).__name__}"
        raise TypeError(msg)
    if secret is not None and not secret:
        msg = "the secret is empty; leave it out to have none"
        raise ValueError(msg)


def _key(secret: str | bytes | None) -> bytes:
    if secret is None:
        return b""
    return secret.encode() if isinstance(secret, str) else bytes(secret)


def _proof(secret: bytes, role: str, *said: object) -> bytes:
    return hmac.digest(secret, _encode([role, VERSION, *said]), "sha256")


def _check_version(greeting: _Head) -> None:
    if greeting.magic != _MAGIC:
        raise ProtocolError("the other side is no asyncmachine")
    if greeting.version != VERSION:
        raise ProtocolError(
            f"the other side speaks version {greeting.version} of the protocol, this one {VERSION}"
        )


def _check_nonce(greeting: _Challenge | _Answer) -> None:
    if len(greeting.nonce) != _NONCE:
        raise ProtocolError("a challenge of the wrong length")


def greet_client(
    sock: socket.socket,
    *,
    secret: str | bytes | None,
    max_frame: int,
    timeout: float,
    session: bytes = b"",
    received: int = 0,
) -> Greeted:
    """Prove ourselves to a server, and have it prove itself.

    Args:
        sock: a connected socket.
        secret: what both sides know; ``None`` for nothing.
        max_frame: bytes that we accept in a frame.
        timeout: seconds that all of it may take.
        session: the session to resume; empty for a new one.
        received: how many messages of it have arrived here.

    Raises:
        AuthenticationError: if the secrets differ, or only one side has one.
        ProtocolError: if something else listens there.
        ConnectError: if there is no answer in time.

    """
    wire = _Wire(sock, timeout)
    try:
        greeted = _greet_client(
            wire, _key(secret), secret is not None, max_frame, session, received
        )
    except _Silence:
        raise ConnectError(f"the server has not answered for {timeout:g} s") from None
    except _Gone:
        raise ConnectError("the server has closed the connection") from None
    sock.settimeout(None)
    return greeted


def _greet_client(
    wire: _Wire, secret: bytes, has_secret: bool, max_frame: int, session: bytes, received: int
) -> Greeted:
    challenge = wire.receive(_Challenge)
    _check_nonce(challenge)
    nonce = os.urandom(_NONCE)
    said = (challenge.nonce, nonce, challenge.max_frame, max_frame, session, received)
    proof = _proof(secret, "client", *said) if has_secret else b""
    wire.send(_Answer(_MAGIC, VERSION, nonce, has_secret, max_frame, session, received, proof))
    if has_secret and not challenge.secret:
        raise AuthenticationError("the server has no secret, so it can not prove itself")
    welcome = wire.receive(_Welcome)
    if welcome.refusal:
        raise AuthenticationError(welcome.refusal)
    if has_secret:
        expected = _proof(
            secret, "server", *said, welcome.session, welcome.received, welcome.resumed
        )
        if not hmac.compare_digest(expected, welcome.proof):
            raise AuthenticationError("the server could not prove that it knows the secret")
    if len(welcome.session) != _SESSION or (welcome.resumed and welcome.session != session):
        raise ProtocolError("the server goes on with a session that was not asked for")
    return Greeted(welcome.session, welcome.received, welcome.resumed, challenge.max_frame)


def greet_server(
    sock: socket.socket,
    *,
    secret: str | bytes | None,
    max_frame: int,
    timeout: float,
    resume: Callable[[bytes], int | None],
) -> Greeted:
    """Have a client prove itself, and prove ourselves to it.

    Args:
        sock: a connected socket.
        secret: what both sides know; ``None`` for nothing.
        max_frame: bytes that we accept in a frame.
        timeout: seconds that all of it may take.
        resume: asked for a session that a proven client names: how many messages of it
            have arrived here, or ``None`` if it is not known.

    Raises:
        AuthenticationError: if the secrets differ, or only one side has one.
        ProtocolError: if the client speaks another protocol, or says nothing in time.

    """
    wire = _Wire(sock, timeout)
    try:
        greeted = _greet_server(wire, _key(secret), secret is not None, max_frame, resume)
    except _Silence:
        raise ProtocolError(f"the client said nothing for {timeout:g} s") from None
    except _Gone:
        raise ProtocolError("the client closed the connection before it was greeted") from None
    sock.settimeout(None)
    return greeted


def _greet_server(
    wire: _Wire,
    secret: bytes,
    has_secret: bool,
    max_frame: int,
    resume: Callable[[bytes], int | None],
) -> Greeted:
    nonce = os.urandom(_NONCE)
    wire.send(_Challenge(_MAGIC, VERSION, nonce, has_secret, max_frame))
    answer = wire.receive(_Answer)
    _check_nonce(answer)
    said = (
        nonce,
        answer.nonce,
        max_frame,
        answer.max_frame,
        answer.session,
        answer.received,
    )
    refusal = ""
    if has_secret and not answer.secret:
        refusal = "a secret is needed"
    elif answer.secret and not has_secret:
        refusal = "the client has a secret, and the server has none"
    elif has_secret and not hmac.compare_digest(_proof(secret, "client", *said), answer.proof):
        refusal = "the secret is wrong"
    if refusal:
        wire.send(_Welcome(refusal, b"", 0, resumed=False, proof=b""))
        raise AuthenticationError(refusal)
    count = resume(answer.session) if len(answer.session) == _SESSION else None
    resumed = count is not None
    session = answer.session if resumed else os.urandom(_SESSION)
    proof = _proof(secret, "server", *said, session, count or 0, resumed) if has_secret else b""
    wire.send(_Welcome("", session, count or 0, resumed, proof))
    return Greeted(session, answer.received if resumed else 0, resumed, answer.max_frame)
