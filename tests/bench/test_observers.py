"""``python -m bench observers``, for real but short. No test asserts a time."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.bench.running import python_m_bench

ROOT = Path(__file__).parents[2]


_python_m_bench_observers = partial(python_m_bench, "observers")


def test_its_help_teaches() -> None:
    done = _python_m_bench_observers("--help")
    assert done.returncode == 0
    for word in ("Prometheus", "OpenTelemetry", "examples:", "--only", "--markdown"):
        assert word in done.stdout


def test_it_names_its_cases() -> None:
    done = _python_m_bench_observers("--list")
    assert done.returncode == 0
    keys = [line.split()[0] for line in done.stdout.splitlines()]
    assert keys == [
        *("tracer", "prometheus", "prometheus-gauges", "feed", "feed-stopped", "otel"),
        *("otel-alone", "history-memory", "history-sqlite", "restore", "scrape"),
    ]


@pytest.mark.parametrize("case", ["tracer", "prometheus*", "feed*", "otel*", "history-*", "scrape"])
def test_a_case_does_its_work_and_is_written_down(case: str, tmp_path: Path) -> None:
    file = tmp_path / "observers.json"
    short = ("--quick", "--rounds", "1", "--part", "1", "--quiet")
    done = _python_m_bench_observers("--only", case, *short, "--json", str(file))
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text(encoding="utf-8"))
    for each in told["cases"]:
        assert each["fault"] == each["missing"] == ""
        assert each["verdict"] in {"ok", "OVER"}
        assert each["ours"] > 0


def test_it_is_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "observers.png"
    short = ("--quick", "--rounds", "1", "--part", "1", "--quiet")
    done = _python_m_bench_observers("--only", "tracer", *short, "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_case_is_refused() -> None:
    done = _python_m_bench_observers("--only", "nowhere")
    assert (done.returncode, "no case is called 'nowhere'" in done.stderr) == (2, True)
