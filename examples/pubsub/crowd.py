"""The simulated peers of one site, and what is told of them to the simulator."""

from __future__ import annotations

import os
from collections import deque
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from examples.pubsub.meter import Meter
from examples.pubsub.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine import Machine, Tracer
    from examples.pubsub.host import Delivery, Host
    from examples.pubsub.outcome import SlowHandler
    from examples.pubsub.settings import Settings
    from examples.pubsub.site import Site

__all__ = ["Crowd", "Stats", "memory_of_this_process"]

# How often what was received is told, in seconds.
_TELLING: Final = 0.2


class Stats(NamedTuple):
    """How a site is doing: totals since the beginning, but for the last three.

    Attributes:
        frames: frames that its hosts sent.
        control_bytes: bytes of these without messages.
        payload_bytes: bytes of messages.
        duplicates: copies of messages that were not the first.
        transitions: of all its machines.
        streams: streams that are open.
        memory: resident bytes of its process.
        mesh: sizes of the meshes of all its hosts and their topics.

    """

    frames: int = 0
    control_bytes: int = 0
    payload_bytes: int = 0
    duplicates: int = 0
    transitions: int = 0
    streams: int = 0
    memory: int = 0
    mesh: tuple[int, ...] = ()

    def plus(self, other: Stats) -> Stats:
        """Give both together.

        Example:
            >>> Stats(frames=1, mesh=(6,)).plus(Stats(frames=2, mesh=(5,)))[::7]
            (3, (6, 5))

        """
        return Stats(
            self.frames + other.frames,
            self.control_bytes + other.control_bytes,
            self.payload_bytes + other.payload_bytes,
            self.duplicates + other.duplicates,
            self.transitions + other.transitions,
            self.streams + other.streams,
            self.memory + other.memory,
            self.mesh + other.mesh,
        )


class Crowd:
    """The peers of a site.

    Args:
        site: the site.
        settings: how the run was asked for.
        tell: tells the simulator, by args of ``PeerTold``.
        join: has a peer's ``FwdToSim`` piped to the simulator.
        tracers: what else observes all machines.

    """

    def __init__(
        self,
        site: Site,
        settings: Settings,
        tell: Callable[[dict[str, object]], object],
        join: Callable[[Machine], object],
        tracers: tuple[Tracer, ...] = (),
    ) -> None:
        self._site = site
        self._settings = settings
        self._tell = tell
        self._join = join
        self._tracers = tracers
        self._peers: dict[str, Peer] = {}
        self._rows: deque[tuple[str, str, int, float]] = deque()
        self._meters = {kind: Meter(kind) for kind in ("host", "discovery", "peer", "site")}
        self._before = Stats()  # of hosts that are gone
        site.made = self._observe
        site.delivered = self._delivered
        self._observe(site.machine, "site")
        site.clock.call_later(_TELLING, self._tell_received)

    # Peers ----------------------------------------------------------------------------------

    def make(self, name: str) -> None:
        """Make a peer, which then connects."""
        peer = self._peers[name] = Peer(name, self._site, self._settings.seed)
        self._observe(peer.machine, "peer")
        self._join(peer.machine)
        peer.machine.add("Start")

    def stop(self, name: str, *, crash: bool) -> None:
        """Stop a peer; a crash is without a word to the others."""
        peer = self._peers.pop(name, None)
        if peer is None:
            return
        self._forget_host(name)
        if crash:
            self._site.drop(name, hang_up=False)
        else:
            peer.machine.remove("Start")
        peer.machine.dispose()

    def add(self, name: str, state: str, args: dict[str, object]) -> None:
        """Have a state of a peer added."""
        peer = self._peers.get(name)
        if peer is not None:
            peer.machine.add(state, **args)

    def _observe(self, machine: Machine, kind: str) -> None:
        machine.add_tracer(self._meters[kind])
        for tracer in self._tracers:
            machine.add_tracer(tracer)

    # What is received -------------------------------------------------------------------------

    def _delivered(self, delivery: Delivery) -> None:
        self._rows.append(
            (
                delivery.id,
                delivery.host,
                delivery.hops,
                delivery.received - delivery.message.sent,
            )
        )

    def _tell_received(self) -> None:
        self._site.clock.call_later(_TELLING, self._tell_received)
        self.tell_received()

    def tell_received(self) -> None:
        """Tell what has been received since the last time."""
        # Others append meanwhile; what comes later is told the next time.
        rows = [self._rows.popleft() for _ in range(len(self._rows))]
        if rows:
            self._tell({"of": "received", "rows": rows})

    # How it is doing --------------------------------------------------------------------------

    def _forget_host(self, name: str) -> None:
        host = self._site.hosts.get(name)
        if host is not None:
            self._before = self._before.plus(_done(host))

    def stats(self) -> Stats:
        """Give how the site is doing."""
        hosts = list(self._site.hosts.values())
        total = self._before
        for host in hosts:
            total = total.plus(_done(host))
        return total._replace(
            transitions=sum(meter.transitions for meter in self._meters.values()),
            streams=sum(host.stream_count for host in hosts),
            memory=memory_of_this_process(),
            mesh=tuple(chain.from_iterable(host.machine.eval(host.meshes) for host in hosts)),
        )

    def handlers(self) -> list[SlowHandler]:
        """Give what is known of all handlers."""
        return [each for meter in self._meters.values() for each in meter.handlers()]


def _done(host: Host) -> Stats:
    counts = host.counts
    return Stats(counts.frames, counts.control_bytes, counts.payload_bytes, counts.duplicates)


def memory_of_this_process() -> int:
    """Give the resident bytes of this process."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource  # the most that it ever was: the next best

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
