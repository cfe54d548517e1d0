"""The numbers of gossipsub, with the defaults of its specification, and what they must obey.

The specification names no numbers for scores: those here are of the size that Filecoin
uses, with a memory of ten minutes instead of an hour, so that a run of minutes shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

__all__ = ["GossipParams", "ScoreParams", "TopicScoreParams", "check", "fading"]


def fading(seconds: float, *, interval: float = 1.0, left: float = 0.01) -> float:
    """Give the factor that makes a counter vanish in some time.

    Args:
        seconds: how long that takes.
        interval: seconds between two decays.
        left: the part of it that is left then.

    Example:
        >>> round(fading(2, left=0.25), 3)
        0.5

    """
    return float(left ** (interval / seconds))


_TEN_MINUTES: Final = fading(600)


class GossipParams(NamedTuple):
    """How big meshes are, how long things last, and how much a peer may ask for.

    Attributes:
        d: peers that a mesh should have.
        d_low: below so many it gets more.
        d_high: above so many it gets fewer.
        d_score: of a mesh that is too big, so many stay for their score.
        d_out: so many in a mesh are peers that this host has connected to.
        d_lazy: at least so many peers outside a mesh get gossip.
        gossip_factor: this part of them does, if it is more.
        history: windows of the message cache; one is a heartbeat.
        history_gossip: gossip is about the newest so many.
        retransmissions: how often one peer may be given one message that it asks for.
        seen_seconds: for how long an id is known to have been seen.
        fanout_seconds: for how long the peers of a topic are kept after a publication.
        prune_backoff: seconds after a prune until the two may graft again.
        leave_backoff: the same, in seconds, after a prune since one has left the topic.
        backoff_slack: seconds that this side waits longer than it must.
        longest_backoff: seconds; who asks for more is given so many.
        graft_flood: seconds after a prune in which a graft is penalised twice.
        ihave_ids: ids that are sent in one gossip, and asked for per heartbeat and peer.
        ihave_messages: frames with gossip that a peer may send per heartbeat.
        promise_seconds: in so many a peer has to send what it has told of.
        flood_publish: whether own messages go to all peers of a topic, not to its mesh.
        exchange: ids of other peers that a prune for lack of room carries; 0 for none.
        opportunistic_ticks: every so many heartbeats weak meshes get better peers.
        opportunistic_peers: so many.

    """

    d: int = 6
    d_low: int = 5
    d_high: int = 12
    d_score: int = 4
    d_out: int = 2
    d_lazy: int = 6
    gossip_factor: float = 0.25
    history: int = 5
    history_gossip: int = 3
    retransmissions: int = 3
    seen_seconds: float = 120.0
    fanout_seconds: float = 60.0
    prune_backoff: float = 60.0
    leave_backoff: float = 10.0
    backoff_slack: float = 2.0
    longest_backoff: float = 3600.0
    graft_flood: float = 10.0
    ihave_ids: int = 5000
    ihave_messages: int = 10
    promise_seconds: float = 3.0
    flood_publish: bool = True
    exchange: int = 16
    opportunistic_ticks: int = 60
    opportunistic_peers: int = 2


class TopicScoreParams(NamedTuple):
    """What a peer's behaviour in one topic is worth. Every decay is a factor per interval.

    P3 and P3b are off (their weights are 0), as they need to know how many messages a topic
    has: in a quiet one they would punish everybody.

    Attributes:
        weight: of the topic, among all.
        time_weight: of P1, the time in the mesh.
        time_quantum: seconds in it that count as one.
        time_cap: the most that counts.
        first_weight: of P2, messages that the peer was the first to deliver.
        first_decay: its decay.
        first_cap: the most that counts.
        mesh_weight: of P3, the square of how many deliveries a mesh peer is short of.
        mesh_decay: the decay of its deliveries.
        mesh_threshold: how many it has to have.
        mesh_cap: the most that counts.
        mesh_activation: seconds in the mesh after which that is asked for.
        mesh_window: seconds after the first delivery in which another one counts, too.
        failure_weight: of P3b, what it was short of when it was pruned.
        failure_decay: its decay.
        invalid_weight: of P4, the square of the number of invalid messages.
        invalid_decay: its decay.

    """

    weight: float = 0.5
    time_weight: float = 0.01
    time_quantum: float = 1.0
    time_cap: float = 100.0
    first_weight: float = 1.0
    first_decay: float = _TEN_MINUTES
    first_cap: float = 100.0
    mesh_weight: float = 0.0
    mesh_decay: float = fading(60)
    mesh_threshold: float = 5.0
    mesh_cap: float = 100.0
    mesh_activation: float = 30.0
    mesh_window: float = 0.005
    failure_weight: float = 0.0
    failure_decay: float = _TEN_MINUTES
    invalid_weight: float = -200.0
    invalid_decay: float = _TEN_MINUTES


class ScoreParams(NamedTuple):
    """How peers are judged, and what becomes of those that are judged badly.

    Attributes:
        topics: topics that are judged in their own way.
        other_topics: how all others are; None for not at all.
        topic_cap: the most that all topics together can give; None for no end.
        app_score: P5, what the application thinks of a peer; None if nothing.
        app_weight: its weight.
        address_of: tells where a peer lives, for P6; None if that is not known.
        address_weight: of P6, the square of how many too many live at one address.
        address_threshold: how many may.
        behaviour_weight: of P7, the square of the penalties above the threshold.
        behaviour_threshold: so many are forgiven: honest peers are late at times.
        behaviour_decay: the decay of penalties.
        gossip_threshold: below it a peer gets no gossip, and is not listened to for it.
        publish_threshold: below it a peer gets no messages that are published here.
        graylist_threshold: below it nothing is taken from a peer.
        accept_px_threshold: below it a peer's proposals of other peers are ignored.
        opportunistic_threshold: a mesh with a median below it gets better peers.
        decay_interval: seconds between two decays.
        decay_to_zero: a counter below it counts as 0.
        retain_seconds: for how long a peer is remembered that is gone.
        record_seconds: for how long it is known how a message was judged.

    """

    topics: Mapping[str, TopicScoreParams] = {}
    other_topics: TopicScoreParams | None = TopicScoreParams()
    topic_cap: float | None = None
    app_score: Callable[[str], float] | None = None
    app_weight: float = 1.0
    address_of: Callable[[str], str | None] | None = None
    address_weight: float = -100.0
    address_threshold: int = 5
    behaviour_weight: float = -10.0
    behaviour_threshold: float = 6.0
    behaviour_decay: float = _TEN_MINUTES
    gossip_threshold: float = -500.0
    publish_threshold: float = -1000.0
    graylist_threshold: float = -2500.0
    accept_px_threshold: float = 0.0
    opportunistic_threshold: float = 3.5
    decay_interval: float = 1.0
    decay_to_zero: float = 0.01
    retain_seconds: float = 3600.0
    record_seconds: float = 120.0


def check(params: GossipParams, scores: ScoreParams) -> None:
    """Refuse numbers that contradict each other.

    Raises:
        ValueError: if they do.

    """
    if not 0 <= params.d_low <= params.d <= params.d_high:
        raise ValueError(f"d_low <= d <= d_high does not hold for {params}")
    if params.d_out > params.d // 2 or (params.d_out and params.d_out >= params.d_low):
        raise ValueError(f"d_out must be below d_low, and at most half of d: {params}")
    if params.d_score > params.d:
        raise ValueError(f"d_score is above d: {params}")
    if not 0 < params.history_gossip <= params.history:
        raise ValueError(f"history_gossip must be one of the windows: {params}")
    if not (scores.graylist_threshold <= scores.publish_threshold <= scores.gossip_threshold <= 0):
        raise ValueError(f"graylist <= publish <= gossip <= 0 does not hold for {scores}")
    if scores.accept_px_threshold < 0 or scores.opportunistic_threshold < 0:
        raise ValueError(f"the other two thresholds must not be negative: {scores}")
