"""The simulator in a world that only takes down what is asked of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Final

import pytest

from examples.pubsub.clock import VirtualClock
from examples.pubsub.settings import Settings
from examples.pubsub.sim import PERIODS, Simulator
from tests.examples.pubsub.world import Attempts, PromptWorld, Scene, World, is_sound

# Several runs of the dice, for what holds whatever they say.
SEEDS: Final = (1, 2, 3, 4, 5)


def a_run(settings: Settings, watch: Callable[[Simulator], object] = is_sound) -> Attempts:
    """Run a simulator whose peers do at once what they are asked to; watch it each second."""
    clock = VirtualClock()
    world = PromptWorld(clock)
    sim = world.simulator = Simulator(settings, clock, world, lambda: watch(sim))
    attempts = Attempts(clock)
    sim.machine.add_tracer(attempts)
    clock.call_later(0, lambda: sim.machine.add("Start"))
    clock.run(settings.duration)
    assert not sim.machine.is_active("Exception")
    return attempts


# Beginning and end ------------------------------------------------------------------------------


def test_it_begins_with_all_peers_and_ten_topics() -> None:
    scene = Scene(topics=20, peers=30)

    assert scene.world.made == [f"p{number}" for number in range(30)]
    assert len(scene.sim.topics) == 10
    assert not scene.peers  # none is ready yet
    assert not scene.world.told


def test_it_begins_with_fewer_topics_if_there_may_be_fewer() -> None:
    assert len(Scene(topics=3, peers=2).sim.topics) == 3


def test_the_machine_of_each_topic_is_told_of() -> None:
    scene = Scene(topics=3, peers=3)
    seen: list[str] = []
    scene.sim.topic_made = lambda machine: seen.append(machine.id)
    scene.act("RemoveTopic")
    scene.make_ready(*scene.world.made)

    assert scene.act("AddTopic")

    assert seen == [scene.sim.topics[name].machine.id for name in list(scene.sim.topics)[-1:]]


def test_a_peer_that_is_ready_joins_topics_that_lack_peers() -> None:
    scene = Scene(topics=2, peers=7)

    scene.make_ready(*scene.world.made)

    assert [list(topic.members) for topic in scene.sim.topics.values()] == [
        ["p0", "p1", "p2", "p3", "p4"]
    ] * 2
    assert [told.args["alone"] for told in scene.world.take("JoiningTopic")] == [
        *[True, True],
        *[False] * 8,
    ]


def test_a_peer_is_in_a_topic_when_it_says_so() -> None:
    scene = Scene(peers=2)
    scene.tell("ready", peer="p0")
    assert (list(scene.topic.members), list(scene.topic.coming)) == ([], ["p0"])

    scene.tell("joined", peer="p0", topic=scene.topic.name)

    assert (list(scene.topic.members), list(scene.topic.coming)) == (["p0"], [])


def test_what_strangers_say_is_ignored() -> None:
    scene = Scene(ready=2)
    scene.tell("ready", peer="p77")
    scene.tell("joined", peer="p77", topic=scene.topic.name)
    scene.tell("joined", peer="p0", topic="no topic")
    scene.tell("left", peer="p0", topic="no topic")
    scene.tell("sent", peer="p0", ids=["p0/77"], when=1.0)
    scene.receive("p0/77", "p1")

    assert list(scene.peers) == list(scene.topic.members) == ["p0", "p1"]
    assert scene.sim.check.received == 0


def test_nothing_happens_before_it_has_started() -> None:
    sim = Simulator(Settings(), VirtualClock(), World())

    assert not any(sim.machine.add(action) for action in ("Heartbeat", "SiteLost", *PERIODS))


def test_its_heart_stops_when_it_is_stopped() -> None:
    scene = Scene(ready=5)
    scene.clock.run(5)
    scene.sim.machine.remove("Start")
    scene.clock.run(50)

    assert scene.samples == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_steady_run_has_all_peers_in_one_topic_and_messages_only() -> None:
    states: list[tuple[int, int]] = []

    attempts = a_run(
        Settings(peers=14, topics=9, steady=True, duration=60),
        lambda sim: states.append((len(sim.peers), len(sim.topics))),
    )

    assert set(states) == {(14, 1)}
    assert set(attempts.of) == {
        *("Start", "Heartbeat", "PeerTold"),
        *("MsgRandomTopic", "VerifyMsgsRecv", "RefreshMetrics"),
    }


def test_a_steady_run_waits_for_all_before_it_sends() -> None:
    scene = Scene(topics=1, ready=3, peers=4, steady=True)
    assert not scene.act("MsgRandomTopic")

    scene.tell("ready", peer="p3")
    assert not scene.act("MsgRandomTopic")

    scene.join_all()
    assert scene.act("MsgRandomTopic")


# When actions come ------------------------------------------------------------------------------


@lru_cache
def a_long_run() -> Attempts:
    return a_run(Settings(peers=20, topics=12, duration=4000, seed=7))


@pytest.mark.parametrize("action", PERIODS)
def test_an_action_is_asked_for_again_its_period_after_it_was_accepted(action: str) -> None:
    attempts, period = a_long_run().of[action], PERIODS[action]
    earliest = max(1, math.ceil(0.75 * period))
    latest = max(1, math.ceil(1.25 * period))

    gaps = [again - time for (time, accepted), (again, _) in pairwise(attempts) if accepted]

    assert set(gaps) <= set(range(earliest, latest + 1))
    if period:
        assert len(set(gaps)) > 1
    if period >= 10:  # else heartbeats are too far apart to tell
        assert min(gaps) < 0.9 * period
        assert max(gaps) > 1.1 * period


@pytest.mark.parametrize("action", PERIODS)
def test_a_refused_action_is_asked_for_again_at_the_next_heartbeat(action: str) -> None:
    attempts = a_long_run().of[action]

    gaps = [again - time for (time, accepted), (again, _) in pairwise(attempts) if not accepted]

    assert set(gaps) <= {1}
    if action in ("AddPeer", "AddTopic", "JoinRandomTopic", "JoinFriendsTopic"):
        assert gaps  # it has been refused, so this is no empty claim


@pytest.mark.parametrize("seed", SEEDS)
def test_all_that_it_knows_stays_sound_and_within_its_limits(seed: int) -> None:
    fullest: list[int] = []

    def watch(sim: Simulator) -> None:
        assert is_sound(sim)
        assert len(sim.peers) <= 15
        assert len(sim.topics) <= 12
        fullest.append(max(len(topic.members) for topic in sim.topics.values()))

    a_run(Settings(peers=15, topics=12, duration=400, seed=seed, fail=4), watch)

    assert max(fullest) == 10  # there were peaks


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_asks_the_same_of_the_world(seed: int) -> None:
    def asked(seed: int) -> list[object]:
        scene = Scene(ready=12, topics=8, peers=14, seed=seed, fail=10)
        scene.clock.run(100)
        return [scene.world.made, scene.world.stopped, scene.world.told]

    assert asked(seed) == asked(seed)
    assert asked(seed) != asked(seed + 1)


# Peers ------------------------------------------------------------------------------------------


def test_a_peer_is_added_up_to_the_limit() -> None:
    scene = Scene(ready=2, fail=6000)
    assert not scene.act("AddPeer")
    scene.act("SiteLost", site=0)

    assert scene.act("AddPeer")

    assert scene.world.made == ["p0", "p1", "p2"]


def test_peers_that_are_not_ready_yet_count() -> None:
    assert not Scene(peers=3).act("AddPeer")


def test_a_peer_is_removed_from_all_that_is_known() -> None:
    scene = Scene(topics=2, ready=3)
    scene.befriend("p0", "p1")
    scene.befriend("p1", "p2")
    scene.befriend("p2", "p0")

    assert scene.act("RemovePeer")

    ((gone, site, crash),) = scene.world.stopped
    assert not crash
    assert site == (int(gone[1:]) + 1) % 2
    assert gone not in scene.peers
    assert len(scene.peers) == 2
    assert is_sound(scene.sim)


def test_nine_in_ten_peers_are_kept() -> None:
    scene = Scene(ready=10)

    assert scene.act("RemovePeer")
    assert not scene.act("RemovePeer")


def test_a_peer_that_was_removed_while_it_joined_is_not_awaited() -> None:
    scene = Scene(peers=1)
    scene.tell("ready", peer="p0")

    assert scene.act("RemovePeer")
    scene.tell("joined", peer="p0", topic=scene.topic.name)

    assert not scene.topic.members
    assert not scene.topic.coming


def test_a_peer_that_is_removed_is_owed_no_message() -> None:
    scene = Scene(ready=2)
    scene.sim.send_messages(scene.topic, "p0", 1)
    scene.sim.send_messages(scene.topic, "p1", 1)
    scene.act("RemovePeer")
    scene.act("RemovePeer")
    ((gone, *_),) = scene.world.stopped
    (kept,) = scene.peers

    scene.receive("p0/1" if kept == "p1" else "p1/2", kept)
    scene.sim.check.settle(60)

    assert gone != kept
    assert [(each.expected, each.received) for each in scene.sim.check.verdicts] in (
        [(1, 1), (0, 0)],
        [(0, 0), (1, 1)],
    )


def test_crashes_come_as_often_as_asked_for_and_without_a_word() -> None:
    scene = Scene(ready=60, topics=3, fail=30)
    scene.clock.run(60)

    crashed = [name for name, _, crash in scene.world.stopped if crash]
    assert 15 < len(crashed) < 45
    assert not scene.peers.keys() & set(crashed)
    assert is_sound(scene.sim)


def test_without_failures_nobody_crashes() -> None:
    scene = Scene(ready=20)
    scene.clock.run(200)

    assert scene.world.stopped
    assert not any(crash for _, _, crash in scene.world.stopped)


def test_what_a_crashed_peer_was_about_to_send_is_not_missed() -> None:
    scene = Scene(ready=2, fail=6000, steady=True)
    for name in ("p0", "p1"):
        scene.sim.send_messages(scene.topic, name, 1)
    scene.clock.run(1)
    assert len(scene.world.stopped) == 1
    scene.sim.check.settle(60)

    # The one that lives never got it, and the one that has crashed can not.
    assert [(each.expected, each.missed) for each in scene.sim.check.verdicts] == [(0, ())] * 2


def test_a_lost_site_takes_its_peers_along() -> None:
    scene = Scene(topics=2, ready=4, peers=6)
    scene.befriend("p0", "p1")
    here = [f"p{number}" for number in (1, 3)]

    assert scene.act("SiteLost", site=1)  # p0, p2, and p4 that was not ready

    assert list(scene.peers) == here
    assert not scene.peers["p1"].friends
    assert [list(topic.members) for topic in scene.sim.topics.values()] == [here] * 2
    assert not scene.world.stopped  # there is nobody to stop
    scene.make_ready("p4", "p5")
    assert list(scene.peers) == [*here, "p5"]


def test_a_lost_site_is_owed_no_message_and_owes_none() -> None:
    scene = Scene(ready=3)
    scene.sim.send_messages(scene.topic, "p0", 1)  # to p1 and p2
    scene.sim.send_messages(scene.topic, "p1", 1)  # to p0 and p2

    scene.act("SiteLost", site=1)  # p0 and p2
    scene.sim.check.settle(60)

    assert [(each.expected, each.missed) for each in scene.sim.check.verdicts] == [(0, ())] * 2


# Topics -----------------------------------------------------------------------------------------


def test_a_topic_is_added_with_five_peers() -> None:
    scene = Scene(topics=2, ready=7)
    first, second = scene.sim.topics
    scene.act("RemoveTopic")
    scene.world.take("JoiningTopic")

    assert scene.act("AddTopic")

    *_, added = scene.sim.topics.values()
    assert added.name not in (first, second)
    assert len(added.coming) == 5
    joins = scene.world.take("JoiningTopic")
    assert [told.peer for told in joins] == list(added.coming)
    assert [told.args for told in joins] == [
        {"topic": added.name, "alone": number == 0} for number in range(5)
    ]


def test_no_topic_is_added_beyond_the_limit() -> None:
    assert not Scene(topics=1, ready=2).act("AddTopic")


def test_no_topic_is_added_if_no_peer_has_room_for_one() -> None:
    scene = Scene(topics=11, ready=1)
    for number in range(5):
        scene.peers["p0"].topics[f"more {number}"] = None

    assert not scene.act("AddTopic")

    del scene.peers["p0"].topics["more 0"]
    assert scene.act("AddTopic")


def test_a_topic_is_removed_and_its_peers_leave() -> None:
    scene = Scene(topics=1, ready=3, peers=4)
    scene.tell("ready", peer="p3")  # and is still joining
    topic = scene.topic

    assert scene.act("RemoveTopic")

    assert not scene.sim.topics
    assert topic.machine.is_disposed
    assert [(told.peer, told.args) for told in scene.world.take("LeavingTopic")] == [
        (name, {"topic": topic.name}) for name in scene.peers
    ]
    assert not any(known.topics for known in scene.peers.values())
    scene.tell("joined", peer="p3", topic=topic.name)  # which it said too late
    assert is_sound(scene.sim)


def test_no_topic_is_removed_if_there_is_none() -> None:
    scene = Scene(topics=1, ready=3)

    assert scene.act("RemoveTopic")
    assert not scene.act("RemoveTopic")


def test_messages_of_a_topic_that_is_removed_are_owed_to_nobody() -> None:
    scene = Scene(topics=1, ready=4)
    (message,) = scene.sim.send_messages(scene.topic, "p0", 1)
    scene.receive(message, "p1")
    assert scene.sim.check.promised == 3

    scene.act("RemoveTopic")
    scene.sim.check.settle(60)

    (verdict,) = scene.sim.check.verdicts
    assert (verdict.expected, verdict.received, verdict.missed) == (1, 1, ())
    assert scene.sim.check.promised == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_peak_has_five_more_peers_join_who_are_known_as_members(seed: int) -> None:
    scene = Scene(topics=3, ready=12, seed=seed)
    scene.world.take("JoiningTopic")

    assert scene.act("PeakRandTopic")

    joins = scene.world.take("JoiningTopic")
    (name,) = {told.args["topic"] for told in joins}
    topic = scene.sim.topics[str(name)]
    assert len(joins) == len(topic.coming) == 5
    assert all(name in scene.peers[told.peer].topics for told in joins)
    assert not any(told.args["alone"] for told in joins)
    scene.join_all()
    assert len(topic.members) == 10
    assert is_sound(scene.sim)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_peak_stays_within_ten_peers_of_a_topic(seed: int) -> None:
    scene = Scene(topics=3, ready=20, seed=seed)
    for topic in scene.sim.topics.values():
        for name in ("p10", "p11", "p12"):
            scene.join(name, topic)

    while scene.act("PeakRandTopic"):
        pass  # until it chooses one that is full

    assert 8 <= len(scene.topic.members) + len(scene.topic.coming) <= 10
    assert is_sound(scene.sim)
    assert 10 in [len(each.members) + len(each.coming) for each in scene.sim.topics.values()]


@pytest.mark.parametrize(("topics", "ready"), [(2, 12), (3, 9)])
def test_there_is_no_peak_with_few_topics_or_peers(topics: int, ready: int) -> None:
    assert not Scene(topics=topics, ready=ready).act("PeakRandTopic")


def test_there_is_no_peak_if_no_peer_has_room() -> None:
    scene = Scene(topics=3, ready=12)
    for known in scene.peers.values():
        known.topics.update(dict.fromkeys(f"more {number}" for number in range(15)))

    assert not scene.act("PeakRandTopic")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_peer_joins_a_topic(seed: int) -> None:
    scene = Scene(topics=1, ready=8, seed=seed)
    scene.world.take("JoiningTopic")

    assert scene.act("JoinRandomTopic")

    (told,) = scene.world.take("JoiningTopic")
    assert told.peer in ("p5", "p6", "p7")
    assert told.args == {"topic": scene.topic.name, "alone": False}
    assert list(scene.topic.coming) == [told.peer]


def test_nobody_joins_a_topic_that_is_full() -> None:
    scene = Scene(topics=1, ready=12)
    for name in ("p5", "p6", "p7", "p8", "p9"):
        scene.join(name, scene.topic)

    assert not scene.act("JoinRandomTopic")


@pytest.mark.parametrize(("topics", "ready"), [(1, 0), (1, 5)])
def test_nobody_joins_if_all_who_are_there_have(topics: int, ready: int) -> None:
    assert not Scene(topics=topics, ready=ready).act("JoinRandomTopic")


# Friends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_two_peers_become_friends_and_one_joins_a_topic_of_the_other(seed: int) -> None:
    scene = Scene(topics=1, ready=6, seed=seed)
    scene.world.take("JoiningTopic")

    assert scene.act("AddRandomFriend")

    friends = [name for name, known in scene.peers.items() if known.friends]
    assert len(friends) == 2
    assert scene.peers[friends[0]].friends == {friends[1]: None}
    assert scene.peers[friends[1]].friends == {friends[0]: None}
    joined = [told.peer for told in scene.world.take("JoiningTopic")]
    assert joined == [name for name in friends if name == "p5"]  # the others are in it


def test_nobody_becomes_a_friend_of_itself() -> None:
    assert not Scene(topics=1, ready=1).act("AddRandomFriend")


def test_nobody_becomes_a_friend_twice() -> None:
    scene = Scene(topics=1, ready=2)

    assert scene.act("AddRandomFriend")
    assert not scene.act("AddRandomFriend")


def test_nobody_has_more_than_ten_friends() -> None:
    scene = Scene(topics=1, ready=12)
    for one in range(10):
        for other in range(one + 1, 11):
            scene.befriend(f"p{one}", f"p{other}")

    assert not scene.act("AddRandomFriend")


def test_whoever_has_no_topic_makes_no_friends() -> None:
    scene = Scene(topics=1, ready=7)
    scene.act("RemoveTopic")

    assert not scene.act("AddRandomFriend")


@pytest.mark.parametrize("seed", SEEDS)
def test_friends_do_not_join_a_topic_that_is_full(seed: int) -> None:
    scene = Scene(topics=1, ready=12, seed=seed)
    for name in ("p5", "p6", "p7", "p8", "p9"):
        scene.join(name, scene.topic)
    scene.world.take("JoiningTopic")

    for _ in range(30):
        scene.act("AddRandomFriend")
        scene.act("JoinFriendsTopic")

    assert any("p11" in known.friends for known in scene.peers.values())
    assert not scene.world.take("JoiningTopic")


def test_friends_join_no_more_topics_than_a_peer_may_have() -> None:
    scene = Scene(topics=20, ready=6)
    for _ in range(10):
        scene.act("AddTopic")
    scene.join_all()
    for name, known in scene.peers.items():
        for topic in scene.sim.topics.values():
            if topic.name not in known.topics and len(known.topics) < 15:
                scene.join(name, topic)
    assert is_sound(scene.sim)

    while scene.act("AddRandomFriend"):
        pass

    assert all(known.friends for known in scene.peers.values())
    assert not scene.act("JoinFriendsTopic")
    assert not scene.coming()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_peer_joins_a_topic_of_a_friend(seed: int) -> None:
    scene = Scene(topics=1, ready=7, seed=seed)
    scene.befriend("p2", "p6")
    scene.world.take("JoiningTopic")

    assert scene.act("JoinFriendsTopic")

    assert [told.peer for told in scene.world.take("JoiningTopic")] == ["p6"]
    assert not scene.act("JoinFriendsTopic")  # it is coming


def test_nobody_joins_topics_of_strangers() -> None:
    assert not Scene(topics=1, ready=7).act("JoinFriendsTopic")


def test_friendships_end_without_a_topic_in_common() -> None:
    scene = Scene(topics=1, ready=8)
    scene.befriend("p0", "p1")
    scene.befriend("p0", "p6")
    scene.befriend("p6", "p7")

    assert scene.act("GC")

    assert {name: list(known.friends) for name, known in scene.peers.items() if known.friends} == {
        "p0": ["p1"],
        "p1": ["p0"],
    }


# Messages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_of_a_topic_sends_two_messages_to_all_others(seed: int) -> None:
    scene = Scene(topics=1, ready=4, peers=5, seed=seed)
    scene.tell("ready", peer="p4")  # and is still joining

    assert scene.act("MsgRandomTopic")

    (told,) = scene.world.take("SendingMsgs")
    assert told.peer in scene.topic.members
    ids = [f"{told.peer}/1", f"{told.peer}/2"]
    assert told.args == {"topic": scene.topic.name, "ids": ids}
    check = scene.sim.check
    assert (check.promised, check.under_way) == (6, 2)  # three others, each both
    for message in ids:
        scene.receive(message, *(f"p{number}" for number in range(5)))
    assert (check.received, len(check.latencies)) == (6, 6)


@pytest.mark.parametrize("members", [0, 1])
def test_nobody_sends_to_itself(members: int) -> None:
    assert not Scene(topics=1, ready=members, peers=3).act("MsgRandomTopic")


def test_ids_of_messages_are_new_each_time() -> None:
    scene = Scene(ready=5)
    for _ in range(10):
        scene.act("MsgRandomTopic")

    ids = [str(told.args["ids"]) for told in scene.world.take("SendingMsgs")]
    assert len(set(ids)) == 10


def test_the_deadline_counts_from_when_a_message_was_sent() -> None:
    scene = Scene(ready=2)
    (message,) = scene.sim.send_messages(scene.topic, "p0", 1)
    scene.tell("sent", peer="p0", ids=[message], when=3.5)

    scene.sim.check.settle(8.25)  # and it would be too late if it had been sent at once
    assert not scene.sim.check.verdicts

    scene.sim.check.settle(9.5)
    (verdict,) = scene.sim.check.verdicts
    assert (verdict.sent, verdict.missed) == (3.5, ("p1",))


def test_messages_are_judged_at_a_heartbeat() -> None:
    scene = Scene(ready=2, steady=True)
    scene.sim.send_messages(scene.topic, "p0", 1)
    scene.clock.run(4)
    assert not scene.sim.check.verdicts

    scene.clock.run(6)

    assert [each.missed for each in scene.sim.check.verdicts] == [("p1",)]


def test_topics_are_active_after_a_message() -> None:
    scene = Scene(ready=5, steady=True)
    scene.clock.run(1)
    assert scene.world.take("SendingMsgs")
    assert not scene.topic.machine.is_active("Active")

    scene.clock.run(2)
    assert scene.topic.machine.is_active("Active", "HasPeers")
