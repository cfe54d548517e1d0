"""The process that hosts machines ends well, and looks for what may still come."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncmachine import Result, pipe
from asyncmachine.net import ConnectionLostError, Network, RemoteError, RemoteMachine
from asyncmachine.net.host import Config, Host, proxy
from asyncmachine.net.process import Preparation
from tests.net import making
from tests.races import PATIENCE, outcome, start


def test_a_host_is_a_machine() -> None:
    config = Config("net", 3, "unix:/nonexistent/host-3.sock", b"secret", (), False, 100, 1.0)
    host = Host(config)
    assert host.machine.id == "net-host-3"
    assert host.machine.active_states() == ("Starting",)
    host.end(0.1)
    assert host.machine.active_states() == ("Closed",)


def test_a_proxy_can_not_be_used_in_a_process_of_no_network() -> None:
    with pytest.raises(ConnectionLostError, match="only be used"):
        proxy("unix:/nonexistent", "a")


@contextmanager
def child() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process that waits to be told what it is."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            program = f"from asyncmachine.net.host import main; main({theirs.fileno()})"
            process = subprocess.Popen(
                [sys.executable, "-c", program], pass_fds=(theirs.fileno(),), cwd=making.ROOT
            )
        try:
            yield process, ours
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("told", [0, 2, 100])
def test_a_child_whose_parent_is_gone_before_it_began_ends(told: int) -> None:
    with child() as (process, sock):
        data = Preparation("child").data
        sock.sendall((len(data).to_bytes(4, "big") + data)[:told])
        sock.close()
        assert process.wait(PATIENCE) == 1


def test_a_child_whose_parent_goes_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    address = f"unix:{tmp_path}/sockets/host-0.sock"
    config = Config("net", 0, address, b"secret", (), False, 100, 1.0)
    with child() as (process, sock):
        for data in (Preparation("child").data, pickle.dumps(config)):
            sock.sendall(len(data).to_bytes(4, "big") + data)
        sock.close()
        assert process.wait(PATIENCE) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network(processes=2, call_timeout=PATIENCE) as network:
        yield network


def test_a_proxy_is_shared_and_forgotten_when_it_is_gone(net: Network) -> None:
    target = net.spawn(making.make, "target", process=0)
    first = net.spawn(making.make_keeper, "first", target, process=1)
    second = net.spawn(making.make_keeper, "second", target, process=1)
    assert first.eval(making.proxy_of) == second.eval(making.proxy_of)
    before = first.eval(making.proxy_of)
    target.dispose()
    again = net.spawn(making.make, "target", process=0)
    third = net.spawn(making.make_keeper, "third", again, process=1)
    assert third.eval(making.proxy_of) != before
    for each in (again, first, second, third):
        each.dispose()


def test_a_proxy_of_a_machine_that_is_gone_can_not_be_an_argument(net: Network) -> None:
    target = net.spawn(making.make, "target", process=0)
    target.dispose()
    with pytest.raises(RemoteError, match="UnknownMachineError: .*target"):
        net.spawn(making.make_keeper, "first", target, process=1)


def test_a_stopped_sibling_keeps_nobody_from_another(tmp_path: Path) -> None:
    with Network(processes=3, call_timeout=PATIENCE) as three:
        a, b, c = three.spawn_many(making.make, [("a",), ("b",), ("c",)])
        making.stop(three.processes[0].pid)
        try:
            laying = start(lambda: pipe(c, "Foo", a, "Foo"))
            pipe(c, "Foo", b, "Foo")
            c.add("Foo")
            assert b.when("Foo").wait(PATIENCE)
        finally:
            os.kill(three.processes[0].pid, signal.SIGCONT)
        outcome(laying)
        assert a.when("Foo").wait(PATIENCE)


def test_closing_disposes_all_machines_though_one_hangs(tmp_path: Path) -> None:
    with Network(processes=1) as one:
        stuck = one.spawn(making.make, "stuck")
        others = [
            one.spawn(making.make_tidy, f"m{i}", str(tmp_path / f"tidied-{i}")) for i in range(5)
        ]
        making.stick(stuck, tmp_path)
        one.close(timeout=1)
        assert all(each.is_disposed for each in others)
    assert sorted(each.name for each in tmp_path.iterdir()) == [f"tidied-{i}" for i in range(5)]


def test_a_program_that_a_machine_has_started_does_not_hide_the_death(net: Network) -> None:
    with Network(processes=1) as one:
        a = one.spawn(making.make, "a")
        pid = a.eval(making.start_a_program)
        try:
            died = one.machine.when_args("ProcessDied", {})
            os.kill(one.processes[0].pid, signal.SIGKILL)
            assert died.wait(PATIENCE)
            assert a.when("Foo").wait(PATIENCE)
            assert a.add("Foo") == Result.CANCELED
        finally:
            os.kill(pid, signal.SIGKILL)


def test_what_a_network_knows_is_no_secret_of_the_children() -> None:
    known = pickle.loads(Preparation("child").data)
    assert "authkey" not in known


def test_a_slow_factory_delays_nobody_else(net: Network, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    other = net.spawn(making.make, "other", process=0)
    building = start(lambda: net.spawn(making.make_slowly, "slow", str(fifo), process=0))
    assert net.spawn(making.make, "third", process=0).add("Foo")
    assert other.add("Foo")
    fifo.write_text("go on")
    slow = outcome(building)
    assert isinstance(slow, RemoteMachine)
    for each in (slow, other, net.machines["third"]):
        each.dispose()


def test_a_network_within_a_process_of_a_network(net: Network) -> None:
    outer = net.spawn(making.make_network, "outer", process=0)
    assert outer.eval(making.use_network) == "Result.EXECUTED"
    assert threading.active_count() > 0
    outer.dispose()
