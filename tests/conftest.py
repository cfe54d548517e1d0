"""What holds for every test: it leaves no thread and no child process behind."""

from __future__ import annotations

import faulthandler
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long what is already ending may take. No test relies on it: it is waited for only as
# long as something is left.
_GRACE_SECONDS: Final = 3.0

# A run that hangs shows where: kill -USR1 its process.
if hasattr(signal, "SIGUSR1"):
    faulthandler.register(signal.SIGUSR1, all_threads=True)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves a non-daemon thread or a child process."""
    threads, children = _threads(), _children()
    yield
    deadline = time.monotonic() + _GRACE_SECONDS
    while (left := _left(threads, children)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left:
        pytest.fail("left behind: " + ", ".join(left), pytrace=False)


def _left(threads: set[threading.Thread], children: set[int]) -> list[str]:
    return [f"thread {thread.name}" for thread in _threads() - threads] + [
        f"child process {pid} ({_command(pid)})" for pid in _children() - children
    ]


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


def _children() -> set[int]:
    """The child processes, also those that have ended and nobody waited for (Linux only)."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(int(pid) for pid in task.read_text().split())
        except FileNotFoundError:  # that thread has ended meanwhile
            continue
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() or "ended"
    except OSError:
        return "ended"
