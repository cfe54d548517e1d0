"""Addresses of feeds: ``host:port``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Address"]

_LARGEST: Final = 65535
_PORT: Final = re.compile("[0-9]{1,5}")


class Address(NamedTuple):
    """Where a receiver listens.

    Attributes:
        host: a name or an IP address.
        port: a number from 0 to 65535; a receiver takes any free one for 0.

    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``host:port``; an IPv6 address stands in brackets.

        Raises:
            ValueError: for anything else.

        Example:
            >>> Address.parse("localhost:6831"), str(Address.parse("[::1]:0"))
            (Address(host='localhost', port=6831), '[::1]:0')

        """
        host, colon, digits = text.strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            msg = f"{text!r} is no address: an IPv6 host stands in brackets, like '[::1]:6831'"
            raise ValueError(msg)
        if not colon or not host or "/" in host or any(each.isspace() for each in host):
            msg = f"{text!r} is no address: 'host:port' is needed, like 'localhost:6831'"
            raise ValueError(msg)
        if not _may_be_host(host):
            msg = f"{text!r} is no address: no host can be called {host!r}"
            raise ValueError(msg)
        if not _PORT.fullmatch(digits) or int(digits) > _LARGEST:
            msg = f"{text!r} is no address: the port is a number from 0 to {_LARGEST}"
            raise ValueError(msg)
        return cls(host, int(digits))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _may_be_host(text: str) -> bool:
    """Whether a name can be looked up; one that can not would end the thread that tries."""
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return "\0" not in text
