"""A running simulation, a real Prometheus that scrapes it, and the dashboard's questions."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from asyncmachine.telemetry.grafana import dashboard
from asyncmachine.telemetry.rows import network_row
from examples.pubsub.dashboard import rows
from tests.telemetry.prometheus_server import ROOT, assert_answers_all, free_port, prometheus

AM = (sys.executable, "-m", "asyncmachine.tools.cli")


@contextmanager
def _simulation(*options: str) -> Iterator[list[int]]:
    """Run ``am sim`` with metrics; gives the ports."""
    port = free_port()
    command = [*AM, "sim", "--metrics", str(port), "--duration", "50", *options]
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    try:
        count = 1 + int(options[options.index("--processes") + 1] if options else 0)
        told = [running.stderr.readline() for _ in range(count)]
        yield [int(line.split(":")[3].split("/")[0]) for line in told]
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
    finally:
        running.kill()
        running.wait()
        running.stderr.close()


def test_prometheus_answers_every_question_of_the_dashboard(tmp_path: Path) -> None:
    with (
        _simulation("--processes", "1", "--peers", "6", "--topics", "2") as ports,
        prometheus(tmp_path, ports) as server,
    ):
        made = dashboard([*rows(), network_row()], title="sim")
        assert_answers_all(server, made)
        # What one process counts is what the other shows
        (hosts,) = server.await_series('count(asyncmachine_states{machine=~"p[0-9]+"}) >= 2')
        assert hosts["value"]
        assert server.await_series("pubsub_deliveries_total > 0")
        assert not server.query("up == 0")


def test_a_port_that_is_taken_is_named() -> None:
    with _simulation() as (port,):
        done = subprocess.run(
            [*AM, "sim", "--metrics", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 2
        assert f"port {port} is taken" in done.stderr


@pytest.mark.parametrize("port", ["-1", "65536", "70000"])
def test_a_port_that_can_not_be_is_refused(port: str) -> None:
    done = subprocess.run(
        [*AM, "sim", f"--metrics={port}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, "--metrics has to be a port" in done.stderr) == (2, True)


def test_metrics_may_be_read_by_hand() -> None:
    with (
        _simulation() as (port,),
        urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
    ):
        text = answer.read().decode()
    assert 'asyncmachine_state_active{machine="sim",state="Start"}' in text
