"""What the tests of networks build in other processes, and what they ask for there.

Also run as programs that have a network of their own: ``python -m tests.net.making NAME …``.
"""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from asyncmachine import Event, Machine, State, pipe
from asyncmachine.net import Network, RemoteMachine
from asyncmachine.pipes import Pipe

ROOT = Path(__file__).parent.parent.parent

SCHEMA = {
    "Foo": State(),
    "Bar": State(),
    "Hit": State(multi=True),
    "Done": State(),
    "Stuck": State(),
}


@dataclass
class Order:
    """A wire type."""

    number: int
    note: str = ""


class Colour(enum.Enum):
    """Another one."""

    RED = 1


class Handlers:
    """Remembers what comes, in order, and does what it is told.

    Attributes:
        heard: the args of the activations of Hit, and their causes.

    """

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, object], str]] = []
        self.pipes: list[Pipe] = []

    def Hit_state(self, event: Event) -> None:
        cause = event.transition.cause
        self.heard.append((dict(event.args), "" if cause is None else cause.machine_id))
        if event.args.get("exit"):
            os._exit(7)

    def Stuck_state(self, event: Event) -> None:
        Path(str(event.args["fifo"])).write_text("stuck")  # who reads that knows
        threading.Event().wait()


_handlers: dict[str, Handlers] = {}


def make(machine_id: str, *others: RemoteMachine) -> Machine:
    handlers = Handlers()
    _handlers[machine_id] = handlers
    machine = Machine(
        SCHEMA, id=machine_id, handlers=handlers, handler_timeout=None, queue_limit=100_000
    )
    for other in others:
        handlers.pipes.append(pipe(machine, "Foo", other, "Foo"))
    return machine


def make_small(machine_id: str) -> Machine:
    return Machine(SCHEMA, id=machine_id, queue_limit=4, handler_timeout=None)


def make_with(*, machine_id: str, on: bool = False) -> Machine:
    machine = make(machine_id)
    if on:
        machine.add("Foo")
    return machine


def make_forwarder(machine_id: str, other: RemoteMachine) -> Machine:
    """A machine whose handler and fork use a proxy."""

    def hit(event: Event) -> None:
        assert str(other.add("Hit", by="handler")) == "Result.QUEUED"
        event.fork(lambda ctx: other.add("Hit", by="fork"))

    return Machine(SCHEMA, id=machine_id, handlers={"Hit_state": hit})


def make_piper(machine_id: str, source: RemoteMachine, target: RemoteMachine) -> Machine:
    """A machine that pipes two others into each other."""
    machine = make(machine_id)
    _handlers[machine_id].pipes.append(pipe(source, "Hit", target, "Hit"))
    _handlers[machine_id].pipes.append(pipe(source, "Bar", machine, "Bar"))
    return machine


def make_nothing() -> Machine:
    return None  # type: ignore[return-value]


def make_wrongly(machine_id: str) -> Machine:
    error = ValueError(f"no {machine_id}")
    error.add_note("not today")
    raise error


def make_an_end(how: str) -> Machine:
    if how == "exit":
        sys.exit(3)
    os._exit(3)


def make_once(machine_id: str, flag: str) -> Machine:
    """Build a machine the first time only; later the process ends."""
    path = Path(flag)
    if path.exists():
        os._exit(4)
    path.touch()
    return make(machine_id)


def make_while(machine_id: str, directory: str) -> Machine:
    """Build a machine as long as a directory is there."""
    if not Path(directory).exists():
        raise ValueError("too late")
    return make(machine_id)


_kept: dict[str, RemoteMachine] = {}
_seen: list[RemoteMachine] = []


def make_keeper(machine_id: str, other: RemoteMachine) -> Machine:
    _kept[machine_id] = other
    return make(machine_id)


def make_tidy(machine_id: str, path: str) -> Machine:
    """A machine that leaves a file when it is disposed."""
    machine = make(machine_id)
    machine.on_dispose(lambda _: Path(path).touch())
    return machine


def make_slowly(machine_id: str, fifo: str) -> Machine:
    assert Path(fifo).read_text() == "go on"
    return make(machine_id)


def make_network(machine_id: str) -> Machine:
    """A machine that closes a network of its own when it is disposed."""
    net = Network(processes=1)
    _networks[machine_id] = net
    machine = make(machine_id)
    machine.on_dispose(lambda _: net.close())
    return machine


_networks: dict[str, Network] = {}


# To be asked for ------------------------------------------------------------------------------


def pid(machine: Machine) -> int:
    return os.getpid()


def heard(machine: Machine) -> list[dict[str, object]]:
    return [args for args, _ in _handlers[machine.id].heard]


def in_order(machine: Machine) -> int:
    """How many Hits came, if all of them came in order."""
    numbers = [args["n"] for args, _ in _handlers[machine.id].heard]
    return len(numbers) if numbers == list(range(len(numbers))) else -1


def pipes_here(machine: Machine) -> int:
    """How many listeners this machine's pipes have."""
    from asyncmachine.net import host

    return sum(len(each.pipes) for each in host.hosts())


def proxy_of(machine: Machine) -> int:
    """A number of its proxy; another proxy has another one, whatever becomes of the first."""
    proxy = _kept[machine.id]
    if not any(each is proxy for each in _seen):
        _seen.append(proxy)
    return next(number for number, each in enumerate(_seen) if each is proxy)


def start_a_program(machine: Machine) -> int:
    """Fork, so that somebody else has all that this process has open."""
    pid = os.fork()
    if not pid:
        threading.Event().wait()
    return pid


def use_network(machine: Machine) -> str:
    remote = _networks[machine.id].spawn(make, "inner")
    return str(remote.add("Foo").wait(10))


def causes(machine: Machine) -> list[str]:
    return [cause for _, cause in _handlers[machine.id].heard]


def pipes_closed(machine: Machine) -> list[bool]:
    return [each.closed for each in _handlers[machine.id].pipes]


def error_of(machine: Machine) -> str:
    return f"{type(machine.error).__name__}: {machine.error}"


def environment(machine: Machine) -> list[str]:
    return [os.environ.get("PYTHONPATH", ""), str(Path.cwd()), *sys.path]


def hit_unfit(machine: Machine) -> None:
    """Activate Hit with what can not travel, and then with what can."""
    machine.add("Hit", lock=threading.Lock())
    machine.add("Hit", n=2)


def hit_often(machine: Machine) -> None:
    for n in range(20_000):
        machine.add("Hit", n=n)


def hit_some(machine: Machine) -> None:
    for n in range(200):
        machine.add("Hit", n=n)


def stick(remote: RemoteMachine, directory: Path) -> None:
    """Have a handler of a machine hang for ever; come back when it does."""
    fifo = directory / f"stuck-{remote.id}"
    os.mkfifo(fifo)
    remote.send("add", "Stuck", fifo=str(fifo))
    assert fifo.read_text() == "stuck"
    fifo.unlink()


# What the system says -------------------------------------------------------------------------


def children(parent: int | None = None) -> list[int]:
    """The child processes of a process, zombies among them."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == (parent or os.getpid()):
            found.append(int(entry.name))
    return found


@contextmanager
def program(name: str, *args: str, temp: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program of this module until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.net.making", name, *args],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temp)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def stop(pid: int) -> None:
    """Stop a child process; come back when it stands still."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


def await_end_of(pids: list[int]) -> None:
    """Wait until processes are gone that are not our children."""
    for each in pids:
        try:
            fd = os.pidfd_open(each)
        except ProcessLookupError:
            continue
        import select

        ready, _, _ = select.select([fd], [], [], 20)
        os.close(fd)
        assert ready, f"{each} lives on"


# Programs -------------------------------------------------------------------------------------


def _run(*, stuck: bool = False) -> Network:
    net = Network(processes=2)
    remotes = net.spawn_many(make, [("a",), ("b",)])
    if stuck:
        stick(remotes[0], Path(tempfile.gettempdir()))
    print(*(each.pid for each in net.processes), flush=True)
    return net


def waits() -> None:
    with _run():
        threading.Event().wait()


def waits_stuck() -> None:
    with _run(stuck=True):
        threading.Event().wait()


def raises() -> None:
    with _run():
        raise ValueError("as asked")


def leaves() -> None:
    _run()


def leaves_stuck() -> None:
    import atexit

    net = _run(stuck=True)
    atexit.unregister(net.close)
    atexit.register(net.close, 0.2)


class Ends:
    """Writes to a fifo when the last Hit has come."""

    def Hit_state(self, event: Event) -> None:
        if event.args.get("n") == 999:
            Path(str(event.args["out"])).write_text("done")


def make_ends(machine_id: str) -> Machine:
    return Machine(SCHEMA, id=machine_id, handlers=Ends(), handler_timeout=None)


def make_source(machine_id: str, out: str) -> Machine:
    """A machine that hits itself often, a while after Foo."""

    def hit(ctx: object) -> None:
        for n in range(1000):
            time.sleep(0.0003)  # long enough for the parent to be stopped meanwhile
            machine.add("Hit", n=n, out=out)

    machine = Machine(SCHEMA, id=machine_id, handlers={"Foo_state": lambda event: event.fork(hit)})
    return machine


def pipes(out: str) -> None:
    with Network(processes=2) as net:
        source = net.spawn(make_source, "s", out, process=0)
        target = net.spawn(make_ends, "t", process=1)
        pipe(source, "Hit", target, "Hit")
        source.add("Foo")
        print("laid", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
