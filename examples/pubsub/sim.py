"""The simulator: a machine whose states are what may happen next.

Each heartbeat asks for every action that has not happened lately. Its enter handler
chooses whom it is about and may refuse; then it happens, and the action removes itself. A
refused action is asked for again at the next heartbeat, for its period counts from the
last time that it was accepted.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypedDict, cast

from asyncmachine import Machine, State, States
from examples.pubsub.args import args_of
from examples.pubsub.topics import PEAK, Topic, topic_name
from examples.pubsub.verification import Verification

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncmachine import Event
    from examples.pubsub.clock import Clock
    from examples.pubsub.settings import Settings

__all__ = ["PERIODS", "PeerKnown", "SimStates", "Simulator", "World"]

# The mean period of each action, in seconds, spread by a quarter each time; 0 is each heartbeat.
PERIODS: Final[dict[str, float]] = {
    "AddPeer": 3,
    "RemovePeer": 50,
    "AddTopic": 3,
    "RemoveTopic": 80,
    "PeakRandTopic": 10,
    "AddRandomFriend": 2,
    "GC": 100,
    "JoinRandomTopic": 2,
    "JoinFriendsTopic": 4,
    "MsgRandomTopic": 3,
    "VerifyMsgsRecv": 0,
    "RefreshMetrics": 0,
}
_SPREAD: Final = 0.25
_HEARTBEAT: Final = 1.0

# How it begins, and how far it goes.
_FIRST_TOPICS: Final = 10
_PEERS_AT_FIRST: Final = 5  # of a topic
_MOST_TOPICS_OF_A_PEER: Final = 15
_MOST_PEERS_OF_A_TOPIC: Final = 10
_MOST_FRIENDS: Final = 10
_AT_A_PEAK: Final = 5
_MESSAGES: Final = 2
# What is tried to find two peers, or a peer and a topic, that fit.
_TRIES: Final = 20

_ACTION: Final = State(require="Start")


class SimStates(States):
    """What the simulator does, and what peers tell it."""

    Start = State()
    Heartbeat = _ACTION
    AddPeer = _ACTION
    RemovePeer = _ACTION
    AddTopic = _ACTION
    RemoveTopic = _ACTION
    PeakRandTopic = _ACTION
    AddRandomFriend = _ACTION
    GC = _ACTION
    JoinRandomTopic = _ACTION
    JoinFriendsTopic = _ACTION
    MsgRandomTopic = _ACTION
    VerifyMsgsRecv = _ACTION
    RefreshMetrics = _ACTION

    PeerTold = State(multi=True)
    SiteLost = State(multi=True, require="Start")


class PeerKnown(NamedTuple):
    """What the simulator knows of a peer.

    Attributes:
        site: where it lives.
        topics: topics that it has joined or was asked to join.
        friends: its friends.

    """

    site: int
    topics: dict[str, None]
    friends: dict[str, None]


class _Chosen(TypedDict, total=False):
    """What the enter handler of an action has chosen for what comes then."""

    peer: str
    topic: str
    joins: tuple[Topic, list[str]]
    join: tuple[str, Topic]
    friends: tuple[str, str]
    message: tuple[Topic, str]


def _chosen(event: Event) -> _Chosen:
    return cast("_Chosen", event.transition.data)


class World(Protocol):
    """Where the peers are."""

    def make_peer(self, name: str) -> int:
        """Have a peer made; give the number of its site."""

    def stop_peer(self, name: str, site: int, *, crash: bool) -> None:
        """Have a peer stopped; a crash is without a word to the others."""

    def tell_peer(self, name: str, site: int, state: str, **args: object) -> None:
        """Have a state of a peer added."""


class Simulator:
    """The simulator.

    Args:
        settings: how the run was asked for.
        clock: the time.
        world: where the peers are.
        sample: called once a second, to take a sample.

    Attributes:
        machine: the machine.
        check: what becomes of the messages.
        peers: the peers that are ready.
        topics: the topics.
        topic_made: called with the machine of each new topic.

    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        world: World,
        sample: Callable[[], object] = lambda: None,
    ) -> None:
        self.check = Verification(settings.deadline)
        self.peers: dict[str, PeerKnown] = {}
        self.topics: dict[str, Topic] = {}
        self._settings = settings
        self._clock = clock
        self._world = world
        self._sample = sample
        self.topic_made: Callable[[Machine], object] = lambda machine: None
        self._rng = Random(f"{settings.seed}/sim")
        self._coming: dict[str, int] = {}  # peers that are not ready yet, and their sites
        self._peer_number = self._topic_number = self._message_number = 0
        self._least: dict[str, float] = {}  # when each action may come again
        self._next_crash = float("inf")
        self.machine = Machine(SimStates, id="sim", handlers=self)

    # Time -----------------------------------------------------------------------------------

    def Start_state(self, event: Event) -> None:
        settings = self._settings
        for _ in range(settings.peers):
            self._make_peer()
        for _ in range(1 if settings.steady else min(_FIRST_TOPICS, settings.topics)):
            self._make_topic()
        self._plan_crash()
        self._clock.call_later(_HEARTBEAT, self._beat)

    def _beat(self) -> None:
        if self.machine.is_active("Start"):
            self._clock.call_later(_HEARTBEAT, self._beat)
            self.machine.add("Heartbeat")

    def Heartbeat_state(self, event: Event) -> None:
        event.machine.remove("Heartbeat")
        now = self._clock.now()
        steady = self._settings.steady
        for action in PERIODS:
            if steady and action not in ("MsgRandomTopic", "VerifyMsgsRecv", "RefreshMetrics"):
                continue
            if self._least.get(action, 0.0) <= now:
                event.machine.add(action)
        for topic in self.topics.values():
            topic.refresh(now)
        if now >= self._next_crash:
            self._crash_one()
            self._plan_crash()

    def _done(self, event: Event) -> None:
        """Have an action removed, and come again after its period."""
        action = event.name.removesuffix("_state")
        event.machine.remove(action)
        spread = self._rng.uniform(1 - _SPREAD, 1 + _SPREAD)
        self._least[action] = self._clock.now() + PERIODS[action] * spread

    # Peers ----------------------------------------------------------------------------------

    def AddPeer_enter(self, event: Event) -> bool:
        return len(self.peers) + len(self._coming) < self._settings.peers

    def AddPeer_state(self, event: Event) -> None:
        self._done(event)
        self._make_peer()

    def _make_peer(self) -> None:
        name = f"p{self._peer_number}"
        self._peer_number += 1
        self._coming[name] = self._world.make_peer(name)

    def RemovePeer_enter(self, event: Event) -> bool:
        """Keep nine in ten of those that there may be."""
        if len(self.peers) <= self._settings.peers * 0.9:
            return False
        _chosen(event)["peer"] = self._rng.choice(list(self.peers))
        return True

    def RemovePeer_state(self, event: Event) -> None:
        self._done(event)
        self._stop_peer(_chosen(event)["peer"], crash=False)

    def _stop_peer(self, name: str, *, crash: bool) -> None:
        known = self._forget_peer(name)
        if known is not None:
            self._world.stop_peer(name, known.site, crash=crash)
            if crash:
                self.check.author_died(name)

    def _forget_peer(self, name: str) -> PeerKnown | None:
        known = self.peers.pop(name, None)
        if known is None:
            return None
        for friend in known.friends:
            self.peers[friend].friends.pop(name, None)
        for topic in known.topics:
            self._take_out(name, topic)
        self.check.release(name)
        return known

    def _take_out(self, name: str, topic: str) -> None:
        found = self.topics.get(topic)
        if found is not None:
            found.members.pop(name, None)
            found.coming.pop(name, None)

    def _plan_crash(self) -> None:
        if self._settings.fail > 0:
            self._next_crash = self._clock.now() + self._rng.expovariate(self._settings.fail / 60)

    def _crash_one(self) -> None:
        if self.peers:
            self._stop_peer(self._rng.choice(list(self.peers)), crash=True)

    # Topics ---------------------------------------------------------------------------------

    def AddTopic_enter(self, event: Event) -> bool:
        return len(self.topics) < self._settings.topics and any(
            len(known.topics) < _MOST_TOPICS_OF_A_PEER for known in self.peers.values()
        )

    def AddTopic_state(self, event: Event) -> None:
        self._done(event)
        self._make_topic()

    def _make_topic(self) -> None:
        name = topic_name(self._topic_number, tuple(self.topics))
        self._topic_number += 1
        topic = self.topics[name] = Topic(name)
        self.topic_made(topic.machine)
        for peer in self._some_peers(_PEERS_AT_FIRST):
            self._join(peer, topic)

    def _some_peers(self, most: int) -> list[str]:
        free = [name for name, known in self.peers.items() if self._has_room(known)]
        return self._rng.sample(free, min(most, len(free)))

    def _has_room(self, known: PeerKnown) -> bool:
        return len(known.topics) < _MOST_TOPICS_OF_A_PEER

    def _room_in(self, topic: Topic) -> int:
        return _MOST_PEERS_OF_A_TOPIC - len(topic.members) - len(topic.coming)

    def _join(self, name: str, topic: Topic) -> None:
        known = self.peers[name]
        known.topics[topic.name] = None
        alone = not topic.members and not topic.coming
        topic.coming[name] = None
        self._world.tell_peer(name, known.site, "JoiningTopic", topic=topic.name, alone=alone)

    def _may_join(self, name: str, topic: Topic) -> bool:
        known = self.peers[name]
        return topic.name not in known.topics and self._has_room(known) and self._room_in(topic) > 0

    def RemoveTopic_enter(self, event: Event) -> bool:
        if not self.topics:
            return False
        _chosen(event)["topic"] = self._rng.choice(list(self.topics))
        return True

    def RemoveTopic_state(self, event: Event) -> None:
        self._done(event)
        topic = self.topics.pop(_chosen(event)["topic"])
        for name in [*topic.members, *topic.coming]:
            known = self.peers[name]
            known.topics.pop(topic.name, None)
            self.check.release(name, topic.name)
            self._world.tell_peer(name, known.site, "LeavingTopic", topic=topic.name)
        topic.machine.dispose()

    def PeakRandTopic_enter(self, event: Event) -> bool:
        """Choose a topic, and who joins it: recorded like all others, and within the cap."""
        if len(self.topics) < 3 or len(self.peers) < PEAK:
            return False
        topic = self.topics[self._rng.choice(list(self.topics))]
        free = [name for name in self.peers if self._may_join(name, topic)]
        many = min(_AT_A_PEAK, self._room_in(topic), len(free))
        if many <= 0:
            return False
        _chosen(event)["joins"] = (topic, self._rng.sample(free, many))
        return True

    def PeakRandTopic_state(self, event: Event) -> None:
        self._done(event)
        topic, names = _chosen(event)["joins"]
        for name in names:
            self._join(name, topic)

    def JoinRandomTopic_enter(self, event: Event) -> bool:
        if not self.topics or not self.peers:
            return False
        topics, peers = list(self.topics.values()), list(self.peers)
        for _ in range(_TRIES):
            name, topic = self._rng.choice(peers), self._rng.choice(topics)
            if self._may_join(name, topic):
                _chosen(event)["join"] = (name, topic)
                return True
        return False

    def JoinRandomTopic_state(self, event: Event) -> None:
        self._done(event)
        name, topic = _chosen(event)["join"]
        self._join(name, topic)

    def JoinFriendsTopic_enter(self, event: Event) -> bool:
        """Choose a topic that a friend is in, and that has room."""
        friendly = [name for name, known in self.peers.items() if known.friends]
        for _ in range(_TRIES if friendly else 0):
            name = self._rng.choice(friendly)
            friend = self._rng.choice(list(self.peers[name].friends))
            theirs = [self.topics[each] for each in self.peers[friend].topics]
            fitting = [topic for topic in theirs if self._may_join(name, topic)]
            if fitting:
                _chosen(event)["join"] = (name, self._rng.choice(fitting))
                return True
        return False

    def JoinFriendsTopic_state(self, event: Event) -> None:
        self.JoinRandomTopic_state(event)

    # Friends --------------------------------------------------------------------------------

    def AddRandomFriend_enter(self, event: Event) -> bool:
        peers = list(self.peers)
        for _ in range(_TRIES if len(peers) > 1 else 0):
            one, other = self._rng.sample(peers, 2)
            first, second = self.peers[one], self.peers[other]
            if (
                other not in first.friends
                and len(first.friends) < _MOST_FRIENDS
                and len(second.friends) < _MOST_FRIENDS
                and first.topics
            ):
                _chosen(event)["friends"] = (one, other)
                return True
        return False

    def AddRandomFriend_state(self, event: Event) -> None:
        """Make them friends; the other one joins a topic of the first, if it has room."""
        self._done(event)
        one, other = _chosen(event)["friends"]
        first = self.peers[one]
        first.friends[other] = None
        self.peers[other].friends[one] = None
        fitting = [
            topic
            for topic in (self.topics[name] for name in first.topics)
            if self._may_join(other, topic)
        ]
        if fitting:
            self._join(other, self._rng.choice(fitting))

    def GC_state(self, event: Event) -> None:
        """End friendships without a topic in common."""
        self._done(event)
        for name, known in self.peers.items():
            for friend in [*known.friends]:
                if not known.topics.keys() & self.peers[friend].topics.keys():
                    del known.friends[friend]
                    del self.peers[friend].friends[name]

    # Messages -------------------------------------------------------------------------------

    def MsgRandomTopic_enter(self, event: Event) -> bool:
        topics = [topic for topic in self.topics.values() if len(topic.members) >= 2]
        if not topics or (self._settings.steady and not self._all_there()):
            return False
        topic = self._rng.choice(topics)
        _chosen(event)["message"] = (topic, self._rng.choice(list(topic.members)))
        return True

    def _all_there(self) -> bool:
        return not self._coming and not any(topic.coming for topic in self.topics.values())

    def MsgRandomTopic_state(self, event: Event) -> None:
        self._done(event)
        topic, name = _chosen(event)["message"]
        self.send_messages(topic, name, _MESSAGES)

    def send_messages(self, topic: Topic, name: str, many: int) -> list[str]:
        """Have a peer send messages, and promise them to who is in the topic; give their ids."""
        now = self._clock.now()
        ids = []
        for _ in range(many):
            self._message_number += 1
            ids.append(f"{name}/{self._message_number}")
            self.check.promise(ids[-1], topic.name, name, topic.members, now)
        topic.last_message = now
        self._world.tell_peer(name, self.peers[name].site, "SendingMsgs", topic=topic.name, ids=ids)
        return ids

    def VerifyMsgsRecv_state(self, event: Event) -> None:
        self._done(event)
        self.check.settle(self._clock.now())

    def RefreshMetrics_state(self, event: Event) -> None:
        self._done(event)
        self._sample()

    # What is told ---------------------------------------------------------------------------

    def PeerTold_state(self, event: Event) -> None:
        args = args_of(event)
        of = args["of"]
        if of == "received":
            for message, receiver, hops, latency in args["rows"]:
                self.check.arrived(message, receiver, hops, latency)
        elif of == "sent":
            for message in args["ids"]:
                self.check.sent(message, args["when"])
        elif of == "ready":
            self._is_ready(args["peer"])
        elif of == "joined":
            self._has_joined(args["peer"], args["topic"])

    def _is_ready(self, name: str) -> None:
        site = self._coming.pop(name, None)
        if site is None:
            return
        self.peers[name] = PeerKnown(site, {}, {})
        for topic in self.topics.values():
            if self._settings.steady or (
                len(topic.members) + len(topic.coming) < _PEERS_AT_FIRST
                and self._has_room(self.peers[name])
            ):
                self._join(name, topic)

    def _has_joined(self, name: str, topic_name: str) -> None:
        topic = self.topics.get(topic_name)
        if topic is not None and name in topic.coming:
            del topic.coming[name]
            topic.members[name] = None

    def SiteLost_state(self, event: Event) -> None:
        """Do without the peers of a site that has died."""
        site: int = args_of(event)["site"]
        self._coming = {name: where for name, where in self._coming.items() if where != site}
        gone: Sequence[str] = [name for name, each in self.peers.items() if each.site == site]
        for name in gone:
            self._forget_peer(name)
            self.check.author_died(name)
