"""Dashboards: what Grafana needs of them, and that every one is whole."""

from __future__ import annotations

import json
import re

import pytest

from asyncmachine.telemetry.grafana import Panel, Query, Row, dashboard, queries_of
from asyncmachine.telemetry.rows import Kind, kind_row, network_row
from examples.pubsub.dashboard import rows

DOORS = Kind("Doors", ("Open", "Locked"))
WORKERS = Kind("Workers", ("Idle", "Working"), r"worker-\d+")


def _panels(made: dict[str, object]) -> list[dict[str, object]]:
    panels: list[dict[str, object]] = made["panels"]  # type: ignore[assignment]
    return [each for panel in panels for each in (panel, *panel.get("panels", ()))]  # type: ignore[misc]


@pytest.fixture
def made() -> dict[str, object]:
    return dashboard([kind_row(DOORS), kind_row(WORKERS), network_row(), *rows()], title="All")


def test_it_is_json_and_the_same_for_the_same(made: dict[str, object]) -> None:
    again = dashboard([kind_row(DOORS), kind_row(WORKERS), network_row(), *rows()], title="All")
    assert json.loads(json.dumps(made)) == made == again
    assert made["uid"] != dashboard([kind_row(DOORS)], title="Other")["uid"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap(made: dict[str, object]) -> None:
    panels = _panels(made)
    assert len({panel["id"] for panel in panels}) == len(panels) > 40
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at: dict[str, int] = panel["gridPos"]  # type: ignore[assignment]
        assert at["x"] >= 0
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells


def test_every_variable_that_an_expression_uses_is_there(made: dict[str, object]) -> None:
    variables: list[dict[str, object]] = made["templating"]["list"]  # type: ignore[index]
    names = {str(each["name"]) for each in variables}
    assert len(names) == len(variables)
    used = {
        name
        for _, expr in queries_of(made)
        for name in re.findall(r"\$\{?(\w+)", expr)
        if not name.startswith("__")
    }
    assert used | {"datasource"} == names


def test_every_panel_asks_the_source_that_is_chosen(made: dict[str, object]) -> None:
    for panel in _panels(made):
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            targets: list[dict[str, object]] = panel["targets"]  # type: ignore[assignment]
            assert [target["refId"] for target in targets] == ["A", "B", "C", "D"][: len(targets)]
            assert panel["description"]


def test_a_kind_shows_its_machines() -> None:
    variables = {
        name: next(v for v in kind_row(kind).variables if v["name"] == name)
        for kind in (DOORS, WORKERS)
        for name in [kind.variable]
    }
    doors, workers = variables["machines_doors"], variables["machines_workers"]
    assert doors["definition"] == ('label_values(asyncmachine_state_active{state="Open"}, machine)')
    assert workers["definition"] == (
        r'label_values(asyncmachine_states{machine=~"worker-\\d+"}, machine)'
    )
    # Grafana puts it into a string of PromQL as it is, so it is written as in one.
    assert (doors["allValue"], workers["allValue"]) == (None, r"worker-\\d+")


def test_ids_of_any_characters_are_asked_for() -> None:
    (variable,) = kind_row(Kind("Odd", ("Foo",), re.escape('a "b"\n'))).variables
    assert "\n" not in f"{variable['definition']}{variable['allValue']}"
    assert variable["allValue"] == r"a\\ \"b\"\\\n"


def test_a_row_has_a_state_timeline_and_a_heat_map() -> None:
    kinds = {panel.title: panel.kind for panel in kind_row(DOORS).panels}
    assert kinds["States over time"] == "state-timeline"
    assert kinds["Time in handlers"] == "heatmap"


def test_a_closed_row_keeps_its_panels_inside() -> None:
    row = Row("Closed", (Panel("A", "About a.", (Query("up"),)),), collapsed=True)
    made = dashboard([row, row._replace(title="Open", collapsed=False)])
    top: list[dict[str, object]] = made["panels"]  # type: ignore[assignment]
    assert [panel["title"] for panel in top] == ["Closed", "Open", "A"]
    assert [title for title, _ in queries_of(made)] == ["A", "A"]
    assert len({panel["id"] for panel in _panels(made)}) == 4
