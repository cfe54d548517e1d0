"""Figures in words: sizes, spans of time, shares and numbers, each with its unit."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["NONE", "duration", "number", "share", "size", "span"]

NONE: Final = "–"

_SIZES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def number(value: float | None) -> str:
    """Write a number with about three digits, and all those before the point.

    Example:
        >>> number(12345.6), number(12.34), number(0.5), number(3), number(None)
        ('12,346', '12.3', '0.50', '3', '–')

    """
    if value is None or not math.isfinite(value):
        return NONE
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def share(value: float | None) -> str:
    """Write a part of one in per cent; only what is all is 100 %.

    Example:
        >>> share(1.0), share(0.99999), share(0.5), share(None)
        ('100 %', '99.99 %', '50.00 %', '–')

    """
    if value is None:
        return NONE
    if value >= 1:
        return "100 %"
    # The small addend undoes what floats lose: 0.57 * 10,000 is a little under 5,700.
    return f"{math.floor(value * 10_000 + 1e-9) / 100:.2f} %"


def size(count: float | None) -> str:
    """Write a number of bytes.

    Example:
        >>> size(312_400_000), size(999), size(-1500), size(None)
        ('312 MB', '999 B', '-1.50 kB', '–')

    """
    if count is None:
        return NONE
    for unit, name in _SIZES:
        if abs(count) >= unit:
            return f"{number(count / unit)} {name}"
    return f"{count:.0f} B"


def span(seconds: float | None) -> str:
    """Write a short time, like a latency.

    Example:
        >>> span(0.0123), span(2.5), span(0.00004), span(0.0), span(None)
        ('12.3 ms', '2.50 s', '40.0 µs', '0 s', '–')

    """
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds == 0:
        return "0 s"
    if abs(seconds) >= 1:
        return f"{number(seconds)} s"
    if abs(seconds) >= 1e-3:
        return f"{number(seconds * 1e3)} ms"
    return f"{number(seconds * 1e6)} µs"


def duration(seconds: float) -> str:
    """Write a time of some length, like that of a run.

    Example:
        >>> duration(4.25), duration(150), duration(600), duration(3725)
        ('4.2 s', '2 min 30 s', '10 min', '1 h 2 min')

    """
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest if not hours else 0, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)
