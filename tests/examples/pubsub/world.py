"""A world without a network, for the simulator alone, and a simulator in it."""

from __future__ import annotations

from typing import NamedTuple

from asyncmachine import Tracer, Transition
from examples.pubsub.clock import VirtualClock
from examples.pubsub.settings import Settings
from examples.pubsub.sim import PeerKnown, Simulator
from examples.pubsub.topics import Topic

SITES = 2


class Told(NamedTuple):
    """A state of a peer that was added, and with what."""

    peer: str
    state: str
    args: dict[str, object]


class World:
    """Where peers are: it takes down what the simulator has done, and does nothing itself."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.stopped: list[tuple[str, int, bool]] = []
        self.told: list[Told] = []

    def make_peer(self, name: str) -> int:
        self.made.append(name)
        return len(self.made) % SITES

    def stop_peer(self, name: str, site: int, *, crash: bool) -> None:
        self.stopped.append((name, site, crash))

    def tell_peer(self, name: str, site: int, state: str, **args: object) -> None:
        self.told.append(Told(name, state, args))

    def take(self, state: str) -> list[Told]:
        """Give what was told of a state, and forget it."""
        taken = [each for each in self.told if each.state == state]
        self.told = [each for each in self.told if each.state != state]
        return taken


class PromptWorld(World):
    """The same with peers that do at once what they are asked to, and say so."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.simulator: Simulator | None = None

    def _say(self, of: str, **args: object) -> None:
        assert self.simulator is not None
        machine = self.simulator.machine
        self._clock.call_soon(lambda: machine.add("PeerTold", of=of, **args))

    def make_peer(self, name: str) -> int:
        self._say("ready", peer=name)
        return super().make_peer(name)

    def tell_peer(self, name: str, site: int, state: str, **args: object) -> None:
        super().tell_peer(name, site, state, **args)
        if state == "JoiningTopic":
            self._say("joined", peer=name, topic=args["topic"])


class Scene:
    """A simulator that has started, without a beat of its heart yet.

    Args:
        topics: how many topics there are, of ten at most.
        ready: how many peers are ready; they have joined what they were asked to.
        peers: how many peers there may be; as many as are ready unless given.
        seed: of all chance.
        fail: how many hosts crash in a minute.
        steady: whether there are messages only.

    """

    def __init__(
        self,
        *,
        topics: int = 1,
        ready: int = 0,
        peers: int | None = None,
        seed: int = 1,
        fail: float = 0.0,
        steady: bool = False,
    ) -> None:
        self.world = World()
        self.clock = VirtualClock()
        self.settings = Settings(
            peers=ready if peers is None else peers,
            topics=topics,
            seed=seed,
            fail=fail,
            steady=steady,
        )
        self.samples: list[float] = []
        self.sim = Simulator(
            self.settings, self.clock, self.world, lambda: self.samples.append(self.clock.now())
        )
        self.sim.machine.add("Start")
        self.make_ready(*self.world.made[:ready])

    def make_ready(self, *names: str) -> None:
        """Have peers tell that they are ready, and then that they have joined."""
        for name in names:
            self.tell("ready", peer=name)
        self.join_all()

    def join_all(self) -> None:
        """Have all that were asked to join a topic tell that they have."""
        for name, topic in self.coming():
            self.tell("joined", peer=name, topic=topic)

    def tell(self, of: str, **args: object) -> None:
        self.sim.machine.add("PeerTold", of=of, **args)
        assert not self.sim.machine.is_active("Exception")

    def receive(self, message: str, *receivers: str) -> None:
        """Have peers tell that a message has arrived."""
        self.tell("received", rows=[(message, receiver, 1, 0.25) for receiver in receivers])

    def coming(self) -> list[tuple[str, str]]:
        return [(name, topic.name) for topic in self.sim.topics.values() for name in topic.coming]

    def act(self, action: str, **args: object) -> bool:
        """Ask for an action; whether it was accepted, and is over."""
        accepted = bool(self.sim.machine.add(action, **args))
        if action != "SiteLost":  # an event, which stays active until the next one
            assert not self.sim.machine.is_active(action)
        assert not self.sim.machine.is_active("Exception")
        return accepted

    def join(self, name: str, topic: Topic) -> None:
        """Put a peer into a topic."""
        self.sim.peers[name].topics[topic.name] = None
        topic.members[name] = None

    def befriend(self, one: str, other: str) -> None:
        self.sim.peers[one].friends[other] = None
        self.sim.peers[other].friends[one] = None

    @property
    def topic(self) -> Topic:
        """The first topic."""
        return next(iter(self.sim.topics.values()))

    @property
    def peers(self) -> dict[str, PeerKnown]:
        return self.sim.peers


class Attempts(Tracer):
    """Takes down when each state was asked for, and whether it was accepted."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.of: dict[str, list[tuple[float, bool]]] = {}

    def transition_end(self, tx: Transition) -> None:
        if tx.mutation.kind == "add":
            for state in tx.mutation.states:
                self.of.setdefault(state, []).append((self._clock.now(), tx.accepted))


def is_sound(sim: Simulator) -> bool:
    """Whether all that the simulator knows fits together, and keeps within its limits."""
    for name, known in sim.peers.items():
        assert len(known.topics) <= 15
        assert len(known.friends) <= 10
        assert name not in known.friends
        for friend in known.friends:
            assert name in sim.peers[friend].friends
        for topic_name in known.topics:
            topic = sim.topics[topic_name]
            assert (name in topic.members) != (name in topic.coming)
    for topic in sim.topics.values():
        assert len(topic.members) + len(topic.coming) <= 10
        for name in [*topic.members, *topic.coming]:
            assert topic.name in sim.peers[name].topics
    return True
