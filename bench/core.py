"""The cases of ``python -m bench core``: what one machine costs, and what it may cost.

The limits, and the figures of asyncmachine-go v0.5.0 and v0.19 on the same kind of
machine, are in empty function calls (kB for memory).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from asyncmachine import Event, Machine, Result, Schema, State, group
from bench import amdbg
from bench.cases import Case
from bench.crowd import Crowd
from bench.importing import import_cost_ms
from bench.measure import BenchError, Loop
from bench.resolution import uncached_resolution
from bench.weigh import kilobytes_each

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine import Waiter

__all__ = ["CASES", "toggle", "toggling_machine"]

_EXCLUSIVE: Final = ("Foo", "Bar")
_TOGGLE: Final = 'm.add("Foo")\nm.add("Bar")'
_WAITERS: Final = 1_000
_WEIGHED: Final = 5_000
_THREE_STATES: Final = Schema(
    {
        "Foo": State(remove=group(*_EXCLUSIVE)),
        "Bar": State(remove=group(*_EXCLUSIVE)),
        "Baz": State(),
    }
)


def toggling_machine(states: int = 2, handlers: object = None) -> Machine:
    """Build a machine of so many states, of which Foo and Bar exclude each other."""
    others = {f"Other{number}": State() for number in range(states - 2)}
    exclusive = {name: State(remove=group(*_EXCLUSIVE)) for name in _EXCLUSIVE}
    return Machine({**exclusive, **others}, id="toggling", handlers=handlers)


def toggle(mach: Machine, check: Callable[[], None] | None = None) -> Loop:
    """Make a loop that activates Foo, then Bar, which the machine must do."""
    for name in ("Foo", "Bar", "Foo", "Bar"):
        if mach.add(name) != Result.EXECUTED or not mach.is_active(name):
            msg = f"{name} did not activate: {mach}"
            raise BenchError(msg)
    return Loop(_TOGGLE, names={"m": mach}, steps=2, check=check)


class _StateHandlers:
    """A final handler on both states."""

    def Foo_state(self, event: Event) -> None: ...
    def Bar_state(self, event: Event) -> None: ...


class _AllHandlers(_StateHandlers):
    """Enter, state, exit and end on both states."""

    def Foo_enter(self, event: Event) -> None: ...
    def Foo_exit(self, event: Event) -> None: ...
    def Foo_end(self, event: Event) -> None: ...
    def Bar_enter(self, event: Event) -> None: ...
    def Bar_exit(self, event: Event) -> None: ...
    def Bar_end(self, event: Event) -> None: ...


def _plain_toggle() -> Loop:
    return toggle(toggling_machine())


def _toggle_with_state_handlers() -> Loop:
    return toggle(toggling_machine(handlers=_StateHandlers()))


def _toggle_with_all_handlers() -> Loop:
    return toggle(toggling_machine(handlers=_AllHandlers()))


def _multi_state() -> Loop:
    mach = Machine({"Foo": State(multi=True)}, id="multi")
    mach.add("Foo")
    before = mach.tick("Foo")
    mach.add("Foo")
    if mach.tick("Foo") != before + 2:
        msg = "a multi state called again must tick twice"
        raise BenchError(msg)
    return Loop('m.add("Foo")', names={"m": mach})


def _amdbg_cycle() -> Loop:
    statement = "\n".join(
        f"m.{kind}({', '.join(map(repr, states))})" for kind, states in amdbg.load().cycle
    )
    return Loop(statement, names={"m": amdbg.machine()})


def _waiter() -> Loop:
    mach = toggling_machine()
    mach.add("Bar")
    waiter = mach.when("Foo")
    pending = waiter.is_set()
    mach.add("Foo")
    if pending or not waiter.is_set():
        msg = "a waiter must be set by the mutation that it waits for, and not before"
        raise BenchError(msg)
    mach.add("Bar")
    register_fire_see = 'w = m.when("{0}")\nm.add("{0}")\nw.is_set()'
    return Loop(
        f"{register_fire_see.format('Foo')}\n{register_fire_see.format('Bar')}",
        names={"m": mach},
        steps=2,
    )


def _toggle_among_waiters(wait: Callable[[Machine, int], Waiter]) -> Loop:
    mach = toggling_machine(48)
    # Somebody has to hold a waiter, or it leaves; the loop's check holds these.
    waiters = [wait(mach, number) for number in range(_WAITERS)]

    def all_still_wait() -> None:
        if any(waiter.is_set() for waiter in waiters):
            msg = "a waiter was set by a mutation that it does not wait for"
            raise BenchError(msg)

    return toggle(mach, all_still_wait)


def _on_one_other(mach: Machine, number: int) -> Waiter:
    return mach.when(f"Other{number % 46}")


def _on_two_others(mach: Machine, number: int) -> Waiter:
    return mach.when(f"Other{number % 46}", f"Other{(number + 1 + number // 46) % 46}")


def _on_toggled_and_other(mach: Machine, number: int) -> Waiter:
    return mach.when(_EXCLUSIVE[number % 2], f"Other{number % 46}")


def _on_both_toggled(mach: Machine, number: int) -> Waiter:
    return mach.when(*(_EXCLUSIVE if number % 2 else _EXCLUSIVE[::-1]))


def _build() -> Loop:
    return Loop("Machine(schema)", names={"Machine": Machine, "schema": _THREE_STATES})


def _new_machine() -> Machine:
    return Machine(_THREE_STATES)


def _used_machine() -> Machine:
    mach = Machine(_THREE_STATES)
    mach.add("Foo")
    mach.add("Bar")
    return mach


def _crowd(threads: int) -> Crowd:
    names = [f"Own{number}" for number in range(threads)]
    mach = Machine(dict.fromkeys(names, State()), id="crowded")

    def all_are_back() -> None:
        if mach.any_active(*names) or mach.error is not None:
            msg = f"every thread removes its state in the end: {mach}"
            raise BenchError(msg)

    statement = "m.add(own).wait()\nm.remove(own).wait()"
    loops = [Loop(statement, names={"m": mach, "own": name}, steps=2) for name in names]
    return Crowd(loops, check=all_are_back)


def _is_active() -> Loop:
    mach = toggling_machine()
    mach.add("Foo")
    return Loop('m.is_active("Foo")', names={"m": mach})


CASES: Final = (
    Case(
        "toggle",
        "toggle two mutually exclusive states, no handlers",
        {"": _plain_toggle},
        limit=20,
        go_v0_5_0=157,
        go_v0_19=115,
    ),
    Case(
        "toggle-state",
        "the same toggle with a _state handler on both",
        {"": _toggle_with_state_handlers},
        limit=28,
        go_v0_5_0=405,
        go_v0_19=258,
    ),
    Case(
        "toggle-all",
        "the same toggle with enter, state, exit, end on both",
        {"": _toggle_with_all_handlers},
        limit=45,
        go_v0_5_0=606,
        go_v0_19=448,
    ),
    Case(
        "multi",
        "one multi state called again",
        {"": _multi_state},
        limit=20,
        go_v0_5_0=112,
        go_v0_19=91,
    ),
    Case(
        "am-dbg",
        "six mutations over the 34 states of am-dbg",
        {"": _amdbg_cycle},
        limit=150,
        go_v0_5_0=4_570,
        go_v0_19=2_656,
    ),
    Case(
        "waiter",
        "register a waiter, fire it, see it set",
        {"": _waiter},
        limit=70,
        go_v0_5_0=197,
        go_v0_19=146,
    ),
    Case(
        "waiters-on-others",
        "toggle among 48 states, 1,000 waiters pending on others",
        {
            "on one other state": partial(_toggle_among_waiters, _on_one_other),
            "on two other states": partial(_toggle_among_waiters, _on_two_others),
        },
        limit=24,
        go_v0_5_0=503,
        go_v0_19=251,
    ),
    Case(
        "waiters-on-toggled",
        "the same, 1,000 waiters that involve the toggled states",
        {
            "a toggled and a never active state": partial(
                _toggle_among_waiters, _on_toggled_and_other
            ),
            "both of the exclusive states": partial(_toggle_among_waiters, _on_both_toggled),
        },
        limit=150,
        go_v0_5_0=1_121,
        go_v0_19=1_206,
    ),
    Case(
        "build",
        "build a machine of 3 states, schema already compiled",
        {"": _build},
        limit=60,
        go_v0_5_0=84,
        go_v0_19=134,
    ),
    Case(
        "memory",
        "memory of a machine of 3 states",
        unit="kB",
        gauges={
            "new": partial(kilobytes_each, _new_machine, _WEIGHED),
            "after two mutations": partial(kilobytes_each, _used_machine, _WEIGHED),
        },
        limit=1.0,
        go_v0_5_0=3.1,
        go_v0_19=4.7,
    ),
    Case(
        "threads-4",
        "4 threads on one machine, each its own state, with results",
        {"": partial(_crowd, 4)},
        limit=45,
        go_v0_5_0=187,
        go_v0_19=158,
        effort=100,
        whole=True,
    ),
    Case(
        "threads-16",
        "16 threads, the same",
        {"": partial(_crowd, 16)},
        limit=80,
        go_v0_5_0=431,
        go_v0_19=359,
        effort=100,
        whole=True,
    ),
    Case("is-active", 'is_active("Foo")', {"": _is_active}, limit=6),
    Case(
        "resolution",
        "an uncached resolution of the am-dbg schema",
        {"": uncached_resolution},
        limit=400,
    ),
    Case(
        "import",
        "import asyncmachine, CPU beyond the interpreter's start",
        unit="ms",
        gauges={"": import_cost_ms},
        limit=25,
    ),
)
