"""The same toggle by other means of calling into a process: gRPC, and a Dask actor.

Each does the least that it can: gRPC without protocol buffers, on a unix socket; Dask with
one worker process and one thread in it. Both mutate a machine of asyncmachine there.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Final

from asyncmachine import Machine, Result, State
from bench.contest import MissingError
from bench.measure import BenchError, Loop
from bench.peers import INSTALL
from bench.processes import process, until_the_end

if TYPE_CHECKING:
    from contextlib import ExitStack
    from multiprocessing.connection import Connection
    from pathlib import Path
    from types import ModuleType

    from bench.measure import Subject

__all__ = ["Actor", "dask_actor", "grpc_unary"]

_SERVICE: Final = "bench.Machine"
_DONE: Final = b"\x01"
_TIMEOUT_S: Final = 30


def _required(module: str, distribution: str) -> ModuleType:
    """Import a module whose types, if it has any, are not looked at."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        msg = f"{distribution} is not installed: {INSTALL}"
        raise MissingError(msg) from error


def _machine() -> Machine:
    return Machine({"Foo": State(), "Bar": State(), "Baz": State()}, id="peer")


def grpc_unary(stack: ExitStack, folder: Path) -> Subject:
    """Call ``Add`` and ``Remove`` of a generic handler in another process."""
    # It would warn about the processes that are spawned later.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    grpc = _required("grpc", "grpcio")
    address = f"unix:{folder}/grpc.sock"
    line = stack.enter_context(process(_serve_grpc, address))
    line.recv()
    channel = stack.enter_context(grpc.insecure_channel(address))
    add = channel.unary_unary(f"/{_SERVICE}/Add")
    remove = channel.unary_unary(f"/{_SERVICE}/Remove")
    for call in (add, remove):
        if call(b"Foo", timeout=_TIMEOUT_S) != _DONE:
            msg = "gRPC did not carry out a mutation"
            raise BenchError(msg)
    return Loop('add(b"Foo")\nremove(b"Foo")', names={"add": add, "remove": remove}, steps=2)


def _serve_grpc(line: Connection[object, object], address: str) -> None:
    grpc = _required("grpc", "grpcio")
    mach = _machine()

    def add(request: bytes, context: object) -> bytes:
        return _DONE if mach.add(request.decode()) == Result.EXECUTED else b"\x00"

    def remove(request: bytes, context: object) -> bytes:
        return _DONE if mach.remove(request.decode()) == Result.EXECUTED else b"\x00"

    methods = {
        "Add": grpc.unary_unary_rpc_method_handler(add),
        "Remove": grpc.unary_unary_rpc_method_handler(remove),
    }
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    server.add_insecure_port(address)
    server.start()
    line.send("listening")
    until_the_end(line)
    server.stop(None).wait()


class Actor:
    """What lives on the worker."""

    def __init__(self) -> None:
        self._machine = _machine()

    def add(self, state: str) -> bool:
        """Activate a state."""
        return self._machine.add(state) == Result.EXECUTED

    def remove(self, state: str) -> bool:
        """Deactivate it."""
        return self._machine.remove(state) == Result.EXECUTED


def dask_actor(stack: ExitStack) -> Subject:
    """Call ``add`` and ``remove`` of an actor on a worker process."""
    dask = _required("distributed", "dask[distributed]")
    cluster = stack.enter_context(
        dask.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
    )
    client = stack.enter_context(dask.Client(cluster))
    actor = client.submit(Actor, actor=True).result(timeout=_TIMEOUT_S)
    for call in (actor.add, actor.remove):
        if call("Foo").result(timeout=_TIMEOUT_S) is not True:
            msg = "the actor did not carry out a mutation"
            raise BenchError(msg)
    return Loop('a.add("Foo").result()\na.remove("Foo").result()', names={"a": actor}, steps=2)
