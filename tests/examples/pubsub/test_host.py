from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from examples.pubsub.host import SEEN_SECONDS, Host
from examples.pubsub.rpc import Message, Rpc, Sent, encode
from tests.examples.pubsub.networks import TOPIC, Net, heard_by, network, signed_by


@pytest.fixture
def net() -> Iterator[Net]:
    with network() as made:
        yield made


def trio(net: Net) -> tuple[Host, Host, Host]:
    """Give a, b and c in one topic, in a row: a - b - c."""
    a, b, c = net.hosts("a", "b", "c", topic=TOPIC)
    net.connect(b, a, c)
    return a, b, c


def peers(net: Net, host: Host, topic: str = "") -> list[str]:
    args = {"topic": topic} if topic else {}
    return sorted(net.ask(host, "GetPeers", **args))


# Peers and topics -----------------------------------------------------------------------------


def test_a_hello_says_which_topics_a_host_is_in_and_is_answered(net: Net) -> None:
    a, b = net.hosts("a", "b")
    net.tell(a, "AddSubscription", topic="films")
    net.tell(a, "AddRelay", topic="books")
    net.tell(a, "AddRelay", topic="films")
    net.tell(b, "AddSubscription", topic="songs")
    at_a, at_b = heard_by(a), heard_by(b)

    net.connect(a, b)

    assert at_b == [("a", Rpc(subscriptions=[("films", True), ("books", True)]))]
    assert at_a == [("b", Rpc(subscriptions=[("songs", True)]))]
    assert peers(net, a, "songs") == ["b"]
    assert peers(net, b, "films") == peers(net, b, "books") == ["a"]
    assert (a.stream_count, b.stream_count) == (1, 1)


def test_a_host_in_no_topic_says_hello_too(net: Net) -> None:
    a, b = net.hosts("a", "b")
    net.connect(a, b)

    assert peers(net, a) == ["b"]
    assert peers(net, b) == ["a"]


def test_connecting_twice_or_from_both_sides_makes_one_stream_each_way(net: Net) -> None:
    a, b = net.hosts("a", "b", topic=TOPIC)
    at_a, at_b = heard_by(a), heard_by(b)
    net.do(
        lambda: a.machine.add("PeersPending", topic=TOPIC, peers=["b", "b"], want=9),
        lambda: b.machine.add("PeersPending", topic=TOPIC, peers=["a"], want=9),
    )
    net.connect(a, b)

    assert (len(at_a), len(at_b)) == (1, 1)
    assert (a.stream_count, b.stream_count) == (1, 1)


def test_nobody_connects_to_itself(net: Net) -> None:
    (a,) = net.hosts("a", topic=TOPIC)
    net.connect(a, a)

    assert a.stream_count == 0


def test_a_host_connects_to_no_more_peers_than_it_lacks(net: Net) -> None:
    a, b, c, d, e = net.hosts(*"abcde", topic=TOPIC)
    net.connect(b, a)  # a knows one already

    net.connect(a, c, d, e, want=3)
    assert peers(net, a, TOPIC) == ["b", "c", "d"]
    net.connect(a, e, want=3)
    assert peers(net, a) == ["b", "c", "d"]


def test_a_peer_that_has_not_said_yet_that_it_is_in_the_topic_counts_as_one(net: Net) -> None:
    a, b, c = net.hosts("a", "b", "c")
    net.tell(c, "AddSubscription", topic=TOPIC)
    net.connect(a, b, want=1)

    net.connect(a, c, want=1)
    assert peers(net, a) == ["b"]
    net.connect(a, c, want=2)
    assert peers(net, a) == ["b", "c"]


def test_a_peer_that_has_left_the_topic_leaves_room_for_another_one(net: Net) -> None:
    a, b, c = net.hosts("a", "b", "c", topic=TOPIC)
    net.connect(a, b, want=1)
    net.tell(b, "RemoveSubscription", topic=TOPIC)

    net.connect(a, c, want=1)

    assert peers(net, a, TOPIC) == ["c"]


def test_a_peer_that_is_blacklisted_leaves_room_for_another_one(net: Net) -> None:
    a, b, c = net.hosts("a", "b", "c", topic=TOPIC)
    net.tell(a, "BlacklistPeer", peer="b")

    net.connect(a, b, c, want=1)

    assert peers(net, a) == ["c"]


def test_joining_and_leaving_a_topic_is_announced_to_all_peers(net: Net) -> None:
    a, b, c = net.hosts("a", "b", "c")
    net.connect(a, b, c)
    at_b, at_c = heard_by(b), heard_by(c)

    net.tell(a, "AddSubscription", topic=TOPIC)
    assert peers(net, b, TOPIC) == peers(net, c, TOPIC) == ["a"]
    net.tell(a, "RemoveSubscription", topic=TOPIC)
    assert peers(net, b, TOPIC) == peers(net, c, TOPIC) == []

    said = [("a", Rpc(subscriptions=[(TOPIC, joined)])) for joined in (True, False)]
    assert at_b == at_c == said


def test_only_the_first_use_of_a_topic_and_the_end_of_the_last_one_are_announced(net: Net) -> None:
    a, b = net.hosts("a", "b")
    net.connect(a, b)
    at_b = heard_by(b)
    for state in ("AddSubscription", "AddRelay", "AddSubscription", "RemoveSubscription"):
        net.tell(a, state, topic=TOPIC)
    net.tell(a, "RemoveSubscription", topic=TOPIC)
    assert len(at_b) == 1
    assert net.ask(a, "GetTopics") == []

    net.tell(a, "RemoveRelay", topic=TOPIC)

    assert at_b[1:] == [("a", Rpc(subscriptions=[(TOPIC, False)]))]


def test_what_peers_know_in_the_end_is_what_holds_however_quickly_it_changes(net: Net) -> None:
    a, b = net.hosts("a", "b")
    net.connect(a, b)

    def change(*states: str) -> None:
        for state in states:
            a.machine.add(state, topic=TOPIC)

    net.do(lambda: a.machine.eval(lambda: change("AddSubscription", "RemoveSubscription")))
    assert peers(net, b, TOPIC) == []
    net.do(
        lambda: a.machine.eval(
            lambda: change("AddSubscription", "RemoveSubscription", "AddSubscription")
        )
    )
    assert peers(net, b, TOPIC) == ["a"]


def test_questions_are_answered(net: Net) -> None:
    a, b, c = trio(net)
    net.tell(b, "AddSubscription", topic="books")
    net.tell(b, "AddRelay", topic="songs")

    assert net.ask(b, "GetTopics") == [TOPIC, "books"]
    assert net.ask(b, "GetPeers") == ["a", "c"]
    assert net.ask(a, "GetPeers", topic=TOPIC) == ["b"]
    assert net.ask(a, "GetPeers", topic="books") == ["b"]
    assert net.ask(a, "GetPeers", topic="unknown") == []
    assert c.machine.eval(lambda: c.peers_in(TOPIC)) == ("b",)
    assert b.machine.eval(b.meshes) == [2, 0]


# Messages -------------------------------------------------------------------------------------


def test_a_message_reaches_every_subscriber_once_and_its_author(net: Net) -> None:
    a, b, c = trio(net)

    message_id = net.publish(b, b"news")

    assert sorted(net.receivers(message_id)) == ["a", "b", "c"]
    by_host = {each.host: each for each in net.deliveries}
    assert by_host["a"].message == Message("b", 1, TOPIC, b"news", net.clock.now())
    assert (by_host["a"].hops, by_host["b"].hops) == (1, 0)
    assert a.counts.duplicates == c.counts.duplicates == 0


def test_hops_are_counted_along_the_way(net: Net) -> None:
    row = net.hosts(*"abcdef", topic=TOPIC)
    for one, other in itertools.pairwise(row):
        net.connect(one, other)

    net.publish(row[0])

    assert [(each.host, each.hops) for each in net.deliveries] == [
        (name, hops) for hops, name in enumerate("abcdef")
    ]


def test_a_message_takes_the_time_that_its_streams_take() -> None:
    with network(latency=lambda: 0.25) as net:
        a, _b, _c = trio(net)
        net.pass_time(2.0)
        net.publish(a)
        net.pass_time(2.0)

        assert [(each.host, each.received - 2.0) for each in net.deliveries] == [
            ("a", 0.0),
            ("b", 0.25),
            ("c", 0.5),
        ]
        assert {each.message.sent for each in net.deliveries} == {2.0}


def test_of_two_ways_the_later_copy_is_a_duplicate_and_goes_no_further(net: Net) -> None:
    a, b, c, d, e = net.hosts(*"abcde", topic=TOPIC)
    net.connect(a, b, c)
    net.connect(d, b, c, e)  # two ways from a to d, and one from there to e
    at_a, at_e = heard_by(a), heard_by(e)

    message_id = net.publish(a)

    assert sorted(net.receivers(message_id)) == ["a", "b", "c", "d", "e"]
    assert [peer for peer, _ in at_e] == ["d"]
    assert at_a == []  # nobody sends it back to its author
    # d hears of it from both, and passes the first copy on to the other one.
    assert d.counts.duplicates == 1
    assert b.counts.duplicates + c.counts.duplicates == 1


def test_a_copy_that_was_seen_is_not_passed_on(net: Net) -> None:
    a, b, c = trio(net)
    message_id = net.publish(a)
    at_c = heard_by(c)

    net.say(b, a, Rpc(publish=[signed_by("a", message_id)]))

    assert at_c == []
    assert b.counts.duplicates == 1
    assert sorted(net.receivers(message_id)) == ["a", "b", "c"]


def test_a_relay_passes_on_and_delivers_nothing(net: Net) -> None:
    a, b, c = net.hosts("a", "b", "c")
    net.tell([a, c], "AddSubscription", topic=TOPIC)
    net.tell(b, "AddRelay", topic=TOPIC)
    net.connect(b, a, c)

    message_id = net.publish(a)
    assert net.receivers(message_id) == ["a", "c"]

    net.tell(b, "RemoveRelay", topic=TOPIC)
    message_id = net.publish(a)
    assert net.receivers(message_id) == ["a"]


def test_who_is_in_no_topic_can_publish_but_hears_nothing_and_passes_nothing_on(net: Net) -> None:
    a, b, c = net.hosts("a", "b", "c")
    net.tell(c, "AddSubscription", topic=TOPIC)
    net.connect(b, a, c)
    assert net.receivers(net.publish(b)) == ["c"]

    message = signed_by("a", "a/9")
    net.say(b, a, Rpc(publish=[message]))

    assert net.receivers("a/9") == []
    assert b.counts.duplicates == b.counts.invalid == 0


def test_messages_of_one_topic_are_nothing_to_another(net: Net) -> None:
    a, _b, c = trio(net)
    net.tell([a, c], "AddSubscription", topic="books")

    assert net.receivers(net.publish(a, topic="books")) == ["a"]
    net.connect(a, c)
    assert net.receivers(net.publish(a, topic="books")) == ["a", "c"]


def test_who_has_unsubscribed_gets_nothing_any_more(net: Net) -> None:
    a, b, _c = trio(net)
    net.tell(b, "AddSubscription", topic=TOPIC)
    net.tell(b, "RemoveSubscription", topic=TOPIC)
    assert sorted(net.receivers(net.publish(a))) == ["a", "b", "c"]

    net.tell(b, "RemoveSubscription", topic=TOPIC)
    at_b = heard_by(b)

    assert net.receivers(net.publish(a)) == ["a"]
    assert at_b == []


def test_several_messages_in_one_frame_are_all_taken(net: Net) -> None:
    a, b, _c = trio(net)
    sent = [signed_by("a", f"a/{number}", b"%d" % number) for number in range(5)]
    net.say(b, a, Rpc(publish=sent))

    assert [each.message.data for each in net.deliveries if each.host == "c"] == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]


def test_bytes_and_frames_are_counted(net: Net) -> None:
    a, b, c = trio(net)
    before = b.counts.frames, b.counts.payload_bytes, b.counts.control_bytes
    message_id = net.publish(b, bytes(1000))
    frames, payload, control = (
        after - each
        for after, each in zip(
            (b.counts.frames, b.counts.payload_bytes, b.counts.control_bytes), before, strict=True
        )
    )

    assert len(net.receivers(message_id)) == 3
    assert frames == 2
    assert 2 * (1000 + 64) < payload < 2 * (1100 + 64)  # with the signature
    assert 0 < control < 100
    assert a.counts.payload_bytes == c.counts.payload_bytes == 0


# What is seen ---------------------------------------------------------------------------------


def test_a_message_is_known_for_two_minutes_and_then_forgotten(net: Net) -> None:
    a, b, _c = trio(net)
    copy = Rpc(publish=[signed_by("a", "a/9")])
    net.pass_time(0.5)
    net.say(b, a, copy)

    net.pass_time(SEEN_SECONDS - 1.5)
    net.say(b, a, copy)
    assert net.receivers("a/9") == ["b", "c"]
    assert b.counts.duplicates == 1

    net.pass_time(2.5)  # and a heartbeat
    net.say(b, a, copy)
    assert net.receivers("a/9") == ["b", "c", "b", "c"]
    assert b.counts.duplicates == 1


def test_only_what_is_old_is_forgotten(net: Net) -> None:
    a, b, _c = trio(net)
    net.say(b, a, Rpc(publish=[signed_by("a", "a/1")]))
    net.pass_time(60.0)
    net.say(b, a, Rpc(publish=[signed_by("a", "a/2")]))
    net.pass_time(SEEN_SECONDS - 58.0)

    both = [signed_by("a", "a/1"), signed_by("a", "a/2")]
    net.say(b, a, Rpc(publish=both))

    assert net.receivers("a/1") == ["b", "c"] * 2
    assert net.receivers("a/2") == ["b", "c"]


# What is not valid ----------------------------------------------------------------------------


def a_fake(message_id: str) -> Sent:
    """Give a message that c has made up in the name of a."""
    return signed_by("c", message_id, b"fake", claimed="a")


def test_a_message_with_a_wrong_signature_is_dropped_and_the_true_one_still_passes(
    net: Net,
) -> None:
    a, b, c = trio(net)
    net.say(b, c, Rpc(publish=[a_fake("a/9")]))
    assert net.receivers("a/9") == []
    assert b.counts.invalid == 1

    net.say(b, a, Rpc(publish=[signed_by("a", "a/9", b"true")]))

    assert net.receivers("a/9") == ["b", "c"]
    assert {each.message.data for each in net.deliveries} == {b"true"}


def test_a_fake_in_front_of_the_true_message_in_one_frame_does_not_hide_it(net: Net) -> None:
    _, b, c = trio(net)
    net.say(b, c, Rpc(publish=[a_fake("a/9"), signed_by("a", "a/9", b"true")]))

    assert "b" in net.receivers("a/9")
    assert {each.message.data for each in net.deliveries} == {b"true"}


def test_a_fake_that_is_being_checked_does_not_hide_the_true_message(net: Net) -> None:
    """What the machine of a host has queued comes before the verdict on a message."""
    _a, b, _c = trio(net)
    fake, true = Rpc(publish=[a_fake("a/9")]), Rpc(publish=[signed_by("a", "a/9", b"true")])

    net.do(
        lambda: b.machine.eval(
            lambda: [
                b.machine.add("IncomingRPC", peer=peer, rpc=encode(rpc))
                for peer, rpc in (("c", fake), ("a", true))
            ]
        )
    )

    assert "b" in net.receivers("a/9")


@pytest.mark.parametrize("signature", [b"", b"short", bytes(64)])
def test_a_message_that_is_not_signed_is_dropped(net: Net, signature: bytes) -> None:
    a, b, _c = trio(net)
    true = signed_by("a", "a/9")
    net.say(b, a, Rpc(publish=[Sent(true.id, 1, true.body, signature)]))

    assert net.deliveries == []
    assert b.counts.invalid == 1


def test_an_id_that_is_not_of_the_author_is_dropped(net: Net) -> None:
    a, b, _c = trio(net)
    net.say(b, a, Rpc(publish=[signed_by("a", "c/9"), signed_by("a", "ab/9"), signed_by("a", "")]))

    assert net.deliveries == []
    assert b.counts.invalid == 3


def test_where_nothing_is_signed_nothing_is_checked() -> None:
    with network(signed=False) as net:
        a, b, c = trio(net)
        assert sorted(net.receivers(net.publish(a))) == ["a", "b", "c"]
        net.say(b, c, Rpc(publish=[a_fake("a/9")]))

        assert "b" in net.receivers("a/9")


@pytest.mark.parametrize("body", [b"garbage", b"", b"\x95\xa1\x80", encode(Rpc())])
def test_a_body_that_is_no_message_is_dropped(net: Net, body: bytes) -> None:
    a, b, _c = trio(net)
    net.say(b, a, Rpc(publish=[Sent("a/8", 1, body, b""), signed_by("a", "a/9")]))

    assert net.receivers("a/8") == []
    assert net.receivers("a/9") == ["b", "c"]
    assert b.counts.invalid == 1
    assert peers(net, b) == ["a", "c"]


def test_a_validator_has_the_last_word_on_its_topic_until_it_is_removed(net: Net) -> None:
    a, b, _c = trio(net)
    asked: list[Message] = []

    def is_short(message: Message) -> bool:
        asked.append(message)
        return len(message.data) < 5

    net.tell(b, "AddValidator", topic=TOPIC, validator=is_short)
    assert net.receivers(net.publish(a, b"long message")) == ["a"]
    assert net.receivers(net.publish(a, b"ok")) == ["a", "b", "c"]
    assert b.counts.invalid == 1
    assert [(each.author, each.data) for each in asked] == [("a", b"long message"), ("a", b"ok")]

    net.tell(b, "RemoveValidator", topic=TOPIC)
    assert net.receivers(net.publish(a, b"long message")) == ["a", "b", "c"]


def test_a_validator_of_another_topic_is_not_asked(net: Net) -> None:
    a, b, _c = trio(net)
    net.tell(b, "AddValidator", topic="books", validator=lambda message: False)
    net.tell(b, "RemoveValidator", topic="songs")

    assert net.receivers(net.publish(a)) == ["a", "b", "c"]


def test_a_validator_is_not_asked_about_a_fake(net: Net) -> None:
    _a, b, c = trio(net)
    asked: list[Message] = []
    net.tell(b, "AddValidator", topic=TOPIC, validator=asked.append)
    net.say(b, c, Rpc(publish=[a_fake("a/9")]))

    assert asked == []


def test_a_validator_that_fails_drops_its_message_and_nothing_else(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, _c = trio(net)

    def validator(message: Message) -> bool:
        return int(message.data) > 0

    net.tell(b, "AddValidator", topic=TOPIC, validator=validator)
    net.say(b, a, Rpc(publish=[signed_by("a", "a/8", b"none"), signed_by("a", "a/9", b"7")]))

    assert net.receivers("a/8") == []
    assert net.receivers("a/9") == ["b", "c"]
    assert not b.machine.is_active("Exception")
    assert "error in a validator" in caplog.text


# Peers that go --------------------------------------------------------------------------------


def test_a_host_that_is_dropped_hangs_up_and_is_forgotten(net: Net) -> None:
    a, b, _c = trio(net)
    net.do(lambda: net.site.drop("b"))

    assert peers(net, a) == peers(net, a, TOPIC) == []
    assert a.stream_count == 0
    assert net.receivers(net.publish(a)) == ["a"]
    assert b.stream_count == 0
    assert b.machine.is_disposed


def test_a_host_that_has_crashed_is_forgotten_when_something_is_sent_to_it(net: Net) -> None:
    a, _b, c = trio(net)
    net.do(lambda: net.site.drop("b", hang_up=False))
    assert peers(net, a) == ["b"]

    message_id = net.publish(a)

    assert net.receivers(message_id) == ["a"]
    assert peers(net, a) == peers(net, a, TOPIC) == []
    assert peers(net, c) == ["b"]  # it has not tried


def test_a_host_that_is_not_there_is_forgotten_when_it_is_dialled(net: Net) -> None:
    a, b = net.hosts("a", "b", topic=TOPIC)
    net.tell(a, "PeersPending", topic=TOPIC, peers=["ghost"], want=1)
    assert peers(net, a) == []

    net.connect(a, b, want=1)  # it takes no room any more
    assert peers(net, a) == ["b"]


def test_hosts_of_a_lost_site_are_forgotten(net: Net) -> None:
    a, b, c = trio(net)
    net.do(lambda: net.site.lose(0))

    assert peers(net, a) == peers(net, b) == peers(net, c) == []


def test_a_peer_that_has_hung_up_may_come_back(net: Net) -> None:
    a, b, _c = trio(net)
    net.say(b, a, b"")
    net.say(a, b, b"")
    assert peers(net, b) == ["c"]
    assert peers(net, a) == []

    net.connect(a, b)

    assert peers(net, b) == ["a", "c"]
    assert sorted(net.receivers(net.publish(a))) == ["a", "b", "c"]


_NO_TEXT = b"\x93\x91\x92\xa1\x80\xc3\x90\xc0"  # the name of a topic is not UTF-8
_TOO_DEEP = b"\x94\x90\x90\xc0" + b"\x91" * 10_000  # a field too many, of lists of lists


@pytest.mark.parametrize(
    "garbage", [b"garbage", b"\xc1", encode(Rpc())[:-1], bytes(100), _NO_TEXT, _TOO_DEEP]
)
def test_who_sends_what_is_no_frame_is_hung_up_on(
    net: Net, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, c = trio(net)
    net.say(b, a, garbage)

    assert peers(net, b) == ["c"]
    assert peers(net, a) == []
    assert b.counts.invalid == 1
    assert "a has sent what is no frame" in caplog.text
    assert net.receivers(net.publish(a)) == ["a"]
    assert net.receivers(net.publish(c)) == ["c", "b"]


def test_a_frame_that_is_under_way_when_its_receiver_hangs_up_opens_the_stream_again_once() -> None:
    with network(latency=lambda: 0.0625) as net:
        a, b = net.hosts("a", "b", topic=TOPIC)
        net.connect(a, b)
        net.pass_time(1.0)
        message_id = net.publish(a)
        net.say(b, a, b"garbage")  # before the message arrives
        net.pass_time(1.0)
        assert net.receivers(message_id) == ["a", "b"]

        at_a, at_b = heard_by(a), heard_by(b)
        net.pass_time(9.0)

        assert (at_a, at_b) == ([], [])
        assert peers(net, a, TOPIC) == ["b"]
        assert peers(net, b, TOPIC) == ["a"]


def test_a_farewell_is_no_quicker_than_other_frames() -> None:
    with network(latency=lambda: 0.25) as net:
        a, b = net.hosts("a", "b", topic=TOPIC)
        net.connect(a, b)
        net.pass_time(1.0)
        net.do(lambda: net.site.drop("b"))
        net.pass_time(0.125)
        assert peers(net, a) == ["b"]
        net.pass_time(0.25)

        assert peers(net, a) == []


def test_a_blacklisted_peer_is_neither_heard_nor_told_anything(net: Net) -> None:
    a, b, c = trio(net)
    net.tell(b, "BlacklistPeer", peer="a")
    at_a = heard_by(a)
    assert peers(net, b) == ["c"]
    assert peers(net, a) == []

    net.connect(a, b)
    net.connect(b, a)
    net.say(b, a, Rpc(publish=[signed_by("a", "a/9")]))

    assert net.deliveries == []
    assert at_a == []
    assert net.receivers(net.publish(c)) == ["c", "b"]


def test_what_a_blacklisted_author_says_comes_by_others(net: Net) -> None:
    """The list is about connections; who trusts its peers takes what they pass on."""
    a, _b, c = trio(net)
    net.tell(c, "BlacklistPeer", peer="a")

    assert net.receivers(net.publish(a)) == ["a", "b", "c"]


# The end --------------------------------------------------------------------------------------


def test_a_host_that_has_stopped_does_nothing_more(net: Net) -> None:
    _a, b, _c = trio(net)
    beats = b.machine.tick("Heartbeat")
    net.tell(b, "RemoveSubscription", topic=TOPIC)
    net.do(lambda: b.machine.remove("Start"))
    net.pass_time(5.0)

    assert b.machine.tick("Heartbeat") == beats
    assert b.stream_count == 0
    assert not b.machine.add("PublishMessage", topic=TOPIC, id="b/1", data=b"")
    assert net.deliveries == []


def test_the_first_heartbeat_comes_early_and_the_others_every_second(net: Net) -> None:
    (a,) = net.hosts("a")
    times: list[float] = []
    a.machine.on("Heartbeat_state", lambda event: times.append(round(net.clock.now(), 9)))
    net.pass_time(3.5)

    assert times == [0.1, 1.1, 2.1, 3.1]
