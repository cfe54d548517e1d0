"""Ready-made schemas, to be inherited: `Basic`, `Connected`, `Pool`, `Disposed`.

Example:
    >>> from asyncmachine import Basic, Connected, Machine
    >>> class Server(Basic, Connected):
    ...     Ready = Basic.Ready.extend(require="Connected")
    >>> server = Machine(Server)
    >>> server.add("Start"), server.add("Ready").why
    (Result.EXECUTED, 'Ready requires Connected, which is inactive')

"""

from __future__ import annotations

from typing import Final

from asyncmachine.schema import State, States, group

__all__ = ["Basic", "Connected", "Disposed", "Pool"]


class Basic(States):
    """What most programs have: a start, readiness, errors, and signs of life."""

    Exception = State(multi=True)
    ErrNetwork = State(multi=True, require="Exception")
    ErrHandlerTimeout = State(multi=True, require="Exception")
    Start = State()
    Ready = State(require="Start")
    Healthcheck = State(multi=True)
    Heartbeat = State()


_CONNECTION: Final = group("Connecting", "Connected", "Disconnecting", "Disconnected")


class Connected(States):
    """One connection: exactly one of four states, once it has started."""

    Start = State()
    ErrConnecting = State(require="Exception")
    Connecting = State(require="Start", remove=_CONNECTION)
    Connected = State(require="Start", remove=_CONNECTION)
    Disconnecting = State(remove=_CONNECTION)
    Disconnected = State(auto=True, remove=_CONNECTION)


class Pool(States):
    """A pool of connections: connected with the first, fully with the last."""

    Start = State()
    ErrConnecting = State(require="Exception")
    Connecting = State(require="Start", remove="Disconnecting")
    Connected = State(require="Start", remove="Disconnected")
    ConnectedFully = State(require="Connected", remove="Disconnected")
    Disconnecting = State(remove=("ConnectedFully", "Connected", "Connecting"))
    Disconnected = State(remove=("Connecting", "ConnectedFully", "Disconnecting"))


_DISPOSAL: Final = group("RegisterDisposal", "Disposing", "Disposed")


class Disposed(States):
    """An orderly end: who has to clean up registers, then is told, then it is over."""

    Start = State()
    RegisterDisposal = State(multi=True)
    Disposing = State(remove=_DISPOSAL)
    Disposed = State(remove=(*_DISPOSAL, "Start"))
