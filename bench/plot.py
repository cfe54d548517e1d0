"""Results as a picture: bars of empty calls, with what they may reach marked on them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from bench.measure import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from bench.cases import Outcome

__all__ = ["plot", "require_matplotlib"]

_WITHIN, _OVER, _PLAIN, _LIMIT = "#3b7d5e", "#b5483a", "#4b6a94", "#222222"
_GO: Final = {"Go v0.5.0": ("go_v0_5_0", "o"), "Go v0.19": ("go_v0_19", "s")}
_COLOURS: Final = {"ok": _WITHIN, "": _PLAIN}


def require_matplotlib() -> None:
    """Ask for it before anything is measured.

    Raises:
        BenchError: that says how to get it.

    """
    if find_spec("matplotlib") is None:
        msg = "--plot needs matplotlib: python -m pip install --editable '.[bench]'"
        raise BenchError(msg)


def plot(path: Path, title: str, outcomes: Sequence[Outcome]) -> None:
    """Draw the cases that were timed, the first on top, on a logarithmic scale."""
    from matplotlib import pyplot as plt

    drawn = [outcome for outcome in outcomes if outcome.timing is not None]
    rows = range(len(drawn))
    figure, axes = plt.subplots(
        figsize=(10, 1.6 + 0.35 * len(drawn)), layout="constrained", dpi=120
    )
    colours = [_COLOURS.get(outcome.verdict, _OVER) for outcome in drawn]
    bars = axes.barh(rows, [outcome.value for outcome in drawn], color=colours, height=0.6)
    axes.bar_label(bars, fmt="{:,.0f}", label_type="center", color="white", fontsize=8)
    _mark(axes, [outcome.case.limit for outcome in drawn], "at most", "|", _LIMIT)
    for label, (field, marker) in _GO.items():
        _mark(axes, [getattr(o.case, field) for o in drawn], label, marker, "#999999")
    axes.set_yticks(rows, [outcome.case.title for outcome in drawn])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set_xlim(left=1)  # Bars begin at one empty call.
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("empty Python function calls")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    handles, _labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(frameon=False, loc="outside upper right", ncols=len(handles))
    figure.savefig(path)
    plt.close(figure)


def _mark(axes: Axes, values: Sequence[float | None], label: str, marker: str, colour: str) -> None:
    """Put a mark on each row that has such a value."""
    known = [(value, row) for row, value in enumerate(values) if value is not None]
    if known:
        axes.scatter(
            [value for value, _ in known],
            [row for _, row in known],
            s=160 if marker == "|" else 22,
            marker=marker,
            color=colour,
            label=label,
            zorder=3,
        )
