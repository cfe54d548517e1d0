"""Receivers for the tests of the feed, and the programs that they run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from types import TracebackType
from typing import Self

from asyncmachine.debugger.collector import Collector
from asyncmachine.debugger.records import (
    ClockRecord,
    Clocks,
    DroppedRecord,
    MachineRecord,
    Record,
    TransitionRecord,
)
from tests.races import PATIENCE


class Receiver:
    """A collector that keeps what it hears."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.records: list[Record] = []
        self._changed = Condition()
        self.collector = Collector(self._hear, address)
        self.address = self.collector.address

    def _hear(self, records: list[Record]) -> None:
        with self._changed:
            self.records += records
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[list[Record]], object]) -> None:
        """Wait until what has been heard is as it should be."""
        with self._changed:
            found = self._changed.wait_for(lambda: condition(self.records), PATIENCE)
        assert found, self.records[-20:]

    def transitions(self, machine_id: str | None = None) -> list[TransitionRecord]:
        """Give what has been heard of a machine."""
        return [
            each
            for each in self.records
            if isinstance(each, TransitionRecord) and machine_id in (None, each.machine_id)
        ]

    def machine(self, machine_id: str) -> MachineRecord:
        """Give what was told of a machine last."""
        told = [each for each in self.records if isinstance(each, MachineRecord)]
        return [each for each in told if each.machine_id == machine_id][-1]

    @property
    def dropped(self) -> int:
        """How many transitions were told to be missing."""
        return sum(each.count for each in self.records if isinstance(each, DroppedRecord))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.collector.close()


def replay(records: list[Record], key: str) -> Iterator[tuple[TransitionRecord, dict[str, int]]]:
    """Give each transition of a machine, with its clocks afterwards."""
    clocks = Clocks()
    for record in records:
        clocks.take([record])
        if isinstance(record, TransitionRecord) and record.key == key:
            yield record, clocks[key]


def first_clock(records: list[Record], key: str) -> tuple[int, ...]:
    """Give the clocks that a machine was told to begin with."""
    return next(e.ticks for e in records if isinstance(e, ClockRecord) and e.key == key)


def environment(**more: str) -> dict[str, str]:
    """Give the environment of a program that can import the package, without ``AM_…``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AM_")}
    return {**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **more}


@contextmanager
def program(code: str, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment(**env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """Give the next line that a program prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
