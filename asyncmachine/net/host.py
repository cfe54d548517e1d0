"""What runs in each process of a network: its machines, and the pipes that begin there.

The process ends when its network says so, when the connection to it is lost (as when the
network's process is killed), or on SIGTERM; its machines are disposed first.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
from functools import partial
from multiprocessing import spawn
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncmachine.logs import log_exception
from asyncmachine.machine import Machine
from asyncmachine.net import wire
from asyncmachine.net.carriers.socket import SocketCarrier
from asyncmachine.net.client import Client
from asyncmachine.net.dialling import Dialler
from asyncmachine.net.errors import ConnectionLostError, RemoteError, UnknownMachineError
from asyncmachine.net.machines import Machines
from asyncmachine.net.remote import Place, RemoteMachine
from asyncmachine.net.schemas import known_digests
from asyncmachine.net.serving import Server
from asyncmachine.net.session import Policy, Session
from asyncmachine.net.states import HostStates
from asyncmachine.net.values import Values, describe_error
from asyncmachine.pipes import Pipe, pipe_routes
from asyncmachine.threads import run_elsewhere
from asyncmachine.watchdog import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.net.piping import DirectPipe

__all__ = ["Config", "Host", "main", "proxy"]

# Seconds that the process may take to end, once its machines are disposed.
LAST_GRACE: Final = 3.0
_CONNECT_TIMEOUT: Final = 10.0


class Config(NamedTuple):
    """What a process is told of its network.

    Attributes:
        network: id of the network.
        number: which of its processes this is.
        address: where this one can be reached by its siblings.
        secret: what they have in common.
        wire_types: types that may travel as args.
        reconnect: whether a sibling that is lost may come back.
        outbox_limit: how many mutations or events are kept.
        call_timeout: seconds that a call may take.

    """

    network: str
    number: int
    address: str
    secret: bytes
    wire_types: tuple[type, ...]
    reconnect: bool
    outbox_limit: int
    call_timeout: float


class Host:
    """The machines of one process of a network.

    Attributes:
        machine: its own life, with the states of `HostStates`.
        address: where it can be reached by its siblings.

    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.address = config.address
        self.machine = Machine(HostStates, id=f"{config.network}-host-{config.number}")
        self.machine.add("Starting")
        self._machines = Machines()
        self._values = Values(config.wire_types)
        self._lock = Lock()  # guards what follows
        self._server: Server | None = None
        self._clients: dict[str, tuple[Client, Dialler]] = {}
        self._proxies: dict[tuple[str, str, bool], RemoteMachine] = {}
        self._pipes: dict[tuple[int, int], Pipe] = {}
        self._policy = Policy(None, allow_eval=True, outbox_limit=config.outbox_limit)
        self._extra: dict[type, Callable[[Session, wire.Message], object]] = {
            wire.LayPipe: self._lay_asked,
            wire.ClosePipe: self._close_asked,
        }
        self._parent: Session | None = None

    def join(self, carrier: SocketCarrier) -> None:
        """Do what the network asks, from now on."""
        extra = {
            **self._extra,
            wire.Build: self._build_asked,
            wire.Forsake: self._forsake,
            wire.Shut: self._shut,
        }
        self._parent = Session(
            self._machines, self._values, self._policy, self._orphaned, retain=False, extra=extra
        )
        self.machine.add("Ready")
        self._parent.link.attach(carrier)
        self._parent.link.start_reading()

    def _orphaned(self, session: Session, error: Exception | None) -> None:
        self.machine.send("add", "Closing")

    def _shut(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.Shut)
        self.machine.send("add", "Closing", timeout=message.timeout)

    def end(self, timeout: float) -> None:
        """Dispose all machines, and leave nothing behind."""
        for machine in reversed(self._machines.all()):
            try:
                machine.dispose(timeout)
            except Exception as error:  # noqa: BLE001 - the others have to be disposed too
                log_exception("error when disposing %s", machine.id, error=error)
        for client, dialler in list(self._clients.values()):
            dialler.stop()
            client.lose(ConnectionLostError("the process ends"))
        if self._server is not None:
            self._server.close()
        if self._parent is not None:
            self._parent.close()
        self.machine.add("Closed")
        try:
            Path(self.address.partition(":")[2]).parent.rmdir()  # the last one clears up
        except OSError:
            pass

    # Machines -----------------------------------------------------------------------------

    def _build_asked(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.Build)
        run_elsewhere(partial(self._build, session, message))

    def _build(self, session: Session, message: wire.Build) -> None:
        results = [self._built(session, factory) for factory in message.factories]
        if message.factories:
            self._listen()
        session.post(wire.Built(message.call, results))

    def _built(self, session: Session, factory: bytes) -> wire.Opened | wire.Failed:
        try:
            function, args, kwargs = pickle.loads(factory)  # noqa: S301 - from our own parent
            machine = function(*args, **kwargs)
            if not isinstance(machine, Machine):
                kind = type(machine).__name__
                msg = f"{function.__qualname__} returned no Machine but a {kind}"
                raise TypeError(msg)
            self._machines.add(machine)
            return session.opened(0, machine)
        except BaseException as error:  # noqa: BLE001 - told to who asked for the machine
            kind = type(error).__name__
            known = kind if type(error).__module__ == RemoteError.__module__ else "RemoteError"
            return wire.Failed(0, known, describe_error(error))

    def _listen(self) -> None:
        """Have siblings come in, now that there is something to come for."""
        with self._lock:
            if self._server is None:
                self._server = Server(
                    self._machines,
                    self.address,
                    policy=self._policy,
                    values=self._values,
                    secret=self.config.secret,
                    extra=self._extra,
                )

    # Siblings -----------------------------------------------------------------------------

    def proxy(self, address: str, machine_id: str, *, mirror: bool = True) -> RemoteMachine:
        """Give the proxy of a machine of the network, one for all."""
        key = (address, machine_id, mirror)
        with self._lock:
            found = self._proxies.get(key)
        if found is not None and not found.is_disposed:
            return found
        client = self._client(address)
        reply = client.call(
            lambda call: wire.Open(call, machine_id, mirror, known_digests()), _CONNECT_TIMEOUT
        )
        assert isinstance(reply, wire.Opened)
        made = RemoteMachine(client, reply, place=Place(address, self))
        with self._lock:
            found = self._proxies.get(key)
            if found is not None and not found.is_disposed:
                made_anyway, made = made, found
            else:
                made_anyway = None
                self._proxies[key] = made
        if made_anyway is not None:
            made_anyway.close()
        return made

    def _client(self, address: str) -> Client:
        with self._lock:
            found = self._clients.get(address)
            if found is not None and not found[0].is_lost:
                return found[0]
            config = self.config
            dialler = Dialler(
                address,
                secret=config.secret,
                tls=None,
                timeout=_CONNECT_TIMEOUT,
                reconnect=config.reconnect,
            )
            client = Client(
                address,
                self._values,
                call_timeout=config.call_timeout,
                outbox_limit=config.outbox_limit,
                on_down=dialler.went_down,
            )
            dialler.connect(client)
            self._clients[address] = (client, dialler)
            return client

    def _forsake(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.Forsake)
        with self._lock:
            found = self._clients.pop(message.address, None)
        if found is not None:
            client, dialler = found
            dialler.stop()
            if not client.is_lost:
                client.lose(ConnectionLostError(f"the process at {message.address} has died"))

    # Pipes --------------------------------------------------------------------------------

    def _lay_asked(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.LayPipe)
        run_elsewhere(partial(self._lay, session, message))

    def _lay(self, session: Session, message: wire.LayPipe) -> None:
        try:
            source = self._machines.find(message.source)
            target: Machine | RemoteMachine
            if message.address == self.address:
                target = self._machines.find(message.target)
            else:
                target = self.proxy(message.address, message.target, mirror=False)
            made = pipe_routes(source, target, message.routes, message.kinds, sync=message.sync)
            with self._lock:
                self._pipes[id(session), message.number] = made
            session.post(wire.Done(message.call, 0))
        except Exception as error:  # noqa: BLE001 - told to who asked for it
            known = isinstance(error, UnknownMachineError | ConnectionLostError)
            kind = type(error).__name__ if known else "RemoteError"
            session.post(wire.Failed(message.call, kind, describe_error(error)))

    def _close_asked(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.ClosePipe)
        with self._lock:
            made = self._pipes.pop((id(session), message.number), None)
        if made is not None:
            made.close()

    def lay(
        self,
        pipe: DirectPipe,
        routes: list[tuple[str, str]],
        kinds: tuple[str, ...],
        *,
        sync: bool,
    ) -> Callable[[], object]:
        """Lay a pipe between two proxies that are used in this process."""
        return lay_over(
            self._client(pipe.source.place.address),  # type: ignore[attr-defined]
            pipe,
            routes,
            kinds,
            sync=sync,
        )


def lay_over(
    client: Client,
    pipe: DirectPipe,
    routes: list[tuple[str, str]],
    kinds: tuple[str, ...],
    *,
    sync: bool,
) -> Callable[[], object]:
    """Have a pipe laid by the process where its source lives; give what closes it."""
    number = next(_pipe_numbers)
    place: Place = pipe.target.place  # type: ignore[attr-defined]
    client.call(
        lambda call: wire.LayPipe(
            call, number, pipe.source.id, place.address, pipe.target.id, routes, kinds, sync
        )
    )
    return lambda: client.post(wire.ClosePipe(number))


_pipe_numbers = iter(range(1, 2**31))

_here: list[Host] = []


def proxy(address: str, machine_id: str) -> RemoteMachine:
    """Give the proxy of a machine of the network that this process belongs to."""
    if not _here:
        msg = "a RemoteMachine of a network can only be used in the network's processes"
        raise ConnectionLostError(msg)
    return _here[0].proxy(address, machine_id)


def main(fd: int) -> None:
    """Run a process of a network, over a socket that was inherited from it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the network's to see to
    sock = socket.socket(fileno=fd)
    with sock.makefile("rb", buffering=0) as stream:
        size = int.from_bytes(_exactly(stream, 4), "big")
        preparation = pickle.loads(_exactly(stream, size))  # noqa: S301 - from our own parent
        spawn.prepare(preparation)
        size = int.from_bytes(_exactly(stream, 4), "big")
        config = pickle.loads(_exactly(stream, size))  # noqa: S301 - from our own parent
    host = Host(config)
    _here.append(host)
    closing = host.machine.when_args("Closing", {})
    signal.signal(signal.SIGTERM, lambda *_: host.machine.send("add", "Closing"))
    host.join(SocketCarrier(sock))
    closing.wait()
    timeout = (closing.args or {}).get("timeout", 5.0)
    assert isinstance(timeout, float)
    # Nothing keeps the process from ending: neither a handler nor a thread of the user's.
    Watch(timeout + LAST_GRACE, lambda: os._exit(1)).start()
    host.end(timeout)
    Watch(LAST_GRACE, lambda: os._exit(0)).start()


def _exactly(stream: object, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))  # type: ignore[attr-defined]
        if not more:
            raise SystemExit(1)  # the network has gone before we began
        data += more
    return data
