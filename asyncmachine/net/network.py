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
import tempfile
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from asyncmachine.errors import MachineError
from asyncmachine.handlers import Binding
from asyncmachine.logs import log_warning
from asyncmachine.machine import Machine
from asyncmachine.net import wire
from asyncmachine.net.client import Client, failure
from asyncmachine.net.errors import (
    ConnectionLostError,
    DuplicateMachineError,
    NotSerialisableError,
)
from asyncmachine.net.host import Config, is_preparing, lay_over
from asyncmachine.net.process import Preparation, Process
from asyncmachine.net.remote import Place, RemoteMachine
from asyncmachine.net.states import NetworkStates
from asyncmachine.net.statistics import NetworkStatistics
from asyncmachine.net.values import Values
from asyncmachine.oneshot import Told, deadline_after, time_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Literal, Self

    from asyncmachine.net.client import Call
    from asyncmachine.net.piping import DirectPipe

__all__ = ["Network", "Process"]

# Seconds that a process may take to start, and to build what it has to, at least.
START_TIMEOUT: Final = 60.0
# A process that keeps dying is given up after so many restarts within so many seconds.
MOST_RESTARTS: Final = 5
RESTART_WINDOW: Final = 60.0
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
# Bytes that the path of a socket may have, and those that we add to the directory's.
_LONGEST_PATH: Final = 100
_PATH_ROOM: Final = 40
# Seconds that closing waits for callbacks of the user's.
_JOINING: Final = 5.0

_ids: Final = count(1)


class _Order(NamedTuple):
    """What one process was asked to build.

    Attributes:
        process: the process.
        life: the life of it that was asked.
        numbers: places of the machines in the whole order.
        call: what is waited for.

    """

    process: Process
    life: int
    numbers: list[int]
    call: Call


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
        if is_preparing():
            msg = (
                "a Network is made while its main module is imported by a child process: "
                "put that under `if __name__ == '__main__':`"
            )
            raise RuntimeError(msg)
        if processes is None:
            processes = _usable_cores()
        _check_options(processes, restart)
        if address is not None:
            msg = f"{address}: networks over several hosts are not there yet"
            raise ValueError(msg)
        self.id = id or f"network-{os.getpid()}-{next(_ids)}"
        self._restart = restart
        self._secret = (
            secret.encode() if isinstance(secret, str) else secret
        ) or secrets.token_bytes(32)
        self._wire_types = tuple(wire_types)
        self._values = Values(self._wire_types)
        _check_importable(self._wire_types)
        self._outbox_limit = outbox_limit
        self._call_timeout = call_timeout
        self._lock = Lock()  # guards what follows, and the lives of the processes
        self._pending: dict[int, int] = {}
        self._closing = False
        self._pipes: dict[DirectPipe, Callable[[Process], Callable[[], object]]] = {}
        self._stop = Told()
        self.machine = Machine(NetworkStates, id=self.id)
        self.machines: dict[str, RemoteMachine] = {}
        self.processes: list[Process] = []
        self.machine.add("Starting")
        self._directory = _temporary_directory()
        atexit.register(self.close)
        try:
            for index in range(processes):
                self.processes.append(self._prepared(index))
                self._start(self.processes[index])
                self.processes[index].client.came_up()
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
        """Start an interpreter, and tell it what it is to do.

        Raises:
            OSError: if the system starts no more processes.
            ConnectionLostError: if it has ended already, or the network was closed.

        """
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
        known = Preparation(process.client.name)
        with self._lock:
            if self._closing:
                raise ConnectionLostError(f"{self.id} was closed")
            sock = process.start(known.paths, self._see_to_end)
        process.connect(sock, [known.data, pickle.dumps(config)])

    def _link_down(self, client: Client, error: Exception | None) -> None:
        for process in self.processes:
            if process.client is client:
                process.went_down()

    def _see_to_end(self, process: Process, exitcode: int) -> None:
        """See to what comes after the end of a process, on the thread that waited for it."""
        client = process.client
        why = f"{client.name} has died, with exit code {exitcode}"
        lost = ConnectionLostError(why)
        with self._lock:
            closing = self._closing
            process.life += 1  # what was asked of it before comes to nothing
            process.deaths.append(monotonic())
            again = self._restart == "on-failure" and exitcode != 0 and _may_restart(process)
            ids = process.machines
        if closing:
            client.lose(ConnectionLostError(f"{self.id} was closed"))
            return
        if again:
            process.up.shut()
            client.link.close()
            client.forget_calls(lost)
            for remote in process.remotes:
                remote.paused(lost)
        else:
            self._give_up(process, lost)
        # Its handlers are the user's: they must not keep us from building it again.
        self.machine.send(
            "add", "ProcessDied", process=process.index, exitcode=exitcode, machines=ids
        )
        if again:
            with process.mending:  # who does that already is about to see that it is in vain
                self._start_again(process)

    def _give_up(self, process: Process, lost: ConnectionLostError) -> None:
        """Do without a process, and have its siblings do without it."""
        remotes = process.remotes
        process.client.lose(lost)
        process.up.open()
        for remote in remotes:
            remote.lost(str(lost))
        with self._lock:
            for remote in remotes:
                self._forget_locked(process, remote)
        for other in self.processes:
            if other is not process:
                other.client.post(wire.Forsake(process.address))
        Path(process.address.partition(":")[2]).unlink(missing_ok=True)

    def _start_again(self, process: Process) -> None:
        """Build a process and its machines again, under the same ids."""
        delay = min(FIRST_DELAY * 2 ** len(process.deaths[1:]), LONGEST_DELAY)
        if self._stop.wait(delay):
            return
        client = process.client
        process.up.shut()
        process.await_down()
        client.link.detach()
        for remote in process.remotes:
            remote.paused()
            remote.connecting()
        with self._lock:
            client.forget_machines()
            client.link = client.new_link()
            life = process.life
            built = list(process.built.items())
        try:
            self._start(process)
        except ConnectionLostError as error:  # it has ended already, or we have
            log_warning(self.id, f"a restart came to nothing: {error}")
            return
        except OSError as error:
            self._give_up(process, ConnectionLostError(f"no process can be started: {error}"))
            return
        try:
            call = client.begin()
            specs = [spec for _, (spec, _) in built]
            client.submit(call, client.link, wire.Build(call.number, specs))
            client.came_up()
            process.up.open()
            reply = client.finish(call, self._patience)
        except (ConnectionLostError, TimeoutError) as error:
            log_warning(self.id, f"a restart came to nothing: {error}")
            process.kill()  # which another thread sees to
            return
        assert isinstance(reply, wire.Built)
        alive = {
            machine_id
            for (machine_id, _), result in zip(built, reply.results, strict=True)
            if isinstance(result, wire.Opened)
        }
        # First, so that nothing is missed once the proxies can be used; unless a target is
        # stuck, which must not keep all others waiting.
        left = self._lay_again(process, life, self._pipes_from(alive), patient=False)
        for (_, (_, remote)), result in zip(built, reply.results, strict=True):
            self._move_in(process, remote, result)
        self._lay_again(process, life, left, patient=True)

    def _move_in(
        self, process: Process, remote: RemoteMachine, result: wire.Opened | wire.Failed
    ) -> None:
        why: Exception
        if isinstance(result, wire.Opened):
            try:
                remote.moved_in(result, process.client.link, afresh=True)
            except MachineError as error:  # its states are others now
                why = error
            else:
                return
        else:
            why = failure(result)
        with self._lock:
            self._forget_locked(process, remote)
        remote.lost(f"it could not be built again: {why}")

    def _pipes_from(self, sources: set[str]) -> list[DirectPipe]:
        return [made for made in list(self._pipes) if made.source.id in sources]

    def _lay_again(
        self, process: Process, life: int, pipes: list[DirectPipe], *, patient: bool
    ) -> list[DirectPipe]:
        """Lay pipes from a process that was started again; give those that are left.

        Args:
            process: the process.
            life: which of its lives they are laid in; afterwards that is in vain.
            pipes: the pipes.
            patient: whether to go on after one that took too long.

        """
        for i, made in enumerate(pipes):
            while process.life == life and not made.closed:
                lay = self._pipes.get(made)
                if lay is None:
                    break
                try:
                    made.reconnect(lay(process))
                except ConnectionLostError:  # its target is being built again, too
                    if self._stop.wait(FIRST_DELAY):
                        return []
                    continue
                except TimeoutError as error:
                    if not patient:
                        return pipes[i:]
                    log_warning(self.id, f"{made} could not be laid again: {error}")
                except MachineError as error:
                    log_warning(self.id, f"{made} could not be laid again: {error}")
                break
        return []

    @property
    def _patience(self) -> float:
        """Seconds that building may take."""
        return max(START_TIMEOUT, self._call_timeout)

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
        orders: list[_Order] = []
        try:
            for place, numbers in by_process.items():
                try:
                    orders.append(self._order(self.processes[place], specs, numbers))
                except (MachineError, TimeoutError) as error:
                    found.update(dict.fromkeys(numbers, error))
            for order in orders:
                try:
                    found.update(self._delivered(order, specs))
                except (MachineError, TimeoutError) as error:
                    found.update(dict.fromkeys(order.numbers, error))
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
            there = [each for each in self.processes if not each.client.is_lost]
            # Those that are built again just now only if there are no others.
            there = [each for each in there if each.is_alive] or there
            if not there or self._closing:
                raise ConnectionLostError(f"{self.id} has no process to build a machine in")
            index = min(
                there, key=lambda each: len(each.built) + self._pending.get(each.index, 0)
            ).index
        elif not 0 <= index < len(self.processes):
            msg = f"there is no process {index}; there are {len(self.processes)}, from 0"
            raise IndexError(msg)
        self._pending[index] = self._pending.get(index, 0) + 1
        return index

    def _order(self, process: Process, specs: list[bytes], numbers: list[int]) -> _Order:
        """Ask a process to build machines."""
        client = process.client
        if not process.up.wait(self._call_timeout):
            raise client.unreachable(self._call_timeout)
        with self._lock:
            link, life = client.link, process.life
        call = client.begin(link)
        client.submit(call, link, wire.Build(call.number, [specs[n] for n in numbers]))
        return _Order(process, life, numbers, call)

    def _delivered(self, order: _Order, specs: list[bytes]) -> dict[int, RemoteMachine | Exception]:
        """Wait until the machines of one process are built."""
        reply = order.process.client.finish(order.call, self._patience)
        assert isinstance(reply, wire.Built)
        return {
            number: (
                failure(result)
                if isinstance(result, wire.Failed)
                else self._taken_over(order, specs[number], result)
            )
            for number, result in zip(order.numbers, reply.results, strict=True)
        }

    def _taken_over(
        self, order: _Order, spec: bytes, opened: wire.Opened
    ) -> RemoteMachine | Exception:
        process = order.process
        with self._lock:
            if process.life != order.life or process.client.is_lost:
                return ConnectionLostError(f"{process.client.name} has died meanwhile")
            remote = RemoteMachine(process.client, opened, place=Place(process.address, self))
            taken = self.machines.setdefault(remote.id, remote) is not remote
            if not taken:
                process.built[remote.id] = (spec, remote)
        if taken:
            with suppress(TimeoutError):
                remote.dispose()
            return DuplicateMachineError(
                f"there is a machine of the id {remote.id!r} in {self.id} already"
            )
        remote.on_dispose(partial(self._disposed, process))
        return remote

    def _disposed(self, process: Process, remote: RemoteMachine) -> None:
        with self._lock:
            self._forget_locked(process, remote)

    def _forget_locked(self, process: Process, remote: RemoteMachine) -> None:
        if self.machines.get(remote.id) is remote:
            del self.machines[remote.id]
        if remote.id in process.built and process.built[remote.id][1] is remote:
            del process.built[remote.id]

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

        def lay(process: Process) -> Callable[[], object]:
            return lay_over(process.client, pipe, routes, kinds, sync=sync)

        self._pipes[pipe] = lay
        pipe.undo_with(Binding(lambda: self._pipes.pop(pipe, None)))
        for process in self.processes:
            if source.id in process.built:
                source.await_home()
                return lay(process)
        raise ConnectionLostError(f"{source.id} is no machine of {self.id} any more")

    def statistics(self) -> NetworkStatistics:
        """Give what the network consists of at this moment, and what went over its links."""
        return NetworkStatistics(
            sum(process.is_alive for process in self.processes),
            len(self.machines),
            tuple(each.client.statistics(f"process-{each.index}") for each in self.processes),
        )

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
                process.wait(time_left(deadline))
        finally:
            self._clear_up()

    def _clear_up(self) -> None:
        """Leave nothing behind; again does no harm."""
        for process in self.processes:
            process.kill()
            process.client.lose(ConnectionLostError(f"{self.id} was closed"))
            process.up.open()
        for process in self.processes:
            for remote in process.remotes:  # those that were just being built again
                remote.lost(f"{self.id} was closed")
            process.join(_JOINING)
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


def _check_options(processes: int, restart: str) -> None:
    if processes < 1:
        msg = f"a network needs at least one process, not {processes!r}"
        raise ValueError(msg)
    if restart not in ("never", "on-failure"):
        msg = f"restart must be 'never' or 'on-failure', not {restart!r}"
        raise ValueError(msg)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _may_restart(process: Process) -> bool:
    process.deaths = [each for each in process.deaths if each > monotonic() - RESTART_WINDOW]
    return len(process.deaths) <= MOST_RESTARTS


def _temporary_directory() -> Path:
    """Make a directory for sockets, whose paths must not be long."""
    usual = tempfile.gettempdir()
    roomy = len(os.fsencode(usual)) + _PATH_ROOM <= _LONGEST_PATH
    return Path(tempfile.mkdtemp(prefix="asyncmachine-", dir=usual if roomy else "/tmp"))  # noqa: S108


def _check_importable(wire_types: tuple[type, ...]) -> None:
    for each in wire_types:
        try:
            pickle.dumps(each)
        except Exception as error:
            raise NotSerialisableError(
                f"the wire type {each.__qualname__} can not be imported by another process: {error}"
            ) from error


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
