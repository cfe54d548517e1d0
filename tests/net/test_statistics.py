"""What links tell of themselves, and how old a mirror may be: counted right, and never less."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from asyncmachine import Machine, State
from asyncmachine.net import connect, serve
from asyncmachine.net.carriers.socket import SocketCarrier
from asyncmachine.net.client import Call
from asyncmachine.net.link import Link
from asyncmachine.net.statistics import Lag, LinkStatistics
from asyncmachine.net.wire import Consumed, Message, Value
from tests.net.carrying import Cut
from tests.races import PATIENCE


class End:
    """A link that says when it has got so many messages."""

    def __init__(self, *, retain: bool = True) -> None:
        self.count = 0
        self.downs = 0
        self.changed = threading.Condition()
        self.link = Link(self._got, self._down, retain=retain)

    def _got(self, messages: list[Message]) -> bool:
        with self.changed:
            self.count += len(messages)
            self.changed.notify_all()
        return True

    def _down(self, error: Exception | None) -> None:
        with self.changed:
            self.downs += 1
            self.changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE)


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    a, b = End(), End()
    yield a, b
    for end in (a, b):
        end.link.detach()
        end.link.close()


def join(a: End, b: End, *, cut: int | None = None) -> None:
    left, right = socket.socketpair()
    has_a, has_b = a.link.detach(), b.link.detach()
    a.link.attach(SocketCarrier(left) if cut is None else Cut(left, cut), peer_received=has_b)
    b.link.attach(SocketCarrier(right), peer_received=has_a)
    a.link.start_reading()
    b.link.start_reading()


def test_a_link_that_was_never_up_has_done_nothing() -> None:
    assert End().link.statistics("x") == LinkStatistics("x")


def test_both_ends_count_the_same_messages_and_bytes(ends: tuple[End, End]) -> None:
    a, b = ends
    join(a, b)

    for number in range(200):
        a.link.post(Value(number, b"x" * number), now=number % 3 == 0)
    a.link.post_volatile(Consumed(0, 0, 1))
    b.until(lambda: b.count == 201)
    a.link.detach()  # what was on the way has been seen to
    b.until(lambda: b.downs == 1)

    sent, received = a.link.statistics("b"), b.link.statistics("a")
    assert sent.messages_sent == received.messages_received == 201
    assert sent.bytes_sent == received.bytes_received > 200 * 100
    assert (sent.is_up, received.is_up) == (False, False)
    assert (sent.reconnects, received.reconnects) == (0, 0)


def test_what_is_written_again_counts_again_but_arrives_once(ends: tuple[End, End]) -> None:
    a, b = ends
    join(a, b, cut=1000)

    for number in range(100):
        a.link.post(Value(number, b"x" * 50))
    b.until(lambda: b.downs == 1)
    join(a, b)
    b.until(lambda: b.count == 100)

    again = a.link.statistics("b")
    assert again.is_up
    assert again.reconnects == 1
    assert again.messages_sent > 100  # the one that was cut, at least
    assert b.link.statistics("a").messages_received == 100


def test_a_link_counts_on_from_the_one_that_it_replaces(ends: tuple[End, End]) -> None:
    a, b = ends
    join(a, b)
    for number in range(10):
        a.link.post(Value(number, b""))
    b.until(lambda: b.count == 10)
    a.link.detach()
    b.until(lambda: b.downs == 1)
    before = a.link.statistics("b")

    c, d = End(), End()
    c.link.count_on(a.link)
    assert c.link.statistics("b") == before
    join(c, d)
    c.link.post(Value(1, b""))
    d.until(lambda: d.count == 1)

    now = c.link.statistics("b")
    assert now.messages_sent == before.messages_sent + 1
    assert now.bytes_sent > before.bytes_sent
    assert now.reconnects == 1
    for end in (c, d):
        end.link.detach()
        end.link.close()


def test_a_remote_machine_tells_of_its_link() -> None:
    with (
        Machine({"Foo": State()}, id="m") as machine,
        serve(machine, "tcp://127.0.0.1:0") as server,
        connect(server.address) as remote,
    ):
        before = remote.statistics()
        remote.add("Foo")
        after = remote.statistics()

        assert after.name == server.address
        assert after.is_up
        assert after.messages_sent == before.messages_sent + 1
        assert after.messages_received == before.messages_received + 1
        assert after.bytes_sent > before.bytes_sent
        assert after.bytes_received > before.bytes_received


# How old a mirror is ---------------------------------------------------------------------------


class Asked:
    """Somebody who is asked, and answers when told to."""

    def __init__(self) -> None:
        self.answers: list[Callable[[Call], object]] = []
        self.reachable = True

    def __call__(self, answered: Callable[[Call], object]) -> bool:
        if self.reachable:
            self.answers.append(answered)
        return self.reachable

    def answer(self, error: Exception | None = None) -> None:
        call = Call(1, Link(lambda _: True, lambda _: None))
        call.when_done(self.answers.pop())
        if error is None:
            call.answer(Value(1, b""))
        else:
            call.fail(error)


def test_one_question_at_a_time_is_asked() -> None:
    lag, asked = Lag(), Asked()

    assert lag.measure(asked) is None
    ages = [lag.measure(asked) for _ in range(5)]

    assert len(asked.answers) == 1
    assert all(ages)
    assert ages == sorted(ages, key=float)  # type: ignore[arg-type]


def test_an_answer_tells_how_long_it_took_and_the_next_question_is_asked() -> None:
    lag, asked = Lag(), Asked()
    lag.measure(asked)
    waited = lag.measure(asked)
    asked.answer()

    took = lag.measure(asked)

    assert waited is not None
    assert took is not None
    assert took > waited
    assert len(asked.answers) == 1
    later = lag.measure(asked)
    assert later is not None
    assert later >= took


def test_while_nobody_can_be_asked_it_grows_from_the_first_question_on() -> None:
    lag, asked = Lag(), Asked()
    lag.measure(asked)
    asked.reachable = False
    asked.answer(ConnectionError("gone"))

    ages = [lag.measure(asked) for _ in range(3)]
    asked.reachable = True
    last = lag.measure(asked)
    asked.answer()
    took = lag.measure(asked)

    assert None not in ages
    assert ages == sorted(ages, key=float)  # type: ignore[arg-type]
    assert last is not None
    assert took is not None
    assert took < last  # the answer is to the latest question


def test_many_that_measure_at_once_ask_one_question() -> None:
    for _ in range(50):
        lag, asked = Lag(), Asked()
        threads = [threading.Thread(target=lag.measure, args=(asked,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(asked.answers) == 1
