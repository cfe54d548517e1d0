"""Functions that travel by their import name."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from asyncmachine.net.errors import NotSerialisableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["find_function", "name_of"]


def name_of(function: Callable[..., object]) -> str:
    """Give ``"module:qualified.name"`` of a function.

    Raises:
        NotSerialisableError: if it can not be imported by that.

    Example:
        >>> import math
        >>> name_of(math.sqrt)
        'math:sqrt'

    """
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", "")
    found: object = sys.modules.get(module or "")
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not module or found is not function:
        raise NotSerialisableError(
            f"{qualname or function!r} can not travel: a function has to be importable, "
            "so neither a lambda nor one that was made inside another"
        )
    return f"{module}:{qualname}"


def find_function(name: str) -> Callable[..., object]:
    """Import a function by its name.

    Raises:
        NotSerialisableError: if there is none.

    """
    module, _, path = name.partition(":")
    if module == "__main__":
        # A spawned child knows the main module of its parent by this name.
        module = "__mp_main__" if "__mp_main__" in sys.modules else module
    try:
        found: object = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise NotSerialisableError(f"{name} can not be found here: {error}") from error
    if not callable(found):
        raise NotSerialisableError(f"{name} is no function")
    return found
