from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asyncmachine import Machine
from asyncmachine.net import AuthenticationError, NotAllowedError, connect
from examples.remote.handlers import DownloadHandlers, make_downloader
from examples.remote.home import Home
from tests.examples.programs import help_of, press_ctrl_c, run, start

SOON = 20  # seconds; only a failing test waits so long


class Site(ThreadingHTTPServer):
    """Answers with the path that is asked for; what begins with /slow waits for ``go_on``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.send_response(404 if self.path.startswith("/none") else 200)
        self.end_headers()
        self.wfile.write(self.path.encode())
        if self.path.startswith("/slow"):
            self.wfile.flush()
            self.server.asked.set()
            self.server.go_on.wait(SOON)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        yield site
        site.go_on.set()
        site.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def next_line(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    line = program.stdout.readline()
    if not line:
        raise AssertionError(program.communicate())
    return line.rstrip("\n")


@contextmanager
def daemon(home: Home, *options: str) -> Iterator[subprocess.Popen[str]]:
    with start("remote", "--home", home.directory, *options, "daemon") as program:
        assert next_line(program).startswith("listening at ")
        yield program


def ask(home: Home, *args: object) -> tuple[str, int]:
    program = run("remote", "--home", home.directory, *args)
    return (program.stdout + program.stderr).strip(), program.returncode


def test_two_processes_share_one_machine(home: Home, site: Site) -> None:
    good, bad = f"{site.url}/good.txt", f"{site.url}/none"
    with daemon(home) as server, start("remote", "--home", home.directory, "follow") as follower:
        assert next_line(follower).startswith("following downloader: ()[Added:0 ")
        assert ask(home, "status") == ("0 added, 0 downloaded, 0 failed; idle", 0)
        path = home.files / "good.txt"
        assert ask(home, "add", "--wait", good) == (f"downloaded {good}: {path}", 0)
        assert path.read_text() == "/good.txt"
        assert ask(home, "add", "--wait", bad) == (f"failed {bad}: HTTP Error 404: Not Found", 1)
        assert ask(home, "status") == ("2 added, 1 downloaded, 1 failed; idle", 0)
        assert ask(home, "stop") == ("stopped", 0)
        told, errors = follower.communicate(timeout=SOON)
        assert (errors, follower.returncode) == ("", 0)
        assert sorted(told.splitlines()) == sorted(
            [
                f"added {good}",
                "downloading",
                f"downloaded {good}: 9 bytes",
                f"added {bad}",
                "downloading",
                f"failed {bad}: HTTP Error 404: Not Found",
                "stopped",
            ]
        )
        assert server.communicate(timeout=SOON) == ("stopped\n", "")
        assert server.returncode == 0
    assert ask(home, "status")[1] == 2


def test_what_is_not_to_be_trusted_is_refused(home: Home) -> None:
    with daemon(home):
        for url in ("file:///etc/passwd", "nonsense", "http:///etc/passwd"):
            told, code = ask(home, "add", url)
            assert (told, code) == (
                f"refused {url}: vetoed by DownloadHandlers.Added_enter",
                1,
            )
        with pytest.raises(AuthenticationError):
            connect(home.address, secret="guess")
        with connect(home.address, secret=home.secret()) as remote:
            with pytest.raises(NotAllowedError, match="Downloaded"):
                remote.add("Downloaded", url="https://example.org", path="/etc/passwd", size=1)
            with pytest.raises(NotAllowedError):
                remote.dispose()


def test_the_home_is_private_and_the_secret_is_made_once(home: Home) -> None:
    with daemon(home):
        secret = home.secret()
        assert len(secret) == 64
        assert home.directory.stat().st_mode & 0o777 == 0o700
        assert home.secret_file.stat().st_mode & 0o777 == 0o600
        ask(home, "stop")
    with daemon(home):
        assert home.secret() == secret


def test_a_stop_ends_a_download_that_is_under_way(home: Home, site: Site) -> None:
    with daemon(home) as server:
        assert ask(home, "add", f"{site.url}/slow")[1] == 0
        assert site.asked.wait(SOON)
        assert ask(home, "status") == ("1 added, 0 downloaded, 0 failed; downloading", 0)
        waiting = threading.Thread(target=ask, args=(home, "stop"))
        waiting.start()
        assert server.wait(SOON) == 0
        waiting.join()
    assert not (home.files / "slow").exists()


def test_a_daemon_that_is_killed_ends_those_who_follow_it(home: Home) -> None:
    with daemon(home) as server, start("remote", "--home", home.directory, "follow") as follower:
        next_line(follower)
        server.kill()
        told, errors = follower.communicate(timeout=SOON)
        assert (told, errors, follower.returncode) == ("the daemon is gone\n", "", 1)
    with daemon(home):  # the socket that it left is no obstacle
        assert ask(home, "status")[1] == 0


def test_it_serves_other_addresses_too(home: Home) -> None:
    with daemon(home, "--address", f"unix:{home.directory.parent}/other"):
        told, code = ask(home, "--address", f"unix:{home.directory.parent}/other", "status")
        assert (told, code) == ("0 added, 0 downloaded, 0 failed; idle", 0)


def test_ctrl_c_stops_it_cleanly(home: Home) -> None:
    with daemon(home) as server:
        _, errors = press_ctrl_c(server)
        assert (errors, server.returncode) == ("", 130)
    assert not (home.directory / "socket").exists()


def test_nobody_there_is_told(home: Home) -> None:
    assert ask(home, "status") == (f"no daemon was ever started in {home.directory}", 2)
    home.prepare()
    told, code = ask(home, "add", "https://example.org")
    assert told.startswith("error: ")
    assert home.address in told
    assert code == 2


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/file.txt", "file.txt"),
        ("/a/b/file.txt?x=1#y", "file.txt"),
        ("/", "index.html"),
        ("", "index.html"),
        ("/..", "index.html"),
        ("/.bashrc", "bashrc"),
        ("/a%2F..%2Fb", "a_2F.._2Fb"),
        ("/" + "n" * 300, "n" * 100),
    ],
)
def test_the_names_of_files_are_harmless(tmp_path: Path, path: str, name: str) -> None:
    handlers = DownloadHandlers(tmp_path)
    assert handlers.path_for(f"https://example.org{path}") == tmp_path / name


def test_no_file_is_written_over(tmp_path: Path) -> None:
    handlers = DownloadHandlers(tmp_path)
    for name in ("a", "2-a", "3-a"):
        free = handlers.path_for("https://example.org/a")
        assert free == tmp_path / name
        free.touch()


@pytest.fixture
def downloader(tmp_path: Path) -> Iterator[Machine]:
    with make_downloader(tmp_path) as downloader:
        yield downloader


def test_what_is_added_while_it_ends_is_downloaded_all_the_same(
    downloader: Machine, site: Site, tmp_path: Path
) -> None:
    count = 50
    for number in range(count):
        done = downloader.when_ticks("Downloaded", 1 if number == 0 else 2)
        downloader.add("Added", url=f"{site.url}/{number}")
        if number % 3:
            assert done.wait(SOON)
    assert downloader.when_query(lambda clock: clock["Downloaded"] == 2 * count - 1).wait(SOON)
    assert downloader.when_not("Pending").wait(SOON)
    assert len(list(tmp_path.iterdir())) == count


def test_help_teaches() -> None:
    assert "run the daemon" in help_of("remote")
