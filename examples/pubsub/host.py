"""A host of the network: one machine, whose data is touched inside its handlers only.

The machine is an event loop without a loop: each thing that can happen is a multi state,
and its handler decides. What peers have sent waits in the machine's queue, so nothing
here needs a lock.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from asyncmachine import Machine, State, States, group
from asyncmachine.logs import log_warning
from examples.pubsub.args import args_of
from examples.pubsub.routers import Outbox
from examples.pubsub.rpc import Message, Rpc, Sent, decode, decode_message, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine import Event
    from examples.pubsub.clock import Clock
    from examples.pubsub.identity import Identity
    from examples.pubsub.routers import Router
    from examples.pubsub.streams import Stream
    from examples.pubsub.validation import Validation

__all__ = ["SEEN_SECONDS", "Delivery", "Host", "HostStates", "Network"]

# For how long a message is known to have been seen (gossipsub: 120 s).
SEEN_SECONDS: Final = 120.0
# The first heartbeat, and those after it, in seconds.
_FIRST_HEARTBEAT: Final = 0.1
_HEARTBEAT: Final = 1.0

# Only the last thing that happened is active. The set of active states is one of a few so,
# and what a mutation does from there is worked out once for all hosts.
_EVENTS: Final = group(
    "PeersPending",
    "PeerNewStream",
    "PeerCloseStream",
    "PeerError",
    "PeersDead",
    "BlacklistPeer",
    "AddSubscription",
    "RemoveSubscription",
    "AddRelay",
    "RemoveRelay",
    "AnnouncingTopic",
    "TopicAnnounced",
    "AddValidator",
    "RemoveValidator",
    "PublishMessage",
    "IncomingRPC",
    "MessageValid",
    "MessageInvalid",
    "GetPeers",
    "GetTopics",
    "Heartbeat",
    "ClearBackoffs",
    "CheckPromises",
    "BalanceMeshes",
    "ImproveMeshes",
    "KeepFanout",
    "EmitGossip",
    "ShiftCache",
)
_EVENT: Final = State(multi=True, require="Start", remove=_EVENTS)


class HostStates(States):
    """What can happen to a host; the last seven are the phases of a gossip heartbeat."""

    Start = State()

    PeersPending = _EVENT
    PeerNewStream = _EVENT
    PeerCloseStream = _EVENT
    PeerError = _EVENT
    PeersDead = _EVENT
    BlacklistPeer = _EVENT

    AddSubscription = _EVENT
    RemoveSubscription = _EVENT
    AddRelay = _EVENT
    RemoveRelay = _EVENT
    AnnouncingTopic = _EVENT
    TopicAnnounced = _EVENT
    AddValidator = _EVENT
    RemoveValidator = _EVENT

    PublishMessage = _EVENT
    IncomingRPC = _EVENT
    MessageValid = _EVENT
    MessageInvalid = _EVENT

    GetPeers = _EVENT
    GetTopics = _EVENT

    Heartbeat = _EVENT
    ClearBackoffs = _EVENT
    CheckPromises = _EVENT
    BalanceMeshes = _EVENT
    ImproveMeshes = _EVENT
    KeepFanout = _EVENT
    EmitGossip = _EVENT
    ShiftCache = _EVENT


class Delivery(NamedTuple):
    """A message that has reached a subscriber.

    Attributes:
        host: id of the host.
        id: id of the message.
        message: what it says.
        hops: how many hosts it came through.
        received: the host's clock, in seconds.

    """

    host: str
    id: str
    message: Message
    hops: int
    received: float


class Network(NamedTuple):
    """What a host is given of the world.

    Attributes:
        clock: tells the time, and calls.
        open_stream: opens a stream from a host to a peer.
        delivered: called within a handler with each message for a subscription.
        validation: checks messages.
        knows: whether a peer can be reached.
        identity_of: gives what a peer's signatures are checked with; None if unsigned.

    """

    clock: Clock
    open_stream: Callable[[Host, str], Stream]
    delivered: Callable[[Delivery], object]
    validation: Validation
    knows: Callable[[str], bool]
    identity_of: Callable[[str], Identity] | None = None


class Counts:
    """What a host has done so far."""

    __slots__ = ("control_bytes", "duplicates", "frames", "invalid", "payload_bytes")

    def __init__(self) -> None:
        self.frames = self.control_bytes = self.payload_bytes = 0
        self.duplicates = self.invalid = 0


class Host:
    """One host.

    Args:
        name: its id, and that of its machine.
        network: the world.
        router: its rules.
        identity: what it signs with; None to sign nothing.

    Attributes:
        machine: the machine.
        counts: what it has done so far.

    """

    def __init__(
        self, name: str, network: Network, router: Router, identity: Identity | None = None
    ) -> None:
        self.name = name
        self.router = router
        self.counts = Counts()
        self._network = network
        self._clock = network.clock
        self._identity = identity
        self._number = 0
        self._streams: dict[str, Stream] = {}
        self._blacklist: set[str] = set()
        self._subscriptions: dict[str, int] = {}  # how often each topic was subscribed to
        self._relays: dict[str, int] = {}
        self._peers_of: dict[str, dict[str, None]] = {}  # by topic
        self._dialled: dict[str, dict[str, None]] = {}  # by topic that they were found for
        self._validators: dict[str, Callable[[Message], bool]] = {}
        self._seen: dict[str, float] = {}  # oldest first
        self._checking: dict[str, list[tuple[bytes, bytes]]] = {}  # what claims to be a message
        self._outbox = Outbox()
        self.machine = Machine(HostStates, id=name, handlers=self)
        self.machine.bind({f"{phase}_state": self._phase for phase in router.phases})

    # Life -----------------------------------------------------------------------------------

    def Start_state(self, event: Event) -> None:
        self._clock.call_later(_FIRST_HEARTBEAT, self._beat)

    def _beat(self) -> None:
        if self.machine.is_active("Start"):
            self._clock.call_later(_HEARTBEAT, self._beat)
            self.machine.add("Heartbeat")

    def Start_end(self, event: Event) -> None:
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def Heartbeat_state(self, event: Event) -> None:
        self._forget_seen()
        for phase in self.router.due():
            event.machine.add(phase)

    def _phase(self, event: Event) -> None:
        self.router.phase(event.name.removesuffix("_state"), self._clock.now(), self._outbox)
        self._flush()

    def _forget_seen(self) -> None:
        """Forget what was seen too long ago."""
        oldest = self._clock.now() - SEEN_SECONDS
        while self._seen:
            first = next(iter(self._seen))
            if self._seen[first] > oldest:
                return
            del self._seen[first]

    # Peers ----------------------------------------------------------------------------------

    def PeersPending_state(self, event: Event) -> None:
        """Connect to peers that were found for a topic, as far as it lacks any."""
        topic, want = args_of(event)["topic"], args_of(event)["want"]
        dialled = self._dialled.setdefault(topic, {})
        known = self._peers_of.get(topic, {})
        missing = want - len(known) - sum(peer not in known for peer in dialled)
        for peer in args_of(event)["peers"]:
            if missing <= 0:
                return
            if peer in known or peer in dialled or peer in self._blacklist:
                continue
            if peer != self.name:
                dialled[peer] = None
                missing -= 1
                self._greet(peer, outbound=True)

    def _greet(self, peer: str, *, outbound: bool) -> None:
        if peer in self._streams or peer in self._blacklist:
            return
        stream = self._streams[peer] = self._network.open_stream(self, peer)
        topics = [*self._subscriptions, *(t for t in self._relays if t not in self._subscriptions)]
        # Also if there is nothing to say: it is how the other side learns of the stream.
        self._send(stream, Rpc(subscriptions=[(topic, True) for topic in topics]))
        self.router.peer_added(peer, self._clock.now(), outbound=outbound)
        self.machine.add("PeerNewStream", peer=peer, outbound=outbound)

    def PeerCloseStream_state(self, event: Event) -> None:
        """A peer has hung up."""
        self._forget(args_of(event)["peer"], farewell=False)

    def PeerError_state(self, event: Event) -> None:
        """A peer has sent what is no frame: hang up."""
        peer = args_of(event)["peer"]
        log_warning(self.name, f"{peer} has sent what is no frame: {args_of(event).get('error')}")
        self.counts.invalid += 1
        self._forget(peer)

    def PeersDead_state(self, event: Event) -> None:
        """Peers are gone without a word."""
        for peer in args_of(event)["peers"]:
            self._forget(peer, farewell=False)

    def BlacklistPeer_state(self, event: Event) -> None:
        """Have nothing to do with a peer any more."""
        self._blacklist.add(args_of(event)["peer"])
        self._forget(args_of(event)["peer"])

    def _forget(self, peer: str, *, farewell: bool = True) -> None:
        stream = self._streams.pop(peer, None)
        if stream is None:
            return
        stream.close(farewell=farewell)
        for peers in (*self._peers_of.values(), *self._dialled.values()):
            peers.pop(peer, None)
        self.router.peer_removed(peer, self._clock.now())

    # Topics ---------------------------------------------------------------------------------

    def AddSubscription_state(self, event: Event) -> None:
        topic = args_of(event)["topic"]
        self._subscriptions[topic] = self._subscriptions.get(topic, 0) + 1
        if self._uses(topic) == 1:
            self._join(topic)

    def RemoveSubscription_state(self, event: Event) -> None:
        _drop(self._subscriptions, args_of(event)["topic"])
        self._leave_unused(args_of(event)["topic"])

    def AddRelay_state(self, event: Event) -> None:
        topic = args_of(event)["topic"]
        self._relays[topic] = self._relays.get(topic, 0) + 1
        if self._uses(topic) == 1:
            self._join(topic)

    def RemoveRelay_state(self, event: Event) -> None:
        _drop(self._relays, args_of(event)["topic"])
        self._leave_unused(args_of(event)["topic"])

    def _uses(self, topic: str) -> int:
        return self._subscriptions.get(topic, 0) + self._relays.get(topic, 0)

    def _join(self, topic: str) -> None:
        self.machine.add("AnnouncingTopic", topic=topic, subscribed=True)
        self.router.join(topic, self._clock.now(), self._outbox)
        self._flush()

    def _leave_unused(self, topic: str) -> None:
        if self._uses(topic) == 0:
            self._dialled.pop(topic, None)
            self.router.leave(topic, self._clock.now(), self._outbox)
            self._flush()
            self.machine.add("AnnouncingTopic", topic=topic, subscribed=False)

    def AnnouncingTopic_enter(self, event: Event) -> bool:
        # Another call may have changed that meanwhile.
        return args_of(event)["subscribed"] == (self._uses(args_of(event)["topic"]) > 0)

    def AnnouncingTopic_state(self, event: Event) -> None:
        rpc = Rpc(subscriptions=[(args_of(event)["topic"], args_of(event)["subscribed"])])
        for stream in self._streams.values():
            self._send(stream, rpc)
        event.machine.add("TopicAnnounced", **event.args)

    def AddValidator_state(self, event: Event) -> None:
        self._validators[args_of(event)["topic"]] = args_of(event)["validator"]

    def RemoveValidator_state(self, event: Event) -> None:
        self._validators.pop(args_of(event)["topic"], None)

    # Messages -------------------------------------------------------------------------------

    def PublishMessage_state(self, event: Event) -> None:
        topic, now = args_of(event)["topic"], self._clock.now()
        self._number += 1
        message = Message(self.name, self._number, topic, args_of(event)["data"], now)
        body = encode(message)
        signature = b"" if self._identity is None else self._identity.sign(body)
        sent = Sent(args_of(event)["id"], 0, body, signature)
        self._seen[sent.id] = now
        self._accept(sent, message, now)
        self._pass_on(sent, message, None, now)

    def IncomingRPC_state(self, event: Event) -> None:
        peer, frame = args_of(event)["peer"], args_of(event)["rpc"]
        if peer in self._blacklist:
            return
        if not frame:
            event.machine.add("PeerCloseStream", peer=peer)
            return
        try:
            rpc = decode(frame)
        except msgspec.MsgspecError as error:
            event.machine.add("PeerError", peer=peer, error=str(error))
            return
        if peer not in self._streams:
            self._greet(peer, outbound=False)
        now = self._clock.now()
        if not self.router.accepts(peer, now):
            return
        for topic, subscribed in rpc.subscriptions:
            self._heard_of(peer, topic, now, subscribed=subscribed)
        for sent in rpc.publish:
            self._incoming(peer, sent, now)
        if rpc.control is not None:
            self.router.control(peer, rpc.control, now, self._outbox)
            for proposed in self.router.take_exchanged():
                if self._network.knows(proposed):
                    self._greet(proposed, outbound=True)
        self._flush()

    def _heard_of(self, peer: str, topic: str, now: float, *, subscribed: bool) -> None:
        peers = self._peers_of.setdefault(topic, {})
        if subscribed and peer not in peers:
            peers[peer] = None
            self.router.peer_subscribed(peer, topic, now)
        elif not subscribed and peer in peers:
            del peers[peer]
            self._dialled.get(topic, {}).pop(peer, None)
            self.router.peer_unsubscribed(peer, topic, now)

    def _incoming(self, peer: str, sent: Sent, now: float) -> None:
        checking = self._checking.get(sent.id, ())
        if sent.id in self._seen or (sent.body, sent.signature) in checking:
            self.counts.duplicates += 1
            self.router.duplicate(peer, sent.id, now)
            return
        try:
            message = decode_message(sent.body)
        except msgspec.MsgspecError:
            self.counts.invalid += 1
            self.router.rejected(peer, "", sent.id, now)
            return
        if not self._uses(message.topic):
            return
        # Not seen yet: somebody else's message may have taken its id.
        self._checking.setdefault(sent.id, []).append((sent.body, sent.signature))
        self._network.validation.check(
            partial(self._is_valid, sent, message), partial(self._checked, peer, sent, message)
        )

    def _checked(self, peer: str, sent: Sent, message: Message, valid: bool) -> None:
        state = "MessageValid" if valid else "MessageInvalid"
        self.machine.add(state, peer=peer, sent=sent, message=message)

    def MessageValid_state(self, event: Event) -> None:
        """Deliver a message here, and pass it on."""
        peer, sent, message = (
            args_of(event)["peer"],
            args_of(event)["sent"],
            args_of(event)["message"],
        )
        now = self._clock.now()
        if sent.id in self._seen:
            return
        self._seen[sent.id] = now
        self._checking.pop(sent.id, None)
        self.router.delivered(peer, message.topic, sent.id, now)
        self._accept(sent, message, now)
        self._pass_on(sent, message, peer, now)

    def MessageInvalid_state(self, event: Event) -> None:
        """Drop a message; another one of this id may still be the true one."""
        self._checked_in_vain(args_of(event)["sent"])
        sent, message = args_of(event)["sent"], args_of(event)["message"]
        self.counts.invalid += 1
        self.router.rejected(args_of(event)["peer"], message.topic, sent.id, self._clock.now())

    def _checked_in_vain(self, sent: Sent) -> None:
        claims = self._checking.get(sent.id, [])
        if (sent.body, sent.signature) in claims:
            claims.remove((sent.body, sent.signature))
        if not claims:
            self._checking.pop(sent.id, None)

    def _is_valid(self, sent: Sent, message: Message) -> bool:
        if not sent.id.startswith(f"{message.author}/"):
            return False
        identity_of = self._network.identity_of
        if identity_of is not None and not identity_of(message.author).verifies(
            sent.signature, sent.body
        ):
            return False
        validator = self._validators.get(message.topic)
        return validator is None or validator(message)

    def _accept(self, sent: Sent, message: Message, now: float) -> None:
        self.router.keep(sent, message.topic)
        if message.topic in self._subscriptions:
            self._network.delivered(Delivery(self.name, sent.id, message, sent.hops, now))

    def _pass_on(self, sent: Sent, message: Message, by: str | None, now: float) -> None:
        targets = self.router.targets(message.topic, message.author, by, now)
        if not targets:
            return
        # Encoded once, for all of them.
        further = Sent(sent.id, sent.hops + 1, sent.body, sent.signature)
        frame = encode(Rpc(publish=[further]))
        payload = len(sent.body) + len(sent.signature)
        counts = self.counts
        for peer in targets:
            stream = self._streams.get(peer)
            if stream is not None:
                stream.send(frame)
                counts.frames += 1
                counts.payload_bytes += payload
                counts.control_bytes += len(frame) - payload

    def _send(self, stream: Stream, rpc: Rpc) -> None:
        frame = encode(rpc)
        payload = sum(len(sent.body) + len(sent.signature) for sent in rpc.publish)
        self.counts.frames += 1
        self.counts.payload_bytes += payload
        self.counts.control_bytes += len(frame) - payload
        stream.send(frame)

    def _flush(self) -> None:
        if self._outbox:
            for peer, rpc in self._outbox.take().items():
                stream = self._streams.get(peer)
                if stream is not None:
                    self._send(stream, rpc)

    # Questions ------------------------------------------------------------------------------

    def GetPeers_state(self, event: Event) -> None:
        """Call ``reply`` with the peers, of one topic if it is given."""
        topic = args_of(event).get("topic")
        args_of(event)["reply"](
            list(self._streams if topic is None else self._peers_of.get(topic, ()))
        )

    def GetTopics_state(self, event: Event) -> None:
        """Call ``reply`` with the topics that this host is in."""
        args_of(event)["reply"](list(self._subscriptions))

    def peers_in(self, topic: str) -> tuple[str, ...]:
        """Give the peers that are known to be in a topic; inside handlers or ``eval`` only."""
        return tuple(self._peers_of.get(topic, ()))

    @property
    def stream_count(self) -> int:
        """How many streams it has opened and not closed."""
        return len(self._streams)

    def meshes(self) -> list[int]:
        """Give the size of the mesh of each topic; inside handlers or ``eval`` only."""
        return [len(self.router.mesh(topic)) for topic in self._subscriptions]


def _drop(counted: dict[str, int], name: str) -> None:
    left = counted.get(name, 0) - 1
    if left > 0:
        counted[name] = left
    else:
        counted.pop(name, None)
