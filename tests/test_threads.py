"""Background threads: work is started at once, and never lost on a thread that ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from asyncmachine import Event, Machine, State, pipe
from asyncmachine.threads import one_thread, run_aside, run_background, run_elsewhere
from tests.races import PATIENCE, Gate, outcome, start, switching_often, together


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


def _idents(number: int) -> list[int]:
    """Run so many pieces of work at the same time; give the threads they ran on."""
    barrier = threading.Barrier(number + 1)
    idents: list[int] = []

    def work() -> None:
        idents.append(threading.get_ident())
        barrier.wait(PATIENCE)

    for _ in range(number):
        run_elsewhere(work)
    barrier.wait(PATIENCE)
    return idents


def test_work_runs_on_another_thread_which_is_a_daemon() -> None:
    ran = threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        ran.set()

    run_elsewhere(work)

    assert ran.wait(PATIENCE)
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon


def test_work_never_waits_for_other_work() -> None:
    assert len(set(_idents(20))) == 20
    assert len(set(_idents(20))) == 20


def test_a_thread_that_has_done_its_work_takes_more() -> None:
    idents: list[int] = []
    for _ in range(200):
        done = threading.Event()

        def work(done: threading.Event = done) -> None:
            idents.append(threading.get_ident())
            done.set()

        run_elsewhere(work)
        assert done.wait(PATIENCE)

    assert len(set(idents)) < 100


def test_no_work_is_lost_when_threads_are_idle_for_no_time_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncmachine.threads.KEPT", 0.0)

    def ask() -> int:
        for _ in range(150):
            done = threading.Event()
            run_elsewhere(done.set)
            assert done.wait(PATIENCE)
        return 150

    assert together(*[ask] * 3) == [150] * 3


class _LastMoment(deque[Any]):
    """Idle threads, of which the one that retires is taken just before it can."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self._work = work
        self._armed = True

    def remove(self, value: object) -> None:
        if self._armed:
            self._armed = False
            run_elsewhere(self._work)  # takes the only idle one
        super().remove(value)


def test_work_given_to_a_thread_that_is_about_to_end_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    idents: list[int] = []
    done = threading.Event()

    def work() -> None:
        idents.append(threading.get_ident())
        if len(idents) == 2:
            done.set()

    monkeypatch.setattr("asyncmachine.threads.KEPT", 0.0)
    monkeypatch.setattr("asyncmachine.threads._idle", _LastMoment(work))
    run_elsewhere(work)

    assert done.wait(PATIENCE)
    assert idents[0] == idents[1]


def test_a_thread_that_has_nothing_to_do_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncmachine.threads.KEPT", 0.0)
    monkeypatch.setattr("asyncmachine.threads._idle", deque())
    threads: list[threading.Thread] = []
    ran = threading.Event()

    def work() -> None:
        threads.append(threading.current_thread())
        ran.set()

    run_elsewhere(work)
    assert ran.wait(PATIENCE)
    threads[0].join(PATIENCE)

    assert not threads[0].is_alive()


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_an_error_in_the_work_goes_to_the_hook_and_the_thread_lives_on(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooked: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: hooked.append(args.exc_type))
    monkeypatch.setattr("asyncmachine.threads._idle", deque())
    gates = [Gate(), Gate()]
    idents: list[int] = []

    def work(gate: Gate) -> None:
        idents.append(threading.get_ident())
        gate()
        raise error

    for gate in gates:
        run_elsewhere(partial(work, gate))
        gate.await_reached()
        gate.open()

    assert len(_idents(3)) == 3
    assert hooked[0] is error


def test_what_the_work_held_is_let_go_when_it_is_done() -> None:
    class Held:
        def __del__(self) -> None:
            gone.set()

        def work(self) -> None:
            pass

    gone = threading.Event()
    run_elsewhere(Held().work)

    assert gone.wait(PATIENCE)


def test_many_threads_may_ask_at_once() -> None:
    done: list[int] = []
    counted = threading.Semaphore(0)

    def work(n: int) -> None:
        done.append(n)
        counted.release()

    def ask() -> None:
        for n in range(100):
            run_elsewhere(partial(work, n))

    together(*[ask] * 4)
    assert [counted.acquire(timeout=PATIENCE) for _ in range(400)] == [True] * 400

    assert sorted(done) == sorted([*range(100)] * 4)


def test_background_threads_do_not_keep_a_program_from_ending() -> None:
    code = """
import threading
from asyncmachine import Machine, State
started = threading.Event()
def forever(ctx):
    started.set()
    threading.Event().wait()
handlers = {"Foo_state": lambda event: event.fork(forever)}
machine = Machine({"Foo": State(), "Bar": State()}, handlers=handlers)
machine.add("Foo")
started.wait()
machine.send("add", "Bar").wait()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout.strip() == "done"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_background_threads_of_its_own() -> None:
    code = """
import os, threading, warnings
warnings.simplefilter("ignore")
from asyncmachine import Machine, State
machine = Machine({"Foo": State(multi=True)})
machine.send("add", "Foo").wait(5)
pid = os.fork()
if pid == 0:
    machine.send("add", "Foo").wait(5)
    print("child", machine.tick("Foo"), flush=True)
    os._exit(0)
print(os.waitpid(pid, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["child", "3", "0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_waits_for_no_lock_of_a_thread_that_it_lacks() -> None:
    code = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")
from asyncmachine import Machine, State, Tracer
sys.setswitchinterval(1e-5)
done = threading.Event()
def build():
    outer = Machine({"Foo": State()})
    def meet(event):
        inner = Machine({"Foo": State()})
        inner.add_tracer(Tracer())
        inner.add("Foo").wait(5)
        inner.eval(lambda: None)
        inner.when("Foo").on_done(lambda waiter: None)
    outer.on("Foo_state", lambda event: None)
    outer.bind({"Foo_state": meet})
    outer.add("Foo")
def work():
    while not done.is_set():
        build()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
ends = []
for _ in range(60):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # what hangs is killed
        build()
        os._exit(0)
    ends.append(os.waitpid(pid, 0)[1])
done.set()
print({*ends})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == "{0}"


def test_the_caller_is_not_blocked() -> None:
    gate = Gate()
    asked = start(lambda: run_elsewhere(gate))
    outcome(asked)
    gate.await_reached()
    gate.open()


# One thread ----------------------------------------------------------------------------------


def test_within_one_thread_all_is_done_there_and_in_order() -> None:
    done: list[tuple[str, int]] = []

    def note(name: str) -> None:
        done.append((name, threading.get_ident()))

    def note_and_give_away() -> None:
        note("a")
        run_aside(partial(note, "c"))

    with one_thread() as background:
        run_aside(note_and_give_away)
        run_aside(lambda: note("b"))
        assert not done
        background.run()
        run_aside(lambda: note("d"))
        assert len(done) == 3
    assert done == [(name, threading.get_ident()) for name in "abcd"]
    assert not run_background()


def test_within_one_thread_pipes_and_forks_need_no_other() -> None:
    before = set(threading.enumerate())
    seen: list[object] = []
    schema = {"Foo": State(multi=True)}
    machines = [Machine(schema, id=str(n)) for n in range(4)]
    for source, target in pairwise(machines):
        pipe(source, "Foo", target, "Foo")

    def fork(event: Event) -> None:
        event.fork(lambda ctx: seen.append((event.args["n"], threading.get_ident())))

    machines[-1].bind({"Foo_state": fork})
    with one_thread():
        for n in range(100):
            machines[0].add("Foo", n=n)
            assert machines[-1].tick("Foo") == 2 * n + 1
    assert seen == [(n, threading.get_ident()) for n in range(100)]
    assert set(threading.enumerate()) <= before


def test_what_waits_when_one_thread_ends_with_an_error_is_done_elsewhere() -> None:
    done = threading.Event()

    def give_away_and_fail() -> None:
        with one_thread():
            run_aside(done.set)
            int("none")

    with pytest.raises(ValueError, match="none"):
        give_away_and_fail()
    assert done.wait(PATIENCE)


def test_an_error_in_what_waits_is_told_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    done: list[int] = []
    with one_thread():
        run_aside(lambda: 1 // 0)
        run_aside(lambda: done.append(1))
    assert (told, done) == ([ZeroDivisionError], [1])


def test_one_thread_does_not_concern_others() -> None:
    with one_thread():
        assert outcome(start(lambda: _idents(2))) != [threading.get_ident()] * 2
