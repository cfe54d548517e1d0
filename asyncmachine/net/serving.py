"""`serve` machines to other processes, and `connect` to one."""

from __future__ import annotations

import socket
import threading
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final

from asyncmachine.errors import MachineError, UnknownStateError
from asyncmachine.logs import log_warning
from asyncmachine.machine import Machine
from asyncmachine.net import wire
from asyncmachine.net.carriers.socket import carrier_for, listen, parse, secure
from asyncmachine.net.client import Client
from asyncmachine.net.dialling import Dialler
from asyncmachine.net.errors import ConnectError, ConnectionLostError, UnknownMachineError
from asyncmachine.net.gate import Gate
from asyncmachine.net.greeting import check_secret, greet_server
from asyncmachine.net.machines import Machines
from asyncmachine.net.remote import RemoteMachine
from asyncmachine.net.schemas import known_schemas
from asyncmachine.net.session import Policy, Session
from asyncmachine.net.states import ServerStates
from asyncmachine.net.values import Values
from asyncmachine.threads import run_elsewhere
from asyncmachine.watchdog import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ssl import SSLContext
    from types import TracebackType
    from typing import Literal, Self

__all__ = ["Server", "connect", "serve"]

# Seconds in which a client has to prove itself.
GREETING_TIMEOUT: Final = 5.0
# Seconds until clients are accepted again after that has failed.
_BREATH: Final = 0.1
# Seconds for which the session of a client that has gone is kept, should it come again.
RESUME_GRACE: Final = 60.0


class Server:
    """Offers machines at an address, until it is closed. Made by `serve`.

    Attributes:
        address: where it listens.
        machine: its own life, with the states of `ServerStates`.

    """

    def __init__(
        self,
        machines: Machines,
        address: str,
        *,
        policy: Policy,
        values: Values,
        secret: str | bytes | None = None,
        tls: SSLContext | None = None,
        max_frame: int = wire.MAX_FRAME,
        extra: dict[type, Callable[[Session, wire.Message], object]] | None = None,
    ) -> None:
        self._machines = machines
        self._policy = policy
        self._values = values
        self._secret = secret
        self._tls = tls
        self._max_frame = max_frame
        self._extra = extra
        self._lock = Lock()  # guards what follows
        self._sessions: dict[bytes, Session] = {}
        self._greeting: set[socket.socket] = set()
        self._closed = False
        self._rest = threading.Event()
        check_secret(secret)
        self._listener = listen(parse(address), secret=secret, tls=tls)
        self.address = self._listener.address
        self.machine = Machine(ServerStates, id=f"server {self.address}")
        self.machine.add("Starting")
        threading.Thread(
            target=self._accept, name=f"asyncmachine {self.address}", daemon=True
        ).start()
        self.machine.add("Listening")

    # Clients ------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()
            except OSError as error:
                if self._closed:
                    return
                log_warning(self.address, f"a client could not come in: {error}")
                self._rest.wait(_BREATH)  # for want of file descriptors, say
                continue
            with self._lock:
                if self._closed:
                    sock.close()
                    return
                self._greeting.add(sock)
            run_elsewhere(partial(self._welcome, sock))

    def _welcome(self, accepted: socket.socket) -> None:
        """Have a client prove itself, on a thread of its own, and begin its session."""
        sock = accepted
        try:
            if self._tls is not None:
                sock = secure(sock, self._tls, timeout=GREETING_TIMEOUT)
            greeted = greet_server(
                sock,
                secret=self._secret,
                max_frame=self._max_frame,
                timeout=GREETING_TIMEOUT,
                resume=self._received,
            )
        except Exception as error:  # noqa: BLE001 - whatever a stranger brings about
            sock.close()
            if not self._closed:
                log_warning(self.address, f"a client was refused: {error}")
                self.machine.add("ClientRefused", error=error)
            return
        finally:
            with self._lock:
                self._greeting.discard(accepted)
        with self._lock:
            session = self._sessions.get(greeted.session) if greeted.resumed else None
            if session is None and not self._closed:
                session = self._sessions[greeted.session] = self._new_session()
        if session is None:
            sock.close()
            return
        self.machine.add("ClientConnected")
        try:
            session.link.attach(
                carrier_for(sock),
                peer_received=greeted.received,
                peer_max_frame=greeted.max_frame,
            )
        except (MachineError, OSError) as error:  # closed, or never the session that it says
            sock.close()
            self._went_down(session, error)
            return
        if greeted.resumed:
            session.resumed()
        session.link.start_reading()

    def _new_session(self) -> Session:
        return Session(
            self._machines,
            self._values,
            self._policy,
            self._went_down,
            max_frame=self._max_frame,
            extra=self._extra,
        )

    def _received(self, session_id: bytes) -> int | None:
        """Say how many messages of a session have arrived, which goes on now."""
        with self._lock:
            session = self._sessions.get(session_id)
        if session is None or session.closed or session.link.is_closed:
            return None
        return session.link.detach()

    def _went_down(self, session: Session, error: Exception | None) -> None:
        if error is not None:
            log_warning(self.address, f"a client has gone: {error}")
        if not self._closed:
            self.machine.add("ClientGone", error=error)
        link = session.link
        if link.is_closed or link.farewell is not None or isinstance(error, MachineError):
            run_elsewhere(partial(self._drop, session))
        else:
            reconnects = link.reconnects
            Watch(RESUME_GRACE, lambda: self._drop_unless_back(session, reconnects)).start()

    def _drop_unless_back(self, session: Session, reconnects: int) -> None:
        if session.link.reconnects == reconnects and not session.link.is_up:
            run_elsewhere(partial(self._drop, session))

    def _drop(self, session: Session) -> None:
        with self._lock:
            for session_id, each in list(self._sessions.items()):
                if each is session:
                    del self._sessions[session_id]
        session.close()

    def close(self) -> None:
        """Listen no more, and end all connections; the machines live on."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._rest.set()
            sessions = list(self._sessions.values())
            self._sessions.clear()
            greeting = list(self._greeting)
        self._listener.close()
        for sock in greeting:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # who greets wakes, and closes it
            except OSError:
                pass
        _all_at_once([session.close for session in sessions])
        self.machine.add("Closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server {self.address}>"


def _all_at_once(jobs: list[Callable[[], object]]) -> None:
    """Do all of them, so that one that takes long does not make the others wait."""
    gates = []
    for job in jobs[1:]:
        gates.append(gate := Gate())
        run_elsewhere(partial(_do, job, gate))
    for job in jobs[:1]:
        job()
    for gate in gates:
        gate.wait()


def _do(job: Callable[[], object], gate: Gate) -> None:
    try:
        job()
    finally:
        gate.open()


def serve(
    machines: Machine | Iterable[Machine],
    address: str,
    *,
    secret: str | bytes | None = None,
    tls: SSLContext | None = None,
    allow: Literal["read"] | Iterable[str] | None = None,
    allow_eval: bool = False,
    wire_types: Iterable[type] = (),
    max_frame: int = wire.MAX_FRAME,
    outbox_limit: int = 100_000,
) -> Server:
    """Offer one machine or several to other processes.

    Args:
        machines: what to offer.
        address: ``unix:/path``, or ``tcp://host:port`` (port 0 picks one).
        secret: what clients have to know; proved by both sides, never sent.
        tls: how to encrypt; an `ssl.SSLContext` for servers.
        allow: ``"read"``, or the states that clients may call; all if not given.
        allow_eval: whether clients may run functions here.
        wire_types: dataclasses, enums and structs that may travel as args.
        max_frame: bytes that a message may have.
        outbox_limit: how many events are kept for a client that does not keep up.

    Returns:
        A server, already listening.

    Raises:
        ValueError: for a malformed address.
        InsecureAddressError: for an address off loopback without secret and TLS.
        ConnectError: if the address is taken.
        DuplicateMachineError: for two machines of one id.
        UnknownStateError: for an allowed state that no machine has.

    Example:
        >>> from asyncmachine import Machine, State
        >>> machine = Machine({"Foo": State()}, id="example")
        >>> with serve(machine, "tcp://127.0.0.1:0") as server:
        ...     with connect(server.address) as remote:
        ...         print(remote.add("Foo"), remote, machine)
        Result.EXECUTED (Foo:1) (Foo:1)

    """
    offered = [machines] if isinstance(machines, Machine) else list(machines)
    states = None if allow is None else _allowed(offered, allow)
    return Server(
        Machines(offered),
        address,
        policy=Policy(states, allow_eval, outbox_limit),
        values=Values(wire_types),
        secret=secret,
        tls=tls,
        max_frame=max_frame,
    )


def _allowed(offered: list[Machine], allow: Iterable[str]) -> frozenset[str]:
    if allow == "read":
        return frozenset()
    states = frozenset((allow,) if isinstance(allow, str) else allow)
    known = dict.fromkeys(name for machine in offered for name in machine.schema.names)
    for name in states:
        if name not in known:
            raise UnknownStateError(name, known, "allow")
    return states


def connect(
    address: str,
    machine_id: str | None = None,
    *,
    secret: str | bytes | None = None,
    tls: SSLContext | None = None,
    timeout: float = 5,
    reconnect: bool = True,
    call_timeout: float = 30,
    wire_types: Iterable[type] = (),
    outbox_limit: int = 100_000,
) -> RemoteMachine:
    """Connect to a machine that another process serves.

    Args:
        address: ``unix:/path`` or ``tcp://host:port``.
        machine_id: its id; not needed if it is the only one there.
        secret: what the server knows.
        tls: how to encrypt; an `ssl.SSLContext` for clients.
        timeout: seconds that connecting may take.
        reconnect: whether to connect again when the connection is lost.
        call_timeout: seconds that a call may take.
        wire_types: dataclasses, enums and structs that may travel as args.
        outbox_limit: how many mutations are kept for handlers, which must not wait.

    Returns:
        The machine; leaving ``with connect(…)`` ends the connection.

    Raises:
        ConnectError: if nobody serves there, or it does not answer in time.
        AuthenticationError: if the secrets differ.
        UnknownMachineError: if there is no such machine.
        ProtocolError: if something else serves there.
        ValueError: for a malformed address.

    """
    dialler = Dialler(address, secret=secret, tls=tls, timeout=timeout, reconnect=reconnect)
    client = Client(
        address,
        Values(wire_types),
        call_timeout=call_timeout,
        outbox_limit=outbox_limit,
        on_down=dialler.went_down,
    )
    dialler.connect(client)
    known = known_schemas()  # held until the answer is there
    try:
        reply = client.call(
            lambda call: wire.Open(call, machine_id or "", known=list(known)), timeout
        )
        assert isinstance(reply, wire.Opened)
        return RemoteMachine(client, reply, owns_client=True)
    except BaseException as error:
        client.lose(ConnectionLostError(str(error)))
        if isinstance(error, UnknownMachineError):
            raise UnknownMachineError(f"{address}: {error}") from None
        if isinstance(error, TimeoutError | ConnectionLostError):
            raise ConnectError(f"{address}: {error}") from error
        raise
