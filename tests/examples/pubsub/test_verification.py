from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from examples.pubsub.verification import TELLING, Verification

# When a message with a deadline of 5 s is judged that was sent at 0.
JUDGED = 5.0 + TELLING


def promised(*receivers: str, topic: str = "films", now: float = 0.0) -> Verification:
    """Give a check with a deadline of 5 s, and one message ``a/1`` of ``a``."""
    check = Verification(5.0)
    check.promise("a/1", topic, "a", receivers, now)
    return check


def totals(check: Verification) -> tuple[int, int, int]:
    return check.promised, check.received, check.missed


def test_what_arrives_is_received_and_what_does_not_within_the_deadline_is_missed() -> None:
    check = promised("b", "c", "d")
    check.arrived("a/1", "b", 1, 0.5)
    check.arrived("a/1", "d", 3, 0.25)

    check.settle(JUDGED - 0.001)
    assert (check.verdicts, check.under_way) == ([], 1)
    check.settle(JUDGED)

    (verdict,) = check.verdicts
    assert (verdict.expected, verdict.received, verdict.missed) == (3, 2, ("c",))
    assert (verdict.slowest, verdict.most_hops) == (0.5, 3)
    assert (verdict.id, verdict.topic, verdict.author, verdict.sent) == ("a/1", "films", "a", 0.0)
    assert totals(check) == (3, 2, 1)
    assert list(check.latencies) == [0.5, 0.25]
    assert check.hops == {1: 1, 3: 1}
    assert check.under_way == 0


def test_nothing_is_promised_to_the_author() -> None:
    check = promised("a", "b")
    check.arrived("a/1", "a", 0, 0.0)
    check.settle(9.0)

    assert totals(check) == (1, 0, 1)
    assert check.verdicts[0].missed == ("b",)


def test_what_is_not_promised_does_not_count() -> None:
    check = promised("b")
    check.arrived("a/1", "stranger", 1, 0.1)
    check.arrived("x/1", "b", 1, 0.1)
    check.arrived("a/1", "b", 1, 0.2)
    check.arrived("a/1", "b", 2, 0.3)

    assert totals(check) == (1, 1, 0)
    assert list(check.latencies) == [0.2]
    assert check.hops == {1: 1}


def test_what_is_told_of_late_counts_if_it_has_arrived_in_time() -> None:
    check = promised("b", "c")
    check.settle(5.25)
    check.arrived("a/1", "b", 1, 5.0)
    check.arrived("a/1", "c", 1, 5.001)
    check.settle(JUDGED)

    assert totals(check) == (2, 1, 1)
    assert check.verdicts[0].missed == ("c",)
    assert list(check.latencies) == [5.0]


def test_what_arrives_after_the_verdict_is_missed() -> None:
    check = promised("b")
    check.settle(JUDGED)
    check.arrived("a/1", "b", 1, 5.1)

    assert totals(check) == (1, 0, 1)
    assert list(check.latencies) == []


def test_the_deadline_counts_from_when_the_message_was_really_sent() -> None:
    check = promised("b")
    check.sent("a/1", 2.0)
    check.sent("unknown/1", 2.0)

    check.settle(JUDGED + 1.9)
    assert check.verdicts == []
    check.settle(JUDGED + 2.0)
    assert [each.sent for each in check.verdicts] == [2.0]


def test_who_leaves_the_topic_is_released_and_keeps_what_has_arrived() -> None:
    check = promised("b", "c", "d")
    check.arrived("a/1", "c", 1, 0.1)
    check.release("b", "films")
    check.release("c", "films")
    check.release("d", "books")
    check.arrived("a/1", "b", 1, 0.2)
    check.settle(JUDGED)

    assert totals(check) == (2, 1, 1)
    (verdict,) = check.verdicts
    assert (verdict.expected, verdict.received, verdict.missed) == (2, 1, ("d",))


def test_who_dies_is_released_in_all_topics() -> None:
    check = promised("b", "c")
    check.promise("a/2", "books", "a", ["b"], 0.0)
    check.release("b")
    check.settle(JUDGED)

    assert totals(check) == (1, 0, 1)
    assert [(each.id, each.expected) for each in check.verdicts] == [("a/1", 1), ("a/2", 0)]


def test_a_message_of_an_author_who_died_is_nobodys_miss_if_nobody_has_it() -> None:
    check = promised("b", "c")
    check.author_died("a")
    check.settle(JUDGED)

    assert totals(check) == (0, 0, 0)
    assert check.verdicts[0][4:7] == (0, 0, ())


def test_a_message_of_an_author_who_died_is_missed_by_the_rest_if_somebody_has_it() -> None:
    check = promised("b", "c")
    check.author_died("a")
    check.arrived("a/1", "b", 1, 0.1)
    check.settle(JUDGED)

    assert totals(check) == (2, 1, 1)
    assert check.verdicts[0].missed == ("c",)


def test_the_death_of_another_author_changes_nothing() -> None:
    check = promised("b")
    check.author_died("b")
    check.settle(JUDGED)

    assert totals(check) == (1, 0, 1)


def test_at_the_end_what_has_a_deadline_to_come_is_taken_back_but_not_what_is_over() -> None:
    check = promised("b", "c")
    check.promise("a/2", "films", "a", ["b", "c"], 3.0)
    check.arrived("a/2", "c", 1, 0.1)
    check.end(JUDGED + 1.0)

    assert totals(check) == (3, 1, 2)
    assert [(each.expected, each.received, each.missed) for each in check.verdicts] == [
        (2, 0, ("b", "c")),
        (1, 1, ()),
    ]
    assert check.under_way == 0


def test_verdicts_come_in_the_order_of_the_promises() -> None:
    check = promised("b")
    check.promise("a/2", "films", "a", ["b"], 0.5)
    check.promise("a/3", "films", "a", ["b"], 1.0)
    check.sent("a/2", 9.0)
    check.settle(JUDGED + 1.0)
    check.settle(JUDGED + 9.0)

    assert [each.id for each in check.verdicts] == ["a/1", "a/3", "a/2"]


_MESSAGES = st.sampled_from(["a/1", "b/2", "c/3"])
_PEERS = st.sampled_from("abcd")
_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("arrived"), _MESSAGES, _PEERS),
        st.tuples(st.just("release"), st.sampled_from(["films", "books", ""]), _PEERS),
        st.tuples(st.just("died"), st.just(""), _PEERS),
        st.tuples(st.just("settle"), st.just(""), st.just("")),
    ),
    max_size=30,
)


@given(_EVENTS)
def test_totals_are_the_sums_of_the_verdicts_and_every_promise_is_settled_once(
    events: list[tuple[str, str, str]],
) -> None:
    check = Verification(5.0)
    for name, topic in (("a/1", "films"), ("b/2", "films"), ("c/3", "books")):
        check.promise(name, topic, name[0], "abcd", 0.0)
    for now, (kind, what, peer) in enumerate(events):
        if kind == "arrived":
            check.arrived(what, peer, 1, now / 2)
        elif kind == "release":
            check.release(peer, what or None)
        elif kind == "died":
            check.author_died(peer)
        else:
            check.settle(float(now))
        assert check.received + check.missed <= check.promised
    check.end(float(len(events)))

    assert check.promised == check.received + check.missed
    assert check.promised == sum(each.expected for each in check.verdicts)
    assert check.received == sum(each.received for each in check.verdicts)
    assert check.missed == sum(len(each.missed) for each in check.verdicts)
    assert check.received == len(check.latencies) == sum(check.hops.values())
    assert sorted(each.id for each in check.verdicts) == ["a/1", "b/2", "c/3"]
