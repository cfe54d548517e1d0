"""What a router remembers of messages: the messages of late, and the ids of longer ago."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.pubsub.rpc import Sent

__all__ = ["MessageCache", "Seen"]


class MessageCache:
    """Messages by window: one for each heartbeat, the newest first.

    Args:
        windows: how many there are.
        gossip: how many of them gossip is about.
        retransmissions: how often one peer is given one message.

    """

    def __init__(self, windows: int = 5, gossip: int = 3, retransmissions: int = 3) -> None:
        self._gossip = gossip
        self._retransmissions = retransmissions
        self._messages: dict[str, Sent] = {}
        self._given: dict[str, dict[str, int]] = {}  # by id and peer, how often
        self._windows: list[dict[str, list[str]]] = [{} for _ in range(windows)]  # ids by topic

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, sent: Sent, topic: str) -> None:
        """Remember a message; one that is known stays in its window."""
        if sent.id not in self._messages:
            self._messages[sent.id] = sent
            self._windows[0].setdefault(topic, []).append(sent.id)

    def get(self, message_id: str) -> Sent | None:
        """Give a message, if it is remembered."""
        return self._messages.get(message_id)

    def give(self, message_id: str, peer: str) -> Sent | None:
        """Give a message for a peer that asks for it: not at all if it has asked too often."""
        sent = self._messages.get(message_id)
        if sent is None:
            return None
        given = self._given.setdefault(message_id, {})
        times = given.get(peer, 0)
        if times >= self._retransmissions:
            return None
        given[peer] = times + 1
        return sent

    def gossip_ids(self, topic: str) -> list[str]:
        """Give the ids of the newest windows, in a list of the caller's own."""
        return [i for window in self._windows[: self._gossip] for i in window.get(topic, ())]

    def shift(self) -> None:
        """Begin a window, and forget the oldest one."""
        for ids in self._windows.pop().values():
            for message_id in ids:
                del self._messages[message_id]
                self._given.pop(message_id, None)
        self._windows.insert(0, {})


class Seen:
    """Ids of messages that have come by.

    Args:
        seconds: for how long they are remembered.

    """

    def __init__(self, seconds: float = 120.0) -> None:
        self._seconds = seconds
        self._times: dict[str, float] = {}  # oldest first

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._times

    def __len__(self) -> int:
        return len(self._times)

    def add(self, message_id: str, now: float) -> None:
        """Remember an id from now on; one that is known gets no older end."""
        if message_id not in self._times:
            self._times[message_id] = now

    def forget(self, now: float) -> None:
        """Forget those whose time is over."""
        oldest = now - self._seconds
        while self._times:
            first = next(iter(self._times))
            if self._times[first] > oldest:
                return
            del self._times[first]
