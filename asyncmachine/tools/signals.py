"""Waiting for a signal, or for something that another thread does.

Guarantees: `Signals.wait` returns at once for a signal that the process gets, on whatever
thread the system delivers it, and for each `Signals.ring`. Nothing polls.
Assumes that signals are waited for on the main thread; ``ring`` may be called from any.
"""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Self, TypeAlias

    _Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None

__all__ = ["Signals"]

_AWAITED: Final = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Takes Ctrl-C and SIGTERM while its ``with`` block lasts, or until `give_back`.

    Example:
        >>> with Signals() as signals:
        ...     signals.ring()
        ...     signals.wait()
        0

    """

    def __init__(self) -> None:
        self._before: dict[int, _Handler] = {}
        self._fd_before = -1

    def __enter__(self) -> Self:
        self._heard, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        # The interpreter writes the number of a signal there, whichever thread it came to.
        self._fd_before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        for number in _AWAITED:
            self._before[number] = signal.signal(number, lambda *_: None)
        return self

    def wait(self) -> int:
        """Block until a signal has come, or somebody has rung.

        Returns:
            The number of the signal; 0 if somebody has rung.

        """
        while (number := self._heard.recv(1)[0]) not in (0, *_AWAITED):
            pass  # a signal that somebody else has asked for
        return number

    def ring(self) -> None:
        """Have ``wait`` return 0."""
        try:
            self._bell.send(b"\0")
        except OSError:
            pass  # it is over, or has been told more often than it has listened

    def give_back(self) -> None:
        """Let signals do what they did before: a second Ctrl-C ends a slow end."""
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.give_back()
        signal.set_wakeup_fd(self._fd_before)
        self._bell.close()
        self._heard.close()
