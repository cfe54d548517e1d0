"""``am serve`` and ``am host``: machines are offered until a signal comes."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import pytest

from asyncmachine import Machine
from asyncmachine.net import AuthenticationError, NotAllowedError, connect
from asyncmachine.tools.cli import main
from tests.tools.certificate import CERTIFICATE
from tests.tools.programs import SOON, Lines, next_line, run_with, send, start


@pytest.fixture(autouse=True)
def app(served_app: Path) -> Path:
    return served_app


def address_in(line: str) -> str:
    return line.rpartition(" ")[2]


def read_states(machine: Machine) -> str:
    return machine.describe()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_serves_until_a_signal_comes(number: int, code: int, tmp_path: Path) -> None:
    def use(lines: Lines) -> None:
        line = lines.next()
        assert line == f"serving app at unix:{tmp_path}/s.sock"
        with connect(address_in(line)) as remote:
            assert remote.add("Foo")
        send(number)

    assert run_with(use, "serve", "am_served:mach", f"unix:{tmp_path}/s.sock") == code
    assert not (tmp_path / "s.sock").exists()


def test_a_machine_is_built_from_a_schema_or_a_function() -> None:
    def use(lines: Lines) -> None:
        line = lines.next()
        assert line.startswith("serving Door, STATES, built, app at tcp://127.0.0.1:")
        for name in ("Door", "built"):
            with connect(address_in(line), name) as remote:
                assert remote.describe() == "()[Open:0 Closed:0 Exception:0]"
        send(signal.SIGTERM)

    targets = [f"am_served:{name}" for name in ("Door", "STATES", "build", "mach")]
    assert run_with(use, "serve", *targets, "tcp://127.0.0.1:0") == 0


@pytest.mark.parametrize("by_environment", [True, False])
def test_clients_have_to_know_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    (tmp_path / "secret").write_text("hush\n")
    options = ["--secret-file", "secret"]
    if by_environment:
        monkeypatch.setenv("AM_SECRET", "hush")
        options = []

    def use(lines: Lines) -> None:
        address = address_in(lines.next())
        with pytest.raises(AuthenticationError):
            connect(address, secret="guess")
        with connect(address, secret="hush") as remote:
            assert remote.add("Foo")
        send(signal.SIGTERM)

    assert run_with(use, "serve", *options, "am_served:mach", "tcp://127.0.0.1:0") == 0


@pytest.mark.parametrize("options", [["--allow", "Foo"], ["--allow", "Foo,", "--allow", "Foo"]])
def test_only_the_allowed_states_can_be_called(options: list[str]) -> None:
    def use(lines: Lines) -> None:
        with connect(address_in(lines.next())) as remote:
            assert remote.add("Foo")
            with pytest.raises(NotAllowedError, match="Bar"):
                remote.add("Bar")
        send(signal.SIGTERM)

    assert run_with(use, "serve", *options, "am_served:mach", "tcp://127.0.0.1:0") == 0


def test_read_only_clients_change_nothing() -> None:
    def use(lines: Lines) -> None:
        with connect(address_in(lines.next())) as remote:
            with pytest.raises(NotAllowedError):
                remote.add("Foo")
            assert remote.describe() == "()[Foo:0 Bar:0 Exception:0]"
        send(signal.SIGTERM)

    assert run_with(use, "serve", "--read-only", "am_served:mach", "tcp://127.0.0.1:0") == 0


@pytest.mark.parametrize(
    ("command", "may"),
    [(["serve"], False), (["serve", "--allow-eval"], True), (["host"], True)],
)
def test_functions_are_run_only_where_that_is_allowed(command: list[str], may: bool) -> None:
    def use(lines: Lines) -> None:
        with connect(address_in(lines.next())) as remote:
            if may:
                assert remote.eval(read_states) == "()[Open:0 Closed:0 Exception:0]"
            else:
                with pytest.raises(NotAllowedError):
                    remote.eval(read_states)
        send(signal.SIGTERM)

    assert run_with(use, *command, "am_served:build", "tcp://127.0.0.1:0") == 0


def test_with_a_certificate_it_speaks_tls(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text(CERTIFICATE)

    def use(lines: Lines) -> None:
        context = ssl.create_default_context(cafile="cert.pem")
        with connect(address_in(lines.next()), tls=context) as remote:
            assert remote.add("Foo")
        send(signal.SIGTERM)

    served = ["serve", "--cert", "cert.pem", "am_served:mach", "tcp://127.0.0.1:0"]
    assert run_with(use, *served) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["am_served:mch", "unix:s"], ["am_served has no 'mch'", "did you mean 'mach'"]),
        (["am_served:fail", "unix:s"], ["am_served:fail failed: ValueError: no luck", "line 15"]),
        (["am_served:build_nothing", "unix:s"], ["returned no Machine but a int"]),
        (["am_served:mach", "carrier-pigeon"], ["carrier-pigeon"]),
        (["am_served:mach", "tcp://0.0.0.0:0"], ["0.0.0.0", "secret"]),
        (["am_served:mach", "am_served:twin", "unix:s"], ["'app'"]),
        (["--allow", "Fo", "am_served:mach", "unix:s"], ["'Fo'", "did you mean 'Foo'"]),
        (["--secret-file", "no", "am_served:mach", "unix:s"], ["--secret-file no: No such file"]),
        (["--secret-file", "empty", "am_served:mach", "unix:s"], ["there is no secret in it"]),
        (["--cert", "empty", "--key", "no", "am_served:mach", "unix:s"], ["--cert empty --key no"]),
        (["--cert", "empty", "am_served:mach", "unix:s"], ["--cert empty:"]),
        (["--key", "empty", "am_served:mach", "unix:s"], ["--key needs --cert"]),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()

    assert main(["serve", *arguments]) == 2

    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("am: error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_an_address_that_is_taken_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def use(lines: Lines) -> None:
        address = address_in(lines.next())
        with start("serve", "am_served:mach", address, cwd=tmp_path) as second:
            output, errors = second.communicate(timeout=SOON)
        assert (output, second.returncode) == ("", 2)
        assert errors.startswith("am: error: ")
        assert address.removeprefix("tcp://") in errors
        send(signal.SIGTERM)

    assert run_with(use, "serve", "am_served:mach", "tcp://127.0.0.1:0") == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_runs_as_a_program(number: int, code: int, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s.sock"
    with start("serve", "am_served:mach", address, cwd=tmp_path) as server:
        assert next_line(server) == f"serving app at {address}"
        assert (tmp_path / "s.sock").stat().st_mode & 0o777 == 0o600
        with connect(address) as remote:
            assert remote.add("Foo")
        server.send_signal(number)
        output, errors = server.communicate(timeout=SOON)
    assert (output, errors, server.returncode) == ("", "", code)
    assert not (tmp_path / "s.sock").exists()
