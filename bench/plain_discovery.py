"""The registry and the discovery of the plain network, after those of the case study.

What is said of periods and numbers has to be as in ``examples/pubsub/discovery.py``, which
is not imported because this side must not load machines.
"""

from __future__ import annotations

import threading
from functools import partial
from random import Random
from typing import Final, Protocol

from bench.plain_timers import Call, Timers

__all__ = ["DELAY", "ENOUGH", "PlainDiscovery", "PlainRegistry"]

# Seconds: between two looks at all topics, of an entry's life, between two checks of a topic
# that is bootstrapped.
POLL: Final = 1.0
TTL: Final = 60.0
DELAY: Final = 0.1
# How many peers of a topic a host looks for, and so many it connects to at once.
ENOUGH: Final = 12
# How many hosts are found at a time, at most.
MOST_FOUND: Final = 30


class PlainRegistry:
    """Who is in which topic: what hosts advertise, for some time, and others find."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._changed = threading.Condition()  # guards the entries
        # By topic and name of the host: when the entry ends.
        self._entries: dict[str, dict[str, float]] = {}

    def advertise(self, topic: str, name: str, ttl: float) -> None:
        """Note that a host is in a topic, for so many seconds."""
        until = self._timers.now() + ttl
        with self._changed:
            self._entries.setdefault(topic, {})[name] = until
            self._changed.notify_all()

    def withdraw(self, topic: str, name: str) -> None:
        """Forget that it is."""
        with self._changed:
            self._entries.get(topic, {}).pop(name, None)

    def find(self, topic: str) -> list[str]:
        """Give the hosts that are in a topic, the first to advertise first."""
        now = self._timers.now()
        with self._changed:
            entries = self._entries.get(topic, {})
            for name in [name for name, until in entries.items() if until <= now]:
                del entries[name]
            return list(entries)

    def wait_for(self, topic: str, hosts: int, timeout: float) -> bool:
        """Wait until so many hosts have advertised a topic, or for so many seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: len(self._entries.get(topic, ())) >= hosts, timeout
            )


class _Host(Protocol):
    name: str

    def peers_in(self, topic: str) -> list[str]: ...

    def connect(self, topic: str, peers: list[str], want: int) -> None: ...


class PlainDiscovery:
    """How one host finds peers for its topics: it advertises itself, asks, and connects.

    Args:
        host: the host.
        registry: who is asked.
        timers: calls when it is time to look again.
        rng: picks among the peers that are found.

    """

    def __init__(self, host: _Host, registry: PlainRegistry, timers: Timers, rng: Random) -> None:
        self._host = host
        self._registry = registry
        self._timers = timers
        self._rng = rng
        self._lock = threading.Lock()  # guards all below, and the picks
        self._topics: dict[str, float] = {}  # and when each has to be advertised again
        self._flows: dict[str, threading.Event] = {}  # topics that are bootstrapped
        self._closed = False
        self._next_look: Call = timers.call_later(POLL * rng.uniform(0.5, 1.0), self._look)

    def advertise(self, topic: str) -> None:
        """Have others find the host in a topic, until that is withdrawn."""
        with self._lock:
            self._topics[topic] = self._timers.now() + TTL / 2
        self._registry.advertise(topic, self._host.name, TTL)

    def withdraw(self, topic: str) -> None:
        """Advertise a topic no longer."""
        with self._lock:
            self._topics.pop(topic, None)
        self._registry.withdraw(topic, self._host.name)

    def bootstrap(self, topic: str, enough: int) -> threading.Event:
        """Look for peers until enough of them are known to be in a topic.

        Returns:
            What is set then; the same again while the topic is being bootstrapped.

        """
        with self._lock:
            running = self._flows.get(topic)
            if running is not None:
                return running
            done = self._flows[topic] = threading.Event()
        self._check(topic, enough, done)
        return done

    def close(self) -> None:
        """Look no more."""
        with self._lock:
            self._closed = True
            self._next_look.cancel()

    def _check(self, topic: str, enough: int, done: threading.Event) -> None:
        if len(self._host.peers_in(topic)) >= enough:
            with self._lock:
                del self._flows[topic]
            done.set()
            return
        self._discover(topic, max(ENOUGH, enough))
        with self._lock:
            if not self._closed:
                self._timers.call_later(DELAY, partial(self._check, topic, enough, done))

    def _discover(self, topic: str, want: int) -> None:
        """Connect to as many of the peers that the registry knows as the host lacks."""
        found = self._registry.find(topic)
        if len(found) > MOST_FOUND:
            with self._lock:
                found = self._rng.sample(found, MOST_FOUND)
        self._host.connect(topic, found, want)

    def _look(self) -> None:
        """Advertise what has to be, and see to topics that lack peers."""
        now = self._timers.now()
        with self._lock:
            if self._closed:
                return
            self._next_look = self._timers.call_later(POLL, self._look)
            again = [topic for topic, when in self._topics.items() if when <= now]
            topics = [topic for topic in self._topics if topic not in self._flows]
        for topic in again:
            self.advertise(topic)
        for topic in topics:
            if len(self._host.peers_in(topic)) < ENOUGH // 2:
                self._discover(topic, ENOUGH)
