"""One process of a network: starting it, and hearing of its end.

Guarantees: the end of a process is heard by a thread that waits for it, at once, and
exactly once. Who inherits our end of the connection is the process alone.
"""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import threading
from multiprocessing import spawn
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from asyncmachine.net.carriers.pipe import pipe_ends
from asyncmachine.net.carriers.socket import SocketCarrier
from asyncmachine.net.errors import ConnectionLostError
from asyncmachine.net.gate import Gate
from asyncmachine.oneshot import Told
from asyncmachine.watchdog import Watch

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from asyncmachine.net.client import Client
    from asyncmachine.net.remote import RemoteMachine

__all__ = ["Preparation", "Process"]

# Seconds that a process may live on after it has closed its end of the connection.
_LAST_WORDS: Final = 10.0
# Seconds that the system may take to end a process that is killed.
_DYING: Final = 5.0


class Process:
    """One process of a network.

    Attributes:
        index: its place in ``net.processes``.
        pid: its process id; 0 before it was started.
        is_alive: whether it runs.
        machines: ids of the machines that live there.
        address: where its siblings reach it.
        client: what calls it.
        built: what each machine was built from, and its proxy, by id.
        life: how many of its lives have ended.
        deaths: when they did, in monotonic seconds.
        mending: held by who builds it again.
        up: shut while it is dead and about to be built again.

    """

    def __init__(self, index: int, address: str, client: Client) -> None:
        self.index = index
        self.address = address
        self.client = client
        self.built: dict[str, tuple[bytes, RemoteMachine]] = {}
        self.life = 0
        self.deaths: list[float] = []
        self.mending = Lock()
        self.up = Gate()
        self.up.open()
        self._popen: subprocess.Popen[bytes] | None = None
        self._ended = Told()
        self._down = Told()
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid if self._popen is not None else 0

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._popen is not None and not self._ended.happened

    @property
    def machines(self) -> tuple[str, ...]:
        """Ids of the machines that live there."""
        return tuple(self.built)

    @property
    def remotes(self) -> list[RemoteMachine]:
        """The proxies of the machines that live there."""
        return [remote for _, remote in list(self.built.values())]

    def start(self, paths: list[str], over: Callable[[Process, int], object]) -> socket.socket:
        """Start an interpreter.

        Args:
            paths: where it finds modules.
            over: called with this and the exit code when it has ended, on a thread that
                waits for that.

        Returns:
            Our end of the connection to it, for `connect`.

        Raises:
            OSError: if the system starts no more processes.

        """
        ours, theirs = pipe_ends()
        with theirs:
            try:
                popen = subprocess.Popen(  # noqa: S603 - this very interpreter
                    _command(theirs.fileno(), paths),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is ours to see to
                )
            except BaseException:
                ours.close()
                raise
        self._popen, self._ended, self._down = popen, Told(), Told()
        self._thread = threading.Thread(
            target=self._await_end,
            args=(popen, self._ended, over),
            name=f"asyncmachine {self.client.name}",
            daemon=True,
        )
        self._thread.start()
        return ours

    def connect(self, sock: socket.socket, parts: list[bytes]) -> None:
        """Tell it what it is to do, and use the connection from now on.

        Raises:
            ConnectionLostError: if it has ended already.

        """
        try:
            for data in parts:
                sock.sendall(len(data).to_bytes(4, "big") + data)
            self.client.link.attach(SocketCarrier(sock))
        except BaseException as error:
            sock.close()
            self._down.tell()
            if isinstance(error, OSError):
                raise ConnectionLostError(f"{self.client.name} has ended at once") from error
            raise
        self.client.link.start_reading()

    def _await_end(
        self,
        popen: subprocess.Popen[bytes],
        ended: Told,
        over: Callable[[Process, int], object],
    ) -> None:
        exitcode = popen.wait()
        ended.tell()
        over(self, exitcode)

    def went_down(self) -> None:
        """Take note that the connection has ended; the process is to end soon, too."""
        self._down.tell()
        ended = self._ended
        popen = self._popen

        def kill() -> None:
            if popen is not None and not ended.happened:
                popen.kill()

        if not ended.happened:
            Watch(_LAST_WORDS, kill).start()

    def await_down(self) -> None:
        """Wait until nobody sees to the former connection any more."""
        self._down.wait()

    def wait(self, timeout: float | None) -> bool:
        """Wait for its end; true if it has come, or the process was never started."""
        return self._popen is None or self._ended.wait(timeout)

    def kill(self) -> None:
        """End it, whatever it does, and wait for that."""
        if self._popen is not None and not self._ended.happened:
            self._popen.kill()
            self._ended.wait(_DYING)

    def join(self, timeout: float) -> None:
        """Wait until all that its end brings about is done."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def __repr__(self) -> str:
        return f"<Process {self.index} {'alive' if self.is_alive else 'ended'}>"


def _command(fd: int, paths: list[str]) -> list[str]:
    """Give the command line: this interpreter, with its own options and module path."""
    command = spawn.get_command_line()
    options = command[1 : command.index("-c")] if "-c" in command else []
    # Unlike -m, this can not pick up a module of the current directory by mistake.
    program = (
        f"import sys; sys.path[:] = {paths!r}; from asyncmachine.net.host import main; main({fd})"
    )
    return [command[0], *options, "-P", "-c", program]


class Preparation:
    """What a child has to know of this interpreter, to import what we can import.

    Args:
        name: the child.

    Raises:
        RuntimeError: if this is a child that is being prepared itself.

    Attributes:
        paths: where modules are found.
        data: all of it, pickled.

    """

    def __init__(self, name: str) -> None:
        method = multiprocessing.get_start_method(allow_none=True)
        known: dict[str, object] = spawn.get_preparation_data(name)
        if method is None:  # asking for it has fixed it, which is for others to do
            multiprocessing.set_start_method(None, force=True)
        for each in ("authkey", "start_method"):
            known.pop(each, None)
        path = known.get("init_main_from_path")
        if isinstance(path, str) and not Path(path).is_file():  # "<stdin>"
            del known["init_main_from_path"]
        found = known.get("sys_path")
        self.paths = [str(each) for each in found] if isinstance(found, list) else []
        self.data = pickle.dumps(known)
