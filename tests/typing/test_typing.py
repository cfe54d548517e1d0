"""Editors and checkers know the interface: right code passes, wrong code is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parents[2]
ACCEPTED: Final = Path(__file__).with_name("accepted.py")
REFUSED: Final = Path(__file__).with_name("refused.py")


def _mypy(file: Path) -> dict[int, str]:
    """What mypy complains about, by line; faults of the package are found by make types."""
    output = _run("mypy", "--output=json", str(file.relative_to(ROOT)))
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {
        each["line"]: each["message"]
        for each in found
        if each["severity"] == "error" and (ROOT / each["file"]) == file
    }


def _pyright(file: Path) -> dict[int, str]:
    """What pyright complains about, by line; it counts lines from 0."""
    output = _run("pyright", "--outputjson", str(file))
    found = json.loads(output[output.index("{") :])
    assert found["summary"]["filesAnalyzed"] == 1, output
    return {
        each["range"]["start"]["line"] + 1: each["message"] for each in found["generalDiagnostics"]
    }


def _run(checker: str, *arguments: str) -> str:
    command = [sys.executable, "-m", checker, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # 1: it has found faults
    return done.stdout


checkers = pytest.mark.parametrize("check", [_mypy, _pyright], ids=["mypy", "pyright"])


@pytest.mark.timeout(300)  # a checker without a cache reads the whole standard library
@checkers
def test_typical_code_is_accepted(check: Callable[[Path], dict[int, str]]) -> None:
    assert check(ACCEPTED) == {}


@pytest.mark.timeout(300)
@checkers
def test_each_mistake_is_refused_and_nothing_else(check: Callable[[Path], dict[int, str]]) -> None:
    lines = enumerate(REFUSED.read_text(encoding="utf-8").splitlines(), start=1)
    marked = {number: line.strip() for number, line in lines if line.endswith("# refused")}

    refused = check(REFUSED)

    missed = [f"line {number}: {line}" for number, line in marked.items() if number not in refused]
    assert missed == []
    assert {number: why for number, why in refused.items() if number not in marked} == {}
