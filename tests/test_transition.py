"""What is told of a change: Result, Mutation, Event, Transition, Cause, steps."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

import pytest

from asyncmachine import (
    Cause,
    ErrorSource,
    Event,
    Machine,
    Mutation,
    Result,
    State,
    Step,
    Tracer,
    Transition,
    pipe,
)


class Recorder(Tracer):
    """Keeps every transition that has ended."""

    def __init__(self, *, wants_steps: bool = False) -> None:
        self.wants_steps = wants_steps
        self.seen: list[Transition] = []
        self.queued: list[Mutation] = []

    def transition_end(self, tx: Transition) -> None:
        self.seen.append(tx)

    def mutation_queued(self, mach: Machine, mutation: Mutation) -> None:
        self.queued.append(mutation)


def _machine(*tracers: Tracer) -> Machine:
    return Machine(
        {"Foo": State(add="Bar"), "Bar": State(), "Baz": State(remove="Foo"), "Qux": State()},
        tracers=tracers,
    )


def _event_of(mach: Machine, name: str, act: Callable[[], object]) -> Event:
    events: list[Event] = []
    with mach.bind({name: events.append}):
        act()
    (event,) = events
    return event


# -------------------------------------------------------------------------- results


def test_results_are_compared_by_their_kind() -> None:
    mach = Machine({"Foo": State(), "Bar": State(require="Foo")})

    refused = mach.add("Bar")
    queued = mach.eval(lambda: mach.add("Foo"))

    assert refused == Result.CANCELED
    assert queued == Result.QUEUED
    assert mach.add("Foo") == Result.EXECUTED
    assert refused != Result.EXECUTED
    assert refused != "CANCELED"
    assert {Result.CANCELED: 1}[refused] == 1


def test_a_result_is_false_for_a_canceled_one_only() -> None:
    assert Result.EXECUTED
    assert Result.QUEUED
    assert not Result.CANCELED


def test_results_show_what_they_are() -> None:
    assert repr(Result.EXECUTED) == "Result.EXECUTED"
    assert repr(Machine({"Foo": State(require="Exception")}).add("Foo")) == "Result.CANCELED"


def test_a_final_result_returns_itself_at_once() -> None:
    mach = _machine()

    executed = mach.add("Foo")

    assert executed.wait() is executed
    assert executed.wait(timeout=0) is executed


def test_a_queued_result_gives_the_final_one() -> None:
    mach = Machine({"Foo": State(), "Bar": State(require="Foo")})

    def request() -> tuple[Result, Result]:
        return mach.add("Bar"), mach.add("Foo")

    refused, executed = mach.eval(request)

    assert (refused, executed) == (Result.QUEUED, Result.QUEUED)
    assert refused.wait(5) == Result.CANCELED
    assert refused.wait(5).why == "Bar requires Foo, which is inactive"
    assert executed.wait(5) == Result.EXECUTED


def test_waiting_for_a_queued_result_inside_a_handler_is_an_error() -> None:
    mach = _machine()
    errors: list[BaseException] = []

    def wait(event: Event) -> None:
        try:
            mach.add("Qux").wait(5)
        except RuntimeError as error:
            errors.append(error)

    mach.bind({"Foo_state": wait})

    assert mach.add("Foo") == Result.EXECUTED
    assert len(errors) == 1
    assert mach.is_active("Qux")


def test_waiting_for_a_queued_result_inside_eval_is_an_error() -> None:
    mach = _machine()

    with pytest.raises(RuntimeError, match="never end"):
        mach.eval(lambda: mach.add("Qux").wait(5))
    assert mach.is_active("Qux")


def test_waiting_too_short_for_a_queued_result_is_a_timeout_error() -> None:
    mach = _machine()
    busy, go_on = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        busy.set()
        go_on.wait(30)

    mach.bind({"Foo_state": hold})
    holder = threading.Thread(target=mach.add, args=("Foo",))
    holder.start()
    assert busy.wait(30)
    result = mach.add("Qux")
    with pytest.raises(TimeoutError, match="0 s"):
        result.wait(timeout=0)
    go_on.set()

    assert result.wait(30) == Result.EXECUTED
    holder.join()


def test_an_error_that_can_not_be_shown_ends_the_mutation_of_its_caller() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    mach = _machine()
    busy, go_on = threading.Event(), threading.Event()
    held: list[Result] = []

    def hold(event: Event) -> None:
        busy.set()
        go_on.wait(30)

    def fail(event: Event) -> None:
        raise MuteError

    def carry_out() -> None:
        try:
            held.append(mach.add("Foo"))
        except RuntimeError:
            pass

    mach.bind({"Foo_state": hold, "Qux_state": fail})
    holder = threading.Thread(target=carry_out)
    holder.start()
    assert busy.wait(30)
    result = mach.add("Qux")
    go_on.set()
    holder.join(30)

    assert result.wait(5) == Result.CANCELED
    assert held == [Result.EXECUTED]
    assert isinstance(mach.error, MuteError)


# ---------------------------------------------------------------- mutations and events


def test_a_mutation_has_kind_states_args_auto_and_cause() -> None:
    mach = _machine()

    mutation = _event_of(mach, "Any_enter", lambda: mach.set("Foo", "Qux", "Foo", n=1)).mutation

    assert mutation.kind == "set"
    assert mutation.states == ("Foo", "Qux")
    assert mutation.args == {"n": 1}
    assert mutation.auto is False
    assert mutation.cause is None
    assert repr(mutation) == "<Mutation set Foo Qux>"


@pytest.mark.parametrize("kind", ["add", "remove", "set"])
def test_the_kind_is_told(kind: str) -> None:
    mach = _machine()
    mach.add("Foo", "Bar")

    event = _event_of(mach, "Any_enter", lambda: getattr(mach, kind)("Foo"))

    assert event.mutation.kind == event.transition.mutation.kind == kind


def test_an_auto_mutation_is_told() -> None:
    mach = Machine({"Foo": State(), "Bar": State(auto=True), "Baz": State(auto=True)})

    event = _event_of(mach, "Bar_state", lambda: mach.add("Foo", n=1))

    assert event.mutation.auto is True
    assert event.mutation.kind == "add"
    assert event.mutation.states == ("Bar", "Baz")
    assert event.args == {}


def test_an_event_has_name_machine_args_and_transition() -> None:
    mach = _machine()

    event = _event_of(mach, "Bar_enter", lambda: mach.add("Foo", id=7))

    assert event.name == "Bar_enter"
    assert event.machine is mach
    assert event.args == {"id": 7}
    assert isinstance(event.transition, Transition)
    assert event.expired is False
    assert repr(event) == "<Event Bar_enter>"


def test_args_are_read_only() -> None:
    mach = _machine()
    event = _event_of(mach, "Foo_enter", lambda: mach.add("Foo", id=7))

    with pytest.raises(TypeError):
        event.args["id"] = 8  # type: ignore[index]  # refused on purpose
    with pytest.raises(TypeError):
        event.mutation.args["id"] = 8  # type: ignore[index]  # refused on purpose
    assert event.args["id"] == event.mutation.args["id"] == 7


def test_all_handlers_of_a_transition_get_the_same_args() -> None:
    mach = _machine()
    seen: list[tuple[str, dict[str, object]]] = []
    names = ("Foo_enter", "Bar_enter", "Any_enter", "Foo_state", "Bar_state", "Any_state")
    mach.bind(dict.fromkeys(names, lambda event: seen.append((event.name, dict(event.args)))))

    mach.add("Foo", id=1)

    assert seen == [(name, {"id": 1}) for name in names]


def test_args_may_have_any_name() -> None:
    mach = _machine()

    event = _event_of(mach, "Foo_enter", lambda: mach.add("Foo", kind=1, args=2, states=3, fn=4))

    assert event.args == {"kind": 1, "args": 2, "states": 3, "fn": 4}


def test_data_lives_from_negotiation_to_the_end_of_the_transition() -> None:
    mach = _machine()
    seen: list[dict[str, object]] = []

    def learn(event: Event) -> None:
        event.data["learned"] = event.name

    mach.bind({"Foo_enter": learn, "Foo_state": lambda event: seen.append(event.data)})
    mach.bind({"Bar_state": lambda event: seen.append(event.data)})

    mach.add("Foo")
    mach.set()
    mach.add("Foo", again=True)

    assert seen[0] is seen[1]
    assert seen[2] is not seen[0]
    assert seen[0] == seen[2] == {"learned": "Foo_enter"}


def test_states_are_seen_as_they_were_in_negotiation_and_as_they_are_in_the_final_phase() -> None:
    mach = _machine()
    seen: list[bool] = []
    mach.bind(
        dict.fromkeys(("Foo_enter", "Foo_state"), lambda e: seen.append(mach.is_active("Foo")))
    )

    mach.add("Foo")

    assert seen == [False, True]


# ---------------------------------------------------------------------- transitions


def test_a_transition_tells_what_it_did() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    mach.add("Baz", "Qux")

    mach.set("Foo", "Qux")

    tx = recorder.seen[-1]
    assert tx.machine is mach
    assert tx.mutation.kind == "set"
    assert tx.states_before == ("Baz", "Qux")
    assert tx.target_states == ("Foo", "Qux", "Bar")
    assert tx.time_before == (0, 0, 1, 1, 0)
    assert tx.time_after == (1, 1, 2, 1, 0)
    assert tx.accepted is True
    assert tx.error is None
    assert tx.cause is None
    assert tx.duration_ns > 0
    assert tx.steps == []
    assert tx.log_entries == []
    assert tx.data == {}


def test_a_transition_tells_that_the_relations_refused_it() -> None:
    recorder = Recorder()
    mach = Machine({"Foo": State(require="Bar"), "Bar": State()}, tracers=[recorder])

    mach.add("Foo")

    tx = recorder.seen[-1]
    assert tx.accepted is False
    assert tx.time_before == tx.time_after
    assert "refused" in repr(tx)


def test_a_transition_tells_that_a_handler_refused_it() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    mach.bind({"Foo_enter": lambda event: False})

    mach.add("Foo")

    tx = recorder.seen[-1]
    assert tx.accepted is False
    assert tx.target_states == ("Foo", "Bar")
    assert tx.time_after == (0, 0, 0, 0, 0)


def test_a_transition_keeps_the_error_in_negotiation() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    error = ValueError("no")

    def fail(event: Event) -> None:
        raise error

    mach.bind({"Foo_enter": fail})
    mach.add("Foo")

    tx = recorder.seen[0]
    assert tx.error is error
    assert tx.accepted is False


def test_a_transition_keeps_the_error_in_the_final_phase_and_stays_accepted() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    error = ValueError("no")

    def fail(event: Event) -> None:
        raise error

    mach.bind({"Foo_state": fail})
    mach.add("Foo")

    tx = recorder.seen[0]
    assert tx.error is error
    assert tx.accepted is True
    assert tx.time_after == (2, 2, 0, 0, 0)


def test_the_moment_of_a_running_transition() -> None:
    mach = _machine()
    seen: list[tuple[bool, object, tuple[int, ...]]] = []

    def look(event: Event) -> None:
        tx = mach.transition
        assert tx is event.transition
        seen.append((mach.in_transition, tx.states_before, tx.time_after))

    mach.bind({"Foo_enter": look, "Foo_state": look})
    assert (mach.in_transition, mach.transition) == (False, None)
    mach.add("Foo")

    assert seen == [(True, (), (0, 0, 0, 0, 0)), (True, (), (1, 1, 0, 0, 0))]
    assert (mach.in_transition, mach.transition) == (False, None)


def test_ids_of_transitions_are_unique() -> None:
    recorder = Recorder()
    first, second = _machine(recorder), _machine(recorder)

    for mach in (first, second, first):
        mach.toggle("Foo")

    assert len({tx.id for tx in recorder.seen}) == 3
    assert all(tx.id == tx.id for tx in recorder.seen)


def test_transitions_that_nobody_looked_at_still_answer() -> None:
    mach = _machine()

    tx = _event_of(mach, "Foo_state", lambda: mach.add("Foo", n=1)).transition

    assert tx.duration_ns == 0
    assert tx.time_before == (0, 0, 0, 0, 0)
    assert tx.time_after == (1, 1, 0, 0, 0)
    assert tx.mutation.states == ("Foo",)
    assert tx.accepted is True
    assert "add Foo" in repr(tx)


# --------------------------------------------------------------------------- causes


def test_the_cause_of_a_mutation_is_the_transition_whose_handler_requested_it() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    mach.bind({"Foo_state": lambda event: mach.add("Qux")})

    mach.add("Foo")

    first, second = recorder.seen
    assert first.cause is None
    assert second.cause == Cause(mach.id, first.id)
    assert second.mutation.cause == second.cause
    assert (second.cause.machine_id, second.cause.transition_id) == (mach.id, first.id)


def test_the_cause_is_known_across_machines() -> None:
    recorder = Recorder()
    source, target = _machine(), _machine(recorder)
    source.bind({"Foo_state": lambda event: target.add("Qux")})

    event = _event_of(source, "Bar_state", lambda: source.add("Foo"))

    assert recorder.seen[-1].cause == Cause(source.id, event.transition.id)


def test_the_cause_is_known_across_pipes() -> None:
    recorder = Recorder()
    source, target = _machine(), _machine(recorder)
    arrived = target.when("Qux")
    with pipe(source, "Foo", target, "Qux"):
        event = _event_of(source, "Bar_state", lambda: source.add("Foo"))
        assert arrived.wait(5)
        target.remove().wait(5)  # its transition has ended

    (cause,) = [tx.cause for tx in recorder.seen if tx.mutation.states == ("Qux",)]
    assert cause == Cause(source.id, event.transition.id)


def test_the_cause_of_an_exception_is_the_transition_that_failed() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    def fail(event: Event) -> None:
        raise ValueError

    mach.bind({"Foo_enter": fail})
    mach.add("Foo")

    failed, alarm = recorder.seen
    assert alarm.mutation.states == ("Exception",)
    assert alarm.cause == Cause(mach.id, failed.id)


def test_what_is_requested_outside_of_handlers_has_no_cause() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    mach.eval(lambda: mach.add("Foo"))
    mach.remove("Foo")

    assert [tx.cause for tx in recorder.seen] == [None, None]


# --------------------------------------------------------------------- error sources


def test_the_source_of_an_error_is_told() -> None:
    mach = _machine()
    mach.add("Qux")

    def fail(event: Event) -> None:
        raise ValueError("no")

    mach.bind({"Bar_state": fail})
    event = _event_of(mach, "Exception_state", lambda: mach.add("Foo", n=1))

    source = event.args["source"]
    assert isinstance(source, ErrorSource)
    assert source.handler == "Bar_state"
    assert source.states == ("Foo",)
    assert source.states_before == ("Qux",)
    assert traceback.extract_tb(source.traceback)[-1].name == "fail"
    assert event.args["error"] is mach.error
    assert isinstance(mach.error, ValueError)
    assert "Bar_state" in repr(source)
    assert {*event.args} == {"error", "source"}


# ---------------------------------------------------------------------------- steps


def test_steps_are_recorded_for_a_tracer_that_wants_them() -> None:
    recorder = Recorder(wants_steps=True)
    mach = _machine(recorder)
    mach.bind({"Foo_enter": lambda event: None})
    mach.add("Baz")

    mach.set("Foo")

    assert recorder.seen[-1].steps == [
        Step("called", "Foo"),
        Step("add", "Bar", "Foo"),
        Step("deactivate", "Baz"),
        Step("activate", "Foo"),
        Step("activate", "Bar"),
        Step("handler", "", "Foo_enter"),
    ]


def test_steps_name_what_was_refused_and_why() -> None:
    recorder = Recorder(wants_steps=True)
    mach = Machine(
        {"Foo": State(require="Bar"), "Bar": State(), "Baz": State(remove="Bar")},
        tracers=[recorder],
        handlers={"Bar_enter": lambda event: False},
    )
    mach.add("Foo")
    mach.add("Bar")
    mach.add("Baz")
    mach.add("Bar")

    refused, vetoed, _, removed = (tx.steps for tx in recorder.seen)
    assert Step("require", "Foo", "Bar") in refused
    assert Step("veto", "", "Bar_enter") in vetoed
    assert Step("remove", "Bar", "Baz") in removed


def test_steps_name_the_handler_that_failed() -> None:
    recorder = Recorder(wants_steps=True)
    mach = _machine(recorder)

    def fail(event: Event) -> None:
        raise ValueError

    mach.bind({"Foo_state": fail})
    mach.add("Foo")

    assert Step("error", "", "Foo_state") in recorder.seen[0].steps


def test_mutations_that_had_to_wait_are_told_of() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    mach.add("Foo")
    assert recorder.queued == []
    mach.eval(lambda: mach.add("Qux", n=1))

    (mutation,) = recorder.queued
    assert (mutation.kind, mutation.states, mutation.args) == ("add", ("Qux",), {"n": 1})


# What became of it ----------------------------------------------------------------------------


class Outcomes(Tracer):
    """Notes the outcome and the moves of each transition, as it ends."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, tuple[tuple[int, int], ...]]] = []

    def transition_end(self, tx: Transition) -> None:
        self.noted.append((tx.outcome, tx.moves))
        moved = dict(tx.moves)
        assert tx.time_after == tuple(
            tick + moved.get(position, 0) for position, tick in enumerate(tx.time_before)
        )


@pytest.mark.parametrize("steps", [False, True])
def test_a_transition_tells_its_outcome_and_what_moved(steps: bool) -> None:
    class Handlers:
        def Vetoed_enter(self, event: Event) -> bool:
            return False

        def Broken_enter(self, event: Event) -> None:
            raise LookupError("in negotiation")

        def Late_state(self, event: Event) -> None:
            raise LookupError("at the end")

    outcomes = Outcomes()
    outcomes.wants_steps = steps
    machine = Machine(
        {
            "Foo": State(multi=True),
            "Vetoed": State(),
            "Rejected": State(require="Vetoed"),
            "Broken": State(),
            "Early": State(),
            "Late": State(remove="Foo"),
        },
        handlers=Handlers(),
        tracers=[outcomes],
    )
    machine.add("Foo", "Early")
    machine.add("Foo")
    machine.add("Vetoed")
    machine.add("Rejected")
    machine.add("Broken")
    machine.add("Late")

    assert outcomes.noted == [
        ("executed", ((0, 1), (4, 1))),
        ("executed", ((0, 2),)),
        ("vetoed", ()),
        ("rejected", ()),
        ("failed", ()),
        ("executed", ((6, 1),)),  # Exception
        ("failed", ((0, 1), (5, 2))),  # Late came and was put back
        ("executed", ((6, 2),)),
    ]


def test_a_transition_that_nobody_has_refused_yet_would_be_executed() -> None:
    seen: list[tuple[str, int]] = []
    machine = Machine({"Foo": State()})

    def look(event: Event) -> None:
        seen.append((event.transition.outcome, len(event.transition.moves)))

    machine.bind({"Foo_enter": look, "Foo_state": look})
    machine.add("Foo")

    assert seen == [("executed", 0), ("executed", 1)]
