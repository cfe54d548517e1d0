"""A gossip router that is led through many steps, while a much simpler model looks on."""

from __future__ import annotations

import math
from hashlib import sha256
from random import Random

from examples.pubsub.routers import Outbox
from examples.pubsub.routers.gossip import Gossip
from examples.pubsub.routers.params import GossipParams, ScoreParams, TopicScoreParams
from examples.pubsub.rpc import Control, Prune, Rpc, encode
from tests.examples.pubsub.routing import sent

Step = tuple[str, int, int]
# What can happen, the usual more often.
ACTIONS = (
    "add add add remove subscribe subscribe subscribe unsubscribe join join leave graft graft"
    " prune ihave iwant publish receive receive again reject beat beat beat beat wait"
).split()
PEERS = 18
TOPICS = ("films", "books")
PARAMS = GossipParams(exchange=3, opportunistic_ticks=3, prune_backoff=6.0, leave_backoff=2.0)
# All parts are on and all thresholds within reach. A prune makes no score better.
SCORES = ScoreParams(
    other_topics=TopicScoreParams(
        mesh_weight=-1.0,
        mesh_threshold=2.0,
        mesh_activation=5.0,
        mesh_window=1.0,
        failure_weight=-1.0,
        invalid_weight=-5.0,
    ),
    app_score=lambda peer: -1.0 if peer == "p3" else 2.0 if peer == "p4" else 0.0,
    address_of=lambda peer: f"house {int(peer[1:]) // 6}",
    address_weight=-0.1,
    behaviour_threshold=1.0,
    gossip_threshold=-10.0,
    publish_threshold=-20.0,
    graylist_threshold=-40.0,
)


class Walk:
    """The steps of one router, with what its host would know.

    Args:
        seed: of the router.

    """

    def __init__(self, seed: int) -> None:
        self.router = Gossip("me", Random(seed), PARAMS, SCORES)
        self.log: list[object] = []
        self._out = Outbox()
        self._now = 0.0
        self._peers: dict[str, dict[str, None]] = {}  # the topics of each that is connected
        self._joined: dict[str, None] = {}
        self._backoffs: dict[tuple[str, str], float] = {}
        self._ids: list[str] = []

    def take(self, step: Step) -> None:
        """Do a step, and check what holds after each."""
        action, number, topic = step
        self._act(action, f"p{number}", TOPICS[topic])
        self._check_said(self._out.take())
        for topic_name in TOPICS:
            mesh = self.router.mesh(topic_name)
            assert topic_name in self._joined or not mesh
            assert all(topic_name in self._peers.get(peer, ()) for peer in mesh)
        if action == "beat":
            self._check_sizes()

    def _act(self, action: str, peer: str, topic: str) -> None:
        router, now, out = self.router, self._now, self._out
        connected = peer in self._peers
        match action:
            case "add" if not connected:
                self._peers[peer] = {}
                router.peer_added(peer, now, outbound=int(peer[1:]) % 3 == 0)
            case "remove" if connected:
                del self._peers[peer]
                router.peer_removed(peer, now)
            case "subscribe" if connected:
                self._peers[peer][topic] = None
                router.peer_subscribed(peer, topic, now)
            case "unsubscribe" if connected:
                self._peers[peer].pop(topic, None)
                router.peer_unsubscribed(peer, topic, now)
            case "join":
                self._joined[topic] = None
                router.join(topic, now, out)
            case "leave":
                self._joined.pop(topic, None)
                router.leave(topic, now, out)
            case "publish":
                self._ids.append(f"m{len(self._ids)}")
                router.keep(sent(self._ids[-1]), topic)
                self.log.append(router.targets(topic, "me", None, now))
            case "beat":
                self._now += 1.0
                for phase in router.phases:
                    router.phase(phase, self._now, out)
            case "wait":
                self._now += 0.25
            case _ if connected and router.accepts(peer, now):
                self._hear(action, peer, topic)

    def _hear(self, action: str, peer: str, topic: str) -> None:
        router, now, out = self.router, self._now, self._out
        match action:
            case "graft":
                if topic in self._joined:
                    self._peers[peer][topic] = None
                router.control(peer, Control(graft=[topic]), now, out)
            case "prune":
                if topic in self._joined:
                    self._wait(peer, topic, 4.0)
                router.control(peer, Control(prune=[Prune(topic, 4.0, ("p1", "x"))]), now, out)
                self.log.append(router.take_exchanged())
            case "ihave":
                ids = [*self._ids[-5:], f"new{len(self._ids)}", f"newer{len(self._ids)}"]
                router.control(peer, Control(ihave=[(topic, ids)]), now, out)
            case "iwant":
                router.control(peer, Control(iwant=self._ids[-3:]), now, out)
            case "receive" if topic in self._joined:
                self._ids.append(f"m{len(self._ids)}")
                router.delivered(peer, topic, self._ids[-1], now)
                router.keep(sent(self._ids[-1]), topic)
                targets = router.targets(topic, "p0", peer, now)
                assert not {"p0", peer} & set(targets)
                self.log.append(targets)
            case "again" if self._ids:
                router.duplicate(peer, self._ids[-1], now)
            case "reject":
                self._ids.append(f"m{len(self._ids)}")
                router.rejected(peer, topic, self._ids[-1], now)

    def _wait(self, peer: str, topic: str, seconds: float) -> None:
        end = self._now + seconds
        self._backoffs[peer, topic] = max(end, self._backoffs.get((peer, topic), end))

    def _check_said(self, said: dict[str, Rpc]) -> None:
        for peer, rpc in said.items():
            assert peer in self._peers
            self.log.append((peer, encode(rpc)))
            control = rpc.control or Control()
            for topic in control.graft:
                assert peer in self.router.mesh(topic)
                assert self._now >= self._backoffs.get((peer, topic), 0.0)
            for prune in control.prune:
                assert peer not in self.router.mesh(prune.topic)
                assert peer not in prune.peers
                self._wait(peer, prune.topic, prune.backoff)
            assert not set(control.iwant) & set(self._ids)

    def _check_sizes(self) -> None:
        """See that after a heartbeat no mesh is too big, or smaller than it has to be."""
        for topic in self._joined:
            mesh = self.router.mesh(topic)
            # The quota of outbound peers is filled also if the mesh is full.
            assert len(mesh) <= PARAMS.d_high + PARAMS.d_out
            assert all(self.router.score(peer) >= 0 for peer in mesh)
            if len(mesh) < PARAMS.d_low:
                assert not [p for p in self._peers if p not in mesh and self._may_graft(p, topic)]

    def _may_graft(self, peer: str, topic: str) -> bool:
        over = self._backoffs.get((peer, topic), -math.inf) + PARAMS.backoff_slack
        return topic in self._peers[peer] and over < self._now and self.router.score(peer) >= 0


def steps(count: int, seed: int) -> list[Step]:
    """Give random steps."""
    rng = Random(seed)
    return [(rng.choice(ACTIONS), rng.randrange(PEERS), rng.randrange(2)) for _ in range(count)]


def digest(count: int, seed: int) -> str:
    """Take so many random steps, and give what tells their outcome from others."""
    walk = Walk(seed)
    for step in steps(count, seed):
        walk.take(step)
    return sha256(repr(walk.log).encode()).hexdigest()
