"""The examples run as a person runs them: ``python -m examples.NAME ARG…``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 30  # seconds, for programs that take one or two


def run(name: str, *args: object, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    return subprocess.run(
        _command(name, args),
        cwd=cwd,
        env=_environment(env),
        encoding="utf-8",
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def start(
    name: str, *args: object, stderr: int = subprocess.PIPE, **env: str
) -> Iterator[subprocess.Popen[str]]:
    """Start an example; it is killed if it still runs when the block ends."""
    with subprocess.Popen(
        _command(name, args),
        cwd=ROOT,
        env=_environment(env),
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=stderr,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def press_ctrl_c(program: subprocess.Popen[str]) -> tuple[str, str]:
    """Interrupt a program until it ends, and give what it printed on both streams.

    Once is not always enough: the system may hand the signal to a thread that is just being
    started, and then Python notices it only when its main thread wakes for something else.
    """
    while True:
        program.send_signal(signal.SIGINT)
        try:
            return program.communicate(timeout=PATIENCE / 5)
        except subprocess.TimeoutExpired:
            continue


def transcript(doc: str | None) -> tuple[list[str], str]:
    """The args and the output of the run that an example's docstring shows."""
    lines = [line.strip() for line in (doc or "").split("::\n\n")[1].splitlines()]
    return lines[0].split()[4:], "\n".join(lines[1:]).strip()


def help_of(name: str) -> str:
    """What ``--help`` says, on one line."""
    return " ".join(run(name, "--help").stdout.split())


def _command(name: str, args: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", f"examples.{name}", *map(str, args)]


def _environment(env: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    plain = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    return {**plain, "PYTHONPATH": path, "NO_PROXY": "127.0.0.1", **env}
