"""A shop that takes orders, and workers that carry them out; some of it goes wrong."""

from __future__ import annotations

from random import Random

from asyncmachine import Event, Machine, State, StateContext, States, Tracer


class ShopStates(States):
    """What happens in the shop."""

    Open = State()
    OrderPlaced = State(multi=True, require=Open)
    OrderTaken = State(multi=True, require=Open)
    TurnedAway = State(multi=True, require=Open)


class WorkerStates(States):
    """What a worker is doing."""

    Idle = State(auto=True, remove=("Working",))
    Working = State(remove=(Idle, "Delivered", "Exception"))
    Delivered = State(multi=True, remove=Working)

    Exception = State(multi=True, remove=Working)


class TooLargeError(Exception):
    """An order that turned out to be more than a worker can carry."""


class Worker:
    """Carries out one order at a time."""

    def __init__(self, number: int, shop: Machine, rng: Random, tracers: list[Tracer]) -> None:
        self._rng = rng
        self.machine = Machine(
            WorkerStates,
            id=f"worker-{number}",
            handlers=self,
            parent=shop,
            tracers=tracers,
            log_args=["order"],
        )
        self.machine.add("Idle")

    def Working_enter(self, event: Event) -> bool:
        """Refuse what is obviously too much."""
        return int(str(event.args["size"])) <= 9

    def Working_state(self, event: Event) -> None:
        event.fork(self.work, event.args["size"])

    def work(self, ctx: StateContext, size: int) -> None:
        if not ctx.sleep(self._rng.uniform(0.02, 0.05) * size):
            return
        if size == 9 and self._rng.random() < 0.5:
            raise TooLargeError(f"an order of {size}")
        self.machine.add("Delivered")

    def Exception_state(self, event: Event) -> None:
        self.machine.remove("Exception")


class Shop:
    """Takes orders at random, and gives each to a worker who has nothing to do."""

    def __init__(self, workers: int, rate: float, seed: int, tracers: list[Tracer]) -> None:
        self._rng = Random(seed)
        self._rate = rate
        self.machine = Machine(
            ShopStates, id="shop", handlers=self, tracers=tracers, log_args=["order"]
        )
        self.workers = [
            Worker(number, self.machine, Random(f"{seed}/{number}"), tracers)
            for number in range(1, workers + 1)
        ]

    def Open_state(self, event: Event) -> None:
        event.fork(self.take_orders)

    def take_orders(self, ctx: StateContext) -> None:
        order = 0
        while ctx.sleep(self._rng.expovariate(self._rate)):
            order += 1
            self.machine.add("OrderPlaced", order=order, size=self._rng.randint(1, 10))

    def OrderPlaced_state(self, event: Event) -> None:
        for worker in self.workers:
            if worker.machine.is_inactive("Working") and worker.machine.add(
                "Working", **event.args
            ):
                event.machine.add("OrderTaken", **event.args)
                return
        event.machine.add("TurnedAway", **event.args)
