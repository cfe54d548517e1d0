"""What a collector collects: a machine here, the mirror of one elsewhere, a network.

Each kind is recognised by what it offers, so nothing here needs `asyncmachine.net`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, TypeAlias, runtime_checkable

from asyncmachine.machine import Machine
from asyncmachine.telemetry.taking import taken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncmachine.handlers import Binding
    from asyncmachine.schema import Schema
    from asyncmachine.telemetry.counting import Counter
    from asyncmachine.telemetry.families import Families

__all__ = [
    "Collected",
    "LinkNumbers",
    "MachineSource",
    "NetworkLike",
    "NetworkSource",
    "RemoteLike",
    "RemoteSource",
    "Source",
]

_RELATIONS: Final = ("add", "remove", "require", "after")


class LinkNumbers(Protocol):
    """What a link tells: `asyncmachine.net.statistics.LinkStatistics`."""

    @property
    def name(self) -> str: ...
    @property
    def is_up(self) -> bool: ...
    @property
    def bytes_sent(self) -> int: ...
    @property
    def bytes_received(self) -> int: ...
    @property
    def messages_sent(self) -> int: ...
    @property
    def messages_received(self) -> int: ...
    @property
    def reconnects(self) -> int: ...


class NetworkNumbers(Protocol):
    """What a network tells: `asyncmachine.net.statistics.NetworkStatistics`."""

    @property
    def processes(self) -> int: ...
    @property
    def machines(self) -> int: ...
    @property
    def links(self) -> Sequence[LinkNumbers]: ...


@runtime_checkable
class RemoteLike(Protocol):
    """A mirror: `asyncmachine.net.RemoteMachine`."""

    id: str
    schema: Schema

    @property
    def queue_length(self) -> int: ...
    @property
    def forks_running(self) -> int: ...
    @property
    def is_disposed(self) -> bool: ...
    def time(self, *states: str) -> tuple[int, ...]: ...
    def on_dispose(self, callback: Callable[[RemoteLike], object]) -> Binding: ...
    def mirror_lag(self) -> float | None: ...


@runtime_checkable
class NetworkLike(Protocol):
    """A network: `asyncmachine.net.Network`."""

    id: str
    machine: Machine

    def statistics(self) -> NetworkNumbers: ...


Collected: TypeAlias = Machine | RemoteLike | NetworkLike


class Source(ABC):
    """One thing that is collected.

    Args:
        thing: what.
        name: what its series are labelled with.

    Attributes:
        label: the label that has the name: no two sources have the same label and name.
        thing, name: as given.
        scraped_at: when it was scraped first after its end, by ``monotonic``; else ``None``.

    """

    label: ClassVar[str] = "machine"

    def __init__(self, thing: Collected, name: str) -> None:
        self.thing = thing
        self.name = name
        self.scraped_at: float | None = None

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether it has ended: its numbers stay as they are."""

    @abstractmethod
    def begin(self, ended: Callable[[object], object]) -> None:
        """Have a function called when it ends, and begin to count."""

    @abstractmethod
    def stop(self) -> None:
        """Count no more; again does nothing."""

    @abstractmethod
    def collect(self, families: Families) -> None:
        """Add its samples."""


class MachineSource(Source):
    """A machine of this process.

    Args:
        machine: the machine.
        name: the label of its series.
        counter: the tracer that counts for it, or ``None``.

    """

    def __init__(self, machine: Machine, name: str, counter: Counter | None) -> None:
        super().__init__(machine, name)
        self.machine = machine
        self._counter = counter
        self._bindings: list[Binding] = []
        self._relations = _relations(machine.schema)

    @property
    def is_over(self) -> bool:
        return self.machine.is_disposed

    def begin(self, ended: Callable[[object], object]) -> None:
        if self._counter is not None and not self.is_over:
            self._bindings.append(self.machine.add_tracer(self._counter))
        self._bindings.append(self.machine.on_dispose(ended))

    def stop(self) -> None:
        for binding in taken(self._bindings):
            binding.unbind()

    def collect(self, families: Families) -> None:
        machine, name, at = self.machine, self.name, {"machine": self.name}
        _add_clocks(families, name, machine.schema, machine.time())
        for relation, count in self._relations.items():
            families.add("relations", count, {**at, "relation": relation})
        families.add("queue_length", machine.queue_length, at)
        families.add("queue_refused", machine.queue_refused, at)
        families.add("waiters_pending", machine.waiters_pending, at)
        families.add("forks_running", machine.forks_running, at)
        if self._counter is not None:
            self._collect_counts(families, self._counter)

    def _collect_counts(self, families: Families, counter: Counter) -> None:
        name, at, counts = self.name, {"machine": self.name}, counter.read()
        for (kind, outcome), count in counts.transitions().items():
            families.add("transitions", count, {**at, "kind": kind, "outcome": outcome})
        for outcome, count in counts.autos().items():
            families.add("auto_transitions", count, {**at, "outcome": outcome})
        families.add("errors", counts.errors(), at)
        families.add_histogram("transition_seconds", name, counts.taken)
        families.add("handler_calls", sum(counts.handled.counts), at)
        families.add_histogram("handler_seconds", name, counts.handled)
        families.add_histogram("queue_wait_seconds", name, counts.waited)


class RemoteSource(Source):
    """The mirror of a machine elsewhere: what it shows, and how old that may be."""

    def __init__(self, remote: RemoteLike, name: str) -> None:
        super().__init__(remote, name)
        self.remote = remote
        self._binding: Binding | None = None
        self._relations = _relations(remote.schema)

    @property
    def is_over(self) -> bool:
        return self.remote.is_disposed

    def begin(self, ended: Callable[[object], object]) -> None:
        self._binding = self.remote.on_dispose(ended)

    def stop(self) -> None:
        if self._binding is not None:
            self._binding.unbind()

    def collect(self, families: Families) -> None:
        remote, name, at = self.remote, self.name, {"machine": self.name}
        _add_clocks(families, name, remote.schema, remote.time())
        for relation, count in self._relations.items():
            families.add("relations", count, {**at, "relation": relation})
        families.add("queue_length", remote.queue_length, at)
        families.add("forks_running", remote.forks_running, at)
        lag = remote.mirror_lag()
        if lag is not None:
            families.add("mirror_lag_seconds", lag, at)


class NetworkSource(Source):
    """A network: its processes, and the links to them."""

    label: ClassVar[str] = "network"

    def __init__(self, network: NetworkLike, name: str) -> None:
        super().__init__(network, name)
        self.network = network
        self._binding: Binding | None = None

    @property
    def is_over(self) -> bool:
        return self.network.machine.is_active("Closed")

    def begin(self, ended: Callable[[object], object]) -> None:
        self._binding = self.network.machine.on("Closed_state", ended)

    def stop(self) -> None:
        if self._binding is not None:
            self._binding.unbind()

    def collect(self, families: Families) -> None:
        numbers, name = self.network.statistics(), self.name
        families.add("network_processes", numbers.processes, {"network": name})
        families.add("network_machines", numbers.machines, {"network": name})
        up = sum(link.is_up for link in numbers.links)
        families.add("network_links", up, {"network": name})
        for link in numbers.links:
            at = {"network": name, "link": link.name}
            families.add("link_reconnects", link.reconnects, at)
            for what in ("bytes", "messages"):
                for direction in ("sent", "received"):
                    count: int = getattr(link, f"{what}_{direction}")
                    families.add(f"link_{what}", count, {**at, "direction": direction})


def _relations(schema: Schema) -> dict[str, int]:
    """How many relations of each kind are declared; kinds that are not are left out."""
    counts = {
        relation: sum(len(getattr(state, relation)) for state in schema.states.values())
        for relation in _RELATIONS
    }
    return {relation: count for relation, count in counts.items() if count}


def _add_clocks(families: Families, name: str, schema: Schema, ticks: tuple[int, ...]) -> None:
    at = {"machine": name}
    families.add("states", len(ticks), at)
    families.add("states_active", sum(tick & 1 for tick in ticks), at)
    families.add_states(name, schema.names, ticks)
