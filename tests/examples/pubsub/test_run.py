"""Whole runs in one process: on virtual time, where they can be repeated, and on the wall's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

import pytest

from examples.pubsub.outcome import Outcome
from examples.pubsub.run import run
from examples.pubsub.settings import Settings
from tests.examples.pubsub.views import Watcher

ROOT: Final = Path(__file__).parents[3]
VIRTUAL: Final = Settings(duration=60, speed=0)
# Runs a simulation with the settings that are its arguments, as a program of its own.
PROGRAM: Final = """\
import sys
from examples.pubsub.run import run
from examples.pubsub.settings import Settings

router, seed, log = sys.argv[1:]
outcome = run(
    Settings(duration=60, speed=0, fail=20, router=router, seed=int(seed), log=log)
)
print(outcome._replace(wall_seconds=0, handlers=[], samples=[], settings={}))
"""


@contextmanager
def started(log: Path, router: str, seed: int, hash_seed: int) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, router, str(seed), str(log)],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(hash_seed)},
        encoding="utf-8",
        stdout=subprocess.PIPE,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def check_sums(outcome: Outcome) -> None:
    """See that an outcome is right in itself."""
    received = sum(each.received for each in outcome.verdicts)
    assert received == len(outcome.latencies) == sum(outcome.hops.values())
    for verdict in outcome.verdicts:
        assert verdict.expected == verdict.received + len(verdict.missed)
        assert verdict.author not in verdict.missed
    assert len({each.id for each in outcome.verdicts}) == len(outcome.verdicts)
    times = [sample.time for sample in outcome.samples]
    assert times == sorted(times)
    assert times[-1] <= outcome.seconds
    for field in ("published", "received", "missed", "duplicates", "frames", "transitions"):
        values = [getattr(sample, field) for sample in outcome.samples]
        assert values == sorted(values), f"{field} has fallen"


# The same again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ["flood", "gossip"])
def test_the_same_seed_gives_the_same_transitions_in_every_process(
    router: str, tmp_path: Path
) -> None:
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    with started(logs[0], router, 7, 1) as one, started(logs[1], router, 7, 2) as two:
        results = [program.communicate()[0] for program in (one, two)]
    first, second = (log.read_text() for log in logs)

    assert results[0] == results[1]
    assert results[0].startswith("Outcome(settings={}, finished=True, seconds=60")
    assert first.splitlines() == second.splitlines()
    assert len(first.splitlines()) > 5000
    assert any(line.endswith("disposed") for line in first.splitlines())  # somebody has crashed


def log_of(settings: Settings, folder: Path) -> str:
    path = folder / "transitions.log"
    run(settings._replace(log=str(path)))
    return path.read_text()


def test_the_same_seed_gives_the_same_transitions_within_a_process(tmp_path: Path) -> None:
    settings = VIRTUAL._replace(duration=10, fail=20)

    assert log_of(settings, tmp_path) == log_of(settings, tmp_path)


@pytest.mark.parametrize("other", [{"seed": 8}, {"router": "flood"}, {"peers": 29}, {"fail": 60.0}])
def test_whatever_is_asked_for_differently_runs_differently(
    other: dict[str, object], tmp_path: Path
) -> None:
    settings = VIRTUAL._replace(duration=10, seed=7)
    changed = settings._replace(**other)  # type: ignore[arg-type]

    assert log_of(settings, tmp_path) != log_of(changed, tmp_path)


def test_speed_changes_nothing(tmp_path: Path) -> None:
    settings = VIRTUAL._replace(duration=10)

    assert log_of(settings, tmp_path) == log_of(settings._replace(speed=500.0), tmp_path)


# Virtual runs -----------------------------------------------------------------------------------


@lru_cache
def two_minutes(router: str) -> Outcome:
    return run(VIRTUAL._replace(duration=120, router=router))


@pytest.mark.parametrize("router", ["flood", "gossip"])
def test_nothing_is_missed(router: str) -> None:
    outcome = two_minutes(router)

    assert [each for each in outcome.verdicts if each.missed] == []
    assert len(outcome.verdicts) > 50
    assert len(outcome.latencies) > 250
    check_sums(outcome)


@pytest.mark.parametrize("router", ["flood", "gossip"])
def test_nothing_is_missed_by_the_living_when_hosts_crash(router: str) -> None:
    outcome = run(VIRTUAL._replace(router=router, fail=12))

    assert [each for each in outcome.verdicts if each.missed] == []
    assert min(sample.peers for sample in outcome.samples[5:]) < 30
    check_sums(outcome)


def test_a_run_that_is_finished_says_so() -> None:
    outcome = two_minutes("gossip")

    assert outcome.finished
    assert outcome.virtual
    assert outcome.seconds == 120
    assert outcome.wall_seconds > 0
    assert outcome.deaths == []
    assert outcome.settings["router"] == "gossip"
    assert outcome.settings["duration"] == "120"


def test_there_is_a_sample_each_second() -> None:
    times = dict.fromkeys(sample.time for sample in two_minutes("gossip").samples)

    assert list(times) == list(range(1, 121))


def test_samples_show_a_network_that_lives() -> None:
    last = two_minutes("gossip").samples[-1]

    assert 25 <= last.peers <= 30
    assert last.topics == 20
    assert 0 < last.active_topics <= 20
    assert last.subscriptions > 100
    assert last.streams > last.peers
    assert last.friends > 20
    assert last.published > 50
    assert 0 < last.received <= last.expected
    assert last.memory > 10_000_000
    # Who has just been asked to join is in the mesh before it is in the topic.
    assert len(last.mesh) >= last.subscriptions
    assert last.payload_bytes > 0
    assert last.control_bytes > 0


def test_gossip_sends_fewer_copies_of_messages_than_flooding() -> None:
    gossip = run(VIRTUAL._replace(duration=30, steady=True, router="gossip"))
    flood = run(VIRTUAL._replace(duration=30, steady=True, router="flood"))

    assert gossip.samples[-1].received == flood.samples[-1].received > 0
    assert gossip.samples[-1].duplicates < flood.samples[-1].duplicates


def test_handlers_of_all_kinds_of_machines_are_known_the_slowest_first() -> None:
    handlers = two_minutes("gossip").handlers

    assert {each.machine for each in handlers} == {
        *("sim", "registry", "host", "discovery", "peer")
    }
    seconds = [each.seconds for each in handlers]
    assert seconds == sorted(seconds, reverse=True)


def test_messages_travel_within_the_latencies_of_the_network() -> None:
    outcome = two_minutes("flood")

    assert min(outcome.latencies) > 0.001
    assert max(outcome.latencies) < 1
    assert 0.005 < sorted(outcome.latencies)[len(outcome.latencies) // 2] < 0.02


def test_messages_need_not_be_signed() -> None:
    signed = run(VIRTUAL._replace(duration=20, steady=True))
    unsigned = run(VIRTUAL._replace(duration=20, steady=True, signed=False))

    assert unsigned.samples[-1].received == signed.samples[-1].received > 0
    assert unsigned.samples[-1].payload_bytes < signed.samples[-1].payload_bytes


def test_messages_without_a_verdict_at_the_end_are_no_misses() -> None:
    outcome = run(VIRTUAL._replace(duration=4, deadline=100))

    assert outcome.verdicts
    assert not any(each.missed for each in outcome.verdicts)
    check_sums(outcome)


def test_who_watches_sees_all_samples() -> None:
    watcher = Watcher()

    outcome = run(VIRTUAL._replace(duration=20), watcher, watcher.stop)

    assert watcher.samples == outcome.samples
    assert watcher.latencies == [sample.received for sample in outcome.samples]
    assert watcher.progress[9] == 0.5
    assert watcher.progress[-1] == 1.0
    assert 0 < len(watcher.handlers) <= 8


@pytest.mark.parametrize("speed", [0.0, 500.0])
def test_a_run_ends_early_when_it_is_stopped(speed: float) -> None:
    watcher = Watcher(lambda sample: sample.time >= 20)

    outcome = run(VIRTUAL._replace(speed=speed), watcher, watcher.stop)

    assert not outcome.finished
    assert outcome.seconds == 20
    assert outcome.samples[-1].time == 20
    check_sums(outcome)


def test_a_run_that_is_stopped_before_it_begins_has_an_outcome_too() -> None:
    watcher = Watcher()
    watcher.stop.set()

    outcome = run(VIRTUAL, watcher, watcher.stop)

    assert not outcome.finished
    assert outcome.seconds == 0
    assert not outcome.verdicts


# On the wall's clock ----------------------------------------------------------------------------

WALL: Final = Settings(peers=12, duration=30, steady=True)


def test_messages_arrive_by_the_clock_of_the_wall() -> None:
    # Whoever is there gets both of the first messages.
    watcher = Watcher(lambda sample: sample.received >= 2 * 11)

    outcome = run(WALL, watcher, watcher.stop)

    assert not outcome.finished
    assert not outcome.virtual
    assert outcome.samples[-1].peers == 12
    first, second = outcome.verdicts[:2]
    assert first.received == second.received == 11
    assert not any(each.missed for each in outcome.verdicts)
    assert all(latency > 0 for latency in outcome.latencies)
    check_sums(outcome)


def test_a_run_on_the_wall_ends_after_its_duration() -> None:
    outcome = run(Settings(peers=8, topics=3, duration=1.25))

    assert outcome.finished
    assert outcome.seconds >= 1.25
    check_sums(outcome)
