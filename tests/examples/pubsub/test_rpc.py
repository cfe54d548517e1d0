from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from examples.pubsub.rpc import (
    Control,
    Message,
    Prune,
    Rpc,
    Sent,
    decode,
    decode_message,
    encode,
)

_NAMES = st.text(max_size=8)
_SENT = st.builds(Sent, _NAMES, st.integers(0, 99), st.binary(max_size=20), st.binary(max_size=8))
_PRUNES = st.builds(
    Prune, _NAMES, st.floats(allow_nan=False), st.lists(_NAMES, max_size=3).map(tuple)
)
_CONTROLS = st.builds(
    Control,
    st.lists(st.tuples(_NAMES, st.lists(_NAMES, max_size=3)), max_size=3),
    st.lists(_NAMES, max_size=3),
    st.lists(_NAMES, max_size=3),
    st.lists(_PRUNES, max_size=3),
)
_RPCS = st.builds(
    Rpc,
    st.lists(st.tuples(_NAMES, st.booleans()), max_size=3),
    st.lists(_SENT, max_size=3),
    st.none() | _CONTROLS,
)
_MESSAGES = st.builds(
    Message,
    _NAMES,
    st.integers(0, 2**63),
    _NAMES,
    st.binary(max_size=50),
    st.floats(allow_nan=False),
)


@given(_RPCS)
def test_a_frame_is_read_as_it_was_written(rpc: Rpc) -> None:
    assert decode(encode(rpc)) == rpc


@given(_MESSAGES)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    assert decode_message(encode(message)) == message


@given(_RPCS, st.data())
def test_a_frame_that_is_cut_short_is_none(rpc: Rpc, data: st.DataObject) -> None:
    frame = encode(rpc)
    end = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(msgspec.MsgspecError):
        decode(frame[:end])


@given(st.binary(max_size=30))
@example(b"\x95\xa2\x00\x80")  # a text that is none
@example(b"\x93\x91\x92\xa1\x80")
@example(b"\x96\xa1a\x01\xa1t\xc4\x00\xcb" + bytes(8) + b"\x91" * 10_000)  # deeper than any stack
@example(b"\x94\x90\x90\xc0" + b"\x91" * 10_000)
def test_bytes_of_strangers_are_a_frame_or_a_complaint_but_nothing_worse(frame: bytes) -> None:
    for read in (decode, decode_message):
        try:
            read(frame)
        except msgspec.MsgspecError:
            continue


@pytest.mark.parametrize(
    "said",
    [
        7,
        {"publish": []},
        [[["films", "yes"]]],
        [[], [["a/1", 1]]],
        [[], [], [[["films", "a/1"]]]],
    ],
)
def test_what_has_another_shape_is_no_frame(said: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.msgpack.encode(said))


def test_an_empty_frame_has_nothing_in_it_and_shares_nothing() -> None:
    first, second = Rpc(), Rpc()
    first.subscriptions.append(("films", True))

    assert second.subscriptions == []
    assert decode(encode(Rpc())) == Rpc()
    assert encode(Rpc()) != b""  # that would be the end of the stream


def test_a_body_is_passed_on_as_it_came() -> None:
    body = encode(Message("a", 1, "films", b"hi", 0.1))
    (sent,) = decode(encode(Rpc(publish=[Sent("a/1", 1, body, b"s")]))).publish

    again = decode(encode(Rpc(publish=[Sent(sent.id, sent.hops + 1, sent.body, sent.signature)])))

    assert again.publish == [Sent("a/1", 2, body, b"s")]
