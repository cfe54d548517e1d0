"""What travels on a feed: small, with tables that the receiver looks names up in.

A connection carries frames: a length (four bytes, big-endian), then a msgpack array of
packets. A packet is an array of a tag and a body. The first one is a `Hello`. A reader
ignores tags that it does not know, and further fields at the end of a body.

Machines and plans have numbers. A number is told (`Introduce`, `Define`) before it is
used, and holds until the end of the connection or, for plans, until `Forget`.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Final

from msgspec import Raw, Struct
from msgspec.msgpack import Decoder, Encoder

__all__ = [
    "CLOCK",
    "DEFINE",
    "DROP",
    "FAREWELL",
    "FIGURES",
    "FORGET",
    "FORMAT",
    "HELLO",
    "INTRODUCE",
    "LEAVE",
    "LENGTH",
    "MOST_BYTES",
    "ROWS",
    "RUN",
    "VERSION",
    "WIDEST",
    "Clock",
    "Define",
    "Drop",
    "Envelope",
    "Farewell",
    "Forget",
    "Hello",
    "Introduce",
    "Leave",
    "Packet",
    "Row",
    "Rows",
    "Run",
    "decode",
    "encode",
    "portable_text",
    "portable_ticks",
]

FORMAT: Final = "asyncmachine-feed"
VERSION: Final = 1
LENGTH: Final = Layout(">I")
# No frame is larger: a receiver closes the connection that announces one.
MOST_BYTES: Final = 16 * 2**20

WIDEST: Final = 2**63


class Hello(Struct, array_like=True):
    """The first packet: who speaks.

    Attributes:
        format: ``FORMAT``.
        version: of the format; a reader refuses later ones.
        process: names the process among all.
        host: its host.
        pid: its number there.
        program: what it runs.
        offset_ns: what to add to times of this feed for nanoseconds since 1970, UTC.

    """

    format: str
    version: int
    process: str
    host: str
    pid: int
    program: str
    offset_ns: int


class Introduce(Struct, array_like=True):
    """A machine gets a number."""

    number: int
    machine_id: str
    parent: str
    tags: tuple[str, ...]
    names: tuple[str, ...]
    schema: dict[str, dict[str, list[str] | bool]]


class Clock(Struct, array_like=True):
    """All clocks of a machine; those that msgpack has no number for as digits."""

    number: int
    ticks: tuple[int | str, ...]


class Define(Struct, array_like=True):
    """A plan gets a number: what is the same for all transitions of it."""

    number: int
    kind: str
    called: tuple[int, ...]
    auto: bool
    accepted: bool
    moves: tuple[tuple[int, int], ...]
    target: tuple[int, ...]
    steps: tuple[tuple[str, str, str], ...]


class Run(Struct, array_like=True):
    """Some transitions of a machine without a gap, of which there is little to tell.

    Attributes:
        number: the machine.
        first: the number of the first of them.
        figures: five for each, the first five of a `Row`. One flat list, for it costs the
            sender, and so the machines, a third of what a list of lists does.

    """

    number: int
    first: int
    figures: list[int]


FIGURES: Final = 5


class Row(Struct, array_like=True):
    """One transition of which there is more to tell."""

    plan: int
    id: int
    start_ns: int
    duration_ns: int
    queue: int
    cause: tuple[str, int] | None = None
    outcome: str = ""
    accepted: bool = True
    moves: tuple[tuple[int, int], ...] | None = None
    at: str = ""
    error: str = ""
    args: str = ""
    log: tuple[str, ...] = ()
    handlers: tuple[tuple[str, int, int], ...] = ()


class Rows(Struct, array_like=True):
    """Some transitions of a machine without a gap; ``first`` is the number of the first."""

    number: int
    first: int
    rows: list[Row]


class Drop(Struct, array_like=True):
    """So many transitions of a machine are missing here."""

    number: int
    count: int


class Leave(Struct, array_like=True):
    """Nothing more comes of a machine."""

    number: int
    reason: str


class Forget(Struct, array_like=True):
    """The numbers of plans begin anew."""


class Farewell(Struct, array_like=True):
    """Nothing more comes at all."""


Packet = Hello | Introduce | Clock | Define | Run | Rows | Drop | Leave | Forget | Farewell

# What the tags stand for; never to be given to another packet.
_DECODERS: Final[dict[int, Decoder[Packet]]] = {
    0: Decoder(Hello),
    1: Decoder(Introduce),
    2: Decoder(Clock),
    3: Decoder(Define),
    4: Decoder(Run),
    5: Decoder(Rows),
    6: Decoder(Drop),
    7: Decoder(Leave),
    8: Decoder(Forget),
    9: Decoder(Farewell),
}
HELLO, INTRODUCE, CLOCK, DEFINE, RUN, ROWS, DROP, LEAVE, FORGET, FAREWELL = _DECODERS


class Envelope(Struct, array_like=True):
    """A packet that is not decoded yet."""

    tag: int
    body: Raw


_encode: Final = Encoder().encode
_envelopes: Final = Decoder(list[Envelope])


def encode(packets: object) -> bytes:
    """Give the frame of some packets: pairs of a tag and a body, a plain tuple will do."""
    payload = _encode(packets)
    return LENGTH.pack(len(payload)) + payload


def decode(payload: bytes | bytearray | memoryview) -> list[Packet]:
    """Give the packets of a frame, without its length.

    Raises:
        msgspec.MsgspecError: if it is malformed.

    """
    return [
        _DECODERS[each.tag].decode(each.body)
        for each in _envelopes.decode(payload)
        if each.tag in _DECODERS
    ]


def portable_ticks(ticks: list[int] | tuple[int, ...]) -> tuple[int | str, ...]:
    """Give clocks as a `Clock` has them."""
    return tuple(str(tick) if tick >= WIDEST else tick for tick in ticks)


def portable_text(text: str, most: int = 4096) -> str:
    """Give a text that can be encoded, cut to ``most`` characters."""
    if len(text) > most:
        text = text[: most - 3] + "..."
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
