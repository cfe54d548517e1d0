"""What the tests of histories share: both backends, and a machine to record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from asyncmachine import Machine, State
from asyncmachine.history import MemoryHistory, SQLiteHistory

Either: TypeAlias = "MemoryHistory | SQLiteHistory"

SCHEMA = {
    "Foo": State(),
    "Bar": State(remove="Foo"),
    "Baz": State(require="Bar"),
    "Many": State(multi=True),
}


class Maker:
    """Makes histories of one kind."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        self._made = 0

    @contextmanager
    def __call__(self, **options: Any) -> Iterator[Either]:
        """A history that is closed when the block ends."""
        if self.kind == "memory":
            yield MemoryHistory(**options)
        else:
            self._made += 1
            with SQLiteHistory(self._folder / f"{self._made}.history", **options) as history:
                yield history


class Clock:
    """The clock of the system, as a test sets it; real time goes on in it."""

    def __init__(self) -> None:
        self._ahead_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self._ahead_ns

    def advance(self, seconds: float) -> None:
        self._ahead_ns += int(seconds * 1e9)


both = pytest.mark.parametrize("kind", ["memory", "sqlite"])


def machine(*histories: Either, id: str = "m", **options: Any) -> Machine:
    return Machine(options.pop("schema", SCHEMA), id=id, tracers=histories, **options)
