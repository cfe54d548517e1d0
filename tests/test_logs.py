"""Log levels, the args that are shown, and that logging costs nothing until it is needed."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import asyncmachine
from asyncmachine import Event, LogLevel, Machine, State
from asyncmachine.logs import format_args

ROOT: Final = Path(asyncmachine.__file__).parents[1]


def test_levels_are_ordered() -> None:
    assert [level.name for level in LogLevel] == [
        "NOTHING",
        "CHANGES",
        "OPS",
        "DECISIONS",
        "EVERYTHING",
    ]
    assert sorted(LogLevel) == list(LogLevel)
    assert not LogLevel.NOTHING


@pytest.mark.parametrize(
    ("args", "shown", "text"),
    [
        ({"id": 123}, ["id"], " (id=123)"),
        ({"id": 123, "secret": 1}, ["id"], " (id=123)"),
        ({"a": 1, "b": 2}, ["b", "a"], " (b=2, a=1)"),
        ({"a": 1}, ["b"], ""),
        ({"a": 1}, [], ""),
        ({}, ["a"], ""),
        ({"a": None}, ["a"], " (a=None)"),
    ],
)
def test_args_are_shown_in_the_order_they_were_named(
    args: dict[str, object], shown: list[str], text: str
) -> None:
    assert format_args(args, shown) == text


def test_long_values_are_cut() -> None:
    text = format_args({"path": "x" * 1000}, ["path"])

    assert text.startswith(" (path=xxx")
    assert len(text) < 100
    assert "..." in text or "…" in text


def test_a_value_that_can_not_be_shown_harms_no_transition(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Mute:
        def __str__(self) -> str:
            raise ValueError("no words")

        __repr__ = __str__

    mach = Machine({"Foo": State()}, log_level=LogLevel.CHANGES, log_args=["value"])

    with caplog.at_level(logging.INFO, "asyncmachine"):
        assert mach.add("Foo", value=Mute())

    assert mach.is_active("Foo")
    assert mach.error is None


def test_a_machine_at_nothing_writes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    mach = Machine({"Foo": State(), "Bar": State(require="Foo")}, log_args=["id"])
    mach.bind({"Foo_enter": lambda event: None})

    with caplog.at_level(logging.DEBUG, "asyncmachine"):
        mach.add("Bar")
        mach.add("Foo", id=1)
        mach.eval(mach.set)
        mach.add_error("no")

    assert caplog.records == []
    assert mach.log_level is LogLevel.NOTHING


def test_lines_go_to_the_logger_asyncmachine_with_the_id_in_front(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mach = Machine({"Foo": State()}, id="m1", log_level=LogLevel.CHANGES)

    with caplog.at_level(logging.DEBUG, "asyncmachine"):
        mach.add("Foo")

    (record,) = caplog.records
    assert record.name == "asyncmachine"
    assert "m1" in record.getMessage()
    assert record.getMessage().index("m1") < record.getMessage().index("[state] +Foo")


def test_the_level_and_the_args_may_be_changed(caplog: pytest.LogCaptureFixture) -> None:
    mach = Machine({"Foo": State()})

    with caplog.at_level(logging.DEBUG, "asyncmachine"):
        mach.log_level = LogLevel.CHANGES
        mach.add("Foo", id=1)
        mach.log_args = ("id",)
        mach.remove("Foo", id=2)
        mach.log_level = LogLevel.NOTHING
        mach.add("Foo", id=3)

    assert [record.getMessage().split("] ", 1)[1] for record in caplog.records] == [
        "[state] +Foo",
        "[state] -Foo (id=2)",
    ]
    assert mach.log_args == ("id",)


@pytest.mark.parametrize("level", [9, -1, "LOUD"])
def test_another_level_is_a_value_error(level: object) -> None:
    with pytest.raises(ValueError, match=str(level)):
        Machine({"Foo": State()}, log_level=level)  # type: ignore[arg-type]  # wrong on purpose


def test_an_error_while_handling_exception_is_logged_at_every_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mach = Machine({"Foo": State()}, id="m1")

    def fail(event: Event) -> None:
        raise ValueError("in the handler of errors")

    mach.bind({"Exception_state": fail})
    mach.add_error("first")

    assert "ValueError: in the handler of errors" in caplog.text
    assert "m1" in caplog.text
    assert str(mach.error) == "in the handler of errors"


def test_a_machine_at_nothing_does_not_import_logging() -> None:
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from asyncmachine import Machine, State
class Handlers:
    def Foo_enter(self, event): pass
    def Foo_state(self, event): event.machine.add("Bar", n=1)
    def Baz_state(self, event): raise ValueError
states = {{"Foo": State(), "Bar": State(), "Baz": State()}}
mach = Machine(states, handlers=Handlers(), log_args=["n"])
assert mach.add("Foo") and mach.when("Bar").is_set() and not mach.add("Baz")
assert mach.is_active("Exception") and mach.eval(lambda: 1) == 1
mach.dispose()
print("logging" in sys.modules)
"""
    bare = [sys.executable, "-I", "-S", "-c", script]

    done = subprocess.run(bare, check=True, capture_output=True, text=True)

    assert done.stdout == "False\n"
    assert done.stderr == ""
