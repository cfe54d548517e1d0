"""The points of `simple discovery` as tables, as plain data and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.pubsub_course import LIMIT_S, STAGES
from bench.pubsub_runs import SIDES, Point, SideRuns
from bench.report import Table

__all__ = ["Verdict", "plot_points", "point_data", "points_table", "stages_table", "verdicts"]

# Where the overhead is judged: hosts and messages; and the most it may be there.
_JUDGED: Final = (20, 100)
_MOST_OVERHEAD: Final = 0.10
_NONE: Final = "–"
_COLOURS: Final = {"machines": "#3b7d5e", "plain": "#8a8a8a"}


class Verdict(NamedTuple):
    """What the runs have to come to, and whether they do.

    Attributes:
        limit: what is asked for.
        figure: what it came to; None if it was not measured.
        verdict: ``ok``, ``OVER`` or ``not measured``.

    """

    limit: str
    figure: float | None
    verdict: str


def verdicts(points: Sequence[Point]) -> dict[str, Verdict]:
    """Judge the overhead at the largest point, and the failures of all."""
    judged = [point for point in points if (point.hosts, point.messages) == _JUDGED]
    overhead = judged[0].overhead if judged else None
    if not judged:
        within = "not measured"
    else:
        within = "ok" if overhead is not None and overhead <= _MOST_OVERHEAD else "OVER"
    failed = sum(len(point.machines.failures) for point in points)
    runs = sum(len(point.machines.courses) for point in points)
    hosts, messages = _JUDGED
    return {
        "overhead": Verdict(
            f"at most {_MOST_OVERHEAD:.0%} of the median at {hosts} × {messages}", overhead, within
        ),
        "failures": Verdict(f"0 of {runs} runs with machines", failed, "OVER" if failed else "ok"),
    }


def points_table(points: Sequence[Point]) -> Table:
    """One row a point: medians with least and most, memory, threads, and failed runs."""
    notes = [f"{name}: {_judged(verdict)}" for name, verdict in verdicts(points).items()]
    notes += [
        "ms: median (least–most) of the runs that have not failed, with all that is disposed.",
        "MB: the most resident memory of a process that does only this.",
        f"Failed: longer than {LIMIT_S:g} s, or a message was lost.",
    ]
    notes += [
        f"FAILED {point.hosts} × {point.messages}, {side}: {failure}"
        for point in points
        for side in SIDES
        for failure in point.sides[side].failures
    ]
    return Table(
        title="simple discovery: hosts with machines, and without (plain threads, queues, locks)",
        headings=(
            *("hosts × messages", "machines, ms", "plain, ms", "overhead"),
            *("machines, MB", "plain, MB", "threads", "plain", "failed", "plain"),
        ),
        rows=tuple(_row(point) for point in points),
        notes=tuple(notes),
    )


def stages_table(point: Point) -> Table:
    """Where the time of a point goes: one row a stage."""
    rows = []
    for stage in STAGES:
        ours, theirs = point.machines.stage(stage), point.plain.stage(stage)
        ratio = f"× {ours / theirs:.2f}" if ours is not None and theirs else _NONE
        rows.append((stage, _ms(ours), _ms(theirs), ratio))
    return Table(
        title=f"{point.hosts} hosts × {point.messages} messages by stage",
        headings=("stage", "machines, ms", "plain, ms", "by plain"),
        rows=tuple(rows),
        notes=("find: of it 100 ms each time that host 0 waits before it looks again.",),
    )


def point_data(point: Point) -> dict[str, object]:
    """Give a point as plain data, run by run."""
    return {
        "hosts": point.hosts,
        "messages": point.messages,
        "overhead": point.overhead,
        **{name: _side_data(side) for name, side in point.sides.items()},
    }


def _side_data(side: SideRuns) -> dict[str, object]:
    return {
        "median_s": side.median,
        "min_s": min(side.seconds, default=None),
        "max_s": max(side.seconds, default=None),
        "start_bytes": side.start_bytes,
        "peak_bytes": side.peak_bytes,
        "threads": side.threads,
        "failed": len(side.failures),
        "runs": [course._asdict() for course in side.courses],
    }


def plot_points(path: Path, title: str, points: Sequence[Point]) -> None:
    """Draw time and memory over messages, a column of pictures for each number of hosts."""
    from matplotlib import pyplot as plt

    columns = sorted({point.hosts for point in points})
    figure, grid = plt.subplots(
        2,
        len(columns),
        figsize=(max(3.2 * len(columns), 5), 6),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        dpi=120,
    )
    for hosts, (times, memory) in zip(columns, grid.T, strict=True):
        drawn = sorted(
            (point for point in points if point.hosts == hosts), key=lambda point: point.messages
        )
        for name in SIDES:
            sides = [(p.messages, p.sides[name]) for p in drawn if p.sides[name].seconds]
            messages = [number for number, _ in sides]
            colour = _COLOURS[name]
            times.fill_between(
                messages,
                [min(side.seconds) * 1e3 for _, side in sides],
                [max(side.seconds) * 1e3 for _, side in sides],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            times.plot(
                messages,
                [(side.median or 0) * 1e3 for _, side in sides],
                color=colour,
                marker="o",
                markersize=3,
                label=name,
            )
            memory.plot(
                messages,
                [side.peak_bytes / 1e6 for _, side in sides],
                color=colour,
                marker="o",
                markersize=3,
            )
        times.set_title(f"{hosts} hosts", fontsize=10)
        memory.set_xlabel("messages")
        memory.set_xticks([point.messages for point in drawn])
        for axes in (times, memory):
            axes.spines[["top", "right"]].set_visible(False)
    for axes, label in zip(grid[:, 0], ("a run, ms", "peak memory, MB"), strict=True):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    figure.suptitle(f"{title}: median, and least to most", x=0.01, ha="left", fontsize=11)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, loc="outside upper right")
    figure.savefig(path)
    plt.close(figure)


def _row(point: Point) -> tuple[str, ...]:
    ours, plain = point.machines, point.plain
    return (
        f"{point.hosts} × {point.messages}",
        _span(ours),
        _span(plain),
        _NONE if point.overhead is None else f"{point.overhead:+.1%}",
        *(f"{side.peak_bytes / 1e6:.1f}" for side in (ours, plain)),
        *(str(side.threads) for side in (ours, plain)),
        *(f"{len(side.failures)} of {len(side.courses)}" for side in (ours, plain)),
    )


def _span(side: SideRuns) -> str:
    if side.median is None:
        return _NONE
    least, most = min(side.seconds), max(side.seconds)
    return f"{side.median * 1e3:,.0f} ({least * 1e3:,.0f}–{most * 1e3:,.0f})"


def _ms(seconds: float | None) -> str:
    return _NONE if seconds is None else f"{seconds * 1e3:,.1f}"


def _judged(verdict: Verdict) -> str:
    figure = verdict.figure
    if figure is None:
        return f"{verdict.verdict}; {verdict.limit}."
    shown = f"{figure:+.1%}" if isinstance(figure, float) else str(figure)
    return f"{verdict.verdict}: {shown}, {verdict.limit}."
