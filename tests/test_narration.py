"""Log lines, each of semantics.md section 9, at its level and at no lower one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from asyncmachine import Event, LogLevel, Machine, State, Tracer, Transition

Act = Callable[[Machine], object]

STATES = {
    "Foo": State(add="Bar"),
    "Bar": State(),
    "Baz": State(remove="Bar", require="Foo"),
    "Qux": State(require="Bar"),
    "Auto": State(auto=True, require="Go"),
    "Go": State(),
    "Multi": State(multi=True),
}


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG, "asyncmachine"):
        yield


def _lines(
    caplog: pytest.LogCaptureFixture, level: LogLevel, *acts: Act, handlers: object = None
) -> list[str]:
    """The lines of the last of these acts."""
    mach = Machine(
        STATES, id="m", log_level=level, log_args=["id", "text"], handlers=handlers or {}
    )
    for act in acts[:-1]:
        act(mach)
    caplog.clear()
    acts[-1](mach)
    return [record.getMessage().partition(" ")[2] for record in caplog.records]


def _fail(event: Event) -> None:
    raise ValueError("no good")


LINES: list[tuple[LogLevel, str, list[Act], object]] = [
    (LogLevel.CHANGES, "[state] +Foo +Bar", [lambda m: m.add("Foo")], None),
    (LogLevel.CHANGES, "[state] -Foo", [lambda m: m.add("Foo"), lambda m: m.remove("Foo")], None),
    (
        LogLevel.CHANGES,
        "[state] +Baz -Bar",
        [lambda m: m.add("Foo"), lambda m: m.add("Baz")],
        None,
    ),
    (
        LogLevel.CHANGES,
        "[state] +Multi",
        [lambda m: m.add("Multi"), lambda m: m.add("Multi")],
        None,
    ),
    (LogLevel.CHANGES, "[state:auto] +Auto", [lambda m: m.add("Go")], None),
    (LogLevel.CHANGES, "[state] +Bar (id=123)", [lambda m: m.add("Bar", id=123, x=1)], None),
    (LogLevel.OPS, "[add] Foo", [lambda m: m.add("Foo")], None),
    (
        LogLevel.OPS,
        "[add] Foo Go (id=1, text=a)",
        [lambda m: m.add("Foo", "Go", text="a", id=1)],
        None,
    ),
    (LogLevel.OPS, "[remove] Foo", [lambda m: m.add("Foo"), lambda m: m.remove("Foo")], None),
    (LogLevel.OPS, "[set] Foo", [lambda m: m.set("Foo")], None),
    (LogLevel.OPS, "[implied] Bar", [lambda m: m.add("Foo")], None),
    (LogLevel.OPS, "[handler] Foo_state", [lambda m: m.add("Foo")], {"Foo_state": lambda e: None}),
    (LogLevel.OPS, "[cancel:reject] Qux", [lambda m: m.add("Qux")], None),
    (
        LogLevel.OPS,
        "[cancel] (Foo Bar) by Foo_enter",
        [lambda m: m.add("Foo")],
        {"Foo_enter": lambda e: False},
    ),
    (LogLevel.OPS, "[queue:add] Foo", [lambda m: m.eval(lambda: m.add("Foo"))], None),
    (
        LogLevel.OPS,
        "[queue:remove] Foo (id=2)",
        [lambda m: m.eval(lambda: m.remove("Foo", id=2))],
        None,
    ),
    (LogLevel.OPS, "[auto] Auto", [lambda m: m.add("Go")], None),
    (LogLevel.DECISIONS, "[add:auto] Auto", [lambda m: m.add("Go")], None),
    (
        LogLevel.DECISIONS,
        "[rel:remove] Bar by Baz",
        [lambda m: m.add("Foo"), lambda m: m.add("Baz")],
        None,
    ),
    (LogLevel.DECISIONS, "[reject] Qux(-Bar)", [lambda m: m.add("Qux")], None),
]


@pytest.mark.parametrize(
    ("level", "line", "acts", "handlers"), [pytest.param(*each, id=each[1]) for each in LINES]
)
def test_every_line_comes_at_its_level_and_above_and_not_below(
    caplog: pytest.LogCaptureFixture,
    level: LogLevel,
    line: str,
    acts: list[Act],
    handlers: object,
) -> None:
    for at in LogLevel:
        assert (line in _lines(caplog, at, *acts, handlers=handlers)) == (at >= level)


def test_an_error_is_told(caplog: pytest.LogCaptureFixture) -> None:
    for at in LogLevel:
        lines = _lines(caplog, at, lambda m: m.add("Foo"), handlers={"Foo_state": _fail})
        told = [line for line in lines if line.startswith("[error]")]
        assert bool(told) == (at >= LogLevel.OPS)
        assert all("ValueError" in line and "no good" in line for line in told)


def test_a_waiter_is_told_when_it_is_set(caplog: pytest.LogCaptureFixture) -> None:
    for at in LogLevel:
        mach = Machine(STATES, log_level=at)
        waiters = [mach.when("Foo", "Bar"), mach.when_tick("Foo", 1), mach.when_args("Foo", {})]
        caplog.clear()
        mach.add("Foo")
        lines = [record.getMessage().partition(" ")[2] for record in caplog.records]
        assert all(waiter.is_set() for waiter in waiters)
        told = sorted(line for line in lines if line.startswith("[when]"))
        wanted = ["[when] Foo", "[when] Foo", "[when] Foo Bar"]
        assert told == (wanted if at >= LogLevel.DECISIONS else [])


def test_every_offered_handler_is_told_at_everything(caplog: pytest.LogCaptureFixture) -> None:
    offered = [
        *("Any_Foo", "Foo_enter", "Any_Bar", "Bar_enter", "Any_enter"),
        *("Foo_state", "Bar_state", "Any_state"),
    ]

    for at in LogLevel:
        text = " ".join(_lines(caplog, at, lambda m: m.add("Foo")))
        for name in offered:
            assert (name in text) == (at is LogLevel.EVERYTHING)


def test_long_args_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = _lines(caplog, LogLevel.CHANGES, lambda m: m.add("Bar", text="x" * 500))

    assert line.startswith("[state] +Bar (text=xxx")
    assert len(line) < 100


def test_nothing_is_told_of_a_change_that_is_none(caplog: pytest.LogCaptureFixture) -> None:
    twice: list[Act] = [lambda m: m.add("Foo"), lambda m: m.add("Foo")]

    assert _lines(caplog, LogLevel.CHANGES, *twice) == []
    assert _lines(caplog, LogLevel.CHANGES, lambda m: m.add("Qux")) == []


def test_nothing_is_told_of_a_dry_run(caplog: pytest.LogCaptureFixture) -> None:
    assert _lines(caplog, LogLevel.EVERYTHING, lambda m: m.can_add("Foo")) == []
    assert _lines(caplog, LogLevel.EVERYTHING, lambda m: m.can_add("Qux")) == []


def test_a_refused_auto_state_is_told(caplog: pytest.LogCaptureFixture) -> None:
    lines = _lines(
        caplog, LogLevel.OPS, lambda m: m.add("Go"), handlers={"Auto_enter": lambda e: False}
    )

    assert "[auto] Auto" in lines
    assert "[cancel] (Auto Go) by Auto_enter" in lines


def test_lines_are_kept_with_the_transition(caplog: pytest.LogCaptureFixture) -> None:
    entries: list[list[str]] = []

    class Keeper(Tracer):
        def transition_end(self, tx: Transition) -> None:
            entries.append(list(tx.log_entries))

    mach = Machine(STATES, log_level=LogLevel.OPS, tracers=[Keeper()])
    mach.add("Foo")

    kept = entries[0]
    assert "[add] Foo" in kept
    assert "[implied] Bar" in kept
    assert "[state] +Foo +Bar" in kept
