"""The command ``am``: it prints what is asked for, or one line that says what is wrong."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from asyncmachine import Machine, Schema, State
from asyncmachine.tools.cli import COMMANDS, main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncmachine.tools.command import Command

APP: Final = """\
import json
from asyncmachine import Machine, Schema, State, States

class Door(States):
    Open = State(auto=True)
    Closed = State(remove=Open, multi=True)

class Holder:
    Inner = {"Foo": State()}

STATES = {"Foo": State(add="Bar"), "Bar": State()}
SCHEMA = Schema(STATES)
BROKEN = {"Foo": State(require="Bra"), "Bar": State()}
mach = Machine(STATES, id="app")
mach.add("Foo")

def build() -> Machine:
    return Machine(STATES)
"""


@pytest.fixture(autouse=True)
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module and a package in the current directory."""
    (tmp_path / "am_app.py").write_text(APP)
    (tmp_path / "am_package").mkdir()
    (tmp_path / "am_package" / "__init__.py").touch()
    (tmp_path / "am_package" / "door.py").write_text(APP)
    (tmp_path / "am_crash.py").write_text("value = 1\nraise ValueError('no luck')\n")
    (tmp_path / "am_exit.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "am_needs.py").write_text("import am_lacking_dependency\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [each for each in sys.modules if each.startswith("am_")]:
        del sys.modules[name]


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("am: error: ")
    return err


@pytest.mark.parametrize("name", ["STATES", "SCHEMA"])
def test_inspect_prints_a_schema(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = _printed(capsys, "inspect", f"am_app:{name}")

    with Machine({"Foo": State(add="Bar"), "Bar": State()}, id=f"am_app:{name}") as mach:
        assert printed == mach.inspect() + "\n"


def test_inspect_prints_a_class_of_states(capsys: pytest.CaptureFixture[str]) -> None:
    printed = _printed(capsys, "inspect", "am_app:Door")

    for word in ("Open", "Closed", "Exception", "auto", "multi", "remove"):
        assert word in printed


def test_inspect_prints_a_machine_with_its_clocks(capsys: pytest.CaptureFixture[str]) -> None:
    printed = _printed(capsys, "inspect", "am_app:mach")

    assert printed == sys.modules["am_app"].mach.inspect() + "\n"


@pytest.mark.parametrize("target", ["am_package.door:Door", "am_app:Holder.Inner"])
def test_inspect_finds_what_lies_deeper(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Exception" in _printed(capsys, "inspect", target)


@pytest.mark.parametrize("name", ["STATES", "SCHEMA", "mach"])
def test_inspect_gives_the_schema_as_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(_printed(capsys, "inspect", f"am_app:{name}", "--json"))

    assert Schema.from_dict(data) == sys.modules["am_app"].SCHEMA


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("am_ap:Door", ["no module 'am_ap'", "did you mean 'am_app'"]),
        ("am_package.dor:Door", ["no module 'dor' in am_package", "did you mean 'door'"]),
        ("am_app:Dor", ["am_app has no 'Dor'", "did you mean 'Door'"]),
        ("am_app:xyz", ["am_app has no 'xyz'", "it has Door, STATES, SCHEMA, BROKEN, mach"]),
        ("am_app:Holder.Iner", ["class Holder in am_app has no 'Iner'", "did you mean 'Inner'"]),
        ("am_app:build", ["am_app:build is the function build", "a States class", "Door"]),
        ("am_app:Holder", ["am_app:Holder is the class Holder", "a States class"]),
        ("am_app:__name__", ["am_app:__name__ is of type str", "a States class"]),
        ("am_app:json", ["am_app:json is a module", "a States class", "Door"]),
        ("am_app:BROKEN", ["am_app:BROKEN is no valid schema", "Foo", "'Bra'", "'Bar'"]),
        ("am_app", ["'am_app' is not of the form MODULE:NAME", "it has Door"]),
        ("am_app.Door", ["not of the form MODULE:NAME", "did you mean am_app:Door"]),
        ("am_app:", ["not of the form MODULE:NAME", "it has Door"]),
        (":Door", ["':Door' is not of the form MODULE:NAME"]),
        ("nothing", ["'nothing' is not of the form MODULE:NAME"]),
        ("am_package/door.py:Door", ["is a file, not a module", "did you mean 'am_package.door'"]),
        (
            "am_crash:Door",
            ["importing am_crash failed: ValueError: no luck", "am_crash.py, line 2"],
        ),
        ("am_exit:Door", ["importing am_exit failed: SystemExit: 3"]),
        ("am_needs:Door", ["importing am_needs failed", "am_lacking_dependency"]),
    ],
)
def test_a_wrong_target_is_named_with_the_nearest_right_one(
    target: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = _refused(capsys, "inspect", target)

    for word in words:
        assert word in message


def test_an_unknown_command_is_named_with_the_nearest_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "no command 'inspekt'; did you mean 'inspect'?" in _refused(capsys, "inspekt", "x:y")
    assert "no command 'zzz'; there is inspect" in _refused(capsys, "zzz")


@pytest.mark.parametrize("arguments", [["inspect"], ["--bogus"], ["inspect", "a:b", "--jsn"]])
def test_wrong_options_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)

    assert exit_info.value.code == 2
    assert "usage: am" in capsys.readouterr().err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--help"])

    assert exit_info.value.code == 0
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"{command.name} " in printed
        assert command.summary[:30] in printed


def test_without_arguments_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: am" in _printed(capsys)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_of_a_command_shows_examples(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([command.name, "--help"])

    assert exit_info.value.code == 0
    assert f"am {command.name} " in capsys.readouterr().out.partition("examples:")[2]


def test_version_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2.3")

    assert _printed(capsys, "--version") == "asyncmachine 1.2.3\n"


def test_without_an_installation_there_is_no_version(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)

    assert "asyncmachine is not installed" in _refused(capsys, "--version")


def test_it_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "asyncmachine.tools.cli", "inspect", "am_app:Door", "--json"]
    root = str(Path(__file__).parents[2])

    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": root}
    )

    assert list(json.loads(done.stdout)) == ["Open", "Closed", "Exception"]
