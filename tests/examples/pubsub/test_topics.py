from __future__ import annotations

import pytest

from examples.pubsub.topics import ACTIVE_SECONDS, PEAK, Topic, topic_name


def active(topic: Topic) -> set[str]:
    return set(topic.machine.active_states())


def with_members(count: int) -> Topic:
    topic = Topic("films")
    topic.members.update(dict.fromkeys(f"p{number}" for number in range(count)))
    topic.refresh(0.0)
    return topic


def test_a_topic_is_stale_at_first() -> None:
    assert active(Topic("films")) == {"Stale"}


def test_it_has_peers_as_soon_as_one_has_joined() -> None:
    topic = Topic("films")
    topic.coming["p0"] = None
    topic.refresh(0.0)
    assert active(topic) == {"Stale"}

    topic.members["p0"] = None
    topic.refresh(1.0)
    assert active(topic) == {"Stale", "HasPeers"}

    del topic.members["p0"]
    topic.refresh(2.0)
    assert active(topic) == {"Stale"}


def test_it_is_active_for_a_minute_after_a_message() -> None:
    topic = Topic("films")
    topic.last_message = 10.0

    topic.refresh(10.0 + ACTIVE_SECONDS)
    assert active(topic) == {"Active"}

    topic.refresh(11.0 + ACTIVE_SECONDS)
    assert active(topic) == {"Stale"}


def test_it_peaks_with_ten_peers() -> None:
    assert PEAK == 10
    assert active(with_members(9)) == {"Stale", "HasPeers"}
    assert active(with_members(10)) == {"HasPeers", "Peaking"}


def test_it_peaks_no_more_when_peers_leave() -> None:
    topic = with_members(10)

    topic.members.popitem()
    topic.refresh(1.0)
    assert active(topic) == {"Stale", "HasPeers"}

    topic.members.clear()
    topic.refresh(2.0)
    assert active(topic) == {"Stale"}


def test_all_can_leave_a_peak_at_once() -> None:
    topic = with_members(10)

    topic.members.clear()
    topic.refresh(1.0)

    assert active(topic) == {"Stale"}


def test_nothing_happens_if_nothing_has_changed() -> None:
    topic = with_members(10)
    before = topic.machine.time()

    topic.refresh(1.0)

    assert topic.machine.time() == before


@pytest.mark.parametrize("limit", [1, 20, 100])
def test_no_two_topics_are_called_the_same(limit: int) -> None:
    names: list[str] = []
    for number in range(300):
        names.append(topic_name(number, names[-limit:]))

    assert len(set(names)) == 300


def test_names_are_fit_for_ids_and_files() -> None:
    assert all(topic_name(number, []).replace("-", "").isalnum() for number in range(100))
