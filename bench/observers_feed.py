"""The feed under ``python -m bench observers``: a receiver in another process, live or stopped."""

from __future__ import annotations

import os
import signal
from threading import Event
from typing import TYPE_CHECKING, Final, cast

from asyncmachine.debugger.collector import Collector
from asyncmachine.telemetry.feed import attach
from bench.measure import BenchError
from bench.processes import process, until_the_end

if TYPE_CHECKING:
    from contextlib import ExitStack
    from multiprocessing.connection import Connection

    from asyncmachine import Machine

__all__ = ["feed"]

_PATIENCE: Final = 10.0
# So many toggles fill the buffers between the two processes, and the ring.
_FILLING: Final = 200_000


def _receive(line: Connection[object, object]) -> None:
    """What runs in the other process: it decodes all that comes, and drops it."""
    with Collector(lambda records: None, "127.0.0.1:0") as collector:
        line.send((os.getpid(), collector.address))
        until_the_end(line)


def feed(stack: ExitStack, machine: Machine, *, stop: bool = False) -> None:
    """Attach a machine to a receiver.

    Args:
        stack: ends both.
        machine: the machine.
        stop: whether the receiver is stopped, with all buffers full.

    """
    line = stack.enter_context(process(_receive))
    pid, address = cast("tuple[int, str]", line.recv())
    attached = stack.enter_context(attach(machine, address))
    if not attached.wait_connected(_PATIENCE):
        msg = f"no connection to {address}"
        raise BenchError(msg)
    if stop:
        os.kill(pid, signal.SIGSTOP)
        stack.callback(os.kill, pid, signal.SIGCONT)
        for _ in range(_FILLING):
            machine.add("Foo")
            machine.add("Bar")
        Event().wait(0.5)  # for the sender, which has nobody to send to
        if not attached.dropped:
            msg = "the receiver was stopped, and yet nothing was dropped"
            raise BenchError(msg)
