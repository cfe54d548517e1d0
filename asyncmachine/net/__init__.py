"""Machines across processes and hosts; ``pip install asyncmachine[net]``."""

from __future__ import annotations

try:
    import msgspec
    import tblib
except ImportError as error:  # pragma: no cover - the tests need both
    msg = f"asyncmachine.net needs {error.name}: pip install 'asyncmachine[net]'"
    raise ImportError(msg, name=error.name) from error

from asyncmachine.net.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    DuplicateMachineError,
    InsecureAddressError,
    NotAllowedError,
    NotSerialisableError,
    ProtocolError,
    RemoteError,
    UnknownMachineError,
)
from asyncmachine.net.network import Network, Process
from asyncmachine.net.remote import RemoteMachine
from asyncmachine.net.serving import Server, connect, serve
from asyncmachine.net.states import ConnectionStates, HostStates, NetworkStates, ServerStates

del msgspec, tblib

__all__ = [
    "AuthenticationError",
    "ConnectError",
    "ConnectionLostError",
    "ConnectionStates",
    "DuplicateMachineError",
    "HostStates",
    "InsecureAddressError",
    "Network",
    "NetworkStates",
    "NotAllowedError",
    "NotSerialisableError",
    "Process",
    "ProtocolError",
    "RemoteError",
    "RemoteMachine",
    "Server",
    "ServerStates",
    "UnknownMachineError",
    "connect",
    "serve",
]
