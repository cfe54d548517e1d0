"""Colours of the report, each for a light and for a dark page.

Those of the lines are from Okabe and Ito's palette, which people with any kind of colour
blindness can tell apart; on dark they are lighter ones of the same hue.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["BLUE", "COLOURS", "GREEN", "GRID", "INK", "MUTED", "VERMILLION", "Colour"]


class Colour(NamedTuple):
    """A colour.

    Attributes:
        name: its name as a variable of the page.
        light: what it is on white, as ``#rrggbb`` in lower case.
        dark: what it is on black.

    """

    name: str
    light: str
    dark: str


INK: Final = Colour("ink", "#1d2733", "#e6eaef")
MUTED: Final = Colour("muted", "#5f6b7a", "#98a4b3")
GRID: Final = Colour("grid", "#e3e7ec", "#2b333d")
BLUE: Final = Colour("blue", "#0072b2", "#5ab4e8")
GREEN: Final = Colour("green", "#009e73", "#3fc9a2")
VERMILLION: Final = Colour("vermillion", "#d55e00", "#ff8f4d")

COLOURS: Final = (INK, MUTED, GRID, BLUE, GREEN, VERMILLION)
