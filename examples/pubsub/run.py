"""Runs a simulation: in one process, on the wall's or a virtual clock, or over several."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from functools import reduce
from pathlib import Path
from random import Random
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from asyncmachine import pipe
from asyncmachine.threads import one_thread
from examples.pubsub.clock import VirtualClock, WallClock
from examples.pubsub.crowd import Crowd, Stats
from examples.pubsub.meter import Meter, TransitionLog
from examples.pubsub.outcome import Outcome, Sample
from examples.pubsub.registry import Registry
from examples.pubsub.sim import Simulator
from examples.pubsub.site import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncmachine import Machine, Tracer
    from examples.pubsub.clock import Clock
    from examples.pubsub.metrics import Metrics
    from examples.pubsub.outcome import SlowHandler
    from examples.pubsub.settings import Settings
    from examples.pubsub.sim import World

__all__ = ["View", "run"]

# What a frame takes between hosts under virtual time, in seconds: the middle, and the spread.
_LATENCY: Final = 0.01
_LATENCY_SIGMA: Final = 0.5


class View(Protocol):
    """Somebody who watches a run."""

    def update(
        self,
        sample: Sample,
        handlers: Sequence[SlowHandler],
        latencies: Sequence[float],
        progress: float | None,
    ) -> None:
        """See how things stand, about once a second."""


def run(
    settings: Settings, view: View | None = None, stop: threading.Event | None = None
) -> Outcome:
    """Run a simulation.

    Args:
        settings: how.
        view: who watches.
        stop: ends the run early when it is set; Ctrl-C does, too.

    Returns:
        What came of it, also of a run that was ended early.

    """
    stop = stop or threading.Event()
    if settings.virtual:
        return _Virtual(settings, view, stop).run()
    if settings.processes:
        from examples.pubsub.spread import Spread  # needs asyncmachine.net

        return Spread(settings, view, stop).run()
    return _Walled(settings, view, stop).run()


class Running:
    """Base of all runs: a site with the registry and the simulator, and what is sampled.

    Attributes:
        settings: how the run was asked for.
        clock: the clock.
        site: the first site.
        registry: the registry.
        sim: the simulator.
        deaths: processes that have died.

    """

    def __init__(
        self, settings: Settings, view: View | None, stop: threading.Event, clock: Clock, sites: int
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.deaths: list[tuple[float, str]] = []
        self.stop = stop
        self._view = view
        self._stack = ExitStack()
        self._log = self._opened_log()
        self._metrics = self._served_metrics()
        self._tracers: tuple[Tracer, ...] = () if self._log is None else (self._log,)
        if self._metrics is not None:
            self._tracers = (*self._tracers, self._metrics.tracer)
        self._meters = {kind: Meter(kind) for kind in ("sim", "topic", "registry")}
        self._samples: list[Sample] = []
        latency = None
        if settings.virtual:
            rng = Random(f"{settings.seed}/latency")
            latency = lambda: rng.lognormvariate(0, _LATENCY_SIGMA) * _LATENCY  # noqa: E731
        self.site = Site(
            0,
            sites,
            clock,
            router=settings.router,
            seed=settings.seed,
            signed=settings.signed,
            workers=0 if settings.virtual or settings.processes else os.cpu_count() or 1,
            latency=latency,
        )
        self.registry = Registry(self.site, Random(f"{settings.seed}/registry"))
        self.sim = Simulator(settings, clock, self._world(), self._take_sample)
        self.sim.topic_made = lambda machine: self._observe(machine, "topic")
        self._observe(self.sim.machine, "sim")
        self._observe(self.registry.machine, "registry")

    def _world(self) -> World:
        raise NotImplementedError

    def _opened_log(self) -> TransitionLog | None:
        if not self.settings.log:
            return None
        file = self._stack.enter_context(Path(self.settings.log).open("w", encoding="utf-8"))  # noqa: SIM115 - the stack closes it
        return TransitionLog(file, self.clock)

    def _served_metrics(self) -> Metrics | None:
        if not self.settings.metrics:
            return None
        from examples.pubsub.metrics import Metrics  # needs prometheus-client

        metrics = Metrics(self.settings.metrics)
        self._stack.callback(metrics.close)
        return metrics

    def _observe(self, machine: Machine, kind: str) -> None:
        machine.add_tracer(self._meters[kind])
        for tracer in self._tracers:
            machine.add_tracer(tracer)

    # Samples --------------------------------------------------------------------------------

    def stats(self) -> list[Stats]:
        """Give how each site is doing."""
        raise NotImplementedError

    def handlers(self) -> list[SlowHandler]:
        """Give what is known of the handlers, the slowest first."""
        found = [each for meter in self._meters.values() for each in meter.handlers()]
        return sorted(found + self.handlers_of_sites(), key=lambda each: -each.seconds)

    def handlers_of_sites(self) -> list[SlowHandler]:
        """Give what is known of the handlers of sites."""
        raise NotImplementedError

    def _take_sample(self) -> None:
        sim, check, now = self.sim, self.sim.check, self.clock.now()
        total = reduce(Stats.plus, self.stats(), Stats())
        sample = Sample(
            now,
            len(sim.peers),
            len(sim.topics),
            sum(topic.machine.is_active("Active") for topic in sim.topics.values()),
            sum(len(topic.members) for topic in sim.topics.values()),
            total.streams,
            sum(len(known.friends) for known in sim.peers.values()) // 2,
            len(check.verdicts) + check.under_way,
            check.promised,
            check.received,
            check.missed,
            total.duplicates,
            total.frames,
            total.control_bytes,
            total.payload_bytes,
            total.transitions + sum(meter.transitions for meter in self._meters.values()),
            total.memory,
            total.mesh,
        )
        self._samples.append(sample)
        if self._metrics is not None:
            self._metrics.sample = sample
        if self._view is not None:
            progress = min(now / self.settings.duration, 1.0)
            self._view.update(sample, self.handlers()[:8], check.latencies, progress)

    # The run --------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run, and give what came of it."""
        began = perf_counter()
        finished = False
        with self._stack:
            try:
                self.begin()
                finished = self.live()
                # The clock still runs, and its thread may be in the simulator.
                self.sim.machine.eval(self._take_sample)
            except KeyboardInterrupt:
                pass
            finally:
                self.end()
        return self._outcome(finished=finished, wall_seconds=perf_counter() - began)

    def begin(self) -> None:
        """Have everything started, by the clock."""
        if self._metrics is not None:
            self._metrics.start()
        self.clock.call_later(0, lambda: self.sim.machine.add("Start"))

    def live(self) -> bool:
        """Let it run; whether it ran to its end."""
        raise NotImplementedError

    def end(self) -> None:
        """Stop it, and judge what can be judged."""
        raise NotImplementedError

    def _outcome(self, *, finished: bool, wall_seconds: float) -> Outcome:
        check = self.sim.check
        check.end(self.clock.now())
        return Outcome(
            self.settings.as_text(),
            finished,
            self.clock.now(),
            wall_seconds,
            self.settings.virtual,
            self.settings.deadline,
            self._samples,
            check.verdicts,
            check.latencies,
            check.hops,
            self.handlers(),
            self.deaths,
        )


class _Here(Running):
    """A run with all peers in this process."""

    def _world(self) -> World:
        self.crowd = Crowd(self.site, self.settings, self._told, self._join, self._tracers)
        return self

    def _told(self, args: dict[str, object]) -> None:
        self.sim.machine.add("PeerTold", **args)

    def _join(self, machine: Machine) -> None:
        pipe(machine, "FwdToSim", self.sim.machine, "PeerTold", on="add")

    def make_peer(self, name: str) -> int:
        self.crowd.make(name)
        return 0

    def stop_peer(self, name: str, site: int, *, crash: bool) -> None:
        self.crowd.stop(name, crash=crash)

    def tell_peer(self, name: str, site: int, state: str, **args: object) -> None:
        self.crowd.add(name, state, args)

    def stats(self) -> list[Stats]:
        return [self.crowd.stats()]

    def handlers_of_sites(self) -> list[SlowHandler]:
        return self.crowd.handlers()

    def end(self) -> None:
        self.sim.machine.remove("Start")
        self.crowd.tell_received()
        self.site.close()


class _Virtual(_Here):
    """On virtual time: one thread, and the same seed gives the same run."""

    def __init__(self, settings: Settings, view: View | None, stop: threading.Event) -> None:
        self.clock: VirtualClock = VirtualClock()
        super().__init__(settings, view, stop, self.clock, 1)

    def live(self) -> bool:
        began, speed = monotonic(), self.settings.speed

        def keep_on(time: float) -> bool:
            if speed > 0:  # not faster than that
                self.stop.wait(max(0.0, time / speed - (monotonic() - began)))
            return not self.stop.is_set()

        self.clock.run(self.settings.duration, keep_on=keep_on)
        return not self.stop.is_set()

    def end(self) -> None:
        with one_thread():
            super().end()


class _Walled(_Here):
    """On the wall's clock, in this process."""

    def __init__(self, settings: Settings, view: View | None, stop: threading.Event) -> None:
        self._wall = WallClock()
        super().__init__(settings, view, stop, self._wall, 1)

    def live(self) -> bool:
        return not self.stop.wait(self.settings.duration)

    def end(self) -> None:
        self._wall.close()
        super().end()
