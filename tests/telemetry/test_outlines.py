"""What spans carry that follows from a plan alone, and which states are chosen."""

from __future__ import annotations

from asyncmachine import Machine, State, Tracer, Transition
from asyncmachine.plans import Plan
from asyncmachine.telemetry.outlines import Outlines, chooser, diff


class Planning(Tracer):
    """Collects plans."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []

    def transition_end(self, tx: Transition) -> None:
        self.plans.append(tx.plan)


def test_outlines_stay_bounded_though_plans_are_ever_new() -> None:
    names = [f"S{i}" for i in range(13)]
    planning = Planning()
    machine = Machine({name: State() for name in names}, tracers=[planning])
    for number in range(1, 4500):
        machine.set(*(name for i, name in enumerate(names) if number >> i & 1))
    assert len(set(planning.plans)) > 4096
    outlines = Outlines(chooser((), ()))
    for plan in planning.plans:
        outline = outlines.draw(plan)
        assert outlines.known[plan] is outline
        assert len(outlines.known) <= 4096


def test_a_state_is_chosen_if_it_is_allowed_and_not_skipped() -> None:
    everything = chooser((), ())
    assert everything("Foo")
    assert not chooser("Foo", ())("Bar")
    assert not chooser((), ["Foo"])("Foo")


def test_the_difference_names_what_has_moved() -> None:
    assert diff(("Foo", "Bar"), ()) == ""
    assert diff(("Foo", "Bar"), [(0, 2), (1, 1)]) == "Foo+2 Bar+1"
