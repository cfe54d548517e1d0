"""Log lines of machines, through the standard `logging` module, logger ``asyncmachine``.

A machine at `LogLevel.NOTHING` spends nothing on it, and ``logging``, which is slow to
import, is loaded when there is a first line to write.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from logging import Logger

__all__ = ["LogLevel", "format_args", "log_exception", "log_line"]


class LogLevel(IntEnum):
    """How much a machine tells; each level includes those before it."""

    NOTHING = 0
    """No lines but errors."""
    CHANGES = 1
    """What became active and inactive."""
    OPS = 2
    """Also mutations, handlers, refusals, errors."""
    DECISIONS = 3
    """Also why: relations, waiters."""
    EVERYTHING = 4
    """Also every handler name that was offered."""


_LONGEST: Final = 20


def _logger() -> Logger:
    from logging import getLogger

    return getLogger("asyncmachine")


def log_line(machine_id: str, line: str) -> None:
    """Write one line, with the machine's id in front."""
    _logger().info("[%s] %s", machine_id, line)


def log_warning(machine_id: str, line: str) -> None:
    """Write one line that people should see whatever the machine's level is."""
    _logger().warning("[%s] %s", machine_id, line)


def log_exception(message: str, *details: object, error: BaseException | None = None) -> None:
    """Write an error with its traceback; the one that is being handled unless given."""
    _logger().error(message, *details, exc_info=error if error is not None else True)


def format_args(args: Mapping[str, object], shown: Iterable[str]) -> str:
    """Give the args that are to be shown: ``" (id=123, name=abc)"``, or nothing.

    Example:
        >>> format_args({"id": 123, "secret": "x"}, ["id"])
        ' (id=123)'

    """
    parts = [f"{name}={_short(args[name])}" for name in shown if name in args]
    return f" ({', '.join(parts)})" if parts else ""


def _short(value: object) -> str:
    try:
        text = str(value)
    except Exception as fault:  # noqa: BLE001 - it is the user's code
        text = f"<{type(fault).__name__}>"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
