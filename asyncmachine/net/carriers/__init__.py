"""What carries the bytes of a link: chosen by address, alike in use."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Carrier"]


class Carrier(Protocol):
    """A connected stream of bytes.

    Attributes:
        peer: a readable name of the other side.

    """

    peer: str

    def fileno(self) -> int:
        """Give the file descriptor, for polling."""

    def receive(self) -> bytes:
        """Block until something has arrived; nothing at the end of the stream.

        Raises:
            OSError: if the connection has broken.

        """

    def receive_now(self) -> bytes | None:
        """Give what is there without blocking; None if nothing is, nothing at the end."""

    def receive_within(self, timeout: float | None) -> bytes | None:
        """Give what arrives in time, nothing at the end; None perhaps before time is out."""

    def is_buffered(self) -> bool:
        """Whether there is something to receive that the file descriptor does not show."""

    def wait_readable(self, timeout: float | None) -> bool:
        """Block until there may be something to receive, or the end; false if time ran out."""

    def wait_writable(self, timeout: float | None) -> bool:
        """Block until something can be sent, or the end; false if the time ran out."""

    def send(self, data: bytes | memoryview) -> int:
        """Send what can be sent without blocking; give how many bytes that were.

        Raises:
            OSError: if the connection has broken.

        """

    def shut_writing(self) -> None:
        """End what is sent; the other side still gets all of it, and we what it sends."""

    def close(self) -> None:
        """End the connection; whoever blocks in another call wakes. Twice is fine."""
