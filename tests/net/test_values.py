"""What can travel arrives equal; what can not is refused where it is sent, by name."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, timedelta
from enum import Enum, Flag, IntEnum

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncmachine.net import NotSerialisableError, RemoteError
from asyncmachine.net.values import Values, describe_error, rebuild_error
from asyncmachine.net.wire import ErrorInfo

Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - the plain kind


class Colour(Enum):
    RED = (255, 0, 0)
    BLUE = "blue"
    LOCK = threading.Lock()


class Level(IntEnum):
    LOW = 1


class Right(Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0
    names: tuple[str, ...] = ()


class Box(msgspec.Struct):
    point: Point
    level: Level = Level.LOW


@dataclasses.dataclass
class Picky:
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise KeyError("negative")


ALL = (Colour, Level, Right, Point, Box, Picky)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC))
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), plain, max_size=4))
def test_what_msgpack_can_carry_arrives_equal(args: dict[str, object]) -> None:
    values = Values()
    assert values.unpack(values.pack(args)) == args


@given(st.binary(max_size=200))
def test_whatever_arrives_is_read_or_refused(data: bytes) -> None:
    values = Values(ALL)
    for read in (values.unpack, values.unpack_value):
        try:
            read(data)
        except NotSerialisableError:
            pass


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Colour.LOCK,
        Level.LOW,
        Right.READ | Right.WRITE,
        Right.READ,
        Right(0),
        Point(1, 2.5, ("a",)),
        Box(Point(1)),
    ],
)
def test_named_types_arrive_as_they_are(value: object) -> None:
    values = Values(ALL)
    back = values.unpack_value(values.pack_value(value, "it"))
    assert back == value
    assert type(back) is type(value)
    nested = values.unpack(values.pack({"deep": [{"x": value}]}))
    assert nested == {"deep": [{"x": value}]}


def test_close_relatives_arrive_as_their_plain_kind() -> None:
    class Name(str):
        __slots__ = ()

    class Ratio(float):
        pass

    class Count(int):
        pass

    values = Values()
    args = {
        "tuple": (1, 2),
        "name": Name("x"),
        "ratio": Ratio(0.5),
        "count": Count(3),
        "array": bytearray(b"x"),
        "view": memoryview(b"yy")[1:],
        "map": OrderedDict(a=1),
    }
    back = values.unpack(values.pack(args))
    assert back == {"tuple": [1, 2], "name": "x", "ratio": 0.5, "count": 3, "array": b"x",
                    "view": b"y", "map": {"a": 1}}  # fmt: skip
    assert {type(each) for each in back.values()} == {list, str, float, int, bytes, dict}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "it is a object"),
        (2**64, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        ({1, 2}, "it is a set"),
        (timedelta(1), "timedelta"),
        (date(2026, 1, 1), "it is a date"),
        (Pair(1, 2), "it is a Pair"),
        ({(1, 2): 3}, "key"),
        ({object(): 3}, "key"),
        (Level.LOW, "wire_types"),
        (Point(1), "wire_types"),
        ("\udc80", "surrogates"),
        (lambda: 1, "function"),
    ],
)
def test_what_can_not_travel_is_named(value: object, why: str) -> None:
    values = Values()
    for args in ({"fine": 1, "culprit": value}, {"culprit": [{"deep": value}]}):
        with pytest.raises(NotSerialisableError) as caught:
            values.pack(args)
        assert "culprit" in str(caught.value)
        assert why in str(caught.value)


def test_what_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    round_: dict[str, object] = {}
    round_["x"] = round_
    for each in (loop, round_):
        with pytest.raises(NotSerialisableError, match="itself"):
            Values().pack({"it": each})


def test_the_types_of_fields_are_checked_when_they_arrive() -> None:
    wrong = Point("no")  # type: ignore[arg-type]
    values = Values(ALL)
    with pytest.raises(NotSerialisableError, match="int"):
        values.unpack(values.pack({"point": wrong}))
    unfit = Point(object())  # type: ignore[arg-type]
    with pytest.raises(NotSerialisableError, match="point"):
        values.pack({"point": unfit})
    picky = Picky(1)
    picky.n = -1
    with pytest.raises(NotSerialisableError):
        values.unpack(values.pack({"picky": picky}))


def test_a_type_that_only_one_side_names_is_refused_with_its_name() -> None:
    data = Values(ALL).pack({"point": Point(1)})
    with pytest.raises(NotSerialisableError, match="Point is not among the wire_types"):
        Values().unpack(data)


def test_wire_types_are_checked() -> None:
    with pytest.raises(TypeError, match="dataclass"):
        Values([int])
    other = dataclasses.make_dataclass("Point", ["x"])
    with pytest.raises(ValueError, match="two wire types"):
        Values([Point, other])


def test_what_stays_behind_is_told() -> None:
    values = Values()
    data, stays = values.without_what_stays({"a": 1, "lock": threading.Lock(), "b": 2})
    assert values.unpack(data) == {"a": 1, "b": 2}
    assert stays == ["lock"]


def test_an_error_keeps_its_type_name_text_notes_and_traceback() -> None:
    def fail() -> None:
        raise LookupError("nowhere")

    with pytest.raises(LookupError) as caught:
        fail()
    caught.value.add_note("look again")
    values = Values()
    back = values.unpack(values.pack({"error": caught.value}))["error"]
    assert isinstance(back, RemoteError)
    assert (back.type_name, back.message, back.notes) == ("LookupError", "nowhere", ("look again",))
    assert back.__traceback__ is not None
    again = rebuild_error(describe_error(back))
    assert (again.type_name, again.message, again.notes) == (
        "LookupError",
        "nowhere",
        ("look again",),
    )


def test_errors_of_any_size_travel_and_strange_ones_do_no_harm() -> None:
    big = ValueError("x" * 10_000_000 + "\udc80")
    for _ in range(100):
        big.add_note("n" * 100_000)
    assert len(Values().pack({"error": big})) < 2_000_000

    class StrangeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe_error(StrangeError()).type_name.endswith("StrangeError")
    for trace in ("{", "[]", '{"tb_frame": 3}', "[" * 100_000):
        assert rebuild_error(ErrorInfo("E", "m", [], trace)).__traceback__ is None


def test_empty_args_are_nothing_on_the_wire() -> None:
    values = Values()
    assert values.pack({}) == b""
    assert values.unpack(b"") == {}


def test_a_point_of_time_without_a_zone_stays_without() -> None:
    values = Values()
    naive = datetime(2026, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001
    assert values.unpack(values.pack({"t": naive})) == {"t": naive}
