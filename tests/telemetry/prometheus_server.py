"""A real Prometheus for tests: started on a port of its own, asked over its HTTP interface.

It is taken from the path, or from build/tools, where ``make prometheus`` puts it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from asyncmachine.telemetry.grafana import queries_of

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
METRIC = re.compile(r"\b(?:asyncmachine|pubsub)_\w+")

Data = Mapping[str, object]


def tool(name: str) -> str:
    """Find ``prometheus`` or ``promtool``; without it the test is skipped, but not in CI."""
    found = shutil.which(name) or shutil.which(name, path=str(ROOT / "build" / "tools"))
    if found is None:
        assert "ASYNCMACHINE_NEEDS_PROMETHEUS" not in os.environ, f"there is no {name}"
        pytest.skip(f"there is no {name}: make prometheus fetches it")
    return found


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Prometheus:
    """A running server.

    Attributes:
        url: where it answers.

    """

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **details: object) -> object:
        """Ask its interface; gives the data of the answer."""
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(details)}", timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def query(self, expr: str) -> list[Data]:
        """The series that an expression has now."""
        data = self.ask("query", query=expr)
        assert isinstance(data, dict)
        result: list[Data] = data["result"]
        return result

    def await_series(self, expr: str) -> list[Data]:
        """The series of an expression, once there are any.

        Nothing tells when a scrape is over, so it is asked again, for a limited time.
        """
        deadline, pause = monotonic() + PATIENCE, Event()
        while not (found := self.query(expr)):
            assert monotonic() < deadline, f"no data for {expr}"
            pause.wait(0.2)
        return found


@contextmanager
def prometheus(folder: Path, ports: Sequence[int], scrape: str = "500ms") -> Iterator[Prometheus]:
    """Run a server that scrapes these ports of this host."""
    port = free_port()
    config = folder / "prometheus.yaml"
    targets = [f"127.0.0.1:{each}" for each in ports]
    jobs = [{"job_name": "test", "static_configs": [{"targets": targets}]}]
    settings = {"global": {"scrape_interval": scrape}, "scrape_configs": jobs}
    config.write_text(json.dumps(settings))  # which is YAML, too
    server = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_ready(server, f"http://127.0.0.1:{port}/-/ready")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


def _await_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline, pause = monotonic() + PATIENCE, Event()
    while True:
        assert server.poll() is None, "Prometheus has ended"
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            assert monotonic() < deadline, "Prometheus does not start"
            pause.wait(0.05)


def assert_answers_all(server: Prometheus, made: dict[str, object], interval: str = "5s") -> None:
    """Every expression of a dashboard names metrics that exist, and returns data.

    Grafana puts in what is chosen for the variables; here it is everything, which it puts
    in as it is, without any escaping.
    """
    variables: list[dict[str, object]] = made["templating"]["list"]  # type: ignore[index]
    chosen = {str(each["name"]): str(each.get("allValue") or ".+") for each in variables}
    for title, expr in queries_of(made):
        asked = expr.replace("$__rate_interval", interval)
        for name, value in chosen.items():
            asked = asked.replace(f"${name}", value)
        assert "$" not in asked, (title, asked)
        assert server.await_series(asked), (title, asked)
    known = server.ask("label/__name__/values")
    assert isinstance(known, list)
    named = {name for _, expr in queries_of(made) for name in METRIC.findall(expr)}
    assert named
    assert named <= {*known}, named - {*known}
    for each in variables:
        if each["type"] == "query":
            machines = re.fullmatch(r"label_values\((.*), machine\)", str(each["definition"]))
            assert machines is not None
            assert server.await_series(machines[1]), each["definition"]
