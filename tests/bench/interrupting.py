"""Ctrl-C to a bench that runs: what it says, and that all its processes end."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

from bench.importing import ROOT


def interrupted(*words: str, heard: bytes) -> tuple[int, str]:
    """Run ``python -m bench`` until its progress says so much, then press Ctrl-C.

    Args:
        words: its arguments.
        heard: what progress has to say first.

    Returns:
        The exit code, and what it printed.

    """
    terminal, theirs = pty.openpty()  # on a terminal, progress is told at once
    with open(terminal, "rb", buffering=0) as said:
        bench = subprocess.Popen(
            [sys.executable, "-m", "bench", *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            so_far = b""
            while heard not in so_far:
                so_far += said.read(100)
            os.killpg(bench.pid, signal.SIGINT)
            # All its processes share its stdout: the end of that is the end of them all.
            out, _ = bench.communicate(timeout=30)
        finally:
            bench.kill()
            bench.wait()
    return bench.returncode, out
