"""Programs of tests that need a process of their own: ``python -m tests.net.programs NAME …``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncmachine import Event, Machine, State
from asyncmachine.net import connect, serve

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def running(*args: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program of this module until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.net.programs", *args],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """Read a line that a program prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop(process: subprocess.Popen[str]) -> None:
    """Stop a program, as Ctrl-Z does; come back when it has."""
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def machine() -> Machine:
    """A machine that most tests can do with."""
    return Machine(
        {
            "Foo": State(),
            "Bar": State(require="Foo"),
            "Baz": State(remove="Foo"),
            "Hit": State(multi=True),
        },
        id="served",
    )


def server(address: str) -> None:
    """Serve a machine; print the address."""
    mach = machine()
    with serve(mach, address, allow_eval=True) as served:
        print(served.address, flush=True)
        sys.stdin.readline()


def listener(address: str) -> None:
    """Connect and listen to a machine."""
    heard = threading.Event()

    def hear(event: Event) -> None:
        heard.set()

    with connect(address) as remote:
        remote.on("Hit_state", hear)
        print("listening", flush=True)
        sys.stdin.readline()


def hit_count(mach: Machine) -> int:
    """How often Hit was activated; for eval."""
    return (mach.tick("Hit") + 1) // 2


def fail(mach: Machine) -> None:
    """Fail; for eval."""
    raise ValueError("as asked")


def late(mach: Machine) -> None:
    """Fail with the error that a late turn would give; for eval."""
    raise TimeoutError("my own")


def unfit(mach: Machine) -> object:
    """Return what can not travel; for eval."""
    return threading.Lock()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
