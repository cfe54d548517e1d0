from __future__ import annotations

import io
import re
from hashlib import sha256

from asyncmachine import Event, Machine, State
from examples.pubsub.clock import VirtualClock
from examples.pubsub.meter import Meter, TransitionLog


class Handlers:
    def Foo_enter(self, event: Event) -> bool:
        return "refuse" not in event.args

    def Foo_state(self, event: Event) -> None:
        event.machine.remove("Foo")


def a_machine(name: str = "mach") -> Machine:
    return Machine({"Foo": State(), "Bar": State()}, id=name, handlers=Handlers())


def test_transitions_are_counted_whatever_comes_of_them() -> None:
    meter = Meter("host")
    one, other = a_machine(), a_machine()
    one.add_tracer(meter)
    other.add_tracer(meter)

    one.add("Foo")  # and removes it
    one.add("Foo", refuse=True)
    other.add("Bar")

    assert meter.transitions == 4


def test_calls_of_handlers_are_counted_and_timed() -> None:
    meter = Meter("host")
    mach = a_machine()
    mach.add_tracer(meter)

    for _ in range(3):
        mach.add("Foo")
    mach.add("Foo", refuse=True)

    by_name = {each.handler: each for each in meter.handlers()}
    assert {name: each.calls for name, each in by_name.items()} == {"Foo_enter": 4, "Foo_state": 3}
    assert all(each.machine == "host" for each in by_name.values())
    assert all(0 < each.longest <= each.seconds <= 4 * each.longest for each in by_name.values())


def test_what_has_not_run_is_not_known() -> None:
    meter = Meter("host")

    assert (meter.transitions, meter.handlers()) == (0, [])


def test_a_log_has_a_line_for_each_transition() -> None:
    clock, file = VirtualClock(), io.StringIO()
    mach = a_machine()
    mach.add_tracer(TransitionLog(file, clock))

    clock.call_later(0.25, lambda: mach.add("Foo", "Bar"))
    clock.call_later(1.5, lambda: mach.add("Foo", refuse=True))
    clock.run(2)
    mach.dispose()

    lines = file.getvalue().splitlines()
    assert re.fullmatch(r"0\.250000 mach add Foo Bar [\d,]+", lines[0])
    assert re.fullmatch(r"0\.250000 mach remove Foo [\d,]+", lines[1])
    assert re.fullmatch(r"1\.500000 mach add Foo refused [\d,]+", lines[2])
    assert lines[-1] == "2.000000 mach disposed"


def test_lines_end_with_the_clocks_of_all_states() -> None:
    clock, file = VirtualClock(), io.StringIO()
    mach = a_machine()
    mach.add_tracer(TransitionLog(file, clock))

    mach.add("Bar")

    assert file.getvalue().split()[-1] == ",".join(map(str, mach.time()))


def test_several_machines_share_a_log() -> None:
    file = io.StringIO()
    log = TransitionLog(file, VirtualClock())
    for name in ("one", "other"):
        mach = a_machine(name)
        mach.add_tracer(log)
        mach.add("Bar")

    assert [line.split()[1] for line in file.getvalue().splitlines()] == ["one", "other"]


def test_the_sum_of_a_log_is_that_of_its_lines() -> None:
    file = io.StringIO()
    log = TransitionLog(file, VirtualClock())
    mach = a_machine()
    mach.add_tracer(log)
    mach.add("Foo")

    assert log.digest == sha256(file.getvalue().encode()).hexdigest()
