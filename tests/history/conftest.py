from __future__ import annotations

from pathlib import Path

import pytest

from asyncmachine.history import filling, memory, sqlite, tracking, tracks
from tests.history.backends import Clock, Maker


@pytest.fixture
def make(kind: str, tmp_path: Path) -> Maker:
    """Makes histories of the kind that the test is run for."""
    return Maker(kind, tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the wall time that histories see."""
    clock = Clock()
    for module in (filling, memory, sqlite, tracking, tracks):
        monkeypatch.setattr(module, "time_ns", clock)
    return clock
