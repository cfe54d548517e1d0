"""Schemas on the wire: sent once, known by their digest afterwards."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from asyncmachine.errors import SchemaError
from asyncmachine.locking import FreshLock
from asyncmachine.net.errors import ProtocolError
from asyncmachine.schema import Schema

__all__ = ["known_digests", "known_schemas", "packed", "unpacked"]

_lock: Final = FreshLock()  # guards what follows; only for an instant
_packed: Final[WeakKeyDictionary[Schema, tuple[bytes, bytes]]] = WeakKeyDictionary()
_known: Final[WeakValueDictionary[bytes, Schema]] = WeakValueDictionary()
# Digests that are told when a machine is asked for; more would make the question long.
_MOST_TOLD: Final = 64


def packed(schema: Schema) -> tuple[bytes, bytes]:
    """Give the digest and the bytes of a schema.

    Example:
        >>> from asyncmachine.schema import State
        >>> digest, data = packed(Schema({"Foo": State()}))
        >>> unpacked(digest, data).names
        ('Foo', 'Exception')

    """
    with _lock.now:
        found = _packed.get(schema)
    if found is None:
        data = json.dumps(schema.to_dict(), separators=(",", ":")).encode()
        found = (_digest(data), data)
        _remember(schema, *found)
    return found


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=12).digest()


def _remember(schema: Schema, digest: bytes, data: bytes) -> Schema:
    with _lock.now:
        _packed[schema] = (digest, data)
        return _known.setdefault(digest, schema)


def unpacked(digest: bytes, data: bytes) -> Schema:
    """Give the schema of some bytes, or the one that is known by the digest.

    Raises:
        ProtocolError: if it is none, or the digest is that of another.

    """
    with _lock.now:
        schema = _known.get(digest)
    if schema is not None:
        return schema
    if _digest(data) != digest:  # else one server could pass its schema off as another's
        raise ProtocolError("a schema that does not have the digest it is said to have")
    try:
        schema = Schema.from_dict(json.loads(data))
    except (ValueError, SchemaError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"a schema that is none: {error}") from error
    return _remember(schema, digest, data)


def known_schemas() -> dict[bytes, Schema]:
    """Give schemas that are known here by digest; hold them until the answer is there."""
    with _lock.now:
        return dict(list(_known.items())[:_MOST_TOLD])


def known_digests() -> list[bytes]:
    """Give digests of schemas that are known here."""
    return list(known_schemas())
