"""What a history has to stand: interrupts, hostile values, files full of others, and much else."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from random import Random

import pytest

from asyncmachine import Event, Machine, Schema, State, Tracer, Transition, UnknownStateError
from asyncmachine.history import HistoryError, MemoryHistory, SQLiteHistory, Ticks, restore
from asyncmachine.history.writing import Writer
from tests.history.backends import machine
from tests.oracle import Request
from tests.races import PATIENCE
from tests.test_properties import Case, random_case


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.history"


def size_used(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        ((pages,),) = db.execute("PRAGMA page_count")
        ((free,),) = db.execute("PRAGMA freelist_count")
        ((page,),) = db.execute("PRAGMA page_size")
    return int((pages - free) * page)


# Interrupts -----------------------------------------------------------------------------


# In a process of its own, for what measures coverage does not stand interrupts.
INTERRUPTS = """
import signal, sqlite3, sys, threading
from random import Random
from asyncmachine import Machine, State
from asyncmachine.history import SQLiteHistory

class Interrupted(BaseException):
    pass

def interrupt(*_):
    raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
"""
INTERRUPTED = f"""{INTERRUPTS}
rnd, made, interrupted = Random(), 0, 0
with SQLiteHistory(sys.argv[1], delay=60) as history:
    machine = Machine({{"Many": State(multi=True)}}, id="m", tracers=[history])
    while interrupted < 40:
        for _ in range(300):
            machine.add("Many")
        made += 300
        try:
            signal.setitimer(signal.ITIMER_REAL, rnd.random() * 0.004 + 1e-6)
            history.flush()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            interrupted += 1
    history.flush()
    print(made, history.dropped)
"""


def test_an_interrupt_of_who_writes_loses_nothing_and_writes_nothing_twice(path: Path) -> None:
    program = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(path)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    made, dropped = map(int, program.stdout.split())
    assert dropped == 0
    with SQLiteHistory(path) as history:
        ticks = [record.clock["Many"] for record in history.transitions()]
    assert ticks == list(range(1, 2 * made, 2))


# The lock of the file is waited for, and had, before the handler of the signal runs.
INTERRUPTED_AS_IT_BEGINS = f"""{INTERRUPTS}
with SQLiteHistory(sys.argv[1], delay=60) as history:
    machine = Machine({{"Foo": State()}}, id="m", tracers=[history])
    machine.add("Foo")
    history.flush()
    machine.remove("Foo")
    other = sqlite3.connect(
        sys.argv[1], timeout=0, isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, other.execute, ["COMMIT"]).start()
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        history.flush()
    except Interrupted:
        other.execute("BEGIN IMMEDIATE")
        other.execute("COMMIT")
        print("the file is free")
    history.flush()
    print([each.kind for each in history.transitions()])
"""


def test_an_interrupt_of_who_waits_for_the_file_leaves_it_to_others(path: Path) -> None:
    program = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AS_IT_BEGINS, str(path)],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
        timeout=30,
    )
    assert program.stdout.splitlines() == ["the file is free", "['add', 'remove']"]


SIGNALED = """
import logging, signal, sys
from asyncmachine import Machine, State
from asyncmachine.history import SQLiteHistory

logging.basicConfig(level=logging.ERROR)
schema = {"Many": State(multi=True)}
with SQLiteHistory(sys.argv[1], durable=True) as history:
    one, two = (Machine(schema, id=name, tracers=[history]) for name in ("one", "two"))
    signal.signal(signal.SIGALRM, lambda *_: two.add("Many"))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    while two.tick("Many") < 200:
        assert one.add("Many")
    signal.setitimer(signal.ITIMER_REAL, 0)
    history.flush()
    for machine in (one, two):
        ticks = [each.clock["Many"] for each in history.transitions(machine=machine)]
        print(ticks == list(range(1, machine.tick("Many") + 1, 2)))
"""


def test_a_durable_machine_may_be_moved_by_a_signal_handler(path: Path) -> None:
    program = subprocess.run(
        [sys.executable, "-c", SIGNALED, str(path)],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=30,
    )
    assert program.stdout.split() == ["True", "True"]
    if program.stderr:  # it was told that this change could not be written before its result
        assert "signal handler or finaliser has interrupted" in program.stderr


FORKS = """
import os, sys
from asyncmachine import Machine, State
from asyncmachine.history import HistoryError, SQLiteHistory

with SQLiteHistory(sys.argv[1], delay=60, durable=sys.argv[2] == "True") as history:
    machine = Machine({"Foo": State(), "Bar": State()}, id="m", tracers=[history])
    machine.add("Foo")
    child = os.fork()
    if not child:
        assert machine.add("Bar")
        history.flush()
        try:
            history.latest()
        except HistoryError as error:
            assert "is closed" in str(error)
            sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    machine.remove("Foo")
    print([each.kind for each in history.transitions()], history.last_clocks().ticks)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("durable", ["True", "False"])
def test_a_process_that_is_forked_leaves_the_history_to_its_parent(
    path: Path, durable: str
) -> None:
    program = subprocess.run(
        [sys.executable, "-c", FORKS, str(path), durable],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
        timeout=30,
    )
    assert program.stdout == "['add', 'remove'] (2, 0, 0)\n"


FORKED_WHILE_ONE_JOINS = """
import os, threading, warnings
from asyncmachine import Machine, State
from asyncmachine.history import MemoryHistory

warnings.simplefilter("ignore", DeprecationWarning)
history = MemoryHistory()
over, joining = threading.Event(), threading.Event()

class Slow(Machine):
    def time(self, *states):
        joining.set()
        over.wait(20)
        return super().time(*states)

thread = threading.Thread(target=Slow, args=[{"Foo": State()}], kwargs={"tracers": [history]})
thread.start()
assert joining.wait(20)
child = os.fork()
if not child:
    machine = Machine({"Foo": State()}, id="m", tracers=[history])
    machine.add("Foo")
    os._exit(7 if history.latest(machine=machine) else 1)
over.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_machine_of_a_forked_child_waits_for_no_thread_that_has_just_made_one() -> None:
    program = subprocess.run(
        [sys.executable, "-c", FORKED_WHILE_ONE_JOINS],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
        timeout=30,
    )
    assert program.stdout == "7\n"


# Machines of one id ---------------------------------------------------------------------


def test_a_machine_that_failed_to_be_written_twice_is_not_taken_for_anothers(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SQLiteHistory(path, delay=60) as history, closing(sqlite3.connect(path)) as db:

        def fail() -> None:
            db.execute(
                "CREATE TRIGGER refuse BEFORE UPDATE OF seq ON machines "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
            with pytest.raises(HistoryError, match="refused"):
                history.flush()
            db.execute("DROP TRIGGER refuse")

        one = machine(history)
        fail()
        one.add("Foo")
        history.flush()
        one.remove("Foo")
        one.dispose()
        two = machine(history)
        two.add("Foo")
        fail()
        history.flush()
        assert [each.kind for each in history.transitions()] == ["add", "remove", "add"]
        assert history.dropped == 0
        assert "by another history" not in caplog.text


def test_the_clocks_of_an_earlier_machine_are_kept_without_its_records(path: Path) -> None:
    with SQLiteHistory(path, delay=60, backlog=1) as history:
        one = Machine({"Foo": State()}, id="m", tracers=[history])
        one.add("Foo")
        one.dispose()
        two = Machine({"Bar": State()}, id="m", tracers=[history])
        history.flush()
        clocks = history.last_clocks(machine=two)
        assert clocks is not None
        assert dict(zip(clocks.names, clocks.ticks, strict=True))["Foo"] == 1


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_where_a_machine_is_when_it_is_added_again_is_where_it_is_restored(
    path: Path, kind: str
) -> None:
    with SQLiteHistory(path) as file:
        history = file if kind == "sqlite" else MemoryHistory()
        moved = Machine({"Foo": State()}, id="m")
        binding = moved.add_tracer(history)
        moved.add("Foo")
        binding.unbind()
        moved.remove("Foo")
        moved.add_tracer(history)
        assert restore(Machine({"Foo": State()}, id="m"), history) == {"Foo": 2, "Exception": 0}


def test_a_machine_that_is_added_again_before_it_is_restored_is_where_it_was(path: Path) -> None:
    with SQLiteHistory(path) as history:
        Machine({"Foo": State()}, id="m", tracers=[history]).add("Foo")
    with SQLiteHistory(path) as history:
        fresh = Machine({"Foo": State()}, id="m")
        fresh.add_tracer(history).unbind()
        fresh.add_tracer(history)
        history.flush()
        assert restore(fresh, history) == {"Foo": 1, "Exception": 0}


# Threads --------------------------------------------------------------------------------


def test_when_no_thread_can_be_started_it_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with SQLiteHistory(path, delay=0) as history:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            toggled = machine(history)
            for _ in range(5):
                assert toggled.toggle("Foo")
        assert [each.getMessage() for each in caplog.records] == [
            f"[{path}] nothing is written for now: can't start new thread"
        ]
        assert toggled.toggle("Foo")
        with closing(sqlite3.connect(path)) as db:
            deadline = time.monotonic() + 20
            while db.execute("SELECT COUNT(*) FROM records").fetchone() != (7,):
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_who_waits_for_the_file_while_a_machine_is_made_does_not_wait_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Flushing(Machine):
        """A signal handler writes while its record begins."""

        def time(self, *states: str) -> tuple[int, ...]:
            if self.id == "new" and not done:
                ending.start()
                assert at_it.wait(PATIENCE)
                threading.Timer(0.1, go_on.set).start()
                history.flush(PATIENCE)
                done.append(True)
            return super().time(*states)

    done: list[bool] = []
    at_it, go_on = threading.Event(), threading.Event()
    with SQLiteHistory(path, delay=60) as history:
        old = Machine({"Foo": State()}, id="old", tracers=[history])
        old.add("Foo")
        history.flush()
        forget = vars(Writer)["_forget_ended"]

        def forget_late(writer: Writer) -> None:
            at_it.set()
            assert go_on.wait(PATIENCE)
            forget(writer)

        monkeypatch.setattr(Writer, "_forget_ended", forget_late)
        del old
        gc.collect()
        ending = threading.Thread(target=history.flush)
        Flushing({"Foo": State()}, id="new", tracers=[history])
        ending.join()
    assert done == [True]


# Hostile values -------------------------------------------------------------------------


def test_an_id_that_is_no_utf_8_is_refused_and_harms_no_other(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SQLiteHistory(path) as history:
        good, bad = machine(history, id="good"), machine(history, id="bad\udcff")
        assert "keeps no machine of the id 'bad\\udcff'" in caplog.text
        assert good.add("Foo")
        assert bad.add("Foo")
        history.flush()
        assert history.machines == ("good",)
        with pytest.raises(HistoryError, match="it is not UTF-8"):
            restore(bad, history)
        with pytest.raises(HistoryError, match="can not be used: 'utf-8'"):
            history.latest(machine="other\udcff")


def test_clocks_that_no_file_can_hold_are_told_and_harm_no_other(path: Path) -> None:
    with SQLiteHistory(path, delay=60) as history:
        good, bad = machine(history, id="good"), machine(history, id="bad")
        bad.import_state({"names": ["Many"], "ticks": [2**64 + 1]})
        bad.add("Foo")
        with pytest.raises(HistoryError, match="records can not be kept in .*file.history"):
            history.flush()
        good.add("Foo")
        history.flush()
        assert history.active_between("Foo", machine=good)
        clocks = restore(machine(id="bad"), history)
        assert clocks == bad.clock()


def test_the_thread_outlives_what_can_not_be_written(path: Path) -> None:
    with SQLiteHistory(path, delay=0) as history:
        good, bad = machine(history, id="good"), machine(history, id="bad")
        bad.import_state({"names": ["Many"], "ticks": [2**64 + 1]})
        bad.add("Foo")
        with closing(sqlite3.connect(path)) as db:
            for _ in range(3000):
                good.add("Many")
                if db.execute("SELECT count(*) FROM records").fetchone()[0] > 3:
                    break
                time.sleep(0.001)  # the thread takes its time after a failure
            else:
                pytest.fail("nothing is written any more")


@pytest.mark.parametrize("backend", [MemoryHistory, SQLiteHistory])
def test_windows_may_be_as_wide_as_one_likes(backend: type, path: Path) -> None:
    history = backend() if backend is MemoryHistory else backend(path)
    machine(history).add("Foo")
    assert history.active_between("Foo", between=Ticks(-(10**30), 10**30))
    assert history.active_between("Foo", -1e300, 1e300)
    assert not history.active_between("Foo", between=Ticks(10**30))
    if isinstance(history, SQLiteHistory):
        history.close()


@pytest.mark.parametrize("backend", [MemoryHistory, SQLiteHistory])
def test_windows_may_reach_over_all_dates(backend: type, path: Path) -> None:
    history = backend() if backend is MemoryHistory else backend(path)
    machine(history).add("Foo")
    for zone in (None, UTC, timezone(timedelta(hours=9)), timezone(timedelta(hours=-9))):
        first, last = (datetime(year, 1, 1, tzinfo=zone) for year in (1, 9999))
        assert history.active_between("Foo", first, last)
        assert not history.activated_between("Foo", last)
        assert not history.active_between("Foo", None, first)
    if isinstance(history, SQLiteHistory):
        history.close()


# Who is not recorded --------------------------------------------------------------------


@pytest.mark.parametrize("backend", [MemoryHistory, SQLiteHistory])
def test_restore_tells_that_a_machine_is_not_recorded(backend: type, path: Path) -> None:
    history = backend(changed="Fooo") if backend is MemoryHistory else backend(path, changed="Fooo")
    mach = machine(history)
    with pytest.raises(UnknownStateError, match="did you mean 'Foo'"):
        restore(mach, history)
    if isinstance(history, SQLiteHistory):
        history.close()


# Cost -----------------------------------------------------------------------------------


def test_what_was_activated_recently_is_told_while_nobody_can_write(path: Path) -> None:
    with SQLiteHistory(path, patience=60, delay=60) as history:
        mach = machine(history)
        mach.add("Foo")
        history.flush()
        for _ in range(100):
            mach.add("Many")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # a question that writes first would wait
            assert history.activated_recently("Foo", 60)
            assert history.activated_recently("Many", 60)
            assert not history.activated_recently("Bar", 60)
            other.execute("COMMIT")


# Limits ---------------------------------------------------------------------------------


def test_a_file_is_kept_small_though_its_machines_have_ended(path: Path) -> None:
    with SQLiteHistory(path, max_bytes=500_000) as history:
        for n in range(60):
            with machine(history, id=f"m{n}") as mach:
                for _ in range(300):
                    mach.add("Many")
            history.flush()
        assert size_used(path) <= 500_000
        clocks = restore(machine(id="m0"), history)
        assert clocks is not None
        assert {name: tick for name, tick in clocks.items() if tick} == {"Many": 599}
        assert list(history.transitions(machine="m59"))[-1].clock["Many"] == 599
    with SQLiteHistory(path) as history:
        assert len(history.machines) == 60


def test_machines_that_have_ended_grow_old_too(path: Path) -> None:
    with SQLiteHistory(path, max_age=0.05) as history:
        with machine(history, id="ended") as mach:
            for _ in range(100):
                mach.add("Many")
            last = time.time_ns()
        history.flush()
        while time.time_ns() <= last + 100_000_000:
            time.sleep(0.01)
        machine(history, id="living").add("Foo")
        history.flush()
        assert len(list(history.transitions(machine="ended"))) <= 1


def test_a_limit_leaves_to_another_process_what_it_counts_on(path: Path) -> None:
    with SQLiteHistory(path) as other, SQLiteHistory(path, max_age=0.01) as strict:
        mach = machine(other)
        for _ in range(10):
            mach.add("Many")
        other.flush()
        last = time.time_ns()
        while time.time_ns() <= last + 30_000_000:
            time.sleep(0.01)
        machine(strict, id="strict").add("Foo")
        strict.flush()
        mach.add("Foo")
        assert other.active_between("Many", machine=mach)
        assert len(list(other.transitions(machine=mach))) == 2
        assert restore(machine(), other) == mach.clock()


# Random lives ---------------------------------------------------------------------------


@pytest.fixture
def quiet() -> Iterator[None]:
    logger = logging.getLogger("asyncmachine")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


class Diary(Tracer):
    """Clocks before and after everything that moved."""

    def __init__(self) -> None:
        self.told: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def transition_end(self, tx: Transition) -> None:
        if tx.moment is not None:
            self.told.append((tx.time_before, tx.time_after))


def live(case: Case, *tracers: Tracer) -> Machine:
    """Live through a random case: its schema, its handlers that veto and fail, its requests."""
    mach = Machine(Schema.from_dict(case.schema), id="m", tracers=tracers)
    asked = dict(case.asked)

    def request(each: Request) -> object:
        return getattr(mach, each.kind)(*each.called)

    for script in case.scripts:
        turns: Mapping[str, Iterator[str]] = {
            name: itertools.cycle(outcomes) for name, outcomes in script.items()
        }

        def follow(event: Event, turns: Mapping[str, Iterator[str]] = turns) -> object:
            for each in asked.pop(event.name, ()):
                request(each)
            outcome = next(turns[event.name])
            if outcome == "raise":
                raise LookupError(event.name)
            return outcome != "veto"

        mach.bind(dict.fromkeys(script, follow))
    for each in case.mutations:
        request(each)
    return mach


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("durable", [False, True])
def test_a_random_life_is_told_to_the_digit_and_restored_equal(path: Path, durable: bool) -> None:
    for seed in range(20 if durable else 150):
        file, memory, diary = path.with_name(f"{seed}"), MemoryHistory(), Diary()
        case = random_case(Random(seed), objects=seed % 3, asking=bool(seed % 2))
        with (
            SQLiteHistory(file, durable=durable) as history,
            live(case, diary, memory, history) as mach,
        ):
            for each in (memory, history):
                records = list(each.transitions())
                assert [(r.time_before, r.time) for r in records] == diary.told, seed
                if records:
                    assert records[-1].clock == mach.clock()
        with SQLiteHistory(file) as reopened:
            for each in (memory, reopened):
                again = Machine(Schema.from_dict(case.schema), id="m")
                restore(again, each)
                assert again.time() == mach.time(), seed


def test_children_and_threads_may_come_and_go_while_others_ask(path: Path) -> None:
    over = threading.Event()
    faults: list[BaseException] = []
    with SQLiteHistory(path, inherit=True, delay=0) as history:
        parent = machine(history, id="parent")
        parent.add("Foo")

        def ask() -> None:
            try:
                while not over.is_set():
                    assert history.active_between("Foo", machine="parent")
                    for each in history.machines:
                        list(history.transitions(machine=each))
            except BaseException as fault:
                faults.append(fault)

        asking = threading.Thread(target=ask)
        asking.start()
        for n in range(60):
            with machine(id=f"child{n % 7}", parent=parent) as child:
                child.add("Many")
                child.add("Foo")
        over.set()
        asking.join()
        assert faults == []
        told = sum(len(list(history.transitions(machine=f"child{n}"))) for n in range(7))
        assert told == 120
        assert history.dropped == 0
