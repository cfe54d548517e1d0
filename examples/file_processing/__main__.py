"""Process files from the command line."""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from asyncmachine import Waiter, wait_all, wait_any
from asyncmachine.history import HistoryError, SQLiteHistory
from examples.file_processing import view
from examples.file_processing.handlers import FileJob
from examples.file_processing.work import base_name

GRACE = 2.0  # seconds that work under way may take to notice that nobody wants it any more


def main(argv: Sequence[str] | None = None) -> int:
    """Exit with 0 if all files were uploaded, 1 if one failed, 2 on misuse, 130 on Ctrl-C."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: {error}")
    with ExitStack() as stack:
        try:
            history, scratch = stack.enter_context(workshop(args.history))
            outputs = output_names(args.sources)
            jobs = [
                FileJob(source, args.out / output, scratch, history)
                for source, output in zip(args.sources, outputs, strict=True)
            ]
        except (HistoryError, OSError, sqlite3.Error) as error:
            parser.error(f"--history: {error}")
        finished = run(jobs, args.jobs)
    (view.show_json if args.json else view.show_table)(jobs)
    if not finished:
        return 130
    return int(any(job.failed for job in jobs))


@contextmanager
def workshop(file: Path | None) -> Iterator[tuple[SQLiteHistory | None, Path]]:
    """The history, if there is one, and a folder to work in, which lasts as long as that."""
    if file is None:
        with TemporaryDirectory(prefix="file-processing-", ignore_cleanup_errors=True) as scratch:
            yield None, Path(scratch)
    else:
        folder = file.with_name(f"{file.name}.files")
        with SQLiteHistory(file, durable=True) as history:
            folder.mkdir(exist_ok=True)
            with held(folder / "lock"):
                yield history, folder


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Keep other runs out until the end, the end by kill -9 included: SQLite's locks are like that.

    Raises:
        BlockingIOError: if another run is at it.

    """
    with closing(sqlite3.connect(lock, timeout=0)) as db:
        try:
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            msg = f"another run works with {lock.parent}; wait for it, or choose another FILE"
            raise BlockingIOError(msg) from None
        yield


def run(jobs: Sequence[FileJob], at_once: int) -> bool:
    """Process the files; whether that ended by itself, not by Ctrl-C."""
    try:
        with view.progress(jobs):
            process(jobs, at_once)
    except KeyboardInterrupt:
        return False
    finally:
        dispose(jobs)
    return True


def process(jobs: Iterable[FileJob], at_once: int) -> None:
    """Keep so many files under way; whichever ends makes room for the next."""
    running: list[Waiter] = []
    for job in jobs:
        running = [ended for ended in running if not ended.is_set()]
        if len(running) == at_once:
            wait_any(*running)
        running.append(job.start())
    wait_all(*running)


def dispose(jobs: Sequence[FileJob]) -> None:
    """End all machines; each is told to stop before any is waited for."""
    deadline = monotonic() + GRACE
    for job in jobs:
        job.machine.dispose(timeout=0)
    for job in jobs:
        job.machine.dispose(timeout=max(0, deadline - monotonic()))


def output_names(sources: Iterable[str]) -> Iterator[str]:
    """A name for each source's output; sources of the same name are numbered."""
    taken: set[str] = set()
    for source in sources:
        base = base_name(source)
        name = f"{base}.gz"
        numbers = count(2)
        while name in taken:
            name = f"{base}.{next(numbers)}.gz"
        taken.add(name)
        yield name


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def make_parser() -> argparse.ArgumentParser:
    """What the command line takes, and the help that teaches it."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.file_processing",
        description="Download files, count and compress them, and upload them to a folder: one"
        " state machine a file, several files at a time.",
        epilog="A file that fails harms no other: the table names it with its error. A tick grows"
        " by one whenever its state comes or goes, so the ticks tell what each machine went"
        " through. Ctrl-C stops, tidies up, and shows what was done. Try:"
        " python -m examples.file_processing README.md LICENSE no-such-file",
    )
    parser.add_argument(
        "sources", nargs="+", metavar="PATH_OR_URL", help="a path, or an http, https or file URL"
    )
    parser.add_argument(
        "-o",
        "--out",
        "--output",
        type=Path,
        default=Path("processed"),
        metavar="DIR",
        help="where to upload to (default: ./%(default)s); what an earlier run left there under"
        " the same name is replaced",
    )
    parser.add_argument(
        "-j", "--jobs", type=positive, default=4, metavar="N", help="at a time (default: 4)"
    )
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="keep there what was done, so that a run that was stopped or killed, started again"
        " with the same arguments, goes on where it was: no step that had finished is done again,"
        " and a file that failed goes on with the step that failed."
        " Beside it stands FILE.files, with what is under way; remove both to begin anew",
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
