"""Addresses: ``unix:/path`` and ``tcp://host:port``."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final, NamedTuple

from asyncmachine.errors import hint
from asyncmachine.net.errors import InsecureAddressError

__all__ = ["Address", "check_secure", "parse"]

_FORMS: Final = "an address is unix:/path or tcp://host:port"
# What a socket's path may have on the platforms that allow least (macOS 104, Linux 108).
_LONGEST_PATH: Final = 103
_HIGHEST_PORT: Final = 65535


class Address(NamedTuple):
    """Where somebody serves.

    Attributes:
        scheme: ``"unix"`` or ``"tcp"``.
        path: of a unix socket.
        host: name or number.
        port: of the host.

    """

    scheme: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def parse(text: str) -> Address:
    """Read an address.

    Raises:
        ValueError: that shows what an address looks like.

    Example:
        >>> parse("tcp://[::1]:80")
        Address(scheme='tcp', path='', host='::1', port=80)
        >>> str(parse("unix:/run/worker.sock"))
        'unix:/run/worker.sock'

    """
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in ("unix", "tcp"):
        if scheme == "nats":
            msg = f"{text}: addresses of a broker are not there yet; {_FORMS}"
            raise ValueError(msg)
        near = hint(scheme, ("unix", "tcp")) if colon else ""
        msg = f"{text!r} is no address{near}; {_FORMS}"
        raise ValueError(msg)
    return _unix(text, rest) if scheme == "unix" else _tcp(text, rest)


def _unix(text: str, rest: str) -> Address:
    path = rest.removeprefix("//") if rest.startswith("///") else rest
    if not path or "\0" in path:
        msg = f"{text!r} names no path; {_FORMS}"
        raise ValueError(msg)
    if len(path.encode()) > _LONGEST_PATH:
        msg = f"{text}: the path of a socket may have {_LONGEST_PATH} bytes at most"
        raise ValueError(msg)
    return Address("unix", path=path)


def _tcp(text: str, rest: str) -> Address:
    host, colon, port = rest.removeprefix("//").rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (rest.startswith("//") and colon and host and port.isascii() and port.isdigit()):
        msg = f"{text!r} is no address; {_FORMS}"
        raise ValueError(msg)
    if int(port) > _HIGHEST_PORT:
        msg = f"{text}: there is no port {port}; the highest is {_HIGHEST_PORT}"
        raise ValueError(msg)
    return Address("tcp", host=host, port=int(port))


def check_secure(address: Address, *, protected: bool) -> None:
    """Refuse to listen where other hosts can come in, without protection.

    Raises:
        InsecureAddressError: with the way out.

    """
    if address.scheme == "unix" or protected or _is_loopback(address.host):
        return
    raise InsecureAddressError(
        f"{address} can be reached by other hosts: give a secret or TLS, or listen on 127.0.0.1"
    )


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(each[4][0]).is_loopback for each in found)
