"""``python -m bench pubsub``: the case study, beside the same hosts without machines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from bench.commands import Report
from bench.measure import Ruler
from bench.pubsub_report import (
    plot_points,
    point_data,
    points_table,
    stages_table,
    verdicts,
)
from bench.pubsub_runs import run_points
from bench.rounds import Progress, Run

__all__ = ["ABOUT", "CASES", "EXAMPLES", "FULL", "QUICK", "Extent", "numbers", "pubsub"]

ABOUT: Final = """\
Measure the pubsub case study beside the same hosts written with plain threads, queues and
locks. So many hosts find each other by a topic, and send so many messages, each to all of
them; the router is floodsub, and messages are signed. The two sides take turns, each in a
process of its own. A line says ok or OVER beside what the project has set itself; the exit
code is 0 either way. Every process that is started ends with the run, after Ctrl-C, too.
"""
EXAMPLES: Final = """\
examples:
  python -m bench pubsub                                all points, in about ten minutes
  python -m bench pubsub --quick                        the corners only, in a minute
  python -m bench pubsub --hosts 20 --messages 60,100   these points
  python -m bench pubsub --json p.json --plot p.png     everything measured, and a picture
  python -m bench pubsub --scale                        gossip, up to 1,000 hosts, in ten minutes
  python -m bench pubsub --markdown                     as it stands in docs/case-study.md
"""
# What --list tells.
CASES: Final = {
    "simple-discovery": "hosts find each other, and every message reaches all",
    "scale": "gossip on many hosts over processes (--scale)",
}


@dataclass(frozen=True, slots=True)
class Extent:
    """What to run.

    Attributes:
        hosts: how many hosts, each with all of the messages.
        messages: how many messages, in total.
        runs: runs of each side and point.

    """

    hosts: Sequence[int] = (5, 10, 15, 20)
    messages: Sequence[int] = (20, 40, 60, 80, 100)
    runs: int = 15


FULL: Final = Extent()
QUICK: Final = Extent((5, 20), (20, 100), 5)


def pubsub(extent: Extent, ruler: Ruler, progress: Progress) -> Report:
    """Run the case at all points, and judge it."""
    sizes = [*product(extent.hosts, extent.messages)]
    points, interrupted = run_points(sizes, extent.runs, progress, ruler.read)
    report = Report("simple discovery", Run((), extent.runs, interrupted))
    largest = max(points, key=lambda point: (point.hosts, point.messages))
    report.tables += [points_table(points), stages_table(largest)]
    report.faults += [
        f"{point.hosts} × {point.messages}: no run of {name} has succeeded"
        for point in points
        for name, side in point.sides.items()
        if side.median is None
    ]
    report.data = {
        "case": "simple discovery",
        "points": [point_data(point) for point in points],
        "verdicts": {name: verdict._asdict() for name, verdict in verdicts(points).items()},
    }
    report.draw = lambda path: plot_points(path, report.title, points)
    return report


def numbers(least: int) -> Callable[[str], list[int]]:
    """Give what reads an option like ``5,10,20``."""

    def read(text: str) -> list[int]:
        found = [int(part) for part in text.split(",")]
        if min(found) < least:
            msg = f"at least {least}"
            raise argparse.ArgumentTypeError(msg)
        return found

    return read
