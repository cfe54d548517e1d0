from __future__ import annotations

import math
import os
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.pubsub.routers import Router
from examples.pubsub.routers.gossip import Gossip
from examples.pubsub.routers.params import GossipParams, ScoreParams
from examples.pubsub.rpc import Control, Prune, Rpc
from tests.examples.pubsub.routing import (
    TOPIC,
    Scene,
    control_of,
    grafted,
    pruned,
    sent,
    told,
)
from tests.examples.pubsub.walk import ACTIONS, PEERS, Step, Walk, digest, steps

# The first penalty counts, and so does what an application thinks.
STRICT = ScoreParams(behaviour_threshold=0.0, behaviour_weight=-1.0, behaviour_decay=1.0)
QUIET = GossipParams(flood_publish=False)


def judged(opinions: dict[str, float]) -> ScoreParams:
    """Have peers score what a test says, and nothing else."""
    return ScoreParams(other_topics=None, app_score=lambda peer: opinions.get(peer, 0.0))


# Joining and leaving ----------------------------------------------------------------------------


def test_it_is_a_router() -> None:
    router: Router = Gossip("me", Random(1))
    assert len(router.phases) == 7


def test_joining_grafts_six_peers_of_the_topic() -> None:
    scene = Scene(20)
    scene.router.peer_added("elsewhere", 0.0, outbound=True)
    scene.router.peer_subscribed("elsewhere", "books", 0.0)
    said = scene.join()
    assert grafted(said) == list(scene.mesh)
    assert len(scene.mesh) == 6
    assert set(scene.mesh) <= set(scene.peers)


def test_joining_grafts_all_if_there_are_fewer() -> None:
    scene = Scene(3)
    assert grafted(scene.join()) == ["p0", "p1", "p2"]


def test_joining_twice_does_nothing_more() -> None:
    scene = Scene(3)
    scene.join()
    assert scene.join() == {}


def test_other_seeds_choose_other_peers() -> None:
    assert len({tuple(sorted(grafted(Scene(20, seed=seed).join()))) for seed in range(10)}) > 1


def test_joining_grafts_nobody_with_a_negative_score() -> None:
    scene = Scene(4, scores=judged({"p1": -1.0, "p2": -1.0}))
    assert grafted(scene.join()) == ["p0", "p3"]


def test_joining_takes_the_peers_of_the_fanout_first() -> None:
    scene = Scene(20, QUIET)
    fanout = scene.router.targets(TOPIC, "me", None, 0.0)
    assert grafted(scene.join()) == fanout
    assert scene.router.fanout(TOPIC) == ()


def test_joining_fills_up_a_small_fanout() -> None:
    scene = Scene(2, QUIET)
    scene.router.targets(TOPIC, "me", None, 0.0)
    for peer in ("x", "y"):
        scene.router.peer_added(peer, 0.0, outbound=True)
        scene.router.peer_subscribed(peer, TOPIC, 0.0)
    assert grafted(scene.join()) == ["p0", "p1", "x", "y"]


def test_a_fanout_ends_when_its_topic_is_joined() -> None:
    scene = Scene(20, QUIET)
    scene.router.targets(TOPIC, "me", None, 0.0)
    scene.join()
    scene.beat()
    scene.leave()
    scene.beat()
    assert scene.router.fanout(TOPIC) == ()


def test_joining_does_not_take_peers_of_the_fanout_that_score_below_0() -> None:
    opinions = {"p0": -1.0}
    scene = Scene(2, QUIET, judged(opinions))
    assert scene.router.targets(TOPIC, "me", None, 0.0) == ["p0", "p1"]
    assert grafted(scene.join()) == ["p1"]


def test_leaving_prunes_the_mesh_for_ten_seconds() -> None:
    scene = Scene(3)
    scene.join()
    said = scene.leave()
    assert [control_of(said, peer).prune for peer in scene.peers] == [[Prune(TOPIC, 10.0)]] * 3
    assert scene.mesh == ()


def test_leaving_a_topic_that_was_not_joined_does_nothing() -> None:
    assert Scene(3).leave() == {}


def test_who_is_soon_back_waits_for_those_it_has_left() -> None:
    scene = Scene(3)
    scene.join()
    scene.leave()
    assert grafted(scene.join()) == []
    assert grafted(scene.beat(9.0)) == []
    scene.beat(4.0)
    assert scene.mesh == ("p0", "p1", "p2")


def test_a_peer_that_unsubscribes_is_in_no_mesh_any_more() -> None:
    scene = Scene(3)
    scene.join()
    scene.router.peer_unsubscribed("p1", TOPIC, 0.0)
    assert scene.mesh == ("p0", "p2")
    assert scene.beat() == {}


def test_a_peer_that_is_gone_is_in_no_mesh_any_more() -> None:
    scene = Scene(3)
    scene.join()
    scene.router.peer_removed("p1", 0.0)
    assert scene.mesh == ("p0", "p2")
    assert scene.beat() == {}


def test_a_peer_that_is_not_connected_subscribes_to_nothing() -> None:
    scene = Scene()
    scene.router.peer_subscribed("stranger", TOPIC, 0.0)
    assert scene.join() == {}


# GRAFT and PRUNE --------------------------------------------------------------------------------


def test_who_grafts_is_in_the_mesh() -> None:
    scene = Scene(1)
    scene.router.peer_unsubscribed("p0", TOPIC, 0.0)
    scene.join()
    assert scene.graft("p0") == {}
    assert scene.mesh == ("p0",)


def test_who_grafts_is_known_to_be_in_the_topic() -> None:
    scene = Scene()
    scene.router.peer_added("early", 0.0, outbound=False)
    scene.join()
    scene.graft("early")
    assert scene.router.targets(TOPIC, "me", None, 0.0) == ["early"]


def test_a_graft_of_who_is_in_the_mesh_changes_nothing() -> None:
    scene = Scene(2)
    scene.join()
    assert scene.graft("p0", "p1") == {}
    assert scene.mesh == ("p0", "p1")


def test_a_graft_for_a_topic_that_this_host_is_not_in_is_ignored() -> None:
    scene = Scene(1)
    assert scene.graft("p0") == {}
    assert scene.mesh == ()


def test_a_graft_of_who_is_not_connected_is_ignored() -> None:
    scene = Scene()
    scene.join()
    assert scene.graft("stranger") == {}
    assert scene.mesh == ()


def test_a_graft_with_a_negative_score_is_refused_without_other_peers() -> None:
    opinions: dict[str, float] = {"p0": -1.0}
    scene = Scene(3, scores=judged(opinions))
    scene.join()
    said = scene.graft("p0")
    assert control_of(said, "p0").prune == [Prune(TOPIC, 60.0)]
    assert "p0" not in scene.mesh


def full(outbound: int = 0) -> Scene:
    """Give a host with twelve in its mesh, of the fifteen that it knows."""
    scene = Scene(15, outbound=outbound)
    scene.join()
    for peer in scene.peers:
        if len(scene.mesh) < 12:
            scene.graft(peer)
    return scene


def test_a_full_mesh_refuses_who_has_connected_and_names_others() -> None:
    scene = full()
    outside = next(peer for peer in scene.peers if peer not in scene.mesh)
    (prune,) = control_of(scene.graft(outside), outside).prune
    assert prune.backoff == 60.0
    assert set(prune.peers) == set(scene.peers) - {outside}
    assert outside not in scene.mesh


def test_a_full_mesh_takes_whom_this_host_has_connected_to() -> None:
    scene = full(outbound=15)
    outside = next(peer for peer in scene.peers if peer not in scene.mesh)
    assert scene.graft(outside) == {}
    assert len(scene.mesh) == 13


def test_who_prunes_is_out_of_the_mesh_and_left_alone_for_as_long_as_it_says() -> None:
    scene = Scene(2)
    scene.join()
    assert scene.hear("p0", Control(prune=[Prune(TOPIC, 20.0)])) == {}
    assert scene.mesh == ("p1",)
    assert grafted(scene.beat(21.0)) == []
    assert grafted(scene.beat(2.0)) == ["p0"]


@pytest.mark.parametrize("backoff", [0.0, -5.0, math.nan])
def test_a_prune_that_names_no_time_means_a_minute(backoff: float) -> None:
    scene = Scene(1)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, backoff)]))
    assert grafted(scene.beat(61.0)) == []
    assert grafted(scene.beat(2.0)) == ["p0"]


def test_a_prune_for_ever_is_one_for_an_hour() -> None:
    scene = Scene(1)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, math.inf)]))
    assert grafted(scene.beat(3601.0)) == []
    assert grafted(scene.beat(2.0)) == ["p0"]


def test_a_shorter_backoff_does_not_end_a_longer_one() -> None:
    scene = Scene(1)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0), Prune(TOPIC, 1.0)]))
    assert grafted(scene.beat(30.0)) == []


def test_a_prune_for_a_topic_that_this_host_is_not_in_is_ignored() -> None:
    scene = Scene(1)
    scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0)]))
    assert grafted(scene.join()) == ["p0"]


def test_a_backoff_outlives_the_connection() -> None:
    scene = Scene(1)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0)]))
    scene.router.peer_removed("p0", 1.0)
    scene.router.peer_added("p0", 2.0, outbound=False)
    scene.router.peer_subscribed("p0", TOPIC, 2.0)
    assert grafted(scene.beat(5.0)) == []


def test_a_graft_during_the_backoff_is_refused_penalised_and_makes_it_last_longer() -> None:
    scene = Scene(1, scores=STRICT)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0)]))
    scene.now = 30.0
    assert control_of(scene.graft("p0"), "p0").prune == [Prune(TOPIC, 60.0)]
    assert scene.mesh == ()
    assert scene.router.score("p0") == -1.0
    scene.now = 61.0  # the first one would be over
    scene.graft("p0")
    assert scene.router.score("p0") == -4.0


def test_a_graft_right_after_the_prune_is_penalised_twice() -> None:
    scene = Scene(1, scores=STRICT)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0)]))
    scene.now = 9.0
    scene.graft("p0")
    assert scene.router.score("p0") == -4.0


def test_a_refusal_tells_how_long_the_backoff_really_is() -> None:
    scene = Scene(1)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, 300.0)]))
    scene.now = 100.0
    assert control_of(scene.graft("p0"), "p0").prune == [Prune(TOPIC, 200.0)]


def test_a_graft_after_the_backoff_is_accepted_though_this_side_still_waits() -> None:
    scene = Scene(1, scores=STRICT)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0)]))
    assert grafted(scene.beat(61.0)) == []
    assert scene.graft("p0") == {}
    assert scene.mesh == ("p0",)
    assert scene.router.score("p0") == 0.0


# Peer exchange ----------------------------------------------------------------------------------


def test_a_prune_names_sixteen_others_at_most_and_none_that_score_below_0() -> None:
    opinions = {f"p{number}": -1.0 for number in range(10)}
    scene = Scene(40, scores=judged(opinions), outbound=40)
    scene.join()
    scene.graft(*scene.peers[10:30])
    prunes = [p for rpc in scene.beat().values() if rpc.control for p in rpc.control.prune]
    assert prunes
    for prune in prunes:
        assert len(set(prune.peers)) == 16
        assert not set(prune.peers) & set(opinions)


def test_peer_exchange_can_be_off() -> None:
    scene = Scene(40, GossipParams(exchange=0), outbound=40)
    scene.join()
    scene.graft(*scene.peers[:20])
    prunes = [p for rpc in scene.beat().values() if rpc.control for p in rpc.control.prune]
    assert prunes
    assert all(prune.peers == () for prune in prunes)


def test_unknown_peers_that_a_prune_names_can_be_taken_once() -> None:
    scene = Scene(2)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0, ("new", "p1", "me", "newer"))]))
    assert scene.router.take_exchanged() == ("new", "newer")
    assert scene.router.take_exchanged() == ()


def test_a_peer_that_was_met_meanwhile_is_not_proposed_any_more() -> None:
    scene = Scene(1)
    scene.join()
    scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0, ("new",))]))
    scene.router.peer_added("new", 1.0, outbound=True)
    assert scene.router.take_exchanged() == ()


def test_peers_that_are_not_trusted_enough_propose_nobody() -> None:
    scene = Scene(2, scores=judged({"p1": 10.0})._replace(accept_px_threshold=10.0))
    scene.join()
    for peer in scene.peers:
        scene.hear(peer, Control(prune=[Prune(TOPIC, 60.0, (f"by {peer}",))]))
    assert scene.router.take_exchanged() == ("by p1",)


def test_one_prune_proposes_no_more_than_sixteen() -> None:
    scene = Scene(1)
    scene.join()
    names = tuple(f"n{number}" for number in range(100))
    scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0, names)]))
    assert scene.router.take_exchanged() == names[:16]


def test_proposals_that_nobody_takes_do_not_pile_up() -> None:
    scene = Scene(1)
    scene.join()
    for number in range(100):
        scene.hear("p0", Control(prune=[Prune(TOPIC, 60.0, (f"n{number}",))]))
    assert len(scene.router.take_exchanged()) == 64


# Whom messages go to ----------------------------------------------------------------------------


def test_a_message_goes_along_the_mesh_but_neither_back_nor_to_its_author() -> None:
    scene = Scene(20)
    scene.join()
    author, by, *others = scene.mesh
    assert scene.router.targets(TOPIC, author, by, 0.0) == others


def test_a_message_of_a_topic_that_this_host_is_not_in_goes_nowhere() -> None:
    assert Scene(3).router.targets(TOPIC, "author", "p0", 0.0) == []


def test_an_own_message_is_flooded_to_all_in_the_topic() -> None:
    scene = Scene(20)
    assert scene.router.targets(TOPIC, "me", None, 0.0) == scene.peers
    scene.join()
    assert scene.router.targets(TOPIC, "me", None, 0.0) == scene.peers
    assert scene.router.fanout(TOPIC) == ()


def test_an_own_message_is_not_flooded_below_the_publish_threshold() -> None:
    opinions = {"p0": -100.0, "p1": -100.1}
    scores = judged(opinions)._replace(
        gossip_threshold=-10.0, publish_threshold=-100.0, graylist_threshold=-200.0
    )
    assert Scene(3, scores=scores).router.targets(TOPIC, "me", None, 0.0) == ["p0", "p2"]


def test_without_flooding_an_own_message_goes_along_the_mesh() -> None:
    scene = Scene(20, QUIET)
    scene.join()
    assert scene.router.targets(TOPIC, "me", None, 0.0) == list(scene.mesh)


def test_without_flooding_and_a_mesh_it_goes_to_a_fanout_that_stays() -> None:
    scene = Scene(20, QUIET)
    fanout = scene.router.targets(TOPIC, "me", None, 0.0)
    assert len(set(fanout)) == 6
    assert scene.router.targets(TOPIC, "me", None, 1.0) == fanout
    assert scene.mesh == ()


def test_a_fanout_is_forgotten_a_minute_after_the_last_message() -> None:
    scene = Scene(20, QUIET)
    scene.router.targets(TOPIC, "me", None, 0.0)
    scene.now = 50.0
    scene.router.targets(TOPIC, "me", None, 50.0)
    scene.beat(60.0)
    assert len(scene.router.fanout(TOPIC)) == 6
    scene.beat(1.0)
    assert scene.router.fanout(TOPIC) == ()


def test_a_fanout_is_filled_up_at_each_heartbeat() -> None:
    scene = Scene(20, QUIET)
    first, second, *others = scene.router.targets(TOPIC, "me", None, 0.0)
    scene.router.peer_unsubscribed(first, TOPIC, 0.0)
    scene.router.peer_removed(second, 0.0)
    assert list(scene.router.fanout(TOPIC)) == others
    scene.beat()
    assert list(scene.router.fanout(TOPIC))[:4] == others
    assert len(scene.router.fanout(TOPIC)) == 6


def test_a_fanout_loses_peers_below_the_publish_threshold() -> None:
    opinions: dict[str, float] = {}
    scene = Scene(3, QUIET, judged(opinions))
    scene.router.targets(TOPIC, "me", None, 0.0)
    opinions["p1"] = -1001.0
    scene.beat()
    assert scene.router.fanout(TOPIC) == ("p0", "p2")


def test_a_peer_on_the_graylist_is_not_listened_to() -> None:
    opinions = {"p0": -2500.0, "p1": -2500.1}
    router = Scene(2, scores=judged(opinions)).router
    assert (router.accepts("p0", 0.0), router.accepts("p1", 0.0)) == (True, False)
    assert router.accepts("stranger", 0.0)


# Gossip -----------------------------------------------------------------------------------------


def test_a_heartbeat_tells_six_peers_outside_the_mesh_what_came() -> None:
    scene = Scene(20)
    scene.join()
    scene.receive("m1", by=scene.mesh[0])
    scene.receive("m2", by=scene.mesh[0])
    said = told(scene.beat())
    assert len(said) == 6
    assert not set(said) & set(scene.mesh)
    assert all(ids == ["m1", "m2"] for ids in said.values())


def test_of_many_peers_a_quarter_is_told() -> None:
    scene = Scene(106)
    scene.join()
    scene.receive("m", by=scene.mesh[0])
    assert len(told(scene.beat())) == 25


def test_nobody_is_told_of_nothing() -> None:
    scene = Scene(20)
    scene.join()
    scene.receive("other", by=scene.mesh[0], topic="books")
    assert told(scene.beat()) == {}


def test_own_messages_are_told_of_too() -> None:
    scene = Scene(20)
    scene.join()
    scene.router.keep(sent("mine"), TOPIC)
    assert set(map(tuple, told(scene.beat()).values())) == {("mine",)}


def test_a_message_is_told_of_in_three_heartbeats() -> None:
    scene = Scene(20)
    scene.join()
    scene.receive("m", by=scene.mesh[0])
    assert [bool(told(scene.beat())) for _ in range(5)] == [True, True, True, False, False]


def test_peers_below_the_gossip_threshold_are_told_nothing() -> None:
    opinions = {f"p{number}": -500.1 for number in range(10)}
    scene = Scene(20, scores=judged(opinions))
    scene.join()
    scene.receive("m", by=scene.mesh[0])
    said = told(scene.beat())
    assert said
    assert not set(said) & set(opinions)


def test_no_more_ids_are_told_than_the_limit() -> None:
    scene = Scene(20, GossipParams(ihave_ids=3))
    scene.join()
    for number in range(10):
        scene.receive(f"m{number}", by=scene.mesh[0])
    for ids in told(scene.beat()).values():
        assert len(set(ids)) == 3


def test_in_a_fanout_topic_those_outside_the_fanout_are_told() -> None:
    scene = Scene(20, QUIET)
    fanout = scene.router.targets(TOPIC, "me", None, 0.0)
    scene.router.keep(sent("mine"), TOPIC)
    said = told(scene.beat())
    assert len(said) == 6
    assert not set(said) & set(fanout)


def ihave(*ids: str) -> Control:
    return Control(ihave=[(TOPIC, list(ids))])


def test_what_was_not_seen_is_asked_for() -> None:
    scene = Scene(1)
    scene.join()
    scene.receive("old", by="p0")
    scene.router.duplicate("p0", "older", 0.0)
    scene.router.rejected("p0", TOPIC, "bad", 0.0)
    scene.router.keep(sent("mine"), TOPIC)
    said = scene.hear("p0", ihave("old", "new", "older", "bad", "mine", "new"))
    assert said == {"p0": Rpc(control=Control(iwant=["new"]))}


def test_what_was_all_seen_is_not_answered() -> None:
    scene = Scene(1)
    scene.join()
    scene.receive("old", by="p0")
    assert scene.hear("p0", ihave("old")) == {}


def test_what_was_seen_two_minutes_ago_is_asked_for_again() -> None:
    scene = Scene(1)
    scene.join()
    scene.receive("old", by="p0")
    scene.beat(119.0)
    assert scene.hear("p0", ihave("old")) == {}
    scene.beat(1.0)
    assert control_of(scene.hear("p0", ihave("old")), "p0").iwant == ["old"]


def test_gossip_of_a_topic_that_this_host_is_not_in_is_ignored() -> None:
    assert Scene(1).hear("p0", ihave("new")) == {}


def test_gossip_of_peers_below_the_gossip_threshold_is_ignored() -> None:
    scene = Scene(1, scores=judged({"p0": -500.1}))
    scene.join()
    assert scene.hear("p0", ihave("new")) == {}


def test_ten_gossips_of_a_peer_are_heard_per_heartbeat() -> None:
    scene = Scene(2)
    scene.join()
    heard = [bool(scene.hear("p0", ihave(f"m{number}"))) for number in range(12)]
    assert heard == [True] * 10 + [False] * 2
    assert scene.hear("p1", ihave("m11"))
    scene.beat()
    assert scene.hear("p0", ihave("m12"))


def test_a_peer_is_asked_for_so_many_ids_per_heartbeat() -> None:
    scene = Scene(1, GossipParams(ihave_ids=5))
    scene.join()
    asked = [
        len(control_of(scene.hear("p0", ihave(*(f"{letter}{n}" for n in range(3)))), "p0").iwant)
        for letter in "abc"
    ]
    assert asked == [3, 2, 0]
    scene.beat()
    assert scene.hear("p0", ihave("later"))


def test_five_thousand_ids_are_asked_for_and_no_more() -> None:
    scene = Scene(1)
    scene.join()
    said = scene.hear("p0", ihave(*(f"m{number}" for number in range(6000))))
    assert len(set(control_of(said, "p0").iwant)) == 5000


def test_what_is_asked_for_is_sent_and_has_come_a_hop_further() -> None:
    scene = Scene(2)
    scene.join()
    scene.receive("m", by="p0")
    said = scene.hear("p1", Control(iwant=["m", "unknown", "m"]))
    assert said == {"p1": Rpc(publish=[sent("m", 2)])}


def test_a_message_is_sent_three_times_to_who_keeps_asking() -> None:
    scene = Scene(2)
    scene.join()
    scene.receive("m", by="p0")
    assert [bool(scene.hear("p1", Control(iwant=["m"]))) for _ in range(4)] == [True] * 3 + [False]


def test_a_message_can_be_asked_for_during_five_heartbeats() -> None:
    scene = Scene(2)
    scene.join()
    scene.receive("m", by="p0")
    found = []
    for number in range(5):
        scene.beat()
        scene.router.peer_added(f"q{number}", scene.now, outbound=False)
        found.append(bool(scene.hear(f"q{number}", Control(iwant=["m"]))))
    assert found == [True] * 4 + [False]


def test_peers_below_the_gossip_threshold_are_sent_nothing() -> None:
    scene = Scene(2, scores=judged({"p1": -500.1}))
    scene.join()
    scene.receive("m", by="p0")
    assert scene.hear("p1", Control(iwant=["m"])) == {}


# Promises ---------------------------------------------------------------------------------------


def promised() -> Scene:
    scene = Scene(2, scores=STRICT)
    scene.join()
    scene.hear("p0", ihave("m"))
    return scene


def test_a_promise_that_is_not_kept_within_three_seconds_is_penalised() -> None:
    scene = promised()
    scene.beat(3.0)
    assert scene.router.score("p0") == 0.0
    scene.beat(1.0)
    assert scene.router.score("p0") == -1.0
    scene.beat(10.0)
    assert scene.router.score("p0") == -1.0


def test_a_promise_is_kept_whoever_sends_the_message() -> None:
    scene = promised()
    scene.receive("m", by="p1")
    scene.beat(10.0)
    assert scene.router.score("p0") >= 0.0


def test_a_promised_message_that_is_not_valid_is_penalised_as_that() -> None:
    scene = promised()
    scene.router.rejected("p0", TOPIC, "m", 1.0)
    before = scene.router.score("p0")
    assert before == -100.0
    scene.phase("CheckPromises")
    scene.now = 10.0
    scene.phase("CheckPromises")
    assert scene.router.score("p0") == before


def test_of_many_ids_one_is_tracked() -> None:
    scene = Scene(1, scores=STRICT)
    scene.join()
    scene.hear("p0", ihave(*(f"m{number}" for number in range(100))))
    scene.beat(4.0)
    assert scene.router.score("p0") == -1.0


def test_leaving_the_topic_releases_from_promises() -> None:
    scene = promised()
    scene.leave()
    scene.beat(10.0)
    assert scene.router.score("p0") == 0.0


def test_what_nobody_can_read_is_misbehaviour_and_its_id_is_not_taken_for_seen() -> None:
    scene = Scene(2, scores=STRICT)
    scene.join()
    scene.router.rejected("p0", "", "m", 0.0)
    assert scene.router.score("p0") == -1.0
    assert control_of(scene.hear("p1", ihave("m")), "p1").iwant == ["m"]


# Balancing meshes -------------------------------------------------------------------------------


def sized(count: int, peers: int = 30) -> Scene:
    """Give a host with so many in its mesh that are all inbound."""
    scene = Scene(peers, GossipParams(d_out=0))
    for peer in scene.peers:
        scene.router.peer_unsubscribed(peer, TOPIC, 0.0)
    scene.join()
    scene.graft(*scene.peers[:count])
    for peer in scene.peers:
        scene.router.peer_subscribed(peer, TOPIC, 0.0)
    assert len(scene.mesh) == count
    return scene


@pytest.mark.parametrize(("before", "after"), [(0, 6), (4, 6), (5, 5), (6, 6), (11, 11), (12, 12)])
def test_a_mesh_of_fewer_than_five_gets_six(before: int, after: int) -> None:
    scene = sized(before)
    said = scene.beat()
    assert len(scene.mesh) == after
    assert len(grafted(said)) == after - before


def test_a_mesh_of_more_than_twelve_is_cut_to_six() -> None:
    scene = full(outbound=15)
    scene.graft(*scene.peers)
    assert len(scene.mesh) == 15
    said = scene.beat()
    assert len(scene.mesh) == 6
    assert set(pruned(said)) == set(scene.peers) - set(scene.mesh)


def test_those_that_were_cut_are_not_grafted_for_a_minute() -> None:
    scene = full(outbound=15)
    scene.graft(*scene.peers)
    scene.beat()
    for peer in scene.mesh:
        scene.router.peer_removed(peer, scene.now)
    assert grafted(scene.beat(59.0)) == []
    scene.beat(4.0)
    assert len(scene.mesh) == 6


@pytest.mark.parametrize("seed", range(5))
def test_the_best_four_stay_and_the_others_that_do_are_random(seed: int) -> None:
    opinions = {f"p{number}": float(number) for number in range(15)}
    scene = Scene(15, scores=judged(opinions), outbound=15, seed=seed)
    scene.join()
    scene.graft(*scene.peers)
    scene.beat()
    assert {"p11", "p12", "p13", "p14"} < set(scene.mesh)
    assert len(scene.mesh) == 6


def test_those_that_stay_by_luck_differ() -> None:
    lucky = set()
    opinions = {f"p{number}": float(number) for number in range(15)}
    for seed in range(10):
        scene = Scene(15, scores=judged(opinions), outbound=15, seed=seed)
        scene.join()
        scene.graft(*scene.peers)
        scene.beat()
        lucky.add(tuple(sorted(scene.mesh)))
    assert len(lucky) > 1


@pytest.mark.parametrize("seed", range(5))
def test_of_those_that_stay_two_are_outbound_however_they_score(seed: int) -> None:
    opinions = {f"p{number}": float(number) for number in range(15)}
    scene = Scene(15, scores=judged(opinions), outbound=3, seed=seed)  # the worst three
    scene.join()
    # Inbound ones first, as a full mesh takes outbound ones only.
    scene.graft(*reversed(scene.peers))
    assert len(scene.mesh) > 12
    scene.beat()
    assert len(scene.mesh) == 6
    assert len({"p0", "p1", "p2"} & set(scene.mesh)) >= 2
    assert {"p11", "p12", "p13", "p14"} < set(scene.mesh)


def test_a_mesh_with_too_few_outbound_peers_gets_more() -> None:
    scene = Scene(8)
    scene.join()
    for number in range(3):
        scene.router.peer_added(f"out{number}", 0.0, outbound=True)
        scene.router.peer_subscribed(f"out{number}", TOPIC, 0.0)
    said = scene.beat()
    assert len(grafted(said)) == 2
    assert len(scene.mesh) == 8
    assert sum(peer.startswith("out") for peer in scene.mesh) == 2
    assert scene.beat() == {}


def test_peers_with_a_negative_score_are_pruned_without_other_peers_and_replaced() -> None:
    opinions: dict[str, float] = {}
    scene = Scene(8, scores=judged(opinions))
    scene.join()
    bad = scene.mesh[:2]
    opinions.update(dict.fromkeys(bad, -0.1))
    said = scene.beat()
    assert pruned(said) == list(bad)
    assert [control_of(said, peer).prune for peer in bad] == [[Prune(TOPIC, 60.0)]] * 2
    assert not set(bad) & set(scene.mesh)
    assert len(scene.mesh) == 6


def test_what_one_peer_is_told_in_a_heartbeat_travels_together() -> None:
    scene = Scene(1)
    for topic in ("a", "b"):
        scene.join(topic)
        scene.router.peer_subscribed("p0", topic, 0.0)
    said = scene.beat()
    assert said == {"p0": Rpc(control=Control(graft=["a", "b"]))}


# Opportunistic grafting -------------------------------------------------------------------------


def poor(better: dict[str, float], beats: int = 60, threshold: float = 3.5) -> list[str]:
    """Give whom a mesh with a median of 1 gets at its so manieth heartbeat."""
    opinions: dict[str, float] = dict.fromkeys((f"p{number}" for number in range(6)), 1.0)
    scores = judged(opinions)._replace(opportunistic_threshold=threshold)
    scene = Scene(6, GossipParams(d_out=0), scores)
    scene.join()
    opinions.update(better)
    for peer in better:
        scene.router.peer_added(peer, 0.0, outbound=False)
        scene.router.peer_subscribed(peer, TOPIC, 0.0)
    for _ in range(beats - 1):
        assert grafted(scene.beat()) == []
    return grafted(scene.beat())


def test_every_sixty_heartbeats_a_poor_mesh_gets_two_better_peers() -> None:
    found = poor({"x": 2.0, "y": 2.0, "z": 2.0})
    assert len(found) == 2
    assert set(found) < {"x", "y", "z"}


def test_at_other_heartbeats_it_does_not() -> None:
    assert poor({"x": 2.0, "y": 2.0}, beats=59) == []


def test_peers_that_are_not_above_the_median_are_no_help() -> None:
    assert poor({"x": 1.0, "y": 0.5, "z": 1.5}) == ["z"]


def test_a_mesh_that_is_good_enough_stays_as_it_is() -> None:
    assert poor({"x": 2.0, "y": 2.0}, threshold=1.0) == []


def test_better_peers_in_backoff_are_left_alone() -> None:
    opinions = {"p0": 1.0, "p1": 1.0, "p2": 2.0}
    params = GossipParams(d=2, d_low=2, d_score=1, d_out=0, opportunistic_ticks=1)
    scene = Scene(3, params, judged(opinions))
    scene.join()
    scene.graft("p0", "p1")
    scene.hear("p2", Control(prune=[Prune(TOPIC, 60.0)]))
    assert grafted(scene.beat()) == []
    assert grafted(scene.beat(63.0)) == ["p2"]


def test_an_improved_mesh_is_not_too_big() -> None:
    params = GossipParams(d=2, d_low=2, d_high=2, d_score=1, d_out=0, opportunistic_ticks=1)
    scene = Scene(4, params, judged({"p2": 2.0, "p3": 2.0}))
    for peer in ("p2", "p3"):
        scene.router.peer_unsubscribed(peer, TOPIC, 0.0)
    scene.join()
    for peer in ("p2", "p3"):
        scene.router.peer_subscribed(peer, TOPIC, 0.0)
    assert grafted(scene.beat()) == []


# Scores, as the router feeds them ---------------------------------------------------------------


def test_who_delivers_first_scores_and_who_is_second_does_not() -> None:
    scene = Scene(2)
    scene.receive("m", by="p0")
    scene.router.duplicate("p1", "m", 0.0)
    assert (scene.router.score("p0"), scene.router.score("p1")) == (0.5, 0.0)


def test_scores_fade_once_per_second() -> None:
    scene = Scene(1)
    scene.beat(0.1)
    scene.receive("m", by="p0")
    for _ in range(600):
        scene.beat()
    assert scene.router.score("p0") == pytest.approx(0.005, abs=0.005)
    assert scene.router.score("p0") < 0.01


def test_time_in_the_mesh_scores() -> None:
    scene = Scene(2)
    scene.beat(0.1)
    scene.join()
    for _ in range(10):
        scene.beat()
    assert scene.router.score("p0") == pytest.approx(0.05, abs=0.006)


def test_an_invalid_message_gets_its_sender_out_of_the_mesh() -> None:
    scene = Scene(2)
    scene.join()
    scene.router.rejected("p0", TOPIC, "m", 0.0)
    assert pruned(scene.beat()) == ["p0"]
    assert scene.mesh == ("p1",)


def test_enough_invalid_messages_get_their_sender_on_the_graylist() -> None:
    scene = Scene(1)
    for number in range(6):
        assert scene.router.accepts("p0", 0.0)
        scene.router.rejected("p0", TOPIC, f"m{number}", 0.0)
    assert not scene.router.accepts("p0", 0.0)
    scene.router.peer_removed("p0", 0.0)
    scene.router.peer_added("p0", 1.0, outbound=False)
    assert not scene.router.accepts("p0", 1.0)


def test_a_phase_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError, match="Dance"):
        Scene().phase("Dance")


def test_numbers_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="d_low"):
        Scene(params=GossipParams(d_low=7))


# Many steps -------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, PEERS - 1), st.integers(0, 1)),
    max_size=150,
)


@settings(deadline=None)
@given(STEPS, st.integers(0, 5))
def test_meshes_and_backoffs_are_in_order_whatever_happens(steps: list[Step], seed: int) -> None:
    walk = Walk(seed)
    for step in steps:
        walk.take(step)


@pytest.mark.parametrize("seed", range(5))
def test_so_they_are_after_thousands_of_steps(seed: int) -> None:
    walk = Walk(seed)
    for step in steps(3000, seed):
        walk.take(step)
    assert len(walk.log) > 1000


@given(STEPS, st.integers(0, 5))
@settings(deadline=None)
def test_equal_seeds_and_inputs_give_equal_outputs(steps: list[Step], seed: int) -> None:
    first, second = Walk(seed), Walk(seed)
    for step in steps:
        first.take(step)
        second.take(step)
    assert first.log == second.log


def test_so_they_do_in_processes_whose_strings_hash_otherwise() -> None:
    program = "from tests.examples.pubsub.walk import digest; print(digest(3000, 1))"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert found == {digest(3000, 1)}
    assert digest(3000, 2) not in found
