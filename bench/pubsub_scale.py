"""``python -m bench pubsub --scale``: how far the case study goes, and what it keeps to.

Each run is the simulator itself, as ``am sim`` runs it: gossip, signed messages, all that
is sent verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from filecmp import cmp
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.commands import Report
from bench.measure import Ruler
from bench.report import Table
from bench.rounds import Progress, Run
from examples.pubsub.run import run
from examples.pubsub.settings import Settings

if TYPE_CHECKING:
    from examples.pubsub.outcome import Outcome, Sample

__all__ = ["Reach", "scale"]

# A second has so many heartbeats; what is late counts as missed.
_DEADLINE_S: Final = 5.0
_KILL_DEADLINE_S: Final = 10.0
_PACED_S: Final = 600.0
_TIMES_FASTER: Final = 60
_KILLED_HOSTS: Final = 200


@dataclass(frozen=True, slots=True)
class Reach:
    """What to run.

    Attributes:
        hosts: how many hosts, each with each number of processes.
        processes: how many processes.
        seconds: how long each run lasts.

    """

    hosts: Sequence[int] = (30, 100, 200, 500, 1000)
    processes: Sequence[int] = (1, 2, 4)
    seconds: float = 30.0


class _Scaled(NamedTuple):
    """What one run came to."""

    hosts: int
    processes: int
    joined: float
    transitions: float
    delivered: int
    missed: int
    p50: float
    p99: float
    memory: int
    grown: int


def scale(reach: Reach, ruler: Ruler, progress: Progress) -> Report:
    """Run gossip on so many hosts over so many processes, then the paced and the killed run."""
    report = Report("pubsub at scale", Run((), 1, interrupted=False))
    rows: list[_Scaled] = []
    ruler.read()
    for hosts, processes in product(reach.hosts, reach.processes):
        progress.say(f"{hosts} hosts on {processes} processes for {reach.seconds:.0f} s")
        rows.append(_scaled(hosts, processes, reach.seconds))
    progress.say("ten minutes of virtual time, twice")
    paced = _paced()
    progress.say(f"{_KILLED_HOSTS} hosts, of which a third are killed")
    killed = _killed()
    ruler.read()
    progress.clear()
    report.tables += [_scale_table(rows, reach.seconds), paced, killed]
    report.data = {"case": "scale", "rows": [row._asdict() for row in rows]}
    report.draw = lambda path: _plot(path, rows)
    return report


def _scaled(hosts: int, processes: int, seconds: float) -> _Scaled:
    outcome = run(
        Settings(
            peers=hosts,
            topics=1,
            processes=processes,
            duration=seconds,
            deadline=_DEADLINE_S,
            steady=True,
        )
    )
    samples = outcome.samples
    half = [each for each in samples if each.time >= seconds / 2]
    first, last = half[0], half[-1]
    latencies = sorted(outcome.latencies) or [float("nan")]
    return _Scaled(
        hosts,
        processes,
        next((each.time for each in samples if each.subscriptions == hosts), float("nan")),
        (last.transitions - first.transitions) / max(last.time - first.time, 1e-9),
        len(outcome.latencies),
        _missed(outcome),
        median(latencies),
        latencies[int(0.99 * (len(latencies) - 1))],
        last.memory,
        last.memory - first.memory,
    )


def _missed(outcome: Outcome) -> int:
    return sum(len(each.missed) for each in outcome.verdicts)


def _scale_table(rows: list[_Scaled], seconds: float) -> Table:
    return Table(
        title="gossip: hosts in one topic, over processes",
        headings=(
            *("hosts", "processes", "all joined, s", "transitions/s", "delivered", "missed"),
            *("p50, ms", "p99, ms", "memory, MB", "kB a host", "grown, MB"),
        ),
        rows=tuple(
            (
                f"{row.hosts:,}",
                str(row.processes),
                f"{row.joined:.1f}",
                f"{row.transitions:,.0f}",
                f"{row.delivered:,}",
                f"{row.missed:,}",
                f"{row.p50 * 1e3:.1f}",
                f"{row.p99 * 1e3:.1f}",
                f"{row.memory / 1e6:.0f}",
                f"{row.memory / row.hosts / 1e3:.0f}",
                f"{row.grown / 1e6:+.1f}",
            )
            for row in rows
        ),
        notes=(
            (
                f"Each run lasts {seconds:.0f} s of the wall; the heartbeat is 1 s. Missed: not "
                f"there within {_DEADLINE_S:.0f} heartbeats; the limit is 0."
            ),
            (
                "Rates and growth are those of the second half. Memory is that of all processes, "
                "the simulator's among them."
            ),
        ),
    )


def _paced() -> Table:
    """Run ten virtual minutes twice with one seed, and compare all transitions."""
    with TemporaryDirectory(prefix="bench-") as folder:
        logs = [Path(folder) / name for name in ("first", "second")]
        outcomes = [
            run(Settings(duration=_PACED_S, speed=0.0, deadline=_DEADLINE_S, log=str(log)))
            for log in logs
        ]
        same = cmp(logs[0], logs[1], shallow=False)
    without = run(Settings(duration=_PACED_S, speed=0.0, deadline=_DEADLINE_S))
    faster = _PACED_S / without.wall_seconds
    last: Sample = without.samples[-1]
    missed = _missed(without) + sum(map(_missed, outcomes))
    return Table(
        title="30 peers, ten minutes of virtual time",
        headings=("what", "came out", "must reach", ""),
        rows=(
            ("transitions", f"{last.transitions:,}", "", ""),
            ("messages", f"{len(without.verdicts):,}", "", ""),
            ("deliveries", f"{len(without.latencies):,}", "", ""),
            ("missed", f"{missed:,}", "0", _judged(missed == 0)),
            (
                "faster than the wall",
                f"× {faster:.0f}",
                f"× {_TIMES_FASTER}",
                _judged(faster >= _TIMES_FASTER),
            ),
            ("same seed, same transitions", "yes" if same else "no", "yes", _judged(same)),
        ),
        notes=("All machines are metered; on one thread, and so on one core.",),
    )


def _killed() -> Table:
    """Kill one of three processes amid a run."""
    outcome = run(
        Settings(
            peers=_KILLED_HOSTS,
            topics=1,
            processes=3,
            duration=45.0,
            kill_process=15.0,
            deadline=_KILL_DEADLINE_S,
            steady=True,
        )
    )
    when = outcome.deaths[0][0] if outcome.deaths else float("nan")
    after = [each for each in outcome.verdicts if each.sent >= when]
    missed = _missed(outcome)
    return Table(
        title=f"{_KILLED_HOSTS} hosts on three processes, one of which is killed",
        headings=("what", "came out", "must reach", ""),
        rows=(
            ("killed at, s", f"{when:.1f}", "", ""),
            ("living peers at the end", f"{outcome.samples[-1].peers:,}", "", ""),
            ("messages after that", f"{len(after):,}", "", ""),
            ("deliveries after that", f"{sum(each.received for each in after):,}", "", ""),
            (
                f"missed within {_KILL_DEADLINE_S:.0f} heartbeats",
                f"{missed:,}",
                "0",
                _judged(missed == 0 and bool(outcome.deaths)),
            ),
            (
                "slowest delivery after that, s",
                f"{max((each.slowest for each in after), default=0.0):.2f}",
                "",
                "",
            ),
        ),
    )


def _judged(reached: bool) -> str:
    return "ok" if reached else "OVER"


def _plot(path: Path, rows: list[_Scaled]) -> None:
    from matplotlib import pyplot as plt

    figure, (rates, latencies, memory) = plt.subplots(
        1, 3, figsize=(11, 3.6), layout="constrained", dpi=120
    )
    for processes in sorted({row.processes for row in rows}):
        some = [row for row in rows if row.processes == processes]
        hosts = [row.hosts for row in some]
        label = f"{processes} process{'es' if processes > 1 else ''}"
        rates.plot(hosts, [row.transitions for row in some], "o-", label=label)
        latencies.plot(hosts, [row.p99 * 1e3 for row in some], "o-", label=label)
        memory.plot(hosts, [row.memory / row.hosts / 1e3 for row in some], "o-", label=label)
    for axes, name in (
        (rates, "transitions a second"),
        (latencies, "99 of 100 delivered after, ms"),
        (memory, "memory a host, kB"),
    ):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("hosts")
        axes.set_title(name, fontsize=10)
        axes.grid(visible=True, alpha=0.3)
    rates.legend(frameon=False)
    figure.savefig(path)
    plt.close(figure)
