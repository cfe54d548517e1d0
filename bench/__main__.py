"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import commands, pubsub
from bench.contest_report import plot_contests
from bench.measure import BenchError, Ruler
from bench.plot import plot, require_matplotlib
from bench.report import Setting, as_markdown, as_text, write_json
from bench.rounds import Effort, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cases import Named
    from bench.commands import Report

__all__ = ["main"]

_ABOUT: Final = """\
Measure asyncmachine. Every time is given in nanoseconds and in empty Python function calls
(E), which are measured right before and after it in the same run. E hardly depends on the
machine, so figures of different days and places can be compared. A table says ok or OVER
beside what the project has set itself; the exit code is 0 either way.
"""
_EXAMPLES: Final = """\
examples:
  python -m bench core                     one machine: all cases, in half a minute
  python -m bench core --quick             the same in seconds, less exact
  python -m bench core --list              the names of the cases
  python -m bench core --only 'toggle*'    some of them, while working on the hot path
  python -m bench core --json core.json    everything measured, round by round
  python -m bench core --soak 10000000     and ten million mutations: does memory grow?
  python -m bench core --markdown          as it stands in docs/performance.md
  python -m bench peers                    the same toggle in other libraries from PyPI
  python -m bench peers --plot peers.png   and a picture of it
  python -m bench net                      machines in other processes, in a minute or two
  python -m bench net --only 'call*'       a round trip beside that of a bare socket or pipe
  python -m bench observers                traces, metrics, the feed, history
  python -m bench pubsub                   the case study, beside plain threads and queues

Close what else keeps the machine busy. Ctrl-C ends a run early and prints what there is.
"""
_INTERRUPTED: Final = 130
_FULL, _QUICK = Effort(), Effort(rounds=3, parts=5)
_NET_FULL, _NET_QUICK = Effort(parts=1, part_ms=50), Effort(rounds=2, parts=1, part_ms=5)
_NET_ABOUT: Final = """\
Measure machines that live in other processes. Each case is held against the raw carrier (a
bare unix socket, a bare pipe) or another library that does the same beside it, in turns and
in the same run; "by that" is the median of the rounds' ratios. A table says ok or OVER beside what
the project has set itself; the exit code is 0 either way. A library that is not installed
costs only its own row. Every process that is started ends with the run, after Ctrl-C, too.
"""
_OBSERVERS_FULL, _OBSERVERS_QUICK = (
    Effort(rounds=15, parts=1, part_ms=20),
    Effort(rounds=3, parts=1, part_ms=5),
)
_OBSERVERS_ABOUT: Final = """\
Measure machines that are watched: by a Prometheus collector, the feed, OpenTelemetry, a
history. Each is held against a bare machine that does the same beside it, in turns and in
the same run, and what it costs beyond that is given in empty function calls. A table says
ok or OVER beside what the project has set itself; the exit code is 0 either way. Every
process that is started ends with the run, after Ctrl-C, too.
"""
_OBSERVERS_EXAMPLES: Final = """\
examples:
  python -m bench observers                all cases, in two minutes
  python -m bench observers --quick        the same in one, less exact
  python -m bench observers --list         the names of the cases
  python -m bench observers --only 'feed*' one of them, while working on it
  python -m bench observers --json o.json  everything measured, round by round
  python -m bench observers --markdown     as it stands in docs/performance.md
"""
_NET_EXAMPLES: Final = """\
examples:
  python -m bench net                      all cases, in a minute or two
  python -m bench net --quick              the same in half a minute, less exact
  python -m bench net --list               the names of the cases
  python -m bench net --only 'call*'       round trips, beside those of a bare socket or pipe
  python -m bench net --only grpc          beside gRPC (--only dask: beside a Dask actor)
  python -m bench net --json net.json      everything measured, round by round
  python -m bench net --markdown           as it stands in docs/performance.md
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 if all was measured, 1 if a case failed, 2 for wrong usage, 130 after Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(words)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        if options.list:
            return _list(options)
        if options.plot is not None:
            require_matplotlib()
        ruler = Ruler(net=options.net)
        report = (
            _run_pubsub(options, ruler) if options.command == "pubsub" else _measure(options, ruler)
        )
        return _tell(options, report, ruler, shlex.join(["python", "-m", "bench", *words]))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: stopped before there was anything to print", file=sys.stderr)
        return _INTERRUPTED


def _list(options: argparse.Namespace) -> int:
    cases: Sequence[Named]
    if options.command == "pubsub":
        for key, title in pubsub.CASES.items():
            print(f"{key}  {title}")
        return 0
    if options.command == "net":
        cases = commands.net_contests()
    elif options.command == "observers":
        cases = commands.observer_contests()
    else:
        cases = commands.core_cases() if options.command == "core" else commands.peer_cases()
    width = max(len(case.key) for case in cases)
    for case in cases:
        print(f"{case.key:<{width}}  {case.title}")
    return 0


def _measure(options: argparse.Namespace, ruler: Ruler) -> Report:
    usual = options.efforts[options.quick]
    effort = Effort(
        rounds=usual.rounds if options.rounds is None else options.rounds,
        parts=usual.parts,
        part_ms=usual.part_ms if options.part is None else options.part,
    )
    progress = Progress(quiet=options.quiet)
    if options.command == "core":
        return commands.core(options.only, options.soak, ruler, effort, progress)
    if options.command == "peers":
        return commands.peers(options.only, ruler, effort, progress)
    if options.command == "observers":
        return commands.observers(options.only, ruler, effort, progress)
    return commands.net(options.only, ruler, effort, progress)


def _run_pubsub(options: argparse.Namespace, ruler: Ruler) -> Report:
    if options.scale:
        from bench.pubsub_scale import Reach, scale

        usual_reach = Reach((30, 200), (1, 2), 12.0) if options.quick else Reach()
        reach = Reach(
            options.hosts or usual_reach.hosts,
            options.processes or usual_reach.processes,
            options.seconds or usual_reach.seconds,
        )
        return scale(reach, ruler, Progress(quiet=options.quiet))
    usual = pubsub.QUICK if options.quick else pubsub.FULL
    extent = pubsub.Extent(
        hosts=options.hosts or usual.hosts,
        messages=options.messages or usual.messages,
        runs=options.runs or usual.runs,
    )
    return pubsub.pubsub(extent, ruler, Progress(quiet=options.quiet))


def _tell(options: argparse.Namespace, report: Report, ruler: Ruler, command: str) -> int:
    setting = Setting.of(command, report.run, ruler)
    print((as_markdown if options.markdown else as_text)(report.tables, setting))
    for fault in report.faults:
        print(f"bench: {fault}", file=sys.stderr)
    _write(options, report, setting)
    if report.run.interrupted:
        return _INTERRUPTED
    return 1 if report.failed else 0


def _write(options: argparse.Namespace, report: Report, setting: Setting) -> None:
    if options.json is not None:
        write_json(options.json, setting, **report.data)
    if options.plot is not None and report.draw is not None:
        report.draw(options.plot)
    elif options.plot is not None and report.contests:
        plot_contests(options.plot, report.title, report.contests)
    elif options.plot is not None:
        plot(options.plot, report.title, report.run.outcomes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", title="what to measure", metavar="COMMAND")
    core = subparsers.add_parser("core", help="one machine: time, memory, and what must not grow")
    peers = subparsers.add_parser("peers", help="one toggle, in this and in other libraries")
    core.add_argument(
        "--soak",
        type=_count,
        default=100_000,
        metavar="N",
        help="make so many mutations in the end and watch memory (default: %(default)s; 0: none)",
    )
    net = subparsers.add_parser(
        "net",
        help="machines in other processes, beside raw sockets and other libraries",
        description=_NET_ABOUT,
        epilog=_NET_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    observers = subparsers.add_parser(
        "observers",
        help="machines that are watched, beside bare ones",
        description=_OBSERVERS_ABOUT,
        epilog=_OBSERVERS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common(observers, _OBSERVERS_FULL, _OBSERVERS_QUICK)
    observers.set_defaults(net=False)
    for subparser in (core, peers):
        _add_common(subparser, _FULL, _QUICK)
        subparser.add_argument(
            "--net",
            action="store_true",
            help="take the cost of the loop off what is timed; "
            "E gets smaller by it, and ratios larger",
        )
    _add_common(net, _NET_FULL, _NET_QUICK)
    net.set_defaults(net=False)
    _add_pubsub(
        subparsers.add_parser(
            "pubsub",
            help="the case study, beside the same hosts made of plain threads and queues",
            description=pubsub.ABOUT,
            epilog=pubsub.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    return parser


def _add_pubsub(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(net=False)
    full, quick = pubsub.FULL, pubsub.QUICK
    add = parser.add_argument
    for option, least, usual in (("--hosts", 2, full.hosts), ("--messages", 1, full.messages)):
        add(
            option,
            type=pubsub.numbers(least),
            metavar="N,N",
            help=f"how many, each with each of the others (default: {','.join(map(str, usual))})",
        )
    add(
        "--runs",
        type=_positive,
        metavar="N",
        help=f"runs of each side and point (default: {full.runs})",
    )
    add("--quick", action="store_true", help=f"the corners only, with {quick.runs} runs")
    add(
        "--scale",
        action="store_true",
        help="instead: gossip on many hosts over processes, ten virtual minutes, a process killed",
    )
    add(
        "--processes",
        type=pubsub.numbers(1),
        metavar="N,N",
        help="with --scale: how many processes (default: 1,2,4)",
    )
    add(
        "--seconds",
        type=_positive,
        metavar="N",
        help="with --scale: how long each run lasts (default: 30)",
    )
    _add_output(parser)


def _add_common(parser: argparse.ArgumentParser, full: Effort, quick: Effort) -> None:
    parser.set_defaults(efforts=(full, quick))
    add = parser.add_argument
    add("--only", metavar="PATTERN", help="cases with such a name (* and ? allowed) or title")
    add("--quick", action="store_true", help="few short rounds")
    add("--rounds", type=_positive, metavar="N", help=f"rounds (default: {full.rounds})")
    add(
        "--part",
        type=float,
        metavar="MS",
        help=f"least length of what is timed at once (default: {full.part_ms:g})",
    )
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--list", action="store_true", help="name the cases and measure nothing")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--markdown", action="store_true", help="print Markdown")
    add("--plot", type=Path, metavar="FILE.png", help="draw it (needs matplotlib)")
    add("--quiet", action="store_true", help="no progress on stderr")


def _count(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 0:
        msg = "less than nothing"
        raise argparse.ArgumentTypeError(msg)
    return number


def _positive(text: str) -> int:
    number = _count(text)
    if not number:
        msg = "at least 1"
        raise argparse.ArgumentTypeError(msg)
    return number


if __name__ == "__main__":
    sys.exit(main())
