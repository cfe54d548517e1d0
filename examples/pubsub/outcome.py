"""What a run comes to: samples over time, what became of each message, and totals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Outcome", "Sample", "SlowHandler", "Verdict"]


class Sample(NamedTuple):
    """How things stood at one moment. Counts are totals since the beginning of the run.

    Attributes:
        time: seconds since the run began, by the run's clock (virtual or wall).
        peers: simulated peers that are connected.
        topics: topics that exist.
        active_topics: topics with a message within the last minute.
        subscriptions: how many times a peer is in a topic.
        streams: streams between hosts.
        friends: friendships.
        published: messages that were sent.
        expected: deliveries that were promised so far: one for each message and receiver.
        received: promised deliveries that arrived.
        missed: promised deliveries whose deadline has passed.
        duplicates: copies of messages that were not the first to arrive.
        frames: frames that hosts sent.
        control_bytes: bytes of frames, or parts of them, that carried no message.
        payload_bytes: bytes of messages.
        transitions: transitions of all machines.
        memory: resident memory of all processes, in bytes.
        mesh: for each host and topic that it is in, how many peers its mesh has.

    """

    time: float
    peers: int
    topics: int
    active_topics: int
    subscriptions: int
    streams: int
    friends: int
    published: int
    expected: int
    received: int
    missed: int
    duplicates: int
    frames: int
    control_bytes: int
    payload_bytes: int
    transitions: int
    memory: int
    mesh: tuple[int, ...]


class Verdict(NamedTuple):
    """What became of one message.

    Attributes:
        id: the message.
        topic: its topic.
        author: the peer that sent it.
        sent: seconds since the run began.
        expected: how many had to receive it.
        received: how many of them did in time.
        missed: ids of those that did not.
        slowest: seconds until the last of them had it.
        most_hops: the longest way that it took.

    """

    id: str
    topic: str
    author: str
    sent: float
    expected: int
    received: int
    missed: tuple[str, ...]
    slowest: float
    most_hops: int


class SlowHandler(NamedTuple):
    """A handler that took long.

    Attributes:
        machine: kind of machine, like ``host`` or ``peer``.
        handler: its name.
        calls: how often it was called.
        seconds: how long that took, all in all.
        longest: the longest call, in seconds.

    """

    machine: str
    handler: str
    calls: int
    seconds: float
    longest: float


class Outcome(NamedTuple):
    """All that a report is made of.

    Attributes:
        settings: how the run was asked for: option and value.
        finished: whether it ran its whole time; False after Ctrl-C.
        seconds: how long it took by the run's clock.
        wall_seconds: how long it took really.
        virtual: whether time was virtual.
        deadline: seconds after which a message counts as missed.
        samples: one for about each second, in order.
        verdicts: messages whose fate is certain, in order.
        latencies: seconds from publishing to receiving, of all promised deliveries.
        hops: for each number of hops how many promised deliveries took so many.
        handlers: the slowest first.
        deaths: processes that died: seconds, and what is known of it.

    """

    settings: dict[str, str]
    finished: bool
    seconds: float
    wall_seconds: float
    virtual: bool
    deadline: float
    samples: list[Sample]
    verdicts: list[Verdict]
    latencies: Sequence[float]
    hops: dict[int, int]
    handlers: list[SlowHandler]
    deaths: list[tuple[float, str]]
