from __future__ import annotations

import gzip
import hashlib
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asyncmachine import ContextExpired, Event, Machine, State
from asyncmachine.history import SQLiteHistory
from examples.file_processing import work
from examples.file_processing.__main__ import output_names, process
from examples.file_processing.handlers import FileJob
from tests.examples.programs import ROOT, help_of, press_ctrl_c, run, start

SOON = 10  # seconds; only a failing test waits so long
TEXT = b"one two\nthree\n"
UPLOADED = ["FileUploaded", "FileDownloaded", "FileProcessed"]


class Site(ThreadingHTTPServer):
    """A web server: /good.txt, /short (breaks off), /slow (never ends), else 404."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.asked = threading.Semaphore(0)
        self.closing = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("good.txt"):
            self.begin(len(TEXT))
            self.wfile.write(TEXT)
        elif path == "/short":
            self.begin(len(TEXT) + 1)
            self.wfile.write(TEXT)
        elif path.startswith("/slow"):
            self.begin(1_000_000)
            self.wfile.write(b"x" * 500_000)
            self.server.asked.release()
            self.server.closing.wait()
        else:
            self.send_error(404)

    def begin(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        threading.Thread(target=site.serve_forever, args=(0.01,)).start()
        yield site
        site.closing.set()
        site.shutdown()


class Desk:
    """A place to run the example in, which sees what it leaves behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.temp = folder / "temp"
        self.temp.mkdir(parents=True)

    def file(self, path: str, content: bytes = TEXT) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def run(self, *args: object) -> subprocess.CompletedProcess[str]:
        return run("file_processing", "--out", self.out, *args, TMPDIR=str(self.temp))

    def rows(self, *args: object, code: int = 0) -> list[dict[str, Any]]:
        program = self.run("--json", *args)
        assert program.returncode == code, program.stderr
        rows: list[dict[str, Any]] = json.loads(program.stdout)
        return rows

    def outputs(self) -> dict[str, bytes]:
        """What was uploaded, unpacked; everything that lies there, hidden or not."""
        return {file.name: gzip.decompress(file.read_bytes()) for file in self.out.iterdir()}

    def leftovers(self) -> list[Path]:
        return list(self.temp.rglob("*"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_file_is_processed_and_uploaded(desk: Desk) -> None:
    file = desk.file("a.txt")
    [row] = desk.rows(file)
    assert row["file"] == str(file)
    assert row["output"] == str(desk.out / "a.txt.gz")
    assert row["report"] == {
        "size": 14,
        "lines": 2,
        "words": 3,
        "sha256": hashlib.sha256(TEXT).hexdigest(),
        "compressed": (desk.out / "a.txt.gz").stat().st_size,
    }
    assert row["error"] is None
    assert desk.outputs() == {"a.txt.gz": TEXT}
    assert desk.leftovers() == []


def test_the_machine_of_a_file_went_through_all_its_states(desk: Desk) -> None:
    [row] = desk.rows(desk.file("a.txt"))
    assert sorted(row["states"]) == sorted(UPLOADED)
    assert row["ticks"] == {
        "DownloadingFile": 2,
        "FileDownloaded": 1,
        "ProcessingFile": 2,
        "FileProcessed": 1,
        "UploadingFile": 2,
        "FileUploaded": 1,
        "Exception": 0,
    }


def test_the_same_input_gives_the_same_bytes(desk: Desk) -> None:
    file = desk.file("a.txt")
    desk.rows(file)
    first = (desk.out / "a.txt.gz").read_bytes()
    desk.rows(file)
    assert (desk.out / "a.txt.gz").read_bytes() == first


def test_urls_are_fetched(desk: Desk, site: Site) -> None:
    here = desk.file("here.txt", b"here")
    rows = desk.rows(site.url("good.txt?version=1#top"), here.as_uri(), site.url("a%20good.txt"))
    assert [row["error"] for row in rows] == [None] * 3
    assert desk.outputs() == {"good.txt.gz": TEXT, "here.txt.gz": b"here", "a good.txt.gz": TEXT}


def test_files_of_the_same_name_do_not_overwrite_each_other(desk: Desk) -> None:
    files = [desk.file(f"{folder}/a.txt", folder.encode()) for folder in ("x", "y", "z")]
    rows = desk.rows(*files)
    assert sorted(desk.outputs().values()) == [b"x", b"y", b"z"]
    for row, content in zip(rows, (b"x", b"y", b"z"), strict=True):
        assert gzip.decompress(Path(row["output"]).read_bytes()) == content


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a", "b/a", "a"], ["a.gz", "a.2.gz", "a.3.gz"]),
        (["a", "a.2", "a"], ["a.gz", "a.2.gz", "a.3.gz"]),
        (["/", "http://host/x/?q=a/b", "file:///c%2Fd"], ["file.gz", "x.gz", "d.gz"]),
        (["a?b/c", "http:c"], ["c.gz", "http:c.gz"]),
    ],
)
def test_output_names(sources: list[str], names: list[str]) -> None:
    assert list(output_names(sources)) == names


def test_a_file_that_fails_is_named_and_harms_no_other(desk: Desk, site: Site) -> None:
    folder = desk.folder / "folder"
    folder.mkdir()
    failing = {
        desk.folder / "missing.txt": "FileNotFoundError",
        folder: "IsADirectoryError",
        folder.as_uri(): "URLError",
        site.url("nothing"): "HTTPError: HTTP Error 404: Not Found",
        site.url("short"): "ConnectionError: the server sent 14 of 15 bytes",
        refused_url(): "refused",
        "http://[": "ValueError",
        "file:///nul%00byte": "ValueError",
    }
    rows = desk.rows(*failing, desk.file("fine.txt"), code=1)
    for row, (source, error) in zip(rows, failing.items(), strict=False):
        assert row["file"] == str(source)
        assert error in row["error"]
        assert row["states"] == ["Exception"]
        assert row["output"] is None
    assert sorted(rows[-1]["states"]) == sorted(UPLOADED)
    assert desk.outputs() == {"fine.txt.gz": TEXT}
    assert desk.leftovers() == []


def refused_url() -> str:
    """Where nobody listens: the port was free a moment ago."""
    with Site() as site:
        return site.url("good.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_fails(desk: Desk) -> None:
    file = desk.file("secret.txt")
    file.chmod(0)
    [row] = desk.rows(file, code=1)
    assert row["error"].startswith("PermissionError")


def test_an_upload_that_fails_leaves_no_part(desk: Desk) -> None:
    (desk.out / "a.txt.gz" / "in the way").mkdir(parents=True)
    [row] = desk.rows(desk.file("a.txt"), code=1)
    assert row["error"].startswith("IsADirectoryError")
    assert sorted(row["states"]) == ["Exception", "FileDownloaded", "FileProcessed"]
    assert [path.name for path in desk.out.iterdir()] == ["a.txt.gz"]
    assert desk.leftovers() == []


def test_the_table_names_each_file_with_states_ticks_and_error(desk: Desk) -> None:
    file, missing = desk.file("[red]a.txt"), desk.folder / "missing.txt"
    program = desk.run(file, missing)
    assert program.returncode == 1
    lines = [line.rstrip() for line in program.stdout.splitlines()]
    gzipped = (desk.out / "[red]a.txt.gz").stat().st_size
    assert lines[0].split() == ["file", "lines", "words", "bytes", "gzip", "ticks", "state"]
    assert lines[1].split() == [
        *(str(file), "2", "3", "14", str(gzipped)),
        *("2", "1", "2", "1", "2", "1", "0", "FileUploaded"),
    ]
    assert lines[2].split() == [str(missing), *("2", "0", "0", "0", "0", "0", "1", "Exception")]
    assert lines[3].strip().startswith("FileNotFoundError: ")
    assert lines[-1] == f"1 uploaded to {desk.out}, 1 failed, 0 not finished"


def test_without_a_terminal_each_file_that_ends_is_a_plain_line(desk: Desk) -> None:
    file, missing = desk.file("a.txt"), desk.folder / "missing.txt"
    lines = sorted(desk.run(file, missing).stderr.splitlines())
    assert len(lines) == 2
    assert lines[0].startswith(f"Exception    {missing}: FileNotFoundError: ")
    assert lines[1] == f"FileUploaded {file}"


def test_on_a_terminal_there_are_bars(desk: Desk, site: Site) -> None:
    screen, terminal = pty.openpty()
    args = ("--out", desk.out, site.url("slow"))
    with start("file_processing", *args, stderr=terminal, TERM="xterm") as program:
        os.close(terminal)
        seen = b""
        while b"0/1" not in seen or b"0/3" not in seen:
            seen += os.read(screen, 10_000)
        press_ctrl_c(program)
    os.close(screen)
    assert "━".encode() in seen
    assert program.returncode == 130


def test_control_characters_in_a_name_do_not_reach_the_terminal(desk: Desk) -> None:
    program = desk.run(desk.file("a\x1b[31m.txt"))
    assert program.returncode == 0
    assert "\x1b" not in program.stdout + program.stderr
    assert "a?[31m.txt" in program.stdout


def test_a_big_file_is_the_same_in_pieces(desk: Desk) -> None:
    big = b"".join(b"%d word\n" % number for number in range(200_000))
    [row] = desk.rows(desk.file("big.txt", big))
    assert len(big) > 2 * work.CHUNK
    assert (row["report"]["lines"], row["report"]["words"]) == (200_000, len(big.split()))
    assert row["report"]["sha256"] == hashlib.sha256(big).hexdigest()
    assert desk.outputs() == {"big.txt.gz": big}


def test_an_empty_file_is_a_file(desk: Desk) -> None:
    [row] = desk.rows(desk.file("empty", b""))
    assert (row["report"]["size"], row["report"]["lines"], row["report"]["words"]) == (0, 0, 0)
    assert desk.outputs() == {"empty.gz": b""}


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_than_so_many_files_are_under_way(desk: Desk, jobs: int) -> None:
    scratch = desk.temp
    under_way: set[str] = set()
    most = 0
    guard = threading.Lock()

    def begin(event: Event) -> None:
        nonlocal most
        with guard:
            under_way.add(event.machine.id)
            most = max(most, len(under_way))

    def end(event: Event) -> None:
        with guard:
            under_way.discard(event.machine.id)

    desk.out.mkdir()
    all_jobs = [
        FileJob(str(desk.file(f"{n}.txt")), desk.out / f"{n}.gz", scratch) for n in range(12)
    ]
    for job in all_jobs:
        job.machine.on("DownloadingFile_state", begin)
        job.machine.on("FileUploaded_state", end)
    process(all_jobs, jobs)
    for job in all_jobs:
        assert job.machine.is_active("FileUploaded")
        job.machine.dispose()
    assert 1 <= most <= jobs
    assert desk.leftovers() == []


def test_ctrl_c_stops_tidies_up_and_shows_what_was_done(desk: Desk, site: Site) -> None:
    good = desk.file("good.txt")
    args = ("--out", desk.out, "--jobs", 3, "--json", good, site.url("slow1"), site.url("slow2"))
    with start("file_processing", *args, TMPDIR=str(desk.temp)) as program:
        assert program.stderr is not None
        assert site.asked.acquire(timeout=SOON)
        assert site.asked.acquire(timeout=SOON)
        assert program.stderr.readline() == f"FileUploaded {good}\n"
        output, errors = press_ctrl_c(program)
    assert (errors, program.returncode) == ("", 130)
    rows = json.loads(output)
    assert sorted(rows[0]["states"]) == sorted(UPLOADED)
    assert [row["states"] for row in rows[1:]] == [["DownloadingFile"]] * 2
    assert [row["error"] for row in rows] == [None] * 3
    assert desk.outputs() == {"good.txt.gz": TEXT}
    assert desk.leftovers() == []


def test_work_stops_when_its_context_expires(desk: Desk) -> None:
    """Half a file is never uploaded: the copy stops at the next piece."""
    source, target = desk.file("source"), desk.folder / "target"
    with Machine({"Working": State()}) as machine:
        machine.add("Working")
        ctx = machine.state_ctx("Working")
        machine.remove("Working")
        with pytest.raises(ContextExpired):
            work.upload(ctx, source, target)
    assert sorted(path.name for path in desk.folder.iterdir()) == ["source", "temp"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "PATH_OR_URL"),
        (["--jobs", "0", "a"], "--jobs"),
        (["--jobs", "many", "a"], "--jobs"),
        (["--out", "/dev/null/x", "a"], "--out"),
    ],
)
def test_misuse_is_named(args: list[str], named: str) -> None:
    program = run("file_processing", *args)
    assert program.returncode == 2
    assert program.stdout == ""
    assert "usage: python -m examples.file_processing" in program.stderr
    assert named in program.stderr


def test_it_uploads_to_processed_by_default(desk: Desk) -> None:
    file = desk.file("a.txt")
    assert run("file_processing", file.name, cwd=desk.folder).returncode == 0
    assert (desk.folder / "processed" / "a.txt.gz").exists()


@pytest.mark.parametrize("option", ["-o", "--out", "--output"])
def test_the_folder_to_upload_to_is_made(desk: Desk, option: str) -> None:
    out = desk.folder / "new" / "folder"
    assert run("file_processing", option, out, desk.file("a.txt")).returncode == 0
    assert (out / "a.txt.gz").exists()


# The example, with a journal of its steps on a pipe of its own.
WITH_JOURNAL = """
import os, random, sys, time
from examples.file_processing import __main__, work
def journaled(step):
    real = getattr(work, step)
    def run(ctx, source, target):
        name = (target if step == "upload" else target.parent).name
        os.write(int(sys.argv[1]), os.fsencode(f"begin {step} {name}\\n"))
        time.sleep(random.random() * 0.01)  # work that takes a while
        result = real(ctx, source, target)
        os.write(int(sys.argv[1]), os.fsencode(f"end {step} {name}\\n"))
        return result
    setattr(work, step, run)
for step in ("download", "process", "upload"):
    journaled(step)
raise SystemExit(__main__.main(sys.argv[2:]))
"""


def one_life(args: list[object], lines: int | None, after: float = 0) -> tuple[list[str], int]:
    """Run the example, and kill it some seconds after its journal has so many lines.

    Give that, and how it ended.
    """
    ours, theirs = os.pipe()
    command = [sys.executable, "-c", WITH_JOURNAL, str(theirs), *map(str, args)]
    program = subprocess.Popen(
        command, cwd=ROOT, pass_fds=(theirs,), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.close(theirs)
    with program, os.fdopen(ours, encoding="utf-8", errors="surrogateescape") as journal:
        seen = []
        if lines is not None:
            seen = [line for _, line in zip(range(lines), journal, strict=False)]
            time.sleep(after)  # the moment is random: that is the point
            program.kill()
        seen += journal.readlines()
        program.communicate(timeout=SOON * 3)
    return [line.strip() for line in seen], program.returncode


def test_killed_at_any_point_and_started_again_it_finishes(tmp_path: Path) -> None:
    rnd = Random()
    kills = work = 0
    while kills < 15:
        # The killer may be too slow for one work: then there is another.
        work += 1
        kills += kill_and_start_again(Desk(tmp_path / str(work)), rnd, 15 - kills)


def kill_and_start_again(desk: Desk, rnd: Random, most: int) -> int:
    """Kill a work of six files at random moments until it is done; give how often it was."""
    files = [desk.file(f"{n}.txt", b"%d\n" % n * 1000) for n in range(6)]
    args = ["--history", desk.folder / "work.history", "--out", desk.out, "--jobs", 3, *files]
    lives: list[list[str]] = []
    code = -signal.SIGKILL
    kills = 0
    while code == -signal.SIGKILL:
        limit = rnd.randint(0, 8) if kills < most else None
        life, code = one_life(args, limit, rnd.choice([0, rnd.random() * 0.03]))
        lives.append(life)
        kills += code == -signal.SIGKILL
    assert code == 0
    begun_next: set[str] = set()  # what is done for sure, for the next step has begun
    for life in lives:
        begun = [line for line in life if line.startswith("begin")]
        assert len(begun) == len({*begun}), "a step ran twice in one life"
        for line in begun:
            assert line not in begun_next, "a step that was done ran again"
            _, step, name = line.split()
            if step in ("process", "upload"):
                begun_next.add(f"begin download {name}")
            if step == "upload":
                begun_next.add(f"begin process {name}")
    assert desk.outputs() == {f"{n}.txt.gz": b"%d\n" % n * 1000 for n in range(6)}
    rows = desk.rows(*args[:2], *args[4:])
    assert [row["report"]["lines"] for row in rows] == [1000] * 6
    assert all(sorted(row["states"]) == sorted(UPLOADED) for row in rows)
    assert one_life(args, None) == ([], 0)  # nothing is left to do
    left = {path.suffix or path.name for path in (desk.folder / "work.history.files").iterdir()}
    assert left == {".json", "lock"}
    return kills


def test_what_failed_goes_on_from_the_step_that_failed(desk: Desk) -> None:
    file = desk.file("a.txt")
    in_the_way = desk.out / "a.txt.gz" / "in the way"
    in_the_way.mkdir(parents=True)
    args = ["--history", desk.folder / "work.history", "--out", desk.out, file]
    journal, code = one_life(args, None)
    assert code == 1
    assert [line.split()[1] for line in journal if line.startswith("end")] == [
        *("download", "process")
    ]
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    journal, code = one_life(args, None)
    assert (journal, code) == (["begin upload a.txt.gz", "end upload a.txt.gz"], 0)
    assert desk.outputs() == {"a.txt.gz": TEXT}


def test_nothing_is_tidied_up_that_the_history_could_not_note(desk: Desk) -> None:
    path = desk.folder / "work.history"
    source = str(desk.file("a.txt"))
    desk.out.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        with SQLiteHistory(path, durable=True, patience=0) as history:
            job = FileJob(source, desk.out / "a.gz", desk.temp, history)
            job.machine.on("UploadingFile_state", lambda _: other.execute("BEGIN IMMEDIATE"))
            assert job.start().wait(SOON)
            job.machine.dispose()  # when the upload has ended
            assert {path.name for path in desk.leftovers()} > {"downloaded", "processed"}
            other.execute("COMMIT")
        with SQLiteHistory(path, durable=True) as history:
            job = FileJob(source, desk.out / "a.gz", desk.temp, history)
            assert job.start().wait(SOON)
            assert [path.suffix for path in desk.leftovers()] == [".json"]
            job.machine.dispose()


def test_a_second_run_on_the_same_history_is_refused(desk: Desk, site: Site) -> None:
    args = ("--history", desk.folder / "work.history", "--out", desk.out)
    with start("file_processing", *args, site.url("slow")) as program:
        assert site.asked.acquire(timeout=SOON)
        second = desk.run(*args[:2], desk.file("a.txt"))
        press_ctrl_c(program)
    assert second.returncode == 2
    assert "--history: another run works with" in second.stderr
    assert "work.history.files" in second.stderr
    assert desk.rows(*args[:2], desk.file("a.txt"))[0]["states"]


def test_what_ctrl_c_has_stopped_goes_on(desk: Desk, site: Site) -> None:
    good = desk.file("good.txt")
    args = ("--history", desk.folder / "work.history", "--out", desk.out, "--json", good)
    with start("file_processing", *args, site.url("slow")) as program:
        assert program.stderr is not None
        assert site.asked.acquire(timeout=SOON)
        assert program.stderr.readline() == f"FileUploaded {good}\n"
        press_ctrl_c(program)
    assert program.returncode == 130
    [row] = desk.rows(*args[:2], good)
    assert row["ticks"]["DownloadingFile"] == 2  # nothing was done again
    assert row["report"]["words"] == 3


def test_a_name_that_is_no_utf_8_is_as_good_as_any(desk: Desk) -> None:
    file = desk.file(os.fsdecode(b"\xff.txt"))
    args = ["--history", desk.folder / "work.history", "--out", desk.out, file]
    assert one_life(args, 3)[1] == -signal.SIGKILL
    assert one_life(args, None)[1] == 0
    assert desk.outputs() == {f"{file.name}.gz": TEXT}


@pytest.mark.parametrize("content", [b"not a history", None])
def test_a_history_that_can_not_be_used_is_named(desk: Desk, content: bytes | None) -> None:
    history = desk.folder / "missing" / "file"
    if content is not None:
        history = desk.file("file", content * 1000)
    program = desk.run("--history", history, desk.file("a.txt"))
    assert program.returncode == 2
    assert "--history: the history" in program.stderr
    assert str(history) in program.stderr


def test_it_processes_the_files_of_this_repository(desk: Desk) -> None:
    files = sorted((ROOT / "examples").rglob("*.py"))
    rows = desk.rows("--jobs", 8, *files)
    assert [row["error"] for row in rows] == [None] * len(files)
    assert len(desk.outputs()) == len(files)


def test_help_teaches() -> None:
    text = help_of("file_processing")
    assert "PATH_OR_URL" in text
    assert "--json" in text
    assert "--history FILE" in text
