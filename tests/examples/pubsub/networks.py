"""What the tests of hosts share: a site of real hosts on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from random import Random

from asyncmachine import Event
from asyncmachine.threads import one_thread
from examples.pubsub.args import args_of
from examples.pubsub.clock import VirtualClock
from examples.pubsub.discovery import Discovery
from examples.pubsub.host import Delivery, Host
from examples.pubsub.identity import identity_of
from examples.pubsub.registry import Registry
from examples.pubsub.rpc import Message, Rpc, Sent, decode, encode
from examples.pubsub.site import Site

TOPIC = "films"
SEED = 7


class Net:
    """A site with hosts; nothing passes but when `do` or `pass_time` is called."""

    def __init__(
        self,
        router: str = "flood",
        *,
        signed: bool = True,
        latency: Callable[[], float] | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.deliveries: list[Delivery] = []
        self.site = Site(
            0,
            1,
            self.clock,
            router=router,
            seed=SEED,
            signed=signed,
            latency=latency,
            delivered=self.deliveries.append,
        )
        self.registry = Registry(self.site, Random(SEED))
        self._numbers = count(1)

    # Time -----------------------------------------------------------------------------------

    def do(self, *calls: Callable[[], object]) -> None:
        """Make calls, and work off all that comes of them at once."""
        for call in calls:
            self.clock.call_soon(call)
        self.clock.run(self.clock.now())

    def pass_time(self, seconds: float) -> None:
        self.clock.run(self.clock.now() + seconds)

    # Hosts ----------------------------------------------------------------------------------

    def hosts(self, *names: str, topic: str = "") -> list[Host]:
        """Make hosts, and have them subscribe to a topic if it is named."""
        made: list[Host] = []
        for name in names:
            self.do(lambda name=name: made.append(self.site.host(name)))  # type: ignore[misc]
        if topic:
            self.tell(made, "AddSubscription", topic=topic)
        return made

    def discovery(self, host: Host) -> Discovery:
        made: list[Discovery] = []
        self.do(lambda: made.append(Discovery(host, self.site, Random(host.name))))
        return made[0]

    def tell(self, hosts: list[Host] | Host, state: str, **args: object) -> None:
        """Have something happen to hosts, one after the other."""
        for host in hosts if isinstance(hosts, list) else [hosts]:
            self.do(lambda host=host: host.machine.add(state, **args))  # type: ignore[misc]

    def connect(self, host: Host, *peers: Host, topic: str = TOPIC, want: int = 99) -> None:
        names = [peer.name for peer in peers]
        self.tell(host, "PeersPending", topic=topic, peers=names, want=want)

    def ask(self, host: Host, question: str, **args: object) -> list[str]:
        answers: list[list[str]] = []
        self.tell(host, question, reply=answers.append, **args)
        return answers[0]

    # Messages -------------------------------------------------------------------------------

    def publish(self, host: Host, data: bytes = b"hi", topic: str = TOPIC) -> str:
        """Have a host publish a message; gives its id."""
        message_id = f"{host.name}/{next(self._numbers)}"
        self.tell(host, "PublishMessage", topic=topic, id=message_id, data=data)
        return message_id

    def say(self, host: Host, peer: Host | str, said: Rpc | bytes) -> None:
        """Have a frame arrive at a host as if a peer had sent it."""
        frame = said if isinstance(said, bytes) else encode(said)
        name = peer if isinstance(peer, str) else peer.name
        self.tell(host, "IncomingRPC", peer=name, rpc=frame)

    def receivers(self, message_id: str) -> list[str]:
        """Give who has received a message, as often as that, in order."""
        return [each.host for each in self.deliveries if each.id == message_id]


@contextmanager
def network(
    router: str = "flood", *, signed: bool = True, latency: Callable[[], float] | None = None
) -> Iterator[Net]:
    """A network, closed at the end."""
    net = Net(router, signed=signed, latency=latency)
    try:
        yield net
    finally:
        with one_thread():
            net.site.close()
            net.registry.machine.dispose()


def heard_by(host: Host) -> list[tuple[str, Rpc]]:
    """Give what arrives at a host from now on: who has said it, and what; no farewells."""
    heard: list[tuple[str, Rpc]] = []

    def listen(event: Event) -> None:
        args = args_of(event)
        if args["rpc"]:
            heard.append((args["peer"], decode(args["rpc"])))

    host.machine.on("IncomingRPC_state", listen)
    return heard


def signed_by(
    author: str, message_id: str, data: bytes = b"hi", *, topic: str = TOPIC, claimed: str = ""
) -> Sent:
    """Give a message as its author would send it; or one that claims to be of another."""
    body = encode(Message(claimed or author, 1, topic, data, 0.0))
    return Sent(message_id, 1, body, identity_of(SEED, author).sign(body))
