"""Schemas travel once, and none can pass for another."""

from __future__ import annotations

import gc

import pytest

from asyncmachine import Schema, State
from asyncmachine.net import ProtocolError
from asyncmachine.net.schemas import known_digests, known_schemas, packed, unpacked


def test_a_schema_arrives_equal_and_is_the_same_object_when_known() -> None:
    schema = Schema({"Foo": State(add="Bar"), "Bar": State(multi=True)})
    digest, data = packed(schema)
    assert unpacked(digest, b"") is schema
    assert digest in known_digests()
    assert known_schemas()[digest] is schema
    assert packed(schema) == (digest, data)


def test_a_schema_that_is_not_known_is_built_from_its_bytes() -> None:
    before = Schema({"Gone": State(), "Other": State(require="Gone")})
    told = before.to_dict()
    digest, data = packed(before)
    del before
    gc.collect()
    assert digest not in known_digests()
    with pytest.raises(ProtocolError):
        unpacked(digest, b"")
    after = unpacked(digest, data)
    assert after.to_dict() == told
    assert unpacked(digest, b"") is after


def test_a_schema_can_not_pass_for_another() -> None:
    good, bad = Schema({"GoodA": State()}), Schema({"BadA": State()})
    _, data = packed(bad)
    digest, _ = packed(good)
    del good
    gc.collect()
    with pytest.raises(ProtocolError, match="digest"):
        unpacked(digest, data)


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"Foo": 3}', b'{"Foo": {"add": ["Nope"]}}', b"3"])
def test_what_is_no_schema_is_refused(data: bytes) -> None:
    from hashlib import blake2b

    with pytest.raises(ProtocolError, match="schema"):
        unpacked(blake2b(data, digest_size=12).digest(), data)
