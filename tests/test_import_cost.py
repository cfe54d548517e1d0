"""Importing the core is quick, since it loads little. What is loaded is checked, not the time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import asyncmachine

ROOT: Final = Path(asyncmachine.__file__).parents[1]

# Each costs more than the whole core may. The core loads them when it must, if ever.
HEAVY: Final = (
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "difflib",
    "inspect",
    "json",
    "logging",
    "multiprocessing",
    "socket",
    "subprocess",
    "tempfile",
    "traceback",
    "unittest",
)


def _loaded_by(code: str) -> set[str]:
    """The modules that some code loads in an interpreter that has nothing to begin with."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(*sys.modules)"
    bare = [sys.executable, "-I", "-S", "-c", script]
    return set(subprocess.run(bare, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import asyncmachine", id="importing"),
        pytest.param("import asyncmachine.states", id="ready-made schemas"),
        pytest.param(
            "from asyncmachine import Machine, State\n"
            "mach = Machine({'Foo': State(), 'Bar': State(remove='Foo')})\n"
            "assert mach.add('Foo') and mach.add('Bar') and mach.is_active('Bar')\n"
            "assert mach.when('Bar').is_set()\n"
            "mach.dispose()",
            id="a life without handlers",
        ),
    ],
)
def test_the_core_loads_no_heavy_module(code: str) -> None:
    loaded = _loaded_by(code)

    assert "asyncmachine.machine" in loaded
    assert loaded.isdisjoint(HEAVY), f"loaded: {sorted(loaded.intersection(HEAVY))}"


def test_the_core_loads_no_subpackage() -> None:
    packages = {path.parent.name for path in ROOT.glob("asyncmachine/*/__init__.py")}

    loaded = {
        name.split(".")[1] for name in _loaded_by("import asyncmachine") if "asyncmachine." in name
    }

    assert loaded.isdisjoint(packages)
