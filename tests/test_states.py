"""The ready-made schemas, alone and inherited."""

from __future__ import annotations

import pytest

from asyncmachine import Basic, Connected, Disposed, Machine, Pool, Result, Schema, State, States


@pytest.mark.parametrize("states", [Basic, Connected, Pool, Disposed])
def test_every_ready_made_schema_builds_a_machine(states: type[States]) -> None:
    mach = Machine(states)

    assert set(states.names) <= set(mach.states)
    assert mach.add("Start") == Result.EXECUTED


def test_they_merge() -> None:
    class Server(Basic, Connected, Disposed):
        Ready = Basic.Ready.extend(require="Connected")
        Serving = State(require="Ready")

    names = Schema(Server).names
    assert names[: len(Basic.names)] == Basic.names
    assert names[-1] == "Serving"
    assert len(names) == len({*names})
    assert Schema(Server).states["Ready"].require == ("Start", "Connected")


def test_basic_needs_a_start_to_be_ready() -> None:
    mach = Machine(Basic)

    assert mach.add("Ready").why == "Ready requires Start, which is inactive"
    mach.add("Start")
    mach.add("Ready")
    mach.remove("Start")
    assert mach.active_states() == ()


def test_the_errors_of_basic_come_with_exception() -> None:
    mach = Machine(Basic)

    assert mach.add("ErrNetwork") == Result.CANCELED
    assert mach.add_error("no route", "ErrNetwork") == Result.EXECUTED
    assert mach.is_active("Exception", "ErrNetwork")


def test_a_connection_is_in_one_of_four_states() -> None:
    mach = Machine(Connected)
    four = ("Connecting", "Connected", "Disconnecting", "Disconnected")

    mach.add("Start")
    assert mach.switch(*four) == "Disconnected"  # by itself
    for name in ("Connecting", "Connected", "Disconnecting", "Disconnected"):
        assert mach.add(name) == Result.EXECUTED
        assert [each for each in four if mach.is_active(each)] == [name]
    mach.add("Connected")
    mach.remove("Start")
    assert mach.switch(*four) == "Disconnected"


def test_a_pool_is_connected_with_the_first_and_fully_with_the_last() -> None:
    mach = Machine(Pool)
    mach.add("Start")

    assert mach.add("ConnectedFully").why == "ConnectedFully requires Connected, which is inactive"
    mach.add("Connecting")
    mach.add("Connected")
    mach.add("ConnectedFully")
    assert mach.is_active("Connecting", "Connected", "ConnectedFully")
    mach.add("Disconnecting")
    assert mach.active_states() == ("Disconnecting", "Start")
    mach.add("Disconnected")
    assert mach.active_states() == ("Disconnected", "Start")


def test_an_end_in_order() -> None:
    mach = Machine(Disposed)

    mach.add("Start", "RegisterDisposal")
    mach.add("Disposing")
    assert mach.active_states() == ("Disposing", "Start")
    mach.add("Disposed")
    assert mach.active_states() == ("Disposed",)
