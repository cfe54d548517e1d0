"""Our side of ``python -m bench net``: machines that are served, spawned, piped and mirrored.

All of it goes through the public names of ``asyncmachine.net``. Each side proves by the
clocks that what it timed was done.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from asyncmachine import pipe
from asyncmachine.net import Network, connect
from bench.importing import ROOT
from bench.measure import BenchError, Loop
from bench.net_machines import plain, serve_one, toggler
from bench.net_relay import Relay
from bench.processes import process

if TYPE_CHECKING:
    from pathlib import Path

    from asyncmachine.net import RemoteMachine

__all__ = [
    "BareStart",
    "Piped",
    "Sending",
    "Spawning",
    "Toggling",
    "Weighing",
    "served",
    "spawned",
    "weighed_calls",
    "weighed_sends",
]

_TIMEOUT_S: Final = 60
# Keeps what is under way below the outbox limit, past which a pipe closes.
_MOST_IN_A_BURST: Final = 20_000
_WEIGHED: Final = 500
_IMPORTED: Final = "import asyncmachine.net, bench.net_machines; print('here')"


def served(stack: ExitStack, folder: Path, relay: list[Relay] | None = None) -> RemoteMachine:
    """Connect to a machine that another process serves; on request through a relay."""
    path = f"{folder}/served-{len(list(folder.iterdir()))}.sock"
    line = stack.enter_context(process(serve_one, f"unix:{path}"))
    line.recv()
    if relay is not None:
        relay.append(stack.enter_context(Relay(f"{path}-relay", path)))
        path = f"{path}-relay"
    return stack.enter_context(connect(f"unix:{path}"))


def spawned(stack: ExitStack) -> RemoteMachine:
    """Spawn a machine on the one process of a network."""
    return stack.enter_context(Network(processes=1)).spawn(plain)


class Toggling:
    """``add`` and ``remove`` of one state, each a round trip."""

    steps = 2
    loops = 1

    def __init__(self, remote: RemoteMachine) -> None:
        self._remote = remote
        self._loop = Loop('m.add("Foo")\nm.remove("Foo")', names={"m": remote})

    def run(self, times: int) -> int:
        """Toggle so often; the clock has to say so."""
        before = self._remote.tick("Foo")
        taken = self._loop.run(times)
        _check(self._remote.tick("Foo") - before, 2 * times)
        return taken

    def close(self) -> None: ...


class Sending:
    """``send`` of the same, and a wait for all of it at the end."""

    steps = 2
    loops = 1

    def __init__(self, remote: RemoteMachine) -> None:
        self._remote = remote

    def run(self, times: int) -> int:
        """Send so many adds and removes; the clock has to say so in the end."""
        remote, send = self._remote, self._remote.send
        before = remote.tick("Foo")
        started = perf_counter_ns()
        for _ in range(times):
            send("add", "Foo")
            send("remove", "Foo")
        remote.sync(_TIMEOUT_S)
        taken = perf_counter_ns() - started
        _check(remote.tick("Foo") - before, 2 * times)
        return taken

    def close(self) -> None: ...


class Weighing:
    """Bytes on the wire, each way, of adds and removes that are round trips."""

    steps = 2
    loops = 1

    def __init__(self, remote: RemoteMachine, relay: Relay, *, back: bool) -> None:
        self._toggling = Toggling(remote)
        self._relay = relay
        self._back = back

    def run(self, times: int) -> int:
        """Toggle so often; gives bytes, not nanoseconds."""
        before = self._count()
        self._toggling.run(times)
        return self._count() - before

    def _count(self) -> int:
        return self._relay.back if self._back else self._relay.there

    def close(self) -> None: ...


def weighed_calls(folder: Path) -> tuple[int, int]:
    """Find how many bytes a call takes, there and back."""
    relay: list[Relay] = []
    with ExitStack() as stack:
        toggling = Toggling(served(stack, folder, relay))
        toggling.run(1)
        there, back = relay[0].there, relay[0].back
        toggling.run(_WEIGHED)
        calls = 2 * _WEIGHED
        return round((relay[0].there - there) / calls), round((relay[0].back - back) / calls)


def weighed_sends(folder: Path) -> int:
    """Find how many bytes a mutation takes that is sent with its neighbours."""
    relay: list[Relay] = []
    with ExitStack() as stack:
        sending = Sending(served(stack, folder, relay))
        sending.run(1)
        there = relay[0].there
        sending.run(_WEIGHED)
        return round((relay[0].there - there) / (2 * _WEIGHED))


class Piped:
    """A machine that toggles itself in its process, piped to one in another process.

    A step is one activation that has arrived; the deactivation that comes with each of
    them is carried, too.
    """

    steps = 1
    loops = 1

    def __init__(self, stack: ExitStack) -> None:
        net = stack.enter_context(Network(processes=2))
        self._source = net.spawn(toggler, "source", process=0)
        self._target = net.spawn(toggler, "target", process=1)
        pipe(self._source, "Foo", self._target, "Foo")

    def run(self, times: int) -> int:
        """Let the source toggle so often; ends when the target's clock has arrived."""
        taken = 0
        while times > 0:
            burst = min(times, _MOST_IN_A_BURST)
            taken += self._burst(burst)
            times -= burst
        return taken

    def _burst(self, times: int) -> int:
        self._target.sync(_TIMEOUT_S)
        goal = self._target.tick("Foo") + 2 * times
        started = perf_counter_ns()
        arrived = self._target.when_time({"Foo": goal})
        self._source.add("Go", times=times)
        if not arrived.wait(_TIMEOUT_S):
            msg = f"the target is at {self._target.tick('Foo')}, not {goal}: {self._source.error}"
            raise BenchError(msg)
        return perf_counter_ns() - started

    def close(self) -> None:
        """Check that nothing arrived twice."""
        self._target.sync(_TIMEOUT_S)
        _check(self._target.tick("Foo"), self._source.tick("Foo"))


class Spawning:
    """Start a network and spawn machines on it; what ends it is not timed."""

    steps = 1
    loops = 1

    def __init__(self, machines: int, *, at_once: bool) -> None:
        self._machines = machines
        self._at_once = at_once

    def run(self, times: int) -> int:
        """Do it so often; gives the nanoseconds until the last machine is there."""
        return sum(self._start() for _ in range(times))

    def _start(self) -> int:
        names = [f"machine-{number}" for number in range(self._machines)]
        started = perf_counter_ns()
        with Network(processes=2) as net:
            if self._at_once:
                remotes = net.spawn_many(plain, [(name,) for name in names])
            else:
                remotes = [net.spawn(plain, name) for name in names]
            taken = perf_counter_ns() - started
            _check(len({remote.id for remote in remotes}), self._machines)
            _check(len(net.machines), self._machines)
        return taken

    def close(self) -> None: ...


class BareStart:
    """Start two interpreters beside each other that import what the children import."""

    steps = 1
    loops = 1

    def run(self, times: int) -> int:
        """Do it so often; gives the nanoseconds until both have imported it."""
        return sum(self._start() for _ in range(times))

    def _start(self) -> int:
        started = perf_counter_ns()
        with ExitStack() as stack:
            children = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", _IMPORTED],
                        cwd=ROOT,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                    )
                )
                for _ in range(2)
            ]
            said = [child.stdout.readline() for child in children if child.stdout]
            taken = perf_counter_ns() - started
        if said != [b"here\n"] * 2:
            msg = f"a bare interpreter said {said}"
            raise BenchError(msg)
        return taken

    def close(self) -> None: ...


def _check(found: int, wanted: int) -> None:
    if found != wanted:
        msg = f"{found:,} were done, not {wanted:,}"
        raise BenchError(msg)
