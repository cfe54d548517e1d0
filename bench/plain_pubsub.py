"""The hosts of the case study as one would write them without machines.

Each host has a thread that works off a queue of frames, and a lock around its data, because
subscribing and publishing come from other threads, and connecting from the timers'. Frames,
keys and router are those of ``examples/pubsub``, and so is what a host does with a frame
(``examples/pubsub/host.py``); relays are left out. Nothing here loads machines.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Queue
from random import Random
from typing import Final, NamedTuple

import msgspec

from bench.plain_discovery import PlainDiscovery, PlainRegistry
from bench.plain_timers import Timers
from examples.pubsub.identity import Identity, identity_of
from examples.pubsub.routers.flood import Flood
from examples.pubsub.rpc import Message, Rpc, Sent, decode, decode_message, encode

__all__ = ["PlainCounts", "PlainDelivery", "PlainHost", "PlainNetwork"]

_LOG: Final = logging.getLogger(__name__)


class PlainDelivery(NamedTuple):
    """A message that has reached a subscriber.

    Attributes:
        host: name of the host.
        id: id of the message.
        message: what it says.
        hops: how many hosts it came through.
        received: the network's clock, in seconds.

    """

    host: str
    id: str
    message: Message
    hops: int
    received: float


@dataclass(slots=True)
class PlainCounts:
    """What a host has done so far."""

    frames: int = 0
    control_bytes: int = 0
    payload_bytes: int = 0
    duplicates: int = 0
    invalid: int = 0


class PlainNetwork:
    """Hosts in one process, the registry by which they find each other, and their timers.

    Args:
        signed: whether messages are signed and checked.
        seed: of the keys, and of what is random.

    Attributes:
        timers: the clock, and what calls later.
        registry: who is in which topic.
        signed: whether messages are signed and checked.
        seed: of the keys, and of what is random.

    """

    def __init__(self, *, signed: bool = True, seed: int = 0) -> None:
        self.signed = signed
        self.seed = seed
        self.timers = Timers()
        self.registry = PlainRegistry(self.timers)
        self._lock = threading.Lock()
        self._hosts: dict[str, PlainHost] = {}  # guarded by the lock

    def host(self, name: str) -> PlainHost:
        """Make a host and start it."""
        made = PlainHost(name, self)
        with self._lock:
            self._hosts[name] = made
        return made

    def find(self, name: str) -> PlainHost | None:
        """Give the host of that name, if there is one."""
        with self._lock:
            return self._hosts.get(name)

    def identity_of(self, name: str) -> Identity:
        """Give the keys of a host."""
        return identity_of(self.seed, name)

    def close(self) -> None:
        """End all hosts, without a word to their peers, and wait for their threads."""
        self.timers.close()
        with self._lock:
            hosts = [*self._hosts.values()]
            self._hosts.clear()
        for host in hosts:
            host.stop()
        for host in hosts:
            host.join()


class PlainHost:
    """One host. All methods may be called from any thread.

    Args:
        name: what it is called.
        network: where it lives.

    Attributes:
        name: what it is called.
        counts: what it has done so far; its lock guards them.
        discovery: how it finds peers.

    """

    def __init__(self, name: str, network: PlainNetwork) -> None:
        self.name = name
        self.counts = PlainCounts()
        self._network = network
        self._now = network.timers.now
        self._identity = network.identity_of(name) if network.signed else None
        self._inbox: Queue[tuple[str, bytes] | None] = Queue()

        self._lock = threading.Lock()  # guards all below
        self._router = Flood()
        self._number = 0
        self._streams: dict[str, PlainHost] = {}
        self._blacklist: set[str] = set()
        self._subscriptions: dict[str, int] = {}  # how often each topic was subscribed to
        self._peers_of: dict[str, dict[str, None]] = {}  # by topic
        self._dialled: dict[str, dict[str, None]] = {}  # by topic that they were found for
        self._validators: dict[str, Callable[[Message], bool]] = {}
        self._seen: dict[str, float] = {}  # when each message was seen
        self._callbacks: tuple[Callable[[PlainDelivery], object], ...] = ()

        rng = Random(f"{network.seed}/{name}/discovery")
        self.discovery = PlainDiscovery(self, network.registry, network.timers, rng)
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    # Life -----------------------------------------------------------------------------------

    def _live(self) -> None:
        while (arrived := self._inbox.get()) is not None:
            self._handle(*arrived)

    def stop(self) -> None:
        """End when all that has arrived is worked off; peers are not told."""
        self.discovery.close()
        self._inbox.put(None)

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    # Peers ----------------------------------------------------------------------------------

    def connect(self, topic: str, peers: list[str], want: int) -> None:
        """Connect to peers that were found for a topic, as far as it lacks any."""
        with self._lock:
            dialled = self._dialled.setdefault(topic, {})
            known = self._peers_of.get(topic, {})
            missing = want - len(known) - sum(peer not in known for peer in dialled)
            for peer in peers:
                if missing <= 0:
                    return
                if peer not in known and peer not in dialled and peer != self.name:
                    dialled[peer] = None
                    missing -= 1
                    self._greet(peer, outbound=True)

    def _greet(self, peer: str, *, outbound: bool) -> None:
        if peer in self._streams or peer in self._blacklist:
            return
        stream = self._network.find(peer)
        if stream is None:
            return
        self._streams[peer] = stream
        # Also if there is nothing to say: it is how the other side learns of the stream.
        self._send(stream, Rpc(subscriptions=[(topic, True) for topic in self._subscriptions]))
        self._router.peer_added(peer, self._now(), outbound=outbound)

    def blacklist(self, peer: str) -> None:
        """Have nothing to do with a peer any more."""
        with self._lock:
            self._blacklist.add(peer)
            self._forget(peer)

    def _forget(self, peer: str) -> None:
        stream = self._streams.pop(peer, None)
        if stream is None:
            return
        stream.receive(self.name, b"")
        for peers in (*self._peers_of.values(), *self._dialled.values()):
            peers.pop(peer, None)
        self._router.peer_removed(peer, self._now())

    def peers_in(self, topic: str) -> list[str]:
        """Give the peers that are known to be in a topic."""
        with self._lock:
            return list(self._peers_of.get(topic, ()))

    # Topics ---------------------------------------------------------------------------------

    def subscribe(self, topic: str) -> None:
        """Join a topic, and advertise that."""
        with self._lock:
            self._subscriptions[topic] = self._subscriptions.get(topic, 0) + 1
            if self._subscriptions[topic] > 1:
                return
            self._announce(topic, subscribed=True)
        self.discovery.advertise(topic)

    def unsubscribe(self, topic: str) -> None:
        """Take one subscription back; the last one leaves the topic."""
        with self._lock:
            left = self._subscriptions.get(topic, 0) - 1
            if left > 0:
                self._subscriptions[topic] = left
            if left != 0:
                return
            del self._subscriptions[topic]
            self._announce(topic, subscribed=False)
        self.discovery.withdraw(topic)

    def _announce(self, topic: str, *, subscribed: bool) -> None:
        rpc = Rpc(subscriptions=[(topic, subscribed)])
        for stream in self._streams.values():
            self._send(stream, rpc)

    def bootstrap(self, topic: str, enough: int = 1) -> threading.Event:
        """Look for peers; gives what is set when enough of them are known to be in a topic."""
        return self.discovery.bootstrap(topic, enough)

    def validate(self, topic: str, validator: Callable[[Message], bool]) -> None:
        """Accept only messages of a topic for which a function is true."""
        with self._lock:
            self._validators[topic] = validator

    def on_delivery(self, callback: Callable[[PlainDelivery], object]) -> None:
        """Have something called with each message for a subscription, on the thread it came by."""
        with self._lock:
            self._callbacks = (*self._callbacks, callback)

    # Messages -------------------------------------------------------------------------------

    def publish(self, topic: str, data: bytes) -> str:
        """Send a message to all that are in a topic; returns its id."""
        now = self._now()
        with self._lock:
            self._number += 1
            number = self._number
        message = Message(self.name, number, topic, data, now)
        body = encode(message)
        signature = b"" if self._identity is None else self._identity.sign(body)
        sent = Sent(f"{self.name}/{number}", 0, body, signature)
        with self._lock:
            self._seen[sent.id] = now
        self._accept(sent, message, None, now)
        return sent.id

    def receive(self, peer: str, frame: bytes) -> None:
        """Take a frame from a peer; an empty one is the end. Does not wait for anything."""
        self._inbox.put((peer, frame))

    def _handle(self, peer: str, frame: bytes) -> None:
        if not frame:
            with self._lock:
                self._forget(peer)
            return
        try:
            rpc = decode(frame)
        except msgspec.MsgspecError as error:
            _LOG.warning("%s: %s has sent what is no frame: %s", self.name, peer, error)
            with self._lock:
                self.counts.invalid += 1
                self._forget(peer)
            return
        with self._lock:
            if peer in self._blacklist:
                return
            if peer not in self._streams:
                self._greet(peer, outbound=False)
            now = self._now()
            if not self._router.accepts(peer, now):
                return
            for topic, subscribed in rpc.subscriptions:
                self._heard_of(peer, topic, now, subscribed=subscribed)
            new = [(sent, self._noted(peer, sent, now)) for sent in rpc.publish]
        # Without the lock: checking a signature takes longer than all the rest.
        for sent, message in new:
            if message is not None:
                self._check(peer, sent, message, now)

    def _heard_of(self, peer: str, topic: str, now: float, *, subscribed: bool) -> None:
        peers = self._peers_of.setdefault(topic, {})
        if subscribed and peer not in peers:
            peers[peer] = None
            self._router.peer_subscribed(peer, topic, now)
        elif not subscribed and peer in peers:
            del peers[peer]
            self._router.peer_unsubscribed(peer, topic, now)

    def _noted(self, peer: str, sent: Sent, now: float) -> Message | None:
        """Note a message as seen; gives it if it is new and of interest."""
        if sent.id in self._seen:
            self.counts.duplicates += 1
            self._router.duplicate(peer, sent.id, now)
            return None
        try:
            message = decode_message(sent.body)
        except msgspec.MsgspecError:
            self.counts.invalid += 1
            self._router.rejected(peer, "", sent.id, now)
            return None
        if message.topic not in self._subscriptions:
            return None
        self._seen[sent.id] = now
        return message

    def _check(self, peer: str, sent: Sent, message: Message, now: float) -> None:
        if self._is_valid(sent, message):
            self._accept(sent, message, peer, now)
            return
        with self._lock:
            self.counts.invalid += 1
            self._router.rejected(peer, message.topic, sent.id, now)

    def _is_valid(self, sent: Sent, message: Message) -> bool:
        if not sent.id.startswith(f"{message.author}/"):
            return False
        if self._network.signed and not self._network.identity_of(message.author).verifies(
            sent.signature, sent.body
        ):
            return False
        with self._lock:
            validator = self._validators.get(message.topic)
        return validator is None or validator(message)

    def _accept(self, sent: Sent, message: Message, by: str | None, now: float) -> None:
        """Deliver a message here, and pass it on."""
        topic = message.topic
        with self._lock:
            if by is not None:
                self._router.delivered(by, topic, sent.id, now)
            self._router.keep(sent, topic)
            callbacks = self._callbacks if topic in self._subscriptions else ()
            targets = self._router.targets(topic, message.author, by, now)
            streams = [self._streams[peer] for peer in targets if peer in self._streams]
        for callback in callbacks:
            callback(PlainDelivery(self.name, sent.id, message, sent.hops, now))
        if not streams:
            return
        # Encoded once, for all of them.
        further = Sent(sent.id, sent.hops + 1, sent.body, sent.signature)
        frame = encode(Rpc(publish=[further]))
        for stream in streams:
            stream.receive(self.name, frame)
        payload = len(sent.body) + len(sent.signature)
        with self._lock:
            self.counts.frames += len(streams)
            self.counts.payload_bytes += payload * len(streams)
            self.counts.control_bytes += (len(frame) - payload) * len(streams)

    def _send(self, stream: PlainHost, rpc: Rpc) -> None:
        frame = encode(rpc)
        self.counts.frames += 1
        self.counts.control_bytes += len(frame)
        stream.receive(self.name, frame)
