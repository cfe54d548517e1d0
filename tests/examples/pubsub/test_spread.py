"""Runs over several processes."""

from __future__ import annotations

from typing import Final

from examples.pubsub.run import run
from examples.pubsub.settings import Settings
from tests.examples.pubsub.views import Watcher

PEERS: Final = 12
# Longer than it takes: what is waited for ends it.
STEADY: Final = Settings(peers=PEERS, processes=2, duration=40, steady=True)


def test_messages_reach_everybody_in_all_processes() -> None:
    others = PEERS - 1
    watcher = Watcher(
        # Both sites have told of their hosts, each of which is in the one topic; and the
        # messages of two rounds have arrived.
        lambda sample: len(sample.mesh) == PEERS and sample.received >= 4 * others
    )

    outcome = run(STEADY, watcher, watcher.stop)

    assert watcher.stop.is_set()
    assert not outcome.finished
    assert outcome.deaths == []
    assert not any(each.missed for each in outcome.verdicts)
    assert [each.received for each in outcome.verdicts[:4]] == [others] * 4
    assert len(outcome.latencies) == sum(outcome.hops.values()) >= 4 * others
    assert all(latency > 0 for latency in outcome.latencies)
    last = outcome.samples[-1]
    assert last.peers == last.subscriptions == PEERS
    assert all(last.mesh)
    assert last.streams >= PEERS
    assert last.frames > 0
    assert {each.machine for each in outcome.handlers} >= {
        *("sim", "registry", "host", "discovery", "peer", "site")
    }


def test_the_rest_goes_on_when_a_process_is_killed() -> None:
    left = PEERS * 2 // 3
    seen_all: list[bool] = []
    received: list[int] = []

    def enough(sample: object) -> bool:
        last = watcher.samples[-1]
        if len(last.mesh) == PEERS:
            seen_all.append(True)
        if last.peers == left:
            received.append(last.received)
        # Something has arrived since the death.
        return bool(received) and received[-1] >= received[0] + 2 * (left - 1)

    watcher = Watcher(enough)

    outcome = run(STEADY._replace(processes=3, kill_process=2), watcher, watcher.stop)

    assert watcher.stop.is_set()
    assert seen_all
    ((when, what),) = outcome.deaths
    assert when >= 2
    assert what == "process 3, exit code -9"
    assert not any(each.missed for each in outcome.verdicts)
    last = outcome.samples[-1]
    assert (last.peers, last.subscriptions) == (left, left)
    assert len(last.mesh) == left
    for field in ("transitions", "frames", "received", "payload_bytes"):
        values = [getattr(sample, field) for sample in outcome.samples]
        assert values == sorted(values), f"{field} has fallen"
    # After that, messages went to those who are left.
    assert [each.received for each in outcome.verdicts if each.sent > when + 1][:1] == [left - 1]


def test_peers_and_topics_come_and_go_in_all_processes() -> None:
    watcher = Watcher(lambda sample: sample.received > 0 and sample.topics > 1)

    outcome = run(STEADY._replace(steady=False, topics=3, router="flood"), watcher, watcher.stop)

    assert watcher.stop.is_set()
    assert not any(each.missed for each in outcome.verdicts)


def test_a_run_over_processes_ends_after_its_duration() -> None:
    outcome = run(STEADY._replace(peers=4, duration=1))

    assert outcome.finished
    assert outcome.seconds >= 1
