"""A link is told what has moved since it was told last, or all if that can not be said."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from asyncmachine import Machine, State
from asyncmachine.mirror import Mirror
from asyncmachine.net import wire
from asyncmachine.net.carriers.socket import SocketCarrier
from asyncmachine.net.feed import Feed
from asyncmachine.net.link import Link
from tests.races import PATIENCE, start, together


class Shown:
    """A machine, and a mirror at the other end of a real link."""

    def __init__(self) -> None:
        near, far = socket.socketpair()
        self.machine = Machine(
            {"Foo": State(), "Bar": State(), "Hit": State(multi=True)}, id="home"
        )
        self.mirror = Mirror("mirror", self.machine.schema)
        self.messages: list[wire.Message] = []
        self.scheduled: list[Feed] = []
        self._came = threading.Condition()
        self.link = Link(lambda messages: True, lambda error: None)
        self._there = Link(self._take, lambda error: None)
        self.link.attach(SocketCarrier(near))
        self._there.attach(SocketCarrier(far))
        self.link.start_reading()
        self._there.start_reading()
        self.feed = Feed(self.machine, 1, self.link, self.scheduled.append)
        self.feed.whole()
        self._calls = 0

    def _take(self, messages: list[wire.Message]) -> bool:
        for message in messages:
            if isinstance(message, wire.Done | wire.Changed):
                self.mirror.follow(message.moved, message.order)
                assert self.mirror.total == message.total
            elif isinstance(message, wire.Snapshot):
                self.mirror.replace(message.ticks, message.order)
        with self._came:
            self.messages += messages
            self._came.notify_all()
        return True

    def catch_up(self) -> None:
        """Tell that a call is done, and wait until that has arrived."""
        self._calls += 1
        self.feed.done(self._calls)
        with self._came:
            assert self._came.wait_for(self._caught_up, PATIENCE)
        assert self.mirror.time() == self.machine.time()
        assert self.mirror.active_states() == self.machine.active_states()

    def _caught_up(self) -> bool:
        return any(isinstance(m, wire.Done) and m.call == self._calls for m in self.messages)

    def close(self) -> None:
        self.feed.close()
        self.link.close()
        self._there.close()


@pytest.fixture
def shown() -> Iterator[Shown]:
    made = Shown()
    yield made
    made.close()


def test_what_has_not_been_told_yet_is_scheduled_once(shown: Shown) -> None:
    for _ in range(5):
        shown.machine.toggle("Foo")
    assert shown.scheduled == [shown.feed]
    shown.feed.flush()
    shown.feed.flush()
    shown.machine.toggle("Foo")
    assert len(shown.scheduled) == 2
    shown.catch_up()
    changed = [each for each in shown.messages if isinstance(each, wire.Changed)]
    assert [each.moved for each in changed] == [[0, 5]]


def test_an_order_that_can_not_be_guessed_is_told(shown: Shown) -> None:
    for states in (("Hit", "Foo"), ("Foo", "Bar"), ("Bar", "Hit", "Foo"), ("Foo", "Hit", "Bar")):
        shown.machine.set(*states)
        shown.catch_up()


def test_clocks_that_go_back_and_errors_are_told_as_a_whole(shown: Shown) -> None:
    before = shown.machine.export_state()
    shown.machine.add("Foo", "Bar")
    shown.catch_up()
    shown.machine.import_state(before)
    shown.catch_up()
    shown.machine.add_error("no")
    shown.feed.flush()
    shown.catch_up()
    wholes = [each for each in shown.messages if isinstance(each, wire.Snapshot)]
    assert len(wholes) == 2
    assert wholes[-1].error is not None
    assert wholes[-1].error.message == "no"


def test_threads_that_tell_at_once_tell_in_order(shown: Shown) -> None:
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            shown.machine.toggle("Foo")
            shown.machine.add("Hit")

    moving = start(move)

    def tell() -> None:
        for n in range(200):
            shown.feed.flush()
            shown.feed.done(1_000_000 + n)

    together(tell, tell, tell)
    stop.set()
    moving.result(PATIENCE)
    shown.catch_up()


def test_a_closed_link_is_told_nothing(shown: Shown) -> None:
    shown.link.close()
    shown.machine.add("Foo")
    shown.feed.flush()
    shown.feed.done(1)
    shown.feed.tell_whole()
    shown.feed.close()
    shown.machine.add("Bar")
    assert len(shown.scheduled) == 1
