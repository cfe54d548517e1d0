"""The side without machines."""

from __future__ import annotations

from bench.plain_pubsub import PlainDelivery, PlainNetwork
from bench.pubsub_course import TOPIC, Tally

__all__ = ["PlainSide"]


class PlainSide:
    """So many hosts made of threads, queues and locks."""

    def __init__(self, hosts: int, seed: int, tally: Tally) -> None:
        def arrived(delivery: PlainDelivery) -> None:
            tally.received(delivery.host, delivery.id)

        self._network = PlainNetwork(seed=seed)
        self._hosts = [self._network.host(f"ps-{number}") for number in range(hosts)]
        for host in self._hosts:
            host.on_delivery(arrived)

    def subscribe(self, host: int) -> None:
        self._hosts[host].subscribe(TOPIC)

    def await_advertised(self, hosts: int, timeout: float) -> bool:
        return self._network.registry.wait_for(TOPIC, hosts, timeout)

    def bootstrap(self, host: int, enough: int, timeout: float) -> bool:
        return self._hosts[host].bootstrap(TOPIC, enough).wait(timeout)

    def publish(self, host: int, data: bytes) -> str:
        return self._hosts[host].publish(TOPIC, data)

    def close(self) -> None:
        self._network.close()
