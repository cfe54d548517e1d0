from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from matplotlib.patches import Rectangle
from numpy import asarray

from examples.pubsub.outcome import Outcome, Sample, SlowHandler, Verdict
from examples.pubsub.report import write_report
from examples.pubsub.report.page import as_page, headline
from examples.pubsub.report.plots import PLOTS
from examples.pubsub.report.summary import Summary, quantile
from examples.pubsub.report.tables import write_tables
from examples.pubsub.report.units import share
from tests.examples.pubsub.outcomes import NOTHING, SAMPLE, a_run

VOID = {"meta", "br", "img", "link", "hr", "input"}
RUN = a_run()._replace(deaths=[(12.5, "site 1 exited with -9")])
VERDICT = Verdict("p1-1", "news", "p1", 1.5, 3, 3, (), 0.25, 2)


class Page(HTMLParser):
    """Reads a page back: its text by element, its ids, what it refers to, and its balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.classes: dict[str, list[str]] = {}
        self._class: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.elements.append(tag)
        if "id" in named:
            self.ids.append(named["id"] or "")
        self.references += [
            named[name] or ""
            for name in ("src", "href", "xlink:href", "data", "srcset")
            if name in named
        ]
        if tag not in VOID:
            self.open.append(tag)
            self._class.append(named.get("class") or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._class.pop()

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data)
            self.classes.setdefault(self._class[-1], []).append(data)


def page_of(outcome: Outcome) -> Page:
    """The page without its plots, which is made at once."""
    return Page(as_page(outcome, Summary.of(outcome), []))


def tables_of(outcome: Outcome, folder: Path) -> None:
    write_tables(outcome, Summary.of(outcome), folder)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sample(mesh: tuple[int, ...] = (), **counts: int) -> Sample:
    return SAMPLE._replace(mesh=mesh, **counts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the report of a run that looks real; drawing it takes a second."""
    folder = tmp_path_factory.mktemp("report")
    assert write_report(RUN, folder) == folder / "index.html"
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_figures_of_a_small_run_are_those_worked_out_by_hand() -> None:
    samples = [
        sample(memory=100, mesh=(9, 9)),
        sample(memory=104),
        sample(memory=900),
        sample(memory=500),
        sample(memory=110, mesh=(1, 4, 5, 12)),
        sample(
            memory=120,
            published=2,
            expected=10,
            received=6,
            missed=2,
            duplicates=9,
            control_bytes=300,
            payload_bytes=200,
            transitions=4000,
        ),
    ]
    outcome = NOTHING._replace(
        seconds=100.0,
        wall_seconds=8.0,
        samples=samples,
        latencies=[0.4, 0.1, 0.3, 0.2, 0.5, 0.6],
        hops={1: 2, 2: 3, 7: 1, 9: 0},
    )

    assert Summary.of(outcome) == Summary(
        published=2,
        expected=10,
        received=6,
        missed=2,
        open=2,
        delivery=0.75,
        duplicates_per_delivery=1.5,
        hops_mean=2.5,  # (2 * 1 + 3 * 2 + 7) / 6
        hops_max=7,
        latency_p50=0.3,
        latency_p90=0.6,
        latency_p99=0.6,
        latency_max=0.6,
        mesh_min=1,
        mesh_median=4.5,
        mesh_max=12,
        control_per_payload=1.5,
        transitions=4000,
        transitions_per_wall_second=500.0,
        transitions_per_run_second=40.0,
        peak_memory=900,
        memory_growth=13,  # 115 in the last two less 102 in the first two
    )


def test_percentiles_of_a_hundred_are_their_ranks() -> None:
    values = [float(value) for value in range(1, 101)]

    assert [quantile(values, part) for part in (0.01, 0.5, 0.9, 0.99, 1.0)] == [1, 50, 90, 99, 100]


def test_figures_of_nothing_are_none_and_not_zero() -> None:
    summary = Summary.of(NOTHING)

    assert (summary.published, summary.expected, summary.received) == (0, 0, 0)
    assert (summary.missed, summary.open, summary.transitions) == (0, 0, 0)
    unknown = [name for name, value in summary._asdict().items() if value is None]
    assert len(unknown) == len(Summary._fields) - 6


def test_a_verdict_after_the_last_sample_counts() -> None:
    late = VERDICT._replace(expected=3, received=2, missed=("p9",))
    outcome = NOTHING._replace(samples=[sample(published=1, expected=3)], verdicts=[late])

    summary = Summary.of(outcome)

    assert (summary.expected, summary.received, summary.missed, summary.open) == (3, 2, 1, 0)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"published": 1, "expected": 4, "received": 4}, "Every message arrived"),
        ({"published": 9, "expected": 410, "received": 407, "missed": 3}, "3 of 410 deliveries"),
        ({"published": 1, "expected": 4, "received": 3}, "No delivery missed so far"),
        ({"published": 1, "expected": 4}, "No message arrived yet"),
        ({"published": 1}, "No message had a receiver"),
        ({}, "No message was sent"),
    ],
)
def test_the_headline_tells_what_became_of_the_messages(counts: dict[str, int], words: str) -> None:
    assert headline(Summary.of(NOTHING._replace(samples=[sample((), **counts)]))).startswith(words)


def test_only_what_is_all_is_called_a_hundred_per_cent() -> None:
    assert share(409_999 / 410_000) == "99.99 %"
    assert share(1.0) == "100 %"


def test_the_json_has_settings_figures_and_the_missed_messages(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))

    assert report["settings"] == RUN.settings
    assert report["summary"] == Summary.of(RUN)._asdict()
    assert [message["missed"] for message in report["missed"]] == [["p3"]] * 3
    assert report["deaths"] == [{"time": 12.5, "what": "site 1 exited with -9"}]
    assert [SlowHandler(**handler) for handler in report["handlers"]] == RUN.handlers
    assert {int(hops): times for hops, times in report["hops"].items()} == RUN.hops


def test_the_json_has_no_infinity(tmp_path: Path) -> None:
    never = VERDICT._replace(received=0, missed=("p2", "p3", "p4"), slowest=float("inf"))

    tables_of(NOTHING._replace(verdicts=[never]), tmp_path)

    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse)["missed"][0]["slowest"] is None


def test_samples_come_back_from_the_csv(tmp_path: Path) -> None:
    outcome = a_run(seconds=9)._replace(samples=[*a_run(seconds=9).samples, SAMPLE])

    tables_of(outcome, tmp_path)

    for row, made in zip(rows_of(tmp_path / "samples.csv"), outcome.samples, strict=True):
        pairs = [pair.split(":") for pair in row["mesh"].split()]
        degrees = [int(degree) for degree, times in pairs for _ in range(int(times))]
        counts = {name: int(row[name]) for name in Sample._fields[1:-1]}
        assert Sample(time=float(row["time"]), mesh=tuple(degrees), **counts) == made._replace(
            mesh=tuple(sorted(made.mesh))
        )
        assert row["mesh_max"] == (str(max(made.mesh)) if made.mesh else "")


def test_messages_come_back_from_the_csv(tmp_path: Path) -> None:
    odd = VERDICT._replace(topic='Paper, "Train"\nof two lines', received=1, missed=("p2", "p3"))
    outcome = NOTHING._replace(verdicts=[VERDICT, odd])

    tables_of(outcome, tmp_path)

    back = [
        Verdict(
            row["id"],
            row["topic"],
            row["author"],
            float(row["sent"]),
            int(row["expected"]),
            int(row["received"]),
            tuple(row["missed"].split()),
            float(row["slowest"]),
            int(row["most_hops"]),
        )
        for row in rows_of(tmp_path / "messages.csv")
    ]
    assert back == outcome.verdicts


def test_the_page_has_headline_cards_plots_and_tables(html: str) -> None:
    page = Page(html)

    assert page.texts["h1"] == ["3 of 2,301 deliveries missed"]
    assert "99.86 %" in page.classes["value"]
    assert page.elements.count("svg") == len(PLOTS)
    assert page.texts["h3"] == [plot.title for plot in PLOTS]
    cells = page.texts["td"]
    for text in ("IncomingRPC_state", "gossip", "p3", "site 1 exited with -9"):
        assert text in cells


def test_the_page_needs_nothing_else(html: str) -> None:
    page = Page(html)

    assert "script" not in page.elements
    assert "link" not in page.elements
    # What it refers to are shapes within its own drawings.
    assert {reference.removeprefix("#") for reference in page.references} <= set(page.ids)
    assert "@import" not in html
    assert {target[0] for target in re.findall(r"url\(([^)]*)\)", html)} <= {"#"}


def test_ids_of_the_page_are_unique_and_those_referred_to_are_there(html: str) -> None:
    page = Page(html)

    assert len(page.ids) == len(set(page.ids))
    referred = set(re.findall(r"url\(#([^)]*)\)", html))
    assert referred
    assert referred <= set(page.ids)


def test_drawings_are_well_formed_and_take_their_colours_from_the_page(html: str) -> None:
    variables = set(re.findall(r"--([a-z]+):", html))
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == len(PLOTS)
    for drawing in drawings:
        assert ET.fromstring(drawing).tag.endswith("svg")
        used = re.findall(r"var\(--([a-z]+)\)", drawing)
        assert used
        assert set(used) <= variables
        # Black is what matplotlib takes for what has been given no colour.
        assert not re.findall(r"(?:fill|stroke): ?#[0-9a-f]{6}", drawing)


def test_each_plot_has_a_picture_beside_the_page(folder: Path) -> None:
    for plot in PLOTS:
        assert (folder / f"{plot.name}.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_the_same_run_gives_the_same_page(html: str, tmp_path: Path) -> None:
    page = write_report(RUN, tmp_path / "not" / "there")

    assert page.read_text(encoding="utf-8") == html


def test_axes_tell_their_units() -> None:
    figures = {plot.name: plot.draw(RUN) for plot in PLOTS}

    labels = {
        name: [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
        for name, figure in figures.items()
    }
    assert labels.pop("hops") == ["hops from author to receiver"]
    assert labels.pop("latency") == ["time from publishing to receiving (ms)"]
    assert set(map(tuple, labels.values())) == {("virtual time (min)",)}
    assert all(axes.get_ylabel() for figure in figures.values() for axes in figure.axes)


def test_plots_show_the_figures_of_the_samples() -> None:
    samples = [
        SAMPLE._replace(time=1.0, transitions=100, memory=2_000_000, mesh=(2, 6, 6)),
        SAMPLE._replace(time=3.0, transitions=500, memory=4_000_000, mesh=(1, 3, 8)),
    ]
    outcome = NOTHING._replace(seconds=3.0, samples=samples, latencies=[0.02, 0.01], hops={2: 5})
    figures = {plot.name: plot.draw(outcome) for plot in PLOTS}

    def line(name: str) -> list[list[float]]:
        points: list[list[float]] = asarray(figures[name].axes[0].lines[0].get_xydata()).tolist()
        return points

    assert line("transitions") == [[3.0, 200.0]]
    assert line("memory") == [[1.0, 2.0], [3.0, 4.0]]
    assert line("mesh") == [[1.0, 6.0], [3.0, 3.0]]
    assert line("latency") == [[10.0, 0.0], [10.0, 0.5], [20.0, 1.0]]
    (bar,) = figures["hops"].axes[0].patches
    assert isinstance(bar, Rectangle)
    assert (bar.get_center()[0], bar.get_height()) == (2, 5)


def test_a_run_of_nothing_has_a_whole_report(tmp_path: Path) -> None:
    page = Page(write_report(NOTHING, tmp_path).read_text(encoding="utf-8"))

    assert page.texts["h1"] == ["No message was sent"]
    assert page.texts["text"] == ["nothing was measured"] * len(PLOTS)
    assert rows_of(tmp_path / "samples.csv") == []
    assert rows_of(tmp_path / "messages.csv") == []
    assert json.loads((tmp_path / "report.json").read_text())["summary"]["delivery"] is None


def test_a_run_of_one_sample_has_a_whole_report(tmp_path: Path) -> None:
    one = a_run(seconds=40).samples[-1]
    outcome = NOTHING._replace(samples=[one], latencies=[0.0], hops={0: 1})

    page = Page(write_report(outcome, tmp_path).read_text(encoding="utf-8"))

    assert page.texts["h1"] == ["Every message arrived"]


def test_no_rate_is_drawn_of_samples_of_one_moment() -> None:
    outcome = NOTHING._replace(samples=[RUN.samples[-1]] * 2)

    for plot in PLOTS:
        if plot.name in {"transitions", "traffic"}:
            (axes,) = plot.draw(outcome).axes
            assert [text.get_text() for text in axes.texts] == ["nothing was measured"]


def test_a_run_that_was_stopped_says_so() -> None:
    whole = a_run(seconds=30, missing=0)
    last = whole.samples[-1]
    stopped = whole._replace(
        finished=False,
        samples=[*whole.samples[:-1], last._replace(expected=last.expected + 2)],
    )

    assert "warning" not in page_of(whole).classes
    page = page_of(stopped)
    assert page.texts["h1"] == ["No delivery missed so far"]
    assert page.classes["warning"] == ["The run was stopped before its time."]
    assert "2 deliveries were still on the way at the end." in page.texts["p"]


def test_a_run_by_the_wall_clock_tells_of_no_virtual_time(tmp_path: Path) -> None:
    outcome = a_run(seconds=30)._replace(virtual=False, wall_seconds=30.0)

    text = write_report(outcome, tmp_path).read_text(encoding="utf-8")

    assert "time (s)" in text
    assert "virtual" not in text


def test_names_with_html_in_them_stay_names() -> None:
    name = "<script>alert('a & b')</script>\"><img src=x>"
    outcome = NOTHING._replace(
        settings={name: name},
        verdicts=[VERDICT._replace(topic=name, author=name, id=name, received=2, missed=(name,))],
        handlers=[SlowHandler(name, name, 1, 0.1, 0.1)],
        deaths=[(1.0, name)],
    )

    page = page_of(outcome)

    assert "script" not in page.elements
    assert "img" not in page.elements
    assert page.texts["td"].count(name) == 9


def test_long_tables_end_with_where_the_rest_is() -> None:
    missed = VERDICT._replace(received=2, missed=("p2",))

    page = page_of(NOTHING._replace(verdicts=[missed] * 130))

    assert page.texts["td"].count("p2") == 100
    assert "And 30 more, in messages.csv." in page.classes["note"]


def test_figures_are_kept_even_if_there_is_no_matplotlib(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path\n"
        "from examples.pubsub.report import write_report\n"
        "from tests.examples.pubsub.outcomes import a_run\n"
        "try:\n"
        "    write_report(a_run(5), Path(sys.argv[1]))\n"
        "except ImportError:\n"
        "    print('no plots')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "no plots\n"
    assert len(rows_of(tmp_path / "samples.csv")) == 5
    assert json.loads((tmp_path / "report.json").read_text())["finished"] is True
