from __future__ import annotations

from examples.pubsub.routers.cache import MessageCache, Seen
from tests.examples.pubsub.routing import sent


def test_a_message_lives_for_five_windows() -> None:
    cache = MessageCache()
    cache.put(sent("m"), "films")
    for _ in range(4):
        cache.shift()
    assert cache.get("m") == sent("m")
    cache.shift()
    assert cache.get("m") is None
    assert len(cache) == 0


def test_gossip_is_about_the_newest_three_windows() -> None:
    cache = MessageCache()
    for number in range(5):
        if number:
            cache.shift()
        cache.put(sent(f"m{number}"), "films")
    assert cache.gossip_ids("films") == ["m4", "m3", "m2"]


def test_gossip_is_about_one_topic() -> None:
    cache = MessageCache()
    cache.put(sent("f"), "films")
    cache.put(sent("b"), "books")
    assert cache.gossip_ids("films") == ["f"]
    assert cache.gossip_ids("songs") == []


def test_a_message_that_is_put_twice_is_there_once_and_grows_no_younger() -> None:
    cache = MessageCache(windows=2, gossip=2)
    cache.put(sent("m"), "films")
    cache.shift()
    cache.put(sent("m"), "films")
    assert cache.gossip_ids("films") == ["m"]
    cache.shift()
    assert cache.get("m") is None


def test_a_peer_is_given_a_message_three_times_at_most() -> None:
    cache = MessageCache()
    cache.put(sent("m"), "films")
    assert [cache.give("m", "a") is not None for _ in range(5)] == [True] * 3 + [False] * 2
    assert cache.give("m", "b") == sent("m")


def test_what_is_forgotten_is_not_given() -> None:
    cache = MessageCache(windows=1, gossip=1)
    cache.put(sent("m"), "films")
    assert cache.give("m", "a") == sent("m")
    cache.shift()
    assert cache.give("m", "a") is None


def test_the_ids_for_gossip_are_the_callers_own() -> None:
    cache = MessageCache()
    cache.put(sent("m"), "films")
    cache.gossip_ids("films").clear()
    assert cache.gossip_ids("films") == ["m"]


def test_a_seen_id_is_forgotten_after_its_time() -> None:
    seen = Seen(120.0)
    seen.add("a", 0.0)
    seen.add("b", 60.0)
    seen.forget(119.9)
    assert ("a" in seen, "b" in seen) == (True, True)
    seen.forget(120.0)
    assert ("a" in seen, "b" in seen) == (False, True)
    seen.forget(1000.0)
    assert len(seen) == 0


def test_an_id_that_is_seen_again_is_forgotten_no_later() -> None:
    seen = Seen(10.0)
    seen.add("a", 0.0)
    seen.add("a", 9.0)
    seen.forget(10.0)
    assert "a" not in seen
