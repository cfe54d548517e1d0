"""What only a history in a file has to do."""

from __future__ import annotations

import gc
import os
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncmachine import Machine, State, UnknownStateError
from asyncmachine.history import HistoryError, Record, SQLiteHistory, Ticks, restore, tracking
from asyncmachine.history.tracks import Track
from tests.history.backends import SCHEMA, machine

SOON = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.history"


def clocks_in(path: Path, machine_id: str = "m") -> str | None:
    """The last clocks that are committed, asked by somebody else."""
    with closing(sqlite3.connect(path)) as db:
        row = db.execute("SELECT ticks FROM machines WHERE id = ?", (machine_id,)).fetchone()
        return None if row is None else row[0]


def test_it_is_all_there_when_the_file_is_opened_again(path: Path) -> None:
    with SQLiteHistory(path, rejected=True) as history:
        mach = machine(history, log_args=["n"])
        mach.add("Foo", n=1)
        mach.add("Baz")
        before = list(history.transitions())
    with SQLiteHistory(path) as history:
        assert history.machines == ("m",)
        assert list(history.transitions()) == before
        assert history.activated_recently("Foo", 60)
        assert history.active_between("Foo")
        assert not history.activated_recently("Bar", 60)
        with pytest.raises(UnknownStateError, match="did you mean 'Foo'"):
            history.activated_recently("Fooo", 60)


def test_records_are_written_behind_without_being_asked_for(path: Path) -> None:
    with SQLiteHistory(path, delay=0) as history:
        mach = machine(history)
        for turn in range(20):
            mach.toggle("Foo")
            expected = f"[{turn + 1}, 0, 0, 0, 0]"
            deadline = threading.Event()
            while clocks_in(path) != expected:
                assert not deadline.wait(0.001)


def test_a_result_of_a_durable_machine_is_on_the_disk(path: Path) -> None:
    with SQLiteHistory(path, durable=True) as history:
        mach = machine(history)
        seen: list[str | None] = []
        waiter = mach.when("Bar")
        waiter.on_done(lambda _: seen.append(clocks_in(path)))
        mach.add("Foo")
        assert clocks_in(path) == "[1, 0, 0, 0, 0]"
        mach.add("Bar")
        assert seen == ["[2, 1, 0, 0, 0]"]
        mach.add("Bar")
        assert len(list(history.transitions())) == 3


def test_a_durable_machine_writes_what_an_error_put_back(path: Path) -> None:
    def fail(event: object) -> None:
        raise ValueError

    with SQLiteHistory(path, durable=True) as history:
        mach = machine(history, handlers={"Bar_state": fail})
        mach.add("Foo")
        mach.add("Bar")
        assert clocks_in(path) == "[2, 2, 0, 0, 1]"
        told = [(record.outcome, record.time) for record in history.transitions()]
        assert told == [
            ("executed", (1, 0, 0, 0, 0)),
            ("failed", (2, 2, 0, 0, 0)),
            ("executed", (2, 2, 0, 0, 1)),
        ]


def test_many_durable_machines_share_a_file(path: Path) -> None:
    with SQLiteHistory(path, durable=True) as history:
        machines = [machine(history, id=f"m{n}") for n in range(6)]
        wrong: list[str] = []

        def work(mach: Machine) -> None:
            for n in range(1, 31):
                mach.add("Many")
                if clocks_in(path, mach.id) != f"[0, 0, 0, {2 * n - 1}, 0]":
                    wrong.append(mach.id)

        threads = [threading.Thread(target=work, args=(mach,)) for mach in machines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        for mach in machines:
            assert len(list(history.transitions(machine=mach))) == 30


def test_what_is_not_tracked_is_restored_all_the_same(path: Path) -> None:
    for durable in (False, True):
        with SQLiteHistory(path, called="Bar", states="Bar", durable=durable) as history:
            mach = machine(history, id=str(durable))
            mach.add("Many")
            mach.add("Foo")
            if durable:
                assert clocks_in(path, "True") == "[1, 0, 0, 1, 0]"
            history.flush()
            assert list(history.transitions(machine=mach)) == []
        with SQLiteHistory(path) as history:
            again = machine(id=str(durable))
            assert restore(again, history) == mach.clock()


def test_after_a_restore_the_same_file_goes_on(path: Path) -> None:
    with SQLiteHistory(path) as history:
        mach = machine(history)
        mach.add("Foo")
        mach.add("Many")
    with SQLiteHistory(path) as history:
        again = machine(history)
        assert restore(again, history) == mach.clock()
        assert restore(again, history) == mach.clock()  # once more does no harm
        assert history.active_between("Many", between=None)
        history.flush()
        again.add("Many")
        records = list(history.transitions())
        assert [each.time_sum for each in records] == [1, 2, 4]
        assert [each.seq for each in records] == sorted(each.seq for each in records)
        assert history.active_between("Foo", records[-1].at)


def test_who_does_not_restore_begins_anew_but_only_with_the_first_change(path: Path) -> None:
    with SQLiteHistory(path) as history:
        machine(history).add("Foo")
    with SQLiteHistory(path) as history:
        machine(history)
        history.flush()  # the fresh machine's zeros overwrite nothing
    with SQLiteHistory(path) as history:
        mach = machine(history)
        restored = restore(machine(), history)
        assert restored is not None
        assert restored["Foo"] == 1
        mach.add("Bar")
        restored = restore(machine(), history)
        assert restored is not None
        assert (restored["Foo"], restored["Bar"]) == (0, 1)


def test_nothing_is_restored_of_what_is_not_known(path: Path) -> None:
    with SQLiteHistory(path) as history:
        mach = machine(history)
        assert restore(mach, history) is None
        assert restore(machine(id="other"), history) is None
        assert mach.time_sum() == 0


def test_states_may_be_added_to_a_schema(path: Path) -> None:
    with SQLiteHistory(path) as history:
        machine(history).add("Many")
    with SQLiteHistory(path) as history:
        mach = machine(history, schema={"New": State(), **SCHEMA})
        assert restore(mach, history) == {
            "New": 0,
            "Foo": 0,
            "Bar": 0,
            "Baz": 0,
            "Many": 1,
            "Exception": 0,
        }
        mach.add("New")
        assert [each.clock.get("New") for each in history.transitions()] == [None, 1]
        assert history.activated_between("New")
        assert history.active_between("Many")
    with SQLiteHistory(path) as history:
        again = machine(schema={"New": State(), **SCHEMA})
        assert restore(again, history) == mach.clock()


def test_states_that_are_missing_are_named(path: Path) -> None:
    with SQLiteHistory(path) as history:
        machine(history).add("Foo")
    with SQLiteHistory(path) as history:
        mach = machine(schema={"Fool": State(), "Bar": State(), "Baz": State(), "Many": State()})
        with pytest.raises(UnknownStateError, match="'Foo' in the history of m.*'Fool'"):
            restore(mach, history)
        assert mach.time_sum() == 0


def test_only_a_fresh_machine_is_restored(path: Path) -> None:
    with SQLiteHistory(path) as history:
        machine(history).add("Foo")
        other = machine()
        other.add("Bar")
        with pytest.raises(HistoryError, match="only a fresh machine.*m has changed"):
            restore(other, history)


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_damaged_or_foreign_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=f"{path} can not be used: file is not a database"):
        SQLiteHistory(path)
    assert path.read_bytes() == content


def test_a_database_of_somebody_else_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(HistoryError, match="is a database, but not a history of asyncmachine"):
        SQLiteHistory(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    SQLiteHistory(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(HistoryError, match="of version 2, and this is for version 1: update"):
        SQLiteHistory(path)


def test_a_path_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "file"):
        with pytest.raises(HistoryError, match=f"{path} can not be used: unable to open"):
            SQLiteHistory(path)


@pytest.mark.parametrize(
    ("damage", "question"),
    [
        ("UPDATE machines SET ticks = '[-1]'", "clocks"),
        ("UPDATE machines SET ticks = 'x'", "clocks"),
        ("UPDATE machines SET names = '{}'", "clocks"),
        ("UPDATE records SET clocks = x'00'", "records"),
        ("UPDATE records SET called = 'x'", "records"),
        ("UPDATE records SET note = '{}'", "records"),
        ("DELETE FROM layouts", "records"),
    ],
)
def test_damaged_rows_are_told_and_never_restored(path: Path, damage: str, question: str) -> None:
    with SQLiteHistory(path) as history:
        machine(history).add("Foo")
    with closing(sqlite3.connect(path)) as db:
        db.execute(damage)
        db.commit()
    with SQLiteHistory(path) as history:
        asks: dict[str, Callable[[], object]] = {
            "clocks": lambda: restore(machine(), history),
            "records": lambda: list(history.transitions()),
        }
        with pytest.raises(HistoryError, match="damaged"):
            asks[question]()


def test_a_machine_whose_row_is_damaged_is_not_written(path: Path) -> None:
    with SQLiteHistory(path) as history:
        machine(history).add("Foo")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE machines SET names = 'x'")
        db.commit()
    history = SQLiteHistory(path)
    machine(history).add("Bar")
    with pytest.raises(HistoryError, match="damaged: names of m"):
        history.flush()
    with pytest.raises(HistoryError, match="damaged"):
        history.close()


def test_what_can_not_be_written_now_is_written_later(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SQLiteHistory(path, patience=0.01, delay=0) as history:
        mach = machine(history)
        mach.add("Foo")
        history.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            mach.add("Bar")
            with pytest.raises(HistoryError, match="database is locked"):
                history.flush()
            with pytest.raises(HistoryError, match="database is locked"):
                history.latest()
            assert mach.add("Many")  # the machine does not mind
        history.flush()
        assert [each.called for each in history.transitions()] == [("Foo",), ("Bar",), ("Many",)]
        assert history.dropped == 0


def test_a_durable_machine_goes_on_when_the_disk_fails_and_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SQLiteHistory(path, patience=0.01, durable=True) as history:
        mach = machine(history)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert mach.add("Foo")
            assert "database is locked" in caplog.text
        mach.add("Many")
        assert clocks_in(path) == "[1, 0, 0, 1, 0]"
        assert len(list(history.transitions())) == 2


FILLS_THE_DISK = """
import resource, signal, sys
from asyncmachine import Machine, State
from asyncmachine.history import HistoryError, SQLiteHistory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
history = SQLiteHistory(sys.argv[1], backlog=1000, delay=0)
machine = Machine({"Many": State(multi=True)}, id="m", tracers=[history])
told = ""
while not told:
    for _ in range(500):
        assert machine.add("Many")
    try:
        history.flush()
    except HistoryError as error:
        told = str(error)
for _ in range(5000):
    assert machine.add("Many")
try:
    history.flush()
except HistoryError as error:
    assert str(error) == told
    print(told)
    print(history.dropped > 1000)
"""


def test_a_full_disk_is_told_and_stops_no_machine(path: Path) -> None:
    program = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(path)],
        capture_output=True,
        encoding="utf-8",
        timeout=SOON * 3,
        check=False,
    )
    told, dropped = program.stdout.splitlines()
    assert told.startswith(f"the history {path} can not be used: ")
    assert dropped == "True"
    assert program.returncode == 0
    with SQLiteHistory(path) as history:  # what was committed is whole
        for record in history.transitions(machine="m"):
            assert record.called == ("Many",)


def test_what_the_disk_can_not_follow_is_dropped_counted_and_told(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SQLiteHistory(path, backlog=100, delay=SOON, patience=0) as history:
        mach = machine(history)
        for _ in range(1000):
            mach.add("Many")
        history.flush()
        kept = list(history.transitions())
        assert len(kept) == 100
        assert history.dropped == 1001 - 100  # the mark of the beginning, too
        assert "901 records dropped so far" in caplog.text
        assert kept[-1].clock == mach.clock()
        restored = restore(machine(), history)
        assert restored == mach.clock()
        assert history.active_between("Many")


def test_a_machine_belongs_to_the_history_that_came_later(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SQLiteHistory(path, durable=True) as earlier, SQLiteHistory(path, durable=True) as later:
        first, other = machine(earlier), machine(earlier, id="other")
        first.add("Foo")
        second = machine(later)
        restore(second, later)
        second.add("Bar")
        first.add("Many")
        other.add("Many")
        assert "the machine m is recorded in" in caplog.text
        with pytest.raises(HistoryError, match="by another history since"):
            earlier.flush()
        assert clocks_in(path) == "[2, 1, 0, 0, 0]"
        assert clocks_in(path, "other") == "[0, 0, 0, 1, 0]"
        assert [each.called for each in later.transitions(machine="m")] == [("Foo",), ("Bar",)]
        assert earlier.dropped == 1
        with pytest.raises(HistoryError):
            earlier.flush()


def test_every_machine_that_another_history_took_over_is_left_to_it(path: Path) -> None:
    earlier = SQLiteHistory(path, delay=60)
    firsts = [machine(earlier, id=name) for name in ("one", "two")]
    for mach in firsts:
        mach.add("Foo")
    earlier.flush()
    with SQLiteHistory(path, delay=60) as later:
        seconds = [machine(later, id=name) for name in ("one", "two")]
        for mach in seconds:
            restore(mach, later)
            mach.add("Bar")
        later.flush()
        for mach in firsts:
            mach.add("Many")
        with pytest.raises(HistoryError, match="by another history since"):
            earlier.flush()
        assert earlier.dropped == 2
        for mach in seconds:
            mach.add("Many")
            later.flush()
            assert clocks_in(path, mach.id) == "[2, 1, 0, 1, 0]"
    earlier.close()


def test_who_was_taken_over_is_told_though_a_write_failed_in_between(path: Path) -> None:
    earlier = SQLiteHistory(path, delay=60)
    first, bad = machine(earlier), machine(earlier, id="bad")
    first.add("Foo")
    earlier.flush()
    with SQLiteHistory(path, delay=60) as later:
        second = machine(later)
        restore(second, later)
        second.add("Bar")
    bad.import_state({"names": ["Many"], "ticks": [2**64 + 1]})
    bad.add("Foo")
    with pytest.raises(HistoryError, match="can not be kept"):
        earlier.flush()
    first.add("Many")
    with pytest.raises(HistoryError, match="by another history since"):
        earlier.flush()
    assert clocks_in(path) == "[2, 1, 0, 0, 0]"
    earlier.close()


def test_a_machine_that_comes_later_is_recorded_though_the_one_before_was_taken_over(
    path: Path,
) -> None:
    with SQLiteHistory(path, delay=60) as history:
        with machine(history) as first:
            first.add("Foo")
            history.flush()
            with SQLiteHistory(path) as other, machine(other) as second:
                restore(second, other)
                second.add("Many")
            first.add("Many")
            with pytest.raises(HistoryError, match="by another history since"):
                history.flush()
        with SQLiteHistory(path) as other, machine(other) as third:
            restore(third, other)
            third.add("Many")
        last = machine(history)
        restore(last, history)
        last.add("Bar")
        history.flush()
        assert clocks_in(path) == "[2, 1, 0, 3, 0]"
        assert [each.called for each in history.transitions()] == [
            *(("Foo",), ("Many",), ("Many",), ("Bar",))
        ]


def test_what_an_ended_machine_had_left_is_not_taken_for_what_the_next_one_did(path: Path) -> None:
    with SQLiteHistory(path, delay=60) as history:
        first = machine(history)
        history.flush()
        first.add("Foo")
        first.dispose()
        machine(history)  # both are written together, and Foo is 0 in the file and now
        (record,) = history.transitions()
        later = record.wall_ns / 1e9 + 60
        assert history.inactive_between("Foo", later)
        assert not history.active_between("Foo", later)


def test_nothing_is_told_of_a_state_while_it_was_not_there(path: Path) -> None:
    with SQLiteHistory(path) as history:
        machine(history).add("Foo")
    with SQLiteHistory(path) as history:
        without = {name: State(multi=True) for name in SCHEMA if name != "Foo"}
        mach = machine(history, schema=without)
        mach.add("Many")
        mach.add("Many")
    with SQLiteHistory(path, states=["Bar", "Many"]) as history:
        machine(history).add("Bar")
    with SQLiteHistory(path) as history:
        assert list(history.transitions())[-1].names == ("Bar", "Many")
        machine(history).add("Baz", "Bar")
        foo, *_, baz = history.transitions()
        assert history.latest(active="Foo") == foo
        assert history.latest(inactive="Foo") == baz
        assert history.active_between("Many", between=Ticks(3, 3))  # without Foo
        assert not history.active_between("Foo", between=Ticks(3, 3))
        assert not history.inactive_between("Foo", between=Ticks(3, 3))


def test_who_only_reads_waits_for_no_writer(path: Path) -> None:
    with SQLiteHistory(path) as history:
        machine(history).add("Foo")
    with (
        SQLiteHistory(path, patience=0) as reader,
        closing(sqlite3.connect(path, isolation_level=None)) as writer,
    ):
        writer.execute("BEGIN IMMEDIATE")
        assert reader.active_between("Foo")
        assert len(list(reader.transitions())) == 1
        assert restore(machine(), reader) is not None


def test_a_history_without_a_file_is_refused() -> None:
    with pytest.raises(HistoryError, match="MemoryHistory is the one without"):
        SQLiteHistory(":memory:")


def test_one_may_wait_for_others_as_long_as_one_likes(path: Path) -> None:
    with SQLiteHistory(path, patience=float("inf")) as history:
        mach = machine(history)
        mach.add("Foo")
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            threading.Timer(0.1, other.execute, ["COMMIT"]).start()
            history.flush()
        assert clocks_in(path) == "[1, 0, 0, 0, 0]"


WRITES_BESIDE = """
import sys
from asyncmachine import Machine, State
from asyncmachine.history import SQLiteHistory
with SQLiteHistory(sys.argv[1], delay=0) as history:
    machine = Machine({"Many": State(multi=True)}, id=sys.argv[2], tracers=[history])
    for n in range(2000):
        machine.add("Many")
        if n % 100 == 0:
            history.flush()
"""


def test_two_processes_write_to_one_file_each_its_own_machines(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITES_BESIDE, str(path), name])
        for name in ("one", "two", "three")
    ]
    assert [writer.wait(SOON * 3) for writer in writers] == [0, 0, 0]
    with SQLiteHistory(path) as history:
        for name in ("one", "two", "three"):
            records = list(history.transitions(machine=name))
            assert [each.time for each in records] == [(2 * n + 1, 0) for n in range(2000)]


def test_records_stream_while_more_are_written(path: Path) -> None:
    with SQLiteHistory(path, delay=0) as history:
        mach = machine(history)
        for _ in range(3000):
            mach.add("Many")
        more = threading.Semaphore(0)
        done = threading.Event()

        def go_on() -> None:
            while more.acquire() and not done.is_set():
                for _ in range(20):
                    mach.add("Many")

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            length = 3000
            for _ in range(3):
                ticks = []
                for record in history.transitions():
                    ticks.append(record.clock["Many"])
                    if len(ticks) % 50 == 0:
                        more.release()
                assert ticks == list(range(1, 2 * len(ticks), 2))
                assert len(ticks) >= length
                length = len(ticks)
        finally:
            done.set()
            more.release()
            thread.join()
        assert history.dropped == 0


def test_limits_hold_while_nobody_asks(path: Path) -> None:
    with SQLiteHistory(path, max_count=1000, delay=0) as history:
        mach = machine(history)
        for _ in range(30_000):
            mach.add("Many")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM records").fetchone() == (1000,)
        assert db.execute("SELECT count(*) FROM facts WHERE moved").fetchone() == (1000,)


def test_a_file_stays_as_small_as_asked_for(path: Path) -> None:
    with SQLiteHistory(path, max_bytes=300_000) as history:
        for name in ("one", "two"):
            mach = machine(history, id=name)
            for _ in range(30_000):
                mach.add("Many")
            history.flush()
        assert len(list(history.transitions(machine="two"))) > 100
    assert path.stat().st_size < 4_000_000  # the first batch was one transaction
    with SQLiteHistory(path, max_bytes=300_000) as history:
        size = path.stat().st_size
        mach = machine(history, id="two")
        restore(mach, history)
        for _ in range(3000):
            mach.add("Many")
        history.flush()
        assert path.stat().st_size <= size * 1.2


def test_closing_twice_is_as_good_as_once_and_nothing_is_recorded_after(path: Path) -> None:
    history = SQLiteHistory(path)
    mach = machine(history)
    mach.add("Foo")
    history.close()
    history.close()
    assert mach.add("Bar")
    history.flush()
    with pytest.raises(HistoryError, match="is closed"):
        history.latest(machine=mach)
    machine(history, id="late").add("Foo")
    with SQLiteHistory(path) as again:
        assert [each.called for each in again.transitions()] == [("Foo",)]


def test_a_forgotten_history_writes_what_waits_and_ends_its_thread(path: Path) -> None:
    before = {*threading.enumerate()}
    history = SQLiteHistory(path, delay=SOON)
    mach = machine(history)
    mach.add("Foo")
    threads = [*{*threading.enumerate()} - before]
    assert [each.name for each in threads] == [f"history {path.name}"]
    watched = weakref.ref(history)
    mach.dispose()
    del history, mach
    gc.collect()
    assert watched() is None
    threads[0].join(SOON)
    assert not threads[0].is_alive()
    assert clocks_in(path) == "[1, 0, 0, 0, 0]"


ENDS_WITHOUT_CLOSING = """
import sys
from asyncmachine import Machine, State
from asyncmachine.history import SQLiteHistory
history = SQLiteHistory(sys.argv[1], delay=10)
machine = Machine({"Foo": State()}, id="m", tracers=[history])
machine.add("Foo")
"""


def test_a_program_that_ends_loses_nothing(path: Path) -> None:
    subprocess.run([sys.executable, "-c", ENDS_WITHOUT_CLOSING, str(path)], check=True, timeout=30)
    assert clocks_in(path) == "[1, 0]"


def test_machines_that_have_ended_are_not_kept_in_memory(path: Path) -> None:
    with SQLiteHistory(path) as history:
        for n in range(50):
            with machine(history, id=f"m{n}") as mach:
                mach.add("Foo")
        history.flush()
        assert history.activated_recently("Foo", 60, machine="m7")
        assert len(history.machines) == 50
        assert history.dropped == 0
        newest = history.latest(machine="m49")
        assert isinstance(newest, Record)
        again = machine(history, id="m7")
        restore(again, history)
        again.add("Many")
        assert len(list(history.transitions(machine="m7"))) == 2


def test_a_machine_that_begins_while_an_earlier_one_is_put_away_is_counted_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SQLiteHistory(path, delay=60) as history:
        machine(history).add("Foo")
        putting_away = threading.Thread(target=history.flush)

        def begin(*details: Any) -> Track:
            putting_away.start()
            putting_away.join(0.1)  # it has to wait for what is under way here
            return Track(*details)

        monkeypatch.setattr(tracking, "Track", begin)
        mach = machine(history)
        putting_away.join()
        mach.add("Bar")
        history.flush()
        assert history.dropped == 0
        assert restore(machine(), history) == mach.clock()


def test_flush_gives_up_in_time(path: Path) -> None:
    with SQLiteHistory(path, patience=SOON) as history:
        mach = machine(history)
        mach.add("Foo")
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            begun = threading.Thread(target=history.flush)
            begun.start()

            def flush_until_it_is_late() -> None:
                while True:  # until the thread, which takes long, is first
                    history.flush(timeout=0.01)

            with pytest.raises(TimeoutError, match="was still being written after 0.01 s"):
                flush_until_it_is_late()
            other.execute("COMMIT")
            begun.join()
        assert clocks_in(path) == "[1, 0, 0, 0, 0]"


def test_its_repr_names_the_file(path: Path) -> None:
    with SQLiteHistory(os.fspath(path)) as history:
        assert repr(history) == f"<SQLiteHistory {path}>"
