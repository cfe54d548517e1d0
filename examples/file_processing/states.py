"""The course of a file."""

from __future__ import annotations

from asyncmachine import State, States


class File(States):
    """Downloaded, then processed, then uploaded.

    Processing and uploading are auto states: each begins by itself once what it requires is
    there, and ends when its outcome, or an error, removes it.
    """

    DownloadingFile = State(remove="FileDownloaded")
    FileDownloaded = State(remove=DownloadingFile)

    ProcessingFile = State(auto=True, require=FileDownloaded)
    FileProcessed = State(require=FileDownloaded, remove=ProcessingFile)

    UploadingFile = State(auto=True, require=FileProcessed)
    FileUploaded = State(require=FileProcessed, remove=UploadingFile)

    Exception = State(multi=True, remove=(DownloadingFile, ProcessingFile, UploadingFile))
