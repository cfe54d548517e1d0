"""An automaton that is in several states at once.

It accepts the binary strings whose fourth symbol from the end is 1. It cannot know where the end
is, so on each 1 it guesses that this is the one, and follows every guess at the same time::

    $ python -m examples.nfa --trace 101000
      (Start:1)
    1 (Start:1 First:1)
    0 (Start:1 Second:1)
    1 (Start:1 First:3 Third:1)
    0 (Start:1 Second:3 Fourth:1)
    0 (Start:1 Third:3)
    0 (Start:1 Fourth:3)
    101000 accepted
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from asyncmachine import Machine, State, States


class FourthFromEnd(States):
    """All but ``Start`` are guesses: the 1 that counts is so many symbols from the end."""

    Start = State()
    First = State()
    Second = State()
    Third = State()
    Fourth = State()


Moves = dict[str, tuple[str, ...]]

ON_0: Moves = {
    FourthFromEnd.Start: (FourthFromEnd.Start,),
    FourthFromEnd.First: (FourthFromEnd.Second,),
    FourthFromEnd.Second: (FourthFromEnd.Third,),
    FourthFromEnd.Third: (FourthFromEnd.Fourth,),
    FourthFromEnd.Fourth: (),  # a symbol too many: that guess was wrong
}
ON_1: Moves = {**ON_0, FourthFromEnd.Start: (FourthFromEnd.Start, FourthFromEnd.First)}
MOVES = {"0": ON_0, "1": ON_1}


def accepts(nfa: Machine, string: str, *, trace: bool = False) -> bool:
    """Whether the automaton accepts the string.

    Raises:
        ValueError: for a symbol other than 0 and 1; it says which one, and where.

    """
    check(string)
    nfa.set(FourthFromEnd.Start)
    if trace:
        print(" ", nfa)
    for symbol in string:
        step(nfa, symbol)
        if trace:
            print(symbol, nfa)
    return nfa.is_active(FourthFromEnd.Fourth)


def step(nfa: Machine, symbol: str) -> None:
    """Follow all guesses at once: however many states are active, it is one mutation."""
    moves = MOVES[symbol]
    nfa.set(*(target for state in nfa.active_states() for target in moves[state]))


def check(string: str) -> None:
    """Refuse a string with a symbol that the automaton does not know."""
    for place, symbol in enumerate(string, start=1):
        if symbol not in MOVES:
            msg = f"{symbol!r}, symbol {place} of {string!r}, is neither 0 nor 1"
            raise ValueError(msg)


def main(argv: Sequence[str] | None = None) -> int:
    """Judge the strings of the command line; exit with 2 if one of them is not binary."""
    parser = make_parser()
    args = parser.parse_args(argv)
    with Machine(FourthFromEnd) as nfa:
        for string in args.strings:
            try:
                accepted = accepts(nfa, string, trace=args.trace)
            except ValueError as error:
                parser.error(str(error))
            print(string or "(empty)", "accepted" if accepted else "rejected")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """What the command line takes, and the help that teaches it."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.nfa",
        description="Accept the binary strings whose fourth symbol from the end is 1, with a"
        " machine that is in several states at once.",
        epilog="Try: python -m examples.nfa --trace 101000",
    )
    parser.add_argument("strings", nargs="+", metavar="STRING", help="of the symbols 0 and 1")
    parser.add_argument(
        "--trace", action="store_true", help="show the active states and ticks after each symbol"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
