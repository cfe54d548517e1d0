"""Floodsub: every message goes to every peer that is in its topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.pubsub.routers import Outbox
    from examples.pubsub.rpc import Control, Sent

__all__ = ["Flood"]


class Flood:
    """The rules: none but that."""

    phases: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._peers: dict[str, dict[str, None]] = {}  # by topic

    def peer_added(self, peer: str, now: float, *, outbound: bool) -> None: ...

    def peer_removed(self, peer: str, now: float) -> None:
        for peers in self._peers.values():
            peers.pop(peer, None)

    def peer_subscribed(self, peer: str, topic: str, now: float) -> None:
        self._peers.setdefault(topic, {})[peer] = None

    def peer_unsubscribed(self, peer: str, topic: str, now: float) -> None:
        self._peers.get(topic, {}).pop(peer, None)

    def join(self, topic: str, now: float, out: Outbox) -> None: ...

    def leave(self, topic: str, now: float, out: Outbox) -> None: ...

    def accepts(self, peer: str, now: float) -> bool:
        return True

    def targets(self, topic: str, author: str, by: str | None, now: float) -> list[str]:
        return [peer for peer in self._peers.get(topic, ()) if peer not in (author, by)]

    def keep(self, sent: Sent, topic: str) -> None: ...

    def delivered(self, peer: str, topic: str, message_id: str, now: float) -> None: ...

    def duplicate(self, peer: str, message_id: str, now: float) -> None: ...

    def rejected(self, peer: str, topic: str, message_id: str, now: float) -> None: ...

    def control(self, peer: str, control: Control, now: float, out: Outbox) -> None: ...

    def take_exchanged(self) -> tuple[str, ...]:
        return ()

    def due(self) -> tuple[str, ...]:
        return ()

    def phase(self, name: str, now: float, out: Outbox) -> None: ...

    def mesh(self, topic: str) -> tuple[str, ...]:
        return tuple(self._peers.get(topic, ()))
