"""What is imported in the processes that host the machines of ``python -m bench net``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncmachine import Event, Machine, Schema, State
from asyncmachine.net import serve
from bench.processes import until_the_end

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from asyncmachine import StateContext

__all__ = ["plain", "serve_one", "toggler"]

_PLAIN: Final = Schema({"Foo": State(), "Bar": State(), "Baz": State()})
_TOGGLER: Final = Schema({"Foo": State(), "Go": State(multi=True)})


def plain(name: str = "plain") -> Machine:
    """Build a machine of three states and no handlers."""
    return Machine(_PLAIN, id=name)


def toggler(name: str) -> Machine:
    """Build a machine that toggles Foo ``times`` times by itself when Go is added."""
    return Machine(_TOGGLER, id=name, handlers=_Toggler())


class _Toggler:
    def Go_state(self, event: Event) -> None:
        # On a thread of its own, as in a handler mutations would only be queued.
        event.fork(_toggle, event.machine, event.args["times"])


def _toggle(ctx: StateContext, mach: Machine, times: int) -> None:
    for _ in range(times):
        # Waits only in the beginning, while the transition of Go is still under way.
        mach.add("Foo").wait()
        mach.remove("Foo").wait()


def serve_one(line: Connection[object, object], address: str) -> None:
    """Serve a plain machine in a process of its own until its line ends."""
    with plain() as mach, serve(mach, address):
        line.send("listening")
        until_the_end(line)
