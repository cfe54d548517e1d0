"""How the files get on: bars on a terminal, plain lines elsewhere, and a table at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from asyncmachine import Event
from examples.file_processing.handlers import FileJob
from examples.file_processing.states import File

try:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn
    from rich.table import Table
    from rich.text import Text
except ImportError:
    raise SystemExit("this example needs rich: pip install 'asyncmachine[examples]'") from None

STEPS = (File.FileDownloaded, File.FileProcessed, File.FileUploaded)
NO_TERMINAL = 1000  # columns: a file or another program takes lines of any length


@contextmanager
def progress(jobs: Sequence[FileJob]) -> Iterator[None]:
    """Show on standard error how the files get on while the block lasts."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
    )
    hidden = not console.is_interactive
    with Progress(*columns, console=console, disable=hidden, transient=True) as bars:
        files = bars.add_task("files", total=len(jobs))
        for job in jobs:
            watch(job, bars, files)
        yield


def watch(job: FileJob, bars: Progress, files: TaskID) -> None:
    """Listen to a file's machine: advance its bar, or print a line when it has ended."""
    bar = bars.add_task(printable(job.source), total=len(STEPS), visible=False)

    # Called on whichever thread changes the machine; rich has the locks for that.
    def changed(event: Event) -> None:
        if event.machine.any_active(File.FileUploaded, File.Exception):
            bars.remove_task(bar)
            bars.advance(files)
            if bars.disable:
                bars.console.print(summary(job), soft_wrap=True)
        else:
            done = sum(event.machine.is_active(step) for step in STEPS)
            bars.update(bar, completed=done, visible=True)

    if job.machine.is_active(File.FileUploaded):  # by an earlier run
        bars.advance(files)
    else:
        job.machine.on("Any_state", changed)


def summary(job: FileJob) -> Text:
    """One line about a file."""
    state = File.Exception if job.failed else File.FileUploaded
    text = Text(f"{state:12} {printable(job.source)}")
    if job.failed:
        text.append(f": {printable(job.error)}", style="red")
    return text


def show_table(jobs: Sequence[FileJob]) -> None:
    """Print what became of each file: what was counted, and what its machine went through."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", overflow="fold")
    for heading in ("lines", "words", "bytes", "gzip"):
        table.add_column(heading, justify="right")
    table.add_column("ticks", no_wrap=True)
    table.add_column("state", overflow="fold")
    for job in jobs:
        ticks = " ".join(map(str, job.machine.time()))
        table.add_row(Text(printable(job.source)), *counts(job), ticks, latest(job))
    console = Console(width=None if sys.stdout.isatty() else NO_TERMINAL, highlight=False)
    console.print(table)
    console.print(f"ticks are of {' '.join(File.names)}; an odd one is active", soft_wrap=True)
    console.print(Text(totals(jobs)), soft_wrap=True)


def counts(job: FileJob) -> tuple[str, str, str, str]:
    report = job.report
    if report is None:
        return ("", "", "", "")
    return (str(report.lines), str(report.words), str(report.size), str(report.compressed))


def latest(job: FileJob) -> Text:
    """The state that it has come to, and what went wrong."""
    # Later states are declared later, and Exception last.
    text = Text(job.machine.switch(*reversed(File.names)) or "")
    if job.failed:
        text.append(f"\n{printable(job.error)}", style="red")
    return text


def totals(jobs: Sequence[FileJob]) -> str:
    uploaded = sum(job.machine.is_active(File.FileUploaded) for job in jobs)
    failed = sum(job.failed for job in jobs)
    unfinished = len(jobs) - uploaded - failed
    folder = printable(str(jobs[0].output.parent))
    return f"{uploaded} uploaded to {folder}, {failed} failed, {unfinished} not finished"


def show_json(jobs: Sequence[FileJob]) -> None:
    """Print the same for programs."""
    print(json.dumps([as_row(job) for job in jobs], indent=2))


def as_row(job: FileJob) -> dict[str, object]:
    uploaded = job.machine.is_active(File.FileUploaded)
    return {
        "file": job.source,
        "output": str(job.output) if uploaded else None,
        "states": job.machine.active_states(),
        "ticks": job.machine.clock(),
        "report": job.report._asdict() if job.report else None,
        "error": job.error or None,
    }


def printable(text: str) -> str:
    """Text that harms no terminal: file names may hold anything."""
    return "".join(char if char.isprintable() else "?" for char in text)
