"""What only a history in memory has to do."""

from __future__ import annotations

import threading

import pytest

from asyncmachine.history import HistoryError, MemoryHistory, restore
from tests.history.backends import machine
from tests.races import switching_often


def test_it_is_asked_while_machines_run() -> None:
    history = MemoryHistory(max_count=500)
    machines = [machine(history, id=f"m{n}") for n in range(2)]
    done = threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        while not done.is_set():
            for mach in machines:
                ticks = [each.clock["Many"] for each in history.transitions(machine=mach)]
                if ticks and ticks != list(range(ticks[0], ticks[0] + 2 * len(ticks), 2)):
                    wrong.append(ticks)
                newest = history.latest(machine=mach, activated="Many")
                if ticks and (newest is None or newest.clock["Many"] < ticks[-1]):
                    wrong.append(newest)
                history.active_between("Foo", 0, machine=mach)
                clocks = history.last_clocks(mach)
                if clocks is not None and sum(clocks.ticks) % 2 != 1:
                    wrong.append(clocks)

    with switching_often():
        threads = [threading.Thread(target=ask) for _ in range(2)]
        movers = [
            threading.Thread(target=lambda m=mach: [m.add("Many") for _ in range(5000)])
            for mach in machines
        ]
        for thread in (*threads, *movers):
            thread.start()
        for thread in movers:
            thread.join()
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(list(history.transitions(machine="m0"))) == 500


def test_a_machine_is_restored_within_the_process() -> None:
    history = MemoryHistory(states="Foo")
    with machine(history) as mach:
        assert restore(machine(id="n"), history) is None
        assert restore(mach, history) is None
        mach.add("Bar")
    again = machine(history)
    assert restore(again, history) == mach.clock()
    assert again.is_active("Bar")


def test_a_machine_can_be_forgotten() -> None:
    history = MemoryHistory()
    mach = machine(history)
    mach.add("Foo")
    history.forget(mach)
    assert history.machines == ()
    mach.add("Bar")
    with pytest.raises(HistoryError, match="knows no machine"):
        history.forget("m")
