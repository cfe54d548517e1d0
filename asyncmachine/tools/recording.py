"""``am record``: write what programs do into dump files, and show such a file."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from asyncmachine.tools.command import Command, CommandError
from asyncmachine.tools.signals import Signals

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from asyncmachine.debugger.collector import Collector
    from asyncmachine.debugger.recorder import Recorder
    from asyncmachine.debugger.records import Record

__all__ = ["RECORD"]

_DETAILS: Final = """\
Receives the feeds of programs and writes every transition of their machines into dump
files (.amdump), until Ctrl-C or SIGTERM: both finish the file and end with exit code 0.

Tell a program where to send to by its environment:
  AM_DBG=localhost:6831 python program.py
or machine by machine, by asyncmachine.telemetry.feed.attach(machine, "localhost:6831").

A file is full when one of the limits is reached; then the next one is begun, which can be
read by itself. FILE may have codes of strftime (%Y, %m, %d, %H, %M, %S), and {n} for the
number of the file; without {n} the second one gets -2 before its suffix, and so on. A file
that is there already is never replaced unless --force is given.

Dumps can be read while they are written, and after the recorder was killed: at most the
last second is missing. When the power fails, what the system had not written yet is, too.

examples:
  am record
  am record -o shop.amdump
  am record --listen 0.0.0.0:6831 -o 'night-%H%M-{n}.amdump' --max-seconds 3600 --keep 24
  am record --show shop.amdump | grep Exception
"""


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        default="localhost:6831",
        metavar="HOST:PORT",
        help="where programs send to; port 0 takes a free one (%(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="%Y%m%d-%H%M%S.amdump",
        metavar="FILE",
        help="the file, or a pattern (%%Y%%m%%d-%%H%%M%%S.amdump)",
    )
    number = _at_least_one
    parser.add_argument(
        "--max-transitions", type=number, metavar="N", help="begin a new file after so many"
    )
    parser.add_argument(
        "--max-seconds", type=number, metavar="S", help="begin a new file after so long"
    )
    parser.add_argument(
        "--max-bytes", type=number, metavar="N", help="begin a new file at this size"
    )
    parser.add_argument(
        "--keep", type=number, metavar="N", help="delete the oldest file when there are more"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--show", metavar="FILE", help="do not record: print what is in a dump, and end"
    )


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_at_least_one.__name__ = "whole number from 1"  # as argparse calls it in an error


def _run(arguments: Namespace) -> int:
    if arguments.show is not None:
        return _show(arguments.show)
    return _record(arguments)


def _record(arguments: Namespace) -> int:
    from asyncmachine.debugger.collector import Collector
    from asyncmachine.debugger.recorder import Limits, Recorder

    limits = Limits(arguments.max_transitions, arguments.max_seconds, arguments.max_bytes)
    screen = _Screen()
    hearing = _Hearing(screen)
    with Signals() as signals:
        # First, for who can not listen shall not have touched a file.
        try:
            collector = Collector(hearing, arguments.listen)
        except (ValueError, OSError) as error:
            raise CommandError(f"can not listen at {arguments.listen}: {error}") from error
        try:
            recorder = Recorder(
                _namer(arguments.output, force=arguments.force),
                limits,
                keep=arguments.keep,
                on_file=lambda path: screen.say(f"recording into {path}"),
                on_error=lambda _: signals.ring(),
            )
        except OSError as error:
            hearing.begin(None)
            collector.close()
            raise CommandError(f"can not write: {error}") from error
        hearing.begin(recorder)
        screen.say(f"listening at {collector.address}")
        screen.watch(lambda: _status(recorder, collector))
        ended_by = signals.wait()
        signals.give_back()
        collector.close()
        _finish(recorder, screen)
    return 0 if ended_by in (signal.SIGINT, signal.SIGTERM) else 1


def _finish(recorder: Recorder, screen: _Screen) -> None:
    error = recorder.error
    try:
        recorder.close()
    except OSError as late:
        error = error or late
    screen.end()
    if error is not None:
        raise CommandError(f"the recording has ended: {error}")
    lost = f", {recorder.dropped} dropped by their senders" if recorder.dropped else ""
    files = ", ".join(recorder.files)
    screen.say(f"recorded {recorder.transitions} transitions{lost}: {files}")


def _status(recorder: Recorder, collector: Collector) -> str:
    return (
        f"{collector.senders} connections, {recorder.transitions} transitions, "
        f"{recorder.dropped} dropped, {recorder.size} bytes"
    )


def _namer(pattern: str, *, force: bool) -> Callable[[int], str]:
    """Give the function that names the files; it passes over names that are taken."""
    taken: set[str] = set()
    ahead = 0

    def name_of(number: int) -> str:
        nonlocal ahead
        while True:
            path = _name(pattern, number + ahead)
            if path not in taken and (force or not Path(path).exists()):
                taken.add(path)
                return path
            if number + ahead == 1 and "{n}" not in pattern:
                raise FileExistsError(f"{path} is there already; --force replaces it")
            ahead += 1

    return name_of


def _name(pattern: str, number: int) -> str:
    path = Path(time.strftime(pattern).replace("{n}", str(number)))
    if "{n}" not in pattern and number > 1:
        path = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return str(path)


class _Hearing:
    """Records what comes, and tells who comes and goes."""

    def __init__(self, screen: _Screen) -> None:
        self._recorder: Recorder | None = None
        self._begun = Event()
        self._screen = screen
        self._processes: dict[str, str] = {}

    def begin(self, recorder: Recorder | None) -> None:
        """Record from now on what has come; nothing if there is no recorder."""
        self._recorder = recorder
        self._begun.set()

    def __call__(self, records: list[Record]) -> None:
        from asyncmachine.debugger.records import EndRecord, MachineRecord

        self._begun.wait()
        if self._recorder is None:
            return
        self._recorder(records)
        for record in records:
            if isinstance(record, MachineRecord) and record.process not in self._processes:
                name = f"pid {record.pid} on {record.host}, {record.program}"
                self._processes[record.process] = name
                self._screen.say(f"connected: {name}")
            elif isinstance(record, EndRecord):
                name = self._processes.pop(record.process, record.process)
                self._screen.say(f"connection {record.reason}: {name}")


class _Screen:
    """Lines on the standard output; on a terminal the last one says how it stands."""

    def __init__(self) -> None:
        self._status: Callable[[], str] | None = None
        self._over = Event()

    def say(self, line: str) -> None:
        """Print a line."""
        _print(f"\r\033[K{line}" if sys.stdout.isatty() else line)

    def watch(self, status: Callable[[], str]) -> None:
        """Show how it stands, each second, on a terminal."""
        self._status = status
        if sys.stdout.isatty():
            Thread(target=self._show, name="status", daemon=True).start()

    def _show(self) -> None:
        while self._status is not None and not self._over.wait(1.0):
            _print(f"\r\033[K{self._status()}", end="")

    def end(self) -> None:
        """Show it no more."""
        self._over.set()


def _print(text: str, end: str = "\n") -> None:
    try:
        print(text, end=end, flush=True)
    except OSError:  # nobody reads any more: no reason to end a recording
        _print_nothing_more()


def _print_nothing_more() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed at exit


def _show(path: str) -> int:
    from asyncmachine.debugger.dumps import DumpError, DumpReader
    from asyncmachine.debugger.records import DroppedRecord, MachineRecord, TransitionRecord
    from asyncmachine.debugger.telling import lines_of, moment

    try:
        with DumpReader(path) as reader:
            print(f"{path}: dump of version {reader.version}", end="")
            print(f", begun {moment(reader.created * 1_000_000_000)} UTC")
            transitions = dropped = 0
            machines: dict[str, str] = {}
            for record in reader:
                transitions += isinstance(record, TransitionRecord)
                if isinstance(record, DroppedRecord):
                    dropped += record.count
                if isinstance(record, MachineRecord):
                    machines[record.key] = record.machine_id
                for line in lines_of(record, machines):
                    print(line)
            print(f"{transitions} transitions of {len(machines)} machines, {dropped} dropped")
            for damage in reader.damages:
                print(f"damaged: {damage.size} bytes at {damage.at}: {damage.reason}")
            if reader.left_over:
                print(f"cut short: {reader.left_over} bytes are no whole block")
    except (DumpError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            _print_nothing_more()
            return 0  # who reads has enough
        raise CommandError(str(error)) from error
    return 0


RECORD: Final = Command(
    name="record",
    summary="record what programs do into dump files, or show one",
    details=_DETAILS,
    add_arguments=_add_arguments,
    run=_run,
)
