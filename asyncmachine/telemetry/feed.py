"""The feed: every transition of a machine, sent to a debugger or recorder as it happens.

``pip install asyncmachine[feed]``; see docs/feed.md. `attach` sends what one machine does,
and the environment variable ``AM_DBG=host:port`` has every machine of a program do so.

Guarantees: a machine never waits for its feed, and an error in the feed never reaches it;
see sending.py.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final
from weakref import ref

try:
    import msgspec
except ImportError as error:  # pragma: no cover - the tests need it
    msg = f"asyncmachine.telemetry.feed needs {error.name}: pip install 'asyncmachine[feed]'"
    raise ImportError(msg, name=error.name) from error

from asyncmachine.locking import FreshLock
from asyncmachine.machine import Machine
from asyncmachine.oneshot import deadline_after, time_left
from asyncmachine.telemetry.addresses import Address
from asyncmachine.telemetry.sending import Sender
from asyncmachine.telemetry.taps import Keeper
from asyncmachine.tracing import Tracer

if TYPE_CHECKING:
    from typing import Self

    from asyncmachine.telemetry.packing import Ledger

del msgspec

__all__ = ["Feed", "FeedTracer", "attach", "tracer_from_environment"]

RING: Final = 16_384
VARIABLE: Final = "AM_DBG"
_CROWD: Final = 64  # so many machines, and it is looked which of them are gone


class Feed:
    """Some machines that are sent to one address; made by `attach`.

    Leaving its ``with`` block closes it.
    """

    def __init__(self, address: Address, *, ring: int, inherit: bool) -> None:
        self._ring = ring
        self._inherit = inherit
        self._lock = FreshLock()
        self._attached: dict[int, tuple[Ledger, ref[_Heir]]] = {}
        self._crowd = _CROWD
        self._closed = False
        self._lost = 0  # of machines that are gone
        self._sender = Sender.of(address)

    @property
    def address(self) -> str:
        """Where it is sent to."""
        return str(self._sender.address)

    @property
    def connected(self) -> bool:
        """Whether there is a receiver now."""
        return self._sender.connected.is_set()

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until there is a receiver; false if ``timeout`` seconds passed first."""
        return self._sender.connected.wait(timeout)

    @property
    def dropped(self) -> int:
        """How many transitions were never sent, for they came faster than they were taken."""
        return self._lost + sum(ledger.lost for ledger, _ in self._entries())

    def _entries(self) -> list[tuple[Ledger, ref[_Heir]]]:
        with self._lock.now:
            return list(self._attached.values())

    def add(self, machine: Machine) -> None:
        """Send what a machine does, too; twice is as good as once.

        Raises:
            TypeError: for what is no `Machine`.

        """
        if not isinstance(machine, Machine):
            msg = f"a Machine can be sent, in its own process, not {machine!r}"
            raise TypeError(msg)
        with self._lock.now:
            if self._closed:
                return
            if len(self._attached) >= self._crowd:
                self._forget_gone()
            ledger, new = self._sender.tap(machine, self._ring)
            if ledger.number in self._attached:
                self._sender.untap(ledger)
                return
            heir = _Heir(self)
            self._attached[ledger.number] = (ledger, ref(heir))
        # Outside of the lock, for the machine may run what waits.
        self._sender.begin()
        if new:
            keeper = Keeper()
            ledger.keeper = ref(keeper)
            keeper.bind(machine, ledger.tap)
            if machine.is_disposed:  # too early for the tap to be told
                ledger.tap.end("disposed")
            elif ledger.tap.over:  # closed meanwhile, when there was nothing to unbind yet
                keeper.unbind()
        if self._inherit:
            heir.bind(machine)
            if self._closed:
                heir.unbind()
            for child in machine.children:
                if isinstance(child, Machine):
                    self.add(child)

    def _forget_gone(self) -> None:
        """Drop what belongs to machines that are over and have been sent."""
        for number, (ledger, _) in list(self._attached.items()):
            if ledger.tap.over and not ledger.tap.ring:
                self._lost += ledger.dropped
                del self._attached[number]
        self._crowd = max(_CROWD, 2 * len(self._attached))  # so looking costs each a little

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait until all that has happened so far has been sent.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether it has; it may still be on its way to the receiver.

        """
        return self._sender.flush(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """Send what is left, and undo it; again does no harm.

        Args:
            timeout: seconds that sending may take; what is left then is given up.

        """
        deadline = deadline_after(timeout)
        with self._lock.now:
            if self._closed:
                return
            self._closed = True
            entries = list(self._attached.values())
        for ledger, heir_of in entries:
            heir = heir_of()
            if heir is not None:
                heir.unbind()
            self._sender.untap(ledger)
        if self.connected:
            self._sender.flush(time_left(deadline) or 0.0)
        self._sender.release(time_left(deadline) or 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self.connected else "waiting"
        return f"<Feed to {self.address}, {state}, {self.dropped} dropped>"


class _Heir(Keeper):
    """Has children of a machine sent, too."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def submachine(self, parent: Machine, child: Machine) -> None:
        self._feed.add(child)


class FeedTracer(Tracer):
    """Sends every machine that it is given to.

    Args:
        address: where a receiver listens: ``host:port``.
        ring: how many transitions of each machine are kept while nobody takes them.
        inherit: whether machines that have one of these as parent are sent, too.

    Raises:
        ValueError: if the address is malformed.

    Example:
        >>> from asyncmachine import Machine, State
        >>> tracer = FeedTracer("localhost:6831")
        >>> machine = Machine({"Foo": State()}, tracers=[tracer])
        >>> machine.add("Foo")
        Result.EXECUTED
        >>> tracer.feed.close()

    Attributes:
        feed: the feed, to look at or to close.

    """

    def __init__(self, address: str, *, ring: int = RING, inherit: bool = True) -> None:
        self.feed = _feed(address, ring, inherit=inherit)

    def machine_init(self, mach: Machine) -> None:
        """Send what the machine does."""
        self.feed.add(mach)


def _feed(address: str, ring: int, *, inherit: bool) -> Feed:
    if not isinstance(ring, int) or ring < 1:
        msg = f"ring must be at least 1, not {ring!r}"
        raise ValueError(msg)
    return Feed(Address.parse(address), ring=ring, inherit=inherit)


def attach(machine: Machine, address: str, *, inherit: bool = True, ring: int = RING) -> Feed:
    """Send what a machine does to a receiver, from its next transition on.

    Returns at once: a background thread connects, and connects again whenever the
    connection is lost. All machines that are sent to one address share one connection.

    Args:
        machine: the machine.
        address: where a receiver listens: ``host:port``.
        inherit: whether its children, those to come included, are sent, too.
        ring: how many transitions of each machine are kept while nobody takes them; the
            newest ones are.

    Returns:
        The feed, to close it.

    Raises:
        TypeError: for what is no `Machine`.
        ValueError: if the address is malformed.

    Example:
        >>> from asyncmachine import Machine, State
        >>> machine = Machine({"Foo": State()}, id="door")
        >>> with attach(machine, "localhost:6831") as feed:
        ...     machine.add("Foo"), feed.dropped
        (Result.EXECUTED, 0)

    """
    feed = _feed(address, ring, inherit=inherit)
    try:
        feed.add(machine)
    except BaseException:
        feed.close(0)
        raise
    return feed


def tracer_from_environment() -> Tracer | None:
    """Give the tracer that ``AM_DBG=host:port`` asks for; called for the first machine."""
    address = os.environ.get(VARIABLE, "").strip()
    if not address:
        return None
    try:
        return FeedTracer(address, inherit=False)  # it is given to every machine anyway
    except ValueError as error:
        logging.getLogger("asyncmachine").warning("%s is ignored: %s", VARIABLE, error)
        return None
