"""What can go wrong between machines of several processes; each names the culprit.

```
MachineError
├── ConnectError           nobody serves there, or it does not answer in time
├── ConnectionLostError    the process or the connection that a call depended on is gone
├── AuthenticationError    one side does not know the secret of the other
├── ProtocolError          the other side does not speak as agreed
├── UnknownMachineError    no machine of that id is served there
├── DuplicateMachineError  there is a machine of that id already
├── NotAllowedError        the server does not let its clients do that
├── InsecureAddressError   an address that others can reach, without secret or TLS
├── NotSerialisableError   a value that can not travel
└── RemoteError            an error that was raised in another process
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncmachine.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AuthenticationError",
    "ConnectError",
    "ConnectionLostError",
    "DuplicateMachineError",
    "InsecureAddressError",
    "NotAllowedError",
    "NotSerialisableError",
    "ProtocolError",
    "RemoteError",
    "UnknownMachineError",
]


class ConnectError(MachineError, ConnectionError):
    """Nobody serves at an address, or it did not answer in time."""


class ConnectionLostError(MachineError, ConnectionError):
    """The process or connection that a call depended on has gone."""


class AuthenticationError(MachineError):
    """One side could not prove that it knows the secret of the other."""


class ProtocolError(MachineError):
    """The other side sent something that does not belong to the protocol, or is too large."""


class UnknownMachineError(MachineError):
    """A server has no machine of the id that was asked for."""


class DuplicateMachineError(MachineError):
    """A second machine was given an id that is taken."""


class NotAllowedError(MachineError):
    """A server does not allow its clients what this one asked for."""


class InsecureAddressError(MachineError):
    """An address that other hosts can reach needs a secret or TLS."""


class NotSerialisableError(MachineError):
    """A value can not travel to another process; the message names it and the way out."""


class RemoteError(MachineError):
    """An error that was raised in another process, as far as it can be described.

    Attributes:
        type_name: name of its type there.
        message: its text.
        notes: the notes that were added to it.

    Its ``__traceback__`` is that of the other process.
    """

    def __init__(self, type_name: str, message: str, notes: Sequence[str] = ()) -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.notes = tuple(notes)
        for note in self.notes:
            self.add_note(note)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.type_name, self.message, self.notes)
