"""One run of the case `simple discovery`, on whichever side: hosts that find each other and talk.

All but one of the hosts join a topic. The last one joins when they have advertised it, finds
them all, and sends the first message. Then random hosts send one message after another,
each when all hosts have received the one before. In the end everything is disposed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from random import Random
from time import perf_counter
from typing import Final, NamedTuple, Protocol

__all__ = ["LIMIT_S", "STAGES", "TOPIC", "Course", "LateError", "Side", "Tally", "run_course"]

TOPIC: Final = "foobar"
# A run that takes longer has failed.
LIMIT_S: Final = 3.0
STAGES: Final = ("start", "join", "find", "first message", "messages", "dispose")


class Course(NamedTuple):
    """What one run came to.

    Attributes:
        seconds: how long all of it took.
        stages: how long each of `STAGES` took, as far as it came.
        threads: the most that were seen at once, after a message.
        failure: what went wrong; empty if nothing did.

    """

    seconds: float
    stages: dict[str, float]
    threads: int
    failure: str = ""


class LateError(Exception):
    """Something that had to happen did not happen in time."""


class Side(Protocol):
    """A network of hosts, numbered from 0, made one way or the other."""

    def subscribe(self, host: int) -> None:
        """Have a host join the topic, and advertise that."""

    def await_advertised(self, hosts: int, timeout: float) -> bool:
        """Wait until so many hosts are advertised; false if that takes too long."""

    def bootstrap(self, host: int, enough: int, timeout: float) -> bool:
        """Wait until a host knows enough peers in the topic; false if that takes too long."""

    def publish(self, host: int, data: bytes) -> str:
        """Have a host send a message; gives its id."""

    def close(self) -> None:
        """Dispose everything."""


class Tally:
    """Who has received which message.

    Args:
        hosts: how many have to receive each.

    """

    def __init__(self, hosts: int) -> None:
        self._hosts = hosts
        self._lock = threading.Lock()
        self._received: dict[str, set[str]] = {}
        self._complete: SimpleQueue[str] = SimpleQueue()
        self._twice = ""

    def received(self, host: str, message_id: str) -> None:
        """Note that a host has received a message; may be called from any thread."""
        with self._lock:
            hosts = self._received.setdefault(message_id, set())
            if host in hosts:
                self._twice = f"{host} has received {message_id} twice"
            hosts.add(host)
            if len(hosts) == self._hosts:
                self._complete.put(message_id)

    def wait(self, message_id: str, timeout: float) -> None:
        """Wait until all hosts have received a message, the only one on its way.

        Raises:
            LateError: if that takes too long, or one was received twice.

        """
        try:
            complete = self._complete.get(timeout=timeout)
        except Empty:
            with self._lock:
                reached = len(self._received.get(message_id, ()))
            msg = f"{message_id} has reached {reached} of {self._hosts} hosts"
            raise LateError(msg) from None
        if complete != message_id or self._twice:
            raise LateError(self._twice or f"{complete} has come instead of {message_id}")


def run_course(
    make: Callable[[int, int, Tally], Side],
    hosts: int,
    messages: int,
    seed: int,
    limit: float = LIMIT_S,
) -> Course:
    """Run the case once.

    Args:
        make: makes a side from the number of hosts, the seed, and where to say what arrives.
        hosts: how many.
        messages: how many after the first one, in total.
        seed: of the keys, and of what is random.
        limit: seconds after which the run has failed.

    """
    began = perf_counter()
    stages: dict[str, float] = {}
    last = began
    threads = 0
    failure = ""

    def left() -> float:
        return max(began + limit - perf_counter(), 0.0)

    def reached(stage: str) -> None:
        nonlocal last
        now = perf_counter()
        stages[stage] = now - last
        last = now

    tally = Tally(hosts)
    side = make(hosts, seed, tally)
    reached("start")
    try:
        for host in range(1, hosts):
            side.subscribe(host)
        if not side.await_advertised(hosts - 1, left()):
            raise LateError(f"{hosts - 1} hosts were not advertised")
        reached("join")
        side.subscribe(0)
        if not side.bootstrap(0, hosts - 1, left()):
            raise LateError(f"host 0 has not found {hosts - 1} peers")
        reached("find")
        tally.wait(side.publish(0, b"first message"), left())
        reached("first message")
        rng = Random(seed)
        for number in range(messages):
            owner = rng.randrange(hosts)
            tally.wait(side.publish(owner, f"message {number} of {owner}".encode()), left())
            threads = max(threads, threading.active_count())
        reached("messages")
    except LateError as error:
        failure = str(error)
    finally:
        side.close()
        reached("dispose")
    seconds = perf_counter() - began
    if not failure and seconds > limit:
        failure = f"all was received, but that took {seconds:.1f} s"
    return Course(seconds, stages, threads, failure)
