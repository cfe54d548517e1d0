"""What can go wrong with a history."""

from __future__ import annotations

from asyncmachine.errors import MachineError

__all__ = ["HistoryError"]


class HistoryError(MachineError):
    """A history can not be written, read, or restored from; the message says which and why."""
