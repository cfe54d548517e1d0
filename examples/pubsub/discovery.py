"""How a host finds peers for its topics: it advertises itself, asks, and connects.

A topic that a host joins is bootstrapped by a flow, a small machine of its own: are there
enough peers? if not, discover some, wait a little, and check again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from asyncmachine import Machine, State, States, group
from examples.pubsub.args import args_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from asyncmachine import Event
    from examples.pubsub.clock import Timer
    from examples.pubsub.host import Host
    from examples.pubsub.site import Site

__all__ = ["BootstrapStates", "Discovery", "DiscoveryStates"]

# Seconds: between two looks at all topics, of an entry's life, between two checks of a flow.
_POLL: Final = 1.0
_TTL: Final = 60.0
_DELAY: Final = 0.1
# A topic that lacks peers is looked at after this at the latest.
_LONGEST_PAUSE: Final = 16.0
# How many peers of a topic a host looks for, and so many it connects to at once.
ENOUGH: Final = 12

_MULTI: Final = State(multi=True, require="Start")


class DiscoveryStates(States):
    """What happens to the discovery of one host."""

    Start = State(add="PoolTimer")
    PoolTimer = State(require="Start")
    RefreshingDiscoveries = State(require="Start", remove="DiscoveriesRefreshed")
    DiscoveriesRefreshed = State(require="Start", remove="RefreshingDiscoveries")
    DiscoveringTopic = _MULTI
    TopicDiscovered = _MULTI
    BootstrappingTopic = _MULTI
    TopicBootstrapped = _MULTI
    AdvertisingTopic = _MULTI
    StopAdvertisingTopic = _MULTI


_STAGE: Final = group(
    "BootstrapChecking", "DiscoveringTopic", "BootstrapDelay", "TopicBootstrapped"
)


class BootstrapStates(States):
    """The flow of one topic: round and round until there are enough peers."""

    Start = State(add="BootstrapChecking")
    BootstrapChecking = State(require="Start", remove=_STAGE)
    DiscoveringTopic = State(require="Start", remove=_STAGE)
    BootstrapDelay = State(require="Start", remove=_STAGE)
    TopicBootstrapped = State(require="Start", remove=_STAGE)


class Discovery:
    """The discovery of one host.

    Args:
        host: the host.
        site: where it lives.
        rng: spreads the looks of several hosts over the second.

    Attributes:
        machine: the machine, a child of the host's.

    """

    def __init__(self, host: Host, site: Site, rng: Random) -> None:
        self._host = host
        self._site = site
        self._rng = rng
        self._topics: dict[str, float] = {}  # and when each has to be advertised again
        self._looks: dict[str, tuple[float, float]] = {}  # the next one, and the pause after it
        self._flows: dict[str, _Flow] = {}
        self._timer: Timer | None = None
        self.machine = Machine(
            DiscoveryStates, id=f"{host.name}-disc", handlers=self, parent=host.machine
        )
        site.made(self.machine, "discovery")
        site.discoveries[host.name] = self
        self.machine.add("Start")

    def found(self, topic: str, peers: Sequence[tuple[str, int]]) -> None:
        """Take what the registry has found."""
        self.machine.add("TopicDiscovered", topic=topic, found=peers)

    # Advertising ------------------------------------------------------------------------------

    def AdvertisingTopic_state(self, event: Event) -> None:
        topic = args_of(event)["topic"]
        self._topics[topic] = self._site.clock.now() + _TTL / 2
        self._ask("Advertise", topic, ttl=_TTL)

    def StopAdvertisingTopic_state(self, event: Event) -> None:
        topic = args_of(event)["topic"]
        self._topics.pop(topic, None)
        self._looks.pop(topic, None)
        flow = self._flows.pop(topic, None)
        if flow is not None:
            flow.machine.dispose()
        self._ask("Withdraw", topic)

    def _ask(self, ask: str, topic: str, **args: object) -> None:
        self._site.send(
            0,
            "registry",
            ask=ask,
            topic=topic,
            host=self._host.name,
            site=self._site.number,
            **args,
        )

    # Looking ----------------------------------------------------------------------------------

    def PoolTimer_state(self, event: Event) -> None:
        self._timer = self._site.clock.call_later(_POLL * self._rng.uniform(0.5, 1.0), self._poll)

    def PoolTimer_end(self, event: Event) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _poll(self) -> None:
        if self.machine.add("RefreshingDiscoveries") and not self.machine.is_disposed:
            self._timer = self._site.clock.call_later(_POLL, self._poll)

    def RefreshingDiscoveries_state(self, event: Event) -> None:
        now = self._site.clock.now()
        for topic, again in list(self._topics.items()):
            if again <= now:
                event.machine.add("AdvertisingTopic", topic=topic)
            if topic not in self._flows and self._may_look(topic, now):
                event.machine.add("DiscoveringTopic", topic=topic, lacking=True)
        event.machine.add("DiscoveriesRefreshed")

    def _may_look(self, topic: str, now: float) -> bool:
        """Whether it is time to look for peers again: less and less often."""
        at, pause = self._looks.get(topic, (now, _POLL))
        if now < at:
            return False
        self._looks[topic] = (now + pause, min(2 * pause, _LONGEST_PAUSE))
        return True

    def DiscoveringTopic_state(self, event: Event) -> None:
        topic = args_of(event)["topic"]
        if args_of(event).get("lacking"):
            # Only the host knows, and it answers when it has time.
            self._host.machine.add("GetPeers", topic=topic, reply=partial(self._lack, topic))
        else:
            self._ask("Find", topic)

    def _lack(self, topic: str, peers: list[str]) -> None:
        if len(peers) < ENOUGH // 2:
            self._ask("Find", topic)

    def TopicDiscovered_state(self, event: Event) -> None:
        """Have the host connect to as many of the peers that were found as it lacks."""
        topic, found = args_of(event)["topic"], args_of(event)["found"]
        flow = self._flows.get(topic)
        if flow is None and topic not in self._topics:
            return  # it was left meanwhile
        if flow is not None:
            flow.machine.add("BootstrapDelay")
        for name, site in found:
            self._site.where.setdefault(name, site)
        want = ENOUGH if flow is None else max(ENOUGH, flow.enough)
        names = [name for name, _ in found]
        self._host.machine.add("PeersPending", topic=topic, peers=names, want=want)

    # Bootstrapping ----------------------------------------------------------------------------

    def BootstrappingTopic_enter(self, event: Event) -> bool:
        return args_of(event)["topic"] not in self._flows

    def BootstrappingTopic_state(self, event: Event) -> None:
        topic, enough = args_of(event)["topic"], args_of(event).get("enough", 1)
        flow = self._flows[topic] = _Flow(self, topic, enough)
        flow.machine.add("Start")

    def TopicBootstrapped_state(self, event: Event) -> None:
        flow = self._flows.pop(args_of(event)["topic"], None)
        if flow is not None:
            flow.machine.dispose()

    @property
    def host(self) -> Host:
        """The host."""
        return self._host

    @property
    def site(self) -> Site:
        """Where the host lives."""
        return self._site


class _Flow:
    """The bootstrapping of one topic."""

    def __init__(self, discovery: Discovery, topic: str, enough: int) -> None:
        self._discovery = discovery
        self._topic = topic
        self.enough = enough
        parent = discovery.machine
        self.machine = Machine(
            BootstrapStates,
            id=f"{parent.id}-bf-{parent.tick('BootstrappingTopic')}-{topic}",
            handlers=self,
            parent=parent,
        )

    def BootstrapChecking_state(self, event: Event) -> None:
        self._discovery.host.machine.add("GetPeers", topic=self._topic, reply=self._counted)

    def _counted(self, peers: list[str]) -> None:
        stage = "TopicBootstrapped" if len(peers) >= self.enough else "DiscoveringTopic"
        self.machine.add(stage)

    def DiscoveringTopic_state(self, event: Event) -> None:
        self._discovery.machine.add("DiscoveringTopic", topic=self._topic)

    def BootstrapDelay_enter(self, event: Event) -> bool:
        # An answer to an earlier question comes too late.
        return event.machine.is_active("DiscoveringTopic")

    def BootstrapDelay_state(self, event: Event) -> None:
        self._discovery.site.clock.call_later(_DELAY, self._check_again)

    def _check_again(self) -> None:
        self.machine.add("BootstrapChecking")

    def TopicBootstrapped_state(self, event: Event) -> None:
        self._discovery.machine.add("TopicBootstrapped", topic=self._topic)
