"""Addresses are read, written, and refused."""

from __future__ import annotations

import pytest

from asyncmachine.net.carriers.addresses import Address, check_secure, parse
from asyncmachine.net.errors import InsecureAddressError


@pytest.mark.parametrize(
    "text", ["unix:/run/a.sock", "tcp://127.0.0.1:0", "tcp://localhost:80", "tcp://[::1]:65535"]
)
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse(text)) == text


def test_a_unix_address_may_have_two_slashes_more() -> None:
    assert parse("unix:///run/a.sock") == Address("unix", path="/run/a.sock")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "unix:/path or tcp://host:port"),
        ("localhost:80", "unix:/path or tcp://host:port"),
        ("tpc://localhost:80", "did you mean 'tcp'"),
        ("tcp://localhost", "unix:/path or tcp://host:port"),
        ("tcp:localhost:80", "unix:/path or tcp://host:port"),
        ("tcp://:80", "unix:/path or tcp://host:port"),
        ("tcp://localhost:http", "unix:/path or tcp://host:port"),
        ("tcp://localhost:65536", "65535"),
        ("unix:", "names no path"),
        ("unix:/a\0b", "names no path"),
        ("unix:/" + "a" * 200, "103 bytes"),
        ("nats://localhost:4222/name", "not there yet"),
    ],
)
def test_what_is_no_address_is_refused_with_the_right_form(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_protection(host: str) -> None:
    check_secure(Address("tcp", host=host), protected=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "no-such-host.invalid"])
def test_what_other_hosts_can_reach_needs_protection(host: str) -> None:
    with pytest.raises(InsecureAddressError, match="secret or TLS"):
        check_secure(Address("tcp", host=host), protected=False)
    check_secure(Address("tcp", host=host), protected=True)


def test_a_file_needs_no_protection_but_its_mode() -> None:
    check_secure(Address("unix", path="/run/a.sock"), protected=False)
