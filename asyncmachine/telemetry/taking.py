"""Taking spans that several threads may want at once, and ending them whatever happens.

Assumes that single operations on dictionaries and lists are atomic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from asyncmachine.logs import log_exception

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import Span

__all__ = ["end_surely", "taken", "values_taken"]

_K = TypeVar("_K")
_T = TypeVar("_T")


def taken(items: list[_T]) -> Iterator[_T]:
    """Take all items of a list, the latest first; each goes to one thread only."""
    while True:
        try:
            item = items.pop()
        except IndexError:
            return
        yield item


def values_taken(items: dict[_K, _T]) -> Iterator[_T]:
    """Take all values of a dictionary; each goes to one thread only."""
    while True:
        try:
            _, item = items.popitem()
        except KeyError:
            return
        yield item


def end_surely(span: Span, now: int | None = None) -> None:
    """End a span; what its processors raise is logged, so that others can be ended, too."""
    try:
        span.end(now)
    except Exception:  # noqa: BLE001 - it is the user's code
        log_exception("error in a span processor")
