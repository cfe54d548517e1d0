"""What the daemon does in each state."""

from __future__ import annotations

import re
from collections import deque
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from asyncmachine import Event, Machine, StateContext
from examples.remote.states import Downloader

PATIENCE = 10  # seconds for a server that says nothing
CHUNK = 64 * 1024


class DownloadHandlers:
    """Downloads into a directory, one file after another.

    What comes from a client is not to be trusted, even if it knows the secret: only web
    addresses are taken, and the names of files are made harmless.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.line: deque[str] = deque()

    def Added_enter(self, event: Event) -> bool:
        """Take only what can be downloaded; False refuses."""
        url = event.args.get("url")
        return isinstance(url, str) and re.match("https?://[^/]", url) is not None

    def Added_state(self, event: Event) -> None:
        self.line.append(str(event.args["url"]))

    def Pending_exit(self, event: Event) -> bool:
        """Stay pending while something is in the line, unless it has to stop."""
        return not self.line or Downloader.Pending not in event.mutation.states

    def Downloading_state(self, event: Event) -> None:
        event.fork(self.work, event.machine)

    def work(self, ctx: StateContext, machine: Machine) -> None:
        """Download what is in the line; ctx expires when it has to stop."""
        while True:
            while self.line:
                url = self.line.popleft()
                try:
                    path = self.download(url, ctx)
                except (OSError, HTTPException, ValueError) as error:
                    machine.add(Downloader.Failed, url=url, why=str(error) or repr(error))
                else:
                    size = path.stat().st_size
                    machine.add(Downloader.Downloaded, url=url, path=str(path), size=size)
            if machine.remove(Downloader.Pending).wait():
                return  # else something came just now, and Pending_exit has refused

    def download(self, url: str, ctx: StateContext) -> Path:
        """Fetch one file; it gets its name when it is complete."""
        path = self.path_for(url)
        part = path.with_name(f"{path.name}.part")
        with urlopen(url, timeout=PATIENCE) as answer, part.open("wb") as file:
            while chunk := answer.read(CHUNK):
                ctx.check()  # raises when the context has expired, and ends the fork
                file.write(chunk)
        ctx.check()
        return part.rename(path)

    def path_for(self, url: str) -> Path:
        """Give a path that is free, whatever the address looks like."""
        last = urlsplit(url).path.rpartition("/")[2]
        name = re.sub(r"[^\w.-]", "_", last).strip(".")[-100:] or "index.html"
        path, number = self.directory / name, 1
        while path.exists():
            number += 1
            path = self.directory / f"{number}-{name}"
        return path


def make_downloader(directory: Path) -> Machine:
    """Build the machine of a downloader; it begins with ``add("Added", url=…)``."""
    return Machine(Downloader, id="downloader", handlers=DownloadHandlers(directory))
