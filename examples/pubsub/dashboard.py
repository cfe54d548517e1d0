"""The rows of a Grafana dashboard for ``am sim --metrics``: the run, then each kind of machine."""

from __future__ import annotations

from asyncmachine import Schema, States
from asyncmachine.telemetry.grafana import Panel, Query, Row
from asyncmachine.telemetry.rows import Kind, kind_row
from examples.pubsub.discovery import DiscoveryStates
from examples.pubsub.host import HostStates
from examples.pubsub.peer import PeerStates
from examples.pubsub.sim import SimStates
from examples.pubsub.topics import TopicStates

__all__ = ["KINDS", "rows"]


def _kind(name: str, states: type[States], ids: str) -> Kind:
    return Kind(name, Schema(states).names, ids)


# Which machines of a run there are, by what their ids look like.
KINDS = (
    _kind("Simulator", SimStates, "sim"),
    _kind("Hosts", HostStates, "p[0-9]+"),
    _kind("Simulated peers", PeerStates, "sim-p[0-9]+"),
    _kind("Topics", TopicStates, "sim-t-.+"),
    _kind("Discovery", DiscoveryStates, "p[0-9]+-disc"),
)


def rows() -> list[Row]:
    """Give all rows."""
    return [_run_row(), *(kind_row(kind) for kind in KINDS)]


def _run_row() -> Row:
    """What the simulator counts: who is there, what was sent, and what has arrived."""

    def rate(name: str, legend: str) -> Query:
        return Query(f"sum(rate(pubsub_{name}_total[$__rate_interval]))", legend)

    return Row(
        "The run",
        (
            Panel(
                "Peers, topics and streams",
                "Who is there, and how they are connected.",
                (
                    Query("pubsub_peers", "peers"),
                    Query("pubsub_topics", "topics"),
                    Query("pubsub_streams", "streams"),
                ),
            ),
            Panel(
                "Deliveries",
                "Messages that reached a subscriber, a second, and those that came twice.",
                (rate("deliveries", "delivered"), rate("duplicates", "duplicates")),
                unit="ops",
            ),
            Panel(
                "Missed",
                "Deliveries that did not come within the deadline; there should be none.",
                (Query("pubsub_missed_total", "missed"),),
                kind="stat",
            ),
            Panel(
                "Traffic between hosts",
                "Bytes a second: what routers say to each other, and messages.",
                (rate("control_bytes", "control"), rate("payload_bytes", "payload")),
                unit="Bps",
                stacked=True,
            ),
            Panel(
                "Messages",
                "Messages sent, a second.",
                (rate("messages", "messages"),),
                unit="ops",
            ),
            Panel(
                "Memory",
                "Of all processes of the run.",
                (Query("pubsub_memory_bytes", "memory"),),
                unit="bytes",
            ),
        ),
    )
