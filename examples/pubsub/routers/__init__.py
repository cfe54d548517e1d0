"""Routers decide whom a message goes to, and what else hosts tell each other about that.

A router is plain data and rules: it has no threads, no clock and no network. Its host
calls it inside handlers only, one call at a time, tells it the time, and sends what it has
put into the `Outbox`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from examples.pubsub.rpc import Control, Prune, Rpc, Sent

__all__ = ["Outbox", "Router"]


class Outbox:
    """What waits to be sent, by peer: all that is put in before ``take()`` travels together."""

    def __init__(self) -> None:
        self._waiting: dict[str, Rpc] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def _rpc(self, peer: str) -> Rpc:
        found = self._waiting.get(peer)
        if found is None:
            found = self._waiting[peer] = Rpc()
        return found

    def _control(self, peer: str) -> Control:
        rpc = self._rpc(peer)
        if rpc.control is None:
            rpc.control = Control()
        return rpc.control

    def publish(self, peer: str, sent: Sent) -> None:
        """Send a message."""
        self._rpc(peer).publish.append(sent)

    def ihave(self, peer: str, topic: str, ids: list[str]) -> None:
        """Tell which messages this host has."""
        self._control(peer).ihave.append((topic, ids))

    def iwant(self, peer: str, ids: list[str]) -> None:
        """Ask for messages."""
        self._control(peer).iwant.extend(ids)

    def graft(self, peer: str, topic: str) -> None:
        """Tell that the peer is in the mesh of a topic now."""
        self._control(peer).graft.append(topic)

    def prune(self, peer: str, prune: Prune) -> None:
        """Tell that it is not any more."""
        self._control(peer).prune.append(prune)

    def take(self) -> dict[str, Rpc]:
        """Give all that waits, and begin afresh."""
        waiting, self._waiting = self._waiting, {}
        return waiting


class Router(Protocol):
    """The rules of one host.

    Attributes:
        phases: what a heartbeat consists of, in order: names of states of the host.

    """

    phases: tuple[str, ...]

    def peer_added(self, peer: str, now: float, *, outbound: bool) -> None:
        """A stream to a peer is there; ``outbound`` if this host has connected to it."""

    def peer_removed(self, peer: str, now: float) -> None:
        """A peer is gone."""

    def peer_subscribed(self, peer: str, topic: str, now: float) -> None:
        """A peer has subscribed to a topic."""

    def peer_unsubscribed(self, peer: str, topic: str, now: float) -> None:
        """A peer has left a topic."""

    def join(self, topic: str, now: float, out: Outbox) -> None:
        """This host has subscribed to a topic."""

    def leave(self, topic: str, now: float, out: Outbox) -> None:
        """This host has left a topic."""

    def accepts(self, peer: str, now: float) -> bool:
        """Whether anything that a peer sends is looked at (v1.1: the graylist)."""

    def targets(self, topic: str, author: str, by: str | None, now: float) -> list[str]:
        """Give the peers that a message goes to.

        Args:
            topic: its topic.
            author: who published it.
            by: the peer that it came from; None if it is published here.
            now: seconds.

        """

    def keep(self, sent: Sent, topic: str) -> None:
        """Remember a message that was published here, or came for the first time."""

    def delivered(self, peer: str, topic: str, message_id: str, now: float) -> None:
        """A peer was the first to send a message that is valid."""

    def duplicate(self, peer: str, message_id: str, now: float) -> None:
        """A peer has sent a message that another one, or it, has sent before."""

    def rejected(self, peer: str, topic: str, message_id: str, now: float) -> None:
        """A peer has sent a message that is not valid."""

    def control(self, peer: str, control: Control, now: float, out: Outbox) -> None:
        """A peer's router has something to say."""

    def take_exchanged(self) -> tuple[str, ...]:
        """Give peers that others have proposed to connect to (v1.1: peer exchange), once."""

    def due(self) -> Iterable[str]:
        """Give the phases of this heartbeat, in order, but for those with nothing to do."""

    def phase(self, name: str, now: float, out: Outbox) -> None:
        """Do one phase of the heartbeat."""

    def mesh(self, topic: str) -> tuple[str, ...]:
        """Give the peers that all messages of a topic are sent to."""
