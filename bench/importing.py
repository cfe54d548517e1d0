"""What ``import asyncmachine`` costs: CPU time of a fresh interpreter, with it and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from bench.measure import BenchError

__all__ = ["ROOT", "import_cost_ms"]

_STARTS: Final = 15
ROOT: Final = Path(__file__).parents[1]


def import_cost_ms() -> float:
    """Median of the CPU milliseconds that the import adds to starting Python.

    Byte code is kept, as for whatever is installed, also where the environment forbids
    that: compiling the package at every start costs more than all the rest.
    """
    with TemporaryDirectory(prefix="bench-bytecode-") as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        _cpu_ms("import asyncmachine", environment)
        return median(
            _cpu_ms("import asyncmachine", environment) - _cpu_ms("pass", environment)
            for _ in range(_STARTS)
        )


def _cpu_ms(program: str, environment: dict[str, str]) -> float:
    import resource  # There is none on Windows, where only this case fails.

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        msg = f"{program!r} failed: {done.stderr.strip()}"
        raise BenchError(msg)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent * 1000
