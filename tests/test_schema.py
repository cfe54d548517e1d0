"""Declaring states: mappings, classes, what is checked, what is shared."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from asyncmachine import Machine, MachineError, Schema, SchemaError, State, States, group


def _faults(states: object) -> tuple[str, ...]:
    with pytest.raises(SchemaError) as caught:
        Schema(states)  # type: ignore[arg-type]  # faulty on purpose
    return caught.value.faults


class File(States):
    DownloadingFile = State(remove="FileDownloaded")
    FileDownloaded = State(remove=DownloadingFile)
    ProcessingFile = State(auto=True, require=FileDownloaded)


# ------------------------------------------------------------------------ mappings


def test_a_mapping_keeps_its_order_and_exception_comes_last() -> None:
    schema = Schema({"Foo": State(), "Bar": State(), "Baz": State()})

    assert schema.names == ("Foo", "Bar", "Baz", "Exception")


def test_a_declared_exception_keeps_its_place_and_its_properties() -> None:
    schema = Schema({"Exception": State(), "Foo": State()})

    assert schema.names == ("Exception", "Foo")
    assert schema.states["Exception"].multi is False


def test_exception_is_multi_unless_declared() -> None:
    assert Schema({"Foo": State()}).states["Exception"] == State(multi=True)


def test_an_empty_mapping_is_a_machine_of_exception_alone() -> None:
    assert Machine({}).states == ("Exception",)


def test_a_relation_takes_one_name_or_any_iterable_of_names() -> None:
    schema = Schema(
        {
            "Foo": State(add="Bar", require=("Baz",), after=(name for name in ("Bar", "Baz"))),
            "Bar": State(remove=["Qux"], after={"Baz": 1}),
            "Baz": State(),
            "Qux": State(),
        }
    )

    foo, bar = schema.states["Foo"], schema.states["Bar"]
    assert (foo.add, foo.require, foo.after) == (("Bar",), ("Baz",), ("Bar", "Baz"))
    assert (bar.remove, bar.after) == (("Qux",), ("Baz",))


def test_names_of_a_relation_count_once() -> None:
    schema = Schema({"Foo": State(add=["Bar", "Bar"]), "Bar": State()})

    assert schema.states["Foo"].add == ("Bar",)


def test_what_a_machine_is_built_from_is_compiled_once_and_shared() -> None:
    states = {"Foo": State(add="Bar"), "Bar": State()}

    assert Machine(states).schema is Machine(dict(states)).schema
    assert Schema(states) is Schema(Schema(states)) is Machine(Schema(states)).schema
    assert Schema(File) is Machine(File).schema is Schema(File)


def test_other_declarations_are_another_schema() -> None:
    assert Schema({"Foo": State()}) is not Schema({"Foo": State(multi=True)})


def test_a_schema_does_not_follow_its_mapping() -> None:
    states = {"Foo": State()}
    schema = Schema(states)

    states["Bar"] = State()

    assert schema.names == ("Foo", "Exception")


# ------------------------------------------------------------------------- classes


def test_an_attribute_is_the_name_of_the_state() -> None:
    assert File.ProcessingFile == "ProcessingFile"
    assert isinstance(File.ProcessingFile, str)
    assert File.names == ("DownloadingFile", "FileDownloaded", "ProcessingFile")


def test_an_earlier_state_may_be_named_by_its_attribute() -> None:
    states = Machine(File).schema.states

    assert states["FileDownloaded"].remove == ("DownloadingFile",)
    assert states["ProcessingFile"].require == ("FileDownloaded",)


def test_names_of_a_class_work_wherever_names_do() -> None:
    mach = Machine(File)

    assert mach.add(File.FileDownloaded)
    assert mach.is_active(File.FileDownloaded, File.ProcessingFile)
    assert mach.active_states() == ("ProcessingFile", "FileDownloaded")


def test_classes_merge_bases_first_left_to_right() -> None:
    class Left(States):
        A = State()
        B = State()

    class Right(States):
        B = State(multi=True)
        C = State()

    class Both(Left, Right):
        D = State()

    assert Both.names == ("A", "B", "C", "D")
    assert Schema(Both).states["B"].multi is False  # the resolution order takes Left's


def test_the_method_resolution_order_decides_between_bases() -> None:
    class Base(States):
        A = State()

    class Left(Base):
        L = State()

    class Right(Base):
        A = State(multi=True)

    class Both(Left, Right):
        pass

    assert Both.names == ("A", "L")
    assert Schema(Both).states["A"].multi is True  # Right comes before Base


def test_a_redeclared_state_replaces_the_inherited_one_and_keeps_its_place() -> None:
    class Base(States):
        A = State(multi=True)
        B = State()

    class Own(Base):
        C = State()
        A = State(auto=True)

    assert Own.names == ("A", "B", "C")
    assert Schema(Own).states["A"] == State(auto=True)
    assert Schema(Base).states["A"] == State(multi=True)


def test_an_inherited_state_can_be_widened() -> None:
    class Base(States):
        Start = State()
        Ready = State(require="Start")

    class Server(Base):
        Connected = State()
        Ready = Base.Ready.extend(require="Connected", multi=True)

    assert Schema(Server).states["Ready"] == State(require=("Start", "Connected"), multi=True)
    assert Schema(Base).states["Ready"] == State(require="Start")


def test_extend_joins_relations_and_replaces_properties_that_are_given() -> None:
    state = State(add="A", remove="B", require="C", after="D", auto=True, multi=True)

    wider = state.extend(add=["A", "E"], remove="F", require="G", after="H", auto=False)

    assert wider == State(
        add=("A", "E"), remove=("B", "F"), require=("C", "G"), after=("D", "H"), multi=True
    )
    assert state.extend() == state


def test_a_state_of_another_class_can_be_taken_over() -> None:
    class Other(States):
        Foo = File.ProcessingFile.extend(auto=False)
        FileDownloaded = File.FileDownloaded
        DownloadingFile = State()

    assert Other.names == ("Foo", "FileDownloaded", "DownloadingFile")
    assert Schema(Other).states["FileDownloaded"].remove == ("DownloadingFile",)


def test_a_class_without_states_and_a_plain_base_are_fine() -> None:
    class Mixin:
        helper = 1

    class Empty(States):
        pass

    class Some(Mixin, Empty):
        Foo = State()

    assert Empty.names == ()
    assert Some.names == ("Foo",)


def test_a_class_of_states_is_not_to_be_instantiated() -> None:
    with pytest.raises(TypeError, match="File is a declaration"):
        File()


def test_names_is_no_name_for_a_state_of_a_class() -> None:
    with pytest.raises(SchemaError, match="'names'"):
        type("Bad", (States,), {"names": State()})


def test_the_name_of_a_state_of_a_class_can_be_pickled_and_copied() -> None:
    assert pickle.loads(pickle.dumps(File.FileDownloaded)) == "FileDownloaded"
    assert copy.deepcopy(File.FileDownloaded) == "FileDownloaded"


# -------------------------------------------------------------------------- groups


def test_group_gives_a_tuple_of_names() -> None:
    assert group("Red", "Green") == ("Red", "Green")


def test_a_state_that_names_itself_through_a_group_does_not_remove_itself() -> None:
    lights = group("Red", "Green")
    mach = Machine({"Red": State(remove=lights), "Green": State(remove=lights)})

    assert mach.add("Red")
    assert mach.is_active("Red")
    assert mach.add("Green")
    assert mach.active_states() == ("Green",)


# -------------------------------------------------------------------------- faults


def test_an_unknown_name_in_a_relation_is_a_fault_with_a_hint() -> None:
    (fault,) = _faults({"Downloading": State(remove="Downloadd"), "Downloaded": State()})

    assert fault == "Downloading: remove: unknown state 'Downloadd'; did you mean 'Downloaded'?"


@pytest.mark.parametrize("relation", ["add", "remove", "require", "after"])
def test_every_relation_is_checked(relation: str) -> None:
    (fault,) = _faults({"Foo": State(**{relation: "Xyz"})})  # type: ignore[arg-type]

    assert "Foo" in fault
    assert relation in fault
    assert "'Xyz'" in fault


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (State(add=3), "3"),  # type: ignore[arg-type]
        (State(add=["Foo", None]), "None"),  # type: ignore[list-item]
        (State(auto="yes"), "auto"),  # type: ignore[arg-type]
        (State(multi=1), "multi"),  # type: ignore[arg-type]
        (State(add=State()), "add"),
        ("State", "'State'"),
        (None, "None"),
    ],
)
def test_a_wrong_type_is_a_fault(state: object, named: str) -> None:
    faults = _faults({"Foo": state})

    assert len(faults) == 1
    assert "Foo" in faults[0]
    assert named in faults[0]


@pytest.mark.parametrize("name", ["not a name", "1st", "", "Foo-Bar"])
def test_a_name_that_is_no_identifier_is_a_fault(name: str) -> None:
    (fault,) = _faults({name: State()})

    assert repr(name) in fault


def test_a_name_that_is_no_text_is_a_fault() -> None:
    (fault,) = _faults({7: State()})

    assert "7" in fault


def test_any_is_reserved() -> None:
    (fault,) = _faults({"Any": State()})

    assert "'Any' is reserved" in fault


def test_a_state_that_requires_what_it_removes_is_a_fault() -> None:
    (fault,) = _faults({"Foo": State(require="Bar", remove="Bar"), "Bar": State()})

    assert "Foo" in fault
    assert "Bar" in fault


def test_every_fault_is_reported_at_once() -> None:
    faults = _faults(
        {
            "Foo": State(add="Bra", require="Baz"),
            "Bar": State(auto=2),  # type: ignore[arg-type]
            "Baz": 5,
            "no good": State(),
            "Any": State(),
        }
    )

    assert len(faults) == 5


def test_a_contradiction_is_reported_beside_other_faults() -> None:
    faults = _faults({"Foo": State(require="Bar", remove="Bar"), "Bar": State(add="Nope")})

    assert any("Nope" in fault for fault in faults)
    assert any("Foo" in fault and "requires" in fault for fault in faults)


def test_a_faulty_class_is_reported_by_its_name_when_the_machine_is_built() -> None:
    class Broken(States):
        Foo = State(add="Fooo")

    with pytest.raises(SchemaError, match=r"Broken:\n- Foo: add: unknown state 'Fooo'"):
        Machine(Broken)


def test_a_schema_error_is_a_machine_error_and_a_value_error() -> None:
    with pytest.raises(MachineError):
        Schema({"Any": State()})
    with pytest.raises(ValueError, match="Any"):
        Schema({"Any": State()})


@pytest.mark.parametrize("states", [None, 5, "Foo", ["Foo"], State(), int])
def test_what_is_no_schema_is_a_fault(states: object) -> None:
    (fault,) = _faults(states)

    assert repr(states) in fault


# ------------------------------------------------------------------- data and text


def test_to_dict_and_from_dict_round_trip_through_json() -> None:
    schema = Schema(
        {
            "Foo": State(add="Bar", require="Baz", after="Bar", auto=True),
            "Bar": State(multi=True),
            "Baz": State(remove=("Foo",)),
        }
    )

    data = json.loads(json.dumps(schema.to_dict()))

    assert Schema.from_dict(data).to_dict() == schema.to_dict()
    assert Schema.from_dict(data) is schema
    assert list(data) == ["Foo", "Bar", "Baz", "Exception"]


def test_a_class_makes_a_round_trip_too() -> None:
    assert Schema.from_dict(Schema(File).to_dict()).names == (*File.names, "Exception")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ([], "[]"),
        ({"Foo": 3}, "Foo"),
        ({"Foo": {"ad": "Bar"}}, "'ad'; did you mean 'add'?"),
        ({"Foo": {"add": "Bar"}}, "'Bar'"),
        ({"Foo": {"auto": "x"}}, "auto"),
    ],
)
def test_malformed_data_is_a_schema_error(data: object, named: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Schema.from_dict(data)  # type: ignore[arg-type]  # malformed on purpose

    assert named in str(caught.value)


def test_a_schema_can_be_pickled_and_is_the_same_afterwards() -> None:
    schema = Schema(File)

    assert pickle.loads(pickle.dumps(schema)).to_dict() == schema.to_dict()


def test_states_and_schemas_show_what_they_are() -> None:
    assert repr(State()) == "State()"
    assert repr(State(add="A", multi=True)) == "State(add=('A',), multi=True)"
    assert repr(Schema({"Foo": State()})) == "Schema(Foo, Exception)"


def test_states_with_the_same_relations_are_equal() -> None:
    assert State(add="A") == State(add=["A"])
    assert State(add="A") != State(remove="A")
    assert State() != "State()"
    assert len({State(), State()}) == 2


def test_more_combinations_of_names_than_are_remembered_do_no_harm() -> None:
    names = [f"S{i}" for i in range(13)]
    schema = Schema({name: State() for name in names})

    for subset in range(1, 5000):
        asked = tuple(name for i, name in enumerate(names) if subset >> i & 1)
        assert schema.mask(asked) == subset
    assert len(schema.masks) <= 4096
    assert len(schema.positions) <= 4096
