"""The errors of the library: one base, few leaves, each with the way out in its message.

```
MachineError
├── SchemaError            a schema has faults; ``.faults`` lists them all
├── UnknownStateError      a name that the schema lacks (also a KeyError)
├── HandlerError           handlers that fit no state; ``.faults`` lists them all
├── HandlerTimeoutError    a handler overran its time (also a TimeoutError)
├── ContextExpired         the activation that the work belonged to has ended
├── PipeOverflowError      the target of a pipe took no more, the pipe was closed
└── InternalError          a fault of ours; please report it
```

A refused mutation is no error but a `Result` that says who refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ContextExpired",
    "HandlerError",
    "HandlerTimeoutError",
    "InternalError",
    "MachineError",
    "PipeOverflowError",
    "SchemaError",
    "UnknownStateError",
    "described",
    "hint",
]


class MachineError(Exception):
    """Base of every error that this library raises, and what wraps a plain text error."""


class _FaultsError(MachineError):
    """An error that reports several faults at once."""

    def __init__(self, headline: str, faults: Iterable[str]) -> None:
        self.faults: tuple[str, ...] = tuple(faults)
        super().__init__(headline + "".join(f"\n- {fault}" for fault in self.faults))
        self._headline = headline

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._headline, self.faults)


class SchemaError(_FaultsError, ValueError):
    """A schema has faults; ``faults`` names every one of them."""


class HandlerError(_FaultsError, ValueError):
    """Handlers do not fit the machine; ``faults`` names every one of them."""


class UnknownStateError(MachineError, KeyError):
    """A state name that the schema lacks.

    Attributes:
        name: the unknown name.

    """

    def __init__(self, name: object, known: Iterable[str] = (), where: str = "") -> None:
        self.name = name
        self._message = f"unknown state {name!r}{where and ' in ' + where}{hint(name, known)}"
        super().__init__(self._message)

    def __str__(self) -> str:
        return self._message  # a KeyError would show the repr of it

    def __reduce__(self) -> tuple[object, ...]:
        return _unknown_state, (self.name, self._message)


def _unknown_state(name: object, message: str) -> UnknownStateError:
    error = UnknownStateError(name)
    error._message = message
    error.args = (message,)
    return error


class HandlerTimeoutError(MachineError, TimeoutError):
    """A handler took longer than the ``handler_timeout`` of its machine."""


class ContextExpired(MachineError):  # noqa: N818 - reads as what happened, like StopIteration
    """The activation that this work was bound to has ended; raised by ``ctx.check()``."""


class PipeOverflowError(MachineError):
    """The target of a pipe was stuck for so long that its pipe had to be closed."""


class InternalError(MachineError):
    """The library broke a promise of its own. Please report it."""


def described(error: BaseException, where: str = "") -> str:
    """Give an error's type, where it came from and its text, whatever ``str`` of it does.

    Example:
        >>> described(ValueError("too small"), "Handlers.Foo_enter")
        'ValueError in Handlers.Foo_enter: too small'

    """
    try:
        text = str(error)
    except Exception as fault:  # noqa: BLE001 - it is the user's code
        text = f"(its text can not be had: {type(fault).__name__})"
    return f"{type(error).__name__}{where and ' in ' + where}: {text}"


def hint(name: object, known: Iterable[str]) -> str:
    """Give ``"; did you mean 'Foo'?"`` for the nearest known name, or nothing.

    Example:
        >>> hint("Fo", ["Foo", "Bar"])
        "; did you mean 'Foo'?"

    """
    from difflib import get_close_matches  # slow to import, and needed for mistakes only

    names = [str(each) for each in known]
    near = get_close_matches(str(name), names, 1, 0.5)
    if not near:
        lowered = {each.lower(): each for each in names}
        near = [lowered[each] for each in get_close_matches(str(name).lower(), lowered, 1, 0.5)]
    return f"; did you mean {near[0]!r}?" if near else ""
