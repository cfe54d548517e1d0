"""`Network`: machines spread over processes, built, supervised and ended together.

Guarantees: a process that dies is noticed by a thread that waits for it, at once.
Whatever ends the ``with`` statement, no process, thread or socket file is left behind;
when this process is killed, its children notice and end.
"""

from __future__ import annotations

import atexit
import os
import pickle
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from functools import partial
from itertools import count
from multiprocessing import spawn
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from asyncmachine.errors import MachineError
from asyncmachine.logs import log_warning
from asyncmachine.machine import Machine
from asyncmachine.net import wire
from asyncmachine.net.carriers.socket import SocketCarrier
from asyncmachine.net.client import Client, failure
from asyncmachine.net.errors import (
    ConnectionLostError,
    DuplicateMachineError,
    NotSerialisableError,
)
from asyncmachine.net.host import Config, lay_over
from asyncmachine.net.remote import Place, RemoteMachine
from asyncmachine.net.states import NetworkStates
from asyncmachine.net.values import Values
from asyncmachine.oneshot import OneShot, deadline_after, time_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Literal, Self

    from asyncmachine.net.piping import DirectPipe

__all__ = ["Network", "Process"]

# Seconds that a process may take to start, and to take over what it has to build.
START_TIMEOUT: Final = 60.0
# A process that keeps dying is given up after so many restarts within so many seconds.
MOST_RESTARTS: Final = 5
RESTART_WINDOW: Final = 60.0
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0

_ids: Final = count(1)


class _Event(OneShot):
    def tell(self) -> None:
        self._fire()


class Process:
    """One process of a network.

    Attributes:
        index: its place in ``net.processes``.
        pid: its process id.
        machines: ids of the machines that live there.

    """

    def __init__(self, index: int, address: str, client: Client) -> None:
        self.index = index
        self.address = address
        self.client = client
        self.popen: subprocess.Popen[bytes] | None = None
        self.built: dict[str, tuple[bytes, RemoteMachine]] = {}
        self.ended = _Event()
        self.deaths: list[float] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid if self.popen is not None else 0

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.popen is not None and not self.ended.happened

    @property
    def machines(self) -> tuple[str, ...]:
        """Ids of the machines that live there."""
        return tuple(self.built)

    def __repr__(self) -> str:
        return f"<Process {self.index} {'alive' if self.is_alive else 'ended'}>"


class Network:
    """Machines over several processes of this host.

    Args:
        processes: how many; as many as there are usable cores if not given.
        address: for machines on several hosts; not there yet.
        restart: ``"on-failure"`` to build a process again when it has died, or ``"never"``.
        id: a name.
        secret: what the processes have in common; one is made up if not given.
        wire_types: dataclasses, enums and structs that may travel as args.
        outbox_limit: how many mutations or events are kept for who does not keep up.
        call_timeout: seconds that a call may take.

    Raises:
        ValueError: for no process, or another ``restart``.
        ConnectionLostError: if a process does not start.

    Attributes:
        machine: its own life, with the states of `NetworkStates`.
        machines: the machines by id.
        processes: the processes.

    """

    def __init__(
        self,
        processes: int | None = None,
        *,
        address: str | None = None,
        restart: Literal["never", "on-failure"] = "never",
        id: str | None = None,
        secret: str | bytes | None = None,
        wire_types: Iterable[type] = (),
        outbox_limit: int = 100_000,
        call_timeout: float = 30,
    ) -> None:
        if processes is None:
            processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
                os.cpu_count() or 1
            )
        if processes < 1:
            msg = f"a network needs at least one process, not {processes!r}"
            raise ValueError(msg)
        if restart not in ("never", "on-failure"):
            msg = f"restart must be 'never' or 'on-failure', not {restart!r}"
            raise ValueError(msg)
        if address is not None:
            msg = f"{address}: networks over several hosts are not there yet"
            raise ValueError(msg)
        self.id = id or f"network-{os.getpid()}-{next(_ids)}"
        self.machine = Machine(NetworkStates, id=self.id)
        self.machine.add("Starting")
        self._restart = restart
        self._secret = (
            secret.encode() if isinstance(secret, str) else secret or secrets.token_bytes(32)
        )
        self._wire_types = tuple(wire_types)
        self._values = Values(self._wire_types)
        self._outbox_limit = outbox_limit
        self._call_timeout = call_timeout
        self._directory = Path(tempfile.mkdtemp(prefix="asyncmachine-"))
        self._lock = Lock()  # guards the placing and naming of machines
        self._pending: dict[int, int] = {}
        self._pipes: dict[DirectPipe, Callable[[], Callable[[], object]]] = {}
        self._closing = False
        self._stop = _Event()
        self.machines: dict[str, RemoteMachine] = {}
        self.processes: list[Process] = []
        atexit.register(self.close)
        try:
            for index in range(processes):
                self.processes.append(self._prepared(index))
                self._start(self.processes[index])
            for process in self.processes:
                process.client.call(lambda call: wire.Build(call, []), START_TIMEOUT)
        except BaseException:
            self.close()
            raise
        self.machine.add("Ready")

    # Processes ----------------------------------------------------------------------------

    def _prepared(self, index: int) -> Process:
        client = Client(
            f"process {index} of {self.id}",
            self._values,
            call_timeout=self._call_timeout,
            outbox_limit=self._outbox_limit,
            on_down=self._link_down,
            retain=False,
        )
        return Process(index, f"unix:{self._directory}/host-{index}.sock", client)

    def _start(self, process: Process) -> None:
        """Start an interpreter, and tell it what it is to do."""
        config = Config(
            self.id,
            process.index,
            process.address,
            self._secret,
            self._wire_types,
            self._restart != "never",
            self._outbox_limit,
            self._call_timeout,
        )
        ours, theirs = socket.socketpair()
        with theirs:
            popen = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-m", "asyncmachine.net.child", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is ours to see to
                env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
            )
        process.popen = popen
        process.ended = _Event()
        threading.Thread(
            target=self._await_end,
            args=(process, popen),
            name=f"asyncmachine {self.id} {process.index}",
            daemon=True,
        ).start()
        try:
            for part in (_preparation(process.client.name), config):
                data = pickle.dumps(part)
                ours.sendall(len(data).to_bytes(4, "big") + data)
        except OSError:
            ours.close()
            return  # it has ended already, as the thread that waits for it tells
        process.client.link.attach(SocketCarrier(ours))
        process.client.link.start_reading()
        process.client.came_up()

    def _await_end(self, process: Process, popen: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a process, and see to what comes then."""
        exitcode = popen.wait()
        process.ended.tell()
        if self._closing:
            process.client.lose(ConnectionLostError(f"{self.id} was closed"))
            return
        why = f"{process.client.name} has died, with exit code {exitcode}"
        lost = ConnectionLostError(why)
        process.deaths.append(monotonic())
        again = self._restart == "on-failure" and exitcode != 0 and self._may_restart(process)
        ids = process.machines
        if again:
            process.client.link.close()
            for remote in process.client.remotes:
                remote.paused()
            process.client.forget_calls(lost)
        else:
            process.client.lose(lost)
            for machine_id in ids:
                self.machines.pop(machine_id, None)
            for other in self.processes:
                if other is not process:
                    other.client.post(wire.Forsake(process.address))
            Path(process.address.partition(":")[2]).unlink(missing_ok=True)
        self.machine.add("ProcessDied", process=process.index, exitcode=exitcode, machines=ids)
        if again:
            self._start_again(process)

    def _may_restart(self, process: Process) -> bool:
        recent = [each for each in process.deaths if each > monotonic() - RESTART_WINDOW]
        return len(recent) <= MOST_RESTARTS

    def _start_again(self, process: Process) -> None:
        """Build a process and its machines again, under the same ids."""
        delay = min(FIRST_DELAY * 2 ** (len(process.deaths) - 1), LONGEST_DELAY)
        client = process.client
        if self._stop.wait(delay):
            return
        remotes = client.forget_machines()
        for remote in remotes:
            remote.connecting()
        client.link = client.new_link()
        self._start(process)
        try:
            built = list(process.built.items())
            reply = client.call(
                lambda call: wire.Build(call, [spec for _, (spec, _) in built]), START_TIMEOUT
            )
        except (ConnectionLostError, TimeoutError) as error:
            log_warning(self.id, f"a restart came to nothing: {error}")
            for _, (_, remote) in process.built.items():
                client.join(-id(remote), remote)
            return  # it has died again, which another thread sees to
        assert isinstance(reply, wire.Built)
        for (machine_id, (_, remote)), result in zip(built, reply.results, strict=True):
            if isinstance(result, wire.Opened):
                remote.moved_in(result, client.link, afresh=True)
            else:
                process.built.pop(machine_id, None)
                self.machines.pop(machine_id, None)
                remote.lost(f"it could not be built again: {failure(result)}")
        self._lay_again(process)

    def _lay_again(self, process: Process) -> None:
        for made, lay in list(self._pipes.items()):
            if not made.closed and made.source.id in process.built:
                try:
                    made.reconnect(lay())
                except MachineError as error:
                    log_warning(self.id, f"{made} could not be laid again: {error}")

    def _link_down(self, client: Client, error: Exception | None) -> None:
        """See to it that a process which has closed its end does not live on."""
        if self._closing:
            return
        for process in self.processes:
            if process.client is client and process.popen is not None:
                process.popen.kill()

    # Building -----------------------------------------------------------------------------

    def spawn(
        self,
        factory: Callable[..., Machine],
        /,
        *args: object,
        process: int | None = None,
        **kwargs: object,
    ) -> RemoteMachine:
        """Build a machine in one of the processes.

        Args:
            factory: an importable function that returns a `Machine`; called there.
            args: for the factory; picklable. A `RemoteMachine` arrives as a proxy.
            process: index of the process; the one with the fewest machines if not given.
            kwargs: for the factory.

        Returns:
            The machine, ready.

        Raises:
            NotSerialisableError: naming what can not be pickled.
            RemoteError: what the factory raised.
            ConnectionLostError: if the process has died, or the factory ended it.
            DuplicateMachineError: if there is a machine of that id already.
            IndexError: if there is no such process.

        """
        return self._build([_pickled(factory, args, kwargs)], process)[0]

    def spawn_many(
        self, factory: Callable[..., Machine], arguments: Iterable[tuple[object, ...]]
    ) -> list[RemoteMachine]:
        """Build many machines, spread evenly, with one round trip for each process.

        Args:
            factory: as for `spawn`.
            arguments: the arguments of each, as a tuple.

        Returns:
            The machines, in the order of their arguments.

        Raises:
            Exception: as `spawn`; those that could be built are kept in ``net.machines``.

        """
        return self._build([_pickled(factory, tuple(each), {}) for each in arguments], None)

    def _build(self, specs: list[bytes], index: int | None) -> list[RemoteMachine]:
        by_process: dict[int, list[int]] = {}
        with self._lock:
            for number in range(len(specs)):
                by_process.setdefault(self._placed_locked(index), []).append(number)
        found: dict[int, RemoteMachine | Exception] = {}
        calls = {}
        try:
            for place, numbers in by_process.items():
                client = self.processes[place].client
                client.await_up(self._call_timeout)
                call = client.begin()
                client.link.post(wire.Build(call.number, [specs[n] for n in numbers]))
                calls[place] = call
            for place, numbers in by_process.items():
                process = self.processes[place]
                reply = process.client.finish(calls[place], START_TIMEOUT)
                assert isinstance(reply, wire.Built)
                for number, result in zip(numbers, reply.results, strict=True):
                    found[number] = self._taken_over(process, specs[number], result)
        finally:
            with self._lock:
                for place, numbers in by_process.items():
                    self._pending[place] -= len(numbers)
        remotes = []
        for number in range(len(specs)):
            each = found[number]
            if isinstance(each, Exception):
                raise each
            remotes.append(each)
        return remotes

    def _placed_locked(self, index: int | None) -> int:
        """Choose a process, and take note that it is to build one more machine."""
        if index is None:
            alive = [each for each in self.processes if each.is_alive]
            if not alive or self._closing:
                raise ConnectionLostError(f"{self.id} has no process to build a machine in")
            index = min(
                alive, key=lambda each: len(each.built) + self._pending.get(each.index, 0)
            ).index
        elif not 0 <= index < len(self.processes):
            msg = f"there is no process {index}; there are {len(self.processes)}, from 0"
            raise IndexError(msg)
        self._pending[index] = self._pending.get(index, 0) + 1
        return index

    def _taken_over(
        self, process: Process, spec: bytes, result: wire.Opened | wire.Failed
    ) -> RemoteMachine | Exception:
        if isinstance(result, wire.Failed):
            return failure(result)
        remote = RemoteMachine(process.client, result, place=Place(process.address, self))
        with self._lock:
            taken = self.machines.setdefault(remote.id, remote) is not remote
            if not taken:
                process.built[remote.id] = (spec, remote)
        if taken:
            remote.dispose()
            return DuplicateMachineError(
                f"there is a machine of the id {remote.id!r} in {self.id} already"
            )
        remote.on_dispose(partial(self._disposed, process))
        return remote

    def _disposed(self, process: Process, remote: RemoteMachine) -> None:
        with self._lock:
            if self.machines.get(remote.id) is remote:
                del self.machines[remote.id]
            process.built.pop(remote.id, None)

    # Pipes --------------------------------------------------------------------------------

    def lay(
        self,
        pipe: DirectPipe,
        routes: list[tuple[str, str]],
        kinds: tuple[str, ...],
        *,
        sync: bool,
    ) -> Callable[[], object]:
        """Lay a pipe straight between two processes; called by `pipe`."""
        source = cast("RemoteMachine", pipe.source)

        def lay() -> Callable[[], object]:
            client = next(
                each.client for each in self.processes if source.id in each.built
            )
            return lay_over(client, pipe, routes, kinds, sync=sync)

        close = lay()
        self._pipes[pipe] = lay

        def forget() -> None:
            self._pipes.pop(pipe, None)
            close()

        return forget

    # The end ------------------------------------------------------------------------------

    def close(self, timeout: float = 5) -> None:
        """End all processes; their machines are disposed where they live.

        Args:
            timeout: seconds that they may take; after that they are killed.

        """
        with self._lock:
            first, self._closing = not self._closing, True
        self._stop.tell()
        if first:
            self.machine.add("Closing")
            for process in self.processes:
                process.client.post(wire.Shut(float(timeout)))
        deadline = deadline_after(timeout)
        try:
            for process in self.processes:
                if process.popen is not None:
                    process.ended.wait(time_left(deadline))
        finally:
            for process in self.processes:
                if process.is_alive and process.popen is not None:
                    process.popen.kill()
                    process.ended.wait(timeout)
                process.client.lose(ConnectionLostError(f"{self.id} was closed"))
            self.machines.clear()
            shutil.rmtree(self._directory, ignore_errors=True)
            atexit.unregister(self.close)
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
        return f"<Network {self.id} of {len(self.processes)} processes>"


def _preparation(name: str) -> dict[str, object]:
    """What a child has to know of this interpreter, to import what can be imported here."""
    data: dict[str, object] = spawn.get_preparation_data(name)
    data.pop("authkey", None)
    return data


def _pickled(
    factory: Callable[..., Machine], args: tuple[object, ...], kwargs: dict[str, object]
) -> bytes:
    try:
        return pickle.dumps((factory, args, kwargs))
    except Exception as error:
        named: list[tuple[str, object]] = [("the factory", factory)]
        named += [(f"argument {i}", each) for i, each in enumerate(args)]
        named += [(f"argument {name}", each) for name, each in kwargs.items()]
        for name, each in named:
            try:
                pickle.dumps(each)
            except Exception as fault:  # noqa: BLE001 - whatever the user's object does
                raise NotSerialisableError(
                    f"{name} can not be pickled for another process: {fault}"
                ) from error
        raise NotSerialisableError(f"the arguments can not be pickled: {error}") from error
