"""Gossipsub v1.1: whole messages go along a sparse mesh, and word of them to others.

After the libp2p specification (libp2p/specs, pubsub/gossipsub/). What is left out: peers
that speak floodsub only, and agreements with certain peers. Whatever is picked at random
is picked from lists in the order of events, so that equal seeds give equal runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from examples.pubsub.routers.backoffs import Backoffs
from examples.pubsub.routers.cache import MessageCache, Seen
from examples.pubsub.routers.params import GossipParams, ScoreParams, check
from examples.pubsub.routers.promises import Promises
from examples.pubsub.routers.scores import Scores
from examples.pubsub.rpc import Prune, Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from examples.pubsub.routers import Outbox
    from examples.pubsub.rpc import Control

__all__ = ["Gossip"]

_PARAMS: Final = GossipParams()
_SCORES: Final = ScoreParams()
# Proposed peers that nobody has taken: more of them than this are of no use.
_MOST_EXCHANGED: Final = 64


class Gossip:
    """The rules, and what one host knows of its peers.

    Args:
        name: id of the host.
        rng: makes all choices.
        params: sizes, times and limits.
        scores: how peers are judged.

    Raises:
        ValueError: if the numbers contradict each other.

    """

    phases: tuple[str, ...] = (
        "ClearBackoffs",
        "CheckPromises",
        "BalanceMeshes",
        "ImproveMeshes",
        "KeepFanout",
        "EmitGossip",
        "ShiftCache",
    )

    def __init__(
        self,
        name: str,
        rng: Random,
        params: GossipParams = _PARAMS,
        scores: ScoreParams = _SCORES,
    ) -> None:
        check(params, scores)
        self._name = name
        self._rng = rng
        self._params = params
        self._score_params = scores
        self._scores = Scores(scores)
        self._now = 0.0  # when something has happened last
        self._ticks = 0
        self._outbound: dict[str, bool] = {}  # all peers, and whether this host has connected
        self._peers_of: dict[str, dict[str, None]] = {}  # by topic
        self._mesh: dict[str, dict[str, None]] = {}  # by topic that this host is in
        self._fanout: dict[str, dict[str, None]] = {}  # by topic that it is not in
        self._published: dict[str, float] = {}  # when, last, by topic of the fanout
        self._backoffs = Backoffs(params.backoff_slack)
        self._cache = MessageCache(params.history, params.history_gossip, params.retransmissions)
        self._seen = Seen(params.seen_seconds)
        self._promises = Promises(rng, params.promise_seconds)
        self._ihaves: dict[str, int] = {}  # frames with gossip in this heartbeat, by peer
        self._asked: dict[str, int] = {}  # ids asked for in this heartbeat, by peer
        self._exchanged: dict[str, None] = {}
        self._doing: dict[str, Callable[[float, Outbox], None]] = {
            "ClearBackoffs": self._clear_backoffs,
            "CheckPromises": self._check_promises,
            "BalanceMeshes": self._balance_meshes,
            "ImproveMeshes": self._improve_meshes,
            "KeepFanout": self._keep_fanout,
            "EmitGossip": self._emit_gossip,
            "ShiftCache": self._shift_cache,
        }

    # Questions ------------------------------------------------------------------------------

    def mesh(self, topic: str) -> tuple[str, ...]:
        return tuple(self._mesh.get(topic, ()))

    def fanout(self, topic: str) -> tuple[str, ...]:
        """Give the peers that own messages go to in a topic that this host is not in."""
        return tuple(self._fanout.get(topic, ()))

    def score(self, peer: str) -> float:
        """Give what this host thinks of a peer."""
        return self._scores.of(peer)

    def take_exchanged(self) -> tuple[str, ...]:
        """Give unknown peers that trusted ones have proposed to connect to, each once."""
        exchanged, self._exchanged = self._exchanged, {}
        return tuple(peer for peer in exchanged if peer not in self._outbound)

    # Peers and topics -----------------------------------------------------------------------

    def peer_added(self, peer: str, now: float, *, outbound: bool) -> None:
        self._outbound[peer] = outbound
        self._scores.peer_added(peer)

    def peer_removed(self, peer: str, now: float) -> None:
        # Its back-offs and promises stay: coming back does not end them.
        self._outbound.pop(peer, None)
        for peers in (*self._peers_of.values(), *self._mesh.values(), *self._fanout.values()):
            peers.pop(peer, None)
        self._scores.peer_removed(peer, now)

    def peer_subscribed(self, peer: str, topic: str, now: float) -> None:
        if peer in self._outbound:
            self._peers_of.setdefault(topic, {})[peer] = None

    def peer_unsubscribed(self, peer: str, topic: str, now: float) -> None:
        self._peers_of.get(topic, {}).pop(peer, None)
        self._fanout.get(topic, {}).pop(peer, None)
        self._drop(peer, topic)

    def join(self, topic: str, now: float, out: Outbox) -> None:
        if topic in self._mesh:
            return
        mesh = self._mesh[topic] = {}
        self._published.pop(topic, None)
        for peer in self._usable(self._fanout.pop(topic, {}), topic):
            self._graft(peer, topic, now, out)
        self._graft_some(self._params.d - len(mesh), topic, now, out)

    def leave(self, topic: str, now: float, out: Outbox) -> None:
        backoff = self._params.leave_backoff
        for peer in self._mesh.get(topic, {}):
            self._scores.pruned(peer, topic)
            # Also for this side, so that it does not graft again if it is soon back.
            self._backoffs.add(peer, topic, now + backoff)
            out.prune(peer, Prune(topic, backoff))
        self._mesh.pop(topic, None)
        # What was asked for may come, and not be looked at: nobody is to blame for that.
        self._promises.forgive()

    def _graft(self, peer: str, topic: str, now: float, out: Outbox) -> None:
        self._mesh[topic][peer] = None
        self._scores.grafted(peer, topic, now)
        out.graft(peer, topic)

    def _graft_some(
        self, count: int, topic: str, now: float, out: Outbox, *, outbound: bool = False
    ) -> None:
        """Graft some peers of a topic that may be, picked at random."""
        if count > 0:
            mesh = self._mesh[topic]
            others = [peer for peer in self._peers_of.get(topic, ()) if peer not in mesh]
            usable = self._usable(others, topic)
            if outbound:
                usable = [peer for peer in usable if self._outbound[peer]]
            for peer in self._some(count, usable):
                self._graft(peer, topic, now, out)

    def _usable(self, peers: Iterable[str], topic: str) -> list[str]:
        """Give those that this side may graft."""
        waiting, score = self._backoffs.of(topic), self._scores.of
        return [peer for peer in peers if peer not in waiting and score(peer) >= 0]

    def _some(self, count: int, peers: list[str]) -> list[str]:
        return self._rng.sample(peers, count) if count < len(peers) else peers

    def _drop(self, peer: str, topic: str) -> bool:
        """Take a peer out of a mesh, if it is there."""
        mesh = self._mesh.get(topic)
        if mesh is None or peer not in mesh:
            return False
        del mesh[peer]
        self._scores.pruned(peer, topic)
        return True

    def _prune(self, peer: str, topic: str, now: float, out: Outbox, *, exchange: bool) -> None:
        """Tell a peer that it is not in the mesh, and have it wait."""
        self._drop(peer, topic)
        end = self._backoffs.add(peer, topic, now + self._params.prune_backoff)
        others = self._others(peer, topic) if exchange else ()
        out.prune(peer, Prune(topic, end - now, others))

    def _others(self, peer: str, topic: str) -> tuple[str, ...]:
        """Give peers that a pruned one can turn to."""
        score = self._scores.of
        others = [p for p in self._peers_of.get(topic, ()) if p != peer and score(p) >= 0]
        return tuple(self._some(self._params.exchange, others))

    # Messages -------------------------------------------------------------------------------

    def accepts(self, peer: str, now: float) -> bool:
        return self._scores.of(peer) >= self._score_params.graylist_threshold

    def targets(self, topic: str, author: str, by: str | None, now: float) -> list[str]:
        self._now = now
        if by is not None:
            return [p for p in self._mesh.get(topic, ()) if p not in (by, author)]
        if self._params.flood_publish:
            return self._publishable(self._peers_of.get(topic, ()))
        mesh = self._mesh.get(topic)
        return list(self._fanned_out(topic, now) if mesh is None else mesh)

    def _publishable(self, peers: Iterable[str]) -> list[str]:
        least, score = self._score_params.publish_threshold, self._scores.of
        return [peer for peer in peers if score(peer) >= least]

    def _fanned_out(self, topic: str, now: float) -> dict[str, None]:
        fanout = self._fanout.setdefault(topic, {})
        if not fanout:
            self._fill(fanout, topic)
        self._published[topic] = now
        return fanout

    def _fill(self, fanout: dict[str, None], topic: str) -> None:
        others = [peer for peer in self._peers_of.get(topic, ()) if peer not in fanout]
        for peer in self._some(self._params.d - len(fanout), self._publishable(others)):
            fanout[peer] = None

    def keep(self, sent: Sent, topic: str) -> None:
        self._seen.add(sent.id, self._now)
        self._cache.put(sent, topic)

    def delivered(self, peer: str, topic: str, message_id: str, now: float) -> None:
        self._now = now
        self._seen.add(message_id, now)
        self._promises.fulfil(message_id)
        self._scores.delivered(peer, topic, message_id, now)

    def duplicate(self, peer: str, message_id: str, now: float) -> None:
        self._now = now
        self._seen.add(message_id, now)
        self._promises.fulfil(message_id)
        self._scores.duplicate(peer, message_id, now)

    def rejected(self, peer: str, topic: str, message_id: str, now: float) -> None:
        self._now = now
        if not topic:
            # Nobody can tell what that was, so its id is not taken for seen.
            self._scores.penalise(peer)
            return
        self._seen.add(message_id, now)
        self._promises.fulfil(message_id)
        self._scores.rejected(peer, topic, message_id, now)

    # Control --------------------------------------------------------------------------------

    def control(self, peer: str, control: Control, now: float, out: Outbox) -> None:
        self._now = now
        if peer not in self._outbound:
            return
        if control.ihave:
            self._hear_ihave(peer, control.ihave, now, out)
        if control.iwant:
            self._answer_iwant(peer, control.iwant, out)
        for topic in control.graft:
            self._hear_graft(peer, topic, now, out)
        for prune in control.prune:
            self._hear_prune(peer, prune, now)

    def _gossips_with(self, peer: str) -> bool:
        return self._scores.of(peer) >= self._score_params.gossip_threshold

    def _hear_ihave(
        self, peer: str, ihave: list[tuple[str, list[str]]], now: float, out: Outbox
    ) -> None:
        if not self._gossips_with(peer):
            return
        self._ihaves[peer] = self._ihaves.get(peer, 0) + 1
        asked = self._asked.get(peer, 0)
        left = self._params.ihave_ids - asked
        if self._ihaves[peer] > self._params.ihave_messages or left <= 0:
            return
        seen = self._seen
        wanted: dict[str, None] = {}
        for topic, ids in ihave:
            if topic in self._mesh:
                wanted.update((i, None) for i in ids if i not in seen)
        if wanted:
            ids = self._some(left, list(wanted))
            self._asked[peer] = asked + len(ids)
            self._promises.add(peer, ids, now)
            out.iwant(peer, ids)

    def _answer_iwant(self, peer: str, ids: list[str], out: Outbox) -> None:
        if not self._gossips_with(peer):
            return
        for message_id in dict.fromkeys(ids):
            sent = self._cache.give(message_id, peer)
            if sent is not None:
                out.publish(peer, Sent(sent.id, sent.hops + 1, sent.body, sent.signature))

    def _hear_graft(self, peer: str, topic: str, now: float, out: Outbox) -> None:
        mesh = self._mesh.get(topic)
        if mesh is None:
            return  # not refused, as that could be used to have this host say much
        # Only who is in a topic grafts; its word of that may come later than the graft.
        self._peers_of.setdefault(topic, {})[peer] = None
        if peer in mesh:
            return
        end = self._backoffs.end(peer, topic)
        if end is not None and now < end:
            params = self._params
            flood = now < end - params.prune_backoff + params.graft_flood
            self._scores.penalise(peer, 2 if flood else 1)
            self._prune(peer, topic, now, out, exchange=False)
        elif self._scores.of(peer) < 0:
            self._prune(peer, topic, now, out, exchange=False)
        elif len(mesh) >= self._params.d_high and not self._outbound[peer]:
            self._prune(peer, topic, now, out, exchange=True)
        else:
            mesh[peer] = None
            self._scores.grafted(peer, topic, now)

    def _hear_prune(self, peer: str, prune: Prune, now: float) -> None:
        topic, params = prune.topic, self._params
        if topic not in self._mesh:
            return
        self._drop(peer, topic)
        # Not so if it is no number, either.
        backoff = prune.backoff if prune.backoff > 0 else params.prune_backoff
        self._backoffs.add(peer, topic, now + min(backoff, params.longest_backoff))
        if self._scores.of(peer) >= self._score_params.accept_px_threshold:
            for other in prune.peers[: params.exchange]:
                known = other == self._name or other in self._outbound
                if not known and len(self._exchanged) < _MOST_EXCHANGED:
                    self._exchanged[other] = None

    # Heartbeat ------------------------------------------------------------------------------

    def due(self) -> list[str]:
        idle = set()
        if not self._promises:
            idle.add("CheckPromises")
        if not self._published:
            idle.add("KeepFanout")
        if not len(self._cache):
            idle.add("EmitGossip")
        return [phase for phase in self.phases if phase not in idle]

    def phase(self, name: str, now: float, out: Outbox) -> None:
        self._now = now
        self._doing[name](now, out)

    def _clear_backoffs(self, now: float, out: Outbox) -> None:
        self._backoffs.clear(now)
        self._ihaves.clear()
        self._asked.clear()
        self._scores.decay(now)

    def _check_promises(self, now: float, out: Outbox) -> None:
        for peer, times in self._promises.take_broken(now).items():
            self._scores.penalise(peer, times)

    def _balance_meshes(self, now: float, out: Outbox) -> None:
        params, score = self._params, self._scores.of
        for topic, mesh in self._mesh.items():
            for peer in [peer for peer in mesh if score(peer) < 0]:
                self._prune(peer, topic, now, out, exchange=False)
            if len(mesh) < params.d_low:
                self._graft_some(params.d - len(mesh), topic, now, out)
            if len(mesh) > params.d_high:
                for peer in self._surplus(mesh):
                    self._prune(peer, topic, now, out, exchange=True)
            if len(mesh) >= params.d_low:
                lacking = params.d_out - sum(self._outbound[peer] for peer in mesh)
                self._graft_some(lacking, topic, now, out, outbound=True)

    def _surplus(self, mesh: Iterable[str]) -> list[str]:
        """Give those of a mesh that have to go: neither the best nor lucky nor needed."""
        params, outbound = self._params, self._outbound
        peers = self._by_score(mesh)
        best, others = peers[: params.d_score], peers[params.d_score :]
        self._rng.shuffle(others)
        peers = best + others
        staying, going = peers[: params.d], peers[params.d :]
        # Outbound ones take the places of those that are not, from the least deserving on.
        lacking = params.d_out - sum(outbound[peer] for peer in staying)
        incoming = [i for i, peer in enumerate(going) if outbound[peer]]
        leaving = [i for i, peer in enumerate(staying) if not outbound[peer]]
        for comes, leaves in zip(incoming[: max(0, lacking)], reversed(leaving)):
            going[comes], staying[leaves] = staying[leaves], going[comes]
        return going

    def _by_score(self, peers: Iterable[str]) -> list[str]:
        """Give peers, the best first; equal ones in random order."""
        mixed = list(peers)
        self._rng.shuffle(mixed)
        return sorted(mixed, key=self._scores.of, reverse=True)

    def _improve_meshes(self, now: float, out: Outbox) -> None:
        self._ticks += 1
        params, score = self._params, self._scores.of
        if self._ticks % params.opportunistic_ticks:
            return
        for topic, mesh in self._mesh.items():
            room = min(params.opportunistic_peers, params.d_high - len(mesh))
            if len(mesh) < 2 or room <= 0:
                continue
            median = sorted(score(peer) for peer in mesh)[len(mesh) // 2]
            if median < self._score_params.opportunistic_threshold:
                others = [peer for peer in self._peers_of.get(topic, ()) if peer not in mesh]
                better = [p for p in self._usable(others, topic) if score(p) > median]
                for peer in self._some(room, better):
                    self._graft(peer, topic, now, out)

    def _keep_fanout(self, now: float, out: Outbox) -> None:
        for topic, published in list(self._published.items()):
            if now - published > self._params.fanout_seconds:
                del self._published[topic]
                del self._fanout[topic]
                continue
            fanout = self._fanout[topic] = dict.fromkeys(self._publishable(self._fanout[topic]))
            if len(fanout) < self._params.d:
                self._fill(fanout, topic)

    def _emit_gossip(self, now: float, out: Outbox) -> None:
        params = self._params
        for topic, served in (*self._mesh.items(), *self._fanout.items()):
            ids = self._cache.gossip_ids(topic)
            if not ids:
                continue
            others = [
                peer
                for peer in self._peers_of.get(topic, ())
                if peer not in served and self._gossips_with(peer)
            ]
            count = max(params.d_lazy, int(params.gossip_factor * len(others)))
            for peer in self._some(count, others):
                out.ihave(peer, topic, self._some(params.ihave_ids, ids))

    def _shift_cache(self, now: float, out: Outbox) -> None:
        self._cache.shift()
        self._seen.forget(now)
