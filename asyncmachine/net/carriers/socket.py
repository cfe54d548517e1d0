"""Unix and TCP sockets, plain or with TLS.

Guarantees: a carrier's file descriptor is not closed under the feet of a thread that uses
it: ``close`` only shuts the connection down, and the socket is closed when nobody refers
to the carrier any more.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import stat
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final
from weakref import finalize

from asyncmachine.net.carriers.addresses import Address, check_secure, parse
from asyncmachine.net.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncmachine.net.carriers import Carrier

__all__ = [
    "Address",
    "Listener",
    "SocketCarrier",
    "TlsCarrier",
    "carrier_for",
    "dial",
    "listen",
    "parse",
    "secure",
]

# What is received at once, at first and at most. A buffer of the latter size comes straight
# from the system, and costs more than a short message.
_SHORT: Final = 1 << 14
_CHUNK: Final = 1 << 18
# A shorter time-out than this is not worth telling the system, in seconds.
_BRIEF: Final = 0.01
# Nor is a longer one.
_LONGEST: Final = 1e6
_SEND_FLAGS: Final = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)
# A host that has vanished is noticed within half a minute.
_KEEP_ALIVE: Final = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 30_000,
}


class SocketCarrier:
    """A plain stream socket; it stays in blocking mode.

    Attributes:
        peer: a readable name of the other side.

    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        _tune(sock)
        self._sock = sock
        _close_with(self, sock)
        self.peer = _name(sock)
        self._shut = False
        self._size = _SHORT
        self._patience = 0.0  # how long the system lets us block; 0 for ever
        # Bound once: these two are on the way of every message.
        self._receive = sock.recv
        self._send = sock.send

    def fileno(self) -> int:
        return self._sock.fileno()

    def receive(self) -> bytes:
        while True:
            try:
                return self._sized(self._receive(self._size))
            except BlockingIOError:  # the patience is over, ours is not
                continue

    def receive_now(self) -> bytes | None:
        try:
            return self._sized(self._receive(self._size, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return None

    def receive_within(self, timeout: float | None) -> bytes | None:
        # The system watches the time, which saves a poll before each message. Its time-out
        # is set so that it lasts for many calls that allow about as much.
        if timeout is None:
            if self._patience:
                self._be_patient(0.0)
        elif timeout < _BRIEF:
            return self.receive_now() if self.wait_readable(timeout) else None
        elif not timeout / 2 <= self._patience <= timeout:
            self._be_patient(timeout * 0.75)
        try:
            return self._sized(self._receive(self._size))
        except BlockingIOError:
            return None

    def _be_patient(self, seconds: float) -> None:
        seconds = min(seconds, _LONGEST)
        whole, rest = divmod(seconds, 1)
        timeval = struct.pack("ll", int(whole), int(rest * 1e6))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self._patience = seconds

    def _sized(self, data: bytes) -> bytes:
        """Take more the next time if there was more, and less if there was little."""
        if len(data) == self._size:
            self._size = _CHUNK
        elif len(data) < _SHORT:
            self._size = _SHORT
        return data

    def is_buffered(self) -> bool:
        return False

    def wait_readable(self, timeout: float | None) -> bool:
        return _wait(self._sock, select.POLLIN, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return _wait(self._sock, select.POLLOUT, timeout)

    def send(self, data: bytes | memoryview) -> int:
        try:
            return self._send(data, _SEND_FLAGS)
        except BlockingIOError:
            return 0

    def shut_writing(self) -> None:
        _shut_down(self._sock, socket.SHUT_WR)

    def close(self) -> None:
        self._shut = True
        _shut_down(self._sock)


class TlsCarrier:
    """A socket with TLS.

    What OpenSSL keeps for a connection can not be used by two threads at once, so each
    call of it, which never blocks, has the lock; waiting is done outside.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.setblocking(False)
        _tune(sock)
        self._sock = sock
        _close_with(self, sock)
        self._lock = Lock()
        self._shut = False
        self.peer = _name(sock)

    def fileno(self) -> int:
        return self._sock.fileno()

    def receive(self) -> bytes:
        while True:
            data = self.receive_now()
            if data is not None:
                return data
            self.wait_readable(None)

    def receive_now(self) -> bytes | None:
        if self._shut:
            return b""
        with self._lock:
            try:
                return self._sock.recv(_CHUNK)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""

    def receive_within(self, timeout: float | None) -> bytes | None:
        return self.receive_now() if self.wait_readable(timeout) else None

    def is_buffered(self) -> bool:
        with self._lock:
            return self._shut or self._sock.pending() > 0

    def wait_readable(self, timeout: float | None) -> bool:
        if self.is_buffered():
            return True
        return _wait(self._sock, select.POLLIN, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return self._shut or _wait(self._sock, select.POLLOUT, timeout)

    def send(self, data: bytes | memoryview) -> int:
        if self._shut:
            raise BrokenPipeError("the connection is closed")
        with self._lock:
            try:
                return self._sock.send(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return 0

    def shut_writing(self) -> None:
        _shut_down(self._sock, socket.SHUT_WR)

    def close(self) -> None:
        self._shut = True
        _shut_down(self._sock)


def _close_with(carrier: object, sock: socket.socket) -> None:
    """Close a socket when nobody refers to its carrier any more."""
    finalize(carrier, sock.close).atexit = False


def _shut_down(sock: socket.socket, what: int = socket.SHUT_RDWR) -> None:
    try:
        # The plain socket beneath: TLS has its own idea of an end, and may wait for it.
        socket.socket.shutdown(sock, what)
    except OSError:
        pass


def _wait(sock: socket.socket, events: int, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(None if timeout is None else max(timeout, 0.0) * 1000))


def _tune(sock: socket.socket) -> None:
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _name(sock: socket.socket) -> str:
    try:
        peer = sock.getpeername()
    except OSError:
        return "somebody who has gone"
    if isinstance(peer, tuple):
        return str(Address("tcp", host=str(peer[0]), port=int(peer[1])))
    return f"unix:{peer}" if peer else "a local process"


def carrier_for(sock: socket.socket) -> Carrier:
    """Give the carrier that fits a connected socket."""
    return TlsCarrier(sock) if isinstance(sock, ssl.SSLSocket) else SocketCarrier(sock)


# Listening ------------------------------------------------------------------------------


class Listener:
    """A socket that others connect to.

    Attributes:
        address: where, with the real port.

    """

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self._sock = sock
        self._address = address
        self._inode = _inode(address.path) if address.path else None
        self.address = str(address)
        self._closed = False

    def accept(self) -> socket.socket:
        """Block until somebody connects.

        Raises:
            OSError: once it is closed.

        """
        while True:
            try:
                return self._sock.accept()[0]
            except ConnectionAbortedError:  # the client has thought better of it
                continue

    def close(self) -> None:
        """Listen no more; whoever waits in ``accept`` wakes."""
        if self._closed:
            return
        self._closed = True
        # Taken away first: nobody who still finds it may be left waiting.
        if self._address.path and _inode(self._address.path) == self._inode:
            Path(self._address.path).unlink(missing_ok=True)
        _shut_down(self._sock)
        self._sock.close()


def listen(address: Address, *, secret: str | bytes | None, tls: ssl.SSLContext | None) -> Listener:
    """Listen at an address.

    Raises:
        InsecureAddressError: for one that other hosts can reach, without secret and TLS.
        ConnectError: if it is in use, or can not be had.

    """
    check_secure(address, protected=secret is not None or tls is not None)
    try:
        return _listen_unix(address) if address.scheme == "unix" else _listen_tcp(address)
    except OSError as error:
        if isinstance(error, ConnectError):
            raise
        reason = error.strerror or str(error)
        raise ConnectError(f"can not listen at {address}: {reason}") from error


def _listen_tcp(address: Address) -> Listener:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(socket.SOMAXCONN)
        return Listener(sock, Address("tcp", host=address.host, port=sock.getsockname()[1]))
    except BaseException:
        sock.close()
        raise


def _listen_unix(address: Address) -> Listener:
    path = Path(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Made where nobody else can go, and put in its place once its mode is right and it
        # listens. A link, unlike a move, replaces nothing that another has put there.
        with tempfile.TemporaryDirectory(prefix=".am", dir=path.parent) as private:
            made = Path(private) / "s"
            _bind(sock, made)
            made.chmod(stat.S_IRUSR | stat.S_IWUSR)
            sock.listen(socket.SOMAXCONN)
            while not _put(made, path):
                with _alone_at(path):
                    _clear_away(address)
        return Listener(sock, address)
    except BaseException:
        sock.close()
        raise


def _bind(sock: socket.socket, path: Path) -> None:
    """Bind to a path, which may be too long by what the private folder adds to it."""
    try:
        sock.bind(str(path))
    except OSError as error:
        if "too long" not in str(error):
            raise
        fd = os.open(path.parent, os.O_RDONLY)
        try:
            sock.bind(f"/proc/self/fd/{fd}/{path.name}")
        finally:
            os.close(fd)


def _put(made: Path, path: Path) -> bool:
    try:
        path.hardlink_to(made)
    except FileExistsError:
        return False
    return True


@contextmanager
def _alone_at(path: Path) -> Iterator[None]:
    """Let one at a time, of all processes, look at a path and clear it away."""
    import fcntl  # where there are unix sockets there is this

    lock = path.with_name(f".{path.name}.lock")
    while True:
        fd = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            found = os.fstat(fd)
            if _inode(str(lock)) != (found.st_dev, found.st_ino):
                continue  # who had it before us has taken the file away
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return
        finally:
            os.close(fd)


def _clear_away(address: Address) -> None:
    """Take away a socket that nobody listens on any more; refuse what is none."""
    path = Path(address.path)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConnectError(f"can not listen at {address}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # who listens there may be too busy to accept
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except BlockingIOError:
            raise ConnectError(f"{address} is in use") from None
        else:
            raise ConnectError(f"{address} is in use")


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


# Connecting -----------------------------------------------------------------------------


def dial(address: Address, *, timeout: float, tls: ssl.SSLContext | None) -> socket.socket:
    """Connect to an address.

    Args:
        address: where somebody serves.
        timeout: seconds that it may take, TLS included.
        tls: how to encrypt.

    Raises:
        ConnectError: naming the address and the reason.

    """
    sock: socket.socket | None = None
    try:
        if address.scheme == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            _connect_unix(sock, address.path, timeout)
        else:
            sock = socket.create_connection((address.host, address.port), timeout)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=address.host or "localhost")
    except (OSError, ValueError) as error:
        if sock is not None:
            sock.close()
        raise ConnectError(f"can not connect to {address}: {_reason(error, timeout)}") from error
    sock.settimeout(None)
    return sock


def _connect_unix(sock: socket.socket, path: str, timeout: float) -> None:
    """Connect in blocking mode: else a server with many to accept refuses at once."""
    micros = max(int(timeout * 1e6), 1)
    sock.settimeout(None)
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *divmod(micros, 1_000_000))
    )
    sock.connect(path)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
    sock.settimeout(timeout)


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError | BlockingIOError):
        return f"it has not answered for {timeout:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return f"TLS failed: {error}"
    return getattr(error, "strerror", None) or str(error)


def secure(sock: socket.socket, tls: ssl.SSLContext, *, timeout: float) -> socket.socket:
    """Begin TLS on a connection that was accepted.

    Raises:
        OSError: if that fails, or takes too long.

    """
    sock.settimeout(timeout)
    secured = tls.wrap_socket(sock, server_side=True)
    secured.settimeout(None)
    return secured
