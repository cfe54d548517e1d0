"""``am grafana``: dashboards on stdout or in a file, and clear words about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncmachine.tools.cli import main
from examples.fsm import Turnstile


def _written(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["grafana", *arguments]) == 0
    made: dict[str, object] = json.loads(capsys.readouterr().out)
    return made


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["grafana", *arguments]) == 2
    return capsys.readouterr().err


def _rows(made: dict[str, object]) -> list[str]:
    panels: list[dict[str, object]] = made["panels"]  # type: ignore[assignment]
    return [str(panel["title"]) for panel in panels if panel["type"] == "row"]


def _variable(made: dict[str, object], name: str) -> str:
    variables: list[dict[str, object]] = made["templating"]["list"]  # type: ignore[index]
    return next(str(each["definition"]) for each in variables if each["name"] == name)


def test_a_row_for_each_target_and_one_on_networks(capsys: pytest.CaptureFixture[str]) -> None:
    targets = ["examples.fsm:Turnstile", "asyncmachine.states:Connected=client-.*"]
    made = _written(capsys, *targets, "--network")
    assert _rows(made) == ["Turnstile", "Connected", "Network"]
    assert made["title"] == "asyncmachine: Turnstile Connected"
    assert f'state="{Turnstile.names[0]}"' in _variable(made, "machines_turnstile")
    assert 'machine=~"client-.*"' in _variable(made, "machines_connected")


def test_a_machine_is_shown_by_its_id(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "from asyncmachine import Machine, State\nmach = Machine({'Foo': State()}, id='m.1')"
    (tmp_path / "dashboard_program.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    made = _written(capsys, "dashboard_program:mach")
    assert _variable(made, "machines_mach") == (
        r'label_values(asyncmachine_states{machine=~"m\\.1"}, machine)'
    )


def test_the_rows_of_the_simulator(capsys: pytest.CaptureFixture[str]) -> None:
    made = _written(capsys, "--sim", "--title", "Sim")
    assert _rows(made)[:3] == ["The run", "Simulator", "Hosts"]
    assert made["title"] == "Sim"


def test_it_is_written_into_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "board.json"
    assert main(["grafana", "--network", "-o", str(file)]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{file}: 1 rows" in told.err
    assert _rows(json.loads(file.read_text(encoding="utf-8"))) == ["Network"]


def test_a_file_that_can_not_be_written_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = _refused(capsys, "--network", "-o", str(tmp_path / "no" / "board.json"))
    assert "board.json can not be written: No such file or directory" in told


def test_the_nearest_name_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    told = _refused(capsys, "examples.fsm:Turnstyle")
    assert "did you mean 'Turnstile'?" in told


def test_an_expression_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    told = _refused(capsys, "examples.fsm:Turnstile=*")
    assert "'*' is no regular expression" in told


def test_two_rows_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    told = _refused(capsys, "examples.fsm:Turnstile", "examples.fsm:Turnstile=a")
    assert "two rows would be called 'Turnstile'" in told


def test_nothing_to_show_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "name what to show" in _refused(capsys)


def test_its_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["grafana", "--help"])
    told = capsys.readouterr().out
    for word in ("examples:", "--network", "--sim", "Import it in Grafana"):
        assert word in told
