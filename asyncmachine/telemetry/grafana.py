"""Dashboards for Grafana, of rows and panels; what stands in them is in rows.py.

A dashboard is plain JSON-able data, of schema version 39 (Grafana 10 and later), and is
imported as it stands: the data source and the machines are variables, chosen in Grafana.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Data: TypeAlias = dict[str, object]

__all__ = ["SOURCE", "Panel", "Query", "Row", "dashboard", "queries_of"]

SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24  # of a dashboard, in Grafana's own units
_ROW_HEIGHT: Final = 1
_SCHEMA_VERSION: Final = 39


class Query(NamedTuple):
    """What a panel asks Prometheus.

    Attributes:
        expr: the expression, in PromQL.
        legend: how each series is called, with ``{{label}}`` for labels.

    """

    expr: str
    legend: str = "__auto"


class Panel(NamedTuple):
    """One picture.

    Attributes:
        title: what stands above it.
        about: what it shows, in a sentence.
        queries: what it asks.
        kind: ``"timeseries"``, ``"state-timeline"``, ``"heatmap"`` or ``"stat"``.
        unit: of the values, as Grafana calls it: ``"ops"``, ``"s"``, ``"short"``, ``"bytes"``.
        width: of 24.
        height: in Grafana's units.
        stacked: whether series stand on top of each other.

    """

    title: str
    about: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False


class Row(NamedTuple):
    """Panels under one heading.

    Attributes:
        title: the heading.
        panels: from left to right, then down.
        variables: variables that they need, as Grafana has them.
        collapsed: whether it is closed at first.

    """

    title: str
    panels: tuple[Panel, ...]
    variables: tuple[Mapping[str, object], ...] = ()
    collapsed: bool = False


def dashboard(rows: Iterable[Row], *, title: str = "asyncmachine") -> Data:
    """Give a dashboard as JSON-able data.

    Args:
        rows: its rows, from top to bottom.
        title: its name.

    Returns:
        What Grafana imports: the same for the same rows and title.

    Example:
        >>> from asyncmachine.telemetry.rows import Kind, kind_row
        >>> made = dashboard([kind_row(Kind("Doors", ("Open", "Locked")))], title="Doors")
        >>> [panel["title"] for panel in made["panels"]][:3]
        ['Doors', 'Transitions', 'States over time']

    """
    rows = list(rows)
    panels: list[Data] = []
    top = 0
    for row in rows:
        heading = _heading(row, len(panels) + 1, top)
        panels.append(heading)
        top += _ROW_HEIGHT
        placed, top = _placed(row.panels, len(panels) + 1, top)
        if row.collapsed:
            heading["panels"] = placed
        else:
            panels += placed
    for number, panel in enumerate(_all(panels), 1):
        panel["id"] = number
    variables: list[Mapping[str, object]] = [_source_variable()]
    for row in rows:
        variables += [each for each in row.variables if each not in variables]
    return {
        "uid": hashlib.sha256(title.encode()).hexdigest()[:16],
        "title": title,
        "tags": ["asyncmachine"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # one cross-hair in all panels
        "refresh": "5s",
        "schemaVersion": _SCHEMA_VERSION,
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": variables},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


def queries_of(made: Data) -> Iterator[tuple[str, str]]:
    """Give the title of a panel, and each expression that it asks, of a whole dashboard."""
    for panel in _all(made["panels"]):  # type: ignore[arg-type]  # made above
        for target in panel.get("targets", ()):  # type: ignore[attr-defined]
            yield str(panel["title"]), str(target["expr"])


def _all(panels: Sequence[Data]) -> Iterator[Data]:
    """Panels, and those inside of closed rows."""
    for panel in panels:
        yield panel
        yield from _all(panel.get("panels", ()))  # type: ignore[arg-type]


# Grafana's JSON -------------------------------------------------------------------------


def _source_variable() -> Data:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _heading(row: Row, number: int, top: int) -> Data:
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": row.collapsed,
        "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": _ROW_HEIGHT},
        "panels": [],
    }


def _placed(panels: Iterable[Panel], number: int, top: int) -> tuple[list[Data], int]:
    """Lay panels out from left to right; give them, and where the next row begins."""
    placed: list[Data] = []
    left, bottom = 0, top
    for panel in panels:
        if left + panel.width > _WIDTH:
            left, top = 0, bottom
        placed.append(_panel(panel, number + len(placed), left, top))
        left += panel.width
        bottom = max(bottom, top + panel.height)
    return placed, bottom


def _panel(panel: Panel, number: int, left: int, top: int) -> Data:
    heat = panel.kind == "heatmap"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "format": "heatmap" if heat else "time_series",
                "range": True,
                "instant": False,
                "editorMode": "code",
            }
            for at, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS.get(panel.kind, _GRAPH),
    }


_LEGEND: Final = {"displayMode": "list", "placement": "bottom", "showLegend": True}
_GRAPH: Final = {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}
_OPTIONS: Final[Mapping[str, object]] = {
    "state-timeline": {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.8,
        "legend": {**_LEGEND, "showLegend": False},
        "tooltip": {"mode": "single", "sort": "none"},
    },
    "heatmap": {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
        "cellGap": 1,
        "yAxis": {"axisPlacement": "left", "unit": "s"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "legend": {"show": True},
        "filterValues": {"le": 1e-9},
        "rowsFrame": {"layout": "auto"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "auto",
    },
}
_INACTIVE, _ACTIVE = "#e8e8ea", "#3b7d5e"


def _defaults(panel: Panel) -> Data:
    if panel.kind == "state-timeline":
        return {
            "color": {"mode": "thresholds"},
            "custom": {"fillOpacity": 85, "lineWidth": 0},
            "mappings": [
                {
                    "type": "value",
                    "options": {
                        "0": {"text": "inactive", "color": _INACTIVE, "index": 0},
                        "1": {"text": "active", "color": _ACTIVE, "index": 1},
                    },
                }
            ],
            "thresholds": {
                "mode": "absolute",
                "steps": [{"color": _INACTIVE, "value": None}, {"color": _ACTIVE, "value": 1}],
            },
        }
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    return {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "palette-classic"},
        "custom": {"fillOpacity": 25 if panel.stacked else 8, "stacking": stacking, "lineWidth": 1},
        "mappings": [],
        "thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": None}]},
    }
