"""Mutations come in to a machine in order, and wait while its queue has no room."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from asyncmachine import Event, Machine, Result, State
from asyncmachine.net import ProtocolError, inlet
from asyncmachine.net.inlet import Inlet
from asyncmachine.net.wire import Refusal
from tests.races import PATIENCE, busy, outcome, start


class Ends:
    """An inlet, and what it tells."""

    def __init__(
        self, machine: Machine, schedule: Callable[[object], object] | None = None
    ) -> None:
        self.answers: list[tuple[int, Result]] = []
        self.scheduled: list[object] = []
        self.reports: list[tuple[int, list[Refusal]]] = []
        self.inlet = Inlet(
            machine,
            lambda call, result: self.answers.append((call, result)),
            schedule or self.scheduled.append,
        )

    def send(self, *states: str, call: int = 0, **args: object) -> None:
        self.inlet.take(call, "add", states, args)

    def report(self) -> tuple[int, list[Refusal]]:
        self.inlet.report(lambda count, refused: self.reports.append((count, refused)))
        return self.reports[-1]


@pytest.fixture
def machine() -> Machine:
    return Machine({"Foo": State(), "Bar": State(require="Foo"), "Hit": State(multi=True)},
                   queue_limit=3)  # fmt: skip


def test_what_an_idle_machine_is_asked_is_done_at_once(machine: Machine) -> None:
    ends = Ends(machine)
    ends.send("Foo", call=1)
    ends.send("Bar", call=2)
    ends.send("Hit")
    assert ends.answers == [(1, Result.EXECUTED), (2, Result.EXECUTED)]
    assert len(ends.scheduled) == 1
    assert ends.report() == (1, [])


def test_refusals_have_the_numbers_of_those_that_were_refused(machine: Machine) -> None:
    ends = Ends(machine)
    ends.send("Bar")
    ends.send("Foo")
    ends.inlet.refuse("not allowed", "NotAllowedError")
    ends.send("Bar")
    count, refused = ends.report()
    assert count == 4
    assert [(each.number, each.error) for each in refused] == [(0, ""), (2, "NotAllowedError")]
    assert ends.report() == (4, [])


def test_what_is_done_out_of_order_is_told_in_order(machine: Machine) -> None:
    ends = Ends(machine)
    with busy(machine):
        ends.send("Foo")  # queued
        ends.inlet.refuse("not allowed", "NotAllowedError")
        assert ends.report() == (0, [])
    count, refused = ends.report()
    assert count == 2
    assert [each.number for each in refused] == [1]


def test_the_queue_is_never_overfilled_and_nothing_is_dropped(machine: Machine) -> None:
    seen: list[object] = []
    longest: list[int] = []

    def hit(event: Event) -> None:
        longest.append(machine.queue_length)
        seen.append(event.args["n"])

    machine.bind({"Hit_state": hit})
    ends = Ends(machine)
    with busy(machine):
        for n in range(500):
            ends.send("Hit", n=n)
        ends.send("Hit", call=9, n=500)
        done: list[int] = []
        ends.inlet.after(lambda: done.append(machine.queue_length))
        assert not done
        assert machine.queue_length == 3
    assert machine.when_queue_empty().wait(PATIENCE)
    machine.eval(lambda: None)
    assert seen == list(range(501))
    assert max(longest) <= 3
    assert done
    assert ends.answers == [(9, Result.EXECUTED)]
    assert ends.report() == (500, [])
    ends.inlet.after(lambda: done.append(-1))
    assert done[-1] == -1


def test_others_may_fill_the_queue_meanwhile(machine: Machine) -> None:
    for _ in range(30):
        seen: list[object] = []
        binding = machine.bind(
            {"Hit_state": lambda event, seen=seen: seen.append(event.args.get("n"))}
        )
        ends = Ends(machine)
        with busy(machine):
            for _ in range(3):
                machine.add("Hit")
            for n in range(50):
                ends.send("Hit", n=n)
            assert machine.queue_length == 3

        def meddle() -> None:
            for _ in range(50):
                machine.add("Hit")

        meddling = start(meddle)
        for n in range(50, 100):
            ends.send("Hit", n=n)
        outcome(meddling)
        last: list[None] = []
        ends.inlet.after(partial(last.append, None))
        while not last:
            machine.when_queue_empty().wait(PATIENCE)
        machine.when_queue_empty().wait(PATIENCE)
        machine.eval(lambda: None)
        assert [n for n in seen if n is not None] == list(range(100))
        binding.unbind()


def test_a_machine_that_is_disposed_refuses_what_is_kept(machine: Machine) -> None:
    ends = Ends(machine)
    with busy(machine):
        for _ in range(10):
            ends.send("Hit")
        disposing = start(machine.dispose)
    outcome(disposing)
    ends.send("Hit", call=1)
    assert ends.answers[-1][1] == Result.CANCELED
    count, _ = ends.report()
    assert count == 10


def test_a_machine_that_hands_errors_on_has_them_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine({"Foo": State()}, catch_errors=False)

    def fail(event: Event) -> None:
        raise ValueError("mine")

    machine.bind({"Foo_enter": fail})
    ends = Ends(machine)
    ends.send("Foo", call=1)
    assert ends.answers[0][1] == Result.CANCELED
    assert "mine" in ends.answers[0][1].why
    assert "mine" in caplog.text


def test_who_floods_breaks_the_protocol(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inlet, "_MOST_KEPT", 100)
    ends = Ends(machine)
    with busy(machine):
        for _ in range(103):
            ends.send("Hit", call=1)
        with pytest.raises(ProtocolError, match="more than 100"):
            ends.send("Hit", call=1)
