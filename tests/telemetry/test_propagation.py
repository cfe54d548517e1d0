"""Which span is current, and how that survives late handlers, other threads and leaks."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.context import Context, attach, detach, get_current, get_value, set_value
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from asyncmachine.running import LOCAL, Frame
from asyncmachine.telemetry.propagation import (
    Contexts,
    Lease,
    below,
    parse,
    span_context_before,
    span_context_here,
    traceparent,
)
from tests.races import outcome, start, switching_often, together


@pytest.fixture(autouse=True)
def _nothing_current() -> Iterator[None]:
    token = attach(Context())
    yield
    detach(token)


def span(number: int) -> Span:
    return NonRecordingSpan(SpanContext(1, number, is_remote=False))


def here() -> int:
    """The number of the current span, or 0."""
    return get_current_span().get_span_context().span_id


# Texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, 1, 3])
def test_a_traceparent_can_be_read_again(flags: int) -> None:
    context = SpanContext(0xABC << 100, 0xDEF, is_remote=False, trace_flags=TraceFlags(flags))
    found = parse(traceparent(context))
    assert found is not None
    assert (found.trace_id, found.span_id) == (context.trace_id, context.span_id)
    assert found.trace_flags & 1 == flags & 1
    assert found.is_remote


def test_what_is_no_span_has_no_traceparent() -> None:
    assert traceparent(SpanContext(0, 0, is_remote=False)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "00-00000000000000000000000000000000-0000000000000001-01",
        "00-00000000000000000000000000000001-0000000000000000-01",
        "ff-00000000000000000000000000000001-0000000000000001-01",
        "00-0000000000000000000000000000000g-0000000000000001-01",
        "00-" + "1" * 600,
        "\x00" * 55,
        "é" * 55,
    ],
)
def test_what_is_no_traceparent_is_nothing(text: str) -> None:
    assert parse(text) is None


# What is remembered ---------------------------------------------------------------------


def test_the_latest_are_remembered_and_memory_is_bounded() -> None:
    contexts = Contexts(most=10)
    for number in range(1, 1000):
        contexts["m", number] = SpanContext(1, number, is_remote=False)
    known = [number for number in range(1, 1000) if contexts.get(("m", number)) is not None]
    assert set(range(990, 1000)) <= set(known)
    assert len(known) <= 20


def test_many_threads_remember_at_once() -> None:
    contexts = Contexts(most=10)

    def remember(base: int) -> None:
        for number in range(base, base + 2000):
            contexts["m", number] = SpanContext(1, number, is_remote=False)
            found = contexts.get(("m", number))
            assert found is None or found.span_id == number

    with switching_often():
        together(*(lambda base=base: remember(base) for base in range(1, 40_001, 10_000)))
    numbers = [number for number in range(1, 50_000) if contexts.get(("m", number)) is not None]
    assert len(numbers) <= 30


# Leases ---------------------------------------------------------------------------------


def test_a_lease_is_current_until_it_is_given_back() -> None:
    assert span_context_here() is None
    outer = Lease(span(1))
    inner = Lease(span(2))
    assert here() == 2
    inner.give_back()
    assert here() == 1
    outer.give_back()
    assert here() == 0
    assert span_context_here() is None
    assert not get_current()


def test_a_lease_keeps_what_else_is_current() -> None:
    def check() -> None:
        attach(set_value("colour", "red"))
        lease = Lease(span(1))
        assert get_value("colour") == "red"
        assert set_value("x", 1)["colour"] == "red"
        assert here() == 1
        lease.give_back()
        assert get_value("colour") == "red"

    contextvars.copy_context().run(check)


def test_what_a_handler_has_left_attached_goes_with_the_lease() -> None:
    lease = Lease(span(1))
    attach(set_value("leaked", True))
    lease.give_back()
    assert here() == 0
    assert get_value("leaked") is None


def test_leases_may_be_given_back_in_any_order() -> None:
    first, second = Lease(span(1)), Lease(span(2))
    first.give_back()
    assert here() == 2
    second.give_back()
    assert here() == 0
    assert not get_current()
    assert span_context_here() is None


def test_leases_of_two_tracers_come_and_go_like_this() -> None:
    first, second = Lease(span(1)), Lease(span(2))
    for _ in range(3):
        third, fourth = Lease(span(3)), Lease(span(4))
        third.give_back()
        fourth.give_back()
        assert here() == 2
    first.give_back()
    second.give_back()
    assert here() == 0
    assert not get_current()


def test_a_lease_that_another_thread_gives_back_is_over(caplog: pytest.LogCaptureFixture) -> None:
    def check() -> None:
        outer = Lease(span(1))
        inner = Lease(span(2))
        outcome(start(inner.give_back))
        assert here() == 1
        outcome(start(outer.give_back))
        assert here() == 0
        assert span_context_here() is None
        late = Lease(span(3))  # what is over is not even looked at
        assert here() == 3
        late.give_back()
        assert here() == 0
        assert "colour" not in set_value("x", 1)
        with pytest.raises(KeyError):
            get_current()["current-span"]

    contextvars.copy_context().run(check)
    assert caplog.text == ""


def test_a_users_span_in_a_late_handler_comes_and_goes(caplog: pytest.LogCaptureFixture) -> None:
    from opentelemetry.trace import use_span

    def check() -> None:
        lease = Lease(span(1))
        with use_span(span(5)):
            outcome(start(lease.give_back))
            assert here() == 5
        assert here() == 0
        with use_span(span(6)):
            assert here() == 6
        assert here() == 0

    contextvars.copy_context().run(check)
    assert caplog.text == ""


def test_a_revoked_lease_shows_what_was_before() -> None:
    lease = Lease(span(1))
    lease.revoke()
    assert here() == 0
    lease.give_back()
    assert not get_current()


def test_a_lease_is_over_when_its_thread_has_left_what_it_was_made_in() -> None:
    def check() -> None:
        outer = LOCAL.here.top
        LOCAL.here.top = inside = Frame(None, outer)
        lease = Lease(span(1))
        captured = get_current()
        assert here() == 1
        LOCAL.here.top = Frame(None, inside)  # what it calls
        assert here() == 1
        LOCAL.here.top = outer
        assert here() == 0
        assert span_context_here() is None
        assert get_current_span(captured).get_span_context().span_id == 0
        late = Lease(span(2))  # what is over is not even looked at
        assert here() == 2
        late.give_back()
        assert here() == 0
        outcome(start(lease.give_back))
        assert here() == 0

    contextvars.copy_context().run(check)


def test_what_another_tracer_has_made_current_for_a_transition_was_not_there_before() -> None:
    def check() -> None:
        outer = LOCAL.here.top
        assert span_context_before() is None
        around = Lease(span(1))
        LOCAL.here.top = Frame(None, outer)
        first, second = Lease(span(2)), Lease(span(3))
        before = span_context_before()
        assert before is not None
        assert before.span_id == 1
        second.give_back()
        first.give_back()
        LOCAL.here.top = outer
        around.give_back()
        assert span_context_before() is None
        assert here() == 0

    contextvars.copy_context().run(check)


def test_another_thread_may_work_in_the_context_of_a_handler_that_is_over() -> None:
    lease = Lease(span(1))
    copied = contextvars.copy_context()
    captured = get_current()
    lease.give_back()
    seen: list[int] = []

    def look() -> None:
        seen.append(copied.run(here))
        attach(captured)
        seen.append(here())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [1, 1]


def test_below_a_span_there_is_nothing_else() -> None:
    context = below(span(7))
    assert context.keys() == set_span_in_context(span(7), Context()).keys()
    assert get_current_span(context).get_span_context().span_id == 7
    assert len(context) == 1
