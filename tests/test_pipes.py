"""Pipes between machines of one process."""

from __future__ import annotations

import pytest

from asyncmachine import (
    Event,
    Machine,
    PipeOverflowError,
    Result,
    State,
    UnknownStateError,
    pipe,
    pipe_all,
)

PATIENCE = 30


def _machine(name: str, **options: int) -> Machine:
    return Machine(
        {"Foo": State(), "Bar": State(), "Multi": State(multi=True), "Own" + name: State()},
        id=name,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture
def source() -> Machine:
    return _machine("source")


@pytest.fixture
def target() -> Machine:
    return _machine("target")


def _settled(*machines: Machine) -> None:
    """Have everything that has been handed over by now carried out."""
    for mach in machines:
        assert mach.remove().wait(PATIENCE) == Result.EXECUTED


def test_an_activation_adds_and_a_deactivation_removes(source: Machine, target: Machine) -> None:
    pipe(source, "Foo", target, "Bar")

    source.add("Foo")
    assert target.when("Bar").wait(PATIENCE)
    source.remove("Foo")
    assert target.when_not("Bar").wait(PATIENCE)

    assert target.tick("Bar") == 2
    assert not target.is_active("Foo")


def test_only_activations(source: Machine, target: Machine) -> None:
    pipe(source, "Foo", target, "Bar", on="add")

    source.add("Foo")
    source.remove("Foo")
    _settled(target)

    assert target.is_active("Bar")


def test_only_deactivations(source: Machine, target: Machine) -> None:
    target.add("Bar")
    pipe(source, "Foo", target, "Bar", on="remove")

    source.add("Foo")
    _settled(target)
    assert target.is_active("Bar")
    source.remove("Foo")
    _settled(target)

    assert not target.is_active("Bar")


def test_args_of_an_activation_are_forwarded(source: Machine, target: Machine) -> None:
    pipe(source, "Foo", target, "Bar")
    waiter = target.when_args("Bar", {"id": 1})

    source.add("Foo", id=1, text="hi")

    assert waiter.wait(PATIENCE)
    assert waiter.args == {"id": 1, "text": "hi"}


def test_the_order_is_kept_and_nothing_is_lost(source: Machine, target: Machine) -> None:
    seen: list[object] = []
    target.bind({"Multi_state": lambda event: seen.append(event.args["n"])})
    pipe(source, "Multi", target, "Multi")

    for n in range(2000):  # more than the target's queue_limit
        source.add("Multi", n=n)
    _settled(target)

    assert seen == list(range(2000))


def test_each_activation_of_a_multi_state_is_delivered(source: Machine, target: Machine) -> None:
    pipe(source, "Multi", target, "Multi")

    for _ in range(3):
        source.add("Multi")
    _settled(target)

    assert target.tick("Multi") == 5


def test_a_plain_state_that_is_as_wanted_already_is_left_alone(
    source: Machine, target: Machine
) -> None:
    heard: list[str] = []
    target.add("Bar")
    target.bind(dict.fromkeys(("Bar_Bar", "Any_state"), lambda event: heard.append(event.name)))
    pipe(source, "Foo", target, "Bar")

    source.add("Foo")
    _settled(target)

    assert target.tick("Bar") == 1
    assert heard == []


def test_a_refused_delivery_does_not_end_the_pipe(source: Machine, target: Machine) -> None:
    binding = target.bind({"Bar_enter": lambda event: False})
    link = pipe(source, "Foo", target, "Bar")

    source.add("Foo")
    _settled(target)
    assert not target.is_active("Bar")
    binding.unbind()
    source.set()
    source.add("Foo")
    _settled(target)

    assert target.is_active("Bar")
    assert not link.closed
    assert source.error is None


def test_a_canceled_activation_is_not_forwarded(source: Machine, target: Machine) -> None:
    source.bind({"Foo_enter": lambda event: False})
    pipe(source, "Foo", target, "Bar")

    source.add("Foo")
    source.can_add("Foo")
    _settled(target)

    assert target.time_sum() == 0


# ---------------------------------------------------------------------- bringing up


def test_a_target_is_brought_up_at_once(source: Machine, target: Machine) -> None:
    source.add("Foo")

    pipe(source, "Foo", target, "Bar")

    assert target.when("Bar").wait(PATIENCE)


@pytest.mark.parametrize(
    ("state", "wanted", "options"),
    [
        ("Foo", "Bar", {"sync": False}),
        ("Foo", "Bar", {"on": "remove"}),
        ("Multi", "Bar", {}),
        ("Foo", "Multi", {}),
        ("Bar", "Bar", {}),
    ],
)
def test_a_target_is_not_brought_up(
    source: Machine, target: Machine, state: str, wanted: str, options: dict[str, object]
) -> None:
    source.add("Foo", "Multi")

    pipe(source, state, target, wanted, **options)  # type: ignore[arg-type]
    _settled(target)

    assert target.time_sum() == 0


def test_a_target_is_brought_up_for_activations_alone(source: Machine, target: Machine) -> None:
    source.add("Foo")

    pipe(source, "Foo", target, "Bar", on="add")

    assert target.when("Bar").wait(PATIENCE)


# ---------------------------------------------------------------------------- ending


def test_a_closed_pipe_carries_nothing(source: Machine, target: Machine) -> None:
    link = pipe(source, "Foo", target, "Bar")
    assert not link.closed

    link.close()
    link.close()
    source.add("Foo")
    _settled(target)

    assert link.closed
    assert target.time_sum() == 0


def test_leaving_the_with_block_closes(source: Machine, target: Machine) -> None:
    with pipe(source, "Foo", target, "Bar") as link:
        assert (link.source, link.target) == (source, target)
        assert "source" in repr(link)
        assert "target" in repr(link)
        source.add("Foo")
    source.remove("Foo")
    _settled(target)

    assert target.is_active("Bar")
    assert link.closed
    assert "closed" in repr(link)


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_pipe_ends_when_either_machine_is_disposed(
    source: Machine, target: Machine, end: str
) -> None:
    link = pipe(source, "Foo", target, "Bar")

    (source if end == "source" else target).dispose()

    assert link.closed
    source.add("Foo")
    assert source.error is None
    assert not source.is_active("Exception")


def test_a_pipe_from_or_to_a_disposed_machine_is_closed(source: Machine, target: Machine) -> None:
    source.add("Foo")
    target.dispose()

    assert pipe(source, "Foo", target, "Bar").closed
    assert pipe(target, "Foo", source, "Bar").closed
    _settled(source)
    assert source.error is None


def test_closing_a_pipe_leaves_other_pipes_alone(source: Machine, target: Machine) -> None:
    first = pipe(source, "Foo", target, "Bar")
    pipe(source, "Foo", target, "Multi")

    first.close()
    source.add("Foo")
    _settled(target)

    assert target.active_states() == ("Multi",)


def test_a_target_that_takes_no_more_closes_the_pipe_and_the_source_is_told(
    source: Machine, target: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncmachine.machine.PIPE_LIMIT", 3)
    link = pipe(source, "Multi", target, "Multi")

    def flood() -> None:  # the target is busy meanwhile
        for n in range(5):
            source.add("Multi", n=n)

    target.eval(flood)
    _settled(source, target)

    assert link.closed
    assert isinstance(source.error, PipeOverflowError)
    assert "target" in str(source.error)
    assert source.is_active("Exception")
    assert target.tick("Multi") == 5  # the three that it had taken


# ---------------------------------------------------------------------------- rings


def test_pipes_in_a_ring_do_not_echo() -> None:
    ring = [_machine(name) for name in ("a", "b", "c")]
    for index, mach in enumerate(ring):
        pipe(mach, "Multi", ring[(index + 1) % 3], "Multi")

    ring[0].add("Multi")
    _settled(*ring, *ring, *ring)
    assert [mach.tick("Multi") for mach in ring] == [1, 1, 1]
    ring[1].add("Multi")
    _settled(*ring, *ring, *ring)

    assert [mach.tick("Multi") for mach in ring] == [3, 3, 3]


def test_two_machines_that_mirror_each_other_come_to_rest() -> None:
    first, second = _machine("first"), _machine("second")
    pipe_all(first, second, "Foo")
    pipe_all(second, first, "Foo")

    first.add("Foo")
    _settled(first, second, first, second)
    assert (first.tick("Foo"), second.tick("Foo")) == (1, 1)
    second.remove("Foo")
    _settled(first, second, first, second)

    assert (first.tick("Foo"), second.tick("Foo")) == (2, 2)


def test_a_handler_may_pipe(source: Machine, target: Machine) -> None:
    def lay(event: Event) -> None:
        pipe(source, "Foo", target, "Bar")

    source.bind({"Foo_state": lay})
    source.add("Foo")

    assert target.when("Bar").wait(PATIENCE)


# ------------------------------------------------------------------------- pipe_all


def test_pipe_all_mirrors_the_named_states(source: Machine, target: Machine) -> None:
    source.add("Foo")
    link = pipe_all(source, target, "Foo", "Multi")

    source.add("Bar", "Multi")
    _settled(target)
    assert {*target.active_states()} == {"Foo", "Multi"}
    source.set()
    _settled(target)
    assert target.active_states() == ()
    link.close()
    source.add("Foo")
    _settled(target)

    assert target.active_states() == ()


def test_pipe_all_mirrors_what_both_have_but_exception(source: Machine, target: Machine) -> None:
    pipe_all(source, target)

    source.add("Foo", "Bar", "Multi", "Ownsource")
    source.add_error("no")
    _settled(target)

    assert {*target.active_states()} == {"Foo", "Bar", "Multi"}


def test_pipe_all_mirrors_exception_when_it_is_named(source: Machine, target: Machine) -> None:
    pipe_all(source, target, "Exception")

    source.add_error("no")
    _settled(target)

    assert target.is_active("Exception")


# --------------------------------------------------------------------------- errors


def test_both_ends_must_be_different_machines(source: Machine) -> None:
    with pytest.raises(ValueError, match="source"):
        pipe(source, "Foo", source, "Bar")
    with pytest.raises(ValueError, match="source"):
        pipe_all(source, source)


@pytest.mark.parametrize("on", ["set", "", "both"])
def test_another_on_is_a_value_error(source: Machine, target: Machine, on: str) -> None:
    with pytest.raises(ValueError, match=repr(on)):
        pipe(source, "Foo", target, "Bar", on=on)  # type: ignore[arg-type, unused-ignore]


def test_unknown_states_are_errors(source: Machine, target: Machine) -> None:
    with pytest.raises(UnknownStateError, match="Fooo"):
        pipe(source, "Fooo", target, "Bar")
    with pytest.raises(UnknownStateError, match="Barr"):
        pipe(source, "Foo", target, "Barr")
    with pytest.raises(UnknownStateError, match="Ownsource"):
        pipe_all(source, target, "Foo", "Ownsource")
    with pytest.raises(UnknownStateError, match="Owntarget"):
        pipe_all(source, target, "Owntarget")


def test_machines_without_a_state_in_common_can_not_be_mirrored(source: Machine) -> None:
    with pytest.raises(ValueError, match="in common"):
        pipe_all(source, Machine({"Other": State()}, id="other"))


def test_nothing_is_laid_when_there_is_an_error(source: Machine, target: Machine) -> None:
    with pytest.raises(UnknownStateError):
        pipe_all(source, target, "Foo", "Nope")

    source.add("Foo")
    _settled(target)
    assert target.time_sum() == 0
