"""The errors: their tree, what they carry, that they travel, and hints."""

from __future__ import annotations

import copy
import pickle

import pytest

import asyncmachine
from asyncmachine import (
    ContextExpired,
    HandlerError,
    HandlerTimeoutError,
    InternalError,
    Machine,
    MachineError,
    PipeOverflowError,
    SchemaError,
    State,
    UnknownStateError,
)
from asyncmachine.errors import hint

ERRORS = [
    MachineError("plain"),
    SchemaError("faults in Foo:", ["one", "two"]),
    HandlerError("handlers do not fit:", ["one"]),
    UnknownStateError("Fo", ["Foo"], "the snapshot"),
    HandlerTimeoutError("late"),
    ContextExpired("over"),
    PipeOverflowError("full"),
    InternalError("ours"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_is_a_machine_error(error: MachineError) -> None:
    assert isinstance(error, MachineError)
    assert isinstance(error, Exception)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_can_be_pickled_and_copied(error: MachineError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert getattr(twin, "faults", None) == getattr(error, "faults", None)
        assert getattr(twin, "name", None) == getattr(error, "name", None)


def test_errors_are_what_python_calls_them_too() -> None:
    assert issubclass(UnknownStateError, KeyError)
    assert issubclass(HandlerTimeoutError, TimeoutError)
    assert issubclass(SchemaError, ValueError)
    assert issubclass(HandlerError, ValueError)


def test_every_error_of_the_core_is_public() -> None:
    for error in ERRORS:
        assert getattr(asyncmachine, type(error).__name__) is type(error)


def test_an_error_of_several_faults_lists_them() -> None:
    error = SchemaError("faults in Foo:", (fault for fault in ("one", "two")))

    assert error.faults == ("one", "two")
    assert str(error) == "faults in Foo:\n- one\n- two"


def test_an_unknown_state_is_shown_in_plain_words() -> None:
    error = UnknownStateError("Fo", ["Foo", "Bar"])

    assert str(error) == "unknown state 'Fo'; did you mean 'Foo'?"
    assert str(UnknownStateError("Fo")) == "unknown state 'Fo'"
    assert "in the snapshot" in str(UnknownStateError("Fo", [], "the snapshot"))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("Fo", "Foo"), ("foo", "Foo"), ("DOWNLOADED", "Downloaded"), ("Dwnloaded", "Downloaded")],
)
def test_a_hint_gives_the_nearest_known_name(name: str, nearest: str) -> None:
    assert hint(name, ["Foo", "Downloaded", "Bar"]) == f"; did you mean {nearest!r}?"


def test_a_hint_is_empty_when_nothing_is_near() -> None:
    assert hint("Zzzzz", ["Foo", "Bar"]) == ""
    assert hint("Foo", []) == ""


def test_a_text_given_as_an_error_is_wrapped() -> None:
    mach = Machine({"Foo": State()})

    mach.add_error("no route")

    assert type(mach.error) is MachineError
    assert str(mach.error) == "no route"
