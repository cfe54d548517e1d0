"""What ``import asyncmachine`` costs: CPU time of a fresh interpreter, with it and without."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Final

from bench.measure import BenchError

__all__ = ["import_cost_ms"]

_STARTS: Final = 15
_ROOT: Final = Path(__file__).parents[1]


def import_cost_ms() -> float:
    """Median of the CPU milliseconds that the import adds to starting Python."""
    _cpu_ms("import asyncmachine")  # The first one writes the byte code.
    return median(_cpu_ms("import asyncmachine") - _cpu_ms("pass") for _ in range(_STARTS))


def _cpu_ms(program: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        msg = f"{program!r} failed: {done.stderr.strip()}"
        raise BenchError(msg)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent * 1000
