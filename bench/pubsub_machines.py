"""The side with machines: the case study itself."""

from __future__ import annotations

import os
from random import Random

from bench.pubsub_course import TOPIC, Tally
from examples.pubsub.clock import WallClock
from examples.pubsub.discovery import Discovery
from examples.pubsub.host import Delivery
from examples.pubsub.registry import Registry
from examples.pubsub.site import Site

__all__ = ["MachinesSide"]


class MachinesSide:
    """So many hosts of ``examples/pubsub``, on one site."""

    def __init__(self, hosts: int, seed: int, tally: Tally) -> None:
        def arrived(delivery: Delivery) -> None:
            tally.received(delivery.host, delivery.id)

        self._clock = WallClock()
        cores = os.cpu_count() or 1
        self._site = Site(
            0,
            1,
            self._clock,
            router="flood",
            seed=seed,
            signed=True,
            workers=cores,
            delivered=arrived,
        )
        self._registry = Registry(self._site)
        self._hosts = [self._site.host(f"ps-{number}") for number in range(hosts)]
        self._discoveries = [
            Discovery(host, self._site, Random(f"{seed}/{host.name}/discovery"))
            for host in self._hosts
        ]
        self._do = self._clock.call_soon  # all machines on one thread
        self._published = [0] * hosts

    def subscribe(self, host: int) -> None:
        machine, discovery = self._hosts[host].machine, self._discoveries[host].machine
        self._do(lambda: machine.add("AddSubscription", topic=TOPIC))
        self._do(lambda: discovery.add("AdvertisingTopic", topic=TOPIC))

    def await_advertised(self, hosts: int, timeout: float) -> bool:
        # The first activation of a multi state is one tick, each further one two.
        return self._registry.machine.when_tick("Advertise", 2 * hosts - 1).wait(timeout)

    def bootstrap(self, host: int, enough: int, timeout: float) -> bool:
        machine = self._discoveries[host].machine
        bootstrapped = machine.when_args("TopicBootstrapped", {"topic": TOPIC})
        self._do(lambda: machine.add("BootstrappingTopic", topic=TOPIC, enough=enough))
        return bootstrapped.wait(timeout)

    def publish(self, host: int, data: bytes) -> str:
        self._published[host] += 1
        message_id = f"ps-{host}/{self._published[host]}"
        machine = self._hosts[host].machine
        self._do(lambda: machine.add("PublishMessage", topic=TOPIC, id=message_id, data=data))
        return message_id

    def close(self) -> None:
        self._site.close()
        self._registry.machine.dispose()
        self._clock.close()
