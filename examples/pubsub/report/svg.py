"""Figures as part of a page: SVG that takes the page's font and colours."""

from __future__ import annotations

import re
from io import StringIO
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from examples.pubsub.report.colours import COLOURS

__all__ = ["inline_svg"]

_METADATA: Final = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_COMMENT: Final = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_ID: Final = re.compile(r'(\bid="|url\(#|\bhref="#)')


def inline_svg(figure: Figure, name: str) -> str:
    """Give a figure as an ``<svg>`` element.

    Its colours become variables of the page, like ``var(--blue)``, so that it fits a dark
    page too, and letters stay letters, which can be searched and copied.

    Args:
        figure: the figure; its colours have to be those of `colours`.
        name: unique among the figures of the page; ids in the element begin with it.

    """
    file = StringIO()
    # Letters as text rather than as shapes, and the same ids each time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]  # what comes before is for a file of its own
    text = _COMMENT.sub("", _METADATA.sub("", text))
    text = _ID.sub(rf"\g<1>{name}-", text)
    for colour in COLOURS:
        text = text.replace(colour.light, f"var(--{colour.name})")
    return text.strip()
