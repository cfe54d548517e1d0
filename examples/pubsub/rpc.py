"""What hosts say to each other: one frame, the RPC, with subscriptions, messages and control.

After the libp2p specification (libp2p/specs, pubsub/README.md and pubsub/gossipsub/), with
msgpack instead of protobuf. A message is encoded and signed once by its author; who
forwards it passes the same bytes on, and a copy that was seen before is known by its id
without being decoded.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

__all__ = ["Control", "Message", "Prune", "Rpc", "Sent", "decode", "decode_message", "encode"]


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an author has published.

    Attributes:
        author: id of the host that published it.
        number: its number among those of the author.
        topic: where it was published.
        data: what it says.
        sent: the author's clock when it was published, in seconds.

    """

    author: str
    number: int
    topic: str
    data: bytes
    sent: float


class Sent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message on its way.

    Attributes:
        id: unique among all messages.
        hops: how many streams it has gone through when it arrives: 1 from its author.
        body: the encoded `Message`.
        signature: the author's signature of the body; empty if it is not signed.

    """

    id: str
    hops: int
    body: bytes
    signature: bytes = b""


class Prune(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Leave somebody's mesh of a topic.

    Attributes:
        topic: the topic.
        backoff: seconds that the other side has to wait before it grafts again.
        peers: ids of others to try instead (peer exchange).

    """

    topic: str
    backoff: float
    peers: tuple[str, ...] = ()


class Control(msgspec.Struct, array_like=True, gc=False):
    """What routers tell each other.

    Attributes:
        ihave: ids of messages that the sender has, by topic.
        iwant: ids of messages that the sender asks for.
        graft: topics in whose mesh the sender has put the receiver.
        prune: topics from whose mesh it has taken it.

    """

    ihave: list[tuple[str, list[str]]] = []
    iwant: list[str] = []
    graft: list[str] = []
    prune: list[Prune] = []


class Rpc(msgspec.Struct, array_like=True, gc=False):
    """One frame.

    Attributes:
        subscriptions: topics, and whether the sender has subscribed or unsubscribed.
        publish: messages.
        control: what the router has to say, if anything.

    """

    subscriptions: list[tuple[str, bool]] = []
    publish: list[Sent] = []
    control: Control | None = None


_T = TypeVar("_T")

_ENCODER: Final = msgspec.msgpack.Encoder()
_RPC: Final = msgspec.msgpack.Decoder(Rpc)
_MESSAGE: Final = msgspec.msgpack.Decoder(Message)


def encode(said: Rpc | Message) -> bytes:
    """Give the bytes of a frame or message."""
    return _ENCODER.encode(said)


def decode(frame: bytes) -> Rpc:
    """Read a frame.

    Raises:
        msgspec.MsgspecError: if it is none.

    Example:
        >>> decode(encode(Rpc(subscriptions=[("news", True)]))).subscriptions
        [('news', True)]

    """
    return _decoded(_RPC, frame)


def decode_message(body: bytes) -> Message:
    """Read the body of a message.

    Raises:
        msgspec.MsgspecError: if it is none.

    """
    return _decoded(_MESSAGE, body)


def _decoded(decoder: msgspec.msgpack.Decoder[_T], said: bytes) -> _T:
    try:
        return decoder.decode(said)
    except (UnicodeDecodeError, RecursionError) as error:  # which msgspec lets pass
        raise msgspec.DecodeError(str(error)) from error
