"""Whether every message has reached everybody that it was promised to, and how.

A message is promised to the peers that had told that they are in its topic when it was
asked for, but for its author. Who leaves, or dies, before the deadline is released from
the promise. What has not arrived within the deadline counts as missed; that is judged a
little later, for what has arrived has to be told first.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from examples.pubsub.outcome import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TELLING", "Verification"]

# How long it may take until the simulator is told of what has arrived, in seconds.
TELLING: Final = 0.5


class _Promise:
    """One message on its way."""

    __slots__ = ("author", "lost", "most_hops", "received", "sent", "slowest", "topic", "waiting")

    def __init__(self, topic: str, author: str, receivers: Iterable[str], asked: float) -> None:
        self.topic = topic
        self.author = author
        self.waiting = dict.fromkeys(receivers)
        self.sent = asked
        self.lost = False
        self.received = 0
        self.slowest = 0.0
        self.most_hops = 0


class Verification:
    """Keeps the promises of a run.

    Args:
        deadline: seconds after which what has not arrived is missed.

    Attributes:
        verdicts: messages whose fate is certain.
        latencies: seconds of all promised deliveries.
        hops: for each number of hops how many deliveries took so many.
        promised: how many deliveries were promised, and not released.
        received: how many of them arrived.
        missed: how many did not arrive in time.

    Example:
        >>> check = Verification(5.0)
        >>> check.promise("a/1", "news", "a", ["b", "c"], 0.0)
        >>> check.arrived("a/1", "b", hops=2, latency=0.25)
        >>> check.settle(5.5)
        >>> [(each.received, each.missed) for each in check.verdicts]
        [(1, ('c',))]

    """

    def __init__(self, deadline: float) -> None:
        self.verdicts: list[Verdict] = []
        self.latencies = array("d")  # there may be millions
        self.hops: dict[int, int] = {}
        self.promised = self.received = self.missed = 0
        self._deadline = deadline
        self._open: dict[str, _Promise] = {}  # oldest first

    def promise(
        self, message: str, topic: str, author: str, receivers: Iterable[str], now: float
    ) -> None:
        """Promise a message that an author is asked to send."""
        made = self._open[message] = _Promise(topic, author, receivers, now)
        made.waiting.pop(author, None)
        self.promised += len(made.waiting)

    def sent(self, message: str, when: float) -> None:
        """Take note of when a message was really sent."""
        promise = self._open.get(message)
        if promise is not None:
            promise.sent = when

    def arrived(self, message: str, receiver: str, hops: int, latency: float) -> None:
        """Take note of a delivery, so many seconds after it was sent.

        One that was not promised does not count.
        """
        promise = self._open.get(message)
        if promise is None or receiver not in promise.waiting or latency > self._deadline:
            return
        del promise.waiting[receiver]
        promise.received += 1
        promise.slowest = max(promise.slowest, latency)
        promise.most_hops = max(promise.most_hops, hops)
        self.received += 1
        self.latencies.append(latency)
        self.hops[hops] = self.hops.get(hops, 0) + 1

    def release(self, peer: str, topic: str | None = None) -> None:
        """Take note that a peer has left a topic, or all of them."""
        for promise in self._open.values():
            if (topic is None or promise.topic == topic) and peer in promise.waiting:
                del promise.waiting[peer]
                self.promised -= 1

    def author_died(self, peer: str) -> None:
        """Take note that what a peer was about to send may never have been sent."""
        for promise in self._open.values():
            if promise.author == peer:
                promise.lost = True

    def settle(self, now: float) -> None:
        """Judge the messages whose deadline has passed, and of which all has been told."""
        past = now - self._deadline - TELLING
        due = [name for name, each in self._open.items() if each.sent <= past]
        for name in due:
            self._judge(name, self._open.pop(name))

    def end(self, now: float) -> None:
        """Judge what has a deadline to come as if there had been no such message."""
        self.settle(now)
        for name, promise in list(self._open.items()):
            if promise.waiting:
                self.promised -= len(promise.waiting)
                promise.waiting.clear()
            self._judge(name, promise)
        self._open.clear()

    def _judge(self, name: str, promise: _Promise) -> None:
        if promise.lost and not promise.received:  # nobody can know of it
            self.promised -= len(promise.waiting)
            promise.waiting.clear()
        self.missed += len(promise.waiting)
        self.verdicts.append(
            Verdict(
                name,
                promise.topic,
                promise.author,
                promise.sent,
                promise.received + len(promise.waiting),
                promise.received,
                tuple(promise.waiting),
                promise.slowest,
                promise.most_hops,
            )
        )

    @property
    def under_way(self) -> int:
        """How many messages have a deadline to come."""
        return len(self._open)
