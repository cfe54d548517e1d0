"""The messages that processes exchange, and how they become bytes.

A frame is a length of four bytes (big-endian), then a msgpack array of messages. The top
bit of the length marks a *volatile* frame: its messages are not counted, and not sent
again after a reconnect. Each message is an array that begins with its tag. States travel
as their positions in the schema.

Protocol version 1. Nothing that arrives is ever unpickled: messages are decoded by schema.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from asyncmachine.net.errors import ProtocolError

__all__ = [
    "FRAME_OVERHEAD",
    "KINDS",
    "MAX_FRAME",
    "NUMBERS",
    "VERSION",
    "Ack",
    "Applied",
    "Ask",
    "Build",
    "Built",
    "Bye",
    "Canceled",
    "Changed",
    "CloseChannel",
    "ClosePipe",
    "Consumed",
    "Dispose",
    "Done",
    "ErrorInfo",
    "Eval",
    "Event",
    "Failed",
    "Forsake",
    "Forward",
    "FrameReader",
    "Gone",
    "LayPipe",
    "Message",
    "Mutate",
    "Open",
    "Opened",
    "Origin",
    "Overflowed",
    "PipeClosed",
    "Refusal",
    "Shut",
    "Snapshot",
    "Subscribe",
    "Sync",
    "Told",
    "Unsubscribe",
    "Value",
    "Whole",
    "decode",
    "encode",
    "frame",
]

VERSION: Final = 1
MAX_FRAME: Final = 16 * 2**20
# The kinds of mutation, by number.
KINDS: Final = ("add", "remove", "set")
NUMBERS: Final = {kind: number for number, kind in enumerate(KINDS)}

# Four bytes of length, and an array header of at most five.
FRAME_OVERHEAD: Final = 9
_VOLATILE: Final = 1 << 31


class _Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


class ErrorInfo(_Message):
    """An error, as far as it travels.

    Attributes:
        type_name: name of its type.
        message: its text.
        notes: the notes that were added to it.
        traceback: its traceback as tblib describes one in JSON, or empty.

    """

    type_name: str
    message: str
    notes: list[str] = msgspec.field(default_factory=list)
    traceback: str = ""


class Origin(_Message):
    """Why a mutation was requested.

    Attributes:
        machine: id of the machine whose handler requested it, or empty.
        transition: number of its transition.
        passed: ids of the machines whose pipes have forwarded it.
        trace: the W3C ``traceparent`` of what it was requested in, or empty.

    """

    machine: str = ""
    transition: int = 0
    passed: tuple[str, ...] = ()
    trace: str = ""


class Refusal(_Message):
    """Why one of many mutations was not executed.

    Attributes:
        number: which one, counted from the first on this channel, from 0.
        why: the reason.
        error: name of the error class if it was not allowed, or could not be read.

    """

    number: int
    why: str
    error: str = ""


# From who uses a machine to where it lives ---------------------------------------------


class Open(_Message, tag=1):
    """Use a machine: ``Opened`` or ``Failed`` comes back.

    Attributes:
        call: number of the call.
        machine: its id; empty for the only one there is.
        mirror: whether its clock is to be followed.
        known: digests of the schemas that need not be sent.

    """

    call: int
    machine: str = ""
    mirror: bool = True
    known: list[bytes] = msgspec.field(default_factory=list)


class CloseChannel(_Message, tag=2):
    """Use a machine no more."""

    channel: int


class Mutate(_Message, tag=3):
    """Request a mutation.

    Attributes:
        channel: number of the machine.
        call: number of the call that waits for the result; 0 if none does.
        kind: position in ``KINDS``.
        states: positions in the schema.
        args: what the handlers get, as values.py packs it; empty for nothing.

    """

    channel: int
    call: int
    kind: int
    states: tuple[int, ...]
    args: bytes = b""


class Forward(_Message, tag=4):
    """Request a mutation that has a history: a handler or a pipe requested it."""

    channel: int
    call: int
    kind: int
    states: tuple[int, ...]
    args: bytes
    origin: Origin


class Ask(_Message, tag=5):
    """Ask whether a mutation would be executed."""

    channel: int
    call: int
    kind: int
    states: tuple[int, ...]
    args: bytes = b""


class Eval(_Message, tag=6):
    """Run an importable function where the machine lives: ``Value`` or ``Failed``.

    Attributes:
        channel: number of the machine.
        call: number of the call.
        function: ``"module:qualified.name"``.
        timeout: seconds to wait for the machine's turn.

    """

    channel: int
    call: int
    function: str
    timeout: float | None = None


class Sync(_Message, tag=7):
    """Ask for ``Done`` once all that came before has been seen to.

    Attributes:
        channel: number of the machine.
        call: number of the call.
        idle: whether to wait until its queue is drained.

    """

    channel: int
    call: int
    idle: bool = False


class Whole(_Message, tag=8):
    """Ask for a ``Snapshot``, for something was missed."""

    channel: int


class Subscribe(_Message, tag=9):
    """Hear of handler names from now on: ``Done``, then ``Event`` for each.

    Attributes:
        channel: number of the machine.
        call: number of the call.
        number: a number for the subscription, chosen by who subscribes.
        names: handler names; ``"*"`` for every transition.
        pipe: whether it is one end of a pipe: what overflows closes it, and the source is told.
        bring_up: states whose being active now is told as an event at once.

    """

    channel: int
    call: int
    number: int
    names: tuple[str, ...]
    pipe: bool = False
    bring_up: tuple[int, ...] = ()


class Unsubscribe(_Message, tag=10):
    """Hear no more."""

    channel: int
    number: int


class Consumed(_Message, tag=11):
    """So many events of a subscription have been seen to, all in all."""

    channel: int
    number: int
    count: int


class Dispose(_Message, tag=12):
    """Dispose a machine where it lives: ``Done`` when that is over."""

    channel: int
    call: int
    timeout: float | None = None


class Told(_Message, tag=13):
    """Tell a machine of an error in a pipe that begins there.

    Attributes:
        channel: number of the machine.
        error: what is added as ``Exception``.

    """

    channel: int
    error: ErrorInfo


# From where a machine lives to who uses it ----------------------------------------------


class Opened(_Message, tag=32):
    """A machine can be used.

    Attributes:
        call: number of the call.
        channel: a number for the machine on this link.
        machine: its id.
        schema: its schema as JSON, or empty if the link has seen it.
        digest: what the schema is known by.
        ticks: all clocks.
        order: positions of the active states, in order.
        error: ``machine.error``.

    """

    call: int
    channel: int
    machine: str
    schema: bytes
    digest: bytes
    ticks: list[int]
    order: list[int]
    error: ErrorInfo | None = None


class Done(_Message, tag=33):
    """A call was executed; and the clocks that have moved since the last message.

    Attributes:
        call: number of the call.
        channel: number of the machine.
        moved: position and tick of each clock that has moved, in turn.
        total: the sum of all clocks; 0 if it says nothing of clocks.
        order: positions of the active states if they are not as expected, or empty.

    """

    call: int
    channel: int
    moved: list[int] = msgspec.field(default_factory=list)
    total: int = 0
    order: list[int] = msgspec.field(default_factory=list)


class Canceled(_Message, tag=34):
    """A mutation was refused."""

    call: int
    why: str


class Failed(_Message, tag=35):
    """A call came to nothing.

    Attributes:
        call: number of the call.
        kind: name of a class of errors.py, or ``RemoteError``.
        error: what happened.

    """

    call: int
    kind: str
    error: ErrorInfo


class Value(_Message, tag=36):
    """What a function returned."""

    call: int
    value: bytes


class Changed(_Message, tag=37):
    """Clocks have moved; volatile.

    Attributes:
        channel: number of the machine.
        moved: position and tick of each clock that has moved, in turn.
        total: the sum of all clocks.
        order: positions of the active states if they are not as expected, or empty.

    """

    channel: int
    moved: list[int]
    total: int
    order: list[int] = msgspec.field(default_factory=list)


class Snapshot(_Message, tag=38):
    """The whole clock, to replace what the mirror shows."""

    channel: int
    ticks: list[int]
    order: list[int]
    error: ErrorInfo | None = None


class Applied(_Message, tag=39):
    """So many mutations of a channel that nobody waits for are done, all in all."""

    channel: int
    count: int
    refused: list[Refusal] = msgspec.field(default_factory=list)


class Event(_Message, tag=40):
    """Something that was subscribed to has happened.

    Attributes:
        channel: number of the machine.
        number: of the subscription.
        name: position in its names.
        kind: position in ``KINDS``.
        states: the called states.
        tick: the clock of the state that the name is about; 0 if it is about any.
        transition: number of the transition there; 0 if it brings up what is active.
        args: what came with it.
        origin: why it was requested.
        auto: whether the machine itself requested it.
        accepted: whether it was executed.
        trace: the W3C ``traceparent`` of the transition, if it is traced.

    """

    channel: int
    number: int
    name: int
    kind: int
    states: tuple[int, ...]
    tick: int
    transition: int
    args: bytes = b""
    origin: Origin | None = None
    auto: bool = False
    accepted: bool = True
    trace: str = ""


class Overflowed(_Message, tag=41):
    """A pipe's subscription is over, after what was kept: its outbox was full."""

    channel: int
    number: int


class Gone(_Message, tag=42):
    """A machine was disposed."""

    channel: int


# From a network to its hosts, and back ------------------------------------------------------


class Build(_Message, tag=64):
    """Build machines: ``Built`` comes back.

    Attributes:
        call: number of the call.
        factories: what to call; pickled, for it only travels to a process's own child.

    """

    call: int
    factories: list[bytes]


class Built(_Message, tag=65):
    """What became of ``Build``: for each factory what is known of its machine, or an error."""

    call: int
    results: list[Opened | Failed]


class LayPipe(_Message, tag=66):
    """Lay a pipe from a machine here to one elsewhere: ``Done`` comes back.

    Attributes:
        call: number of the call.
        number: a number for the pipe, chosen by who asks.
        source: id of the machine that it begins at.
        address: where the target lives.
        target: id of the target.
        routes: pairs of a source's state and a target's.
        kinds: ``"add"``, ``"remove"`` or both.
        sync: whether what is active now is brought up.

    """

    call: int
    number: int
    source: str
    address: str
    target: str
    routes: list[tuple[str, str]]
    kinds: tuple[str, ...]
    sync: bool


class ClosePipe(_Message, tag=67):
    """Close a pipe."""

    number: int


class Forsake(_Message, tag=68):
    """A host is gone for good: what leads there is given up."""

    address: str


class Shut(_Message, tag=69):
    """Dispose all machines and end the process."""

    timeout: float


class PipeClosed(_Message, tag=70):
    """A pipe that was laid on request has closed by itself."""

    number: int


# From link to link ------------------------------------------------------------------------


class Ack(_Message, tag=96):
    """So many messages have arrived, all in all; volatile."""

    count: int


class Bye(_Message, tag=97):
    """The link ends now, on purpose; volatile."""

    reason: str


Message: TypeAlias = (
    Open
    | CloseChannel
    | Mutate
    | Forward
    | Ask
    | Eval
    | Sync
    | Whole
    | Subscribe
    | Unsubscribe
    | Consumed
    | Dispose
    | Told
    | Opened
    | Done
    | Canceled
    | Failed
    | Value
    | Changed
    | Snapshot
    | Applied
    | Event
    | Overflowed
    | Gone
    | Build
    | Built
    | LayPipe
    | ClosePipe
    | Forsake
    | Shut
    | PipeClosed
    | Ack
    | Bye
)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Message]).decode


def encode(message: Message) -> bytes:
    """Give the bytes of one message.

    Example:
        >>> len(encode(Mutate(channel=1, call=7, kind=0, states=(3,))))
        9

    """
    return _encode(message)


def decode(payload: bytes | memoryview) -> list[Message]:
    """Give the messages of one frame, without its length.

    Raises:
        ProtocolError: if they are not of this protocol.

    """
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"a message that is none of this protocol: {error}") from error


def frame(messages: list[bytes], *, volatile: bool = False) -> bytes:
    """Join encoded messages into one frame.

    Example:
        >>> read = FrameReader()
        >>> [count for count, messages in read.feed(frame([encode(Ack(1)), encode(Ack(2))]))]
        [2]

    """
    n = len(messages)
    if n < 16:
        head = bytes((0x90 | n,))
    elif n < 1 << 16:
        head = b"\xdc" + n.to_bytes(2, "big")
    else:
        head = b"\xdd" + n.to_bytes(4, "big")
    length = len(head) + sum(map(len, messages))
    if volatile:
        length |= _VOLATILE
    return b"".join((length.to_bytes(4, "big"), head, *messages))


class FrameReader:
    """Cuts a stream of bytes into frames.

    Args:
        max_frame: bytes that a frame may have; a longer one is a `ProtocolError`.

    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self.max_frame = max_frame
        self._buffer = bytearray()

    @property
    def incomplete(self) -> int:
        """How many bytes there are of a frame that has not arrived as a whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, list[Message]]]:
        """Take what has arrived; give the frames that are complete by now.

        Returns:
            For each frame how many messages count (none of a volatile one), and the messages.

        Raises:
            ProtocolError: for a frame that is too long, or is none.

        """
        buffer: bytes | bytearray
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        else:
            buffer = data
            head = int.from_bytes(data[:4], "big")
            if len(data) == 4 + (head & ~_VOLATILE) <= self.max_frame:  # one, as mostly
                messages = decode(data[4:])
                return [(0 if head & _VOLATILE else len(messages), messages)]
        frames: list[tuple[int, list[Message]]] = []
        at, end = 0, len(buffer)
        with memoryview(buffer) as view:
            while end - at >= 4:
                head = int.from_bytes(view[at : at + 4], "big")
                length = head & ~_VOLATILE
                if length > self.max_frame:
                    raise ProtocolError(
                        f"a frame of {length} bytes, but at most {self.max_frame} are allowed"
                    )
                if end - at - 4 < length:
                    break
                messages = decode(view[at + 4 : at + 4 + length])
                frames.append((0 if head & _VOLATILE else len(messages), messages))
                at += 4 + length
        if buffer is data:
            if at < end:
                self._buffer += data[at:]
        elif at:
            del self._buffer[:at]
        return frames
