"""The args that the machines of the case study tell each other, and their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine import Event
    from examples.pubsub.rpc import Message, Sent

__all__ = ["Args", "args_of"]


class Args(TypedDict, total=False):
    """What an event may come with; which of it, its handler knows.

    Attributes:
        topic: name of a topic.
        peer: name of a peer or host.
        peers: names of several.
        host: name of the host that asks or is asked for.
        want: how many peers a host wants to have in a topic.
        enough: how many are enough to have joined.
        lacking: whether peers are looked for only if there are few.
        found: hosts that were found, each with the number of its site.
        ttl: seconds that an entry of the registry lasts.
        alone: whether nobody else is in the topic.
        subscribed: whether it is joined or left.
        outbound: whether this host has connected to the peer.
        rpc: an encoded frame; empty at the end of a stream.
        error: what was wrong with one.
        sent: a message on its way.
        message: what it says.
        data: what is to be published.
        id: id of a message.
        ids: ids of several.
        validator: says whether a message of a topic is valid.
        reply: is called with the answer to a question.
        what: what arrives at a site.
        of: what a peer tells the simulator of.
        rows: deliveries: message, receiver, hops, and seconds that it took.
        when: the clock when something happened, in seconds.
        site: number of a site.
        process: number of a process of the network.
        exitcode: how it ended.

    """

    topic: str
    peer: str
    peers: list[str]
    host: str
    want: int
    enough: int
    lacking: bool
    found: list[tuple[str, int]]
    ttl: float
    alone: bool
    subscribed: bool
    outbound: bool
    rpc: bytes
    error: str
    sent: Sent
    message: Message
    data: bytes
    id: str
    ids: list[str]
    validator: Callable[[Message], bool]
    reply: Callable[[list[str]], object]
    what: str
    of: str
    rows: list[tuple[str, str, int, float]]
    when: float
    site: int
    process: int
    exitcode: int


def args_of(event: Event) -> Args:
    """Give the args of an event, with their types."""
    return cast("Args", event.args)
