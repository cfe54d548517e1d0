"""The rows of dashboards: one for each kind of machines, one for networks.

What they ask for are the metrics of ``asyncmachine.telemetry.prometheus``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from asyncmachine.telemetry.grafana import SOURCE, Panel, Query, Row

if TYPE_CHECKING:
    Data: TypeAlias = dict[str, object]

__all__ = ["Kind", "kind_row", "network_row"]

_P: Final = "asyncmachine_"


class Kind(NamedTuple):
    """Machines that have a row together.

    Attributes:
        name: what the row is called.
        states: names of their states, in order.
        ids: a regular expression for their ids; empty for all that have the first state.

    """

    name: str
    states: tuple[str, ...]
    ids: str = ""

    @property
    def variable(self) -> str:
        """The variable of the dashboard that says which of them are shown.

        Example:
            >>> Kind("My hosts!", ("Start",)).variable
            'machines_my_hosts_'

        """
        return "machines_" + re.sub(r"\W", "_", self.name.lower(), flags=re.ASCII)


def kind_row(kind: Kind) -> Row:
    """Give the row of a kind of machines: transitions, states, errors, times, queue."""
    at = f'machine=~"${kind.variable}"'
    return Row(
        kind.name,
        (
            Panel(
                "Transitions",
                "Transitions a second, by the kind of mutation and what became of it.",
                (
                    Query(
                        f"sum by (kind, outcome) (rate({_P}transitions_total{{{at}}}"
                        "[$__rate_interval]))",
                        "{{kind}} {{outcome}}",
                    ),
                ),
                unit="ops",
                stacked=True,
            ),
            Panel(
                "States over time",
                "Whether a state is active in any of the chosen machines.",
                (Query(f"max by (state) ({_P}state_active{{{at}}})", "{{state}}"),),
                kind="state-timeline",
                width=16,
                height=max(8, min(24, 2 + len(kind.states) // 2)),
            ),
            Panel(
                "Busiest states",
                "Ticks a second: each activation and each deactivation is one.",
                (
                    Query(
                        f"topk(10, sum by (state) (rate({_P}state_ticks_total{{{at}}}"
                        "[$__rate_interval])))",
                        "{{state}}",
                    ),
                ),
                unit="ops",
            ),
            Panel(
                "Errors and refusals",
                "Errors in handlers, transitions that did not come off, and mutations that found "
                "the queue full, in a second.",
                (
                    Query(f"sum(rate({_P}errors_total{{{at}}}[$__rate_interval]))", "errors"),
                    Query(
                        f'sum by (outcome) (rate({_P}transitions_total{{{at},outcome!="executed"}}'
                        "[$__rate_interval])) or vector(0)",
                        "{{outcome}}",
                    ),
                    Query(
                        f"sum(rate({_P}queue_refused_total{{{at}}}[$__rate_interval]))",
                        "queue full",
                    ),
                ),
                unit="ops",
            ),
            Panel(
                "Time in handlers",
                "How many handler calls took how long.",
                (
                    Query(
                        f"sum by (le) (increase({_P}handler_seconds_bucket{{{at}}}"
                        "[$__rate_interval]))",
                        "{{le}}",
                    ),
                ),
                kind="heatmap",
                unit="s",
            ),
            Panel(
                "Time of a transition",
                "From start to end, handlers included.",
                tuple(
                    Query(
                        f"histogram_quantile({q}, sum by (le) (rate("
                        f"{_P}transition_seconds_bucket{{{at}}}[$__rate_interval])))",
                        name,
                    )
                    for q, name in ((0.5, "half"), (0.9, "9 in 10"), (0.99, "99 in 100"))
                ),
                unit="s",
            ),
            Panel(
                "Queue",
                "How many mutations wait, and how long 99 in 100 of those that had to wait did.",
                (
                    Query(f"sum({_P}queue_length{{{at}}})", "waiting"),
                    Query(
                        "histogram_quantile(0.99, sum by (le) (rate("
                        f"{_P}queue_wait_seconds_bucket{{{at}}}[$__rate_interval])))",
                        "99 in 100, seconds",
                    ),
                ),
            ),
            Panel(
                "Waiters, forks and machines",
                "What is pending, what runs in the background, and how many machines there are.",
                (
                    Query(f"sum({_P}waiters_pending{{{at}}})", "waiters"),
                    Query(f"sum({_P}forks_running{{{at}}})", "forks"),
                    Query(f"count({_P}states{{{at}}})", "machines"),
                ),
            ),
        ),
        (_machines_variable(kind),),
    )


def network_row() -> Row:
    """Give the row of networks: processes, links, traffic, reconnects, lag."""
    return Row(
        "Network",
        (
            Panel(
                "Processes, machines and links",
                "What each network consists of.",
                (
                    Query(f"{_P}network_processes", "{{network}} processes"),
                    Query(f"{_P}network_machines", "{{network}} machines"),
                    Query(f"{_P}network_links", "{{network}} links"),
                ),
                width=6,
            ),
            Panel(
                "Traffic",
                "Bytes a second.",
                (
                    Query(
                        f"sum by (network, direction) (rate({_P}link_bytes_total"
                        "[$__rate_interval]))",
                        "{{network}} {{direction}}",
                    ),
                ),
                unit="Bps",
                width=6,
            ),
            Panel(
                "Messages",
                "Messages a second.",
                (
                    Query(
                        f"sum by (network, direction) (rate({_P}link_messages_total"
                        "[$__rate_interval]))",
                        "{{network}} {{direction}}",
                    ),
                ),
                unit="ops",
                width=6,
            ),
            Panel(
                "Reconnects and lag",
                "How often links were made anew, and by how many seconds mirrors are behind.",
                (
                    Query(
                        f"sum by (network) ({_P}link_reconnects_total)", "{{network}} reconnects"
                    ),
                    Query(f"max({_P}mirror_lag_seconds)", "largest lag, seconds"),
                ),
                width=6,
            ),
        ),
    )


def _machines_variable(kind: Kind) -> Data:
    """Which machines of a kind are shown: all of them, unless somebody chooses."""
    if kind.ids:
        which = f'{_P}states{{machine=~"{_quoted(kind.ids)}"}}'
        every = _quoted(kind.ids)  # Grafana puts it between the quotes as it is
    else:
        first = kind.states[0] if kind.states else ""
        which = f'{_P}state_active{{state="{_quoted(first)}"}}'
        every = None
    query = f"label_values({which}, machine)"
    return {
        "name": kind.variable,
        "label": kind.name,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": kind.variable},
        "allValue": every,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "includeAll": True,
        "multi": True,
        "options": [],
        "refresh": 2,  # whenever the time range changes, for machines come and go
        "regex": "",
        "skipUrlSync": False,
        "sort": 3,
    }


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
