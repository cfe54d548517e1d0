"""Args and other values of the user's: what can travel, and how.

Whatever msgpack can carry travels as it is: numbers, texts, bytes, lists, maps and points
of time; tuples arrive as lists. Dataclasses, enums and msgspec structs travel if both
sides name them in ``wire_types``, and are checked against their annotations when they
arrive. Errors arrive as `RemoteError`. All else is refused where it is sent.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec
from tblib import Traceback

from asyncmachine.errors import described, hint
from asyncmachine.net.errors import NotSerialisableError, RemoteError
from asyncmachine.net.wire import ErrorInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Values", "describe_error", "rebuild_error"]

_SCALARS: Final = frozenset({bool, float, str, bytes, type(None)})
_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**64 - 1

# Codes of msgpack's extension types.
_TYPED: Final = 1
_ERROR: Final = 2
_NAIVE: Final = 3

_encode: Final = msgspec.msgpack.Encoder().encode
# What decoding may raise, also in the __post_init__ of a wire type.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, TypeError, KeyError, RecursionError)
# Texts of errors are cut, so that they always travel.
_MOST_MESSAGE: Final = 32768
_MOST_NOTES: Final = 16
# Text that a traceback may have; deeper ones are cut.
_MOST_TRACEBACK: Final = 65536


class Values:
    """Packs and unpacks values.

    Args:
        wire_types: dataclasses, enums and msgspec structs that may travel.

    Raises:
        TypeError: for a type of another kind.
        ValueError: if two have the same name.

    Example:
        >>> values = Values()
        >>> values.unpack(values.pack({"id": 1, "tags": ("a", "b")}))
        {'id': 1, 'tags': ['a', 'b']}

    """

    def __init__(self, wire_types: Iterable[type] = ()) -> None:
        self._types: dict[str, type] = {}
        for each in wire_types:
            if not _is_wire_type(each):
                msg = f"a wire type is a dataclass, an enum or a msgspec struct, not {each!r}"
                raise TypeError(msg)
            name = each.__qualname__
            if self._types.setdefault(name, each) is not each:
                msg = f"there are two wire types of the name {name!r}"
                raise ValueError(msg)
        self._names = {each: name for name, each in self._types.items()}
        self._decoders = {
            name: msgspec.msgpack.Decoder(each).decode
            for name, each in self._types.items()
            if not issubclass(each, Enum)
        }
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_refuse)
        self._decode = msgspec.msgpack.Decoder(dict[str, object], ext_hook=self._revive).decode
        self._decode_any = msgspec.msgpack.Decoder(ext_hook=self._revive).decode

    def pack(self, args: Mapping[str, object]) -> bytes:
        """Give the bytes of args; nothing for none.

        Raises:
            NotSerialisableError: naming the arg that can not travel.

        """
        if not args:
            return b""
        ready = {
            name: value if type(value) in _SCALARS else self._ready(value, name)
            for name, value in args.items()
        }
        try:
            return self._encoder.encode(ready)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            for name, value in ready.items():
                self._bytes(value, name)  # names the culprit
            raise NotSerialisableError(f"the args can not travel: {error}") from error

    def unpack(self, data: bytes) -> dict[str, object]:
        """Give args back.

        Raises:
            NotSerialisableError: if they are of a type that is not known here, or damaged.

        """
        if not data:
            return {}
        try:
            return self._decode(data)
        except _UNREADABLE as error:
            raise NotSerialisableError(f"args that can not be read: {error}") from error

    def pack_value(self, value: object, where: str) -> bytes:
        """Give the bytes of one value; ``where`` names it in an error."""
        return self._bytes(self._ready(value, where), where)

    def unpack_value(self, data: bytes) -> object:
        """Give one value back."""
        try:
            return self._decode_any(data)
        except _UNREADABLE as error:
            raise NotSerialisableError(f"a value that can not be read: {error}") from error

    def without_what_stays(self, args: Mapping[str, object]) -> tuple[bytes, list[str]]:
        """Pack what can travel; give the names of what can not besides."""
        left = dict(args)
        stays: list[str] = []
        for name, value in args.items():
            try:
                self.pack({name: value})
            except NotSerialisableError:
                del left[name]
                stays.append(name)
        return self.pack(left), stays

    def _bytes(self, ready: object, where: str) -> bytes:
        try:
            return self._encoder.encode(ready)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise NotSerialisableError(f"{where} can not travel: {error}") from error

    def _ready(self, value: object, where: str) -> object:
        """Give what the encoder takes as it is; ``where`` is the path to the value."""
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is int:
            assert isinstance(value, int)
            if not _SMALLEST <= value <= _LARGEST:
                raise NotSerialisableError(f"{where} is an int of more than 64 bits")
            return value
        if kind in self._names:
            return self._typed(value, where)
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            return self._ready_items(value, where)
        if isinstance(value, dict):
            return self._ready_map(value, where)
        if isinstance(value, BaseException):
            return msgspec.msgpack.Ext(_ERROR, _encode(describe_error(value)))
        if isinstance(value, datetime):
            if value.tzinfo is None:
                return msgspec.msgpack.Ext(_NAIVE, value.isoformat().encode())
            return value
        if isinstance(value, str) and not isinstance(value, Enum):
            return str(value)
        if isinstance(value, bytearray | memoryview):
            return bytes(value)
        if isinstance(value, int | float) and not isinstance(value, Enum):
            # Other people's numbers, as those of numpy.
            return self._ready(float(value) if isinstance(value, float) else int(value), where)
        raise NotSerialisableError(_refusal(value, where))

    def _ready_items(self, items: Iterable[object], where: str) -> list[object]:
        try:
            return [self._ready(each, f"{where}[{i}]") for i, each in enumerate(items)]
        except RecursionError as error:
            raise NotSerialisableError(f"{where} contains itself, or is too deep") from error

    def _ready_map(self, given: dict[object, object], where: str) -> dict[object, object]:
        try:
            return {
                self._ready(key, f"a key of {where}"): self._ready(each, f"{where}[{key!r}]")
                for key, each in given.items()
            }
        except TypeError as error:
            raise NotSerialisableError(f"{where} has a key that can not travel") from error
        except RecursionError as error:
            raise NotSerialisableError(f"{where} contains itself, or is too deep") from error

    def _typed(self, value: object, where: str) -> object:
        if isinstance(value, Enum):
            # By its name, for its value may be anything; a flag may have none.
            named = type(value).__members__.get(value.name or "") is value
            item: object = [value.name] if named else self._ready(value.value, where)
            body = msgspec.Raw(self._bytes(item, where))
        else:
            body = msgspec.Raw(self._bytes(value, where))
        return msgspec.msgpack.Ext(_TYPED, _encode([self._names[type(value)], body]))

    def _revive(self, code: int, data: memoryview) -> object:
        if code == _TYPED:
            name, body = msgspec.msgpack.decode(data, type=tuple[str, msgspec.Raw])
            kind = self._types.get(name)
            if kind is None:
                near = hint(name, self._types)
                raise NotSerialisableError(
                    f"{name} is not among the wire_types of the receiver{near}"
                )
            if issubclass(kind, Enum):
                item = msgspec.msgpack.decode(body)
                return kind[item[0]] if isinstance(item, list) else kind(item)
            return self._decoders[name](body)
        if code == _ERROR:
            return rebuild_error(msgspec.msgpack.decode(data, type=ErrorInfo))
        if code == _NAIVE:
            return datetime.fromisoformat(bytes(data).decode())
        raise NotSerialisableError(f"an extension type {code} that is not known")


def _is_wire_type(kind: object) -> bool:
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind) or issubclass(kind, Enum | msgspec.Struct)
    )


def _refuse(value: object) -> object:
    raise TypeError(_refusal(value, "a field"))


def _refusal(value: object, where: str) -> str:
    text = f"{where} can not travel: it is a {type(value).__qualname__}"
    if _is_wire_type(type(value)):
        return f"{text}, which is not named in wire_types"
    return f"{text}; numbers, texts, bytes, lists, maps, datetimes and wire_types can"


def describe_error(error: BaseException) -> ErrorInfo:
    """Describe an error, for another process.

    Example:
        >>> describe_error(ValueError("too small")).message
        'too small'

    """
    if isinstance(error, RemoteError):
        return ErrorInfo(
            _cut(error.type_name), _cut(error.message), _cut_notes(error.notes), _traceback(error)
        )
    message = described(error).partition(": ")[2]
    notes = getattr(error, "__notes__", ())
    return ErrorInfo(
        _cut(type(error).__qualname__), _cut(message), _cut_notes(notes), _traceback(error)
    )


def _cut(text: str) -> str:
    """Cut what is too long, and replace what is no text."""
    text = text if len(text) <= _MOST_MESSAGE else f"{text[:_MOST_MESSAGE]}…"
    return text.encode(errors="replace").decode()


def _cut_notes(notes: object) -> list[str]:
    """Give the last notes, as they have room together."""
    if not isinstance(notes, list | tuple):
        return []
    return [_cut(str(note)) for note in notes[-_MOST_NOTES:]]


def rebuild_error(info: ErrorInfo) -> RemoteError:
    """Give the error that a description tells of, with its traceback."""
    error = RemoteError(info.type_name, info.message, info.notes)
    if info.traceback and len(info.traceback) <= _MOST_TRACEBACK:
        try:
            built = Traceback.from_dict(json.loads(info.traceback))
            error.__traceback__ = built.as_traceback()
        except Exception:  # noqa: BLE001 - it came from outside, and is only decoration
            error.add_note("(its traceback could not be read)")
    return error


def _traceback(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    try:
        text = json.dumps(_plain(Traceback(error.__traceback__).to_dict()))
    except (TypeError, ValueError, RecursionError):
        return ""
    return text if len(text) <= _MOST_TRACEBACK else ""


def _plain(value: object) -> object:
    """Keep of a traceback's dictionary what JSON can carry: no local variables."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return value if isinstance(value, str | int | float | None) else str(value)
