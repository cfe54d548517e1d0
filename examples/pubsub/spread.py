"""A run over several processes: a site in each, and the simulator in this one.

Each site's carrier is a machine of an `asyncmachine.net.Network`; between any two of them
runs a pipe. Hosts find each other through the registry, and their frames go straight from
site to site.
"""

from __future__ import annotations

import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict, cast

from asyncmachine import pipe
from asyncmachine.logs import log_warning
from asyncmachine.net import Network
from examples.pubsub.args import args_of
from examples.pubsub.clock import WallClock
from examples.pubsub.crowd import Crowd, Stats, memory_of_this_process
from examples.pubsub.outcome import SlowHandler
from examples.pubsub.run import Running
from examples.pubsub.site import Site

if TYPE_CHECKING:
    from asyncmachine import Event, Machine, Tracer
    from examples.pubsub.run import View
    from examples.pubsub.settings import Settings
    from examples.pubsub.sim import World

__all__ = ["Spread", "make_site"]

# How often a site tells how it is doing, in seconds.
_REPORTING: Final = 1.0

_Counts: TypeAlias = tuple[int, int, int, int, int, int, int]


class _Report(TypedDict):
    """How a site is doing, as it travels."""

    site: int
    stats: list[int | list[int]]
    handlers: list[tuple[str, str, int, float, float]]


# The sites of this process; a machine alone would not keep them.
_sites: list[_Remote] = []


class _Remote:
    """A site in a process of its own."""

    def __init__(self, number: int, sites: int, settings: Settings, began: float) -> None:
        self.clock = WallClock(began)
        self.site = Site(
            number,
            sites,
            self.clock,
            router=settings.router,
            seed=settings.seed,
            signed=settings.signed,
            workers=1,  # the other cores have sites of their own
        )
        tracers = (self._metrics(settings.metrics + number),) if settings.metrics else ()
        self.crowd = Crowd(self.site, settings, self._tell, self._join, tracers)
        self.site.seen_to["do"] = self._do
        self.site.seen_to["lost"] = self._lost
        self.site.machine.on_dispose(lambda _: self.clock.close())
        self.clock.call_later(_REPORTING, self._report)

    def _metrics(self, port: int) -> Tracer:
        """Serve the metrics of this process; give the tracer that collects machines."""
        from examples.pubsub.metrics import Metrics  # needs prometheus-client

        metrics = Metrics(port)
        metrics.start()
        self.site.machine.on_dispose(lambda _: metrics.close())
        return metrics.tracer

    def _tell(self, args: dict[str, object]) -> None:
        self.site.send(0, "told", **args)

    def _join(self, machine: Machine) -> None:
        pipe(machine, "FwdToSim", self.site.machine, "To0", on="add")

    def _do(self, args: dict[str, object]) -> None:
        name = str(args["name"])
        if args["do"] == "make":
            self.crowd.make(name)
        elif args["do"] == "stop":
            self.crowd.stop(name, crash=bool(args["crash"]))
        else:
            self.crowd.add(name, str(args["state"]), args["args"])  # type: ignore[arg-type]

    def _lost(self, args: dict[str, object]) -> None:
        self.site.lose(args["site"])  # type: ignore[arg-type]  # a number

    def _report(self) -> None:
        self.clock.call_later(_REPORTING, self._report)
        self.site.send(
            0,
            "stats",
            site=self.site.number,
            stats=list(self.crowd.stats()),
            handlers=[list(each) for each in self.crowd.handlers()],
        )


def make_site(number: int, sites: int, settings: Settings, began: float) -> Machine:
    """Make a site in this process; give its carrier."""
    made = _Remote(number, sites, settings, began)
    _sites.append(made)
    return made.site.machine


class Spread(Running):
    """The run, as seen from the process that simulates."""

    def __init__(self, settings: Settings, view: View | None, stop: threading.Event) -> None:
        self._began = monotonic()
        self._wall = WallClock(self._began)
        self._living = list(range(1, settings.processes + 1))
        self._next = 0
        self._stats: dict[int, Stats] = {}
        self._gone = Stats()  # of sites that have died
        self._handlers: dict[int, list[SlowHandler]] = {}
        super().__init__(settings, view, stop, self._wall, settings.processes + 1)
        self.site.seen_to["told"] = self._told
        self.site.seen_to["stats"] = self._reported
        self._network = Network(processes=settings.processes, id="pubsub")
        if self._metrics is not None:
            self._metrics.machines.add(self._network)

    def _world(self) -> World:
        return self

    # The world ------------------------------------------------------------------------------

    def make_peer(self, name: str) -> int:
        """Have the next of the living sites make a peer."""
        if not self._living:
            return 0  # nobody is left to make it, and the run is over
        site = self._living[self._next % len(self._living)]
        self._next += 1
        self.site.send(site, "do", do="make", name=name)
        return site

    def stop_peer(self, name: str, site: int, *, crash: bool) -> None:
        if site in self._living:
            self.site.send(site, "do", do="stop", name=name, crash=crash)

    def tell_peer(self, name: str, site: int, state: str, **args: object) -> None:
        if site in self._living:
            self.site.send(site, "do", do="add", name=name, state=state, args=args)

    def _told(self, args: dict[str, object]) -> None:
        self.sim.machine.add("PeerTold", **args)

    def _reported(self, args: dict[str, object]) -> None:
        report = cast("_Report", args)
        number = report["site"]
        if number not in self._living:
            return  # its last words; what it has done is counted already
        *counts, mesh = report["stats"]
        self._stats[number] = Stats(*cast("_Counts", counts), tuple(cast("list[int]", mesh)))
        self._handlers[number] = [SlowHandler(*each) for each in report["handlers"]]

    def stats(self) -> list[Stats]:
        return [Stats(memory=memory_of_this_process()), self._gone, *self._stats.values()]

    def handlers_of_sites(self) -> list[SlowHandler]:
        summed: dict[tuple[str, str], SlowHandler] = {}
        for each in [each for found in self._handlers.values() for each in found]:
            before = summed.get(each[:2], SlowHandler(each.machine, each.handler, 0, 0.0, 0.0))
            summed[each[:2]] = SlowHandler(
                each.machine,
                each.handler,
                before.calls + each.calls,
                before.seconds + each.seconds,
                max(before.longest, each.longest),
            )
        return list(summed.values())

    # Life -----------------------------------------------------------------------------------

    def begin(self) -> None:
        net = self._stack.enter_context(self._network)
        net.machine.bind({"ProcessDied_state": self._died})
        sites = [self.site.machine] + [
            net.spawn(
                make_site,
                number,
                self.settings.processes + 1,
                self.settings,
                self._began,
                process=number - 1,
            )
            for number in self._living
        ]
        if self._metrics is not None:
            for site in sites[1:]:
                self._metrics.machines.add(site)
        for number, source in enumerate(sites):
            for other, target in enumerate(sites):
                if number != other:
                    pipe(source, f"To{other}", target, "Arrived", on="add")
        super().begin()

    def live(self) -> bool:
        kill = self.settings.kill_process
        if kill is not None:
            self.clock.call_later(kill, self._kill_one)
        return not self.stop.wait(self.settings.duration)

    def _kill_one(self) -> None:
        if len(self._living) > 1:
            self._network.processes[self._living[-1] - 1].kill()

    def _died(self, event: Event) -> None:
        args = args_of(event)
        # On the thread of the clock, as all that goes by who is living.
        self.clock.call_soon(partial(self._lose, args["process"] + 1, args["exitcode"]))

    def _lose(self, number: int, exitcode: int) -> None:
        """Have everybody do without a site."""
        if number not in self._living or not self.sim.machine.is_active("Start"):
            return
        self._living.remove(number)
        done = self._stats.pop(number, Stats())
        # What it has done stays done; its streams, memory and meshes are gone.
        self._gone = self._gone.plus(done._replace(streams=0, memory=0, mesh=()))
        self.deaths.append((self.clock.now(), f"process {number}, exit code {exitcode}"))
        self.sim.machine.add("SiteLost", site=number)
        self.registry.machine.eval(partial(self.registry.forget_site, number))
        self.site.lose(number)
        for other in self._living:
            self.site.send(other, "lost", site=number)
        if not self._living:
            log_warning(self.sim.machine.id, "all processes have died: the run is over")
            self.stop.set()

    def end(self) -> None:
        self.sim.machine.remove("Start")
        self._wall.close()
        self._network.close()
        self.site.close()
