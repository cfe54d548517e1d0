"""What runs in each process of a network: its machines, and the pipes that begin there.

The process ends when its network says so, when the connection to it is lost (as when the
network's process is killed), or on SIGTERM; its machines are disposed first.
"""

from __future__ import annotations

import os
import pickle
import signal
from functools import partial
from multiprocessing import spawn
from pathlib import Path
from threading import Condition, Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncmachine.errors import MachineError
from asyncmachine.handlers import Binding
from asyncmachine.logs import log_exception, log_warning
from asyncmachine.machine import Machine
from asyncmachine.net import wire
from asyncmachine.net.carriers.pipe import taken_over
from asyncmachine.net.carriers.socket import SocketCarrier
from asyncmachine.net.client import Client
from asyncmachine.net.dialling import Dialler
from asyncmachine.net.errors import (
    ConnectError,
    ConnectionLostError,
    DuplicateMachineError,
    NotSerialisableError,
    UnknownMachineError,
)
from asyncmachine.net.gate import Gate
from asyncmachine.net.machines import Machines
from asyncmachine.net.remote import Place, RemoteMachine
from asyncmachine.net.schemas import known_digests
from asyncmachine.net.serving import Server
from asyncmachine.net.session import Policy, Session
from asyncmachine.net.states import HostStates
from asyncmachine.net.values import Values, describe_error
from asyncmachine.oneshot import Told, deadline_after, time_left
from asyncmachine.pipes import Pipe, pipe_routes
from asyncmachine.threads import run_elsewhere
from asyncmachine.watchdog import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import RawIOBase

    from asyncmachine.net.piping import DirectPipe

__all__ = ["Config", "Host", "main", "proxy"]

# Seconds that the process may take to end, once its machines are disposed.
LAST_GRACE: Final = 3.0
_CONNECT_TIMEOUT: Final = 10.0
# Seconds that disposing may take if the network does not say.
_TIMEOUT: Final = 2.0
# Seconds between two attempts to reach a sibling that is built again: first and longest.
_FIRST_DELAY: Final = 0.02
_LONGEST_DELAY: Final = 0.5


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
        self._news = Condition()  # guards how many orders are being carried out
        self._building = 0
        self._lock = Lock()  # guards what follows
        self._server: Server | None = None
        self._ending = Told()
        self._dialling: dict[str, Lock] = {}
        self._forsaken: set[str] = set()
        self._clients: dict[str, tuple[Client, Dialler]] = {}
        self._proxies: dict[tuple[str, str, bool], RemoteMachine] = {}
        self._pipes: dict[tuple[Session, int], Pipe] = {}  # that others have had laid
        self._laid: dict[DirectPipe, Callable[[Client], Callable[[], object]]] = {}
        self._policy = Policy(None, allow_eval=True, outbox_limit=config.outbox_limit)
        self._extra: dict[type, Callable[[Session, wire.Message], object]] = {
            wire.Open: self._open_asked,
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
        """Dispose all machines, and leave nothing behind.

        Args:
            timeout: seconds that they may take, all in all.

        """
        self._ending.tell()
        with self._news:
            self._news.notify_all()
        deadline = deadline_after(timeout)
        gates = []
        for machine in reversed(self._machines.all()):
            gates.append(gate := Gate())
            run_elsewhere(partial(_dispose, machine, timeout, gate))
        for gate in gates:
            gate.wait(time_left(deadline))
        for client, dialler in list(self._clients.values()):
            dialler.stop()
            client.lose(ConnectionLostError("the process ends"))
        if self._server is not None:
            self._server.close()
        if self._parent is not None:
            self._parent.close()
        self.machine.add("Closed")
        self.clear_up()

    def clear_up(self) -> None:
        """Leave no file behind; the last of the siblings removes their directory."""
        path = Path(self.address.partition(":")[2])
        try:
            path.unlink(missing_ok=True)
            path.parent.rmdir()
        except OSError:
            pass

    # Machines -----------------------------------------------------------------------------

    def _build_asked(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.Build)
        run_elsewhere(partial(self._build, session, message))

    def _build(self, session: Session, message: wire.Build) -> None:
        with self._news:
            self._building += 1
        results: list[wire.Opened | wire.Failed] = []
        try:
            if message.factories:
                self._listen()  # first: the machines may be given proxies of each other
            results += [self._built(session, factory) for factory in message.factories]
        except Exception as error:  # noqa: BLE001 - told to who asked for the machines
            results += [_failed(error)] * (len(message.factories) - len(results))
        finally:
            with self._news:
                self._building -= 1
                self._news.notify_all()
        session.post(wire.Built(message.call, results))

    def _built(self, session: Session, factory: bytes) -> wire.Opened | wire.Failed:
        try:
            function, args, kwargs = _loaded(factory)
        except BaseException as error:  # noqa: BLE001 - told to who asked for the machine
            return _failed(error, NotSerialisableError)
        try:
            machine = _made(function, args, kwargs)
        except BaseException as error:  # noqa: BLE001 - told to who asked for the machine
            return _failed(error)
        try:
            self._machines.add(machine)
        except DuplicateMachineError as error:
            run_elsewhere(machine.dispose)
            return _failed(error, DuplicateMachineError)
        with self._news:
            self._news.notify_all()
        return session.opened(0, machine)

    def _find(self, machine_id: str) -> Machine:
        """Give a machine here; wait for it while it may be among those that are being built.

        Raises:
            UnknownMachineError: if there is none, and none to come.

        """
        deadline = deadline_after(self.config.call_timeout)
        while True:
            with self._news:
                try:
                    return self._machines.find(machine_id)
                except UnknownMachineError:
                    if self._ending.happened or not self._building:
                        raise
                    if not self._news.wait(time_left(deadline)):
                        raise

    def _open_asked(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.Open)
        if self._building:
            run_elsewhere(partial(self._open, session, message))
        else:
            self._open(session, message)

    def _open(self, session: Session, message: wire.Open) -> None:
        try:
            machine = self._find(message.machine)
        except UnknownMachineError as error:
            kind = type(error).__name__
            session.post(wire.Failed(message.call, kind, describe_error(error)))
        else:
            session.post(session.opened(message.call, machine, mirror=message.mirror))

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
            dialling = self._dialling.setdefault(address, Lock())
        with dialling:  # who wants another sibling does not wait
            with self._lock:
                found = self._clients.get(address)
            if found is not None and not found[0].is_lost:
                return found[0]
            client, dialler = self._connected(address)
            with self._lock:
                self._clients[address] = (client, dialler)
                late = address in self._forsaken or self._ending.happened
            if late:
                self._drop(address)
            return client

    def _connected(self, address: str) -> tuple[Client, Dialler]:
        """Connect to a sibling; one that may come back is waited for."""
        config = self.config
        dialler = Dialler(
            address,
            secret=config.secret,
            tls=None,
            timeout=_CONNECT_TIMEOUT,
            reconnect=config.reconnect,
            on_afresh=partial(self._lay_again, address),
        )
        deadline = deadline_after(config.call_timeout)
        delay = _FIRST_DELAY
        while True:
            client = Client(
                address,
                self._values,
                call_timeout=config.call_timeout,
                outbox_limit=config.outbox_limit,
                on_down=dialler.went_down,
            )
            try:
                dialler.connect(client)
            except ConnectError:
                if not config.reconnect or address in self._forsaken or time_left(deadline) == 0:
                    raise
                if self._ending.wait(delay):
                    raise
                delay = min(delay * 2, _LONGEST_DELAY)
            else:
                return client, dialler

    def _forsake(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.Forsake)
        with self._lock:
            self._forsaken.add(message.address)
        run_elsewhere(partial(self._drop, message.address))

    def _drop(self, address: str) -> None:
        with self._lock:
            found = self._clients.pop(address, None)
        if found is not None:
            client, dialler = found
            dialler.stop()
            if not client.is_lost:
                client.lose(ConnectionLostError(f"the process at {address} has died"))

    # Pipes --------------------------------------------------------------------------------

    def _lay_asked(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.LayPipe)
        run_elsewhere(partial(self._lay, session, message))

    def _lay(self, session: Session, message: wire.LayPipe) -> None:
        key = session, message.number
        try:
            source = self._find(message.source)
            target: Machine | RemoteMachine
            if message.address == self.address:
                target = self._find(message.target)
            else:
                target = self.proxy(message.address, message.target, mirror=False)
            made = pipe_routes(source, target, message.routes, message.kinds, sync=message.sync)
            with self._lock:
                self._pipes[key] = made
            made.undo_with(Binding(partial(self._pipe_closed, key, made)))
            session.post(wire.Done(message.call, 0))
        except Exception as error:  # noqa: BLE001 - told to who asked for it
            known = isinstance(error, UnknownMachineError | ConnectionLostError)
            kind = type(error).__name__ if known else "RemoteError"
            session.post(wire.Failed(message.call, kind, describe_error(error)))

    def _pipe_closed(self, key: tuple[Session, int], made: Pipe) -> None:
        if self._pipes.pop(key, None) is None:
            return  # it was asked for
        # The end of a machine is known to who had it laid, or followed by another life.
        if not (made.source.is_disposed or made.target.is_disposed):
            session, number = key
            session.post(wire.PipeClosed(number))

    def _close_asked(self, session: Session, message: wire.Message) -> None:
        assert isinstance(message, wire.ClosePipe)
        with self._lock:
            made = self._pipes.pop((session, message.number), None)
        if made is not None:
            made.close()

    @property
    def pipes(self) -> list[Pipe]:
        """Those that others have had laid here, and that are not closed."""
        return list(self._pipes.values())

    def lay(
        self,
        pipe: DirectPipe,
        routes: list[tuple[str, str]],
        kinds: tuple[str, ...],
        *,
        sync: bool,
    ) -> Callable[[], object]:
        """Lay a pipe between two proxies that are used in this process."""

        def lay(client: Client) -> Callable[[], object]:
            return lay_over(client, pipe, routes, kinds, sync=sync)

        self._laid[pipe] = lay
        pipe.undo_with(Binding(lambda: self._laid.pop(pipe, None)))
        return lay(self._client(_address_of(pipe)))

    def _lay_again(self, address: str, client: Client) -> None:
        """Lay pipes again that begin in a sibling which was built again."""
        for pipe, lay in list(self._laid.items()):
            while _address_of(pipe) == address and not pipe.closed and client.link.is_up:
                try:
                    pipe.reconnect(lay(client))
                except ConnectionLostError:  # its target is being built again, too
                    if self._ending.wait(_FIRST_DELAY):
                        return
                    continue
                except (MachineError, TimeoutError) as error:
                    log_warning(self.machine.id, f"{pipe} could not be laid again: {error}")
                break


def _address_of(pipe: DirectPipe) -> str:
    """Where a pipe begins."""
    place: Place = pipe.source.place  # type: ignore[attr-defined]
    return place.address


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
    client.pipes[number] = pipe.closed_there
    place: Place = pipe.target.place  # type: ignore[attr-defined]
    try:
        client.call(
            lambda call: wire.LayPipe(
                call, number, pipe.source.id, place.address, pipe.target.id, routes, kinds, sync
            )
        )
    except BaseException:
        client.pipes.pop(number, None)
        raise

    def close() -> None:
        if client.pipes.pop(number, None) is not None:
            client.post(wire.ClosePipe(number))

    return close


_pipe_numbers = iter(range(1, 2**31))

_here: list[Host] = []
_preparing: list[None] = []


def hosts() -> tuple[Host, ...]:
    """The host that this process is, if it belongs to a network."""
    return tuple(_here)


def proxy(address: str, machine_id: str) -> RemoteMachine:
    """Give the proxy of a machine of the network that this process belongs to."""
    if not _here:
        msg = "a RemoteMachine of a network can only be used in the network's processes"
        raise ConnectionLostError(msg)
    return _here[0].proxy(address, machine_id)


def is_preparing() -> bool:
    """Whether this process is a child that is still importing what its parent has imported."""
    return bool(_preparing)


def main(fd: int) -> None:
    """Run a process of a network, over a socket that was inherited from it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the network's to see to
    sock = taken_over(fd)
    with sock.makefile("rb", buffering=0) as stream:
        preparation = pickle.loads(_part(stream))  # noqa: S301 - from our own parent
        _preparing.append(None)
        spawn.prepare(preparation)
        _preparing.clear()
        config = pickle.loads(_part(stream))  # noqa: S301 - from our own parent
    host = Host(config)
    _here.append(host)
    closing = host.machine.when_args("Closing", {})
    signal.signal(signal.SIGTERM, lambda *_: host.machine.send("add", "Closing"))
    host.join(SocketCarrier(sock))
    closing.wait()
    timeout = (closing.args or {}).get("timeout", _TIMEOUT)
    assert isinstance(timeout, float)

    def end_anyway() -> None:
        host.clear_up()
        os._exit(1)

    # Nothing keeps the process from ending: neither a handler nor a thread of the user's.
    Watch(timeout + LAST_GRACE, end_anyway).start()
    host.end(timeout)
    Watch(LAST_GRACE, lambda: os._exit(0)).start()


def _part(stream: RawIOBase) -> bytes:
    return _exactly(stream, int.from_bytes(_exactly(stream, 4), "big"))


def _exactly(stream: RawIOBase, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise SystemExit(1)  # the network has gone before we began
        data += more
    return data


def _loaded(
    factory: bytes,
) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
    """Give a factory and its arguments.

    Raises:
        NotSerialisableError: if they can not be had here.

    """
    try:
        loaded: tuple[Callable[..., object], tuple[object, ...], dict[str, object]]
        loaded = pickle.loads(factory)  # noqa: S301 - from our own parent
    except MachineError:  # of a proxy
        raise
    except Exception as error:
        raise NotSerialisableError(
            f"the factory or one of its arguments can not be imported by another process: {error}"
        ) from error
    return loaded


def _made(
    function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> Machine:
    """Have a factory make its machine."""
    machine = function(*args, **kwargs)
    if not isinstance(machine, Machine):
        name = getattr(function, "__qualname__", repr(function))
        msg = f"{name} returned no Machine but a {type(machine).__name__}"
        raise TypeError(msg)
    return machine


def _failed(error: BaseException, *known: type[MachineError]) -> wire.Failed:
    """Describe an error; one of a known type is raised as such at the other side."""
    kind = type(error).__name__ if isinstance(error, known) else "RemoteError"
    return wire.Failed(0, kind, describe_error(error))


def _dispose(machine: Machine, timeout: float, gate: Gate) -> None:
    try:
        machine.dispose(timeout)
    except Exception as error:  # noqa: BLE001 - the others have to be disposed too
        log_exception("error when disposing %s", machine.id, error=error)
    finally:
        gate.open()
