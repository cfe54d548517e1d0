"""The shop that is watched: its program, its dashboard, and what Docker would mount."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncmachine import Machine
from examples.monitoring.shop import Shop
from tests.examples.programs import press_ctrl_c, run, start
from tests.races import PATIENCE
from tests.telemetry.prometheus_server import ROOT, assert_answers_all, prometheus

FOLDER = ROOT / "examples" / "monitoring"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "shop.json"


@contextmanager
def _program(*options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run the shop; gives the port of its metrics, and the program."""
    with start("monitoring", "--port", 0, *options) as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        found = re.match(r"metrics: http://127.0.0.1:(\d+)/metrics", line)
        assert found is not None, line
        yield int(found[1]), program


def test_prometheus_answers_every_question_of_the_dashboard(tmp_path: Path) -> None:
    made = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    with (
        _program("--rate", "40") as (port, running),
        prometheus(tmp_path, [port]) as server,
    ):
        assert_answers_all(server, made)
        assert server.await_series('asyncmachine_state_ticks_total{state="Delivered"} > 0')
        assert server.await_series('asyncmachine_transitions_total{outcome="vetoed"} > 0')
        told, errors = press_ctrl_c(running)
        assert running.returncode == 130
        assert "OrderPlaced" in told
        assert errors == ""


def test_the_dashboard_is_the_one_that_am_grafana_writes() -> None:
    shop, workers = "ShopStates=shop", "WorkerStates=worker-.+"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "asyncmachine.tools.cli", "grafana", "--title", "Shop"),
            *(f"examples.monitoring.shop:{each}" for each in (shop, workers)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert json.loads(done.stdout) == json.loads(DASHBOARD.read_text(encoding="utf-8"))


def test_it_ends_by_itself_after_its_duration() -> None:
    with _program("--duration", "0.2") as (_, running):
        assert running.wait(20) == 0


def test_a_port_that_is_taken_is_named() -> None:
    with _program() as (port, _):
        done = run("monitoring", "--port", port)
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--port", 99999), "port 99999 of 127.0.0.1: "),
        (("--rate", 0), "invalid number above 0 value: '0'"),
        (("--rate", "nan"), "invalid number above 0 value: 'nan'"),
    ],
)
def test_numbers_that_make_no_sense_are_told(options: tuple[object, ...], message: str) -> None:
    done = run("monitoring", *options)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_every_file_that_docker_mounts_is_there() -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    mounts = re.findall(r"- (\.\S*?):(/\S+?):ro", text)
    assert len(mounts) == 4
    for source, _ in mounts:
        assert (FOLDER / source).exists(), source
    # What one file says of another is so.
    assert "shop:9464" in (FOLDER / "prometheus.yaml").read_text(encoding="utf-8")
    assert "--port 9464" in text
    for path in re.findall(r"/var/lib/grafana/dashboards/(\w+\.json)", text):
        assert (DASHBOARD.parent / path).exists()


def _settled(machine: Machine) -> None:
    assert machine.when_queue_empty().wait(PATIENCE)


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop(workers=1, rate=1e-9, seed=1, tracers=[])
    made.machine.add("Open")
    yield made
    made.machine.dispose()


def test_an_order_goes_to_a_worker_who_is_idle_and_others_are_turned_away(shop: Shop) -> None:
    (worker,) = shop.workers
    delivered = worker.machine.when("Delivered")
    shop.machine.add("OrderPlaced", order=1, size=1)
    shop.machine.add("OrderPlaced", order=2, size=1)
    _settled(shop.machine)
    assert shop.machine.clock("OrderPlaced", "OrderTaken", "TurnedAway") == {
        "OrderPlaced": 3,
        "OrderTaken": 1,
        "TurnedAway": 1,
    }
    assert delivered.wait(PATIENCE)
    assert worker.machine.is_inactive("Working")


def test_an_order_that_is_too_large_is_refused(shop: Shop) -> None:
    shop.machine.add("OrderPlaced", order=1, size=10)
    _settled(shop.machine)
    assert shop.machine.tick("TurnedAway") == 1
    assert shop.workers[0].machine.tick("Working") == 0
