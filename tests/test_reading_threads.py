"""Reading among threads: a read shows one moment, and waits for nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from asyncmachine import Event, Machine, State, Tracer
from tests.races import PATIENCE, Gate, outcome, start, switching_often, together


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


NAMES = [f"S{n}" for n in range(12)]
SIDES = {"Left": NAMES[:6], "Right": NAMES[6:]}


def _seesaw() -> Machine:
    """All states of one side are active, or all of the other: never a mixture."""
    return Machine({name: State() for name in NAMES})


def _fail_some(event: Event) -> None:
    if event.args.get("fail"):
        raise LookupError


HANDLED: dict[str, Callable[[Machine], object]] = {
    "plain": lambda machine: None,
    "handled": lambda machine: machine.bind(dict.fromkeys(("S1_enter", "S1_state"), _pass)),
    "traced": lambda machine: machine.add_tracer(Tracer()),
    "waited": lambda machine: machine.when("Exception").on_done(lambda waiter: None),
}


def _pass(event: Event) -> None:
    pass


def _write(machine: Machine, done: threading.Event) -> bool:
    for _ in range(150):
        machine.set(*SIDES["Left"])
        machine.set(*SIDES["Right"])
    done.set()
    return True


def _until_done(check: Callable[[Machine], bool], machine: Machine, done: threading.Event) -> bool:
    whole = True
    while not done.is_set():
        whole = whole and check(machine)
    return whole


def _names_are_whole(machine: Machine) -> bool:
    return set(machine.active_states()) in (set(), {*SIDES["Left"]}, {*SIDES["Right"]})


def _clocks_are_whole(ticks: list[int]) -> bool:
    left, right = {*ticks[:6]}, {*ticks[6:12]}
    if len(left) != 1 or len(right) != 1:
        return False
    return left.pop() - right.pop() in (0, 1)


def _time_is_whole(machine: Machine) -> bool:
    return _clocks_are_whole(list(machine.time()))


def _some_of_time_is_whole(machine: Machine) -> bool:
    last, first = machine.time("S11", "S0")
    return first - last in (0, 1)


def _clock_is_whole(machine: Machine) -> bool:
    return _clocks_are_whole(list(machine.clock().values()))


def _sum_is_whole(machine: Machine) -> bool:
    return machine.time_sum() % 6 == 0


def _text_is_whole(machine: Machine) -> bool:
    return str(machine).count("S") in (0, 6)


def _description_is_whole(machine: Machine) -> bool:
    active, _, inactive = machine.describe().partition(")")
    ticks = [int(each.rpartition(":")[2]) for each in active[1:].split()]
    others = [int(each.rpartition(":")[2]) for each in inactive[1:-1].split()]
    return all(tick % 2 for tick in ticks) and not any(tick % 2 for tick in others)


def _snapshot_is_whole(machine: Machine) -> bool:
    ticks = machine.export_state()["ticks"]
    assert isinstance(ticks, list)
    return _clocks_are_whole(ticks)


def _switch_and_any_are_whole(machine: Machine) -> bool:
    return not machine.any_active(("S0", "S6"), ("S1", "S11"))


def _inspection_is_whole(machine: Machine) -> bool:
    lines = [line for line in machine.inspect().splitlines() if line.startswith("  [")]
    ticks = [int(line[5:].split()[1]) for line in lines]
    return [line[3] == "x" for line in lines] == [tick % 2 == 1 for tick in ticks]


CHECKS = [
    _names_are_whole,
    _time_is_whole,
    _some_of_time_is_whole,
    _clock_is_whole,
    _sum_is_whole,
    _text_is_whole,
    _description_is_whole,
    _snapshot_is_whole,
    _switch_and_any_are_whole,
    _inspection_is_whole,
]


@pytest.mark.parametrize("handled", HANDLED)
@pytest.mark.parametrize("check", CHECKS)
def test_no_read_is_ever_torn(check: Callable[[Machine], bool], handled: str) -> None:
    machine = _seesaw()
    HANDLED[handled](machine)
    done = threading.Event()
    read = partial(_until_done, check, machine, done)

    assert together(partial(_write, machine, done), read, read, until=done) == [True] * 3


def test_no_read_is_torn_when_two_states_toggle() -> None:
    machine = Machine({"Foo": State(remove="Bar"), "Bar": State(remove="Foo")})
    machine.add("Bar")
    done = threading.Event()

    def write() -> bool:
        for _ in range(400):
            machine.add("Foo")
            machine.add("Bar")
        done.set()
        return True

    def one_is_active(machine: Machine) -> bool:
        foo, bar = machine.time("Foo", "Bar")
        return foo % 2 + bar % 2 == 1 and bar - foo in (0, 1, -1)

    read = partial(_until_done, one_is_active, machine, done)
    assert together(write, read, read, read, until=done) == [True] * 4


def test_no_read_is_torn_when_final_handlers_fail_and_states_are_put_back() -> None:
    machine = _seesaw()
    machine.bind({"S3_state": _fail_some, "S9_end": _fail_some})
    done = threading.Event()

    def write() -> bool:
        for n in range(100):
            machine.set(*SIDES["Left"], fail=n % 2)
            machine.set(*SIDES["Right"], fail=n % 3 == 0)
        done.set()
        return True

    def parity_is_true(machine: Machine) -> bool:
        return _description_is_whole(machine) and _inspection_is_whole(machine)

    read = partial(_until_done, parity_is_true, machine, done)
    assert together(write, read, read, until=done) == [True] * 3


def test_no_read_is_torn_by_an_import() -> None:
    machine = _seesaw()
    machine.set(*SIDES["Left"])
    left = machine.export_state()
    machine.set(*SIDES["Right"])
    right = machine.export_state()
    done = threading.Event()

    def write() -> bool:
        for _ in range(150):
            machine.import_state(left)
            machine.import_state(right)
        done.set()
        return True

    read = partial(_until_done, _time_is_whole, machine, done)
    names = partial(_until_done, _names_are_whole, machine, done)
    assert together(write, read, names, until=done) == [True] * 3


def test_clocks_only_grow_in_the_eyes_of_every_reader() -> None:
    machine = Machine({"Foo": State(), "Hit": State(multi=True)})
    done = threading.Event()

    def write() -> bool:
        for n in range(200):
            machine.toggle("Foo", n=n)
            machine.add("Hit", n=n)
        done.set()
        return True

    def read() -> bool:
        last = machine.time()
        grown = True
        while not done.is_set():
            now = machine.time()
            grown = grown and all(a <= b for a, b in zip(last, now))
            grown = grown and machine.tick("Hit") >= now[1]
            last = now
        return grown

    assert together(write, read, write, read, until=done) == [True] * 4


def test_a_caller_reads_what_it_has_changed() -> None:
    machine = Machine({name: State() for name in ("A", "B", "C")})

    def change(state: str) -> bool:
        for _ in range(150):
            machine.add(state).wait(PATIENCE)
            if not machine.is_active(state) or not machine.tick(state) % 2:
                return False
            machine.remove(state).wait(PATIENCE)
            if not machine.is_inactive(state) or machine.tick(state) % 2:
                return False
        return True

    assert together(*(partial(change, state) for state in "ABC")) == [True] * 3


def test_readers_go_on_for_as_long_as_a_handler_is_stuck() -> None:
    gate = Gate()
    machine = _seesaw()
    machine.bind({"S3_state": gate})
    caller = start(partial(machine.set, *SIDES["Left"]))
    gate.await_reached()

    def read() -> bool:
        return all(check(machine) for check in CHECKS for _ in range(10))

    assert together(*[read] * 4) == [True] * 4
    assert machine.is_active(*SIDES["Left"])
    assert machine.transition is not None
    assert machine.transition.mutation.states == tuple(SIDES["Left"])
    gate.open()
    outcome(caller)
    assert machine.transition is None


def test_readers_go_on_while_an_eval_has_the_turn() -> None:
    gate = Gate()
    machine = _seesaw()
    holder = start(lambda: machine.eval(gate))
    gate.await_reached()

    seen = together(*[lambda: (machine.time_sum(), machine.is_active("S0"))] * 3)

    assert seen == [(0, False)] * 3
    gate.open()
    outcome(holder)


def test_the_queue_can_be_read_while_it_fills_and_drains() -> None:
    machine = Machine({"Hit": State(multi=True), "Foo": State()})
    done = threading.Event()

    def write() -> bool:
        for n in range(300):
            machine.add("Hit", n=n)
        done.set()
        return True

    def read() -> bool:
        sane = True
        while not done.is_set():
            sane = sane and machine.queue_length >= 0
            sane = sane and not machine.is_queued("remove", "Foo")
            machine.is_queued("add", "Hit")
            transition = machine.transition
            sane = sane and (transition is None or transition.machine is machine)
        return sane

    assert together(write, read, write, until=done) == [True] * 3
