"""The report for other programs: JSON of the whole, CSV of samples and of messages."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from examples.pubsub.outcome import Outcome, Sample, Verdict
from examples.pubsub.report.summary import Summary

__all__ = ["write_tables"]

_COUNTS: Final = tuple(field for field in Sample._fields if field != "mesh")
_MESH: Final = ("mesh_min", "mesh_median", "mesh_max", "mesh")


def write_tables(outcome: Outcome, summary: Summary, folder: Path) -> None:
    """Write ``report.json``, ``samples.csv`` and ``messages.csv``.

    In samples.csv the column ``mesh`` has how many meshes have how many peers, like
    ``5:12 6:30``: 12 have 5 and 30 have 6. In messages.csv the ids in ``missed`` are
    separated by spaces.

    Args:
        outcome: what the run came to.
        summary: its figures.
        folder: where the files go; it has to be there.

    Raises:
        OSError: if a file can not be written.

    """
    report = json.dumps(_report(outcome, summary), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(report + "\n", encoding="utf-8")
    _write_csv(folder / "samples.csv", (*_COUNTS, *_MESH), map(_sample_row, outcome.samples))
    _write_csv(folder / "messages.csv", Verdict._fields, map(_message_row, outcome.verdicts))


def _report(outcome: Outcome, summary: Summary) -> dict[str, object]:
    return {
        "settings": outcome.settings,
        "finished": outcome.finished,
        "seconds": outcome.seconds,
        "wall_seconds": outcome.wall_seconds,
        "virtual": outcome.virtual,
        "deadline": outcome.deadline,
        "summary": summary._asdict(),
        "hops": {str(hops): times for hops, times in sorted(outcome.hops.items())},
        "missed": [
            verdict._asdict() | {"slowest": _finite(verdict.slowest)}
            for verdict in outcome.verdicts
            if verdict.missed
        ],
        "handlers": [handler._asdict() for handler in outcome.handlers],
        "deaths": [{"time": time, "what": what} for time, what in outcome.deaths],
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity, and a message that nobody had has no time when the last had it."""
    return value if math.isfinite(value) else None


def _sample_row(sample: Sample) -> Sequence[object]:
    mesh = sample.mesh
    degrees = " ".join(f"{degree}:{times}" for degree, times in sorted(Counter(mesh).items()))
    middle = (min(mesh), median(mesh), max(mesh)) if mesh else ("", "", "")
    return (*(getattr(sample, field) for field in _COUNTS), *middle, degrees)


def _message_row(verdict: Verdict) -> Sequence[object]:
    row = verdict._asdict() | {"missed": " ".join(verdict.missed)}
    return tuple(row.values())


def _write_csv(path: Path, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(headings)
        writer.writerows(rows)
