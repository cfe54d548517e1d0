"""The plots of a report, each a figure of its own in one style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from examples.pubsub.outcome import Outcome, Sample
from examples.pubsub.report.colours import BLUE, GREEN, GRID, INK, MUTED, VERMILLION, Colour
from examples.pubsub.report.summary import quantile
from examples.pubsub.report.units import span

__all__ = [
    "PLOTS",
    "Plot",
    "hops",
    "latency",
    "memory",
    "mesh",
    "messages",
    "topics_and_peers",
    "traffic",
    "transitions",
]

_SIZE: Final = (6.4, 3.2)  # inches
_MINUTES, _HOURS = 180.0, 10_800.0  # seconds from which on time is told in these
_SMALL: Final = 8.5  # points
_DASHED: Final = (0, (3, 2))
_POINTS: Final = 400  # of a curve; more can not be told apart


class Plot(NamedTuple):
    """A plot of the report.

    Attributes:
        name: of its files, without an ending.
        title: what stands above it.
        caption: what one sees in it.
        draw: draws it.

    """

    name: str
    title: str
    caption: str
    draw: Callable[[Outcome], Figure]


def topics_and_peers(outcome: Outcome) -> Figure:
    """Draw how many peers and topics there are over time, in a panel each."""
    figure, (upper, lower) = _stacked(outcome, (1, 1))
    if not _over_time(outcome, upper, lower):
        return figure
    _line(upper, outcome, [sample.peers for sample in outcome.samples], BLUE, "peers")
    _line(lower, outcome, [sample.topics for sample in outcome.samples], BLUE, "topics")
    active = [sample.active_topics for sample in outcome.samples]
    _line(lower, outcome, active, GREEN, "active topics", dashed=True)
    for axes in (upper, lower):
        _whole_numbers(axes)
    upper.set_ylabel("peers")
    lower.set_ylabel("topics")
    _legend(lower)
    return figure


def messages(outcome: Outcome) -> Figure:
    """Draw how many deliveries arrived and were missed until each moment, in a panel each."""
    figure, (upper, lower) = _stacked(outcome, (5, 2))
    if not _over_time(outcome, upper, lower):
        return figure
    samples = outcome.samples
    _line(upper, outcome, [s.expected for s in samples], MUTED, "promised", dashed=True)
    _line(upper, outcome, [s.received for s in samples], BLUE, "received")
    _line(lower, outcome, [s.missed for s in samples], VERMILLION, "missed")
    _whole_numbers(upper)
    _whole_numbers(lower, bins=2)
    upper.set_ylabel("deliveries")
    lower.set_ylabel("missed")
    _legend(upper)
    return figure


def latency(outcome: Outcome) -> Figure:
    """Draw which part of the deliveries arrived within which time."""
    figure, axes = _single()
    ordered = sorted(outcome.latencies)
    if not ordered:
        _nothing(axes)
        return figure
    in_seconds = ordered[-1] >= 2
    unit, name = (1.0, "s") if in_seconds else (1000.0, "ms")
    # Ranks at even distances, and always the first and the last.
    last = len(ordered) - 1
    steps = min(last, _POINTS) or 1
    ranks = [round(step * last / steps) for step in range(steps + 1)]
    times = [ordered[rank] * unit for rank in ranks]
    axes.plot(
        [times[0], *times],
        [0.0, *((rank + 1) / len(ordered) for rank in ranks)],
        color=BLUE.light,
        linewidth=1.8,
        drawstyle="steps-post",
    )
    for part in (0.5, 0.9, 0.99):
        value = quantile(ordered, part) or 0.0
        axes.plot(value * unit, part, "o", color=BLUE.light, markersize=5, clip_on=False)
        axes.annotate(
            f"p{part * 100:.0f}  {span(value)}",
            (value * unit, part),
            xytext=(9, -4),
            textcoords="offset points",
            va="top",
            color=INK.light,
            fontsize=_SMALL,
        )
    if ordered[0] > 0 and ordered[-1] > 50 * ordered[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")
    else:
        axes.set_xlim(left=0)
    if ordered[-1] > outcome.deadline / 2:
        axes.axvline(outcome.deadline * unit, color=VERMILLION.light, linestyle=(0, (4, 3)))
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_xlabel(f"time from publishing to receiving ({name})")
    axes.set_ylabel("deliveries within it")
    return figure


def mesh(outcome: Outcome) -> Figure:
    """Draw over time how many peers meshes have: all, the middle half, and the median."""
    figure, axes = _single()
    samples = [sample for sample in outcome.samples if sample.mesh]
    if not samples:
        _nothing(axes)
        return figure
    # A long run of many hosts has a hundred million degrees; so many moments are enough.
    samples = samples[:: -(-len(samples) // _POINTS)]
    ordered = [sorted(sample.mesh) for sample in samples]
    times = _times(outcome, samples)
    for low, high, opacity, label in (
        (0.0, 1.0, 0.16, "all meshes"),
        (0.25, 0.75, 0.34, "middle half"),
    ):
        axes.fill_between(
            times,
            [quantile(degrees, low) or 0 for degrees in ordered],
            [quantile(degrees, high) or 0 for degrees in ordered],
            color=BLUE.light,
            alpha=opacity,
            linewidth=0,
            label=label,
        )
    axes.plot(
        times,
        [median(degrees) for degrees in ordered],
        color=BLUE.light,
        linewidth=1.8,
        label="median",
    )
    _time_axis(outcome, axes)
    _whole_numbers(axes)
    axes.set_ylabel("peers in a mesh")
    _legend(axes)
    return figure


def transitions(outcome: Outcome) -> Figure:
    """Draw how many transitions there were in each second of the run's clock."""
    figure, axes = _single()
    steps = _steps(outcome)
    if not steps:
        _nothing(axes)
        return figure
    axes.plot(
        _times(outcome, [new for _, new in steps]),
        [_rate("transitions", old, new) for old, new in steps],
        color=BLUE.light,
        linewidth=1.4,
    )
    _time_axis(outcome, axes)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_ylabel(f"transitions per {_second(outcome)}")
    return figure


def traffic(outcome: Outcome) -> Figure:
    """Draw how many bytes of messages, and of all the rest, hosts sent in each second."""
    figure, axes = _single()
    steps = _steps(outcome)
    if not steps:
        _nothing(axes)
        return figure
    times = _times(outcome, [new for _, new in steps])
    for field, colour, style, label in (
        ("payload_bytes", BLUE, "-", "messages"),
        ("control_bytes", GREEN, _DASHED, "control"),
    ):
        rates = [_rate(field, old, new) / 1e3 for old, new in steps]
        axes.plot(times, rates, color=colour.light, linewidth=1.4, linestyle=style, label=label)
    _time_axis(outcome, axes)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_ylabel(f"kB per {_second(outcome)}")
    _legend(axes)
    return figure


def memory(outcome: Outcome) -> Figure:
    """Draw the memory of all processes over time."""
    figure, axes = _single()
    if not _over_time(outcome, axes):
        return figure
    values = [sample.memory / 1e6 for sample in outcome.samples]
    _line(axes, outcome, values, BLUE, "memory")
    axes.fill_between(
        _times(outcome, outcome.samples), values, color=BLUE.light, alpha=0.12, linewidth=0
    )
    axes.set_ylim(bottom=0, top=max(values) * 1.1 or 1)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_ylabel("resident memory (MB)")
    return figure


def hops(outcome: Outcome) -> Figure:
    """Draw how many deliveries came through how many hosts."""
    figure, axes = _single()
    counted = sorted((count, times) for count, times in outcome.hops.items() if times)
    if not counted:
        _nothing(axes)
        return figure
    total = sum(times for _, times in counted)
    bars = axes.bar(
        [count for count, _ in counted],
        [times for _, times in counted],
        width=0.7,
        color=BLUE.light,
    )
    if len(counted) <= 12:
        labels = [_percent(times / total) for _, times in counted]
        axes.bar_label(bars, labels, padding=3, color=INK.light, fontsize=_SMALL)
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=14, min_n_ticks=1))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("hops from author to receiver")
    axes.set_ylabel("deliveries")
    return figure


PLOTS: Final = (
    Plot(
        "messages",
        "Messages received and missed",
        "Deliveries so far, and those that did not come in time.",
        messages,
    ),
    Plot(
        "latency",
        "Latency",
        "The part of all deliveries that arrived within a time.",
        latency,
    ),
    Plot(
        "topics_and_peers",
        "Peers and topics",
        "A topic is active for a minute after each message.",
        topics_and_peers,
    ),
    Plot(
        "mesh",
        "Mesh degree",
        "How many peers a host forwards a topic's messages to.",
        mesh,
    ),
    Plot(
        "hops",
        "Hops",
        "How many steps from host to host deliveries took.",
        hops,
    ),
    Plot(
        "transitions",
        "Transitions a second",
        "Transitions of all machines, by the run's clock.",
        transitions,
    ),
    Plot(
        "traffic",
        "Traffic",
        "Bytes of messages, and of what hosts need to say besides.",
        traffic,
    ),
    Plot(
        "memory",
        "Memory",
        "Resident memory of all processes together.",
        memory,
    ),
)


def _single() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    _quiet(axes)
    return figure, axes


def _stacked(outcome: Outcome, heights: tuple[int, int]) -> tuple[Figure, tuple[Axes, Axes]]:
    """Two panels over one axis of time: no second scale that one would have to tell apart."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    for axes in (upper, lower):
        _quiet(axes)
    figure.align_ylabels()
    return figure, (upper, lower)


def _quiet(axes: Axes) -> None:
    """Leave of the frame only what helps to read values."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED.light)
    axes.grid(axis="y", color=GRID.light, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, pad=5, labelsize=_SMALL, labelcolor=MUTED.light)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(MUTED.light)
        axis.label.set_fontsize(_SMALL)


def _nothing(*panels: Axes) -> None:
    """Say that there is nothing to see, where one looks for it."""
    for axes in panels:
        axes.set_axis_off()
    panels[0].text(
        0.5,
        0.5,
        "nothing was measured",
        transform=panels[0].transAxes,
        ha="center",
        va="center",
        color=MUTED.light,
        fontsize=10,
    )


def _over_time(outcome: Outcome, *panels: Axes) -> bool:
    """Prepare panels for lines over time, if there are samples."""
    if not outcome.samples:
        _nothing(*panels)
        return False
    _time_axis(outcome, panels[-1])
    return True


def _unit_of_time(outcome: Outcome) -> tuple[float, str]:
    if outcome.seconds > _HOURS:
        return 3600.0, "h"
    return (60.0, "min") if outcome.seconds > _MINUTES else (1.0, "s")


def _times(outcome: Outcome, samples: Sequence[Sample]) -> list[float]:
    unit, _ = _unit_of_time(outcome)
    return [sample.time / unit for sample in samples]


def _time_axis(outcome: Outcome, axes: Axes) -> None:
    unit, name = _unit_of_time(outcome)
    longest = max(outcome.seconds, outcome.samples[-1].time)
    axes.set_xlim(0, longest / unit or 1)
    axes.set_xlabel(f"{'virtual time' if outcome.virtual else 'time'} ({name})")


def _line(
    axes: Axes,
    outcome: Outcome,
    values: Sequence[float],
    colour: Colour,
    label: str,
    *,
    dashed: bool = False,
) -> None:
    axes.plot(
        _times(outcome, outcome.samples),
        values,
        color=colour.light,
        linewidth=1.8,
        linestyle=_DASHED if dashed else "-",
        label=label,
    )


def _whole_numbers(axes: Axes, bins: int = 5) -> None:
    axes.set_ylim(bottom=0)
    if axes.get_ylim()[1] < 1:
        axes.set_ylim(top=1)
    axes.yaxis.set_major_locator(
        MaxNLocator(integer=True, nbins=bins, steps=[1, 2, 5, 10], min_n_ticks=2)
    )
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _legend(axes: Axes) -> None:
    # Above the panel, where no line can run through it.
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=3,
        frameon=False,
        fontsize=_SMALL,
        labelcolor=MUTED.light,
        borderaxespad=0.1,
        handlelength=1.6,
        columnspacing=1.4,
    )


def _steps(outcome: Outcome) -> list[tuple[Sample, Sample]]:
    """Samples and those after them, wherever time has passed between them."""
    return [(old, new) for old, new in pairwise(outcome.samples) if new.time > old.time]


def _rate(field: str, old: Sample, new: Sample) -> float:
    grown: int = getattr(new, field) - getattr(old, field)
    return grown / (new.time - old.time)


def _second(outcome: Outcome) -> str:
    return "virtual second" if outcome.virtual else "second"


def _percent(part: float) -> str:
    return f"{part * 100:.0f} %" if part >= 0.01 else "< 1 %"
