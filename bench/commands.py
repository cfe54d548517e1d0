"""What each command measures, and what it makes of the results."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from bench.cases import chosen
from bench.contest import hold
from bench.contest_report import contest_table, contested_data
from bench.measure import BenchError
from bench.report import Table, core_table, growth_table, outcome_data, peers_table, soak_table
from bench.rounds import Run, measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.cases import Case, Named
    from bench.contest import Contest, Contested
    from bench.measure import Ruler
    from bench.rounds import Effort, Progress
    from bench.soak import Soak

__all__ = [
    "Report",
    "core",
    "core_cases",
    "net",
    "net_contests",
    "observer_contests",
    "observers",
    "peer_cases",
    "peers",
]


_NamedT = TypeVar("_NamedT", bound="Named")


@dataclass(slots=True)
class Report:
    """All that a command has to say."""

    title: str
    run: Run
    tables: list[Table] = field(default_factory=list)
    data: dict[str, object] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    contests: list[Contested] = field(default_factory=list)
    draw: Callable[[Path], None] | None = None  # if it has a picture of its own

    @property
    def failed(self) -> bool:
        """Whether a case could not be measured; one that is merely slow has not failed."""
        return (
            bool(self.faults)
            or any(outcome.fault for outcome in self.run.outcomes)
            or any(contested.fault for contested in self.contests)
        )


def core_cases() -> list[Case]:
    """Give the cases of ``core``: the table, then what must not grow."""
    import bench.core
    import bench.growth

    return [*bench.core.CASES, *bench.growth.CASES]


def peer_cases() -> list[Case]:
    """Give the cases of ``peers`` that can be measured here."""
    from bench.peers import available

    return [peer.case for peer in available()]


def net_contests() -> list[Contest]:
    """Give the contests of ``net``."""
    try:
        from bench.net import CONTESTS
    except ImportError as error:
        raise BenchError(str(error)) from error
    return [*CONTESTS]


def observer_contests() -> list[Contest]:
    """Give the contests of ``observers``."""
    try:
        from bench.observers import CONTESTS
    except ImportError as error:
        raise BenchError(str(error)) from error
    return [*CONTESTS]


def core(
    pattern: str | None, mutations: int, ruler: Ruler, effort: Effort, progress: Progress
) -> Report:
    """Measure one machine: the table, what must not grow, and a long life."""
    import bench.core
    import bench.growth
    from bench.soak import soak

    run = measure(_chosen(core_cases(), pattern), ruler, effort, progress)
    report = Report("asyncmachine: one machine", run)
    long_life = None
    if mutations and not run.interrupted:
        try:
            long_life = soak(mutations, ruler, progress)
        except BenchError as error:
            report.faults.append(f"soak: {error}")
    rows = [outcome for outcome in run.outcomes if outcome.case in bench.core.CASES]
    if rows:
        report.tables.append(core_table(rows))
    growths = bench.growth.growths(run.outcomes)
    if growths:
        report.tables.append(growth_table(growths, bench.growth.FLAT))
    if long_life is not None:
        report.tables.append(soak_table(long_life))
    report.data = {
        "cases": [outcome_data(outcome) for outcome in rows],
        "growth": [
            {
                "family": growth.family,
                "factor": growth.factor,
                "verdict": growth.verdict,
                "cases": [outcome_data(outcome) for outcome in growth.outcomes],
            }
            for growth in growths
        ],
        "soak": None if long_life is None else _soak_data(long_life),
    }
    return report


def peers(pattern: str | None, ruler: Ruler, effort: Effort, progress: Progress) -> Report:
    """Measure one toggle in every library that is installed, and name those that are not."""
    from bench.peers import INSTALL, OURS, available, missing

    cases = peer_cases()
    picked = _chosen(cases, pattern)
    # Ours is what all others are compared with, asked for or not.
    with_ours = [case for case in cases if case in picked or case.key == OURS]
    run = measure(with_ours, ruler, effort, progress)
    versions = {peer.label: peer.version for peer in available()}
    absent = [f"{peer.label} is not installed: {INSTALL}" for peer in missing()]
    report = Report("One toggle in several libraries", run)
    report.tables.append(peers_table(run.outcomes, OURS, versions, absent))
    report.data = {
        "cases": [outcome_data(outcome) for outcome in run.outcomes],
        "versions": versions,
        "missing": [peer.label for peer in missing()],
    }
    return report


def net(pattern: str | None, ruler: Ruler, effort: Effort, progress: Progress) -> Report:
    """Measure machines in other processes beside raw carriers and other libraries."""
    contests = _chosen(net_contests(), pattern)
    return _held("Machines in other processes", contests, ruler, effort, progress)


def observers(pattern: str | None, ruler: Ruler, effort: Effort, progress: Progress) -> Report:
    """Measure machines that are watched beside bare ones."""
    contests = _chosen(observer_contests(), pattern)
    return _held("What it costs to be watched", contests, ruler, effort, progress)


def _held(
    title: str, contests: list[Contest], ruler: Ruler, effort: Effort, progress: Progress
) -> Report:
    held, interrupted = hold(contests, ruler, effort.rounds, effort.part_ms, progress)
    report = Report(title, Run((), effort.rounds, interrupted))
    empty_call_ns = median([reading.empty_call_ns for reading in ruler.readings] or [0.0])
    report.contests = held
    report.tables.append(contest_table(held, report.title, empty_call_ns))
    report.data = {"cases": [contested_data(contested) for contested in held]}
    return report


def _chosen(cases: list[_NamedT], pattern: str | None) -> list[_NamedT]:
    found = chosen(cases, pattern)
    if not found:
        msg = f"no case is called {pattern!r}; --list names them all"
        raise BenchError(msg)
    return found


def _soak_data(soak: Soak) -> dict[str, object]:
    return {
        "mutations": soak.mutations,
        "verdict": soak.verdict,
        "blocks_grown": soak.blocks_grown,
        "resident_grown": soak.resident_grown,
        "slowed": soak.slowed,
        "moments": [
            {
                "mutations": moment.mutations,
                "ns": moment.ns_per_mutation,
                "E": moment.empty_calls,
                "blocks": moment.blocks,
                "resident_bytes": moment.resident_bytes,
            }
            for moment in soak.moments
        ],
    }
