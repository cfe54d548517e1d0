"""A process that dies harms nobody else, and is built again if so wanted."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from asyncmachine import Event, Result, pipe
from asyncmachine.net import ConnectionLostError, Network, RemoteMachine
from asyncmachine.net import network as module
from tests.net import making
from tests.races import PATIENCE, outcome, start, start_asleep, together


def kill(net: Network, index: int, how: int = signal.SIGKILL) -> None:
    """Kill a process, and wait until the network has noticed."""
    for remote in net.processes[index].remotes:  # it may be about to be built again
        assert remote.connection.when("Connected").wait(PATIENCE)
    noticed = net.machine.when_ticks("ProcessDied", 1)
    os.kill(net.processes[index].pid, how)
    assert noticed.wait(PATIENCE)


def await_back(remote: RemoteMachine) -> None:
    """Wait until a machine that was lost has been built again, or is about to be lost."""
    while True:
        try:
            remote.sync(PATIENCE)
        except ConnectionLostError:
            assert not remote.is_disposed
        else:
            return


# Never ----------------------------------------------------------------------------------------


@pytest.fixture
def net() -> Iterator[Network]:
    with Network(processes=2, call_timeout=PATIENCE) as network:
        yield network


def test_a_process_that_is_killed_is_noticed(net: Network) -> None:
    a, b = net.spawn_many(making.make, [("a",), ("b",)])
    died = net.machine.when_args("ProcessDied", {})
    down = a.connection.when("Disconnected")
    waiter = a.when("Foo")
    ctx = a.state_ctx("Bar")
    gone: list[str] = []
    a.on_dispose(lambda machine: gone.append(machine.id))
    os.kill(net.processes[0].pid, signal.SIGKILL)
    assert died.wait(PATIENCE)
    assert died.args == {"process": 0, "exitcode": -9, "machines": ("a",)}
    assert down.wait(PATIENCE)
    assert isinstance(net.processes[0].pid, int)
    assert not net.processes[0].is_alive
    assert net.processes[0].machines == ()
    assert list(net.machines) == ["b"]
    assert gone == ["a"]
    assert waiter.wait(PATIENCE)
    assert waiter.disposed
    assert a.when("Foo").wait(PATIENCE)
    assert a.when("Foo").disposed
    assert ctx.expired
    for mutate in (a.add, a.remove, a.set, partial(a.send, "add")):
        result = mutate("Foo")
        assert result == Result.CANCELED
        assert "has died" in result.why
    for call in (a.sync, partial(a.eval, making.pid)):
        with pytest.raises(ConnectionLostError, match="has died"):
            call()
    a.dispose()
    assert b.add("Foo")
    c = net.spawn(making.make, "c")
    assert c.eval(making.pid) == net.processes[1].pid
    with pytest.raises(ConnectionLostError):
        net.spawn(making.make, "d", process=0)
    kill(net, 1)
    with pytest.raises(ConnectionLostError, match="no process"):
        net.spawn(making.make, "d")
    assert net.machine.tick("ProcessDied") == 3


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGSEGV])
def test_other_ends(net: Network, how: int) -> None:
    net.spawn(making.make, "a", process=0)
    died = net.machine.when_args("ProcessDied", {})
    os.kill(net.processes[0].pid, how)
    assert died.wait(PATIENCE)
    assert died.args is not None
    assert died.args["exitcode"] == (0 if how is signal.SIGTERM else -how)
    assert not net.machines


def test_the_exit_code_of_a_process_that_ends_itself_is_told(net: Network) -> None:
    for index in (0, 1):
        died = net.machine.when_args("ProcessDied", {})
        with pytest.raises(ConnectionLostError, match="exit code 3"):
            net.spawn(making.make_an_end, "_exit", process=index)
        assert died.wait(PATIENCE)
        assert died.args == {"process": index, "exitcode": 3, "machines": ()}


def test_calls_that_wait_for_a_process_end_with_it(net: Network, tmp_path: Path) -> None:
    a, b = net.spawn_many(making.make, [("a",), ("b",)])
    making.stick(a, tmp_path)
    waiting: list[Future[object]] = [
        start(partial(a.add, "Foo")),
        start(partial(a.eval, making.pid)),
        start(a.dispose),
        start(partial(b.add, "Foo")),
    ]
    assert outcome(waiting.pop())
    kill(net, 0)
    for each in waiting[:2]:
        with pytest.raises(ConnectionLostError):
            outcome(each)
    outcome(waiting[2])
    assert b.add("Bar")


def test_nothing_hangs_when_a_process_is_killed_amid_calls() -> None:
    for round_ in range(8):
        with Network(processes=2) as net:
            a, b = net.spawn_many(making.make, [("a",), ("b",)])
            barrier = threading.Barrier(6)

            def mutate(remote: RemoteMachine, call: str, barrier: threading.Barrier) -> int:
                barrier.wait(PATIENCE)
                for n in range(100_000):
                    try:
                        if call == "sync":
                            remote.sync()
                        elif call == "send":
                            if not remote.send("add", "Hit"):
                                return n
                        elif not remote.toggle("Foo"):
                            return n
                    except ConnectionLostError:
                        return n
                raise AssertionError

            jobs = [
                start(partial(mutate, a, call, barrier))
                for call in ("add", "add", "sync", "send", "send")
            ]
            barrier.wait(PATIENCE)
            if round_ % 2:
                b.sync()
            kill(net, 0)
            for job in jobs:
                outcome(job)
            assert a.when("Bar").wait(PATIENCE)
            assert b.add("Foo")


def test_spawning_amid_a_death() -> None:
    for _ in range(4):
        with Network(processes=2) as net:
            net.spawn(making.make, "first", process=0)

            def build(place: int, net: Network = net) -> None:
                for i in range(20):
                    try:
                        net.spawn(making.make, f"{place}-{i}", process=place)
                    except ConnectionLostError:
                        assert place == 0
                        return

            together(partial(build, 0), partial(build, 1), partial(kill, net, 0))
            assert len(net.machines) == 20
            assert net.processes[0].machines == ()
            assert all(each.add("Foo") for each in net.machines.values())


def test_a_stopped_process_delays_nobody_else_and_loses_nothing(tmp_path: Path) -> None:
    with Network(processes=3, call_timeout=0.5) as net:
        a, b, c = net.spawn_many(making.make, [("a",), ("b",), ("c",)])
        pipe(b, "Hit", a, "Hit")
        pipe(b, "Hit", c, "Hit")
        a.sync(PATIENCE)
        b.add("Hit", n=0)
        making.stop(net.processes[0].pid)
        try:
            for call in (partial(a.add, "Foo"), a.sync, partial(a.eval, making.pid)):
                with pytest.raises(TimeoutError):
                    call()
            done = c.when_ticks("Hit", 202)
            sent = [a.send("add", "Hit", by=n) for n in range(100)]
            b.eval(making.hit_some)
            assert b.add("Foo")
            assert done.wait(PATIENCE)
        finally:
            os.kill(net.processes[0].pid, signal.SIGCONT)
        assert all(each.wait(PATIENCE) for each in sent)
        assert a.when_time({"Hit": 2 * 301 - 1}).wait(PATIENCE)
        a.sync(PATIENCE)
        heard = a.eval(making.heard)
        assert [each["by"] for each in heard if "by" in each] == list(range(100))
        assert [each["n"] for each in heard if "n" in each] == [0, *range(200)]


def test_pipes_end_with_either_machine(net: Network) -> None:
    a, b = net.spawn_many(making.make, [("a",), ("b",)])
    link = pipe(a, "Foo", b, "Foo")
    assert not link.closed
    kill(net, 1)
    assert link.closed
    assert a.add("Foo")
    assert a.error is None


# On failure -----------------------------------------------------------------------------------


@pytest.fixture
def lasting() -> Iterator[Network]:
    with Network(processes=2, restart="on-failure", call_timeout=PATIENCE) as network:
        yield network


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.1)


def test_a_process_is_built_again_with_its_machines(lasting: Network) -> None:
    a = lasting.spawn(making.make_with, machine_id="a", on=True, process=0)
    b = lasting.spawn(making.make, "b", process=0)
    a.add("Bar")
    before = lasting.processes[0].pid
    kept = b.when("Foo")
    lives: list[str] = []
    for state in ("Disconnected", "Connecting", "Connected"):
        a.connection.on(f"{state}_state", lambda event: lives.append(event.name))
    kill(lasting, 0)
    assert a.add("Hit")  # it waits
    assert lives == ["Disconnected_state", "Connecting_state", "Connected_state"]
    assert lasting.processes[0].pid != before
    assert lasting.processes[0].is_alive
    assert lasting.processes[0].machines == ("a", "b")
    assert lasting.machines == {"a": a, "b": b}
    assert set(a.active_states()) == {"Foo", "Hit"}
    assert a.tick("Bar") == 0
    assert not kept.is_set()
    b.add("Foo")
    assert kept.wait(PATIENCE)
    assert not kept.disposed
    assert a.eval(making.pid) == lasting.processes[0].pid
    assert lasting.spawn(making.make, "c", process=0).add("Foo")


def test_what_waits_for_clocks_is_judged_by_the_new_life(lasting: Network) -> None:
    a = lasting.spawn(making.make_with, machine_id="a", on=True, process=0)
    for _ in range(3):
        a.add("Hit")
    ctx = a.state_ctx("Foo")
    tick = a.when_tick("Hit", 9)
    time = a.when_time({"Hit": 9})
    ticks = a.when_ticks("Hit", 6)
    args = a.when_args("Hit", {"n": 7})
    not_foo = a.when_not("Foo")
    assert a.tick("Hit") == 5
    a.add("Hit")
    assert a.tick("Hit") == 7  # two of the six
    kill(lasting, 0)
    await_back(a)
    assert ctx.expired
    assert a.tick("Hit") == 0
    a.add("Hit")
    a.add("Hit")
    assert not ticks.is_set()
    a.add("Hit")  # one, three, five
    assert ticks.is_set()
    assert [each.is_set() for each in (tick, time, args, not_foo)] == [False] * 4
    a.add("Hit", n=7)
    assert args.wait(PATIENCE)
    a.add("Hit")
    assert time.is_set()
    assert tick.is_set()
    a.remove("Foo")
    assert not_foo.is_set()


def test_nothing_is_done_before_the_pipes_are_laid_again(lasting: Network) -> None:
    source = lasting.spawn(making.make, "s", process=0)
    target = lasting.spawn(making.make, "t", process=1)
    link = pipe(source, "Hit", target, "Hit")
    for n in range(4):
        kill(lasting, 0)
        arrived = target.when_args("Hit", {"n": n})
        assert source.add("Hit", n=n)  # it waits, and is the first thing in the new life
        assert arrived.wait(PATIENCE)
        target.sync()
        assert target.tick("Hit") == 2 * n + 1, "it has come twice"
        assert not link.closed


def test_pipes_that_a_child_has_laid_are_laid_again() -> None:
    with Network(processes=3, restart="on-failure", call_timeout=PATIENCE) as net:
        source = net.spawn(making.make, "s", process=0)
        target = net.spawn(making.make, "t", process=1)
        net.spawn(making.make_piper, "p", source, target, process=2)
        for n in range(3):
            kill(net, 0)
            arrived = target.when_args("Hit", {"n": n})
            await_back(source)
            while not arrived.is_set():  # who laid it has to find its own way there
                assert source.add("Hit", n=n)
                arrived.wait(0.1)
            target.sync()


def test_listeners_go_on(lasting: Network) -> None:
    a = lasting.spawn(making.make, "a", process=0)
    heard: list[object] = []
    three = threading.Event()

    def hear(event: Event) -> None:
        heard.append(event.args["n"])
        if event.args["n"] == 3:
            three.set()

    a.on("Hit_state", hear)
    a.add("Hit", n=1)
    for n in (2, 3):
        kill(lasting, 0)
        a.add("Hit", n=n)
    assert three.wait(PATIENCE)
    assert heard == [1, 2, 3]


@pytest.mark.parametrize("victims", [(0,), (1,), (0, 1), (1, 0), (0, 0, 1, 1)])
def test_pipes_are_laid_again(lasting: Network, victims: tuple[int, ...]) -> None:
    a = lasting.spawn(making.make, "a", process=0)
    b = lasting.spawn(making.make, "b", process=1)
    across = pipe(a, "Hit", b, "Hit")
    pipe(b, "Foo", a, "Foo")
    closed = pipe(a, "Bar", b, "Bar")
    closed.close()
    a.add("Hit", n=0)
    assert b.when("Hit").wait(PATIENCE)
    for each in victims:
        kill(lasting, each)
    await_back(a)
    await_back(b)
    there = b.when_args("Hit", {"n": 1})
    while not there.is_set():  # it is laid after the machines are back
        a.add("Hit", n=1)
        there.wait(0.05)
    b.add("Foo")
    back = a.when("Foo")
    while not back.is_set():
        b.toggle("Foo")
        back.wait(0.05)
    a.add("Bar")
    assert not across.closed
    a.sync()
    b.sync()
    assert not b.is_active("Bar")


def test_proxies_that_are_arguments_find_each_other_again(lasting: Network) -> None:
    b1 = lasting.spawn(making.make, "b1", process=1)
    a1 = lasting.spawn(making.make, "a1", b1, process=0)
    b2 = lasting.spawn(making.make, "b2", a1, process=1)
    lasting.spawn(making.make, "b3", b2, process=1)  # in its own process
    os.kill(lasting.processes[0].pid, signal.SIGKILL)
    kill(lasting, 1)
    for each in list(lasting.machines.values()):
        await_back(each)
    b2.add("Foo")
    for name in ("a1", "b1"):
        assert lasting.machines[name].when("Foo").wait(PATIENCE), name


def test_mutations_amid_deaths_end_and_the_machine_works_afterwards(lasting: Network) -> None:
    a = lasting.spawn(making.make, "a", process=0)
    stop = threading.Event()

    def mutate() -> int:
        lost = 0
        while not stop.is_set():
            try:
                a.toggle("Foo")
            except ConnectionLostError:
                lost += 1
        return lost

    def send() -> None:
        while not stop.is_set():
            a.send("add", "Hit")

    def murder() -> None:
        for _ in range(3):
            a.sync()
            kill(lasting, 0)
        stop.set()

    together(mutate, mutate, send, murder, until=stop)
    a.sync()
    assert a.set("Bar")
    assert a.active_states() == ("Bar",)


def test_spawning_waits_for_a_process_that_is_built_again() -> None:
    with Network(processes=1, restart="on-failure") as net:
        for i in range(3):
            kill(net, 0)
            assert net.spawn(making.make, f"m{i}").add("Foo")
        assert list(net.machines) == ["m0", "m1", "m2"]


def test_one_that_ends_well_is_not_built_again(lasting: Network) -> None:
    a = lasting.spawn(making.make, "a", process=0)
    kill(lasting, 0, signal.SIGTERM)
    assert a.when("Foo").wait(PATIENCE)
    assert a.is_disposed
    assert not lasting.processes[0].is_alive


def test_a_machine_that_can_not_be_built_again_is_lost(lasting: Network, tmp_path: Path) -> None:
    a = lasting.spawn(making.make_while, "a", str(tmp_path), process=0)
    b = lasting.spawn(making.make, "b", process=0)
    tmp_path.rmdir()
    kill(lasting, 0)
    assert a.when("Foo").wait(PATIENCE)
    assert a.is_disposed
    assert "not be built again" in a.add("Foo").why
    assert b.add("Foo")
    assert list(lasting.machines) == ["b"]


def test_a_process_that_dies_at_every_start_is_given_up(
    lasting: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_RESTARTS", 3)
    a = lasting.spawn(making.make_once, "a", str(tmp_path / "flag"), process=0)
    b = lasting.spawn(making.make, "b", process=1)
    link = pipe(b, "Foo", a, "Foo")
    kill(lasting, 0)
    assert a.when("Foo").wait(PATIENCE)
    assert a.is_disposed
    assert a.add("Foo") == Result.CANCELED
    assert link.closed
    assert lasting.machine.when_time({"ProcessDied": 2 * 4 - 1}).wait(PATIENCE)
    assert b.add("Foo")
    assert lasting.spawn(making.make, "c").eval(making.pid) == lasting.processes[1].pid


def test_closing_amid_a_restart(tmp_path: Path) -> None:
    there = set(making.children())
    for i in range(6):
        net = Network(processes=1, restart="on-failure")
        a = net.spawn(making.make, "a")
        waiting = start_asleep(lambda a=a: a.when("Foo").wait(PATIENCE))  # type: ignore[misc]
        kill(net, 0)
        if i % 3 == 1:
            a.connection.when("Connecting").wait(PATIENCE)
        elif i % 3 == 2:
            net.processes[0].client.await_up(PATIENCE)
        net.close()
        assert outcome(waiting)
        assert set(making.children()) == there
        assert not a.add("Foo")
