"""``python -m bench net``, for real with next to no repetitions. No test asserts a time."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from bench import net_raw
from bench.contest import (
    OURS,
    AtLeastRate,
    AtLeastTimes,
    AtMost,
    AtMostTimes,
    Contest,
    Contested,
    Goal,
    MissingError,
    hold,
)
from bench.contest_report import contest_table, contested_data
from bench.measure import BenchError, Loop, Ruler, Subject
from bench.net import CONTESTS
from bench.net_machines import toggler
from bench.net_relay import Relay
from bench.processes import process, until_the_end
from bench.rounds import Progress
from tests.bench.interrupting import interrupted
from tests.bench.running import python_m_bench

ROOT = Path(__file__).parents[2]
QUIET = Progress(quiet=True)


_python_m_bench_net = partial(python_m_bench, "net")


def test_its_help_teaches() -> None:
    done = _python_m_bench_net("--help")

    assert done.returncode == 0
    for word in ("raw carrier", "examples:", "--quick", "--only", "Ctrl-C"):
        assert word in done.stdout


def test_it_names_its_cases() -> None:
    done = _python_m_bench_net("--list")

    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [c.key for c in CONTESTS]
    assert len({contest.key for contest in CONTESTS}) == len(CONTESTS)


def test_a_case_that_nobody_knows_is_refused() -> None:
    done = _python_m_bench_net("--only", "nonsense")

    assert done.returncode == 2
    assert "--list" in done.stderr


@pytest.mark.parametrize("key", ["call-unix", "wire-back"])
def test_a_row_is_measured_and_written_down(key: str, tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    done = _python_m_bench_net("--quick", "--markdown", "--only", key, "--json", str(file))
    (case,) = json.loads(file.read_text(encoding="utf-8"))["cases"]

    assert done.returncode == 0, done.stderr
    assert (case["key"], case["fault"]) == (key, "")
    assert case["title"] in done.stdout
    assert all(figure > 0 for side in case["sides"].values() for figure in side["rounds"])


def test_ctrl_c_ends_it_and_every_process_that_it_started() -> None:
    returncode, out = interrupted("net", "--only", "call*", "--rounds", "100000", heard=b"round 3 ")

    assert returncode == 130
    assert "stopped early with Ctrl-C" in out


# Contests


def _sides(**figures: int) -> Mapping[str, Subject]:
    return {name: _Fixed(figure) for name, figure in figures.items()}


class _Fixed:
    steps = 1
    loops = 1

    def __init__(self, figure: int) -> None:
        self._figure = figure

    def run(self, times: int) -> int:
        return self._figure * times

    def close(self) -> None: ...


def _held(goal: Goal, **figures: int) -> Contested:
    contest = Contest("key", "title", lambda _: _sides(**figures), goal, times=1)
    (contested,), interrupted = hold([contest], Ruler(), 3, 0, QUIET)
    assert not interrupted
    return contested


@pytest.mark.parametrize(
    ("goal", "ours", "other", "ratio", "verdict"),
    [
        (AtMostTimes(4), 40, 10, 4, "ok"),
        (AtMostTimes(4), 50, 10, 5, "OVER"),
        (AtLeastTimes(5), 10, 50, 5, "ok"),
        (AtLeastTimes(5), 10, 40, 4, "OVER"),
        (AtLeastRate(1e6, 0.5), 1_000, 100, 0.1, "ok"),
        (AtLeastRate(1e6, 0.5), 2_000, 1_000, 0.5, "ok"),
        (AtLeastRate(1e6, 0.5), 2_000, 500, 0.25, "OVER"),
        (AtLeastRate(1e6), 2_000, 1_000, 0.5, "OVER"),
        (AtMost(30, "30 B"), 30, 15, 0.5, "ok"),
        (AtMost(30, "30 B"), 31, 31, 1, "OVER"),
    ],
)
def test_a_goal_judges(goal: Goal, ours: int, other: int, ratio: float, verdict: str) -> None:
    contested = _held(goal, ours=ours, raw=other)

    assert (contested.ratio, contested.verdict) == (ratio, verdict)
    assert goal.text in contest_table([contested], "title", 10).rows[0]
    assert contested_data(contested)["verdict"] == verdict


def test_the_first_of_the_others_counts_and_the_rest_is_told() -> None:
    contested = _held(AtMostTimes(4), ours=30, raw=10, tuned=5)

    assert (contested.judge, contested.ratio, contested.ratio_to("tuned")) == ("raw", 3, 6)
    assert "tuned" in contest_table([contested], "title", 10).notes[0]


def test_what_is_not_installed_costs_only_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "distributed", None)
    peers = [contest for contest in CONTESTS if contest.key in {"grpc", "dask"}]
    held, _ = hold(peers, Ruler(), 1, 0, QUIET)

    assert [each.verdict for each in held] == ["missing", "missing"]
    assert all("'.[bench]'" in note for note in contest_table(held, "title", 10).notes)


def _broken(_: ExitStack) -> Mapping[str, Subject]:
    msg = "nothing to measure"
    raise BenchError(msg)


def test_a_fault_in_one_contest_costs_no_other_its_figures() -> None:
    goal = AtMostTimes(1)
    bad = Contest("bad", "bad", _broken, goal)
    good = Contest("good", "good", lambda _: {OURS: Loop("pass")}, goal)
    held, _ = hold([bad, good], Ruler(), 1, 0, QUIET)

    assert [each.verdict for each in held] == ["FAILED", "OVER"]
    assert "nothing to measure" in contest_table(held, "title", 10).notes[0]
    assert held[1].ours is not None


def test_after_ctrl_c_what_is_known_counts() -> None:
    ended: list[bool] = []

    def interrupted(stack: ExitStack) -> Mapping[str, Subject]:
        stack.callback(ended.append, True)
        raise KeyboardInterrupt

    goal = AtMostTimes(1)
    first = Contest("first", "first", lambda _: _sides(ours=1, raw=1), goal, times=1)
    held, stopped = hold([first, Contest("2", "2", interrupted, goal)], Ruler(), 1, 0, QUIET)

    assert stopped
    assert ended == [True]
    assert [each.verdict for each in held] == ["ok"]


def test_ctrl_c_before_the_first_figure_is_handed_on() -> None:
    def interrupted(_: ExitStack) -> Mapping[str, Subject]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hold([Contest("1", "1", interrupted, AtMostTimes(1))], Ruler(), 1, 0, QUIET)


def test_a_missing_library_is_no_fault() -> None:
    contested = Contested(CONTESTS[0], missing=str(MissingError("not installed")))

    assert (contested.verdict, contested.fault) == ("missing", "")


# What it is made of


def _tell_pid(line: Connection[object, object]) -> None:
    line.send(os.getpid())
    until_the_end(line)


def test_a_process_ends_with_its_block() -> None:
    with process(_tell_pid) as line:
        pid = line.recv()
        assert isinstance(pid, int)
        os.kill(pid, 0)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_raw_carriers_answer(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for subject in (
            net_raw.socket_round_trip(stack, tmp_path, 20, 30),
            net_raw.socket_round_trip(stack, tmp_path, 20, 30, buffered=True),
            net_raw.pipe_round_trip(stack, 20, 30),
            net_raw.socket_stream(stack, tmp_path, 12),
        ):
            assert subject.run(20_000 if subject.steps == 2 else 10) > 0


def test_a_relay_counts_what_passes_each_way(tmp_path: Path) -> None:
    path = str(tmp_path / "target")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen(1)
        with Relay(f"{path}-relay", path) as relay:
            client.connect(f"{path}-relay")
            server, _ = listener.accept()
            with server:
                client.sendall(b"12345")
                assert server.recv(5, socket.MSG_WAITALL) == b"12345"
                server.sendall(b"123")
                assert client.recv(3, socket.MSG_WAITALL) == b"123"
            assert (relay.there, relay.back) == (5, 3)


def test_a_relay_that_nobody_used_can_be_closed(tmp_path: Path) -> None:
    Relay(str(tmp_path / "relay"), "nowhere").close()


def test_a_toggler_toggles_by_itself() -> None:
    with toggler("one") as mach:
        done = mach.when_time({"Foo": 20})
        mach.add("Go", times=10)

        assert done.wait(10)
