"""What links and networks have done so far, in numbers, and how old a mirror may be.

Guarantees: the numbers of a link are written by who reads or writes it, without a lock, and
read by anybody; they never fall. What asks how old a mirror is never waits.
"""

from __future__ import annotations

from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.net.client import Call

__all__ = ["Lag", "LinkStatistics", "NetworkStatistics"]


class LinkStatistics(NamedTuple):
    """What went over the links to one process, one after the other.

    Attributes:
        name: what it is called.
        is_up: whether it works at this moment.
        bytes_sent: bytes that were written.
        bytes_received: bytes that were read.
        messages_sent: messages that were written, those written again among them.
        messages_received: messages that were read, each once.
        reconnects: how often the connection was made again.

    """

    name: str
    is_up: bool = False
    bytes_sent: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    reconnects: int = 0


class NetworkStatistics(NamedTuple):
    """What a network consists of, and what went over its links.

    The links are those between this process and the others. What these say to each other
    does not pass here.

    Attributes:
        processes: how many of its processes are alive.
        machines: how many machines it has.
        links: the link to each process.

    """

    processes: int
    machines: int
    links: tuple[LinkStatistics, ...]


class Lag:
    """How old what a mirror shows may be.

    The mirror's process is asked to answer once all has been told that there was to tell.
    Until it does, nobody knows more than what there was when the last answer was asked for.
    """

    __slots__ = ("_asked", "_asking", "_lock", "_since", "_took")

    def __init__(self) -> None:
        self._lock = Lock()  # guards what follows
        self._asking = False
        self._asked = 0.0  # when the present question was asked
        self._since: float | None = None  # when the first one was that has had no answer
        self._took: float | None = None  # what the last answer took

    def measure(self, ask: Callable[[Callable[[Call], object]], bool]) -> float | None:
        """Give seconds, and ask anew unless a question is under way.

        Args:
            ask: asks, and has the function that it is given called with the answer; false
                if nobody can be asked.

        Returns:
            How long the last question took to be answered, or how long there has been none,
            if that is longer. ``None`` before anything is known.

        """
        now = monotonic()
        with self._lock:
            asks = not self._asking
            since, took = self._since, self._took
            if asks:
                self._asking, self._asked = True, now
                if since is None:
                    self._since = now
        if asks and not ask(self._answered):
            with self._lock:
                self._asking = False
        if since is None:
            return took
        return max(now - since, took or 0.0)

    def _answered(self, call: Call) -> None:
        with self._lock:
            self._asking = False
            if call.error is None:
                self._took = monotonic() - self._asked
                self._since = None
