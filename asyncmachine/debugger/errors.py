"""What can go wrong with feeds and dump files."""

from __future__ import annotations

from asyncmachine.errors import MachineError

__all__ = ["DumpError", "FeedError"]


class FeedError(MachineError):
    """A sender does not speak as agreed."""


class DumpError(MachineError):
    """A file is no dump, or one of a later version."""
