"""Reading a machine: what is active, clocks, text, data; unknown names everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from asyncmachine import Machine, MachineError, State, UnknownStateError

States = {"Foo": State(), "Bar": State(multi=True), "Baz": State()}


@pytest.fixture
def mach() -> Machine:
    mach = Machine(States, id="m")
    mach.add("Bar", "Foo")
    mach.add("Bar")
    return mach


def test_is_active_asks_for_all(mach: Machine) -> None:
    assert mach.is_active("Foo")
    assert mach.is_active("Foo", "Bar")
    assert not mach.is_active("Foo", "Baz")
    assert mach.is_active()


def test_is_inactive_asks_for_all(mach: Machine) -> None:
    assert mach.is_inactive("Baz")
    assert mach.is_inactive("Baz", "Exception")
    assert not mach.is_inactive("Foo", "Baz")
    assert mach.is_inactive()


def test_any_active_asks_for_one_and_a_tuple_means_all_of_it(mach: Machine) -> None:
    assert mach.any_active("Baz", "Foo")
    assert not mach.any_active("Baz", "Exception")
    assert mach.any_active("Baz", ("Foo", "Bar"))
    assert not mach.any_active(("Foo", "Baz"))
    assert not mach.any_active()


def test_switch_gives_the_first_that_is_active(mach: Machine) -> None:
    assert mach.switch("Baz", "Bar", "Foo") == "Bar"
    assert mach.switch("Foo", "Bar") == "Foo"
    assert mach.switch("Baz") is None
    assert mach.switch() is None


def test_active_states_come_in_target_order_and_states_in_declared_order(mach: Machine) -> None:
    assert mach.active_states() == ("Bar", "Foo")
    mach.add("Foo", "Baz")
    assert mach.active_states() == ("Foo", "Baz", "Bar")
    assert mach.states == ("Foo", "Bar", "Baz", "Exception") == mach.schema.names


def test_has_takes_any_name(mach: Machine) -> None:
    assert mach.has("Foo", "Exception")
    assert not mach.has("Foo", "Nope")
    assert mach.has()


def test_clocks(mach: Machine) -> None:
    assert mach.tick("Foo") == 1
    assert mach.tick("Bar") == 3
    assert mach.time() == (1, 3, 0, 0)
    assert mach.time("Bar", "Foo") == (3, 1)
    assert mach.time("Bar", "Bar") == (3, 3)
    assert mach.time_sum() == 4
    assert mach.time_sum("Bar", "Baz") == 3
    assert mach.clock() == {"Foo": 1, "Bar": 3, "Baz": 0, "Exception": 0}
    assert mach.clock("Baz", "Bar") == {"Baz": 0, "Bar": 3}
    assert list(mach.clock("Baz", "Bar")) == ["Baz", "Bar"]


def test_clocks_count_activations_deactivations_and_calls_again() -> None:
    mach = Machine({"Foo": State(), "Multi": State(multi=True), "Adds": State(add="Multi")})

    mach.add("Foo")
    assert mach.tick("Foo") == 1
    mach.add("Foo")  # active already, and not multi
    assert mach.tick("Foo") == 1
    mach.remove("Foo")
    mach.remove("Foo")
    assert mach.tick("Foo") == 2
    mach.add("Multi")
    mach.add("Multi", "Multi")  # once, for names are called once
    assert mach.tick("Multi") == 3
    mach.add("Adds")  # implied, and merely staying: no tick
    assert mach.tick("Multi") == 3
    mach.set("Multi")
    assert mach.tick("Multi") == 5
    mach.remove("Multi")
    assert mach.tick("Multi") == 6


def test_text_in_declared_order(mach: Machine) -> None:
    assert str(mach) == "(Foo:1 Bar:3)"
    assert mach.describe() == "(Foo:1 Bar:3)[Baz:0 Exception:0]"
    assert str(Machine(States)) == "()"
    assert Machine(States).describe() == "()[Foo:0 Bar:0 Baz:0 Exception:0]"
    assert repr(mach) == "<Machine m (Foo:1 Bar:3)>"


def test_inspect_tells_clocks_properties_and_relations() -> None:
    mach = Machine(
        {
            "Foo": State(add="Bar", require=["Baz", "Bar"], auto=True),
            "Bar": State(multi=True, after="Foo"),
            "Baz": State(remove="Exception"),
        },
        id="m",
    )
    mach.add("Bar")

    assert mach.inspect("Bar", "Foo").splitlines() == [
        "m",
        "  [x] Bar 1 multi",
        "        after Foo",
        "  [ ] Foo 0 auto",
        "        require Baz Bar",
        "        add Bar",
    ]
    assert all(name in mach.inspect() for name in mach.states)
    assert "remove Exception" in mach.inspect()


def test_the_exported_state_is_plain_data(mach: Machine) -> None:
    data = mach.export_state()

    assert data == {
        "id": "m",
        "names": ["Foo", "Bar", "Baz", "Exception"],
        "ticks": [1, 3, 0, 0],
    }
    assert json.loads(json.dumps(data)) == data


def test_what_is_read_is_a_copy(mach: Machine) -> None:
    mach.clock()["Foo"] = 7
    ticks = mach.export_state()["ticks"]
    assert isinstance(ticks, list)
    ticks[0] = 7

    assert mach.tick("Foo") == 1


def test_reading_works_after_disposal(mach: Machine) -> None:
    mach.dispose()

    assert mach.is_disposed
    assert mach.is_active("Foo")
    assert mach.describe() == "(Foo:1 Bar:3)[Baz:0 Exception:0]"
    assert mach.time_sum() == 4


def test_a_fresh_machine() -> None:
    mach = Machine(States, id="x")

    assert mach.id == "x"
    assert mach.error is None
    assert not mach.is_disposed
    assert not mach.in_transition
    assert mach.transition is None
    assert mach.queue_length == 0
    assert mach.active_states() == ()


CALLS: dict[str, Callable[[Machine, str], object]] = {
    "is_active": lambda mach, name: mach.is_active("Foo", name),
    "is_inactive": lambda mach, name: mach.is_inactive("Foo", name),
    "any_active": lambda mach, name: mach.any_active("Foo", name),
    "any_active of a tuple": lambda mach, name: mach.any_active(("Foo", name)),
    "switch": lambda mach, name: mach.switch("Foo", name),
    "tick": lambda mach, name: mach.tick(name),
    "time": lambda mach, name: mach.time("Foo", name),
    "time_sum": lambda mach, name: mach.time_sum("Foo", name),
    "clock": lambda mach, name: mach.clock("Foo", name),
    "inspect": lambda mach, name: mach.inspect("Foo", name),
    "is_queued": lambda mach, name: mach.is_queued("add", "Foo", name),
    "add": lambda mach, name: mach.add("Foo", name),
    "remove": lambda mach, name: mach.remove("Foo", name),
    "set": lambda mach, name: mach.set("Foo", name),
    "toggle": lambda mach, name: mach.toggle("Foo", name),
    "add_error": lambda mach, name: mach.add_error("no", "Foo", name),
    "send": lambda mach, name: mach.send("add", "Foo", name),
    "can_add": lambda mach, name: mach.can_add("Foo", name),
    "can_remove": lambda mach, name: mach.can_remove("Foo", name),
    "can_set": lambda mach, name: mach.can_set("Foo", name),
    "when": lambda mach, name: mach.when("Foo", name),
    "when_not": lambda mach, name: mach.when_not("Foo", name),
    "when_any": lambda mach, name: mach.when_any("Foo", name),
    "when_args": lambda mach, name: mach.when_args(name, {}),
    "when_time": lambda mach, name: mach.when_time({"Foo": 1, name: 1}),
    "when_ticks": lambda mach, name: mach.when_ticks(name, 1),
    "when_tick": lambda mach, name: mach.when_tick(name, 1),
    "state_ctx": lambda mach, name: mach.state_ctx(name),
    "import_state": lambda mach, name: mach.import_state({"names": [name], "ticks": [1]}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_unknown_name_is_an_error_that_names_it_and_the_nearest(
    call: Callable[[Machine, str], object],
) -> None:
    mach = Machine(States)

    with pytest.raises(UnknownStateError) as caught:
        call(mach, "Bax")

    assert caught.value.name == "Bax"
    assert "'Bax'" in str(caught.value)
    assert "did you mean 'Ba" in str(caught.value)
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, MachineError)
    assert mach.time_sum() == 0
    assert mach.error is None
    assert mach.queue_length == 0


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_unknown_name_is_an_error_inside_a_handler_too(
    call: Callable[[Machine, str], object],
) -> None:
    mach = Machine(States)
    errors: list[BaseException] = []

    def inside() -> None:
        try:
            call(mach, "Bax")
        except UnknownStateError as error:
            errors.append(error)

    mach.on("Foo_state", lambda event: inside())
    mach.add("Foo")

    assert len(errors) == 1
    assert mach.time_sum() == 1
    assert mach.queue_length == 0


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_unknown_name_is_an_error_after_disposal_too(
    call: Callable[[Machine, str], object],
) -> None:
    mach = Machine(States)
    mach.dispose()

    with pytest.raises(UnknownStateError, match="Bax"):
        call(mach, "Bax")


@pytest.mark.parametrize("bad", [["Foo"], {"Foo": 1}, 5, None])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_no_name_at_all_is_an_unknown_state(
    call: Callable[[Machine, str], object], bad: object
) -> None:
    mach = Machine(States)
    if isinstance(bad, list | dict) and call in (CALLS["when_time"], CALLS["import_state"]):
        bad = 5  # that could not be a key, and this is a matter of malformed snapshots

    with pytest.raises(UnknownStateError):
        call(mach, bad)  # type: ignore[arg-type]  # wrong on purpose
