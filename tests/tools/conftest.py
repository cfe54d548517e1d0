from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

APP: Final = """\
from asyncmachine import Machine, State, States

class Door(States):
    Open = State()
    Closed = State(remove=Open)

STATES = {"Foo": State()}
mach = Machine({"Foo": State(), "Bar": State(remove="Foo")}, id="app")
twin = Machine(STATES, id="app")

def build() -> Machine:
    return Machine(Door, id="built")

def fail() -> Machine:
    raise ValueError("no luck")

def build_nothing() -> int:
    return 7
"""


@pytest.fixture
def served_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module ``am_served`` in the current directory."""
    (tmp_path / "am_served.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("AM_SECRET", raising=False)
    yield tmp_path
    sys.modules.pop("am_served", None)
