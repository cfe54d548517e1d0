from __future__ import annotations

from examples.pubsub.routers import Outbox, Router
from examples.pubsub.routers.flood import Flood
from examples.pubsub.rpc import Control
from tests.examples.pubsub.routing import sent


def flood(*peers: str) -> Flood:
    router = Flood()
    for peer in peers:
        router.peer_added(peer, 0.0, outbound=True)
        router.peer_subscribed(peer, "films", 0.0)
    return router


def test_an_own_message_goes_to_every_peer_of_its_topic() -> None:
    router = flood("a", "b", "c")
    router.peer_subscribed("d", "books", 0.0)
    assert router.targets("films", "me", None, 1.0) == ["a", "b", "c"]


def test_a_message_goes_neither_back_nor_to_its_author() -> None:
    assert flood("a", "b", "c").targets("films", "c", "a", 1.0) == ["b"]


def test_peers_that_leave_or_are_gone_get_nothing() -> None:
    router = flood("a", "b", "c")
    router.peer_unsubscribed("a", "films", 1.0)
    router.peer_removed("b", 1.0)
    assert router.targets("films", "me", None, 2.0) == ["c"]
    assert router.mesh("films") == ("c",)


def test_a_topic_that_nobody_is_in_has_no_targets() -> None:
    router = flood()
    router.peer_unsubscribed("a", "films", 0.0)
    assert router.targets("films", "me", None, 0.0) == []


def test_it_accepts_everybody_and_says_nothing() -> None:
    router: Router = flood("a")
    out = Outbox()
    router.join("films", 0.0, out)
    router.keep(sent("m"), "films")
    router.delivered("a", "films", "m", 0.0)
    router.duplicate("a", "m", 0.0)
    router.rejected("a", "films", "x", 0.0)
    router.control("a", Control(graft=["films"], iwant=["m"]), 0.0, out)
    router.leave("films", 0.0, out)
    assert router.accepts("a", 0.0)
    assert router.phases == ()
    assert not out
