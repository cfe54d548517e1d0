"""``am`` run as a person runs it, and within this process, with what it prints line by line."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from asyncmachine.tools.cli import main

ROOT: Final = Path(__file__).parents[2]
SOON: Final = 20  # seconds; only a failing test waits so long


class Lines(io.TextIOBase):
    """A stream that another thread reads line by line, as they come."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._lines.put(line)
        return len(text)

    def next(self) -> str:
        """Wait for the next line."""
        line = self._lines.get(timeout=SOON)
        assert line is not None, "the command has ended"
        return line

    def end(self) -> None:
        """Have who waits for a line fail."""
        self._lines.put(None)


def run_with(script: Callable[[Lines], object], *arguments: str) -> int:
    """Run ``am`` here, with a script beside it that reads what is printed and ends with a signal.

    Returns:
        The exit code.

    """
    lines = Lines()
    faults: list[BaseException] = []
    over = threading.Event()

    def beside() -> None:
        try:
            script(lines)
        except BaseException as fault:
            faults.append(fault)
            if not over.is_set():
                send(signal.SIGINT)

    with redirect_stdout(lines):
        companion = threading.Thread(target=beside)
        companion.start()
        try:
            code = main(arguments)
        finally:
            over.set()
            lines.end()
            companion.join(SOON)
    if faults:
        raise faults[0]
    return code


def send(number: int) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


@contextmanager
def start(*arguments: str, cwd: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Start ``am`` as a program; it is killed if it still runs when the block ends."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with subprocess.Popen(
        [sys.executable, "-m", "asyncmachine.tools.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **env},
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def next_line(program: subprocess.Popen[str]) -> str:
    """Wait for the next line that a program prints."""
    assert program.stdout is not None
    line = program.stdout.readline()
    if not line:
        raise AssertionError(program.communicate())
    return line.rstrip("\n")
