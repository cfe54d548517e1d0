"""Dumps give back what was written, and from damaged ones what is whole."""

from __future__ import annotations

import resource
import threading
from pathlib import Path
from random import Random
from zlib import crc32

import pytest
import zstandard
from msgspec.structs import replace

from asyncmachine import Machine, State
from asyncmachine.debugger.dumps import BLOCK, Damage, DumpError, DumpReader, DumpWriter
from asyncmachine.debugger.recorder import Limits, Recorder
from asyncmachine.debugger.records import (
    ClockRecord,
    Clocks,
    DroppedRecord,
    EndRecord,
    MachineRecord,
    Record,
    TransitionRecord,
)
from asyncmachine.debugger.telling import lines_of, moment
from asyncmachine.telemetry import packets
from asyncmachine.telemetry.feed import attach
from tests.races import PATIENCE
from tests.telemetry.feeding import Receiver, replay


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """What a collector has really heard of two machines."""
    machines = [Machine({"Foo": State(multi=True), "Bar": State()}, id=f"m{n}") for n in range(2)]
    machines[1].import_state({"names": ["Bar"], "ticks": [2**70]})
    with Receiver() as receiver:
        feeds = [attach(each, receiver.address) for each in machines]
        for n in range(40):
            machines[n % 2].add("Foo", n=n)
            machines[0].toggle("Bar")
            if not n % 10:
                machines[0].add_error("oh")
                assert feeds[0].flush(PATIENCE)
        for feed in feeds:
            feed.close()
        receiver.wait_for(lambda heard: isinstance(heard[-1], EndRecord))
        return receiver.records


def read(path: Path) -> tuple[list[Record], DumpReader]:
    with DumpReader(path) as reader:
        return list(reader), reader


def write(path: Path, records: list[Record], block: int = 10) -> list[int]:
    """Write a dump in blocks of so many records; give where each block ends."""
    ends = []
    with DumpWriter(path) as writer:
        ends.append(writer.size)
        for at in range(0, len(records), block):
            writer.write(records[at : at + block])
            writer.flush()
            ends.append(writer.size)
    return ends


def test_what_is_written_is_read(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / "x.amdump"
    write(path, records)
    got, reader = read(path)
    assert got == records
    assert (reader.version, reader.damages, reader.left_over) == (1, [], 0)
    assert any(max(e.ticks) > 2**64 for e in got if isinstance(e, ClockRecord))


def test_it_can_be_read_while_it_is_written(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / "x.amdump"
    got: list[Record] = []
    with DumpWriter(path) as writer, DumpReader(path) as reader:
        for record in records:
            writer.write([record])
            writer.flush()
            got += reader
            assert got[-1] == record
    assert got == records


def test_a_block_that_is_completed_while_the_next_one_is_sought_is_read(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.amdump"
    ends = write(path, records[:60])
    data = path.read_bytes()
    path.write_bytes(data[: ends[2] + 11])
    seek = vars(DumpReader)["_find_block"]

    def write_on_and_seek(reader: DumpReader, start: int) -> int | None:
        path.write_bytes(data)
        found: int | None = seek(reader, start)
        return found

    monkeypatch.setattr(DumpReader, "_find_block", write_on_and_seek)
    got, reader = read(path)
    assert got == records[:60]
    assert (reader.damages, reader.left_over) == ([], 0)


def test_cut_short_anywhere_all_that_is_before_is_read(
    tmp_path: Path, records: list[Record]
) -> None:
    path = tmp_path / "x.amdump"
    ends = write(path, records[:60])
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        if size < ends[0]:
            with pytest.raises(DumpError, match=r"no dump|is damaged"):
                DumpReader(path)
            continue
        whole = [end for end in ends if end <= size]
        got, reader = read(path)
        assert got == records[: 10 * (len(whole) - 1)]
        assert reader.left_over == size - whole[-1]
        assert reader.damages == []


def test_with_any_byte_damaged_the_rest_is_read(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / "x.amdump"
    some = records[:50]
    ends = write(path, some)
    data = bytearray(path.read_bytes())
    for at in range(ends[0], len(data)):
        block = sum(end <= at for end in ends) - 1
        inside = at - ends[block]
        data[at] ^= 0x55
        path.write_bytes(data)
        data[at] ^= 0x55
        got, reader = read(path)
        assert got[: 10 * block] == some[: 10 * block]
        assert reader.damages or reader.left_over
        rest = some[10 * (block + 1) :]
        if inside >= 4 or rest:  # the length is whole, or the next block tells where it ended
            assert reader.damages == [
                Damage(ends[block], ends[block + 1] - ends[block], "the checksum does not fit")
            ]
            assert reader.left_over == 0
        told = [each for each in got[10 * block :] if each in rest]
        assert told == rest


def test_a_tail_of_zeros_is_left_over_and_no_damage(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / "x.amdump"
    write(path, records)
    with path.open("ab") as file:
        file.write(bytes(3 << 20))  # what file systems leave when the power fails
    got, reader = read(path)
    assert got == records
    assert (reader.damages, reader.left_over) == ([], 3 << 20)


def test_what_comes_after_megabytes_of_damage_is_read(
    tmp_path: Path, records: list[Record]
) -> None:
    path = tmp_path / "x.amdump"
    (header, *_, last) = write(path, records)
    blocks = path.read_bytes()[header:]
    size = (5 << 20) // 2 + 1
    with path.open("ab") as file:
        file.write(b"\x00\x00\x00\x01" * (size // 4) + zstandard.FRAME_HEADER * 3 + blocks)
    got, reader = read(path)
    assert got[: len(records)] == records
    assert [each for each in got if isinstance(each, TransitionRecord)] == 2 * [
        each for each in records if isinstance(each, TransitionRecord)
    ]
    assert reader.damages[0].at == last
    assert sum(each.size for each in reader.damages) == size // 4 * 4 + 12


def test_small_sizes_all_over_a_damaged_tail_are_gone_through_quickly(
    tmp_path: Path, records: list[Record]
) -> None:
    path = tmp_path / "x.amdump"
    write(path, records)
    with path.open("ab") as file:
        file.write((b"\0\0\0\x01" + b"\1" * 5) * 200_000)
    got, reader = read(path)
    assert got == records
    assert sum(each.size for each in reader.damages) + reader.left_over == 1_800_000


def test_clocks_are_exact_again_after_a_damaged_block(
    tmp_path: Path, records: list[Record]
) -> None:
    path = tmp_path / "x.amdump"
    ends = write(path, records)
    truth: dict[int, dict[str, int]] = {}
    for each in records:
        if isinstance(each, MachineRecord):
            truth |= {r.id: clocks for r, clocks in replay(records, each.key)}
    data = bytearray(path.read_bytes())
    data[ends[3] + 20] ^= 0xFF
    path.write_bytes(data)
    got, reader = read(path)
    assert len(reader.damages) == 1
    for each in got:
        if isinstance(each, MachineRecord):
            for record, clocks in replay(got, each.key):
                assert clocks == truth[record.id]
    assert sum(isinstance(each, TransitionRecord) for each in got) > 60


def test_random_bytes_never_do_worse_than_being_refused(
    tmp_path: Path, records: list[Record]
) -> None:
    path = tmp_path / "x.amdump"
    write(path, records[:30])
    data = path.read_bytes()
    rnd = Random(1)
    for _ in range(500):
        broken = bytearray(data)
        for _ in range(rnd.randint(1, 8)):
            broken[rnd.randrange(len(broken))] = rnd.randrange(256)
        path.write_bytes(broken)
        try:
            read(path)
        except DumpError:
            pass


def test_a_block_that_is_whole_but_wrong_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.amdump"
    with DumpWriter(path) as writer:
        writer.write([EndRecord("p", "closed")])
    compress = zstandard.ZstdCompressor().compress
    bomb = compress(bytes(100 * 2**20))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100 * 2**20))
    packed = [b"nonsense", compress(b"nonsense"), bomb, unsized, compress(b"\x91\x92\x02\x90")]
    with path.open("ab") as file:
        for each in packed:
            file.write(BLOCK.pack(len(each), crc32(each)) + each)
        later = compress(packets.encode([(99, {"later": "versions"})])[4:])
        file.write(BLOCK.pack(len(later), crc32(later)) + later)
    got, reader = read(path)
    assert got == [EndRecord("p", "closed")]
    assert len(reader.damages) == len(packed)
    assert reader.left_over == 0


def test_what_is_no_dump_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.amdump"
    path.write_text("hello")
    with pytest.raises(DumpError, match=r"x.amdump is no dump"):
        DumpReader(path)
    path.write_text("asyncmachine-dump 99 1\n")
    with pytest.raises(DumpError, match="is of version 99"):
        DumpReader(path)
    with pytest.raises(FileNotFoundError):
        DumpReader(tmp_path / "none")


def test_each_file_of_a_recording_is_read_by_itself(tmp_path: Path, records: list[Record]) -> None:
    begun: list[str] = []
    recorder = Recorder(
        lambda n: str(tmp_path / f"{n}.amdump"),
        Limits(transitions=25),
        keep=3,
        on_file=begun.append,
    )
    recorder(records[:37])
    recorder(records[37:])
    recorder.close()
    recorder.close()
    recorder(records)  # too late
    total = sum(isinstance(each, TransitionRecord) for each in records)
    assert recorder.transitions == total
    assert recorder.files == begun[-3:]
    assert sorted(map(str, tmp_path.iterdir())) == sorted(recorder.files)

    truth: dict[int, dict[str, int]] = {}
    for each in records:
        if isinstance(each, MachineRecord):
            truth |= {r.id: clocks for r, clocks in replay(records, each.key)}
    for path in recorder.files:
        got, reader = read(Path(path))
        assert not reader.damages
        seen = 0
        for each in got:
            if isinstance(each, MachineRecord):
                for record, clocks in replay(got, each.key):
                    assert clocks == truth[record.id]
                    seen += 1
        assert 0 < seen <= 25


@pytest.mark.parametrize("limits", [Limits(size=100), Limits(seconds=1e-9)])
def test_a_file_is_full_by_size_or_age(
    tmp_path: Path, records: list[Record], limits: Limits
) -> None:
    with DumpWriter(tmp_path / "full.amdump") as writer:
        writer.write(records)
        writer.flush()
        assert limits.room(writer) == 0
        assert Limits().room(writer) is None
        assert Limits(transitions=1).room(writer) == 0


@pytest.mark.parametrize("limits", [Limits(size=1), Limits(seconds=1e-9)])
def test_a_limit_that_is_reached_at_once_makes_no_files_without_end(
    tmp_path: Path, records: list[Record], limits: Limits
) -> None:
    def name_of(number: int) -> str:
        if number > 10:
            raise OSError("too many files")
        return str(tmp_path / f"{number}.amdump")

    recorder = Recorder(name_of, limits)
    for at in range(0, 40, 10):
        recorder(records[at : at + 10])
    recorder.close()
    assert recorder.error is None
    got = [each for path in recorder.files for each in read(Path(path))[0]]
    assert [each for each in got if isinstance(each, TransitionRecord)] == [
        each for each in records[:40] if isinstance(each, TransitionRecord)
    ]


def test_what_a_file_begins_with_is_no_part_of_its_size(
    tmp_path: Path, records: list[Record]
) -> None:
    machines = [each for each in records if isinstance(each, MachineRecord)]
    start: list[Record] = [replace(machines[0], key=f"{Random(n).random()}") for n in range(100)]
    with DumpWriter(tmp_path / "x.amdump", start=start) as writer:
        assert writer.size == writer.start_size > 500
        assert Limits(size=500).room(writer) is None


def test_the_recording_ends_with_an_error_when_there_is_no_room(
    tmp_path: Path, records: list[Record]
) -> None:
    errors: list[OSError] = []
    ended = threading.Event()

    def end(error: OSError) -> None:
        errors.append(error)
        ended.set()

    recorder = Recorder(lambda n: str(tmp_path / f"{n}.amdump"), on_error=end)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        recorder(records)
        assert ended.wait(PATIENCE)  # the flush that comes a second later
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert errors == [recorder.error]
    recorder(records)
    recorder.close()
    assert read(tmp_path / "1.amdump")[0] == []


def test_records_are_told_as_text(records: list[Record]) -> None:
    lines = [line for each in records for line in lines_of(each)]
    assert any("m0" in line and "[add] Foo" in line for line in lines)
    assert any("[add] Exception" in line for line in lines)
    (line,) = lines_of(DroppedRecord("k", "m", 3))
    assert line.startswith("m: 3 transitions are missing")
    assert lines[-1].endswith("connection closed")
    assert moment(10**30) == f"{10**30} ns"


def test_clocks_of_what_is_unknown_are_unknown() -> None:
    clocks = Clocks()
    clocks.take([ClockRecord("p:1", (1,)), DroppedRecord("p:1", "m", 1)])
    assert "p:1" not in clocks
    with pytest.raises(KeyError):
        clocks["p:1"]
