"""What a session does with what it is asked: pipes, subscriptions, and what is no protocol."""

from __future__ import annotations

import socket
import threading

import pytest

from asyncmachine import Event, Machine, PipeOverflowError, State, pipe
from asyncmachine.net import NotAllowedError, NotSerialisableError, connect, serve, wire
from asyncmachine.net.carriers.socket import SocketCarrier
from asyncmachine.net.machines import Machines
from asyncmachine.net.session import Policy, Session
from asyncmachine.net.subscription import EVENT_WINDOW
from asyncmachine.net.values import Values
from tests.net import programs
from tests.net.test_serving import HERE, greeted
from tests.races import PATIENCE, Gate, await_rest


def ask(sock: socket.socket, *messages: wire.Message) -> list[wire.Message]:
    """Send messages in one frame; give what the next frames bring."""
    sock.sendall(wire.frame([wire.encode(each) for each in messages]))
    return wire.FrameReader().feed(sock.recv(1 << 16))[0][1]


NO_PROTOCOL = [
    wire.Mutate(1, 0, 9, (0,)),
    wire.Mutate(1, 0, -1, (0,)),
    wire.Mutate(1, 0, 0, (99,)),
    wire.Mutate(1, 0, 0, (-1,)),
    wire.Ask(1, 2, 3, (0,)),
    wire.Ask(1, 2, -1, (0,)),
    wire.Subscribe(1, 2, 1, ("Foo_state",), bring_up=(1,)),
    wire.Subscribe(1, 2, 1, ("Foo_state",), bring_up=(-1,)),
    wire.Gone(1),
    wire.Build(2, [b"cos\nsystem\n."]),
    wire.Shut(1.0),
]


@pytest.mark.parametrize("message", NO_PROTOCOL, ids=lambda each: type(each).__name__)
def test_who_breaks_the_protocol_is_told_and_sent_away(message: wire.Message) -> None:
    home = programs.machine()
    with serve(home, HERE) as server, greeted(server.address) as sock:
        assert isinstance(ask(sock, wire.Open(1))[0], wire.Opened)
        gone = server.machine.when("ClientGone")
        # What comes after it in the same frame is not carried out.
        said = ask(sock, message, wire.Mutate(1, 0, 0, (0,)))
        assert isinstance(said[-1], wire.Bye)
        assert said[-1].reason
        assert gone.wait(PATIENCE)
        assert not home.is_active("Foo")


def test_a_channel_that_is_not_there_is_an_error_of_the_call_only() -> None:
    with serve(programs.machine(), HERE) as server, greeted(server.address) as sock:
        for message in (wire.Sync(7, 3), wire.Mutate(7, 4, 0, (0,)), wire.Eval(7, 5, "os:getpid")):
            (reply,) = ask(sock, wire.Mutate(7, 0, 0, (0,)), wire.Consumed(7, 1, 1), message)
            assert isinstance(reply, wire.Failed)
            assert reply.kind == "UnknownMachineError"


def test_who_may_only_read_can_not_tell_a_machine_of_an_error() -> None:
    home = programs.machine()
    with serve(home, HERE, allow="read") as server, greeted(server.address) as sock:
        ask(sock, wire.Open(1))
        told = wire.Told(1, wire.ErrorInfo("E", "m"))
        assert isinstance(ask(sock, told, wire.Sync(1, 2))[-1], wire.Done)
        assert home.error is None


def test_a_pipe_from_a_machine_elsewhere() -> None:
    home, local = (
        programs.machine(),
        Machine({"Foo": State(), "Hit": State(multi=True)}, id="local"),
    )
    seen: list[object] = []
    local.bind({"Hit_state": lambda event: seen.append(event.args.get("n"))})
    home.add("Foo")
    with serve(home, HERE) as server, connect(server.address) as remote:
        first = pipe(remote, "Foo", local, "Foo")
        second = pipe(remote, "Hit", local, "Hit", on="add")
        assert local.when("Foo").wait(PATIENCE)
        last = local.when_args("Hit", {"n": 1999})
        for n in range(2000):
            home.add("Hit", n=n)
        home.remove("Foo")
        assert last.wait(PATIENCE)
        assert seen == list(range(2000))
        assert local.when_not("Foo").wait(PATIENCE)
        first.close()
        second.close()


def test_what_a_pipe_can_not_carry_is_told_to_its_source_and_the_pipe_stays() -> None:
    home = programs.machine()
    local = Machine(home.schema, id="local")
    with (
        serve(home, HERE, max_frame=1 << 20) as server,
        connect(server.address) as remote,
    ):
        laid = pipe(remote, "Hit", local, "Hit")
        failed = home.when_error()
        home.add("Hit", lock=threading.Lock())
        assert failed.wait(PATIENCE)
        await_rest(home)
        assert isinstance(home.error, NotSerialisableError)
        assert "Hit" in str(home.error)
        assert "lock" in str(home.error)
        home.remove("Exception")
        failed = home.when_error()
        home.add("Hit", big=bytes(wire.MAX_FRAME))
        assert failed.wait(PATIENCE)
        assert "too large" in str(home.error)
        came = local.when_args("Hit", {"n": 1})
        home.add("Hit", n=1)
        assert came.wait(PATIENCE)
        laid.close()


def test_a_listener_is_told_without_the_args_that_can_not_travel() -> None:
    home = programs.machine()
    heard: list[object] = []
    done = threading.Semaphore(0)

    def hear(event: Event) -> None:
        heard.append(dict(event.args))
        done.release()

    with serve(home, HERE) as server, connect(server.address) as remote:
        remote.on("Hit_state", hear)
        home.add("Hit", n=1, lock=threading.Lock())
        home.add("Hit", big=bytes(wire.MAX_FRAME))
        home.add("Hit", n=3)
        for _ in range(3):
            assert done.acquire(timeout=PATIENCE)
        assert heard == [{"n": 1}, {}, {"n": 3}]


def test_a_pipe_that_is_refused_is_told_to_its_source() -> None:
    home, local = programs.machine(), Machine({"Foo": State()}, id="local")
    with serve(home, HERE, allow="read") as server, connect(server.address) as remote:
        laid = pipe(local, "Foo", remote, "Foo")
        failed = local.when_error()
        local.add("Foo")
        assert failed.wait(PATIENCE)
        await_rest(local)
        assert isinstance(local.error, NotAllowedError)
        laid.close()


def test_a_pipe_whose_target_is_stuck_delivers_what_it_kept_and_closes() -> None:
    home = programs.machine()
    local = Machine({"Hit": State(multi=True)}, id="local", queue_limit=1)
    seen: list[object] = []
    gate = Gate()

    def hit(event: Event) -> None:
        gate()
        seen.append(event.args["n"])

    local.bind({"Hit_state": hit})
    with serve(home, HERE, outbox_limit=50) as server, connect(server.address) as remote:
        laid = pipe(remote, "Hit", local, "Hit")
        failed = home.when_error()
        for n in range(EVENT_WINDOW + 200):
            home.add("Hit", n=n)
        assert failed.wait(PATIENCE)
        await_rest(home)
        assert isinstance(home.error, PipeOverflowError)
        last = local.when_args("Hit", {"n": EVENT_WINDOW + 49})
        gate.open()
        assert last.wait(PATIENCE)
        await_rest(local)
        assert seen == list(range(len(seen)))  # those that were read before made room for more
        assert len(seen) >= EVENT_WINDOW + 50
        assert remote.is_disposed is False
        laid.close()


class Lively(SocketCarrier):
    """A carrier that has the machine change while its clocks are being sent."""

    def __init__(self, sock: socket.socket, machine: Machine) -> None:
        super().__init__(sock)
        self.machine = machine
        self.left = 400

    def send(self, data: bytes | memoryview) -> int:
        taken = super().send(data)
        if self.left:
            self.left -= 1
            self.machine.toggle("Foo")
        return taken


def test_what_changes_while_clocks_are_told_is_told_in_its_time() -> None:
    home = programs.machine()
    ours, theirs = socket.socketpair()
    session = Session(Machines([home]), Values(), Policy(), lambda *_: None)
    session.link.attach(Lively(ours, home))
    opened = session.opened(1, home)
    ticks, read = list(opened.ticks), wire.FrameReader()
    home.toggle("Foo")
    goal = home.schema.position("Foo")
    with theirs:
        theirs.settimeout(PATIENCE)
        while ticks[goal] < 401:
            for _, messages in read.feed(theirs.recv(1 << 16)):
                for message in messages:
                    assert isinstance(message, wire.Changed)
                    ticks[message.moved[0]] = message.moved[1]
    assert home.tick("Foo") == 401
    session.close()
