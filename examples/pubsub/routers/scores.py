"""Peer scoring of gossipsub v1.1: what a router thinks of its peers, by what they do.

Counters are raised by events and fade once per interval. A score is computed from them
when it is asked for, and kept until one of them changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.pubsub.routers.params import ScoreParams, TopicScoreParams

__all__ = ["Scores"]


class _InTopic:
    """What a peer has done in a topic."""

    __slots__ = (
        "active",
        "failures",
        "first",
        "grafted",
        "in_mesh",
        "invalid",
        "mesh",
        "mesh_time",
        "params",
    )

    def __init__(self, params: TopicScoreParams) -> None:
        self.params = params
        self.in_mesh = self.active = False
        self.grafted = self.mesh_time = 0.0
        self.first = self.mesh = self.failures = self.invalid = 0.0

    def score(self) -> float:
        params = self.params
        score = self.first * params.first_weight
        if self.in_mesh:
            time = self.mesh_time // params.time_quantum
            score += min(time, params.time_cap) * params.time_weight
            if self.active:
                score += self.deficit() ** 2 * params.mesh_weight
        if self.failures:
            score += self.failures * params.failure_weight
        if self.invalid:
            score += self.invalid**2 * params.invalid_weight
        return score * params.weight

    def deficit(self) -> float:
        return max(0.0, self.params.mesh_threshold - self.mesh)

    def delivered_in_mesh(self) -> None:
        self.mesh = min(self.mesh + 1, self.params.mesh_cap)

    def pruned(self) -> None:
        if self.active:
            self.failures += self.deficit() ** 2
        self.in_mesh = self.active = False
        self.mesh_time = 0.0

    def decay(self, now: float, intervals: int, zero: float) -> None:
        params = self.params
        if self.first:
            self.first = _faded(self.first, params.first_decay**intervals, zero)
        if self.mesh:
            self.mesh = _faded(self.mesh, params.mesh_decay**intervals, zero)
        if self.failures:
            self.failures = _faded(self.failures, params.failure_decay**intervals, zero)
        if self.invalid:
            self.invalid = _faded(self.invalid, params.invalid_decay**intervals, zero)
        if self.in_mesh:
            self.mesh_time = now - self.grafted
            if self.mesh_time > params.mesh_activation:
                self.active = True


class _Peer:
    """What a peer has done."""

    __slots__ = ("address", "behaviour", "forget", "topics", "total")

    def __init__(self) -> None:
        self.topics: dict[str, _InTopic] = {}
        self.behaviour = 0.0
        self.address: str | None = None
        self.forget: float | None = None  # when it is forgotten, if it is gone
        self.total: float | None = None  # P1 to P4 and P7, if they are computed


class _Judged:
    """How a message was judged: duplicates share its fate."""

    __slots__ = ("peers", "time", "topic", "valid")

    def __init__(self, topic: str, time: float, peer: str, *, valid: bool) -> None:
        self.topic = topic
        self.time = time
        self.valid = valid
        self.peers = {peer: None}  # whose delivery has counted


def _faded(counter: float, factor: float, zero: float) -> float:
    counter *= factor
    return counter if counter >= zero else 0.0


class Scores:
    """The scores of all peers of one host.

    Args:
        params: weights, caps, decays.

    """

    def __init__(self, params: ScoreParams) -> None:
        self._params = params
        self._peers: dict[str, _Peer] = {}
        self._at: dict[str, int] = {}  # how many peers are connected, by address
        self._judged: dict[str, _Judged] = {}  # by id, oldest first
        self._decay_due: float | None = None

    def of(self, peer: str) -> float:
        """Give the score of a peer: 0 if it is not known."""
        known = self._peers.get(peer)
        if known is None:
            return 0.0
        total = known.total
        if total is None:
            total = known.total = self._computed(known)
        params = self._params
        if params.app_score is not None:
            total += params.app_score(peer) * params.app_weight
        if known.address is not None:
            surplus = self._at.get(known.address, 0) - params.address_threshold
            if surplus > 0:
                total += surplus**2 * params.address_weight
        return total

    def _computed(self, known: _Peer) -> float:
        params = self._params
        total = 0.0
        for in_topic in known.topics.values():
            total += in_topic.score()
        if params.topic_cap is not None:
            total = min(total, params.topic_cap)
        excess = known.behaviour - params.behaviour_threshold
        if excess > 0:
            total += excess**2 * params.behaviour_weight
        return total

    # Events ---------------------------------------------------------------------------------

    def peer_added(self, peer: str) -> None:
        """A peer is connected; one that is remembered goes on with the score it had."""
        known = self._peers.setdefault(peer, _Peer())
        if known.address is None and self._params.address_of is not None:
            known.address = self._params.address_of(peer)
            if known.address is not None:
                self._at[known.address] = self._at.get(known.address, 0) + 1
        known.forget = None

    def peer_removed(self, peer: str, now: float) -> None:
        """A peer is gone: what it has done is remembered for a while."""
        known = self._peers.get(peer)
        if known is None or known.forget is not None:
            return
        for in_topic in known.topics.values():
            in_topic.pruned()
        if known.address is not None:
            self._at[known.address] -= 1
            if not self._at[known.address]:
                del self._at[known.address]
            known.address = None
        known.total = None
        known.forget = now + self._params.retain_seconds

    def grafted(self, peer: str, topic: str, now: float) -> None:
        """A peer is in the mesh of a topic from now on."""
        if (in_topic := self._in_topic(peer, topic)) is not None:
            in_topic.in_mesh, in_topic.active = True, False
            in_topic.grafted, in_topic.mesh_time = now, 0.0

    def pruned(self, peer: str, topic: str) -> None:
        """It is not any more."""
        if (in_topic := self._in_topic(peer, topic)) is not None:
            in_topic.pruned()

    def delivered(self, peer: str, topic: str, message_id: str, now: float) -> None:
        """A peer was the first to send a message that is valid."""
        in_topic = self._in_topic(peer, topic)
        if in_topic is None:
            return
        params = in_topic.params
        in_topic.first = min(in_topic.first + 1, params.first_cap)
        if params.mesh_weight or params.failure_weight:
            self._judged[message_id] = _Judged(topic, now, peer, valid=True)
            if in_topic.in_mesh:
                in_topic.delivered_in_mesh()

    def duplicate(self, peer: str, message_id: str, now: float) -> None:
        """A peer has sent a message that was sent before."""
        judged = self._judged.get(message_id)
        if judged is None:
            return
        in_topic = self._in_topic(peer, judged.topic)
        if in_topic is None:
            return
        if not judged.valid:
            in_topic.invalid += 1
        elif (
            in_topic.in_mesh
            and peer not in judged.peers
            and now - judged.time <= in_topic.params.mesh_window
        ):
            judged.peers[peer] = None
            in_topic.delivered_in_mesh()

    def rejected(self, peer: str, topic: str, message_id: str, now: float) -> None:
        """A peer was the first to send a message that is not valid."""
        if (in_topic := self._in_topic(peer, topic)) is not None:
            in_topic.invalid += 1
            self._judged[message_id] = _Judged(topic, now, peer, valid=False)

    def penalise(self, peer: str, times: int = 1) -> None:
        """A peer has not behaved."""
        if (known := self._peers.get(peer)) is not None:
            known.behaviour += times
            known.total = None

    def _in_topic(self, peer: str, topic: str) -> _InTopic | None:
        """Give what a peer does in a topic, about to be changed; None if that is not judged."""
        known = self._peers.get(peer)
        if known is None:
            return None
        known.total = None
        in_topic = known.topics.get(topic)
        if in_topic is None:
            params = self._params.topics.get(topic, self._params.other_topics)
            if params is None:
                return None
            in_topic = known.topics[topic] = _InTopic(params)
        return in_topic

    # Time -----------------------------------------------------------------------------------

    def decay(self, now: float) -> None:
        """Let counters fade, as often as an interval has passed since the first such call."""
        interval = self._params.decay_interval
        if self._decay_due is None:
            self._decay_due = now + interval
            return
        intervals = 0
        if now >= self._decay_due:
            intervals = 1 + int((now - self._decay_due) // interval)
            self._decay_due += intervals * interval
            self._fade(now, intervals)

    def _fade(self, now: float, intervals: int) -> None:
        params = self._params
        for peer, known in list(self._peers.items()):
            if known.forget is not None:
                # Its counters stand still: being away does not make it better.
                if known.forget <= now:
                    del self._peers[peer]
                continue
            known.total = None
            for in_topic in known.topics.values():
                in_topic.decay(now, intervals, params.decay_to_zero)
            known.behaviour = _faded(
                known.behaviour, params.behaviour_decay**intervals, params.decay_to_zero
            )
        oldest = now - params.record_seconds
        while self._judged:
            first = next(iter(self._judged))
            if self._judged[first].time > oldest:
                return
            del self._judged[first]
