"""Prometheus under ``python -m bench observers``: what a collector costs, and a scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest

from asyncmachine import Machine, State
from asyncmachine.telemetry.exposition import generate
from asyncmachine.telemetry.prometheus import MachineCollector
from bench.contest import OURS
from bench.measure import BenchError, Loop

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

    from bench.measure import Subject

__all__ = ["collect", "scrape"]

_MACHINES: Final = 1_000
_STATES: Final = {f"State{number}": State(multi=number % 3 == 0) for number in range(30)}


def collect(stack: ExitStack, machine: Machine, *, histograms: bool) -> None:
    """Have a machine collected."""
    registry = CollectorRegistry()
    collector = MachineCollector(machine, registry=registry, histograms=histograms)
    stack.callback(collector.close)


def scrape(stack: ExitStack) -> Mapping[str, Subject]:
    """Scrape many machines that have done something."""
    machines = [Machine(_STATES, id=f"machine-{number}") for number in range(_MACHINES)]
    registry = CollectorRegistry()
    collector = MachineCollector(*machines, registry=registry)
    stack.callback(collector.close)
    for number, machine in enumerate(machines):
        machine.add(f"State{number % 30}", "State3")
    text = generate_latest(registry)
    series = text.count(b"\nasyncmachine_state_ticks_total{")
    if series != _MACHINES * 31:  # and Exception
        msg = f"{series:,} series of ticks instead of {_MACHINES * 31:,}"
        raise BenchError(msg)
    return {
        OURS: Loop("f(r)", names={"f": generate_latest, "r": registry}),
        "by exposition.generate": Loop("f(r)", names={"f": generate, "r": registry}),
    }
