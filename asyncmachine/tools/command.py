"""What a subcommand of ``am`` is, and how it tells the user of a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

__all__ = ["Command", "CommandError"]


class Command(NamedTuple):
    """One subcommand of ``am``.

    It is listed in ``COMMANDS`` of cli.py, so its module is imported at every start of
    ``am``: what is slow to import, or belongs to an extra, is imported in `run`.

    Attributes:
        name: the word that the user types.
        summary: one line for ``am --help``.
        details: what ``am NAME --help`` teaches, examples included; printed as it is.
        add_arguments: adds the command's own arguments to its parser.
        run: does it, and returns the exit code; a user's mistake is a `CommandError`.

    """

    name: str
    summary: str
    details: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


class CommandError(Exception):
    """The user asked for something that can not be; the message says what, and what can."""
