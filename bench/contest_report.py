"""Contests as a table, as plain data and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.contest import OURS
from bench.report import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.contest import Contested

__all__ = ["contest_table", "contested_data", "plot_contests"]

_NONE: Final = "–"
_COLOURS: Final = {"ok": "#3b7d5e"}
_OVER: Final = "#b5483a"
_PEER: Final = "#8a8a8a"


def contest_table(held: Sequence[Contested], title: str, empty_call_ns: float) -> Table:
    """One row a contest: ours, the side that it is held against, and what it must reach."""
    return Table(
        title=title,
        headings=("case", "ours", "E", "held against", "by that", "must reach", ""),
        rows=tuple(_row(contested, empty_call_ns) for contested in held),
        notes=(
            *(note for contested in held for note in _notes(contested)),
            *(f"{each.contest.key}: {each.missing}" for each in held if each.missing),
            *(f"FAILED {each.contest.key}: {each.fault}" for each in held if each.fault),
        ),
    )


def contested_data(contested: Contested) -> dict[str, object]:
    """Give a contest as plain data: each side, round by round, in its own unit a step."""
    return {
        "key": contested.contest.key,
        "title": contested.contest.title,
        "unit": {"B": "bytes", "E": "E"}.get(contested.contest.unit, "ns"),
        "goal": contested.contest.goal.text,
        "ours": contested.ours,
        "held_against": contested.judge,
        "ratio": contested.ratio,
        "verdict": contested.verdict,
        "fault": contested.fault,
        "missing": contested.missing,
        "sides": {
            side: {"median": contested.figure(side), "rounds": contested.figures[side]}
            for side in contested.sides
        },
    }


def plot_contests(path: Path, title: str, held: Sequence[Contested]) -> None:
    """Draw what one step takes, each contest a group of bars, on a logarithmic scale."""
    from matplotlib import pyplot as plt

    timed = [each for each in held if each.contest.unit != "B" and each.ours is not None]
    bars = [(each, side) for each in timed for side in each.sides]
    figure, axes = plt.subplots(figsize=(10, 1.6 + 0.3 * len(bars)), layout="constrained", dpi=120)
    drawn = axes.barh(
        range(len(bars)),
        [each.nanoseconds(side) / 1000 for each, side in bars],
        color=[_COLOURS.get(each.verdict, _OVER) if side == OURS else _PEER for each, side in bars],
        height=0.7,
    )
    axes.bar_label(
        drawn,
        [_figure(each.figure(side), each.contest.unit) for each, side in bars],
        padding=4,
        fontsize=8,
    )
    axes.set_yticks(
        range(len(bars)),
        [f"{each.contest.title}: ours" if side == OURS else side for each, side in bars],
    )
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("µs a step; ours is green where it reaches what it must")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


def _row(contested: Contested, empty_call_ns: float) -> tuple[str, ...]:
    unit, judge, ratio = contested.contest.unit, contested.judge, contested.ratio
    ours = contested.ours
    in_calls = _NONE
    if ours is not None and empty_call_ns and unit not in {"B", "s", "ms"}:
        calls = ours if unit == "E" else ours / empty_call_ns
        in_calls = f"{calls:,.0f}" if calls >= 100 else f"{calls:,.1f}"
    return (
        contested.contest.title,
        _figure(ours, unit),
        in_calls,
        _NONE if judge is None else f"{judge} {_figure(contested.figure(judge), unit)}",
        _NONE if ratio is None else contested.contest.goal.worded(ratio),
        contested.contest.goal.text,
        contested.verdict,
    )


def _notes(contested: Contested) -> list[str]:
    """Say what the other sides came to, of which none decides."""
    notes = []
    for side in contested.sides:
        if side not in {OURS, contested.judge}:
            figure = _figure(contested.figure(side), contested.contest.unit)
            ratio = contested.ratio_to(side)
            held = "" if ratio is None else f", {contested.contest.goal.worded(ratio)}"
            notes.append(f"{contested.contest.key}: {side} {figure}{held}.")
    return notes


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return _NONE
    match unit:
        case "/s":
            return f"{1e9 / value:,.0f} /s"
        case "E":
            return f"{value:,.1f} E"
        case "ms":
            return f"{value / 1e6:,.1f} ms"
        case "s":
            return f"{value / 1e9:.2f} s"
        case "ns":
            return f"{value:,.0f} ns"
        case "B":
            return f"{value:,.1f} B"
        case _:
            return f"{value / 1000:,.1f} µs"
