"""What the tests of routers share: messages, and a gossip router with peers in a topic."""

from __future__ import annotations

from random import Random

from examples.pubsub.routers import Outbox
from examples.pubsub.routers.gossip import Gossip
from examples.pubsub.routers.params import GossipParams, ScoreParams
from examples.pubsub.rpc import Control, Rpc, Sent

TOPIC = "films"


def sent(message_id: str, hops: int = 0) -> Sent:
    return Sent(message_id, hops, message_id.encode(), b"signed")


class Scene:
    """A gossip router, its outbox and the time."""

    def __init__(
        self,
        peers: int = 0,
        params: GossipParams | None = None,
        scores: ScoreParams | None = None,
        *,
        seed: int = 1,
        outbound: int = 0,
    ) -> None:
        self.router = Gossip("me", Random(seed), params or GossipParams(), scores or ScoreParams())
        self.out = Outbox()
        self.now = 0.0
        self.peers = [f"p{number}" for number in range(peers)]
        for number, peer in enumerate(self.peers):
            self.router.peer_added(peer, 0.0, outbound=number < outbound)
            self.router.peer_subscribed(peer, TOPIC, 0.0)

    def join(self, topic: str = TOPIC) -> dict[str, Rpc]:
        self.router.join(topic, self.now, self.out)
        return self.out.take()

    def leave(self, topic: str = TOPIC) -> dict[str, Rpc]:
        self.router.leave(topic, self.now, self.out)
        return self.out.take()

    def hear(self, peer: str, control: Control) -> dict[str, Rpc]:
        self.router.control(peer, control, self.now, self.out)
        return self.out.take()

    def graft(self, *peers: str) -> dict[str, Rpc]:
        for peer in peers:
            self.router.control(peer, Control(graft=[TOPIC]), self.now, self.out)
        return self.out.take()

    def phase(self, name: str) -> dict[str, Rpc]:
        self.router.phase(name, self.now, self.out)
        return self.out.take()

    def beat(self, seconds: float = 1.0) -> dict[str, Rpc]:
        """Pass time, and do a whole heartbeat then."""
        self.now += seconds
        for name in self.router.phases:
            self.router.phase(name, self.now, self.out)
        return self.out.take()

    def receive(self, message_id: str, by: str, topic: str = TOPIC) -> list[str]:
        """Have a message arrive that is new and valid; gives whom it is passed on to."""
        self.router.delivered(by, topic, message_id, self.now)
        self.router.keep(sent(message_id, 1), topic)
        return self.router.targets(topic, "author", by, self.now)

    @property
    def mesh(self) -> tuple[str, ...]:
        return self.router.mesh(TOPIC)


def control_of(said: dict[str, Rpc], peer: str) -> Control:
    """Give what a peer's router was told: nothing if nothing was."""
    control = said[peer].control if peer in said else None
    return Control() if control is None else control


def grafted(said: dict[str, Rpc]) -> list[str]:
    return [peer for peer in said if TOPIC in control_of(said, peer).graft]


def pruned(said: dict[str, Rpc]) -> list[str]:
    return [peer for peer in said if any(p.topic == TOPIC for p in control_of(said, peer).prune)]


def told(said: dict[str, Rpc]) -> dict[str, list[str]]:
    """Give which ids peers were told of."""
    return {
        peer: ids for peer in said for topic, ids in control_of(said, peer).ihave if topic == TOPIC
    }
