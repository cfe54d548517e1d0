"""A simulated peer: who it is, its host, which topics it is in, and what it sends.

It tells the simulator by a pipe from `FwdToSim`, which is activated together with what
there is to tell.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from asyncmachine import Machine, State, States, group
from examples.pubsub.args import args_of
from examples.pubsub.discovery import Discovery
from examples.pubsub.identity import identity_of

if TYPE_CHECKING:
    from asyncmachine import Event, StateContext
    from examples.pubsub.host import Host
    from examples.pubsub.site import Site

__all__ = ["Peer", "PeerStates"]

_IDENTITY: Final = group("GenIdentity", "IdentityReady")
_CONNECTION: Final = group("Connecting", "Connected", "Disconnecting")
_CONNECTED: Final = State(multi=True, require="Connected")


class PeerStates(States):
    """The life of a peer: an identity, a connection, and then topics and messages."""

    Start = State()

    IsDHT = State()  # a variant that the original has switched off
    BootstrapsConnected = State()
    Ready = State(auto=True, require=("Start", "Connected"))

    GenIdentity = State(auto=True, require="Start", remove=_IDENTITY)
    IdentityReady = State(remove=_IDENTITY)

    Connecting = State(auto=True, require=("Start", "IdentityReady"), remove=_CONNECTION)
    Connected = State(require="Start", remove=_CONNECTION)
    Disconnecting = State(remove=(*_CONNECTION, "BootstrapsConnected"))

    EventHostConnected = State(multi=True, require="Start", add="Connected")

    JoiningTopic = _CONNECTED
    LeavingTopic = _CONNECTED
    SendingMsgs = _CONNECTED
    TopicJoined = _CONNECTED
    TopicLeft = _CONNECTED
    MsgsSent = _CONNECTED
    FwdToSim = State(multi=True)


class Peer:
    """One simulated peer.

    Args:
        name: its id, and that of its host.
        site: where it lives.
        seed: of what is random.

    Attributes:
        machine: the machine.

    """

    def __init__(self, name: str, site: Site, seed: int) -> None:
        self.name = name
        self._site = site
        self._seed = seed
        self._host: Host | None = None
        self._discovery: Discovery | None = None
        self._joining: dict[str, None] = {}
        self._joined: dict[str, None] = {}
        self.machine = Machine(PeerStates, id=f"sim-{name}", handlers=self)

    # The connection -------------------------------------------------------------------------

    def GenIdentity_state(self, event: Event) -> None:
        event.fork(self._make_identity)

    def _make_identity(self, ctx: StateContext) -> None:
        identity_of(self._seed, self.name)  # kept by the site
        if not ctx.expired:
            self.machine.add("IdentityReady")

    def Connecting_state(self, event: Event) -> None:
        host = self._host = self._site.host(self.name)
        self._discovery = Discovery(host, self._site, Random(f"{self._seed}/{self.name}/discovery"))
        self._discovery.machine.bind({"TopicBootstrapped_state": self._bootstrapped})
        event.machine.add("EventHostConnected", "Connected")

    def EventHostConnected_state(self, event: Event) -> None:
        event.machine.add("FwdToSim", what="told", of="ready", peer=self.name)

    def Start_end(self, event: Event) -> None:
        """Leave without a word to the simulator, which knows."""
        for topic in [*self._joined, *self._joining]:
            self._stop_advertising(topic)
        self._joined.clear()
        self._joining.clear()
        self._site.drop(self.name)
        self._host = self._discovery = None

    # Topics ---------------------------------------------------------------------------------

    def JoiningTopic_enter(self, event: Event) -> bool:
        topic = args_of(event)["topic"]
        return topic not in self._joining and topic not in self._joined

    def JoiningTopic_state(self, event: Event) -> None:
        """Subscribe, advertise, and look for peers, unless it is the first one there."""
        topic = args_of(event)["topic"]
        assert self._host is not None
        assert self._discovery is not None
        self._joining[topic] = None
        self._host.machine.add("AddSubscription", topic=topic)
        self._discovery.machine.add("AdvertisingTopic", topic=topic)
        if args_of(event)["alone"]:
            self.machine.add("TopicJoined", topic=topic)
        else:
            self._discovery.machine.add("BootstrappingTopic", topic=topic)

    def _bootstrapped(self, event: Event) -> None:
        self.machine.add("TopicJoined", topic=args_of(event)["topic"])

    def TopicJoined_enter(self, event: Event) -> bool:
        return args_of(event)["topic"] in self._joining

    def TopicJoined_state(self, event: Event) -> None:
        topic = args_of(event)["topic"]
        del self._joining[topic]
        self._joined[topic] = None
        event.machine.add("FwdToSim", what="told", of="joined", peer=self.name, topic=topic)

    def LeavingTopic_enter(self, event: Event) -> bool:
        topic = args_of(event)["topic"]
        return topic in self._joining or topic in self._joined

    def LeavingTopic_state(self, event: Event) -> None:
        topic = args_of(event)["topic"]
        self._joining.pop(topic, None)
        self._joined.pop(topic, None)
        assert self._host is not None
        self._host.machine.add("RemoveSubscription", topic=topic)
        self._stop_advertising(topic)
        event.machine.add("TopicLeft", topic=topic)

    def TopicLeft_state(self, event: Event) -> None:
        topic = args_of(event)["topic"]
        event.machine.add("FwdToSim", what="told", of="left", peer=self.name, topic=topic)

    def _stop_advertising(self, topic: str) -> None:
        if self._discovery is not None:
            self._discovery.machine.add("StopAdvertisingTopic", topic=topic)

    # Messages -------------------------------------------------------------------------------

    def SendingMsgs_enter(self, event: Event) -> bool:
        return args_of(event)["topic"] in self._joined

    def SendingMsgs_state(self, event: Event) -> None:
        args = args_of(event)
        assert self._host is not None
        now = self._site.clock.now()
        for message_id in args["ids"]:
            self._host.machine.add(
                "PublishMessage",
                topic=args["topic"],
                id=message_id,
                data=f"{self.name} {now:.6f}".encode(),
            )
        event.machine.add("MsgsSent", topic=args["topic"], ids=args["ids"], when=now)

    def MsgsSent_state(self, event: Event) -> None:
        args = args_of(event)
        event.machine.add(
            "FwdToSim",
            what="told",
            of="sent",
            peer=self.name,
            topic=args["topic"],
            ids=args["ids"],
            when=args["when"],
        )
