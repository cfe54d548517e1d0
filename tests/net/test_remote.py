"""A proxy reads, mutates, waits and listens like the machine that it stands for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import wait as wait_for_futures
from itertools import pairwise

import pytest

from asyncmachine import (
    Event,
    HandlerError,
    Machine,
    Result,
    State,
    Tracer,
    UnknownStateError,
    as_future,
    wait_all,
    wait_any,
)
from asyncmachine.net import (
    ConnectError,
    ConnectionLostError,
    NotAllowedError,
    NotSerialisableError,
    RemoteError,
    RemoteMachine,
    UnknownMachineError,
    connect,
    serve,
)
from tests.net import programs
from tests.races import PATIENCE, Gate, busy, outcome, start, together


@pytest.fixture
def home() -> Machine:
    return programs.machine()


@pytest.fixture
def remote(home: Machine) -> Iterator[RemoteMachine]:
    with (
        serve(home, "tcp://127.0.0.1:0", allow_eval=True) as server,
        connect(server.address) as proxy,
    ):
        yield proxy


# Mutations ------------------------------------------------------------------------------------


def test_a_mutation_is_final_and_the_mirror_shows_it(home: Machine, remote: RemoteMachine) -> None:
    for _ in range(200):
        assert remote.add("Foo") == Result.EXECUTED
        assert remote.is_active("Foo")
        assert remote.time() == home.time()
        assert remote.remove("Foo") == Result.EXECUTED
        assert remote.time() == home.time()


def test_a_refusal_says_why(remote: RemoteMachine) -> None:
    assert remote.add("Bar").why == "Bar requires Foo, which is inactive"
    assert remote.can_add("Bar").why == "Bar requires Foo, which is inactive"
    assert remote.can_add("Foo", "Bar") == Result.EXECUTED
    assert remote.can_remove("Foo") == Result.EXECUTED
    assert remote.can_set("Bar") == Result.CANCELED
    assert remote.time_sum() == 0


def test_set_and_toggle(remote: RemoteMachine) -> None:
    remote.add("Foo", "Bar")
    remote.set("Hit")
    assert remote.active_states() == ("Hit",)
    remote.toggle("Foo")
    remote.toggle("Hit")
    assert remote.active_states() == ("Foo",)


def test_a_handlers_error_is_shown_with_the_refusal(home: Machine, remote: RemoteMachine) -> None:
    def fail(event: Event) -> None:
        raise ValueError("too small")

    home.bind({"Foo_enter": fail})
    for _ in range(50):
        result = remote.add("Foo")
        assert result == Result.CANCELED
        assert "too small" in result.why
        assert remote.is_active("Exception")
        assert str(remote.error) == "ValueError: too small"
        remote.remove("Exception")


def test_unknown_names_are_refused_here(remote: RemoteMachine) -> None:
    for call in (remote.add, remote.can_add, remote.is_active, remote.when, remote.state_ctx):
        with pytest.raises(UnknownStateError, match="Foo"):
            call("Fooo")
    with pytest.raises(UnknownStateError):
        remote.send("add", "Fooo")
    with pytest.raises(ValueError, match="kind"):
        remote.send("adds", "Foo")  # type: ignore[arg-type]


def test_an_error_travels_as_a_description(home: Machine, remote: RemoteMachine) -> None:
    error = ValueError("too small")
    error.add_note("by far")
    remote.add_error(error)
    assert isinstance(home.error, RemoteError)
    assert (home.error.type_name, home.error.message) == ("ValueError", "too small")
    assert home.error.notes == ("by far",)
    assert isinstance(remote.error, RemoteError)
    assert remote.error.message == "too small"
    assert remote.when_error().is_set()
    remote.add_error("in plain words")
    assert str(remote.error) == "MachineError: in plain words"
    with pytest.raises(TypeError):
        remote.add_error(3)  # type: ignore[arg-type]


def test_sends_keep_order_and_can_be_waited_for(home: Machine, remote: RemoteMachine) -> None:
    seen: list[object] = []
    home.bind({"Hit_state": lambda event: seen.append(event.args["n"])})
    results = [remote.send("add", "Hit", n=n) for n in range(10_000)]
    assert remote.add("Hit", n=10_000) == Result.EXECUTED
    assert seen == list(range(10_001))
    assert all(result.wait(PATIENCE) == Result.EXECUTED for result in results)
    refused = remote.send("add", "Bar").wait(PATIENCE)
    assert refused.why == "Bar requires Foo, which is inactive"


def test_the_results_of_sends_belong_to_them_also_when_some_are_queued(
    home: Machine, remote: RemoteMachine
) -> None:
    for _ in range(20):
        with busy(home):
            refused = remote.send("add", "Bar")
            queued = remote.send("add", "Foo")
            last = remote.send("add", "Bar")
            remote.sync()
        assert refused.wait(PATIENCE) == Result.CANCELED
        assert queued.wait(PATIENCE) == Result.EXECUTED
        assert last.wait(PATIENCE) == Result.EXECUTED
        home.set("Hit")


def test_the_limit_of_the_queue_drops_nothing_that_comes_through_a_link() -> None:
    home = Machine({"Hit": State(multi=True)}, id="small", queue_limit=10)
    seen: list[object] = []
    longest = 0

    def hit(event: Event) -> None:
        nonlocal longest
        longest = max(longest, home.queue_length)
        seen.append(event.args["n"])

    home.bind({"Hit_state": hit})
    with serve(home, "tcp://127.0.0.1:0") as server, connect(server.address) as remote:
        with busy(home):
            results = [remote.send("add", "Hit", n=n) for n in range(2000)]
            remote.sync()
            assert home.queue_length == 10
            sender = start(lambda: [remote.send("add", "Hit", n=n) for n in range(2000, 5000)])
        more: list[Result] = outcome(sender)
        results += more
        assert remote.when_queue_empty().wait(PATIENCE)
        assert all(result.wait(PATIENCE) == Result.EXECUTED for result in results)
    assert seen == list(range(5000))
    assert longest <= 10


def test_two_clients_never_overfill_a_queue_by_much() -> None:
    home = Machine({"Hit": State(multi=True)}, id="small", queue_limit=10)
    seen: list[object] = []
    home.bind({"Hit_state": lambda event: seen.append(event.args["n"])})
    with serve(home, "tcp://127.0.0.1:0") as server:

        def send() -> None:
            with connect(server.address) as remote:
                results = [remote.send("add", "Hit", n=n) for n in range(1000)]
                assert all(result.wait(PATIENCE) for result in results)

        together(send, send, send)
    assert len(seen) == 3000


def test_inside_a_handler_a_mutation_is_queued(home: Machine, remote: RemoteMachine) -> None:
    local = Machine({"Go": State(multi=True)}, id="local")
    results: list[Result] = []
    seen: list[object] = []
    causes: list[str] = []

    def hit(event: Event) -> None:
        seen.append(event.args["n"])
        assert event.transition.cause is not None
        causes.append(event.transition.cause.machine_id)

    home.bind({"Hit_state": hit})

    def go(event: Event) -> None:
        results.extend(remote.add("Hit", n=n) for n in range(3))
        results.append(remote.send("add", "Hit", n=3))

    local.bind({"Go_state": go})
    local.add("Go")
    assert all(result == Result.QUEUED for result in results)
    assert all(result.wait(PATIENCE) == Result.EXECUTED for result in results)
    assert seen == [0, 1, 2, 3]
    assert set(causes) == {"local"}


def test_machines_that_mutate_each_other_do_not_deadlock(home: Machine) -> None:
    other = Machine({"Ping": State(multi=True)}, id="other")
    with (
        serve([home, other], "tcp://127.0.0.1:0") as server,
        connect(server.address, "served") as first,
        connect(server.address, "other") as second,
    ):
        done = threading.Event()

        def pong(event: Event) -> None:
            n = event.args["n"]
            assert isinstance(n, int)
            if n:
                second.add("Ping", n=n - 1)
            else:
                done.set()

        home.bind({"Hit_state": pong})
        other.bind({"Ping_state": lambda event: first.add("Hit", n=event.args["n"])})
        first.add("Hit", n=100)
        assert done.wait(PATIENCE)


def test_past_the_outbox_limit_a_send_of_a_handler_is_refused_with_its_reason() -> None:
    home = Machine({"Hit": State(multi=True)}, id="small", queue_limit=1)
    local = Machine({"Go": State()}, id="local")
    with (
        serve(home, "tcp://127.0.0.1:0") as server,
        connect(server.address, outbox_limit=50) as remote,
    ):
        results: list[Result] = []
        local.bind({"Go_state": lambda _: results.extend(remote.add("Hit") for _ in range(6000))})
        with busy(home):
            local.add("Go")
            assert {result.why for result in results if not result} == {"the outbox is full (50)"}
            assert remote.queue_length == 50
            assert remote.is_queued("add", "Hit")
        taken = [result for result in results if result]
        assert all(result.wait(PATIENCE) == Result.EXECUTED for result in taken)
        assert home.tick("Hit") == 2 * len(taken) - 1


def test_eight_threads_share_a_proxy(home: Machine, remote: RemoteMachine) -> None:
    seen: dict[object, list[int]] = {}
    home.bind({"Hit_state": lambda e: seen.setdefault(e.args["who"], []).append(e.args["n"])})

    def work(who: int) -> None:
        for n in range(0, 200, 2):
            remote.send("add", "Hit", who=who, n=n)
            assert remote.add("Hit", who=who, n=n + 1) == Result.EXECUTED
            assert remote.can_add("Foo")

    together(*[lambda who=who: work(who) for who in range(8)])
    assert all(each == list(range(200)) for each in seen.values())
    assert remote.time() == home.time()


# Args -----------------------------------------------------------------------------------------


def test_what_can_not_travel_is_refused_by_name(remote: RemoteMachine) -> None:
    for call in (remote.add, remote.can_add):
        with pytest.raises(NotSerialisableError, match="lock"):
            call("Foo", fine=1, lock=threading.Lock())
    with pytest.raises(NotSerialisableError, match="lock"):
        remote.send("add", "Foo", lock=threading.Lock())
    with pytest.raises(NotSerialisableError, match="text"):
        remote.add("Foo", fine=1, text="\udc80")


def test_an_arg_may_be_called_source_or_self(home: Machine, remote: RemoteMachine) -> None:
    waiter = remote.when_args("Hit", {"source": "here"})
    remote.add("Hit", source="here", self=3, kind="x", states="y")
    assert waiter.wait(PATIENCE)
    assert waiter.args == {"source": "here", "self": 3, "kind": "x", "states": "y"}


def test_args_that_are_too_large_are_refused_by_name(home: Machine) -> None:
    with (
        serve(home, "tcp://127.0.0.1:0", max_frame=10_000) as server,
        connect(server.address) as remote,
    ):
        with pytest.raises(NotSerialisableError, match="big"):
            remote.add("Foo", small="x", big=b"x" * 10_000)
        with pytest.raises(NotSerialisableError, match="big"):
            remote.send("add", "Foo", small="x", big=b"x" * 10_000)
        assert remote.add("Foo", big=b"x" * 8_000)


# Reading and waiting --------------------------------------------------------------------------


def test_reading_is_as_at_home(home: Machine, remote: RemoteMachine) -> None:
    home.add("Foo", "Bar")
    home.add("Hit")
    home.add("Hit")
    remote.sync()
    for read in (
        lambda m: m.states,
        lambda m: m.active_states(),
        lambda m: m.clock(),
        lambda m: m.time("Bar", "Foo"),
        lambda m: m.time_sum(),
        lambda m: m.tick("Hit"),
        str,
        lambda m: m.describe(),
        lambda m: m.switch("Baz", "Bar"),
        lambda m: m.any_active("Baz", ("Foo", "Bar")),
        lambda m: m.is_inactive("Baz"),
        lambda m: m.has("Foo", "Nope"),
        lambda m: m.export_state(),
        lambda m: m.schema.to_dict(),
        lambda m: m.id,
    ):
        assert read(remote) == read(home)
    assert remote.transition is None
    assert not remote.in_transition
    assert "Foo" in remote.inspect()
    assert "served" in repr(remote)


def test_the_order_of_the_active_states_is_that_at_home(
    home: Machine, remote: RemoteMachine
) -> None:
    for states in (("Hit", "Foo"), ("Foo", "Hit"), ("Bar", "Foo", "Hit"), ("Hit", "Bar", "Foo")):
        home.set(*states)
        remote.sync()
        assert remote.active_states() == home.active_states()


def test_every_kind_of_waiter(home: Machine, remote: RemoteMachine) -> None:
    home.add("Baz")
    remote.sync()
    waiters = [
        remote.when("Foo", "Bar"),
        remote.when_not("Baz"),
        remote.when_any("Nothing", "Bar") if remote.has("Nothing") else remote.when_any("Bar"),
        remote.when_time({"Foo": 1, "Bar": 1}),
        remote.when_ticks("Foo", 1),
        remote.when_tick("Bar", 1),
        remote.when_query(lambda clock: clock["Foo"] and clock["Bar"]),
        remote.when_error(),
    ]
    assert not any(waiter.is_set() for waiter in waiters)
    futures = [as_future(waiter) for waiter in waiters]
    home.set("Foo")
    home.add("Bar")
    home.add_error("no")
    assert wait_all(*waiters, timeout=PATIENCE)
    assert wait_any(*waiters, timeout=0) is waiters[0]
    assert not wait_for_futures(futures, PATIENCE).not_done
    assert remote.when("Foo").is_set()


def test_a_change_that_comes_with_the_connection_is_not_lost(home: Machine) -> None:
    with serve(home, "tcp://127.0.0.1:0") as server:
        for _ in range(40):
            done = threading.Event()

            def tick(done: threading.Event = done) -> None:
                while not done.is_set():
                    home.toggle("Foo")
                home.set("Baz")

            ticking = start(tick)
            with connect(server.address) as remote:
                done.set()
                assert remote.when("Baz").wait(PATIENCE)
            outcome(ticking)
            home.remove("Baz")


def test_waiting_for_args_misses_nothing(home: Machine, remote: RemoteMachine) -> None:
    for n in range(200):
        waiter = remote.when_args("Hit", {"n": n})
        home.add("Hit", n=-1)
        home.add("Hit", n=n, text="x")
        home.add("Hit", n=-1)
        assert waiter.wait(PATIENCE)
        assert waiter.args == {"n": n, "text": "x"}


def test_threads_that_wait_for_args_of_one_state_miss_nothing(
    home: Machine, remote: RemoteMachine
) -> None:
    def work(who: int) -> None:
        for n in range(50):
            waiter = remote.when_args("Hit", {"who": who, "n": n})
            home.add("Hit", who=who, n=n)
            assert waiter.wait(PATIENCE)

    together(*[lambda who=who: work(who) for who in range(4)])


def test_a_waiter_for_args_that_is_canceled_hears_no_more(
    home: Machine, remote: RemoteMachine
) -> None:
    waiter = remote.when_args("Hit", {"n": 1})
    waiter.cancel()
    home.add("Hit", n=1)
    remote.sync()
    assert waiter.canceled
    assert waiter.args is None
    again = remote.when_args("Hit", {"n": 1})
    home.add("Hit", n=1)
    assert again.wait(PATIENCE)


def test_ticks_miss_nothing(home: Machine, remote: RemoteMachine) -> None:
    waiter = remote.when_ticks("Foo", 2000)
    for _ in range(1000):
        home.toggle("Foo")
        home.toggle("Foo")
    assert waiter.wait(PATIENCE)


def test_the_queue_is_empty_when_that_at_home_is(home: Machine, remote: RemoteMachine) -> None:
    with busy(home):
        remote.send("add", "Foo")
        waiter = remote.when_queue_empty()
        remote.sync()
        assert not waiter.is_set()
        canceled = remote.when_queue_empty()
        canceled.cancel()
        assert canceled.canceled
    assert waiter.wait(PATIENCE)
    assert home.is_active("Foo")


def test_a_context_expires_with_the_activation(home: Machine, remote: RemoteMachine) -> None:
    assert remote.state_ctx("Foo").expired
    remote.add("Foo")
    ctx = remote.state_ctx("Foo")
    waiter = remote.when("Baz", ctx=ctx)
    assert not ctx.expired
    home.remove("Foo")
    assert ctx.wait(PATIENCE)
    assert waiter.wait(PATIENCE)
    assert waiter.canceled


def test_an_import_at_home_is_followed_also_when_clocks_go_back(
    home: Machine, remote: RemoteMachine
) -> None:
    remote.add("Foo", "Bar")
    ctx = remote.state_ctx("Bar")
    before = home.export_state()
    for _ in range(5):
        home.toggle("Foo", "Bar")
    home.add("Foo", "Hit")
    remote.sync()
    home.import_state(before)
    remote.sync()
    assert remote.export_state() == before
    assert remote.active_states() == home.active_states()
    assert ctx.expired
    zero = Machine(home.schema, id="zero").export_state()
    home.import_state(zero)
    remote.sync()
    assert remote.time_sum() == 0
    assert remote.add("Foo")
    assert remote.tick("Foo") == 1


# Listening ------------------------------------------------------------------------------------


def test_listeners_hear_everything_once_and_in_order(home: Machine, remote: RemoteMachine) -> None:
    heard: list[object] = []
    done = threading.Event()

    def hear(event: Event) -> None:
        heard.append(event.args["n"])
        if event.args["n"] == 4999:
            done.set()

    binding = remote.on("Hit_state", hear)
    for n in range(5000):
        home.add("Hit", n=n)
    assert done.wait(PATIENCE)
    assert heard == list(range(5000))
    binding.unbind()
    home.add("Hit", n=-1)
    remote.sync()
    assert heard == list(range(5000))


def test_an_event_tells_what_has_happened(home: Machine, remote: RemoteMachine) -> None:
    events: list[Event] = []
    both = threading.Barrier(2)

    def hear(event: Event) -> None:
        events.append(event)
        both.wait(PATIENCE)

    remote.bind({"Foo_state": hear, "Foo_end": hear})
    home.add("Foo", text="x")
    both.wait(PATIENCE)
    home.set("Hit")
    both.wait(PATIENCE)
    added, ended = events
    assert (added.name, added.mutation.kind, dict(added.args)) == (
        "Foo_state",
        "add",
        {"text": "x"},
    )
    assert added.machine.id == remote.id
    assert added.transition.target_states == ("Foo",)
    assert (ended.name, ended.mutation.kind, ended.mutation.states) == ("Foo_end", "set", ("Hit",))
    assert "set" in repr(ended.transition)


def test_only_final_handlers_can_be_bound(remote: RemoteMachine) -> None:
    class Handlers:
        def Foo_enter(self, event: Event) -> None: ...

        def Foo_Bar(self, event: Event) -> None: ...

        def Foo_state(self, event: Event) -> None: ...

    with pytest.raises(HandlerError) as caught:
        remote.bind(Handlers())
    assert "Foo_enter" in str(caught.value)
    assert "Foo_Bar" in str(caught.value)
    with pytest.raises(HandlerError, match="negotiation"):
        remote.on("Any_Foo", lambda event: None)
    with pytest.raises(HandlerError, match="no state"):
        remote.on("Fooo_state", lambda event: None)


def test_a_listener_counts_as_a_handler(home: Machine, remote: RemoteMachine) -> None:
    results: list[Result] = []
    errors: list[Exception] = []
    done = threading.Event()

    def hear(event: Event) -> None:
        results.append(remote.add("Hit"))
        try:
            results[0].wait(1)
        except RuntimeError as error:
            errors.append(error)
        done.set()

    remote.on("Foo_state", hear)
    home.add("Foo")
    assert done.wait(PATIENCE)
    assert results[0] == Result.QUEUED
    assert errors
    assert results[0].wait(PATIENCE) == Result.EXECUTED


def test_a_listener_that_fails_is_logged_and_heard_again(
    home: Machine, remote: RemoteMachine, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    def hear(event: Event) -> None:
        if event.args["n"]:
            gate()
        raise ValueError("a listener's")

    remote.on("Hit_state", hear)
    home.add("Hit", n=0)
    home.add("Hit", n=1)
    gate.await_reached()
    gate.open()
    assert "a listener's" in caplog.text


def test_a_tracer_hears_of_each_transition(home: Machine, remote: RemoteMachine) -> None:
    class Notes(Tracer):
        def __init__(self) -> None:
            self.heard: list[object] = []
            self.ended = threading.Event()

        def machine_init(self, machine: object) -> None:
            self.heard.append("init")

        def transition_end(self, tx: object) -> None:
            self.heard.append((tx.mutation.kind, tx.accepted))  # type: ignore[attr-defined]

        def machine_dispose(self, machine: object) -> None:
            self.heard.append("dispose")
            self.ended.set()

    notes = Notes()
    binding = remote.add_tracer(notes)
    assert remote.tracers == (notes,)
    home.add("Foo")
    home.add("Bar")
    home.remove("Foo")
    home.add("Bar")
    home.dispose()
    assert notes.ended.wait(PATIENCE)
    assert notes.heard.count("dispose") == 1
    binding.unbind()
    assert not remote.tracers


def test_a_fork_of_a_listener_has_the_context_of_its_state(
    home: Machine, remote: RemoteMachine
) -> None:
    ended: list[bool] = []
    done = threading.Event()

    def work(ctx: object) -> None:
        ended.append(ctx.wait(PATIENCE))  # type: ignore[attr-defined]
        done.set()

    remote.on("Foo_state", lambda event: event.fork(work))
    home.add("Foo")
    home.when_queue_empty().wait(PATIENCE)
    while not remote.forks_running and not done.is_set():
        remote.sync()
    home.remove("Foo")
    assert done.wait(PATIENCE)
    assert ended == [True]


# Eval -----------------------------------------------------------------------------------------


def test_an_importable_function_runs_where_the_machine_lives(
    home: Machine, remote: RemoteMachine
) -> None:
    home.add("Hit")
    assert remote.eval(programs.hit_count) == 1


def test_other_functions_are_refused(remote: RemoteMachine) -> None:
    with pytest.raises(NotSerialisableError, match="importable"):
        remote.eval(lambda machine: 1)
    with pytest.raises(NotSerialisableError, match="returned"):
        remote.eval(programs.unfit)


def test_what_a_function_raises_is_raised_here(remote: RemoteMachine) -> None:
    with pytest.raises(RemoteError, match="ValueError: as asked") as caught:
        remote.eval(programs.fail)
    names = []
    trace = caught.value.__traceback__
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "fail" in names
    with pytest.raises(RemoteError, match="TimeoutError: my own"):
        remote.eval(programs.late)


def test_a_function_whose_turn_does_not_come_never_runs(
    home: Machine, remote: RemoteMachine
) -> None:
    with busy(home), pytest.raises(TimeoutError):
        remote.eval(programs.fail, timeout=0.01)
    assert remote.eval(programs.hit_count) == 0


def test_eval_is_refused_unless_it_is_allowed(home: Machine) -> None:
    with (
        serve(home, "tcp://127.0.0.1:0") as server,
        connect(server.address) as remote,
        pytest.raises(NotAllowedError, match="allow_eval"),
    ):
        remote.eval(programs.hit_count)


# The end --------------------------------------------------------------------------------------


def test_disposing_here_disposes_the_machine_at_home(home: Machine, remote: RemoteMachine) -> None:
    disposed: list[object] = []
    remote.on_dispose(disposed.append)
    waiters = [remote.when("Foo"), remote.when_disposed(), remote.when_args("Hit", {})]
    remote.dispose()
    assert home.is_disposed
    assert remote.is_disposed
    assert all(waiter.disposed for waiter in waiters)
    assert disposed == [remote]
    assert remote.add("Foo").why
    assert remote.send("add", "Foo") == Result.CANCELED
    assert remote.when("Foo").disposed
    assert remote.when_queue_empty().disposed
    with pytest.raises(ConnectionLostError):
        remote.sync()
    remote.dispose()


def test_disposing_at_home_ends_the_proxy(home: Machine, remote: RemoteMachine) -> None:
    remote.add("Foo")
    ctx = remote.state_ctx("Foo")
    waiter = remote.when_disposed()
    home.dispose()
    assert waiter.wait(PATIENCE)
    assert ctx.expired
    assert remote.is_disposed
    assert remote.add("Foo") == Result.CANCELED
    assert remote.is_active("Foo") == home.is_active("Foo")


def test_closing_ends_the_connection_only(home: Machine, remote: RemoteMachine) -> None:
    waiter = remote.when("Foo")
    remote.close()
    assert waiter.disposed
    assert remote.connection.is_active("Disconnected")
    for call in (remote.sync, lambda: remote.eval(programs.hit_count)):
        with pytest.raises(ConnectionLostError, match="closed"):
            call()
    assert "closed" in remote.add("Foo").why
    assert "closed" in remote.send("add", "Foo").why
    assert not home.is_disposed
    remote.close()


def test_a_callback_for_the_end_can_be_taken_back(home: Machine, remote: RemoteMachine) -> None:
    called: list[object] = []
    remote.on_dispose(called.append).unbind()
    remote.close()
    assert called == []
    remote.on_dispose(called.append)
    assert called == [remote]


def test_a_proxy_can_not_be_pickled_on_its_own(remote: RemoteMachine) -> None:
    import pickle

    with pytest.raises(NotSerialisableError, match="network"):
        pickle.dumps(remote)


def test_pairs_of_ticks_are_seen_in_order(home: Machine, remote: RemoteMachine) -> None:
    seen: list[int] = []

    def look(clock: Mapping[str, int]) -> bool:
        seen.append(clock["Hit"])
        return False

    waiter = remote.when_query(look)
    for _ in range(500):
        home.add("Hit")
    remote.sync()
    assert all(a <= b for a, b in pairwise(seen))
    assert not waiter.is_set()


# Who is there ---------------------------------------------------------------------------------


def test_many_machines_live_behind_one_address(home: Machine) -> None:
    others = [Machine({"Foo": State()}, id=f"m{n}") for n in range(3)]
    with serve([home, *others], "tcp://127.0.0.1:0") as server:
        for each in others:
            with connect(server.address, each.id) as remote:
                remote.add("Foo")
                assert remote.id == each.id
                assert each.is_active("Foo")
        with pytest.raises(UnknownMachineError, match="did you mean 'served'"):
            connect(server.address, "serve")
        with pytest.raises(UnknownMachineError, match="which machine"):
            connect(server.address)


def test_nobody_serves_there() -> None:
    with pytest.raises(ConnectError) as caught:
        connect("tcp://127.0.0.1:1", timeout=1)
    assert isinstance(caught.value, ConnectionError)


def test_the_log_stays_quiet_when_all_is_well(
    home: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serve(home, "tcp://127.0.0.1:0") as server, connect(server.address) as remote:
        remote.add("Foo")
        remote.add("Bar", n=1)
    assert caplog.text == ""
