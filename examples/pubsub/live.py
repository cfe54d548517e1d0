"""A run while it goes on: a view that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from time import monotonic
from types import TracebackType
from typing import Final, NamedTuple, Self

from examples.pubsub.outcome import Sample, SlowHandler
from examples.pubsub.report.summary import quantile
from examples.pubsub.report.units import NONE, duration, number, share, size, span

try:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text
except ImportError:
    raise SystemExit("this example needs rich: pip install 'asyncmachine[examples]'") from None

__all__ = ["LiveView"]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 80  # columns at most, and 24 lines: what every terminal has
_SPARKS: Final = 60  # samples that the sparkline shows
_DEGREES: Final = 16  # bars of the chart of mesh degrees
_HANDLERS: Final = 5
_RECENT: Final = 10_000  # latencies that are looked at; sorting all would take ever longer
_REDRAW: Final = 0.1  # seconds at least; under virtual time, samples come much faster
_LINE_EVERY: Final = 10  # samples, where there is no terminal


class _Told(NamedTuple):
    """What `LiveView.update` was given last."""

    sample: Sample
    handlers: Sequence[SlowHandler]
    latencies: Sequence[float]
    progress: float | None


class LiveView:
    """Shows how a run gets on while its ``with`` block lasts.

    It has no thread of its own: `update` draws, on the thread that calls it, one call at a
    time.

    Args:
        console: where to.
        settings: how the run was asked for: option and value.

    """

    def __init__(self, console: Console, settings: dict[str, str]) -> None:
        self._console = console
        self._settings = settings
        self._samples: deque[Sample] = deque(maxlen=_SPARKS + 1)
        self._live: Live | None = None
        self._drawn = float("-inf")
        self._count = 0
        self._told: _Told | None = None  # what is not shown yet

    def __enter__(self) -> Self:
        # What can not move its cursor can not redraw either.
        if self._console.is_interactive:
            waiting = Text("waiting for the first sample", style="dim")
            self._live = Live(waiting, console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._show()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(
        self,
        sample: Sample,
        handlers: Sequence[SlowHandler],
        latencies: Sequence[float],
        progress: float | None,
    ) -> None:
        """Show how things stand.

        Args:
            sample: the newest sample.
            handlers: handlers that took long, the slowest first.
            latencies: seconds from publishing to receiving, of all deliveries so far, the
                newest last.
            progress: which part of the run is over, from 0 to 1; None if it has no end.

        """
        self._samples.append(sample)
        self._count += 1
        self._told = _Told(sample, handlers, latencies, progress)
        if self._live is None:
            if self._count % _LINE_EVERY == 1:
                self._show()
        elif monotonic() - self._drawn >= _REDRAW:
            self._show()
            self._drawn = monotonic()

    def _show(self) -> None:
        """Show what was told last, unless that has been done."""
        if self._told is None:
            return
        told, self._told = self._told, None
        if self._live is None:
            line = self._line(told)
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._live.update(self._drawing(told), refresh=True)

    def _line(self, told: _Told) -> str:
        sample, _, latencies, progress = told
        middle, tail = _latencies(latencies)
        done = "" if progress is None else f" ({int(progress * 100)} %)"
        return (
            f"{duration(sample.time)}{done}: {sample.peers} peers, {sample.topics} topics, "
            f"{sample.received} of {sample.expected} delivered, {sample.missed} missed, "
            f"latency p50 {middle} p99 {tail}, "
            f"{number(self._rate('transitions'))} transitions/s, {size(sample.memory)}"
        )

    def _rate(self, field: str) -> float | None:
        """How fast a count grows, for each second of the run's clock."""
        if len(self._samples) < 2:
            return None
        old, new = self._samples[-2], self._samples[-1]
        if new.time <= old.time:
            return None
        grown: int = getattr(new, field) - getattr(old, field)
        return grown / (new.time - old.time)

    def _drawing(self, told: _Told) -> RenderableType:
        sample, handlers, latencies, progress = told
        width = min(self._console.width, _WIDTH)
        frame = Table.grid()
        frame.add_column(width=width, no_wrap=True, overflow="ellipsis")
        for part in (
            self._title(),
            _progress(sample, progress, width),
            Rule(style="dim"),
            self._numbers(sample, latencies),
            Text(""),
            _labelled("deliveries", Text(self._sparkline(width - 14), style="cyan")),
            *_mesh(sample.mesh),
            Rule(style="dim"),
            _slowest(handlers),
        ):
            frame.add_row(part)
        return frame

    def _title(self) -> Text:
        options = "  ".join(f"{option} {value}" for option, value in self._settings.items())
        return Text.assemble(("pubsub", "bold"), "  ", (options.replace("\n", " "), "dim"))

    def _numbers(self, sample: Sample, latencies: Sequence[float]) -> Table:
        middle, tail = _latencies(latencies)
        due = sample.received + sample.missed
        delivered = share(sample.received / due if due else None)
        missed = Text(number(sample.missed), style="bold red" if sample.missed else "green")
        cells: tuple[tuple[str, str | Text], ...] = (
            ("peers", number(sample.peers)),
            ("messages/s", number(self._rate("published"))),
            ("delivered", delivered),
            ("topics", number(sample.topics)),
            ("frames/s", number(self._rate("frames"))),
            ("missed", missed),
            ("active", number(sample.active_topics)),
            ("transitions/s", number(self._rate("transitions"))),
            ("latency p50", middle),
            ("streams", number(sample.streams)),
            ("memory", size(sample.memory)),
            ("latency p99", tail),
        )
        table = Table.grid(padding=(0, 1), expand=True)
        for _ in range(3):
            table.add_column(style="dim", no_wrap=True)
            table.add_column(justify="right", no_wrap=True, ratio=1)
            table.add_column(width=1)
        for row in range(0, len(cells), 3):
            table.add_row(
                *(part for name, value in cells[row : row + 3] for part in (name, value, ""))
            )
        return table

    def _sparkline(self, width: int) -> str:
        grown = [new.received - old.received for old, new in pairwise(self._samples)]
        return _bars(grown[-width:]) or NONE


def _progress(sample: Sample, progress: float | None, width: int) -> Table:
    told = duration(sample.time)
    row = Table.grid(padding=(0, 1))
    if progress is None:
        row.add_row(Text(told), Text("until Ctrl-C", style="dim"))
        return row
    part = min(max(progress, 0.0), 1.0)
    bar = ProgressBar(total=1.0, completed=part, width=width - 26)
    row.add_row(bar, Text(f"{int(part * 100):>4} %"), Text(told, style="dim"))
    return row


def _latencies(latencies: Sequence[float]) -> tuple[str, str]:
    """Median and 99th percentile of the newest ones, in words."""
    ordered = sorted(latencies[-_RECENT:])
    return span(quantile(ordered, 0.5)), span(quantile(ordered, 0.99))


def _mesh(degrees: Sequence[int]) -> tuple[RenderableType, ...]:
    """How many meshes have how many peers: a line of words, one of bars, one of degrees."""
    if not degrees:
        return (_labelled("mesh degree", Text(NONE)),)
    low, high = min(degrees), max(degrees)
    words = f"min {low}  median {median(degrees):g}  max {high}"
    step = -(-(high - low + 1) // _DEGREES)  # degrees to a bar, rounded up
    starts = range(low, high + 1, step)
    counts = Counter((degree - low) // step for degree in degrees)
    bars = _bars([counts[index] for index in range(len(starts))])
    return (
        _labelled("mesh degree", Text(words)),
        _labelled("", Text("".join(f" {bar * 2} " for bar in bars), style="cyan")),
        _labelled("", Text("".join(f"{start:^4}" for start in starts), style="dim")),
    )


def _bars(values: Sequence[int]) -> str:
    """A block for each value, the largest one full; nothing for 0."""
    most = max(values, default=0)
    if most <= 0:
        return "".join(_BLOCKS[0] for _ in values)
    return "".join(
        _BLOCKS[-(-value * len(_BLOCKS) // most) - 1] if value > 0 else " " for value in values
    )


def _labelled(label: str, what: Text) -> Text:
    return Text.assemble((f"{label:<14}", "dim"), what)


def _slowest(handlers: Sequence[SlowHandler]) -> RenderableType:
    if not handlers:
        return Text("no handler has run yet", style="dim")
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True, min_width=10)
    headings = ("slowest handlers", "calls", "all in all", "longest")
    table.add_row(*(Text(heading, style="dim") for heading in headings))
    for handler in handlers[:_HANDLERS]:
        table.add_row(
            Text(f"{handler.machine}.{handler.handler}"),
            number(handler.calls),
            span(handler.seconds),
            span(handler.longest),
        )
    return table
