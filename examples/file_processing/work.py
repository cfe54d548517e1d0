"""The work itself: plain functions that know no states, but stop when their context expires."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections.abc import Iterator
from glob import escape
from pathlib import Path, PurePath
from typing import IO, NamedTuple
from urllib.parse import unquote
from urllib.request import urlopen

from asyncmachine import StateContext

CHUNK = 256 * 1024
SILENCE = 30  # seconds that a server may say nothing
URL = re.compile(r"(https?|file):", re.IGNORECASE)


class Report(NamedTuple):
    """What processing found out."""

    size: int
    lines: int
    words: int
    sha256: str
    compressed: int


def base_name(source: str) -> str:
    """The last part of a path or URL, without the folders before it."""
    if URL.match(source):
        source = unquote(re.split("[?#]", source)[0])
    return PurePath(source).name or "file"


def download(ctx: StateContext, source: str, target: Path) -> None:
    """Copy a path, or fetch an http, https or file URL."""
    if URL.match(source):
        fetch(ctx, source, target)
    else:
        copy(ctx, Path(source), target)


def fetch(ctx: StateContext, url: str, target: Path) -> None:
    """Download a URL, and notice when the connection broke off."""
    with urlopen(url, timeout=SILENCE) as response, target.open("wb") as file:
        file.writelines(chunks(ctx, response))
        announced = response.headers["Content-Length"]
        if announced and file.tell() != int(announced):
            msg = f"the server sent {file.tell()} of {announced} bytes"
            raise ConnectionError(msg)


def process(ctx: StateContext, source: Path, target: Path) -> Report:
    """Count and hash a file, and compress it into another."""
    sha256 = hashlib.sha256()
    size = lines = words = 0
    inside_word = False
    with source.open("rb") as plain, target.open("wb") as raw:
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            for chunk in chunks(ctx, plain):
                sha256.update(chunk)
                packed.write(chunk)
                size += len(chunk)
                lines += chunk.count(b"\n")
                words += len(chunk.split())
                # A word that the end of a chunk cut in two was counted twice.
                words -= inside_word and not chunk[:1].isspace()
                inside_word = not chunk[-1:].isspace()
        compressed = raw.tell()
    return Report(size, lines, words, sha256.hexdigest(), compressed)


def upload(ctx: StateContext, source: Path, target: Path) -> None:
    """Copy a file to where it shall be; nobody ever sees half of it there."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        copy(ctx, source, part)
        ctx.check()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def discard_parts(target: Path) -> None:
    """Remove what uploads that were killed have left."""
    for part in target.parent.glob(f".{escape(target.name)}.*.part"):
        part.unlink(missing_ok=True)


def copy(ctx: StateContext, source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("wb") as file:
        file.writelines(chunks(ctx, original))


def chunks(ctx: StateContext, stream: IO[bytes]) -> Iterator[bytes]:
    """Read a stream piece by piece; raises ContextExpired once nobody wants the rest."""
    while chunk := stream.read(CHUNK):
        ctx.check()
        yield chunk
