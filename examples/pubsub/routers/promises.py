"""What peers have told of and were asked for: one message of each such asking is tracked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

__all__ = ["Promises"]


class Promises:
    """Promises by message and peer.

    Args:
        rng: picks the message that is tracked.
        seconds: in so many it has to come, from whomever.

    """

    def __init__(self, rng: Random, seconds: float = 3.0) -> None:
        self._rng = rng
        self._seconds = seconds
        self._ends: dict[str, dict[str, float]] = {}  # by id and peer

    def __bool__(self) -> bool:
        return bool(self._ends)

    def add(self, peer: str, ids: list[str], now: float) -> None:
        """A peer was asked for messages: it has promised them."""
        self._ends.setdefault(self._rng.choice(ids), {}).setdefault(peer, now + self._seconds)

    def fulfil(self, message_id: str) -> None:
        """A message has come: whoever has promised it has kept its word."""
        self._ends.pop(message_id, None)

    def forgive(self) -> None:
        """Expect nothing of what was promised so far."""
        self._ends.clear()

    def take_broken(self, now: float) -> dict[str, int]:
        """Give how many promises each peer has broken since the last time."""
        broken: dict[str, int] = {}
        for message_id, ends in list(self._ends.items()):
            for peer in [peer for peer, end in ends.items() if end < now]:
                broken[peer] = broken.get(peer, 0) + 1
                del ends[peer]
            if not ends:
                del self._ends[message_id]
        return broken
