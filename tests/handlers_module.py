"""A module whose functions are bound as handlers by test_handlers.py."""

from __future__ import annotations

from typing import Final

from asyncmachine import Event

HEARD: Final[list[str]] = []


def Foo_enter(event: Event) -> None:
    HEARD.append(event.name)


def Foo_state(event: Event) -> None:
    HEARD.append(event.name)


def helper(first: int, second: int) -> int:
    return first + second


def _Foo_private() -> None:
    """Nothing that looks like a handler to anybody."""
