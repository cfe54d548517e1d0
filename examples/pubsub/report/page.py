"""The page of a report: one file of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final, NamedTuple

from matplotlib.figure import Figure

from examples.pubsub.outcome import Outcome
from examples.pubsub.report.plots import Plot
from examples.pubsub.report.style import STYLE
from examples.pubsub.report.summary import Summary
from examples.pubsub.report.svg import inline_svg
from examples.pubsub.report.units import NONE, duration, number, share, size, span

__all__ = ["as_page", "headline"]

_BESIDE: Final = (
    "Beside this page, for other programs: report.json, samples.csv, messages.csv, "
    "and a PNG of each plot."
)
_NOTHING: Final = "nothing to measure"
_MOST_ROWS: Final = 100  # of a table; a bad run misses thousands of messages


class _Column(NamedTuple):
    """A column of a table: its heading, and the class of its cells, if any."""

    heading: str
    kind: str = ""


def as_page(outcome: Outcome, summary: Summary, figures: Sequence[tuple[Plot, Figure]]) -> str:
    """Give the whole page.

    Args:
        outcome: what the run came to.
        summary: its figures.
        figures: the plots, in the order in which they are to appear.

    """
    title = headline(summary)
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)} – pubsub simulation</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            _header(outcome, summary, title),
            "<main>",
            _cards(outcome, summary),
            "<h2>The run in plots</h2>",
            '<div class="plots">',
            *(_figure(plot, figure) for plot, figure in figures),
            "</div>",
            _missed(outcome),
            _deaths(outcome),
            _handlers(outcome),
            _settings(outcome),
            "</main>",
            f"<footer>{_BESIDE}</footer>",
            "</body>",
            "</html>",
            "",
        )
    )


def headline(summary: Summary) -> str:
    """Say in words what became of the messages.

    Args:
        summary: the figures of the run.

    """
    if summary.missed:
        return f"{summary.missed:,} of {summary.received + summary.missed:,} deliveries missed"
    if not summary.expected:
        return "No message had a receiver" if summary.published else "No message was sent"
    if summary.open:
        return "No delivery missed so far" if summary.received else "No message arrived yet"
    return "Every message arrived"


def _header(outcome: Outcome, summary: Summary, title: str) -> str:
    tone = "bad" if summary.missed or outcome.deaths else "good"
    if tone == "good" and (summary.open or not summary.expected):
        tone = "open"
    if outcome.virtual:
        took = f"{duration(outcome.seconds)} of virtual time"
        took += f", which took {duration(outcome.wall_seconds)}"
    else:
        took = duration(outcome.wall_seconds)
    lines = [f"{summary.published:,} messages, {summary.expected:,} deliveries promised; {took}."]
    if summary.open:
        open_ones = "1 delivery was" if summary.open == 1 else f"{summary.open:,} deliveries were"
        lines.append(f"{open_ones} still on the way at the end.")
    warnings = []
    if not outcome.finished:
        warnings.append("The run was stopped before its time.")
    if outcome.deaths:
        died = "1 process" if len(outcome.deaths) == 1 else f"{len(outcome.deaths)} processes"
        warnings.append(f"{died} died.")
    return "\n".join(
        (
            f'<header class="{tone}">',
            '<p class="kind">Pubsub simulation</p>',
            f"<h1>{escape(title)}</h1>",
            *(f"<p>{escape(line)}</p>" for line in lines),
            *(f'<p class="warning">{escape(line)}</p>' for line in warnings),
            "</header>",
        )
    )


def _cards(outcome: Outcome, summary: Summary) -> str:
    s = summary
    if outcome.virtual:
        pace = f"{number(s.transitions_per_run_second)} in a virtual second"
    else:
        pace = f"{s.transitions:,} in all"
    cards = (
        ("Delivered", share(s.delivery), f"{s.received:,} of {s.received + s.missed:,} due"),
        ("Missed", number(s.missed), f"not there within {duration(outcome.deadline)}"),
        (
            "Latency, median",
            span(s.latency_p50),
            f"p90 {span(s.latency_p90)}, p99 {span(s.latency_p99)}, most {span(s.latency_max)}",
        ),
        ("Hops, mean", number(s.hops_mean), f"most {number(s.hops_max)}"),
        ("Duplicates", number(s.duplicates_per_delivery), "copies too many for each delivery"),
        (
            "Mesh degree, median",
            NONE if s.mesh_median is None else f"{s.mesh_median:g}",
            f"from {number(s.mesh_min)} to {number(s.mesh_max)}, at the end",
        ),
        ("Control overhead", number(s.control_per_payload), "bytes for each byte of messages"),
        ("Transitions a second", number(s.transitions_per_wall_second), pace),
        (
            "Memory, peak",
            size(s.peak_memory),
            f"{_signed(s.memory_growth)} from the first third to the last",
        ),
    )
    return "\n".join(
        (
            '<dl class="cards">',
            *(
                f'<div class="card"><dt>{escape(name)}</dt>'
                f'<dd class="value">{escape(value)}</dd>'
                f'<dd class="more">{escape(_NOTHING if value == NONE else more)}</dd></div>'
                for name, value, more in cards
            ),
            "</dl>",
        )
    )


def _signed(growth: float | None) -> str:
    return f"+{size(growth)}" if growth is not None and growth > 0 else size(growth)


def _figure(plot: Plot, figure: Figure) -> str:
    return "\n".join(
        (
            f'<figure aria-label="{escape(plot.title)}">',
            f"<figcaption><h3>{escape(plot.title)}</h3><p>{escape(plot.caption)}</p></figcaption>",
            inline_svg(figure, plot.name),
            "</figure>",
        )
    )


def _missed(outcome: Outcome) -> str:
    columns = (
        _Column("Message", "long"),
        _Column("Topic", "long"),
        _Column("Author", "long"),
        _Column("Sent at", "figure"),
        _Column("Received", "figure"),
        _Column("Missed by", "long"),
    )
    rows = [
        (
            verdict.id,
            verdict.topic,
            verdict.author,
            f"{verdict.sent:,.2f} s",
            f"{verdict.received} of {verdict.expected}",
            ", ".join(verdict.missed),
        )
        for verdict in outcome.verdicts
        if verdict.missed
    ]
    return _table("Missed messages", columns, rows, "messages.csv")


def _deaths(outcome: Outcome) -> str:
    columns = (_Column("At", "figure"), _Column("What is known of it", "long"))
    rows = [(f"{time:,.2f} s", what) for time, what in outcome.deaths]
    return _table("Processes that died", columns, rows, "report.json")


def _handlers(outcome: Outcome) -> str:
    columns = (
        _Column("Machine"),
        _Column("Handler"),
        _Column("Calls", "figure"),
        _Column("All in all", "figure"),
        _Column("Mean", "figure"),
        _Column("Longest", "figure"),
    )
    rows = [
        (
            handler.machine,
            handler.handler,
            number(handler.calls),
            span(handler.seconds),
            span(handler.seconds / handler.calls if handler.calls else None),
            span(handler.longest),
        )
        for handler in outcome.handlers
    ]
    return _table("Slowest handlers", columns, rows, "report.json")


def _settings(outcome: Outcome) -> str:
    columns = (_Column("Option", "name"), _Column("Value", "long"))
    return _table("Settings", columns, list(outcome.settings.items()), "report.json")


def _table(
    title: str, columns: Sequence[_Column], rows: Sequence[Sequence[str]], whole: str
) -> str:
    """A table with its heading; ``whole`` is the file that has the rows left out here."""
    lines = [f"<h2>{escape(title)}</h2>"]
    if not rows:
        return "\n".join((*lines, '<p class="note">None.</p>'))
    headings = _cells("th", columns, [column.heading for column in columns])
    lines += [
        '<div class="table"><table>',
        f"<thead><tr>{headings}</tr></thead>",
        "<tbody>",
        *(f"<tr>{_cells('td', columns, row)}</tr>" for row in rows[:_MOST_ROWS]),
        "</tbody>",
        "</table></div>",
    ]
    if len(rows) > _MOST_ROWS:
        left_out = len(rows) - _MOST_ROWS
        lines.append(f'<p class="note">And {left_out:,} more, in {escape(whole)}.</p>')
    return "\n".join(lines)


def _cells(tag: str, columns: Iterable[_Column], texts: Iterable[str]) -> str:
    return "".join(
        f'<{tag} class="{column.kind}">{escape(text)}</{tag}>'
        if column.kind
        else f"<{tag}>{escape(text)}</{tag}>"
        for column, text in zip(columns, texts, strict=True)
    )
