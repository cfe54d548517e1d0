"""Schemas on the wire: sent once, known by their digest afterwards."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from asyncmachine.errors import SchemaError
from asyncmachine.net.errors import ProtocolError
from asyncmachine.schema import Schema

__all__ = ["known_digests", "packed", "unpacked"]

_packed: Final[WeakKeyDictionary[Schema, tuple[bytes, bytes]]] = WeakKeyDictionary()
_known: Final[WeakValueDictionary[bytes, Schema]] = WeakValueDictionary()
# Digests that are told when a machine is asked for; more would make the question long.
_MOST_TOLD: Final = 64


def packed(schema: Schema) -> tuple[bytes, bytes]:
    """Give the digest and the bytes of a schema."""
    found = _packed.get(schema)
    if found is None:
        data = json.dumps(schema.to_dict(), separators=(",", ":")).encode()
        found = _packed[schema] = (blake2b(data, digest_size=12).digest(), data)
        _known.setdefault(found[0], schema)
    return found


def unpacked(digest: bytes, data: bytes) -> Schema:
    """Give the schema of some bytes, or the one that is known by the digest.

    Raises:
        ProtocolError: if it is none.

    """
    schema = _known.get(digest)
    if schema is not None:
        return schema
    try:
        schema = Schema.from_dict(json.loads(data))
    except (ValueError, SchemaError, TypeError, KeyError, AttributeError) as error:
        raise ProtocolError(f"a schema that is none: {error}") from error
    _packed[schema] = (digest, data)
    return _known.setdefault(digest, schema)


def known_digests() -> list[bytes]:
    """Give digests of schemas that are known here."""
    return list(_known)[:_MOST_TOLD]
