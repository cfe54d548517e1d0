"""Who must not be grafted yet: after a prune both sides wait."""

from __future__ import annotations

__all__ = ["Backoffs"]


class Backoffs:
    """Back-offs by topic and peer.

    Args:
        slack: seconds that this side waits longer than it must, since the other side's
            clock and heartbeat are not its own.

    """

    def __init__(self, slack: float = 2.0) -> None:
        self._slack = slack
        self._ends: dict[str, dict[str, float]] = {}  # by topic and peer

    def add(self, peer: str, topic: str, end: float) -> float:
        """Have a peer wait until a time, in seconds; one that waits longer keeps doing so.

        Returns:
            The time at which it may graft again.

        """
        ends = self._ends.setdefault(topic, {})
        end = ends[peer] = max(end, ends.get(peer, end))
        return end

    def end(self, peer: str, topic: str) -> float | None:
        """Give the time at which a peer may graft again; None if it may now."""
        return self._ends.get(topic, {}).get(peer)

    def of(self, topic: str) -> dict[str, float]:
        """Give whom this side must not graft: those that wait, until ``clear`` drops them."""
        return self._ends.get(topic, {})

    def clear(self, now: float) -> None:
        """Drop those that are over, with the slack."""
        latest = now - self._slack
        for topic, ends in list(self._ends.items()):
            for peer in [peer for peer, end in ends.items() if end < latest]:
                del ends[peer]
            if not ends:
                del self._ends[topic]
