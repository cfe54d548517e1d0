"""A turnstile, the finite state machine of every textbook.

A coin unlocks it, a push goes through and locks it again, and who pushes a locked one stays
outside::

    $ python -m examples.fsm push coin push
          (Locked:1)[Unlocked:0 Coin:0 Push:0 Exception:0]
    push  (Locked:1)[Unlocked:0 Coin:0 Push:0 Exception:0] refused: vetoed by Gate.Push_enter
    coin  (Unlocked:1 Coin:1)[Locked:2 Push:0 Exception:0]
    push  (Locked:3 Push:1)[Unlocked:2 Coin:2 Exception:0]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from asyncmachine import Event, Machine, State, States


class Turnstile(States):
    """It is locked or unlocked, never both; a coin or a push is what happened to it last.

    Coins and pushes come again and again, so they are ``multi``. Whatever else happens follows
    from the relations: what a state adds comes with it, and what it removes goes.
    """

    Locked = State(remove="Unlocked")
    Unlocked = State(remove=Locked)
    Coin = State(multi=True, add=Unlocked, remove=(Locked, "Push"))
    Push = State(multi=True, add=Locked, remove=(Unlocked, Coin))


class Gate:
    """The handlers. A name says when it is called: here, before ``Push`` activates."""

    def Push_enter(self, event: Event) -> bool:
        """Let somebody through? Returning False refuses the push, and nothing changes."""
        return event.machine.is_active(Turnstile.Unlocked)


EVENTS = {"coin": Turnstile.Coin, "push": Turnstile.Push}


def main(argv: Sequence[str] | None = None) -> int:
    """Build a turnstile, let the events of the command line happen to it, and show each."""
    events: list[str] = make_parser().parse_args(argv).events
    with Machine(Turnstile, handlers=Gate()) as turnstile:
        turnstile.add(Turnstile.Locked)
        print("     ", turnstile.describe())
        for event in events:
            result = turnstile.add(EVENTS[event])
            refusal = "" if result else f" refused: {result.why}"
            print(f"{event:5} {turnstile.describe()}{refusal}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """What the command line takes, and the help that teaches it."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.fsm",
        description="A turnstile: a coin unlocks it, a push goes through and locks it again.",
        epilog="Each line shows an event and the machine after it: (active states)[inactive ones]."
        " The number is the state's tick: it grows by one whenever the state comes or goes, so"
        " an odd one is active. Try: python -m examples.fsm push coin coin push",
    )
    parser.add_argument("events", nargs="+", choices=EVENTS, metavar="EVENT", help="coin or push")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
