from __future__ import annotations

import pytest

from asyncmachine import Machine, Result
from examples import fsm
from tests.examples.programs import help_of, run, transcript


@pytest.fixture
def turnstile() -> Machine:
    turnstile = Machine(fsm.Turnstile, handlers=fsm.Gate())
    turnstile.add("Locked")
    return turnstile


def test_a_coin_unlocks_and_a_push_locks(turnstile: Machine) -> None:
    assert turnstile.add("Coin") == Result.EXECUTED
    assert turnstile.active_states() == ("Coin", "Unlocked")
    assert turnstile.add("Push") == Result.EXECUTED
    assert turnstile.active_states() == ("Push", "Locked")


def test_a_locked_turnstile_refuses_a_push_and_says_who_did(turnstile: Machine) -> None:
    before = turnstile.time()
    result = turnstile.add("Push")
    assert result == Result.CANCELED
    assert result.why == "vetoed by Gate.Push_enter"
    assert turnstile.time() == before


def test_one_push_goes_through_for_each_coin(turnstile: Machine) -> None:
    turnstile.add("Coin")
    assert turnstile.add("Push")
    assert not turnstile.add("Push")


def test_a_second_coin_is_counted_and_changes_nothing_else(turnstile: Machine) -> None:
    turnstile.add("Coin")
    turnstile.add("Coin")
    assert turnstile.clock("Locked", "Unlocked", "Coin") == {"Locked": 2, "Unlocked": 1, "Coin": 3}


def test_it_prints_each_event_with_states_and_ticks() -> None:
    program = run("fsm", "coin", "push", "push", "coin")
    assert program.stdout.splitlines() == [
        "      (Locked:1)[Unlocked:0 Coin:0 Push:0 Exception:0]",
        "coin  (Unlocked:1 Coin:1)[Locked:2 Push:0 Exception:0]",
        "push  (Locked:3 Push:1)[Unlocked:2 Coin:2 Exception:0]",
        "push  (Locked:3 Push:1)[Unlocked:2 Coin:2 Exception:0] refused: vetoed by Gate.Push_enter",
        "coin  (Unlocked:3 Coin:3)[Locked:4 Push:2 Exception:0]",
    ]
    assert (program.stderr, program.returncode) == ("", 0)


def test_the_run_in_its_docstring_is_a_real_one() -> None:
    args, output = transcript(fsm.__doc__)
    assert run("fsm", *args).stdout.strip() == output


@pytest.mark.parametrize(("args", "named"), [(["kick"], "kick"), ([], "EVENT")])
def test_misuse_is_named(args: list[str], named: str) -> None:
    program = run("fsm", *args)
    assert program.returncode == 2
    assert named in program.stderr


def test_help_teaches() -> None:
    assert "push coin coin push" in help_of("fsm")
