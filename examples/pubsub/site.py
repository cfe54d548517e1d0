"""A site: one process of the network, with its hosts, and the ways to the other sites.

Each site has a machine, its carrier. What goes to another site is an activation of the
state ``To<number>`` of the carrier here, with args, and a pipe takes it to ``Arrived`` of
the carrier there. So all streams between two processes share one pipe, in order.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from asyncmachine import Machine, Schema, State
from examples.pubsub.host import Host, Network
from examples.pubsub.identity import identity_of
from examples.pubsub.routers.flood import Flood
from examples.pubsub.routers.gossip import Gossip
from examples.pubsub.streams import DeadEnd, DelayedStream, LocalStream, RemoteStream
from examples.pubsub.validation import AtOnce, Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine import Event
    from examples.pubsub.clock import Clock
    from examples.pubsub.discovery import Discovery
    from examples.pubsub.host import Delivery
    from examples.pubsub.routers import Router
    from examples.pubsub.streams import Stream
    from examples.pubsub.validation import Validation

__all__ = ["ROUTERS", "Site", "carrier_schema"]

ROUTERS: Final = ("flood", "gossip")
# What may wait for a site: all that its hosts say at once, and it is not for us to drop it.
_QUEUE_LIMIT: Final = 1_000_000


def carrier_schema(sites: int) -> Schema:
    """Give the schema of the carriers of so many sites."""
    states = {f"To{number}": State(multi=True) for number in range(sites)}
    return Schema({"Start": State(), "Arrived": State(multi=True), **states})


class Site:
    """The hosts of one process.

    Args:
        number: which site it is; the first one has the registry.
        sites: how many there are.
        clock: what all hosts here go by.
        router: ``"flood"`` or ``"gossip"``.
        seed: of all that is random.
        signed: whether messages are signed and checked.
        workers: how many messages are checked at a time, each on a thread of its own; 0 checks
            them on the spot.
        latency: gives the seconds that a frame takes to another host; None for none.
        delivered: called with each message that has reached a subscriber.

    Attributes:
        delivered: that function.
        made: called with each machine that is made, and its kind, before it starts.
        machine: the carrier.
        hosts: the hosts here, by name.
        discoveries: their discoveries.
        clock: the clock.
        where: the site of each host that is known here.
        seen_to: what to call when something arrives that is not for a host, by its kind.

    """

    def __init__(
        self,
        number: int,
        sites: int,
        clock: Clock,
        *,
        router: str,
        seed: int = 0,
        signed: bool = True,
        workers: int = 0,
        latency: Callable[[], float] | None = None,
        delivered: Callable[[Delivery], object] = lambda _: None,
    ) -> None:
        if router not in ROUTERS:
            msg = f"there is no router {router!r}; there are {', '.join(ROUTERS)}"
            raise ValueError(msg)
        self.number = number
        self.clock = clock
        self.hosts: dict[str, Host] = {}
        self.where: dict[str, int] = {}
        self.discoveries: dict[str, Discovery] = {}
        self.seen_to: dict[str, Callable[[dict[str, object]], object]] = {
            "rpc": self._rpc,
            "found": self._found,
            "gone": self._gone,
        }
        self._router = router
        self._seed = seed
        self._signed = signed
        self._latency = latency
        self.delivered = delivered
        self._validation: Validation = Workers(clock, workers) if workers else AtOnce()
        self.made: Callable[[Machine, str], object] = lambda machine, kind: None
        self._network = Network(
            clock,
            self._open_stream,
            self._delivered,
            self._validation,
            self.where.__contains__,
            (lambda name: identity_of(seed, name)) if signed else None,
        )
        self.machine = Machine(
            carrier_schema(sites), id=f"site-{number}", handlers=self, queue_limit=_QUEUE_LIMIT
        )
        self.machine.add("Start")

    def _delivered(self, delivery: Delivery) -> None:
        self.delivered(delivery)

    # Hosts ----------------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        """Make a host and start it."""
        made = Host(
            name,
            self._network,
            self._made_router(name),
            identity_of(self._seed, name) if self._signed else None,
        )
        self.made(made.machine, "host")
        self.hosts[name] = made
        self.where[name] = self.number
        made.machine.add("Start")
        return made

    def _made_router(self, name: str) -> Router:
        if self._router == "flood":
            return Flood()
        return Gossip(name, Random(f"{self._seed}/{name}/router"))

    def drop(self, name: str, *, hang_up: bool = True) -> None:
        """Dispose a host.

        Args:
            name: its name.
            hang_up: whether it tells its peers; else they find out, as after a crash.

        """
        host = self.hosts.pop(name, None)
        self.where.pop(name, None)
        self.discoveries.pop(name, None)
        if host is not None:
            if hang_up:
                host.machine.remove("Start")
            host.machine.dispose()

    def lose(self, number: int) -> None:
        """Take note that a site is gone, with all its hosts."""
        gone = [name for name, where in list(self.where.items()) if where == number]
        for name in gone:
            self.where.pop(name, None)
        for host in list(self.hosts.values()):
            host.machine.add("PeersDead", peers=gone)

    # Streams --------------------------------------------------------------------------------

    def _open_stream(self, host: Host, peer: str) -> Stream:
        number = self.where.get(peer, self.number)
        stream: Stream
        if number != self.number:
            return RemoteStream(self.machine, f"To{number}", host.name, self.number, peer)
        found = self.hosts.get(peer)
        if found is None:
            host.machine.add("PeersDead", peers=[peer])
            return DeadEnd()
        stream = LocalStream(host.machine, found.machine)
        if self._latency is not None:
            return DelayedStream(stream, self.clock, self._latency)
        return stream

    def send(self, number: int, what: str, **args: object) -> None:
        """Send something to a site, which has to be connected, or is this one."""
        if number == self.number:
            self.seen_to[what]({"what": what, **args})
        else:
            self.machine.add(f"To{number}", what=what, **args)

    def Arrived_state(self, event: Event) -> None:
        # Not here: this thread has more to read, and the machines have one of their own.
        args = dict(event.args)
        self.clock.call_soon(lambda: self.seen_to[str(args["what"])](args))

    def _rpc(self, args: dict[str, object]) -> None:
        host = self.hosts.get(str(args["to"]))
        peer = str(args["peer"])
        site: int = args["site"]  # type: ignore[assignment]  # it is
        if host is None:
            if args["rpc"]:  # not a farewell
                self.send(site, "gone", host=args["to"])
            return
        self.where[peer] = site
        host.machine.add("IncomingRPC", peer=peer, rpc=args["rpc"])

    def _gone(self, args: dict[str, object]) -> None:
        """Take note that there is no such host where it was."""
        name = str(args["host"])
        if self.where.pop(name, self.number) != self.number:
            for host in list(self.hosts.values()):
                host.machine.add("PeersDead", peers=[name])

    def _found(self, args: dict[str, object]) -> None:
        discovery = self.discoveries.get(str(args["host"]))
        if discovery is not None:
            discovery.found(str(args["topic"]), args["found"])  # type: ignore[arg-type]

    def close(self) -> None:
        """Stop all hosts, without a word to their peers."""
        self._validation.close()
        hosts, self.hosts = self.hosts, {}
        for host in hosts.values():
            host.machine.dispose()
        self.machine.dispose()
