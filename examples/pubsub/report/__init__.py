"""The report of a run: one page, its plots as pictures, and the figures as JSON and CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from examples.pubsub.report.summary import Summary
from examples.pubsub.report.tables import write_tables

if TYPE_CHECKING:
    from examples.pubsub.outcome import Outcome

__all__ = ["write_report"]


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write everything there is to know about a run.

    That is ``index.html``, which needs none of the others; a PNG of each plot; and
    ``report.json``, ``samples.csv`` and ``messages.csv`` for other programs.

    Args:
        outcome: what the run came to.
        folder: where the files go; it is made if it is not there, and files of an earlier
            report in it are replaced.

    Returns:
        The page.

    Raises:
        ImportError: if there is no matplotlib; the JSON and CSV files are there by then.
        OSError: if a file can not be written.

    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = Summary.of(outcome)
    write_tables(outcome, summary, folder)

    # Only now: the live view needs this package too, but none of the half second that
    # matplotlib takes, and no run's figures get lost because it is not installed.
    from examples.pubsub.report.page import as_page
    from examples.pubsub.report.plots import PLOTS

    figures = [(plot, plot.draw(outcome)) for plot in PLOTS]
    for plot, figure in figures:
        figure.savefig(folder / f"{plot.name}.png", dpi=160)
    page = folder / "index.html"
    page.write_text(as_page(outcome, summary, figures), encoding="utf-8")
    return page
