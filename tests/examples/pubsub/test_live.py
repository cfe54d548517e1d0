from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from examples.pubsub.live import LiveView
from examples.pubsub.outcome import Sample, SlowHandler
from tests.examples.pubsub.outcomes import HANDLERS, SAMPLE, a_run


def a_terminal(width: int = 80, kind: str = "xterm-256color") -> Console:
    return Console(
        record=True,
        force_terminal=True,
        width=width,
        height=24,
        file=io.StringIO(),
        _environ={"TERM": kind},
    )


def no_terminal() -> Console:
    return Console(file=io.StringIO(), record=True, width=80, _environ={})


def last_view(console: Console) -> list[str]:
    """Lines of the view that stays when the run is over."""
    return "pubsub  ".join(("", console.export_text().rpartition("pubsub  ")[2])).splitlines()


def shown(console: Console, *samples: Sample, latencies: tuple[float, ...] = ()) -> str:
    with LiveView(console, {"seed": "7"}) as view:
        for sample in samples:
            view.update(sample, HANDLERS, latencies, 0.5)
    return "\n".join(last_view(console))


def test_a_whole_run_fits_80_columns_and_24_lines() -> None:
    outcome, console = a_run(), a_terminal()
    with LiveView(console, {f"option{number}": "value" for number in range(30)}) as view:
        for sample in outcome.samples:
            view.update(sample, HANDLERS * 9, outcome.latencies[: sample.received], 1.0)

    lines = last_view(console)

    assert len(lines) < 24  # the cursor takes one
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for part in ("99.86 %", "min 1  median 6  max 10", "host.IncomingRPC_state", "100 %", "5 min"):
        assert part in text


def test_rates_are_differences_of_samples() -> None:
    old = SAMPLE._replace(time=10.0, frames=100, published=4, transitions=1000)
    new = SAMPLE._replace(time=12.0, frames=1100, published=9, transitions=9000)

    text = shown(a_terminal(), old, new)

    assert re.search(r"frames/s +500 ", text)
    assert re.search(r"messages/s +2\.50 ", text)
    assert re.search(r"transitions/s +4,000 ", text)


def test_no_rate_can_be_told_of_one_moment() -> None:
    once = SAMPLE._replace(time=10.0, frames=100)

    assert re.search(r"frames/s +– ", shown(a_terminal(), once))
    assert re.search(r"frames/s +– ", shown(a_terminal(), once, once))


def test_deliveries_and_latencies_are_told() -> None:
    sample = SAMPLE._replace(expected=9, received=3, missed=1)

    text = shown(a_terminal(), sample, latencies=(0.002, 0.001, 0.5))

    assert re.search(r"delivered +75\.00 %", text)
    assert re.search(r"missed +1 ", text)
    assert re.search(r"latency p50 +2\.00 ms", text)
    assert re.search(r"latency p99 +500 ms", text)


def test_the_sparkline_shows_what_arrived_between_samples() -> None:
    received = (0, 8, 8, 9, 13)
    samples = [SAMPLE._replace(time=float(n), received=r) for n, r in enumerate(received)]

    assert re.search(r"deliveries +█ ▁▄ ", shown(a_terminal(), *samples))


def test_mesh_degrees_have_a_bar_each() -> None:
    lines = shown(a_terminal(), SAMPLE._replace(mesh=(4, 6, 6))).splitlines()

    start = next(n for n, line in enumerate(lines) if "min 4  median 6  max 6" in line)
    assert lines[start + 1].split() == ["▄▄", "██"]
    assert lines[start + 2].split() == ["4", "5", "6"]


def test_many_mesh_degrees_share_bars() -> None:
    lines = shown(a_terminal(), SAMPLE._replace(mesh=tuple(range(100)))).splitlines()

    start = next(n for n, line in enumerate(lines) if "min 0  median 49.5  max 99" in line)
    assert lines[start + 2].split() == [str(7 * bar) for bar in range(15)]


def test_a_run_without_end_or_mesh_or_handlers_is_shown_too() -> None:
    console = a_terminal()
    with LiveView(console, {}) as view:
        view.update(SAMPLE._replace(time=61.0), [], [], None)

    text = "\n".join(last_view(console))
    for part in ("1 min 1 s", "until Ctrl-C", "mesh degree   –", "no handler has run yet"):
        assert part in text


@pytest.mark.parametrize("width", [20, 40, 200])
def test_other_widths_are_no_trouble(width: int) -> None:
    console = a_terminal(width)

    shown(console, *a_run(seconds=3).samples)

    assert max(map(len, last_view(console))) <= min(width, 80)


def test_names_are_no_markup() -> None:
    console = a_terminal()
    with LiveView(console, {"[red]": "[/]"}) as view:
        view.update(SAMPLE, [SlowHandler("[bold]", "[/]", 1, 1.0, 1.0)], [], 0.0)

    text = "\n".join(last_view(console))
    assert "[red] [/]" in text
    assert "[bold].[/]" in text


def test_only_the_end_is_a_hundred_per_cent() -> None:
    console = a_terminal()
    with LiveView(console, {}) as view:
        view.update(SAMPLE, [], [], 0.999)

    assert "99 %" in "\n".join(last_view(console))


def test_the_cursor_comes_back_after_an_error() -> None:
    console = a_terminal()
    with pytest.raises(KeyboardInterrupt), LiveView(console, {}):
        raise KeyboardInterrupt

    written = console.file
    assert isinstance(written, io.StringIO)
    assert written.getvalue().rindex("\x1b[?25h") > written.getvalue().rindex("\x1b[?25l")


@pytest.mark.parametrize("console", [no_terminal(), a_terminal(kind="dumb")])
def test_without_a_terminal_every_tenth_sample_and_the_last_one_is_a_line(
    console: Console,
) -> None:
    outcome = a_run(seconds=35)
    with LiveView(console, outcome.settings) as view:
        for sample in outcome.samples:
            view.update(sample, HANDLERS, outcome.latencies[: sample.received], 0.25)

    lines = console.export_text().splitlines()

    assert [line.partition(":")[0] for line in lines] == [
        f"{second} s (25 %)" for second in (1, 11, 21, 31, 35)
    ]
    last = outcome.samples[-1]
    assert f"{last.received} of {last.expected} delivered, 0 missed" in lines[-1]


def test_no_line_is_said_twice() -> None:
    console = no_terminal()
    with LiveView(console, {}) as view:
        view.update(SAMPLE, [], [], None)

    assert len(console.export_text().splitlines()) == 1


def test_without_samples_nothing_is_said() -> None:
    console = no_terminal()
    with LiveView(console, {}):
        pass

    assert console.export_text() == ""
