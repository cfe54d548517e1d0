"""Outcomes to make reports of: one that looks like a real run, and one of nothing."""

from __future__ import annotations

from random import Random

from examples.pubsub.outcome import Outcome, Sample, SlowHandler, Verdict

NOTHING = Outcome(
    settings={},
    finished=True,
    seconds=0.0,
    wall_seconds=0.0,
    virtual=True,
    deadline=5.0,
    samples=[],
    verdicts=[],
    latencies=[],
    hops={},
    handlers=[],
    deaths=[],
)

SAMPLE = Sample(
    time=0.0,
    peers=0,
    topics=0,
    active_topics=0,
    subscriptions=0,
    streams=0,
    friends=0,
    published=0,
    expected=0,
    received=0,
    missed=0,
    duplicates=0,
    frames=0,
    control_bytes=0,
    payload_bytes=0,
    transitions=0,
    memory=0,
    mesh=(),
)

HANDLERS = [
    SlowHandler("host", "IncomingRPC_state", 88_412, 21.48, 0.0412),
    SlowHandler("host", "PublishMessage_state", 1_260, 4.071, 0.0187),
    SlowHandler("router", "Heartbeat_state", 18_000, 3.322, 0.0093),
    SlowHandler("peer", "JoiningTopic_state", 214, 0.613, 0.0071),
    SlowHandler("sim", "VerifyMessages_state", 630, 0.204, 0.0013),
    SlowHandler("discovery", "DiscoveringTopic_state", 902, 0.094, 0.0004),
]


def a_run(seconds: int = 300, missing: int = 3) -> Outcome:
    """Make up a run of 30 peers and 20 topics, the same each time.

    Args:
        seconds: how long it is.
        missing: how many messages miss a receiver, at most one in fifty.

    """
    random = Random(7)
    samples: list[Sample] = []
    verdicts: list[Verdict] = []
    latencies: list[float] = []
    hops: dict[int, int] = {}
    now = SAMPLE._replace(memory=58_000_000)
    for second in range(seconds):
        peers, topics = min(30, 2 + second // 2), min(20, 1 + second // 4)
        expected = received = missed = 0
        for number in range(random.randint(0, 2)):
            receivers = random.randint(2, max(2, min(peers, 15)))
            taken = [random.lognormvariate(-3.9, 0.7) for _ in range(receivers)]
            ways = [1 + int(random.triangular(0, 4, 0.6)) for _ in range(receivers)]
            lost = missing > 0 and len(verdicts) % 50 == 49
            missing -= lost
            arrived = receivers - lost
            verdicts.append(
                Verdict(
                    id=f"p{second % peers}-{len(verdicts)}",
                    topic=f"Silent Harbour {random.randint(1, topics)}",
                    author=f"p{second % peers}",
                    sent=second + number / 2,
                    expected=receivers,
                    received=arrived,
                    missed=("p3",) if lost else (),
                    slowest=max(taken[:arrived]),
                    most_hops=max(ways[:arrived]),
                )
            )
            latencies += taken[:arrived]
            for way in ways[:arrived]:
                hops[way] = hops.get(way, 0) + 1
            expected, received, missed = (
                expected + receivers,
                received + arrived,
                missed + lost,
            )
        now = now._replace(
            time=float(second + 1),
            peers=peers,
            topics=topics,
            active_topics=int(topics * random.uniform(0.5, 0.9)),
            subscriptions=topics * 8,
            streams=peers * (peers - 1),
            friends=min(140, second // 2),
            published=len(verdicts),
            expected=now.expected + expected,
            received=now.received + received,
            missed=now.missed + missed,
            duplicates=now.duplicates + int(received * random.uniform(0.4, 1.4)),
            frames=now.frames + received * 3 + peers * 2,
            control_bytes=now.control_bytes + peers * random.randint(180, 260),
            payload_bytes=now.payload_bytes + received * 512,
            transitions=now.transitions + 40 + received * 9 + int(peers * random.uniform(15, 25)),
            memory=58_000_000 + 1_300_000 * peers + random.randint(0, 2_000_000) + second * 6_000,
            mesh=tuple(
                min(12, max(1, min(peers - 1, round(random.gauss(6.2, 1.6)))))
                for _ in range(topics * 4)
            ),
        )
        samples.append(now)
    return Outcome(
        settings={"peers": "30", "topics": "20", "router": "gossip", "seed": "7"},
        finished=True,
        seconds=float(seconds),
        wall_seconds=seconds / 11.5,
        virtual=True,
        deadline=5.0,
        samples=samples,
        verdicts=verdicts,
        latencies=latencies,
        hops=hops,
        handlers=HANDLERS,
        deaths=[],
    )
