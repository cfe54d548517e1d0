from __future__ import annotations

import re
from itertools import product

import pytest

from asyncmachine import Machine
from examples import nfa
from tests.examples.programs import help_of, run, transcript

FOURTH_FROM_END_IS_1 = re.compile("[01]*1[01]{3}")


@pytest.mark.parametrize("length", range(11))
def test_it_agrees_with_a_regular_expression_on_every_string(length: int) -> None:
    with Machine(nfa.FourthFromEnd) as machine:
        for symbols in product("01", repeat=length):
            string = "".join(symbols)
            expected = FOURTH_FROM_END_IS_1.fullmatch(string) is not None
            assert nfa.accepts(machine, string) is expected, string


def test_it_is_in_several_states_at_once() -> None:
    with Machine(nfa.FourthFromEnd) as machine:
        assert nfa.accepts(machine, "1111")
        assert machine.is_active("Start", "First", "Second", "Third", "Fourth")


def test_it_judges_each_string() -> None:
    program = run("nfa", "101000", "0111", "", "1000")
    assert program.stdout.splitlines() == [
        "101000 accepted",
        "0111 rejected",
        "(empty) rejected",
        "1000 accepted",
    ]
    assert (program.stderr, program.returncode) == ("", 0)


def test_the_run_in_its_docstring_is_a_real_one() -> None:
    args, output = transcript(nfa.__doc__)
    lines = [line.strip() for line in run("nfa", *args).stdout.splitlines()]
    assert "\n".join(lines) == output


@pytest.mark.parametrize(
    ("string", "symbol", "place"),
    [("10x1", "x", 3), ("2", "2", 1), ("1 0", " ", 2), ("11١", "١", 3)],
)
def test_a_wrong_symbol_is_named_with_its_place(string: str, symbol: str, place: int) -> None:
    program = run("nfa", string, PYTHONIOENCODING="utf-8")
    assert program.returncode == 2
    assert f"{symbol!r}, symbol {place} of {string!r}, is neither 0 nor 1" in program.stderr
    assert program.stdout == ""


def test_no_string_is_misuse() -> None:
    program = run("nfa")
    assert program.returncode == 2
    assert "STRING" in program.stderr


def test_help_teaches() -> None:
    assert "--trace 101000" in help_of("nfa")
