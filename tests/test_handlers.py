"""Handlers: which names mean what, what is refused at bind, who is called when."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial, wraps

import pytest

from asyncmachine import Event, HandlerError, Machine, MachineError, Result, Schema, State
from asyncmachine.handlers import Meaning, parse
from tests import handlers_module

Heard = list[str]


def _machine(*names: str) -> Machine:
    return Machine({name: State() for name in names or ("Foo", "Bar")})


def _faults(mach: Machine, handlers: object) -> tuple[str, ...]:
    with pytest.raises(HandlerError) as caught:
        mach.bind(handlers)
    return caught.value.faults


def _hear(heard: Heard, *names: str) -> dict[str, Callable[[Event], object]]:
    return {name: lambda event: heard.append(event.name) for name in names}


def _ignore(event: Event) -> None:
    """Agree to everything."""


# ------------------------------------------------------------------------- naming


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("Foo_enter", Meaning("Foo", "", "enter")),
        ("Foo_exit", Meaning("Foo", "", "exit")),
        ("Foo_state", Meaning("Foo", "", "state")),
        ("Foo_end", Meaning("Foo", "", "end")),
        ("Foo_Bar", Meaning("Foo", "Bar", "")),
        ("Foo_Foo", Meaning("Foo", "Foo", "")),
        ("Foo_Any", Meaning("Foo", "Any", "")),
        ("Any_Bar", Meaning("Any", "Bar", "")),
        ("Any_enter", Meaning("Any", "", "enter")),
        ("Any_state", Meaning("Any", "", "state")),
        ("foo_bar_enter", Meaning("foo_bar", "", "enter")),
        ("foo_bar_foo_bar", Meaning("foo_bar", "foo_bar", "")),
        ("foo_bar_Foo", Meaning("foo_bar", "Foo", "")),
    ],
)
def test_every_kind_of_name_has_its_meaning(name: str, meaning: Meaning) -> None:
    schema = Schema({name: State() for name in ("Foo", "Bar", "foo_bar")})

    assert parse(schema, name) == [meaning]


def test_names_of_negotiation_and_of_the_final_phase_are_told_apart() -> None:
    assert Meaning("Foo", "", "state").final
    assert Meaning("Foo", "", "end").final
    assert not Meaning("Foo", "", "enter").final
    assert not Meaning("Foo", "state", "").final


def test_all_handlers_of_a_transition_are_called_in_order() -> None:
    mach = _machine("Foo", "Bar", "Baz")
    heard: Heard = []
    mach.bind(
        _hear(
            heard,
            *("Any_state", "Bar_state", "Foo_end", "Any_enter", "Bar_enter", "Any_Bar"),
            *("Foo_Any", "Foo_Bar", "Foo_Baz", "Foo_exit", "Baz_Baz", "Foo_Foo", "Bar_Bar"),
        )
    )
    mach.add("Foo", "Baz")
    heard.clear()

    mach.set("Bar", "Baz")

    assert heard == [
        *("Baz_Baz", "Foo_exit", "Foo_Bar", "Foo_Baz", "Foo_Any"),
        *("Any_Bar", "Bar_enter", "Any_enter"),
        *("Foo_end", "Bar_state", "Any_state"),
    ]


def test_names_with_underscores_are_called() -> None:
    mach = _machine("foo", "foo_bar", "bar")
    heard: Heard = []
    mach.bind(_hear(heard, "foo_bar_enter", "foo_bar_state", "foo_bar_end", "foo_foo_bar"))

    mach.add("foo")
    mach.set("foo_bar")
    mach.remove("foo_bar")

    assert heard == ["foo_foo_bar", "foo_bar_enter", "foo_bar_state", "foo_bar_end"]


def test_a_state_that_is_spelt_like_a_phase_is_negotiated_about() -> None:
    mach = _machine("A_B", "state", "X")
    mach.bind({"X_A_B": lambda event: False})
    mach.add("X")

    assert mach.set("A_B").why == "vetoed by X_A_B"


def test_a_multi_state_called_again_enters_again() -> None:
    mach = Machine({"Foo": State(multi=True)})
    heard: Heard = []
    mach.bind(_hear(heard, "Foo_Foo", "Foo_enter", "Foo_state", "Foo_exit", "Foo_end"))

    mach.add("Foo")
    mach.add("Foo")

    assert heard == ["Foo_enter", "Foo_state", "Foo_Foo", "Foo_enter", "Foo_state"]


def test_a_handler_of_a_state_called_while_active_can_veto() -> None:
    mach = _machine()
    mach.bind({"Foo_Foo": lambda event: False})

    assert mach.add("Foo") == Result.EXECUTED
    assert mach.add("Foo").why == "vetoed by Foo_Foo"
    assert mach.remove("Foo") == Result.EXECUTED


@pytest.mark.parametrize("verdict", [None, True, 0, "", (), [], 0.0])
def test_only_false_itself_is_a_veto(verdict: object) -> None:
    mach = _machine()
    mach.bind({"Foo_enter": lambda event: verdict})

    assert mach.add("Foo") == Result.EXECUTED


def test_what_a_final_handler_returns_is_no_veto() -> None:
    mach = _machine()
    mach.bind({"Foo_state": lambda event: False, "Any_state": lambda event: False})

    assert mach.add("Foo") == Result.EXECUTED
    assert mach.is_active("Foo")


# -------------------------------------------------------------------------- faults


@pytest.mark.parametrize("name", ["Fooo_enter", "Fooo_exit", "Fooo_state", "Fooo_end"])
def test_a_name_with_a_phase_that_matches_no_state_is_a_fault_with_a_hint(name: str) -> None:
    (fault,) = _faults(_machine(), {name: _ignore})

    assert name in fault
    assert f"did you mean '{name.replace('Fooo', 'Foo')}'?" in fault


@pytest.mark.parametrize("name", ["Foo_Baar", "Baar_Foo", "Foo_helper", "Foo_entr"])
def test_two_names_of_which_one_is_known_are_a_fault(name: str) -> None:
    (fault,) = _faults(_machine(), {name: _ignore})

    assert name in fault


@pytest.mark.parametrize("name", ["load_state", "on_enter", "the_end", "emergency_exit"])
def test_whatever_ends_like_a_handler_must_be_one(name: str) -> None:
    (fault,) = _faults(_machine(), {name: _ignore})

    assert name in fault


@pytest.mark.parametrize("name", ["Any_exit", "Any_end", "Any_Any", "Any_Qux"])
def test_what_any_does_not_have_is_a_fault(name: str) -> None:
    (fault,) = _faults(_machine(), {name: _ignore})

    assert name in fault


@pytest.mark.parametrize(
    ("states", "name"),
    [
        (("A", "B", "A_B", "B_C", "C"), "A_B_C"),  # A_B and C, or A and B_C
        (("Foo", "enter"), "Foo_enter"),  # entering Foo, or from Foo to enter
        (("A", "A_B", "B_enter"), "A_B_enter"),
    ],
)
def test_a_name_with_two_meanings_is_a_fault(states: tuple[str, ...], name: str) -> None:
    mach = _machine(*states)
    assert len(parse(mach.schema, name)) == 2

    (fault,) = _faults(mach, {name: _ignore})

    assert name in fault
    assert "two meanings" in fault


@pytest.mark.parametrize(
    "fn",
    [
        lambda: None,
        lambda event, more: None,
        lambda event, *, more: None,
        lambda *, event: None,
        partial(lambda event, more: None),
        divmod,
    ],
)
def test_what_can_not_be_called_with_one_argument_is_a_fault(fn: object) -> None:
    (fault,) = _faults(_machine(), {"Foo_enter": fn})

    assert "Foo_enter" in fault
    assert "one argument" in fault


@pytest.mark.parametrize(
    "fn",
    [
        lambda event: None,
        lambda event, more=1: None,
        lambda *events: None,
        lambda event, **more: None,
        lambda event, *, more=1: None,
        partial(lambda more, event: None, 1),
        print,
        [].append,
        id,
        type,  # has no signature that could be read
    ],
)
def test_what_can_be_called_with_one_argument_is_fine(fn: object) -> None:
    mach = _machine()

    mach.bind({"Foo_enter": fn})

    assert mach.add("Foo") == Result.EXECUTED


def test_a_method_that_takes_no_event_is_a_fault() -> None:
    class Handlers:
        def Foo_enter(self) -> None: ...

        def Foo_state(self, event: Event, more: int) -> None: ...

    faults = _faults(_machine(), Handlers())

    assert [fault.split()[0] for fault in faults] == ["Foo_enter", "Foo_state"]


def test_a_decorated_method_is_judged_by_what_it_wraps() -> None:
    def logged(fn: Callable[..., object]) -> Callable[..., object]:
        @wraps(fn)
        def call(*args: object) -> object:
            return fn(*args)

        return call

    class Handlers:
        @logged
        def Foo_enter(self, event: Event) -> None: ...

    class Faulty:
        @logged
        def Foo_enter(self) -> None: ...

    _machine().bind(Handlers())
    assert len(_faults(_machine(), Faulty())) == 1


def test_something_with_the_name_of_a_handler_that_is_no_function_is_a_fault() -> None:
    (fault,) = _faults(_machine(), {"Foo_enter": 5})

    assert "Foo_enter" in fault
    assert "5" in fault


def test_all_faults_are_listed_at_once() -> None:
    class Handlers:
        def Foo_enter(self) -> None: ...

        def Fooo_state(self, event: Event) -> None: ...

        def Foo_Qux(self, event: Event) -> None: ...

        def Bar_state(self, event: Event) -> None: ...

    faults = _faults(_machine(), Handlers())

    assert len(faults) == 3


def test_a_handler_error_names_the_object_and_is_a_machine_error() -> None:
    class Handlers:
        def Nope_enter(self, event: Event) -> None: ...

    with pytest.raises(MachineError, match="(?s)Handlers.*Nope_enter"):
        _machine().bind(Handlers())


def test_nothing_is_bound_when_there_is_a_fault() -> None:
    mach = _machine()
    heard: Heard = []

    _faults(mach, {**_hear(heard, "Foo_state"), "Nope_state": _ignore})
    mach.add("Foo")

    assert heard == []


def test_a_machine_is_not_built_with_faulty_handlers() -> None:
    with pytest.raises(HandlerError, match="Nope_enter"):
        Machine({"Foo": State()}, handlers={"Nope_enter": _ignore})


# ---------------------------------------------------------------------- what is bound


def test_private_names_and_other_methods_are_left_alone() -> None:
    class Handlers:
        Foo_count = 3

        def __init__(self) -> None:
            self.state = 1

        def _Foo_helper(self) -> None: ...

        def __len__(self) -> int:
            return 0

        def work(self, a: int, b: int) -> None: ...

        def load_file(self) -> None: ...

        def enter(self) -> None: ...

    mach = _machine()

    mach.bind(Handlers())

    assert mach.add("Foo") == Result.EXECUTED


def test_properties_are_not_touched() -> None:
    class Handlers:
        @property
        def Foo_enter(self) -> object:
            raise AssertionError("read")

        @property
        def connection(self) -> object:
            raise AssertionError("read")

    mach = _machine()

    mach.bind(Handlers())

    assert mach.add("Foo") == Result.EXECUTED


def test_cached_properties_are_not_touched() -> None:
    class Handlers:
        @cached_property
        def connection(self) -> object:
            raise AssertionError("read")

        def Foo_state(self, event: Event) -> None: ...

    _machine().bind(Handlers())


def test_a_module_can_be_bound() -> None:
    mach = _machine()
    handlers_module.HEARD.clear()

    with mach.bind(handlers_module):
        mach.add("Foo")
    mach.toggle("Foo")

    assert handlers_module.HEARD == ["Foo_enter", "Foo_state"]


def test_a_module_is_named_in_the_reason_of_a_veto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers_module, "Foo_enter", lambda event: False)
    mach = _machine()
    mach.bind(handlers_module)

    assert mach.add("Foo").why == "vetoed by tests.handlers_module.Foo_enter"


def test_functions_set_on_an_object_and_static_and_class_methods_are_bound() -> None:
    heard: Heard = []

    class Handlers:
        @staticmethod
        def Foo_enter(event: Event) -> None:
            heard.append(event.name)

        @classmethod
        def Foo_state(cls, event: Event) -> None:
            heard.append(event.name)

    handlers = Handlers()
    vars(handlers)["Foo_end"] = lambda event: heard.append(event.name)
    mach = _machine()
    mach.bind(handlers)

    mach.add("Foo")
    mach.remove("Foo")

    assert heard == ["Foo_enter", "Foo_state", "Foo_end"]


def test_inherited_handlers_are_bound_and_overridden_ones_replaced() -> None:
    heard: Heard = []

    class Base:
        def Foo_enter(self, event: Event) -> None:
            heard.append("base enter")

        def Foo_state(self, event: Event) -> None:
            heard.append("base state")

    class Own(Base):
        def Foo_state(self, event: Event) -> None:
            heard.append("own state")

    mach = _machine()
    mach.bind(Own())
    mach.add("Foo")

    assert heard == ["base enter", "own state"]


def test_binding_a_class_instead_of_an_instance_is_a_fault_with_advice() -> None:
    class Handlers:
        def Foo_enter(self, event: Event) -> None: ...

    (fault,) = _faults(_machine(), Handlers)

    assert "Handlers()" in fault


def test_a_class_of_static_methods_can_be_bound() -> None:
    class Handlers:
        @staticmethod
        def Foo_enter(event: Event) -> bool:
            return False

    mach = _machine()
    mach.bind(Handlers)

    assert mach.add("Foo").why == "vetoed by Handlers.Foo_enter"


def test_several_bindings_are_called_in_binding_order_and_the_first_veto_ends_it() -> None:
    mach = _machine()
    heard: Heard = []

    def hear(who: str, verdict: object = None) -> dict[str, object]:
        def call(event: Event) -> object:
            heard.append(f"{who} {event.name}")
            return verdict

        return {"Foo_enter": call, "Any_enter": call}

    mach.bind(hear("first"))
    second = mach.bind(hear("second", verdict=False))
    mach.bind(hear("third"))
    assert mach.add("Foo") == Result.CANCELED
    assert heard == ["first Foo_enter", "second Foo_enter"]

    heard.clear()
    second.unbind()
    assert mach.add("Foo") == Result.EXECUTED
    assert heard == [
        f"{who} {name}" for name in ("Foo_enter", "Any_enter") for who in ("first", "third")
    ]


def test_one_object_bound_twice_is_called_twice_and_each_binding_undoes_its_own() -> None:
    mach = _machine()
    heard: Heard = []
    handlers = _hear(heard, "Foo_state")

    first = mach.bind(handlers)
    mach.bind(handlers)
    mach.add("Foo")
    assert len(heard) == 2

    first.unbind()
    first.unbind()  # a second call does nothing
    mach.set()
    mach.add("Foo")
    assert len(heard) == 3


def test_handlers_bound_by_a_handler_are_called_from_the_next_transition_on() -> None:
    mach = _machine()
    heard: Heard = []
    mach.bind({"Foo_enter": lambda event: mach.bind(_hear(heard, "Foo_state", "Bar_state"))})

    mach.add("Foo")
    assert heard == []
    mach.add("Bar")
    assert heard == ["Bar_state"]


def test_handlers_given_to_the_machine_are_bound_in_order() -> None:
    heard: Heard = []
    mach = Machine(
        {"Foo": State()},
        handlers=(
            {"Foo_state": lambda event: heard.append("one")},
            {"Foo_state": lambda event: heard.append("two")},
        ),
    )

    mach.add("Foo")

    assert heard == ["one", "two"]


# ------------------------------------------------------------------------------- on


def test_a_listener_hears_after_the_handler_and_can_not_veto() -> None:
    mach = _machine()
    heard: Heard = []

    def listen(event: Event) -> bool:
        heard.append(f"listener {event.name}")
        return False

    mach.on("Foo_enter", listen)
    mach.bind({"Foo_enter": lambda event: heard.append("handler")})

    assert mach.add("Foo") == Result.EXECUTED
    assert heard == ["handler", "listener Foo_enter"]


def test_a_listener_hears_of_a_name_that_no_handler_has() -> None:
    mach = _machine()
    heard: Heard = []
    names = ["Foo_enter", "Foo_state", "Foo_exit", "Foo_end", "Foo_Bar", "Foo_Any", "Any_Bar"]
    for name in (*names, "Any_enter", "Any_state", "Foo_Foo"):
        mach.on(name, lambda event: heard.append(event.name))

    mach.add("Foo")
    assert heard == ["Foo_enter", "Any_enter", "Foo_state", "Any_state"]
    heard.clear()
    mach.add("Foo")
    assert heard == ["Foo_Foo", "Any_enter", "Any_state"]
    heard.clear()
    mach.set("Bar")
    assert heard == [
        *("Foo_exit", "Foo_Bar", "Foo_Any", "Any_Bar", "Any_enter", "Foo_end", "Any_state"),
    ]


def test_a_listener_does_not_hear_of_a_name_that_was_vetoed() -> None:
    mach = _machine()
    heard: Heard = []
    mach.bind({"Foo_enter": lambda event: False})
    mach.on("Foo_enter", lambda event: heard.append(event.name))

    mach.add("Foo")

    assert heard == []


def test_a_listener_that_raises_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mach = _machine()

    def fail(event: Event) -> None:
        raise ValueError("in a listener")

    mach.on("Foo_enter", fail)
    mach.on("Foo_state", fail)

    assert mach.add("Foo") == Result.EXECUTED
    assert mach.error is None
    assert not mach.is_active("Exception")
    assert caplog.text.count("ValueError: in a listener") == 2


def test_a_listener_stops_when_it_is_unbound() -> None:
    mach = _machine()
    heard: Heard = []

    with mach.on("Foo_state", lambda event: heard.append(event.name)):
        mach.add("Foo")
    mach.set()
    mach.add("Foo")

    assert heard == ["Foo_state"]


def test_a_listener_gets_the_args() -> None:
    mach = _machine()
    heard: list[dict[str, object]] = []
    mach.on("Foo_state", lambda event: heard.append(dict(event.args)))

    mach.add("Foo", id=1)

    assert heard == [{"id": 1}]


@pytest.mark.parametrize("name", ["Nope_state", "Foo", "Foo_helper", "", "Any_end"])
def test_listening_to_a_name_that_matches_nothing_is_a_handler_error(name: str) -> None:
    with pytest.raises(HandlerError) as caught:
        _machine().on(name, _ignore)

    assert name in str(caught.value)


def test_listening_with_a_hint() -> None:
    with pytest.raises(HandlerError, match="did you mean 'Foo_state'"):
        _machine().on("Fo_state", _ignore)


@pytest.mark.parametrize("fn", [None, 5, lambda: None, lambda a, b: None])
def test_a_listener_that_can_not_be_called_with_an_event_is_a_handler_error(fn: object) -> None:
    with pytest.raises(HandlerError, match="Foo_state"):
        _machine().on("Foo_state", fn)  # type: ignore[arg-type]  # wrong on purpose


def test_listening_to_what_is_no_name_is_a_handler_error() -> None:
    with pytest.raises(HandlerError, match="5"):
        _machine().on(5, _ignore)  # type: ignore[arg-type]  # wrong on purpose


def test_several_names_can_be_listened_to_from_the_same_transition_on() -> None:
    mach = _machine()
    heard: Heard = []

    binding = mach.listen(_hear(heard, "Foo_state", "Foo_end"), lambda: heard.append("started"))
    mach.add("Foo")
    mach.remove("Foo")
    binding.unbind()
    mach.add("Foo")

    assert heard == ["started", "Foo_state", "Foo_end"]
