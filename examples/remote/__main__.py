"""Run the daemon, or drive it, from the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from asyncmachine.errors import MachineError
from asyncmachine.net import connect
from examples.remote import client, daemon
from examples.remote.home import Home


def main(argv: Sequence[str] | None = None) -> int:
    """Exit with 0, 1 after a refusal or failure, 2 if nobody is there, 130 after Ctrl-C."""
    args = make_parser().parse_args(argv)
    home = Home(args.home.absolute())
    address = args.address or home.address
    try:
        if args.command == "daemon":
            return daemon.run(home, address)
        return drive(args, address, home.secret())
    except KeyboardInterrupt:
        return 130
    except FileNotFoundError:
        print(f"no daemon was ever started in {home.directory}", file=sys.stderr)
        return 2
    except (MachineError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def drive(args: argparse.Namespace, address: str, secret: str) -> int:
    """Connect, and do one thing."""
    with connect(address, secret=secret, reconnect=False) as remote:
        if args.command == "add":
            return client.add(remote, args.urls, wait=args.wait)
        doings = {
            "status": client.status,
            "follow": client.follow,
            "stop": client.stop,
        }
        return doings[args.command](remote)


def make_parser() -> argparse.ArgumentParser:
    """What the command line takes, and the help that teaches it."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.remote",
        description="A daemon that downloads files, and a command line that drives it: two"
        " processes that share one state machine.",
        epilog="Start 'daemon' in one terminal and 'follow' in another, then 'add' some"
        " addresses in a third. They meet in a directory that only you can read.",
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        / "asyncmachine-example",
        metavar="DIR",
        help="for secret, socket and files (default: %(default)s)",
    )
    parser.add_argument(
        "--address",
        help="where the daemon listens: unix:PATH, or tcp://HOST:PORT for other hosts, to which"
        " the secret has to be copied (default: a socket in DIR)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("daemon", help="run the daemon, until 'stop' or Ctrl-C")
    add = commands.add_parser("add", help="have addresses downloaded")
    add.add_argument("urls", nargs="+", metavar="URL", help="http or https")
    add.add_argument("--wait", action="store_true", help="wait until they have come, or failed")
    commands.add_parser("status", help="say how much was done, and what it does now")
    commands.add_parser("follow", help="print what happens, until the daemon ends")
    commands.add_parser("stop", help="end the daemon")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
