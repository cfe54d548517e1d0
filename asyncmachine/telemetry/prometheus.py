"""Metrics of machines for Prometheus: `MachineCollector`; ``pip install asyncmachine[prometheus]``.

Guarantees:

- What is read from machines is read when somebody scrapes: a mutation pays nothing for it.
- What is counted is counted by the thread that has the machine's turn, without a lock.
- A scrape never waits for a machine, and no lock is held while machines are read or told.
- However many machines share an id, no two series have the same labels.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

try:
    from prometheus_client import REGISTRY
except ImportError as error:  # pragma: no cover - the tests need it
    msg = f"this needs {error.name}: pip install 'asyncmachine[prometheus]'"
    raise ImportError(msg, name=error.name) from error

from asyncmachine.locking import FreshLock
from asyncmachine.logs import log_exception
from asyncmachine.machine import Machine
from asyncmachine.telemetry.counting import BUCKETS, Counter, bounds_of
from asyncmachine.telemetry.families import Families, empty_families
from asyncmachine.telemetry.sources import (
    MachineSource,
    NetworkLike,
    NetworkSource,
    RemoteLike,
    RemoteSource,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from prometheus_client import CollectorRegistry, Metric

    from asyncmachine.telemetry.sources import Collected, Source

__all__ = ["MachineCollector"]

# Seconds for which what has ended is still told, from the first scrape after that on: for
# other servers that scrape, too.
LINGER: Final = 60.0
# What has ended and was not scraped since: more than that is forgotten, oldest first.
MOST_ENDED: Final = 1000


class MachineCollector:
    """Collects the metrics of machines, and of networks, whenever a registry is scraped.

    What is read (states, clocks, queue, waiters, forks) costs a mutation nothing. What is
    counted (transitions, handlers, errors, and how long they take) costs each mutation about
    what two attribute-rich function calls do; see the manual, "Metrics".

    Used in a ``with`` statement it is closed at the end.

    Args:
        machines: what to collect; `add` takes more. A `RemoteMachine` is read from its
            mirror, and not counted; of a `Network`, its processes and links are told.
        registry: where it registers itself.
        histograms: whether to count, too; without that no tracer is attached.
        handlers: whether to count handlers, and time them, if transitions are counted.
        inherit: whether to collect the children of machines, those that come later too.
        buckets: upper bounds of the buckets of all histograms, in seconds.
        linger: seconds for which a machine that is disposed is still collected, after the
            first scrape that came after its disposal.

    Raises:
        ValueError: if the registry has a collector of this kind already.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> from asyncmachine import Machine, State
        >>> registry = CollectorRegistry()
        >>> machine = Machine({"Foo": State(), "Bar": State()}, id="example")
        >>> with MachineCollector(machine, registry=registry):
        ...     machine.add("Foo"), machine.remove("Foo"), machine.add("Bar")
        ...     labels = {"machine": "example", "state": "Foo"}
        ...     registry.get_sample_value("asyncmachine_state_ticks_total", labels)
        (Result.EXECUTED, Result.EXECUTED, Result.EXECUTED)
        2

    """

    def __init__(
        self,
        *machines: Collected,
        registry: CollectorRegistry = REGISTRY,
        histograms: bool = True,
        handlers: bool = True,
        inherit: bool = True,
        buckets: Sequence[float] = BUCKETS,
        linger: float = LINGER,
    ) -> None:
        self._buckets = tuple(buckets)
        self._bounds = bounds_of(self._buckets)
        self._counts = histograms
        self._handlers = handlers
        self._inherit = inherit
        self._linger = linger
        self._lock = FreshLock()  # guards what follows
        self._sources: dict[tuple[str, str], Source] = {}  # by label and name
        self._things: dict[int, Source] = {}  # by what they are the source of
        self._ended: dict[Source, None] = {}  # those that are known to have ended
        self._closed = False
        self._registry = registry
        for each in machines:
            _check(each)
        try:
            registry.register(self)
        except ValueError as error:
            msg = (
                "the registry has a MachineCollector already: add() machines to that one, or "
                f"give this one another registry ({error})"
            )
            raise ValueError(msg) from error
        for each in machines:
            self.add(each)

    # What is collected ------------------------------------------------------------------------

    def add(self, machine: Collected) -> None:
        """Collect one more; again does nothing.

        It is labelled with its id. If another one of that id is collected, it is called
        ``"id (2)"`` instead, and so on, unless that one is disposed: then it takes its place.

        Args:
            machine: a `Machine`, a `RemoteMachine` or a `Network`.

        Raises:
            TypeError: for anything else.
            ValueError: if the collector is closed.

        """
        _check(machine)
        if not self._take(machine):
            msg = "the collector is closed"
            raise ValueError(msg)

    def remove(self, machine: Collected) -> None:
        """Collect it no more; its children stay. Again does nothing."""
        with self._lock.now:
            source = self._things.get(id(machine))
            if source is not None:
                self._forget_locked(source)
        if source is not None:
            source.stop()

    def _take(self, thing: Collected) -> bool:
        """Collect something and, perhaps, its children; false if the collector is closed."""
        with self._lock.now:
            if self._closed:
                return False
            source = self._things.get(id(thing))
            known = source is not None
            replaced = None
            if source is None:
                source = self._source(thing, _text(thing.id))
                replaced = self._name_locked(source)
                if replaced is not None:
                    self._forget_locked(replaced)
                self._sources[source.label, source.name] = self._things[id(thing)] = source
        if replaced is not None:
            replaced.stop()
        if not known:
            source.begin(lambda _: self._note_end(source))
            if self._things.get(id(thing)) is not source:  # removed by another thread, just now
                source.stop()
        if isinstance(thing, Machine) and self._inherit:
            for child in thing.children:
                if isinstance(child, Machine):
                    self._take(child)
        return True

    def _name_locked(self, source: Source) -> Source | None:
        """Give it a name that nothing else has, but for what has ended: that is returned."""
        wanted, number = source.name, 1
        while (other := self._sources.get((source.label, source.name))) is not None:
            if other in self._ended:
                return other
            number += 1
            source.name = f"{wanted} ({number})"
        return None

    def _source(self, thing: Collected, name: str) -> Source:
        if isinstance(thing, Machine):
            return MachineSource(thing, name, self._new_counter() if self._counts else None)
        if isinstance(thing, NetworkLike):
            return NetworkSource(thing, name)
        return RemoteSource(thing, name)

    def _new_counter(self) -> Counter:
        adopt = self._take if self._inherit else _ignore
        return Counter(self._bounds, handlers=self._handlers, adopt=adopt)

    def _note_end(self, source: Source) -> None:
        """Take note that something has ended, and forget what has for too long."""
        oldest: Source | None = None
        with self._lock.now:
            if self._things.get(id(source.thing)) is not source:
                return
            self._ended[source] = None
            if len(self._ended) > MOST_ENDED:
                oldest = next(iter(self._ended))
                self._forget_locked(oldest)
        if oldest is not None:
            oldest.stop()

    def _forget_locked(self, source: Source) -> None:
        if self._things.get(id(source.thing)) is source:
            del self._things[id(source.thing)]
            del self._sources[source.label, source.name]
        self._ended.pop(source, None)

    # Scrapes ----------------------------------------------------------------------------------

    def describe(self) -> Iterable[Metric]:
        """Tell a registry which metrics there may be."""
        return empty_families()

    def collect(self) -> Iterable[Metric]:
        """Read all machines, and give what they and their counters tell; called by a registry."""
        if self._inherit and not self._counts:
            self._find_children()
        with self._lock.now:
            sources = list(self._sources.values())
        families = Families(self._buckets)
        now = monotonic()
        for source in sources:
            over = source.is_over  # first: what is told after that is final
            try:
                source.collect(families)
            except Exception:  # noqa: BLE001 - one that can not be read hides no other
                log_exception("the metrics of %s can not be told", source.name)
            if over:
                self._see_off(source, now)
        return families.metrics()

    def _see_off(self, source: Source, now: float) -> None:
        """Take note that something was scraped after its end; forget it when it is time."""
        if source.scraped_at is None:
            source.scraped_at = now
        if now - source.scraped_at < self._linger:
            return
        with self._lock.now:
            self._forget_locked(source)
        source.stop()

    def _find_children(self) -> None:
        """Look for children that nobody has told of, for there are no tracers."""
        with self._lock.now:
            sources = list(self._sources.values())
        for source in sources:
            if isinstance(source, MachineSource):
                self._take(source.machine)

    # The end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Collect nothing any more: leave the registry and all machines. Again does nothing."""
        with self._lock.now:
            if self._closed:
                return
            self._closed = True
            sources = list(self._sources.values())
            self._sources.clear()
            self._things.clear()
            self._ended.clear()
        with suppress(KeyError):  # somebody has done that already
            self._registry.unregister(self)
        for source in sources:
            source.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MachineCollector of {len(self._sources)}>"


def _check(thing: object) -> None:
    if not isinstance(thing, Machine | RemoteLike | NetworkLike):
        msg = f"a Machine, RemoteMachine or Network can be collected, not {thing!r}"
        raise TypeError(msg)


def _text(name: str) -> str:
    """A name that can be written as UTF-8, as metrics are: one bad id is not to spoil all."""
    return name.encode("utf-8", "replace").decode()


def _ignore(_: object) -> bool:
    return True
