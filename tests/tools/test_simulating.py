"""``am sim``: its options, a run that ends, and one that is interrupted."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from asyncmachine.tools.cli import main
from tests.tools.programs import SOON, next_line, start

# Virtual time, and few peers: done at once.
QUICK = ("sim", "--speed", "0", "--peers", "6", "--topics", "2", "--duration", "20")
# How many messages and deliveries there were, and how long it took.
TOTALS = r"\d+ messages, \d+ deliveries, \d+ missed; \d+ s in \d+\.\d s"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the source, for what is written."""
    monkeypatch.chdir(tmp_path)


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Give the one line that says what is wrong."""
    assert main(("sim", *arguments)) == 2
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    assert line.startswith("am: error: ")
    return line


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["sim", "--help"])

    assert exit_info.value.code == 0
    printed = capsys.readouterr().out
    for option in (
        *("--peers", "--topics", "--processes", "--duration", "--router", "--seed", "--speed"),
        *("--fail", "--kill-process", "--deadline", "--steady", "--unsigned", "--report", "--log"),
    ):
        assert re.search(rf"^  {option}\b.*", printed, re.MULTILINE), option
    told, _, examples = printed.partition("examples:")
    assert "Ctrl-C" in told
    assert "the same seed gives the same run" in told
    assert examples.count("am sim") >= 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--peers", "1"], ["--peers", "2 or more"]),
        (["--topics", "0"], ["--topics", "1 or more"]),
        (["--processes", "-1"], ["--processes", "0 or more"]),
        (["--duration", "0"], ["--duration", "above 0"]),
        (["--duration", "-3"], ["--duration", "above 0", "-3"]),
        (["--duration", "inf"], ["--duration", "inf"]),
        (["--speed", "-1"], ["--speed", "0 or more", "-1"]),
        (["--speed", "nan"], ["--speed", "nan"]),
        (["--fail", "-1"], ["--fail", "0 or more", "-1"]),
        (["--deadline", "0"], ["--deadline", "above 0"]),
        (["--kill-process", "3"], ["--kill-process", "--processes 2"]),
        (["--kill-process", "3", "--processes", "1"], ["--kill-process", "--processes 2"]),
        (["--kill-process", "-1", "--processes", "2"], ["--kill-process", "-1"]),
        (["--kill-process", "nan", "--processes", "2"], ["--kill-process", "nan"]),
        (["--speed", "0", "--processes", "2"], ["--processes", "--speed"]),
        (["--log", "a.log", "--processes", "2"], ["--log", "--processes"]),
        (["--log", "none/a.log"], ["--log", "none/a.log", "No such file"]),
        (["--report", "file/below"], ["--report", "file/below", "Not a directory"]),
    ],
)
def test_options_that_make_no_sense_are_named(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    message = _refused(capsys, "--duration", "1", *arguments)

    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--peers", "many"], "--peers"),
        (["--speed", "fast"], "--speed"),
        (["--report"], "--report"),
        (["--speeed", "1"], "--speeed"),
    ],
)
def test_options_that_can_not_be_read_are_named(
    arguments: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["sim", *arguments])

    assert exit_info.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert option in line


def test_an_unknown_router_is_named_with_the_nearest_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = _refused(capsys, "--router", "gosip")
    assert "no router 'gosip'; did you mean 'gossip'?" in message

    message = _refused(capsys, "--router", "zzz")
    assert message.endswith("no router 'zzz'; there is flood, gossip")


def test_a_run_prints_how_it_stands_and_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(QUICK) == 0

    out, err = capsys.readouterr()
    first, *_, last = out.splitlines()
    assert re.match(r"1 s \(5 %\): \d peers, \d topics, ", first)
    assert re.fullmatch(TOTALS, last)
    assert ", 0 missed; 20 s in " in last
    messages, deliveries, *_ = map(int, re.findall(r"\d+", last))
    assert 0 < messages < deliveries
    assert not err


def test_options_reach_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main((*QUICK, "--seed", "7", "--log", "one.log")) == 0
    assert main((*QUICK, "--seed", "7", "--log", "two.log")) == 0
    assert main((*QUICK, "--seed", "8", "--log", "three.log")) == 0
    totals = [line for line in capsys.readouterr().out.splitlines() if "deliveries" in line]

    one, two, three = ((tmp_path / f"{name}.log").read_text() for name in ("one", "two", "three"))
    assert one == two != three
    assert totals[0].partition(";")[0] == totals[1].partition(";")[0]


@pytest.mark.parametrize("more", [["--router", "flood"], ["--steady"], ["--unsigned"]])
def test_variants_run(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main((*QUICK, *more)) == 0

    assert ", 0 missed;" in capsys.readouterr().out


def test_messages_that_miss_somebody_make_it_fail(capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing is as fast as that.
    assert main((*QUICK, "--deadline", "0.0001")) == 1

    *_, last = capsys.readouterr().out.splitlines()
    assert " 0 deliveries, " in last
    assert " 0 missed" not in last


def test_a_report_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main((*QUICK, "--report", "new/folder")) == 0

    *_, line = capsys.readouterr().out.splitlines()
    page = tmp_path / line.removeprefix("report: ")
    assert page.parent == tmp_path / "new" / "folder"
    assert "<html" in page.read_text()


@pytest.mark.parametrize("more", [[], ["--speed", "20"], ["--processes", "2"]])
def test_ctrl_c_ends_a_run_with_its_report(more: list[str], tmp_path: Path) -> None:
    arguments = ("sim", "--peers", "6", "--duration", "600", "--report", "here", *more)
    with start(*arguments, cwd=tmp_path) as program:
        assert "peers" in next_line(program)  # so it runs

        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=SOON)

    assert program.returncode == 130
    assert not err
    *_, totals, report = out.splitlines()
    assert re.fullmatch(TOTALS + ", ended early", totals)
    assert "<html" in (tmp_path / report.removeprefix("report: ")).read_text()


def test_it_ends_as_well_when_it_is_terminated(tmp_path: Path) -> None:
    with start(*QUICK, "--duration", "600", "--speed", "20", cwd=tmp_path) as program:
        assert "peers" in next_line(program)

        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=SOON)

    assert program.returncode == 130
    assert not err
    assert re.fullmatch(TOTALS + ", ended early", out.splitlines()[-1])
