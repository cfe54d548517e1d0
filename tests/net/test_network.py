"""A network builds machines in other processes, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncmachine import Machine, State, pipe
from asyncmachine.net import (
    ConnectionLostError,
    DuplicateMachineError,
    Network,
    NotSerialisableError,
    RemoteError,
)
from tests.net import making
from tests.races import PATIENCE, together


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with Network(
        processes=2, id="net", wire_types=(making.Order, making.Colour), call_timeout=PATIENCE
    ) as network:
        yield network


@pytest.fixture(autouse=True)
def _emptied(net: Network) -> Iterator[None]:
    yield
    for remote in list(net.machines.values()):
        remote.dispose()
    assert net.machines == {}


# Building -------------------------------------------------------------------------------------


def test_a_machine_is_built_elsewhere_and_ready(net: Network) -> None:
    remote = net.spawn(making.make_with, machine_id="a", on=True)
    assert remote.id == "a"
    assert remote.is_active("Foo")
    assert remote.connection.is_active("Connected")
    assert net.machines == {"a": remote}
    home = remote.eval(making.pid)
    assert home in [each.pid for each in net.processes]
    assert home != os.getpid()
    assert remote.add("Bar")
    assert set(remote.active_states()) == {"Foo", "Bar"}


def test_machines_go_where_there_are_fewest_or_where_they_are_told(net: Network) -> None:
    first, second = net.processes
    assert (first.index, second.index) == (0, 1)
    for name in "abc":
        net.spawn(making.make, name, process=1)
    assert (first.machines, second.machines) == ((), ("a", "b", "c"))
    for name in "def":
        net.spawn(making.make, name)
    assert first.machines == ("d", "e", "f")
    net.machines["d"].dispose()
    assert sorted(first.machines) == ["e", "f"]
    net.spawn(making.make, "g")
    assert first.machines == ("e", "f", "g")
    assert first.is_alive
    assert "alive" in repr(first)
    assert "2 processes" in repr(net)


def test_many_are_built_in_the_order_of_their_arguments(net: Network) -> None:
    remotes = net.spawn_many(making.make, [(f"m{i}",) for i in range(50)])
    assert [each.id for each in remotes] == [f"m{i}" for i in range(50)]
    assert [len(each.machines) for each in net.processes] == [25, 25]
    assert net.spawn_many(making.make, []) == []


def test_many_threads_may_build_at_once(net: Network) -> None:
    def build(name: str) -> None:
        for i in range(10):
            assert net.spawn(making.make, f"{name}{i}").add("Foo")

    together(*(lambda name=name: build(name) for name in "abcd"))
    assert len(net.machines) == 40
    assert [len(each.machines) for each in net.processes] == [20, 20]


def test_an_error_in_a_factory_is_raised_here_with_its_traceback(net: Network) -> None:
    with pytest.raises(RemoteError, match="ValueError: no x") as caught:
        net.spawn(making.make_wrongly, "x")
    assert caught.value.type_name == "ValueError"
    assert caught.value.notes == ("not today",)
    text = "".join(traceback.format_exception(caught.value))
    assert "tests/net/making.py" in text
    assert "make_wrongly" in text
    line = making.make_wrongly.__code__.co_firstlineno + 3
    assert f"line {line}" in text
    assert not net.machines


def test_a_factory_that_returns_no_machine(net: Network) -> None:
    with pytest.raises(RemoteError, match="TypeError: make_nothing returned no Machine") as caught:
        net.spawn(making.make_nothing)
    assert "NoneType" in str(caught.value)


def test_a_factory_that_calls_sys_exit_ends_nothing(net: Network) -> None:
    with pytest.raises(RemoteError, match="SystemExit"):
        net.spawn(making.make_an_end, "exit")
    assert all(each.is_alive for each in net.processes)


def test_those_that_can_be_built_are_kept_when_others_can_not(net: Network) -> None:
    net.spawn(making.make, "m3")
    with pytest.raises(DuplicateMachineError, match="m3"):
        net.spawn_many(making.make, [(f"m{i}",) for i in range(6)])
    assert sorted(net.machines) == [f"m{i}" for i in range(6)]
    assert all(each.add("Foo") for each in net.machines.values())


@pytest.mark.parametrize("place", [0, 1])
def test_two_machines_of_one_id(net: Network, place: int) -> None:
    first = net.spawn(making.make, "a", process=0)
    for _ in range(3):
        with pytest.raises(DuplicateMachineError, match="'a'"):
            net.spawn(making.make, "a", process=place)
    assert net.machines == {"a": first}
    assert sum(len(each.machines) for each in net.processes) == 1
    assert first.add("Foo")
    first.dispose()
    assert net.spawn(making.make, "a", process=place).add("Foo")


def test_what_can_not_be_pickled_is_named(net: Network) -> None:
    with pytest.raises(NotSerialisableError, match="the factory"):
        net.spawn(lambda: Machine({"Foo": State()}))
    with pytest.raises(NotSerialisableError, match="argument 1"):
        net.spawn(making.make, "a", threading.Lock())
    with pytest.raises(NotSerialisableError, match="argument on"):
        net.spawn(making.make_with, machine_id="a", on=threading.Lock())
    with pytest.raises(NotSerialisableError, match="argument 0"):
        net.spawn_many(making.make, [("a",), (threading.Lock(),)])
    assert not net.machines


def test_there_is_no_such_process(net: Network) -> None:
    for index in (-1, 2):
        with pytest.raises(IndexError, match="no process"):
            net.spawn(making.make, "a", process=index)


def test_wire_types_travel_both_ways(net: Network) -> None:
    remote = net.spawn(making.make, "a")
    order = making.Order(3, "soon")
    remote.add("Hit", order=order, colour=making.Colour.RED)
    assert remote.eval(making.heard) == [{"order": order, "colour": making.Colour.RED}]


@pytest.mark.parametrize("place", [0, 1])
def test_a_proxy_may_be_an_argument(net: Network, place: int) -> None:
    target = net.spawn(making.make, "target", process=0)
    forwarder = net.spawn(making.make_forwarder, "forwarder", target, process=place)
    both = target.when_ticks("Hit", 3)
    assert forwarder.add("Hit")
    assert both.wait(PATIENCE)
    target.sync()
    assert {each["by"] for each in target.eval(making.heard)} == {"handler", "fork"}
    assert "forwarder" in target.eval(making.causes)


def test_a_proxy_may_be_piped_to_in_a_factory(net: Network) -> None:
    target = net.spawn(making.make, "target", process=0)
    source = net.spawn(making.make, "source", target, process=1)
    source.add("Foo")
    assert target.when("Foo").wait(PATIENCE)
    target.dispose()
    source.sync()
    assert source.when_query(lambda _: True).wait(PATIENCE)


def test_proxies_may_be_piped_into_each_other_in_a_child(net: Network) -> None:
    source = net.spawn(making.make, "source", process=0)
    target = net.spawn(making.make, "target", process=1)
    piper = net.spawn(making.make_piper, "piper", source, target, process=1)
    done = target.when("Hit")
    source.add("Hit", n=1)
    source.add("Bar")
    assert done.wait(PATIENCE)
    assert piper.when("Bar").wait(PATIENCE)
    assert target.eval(making.heard) == [{"n": 1}]


def test_a_proxy_of_no_network_can_not_be_an_argument(net: Network) -> None:
    from asyncmachine.net import connect, serve

    with (
        serve(Machine({"Foo": State()}), "tcp://127.0.0.1:0") as server,
        connect(server.address) as remote,
        pytest.raises(NotSerialisableError, match="argument 1"),
    ):
        net.spawn(making.make, "a", remote)


def test_the_children_keep_environment_and_path(net: Network) -> None:
    found = net.spawn(making.make, "a").eval(making.environment)
    assert found[0] == os.environ.get("PYTHONPATH", "")
    assert found[1] == str(Path.cwd())


# Options --------------------------------------------------------------------------------------


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Network(processes=0)
    with pytest.raises(ValueError, match="restart"):
        Network(processes=1, restart="always")  # type: ignore[arg-type]

    class Local:
        pass

    with pytest.raises(TypeError, match="wire type"):
        Network(processes=1, wire_types=(Local,))


def test_a_wire_type_that_can_not_be_imported_is_named() -> None:
    from dataclasses import make_dataclass

    local = make_dataclass("Local", [("x", int)])
    with pytest.raises(NotSerialisableError, match="Local"):
        Network(processes=1, wire_types=(local,))


def test_the_start_method_of_multiprocessing_is_left_to_others(net: Network) -> None:
    code = (
        "import multiprocessing\n"
        "from asyncmachine.net import Network\n"
        "from tests.net.making import make\n"
        "with Network(processes=1) as net:\n"
        "    net.spawn(make, 'a')\n"
        "multiprocessing.set_start_method('forkserver')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=making.ROOT, check=True, timeout=PATIENCE)


# Main modules ---------------------------------------------------------------------------------

_SCRIPT = """
from asyncmachine import Machine, State
from asyncmachine.net import Network

def make():
    return Machine({"Foo": State()}, id="made")

def name(machine):
    return machine.id

if __name__ == "__main__":
    with Network(processes=1) as net:
        try:
            remote = net.spawn(make)
            print(remote.add("Foo"), remote.eval(name))
        except Exception as error:
            print(type(error).__name__, error)
"""


def _output(*command: str, cwd: Path, text: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        input=text,
        env={**os.environ, "PYTHONPATH": str(making.ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout + done.stderr


def test_factories_of_a_main_module_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_SCRIPT)
    expected = "Result.EXECUTED made\n"
    assert _output("script.py", cwd=tmp_path) == expected
    assert _output("-m", "script", cwd=tmp_path) == expected
    assert _output(str(tmp_path / "script.py"), cwd=Path("/")) == expected


def test_factories_of_a_main_module_that_nobody_can_import(tmp_path: Path) -> None:
    for output in (
        _output("-c", _SCRIPT, cwd=tmp_path),
        _output("-", cwd=tmp_path, text=_SCRIPT),
    ):
        assert output.startswith("NotSerialisableError the factory")
        assert "'make'" in output


def test_a_main_module_without_a_guard_starts_no_avalanche(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.replace('__name__ == "__main__"', "True"))
    output = _output("script.py", cwd=tmp_path)
    assert "put that under" in output
    assert "ConnectionLostError" in output


def test_a_module_in_the_way_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "script.py").write_text(_SCRIPT)
    (tmp_path / "secrets.py").write_text("raise ImportError")
    assert _output("elsewhere/script.py", cwd=tmp_path) == "Result.EXECUTED made\n"


# The end --------------------------------------------------------------------------------------


def test_closing_disposes_and_leaves_nothing(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder of our own, which others do not use meanwhile; short, for sockets are in it.
    monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(prefix="t"))
    before = {each.name for each in threading.enumerate()}
    there = set(making.children())
    files = set(Path(tempfile.gettempdir()).glob("asyncmachine-*"))
    lives: list[str] = []
    with Network(processes=2, id="short") as short:
        for state in ("Closing", "Closed"):
            short.machine.on(f"{state}_state", lambda event: lives.append(event.name))
        assert short.machine.active_states() == ("Ready",)
        assert short.machine.clock()["Starting"] == 2
        a, b = short.spawn_many(making.make, [("a",), ("b",)])
        waiter = a.when("Bar")
        pipe(a, "Foo", b, "Foo")
        a.add("Foo")
        assert b.when("Foo").wait(PATIENCE)
        disposed: list[str] = []
        b.on_dispose(lambda machine: disposed.append(machine.id))
    assert lives == ["Closing_state", "Closed_state"]
    assert waiter.is_set()
    assert waiter.disposed
    assert disposed == ["b"]
    assert a.is_disposed
    assert not a.add("Foo")
    assert a.when("Foo").disposed or a.is_active("Foo")
    with pytest.raises(ConnectionLostError):
        a.sync()
    assert short.machines == {}
    assert not any(each.is_alive for each in short.processes)
    assert set(making.children()) == there
    assert set(Path(tempfile.gettempdir()).glob("asyncmachine-*")) == files
    Path(tempfile.gettempdir()).rmdir()
    left = {each.name for each in threading.enumerate()} - before
    assert {name for name in left if name != "asyncmachine"} == set()
    with pytest.raises(ConnectionLostError):
        short.spawn(making.make, "c")


def test_closing_twice_and_from_several_threads(net: Network) -> None:
    short = Network(processes=2)
    short.spawn_many(making.make, [("a",), ("b",)])
    together(*[short.close] * 4)
    short.close()
    assert short.machine.active_states() == ("Closed",)


def test_an_error_in_the_block_is_raised_and_leaves_nothing(net: Network) -> None:
    there = set(making.children())

    def fail() -> None:
        with Network(processes=1) as short:
            short.spawn(making.make, "a")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    assert set(making.children()) == there


def test_a_child_that_hangs_is_killed(net: Network, tmp_path: Path) -> None:
    there = set(making.children())
    short = Network(processes=2)
    a, b = short.spawn_many(making.make, [("a",), ("b",)])
    making.stick(a, tmp_path)
    short.close(timeout=0.2)
    assert set(making.children()) == there
    assert b.is_disposed


def test_closing_while_machines_are_built(net: Network) -> None:
    for _ in range(5):
        short = Network(processes=1)

        def build(short: Network = short) -> None:
            try:
                for i in range(10_000):
                    short.spawn(making.make, f"m{i}")
            except ConnectionLostError:
                return
            raise AssertionError

        together(build, short.close)


# Ends of the parent ---------------------------------------------------------------------------


def _pids(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    found = [int(each) for each in process.stdout.readline().split()]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_the_parent_gets_a_signal(how: signal.Signals, tmp_path: Path) -> None:
    with making.program("waits", temp=tmp_path) as process:
        pids = _pids(process)
        process.send_signal(how)
        process.wait(PATIENCE)
        making.await_end_of(pids)
        if how is signal.SIGINT:
            assert process.stderr is not None
            assert "KeyboardInterrupt" in process.stderr.read()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["raises", "leaves", "leaves_stuck"])
def test_the_parent_ends_by_itself(name: str, tmp_path: Path) -> None:
    with making.program(name, temp=tmp_path) as process:
        pids = _pids(process)
        assert process.wait(PATIENCE) == (1 if name == "raises" else 0)
        for each in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(each, 0)
        assert process.stderr is not None
        errors = process.stderr.read()
        assert "as asked" in errors if name == "raises" else errors == ""
    assert list(tmp_path.iterdir()) == []


def test_the_parent_is_killed_while_a_child_hangs(tmp_path: Path) -> None:
    with making.program("waits_stuck", temp=tmp_path) as process:
        pids = _pids(process)
        process.kill()
        process.wait(PATIENCE)
        making.await_end_of(pids)
    assert list(tmp_path.iterdir()) == []
