from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.pubsub.routers.params import (
    GossipParams,
    ScoreParams,
    TopicScoreParams,
    check,
    fading,
)
from examples.pubsub.routers.scores import Scores

# Nothing but what a test gives a weight counts.
NOTHING = TopicScoreParams(
    weight=1.0, time_weight=0.0, first_weight=0.0, invalid_weight=0.0, mesh_window=0.01
)
BOTH = NOTHING._replace(first_weight=1.0, invalid_weight=-1.0)
# And each penalty does.
STRICT = ScoreParams(behaviour_threshold=0.0, behaviour_weight=-1.0)


def scores_of(topic: TopicScoreParams = NOTHING, params: ScoreParams = STRICT) -> Scores:
    scores = Scores(params._replace(other_topics=topic))
    scores.peer_added("a")
    scores.peer_added("b")
    scores.decay(0.0)
    return scores


def test_a_peer_that_is_not_known_scores_nothing() -> None:
    scores = scores_of()
    scores.delivered("stranger", "films", "m", 0.0)
    scores.penalise("stranger")
    scores.rejected("stranger", "films", "x", 0.0)
    scores.rejected("a", "films", "y", 0.0)
    scores.duplicate("stranger", "y", 0.0)
    scores.peer_removed("stranger", 0.0)
    assert scores.of("stranger") == 0.0


def test_p1_counts_whole_quanta_of_the_time_in_the_mesh_up_to_its_cap() -> None:
    scores = scores_of(NOTHING._replace(time_weight=0.5, time_quantum=2.0, time_cap=3.0))
    scores.grafted("a", "films", 0.0)
    found = []
    for now in (1.0, 2.0, 5.0, 100.0):
        scores.decay(now)
        found.append(scores.of("a"))
    assert found == [0.0, 0.5, 1.0, 1.5]


def test_p1_is_gone_when_the_peer_is_pruned() -> None:
    scores = scores_of(NOTHING._replace(time_weight=1.0))
    scores.grafted("a", "films", 0.0)
    scores.decay(5.0)
    assert scores.of("a") == 5.0
    scores.pruned("a", "films")
    assert scores.of("a") == 0.0


def test_p2_counts_first_deliveries_up_to_its_cap() -> None:
    scores = scores_of(NOTHING._replace(first_weight=2.0, first_cap=3.0))
    found = []
    for number in range(5):
        scores.delivered("a", "films", f"m{number}", 0.0)
        found.append(scores.of("a"))
    assert found == [2.0, 4.0, 6.0, 6.0, 6.0]
    assert scores.of("b") == 0.0


def test_p2_is_not_for_who_is_second() -> None:
    scores = scores_of(NOTHING._replace(first_weight=2.0))
    scores.delivered("a", "films", "m", 0.0)
    scores.duplicate("b", "m", 0.0)
    assert scores.of("b") == 0.0


P3 = NOTHING._replace(
    mesh_weight=-1.0, mesh_decay=1.0, mesh_threshold=4.0, mesh_cap=5.0, mesh_activation=10.0
)


def test_p3_is_the_square_of_the_deficit_once_the_peer_is_long_enough_in_the_mesh() -> None:
    scores = scores_of(P3)
    scores.grafted("a", "films", 0.0)
    scores.decay(10.0)
    assert scores.of("a") == 0.0
    scores.decay(11.0)
    assert scores.of("a") == -16.0
    scores.delivered("a", "films", "m", 11.0)
    assert scores.of("a") == -9.0


def test_p3_asks_nothing_of_peers_outside_the_mesh() -> None:
    scores = scores_of(P3)
    scores.delivered("a", "films", "m", 0.0)
    scores.decay(20.0)
    assert scores.of("a") == 0.0


def test_p3_is_nothing_above_the_threshold() -> None:
    scores = scores_of(P3)
    scores.grafted("a", "films", 0.0)
    for number in range(7):
        scores.delivered("a", "films", f"m{number}", 0.0)
    scores.decay(20.0)
    assert scores.of("a") == 0.0


def test_p3_counts_deliveries_up_to_its_cap_only() -> None:
    scores = scores_of(P3._replace(mesh_decay=0.5))
    scores.grafted("a", "films", 0.0)
    for number in range(100):
        scores.delivered("a", "films", f"m{number}", 0.0)
    scores.decay(11.0)  # 5 at most, and that halved eleven times is next to nothing
    assert scores.of("a") == -16.0


def test_p3_also_counts_who_is_nearly_the_first_but_once_only() -> None:
    scores = scores_of(P3)
    scores.grafted("a", "films", 0.0)
    scores.grafted("b", "films", 0.0)
    scores.decay(11.0)
    scores.delivered("a", "films", "m", 11.0)
    scores.duplicate("b", "m", 11.01)
    scores.duplicate("b", "m", 11.01)
    scores.duplicate("a", "m", 11.01)
    assert (scores.of("a"), scores.of("b")) == (-9.0, -9.0)


def test_p3_does_not_count_who_is_late() -> None:
    scores = scores_of(P3)
    scores.grafted("b", "films", 0.0)
    scores.decay(11.0)
    scores.delivered("a", "films", "m", 11.0)
    scores.duplicate("b", "m", 11.02)
    assert scores.of("b") == -16.0


def test_p3b_sticks_after_a_prune_with_a_deficit() -> None:
    scores = scores_of(P3._replace(failure_weight=-2.0, failure_decay=0.5))
    scores.grafted("a", "films", 0.0)
    scores.decay(11.0)
    scores.pruned("a", "films")
    assert scores.of("a") == -32.0
    scores.grafted("a", "films", 11.0)
    scores.decay(12.0)
    assert scores.of("a") == -16.0


def test_p3b_is_for_each_time_in_the_mesh_once() -> None:
    scores = scores_of(P3._replace(failure_weight=-1.0))
    scores.grafted("a", "films", 0.0)
    scores.decay(11.0)
    scores.pruned("a", "films")
    scores.pruned("a", "films")
    scores.peer_removed("a", 11.0)
    assert scores.of("a") == -16.0


def test_p3b_is_nothing_before_the_activation() -> None:
    scores = scores_of(P3._replace(failure_weight=-2.0))
    scores.grafted("a", "films", 0.0)
    scores.decay(5.0)
    scores.pruned("a", "films")
    assert scores.of("a") == 0.0


def test_p4_is_the_square_of_the_number_of_invalid_messages() -> None:
    scores = scores_of(NOTHING._replace(invalid_weight=-1.0))
    found = []
    for number in range(3):
        scores.rejected("a", "films", f"m{number}", 0.0)
        found.append(scores.of("a"))
    assert found == [-1.0, -4.0, -9.0]


def test_p4_is_also_for_who_sends_an_invalid_message_again() -> None:
    scores = scores_of(NOTHING._replace(invalid_weight=-1.0))
    scores.rejected("a", "films", "m", 0.0)
    scores.duplicate("b", "m", 100.0)
    assert scores.of("b") == -1.0


def test_how_a_message_was_judged_is_forgotten_in_the_end() -> None:
    scores = scores_of(NOTHING._replace(invalid_weight=-1.0))
    scores.rejected("a", "films", "m", 0.0)
    scores.decay(120.0)
    scores.duplicate("b", "m", 120.0)
    assert scores.of("b") == 0.0


def test_p5_is_what_the_application_thinks() -> None:
    opinions = {"a": 3.0, "b": -4.0}
    scores = Scores(ScoreParams(app_score=lambda peer: opinions[peer], app_weight=2.0))
    scores.peer_added("a")
    scores.peer_added("b")
    assert (scores.of("a"), scores.of("b")) == (6.0, -8.0)
    opinions["a"] = -1.0
    assert scores.of("a") == -2.0


def test_p6_is_the_square_of_how_many_too_many_share_an_address() -> None:
    scores = Scores(
        ScoreParams(
            address_of=lambda peer: None if peer == "x" else "house",
            address_threshold=2,
            address_weight=-1.0,
        )
    )
    found = []
    for peer in ("a", "b", "c", "d"):
        scores.peer_added(peer)
        found.append(scores.of("a"))
    assert found == [0.0, 0.0, -1.0, -4.0]
    scores.peer_added("x")
    assert scores.of("x") == 0.0
    scores.peer_removed("d", 0.0)
    scores.peer_removed("c", 0.0)
    assert scores.of("a") == 0.0


def test_a_peer_that_is_added_twice_lives_at_its_address_once() -> None:
    scores = Scores(ScoreParams(address_of=lambda _: "house", address_threshold=1))
    scores.peer_added("a")
    scores.peer_added("a")
    assert scores.of("a") == 0.0


def test_p7_is_the_square_of_the_penalties_above_the_threshold() -> None:
    scores = scores_of(params=STRICT._replace(behaviour_threshold=1.0))
    found = []
    for times in (1, 1, 2):
        scores.penalise("a", times)
        found.append(scores.of("a"))
    assert found == [0.0, -1.0, -9.0]


def test_topics_add_up_by_their_weights() -> None:
    films = NOTHING._replace(weight=2.0, first_weight=1.0)
    books = NOTHING._replace(weight=10.0, first_weight=1.0)
    scores = Scores(ScoreParams(topics={"films": films, "books": books}, other_topics=None))
    scores.peer_added("a")
    for topic in ("films", "books", "songs"):
        scores.delivered("a", topic, topic, 0.0)
    assert scores.of("a") == 12.0


def test_all_topics_together_give_no_more_than_the_cap() -> None:
    scores = scores_of(NOTHING._replace(first_weight=1.0), STRICT._replace(topic_cap=2.0))
    for number in range(5):
        scores.delivered("a", f"t{number}", f"m{number}", 0.0)
    assert scores.of("a") == 2.0
    scores.penalise("a")
    assert scores.of("a") == 1.0


def test_counters_fade_once_per_interval() -> None:
    topic = NOTHING._replace(
        first_weight=1.0, first_decay=0.5, invalid_weight=-1.0, invalid_decay=0.5
    )
    scores = scores_of(topic, STRICT._replace(behaviour_decay=0.5))
    for number in range(8):
        scores.delivered("a", "films", f"m{number}", 0.0)
    scores.rejected("b", "films", "x", 0.0)
    scores.penalise("b", 2)
    scores.decay(0.5)
    assert (scores.of("a"), scores.of("b")) == (8.0, -5.0)
    scores.decay(1.0)
    assert (scores.of("a"), scores.of("b")) == (4.0, -1.25)


def test_intervals_that_were_missed_are_made_up_for() -> None:
    scores = scores_of(NOTHING._replace(first_weight=1.0, first_decay=0.5))
    for number in range(8):
        scores.delivered("a", "films", f"m{number}", 0.0)
    scores.decay(3.9)
    assert scores.of("a") == 1.0
    scores.decay(4.0)
    assert scores.of("a") == 0.5


def test_a_counter_that_is_small_enough_is_nothing() -> None:
    scores = scores_of(NOTHING._replace(first_weight=1.0, first_decay=0.05))
    scores.delivered("a", "films", "m", 0.0)
    scores.decay(1.0)
    assert scores.of("a") == 0.05
    scores.decay(2.0)
    assert scores.of("a") == 0.0


def test_a_peer_that_comes_back_has_the_score_it_went_with() -> None:
    scores = scores_of(BOTH, STRICT._replace(retain_seconds=10.0))
    scores.delivered("a", "films", "m", 0.0)
    scores.rejected("b", "films", "x", 0.0)
    scores.rejected("b", "films", "y", 0.0)
    for peer in ("a", "b"):
        scores.peer_removed(peer, 0.0)
    scores.decay(9.0)
    for peer in ("a", "b"):
        scores.peer_added(peer)
    assert (scores.of("a"), scores.of("b")) == (1.0, -4.0)


def test_a_peer_that_is_gone_too_long_is_forgotten() -> None:
    scores = scores_of(BOTH, STRICT._replace(retain_seconds=10.0))
    scores.rejected("a", "films", "x", 0.0)
    scores.peer_removed("a", 0.0)
    scores.decay(10.0)
    scores.peer_added("a")
    assert scores.of("a") == 0.0


def test_a_peer_that_goes_is_pruned() -> None:
    scores = scores_of(P3._replace(failure_weight=-1.0))
    scores.grafted("a", "films", 0.0)
    scores.decay(11.0)
    scores.peer_removed("a", 11.0)
    scores.peer_added("a")
    assert scores.of("a") == -16.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["deliver", "reject", "again", "graft", "prune", "penalise", "decay"]),
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        max_size=60,
    )
)
def test_a_score_that_is_kept_is_the_one_that_would_be_computed(
    steps: list[tuple[str, int, int]],
) -> None:
    topic = P3._replace(first_weight=1.0, invalid_weight=-3.0, time_weight=0.5, first_decay=0.9)
    asked, unasked = (Scores(ScoreParams(other_topics=topic)) for _ in range(2))
    now = 0.0
    for number, (step, peer_number, topic_number) in enumerate(steps):
        peer, name = f"p{peer_number}", f"t{topic_number}"
        now += 1.0 if step == "decay" else 0.001
        for scores in (asked, unasked):
            scores.peer_added(peer)
            match step:
                case "deliver":
                    scores.delivered(peer, name, f"m{number}", now)
                case "reject":
                    scores.rejected(peer, name, f"m{number}", now)
                case "again":
                    scores.duplicate(peer, f"m{number - 1}", now)
                case "graft":
                    scores.grafted(peer, name, now)
                case "prune":
                    scores.pruned(peer, name)
                case "penalise":
                    scores.penalise(peer)
                case _:
                    scores.decay(now)
        for known in ("p0", "p1", "p2"):  # only this one has scores to keep
            asked.of(known)
    for known in ("p0", "p1", "p2"):
        assert asked.of(known) == unasked.of(known)


def test_a_decay_vanishes_in_its_time() -> None:
    assert fading(600) ** 600 == pytest.approx(0.01)
    assert fading(60, interval=10) ** 6 == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("params", "scores"),
    [
        (GossipParams(d_low=7), ScoreParams()),
        (GossipParams(d_high=5), ScoreParams()),
        (GossipParams(d_out=4), ScoreParams()),
        (GossipParams(d=4, d_low=2, d_out=2), ScoreParams()),
        (GossipParams(d_score=7), ScoreParams()),
        (GossipParams(history_gossip=6), ScoreParams()),
        (GossipParams(), ScoreParams(gossip_threshold=1.0)),
        (GossipParams(), ScoreParams(publish_threshold=-1.0)),
        (GossipParams(), ScoreParams(graylist_threshold=-1.0)),
        (GossipParams(), ScoreParams(accept_px_threshold=-1.0)),
        (GossipParams(), ScoreParams(opportunistic_threshold=-1.0)),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(
    params: GossipParams, scores: ScoreParams
) -> None:
    check(GossipParams(), ScoreParams())
    with pytest.raises(ValueError, match="d_|history|graylist|thresholds"):
        check(params, scores)


def test_a_bootstrapper_may_have_no_mesh() -> None:
    check(GossipParams(d=0, d_low=0, d_high=0, d_score=0, d_out=0), ScoreParams())
