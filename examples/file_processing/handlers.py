"""What is done in each state of a file.

A handler must not block its machine, so it forks the work: that runs on a thread of its own, with
a context that expires when the state ends. What it raises becomes ``Exception``, for this file
alone.
"""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from asyncmachine import Event, Machine, StateContext, Waiter
from examples.file_processing import work
from examples.file_processing.states import File


class FileJob:
    """One file: its machine, the machine's handlers, and what was learned on the way."""

    def __init__(self, source: str, output: Path, scratch: Path) -> None:
        self.source = source
        self.output = output
        self.report: work.Report | None = None
        self.machine = Machine(File, id=output.name, handlers=self)
        self._folder = Path(mkdtemp(dir=scratch))
        self._downloaded = self._folder / "downloaded"
        self._processed = self._folder / "processed"

    def start(self) -> Waiter:
        """Begin; the waiter is set when the file is uploaded, or has failed."""
        self.machine.add(File.DownloadingFile)
        return self.machine.when_any(File.FileUploaded, File.Exception)

    @property
    def failed(self) -> bool:
        return self.machine.is_active(File.Exception)

    @property
    def error(self) -> str:
        """What went wrong, or nothing."""
        error = self.machine.error
        return f"{type(error).__name__}: {error}" if error else ""

    def DownloadingFile_state(self, event: Event) -> None:
        event.fork(self.download)

    def ProcessingFile_state(self, event: Event) -> None:
        event.fork(self.process)

    def UploadingFile_state(self, event: Event) -> None:
        event.fork(self.upload)

    def FileUploaded_state(self, event: Event) -> None:
        self.tidy()

    def Exception_state(self, event: Event) -> None:
        self.tidy()

    def download(self, ctx: StateContext) -> None:
        work.download(ctx, self.source, self._downloaded)
        self.machine.add(File.FileDownloaded)

    def process(self, ctx: StateContext) -> None:
        self.report = work.process(ctx, self._downloaded, self._processed)
        self.machine.add(File.FileProcessed)

    def upload(self, ctx: StateContext) -> None:
        work.upload(ctx, self._processed, self.output)
        self.machine.add(File.FileUploaded)

    def tidy(self) -> None:
        """Remove what was only needed on the way."""
        rmtree(self._folder, ignore_errors=True)
