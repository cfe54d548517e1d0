"""Results as tables for a terminal, as Markdown for the docs, and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.cases import Outcome
    from bench.growth import Growth
    from bench.measure import Ruler
    from bench.rounds import Run
    from bench.soak import Soak

__all__ = [
    "Setting",
    "Table",
    "as_markdown",
    "as_text",
    "core_table",
    "growth_table",
    "outcome_data",
    "peers_table",
    "soak_table",
    "write_json",
]

_NONE: Final = "–"
_CPU_INFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Table:
    """Headings, rows, and what has to be said below them."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """Where, when and how figures came about."""

    command: str
    machine: str
    python: str
    date: str
    rounds: int
    interrupted: bool
    empty_call_ns: float
    loop_ns: float

    @classmethod
    def of(cls, command: str, run: Run, ruler: Ruler) -> Setting:
        """Describe a run that has just ended on this machine."""
        readings = ruler.readings
        return cls(
            command=command,
            machine=_machine(),
            python=_python(),
            date=f"{datetime.now().astimezone():%Y-%m-%d}",
            rounds=run.rounds,
            interrupted=run.interrupted,
            empty_call_ns=median([r.empty_call_ns for r in readings] or [0.0]),
            loop_ns=median([r.loop_ns for r in readings] or [0.0]),
        )

    def lines(self) -> list[str]:
        """Say it in a few lines."""
        loop = (
            f"after taking {self.loop_ns:.1f} ns off for the loop, as off every case"
            if self.loop_ns
            else "loop included, in every case too"
        )
        stopped = " (stopped early with Ctrl-C)" if self.interrupted else ""
        return [
            f"{self.machine}, {self.python}, {self.date}",
            f"E is one empty Python function call: {self.empty_call_ns:.1f} ns here, {loop}.",
            f"Medians of {self.rounds} round{'s' * (self.rounds != 1)}{stopped}.",
        ]


def core_table(outcomes: Iterable[Outcome]) -> Table:
    """One row a case: what it costs, what it may cost, what it costs in Go."""
    outcomes = list(outcomes)
    return Table(
        title="One machine",
        headings=("case", "ns", "E", "at most", "", "peak B", "Go v0.5.0", "Go v0.19"),
        rows=tuple(_core_row(outcome) for outcome in outcomes),
        notes=(
            "peak B: bytes that one step holds for a moment.",
            "Go: asyncmachine-go on the same kind of machine.",
            *_variants(outcomes),
            *_faults(outcomes),
        ),
    )


def growth_table(growths: Sequence[Growth], flat: float) -> Table:
    """One row a size; the verdict stands with the largest of a family."""
    rows = []
    for growth in growths:
        for outcome in growth.outcomes:
            last = outcome is growth.outcomes[-1]
            factor = f"× {growth.factor:.2f}" if last and growth.factor is not None else ""
            rows.append(
                (*_figures(outcome), factor, growth.verdict if last else ""),
            )
    outcomes = [outcome for growth in growths for outcome in growth.outcomes]
    return Table(
        title="What must not grow",
        headings=("case", "ns", "E", "largest by smallest", ""),
        rows=tuple(rows),
        notes=(f"flat: at most × {flat}.", *_variants(outcomes), *_faults(outcomes)),
    )


def peers_table(
    outcomes: Sequence[Outcome], ours: str, versions: Mapping[str, str], missing: Sequence[str]
) -> Table:
    """One row a library: what it costs, and how many times ours that is."""
    unit = next((o.value for o in outcomes if o.case.key == ours), None)
    rows = []
    for outcome in outcomes:
        ratio = _NONE if not unit or outcome.value is None else f"× {outcome.value / unit:,.1f}"
        title, *figures = _figures(outcome)
        rows.append((title, versions.get(outcome.case.key) or _NONE, *figures, ratio))
    return Table(
        title="The same toggle, one library beside the other",
        headings=("library", "version", "ns", "E", "by ours"),
        rows=tuple(rows),
        notes=(*missing, *_faults(outcomes)),
    )


def soak_table(soak: Soak) -> Table:
    """Ten moments of a long life, and what the peaks of its halves say about it."""
    moments = soak.moments
    shown = moments[:: max(len(moments) // 10, 1)]
    if shown[-1] is not moments[-1]:
        shown = (*shown, moments[-1])
    resident = soak.resident_grown
    grown = "" if resident is None else f", the process {resident / 1e6:+.1f} MB"
    return Table(
        title=f"{soak.mutations:,} mutations on one machine",
        headings=("mutations", "ns each", "E each", "memory blocks", "process, MB"),
        rows=tuple(
            (
                f"{moment.mutations:,}",
                f"{moment.ns_per_mutation:,.0f}",
                f"{moment.empty_calls:,.0f}",
                f"{moment.blocks:,}",
                _NONE if moment.resident_bytes is None else f"{moment.resident_bytes / 1e6:.1f}",
            )
            for moment in shown
        ),
        notes=(
            f"{soak.verdict}: {soak.blocks_grown:+,} memory blocks from half to half{grown}.",
            f"A mutation of the second half costs × {soak.slowed:.2f} one of the first.",
        ),
    )


def as_text(tables: Sequence[Table], setting: Setting) -> str:
    """Lay tables out in columns for a terminal."""
    parts = [*setting.lines()]
    for table in tables:
        parts += ["", table.title, *_columns(table), *(f"  {note}" for note in table.notes)]
    return "\n".join(parts)


def as_markdown(tables: Sequence[Table], setting: Setting) -> str:
    """Write tables as they go into docs/performance.md."""
    machine, *rest = setting.lines()
    parts = [f"`{setting.command}` on {machine}.", *rest]
    for table in tables:
        marks = ["---", *["--:"] * (len(table.headings) - 1)]
        lines = [_markdown_row(row) for row in (table.headings, marks, *table.rows)]
        parts += ["", f"### {table.title}", "", *lines, ""]
        parts += [f"- {note}" for note in table.notes]
    return "\n".join(parts)


def write_json(path: Path, setting: Setting, **data: object) -> None:
    """Write everything that was measured."""
    path.write_text(
        json.dumps({**asdict(setting), **data}, indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )


def outcome_data(outcome: Outcome) -> dict[str, object]:
    """Give an outcome as plain data: the figure, and every variant and round behind it."""
    case, timing = outcome.case, outcome.timing
    return {
        "key": case.key,
        "title": case.title,
        "unit": case.unit,
        "value": outcome.value,
        "ns": timing.ns if timing else None,
        "limit": case.limit,
        "verdict": outcome.verdict,
        "fault": outcome.fault,
        "go_v0_5_0": case.go_v0_5_0,
        "go_v0_19": case.go_v0_19,
        "counts": outcome.worst,
        "variants": {
            name: {
                "ns": each.ns,
                "E": each.empty_calls,
                "quartiles": each.quartiles,
                "rounds": [sample.empty_calls for sample in each.samples],
                "peak_bytes": each.footprint.peak if each.footprint else None,
                "kept_bytes": each.footprint.kept if each.footprint else None,
            }
            for name, each in outcome.timings.items()
        }
        | {name: {"value": value} for name, value in outcome.readings.items()},
    }


def _core_row(outcome: Outcome) -> tuple[str, ...]:
    case, timing = outcome.case, outcome.timing
    peak = _NONE if timing is None or timing.footprint is None else f"{timing.footprint.peak:,.0f}"
    return (
        *_figures(outcome),
        _amount(case.limit, case.unit),
        outcome.verdict,
        peak,
        _amount(case.go_v0_5_0, case.unit),
        _amount(case.go_v0_19, case.unit),
    )


def _figures(outcome: Outcome) -> tuple[str, str, str]:
    timing = outcome.timing
    return (
        outcome.case.title,
        _NONE if timing is None else f"{timing.ns:,.0f}",
        _NONE if outcome.value is None else _exact(outcome.value, outcome.case.unit),
    )


def _exact(value: float, unit: str) -> str:
    return f"{value:,.1f}" if unit == "E" else f"{value:,.2f} {unit}"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return _NONE
    return f"{value:,.0f}" if unit == "E" else f"{value:,.1f} {unit}"


def _variants(outcomes: Iterable[Outcome]) -> list[str]:
    """Say what the dearest was chosen from."""
    notes = []
    for outcome in outcomes:
        if len(outcome.timings) > 1:
            listed = [f"{name} {each.empty_calls:,.1f}" for name, each in outcome.timings.items()]
        elif len(outcome.readings) > 1:
            unit = outcome.case.unit
            listed = [f"{name} {_exact(v, unit)}" for name, v in outcome.readings.items()]
        else:
            continue
        notes.append(f"{outcome.case.key}: the dearest of {', '.join(listed)}.")
    return notes


def _faults(outcomes: Iterable[Outcome]) -> list[str]:
    return [f"FAILED {o.case.key}: {o.fault}" for o in outcomes if o.fault]


def _columns(table: Table) -> list[str]:
    rows = [table.headings, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.headings))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _machine() -> str:
    cores = os.cpu_count()
    return f"{_processor()} with {cores} core{'s' * (cores != 1)}, {platform.system()}"


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _python() -> str:
    has_gil: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"{platform.python_implementation()} {platform.python_version()}" + (
        "" if has_gil else " without the interpreter lock"
    )
