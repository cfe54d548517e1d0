"""Mutations go out in order, and wait here when they can not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from asyncmachine import Result
from asyncmachine.net import NotAllowedError, NotSerialisableError, wire
from asyncmachine.net.carriers.socket import SocketCarrier
from asyncmachine.net.client import Call
from asyncmachine.net.inlet import SEND_WINDOW
from asyncmachine.net.link import Link
from asyncmachine.net.outlet import Outlet, Request
from asyncmachine.results import Ticket
from tests.races import PATIENCE, outcome, start, start_asleep, together


class Far:
    """The other end of a link: keeps what arrives."""

    def __init__(self) -> None:
        near, far = socket.socketpair()
        self.socks = (near, far)
        self.messages: list[wire.Message] = []
        self._more = threading.Condition()
        self.link = Link(lambda messages: True, lambda error: None)
        self._there = Link(self._take, lambda error: None)
        self.link.attach(SocketCarrier(near))
        self._there.attach(SocketCarrier(far))
        self._there.start_reading()
        self.link.start_reading()

    def _take(self, messages: list[wire.Message]) -> bool:
        with self._more:
            self.messages += messages
            self._more.notify_all()
        return True

    def await_messages(self, n: int) -> list[wire.Message]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.messages) >= n, PATIENCE)
            return list(self.messages)

    def close(self) -> None:
        self.link.close()
        self._there.close()
        for sock in self.socks:
            sock.close()


@pytest.fixture
def far() -> Iterator[Far]:
    made = Far()
    yield made
    made.close()


def outlet(limit: int = 100) -> tuple[Outlet, list[tuple[Exception, str]]]:
    refused: list[tuple[Exception, str]] = []
    return Outlet(limit, lambda error, source: refused.append((error, source))), refused


def request(n: int = 0, ticket: Ticket | None = None, call: Call | None = None) -> Request:
    return Request(call, 0, (n % 50,), b"", None, ticket, "pipe")


def send(out: Outlet, n: int = 0, ticket: Ticket | None = None, *, wait: bool = False) -> str:
    return out.send(request(n, ticket), wait=wait, timeout=PATIENCE)


def test_what_comes_while_the_connection_is_down_is_sent_in_order_afterwards(far: Far) -> None:
    out, _ = outlet()
    call = Call(7, far.link)
    for n in range(10):
        assert send(out, n) == ""
    assert out.call(request(10, call=call)) == ""
    assert call.link is None
    assert len(out) == 11
    assert [each.states for each in out.kept] == [(n,) for n in range(11)]
    out.resume(far.link, 3, afresh=False)
    assert call.link is far.link
    got = far.await_messages(11)
    assert [each.states for each in got] == [(n,) for n in range(11)]
    assert {each.channel for each in got} == {3}
    assert len(out) == 0


def test_past_the_limit_nothing_is_kept(far: Far) -> None:
    out, _ = outlet(limit=2)
    assert [send(out) for _ in range(3)] == ["", "", "the outbox is full (2)"]
    with pytest.raises(TimeoutError):
        out.send(request(), wait=True, timeout=0.001)


def test_who_may_wait_waits_for_the_window(far: Far) -> None:
    out, _ = outlet()
    out.resume(far.link, 1, afresh=False)
    for n in range(SEND_WINDOW):
        assert send(out, n, wait=True) == ""
    with pytest.raises(TimeoutError, match="took nothing"):
        out.send(request(), wait=True, timeout=0.001)
    waiting = start_asleep(lambda: send(out, wait=True))
    out.applied(1, [])
    assert outcome(waiting) == ""
    assert len(far.await_messages(SEND_WINDOW + 1)) == SEND_WINDOW + 1


def test_results_and_refusals_reach_whom_they_belong_to(far: Far) -> None:
    out, refused = outlet()
    out.resume(far.link, 1, afresh=False)
    tickets = [Ticket(object()) for _ in range(4)]
    for ticket in tickets:
        send(out, 0, ticket)
    out.applied(2, [wire.Refusal(1, "because")])
    out.applied(1, [])  # late, and of no interest
    assert tickets[0].final == Result.EXECUTED
    assert tickets[1].final is not None
    assert tickets[1].final.why == "because"
    assert tickets[2].final is None
    out.applied(4, [wire.Refusal(2, "no", "NotAllowedError"), wire.Refusal(3, "odd", "Strange")])
    assert [(type(error), source) for error, source in refused] == [
        (NotAllowedError, "pipe"),
        (NotAllowedError, "pipe"),
    ]


def test_another_process_knows_nothing_of_what_was_under_way(far: Far) -> None:
    out, _ = outlet()
    out.resume(far.link, 1, afresh=False)
    lost, kept = Ticket(object()), Ticket(object())
    send(out, 1, lost)
    out.pause()
    send(out, 2, kept)
    out.resume(far.link, 2, afresh=True)
    assert lost.final is not None
    assert "under way" in lost.final.why
    assert kept.final is None
    out.applied(1, [])
    assert kept.final == Result.EXECUTED


def test_the_end_cancels_everything(far: Far) -> None:
    out, _ = outlet()
    out.resume(far.link, 1, afresh=False)
    under_way, kept = Ticket(object()), Ticket(object())
    send(out, 1, under_way)
    out.pause()
    send(out, 2, kept)
    call = Call(1, far.link)
    out.call(request(call=call))
    out.end("over")
    for ticket in (under_way, kept):
        assert ticket.final is not None
        assert ticket.final.why == "over"
    assert isinstance(call.reply, wire.Canceled)
    assert send(out) == "over"
    assert out.call(request(call=Call(2, far.link))) == "over"
    out.resume(far.link, 1, afresh=False)
    assert send(out) == "over"


def test_a_call_that_was_given_up_is_not_sent(far: Far) -> None:
    out, _ = outlet()
    early, late = Call(1, far.link), Call(2, far.link)
    out.call(request(1, call=early))
    early.fail(TimeoutError())
    late.fail(TimeoutError())
    out.call(request(2, call=late))
    send(out, 3)
    out.resume(far.link, 1, afresh=False)
    assert [each.states for each in far.await_messages(1)] == [(3,)]  # type: ignore[union-attr]


def test_a_closed_link_is_as_good_as_none(far: Far) -> None:
    out, _ = outlet()
    out.resume(far.link, 1, afresh=False)
    far.link.close()
    call = Call(1, far.link)
    assert send(out, 1) == ""
    assert out.call(request(2, call=call)) == ""
    assert len(out) == 2
    assert call.link is None


def test_what_is_too_large_is_refused(far: Far) -> None:
    out, _ = outlet()
    big = Request(None, 0, (1,), bytes(wire.MAX_FRAME), None, ticket := Ticket(object()))
    call = Call(1, far.link)
    big_call = Request(call, 0, (1,), bytes(wire.MAX_FRAME))
    out.send(big, wait=False, timeout=None)
    out.call(big_call)
    send(out, 3)
    out.resume(far.link, 1, afresh=False)
    assert isinstance(call.error, NotSerialisableError)
    assert ticket.final == Result.CANCELED
    with pytest.raises(NotSerialisableError):
        out.call(big_call)
    with pytest.raises(NotSerialisableError):
        out.send(big, wait=False, timeout=None)
    assert len(far.await_messages(1)) == 1


def test_threads_send_and_call_at_once(far: Far) -> None:
    out, _ = outlet()
    out.resume(far.link, 1, afresh=False)

    def work(who: int) -> None:
        for n in range(200):
            if n % 2:
                out.call(Request(Call(1 + n, far.link), who, (n,), b""))
            else:
                out.send(Request(None, who, (n,), b""), wait=True, timeout=PATIENCE)

    together(*[lambda who=who: work(who) for who in range(3)])
    got = far.await_messages(600)
    for who in range(3):
        mine = [each.states[0] for each in got if each.kind == who]  # type: ignore[union-attr]
        assert mine == list(range(200))


def test_pausing_and_resuming_while_threads_send_loses_nothing(far: Far) -> None:
    out, _ = outlet(limit=10_000)
    stop = threading.Event()

    def flap() -> None:
        while not stop.is_set():
            out.pause()
            out.resume(far.link, 1, afresh=False)

    flapping = start(flap)
    for n in range(2000):
        assert out.send(Request(None, 0, (n,), b""), wait=False, timeout=None) == ""
    stop.set()
    outcome(flapping)
    got = far.await_messages(2000)
    assert [each.states[0] for each in got] == list(range(2000))  # type: ignore[union-attr]
