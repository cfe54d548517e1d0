"""Tracers: which hooks, in which order; one that raises harms nothing."""

from __future__ import annotations

import pytest

from asyncmachine import Event, Machine, Mutation, Result, State, Tracer, Transition


class Recorder(Tracer):
    """Keeps the order of all that it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def machine_init(self, mach: Machine) -> None:
        self.heard.append(f"machine_init {mach.id}")

    def machine_dispose(self, mach: Machine) -> None:
        self.heard.append(f"machine_dispose {mach.id}")

    def submachine(self, parent: Machine, child: Machine) -> None:
        self.heard.append(f"submachine {parent.id} {child.id}")

    def mutation_queued(self, mach: Machine, mutation: Mutation) -> None:
        self.heard.append(f"mutation_queued {mutation.kind} {' '.join(mutation.states)}")

    def transition_init(self, tx: Transition) -> None:
        self.heard.append(f"transition_init {' '.join(tx.mutation.states)}")

    def transition_start(self, tx: Transition) -> None:
        self.heard.append("transition_start")

    def transition_end(self, tx: Transition) -> None:
        self.heard.append(f"transition_end {tx.accepted}")

    def handler_start(self, tx: Transition, name: str) -> None:
        self.heard.append(f"handler_start {name}")

    def handler_end(self, tx: Transition, name: str) -> None:
        self.heard.append(f"handler_end {name}")

    def queue_empty(self, mach: Machine) -> None:
        self.heard.append("queue_empty")


class Raiser(Recorder):
    """Raises from every hook, after noting it."""

    def __getattribute__(self, name: str) -> object:
        value = super().__getattribute__(name)
        if name == "heard" or name.startswith("_") or not callable(value):
            return value

        def fail(*details: object) -> None:
            self.heard.append(name)
            raise ValueError(f"in {name}")

        return fail


def _machine(*tracers: Tracer, **options: object) -> Machine:
    return Machine(
        {"Foo": State(), "Bar": State(require="Foo"), "Baz": State()},
        id="m",
        tracers=tracers,
        **options,  # type: ignore[arg-type]
    )


def _add_baz(event: Event) -> None:
    event.machine.add("Baz")


def test_hooks_come_in_order() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    mach.bind({"Foo_enter": lambda event: None, "Foo_state": lambda event: None})
    assert recorder.heard[0] == "machine_init m"
    recorder.heard.clear()

    mach.add("Foo")

    assert recorder.heard == [
        "transition_init Foo",
        "transition_start",
        "handler_start Foo_enter",
        "handler_end Foo_enter",
        "handler_start Foo_state",
        "handler_end Foo_state",
        "transition_end True",
        "queue_empty",
    ]


def test_a_refused_transition_starts_and_ends() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    recorder.heard.clear()

    mach.add("Bar")

    assert recorder.heard == [
        "transition_init Bar",
        "transition_start",
        "transition_end False",
        "queue_empty",
    ]


def test_a_veto_ends_it() -> None:
    recorder = Recorder()
    mach = _machine(recorder, handlers={"Foo_enter": lambda e: False, "Any_enter": print})
    recorder.heard.clear()

    mach.add("Foo")

    assert recorder.heard == [
        "transition_init Foo",
        "transition_start",
        "handler_start Foo_enter",
        "handler_end Foo_enter",
        "transition_end False",
        "queue_empty",
    ]


def test_a_handler_that_raises_has_ended() -> None:
    recorder = Recorder()

    def fail(event: Event) -> None:
        raise ValueError

    mach = _machine(recorder, handlers={"Foo_state": fail})
    recorder.heard.clear()
    mach.add("Foo")

    assert recorder.heard == [
        "transition_init Foo",
        "transition_start",
        "handler_start Foo_state",
        "handler_end Foo_state",
        "mutation_queued add Exception",
        "transition_end True",
        "transition_init Exception",
        "transition_start",
        "transition_end True",
        "queue_empty",
    ]


def test_only_mutations_that_had_to_wait_are_told_as_queued() -> None:
    recorder = Recorder()
    mach = _machine(recorder, handlers={"Foo_state": _add_baz})
    recorder.heard.clear()

    mach.add("Foo")

    assert [line for line in recorder.heard if "handler" not in line] == [
        "transition_init Foo",
        "transition_start",
        "mutation_queued add Baz",
        "transition_end True",
        "transition_init Baz",
        "transition_start",
        "transition_end True",
        "queue_empty",
    ]


def test_a_remove_that_has_nothing_to_do_is_no_transition() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    recorder.heard.clear()

    assert mach.remove("Foo") == Result.EXECUTED

    assert not any("transition" in line for line in recorder.heard)


def test_tracers_do_not_hear_of_dry_runs() -> None:
    recorder = Recorder()
    mach = _machine(recorder, handlers={"Foo_enter": lambda event: None})
    recorder.heard.clear()

    assert mach.can_add("Foo") == Result.EXECUTED
    assert mach.can_set("Bar") == Result.CANCELED
    assert mach.can_remove("Foo") == Result.EXECUTED

    assert recorder.heard == []


def test_waiters_are_set_before_the_end_is_told() -> None:
    seen: list[bool] = []

    class Looker(Tracer):
        def transition_end(self, tx: Transition) -> None:
            seen.append(waiter.is_set())

    mach = _machine(Looker())
    waiter = mach.when("Foo")
    mach.add("Foo")

    assert seen == [True]


def test_a_machine_that_is_disposed_says_so_once() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    mach.dispose()
    mach.dispose()

    assert recorder.heard.count("machine_dispose m") == 1


def test_a_child_is_told_of() -> None:
    recorder = Recorder()
    parent = _machine(recorder)

    Machine({"Foo": State()}, id="child", parent=parent)

    assert recorder.heard[-1] == "submachine m child"


def test_every_tracer_hears_in_the_order_they_were_added() -> None:
    heard: list[str] = []

    class Named(Tracer):
        def __init__(self, name: str) -> None:
            self.name = name

        def transition_end(self, tx: Transition) -> None:
            heard.append(self.name)

    mach = _machine(Named("a"), Named("b"))
    mach.add_tracer(Named("c"))

    mach.add("Foo")

    assert heard == ["a", "b", "c"]


def test_a_tracer_added_later_is_told_of_the_machine_and_leaves_when_it_is_unbound() -> None:
    recorder = Recorder()
    mach = _machine()

    binding = mach.add_tracer(recorder)
    assert recorder.heard[0] == "machine_init m"
    assert mach.tracers == (recorder,)
    mach.add("Foo")
    assert "transition_end True" in recorder.heard
    binding.unbind()
    recorder.heard.clear()
    mach.remove("Foo")

    assert recorder.heard == []
    assert not mach.tracers


def test_a_tracer_added_twice_stays_until_both_are_unbound() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    again = mach.add_tracer(recorder)
    recorder.heard.clear()

    again.unbind()
    again.unbind()
    mach.add("Foo")

    assert mach.tracers == (recorder,)
    assert recorder.heard.count("transition_end True") == 1


def test_one_of_two_tracers_leaves() -> None:
    first, second = Recorder(), Recorder()
    mach = _machine(first)
    binding = mach.add_tracer(second)

    binding.unbind()
    binding.unbind()
    second.heard.clear()
    mach.add("Foo")

    assert mach.tracers == (first,)
    assert second.heard == []
    assert "transition_end True" in first.heard


def test_a_tracer_added_in_a_handler_hears_from_the_next_transition_on() -> None:
    recorder = Recorder()
    mach = _machine()
    mach.bind({"Foo_enter": lambda event: mach.add_tracer(recorder)})

    mach.add("Foo")
    assert "transition_end True" not in recorder.heard
    mach.add("Baz")

    assert "transition_init Baz" in recorder.heard


def test_a_tracer_that_raises_harms_nothing_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    raiser, recorder = Raiser(), Recorder()
    mach = _machine(raiser, recorder, handlers={"Foo_state": _add_baz})

    assert mach.add("Foo") == Result.EXECUTED
    assert mach.add("Bar") == Result.EXECUTED
    mach.dispose()

    assert mach.time() == (1, 1, 1, 0)
    assert mach.error is None
    assert {
        "machine_init",
        "machine_dispose",
        "mutation_queued",
        "transition_init",
        "transition_start",
        "transition_end",
        "handler_start",
        "handler_end",
        "queue_empty",
    } <= {*raiser.heard}
    assert "ValueError: in transition_end" in caplog.text
    assert "machine_dispose m" in recorder.heard
    assert recorder.heard.count("transition_end True") == 3


def test_a_tracer_may_override_a_hook_on_the_object_alone() -> None:
    heard: list[str] = []
    tracer = Tracer()
    vars(tracer)["transition_end"] = lambda tx: heard.append("end")

    _machine(tracer).add("Foo")

    assert heard == ["end"]


def test_the_hooks_of_the_base_class_do_nothing() -> None:
    mach = _machine(Tracer())

    assert mach.add("Foo") == Result.EXECUTED
    Tracer().schema_change(mach, mach.schema, mach.schema)
    for hook in ("machine_init", "machine_dispose", "queue_empty"):
        assert getattr(Tracer(), hook)(mach) is None


def test_steps_are_recorded_only_when_a_tracer_asks() -> None:
    steps: list[int] = []

    class Counter(Tracer):
        def transition_end(self, tx: Transition) -> None:
            steps.append(len(tx.steps))

    class Wanting(Counter):
        wants_steps = True

    mach = _machine(Counter())
    mach.add("Foo")
    assert steps == [0]
    binding = mach.add_tracer(Wanting())
    mach.add("Bar")
    assert steps[1] > 0
    assert steps[1] == steps[2]
    binding.unbind()
    mach.add("Baz")
    assert steps[3] == 0


def test_a_tracer_may_call_the_machine() -> None:
    class Meddler(Tracer):
        def transition_end(self, tx: Transition) -> None:
            if tx.mutation.states == ("Foo",):
                results.append(tx.machine.add("Baz"))

    results: list[Result] = []
    mach = _machine(Meddler())

    mach.add("Foo")

    assert results == [Result.QUEUED]
    assert mach.is_active("Foo", "Baz")
