"""The cases of ``python -m bench peers``: one toggle, in several state machine libraries.

Each library does the least that it can: two states, no callback, no condition, in the way
of writing that its own documentation shows first. Which of them may be called from
several threads at once is another matter; of the peers only ``LockedMachine`` is made for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, Protocol

from bench.cases import Case
from bench.measure import BenchError, Loop

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["INSTALL", "OURS", "PEERS", "Peer", "available", "missing"]

INSTALL: Final = "python -m pip install --editable '.[bench]'"
OURS: Final = "asyncmachine"

_GO_BAR_THEN_FOO: Final = "m.go_bar()\nm.go_foo()"


@dataclass(frozen=True, slots=True)
class Peer:
    """A library, and how to toggle in it.

    Attributes:
        label: what the table says.
        distribution: its name on PyPI.
        module: what must be importable.
        make: gives the loop; called only when the module is there.

    """

    label: str
    distribution: str
    module: str
    make: Callable[[], Loop]

    @property
    def version(self) -> str:
        """The installed version, or nothing for a checkout that is not installed."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return ""

    @property
    def case(self) -> Case:
        """The case that measures it."""
        return Case(self.label, self.label, {"": self.make})


def available() -> list[Peer]:
    """Give the libraries that can be imported here."""
    return [peer for peer in PEERS if _is_importable(peer.module)]


def missing() -> list[Peer]:
    """Give those that cannot."""
    return [peer for peer in PEERS if not _is_importable(peer.module)]


def _is_importable(module: str) -> bool:
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        # A library that is there but broken is not missing, and says what is wrong.
        if error.name is not None and module.partition(".")[0] == error.name.partition(".")[0]:
            return False
        raise
    return True


def _checked(loop: Loop, current: Callable[[], object]) -> Loop:
    """Prove that one turn of a loop ends where it began, and half a turn elsewhere."""
    loop.run(1)
    if current() != "Foo":
        msg = f"the toggle does not come back to Foo but to {current()!r}"
        raise BenchError(msg)
    return loop


def _asyncmachine() -> Loop:
    from asyncmachine import Machine, State, group

    both = group("Foo", "Bar")
    mach = Machine({"Foo": State(remove=both), "Bar": State(remove=both)})
    mach.add("Foo")
    loop = Loop('m.add("Bar")\nm.add("Foo")', names={"m": mach}, steps=2)
    return _checked(loop, lambda: mach.switch("Foo", "Bar"))


class _TransitionsMachine(Protocol):
    """What both machines of transitions have in common."""

    state: str


def _transitions() -> Loop:
    from transitions import Machine

    return _of_transitions(Machine)


def _transitions_locked() -> Loop:
    from transitions.extensions import LockedMachine

    return _of_transitions(LockedMachine)


def _of_transitions(build: Callable[..., _TransitionsMachine]) -> Loop:
    mach = build(
        states=["Foo", "Bar"],
        initial="Foo",
        transitions=[["go_bar", "Foo", "Bar"], ["go_foo", "Bar", "Foo"]],
        auto_transitions=False,
    )
    loop = Loop(_GO_BAR_THEN_FOO, names={"m": mach}, steps=2)
    return _checked(loop, lambda: mach.state)


def _python_statemachine() -> Loop:
    from statemachine import State, StateMachine

    class Toggle(StateMachine):  # type: ignore[misc]  # its types are not looked at
        foo = State("Foo", initial=True)
        bar = State("Bar")
        go_bar = foo.to(bar)
        go_foo = bar.to(foo)

    mach = Toggle()
    loop = Loop(_GO_BAR_THEN_FOO, names={"m": mach}, steps=2)
    return _checked(loop, lambda: "Foo" if mach.foo.is_active else "Bar")


def _automat() -> Loop:
    from automat import TypeMachineBuilder

    class Inputs(Protocol):
        def go_bar(self) -> None: ...
        def go_foo(self) -> None: ...
        def current(self) -> str: ...

    class Core: ...

    builder = TypeMachineBuilder(Inputs, Core)
    foo, bar = builder.state("Foo"), builder.state("Bar")
    foo.upon(Inputs.go_bar).to(bar).returns(None)
    bar.upon(Inputs.go_foo).to(foo).returns(None)
    foo.upon(Inputs.current).loop().returns("Foo")
    bar.upon(Inputs.current).loop().returns("Bar")
    mach = builder.build()(Core())
    return _checked(Loop(_GO_BAR_THEN_FOO, names={"m": mach}, steps=2), mach.current)


def _automaton() -> Loop:
    from automaton.machines import FiniteMachine

    mach = FiniteMachine()
    mach.add_state("Foo")
    mach.add_state("Bar")
    mach.add_transition("Foo", "Bar", "go_bar")
    mach.add_transition("Bar", "Foo", "go_foo")
    mach.initialize("Foo")
    statement = 'm.process_event("go_bar")\nm.process_event("go_foo")'
    return _checked(Loop(statement, names={"m": mach}, steps=2), lambda: mach.current_state)


PEERS: Final = (
    Peer(OURS, OURS, "asyncmachine", _asyncmachine),
    Peer("transitions Machine", "transitions", "transitions", _transitions),
    Peer("transitions LockedMachine", "transitions", "transitions", _transitions_locked),
    Peer("python-statemachine", "python-statemachine", "statemachine", _python_statemachine),
    Peer("automat", "automat", "automat", _automat),
    Peer("automaton", "automaton", "automaton.machines", _automaton),
)
