"""``am sim``: run the case study, a simulated publish-subscribe network."""

from __future__ import annotations

import math
import os
import socket
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncmachine.tools.command import Command, CommandError
from asyncmachine.tools.signals import Signals

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["SIM"]

_DETAILS: Final = """\
Runs a peer-to-peer publish-subscribe network of simulated peers. Each peer, each host, each
topic and the simulator itself are machines; hosts talk through pipes, in one process or
over several. Peers and topics come and go, messages are sent, and each one is verified: it
has to reach everybody who was in its topic. Watch it live; Ctrl-C ends it with a report of
what there is so far. How it is built: docs/case-study.md.

With --speed other than 1 time is virtual: all runs on one thread, as fast as the speed says
(0: as fast as it goes), and the same seed gives the same run, transition by transition.

examples:
  am sim                                      30 peers in this process, for a minute
  am sim --processes 2 --peers 100            spread over two processes
  am sim --speed 0 --duration 600             ten minutes of virtual time, in seconds
  am sim --processes 3 --kill-process 20      kill a process after 20 s; the rest goes on
  am sim --router flood --report build/sim    with a report: page, plots, tables
  am sim --speed 0 --seed 7 --log a.log       all transitions, to compare two runs
  am sim --metrics 9464 --duration 3600       with metrics for Prometheus on that port
"""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--peers", type=int, default=30, metavar="N", help="peers (30)")
    parser.add_argument("--topics", type=int, default=20, metavar="N", help="topics (20)")
    parser.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="processes for hosts besides this one; 0 has all in this one (0)",
    )
    parser.add_argument(
        "--duration",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long, by the run's clock (60)",
    )
    parser.add_argument("--router", default="gossip", help="gossip or flood (gossip)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all chance (1)")
    parser.add_argument(
        "--speed",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="virtual seconds in a real one, 0 for as many as it takes; 1 is real time (1)",
    )
    parser.add_argument(
        "--fail", type=float, default=0.0, metavar="RATE", help="hosts that crash in a minute (0)"
    )
    parser.add_argument(
        "--kill-process",
        type=float,
        metavar="SECONDS",
        help="kill one of the processes after so long",
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="what has not arrived then is missed (5)",
    )
    parser.add_argument("--steady", action="store_true", help="one topic, and nobody leaves")
    parser.add_argument("--unsigned", action="store_true", help="do not sign messages")
    parser.add_argument("--report", metavar="DIR", help="write a report there")
    parser.add_argument("--log", default="", metavar="FILE", help="write all transitions there")
    parser.add_argument(
        "--metrics",
        type=int,
        default=0,
        metavar="PORT",
        help="serve metrics for Prometheus there, those of the processes on the ports after it",
    )


def _check(arguments: Namespace) -> None:
    least = {"peers": 2, "topics": 1, "processes": 0}
    for name, value in least.items():
        if getattr(arguments, name) < value:
            raise CommandError(f"--{name} has to be {value} or more")
    for name in ("duration", "deadline", "speed", "fail", "kill_process"):
        value = getattr(arguments, name)
        some = name in ("duration", "deadline")  # none of it makes no sense
        if value is None or (math.isfinite(value) and (value > 0 if some else value >= 0)):
            continue
        wanted = "above 0" if some else "of 0 or more"
        raise CommandError(f"--{name.replace('_', '-')} has to be a number {wanted}, not {value:g}")
    if not 0 <= arguments.metrics <= 65535 - arguments.processes:
        raise CommandError(f"--metrics has to be a port, not {arguments.metrics}")
    if arguments.processes and arguments.speed != 1:
        raise CommandError("virtual time runs in one process: leave out --processes or --speed")
    if arguments.kill_process is not None and arguments.processes < 2:
        raise CommandError("--kill-process needs --processes 2 or more: one has to be left")
    if arguments.log and arguments.processes:
        raise CommandError("--log is for runs in one process: leave out --processes")


def _run(arguments: Namespace) -> int:
    _check(arguments)
    try:
        from rich.console import Console

        from examples.pubsub.live import LiveView
        from examples.pubsub.run import run
        from examples.pubsub.settings import Settings
        from examples.pubsub.site import ROUTERS
    except ImportError as error:
        raise CommandError(
            f"the case study is not complete here ({error}); it comes with the source: in a "
            "checkout, pip install -e '.[examples]'"
        ) from error
    if arguments.router not in ROUTERS:
        from asyncmachine.errors import hint

        near = hint(arguments.router, ROUTERS) or f"; there is {', '.join(ROUTERS)}"
        raise CommandError(f"there is no router {arguments.router!r}{near}")
    settings = Settings(
        peers=arguments.peers,
        topics=arguments.topics,
        processes=arguments.processes,
        duration=arguments.duration,
        router=arguments.router,
        seed=arguments.seed,
        speed=arguments.speed,
        fail=arguments.fail,
        kill_process=arguments.kill_process,
        deadline=arguments.deadline,
        signed=not arguments.unsigned,
        steady=arguments.steady,
        log=arguments.log,
        metrics=arguments.metrics,
    )
    if arguments.metrics:
        _check_metrics(arguments.metrics, arguments.processes)
    if arguments.log:
        _check_writable(Path(arguments.log))
    folder = None if arguments.report is None else _folder(arguments.report)
    console = Console()
    shown = settings.as_text()
    with _Interrupts() as stop, LiveView(console, shown) as view:
        outcome = run(settings, view, stop)
    missed = sum(len(each.missed) for each in outcome.verdicts)
    arrived = sum(each.received for each in outcome.verdicts)
    ended = "" if outcome.finished else ", ended early"
    console.print(
        f"{len(outcome.verdicts)} messages, {arrived} deliveries, {missed} missed; "
        f"{outcome.seconds:.0f} s in {outcome.wall_seconds:.1f} s{ended}",
        highlight=False,
    )
    if folder is not None:
        from examples.pubsub.report import write_report

        console.print(f"report: {write_report(outcome, folder)}", highlight=False, soft_wrap=True)
    if not outcome.finished:
        return 130
    return 1 if missed else 0


def _folder(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--report {name} can not be written: {error.strerror}") from error
    return folder


def _check_writable(path: Path) -> None:
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise CommandError(f"--log {path} can not be written: {error.strerror}") from error


def _check_metrics(port: int, processes: int) -> None:
    """Refuse what is missing or taken before anything is started, and say where to look."""
    if find_spec("prometheus_client") is None:
        raise CommandError("--metrics needs pip install 'asyncmachine[prometheus]'")
    for each in range(port, port + processes + 1):
        try:
            with socket.create_server(("127.0.0.1", each)):
                pass
        except OSError as error:
            raise CommandError(f"--metrics: port {each} is taken: {error.strerror}") from error


class _Interrupts:
    """Has the first Ctrl-C or SIGTERM end the run; the second one ends the process.

    A thread listens for them: to set an event takes a lock, which whoever the signal has
    interrupted may hold.
    """

    def __enter__(self) -> threading.Event:
        self._stop = threading.Event()
        self._signals = Signals()
        self._signals.__enter__()
        self._ear = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._ear.start()
        return self._stop

    def _listen(self) -> None:
        while self._signals.wait():
            if self._stop.is_set():
                os._exit(130)
            self._stop.set()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._signals.ring()
        self._ear.join()
        self._signals.__exit__(kind, error, trace)


SIM: Final = Command(
    "sim", "run the case study, a simulated network", _DETAILS, _add_arguments, _run
)
