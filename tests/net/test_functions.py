"""Functions travel by their import name."""

from __future__ import annotations

import math
import os.path
from functools import partial

import pytest

from asyncmachine import Machine
from asyncmachine.net import NotSerialisableError
from asyncmachine.net.functions import find_function, name_of
from tests.net import programs


def test_a_function_is_found_by_its_name() -> None:
    for each in (math.sqrt, programs.hit_count, Machine.describe, os.path.join):
        assert find_function(name_of(each)) is each


@pytest.mark.parametrize(
    "function", [lambda: 1, partial(math.sqrt, 4), Machine({}).add, [].append, 3]
)
def test_what_can_not_be_imported_is_refused(function: object) -> None:
    with pytest.raises(NotSerialisableError, match="importable"):
        name_of(function)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:f", "found"),
        ("math:nope", "found"),
        ("", "found"),
        ("math:pi", "no function"),
        ("..:x", "found"),
    ],
)
def test_a_name_of_nothing_is_refused(name: str, why: str) -> None:
    with pytest.raises(NotSerialisableError, match=why):
        find_function(name)
