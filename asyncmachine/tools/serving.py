"""``am serve`` and ``am host``: offer machines to other processes until they are told to end."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from asyncmachine.tools.command import Command, CommandError
from asyncmachine.tools.credentials import add_secret, secret, server_tls
from asyncmachine.tools.signals import Signals

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Literal

    from asyncmachine import Machine

__all__ = ["HOST", "SERVE"]

_SERVE_DETAILS: Final = """\
Serves machines at an address, for 'am connect' and for asyncmachine.net.connect, until
Ctrl-C (exit code 130) or SIGTERM (exit code 0). The machines are disposed at the end.

What MODULE:NAME names is a machine, a schema to build one from, or a function that returns
one. The id of a machine that is built here is NAME.

ADDRESS is unix:PATH, for processes of the same user on this host, or tcp://HOST:PORT, where
port 0 picks a free one. Off this host it needs a secret or a certificate.

examples:
  am serve app:mach unix:/run/user/1000/app.sock
  am serve --allow Paused,Stopping app:mach app:other tcp://127.0.0.1:7000
  am serve --secret-file app.secret --cert app.pem --read-only app:mach tcp://0.0.0.0:7000
"""
_HOST_DETAILS: Final = """\
A process of its own for machines that functions build: like 'am serve', but clients may run
importable functions here (remote.eval), and nothing is kept from them.

examples:
  am host app:make_worker unix:/run/user/1000/worker.sock
  am host --secret-file app.secret app:make_worker app:make_monitor tcp://127.0.0.1:7000
"""


def _add_serve_arguments(parser: ArgumentParser) -> None:
    _add_common(parser, "a machine, a schema, or a function that returns a machine")
    may = parser.add_mutually_exclusive_group()
    may.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="STATE",
        help="a state that clients may call, or several with commas between; may be given "
        "again (all states if not given)",
    )
    may.add_argument("--read-only", action="store_true", help="clients may read, nothing else")
    parser.add_argument(
        "--allow-eval", action="store_true", help="clients may run importable functions here"
    )


def _add_host_arguments(parser: ArgumentParser) -> None:
    _add_common(parser, "a function that returns a machine")
    parser.set_defaults(allow=[], read_only=False, allow_eval=True)


def _add_common(parser: ArgumentParser, what: str) -> None:
    parser.add_argument("targets", nargs="+", metavar="MODULE:NAME", help=what)
    parser.add_argument("address", metavar="ADDRESS", help="unix:PATH or tcp://HOST:PORT")
    add_secret(parser)
    parser.add_argument("--cert", metavar="FILE", help="encrypt with this certificate (PEM)")
    parser.add_argument("--key", metavar="FILE", help="its key, if it is in another file")


def _run(arguments: Namespace) -> int:
    from asyncmachine.errors import MachineError
    from asyncmachine.net import serve
    from asyncmachine.tools.targets import find_machine

    tls = server_tls(arguments.cert, arguments.key)
    known = secret(arguments.secret_file)
    with ExitStack() as stack:
        machines = []
        for target in arguments.targets:
            machines.append(find_machine(target))
            stack.callback(machines[-1].dispose)
        signals = stack.enter_context(Signals())
        try:
            server = serve(
                machines,
                arguments.address,
                secret=known,
                tls=tls,
                allow=_allowed(arguments),
                allow_eval=arguments.allow_eval,
            )
        except (MachineError, ValueError, OSError) as error:
            raise CommandError(str(error)) from error
        with server:
            print(f"serving {_ids(machines)} at {server.address}", flush=True)
            ended_by = signals.wait()
            signals.give_back()
    return 0 if ended_by == signal.SIGTERM else 128 + ended_by


def _allowed(arguments: Namespace) -> Literal["read"] | set[str] | None:
    if arguments.read_only:
        return "read"
    names = {name.strip() for each in arguments.allow for name in each.split(",")} - {""}
    return names or None


def _ids(machines: list[Machine]) -> str:
    return ", ".join(machine.id for machine in machines)


SERVE: Final = Command(
    name="serve",
    summary="serve machines to other processes",
    details=_SERVE_DETAILS,
    add_arguments=_add_serve_arguments,
    run=_run,
)
HOST: Final = Command(
    name="host",
    summary="build machines in a process of their own, and serve them",
    details=_HOST_DETAILS,
    add_arguments=_add_host_arguments,
    run=_run,
)
