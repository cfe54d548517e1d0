"""Links over real sockets: nothing lost, nothing twice, nothing stuck."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncmachine.net import link as link_module
from asyncmachine.net import outgoing
from asyncmachine.net.carriers.socket import SocketCarrier
from asyncmachine.net.errors import ConnectionLostError, NotSerialisableError, ProtocolError
from asyncmachine.net.link import Link
from asyncmachine.net.outgoing import Outgoing
from asyncmachine.net.wire import (
    Ack,
    Applied,
    Bye,
    Consumed,
    Dispose,
    Message,
    Value,
    encode,
    frame,
)
from asyncmachine.oneshot import OneShot
from asyncmachine.threads import run_elsewhere
from tests.net.carrying import Cut
from tests.races import PATIENCE, outcome, start, switching_often


class Once(OneShot):
    def fire(self) -> None:
        self._fire()


def counted(number: int, size: int = 0) -> Message:
    return Value(number, b"x" * size)


def volatile(number: int) -> Message:
    return Consumed(0, 0, number)


class End:
    """A link that notes what it gets."""

    def __init__(self, **options: Any) -> None:
        self.got: list[int] = []
        self.volatile: list[int] = []
        self.downs: list[Exception | None] = []
        self.posted = self.corks = 0
        self.changed = threading.Condition()
        self.on_got: Callable[[list[Message]], bool] = lambda messages: True
        self.link = Link(self.on_messages, self.on_down, **options)

    def on_messages(self, messages: list[Message]) -> bool:
        with self.changed:
            for message in messages:
                if isinstance(message, Consumed):
                    self.volatile.append(message.count)
                else:
                    self.got.append(message.call)  # type: ignore[union-attr]
            self.changed.notify_all()
        return self.on_got(messages)

    def on_down(self, error: Exception | None) -> None:
        with self.changed:
            self.downs.append(error)
            self.changed.notify_all()

    def play(self, what: str, n: int) -> None:
        """Do one step of a random play."""
        if what in {"post", "later"}:
            for _ in range(n):
                self.posted += 1
                self.link.post(counted(self.posted), now=what == "post")
        elif what == "large":
            self.posted += 1
            self.link.post(counted(self.posted, n))
        elif what == "volatile":
            for i in range(n):
                self.link.post_volatile(volatile(i))
        elif what == "cork":
            self.corks += 1
            self.link.cork()
        elif self.corks:
            self.corks -= 1
            self.link.uncork()

    def until(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE)


@contextmanager
def closing(*ends: End) -> Iterator[None]:
    try:
        yield
    finally:
        for end in ends:
            end.link.detach()
            end.link.close()


_open: list[socket.socket] = []


@pytest.fixture(autouse=True)
def sockets_closed() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def sockets(buffer: int | None = None) -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for each in pair:
        if buffer is not None:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        _open.append(each)
    return pair


def join(a: End, b: End, *, cut: int | None = None, read: bool = True) -> None:
    """Connect two ends, as a handshake would."""
    left, right = sockets()
    has_a, has_b = a.link.detach(), b.link.detach()
    carrier = SocketCarrier(left) if cut is None else Cut(left, cut)
    a.link.attach(carrier, peer_received=has_b)
    b.link.attach(SocketCarrier(right), peer_received=has_a)
    if read:
        a.link.start_reading()
        b.link.start_reading()


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("stealing", [True, False])
@pytest.mark.parametrize("retain", [True, False])
def test_what_is_posted_arrives_once_and_in_order(now: bool, stealing: bool, retain: bool) -> None:
    a, b = End(retain=retain), End(retain=retain, stealing=stealing)
    with closing(a, b):
        join(a, b)
        for i in range(3000):
            a.link.post(counted(i), now=now)
        b.until(lambda: len(b.got) == 3000)
        assert b.got == list(range(3000))
        assert b.link.received == 3000
        assert a.link.pending == 0
        assert a.link.is_up
        a.link.detach()
        b.until(lambda: b.downs == [None])
        assert a.link.bytes_sent == b.link.bytes_received > 3000 * 4
        assert bool(b.link.bytes_sent) == retain


def test_what_is_posted_while_down_is_kept_and_volatile_messages_are_not() -> None:
    a, b = End(), End()
    with closing(a, b):
        a.link.post_volatile(volatile(1))
        a.link.post(counted(1))
        a.link.post(counted(2), now=False)
        a.link.post_encoded(encode(counted(3)))
        assert a.link.pending == 3
        assert not a.link.is_up
        assert not a.link.is_writable
        join(a, b)
        b.until(lambda: b.got == [1, 2, 3])
        assert b.volatile == []
        assert a.link.reconnects == 0
        a.link.detach()
        b.until(lambda: b.downs == [None])
        a.link.post_volatile(volatile(2))
        a.link.post(counted(4))
        join(a, b)
        b.until(lambda: b.got == [1, 2, 3, 4])
        assert b.volatile == []
        assert a.link.reconnects == 1
        assert a.downs == []


def test_volatile_messages_keep_their_place_among_the_others() -> None:
    order: list[object] = []
    a, b = End(), End()

    def note(messages: list[Message]) -> bool:
        order.extend(type(each).__name__ for each in messages)
        return True

    b.on_got = note
    with closing(a, b):
        join(a, b)
        a.link.cork()
        a.link.cork()
        for i in range(3):
            a.link.post(counted(i))
            a.link.post_volatile(volatile(i))
            a.link.post_volatile(volatile(i))
        a.link.uncork()
        assert a.link.pending == 9
        assert not a.link.is_writable
        a.link.uncork()
        assert a.link.pending == 0
        assert a.link.is_writable
        b.until(lambda: len(order) == 9)
        assert order == ["Value", "Consumed", "Consumed"] * 3


def test_volatile_messages_of_an_older_connection_are_dropped_and_what_follows_is_written() -> None:
    a, b = End(), End()
    with closing(a, b):
        join(a, b)
        a.link.cork()
        a.link.post_volatile(volatile(1))
        a.link.post(counted(1))
        a.link.detach()
        join(a, b)
        a.link.uncork()
        b.until(lambda: b.got == [1])
        assert b.volatile == []


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["post", "later", "volatile"]), st.integers(1, 700)),
        st.tuples(st.just("large"), st.integers(0, 200_000)),
        st.tuples(st.sampled_from(["cork", "uncork", "drop", "join"]), st.just(0)),
        st.tuples(st.just("cut"), st.integers(1, 5000)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("stealing", [False, True])
@settings(max_examples=80, deadline=None)
@given(here=steps, there=steps, small=st.booleans())
def test_counted_messages_arrive_once_and_in_order_whatever_happens(
    here: list[tuple[str, int]], there: list[tuple[str, int]], small: bool, stealing: bool
) -> None:
    with ExitStack() as stack:
        if small:
            stack.enter_context(windows(20, 3000, every=5, size=500))
        a, b = End(stealing=stealing), End()
        stack.enter_context(closing(a, b))
        join(a, b)
        for end, (what, n) in interleaved(a, b, here, there):
            if what in {"drop", "join", "cut"}:
                reconnect(a, b, what, n, end)
            else:
                end.play(what, n)
        for end in (a, b):
            while end.corks:
                end.play("uncork", 0)
        join(a, b)
        for end, other in ((a, b), (b, a)):
            want = other.posted
            end.until(lambda end=end, want=want: len(end.got) >= want)  # type: ignore[misc]
            assert end.got == list(range(1, want + 1))


def reconnect(a: End, b: End, what: str, n: int, end: End) -> None:
    if what == "drop":
        end.link.detach()
    else:
        join(a, b, cut=n or None)


def interleaved(
    a: End, b: End, here: list[tuple[str, int]], there: list[tuple[str, int]]
) -> Iterator[tuple[End, tuple[str, int]]]:
    for i in range(max(len(here), len(there))):
        if i < len(here):
            yield a, here[i]
        if i < len(there):
            yield b, there[i]


@contextmanager
def windows(messages: int, size_: int, *, every: int, size: int) -> Iterator[None]:
    """Make the windows small, so that a little traffic fills them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outgoing, "WINDOW", messages)
        patch.setattr(outgoing, "WINDOW_BYTES", size_)
        patch.setattr(outgoing, "ACK_BYTES", size)
        patch.setattr(link_module, "ACK_EVERY", every)
        patch.setattr(link_module, "ACK_BYTES", size)
        yield


def test_many_threads_post_at_once_and_each_keeps_its_order() -> None:
    a, b = End(), End()
    with switching_often(), closing(a, b):
        join(a, b)

        def poster(k: int) -> None:
            for i in range(500):
                a.link.post(counted(k * 1000 + i), now=bool(i % 3))

        for each in [start(lambda k=k: poster(k)) for k in range(6)]:  # type: ignore[misc]
            outcome(each)
        b.until(lambda: len(b.got) == 3000)
        for k in range(6):
            assert [n % 1000 for n in b.got if n // 1000 == k] == list(range(500))


def test_no_more_than_a_window_is_unacknowledged_and_the_rest_follows() -> None:
    a, b = End(), End()
    with windows(20, 3000, every=5, size=500), closing(a, b):
        join(a, b, read=False)
        for i in range(100):
            a.link.post(counted(i))
        assert a.link.unacknowledged == 20
        assert a.link.pending == 80
        a.link.start_reading()
        b.link.start_reading()
        b.until(lambda: len(b.got) == 100)
        # A message larger than a window passes, after others that are not acknowledged yet.
        a.link.post(counted(100, 10))
        a.link.post(counted(101, 5000))
        a.link.post(counted(102, 100))
        b.until(lambda: len(b.got) == 103)
        assert b.got == list(range(103))


def test_a_window_counts_bytes() -> None:
    a, b = End(), End()
    with windows(2000, 3000, every=5, size=500), closing(a, b):
        join(a, b, read=False)
        for i in range(10):
            a.link.post(counted(i, 1000))
        assert a.link.unacknowledged == 2
        a.link.post_volatile(volatile(1))
        assert a.link.pending == 9
        a.link.start_reading()
        b.link.start_reading()
        b.until(lambda: len(b.got) == 10 and b.volatile)


def test_posting_never_blocks_while_the_other_side_does_not_read() -> None:
    a, b = End(), End()
    with closing(a, b):
        join(a, b, read=False)
        for i in range(400):
            a.link.post(counted(i, 50_000), now=bool(i % 2))
        assert a.link.pending > 0
        assert not a.link.is_writable
        emptied = Once()
        a.link.on_writable = emptied.fire
        a.link.start_reading()
        b.link.start_reading()
        b.until(lambda: len(b.got) == 400)
        assert b.got == list(range(400))
        assert emptied.wait(PATIENCE)


def test_a_peer_that_does_not_keep_up_is_abandoned_and_told() -> None:
    a, b = End(), End()
    with closing(b):
        join(a, b, read=False)
        for i in range(200):
            a.link.post(counted(i, 50_000))
        a.link.abandon("too slow")
        assert a.link.is_closed
        with pytest.raises(ConnectionLostError):
            a.link.post(counted(1))
        b.link.start_reading()
        b.until(lambda: b.downs == [None])
        assert b.link.farewell == "too slow"
        assert len(b.got) < 200
        assert b.got == list(range(len(b.got)))
        a.until(lambda: a.downs == [None])
        assert a.link.pending == 0


def test_a_peer_that_reads_nothing_is_abandoned_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "_ABANDONING", 0.02)
    monkeypatch.setattr(link_module, "_CLOSING", 0.02)
    for abandoned in (True, False):
        a, b = End(), End()
        join(a, b, read=False)
        a.link.start_reading()
        for i in range(200):
            a.link.post(counted(i, 50_000))
        if abandoned:
            a.link.abandon("too slow")
        else:
            a.link.close()
        a.until(lambda a=a: a.downs == [None])  # type: ignore[misc]
        b.link.detach()


def test_a_closing_link_stops_writing_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "_CLOSING", 0.02)
    a, b = End(), End()
    join(a, b, read=False)
    a.link.cork()
    for i in range(200):
        a.link.post(counted(i, 50_000))
    a.link.close()
    assert a.downs == [None]
    b.link.start_reading()
    b.until(lambda: b.downs)
    assert b.link.farewell is None


@pytest.mark.parametrize("stealing", [True, False])
def test_close_writes_what_is_queued_and_says_farewell(stealing: bool) -> None:
    a, b = End(), End(stealing=stealing)
    join(a, b)
    a.link.cork()
    for i in range(10_000):
        a.link.post(counted(i))
    a.link.close("done here")
    a.link.close("again")
    b.until(lambda: b.downs == [None])
    assert b.got == list(range(10_000))
    assert b.link.farewell == "done here"
    assert not b.link.is_up
    assert a.downs == [None]
    assert a.link.is_closed
    with pytest.raises(ConnectionLostError):
        a.link.post(counted(1))
    with pytest.raises(ConnectionLostError):
        a.link.post_encoded(b"\x90")
    a.link.post_volatile(volatile(1))
    with pytest.raises(ConnectionLostError):
        a.link.attach(SocketCarrier(sockets()[0]))
    b.link.close()
    assert b.downs == [None]


def test_a_link_that_was_never_up_closes() -> None:
    a = End()
    a.link.post(counted(1))
    a.link.start_reading()
    a.link.read_on()
    assert a.link.detach() == 0
    a.link.close()
    assert a.downs == []


def test_a_link_may_be_closed_while_it_reads() -> None:
    a, b = End(), End()
    join(a, b)

    def close(messages: list[Message]) -> bool:
        b.link.close("enough")
        return True

    b.on_got = close
    a.link.post(counted(1))
    a.until(lambda: a.downs == [None])
    b.until(lambda: b.downs == [None])
    assert a.link.farewell == "enough"


def test_a_message_that_is_too_large_is_refused_with_sizes() -> None:
    a, b = End(), End(max_frame=1000)
    with closing(a, b):
        left, right = sockets()
        a.link.attach(SocketCarrier(left), peer_max_frame=1000)
        b.link.attach(SocketCarrier(right))
        b.link.start_reading()
        with pytest.raises(NotSerialisableError, match="2006 bytes.* at most 991"):
            a.link.post(counted(1, 2000))
        with pytest.raises(NotSerialisableError):
            a.link.post_encoded(b"x" * 992)
        with pytest.raises(NotSerialisableError):
            a.link.post_volatile(counted(1, 2000))
        fitting = next(n for n in range(1000, 0, -1) if len(encode(counted(0, n))) == 991)
        a.link.cork()
        for i in range(50):
            a.link.post(counted(i, 300))
            a.link.post(counted(i, fitting))
        a.link.uncork()
        b.until(lambda: len(b.got) == 100)


@pytest.mark.parametrize("stealing", [True, False])
@pytest.mark.parametrize(
    "sent",
    [
        b"garbage, and a lot of it",
        b"\x00\x00\x00\x01\xc1",
        (1 << 30).to_bytes(4, "big"),
        frame([encode(Ack(7))], volatile=True),
        frame([encode(Ack(-1))], volatile=True),
    ],
)
def test_what_is_not_of_the_protocol_ends_the_connection(sent: bytes, stealing: bool) -> None:
    a = End(stealing=stealing)
    with closing(a):
        left, right = sockets()
        a.link.attach(SocketCarrier(left))
        a.link.start_reading()
        right.send(sent)
        a.until(lambda: a.downs)
        assert isinstance(a.downs[0], ProtocolError)
        assert right.recv(10) == b""
        assert len(a.downs) == 1


def test_an_end_within_a_frame_is_an_end() -> None:
    a = End()
    with closing(a):
        left, right = sockets()
        a.link.attach(SocketCarrier(left))
        a.link.start_reading()
        whole = frame([encode(counted(1))])
        right.send(whole + whole[:-1])
        right.close()
        a.until(lambda: a.downs == [None])
        assert a.got == [1]
        assert a.link.received == 1


def test_what_came_before_garbage_or_a_farewell_is_seen_to_and_nothing_after() -> None:
    a = End()
    with closing(a):
        for last in (frame([encode(Bye("so long"))], volatile=True), b"\x00\x00\x00\x01\xc1"):
            a.got.clear()
            a.downs.clear()
            left, right = sockets()
            a.link.attach(SocketCarrier(left))
            a.link.start_reading()
            right.send(frame([encode(counted(1))]))
            a.until(lambda: a.got == [1])
            right.send(last + frame([encode(counted(2))]))
            a.until(lambda: a.downs)
            assert a.got == [1]


def test_an_error_of_who_gets_the_messages_ends_the_connection() -> None:
    a, b = End(), End()
    with closing(a, b):
        join(a, b)

        def fail(messages: list[Message]) -> bool:
            raise ProtocolError("no such channel")

        b.on_got = fail
        a.link.post(counted(1))
        b.until(lambda: b.downs)
        assert isinstance(b.downs[0], ProtocolError)
        a.until(lambda: a.downs == [None])


def test_an_impossible_count_is_refused() -> None:
    a, b = End(), End()
    with closing(a, b):
        join(a, b)
        a.link.post(counted(1))
        b.until(lambda: b.got == [1])
        with pytest.raises(ProtocolError):
            a.link.attach(SocketCarrier(sockets()[0]), peer_received=2)
        with pytest.raises(ProtocolError):
            a.link.attach(SocketCarrier(sockets()[0]), peer_received=-1)
    c, d = End(retain=False), End(retain=False)
    with closing(c, d):
        join(c, d)
        c.link.post(counted(1))
        d.until(lambda: d.got == [1])
        with pytest.raises(ProtocolError):
            c.link.attach(SocketCarrier(sockets()[0]), peer_received=0)
        c.link.attach(SocketCarrier(sockets()[0]), peer_received=1)


def test_a_write_that_fails_ends_the_connection_after_what_has_arrived() -> None:
    for stealing in (False, True) * 10:
        a = End(stealing=stealing)
        with closing(a):
            left, right = sockets()
            a.link.attach(SocketCarrier(left))
            right.send(frame([encode(counted(1))]))
            right.close()
            a.link.start_reading()
            a.link.post(counted(1))
            a.link.post(counted(2))
            a.until(lambda a=a: a.downs)  # type: ignore[misc]
            assert a.got == [1]
            assert not a.link.is_up


def test_a_write_that_fails_before_anybody_reads_ends_the_connection() -> None:
    a = End()
    with closing(a):
        left, right = sockets()
        a.link.attach(SocketCarrier(left))
        right.close()
        a.link.post(counted(1))
        assert len(a.downs) == 1
        a.link.start_reading()
        assert len(a.downs) == 1


@pytest.mark.parametrize("stealing", [True, False])
def test_a_write_that_fails_alone_ends_the_connection(stealing: bool) -> None:
    for more in (False, True):
        a = End(stealing=stealing)
        with closing(a):
            left, right = sockets()
            a.link.attach(SocketCarrier(left))
            a.link.start_reading()
            right.shutdown(socket.SHUT_RD)  # it still could send
            if more:
                right.send(frame([encode(counted(1))]))
            a.link.post(counted(1))
            a.until(lambda a=a: a.downs)  # type: ignore[misc]
            assert isinstance(a.downs[0], OSError)


def test_a_closed_carrier_ends_the_connection_as_soon_as_it_is_read() -> None:
    for stealing in (False, True):
        a = End(stealing=stealing)
        with closing(a):
            left, _ = sockets()
            carrier = SocketCarrier(left)
            left.close()
            a.link.attach(carrier)
            a.link.start_reading()
            a.until(lambda a=a: a.downs)  # type: ignore[misc]


def test_carriers_change_while_threads_post_and_read() -> None:
    for stealing in (False, True):
        a, b = End(stealing=stealing), End()
        with switching_often(), closing(a, b):

            def poster(end: End) -> None:
                for i in range(3000):
                    end.link.post(counted(i), now=i % 5 > 0)

            posters = [start(partial(poster, end)) for end in (a, b)]
            for _ in range(40):
                join(a, b)
            for each in posters:
                outcome(each)
            a.until(lambda a=a: len(a.got) == 3000)  # type: ignore[misc]
            b.until(lambda b=b: len(b.got) == 3000)  # type: ignore[misc]
            assert a.got == b.got == list(range(3000))


def test_a_carrier_that_is_detached_as_somebody_begins_to_write_leaves_the_link_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = End(), End()
    with closing(a, b):
        join(a, b)
        detaching = [a.link]
        ready = Outgoing.is_ready

        def detach_then(outgoing: Outgoing) -> bool:
            found = ready(outgoing)
            if detaching and outgoing.queue:
                detaching.pop().detach()
            return found

        monkeypatch.setattr(Outgoing, "is_ready", detach_then)
        a.link.post(counted(1))
        assert not detaching

        join(a, b)
        a.link.post(counted(2))
        b.until(lambda: b.got == [1, 2])


def test_a_reading_thread_may_detach_and_attach() -> None:
    a, b = End(), End()
    with closing(a, b):
        join(a, b)
        joined = Once()

        def again(messages: list[Message]) -> bool:
            if len(b.got) == 1:
                join(a, b)
                joined.fire()
            return True

        b.on_got = again
        a.link.post(counted(1))
        assert joined.wait(PATIENCE)
        a.link.post(counted(2))
        b.until(lambda: b.got == [1, 2])


def test_a_link_may_be_attached_again_when_it_is_told_that_it_is_down() -> None:
    a, b = End(), End()
    with closing(a, b):
        original = a.on_down
        back = threading.Semaphore(0)

        def again(error: Exception | None) -> None:
            original(error)
            if len(a.downs) < 20:
                join(a, b)
                back.release()

        a.link._on_down = again  # noqa: SLF001 - known only now
        join(a, b)
        for i in range(19):
            a.link.post(counted(i))
            b.link.detach()
            assert back.acquire(timeout=PATIENCE)
        b.until(lambda: b.got == list(range(19)))


# Reading elsewhere -----------------------------------------------------------------------------


class Caller:
    """Sends requests and waits for the answers, over one link."""

    def __init__(self, stealing: bool) -> None:
        self.calls: dict[int, Once] = {}
        self.client = End(stealing=stealing)
        self.server = End()
        self.client.on_got = self.answered
        self.server.on_got = self.echo
        join(self.client, self.server)

    def echo(self, messages: list[Message]) -> bool:
        for message in messages:
            self.server.link.post(Value(message.call, b""))  # type: ignore[union-attr]
        return True

    def answered(self, messages: list[Message]) -> bool:
        for message in messages:
            self.calls.pop(message.call).fire()  # type: ignore[union-attr]
        return True

    def call(self, number: int) -> bool:
        done = self.calls[number] = Once()
        self.client.link.post(Value(number, b""))
        return self.client.link.read_until(done, PATIENCE)


@pytest.mark.parametrize("stealing", [True, False])
def test_eight_threads_that_wait_share_the_reading(stealing: bool) -> None:
    caller = Caller(stealing)
    with switching_often(), closing(caller.client, caller.server):

        def calls(k: int) -> None:
            for i in range(150):
                assert caller.call(k * 1000 + i)

        for each in [start(lambda k=k: calls(k)) for k in range(8)]:  # type: ignore[misc]
            outcome(each)
        assert not caller.calls


def test_who_steals_the_reading_gives_it_back() -> None:
    caller = Caller(stealing=True)
    client, server = caller.client, caller.server
    with closing(client, server):
        for i in range(300):
            assert caller.call(i)
            # Nobody waits for this one: who stands by reads it.
            done = caller.calls[-1] = Once()
            server.link.post(Value(-1, b""))
            assert done.wait(PATIENCE)


def test_a_wait_for_a_message_ends_in_time() -> None:
    for stealing in (True, False):
        caller = Caller(stealing)
        with closing(caller.client, caller.server):
            assert not caller.client.link.read_until(Once(), 0.01)
            assert not caller.client.link.read_until(Once(), 0)
            happened = Once()
            happened.fire()
            assert caller.client.link.read_until(happened, None)
            assert caller.call(1)
        assert not caller.client.link.read_until(Once(), 0.01)


def test_who_steals_the_reading_sees_the_carrier_end() -> None:
    for way in range(3):
        for _ in range(20):
            caller = Caller(stealing=True)
            client, server = caller.client, caller.server
            with closing(client, server):
                done = Once()
                client.link._on_down = lambda error, done=done: done.fire()  # type: ignore[misc] # noqa: SLF001
                waits = start(lambda done=done, link=client.link: link.read_until(done, PATIENCE))  # type: ignore[misc]
                if way == 0:
                    server.link.detach()
                elif way == 1:
                    server.link.close("bye")
                else:
                    client.link.close()
                assert outcome(waits)


@pytest.mark.parametrize("stealing", [True, False])
def test_who_reads_may_wait_for_a_message_within(stealing: bool) -> None:
    caller = Caller(stealing)
    client, server = caller.client, caller.server
    finished = Once()

    def nested(messages: list[Message]) -> bool:
        for message in messages:
            number = message.call  # type: ignore[union-attr]
            if number >= 100:
                caller.calls.pop(number).fire()
            elif number < 5:
                assert caller.call(100 + number)
                client.on_got(server_told(number + 1))
            else:
                finished.fire()
        return True

    def server_told(number: int) -> list[Message]:
        return [Value(number, b"")]

    client.on_got = nested
    with closing(client, server):
        for _ in range(50):
            server.link.post(Value(0, b""))
            assert client.link.read_until(finished, PATIENCE)
            finished = Once()


@pytest.mark.parametrize("stealing", [True, False])
def test_the_end_may_come_while_who_reads_waits_within(stealing: bool) -> None:
    for _ in range(20):
        a, b = End(stealing=stealing), End()
        with closing(a, b):
            join(a, b)
            arrived, finished = Once(), Once()

            def wait(
                messages: list[Message],
                a: End = a,
                arrived: Once = arrived,
                finished: Once = finished,
            ) -> bool:
                if a.got == [1]:
                    assert a.link.read_until(arrived, PATIENCE)
                    finished.fire()
                else:
                    arrived.fire()
                return True

            a.on_got = wait
            b.link.post(counted(1))
            a.until(lambda a=a: a.got == [1])  # type: ignore[misc]
            b.link.detach()
            a.until(lambda a=a: a.downs == [None])  # type: ignore[misc]
            join(a, b)
            b.link.post(counted(2))
            assert finished.wait(PATIENCE)
            b.link.post(counted(3))
            a.until(lambda a=a: a.got == [1, 2, 3])  # type: ignore[misc]


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("stealing", [True, False])
def test_another_thread_may_take_over_the_reading(stealing: bool, early: bool) -> None:
    a, b = End(stealing=stealing), End()
    with closing(a, b):
        join(a, b)

        def hand_over(messages: list[Message]) -> bool:
            number = len(a.got)
            if number % 2:
                return True
            run_elsewhere(a.link.read_on)
            if early:
                a.until(lambda: len(a.got) > number or number == 40)
            return False

        a.on_got = hand_over
        for i in range(41):
            b.link.post(counted(i))
            a.until(lambda i=i: len(a.got) > i)  # type: ignore[misc]
        assert a.got == list(range(41))


def test_who_hands_the_reading_over_may_wait_for_a_message_that_another_thread_reads() -> None:
    for stealing in (True, False):
        a, b = End(stealing=stealing), End()
        with closing(a, b):
            join(a, b)
            arrived, finished = Once(), Once()

            def handle(
                messages: list[Message],
                a: End = a,
                arrived: Once = arrived,
                finished: Once = finished,
            ) -> bool:
                if 1 in a.got and 2 not in a.got:
                    assert a.link.read_until(arrived, PATIENCE)
                    finished.fire()
                    return True
                if 3 not in a.got:
                    run_elsewhere(a.link.read_on)
                    return False
                arrived.fire()
                return True

            a.on_got = handle
            b.link.post(counted(1))
            a.until(lambda a=a: a.got == [1])  # type: ignore[misc]
            b.link.post(counted(2))
            a.until(lambda a=a: a.got == [1, 2])  # type: ignore[misc]
            b.link.post(counted(3))
            assert finished.wait(PATIENCE)
            b.link.post(counted(4))
            a.until(lambda a=a: a.got == [1, 2, 3, 4])  # type: ignore[misc]


def test_a_reader_that_takes_over_sees_the_farewell_that_had_arrived() -> None:
    for stealing in (True, False):
        a = End(stealing=stealing)
        with closing(a):
            left, right = sockets()
            a.link.attach(SocketCarrier(left))

            def hand_over(messages: list[Message], a: End = a) -> bool:
                run_elsewhere(a.link.read_on)
                return False

            a.on_got = hand_over
            right.send(frame([encode(counted(1))]) + frame([encode(Bye("bye"))], volatile=True))
            a.link.start_reading()
            a.until(lambda a=a: a.downs == [None])  # type: ignore[misc]
            assert a.link.farewell == "bye"


def test_on_writable_is_called_when_the_queue_is_empty() -> None:
    a, b = End(), End()
    with closing(a, b):
        calls: list[bool] = []
        a.link.on_writable = lambda: calls.append(a.link.is_writable)
        join(a, b)
        assert calls
        calls.clear()
        a.link.post(counted(1))
        assert calls == [True]


def test_an_interrupt_while_writing_breaks_the_connection_and_loses_nothing() -> None:
    class Struck(SocketCarrier):
        def send(self, data: bytes | memoryview) -> int:
            super().send(data)
            raise KeyboardInterrupt

    a, b = End(), End()
    with closing(a, b):
        left, right = sockets()
        a.link.attach(Struck(left))
        b.link.attach(SocketCarrier(right))
        a.link.start_reading()
        b.link.start_reading()
        with pytest.raises(KeyboardInterrupt):
            a.link.post(counted(1))
        a.until(lambda: len(a.downs) == 1)
        b.until(lambda: b.got == [1] and b.downs)
        a.link.post(counted(2))
        join(a, b)
        b.until(lambda: b.got == [1, 2])


def test_other_kinds_of_messages_pass() -> None:
    got: list[Message] = []
    a, b = End(), End()

    def note(messages: list[Message]) -> bool:
        got.extend(messages)
        return True

    link = Link(note, b.on_down)
    with closing(a):
        left, right = sockets()
        a.link.attach(SocketCarrier(left))
        link.attach(SocketCarrier(right))
        link.start_reading()
        a.link.post(Applied(1, 2))
        a.link.post(Dispose(1, 2, 0.5))
        a.link.close()
        b.until(lambda: b.downs)
        assert got == [Applied(1, 2), Dispose(1, 2, 0.5)]
        link.close()
