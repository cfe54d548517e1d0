"""Who a host is: an Ed25519 key, made from a seed, so that a run can be repeated."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Identity", "identity_of"]


class Identity:
    """The key of a host.

    Args:
        seed: 32 bytes.

    """

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._private.public_key()

    def sign(self, body: bytes) -> bytes:
        """Give the signature of something."""
        return self._private.sign(body)

    def verifies(self, signature: bytes, body: bytes) -> bool:
        """Whether it is the signature of that."""
        try:
            self._public.verify(signature, body)
        except InvalidSignature:
            return False
        return True


@lru_cache(maxsize=65536)
def identity_of(seed: int, name: str) -> Identity:
    """Give the identity that a name has in a run.

    Example:
        >>> ours = identity_of(7, "p1")
        >>> ours.verifies(ours.sign(b"hi"), b"hi"), ours.verifies(ours.sign(b"hi"), b"ho")
        (True, False)

    """
    return Identity(sha256(f"{seed}/{name}".encode()).digest())
