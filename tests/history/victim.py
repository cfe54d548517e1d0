"""A process that is killed: machines under load, recorded in one file.

What a machine does next depends on its clocks alone, so that the test knows every state that
could ever hold. A line on standard output is written once something is promised: with
``durable`` that a mutation was executed, else that it was flushed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from random import Random

from asyncmachine import Event, Machine, State, Tracer
from asyncmachine.history import SQLiteHistory, restore

SCHEMA = {
    "Foo": State(),
    "Bar": State(remove="Foo"),
    "Many": State(multi=True),
    "Auto": State(auto=True, require="Foo"),
}
IDS = ("one", "two", "three")


class Handlers:
    def Many_state(self, event: Event) -> None:
        if event.machine.tick("Many") % 3 == 0:
            raise ValueError("now and then")


def build(machine_id: str, *tracers: Tracer) -> Machine:
    return Machine(SCHEMA, id=machine_id, handlers=Handlers(), tracers=tracers)


def step(machine: Machine) -> None:
    """Do what comes next, given the clocks; they always move."""
    rnd = Random(f"{machine.id} {machine.time_sum()}")
    name = rnd.choice(["Foo", "Bar", "Many"])
    if name == "Foo" and machine.is_active("Bar"):
        name = "Bar"  # which does not let Foo come
    if name == "Many" or machine.is_inactive(name):
        machine.add(name)
    else:
        machine.remove(name)


def work(machine: Machine, history: SQLiteHistory) -> None:
    rnd = Random(os.urandom(8))
    while True:
        step(machine)
        if history.durable:
            promise(machine)
        elif rnd.random() < 0.01:
            reached = machine.time()
            history.flush()
            promise(machine, reached)


def promise(machine: Machine, reached: tuple[int, ...] = ()) -> None:
    line = json.dumps([machine.id, reached or machine.time()]) + "\n"
    os.write(1, line.encode())  # at once, and a line whole


def main(path: str, durable: str) -> None:
    history = SQLiteHistory(path, durable=durable == "durable", delay=0.005)
    machines = [build(machine_id, history) for machine_id in IDS]
    for machine in machines:
        restore(machine, history)
        promise(machine)
    threads = [threading.Thread(target=work, args=(machine, history)) for machine in machines]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
