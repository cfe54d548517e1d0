"""The command ``am``: picks a subcommand, and turns a user's mistake into one clear line.

To add a subcommand, write a module with a `Command` and list it in ``COMMANDS``.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Final

from asyncmachine.errors import hint
from asyncmachine.tools.command import Command, CommandError
from asyncmachine.tools.connecting import CONNECT
from asyncmachine.tools.dashboards import GRAFANA
from asyncmachine.tools.inspection import INSPECT
from asyncmachine.tools.recording import RECORD
from asyncmachine.tools.serving import HOST, SERVE
from asyncmachine.tools.simulating import SIM

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

COMMANDS: Final[tuple[Command, ...]] = (INSPECT, SERVE, CONNECT, HOST, GRAFANA, RECORD, SIM)

_DESCRIPTION: Final = """\
Tools for asyncmachine, relational state machines for plain threaded Python.
'am COMMAND --help' says what a command does, with examples.
"""
_USAGE_ERROR: Final = 2  # as argparse has it
_INTERRUPTED: Final = 130  # as a shell says it of Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``am`` with some arguments, those of the process by default.

    Returns:
        The exit code: 0, what the command says, 2 after a mistake of the user, or 130
        after Ctrl-C.

    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not given:
        parser.print_help()
        return 0
    try:
        if given[0] == "--version":
            print(_version())
            return 0
        _check_command(given[0])
        parsed = parser.parse_args(given)
        command: Command = parsed.command
        return command.run(parsed)
    except CommandError as error:
        print(f"am: error: {error}", file=sys.stderr)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED


def _check_command(word: str) -> None:
    """Refuse an unknown command with the nearest known one, which argparse does not name."""
    names = [command.name for command in COMMANDS]
    if not word.startswith("-") and word not in names:
        near = hint(word, names) or f"; there is {', '.join(names)}"
        raise CommandError(f"there is no command {word!r}{near}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="am", description=_DESCRIPTION, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="store_true", help="say which version this is")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.details,
            formatter_class=RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
        sub.set_defaults(command=command)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow, and rarely asked for

    try:
        return f"asyncmachine {version('asyncmachine')}"
    except PackageNotFoundError:
        raise CommandError("asyncmachine is not installed, so its version is unknown") from None


if __name__ == "__main__":
    sys.exit(main())
