"""Errors, roll-back and interrupts: what they leave of a transition, a machine, its queue."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from asyncmachine import (
    ErrorSource,
    Event,
    LogLevel,
    Machine,
    MachineError,
    Result,
    State,
    Tracer,
    Waiter,
    pipe,
)
from tests.races import (
    PATIENCE,
    Gate,
    Strike,
    assert_consistent,
    assert_works,
    at_every_place,
    await_rest,
    busy,
    outcome,
    start,
    start_asleep,
    start_queued,
    switching_often,
    together,
    untraced,
    whoever_sleeps,
    without_collection,
)

ROOT = Path(__file__).parent.parent
EXECUTED, CANCELED, QUEUED = Result.EXECUTED, Result.CANCELED, Result.QUEUED

SCHEMA = {
    "Old": State(),
    "Gone": State(),
    "New": State(remove=["Old", "Gone"], add="Added"),
    "Added": State(after="New"),
    "Multi": State(multi=True),
    "Hit": State(multi=True),
    "Spare": State(),
}
NEGOTIATION = [
    "Multi_Multi",
    "Old_exit",
    "Old_New",
    "Old_Any",
    "Gone_exit",
    "Any_New",
    "New_enter",
    "Added_enter",
    "Multi_enter",
    "Any_enter",
]
FINAL = ["Old_end", "Gone_end", "New_state", "Multi_state", "Added_state", "Any_state"]
BEFORE = {"Old": 1, "Gone": 1, "New": 0, "Added": 0, "Multi": 1}
# What is active, and its clocks, when a final handler of add("New", "Multi") fails.
ROLLED_BACK = {
    "Old_end": (("Old", "Gone", "Multi"), (3, 3, 2, 2, 3)),
    "Gone_end": (("Gone", "Multi"), (2, 3, 2, 2, 3)),
    "New_state": (("Multi",), (2, 2, 2, 2, 3)),
    "Multi_state": (("Multi", "New"), (2, 2, 1, 2, 3)),
    "Added_state": (("Multi", "New"), (2, 2, 1, 2, 3)),
    "Any_state": (("Multi", "New", "Added"), (2, 2, 1, 1, 3)),
}


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


def _quick(machine: Machine) -> None:
    """Leave it to the quick way."""


def _traced(machine: Machine) -> None:
    machine.add_tracer(Tracer())


def _timed(machine: Machine) -> None:
    machine.handler_timeout = PATIENCE
    machine.add_tracer(Tracer())


def _waited_for(machine: Machine) -> None:
    kept.append((machine.when("Spare"), machine.state_ctx("Old"), machine.when_tick("New", 99)))


def _logged(machine: Machine) -> None:
    machine.log_level = LogLevel.EVERYTHING


kept: list[object] = []
WAYS: dict[str, Callable[[Machine], None]] = {
    "quick": _quick,
    "traced": _traced,
    "timed": _timed,
    "waited": _waited_for,
    "logged": _logged,
}


def _prepared(way: str, handlers: object = None, **options: bool) -> Machine:
    machine = Machine(SCHEMA, catch_errors=options.get("catch_errors", True), queue_limit=1_000_000)
    machine.add("Old", "Gone", "Multi")
    if handlers is not None:
        machine.bind(handlers)
    WAYS[way](machine)
    return machine


def _failing(name: str, error: BaseException) -> dict[str, Callable[[Event], object]]:
    def fail(event: Event) -> None:
        if event.transition.error is None and not calls:
            calls.append(event.name)
            raise error

    calls: list[str] = []
    return {name: fail}


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NEGOTIATION)
def test_an_error_in_negotiation_cancels(name: str, way: str) -> None:
    error = LookupError("no luck")
    machine = _prepared(way, _failing(name, error))
    woken = machine.when("New")

    result = machine.add("New", "Multi")

    assert result == CANCELED
    assert "LookupError" in result.why
    assert name in result.why
    assert "no luck" in result.why
    assert machine.clock(*BEFORE) == BEFORE
    assert machine.active_states() == ("Exception", "Old", "Gone", "Multi")
    assert machine.error is error
    assert not woken.is_set()
    assert_works(machine, "Spare")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FINAL)
def test_an_error_in_a_final_handler_puts_back_what_has_not_completed(name: str, way: str) -> None:
    error = LookupError("no luck")
    machine = _prepared(way, _failing(name, error), catch_errors=False)
    if way == "quick":
        with pytest.raises(LookupError):
            machine.add("New", "Multi")
    else:
        with pytest.raises(LookupError, match="no luck"):
            machine.add("New", "Multi")

    assert (machine.active_states(), machine.time(*BEFORE)) == ROLLED_BACK[name]
    assert machine.error is error
    assert machine.is_inactive("Exception")
    assert_works(machine, "Spare")


@pytest.mark.parametrize("name", FINAL)
def test_no_final_handler_runs_after_one_that_has_failed(name: str) -> None:
    calls: list[str] = []

    def note(event: Event) -> None:
        if "New" in event.mutation.states:
            calls.append(event.name)
            if event.name == name:
                raise LookupError

    machine = _prepared("quick", dict.fromkeys(FINAL, note))

    assert machine.add("New", "Multi") == CANCELED
    assert calls == FINAL[: FINAL.index(name) + 1]


def test_an_error_becomes_an_exception_mutation_with_its_source() -> None:
    error = LookupError("no luck")
    args: list[dict[str, object]] = []
    machine = _prepared("quick", _failing("New_state", error))
    machine.bind({"Exception_state": lambda event: args.append(dict(event.args))})

    machine.add("New", "Multi")

    assert [each["error"] for each in args] == [error]
    source = args[0]["source"]
    assert isinstance(source, ErrorSource)
    assert (source.handler, source.states) == ("New_state", ("New", "Multi"))
    assert source.states_before == ("Old", "Gone", "Multi")
    assert source.traceback is error.__traceback__


def test_waiters_are_set_after_a_roll_back_as_after_any_transition() -> None:
    machine = _prepared("quick", _failing("Added_state", LookupError()))
    new, gone, added = machine.when("New"), machine.when_not("Old"), machine.when("Added")
    withdrawn = machine.when_tick("Added", 2)

    machine.add("New")

    assert (new.is_set(), gone.is_set(), withdrawn.is_set()) == (True, True, True)
    assert not added.is_set()


def test_contexts_of_what_was_put_back_have_expired() -> None:
    machine = _prepared("quick", _failing("Old_end", LookupError()))
    before = machine.state_ctx("Old")

    machine.add("New")

    assert machine.is_active("Old")
    assert before.expired
    assert not machine.state_ctx("Old").expired


@pytest.mark.parametrize("name", ["New_enter", "New_state"])
def test_the_transition_tells_its_error(name: str) -> None:
    ended: list[tuple[bool, BaseException | None]] = []

    class Ends(Tracer):
        def transition_end(self, tx: object) -> None:
            ended.append((tx.accepted, tx.error))  # type: ignore[attr-defined]

    error = LookupError()
    machine = _prepared("quick", _failing(name, error))
    machine.add_tracer(Ends())
    machine.add("New")

    assert ended[0] == (name == "New_state", error)


def test_an_error_given_to_add_error_is_kept() -> None:
    machine = _prepared("quick")
    assert machine.add_error("no luck") == EXECUTED
    assert isinstance(machine.error, MachineError)
    assert machine.is_active("Exception")


def test_errors_of_several_threads_all_become_exceptions() -> None:
    seen: list[object] = []

    def fail(event: Event) -> None:
        raise LookupError(event.args["n"])

    machine = _prepared("quick", {"Hit_state": fail})
    machine.bind({"Exception_state": lambda event: seen.append(str(event.args["error"]))})

    def add(thread: int) -> list[Result]:
        return [machine.add("Hit", n=f"{thread}.{n}").wait(PATIENCE) for n in range(50)]

    assert together(*(partial(add, thread) for thread in range(4))) == [[CANCELED] * 50] * 4
    await_rest(machine)
    assert sorted(map(str, seen)) == sorted(f"{t}.{n}" for t in range(4) for n in range(50))
    assert_works(machine, "Spare")


# Interrupts that handlers raise ---------------------------------------------------------------


INTERRUPTS: list[type[BaseException]] = [KeyboardInterrupt, SystemExit]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("interrupt", INTERRUPTS)
@pytest.mark.parametrize("name", [*NEGOTIATION, *FINAL])
def test_an_interrupt_in_a_handler_reaches_the_caller_and_the_queue_goes_on(
    name: str, interrupt: type[BaseException], way: str
) -> None:
    gate = Gate()
    machine = _prepared(way, _failing(name, interrupt("now")))
    machine.bind({"Old_exit": gate})
    carried_out_on: list[int] = []
    machine.bind({"Hit_state": lambda event: carried_out_on.append(threading.get_ident())})

    def call() -> int:
        with pytest.raises(interrupt, match="now"):
            machine.add("New", "Multi")
        return threading.get_ident()

    caller = start(call)
    if name not in ("Multi_Multi", "Old_exit"):
        gate.await_reached()
        queued = [machine.add("Hit", n=n) for n in range(3)]
        gate.open()
    else:
        gate.open()
        queued = []
    interrupted = outcome(caller)

    assert [each.wait(PATIENCE) for each in queued] == [EXECUTED] * len(queued)
    assert interrupted not in carried_out_on
    assert machine.is_inactive("Exception")
    assert machine.error is None
    active, clocks = ROLLED_BACK.get(name, (("Old", "Gone", "Multi"), tuple(BEFORE.values())))
    assert set(machine.active_states()) - {"Hit"} == set(active)
    assert machine.time(*BEFORE) == clocks
    assert_works(machine, "Spare")


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupt_in_a_queued_mutation_reaches_the_caller_whose_thread_ran_it(
    interrupt: type[BaseException],
) -> None:
    gate = Gate()
    machine = _prepared("quick", _failing("New_state", interrupt("now")))
    machine.bind({"Spare_state": gate})
    caller = start(lambda: machine.add("Spare"))
    gate.await_reached()
    hit, after = machine.add("New"), machine.add("Hit")
    gate.open()

    with pytest.raises(interrupt, match="now"):
        outcome(caller)
    assert hit.wait(PATIENCE) == CANCELED
    assert after.wait(PATIENCE) == EXECUTED
    assert_works(machine, "Spare")


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupt_in_the_function_of_an_eval_reaches_its_caller(
    interrupt: type[BaseException],
) -> None:
    machine = _prepared("quick")

    def job() -> None:
        queued.append(machine.add("Hit"))
        raise interrupt

    queued: list[Result] = []
    with pytest.raises(interrupt):
        machine.eval(job)
    assert queued[0].wait(PATIENCE) == EXECUTED
    assert_works(machine, "Spare")


@pytest.mark.parametrize("interrupt", INTERRUPTS)
@pytest.mark.parametrize("kind", ["add", "can_add"])
def test_an_interrupt_while_asking_reaches_the_caller(
    kind: str, interrupt: type[BaseException]
) -> None:
    machine = _prepared("quick", _failing("New_enter", interrupt()))
    with pytest.raises(interrupt):
        getattr(machine, kind)("New")
    assert machine.clock(*BEFORE) == BEFORE
    assert_works(machine, "Spare")


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupt_in_the_auto_mutation_or_in_exception_reaches_the_caller(
    interrupt: type[BaseException],
) -> None:
    auto = Machine({"Foo": State(), "Auto": State(auto=True), "Spare": State()})
    auto.bind(_failing("Auto_state", interrupt()))
    with pytest.raises(interrupt):
        auto.add("Foo")
    assert_consistent(auto)
    assert_works(auto, "Spare")

    failing = Machine({"Foo": State(), "Spare": State()})
    failing.bind(_failing("Exception_state", interrupt()))
    failing.bind(_failing("Foo_state", LookupError()))
    with pytest.raises(interrupt):
        failing.add("Foo")
    assert_consistent(failing)
    assert_works(failing, "Spare")


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_an_interrupt_in_a_listener_or_a_tracer_reaches_the_caller(
    interrupt: type[BaseException],
) -> None:
    class Interrupting(Tracer):
        def transition_end(self, tx: object) -> None:
            if strikes:
                strikes.pop()
                raise interrupt

    strikes = [1]
    machine = _prepared("quick")
    with machine.add_tracer(Interrupting()), pytest.raises(interrupt):
        machine.add("New")
    assert_works(machine, "Spare")

    machine = _prepared("quick")
    machine.on("New_state", _failing("New_state", interrupt())["New_state"])
    with pytest.raises(interrupt):
        machine.add("New")
    assert_works(machine, "Spare")


# Interrupts at every place --------------------------------------------------------------------


# At each how manyth place interrupts strike, where there are many.
STEPS = {"traced": 1, "timed": 5, "waited": 2, "logged": 17}


class Scene:
    """A machine in the middle of everything: handlers, waiters, contexts, queue.

    Attributes:
        results: of the mutations that have been requested, as far as they returned.

    """

    def __init__(self, way: str) -> None:
        self.results: list[Result] = []
        self.carried_out: list[object] = []
        handlers = {
            "New_enter": self._ask,
            "New_state": self._queue,
            "Hit_state": lambda event: self.carried_out.append(event.args["n"]),
        }
        self.machine = Machine({**SCHEMA, "Auto": State(auto=True, require="New")})
        self.machine.add("Old", "Gone", "Multi")
        self.machine.bind(handlers)
        WAYS[way](self.machine)

    def _ask(self, event: Event) -> None:
        self.machine.can_add("Spare")

    def _queue(self, event: Event) -> None:
        for n in range(3):
            self.results.append(self.machine.add("Hit", n=n))

    def play(self) -> None:
        machine = self.machine
        ctx = machine.state_ctx("Old")
        with machine.when("Spare", ctx=ctx):
            machine.add("New", "Multi")
        machine.remove("New")
        machine.eval(lambda: self.results.append(machine.add("Hit", n=9)))

    def play_bare(self) -> None:
        self.machine.add("Spare")
        self.machine.add("Gone")
        self.machine.set("Old", "Multi")
        self.machine.remove("Old", "Multi")

    def assert_sound(self) -> None:
        """All is consistent, nothing queued is lost and nobody is stuck."""
        await_rest(self.machine)
        finals = [each.wait(PATIENCE) for each in self.results]
        assert self.machine.queue_length == 0
        executed = finals.count(EXECUTED)
        assert len(self.carried_out) >= executed
        assert len(set(self.carried_out)) == len(self.carried_out), "carried out twice"
        assert_works(self.machine, "Spare")


def _interrupted(way: str, play: Callable[[Scene], None], strike: Strike) -> None:
    def job() -> None:
        scene = Scene(way)
        before = scene.machine.time()
        try:
            strike.during(partial(play, scene))
        except KeyboardInterrupt:
            assert strike.struck
        else:
            assert not strike.struck, f"the interrupt at {strike.where} was swallowed"
        scene.assert_sound()
        assert all(now >= then for now, then in zip(scene.machine.time(), before))

    outcome(start(job))


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_at_any_place_leaves_a_machine_with_handlers_sound(way: str) -> None:
    step = STEPS.get(way, 1)
    assert at_every_place(partial(_interrupted, way, Scene.play), _interrupt, step=step) > 0


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_at_any_place_leaves_a_plain_machine_sound(way: str) -> None:
    step = STEPS.get(way, 1)
    assert at_every_place(partial(_interrupted, way, Scene.play_bare), _interrupt, step=step) > 0


def _waiting(kind: str, machine: Machine) -> Waiter:
    kinds: dict[str, Callable[[], Waiter]] = {
        "when": lambda: machine.when("New", "Added"),
        "when_not": lambda: machine.when_not("Old"),
        "when_any": lambda: machine.when_any("New", "Spare"),
        "when_args": lambda: machine.when_args("New", {"n": 1}),
        "when_tick": lambda: machine.when_tick("Added", 1),
        "when_query": lambda: machine.when_query(lambda clock: clock["New"]),
    }
    return kinds[kind]()


KINDS = ["when", "when_not", "when_any", "when_args", "when_tick", "when_query"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_waiter_that_an_interrupt_kept_from_being_set_is_set_all_the_same(kind: str) -> None:
    def run(strike: Strike) -> None:
        machine = _prepared("quick")
        waiter = _waiting(kind, machine)
        sleeper = start_asleep(partial(waiter.wait, PATIENCE))
        before = machine.tick("New")

        def job() -> None:
            try:
                strike.during(lambda: machine.add("New", n=1))
            except KeyboardInterrupt:
                pass
            await_rest(machine)

        outcome(start(job))
        if machine.tick("New") != before and kind != "when_args":  # args are gone with it
            assert outcome(sleeper) is True
        waiter.cancel()
        assert outcome(sleeper) is True
        assert_works(machine, "Spare")

    assert at_every_place(run, _interrupt) > 0


def test_who_waits_for_a_result_is_woken_wherever_an_interrupt_strikes() -> None:
    def run(strike: Strike) -> None:
        machine = _prepared("quick", {"New_enter": lambda event: None})
        waits: list[Future[Result]] = []

        def ask() -> None:
            for state in ("Hit", "New", "Multi"):
                result = outcome(start(partial(machine.add, state)))
                waits.append(start_asleep(partial(result.wait, PATIENCE)))
            waits.append(start_queued(lambda: machine.can_add("Spare")))
            waits.append(start_queued(lambda: machine.eval(lambda: EXECUTED, timeout=PATIENCE)))

        def job() -> None:
            machine.eval(ask)  # which leaves them to be carried out by this thread

        def interrupted() -> None:
            try:
                strike.during(job)
            except KeyboardInterrupt:
                pass

        outcome(start(interrupted))
        for wait in waits:
            try:
                final = outcome(wait)
            except KeyboardInterrupt:  # what an eval was running has been interrupted
                continue
            assert final or "KeyboardInterrupt" in final.why, final.why
        assert_works(machine, "Spare")

    assert at_every_place(run, _interrupt) > 0


@pytest.mark.parametrize("way", WAYS)
def test_a_signal_handler_that_mutates_the_machine_at_any_place_does_no_harm(way: str) -> None:
    def run(strike: Strike) -> None:
        def job() -> None:
            scenes.append(Scene(way))
            strike.during(scenes[-1].play)

        outcome(start(job))
        scenes[-1].assert_sound()
        assert "signal" in scenes[-1].carried_out or not strike.struck

    scenes: list[Scene] = []

    def mutate() -> None:
        scenes[-1].results.append(scenes[-1].machine.add("Hit", n="signal"))

    assert at_every_place(run, mutate, step=2 * STEPS.get(way, 1)) > 0


def test_a_signal_handler_that_waits_for_states_at_any_place_does_no_harm() -> None:
    def run(strike: Strike) -> None:
        def job() -> None:
            scenes.append(Scene("waited"))
            strike.during(scenes[-1].play)

        outcome(start(job))
        scenes[-1].assert_sound()

    scenes: list[Scene] = []

    def wait() -> None:
        machine = scenes[-1].machine
        machine.when("Old").cancel()
        machine.state_ctx("Multi").on_expire(lambda ctx: None)
        machine.when_args("Hit", {"n": 1}).on_done(lambda waiter: None)
        machine.describe()

    assert at_every_place(run, wait, step=3) > 0


WAITS: dict[str, Callable[[Machine], object]] = {
    "result": lambda machine: machine.add("Hit", n=1).wait(PATIENCE),
    "eval": lambda machine: machine.eval(lambda: None, timeout=PATIENCE),
    "can": lambda machine: machine.can_add("Spare"),
    "when": lambda machine: machine.when("Hit").wait(PATIENCE),
    "idle": lambda machine: machine.when_queue_empty().wait(PATIENCE),
    "dispose": Machine.dispose,
}


@pytest.mark.parametrize("kind", WAITS)
def test_an_interrupt_at_any_place_of_a_call_that_waits_reaches_the_caller(kind: str) -> None:
    def run(strike: Strike) -> None:
        machine, gate = _prepared("quick"), Gate()
        holder = start(lambda: machine.eval(gate))
        gate.await_reached()

        def call() -> None:
            try:
                strike.during(partial(WAITS[kind], machine))
            except KeyboardInterrupt:
                assert strike.struck
            else:
                assert not strike.struck, "the interrupt was swallowed"

        with whoever_sleeps(gate.open):
            caller = start(call)
            if kind == "when":
                start(partial(machine.add, "Hit"))
            outcome(caller)
            gate.open()
            outcome(holder)
        if kind == "dispose":
            machine.dispose(PATIENCE)
            assert machine.when_disposed().wait(PATIENCE)
        else:
            assert_works(machine, "Spare")

    assert at_every_place(run, _interrupt) > 0


@pytest.mark.parametrize("what", ["bind", "pipe", "dispose", "import"])
def test_an_interrupt_at_any_place_of_a_rare_call_leaves_the_machine_sound(what: str) -> None:
    def run(strike: Strike) -> None:
        machine, other = _prepared("quick"), Machine(SCHEMA)
        calls: dict[str, Callable[[], object]] = {
            "bind": lambda: machine.bind({"Hit_state": lambda event: None}).unbind(),
            "pipe": lambda: pipe(machine, "Old", other, "Old").close(),
            "dispose": other.dispose,
            "import": lambda: machine.import_state(Machine(SCHEMA).export_state()),
        }

        def job() -> None:
            try:
                strike.during(calls[what])
            except KeyboardInterrupt:
                assert strike.struck
            else:
                assert not strike.struck, "the interrupt was swallowed"

        outcome(start(job))
        assert_works(machine, "Spare")
        other.dispose(PATIENCE)
        assert other.is_disposed
        assert other.when_disposed().wait(PATIENCE)

    assert at_every_place(run, _interrupt) > 0


# Real signals, in the main thread -------------------------------------------------------------


@contextmanager
def _on(number: signal.Signals, handler: Callable[[], object]) -> Iterator[None]:
    def call(received: int, frame: FrameType | None) -> None:
        handler()

    before = signal.signal(number, call)
    try:
        yield
    finally:
        signal.signal(number, before)


class Storm:
    """Another thread that keeps sending a signal to the main thread while the block runs."""

    def __init__(self, number: signal.Signals, most: int) -> None:
        self._number = number
        self._most = most
        self._next = threading.Semaphore(1)
        self._over = False
        self.received = 0

    def received_one(self) -> None:
        self.received += 1
        self._next.release()

    def _blow(self, target: int) -> None:
        for _ in range(self._most):
            assert self._next.acquire(timeout=PATIENCE)
            if self._over:
                return
            signal.pthread_kill(target, self._number)

    @contextmanager
    def blowing(self) -> Iterator[None]:
        thread = start(partial(self._blow, threading.get_ident()))
        try:
            yield
        finally:
            self._over = True
            self._next.release()
            outcome(thread)


def test_signal_handlers_that_mutate_a_busy_machine_lose_nothing() -> None:
    hits: list[object] = []
    results: list[Result] = []
    machine = _prepared("quick", {"Hit_state": lambda event: hits.append(event.args["n"])})
    storm = Storm(signal.SIGUSR2, 400)

    def mutate() -> None:
        results.append(machine.add("Hit", n=storm.received))
        storm.received_one()

    with _on(signal.SIGUSR2, mutate), storm.blowing():
        while storm.received < 400:
            machine.toggle("Spare")
            machine.add("Multi")
            machine.eval(lambda: None, timeout=PATIENCE)

    assert [each.wait(PATIENCE) for each in results] == [EXECUTED] * 400
    assert sorted(map(int, map(str, hits))) == list(range(400))
    assert_works(machine, "Spare")


def test_real_interrupts_in_the_main_thread_never_leave_a_machine_stuck() -> None:
    hits: list[object] = []
    machine = _prepared("quick", {"Hit_state": lambda event: hits.append(event.args["n"])})
    shielded = [True]
    storm = Storm(signal.SIGINT, 400)
    done = threading.Event()

    def interrupt() -> None:
        storm.received_one()
        if not shielded[0]:
            shielded[0] = True
            raise KeyboardInterrupt

    def help_out() -> list[Result]:
        results: list[Result] = []
        while not done.is_set():
            results.append(machine.add("Hit", n=len(results)))
            results[-1].wait(PATIENCE)
        return results

    helper = start(help_out)
    interrupted = 0
    try:
        with untraced(), without_collection(), _on(signal.SIGINT, interrupt), storm.blowing():
            while storm.received < 400:
                try:
                    shielded[0] = False
                    for _ in range(5):
                        machine.toggle("Spare")
                        # Not faster than a tracer lets the other threads carry it out.
                        machine.add("Multi", n=1).wait(PATIENCE)
                    shielded[0] = True
                except KeyboardInterrupt:
                    interrupted += 1
                    assert_consistent_clocks(machine)
    finally:
        done.set()

    assert_nothing_lost(machine, hits, outcome(helper))
    assert interrupted > 0


def assert_nothing_lost(machine: Machine, hits: list[object], results: list[Result]) -> None:
    """Each mutation was carried out once, in order, or was itself cut short by an interrupt."""
    finals = [each.wait(PATIENCE) for each in results]
    await_rest(machine)
    assert all(each or "KeyboardInterrupt" in each.why for each in finals)
    executed = [n for n, each in enumerate(finals) if each]
    assert set(executed) <= set(hits)
    assert hits == sorted(set(map(int, map(str, hits))))
    assert len(executed) > len(finals) / 2
    assert_works(machine, "Spare")


def assert_consistent_clocks(machine: Machine) -> None:
    """Readers see whole moments also while others go on."""
    data = machine.describe()
    inside = data[1 : data.index(")")].split()
    assert all(int(each.rpartition(":")[2]) % 2 for each in inside)


@pytest.mark.parametrize("name", ["New_enter", "New_state"])
def test_an_interrupt_raised_by_a_signal_inside_a_handler_reaches_the_caller(name: str) -> None:
    def strike(event: Event) -> None:
        signal.raise_signal(signal.SIGINT)

    machine = _prepared("quick", {name: strike})
    with _on(signal.SIGINT, _interrupt), pytest.raises(KeyboardInterrupt):
        machine.add("New")

    machine.bind({"Hit_state": lambda event: None})
    assert_works(machine, "Spare")


def _end_by_a_signal(wait: Callable[[], object]) -> None:
    main = threading.get_ident()
    try:
        start(lambda: signal.pthread_kill(main, signal.SIGINT))
        wait()
        threading.Event().wait(PATIENCE)
    except KeyboardInterrupt:
        return
    pytest.fail("no interrupt came")


def test_an_interrupt_ends_the_wait_for_a_busy_machine() -> None:
    machine = _prepared("quick")
    waits: list[Callable[[], object]] = [
        lambda: machine.add("Hit", n=1).wait(PATIENCE),
        lambda: machine.eval(lambda: None, timeout=PATIENCE),
        lambda: machine.can_add("Spare"),
        lambda: machine.when("New").wait(PATIENCE),
    ]
    for wait in waits * 20:
        with untraced(), without_collection(), busy(machine), _on(signal.SIGINT, _interrupt):
            _end_by_a_signal(wait)
        assert_works(machine, "Spare")


# Interrupts in any thread ---------------------------------------------------------------------


def _raise_in(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _mutate_until_interrupted(machine: Machine, ready: threading.Event) -> int:
    """Mutate in a tight loop until an interrupt comes; give how often."""
    n = 0
    try:
        ready.set()
        while True:
            n += 1
            machine.toggle("Spare")
            machine.add("New", "Multi", n=n)
            # Not faster than a tracer lets the other threads carry it out.
            machine.set("Old", "Gone", "Multi").wait(PATIENCE)
    except KeyboardInterrupt:
        return n


def strike_asynchronously(way: str, rounds: int) -> None:
    """Interrupt a thread that mutates a machine, again and again, and see that nothing is lost."""
    hits: list[object] = []
    machine = _prepared(way)
    machine.bind({"Hit_state": lambda event: hits.append(event.args["n"])})
    if way != "waited":
        machine.bind(dict.fromkeys(("New_enter", "New_state"), lambda event: None))
    machine.add("New")  # with a time-out, this starts the watchdog
    queued: list[Result] = []
    mutated = 0
    with switching_often(), without_collection():
        for n in range(rounds):
            ready = threading.Event()
            idents: list[int] = []

            def job(ready: threading.Event = ready, idents: list[int] = idents) -> int:
                idents.append(threading.get_ident())
                return _mutate_until_interrupted(machine, ready)

            thread = start(job)
            assert ready.wait(PATIENCE)
            queued.append(machine.add("Hit", n=n))
            _raise_in(idents[0], KeyboardInterrupt)
            mutated += outcome(thread)
    assert mutated > rounds
    assert_nothing_lost(machine, hits, queued)


# Not while it logs: the logging module itself keeps its lock when an interrupt strikes there.
# In a process of its own, for nothing may trace the threads: Python 3.11 never goes on in a
# traced thread while an asynchronous exception waits for a thread that sleeps.
@pytest.mark.parametrize("way", [way for way in WAYS if way != "logged"])
def test_asynchronous_interrupts_never_leave_a_machine_stuck(way: str) -> None:
    code = f"from {__name__} import *; strike_asynchronously({way!r}, 300)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
