"""The cases of ``python -m bench net``: machines in other processes, and raw carriers.

Each is held against the raw carrier, or the other library, that did the same beside it, in
the same rounds.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from bench import net_ours as ours
from bench import net_peers, net_raw
from bench.contest import OURS, AtLeastRate, AtLeastTimes, AtMost, AtMostTimes, Contest
from bench.measure import Loop
from bench.net_machines import plain
from bench.net_relay import Relay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.measure import Subject

__all__ = ["CONTESTS"]

_MACHINES: Final = 200


def _folder(stack: ExitStack) -> Path:
    """Make a folder for sockets, whose paths have to be short."""
    return Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))


def _call_unix(stack: ExitStack) -> Mapping[str, Subject]:
    folder = _folder(stack)
    there, back = ours.weighed_calls(folder)
    return {
        OURS: ours.Toggling(ours.served(stack, folder)),
        "raw": net_raw.socket_round_trip(stack, folder, there, back),
        "raw with a read buffer": net_raw.socket_round_trip(
            stack, folder, there, back, buffered=True
        ),
    }


def _call_pipe(stack: ExitStack) -> Mapping[str, Subject]:
    there, back = ours.weighed_calls(_folder(stack))
    return {
        OURS: ours.Toggling(ours.spawned(stack)),
        "raw": net_raw.pipe_round_trip(stack, there, back),
    }


def _send(stack: ExitStack) -> Mapping[str, Subject]:
    folder = _folder(stack)
    size = ours.weighed_sends(folder)
    return {
        OURS: ours.Sending(ours.served(stack, folder)),
        "raw": net_raw.socket_stream(stack, folder, size),
    }


def _pipe(stack: ExitStack) -> Mapping[str, Subject]:
    return {OURS: ours.Piped(stack)}


def _read(stack: ExitStack, statement: str) -> Mapping[str, Subject]:
    remote, local = ours.served(stack, _folder(stack)), plain()
    stack.callback(local.dispose)
    for mach in (remote, local):
        mach.add("Foo")
    return {
        OURS: Loop(statement, names={"m": remote}),
        "local": Loop(statement, names={"m": local}),
    }


def _spawn(_: ExitStack) -> Mapping[str, Subject]:
    return {
        OURS: ours.Spawning(_MACHINES, at_once=False),
        "interpreters": ours.BareStart(),
        "spawn_many": ours.Spawning(_MACHINES, at_once=True),
    }


def _wire(stack: ExitStack, back: bool) -> Mapping[str, Subject]:
    relay: list[Relay] = []
    remote = ours.served(stack, _folder(stack), relay)
    remote.add("Foo")
    remote.remove("Foo")
    return {OURS: ours.Weighing(remote, relay[0], back=back)}


def _grpc(stack: ExitStack) -> Mapping[str, Subject]:
    folder = _folder(stack)
    # The peer first: without it there is nothing to set up.
    peer = net_peers.grpc_unary(stack, folder)
    return {OURS: ours.Toggling(ours.served(stack, folder)), "gRPC": peer}


def _dask(stack: ExitStack) -> Mapping[str, Subject]:
    peer = net_peers.dask_actor(stack)
    return {OURS: ours.Toggling(ours.served(stack, _folder(stack))), "Dask": peer}


CONTESTS: Final = (
    Contest("call-unix", "add, there and back on a unix socket", _call_unix, AtMostTimes(4)),
    Contest("call-pipe", "add, there and back to a spawned process", _call_pipe, AtMostTimes(4)),
    Contest(
        "send",
        "send, applied and acknowledged",
        _send,
        AtLeastRate(150_000, 0.4),
        unit="/s",
        effort=5,
    ),
    Contest(
        "pipe",
        "activations piped between two processes",
        _pipe,
        AtLeastRate(80_000),
        unit="/s",
        effort=5,
    ),
    Contest(
        "read-is-active",
        'is_active("Foo") on a mirror',
        partial(_read, statement='m.is_active("Foo")'),
        AtMostTimes(1.5),
        unit="ns",
        effort=0.2,
    ),
    Contest(
        "read-tick",
        'tick("Foo") on a mirror',
        partial(_read, statement='m.tick("Foo")'),
        AtMostTimes(1.5),
        unit="ns",
        effort=0.2,
    ),
    Contest(
        "spawn",
        f"a network of 2 processes with {_MACHINES} machines",
        _spawn,
        AtMost(1.5e9, "1.5 s"),
        unit="s",
        most_rounds=5,
        times=1,
    ),
    Contest(
        "wire-there",
        "bytes of a toggle to the server",
        partial(_wire, back=False),
        AtMost(30, "30 B"),
        unit="B",
        most_rounds=3,
        times=500,
    ),
    Contest(
        "wire-back",
        "bytes of a toggle from the server",
        partial(_wire, back=True),
        AtMost(30, "30 B"),
        unit="B",
        most_rounds=3,
        times=500,
    ),
    Contest("grpc", "add, beside a unary call of gRPC", _grpc, AtLeastTimes(5)),
    Contest("dask", "add, beside a call of a Dask actor", _dask, AtLeastTimes(5), effort=2),
)
