"""Tracers that the environment asks for, in real programs with real entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from asyncmachine import Machine, State
for name in ("a", "b"):
    print(name, Machine({"Foo": State()}, id=name).add("Foo"))
"""
PLUGIN = """
from asyncmachine import Tracer
class Printer(Tracer):
    def machine_init(self, mach):
        print("init", mach.id)
    def transition_end(self, tx):
        print("end", tx.machine.id)
def make():
    print("made")
    return Printer()
def fail():
    raise LookupError("no such thing")
def nothing():
    return None
"""
ENTRY_POINTS = """
[asyncmachine.tracers]
AM_PRINTER = plugin:make
AM_FAILING = plugin:fail
AM_NOTHING = plugin:nothing
AM_MISSING = no_such_module:make
"""


def _run(folder: Path, **environment: str) -> tuple[list[str], str]:
    """Run the program with the plug-in installed, and these environment variables."""
    info = folder / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "plugin.py").write_text(PLUGIN)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AM_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**inherited, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.splitlines(), done.stderr


def test_a_tracer_that_the_environment_asks_for_hears_of_every_machine(tmp_path: Path) -> None:
    told, errors = _run(tmp_path, AM_PRINTER="1")
    assert told == [
        "made",
        "init a",
        "end a",
        "a Result.EXECUTED",
        "init b",
        "end b",
        "b Result.EXECUTED",
    ]
    assert errors == ""


def test_nobody_is_loaded_unless_asked_for(tmp_path: Path) -> None:
    assert _run(tmp_path, AM_PRINTER="", AM_OTHER="1") == (
        ["a Result.EXECUTED", "b Result.EXECUTED"],
        "",
    )


def test_one_that_can_not_be_had_is_logged_and_the_program_goes_on(tmp_path: Path) -> None:
    told, errors = _run(tmp_path, AM_FAILING="1", AM_MISSING="1", AM_NOTHING="1")
    assert told == ["a Result.EXECUTED", "b Result.EXECUTED"]
    assert "the tracer that AM_FAILING asks for can not be had" in errors
    assert "the tracer that AM_MISSING asks for can not be had" in errors
    assert "no such thing" in errors
    assert "AM_NOTHING" not in errors
