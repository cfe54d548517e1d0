"""Dump files (``.amdump``): the records of feeds on disk, written block by block.

A file begins with a line that says what it is, then come blocks: a length, a checksum
(CRC-32), both of four bytes, big-endian, and the msgpack records, compressed (zstandard).
A block holds about a second, or what fills it.

Guarantees: what is in a whole block can be read, whether the file is still being written,
was cut short anywhere, or has other blocks that are damaged. The clocks of a machine are
written anew with its first transition in each block, so that what comes after a damaged
one is exact again. A file needs no other one: `DumpWriter.start_of` gives what the next
has to begin with.
Assumes that one thread at a time writes.
"""

from __future__ import annotations

import os
import time
from struct import Struct as Layout
from typing import TYPE_CHECKING, Final, TypeAlias
from zlib import crc32

import msgspec

try:
    import zstandard
except ImportError as error:  # pragma: no cover - the tests need it
    _msg = f"asyncmachine.debugger.dumps needs {error.name}: pip install 'asyncmachine[feed]'"
    raise ImportError(_msg, name=error.name) from error

from asyncmachine.debugger.errors import DumpError
from asyncmachine.debugger.records import (
    ClockRecord,
    Clocks,
    DisposedRecord,
    DroppedRecord,
    EndRecord,
    MachineRecord,
    Record,
    TransitionRecord,
)
from asyncmachine.telemetry.packets import WIDEST, Envelope, portable_ticks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO, Self

    Path: TypeAlias = str | os.PathLike[str]

__all__ = ["Damage", "DumpError", "DumpReader", "DumpWriter"]

MAGIC: Final = b"asyncmachine-dump "
VERSION: Final = 1
BLOCK: Final = Layout(">II")
_MOST_BYTES: Final = 64 * 2**20  # in a block, compressed or not
_LONGEST_HEADER: Final = 256
_CHUNK: Final = 1 << 20
_FULL: Final = 1000  # records
_SECOND: Final = 1_000_000_000

# What the tags stand for; never to be given to another record.
_TYPES: Final[tuple[type[Record], ...]] = (
    MachineRecord,
    ClockRecord,
    TransitionRecord,
    DroppedRecord,
    DisposedRecord,
    EndRecord,
)
_WIDE: Final = len(_TYPES)  # a clock with ticks that msgpack has no number for
_TAGS: Final = {kind: tag for tag, kind in enumerate(_TYPES)}


class _WideClock(msgspec.Struct, array_like=True):
    key: str
    ticks: tuple[int | str, ...]


_Decoder: TypeAlias = "msgspec.msgpack.Decoder[Record | _WideClock]"
_DECODERS: Final[list[_Decoder]] = [msgspec.msgpack.Decoder(kind) for kind in _TYPES]
_DECODERS.append(msgspec.msgpack.Decoder(_WideClock))
_encode: Final = msgspec.msgpack.Encoder().encode
_envelopes: Final = msgspec.msgpack.Decoder(list[Envelope])


def _narrow(record: Record | _WideClock) -> Record:
    if isinstance(record, _WideClock):
        return ClockRecord(record.key, tuple(int(tick) for tick in record.ticks))
    return record


class DumpWriter:
    """Writes a dump file.

    Args:
        path: the file; one that is there is replaced.
        start: what the file begins with, if it goes on from another one.
        level: how hard it is compressed, as zstandard has it.

    Attributes:
        path: the file.
        transitions: how many have been written.
        size: bytes of the file so far, without what is not flushed.
        start_size: bytes that ``start`` takes of it.
        created: when it was begun, in seconds since 1970.

    Raises:
        OSError: if the file can not be written; what was not written then is lost.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "x.amdump")
        >>> with DumpWriter(path) as writer:
        ...     writer.write([EndRecord("p", "closed")])
        >>> with DumpReader(path) as reader:
        ...     list(reader)
        [EndRecord(process='p', reason='closed')]

    """

    def __init__(self, path: Path, *, start: Iterable[Record] = (), level: int = 3) -> None:
        self.path = path
        self.transitions = 0
        self.created = time.time()
        self._compress = zstandard.ZstdCompressor(level=level).compress
        self._clocks = Clocks()
        self._pending: list[tuple[int, Record | _WideClock]] = []
        self._told: set[str] = set()  # whose clocks are in the pending block
        self._due = 0
        self._file: BinaryIO = open(path, "wb", buffering=0)  # noqa: SIM115 - it stays open
        self.size = 0
        header = MAGIC + b"%d %d\n" % (VERSION, int(self.created))
        self._put(header)
        self.size = len(header)
        self.write(start)
        self.flush()
        self.start_size = self.size

    def write(self, records: Iterable[Record]) -> None:
        """Add records; they are on disk after the next `flush` at the latest."""
        now = time.monotonic_ns()
        for record in records:
            if isinstance(record, TransitionRecord):
                self.transitions += 1
                if record.key not in self._told:
                    self._tell_clock(record.key)
            self._clocks.take((record,))
            if isinstance(record, ClockRecord):
                self._told.add(record.key)
            self._add(record)
            if len(self._pending) >= _FULL:
                self.flush()
        if not self._pending:
            self._due = 0
        elif not self._due:
            self._due = now + _SECOND
        elif now >= self._due:
            self.flush()

    def _tell_clock(self, key: str) -> None:
        self._told.add(key)
        if key in self._clocks:
            ticks = tuple(self._clocks[key].values())
            self._add(ClockRecord(key, ticks))

    def _add(self, record: Record) -> None:
        if isinstance(record, ClockRecord) and max(record.ticks, default=0) >= WIDEST:
            wide = _WideClock(record.key, portable_ticks(record.ticks))
            self._pending.append((_WIDE, wide))
        else:
            self._pending.append((_TAGS[type(record)], record))

    def start_of(self) -> list[Record]:
        """Give what a file that goes on from here has to begin with: machines and clocks."""
        start: list[Record] = []
        for key, machine in self._clocks.machines.items():
            start.append(machine)
            if key in self._clocks:
                start.append(ClockRecord(key, tuple(self._clocks[key].values())))
        return start

    def flush(self) -> None:
        """Write what is pending as a block."""
        self._due = 0
        self._told.clear()
        pending, self._pending = self._pending, []
        if pending:
            self._write_block(pending)

    def _write_block(self, pending: list[tuple[int, Record | _WideClock]]) -> None:
        payload = _encode(pending)
        if len(payload) > _MOST_BYTES // 2 and len(pending) > 1:
            half = len(pending) // 2
            self._write_block(pending[:half])
            self._write_block(pending[half:])
            return
        packed = self._compress(payload)
        block = BLOCK.pack(len(packed), crc32(packed)) + packed
        self._put(block)
        self.size += len(block)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:  # no room, say: half a block would hide those after it
            self._file.truncate(self.size)
            self._file.seek(self.size)
            raise

    def close(self) -> None:
        """Write what is pending, and close the file; again does no harm."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()


class Damage(msgspec.Struct, frozen=True):
    """A place of a dump that can not be read.

    Attributes:
        at: where it begins, in bytes from the start of the file.
        size: how many bytes.
        reason: what is wrong with it.

    """

    at: int
    size: int
    reason: str


class DumpReader:
    """Reads a dump file, also one that is still being written or that is damaged.

    It is an iterator of records. Where it ends there may be more later, if the file is
    being written: it can be iterated again, and goes on.

    Args:
        path: the file.

    Attributes:
        version: of the format.
        created: when the file was begun, in seconds since 1970.
        damages: the blocks that could not be read, and were left out.
        left_over: how many bytes come after the last whole block.

    Raises:
        DumpError: if it is no dump, or of a later version.
        OSError: if it can not be read.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damages: list[Damage] = []
        self.left_over = 0
        self._clocks = Clocks()
        self._barren_to = 0  # no block is whole from the one that is read now to there
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115 - it stays open
        try:
            self.version, self.created = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> tuple[int, int]:
        line = self._file.readline(_LONGEST_HEADER)
        if not line.startswith(MAGIC):
            msg = f"{self.path} is no dump: it does not begin with {MAGIC.decode()!r}"
            raise DumpError(msg)
        try:
            version, created = (int(each) for each in line[len(MAGIC) :].split())
            if not line.endswith(b"\n"):
                raise ValueError
        except ValueError:
            msg = f"{self.path} is damaged: its first line is no header"
            raise DumpError(msg) from None
        if version > VERSION:
            msg = f"{self.path} is of version {version}, and only {VERSION} is known here"
            raise DumpError(msg)
        return version, created

    def __iter__(self) -> Iterator[Record]:
        while True:
            records = self._next_block()
            if records is None:
                return
            for record in records:
                if not self._known(record):
                    yield record

    def _known(self, record: Record) -> bool:
        """Follow a record; true if it tells clocks that are as they should be anyway."""
        clocks = self._clocks
        if isinstance(record, ClockRecord) and record.key in clocks:
            names = clocks.machines[record.key].names
            known = clocks[record.key]
            if tuple(known[name] for name in names) == record.ticks:
                return True
        clocks.take((record,))
        return False

    def _next_block(self) -> list[Record] | None:
        """Give the records of the next block that can be read; None if there is none."""
        while True:
            at = self._file.tell()
            packed, fits = self._read_block(at)
            following = None
            if not fits:
                following = self._find_block(at + 1)
                if following is not None:  # it may have been completed meanwhile
                    packed, fits = self._read_block(at)
            if not fits:
                if following is None and not packed:
                    self.left_over = self._file.seek(0, os.SEEK_END) - at
                    self._file.seek(at)
                    return None
                end = at + BLOCK.size + len(packed) if following is None else following
                self.damages.append(Damage(at, end - at, "the checksum does not fit"))
                self._file.seek(end)
                continue
            try:
                return self._decode(packed)
            except DumpError as error:
                self.damages.append(Damage(at, BLOCK.size + len(packed), str(error)))

    def _read_block(self, at: int) -> tuple[bytes, bool]:
        """Read what should be a block; nothing if it is not all there. Does its checksum fit?"""
        self._file.seek(at)
        head = self._file.read(BLOCK.size)
        if len(head) < BLOCK.size:
            return b"", False
        size, checksum = BLOCK.unpack(head)
        packed = self._file.read(size) if size <= _MOST_BYTES else b""
        if not packed or len(packed) < size:
            return b"", False
        return packed, crc32(packed) == checksum

    def _find_block(self, start: int) -> int | None:
        """Look for a whole block behind one whose length is not to be trusted."""
        end = self._file.seek(0, os.SEEK_END)
        if end == self._barren_to:  # looked through already, from somewhere before
            return None
        at = start
        while True:
            self._file.seek(at)
            data = self._file.read(_CHUNK)
            found = -1
            while (found := data.find(zstandard.FRAME_HEADER, found + 1)) >= 0:
                begin = at + found - BLOCK.size
                if begin >= start and self._read_block(begin)[1]:
                    return begin
            if len(data) < _CHUNK:
                self._barren_to = end
                return None
            at += _CHUNK - len(zstandard.FRAME_HEADER) + 1

    def _decode(self, packed: bytes) -> list[Record]:
        try:
            size = zstandard.get_frame_parameters(packed).content_size
            if size > _MOST_BYTES:
                msg = f"a block of {size} bytes"
                raise DumpError(msg)
            payload = zstandard.ZstdDecompressor().decompress(packed, _MOST_BYTES)
            return [
                _narrow(_DECODERS[each.tag].decode(each.body))
                for each in _envelopes.decode(payload)
                if 0 <= each.tag < len(_DECODERS)
            ]
        except (zstandard.ZstdError, msgspec.MsgspecError, ValueError) as error:
            msg = f"what is in it is malformed: {error}"
            raise DumpError(msg) from error

    def close(self) -> None:
        """Close the file; again does no harm."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()
