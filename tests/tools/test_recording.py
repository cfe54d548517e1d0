"""``am record``: a real recorder, real programs, real files."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncmachine import Machine, State
from asyncmachine.debugger.dumps import DumpReader, DumpWriter
from asyncmachine.debugger.records import MachineRecord, Record, TransitionRecord
from asyncmachine.telemetry.feed import attach
from asyncmachine.tools.cli import main
from asyncmachine.tools.recording import RECORD
from tests.races import PATIENCE
from tests.telemetry.feeding import environment, line_of

PROGRAM = """
from asyncmachine import Machine, State
def fail(event):
    raise LookupError("no such thing")
machine = Machine({"Foo": State(multi=True), "Bad": State()}, id="m", tags=["t"],
                  handlers={"Bad_state": fail}, log_args=["n"], log_level=1)
Machine({"A": State()}, id="kid", parent=machine).add("A")
for n in range(300):
    machine.add("Foo", n=n)
machine.add("Bad")
"""


@contextmanager
def recording(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a recorder; give it and its address."""
    command = [sys.executable, "-m", "asyncmachine.tools.cli", "record", *arguments]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert line_of(process).startswith("recording into ")
            yield process, line_of(process).removeprefix("listening at ")
        finally:
            process.kill()


def run_program(address: str) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env=environment(AM_DBG=address),
        check=True,
        timeout=PATIENCE,
        capture_output=True,
    )


def wait_until_gone(recorder: subprocess.Popen[str]) -> list[str]:
    """Read what the recorder prints until the program has gone."""
    lines: list[str] = []
    while not (line := line_of(recorder)).startswith("connection closed"):
        assert line, lines
        lines.append(line)
    return lines


def read(path: Path) -> list[Record]:
    with DumpReader(path) as reader:
        records = list(reader)
        assert not reader.damages
        assert not reader.left_over
    return records


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_is_recorded(tmp_path: Path, number: signal.Signals) -> None:
    with recording(tmp_path, "-o", "x.amdump") as (recorder, address):
        run_program(address)
        lines = wait_until_gone(recorder)
        recorder.send_signal(number)
        rest, errors = recorder.communicate(timeout=PATIENCE)
    assert recorder.returncode == 0
    assert errors == ""
    assert any(line.startswith("connected: pid ") for line in lines)
    assert rest == "recorded 303 transitions: x.amdump\n"
    records = read(tmp_path / "x.amdump")
    machines = {e.machine_id for e in records if isinstance(e, MachineRecord)}
    assert machines == {"m", "kid"}
    assert sum(isinstance(each, TransitionRecord) for each in records) == 303


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_records_what_it_hears_until_a_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    machine = Machine({"Foo": State(multi=True)}, id="m")

    def live() -> None:
        with attach(machine, address) as feed:
            assert feed.wait_connected(PATIENCE)
            for _ in range(25):
                machine.add("Foo")
        os.kill(os.getpid(), number)

    path = tmp_path / "x.amdump"
    thread = threading.Thread(target=live)
    thread.start()
    options = ["--listen", address, "-o", str(path), "--max-transitions", "10"]
    assert main(["record", *options]) == 0
    thread.join(PATIENCE)
    lines = capsys.readouterr().out.splitlines()
    names = [str(tmp_path / f"x{n}.amdump") for n in ("", "-2", "-3")]
    assert [line for line in lines if line.startswith("recording")] == [
        f"recording into {name}" for name in names
    ]
    assert lines[-1] == f"recorded 25 transitions: {', '.join(names)}"
    assert any(line.startswith("connection closed: pid ") for line in lines)


def test_files_rotate_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    (tmp_path / "x-3.amdump").write_text("of somebody else")
    options = ("-o", "x-{n}.amdump", "--max-transitions", "100", "--keep", "2")
    with recording(tmp_path, *options) as (recorder, address):
        run_program(address)
        wait_until_gone(recorder)
        recorder.terminate()
        recorder.communicate(timeout=PATIENCE)
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["x-3.amdump", "x-4.amdump", "x-5.amdump"]
    for name in names[1:]:
        records = read(tmp_path / name)
        assert isinstance(records[0], MachineRecord)
        assert 0 < sum(isinstance(each, TransitionRecord) for each in records) <= 100


def test_a_terminal_gets_a_status_line(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "asyncmachine.tools.cli", "record", "-o", "x.amdump"]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"],
        cwd=tmp_path,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while b"0 connections, 0 transitions, 0 dropped, " not in seen:
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        os.close(ours)


def test_a_dump_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.amdump"
    with recording(tmp_path, "-o", str(path)) as (recorder, address):
        run_program(address)
        wait_until_gone(recorder)
        recorder.terminate()
        recorder.communicate(timeout=PATIENCE)
    assert main(["record", "--show", str(path)]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0].startswith(f"{path}: dump of version 1, begun ")
    assert any(line.startswith("m: 3 states, pid ") and line.endswith("tags t") for line in lines)
    assert "m: clocks 0 0 0" in lines
    assert " [add] Foo (n=7) -> Foo+2 in " in shown
    assert " [add] Bad failed -> " in shown
    assert "    error: LookupError: no such thing" in lines
    assert " [add] Exception -> Exception+1 by m #" in shown
    assert lines[-1] == "303 transitions of 2 machines, 0 dropped"

    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data) + b"xx")
    assert main(["record", "--show", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("damaged: ")
    assert lines[-1] == "cut short: 2 bytes are no whole block"


def test_who_has_read_enough_of_a_dump_sees_no_error(tmp_path: Path) -> None:
    path = tmp_path / "x.amdump"
    schema: dict[str, dict[str, list[str] | bool]] = {"Foo": {}}
    machines: list[Record] = [
        MachineRecord(f"p:{n}", "m" * 100, "h", 1, "x", "p", "", (), ("Foo",), schema)
        for n in range(5000)
    ]
    with DumpWriter(path) as writer:
        writer.write(machines)
    show = f"{sys.executable} -m asyncmachine.tools.cli record --show {path}"
    done = subprocess.run(
        ["bash", "-c", f"{show} | head -1; exit ${{PIPESTATUS[0]}}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stderr == ""


def test_it_records_on_when_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    options = ("-o", "x.amdump", "--max-transitions", "100")
    with recording(tmp_path, *options) as (recorder, address):
        assert recorder.stdout is not None
        recorder.stdout.close()
        machine = Machine({"Foo": State(multi=True)}, id="m")
        with attach(machine, address) as feed:
            for _ in range(250):
                machine.add("Foo")
            assert feed.flush(PATIENCE)
        pause = threading.Event()
        while not (tmp_path / "x-3.amdump").exists():
            assert recorder.poll() is None
            pause.wait(0.02)
        recorder.terminate()
        assert recorder.stderr is not None
        assert recorder.stderr.read() == ""
        assert recorder.wait(PATIENCE) == 0
    files = [read(tmp_path / f"x{n}.amdump") for n in ("", "-2", "-3")]
    assert sum(isinstance(each, TransitionRecord) for file in files for each in file) == 250


def test_who_can_not_listen_touches_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "x.amdump"
    there.write_text("precious")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["record", "--force", "-o", str(there), "--listen", address]) == 2
    assert "can not listen at" in capsys.readouterr().err
    assert there.read_text() == "precious"


def test_mistakes_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "x.amdump"
    there.write_text("precious")
    new = str(tmp_path / "new.amdump")
    for arguments, message in (
        (["-o", str(there)], "x.amdump is there already; --force replaces it"),
        (["-o", str(tmp_path / "no" / "x")], "No such file or directory"),
        (["-o", new, "--listen", "nonsense"], "'nonsense' is no address"),
        (["--show", str(there)], "x.amdump is no dump"),
        (["--show", new], "No such file or directory"),
    ):
        assert main(["record", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert there.read_text() == "precious"
    assert not Path(new).exists()
    with pytest.raises(SystemExit):
        main(["record", "--keep", "0"])
    assert "invalid whole number from 1 value: '0'" in capsys.readouterr().err


def test_the_help_teaches() -> None:
    for word in ("AM_DBG=localhost:6831", "{n}", "--keep 24", "--show", "exit code 0"):
        assert word in RECORD.details
