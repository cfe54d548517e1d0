"""The commands, run for real with next to no repetitions. No test asserts a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import bench.rounds
from asyncmachine import Machine
from bench import amdbg
from bench.__main__ import main
from bench.core import CASES
from bench.measure import BenchError, Ruler, Sample, Subject
from bench.peers import PEERS
from tests.bench.running import python_m_bench

AT_ONCE = ("--rounds", "1", "--part", "0", "--quiet")
NO_SOAK = ("--soak", "0")


class Promise(NamedTuple):
    """A row of the table that the core was built to meet."""

    limit: float
    go_v0_5_0: float | None = None
    go_v0_19: float | None = None


PROMISED = {
    "toggle": Promise(20, 157, 115),
    "toggle-state": Promise(28, 405, 258),
    "toggle-all": Promise(45, 606, 448),
    "multi": Promise(20, 112, 91),
    "am-dbg": Promise(150, 4570, 2656),
    "waiter": Promise(70, 197, 146),
    "waiters-on-others": Promise(24, 503, 251),
    "waiters-on-toggled": Promise(150, 1121, 1206),
    "build": Promise(60, 84, 134),
    "memory": Promise(1.0, 3.1, 4.7),
    "threads-4": Promise(45, 187, 158),
    "threads-16": Promise(80, 431, 359),
    "is-active": Promise(6),
    "resolution": Promise(400),
    "import": Promise(25),
}


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def test_without_arguments_it_teaches() -> None:
    done = python_m_bench()

    assert done.returncode == 0
    for word in ("core", "peers", "examples:", "--quick", "--soak", "empty Python function calls"):
        assert word in done.stdout


def test_core_measures_every_case_and_writes_all_of_it_down(tmp_path: Path) -> None:
    file = tmp_path / "core.json"
    done = python_m_bench("core", *AT_ONCE, "--soak", "6000", "--json", str(file))
    data = _read(file)
    cases = {case["key"]: case for case in data["cases"]}

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(cases) == list(PROMISED)
    for key, promise in PROMISED.items():
        case = cases[key]
        assert (case["limit"], case["go_v0_5_0"], case["go_v0_19"]) == promise, key
        assert case["value"] > 0, key
        assert case["verdict"] in {"ok", "OVER"}, key
        assert case["title"] in done.stdout
    assert [family["family"] for family in data["growth"]] == ["states", "waiters", "mutations"]
    assert all(len(family["cases"]) == 3 for family in data["growth"])
    assert data["soak"]["mutations"] >= 6000
    assert data["empty_call_ns"] > 0
    assert data["rounds"] == 1
    assert "at most" in done.stdout
    assert "Go v0.5.0" in done.stdout


def test_both_ways_to_involve_the_toggled_states_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "core.json"
    main(["core", *AT_ONCE, *NO_SOAK, "--only", "waiters-on-toggled", "--json", str(file)])
    (case,) = _read(file)["cases"]
    ratios = {name: variant["E"] for name, variant in case["variants"].items()}

    assert len(ratios) == 2
    assert case["value"] == max(ratios.values()) == ratios[case["counts"]]


def test_peers_measures_what_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("transitions")
    file = tmp_path / "peers.json"
    done = python_m_bench("peers", *AT_ONCE, "--json", str(file))
    data = _read(file)
    labels = [case["key"] for case in data["cases"]]

    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(labels + data["missing"]) == sorted(peer.label for peer in PEERS)
    assert labels[0] == "asyncmachine"
    assert all(case["value"] > 0 for case in data["cases"])
    assert data["versions"]["transitions Machine"] in done.stdout


def test_a_missing_peer_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "automat", None)

    assert main(["peers", *AT_ONCE, "--only", "asyncmachine"]) == 0
    assert "automat is not installed: python -m pip install" in capsys.readouterr().out


def test_ours_is_measured_beside_whichever_peer_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("automaton")

    assert main(["peers", *AT_ONCE, "--only", "automaton"]) == 0
    out = capsys.readouterr().out
    assert "\nasyncmachine" in out
    assert "\nautomaton" in out


@pytest.mark.parametrize("command", ["core", "peers"])
def test_list_names_the_cases(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--list"]) == 0
    assert ("toggle-all" if command == "core" else "asyncmachine") in capsys.readouterr().out


def test_a_pattern_that_fits_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["core", "--only", "tickle"]) == 2
    assert "'tickle'" in capsys.readouterr().err


@pytest.mark.parametrize("rounds", ["0", "-1", "some"])
def test_a_senseless_number_of_rounds_is_refused(
    rounds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["core", "--rounds", rounds])
    assert "--rounds" in capsys.readouterr().err


def test_markdown_names_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["core", *AT_ONCE, *NO_SOAK, "--only", "toggle", "--markdown"]
    assert main(words) == 0
    out = capsys.readouterr().out

    assert out.startswith(f"`python -m bench {' '.join(words)}` on ")
    assert "| toggle two mutually exclusive states, no handlers | " in out
    assert f"CPython {sys.version.split()[0]}" in out or sys.implementation.name != "cpython"


def test_progress_is_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    main(["core", *AT_ONCE[:-1], *NO_SOAK, "--only", "toggle"])

    assert "preparing toggle" in capsys.readouterr().err


def test_a_picture_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    file = tmp_path / "core.png"

    assert main(["core", *AT_ONCE, *NO_SOAK, "--only", "toggle*", "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.plot.find_spec", lambda name: None)

    assert main(["core", *AT_ONCE, "--plot", str(tmp_path / "core.png")]) == 2
    assert ".[bench]" in capsys.readouterr().err


class _RulerThatIsInterrupted(Ruler):
    """Its owner loses patience in the second round."""

    _calls = 0

    def sample(self, subject: Subject, times: int, *, parts: int = 1, part_ns: float = 0) -> Sample:
        self._calls += 1
        if self._calls > 4:
            raise KeyboardInterrupt
        return super().sample(subject, times, parts=parts, part_ns=part_ns)


def test_ctrl_c_prints_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.__main__.Ruler", _RulerThatIsInterrupted)

    code = main(["core", "--part", "0", "--quiet", "--rounds", "5", "--only", "toggle*"])

    out = capsys.readouterr().out
    assert code == 130
    assert "stopped early" in out
    assert "toggle two mutually exclusive states" in out


def test_ctrl_c_before_the_first_figure_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.rounds, "iterations_for", interrupted)

    assert main(["core", *AT_ONCE, "--only", "toggle"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_a_case_that_fails_is_told_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def machine() -> Machine:
        msg = "am-dbg: active after setup are []"
        raise BenchError(msg)

    monkeypatch.setattr(amdbg, "machine", machine)

    assert main(["core", *AT_ONCE, *NO_SOAK, "--only", "am-dbg"]) == 1
    assert "FAILED am-dbg: BenchError: am-dbg: active after setup" in capsys.readouterr().out


def test_am_dbg_does_what_its_file_says() -> None:
    mach = amdbg.machine()

    assert set(mach.active_states()) == amdbg.load().after_setup


@pytest.mark.parametrize("field", ["after_setup", "after_three_cycles"])
def test_an_am_dbg_that_does_something_else_is_not_measured(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = amdbg.load()._replace(**{field: type(getattr(amdbg.load(), field))()})
    monkeypatch.setattr(amdbg, "load", lambda: wrong)

    with pytest.raises(BenchError, match="am-dbg"):
        amdbg.machine()


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.key for case in CASES}) == len(CASES)
