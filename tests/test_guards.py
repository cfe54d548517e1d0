"""The guards of the test suite bite: what is left behind or skipped fails a run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent

LEAKS: Final = """\
import subprocess, sys, threading

def test_thread():
    threading.Thread(target=threading.Event().wait, args=(5,), name="forgotten").start()

def test_process():
    test_process.child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

def test_daemon():
    threading.Thread(target=threading.Event().wait, args=(30,), daemon=True).start()
"""

SKIPS: Final = """\
import pytest

@pytest.mark.skip(reason="no time")
def test_marked(): ...

@pytest.mark.xfail(reason="no luck")
def test_expected(): assert False

def test_inside(): pytest.skip("no idea")

def test_run(): ...
"""


def _pytest(folder: Path, conftest: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run some tests under one of our conftest files, in a process and folder of their own."""
    shutil.copy(conftest, folder / "conftest.py")
    (folder / "test_sample.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--rootdir", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="child processes are read from /proc")
def test_a_test_that_leaves_something_behind_fails(tmp_path: Path) -> None:
    code = LEAKS + "\n\ndef test_tidy():\n    test_process.child.communicate()\n"

    done = _pytest(tmp_path, TESTS / "conftest.py", code)

    assert "left behind: thread forgotten" in done.stdout
    assert "left behind: child process" in done.stdout
    assert "4 passed, 2 errors" in done.stdout


def test_a_skipped_interleaving_fails(tmp_path: Path) -> None:
    done = _pytest(tmp_path, TESTS / "interleavings" / "conftest.py", SKIPS)

    for reason in ("no time", "no luck", "no idea"):
        assert f"skipped: {reason}" in done.stdout.replace("Skipped: ", "")
    assert "2 failed, 1 passed, 1 error" in done.stdout
    assert done.returncode == 1


def test_an_interleaving_module_that_skips_itself_fails(tmp_path: Path) -> None:
    code = "import pytest\npytest.importorskip('no_such_module')\n"

    done = _pytest(tmp_path, TESTS / "interleavings" / "conftest.py", code)

    assert "no_such_module" in done.stdout
    assert "1 error" in done.stdout
    assert done.returncode == 2
