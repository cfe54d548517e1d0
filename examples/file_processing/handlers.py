"""What is done in each state of a file.

A handler must not block its machine, so it forks the work: that runs on a thread of its own, with
a context that expires when the state ends. What it raises becomes ``Exception``, for this file
alone.

With a history the work outlives the process. The history has a step on the disk before anybody is
told that it was done, so what a killed process had not finished, and only that, is begun again.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from shutil import rmtree

from asyncmachine import Event, Machine, StateContext, Waiter
from asyncmachine.history import HistoryError, SQLiteHistory, restore
from examples.file_processing import work
from examples.file_processing.states import File

COURSE = (
    (File.DownloadingFile, File.FileDownloaded),
    (File.ProcessingFile, File.FileProcessed),
    (File.UploadingFile, File.FileUploaded),
)


class FileJob:
    """One file: its machine, the machine's handlers, and what was learned on the way."""

    def __init__(
        self, source: str, output: Path, scratch: Path, history: SQLiteHistory | None = None
    ) -> None:
        self.source = source
        self.output = output
        self.report: work.Report | None = None
        name = ascii(f"{source} to {output}")  # the same in every run, whatever is in it
        self._folder = scratch / sha256(name.encode()).hexdigest()[:16]
        self._downloaded = self._folder / "downloaded"
        self._processed = self._folder / "processed"
        self._reported = self._folder.with_suffix(".json")
        self._history = history
        tracers = () if history is None else (history,)
        self.machine = Machine(File, id=name, handlers=self, tracers=tracers)
        if history is not None:
            restore(self.machine, history)
        if self.machine.is_active(File.FileProcessed) and self._reported.exists():
            self.report = work.Report(**json.loads(self._reported.read_text()))

    def start(self) -> Waiter:
        """Begin, or go on; the waiter is set when the file is uploaded, or has failed."""
        for step, done in COURSE:
            if not self.machine.is_active(done):
                self.begin(step)
                break
        else:
            self.tidy()  # uploaded by a process that was killed before it could
        return self.machine.when_any(File.FileUploaded, File.Exception)

    def begin(self, step: str) -> None:
        """Begin the first step that is not done, even if it had begun, or failed, before."""
        self._folder.mkdir(exist_ok=True)
        work.discard_parts(self.output)
        self.machine.remove(step, File.Exception)
        self.machine.add(step)

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

    def Exception_state(self, event: Event) -> None:
        if self._history is None:  # else the next run goes on with what there is
            self.tidy()

    def download(self, ctx: StateContext) -> None:
        work.download(ctx, self.source, self._downloaded)
        self.machine.add(File.FileDownloaded)

    def process(self, ctx: StateContext) -> None:
        self.report = work.process(ctx, self._downloaded, self._processed)
        if self._history is not None:
            self._reported.write_text(json.dumps(self.report._asdict()))
        self.machine.add(File.FileProcessed)

    def upload(self, ctx: StateContext) -> None:
        work.upload(ctx, self._processed, self.output)
        if self.machine.add(File.FileUploaded).wait() and self.is_noted():
            self.tidy()  # only now: who is killed before that has to upload again

    def is_noted(self) -> bool:
        """Whether the history has on the disk what was done; it has logged why not."""
        if self._history is not None:
            try:
                self._history.flush()
            except HistoryError:
                return False
        return True

    def tidy(self) -> None:
        """Remove what was only needed on the way."""
        rmtree(self._folder, ignore_errors=True)
