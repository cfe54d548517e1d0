"""``am connect``: show a machine of another process, follow it, or change it."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Final

from asyncmachine.tools.command import Command, CommandError
from asyncmachine.tools.credentials import add_secret, client_tls, secret
from asyncmachine.tools.signals import Signals

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from asyncmachine import Machine, Waiter
    from asyncmachine.net import RemoteMachine

__all__ = ["CONNECT"]

_DETAILS: Final = """\
Prints the states of a machine that another process serves, then a line for each change:

  12:00:00.000  (Ready:1)[Working:0 Done:0 Exception:0]
  12:00:01.250  +Working  (Ready:1 Working:1)
  12:00:03.500  -Working +Done  (Ready:1 Done:1)

It ends with Ctrl-C (exit code 130), or when the machine or the connection is gone (1).
Changes that come faster than they can be printed share a line; one that is named twice,
as in +Tick -Tick, has come and gone.

With --add, --remove or --set it asks for a change instead, prints what became of it, and
ends: exit code 0 if it was executed, 1 if it was refused.

examples:
  am connect unix:/run/user/1000/app.sock
  am connect tcp://127.0.0.1:7000 other --once
  am connect --secret-file app.secret --ca app.pem tcp://app.example:7000
  am connect unix:/run/user/1000/app.sock --add Downloading --arg url=https://example.org
"""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="unix:PATH or tcp://HOST:PORT")
    parser.add_argument(
        "machine", nargs="?", metavar="MACHINE-ID", help="which machine, if there are several"
    )
    parser.add_argument("--once", action="store_true", help="print the states, and end")
    parser.add_argument(
        "--reconnect", action="store_true", help="connect again when the connection is lost"
    )
    change = parser.add_mutually_exclusive_group()
    for kind, what in (
        ("add", "activate states"),
        ("remove", "deactivate states"),
        ("set", "activate states and deactivate all others"),
    ):
        change.add_argument(
            f"--{kind}", metavar="STATE", help=f"{what}: one, or several with commas between"
        )
    parser.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an arg of the change: a number, true, null or other JSON, else a text; may be "
        "given again",
    )
    add_secret(parser)
    parser.add_argument("--ca", metavar="FILE", help="encrypt, and trust these authorities (PEM)")
    parser.add_argument(
        "--tls", action="store_true", help="encrypt, and trust the authorities of this system"
    )


def _run(arguments: Namespace) -> int:
    from asyncmachine.errors import MachineError
    from asyncmachine.net import connect

    args = _args(arguments.arg)
    kind = next((each for each in ("add", "remove", "set") if getattr(arguments, each)), "")
    if args and not kind:
        raise CommandError("--arg needs --add, --remove or --set")
    tls = client_tls(arguments.ca, system=arguments.tls)
    known = secret(arguments.secret_file)
    try:
        remote = connect(
            arguments.address,
            arguments.machine,
            secret=known,
            tls=tls,
            reconnect=arguments.reconnect,
        )
    except (MachineError, ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    with remote:
        try:
            if kind:
                return _change(remote, kind, getattr(arguments, kind), args)
            if arguments.once:
                print(remote.describe())
                return 0
            return _follow(remote)
        except BrokenPipeError:  # who read this has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


def _args(words: Sequence[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise CommandError(f"--arg {word}: it is not of the form KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _change(remote: RemoteMachine, kind: str, states: str, args: dict[str, object]) -> int:
    from asyncmachine.errors import MachineError

    names = [name.strip() for name in states.split(",") if name.strip()]
    request = {"add": remote.add, "remove": remote.remove, "set": remote.set}[kind]
    try:
        result = request(*names, **args)
    except (MachineError, TimeoutError) as error:
        raise CommandError(str(error)) from error
    print(remote.describe() if result else f"refused: {result.why}")
    return 0 if result else 1


def _follow(remote: RemoteMachine) -> int:
    """Print what changes until there is an end to it; give the exit code."""
    with Signals() as signals:
        link = remote.connection
        link.on("Any_state", lambda _: signals.ring())
        remote.on_dispose(lambda _: signals.ring())
        before, linked = remote.clock(), _linked(link)
        _say(remote.describe())
        changed = _when_changed(remote, before, signals)
        while not (number := signals.wait()):
            if changed.is_set():
                after = remote.clock()
                if after != before:
                    _say(f"{_difference(before, after)}  {remote}")
                before = after
            if remote.is_disposed:
                _say(_why_gone(remote))
                return 1
            if linked != (linked := _linked(link)):
                _say(f"{linked.lower()}")
            if changed.is_set():
                changed = _when_changed(remote, before, signals)
    return 128 + number


def _linked(link: Machine) -> str:
    return link.switch("Connected", "Connecting", "Disconnected") or ""


def _when_changed(remote: RemoteMachine, before: dict[str, int], signals: Signals) -> Waiter:
    changed = remote.when_query(lambda clock: dict(clock) != before)
    changed.on_done(lambda _: signals.ring())
    return changed


def _difference(before: dict[str, int], after: dict[str, int]) -> str:
    words = []
    for name, tick in after.items():
        last, first = ("+", "-") if tick & 1 else ("-", "+")
        if tick < before[name]:
            words.append(f"{name} begins again")
        elif tick > before[name] + 1:
            words.append(f"{first}{name} {last}{name}")
        elif tick != before[name]:
            words.append(f"{last}{name}")
    return " ".join(words)


def _why_gone(remote: RemoteMachine) -> str:
    from asyncmachine.net import ConnectionLostError

    try:
        remote.sync()
    except ConnectionLostError as error:
        return str(error)
    return f"{remote.id} is gone"


def _say(text: str) -> None:
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    print(f"{now[11:23]}  {text}", flush=True)


CONNECT: Final = Command(
    name="connect",
    summary="show a machine of another process, and follow or change it",
    details=_DETAILS,
    add_arguments=_add_arguments,
    run=_run,
)
