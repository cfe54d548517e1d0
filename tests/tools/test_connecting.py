"""``am connect``: it shows a machine of another process, follows it, and asks for changes."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncmachine import Machine, State
from asyncmachine.net import Server, serve
from asyncmachine.tools.cli import main
from tests.tools.certificate import CERTIFICATE
from tests.tools.programs import SOON, Lines, next_line, run_with, send, start


@pytest.fixture
def machine() -> Iterator[Machine]:
    states = {"Foo": State(), "Bar": State(remove="Foo"), "Baz": State(require="Bar")}
    with Machine(states, id="app") as machine:
        yield machine


@pytest.fixture
def server(machine: Machine) -> Iterator[Server]:
    with serve(machine, "tcp://127.0.0.1:0") as server:
        yield server


def without_time(line: str) -> str:
    assert re.match(r"\d\d:\d\d:\d\d\.\d\d\d  ", line), line
    return line[14:]


def test_once_it_prints_the_states(
    machine: Machine, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add("Foo")
    assert main(["connect", server.address, "app", "--once"]) == 0
    assert capsys.readouterr().out == f"{machine.describe()}\n"


def test_it_follows_until_ctrl_c(machine: Machine, server: Server) -> None:
    def use(lines: Lines) -> None:
        assert without_time(lines.next()) == "()[Foo:0 Bar:0 Baz:0 Exception:0]"
        for state, line in [
            ("Foo", "+Foo  (Foo:1)"),
            ("Bar", "-Foo +Bar  (Bar:1)"),
            ("Baz", "+Baz  (Bar:1 Baz:1)"),
        ]:
            machine.add(state)
            assert without_time(lines.next()) == line
        send(signal.SIGINT)

    assert run_with(use, "connect", server.address) == 130


def test_what_comes_and_goes_at_once_is_told(machine: Machine, server: Server) -> None:
    def come_and_go() -> None:
        machine.add("Foo")
        machine.remove("Foo")

    def use(lines: Lines) -> None:
        lines.next()
        told = ""
        come_and_go()
        while not told.endswith("-Foo"):
            told += without_time(lines.next()).partition("  ")[0]
        assert told in ("+Foo -Foo", "+Foo-Foo")
        send(signal.SIGINT)

    for _ in range(20):
        assert run_with(use, "connect", server.address) == 130


def test_a_machine_that_is_disposed_ends_it(machine: Machine, server: Server) -> None:
    def use(lines: Lines) -> None:
        lines.next()
        machine.dispose()
        assert without_time(lines.next()) == "the machine app is disposed"

    assert run_with(use, "connect", server.address) == 1


def test_a_server_that_ends_ends_it(machine: Machine) -> None:
    with serve(machine, "tcp://127.0.0.1:0") as server:

        def use(lines: Lines) -> None:
            lines.next()
            server.close()
            line = ""
            while "is lost" not in line:
                line = without_time(lines.next())
            assert server.address in line

        assert run_with(use, "connect", server.address) == 1


def test_it_connects_again_when_asked_to(machine: Machine, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s.sock"
    with serve(machine, address) as first:

        def use(lines: Lines) -> None:
            lines.next()
            first.close()
            machine.add("Foo")
            with serve(machine, address):
                told = [without_time(lines.next())]
                while not {"connected", "+Foo  (Foo:1)"} <= set(told):
                    told.append(without_time(lines.next()))
                machine.add("Bar")
                assert without_time(lines.next()) == "-Foo +Bar  (Bar:1)"
                send(signal.SIGINT)

        assert run_with(use, "connect", address, "--reconnect") == 130


def test_another_life_of_the_machine_is_told(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s.sock"
    states = {"Foo": State(), "Bar": State()}
    with Machine(states, id="app") as old, Machine(states, id="app") as new:
        old.add("Foo", "Bar")
        with serve(old, address) as first:

            def use(lines: Lines) -> None:
                lines.next()
                first.close()
                with serve(new, address):
                    line = ""
                    while "begins again" not in line:
                        line = without_time(lines.next())
                    assert line == "Foo begins again Bar begins again  ()"
                    send(signal.SIGINT)

            assert run_with(use, "connect", address, "--reconnect") == 130


@pytest.mark.parametrize(
    ("options", "code", "printed", "args"),
    [
        (["--add", "Bar"], 0, "(Bar:1)[Foo:2 Baz:0 Exception:0]", {}),
        (["--add", "Bar,Baz"], 0, "(Bar:1 Baz:1)[Foo:2 Exception:0]", {}),
        (["--remove", "Foo"], 0, "()[Foo:2 Bar:0 Baz:0 Exception:0]", {}),
        (["--set", "Bar"], 0, "(Bar:1)[Foo:2 Baz:0 Exception:0]", {}),
        (["--add", "Baz"], 1, "refused: Baz requires Bar, which is inactive", None),
        (
            ["--add", "Bar", "--arg", "n=7", "--arg", "name=Ann", "--arg", 'l=["a"]'],
            0,
            "(Bar:1)[Foo:2 Baz:0 Exception:0]",
            {"n": 7, "name": "Ann", "l": ["a"]},
        ),
    ],
)
def test_it_asks_for_changes(
    machine: Machine,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    printed: str,
    args: dict[str, object] | None,
) -> None:
    machine.add("Foo")
    heard: list[dict[str, object]] = []
    machine.on("Any_state", lambda event: heard.append(dict(event.args)))

    assert main(["connect", server.address, *options]) == code

    assert capsys.readouterr().out == f"{printed}\n"
    assert heard == ([] if args is None else [args])


def test_it_proves_its_secret_over_tls(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ssl

    (tmp_path / "both.pem").write_text(CERTIFICATE)
    (tmp_path / "secret").write_text("hush")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    trust = ["--ca", str(tmp_path / "both.pem")]
    with serve(machine, "tcp://127.0.0.1:0", secret="hush", tls=context) as server:
        known = ["connect", server.address, "--once", "--secret-file", str(tmp_path / "secret")]
        assert main([*known, *trust]) == 0
        assert capsys.readouterr().out == f"{machine.describe()}\n"
        assert main([*known, "--tls"]) == 2
        assert "certificate" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["other", "--once"], ["no machine 'other'", "app"]),
        (["--add", "Fo"], ["'Fo'", "did you mean 'Foo'"]),
        (["--add", "Foo", "--arg", "n"], ["--arg n", "KEY=VALUE"]),
        (["--arg", "n=1"], ["--arg needs --add, --remove or --set"]),
        (["--secret-file", "/no/such/file"], ["/no/such/file: No such file"]),
        (["--ca", "/no/such/file"], ["--ca /no/such/file: No such file"]),
    ],
)
def test_a_mistake_is_told_in_one_line(
    server: Server, capsys: pytest.CaptureFixture[str], options: list[str], words: list[str]
) -> None:
    assert main(["connect", server.address, *options]) == 2

    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("am: error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize("address", ["unix:/no/such/socket", "tcp://127.0.0.1:1", "nowhere"])
def test_nobody_there_is_told_in_one_line(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", address]) == 2
    assert address in capsys.readouterr().err


def test_a_wrong_secret_is_told(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(machine, "tcp://127.0.0.1:0", secret="hush") as server:
        monkeypatch.setenv("AM_SECRET", "guess")
        assert main(["connect", server.address, "--once"]) == 2
    assert "secret" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_runs_as_a_program(
    machine: Machine, server: Server, number: int, code: int, tmp_path: Path
) -> None:
    with start("connect", server.address, cwd=tmp_path) as program:
        assert without_time(next_line(program)) == machine.describe()
        machine.add("Foo")
        assert without_time(next_line(program)) == "+Foo  (Foo:1)"
        program.send_signal(number)
        output, errors = program.communicate(timeout=SOON)
    assert (output, errors, program.returncode) == ("", "", code)


def test_a_reader_that_has_had_enough_ends_it(
    machine: Machine, server: Server, tmp_path: Path
) -> None:
    with start("connect", server.address, cwd=tmp_path) as program:
        next_line(program)
        assert program.stdout is not None
        program.stdout.close()
        machine.add("Foo")
        assert program.wait(SOON) == 0
        assert program.stderr is not None
        assert program.stderr.read() == ""
