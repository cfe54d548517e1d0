"""Killed at any moment under load, a history is whole and tells what was true."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import pytest

from asyncmachine import Tracer, Transition
from asyncmachine.history import SQLiteHistory, restore
from tests.history.victim import IDS, build, step

ROOT = Path(__file__).parents[2]
KILLS = 20  # of each kind
MUCH = 100  # ticks of a machine


@pytest.fixture(autouse=True)
def _errors_of_handlers_are_not_logged() -> Iterator[None]:
    logger = logging.getLogger("asyncmachine")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


def kill_one(path: Path, durable: str, after: float | None) -> dict[str, tuple[int, ...]]:
    """Run a victim for so many seconds, kill it, and give what it had promised last.

    Without a time it is killed when each of its machines has promised a lot.
    """
    command = [sys.executable, "-m", "tests.history.victim", str(path), durable]
    with (
        path.with_suffix(".errors").open("w+") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors) as victim,
    ):
        assert victim.stdout is not None
        lines = [victim.stdout.readline() for _ in IDS]
        while after is None and min(sum(each) for each in last_of(lines).values()) <= MUCH:
            lines.append(victim.stdout.readline())
        reader = threading.Thread(target=lines.extend, args=(victim.stdout,))
        reader.start()  # else the victim would wait as soon as the pipe is full
        time.sleep(after or 0)  # the moment is random: that is the point
        victim.kill()
        reader.join()
        errors.seek(0)
        assert errors.read() == ""
    return last_of(lines)


def last_of(lines: Sequence[bytes]) -> dict[str, tuple[int, ...]]:
    """What was promised last of each machine."""
    promised = {}
    for line in lines:
        machine_id, reached = json.loads(line)
        promised[machine_id] = tuple(reached)
    assert set(promised) == set(IDS)
    return promised


class Course(Tracer):
    """Every state that a machine goes through from one life of the victim to the next."""

    def __init__(self, machine_id: str, start: Mapping[str, object]) -> None:
        self.machine = build(machine_id, self)
        self.machine.import_state(start)
        self.seen = {self.machine.time()}

    def transition_end(self, tx: Transition) -> None:
        self.seen.add(tx.time_after)

    def leads_to(self, end: tuple[int, ...]) -> bool:
        """Whether the machine comes by there."""
        while self.machine.time_sum() < sum(end):
            step(self.machine)
        return end in self.seen


@pytest.mark.parametrize("durable", ["durable", "behind"])
def test_nothing_that_was_promised_is_lost_and_nothing_is_restored_that_did_not_hold(
    tmp_path: Path, durable: str
) -> None:
    path = tmp_path / "file.history"
    rnd = Random()
    start = {machine_id: build(machine_id).export_state() for machine_id in IDS}
    reached = {machine_id: build(machine_id).time() for machine_id in IDS}
    for life in range(KILLS):
        # The last life goes on until there has been work, however slow all this is.
        after = rnd.choice([0, rnd.random() * 0.02, rnd.random() * 0.3])
        promised = kill_one(path, durable, after if life < KILLS - 1 else None)
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.close()
        with SQLiteHistory(path) as history:
            for machine_id in IDS:
                machine = build(machine_id)
                restore(machine, history)
                now = machine.time()
                assert all(a >= b for a, b in zip(now, promised[machine_id], strict=True))
                assert Course(machine_id, start[machine_id]).leads_to(now)
                # What is told of records may be behind the clocks, but not behind what is promised.
                newest = history.latest(machine=machine_id)
                told = newest.time if newest else (0,) * len(now)
                assert all(a >= b for a, b in zip(now, told, strict=True))
                if promised[machine_id] != reached[machine_id]:  # it has worked
                    assert all(a >= b for a, b in zip(told, promised[machine_id], strict=True))
                start[machine_id] = machine.export_state()
                reached[machine_id] = now
    with SQLiteHistory(path) as history:
        for machine_id in IDS:
            machine = build(machine_id)
            restore(machine, history)
            assert machine.time_sum() > MUCH
