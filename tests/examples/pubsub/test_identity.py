from __future__ import annotations

import pytest

from examples.pubsub.identity import Identity, identity_of


def test_a_signature_is_good_for_what_was_signed_and_nothing_else() -> None:
    ours = identity_of(1, "p1")
    signature = ours.sign(b"body")

    assert ours.verifies(signature, b"body")
    assert not ours.verifies(signature, b"bodY")
    assert not ours.verifies(signature[:-1] + bytes([signature[-1] ^ 1]), b"body")


@pytest.mark.parametrize("signature", [b"", b"x", bytes(64), bytes(65)])
def test_what_is_no_signature_is_not_good(signature: bytes) -> None:
    assert not identity_of(1, "p1").verifies(signature, b"body")


def test_nobody_else_can_sign() -> None:
    signature = identity_of(1, "p1").sign(b"body")

    assert not identity_of(1, "p2").verifies(signature, b"body")
    assert not identity_of(2, "p1").verifies(signature, b"body")


def test_equal_seeds_and_names_give_equal_keys_in_every_process() -> None:
    identity_of.cache_clear()
    first = identity_of(1, "p1")
    assert identity_of(1, "p1") is first
    signature = first.sign(b"body")
    identity_of.cache_clear()  # as in another process

    again = identity_of(1, "p1")

    assert again is not first
    assert again.sign(b"body") == signature
    assert again.verifies(signature, b"body")


def test_a_seed_and_a_name_do_not_run_into_each_other() -> None:
    assert identity_of(1, "1/p").sign(b"") != identity_of(11, "/p").sign(b"")


def test_a_key_needs_32_bytes() -> None:
    with pytest.raises(ValueError, match="32"):
        Identity(b"short")
