"""A gate that threads wait at: open or shut, again and again.

Guarantees: who waits at a shut gate goes on once it is opened, also if it is shut again
right afterwards. Nothing here blocks but ``wait()``.
"""

from __future__ import annotations

from threading import Lock

from asyncmachine.oneshot import Told

__all__ = ["Gate"]


class Gate:
    """A gate, shut at first.

    Example:
        >>> gate = Gate()
        >>> gate.wait(0), gate.open(), gate.wait(0), gate.shut(), gate.is_open
        (False, None, True, None, False)

    """

    __slots__ = ("_lock", "_opening")

    def __init__(self) -> None:
        self._lock = Lock()  # guards which opening it is
        self._opening = Told()

    @property
    def is_open(self) -> bool:
        """Whether nobody has to wait."""
        return self._opening.happened

    def open(self) -> None:
        """Let everybody go on."""
        with self._lock:
            opening = self._opening
        opening.tell()

    def shut(self) -> None:
        """Have everybody wait who comes from now on."""
        with self._lock:
            if self._opening.happened:
                self._opening = Told()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is open; false if ``timeout`` seconds passed first."""
        opening = self._opening
        return opening.happened or opening.wait(timeout)
