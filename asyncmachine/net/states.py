"""The states of networks, hosts, servers and connections, which are machines themselves."""

from __future__ import annotations

from asyncmachine.schema import State, States, group

__all__ = ["ConnectionStates", "HostStates", "NetworkStates", "ServerStates"]

_CONNECTION = group("Connecting", "Connected", "Disconnected")
_LIFE = group("Starting", "Ready", "Closing", "Closed")
_SERVER = group("Starting", "Listening", "Closed")


class ConnectionStates(States):
    """The life of a connection, ``remote.connection``.

    ``Refused`` is activated, with arg ``error``, each time the other side refuses
    something that nobody waits for.
    """

    Connecting = State(remove=_CONNECTION)
    Connected = State(remove=_CONNECTION)
    Disconnected = State(remove=_CONNECTION)
    Refused = State(multi=True)


class NetworkStates(States):
    """The life of a network, ``net.machine``.

    ``ProcessDied`` is activated each time a process has died; args ``process`` (its
    index), ``exitcode``, ``machines`` (ids of those that lived there).
    """

    Starting = State(remove=_LIFE)
    Ready = State(remove=_LIFE)
    ProcessDied = State(multi=True)
    Closing = State(remove=_LIFE)
    Closed = State(remove=_LIFE)


class HostStates(States):
    """The life of a process that hosts machines."""

    Starting = State(remove=_LIFE)
    Ready = State(remove=_LIFE)
    Closing = State(remove=_LIFE)
    Closed = State(remove=_LIFE)


class ServerStates(States):
    """The life of a server, ``server.machine``; the multi states count its clients."""

    Starting = State(remove=_SERVER)
    Listening = State(remove=_SERVER)
    Closed = State(remove=_SERVER)
    ClientConnected = State(multi=True)
    ClientGone = State(multi=True)
    ClientRefused = State(multi=True)
