"""Frames: what is cut, decoded and refused; and a server that is fed garbage."""

from __future__ import annotations

import random
import socket
import threading
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncmachine import Event
from asyncmachine.net import ProtocolError, connect, serve, wire
from tests.net import programs
from tests.net.test_serving import greeted
from tests.races import PATIENCE

SAMPLES = (
    wire.Open(1),
    wire.Open(2, "served", mirror=False, known=[b"x" * 12]),
    wire.CloseChannel(7),
    wire.Mutate(1, 0, 0, (0,)),
    wire.Mutate(1, 3, 2, (3, 0), b"\x81\xa1n\x01"),
    wire.Forward(1, 0, 0, (3,), b"", wire.Origin("m", 3, ("m",))),
    wire.Ask(1, 4, 0, (1,)),
    wire.Eval(1, 5, "os:getpid", 0.1),
    wire.Sync(1, 6),
    wire.Sync(1, 7, idle=True),
    wire.Whole(1),
    wire.Subscribe(1, 8, 1, ("Foo_state", "Any_state")),
    wire.Subscribe(1, 9, 2, ("Foo_state",), pipe=True, bring_up=(0,)),
    wire.Subscribe(1, 9, 3, ("*",)),
    wire.Unsubscribe(1, 1),
    wire.Consumed(1, 1, 5),
    wire.Told(1, wire.ErrorInfo("E", "m")),
    wire.Ack(3),
    wire.Changed(1, [0, 1], 1),
    wire.Build(1, [b"x"]),
    wire.Shut(1.0),
    wire.Bye("enough"),
)


@given(st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=20), st.data())
def test_frames_are_cut_wherever_the_pieces_end(
    messages: list[wire.Message], data: st.DataObject
) -> None:
    stream = b"".join(
        wire.frame([wire.encode(each)], volatile=n % 2 == 1) for n, each in enumerate(messages)
    )
    reader = wire.FrameReader()
    at, frames = 0, []
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream)))
        frames += reader.feed(stream[at : at + size])
        at += size
    assert [each for _, part in frames for each in part] == messages
    assert [count for count, _ in frames] == [1 - n % 2 for n in range(len(messages))]


@pytest.mark.parametrize("n", [1, 15, 16, 70_000])
def test_a_frame_of_many_messages(n: int) -> None:
    reader = wire.FrameReader()
    ((count, messages),) = reader.feed(wire.frame([wire.encode(wire.Ack(1))] * n))
    assert (count, len(messages)) == (n, n)


def test_each_message_has_a_tag_of_its_own() -> None:
    kinds = get_args(wire.Message)
    tags = [kind.__struct_config__.tag for kind in kinds]
    assert len(set(tags)) == len(kinds)


def test_a_toggle_takes_few_bytes() -> None:
    assert len(wire.frame([wire.encode(wire.Mutate(1, 100, 0, (3,)))])) <= 30
    assert len(wire.frame([wire.encode(wire.Done(100, 1, [3, 70_000], 200_000))])) <= 30


@given(st.binary(max_size=100))
def test_whatever_arrives_is_read_or_refused(data: bytes) -> None:
    try:
        wire.decode(data)
    except ProtocolError:
        pass


def test_what_says_to_be_huge_or_deep_is_refused_at_once() -> None:
    for payload in (
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x91\x9b\x03\xdd\x0f\xff\xff\xff",
    ):
        with pytest.raises(ProtocolError):
            wire.decode(payload)
    with pytest.raises(ProtocolError, match="at most"):
        wire.FrameReader(100).feed(b"\x00\x00\x00\x65")


# Garbage --------------------------------------------------------------------------------------


def mutated(dice: random.Random, frame: bytes) -> bytes:
    """Damage a frame: bits, bytes, length, order, or nothing."""
    data = bytearray(frame)
    for _ in range(dice.randrange(3)):
        at = dice.randrange(len(data))
        match dice.randrange(6):
            case 0:
                data[at] ^= 1 << dice.randrange(8)
            case 1:
                data[at] = dice.randrange(256)
            case 2:
                del data[at : at + dice.randrange(1, 4)]
            case 3:
                data[at:at] = dice.randbytes(dice.randrange(1, 9))
            case 4:
                data[0:4] = dice.randrange(1 << 32).to_bytes(4, "big")
            case _:
                data[4:] = dice.randbytes(len(data))
        if not data:
            return dice.randbytes(4)
    return bytes(data)


def test_a_server_outlives_ten_thousand_mutated_frames() -> None:
    dice = random.Random(11)
    home = programs.machine()
    seen: list[object] = []
    done = threading.Event()

    def hear(event: Event) -> None:
        if event.args.get("good"):
            seen.append(event.args["good"])
            if event.args["good"] == 100:
                done.set()

    with (
        serve(home, "tcp://127.0.0.1:0", max_frame=1 << 16) as server,
        connect(server.address) as good,
    ):
        good.on("Hit_state", hear)
        sent = 0
        while sent < 10_000:
            if dice.random() < 0.2:
                host, _, port = server.address.removeprefix("tcp://").rpartition(":")
                sock = socket.create_connection((host, int(port)))
                sent += _feed(dice, sock, dice.randrange(1, 20))
            else:
                sock = greeted(server.address)
                sock.sendall(wire.frame([wire.encode(wire.Open(1))]))
                sent += _feed(dice, sock, dice.randrange(1, 200))
        assert good.sync(PATIENCE) is None  # type: ignore[func-returns-value]
        with connect(server.address) as late:
            late.remove("Exception")
            late.set("Foo")
        assert good.set("Foo")
        for n in range(1, 101):
            assert good.add("Hit", good=n)
        assert done.wait(PATIENCE)
        assert seen == list(range(1, 101))
        assert good.time() == home.time()


def _feed(dice: random.Random, sock: socket.socket, most: int) -> int:
    sent = 0
    with sock:
        try:
            for _ in range(most):
                frame = wire.frame(
                    [wire.encode(dice.choice(SAMPLES)) for _ in range(dice.randrange(1, 4))],
                    volatile=dice.random() < 0.1,
                )
                sent += 1
                sock.sendall(mutated(dice, frame))
        except OSError:
            pass
    return sent
