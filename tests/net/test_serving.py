"""Servers: who may do what, who comes and goes, what breaks, and who is slow."""

from __future__ import annotations

import random
import resource
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from asyncmachine import Event, Machine, Result, State, UnknownStateError
from asyncmachine.net import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    DuplicateMachineError,
    NotAllowedError,
    RemoteMachine,
    Server,
    connect,
    serve,
    wire,
)
from asyncmachine.net.greeting import greet_client
from tests.net import programs
from tests.net.relaying import Relay
from tests.races import PATIENCE, Gate, outcome, start, together

HERE = "tcp://127.0.0.1:0"


def greeted(address: str, secret: str | None = None) -> socket.socket:
    """Connect as a client does that knows how to begin, and what then?"""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    sock = socket.create_connection((host, int(port)))
    greet_client(sock, secret=secret, max_frame=1 << 20, timeout=5.0, session=b"", received=0)
    sock.settimeout(PATIENCE)
    return sock


# What clients may do --------------------------------------------------------------------------


def test_who_may_only_read_is_refused_everything_else() -> None:
    home = programs.machine()
    home.add("Foo")
    with serve(home, HERE, allow="read") as server, connect(server.address) as remote:
        assert remote.is_active("Foo")
        for call in (remote.add, remote.remove, remote.set, remote.toggle, remote.can_add):
            with pytest.raises(NotAllowedError, match="only read"):
                call("Bar")
        with pytest.raises(NotAllowedError):
            remote.set()
        with pytest.raises(NotAllowedError):
            remote.add_error("no")
        with pytest.raises(NotAllowedError):
            remote.dispose()
        with pytest.raises(NotAllowedError):
            remote.eval(programs.hit_count)
        heard = threading.Event()
        remote.on("Hit_state", lambda event: heard.set())
        home.add("Hit")
        assert heard.wait(PATIENCE)
        assert home.error is None
        assert set(home.active_states()) == {"Foo", "Hit"}


def test_a_set_of_states_is_all_that_clients_may_call() -> None:
    home = programs.machine()
    with serve(home, HERE, allow={"Foo", "Hit"}) as server, connect(server.address) as remote:
        assert remote.add("Foo")
        with pytest.raises(NotAllowedError, match="Bar"):
            remote.add("Foo", "Bar")
        with pytest.raises(NotAllowedError, match="Exception"):
            remote.add_error("no")
        assert remote.set("Hit")
        home.add("Foo", "Bar")
        remote.sync()
        for call in (remote.set, remote.can_set):
            with pytest.raises(NotAllowedError, match="Bar"):
                call("Hit")
        assert home.is_active("Bar")
        assert home.error is None


def test_a_send_that_is_not_allowed_is_told_by_the_connection() -> None:
    home = programs.machine()
    with serve(home, HERE, allow={"Foo"}) as server, connect(server.address) as remote:
        refused = remote.connection.when_ticks("Refused", 3)
        told = remote.connection.when_args("Refused", {})
        results = [remote.send("add", each) for each in ("Foo", "Bar", "Foo", "Hit")]
        assert refused.wait(PATIENCE)
        assert isinstance((told.args or {})["error"], NotAllowedError)
        assert [bool(result.wait(PATIENCE)) for result in results] == [True, False, True, False]
        assert "Hit" in results[-1].wait().why
        assert home.active_states() == ("Foo",)


def test_an_allowed_state_has_to_exist() -> None:
    with pytest.raises(UnknownStateError, match="did you mean 'Foo'"):
        serve(programs.machine(), HERE, allow={"Fooo"})
    with (
        serve([programs.machine()], HERE, allow="Foo") as server,
        connect(server.address) as remote,
    ):
        assert remote.add("Foo")
    serve([], HERE, allow="read").close()


def test_two_machines_of_one_id_are_refused() -> None:
    with pytest.raises(DuplicateMachineError, match="served"):
        serve([programs.machine(), programs.machine()], HERE)


def test_the_secret_has_to_be_the_same() -> None:
    with serve(programs.machine(), HERE, secret="right") as server:
        refused = server.machine.when("ClientRefused")
        with pytest.raises(AuthenticationError):
            connect(server.address, secret="wrong")
        assert refused.wait(PATIENCE)
        with connect(server.address, secret="right") as remote:
            assert remote.add("Foo")


def test_an_address_in_use_is_refused() -> None:
    with serve(programs.machine(), HERE) as server, pytest.raises(ConnectError):
        serve(programs.machine(), server.address)


# Who comes and goes ---------------------------------------------------------------------------


def test_the_server_counts_its_clients() -> None:
    with serve(programs.machine(), HERE) as server:
        assert server.machine.is_active("Listening")
        assert server.address in repr(server)
        for _ in range(3):
            gone = server.machine.when_ticks("ClientGone", 1)
            with connect(server.address) as remote:
                remote.sync()
            assert gone.wait(PATIENCE)
        assert server.machine.tick("ClientConnected") == 5
        assert server.machine.tick("ClientGone") == 5
        refused = server.machine.when("ClientRefused")
        host, _, port = server.address.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n" + bytes(64))
            assert refused.wait(PATIENCE)
    assert server.machine.is_active("Closed")
    server.close()


def test_a_silent_client_delays_nobody() -> None:
    with serve(programs.machine(), HERE) as server:
        host, _, port = server.address.removeprefix("tcp://").rpartition(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(20)]
        with connect(server.address) as remote:
            assert remote.add("Foo")
        for sock in silent:
            sock.close()


def test_closing_a_server_sends_silent_clients_away() -> None:
    server = serve(programs.machine(), HERE)
    host, _, port = server.address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port))) as silent:
        silent.settimeout(PATIENCE)
        with connect(server.address) as remote:
            remote.sync()
        server.close()
        while True:
            try:
                if not silent.recv(1000):
                    break
            except ConnectionError:
                break


def test_a_client_without_reconnecting_is_told_when_the_server_closes() -> None:
    server = serve(programs.machine(), HERE)
    with connect(server.address, reconnect=False) as remote:
        waiter = remote.when("Foo")
        server.close()
        assert waiter.wait(PATIENCE)
        assert waiter.disposed
        assert remote.add("Foo") == Result.CANCELED
        assert remote.send("add", "Foo") == Result.CANCELED
        with pytest.raises(ConnectionLostError):
            remote.sync()


def test_connecting_closing_and_disposing_at_once_leaves_nothing_hanging() -> None:
    for _ in range(15):
        home = programs.machine()
        server = serve(home, HERE)

        def use(server: Server = server) -> None:
            try:
                with connect(server.address, timeout=5, reconnect=False) as remote:
                    remote.on("Hit_state", lambda event: None)
                    for _ in range(20):
                        remote.send("add", "Hit")
                    remote.add("Foo")
                    assert remote.when_args("Hit", {}).wait(PATIENCE)
            except (ConnectionError, AssertionError):
                pass
            except Exception as error:
                if type(error).__name__ not in {"UnknownMachineError", "RemoteError"}:
                    raise

        together(use, use, home.dispose, server.close)
        server.close()


def test_threads_close_one_proxy_at_once() -> None:
    with serve(programs.machine(), HERE) as server:
        for _ in range(20):
            remote = connect(server.address)
            waiter = remote.when("Foo")
            together(remote.close, remote.close, remote.close)
            assert waiter.wait(PATIENCE)


# Reconnecting ---------------------------------------------------------------------------------


def test_everything_is_carried_out_once_and_in_order_however_often_the_connection_breaks() -> None:
    dice = random.Random(3)
    home = Machine({"Hit": State(multi=True), "Done": State()}, id="home")
    seen: list[object] = []
    heard: list[object] = []
    home.bind({"Hit_state": lambda event: seen.append(event.args["n"])})
    with serve(home, HERE) as server, Relay(server.address) as relay:
        relay.cut_after(*(dice.randrange(4000, 30_000) for _ in range(20)))
        with connect(relay.address, timeout=2) as remote:
            end = threading.Event()

            def hear(event: Event) -> None:
                heard.append(event.args["n"])
                if event.args["n"] == 2499:
                    end.set()

            remote.on("Hit_state", hear)
            results = []
            for n in range(2500):
                if n % 100 == 99:
                    assert remote.add("Hit", n=n) == Result.EXECUTED
                    assert remote.tick("Hit") >= 2 * n + 1
                elif n % 100 == 50:
                    waiter = remote.when_args("Hit", {"n": n})
                    results.append(remote.send("add", "Hit", n=n))
                    assert waiter.wait(PATIENCE)
                else:
                    results.append(remote.send("add", "Hit", n=n))
            assert end.wait(PATIENCE)
            assert all(result.wait(PATIENCE) == Result.EXECUTED for result in results)
            assert relay.cuts >= 3
    assert seen == list(range(2500))
    assert heard == list(range(2500))


def test_threads_go_on_calling_while_the_connection_breaks() -> None:
    home = programs.machine()
    seen: dict[object, list[int]] = {}
    home.bind({"Hit_state": lambda e: seen.setdefault(e.args["who"], []).append(e.args["n"])})
    with (
        serve(home, HERE) as server,
        Relay(server.address) as relay,
        connect(relay.address, timeout=2) as remote,
    ):

        def work(who: int) -> None:
            for n in range(100):
                assert remote.add("Hit", who=who, n=n) == Result.EXECUTED
                if who == 0 and n % 20 == 10:
                    relay.cut()

        together(*[lambda who=who: work(who) for who in range(4)])
    assert all(each == list(range(100)) for each in seen.values())


def test_a_state_that_holds_is_not_missed_by_who_reconnects() -> None:
    home = programs.machine()
    with (
        serve(home, HERE) as server,
        Relay(server.address) as relay,
        connect(relay.address, timeout=2) as remote,
    ):
        for _ in range(5):
            remote.sync()
            down = remote.connection.when("Disconnected")
            relay.refusing = True
            relay.cut()
            assert down.wait(PATIENCE)
            waiter = remote.when("Foo")
            kept = remote.state_ctx("Foo")
            home.add("Foo")
            relay.refusing = False
            assert waiter.wait(PATIENCE)
            assert kept.expired
            remote.remove("Foo")


def test_calls_wait_for_the_connection_and_then_time_out() -> None:
    home = programs.machine()
    with (
        serve(home, HERE) as server,
        Relay(server.address) as relay,
        connect(relay.address, call_timeout=0.2) as remote,
    ):
        down = remote.connection.when("Disconnected")
        relay.refusing = True
        relay.cut()
        assert down.wait(PATIENCE)
        for call in (remote.add, remote.can_add):
            with pytest.raises(TimeoutError):
                call("Foo")
        with pytest.raises(TimeoutError):
            remote.sync()
        sent = remote.send("add", "Hit")
        assert sent == Result.QUEUED
        relay.refusing = False
        assert remote.connection.when("Connected").wait(PATIENCE)
        assert sent.wait(PATIENCE) == Result.EXECUTED
        assert home.tick("Foo") == 0  # who called had given up


def test_a_server_that_begins_afresh_is_another_life() -> None:
    first = programs.machine()
    server = serve(first, HERE)
    with Relay(server.address) as relay, connect(relay.address, timeout=2) as remote:
        remote.add("Foo")
        heard: list[object] = []
        both = threading.Semaphore(0)

        def hear(event: Event) -> None:
            heard.append(event.args["n"])
            both.release()

        remote.on("Hit_state", hear)
        first.add("Hit", n=1)
        assert both.acquire(timeout=PATIENCE)
        ctx = remote.state_ctx("Foo")
        plain = remote.when("Bar")
        told = remote.when_args("Hit", {"n": 2})
        idle = Gate()
        first.bind({"Baz_state": idle})
        pending = start(lambda: remote.add("Baz"))
        idle.await_reached()
        rest = remote.when_queue_empty()
        relay.refusing = True
        relay.cut()
        closing = start(server.close)
        second = programs.machine()
        second.add("Foo")
        with serve(second, HERE) as again:
            relay.aim(again.address)
            relay.refusing = False
            with pytest.raises(ConnectionLostError):
                outcome(pending)
            idle.open()
            outcome(closing)
            assert remote.add("Bar") == Result.EXECUTED
            assert second.is_active("Bar")
            assert ctx.expired
            assert plain.wait(PATIENCE)
            assert rest.wait(PATIENCE)
            assert not rest.disposed
            second.add("Hit", n=2)
            assert told.wait(PATIENCE)
            assert both.acquire(timeout=PATIENCE)
            assert heard == [1, 2]
            assert remote.time() == second.time()


def test_a_machine_that_is_not_served_any_more_is_given_up() -> None:
    server = serve(programs.machine(), HERE)
    with Relay(server.address) as relay, connect(relay.address, timeout=2) as remote:
        waiter = remote.when_disposed()
        relay.refusing = True
        relay.cut()
        server.close()
        other = Machine({"Foo": State()}, id="other")
        with serve(other, HERE) as again:
            relay.aim(again.address)
            relay.refusing = False
            assert waiter.wait(PATIENCE)
            assert remote.is_disposed
            assert remote.connection.is_active("Disconnected")


def test_a_machine_with_another_schema_is_given_up() -> None:
    server = serve(programs.machine(), HERE)
    with Relay(server.address) as relay, connect(relay.address, timeout=2) as remote:
        waiter = remote.when_disposed()
        relay.refusing = True
        relay.cut()
        server.close()
        with serve(Machine({"Other": State()}, id="served"), HERE) as again:
            relay.aim(again.address)
            relay.refusing = False
            assert waiter.wait(PATIENCE)
            assert "schema" in remote.add("Foo").why


# Other processes ------------------------------------------------------------------------------


def test_a_process_that_is_stopped_lets_calls_time_out_and_one_that_is_killed_is_noticed(
    tmp_path: Path,
) -> None:
    with programs.running("server", f"unix:{tmp_path}/s") as process:
        address = programs.line(process)
        with connect(address, call_timeout=0.3, reconnect=False) as remote:
            assert remote.eval(programs.hit_count) == 0
            programs.stop(process)
            with pytest.raises(TimeoutError):
                remote.add("Foo")
            with pytest.raises(TimeoutError):
                remote.sync(0.1)
            with pytest.raises(ConnectError):
                connect(address, timeout=0.2)
            process.send_signal(signal.SIGCONT)
            remote.sync(PATIENCE)
            waiter = remote.when("Bar")
            process.kill()
            assert waiter.wait(PATIENCE)
            assert waiter.disposed


def test_a_process_that_is_started_again_is_found_under_its_address(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s"
    with programs.running("server", address) as process:
        programs.line(process)
        with connect(address) as remote:
            remote.add("Foo")
            ctx = remote.state_ctx("Foo")
            plain = remote.when("Bar")
            process.kill()
            process.wait()
            with programs.running("server", address) as again:
                programs.line(again)
                assert remote.add("Hit") == Result.EXECUTED
                assert ctx.expired
                assert remote.active_states() == ("Hit",)
                assert remote.add("Foo", "Bar")
                assert plain.wait(PATIENCE)


def test_a_client_that_is_stopped_harms_nobody() -> None:
    home = programs.machine()
    with (
        serve(home, HERE, outbox_limit=2000) as server,
        programs.running("listener", server.address) as process,
    ):
        assert programs.line(process) == "listening"
        programs.stop(process)
        gone = server.machine.when("ClientGone")
        with connect(server.address) as remote:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for n in range(60_000):
                home.add("Hit", n=n, data="x" * 1000)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 30_000, f"{grown} KiB more, of 60,000 kB"
            assert remote.add("Foo") == Result.EXECUTED
            assert remote.tick("Hit") == home.tick("Hit")
            assert gone.wait(PATIENCE)
        process.send_signal(signal.SIGCONT)


def test_memory_is_bounded_for_who_never_reads() -> None:
    home = programs.machine()
    with serve(home, HERE) as server:
        sock = greeted(server.address)
        sock.sendall(wire.frame([wire.encode(wire.Open(1))]))
        assert sock.recv(1 << 16)
        with connect(server.address) as remote:
            for _ in range(10_000):
                home.toggle("Foo")
            remote.sync()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for _ in range(100_000):
                home.toggle("Foo")
            remote.sync()
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 8192, f"{grown} KiB more"
        sock.close()


def test_who_falls_too_far_behind_is_disconnected_and_told() -> None:
    home = programs.machine()
    with serve(home, HERE, outbox_limit=100) as server, connect(server.address) as remote:
        gate = Gate()
        remote.on("Hit_state", gate)
        down = remote.connection.when_args("Disconnected", {})
        home.add("Hit")
        gate.await_reached()
        for _ in range(3000):
            home.add("Hit")
        assert down.wait(PATIENCE)
        gate.open()
        assert "too slow" in str((down.args or {})["error"])
        assert remote.connection.when("Connected").wait(PATIENCE)


def test_who_asks_and_never_reads_is_disconnected() -> None:
    home = programs.machine()
    with serve(home, HERE, outbox_limit=1000) as server:
        gone = server.machine.when("ClientGone")
        with greeted(server.address) as sock:
            sock.sendall(wire.frame([wire.encode(wire.Open(1))]))
            chunk = wire.frame([wire.encode(wire.Whole(1))] * 10_000)
            try:
                while not gone.is_set():
                    sock.sendall(chunk)
            except OSError:
                pass
        assert gone.wait(PATIENCE)


# Slow handlers --------------------------------------------------------------------------------


def test_a_slow_handler_delays_its_own_machine_only() -> None:
    slow = programs.machine()
    quick = Machine({"Foo": State(multi=True)}, id="quick")
    with serve([slow, quick], HERE) as server:
        gate = Gate()
        binding = slow.bind({"Foo_state": gate})
        with connect(server.address, "served") as remote:
            client = remote_to(remote, "quick")
            for _ in range(10):
                pending = start(lambda: remote.add("Foo"))
                gate.await_reached()
                assert client.add("Foo") == Result.EXECUTED
                gate.open()
                assert outcome(pending) == Result.EXECUTED
                remote.remove("Foo")
                binding.unbind()
                gate = Gate()
                binding = slow.bind({"Foo_state": gate})
            client.close()


def remote_to(remote: RemoteMachine, machine_id: str) -> RemoteMachine:
    """Open another machine over the same link, as networks do."""
    client = remote._client  # noqa: SLF001 - there is no other way to share a link
    reply = client.call(lambda call: wire.Open(call, machine_id))
    assert isinstance(reply, wire.Opened)
    return RemoteMachine(client, reply)


# What is left behind --------------------------------------------------------------------------


def test_nothing_is_left_open() -> None:
    import gc

    def use() -> None:
        with serve(programs.machine(), HERE) as server:
            for _ in range(5):
                with connect(server.address) as remote:
                    remote.on("Hit_state", lambda event: None)
                    remote.add("Hit")

    use()
    gc.collect()
    before = _open_files()
    use()
    gc.collect()
    deadline = threading.Event()
    for _ in range(100):
        if _open_files() <= before:
            break
        deadline.wait(0.02)
        gc.collect()
    assert _open_files() <= before


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_socket_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serve(programs.machine(), f"unix:{path}") as server:
        assert path.stat().st_mode & 0o777 == 0o600
        with connect(server.address) as remote:
            assert remote.add("Foo")
    assert not path.exists()


def test_no_process_is_left(tmp_path: Path) -> None:
    with programs.running("server", f"unix:{tmp_path}/s") as process:
        programs.line(process)
        assert process.poll() is None
    assert isinstance(process, subprocess.Popen)
