"""What is counted of a machine: each transition once, whatever becomes of it, by any thread."""

from __future__ import annotations

import threading
from typing import Final

import pytest

from asyncmachine import Event, LogLevel, Machine, Result, State, Tracer, Transition
from asyncmachine.telemetry.counting import BUCKETS, Counter, bounds_of

STATES: Final = {
    "Foo": State(),
    "Bar": State(require="Foo"),
    "Baz": State(auto=True, require="Foo"),
    "Bad": State(),
}


class Handlers:
    """Vetoes Bad if it is told to, and fails if it is told to."""

    def Bad_enter(self, event: Event) -> bool:
        return not event.args.get("veto")

    def Bad_state(self, event: Event) -> None:
        if event.args.get("fail"):
            raise ValueError("as asked")


def _counter(*, handlers: bool = True) -> Counter:
    return Counter(bounds_of(BUCKETS), handlers=handlers, adopt=lambda _: None)


def _counted(**options: object) -> tuple[Machine, Counter]:
    counter = _counter()
    machine = Machine(STATES, tracers=[counter], **options)  # type: ignore[arg-type]
    return machine, counter


def test_a_machine_that_has_done_nothing_counts_nothing() -> None:
    counts = _counted()[1].read()

    assert set(counts.transitions().values()) == {0}
    assert counts.errors() == sum(counts.taken.counts) == sum(counts.handled.counts) == 0
    assert counts.taken.seconds == counts.waited.seconds == 0.0


@pytest.mark.parametrize("level", [LogLevel.NOTHING, LogLevel.EVERYTHING])
def test_each_outcome_is_counted_on_every_way_through(level: LogLevel) -> None:
    machine, counter = _counted(handlers=Handlers(), log_level=level)

    assert machine.add("Bar") == Result.CANCELED
    assert machine.add("Bad", veto=True) == Result.CANCELED
    assert machine.add("Bad", fail=True) == Result.CANCELED
    assert machine.add("Foo") == Result.EXECUTED
    assert machine.set("Foo") == Result.EXECUTED
    assert machine.remove("Exception", "Foo") == Result.EXECUTED

    counts = counter.read()
    assert counts.transitions() == {
        ("add", "executed"): 2,  # Exception, and Foo
        ("remove", "executed"): 1,
        ("set", "executed"): 1,
        ("add", "rejected"): 1,
        ("add", "vetoed"): 1,
        ("add", "failed"): 1,
    }
    # Baz twice, for set() has dropped it; before Foo was there it was tried in vain.
    assert counts.autos() == {"executed": 2, "rejected": 2}
    assert counts.errors() == 1
    assert sum(counts.taken.counts) == 11
    assert counts.taken.seconds > 0


def test_an_error_that_is_reported_counts_as_one_and_one_of_a_handler_not_twice() -> None:
    machine, counter = _counted(handlers=Handlers())

    machine.add_error("reported")
    machine.add("Bad", fail=True)
    machine.add("Exception", error=ValueError("reported"))
    machine.remove("Exception")

    assert counter.read().errors() == 3


def test_an_error_that_is_reported_counts_whatever_becomes_of_the_report() -> None:
    def refuse(event: Event) -> bool:
        if event.args.get("fail"):
            raise ValueError("as asked")
        return False

    machine, counter = _counted(handlers={"Exception_enter": refuse})

    assert machine.add_error("refused") == Result.CANCELED
    assert counter.read().errors() == 1
    assert machine.add_error("refused", fail=True) == Result.CANCELED
    assert counter.read().errors() == 3  # and one in the handler


def test_an_error_that_is_raised_counts_too() -> None:
    machine, counter = _counted(handlers=Handlers(), catch_errors=False)

    with pytest.raises(ValueError, match="as asked"):
        machine.add("Bad", fail=True)

    assert counter.read().errors() == 1


def test_handlers_are_counted_with_what_they_take() -> None:
    machine, counter = _counted(handlers=Handlers())

    machine.add("Bad")
    machine.remove("Bad")
    machine.add("Bad", fail=True)

    handled = counter.read().handled
    assert sum(handled.counts) == 4
    assert 0 < handled.seconds < counter.read().taken.seconds


def test_handlers_are_not_counted_unless_wanted() -> None:
    counter = _counter(handlers=False)
    machine = Machine(STATES, handlers=Handlers(), tracers=[counter])

    machine.add("Bad")

    assert sum(counter.read().handled.counts) == 0
    assert counter.read().transitions()["add", "executed"] == 1


def test_a_late_handler_counts_once_and_in_its_bucket() -> None:
    released = threading.Event()
    counter = _counter()
    machine = Machine(
        STATES,
        handlers={"Foo_state": lambda event: released.wait(30)},
        handler_timeout=0.12,
        tracers=[counter],
    )

    stuck = threading.Thread(target=machine.add, args=("Foo",))
    stuck.start()
    assert machine.when_error().wait(10)
    released.set()
    stuck.join()

    counts = counter.read()
    assert sum(counts.handled.counts) == 1
    assert counts.handled.counts.index(1) >= BUCKETS.index(0.1) + 1
    assert counts.errors() == 1
    machine.dispose()


def test_what_waits_in_the_queue_is_timed() -> None:
    def nest(event: Event) -> None:
        event.machine.add("Foo")
        event.machine.add("Bar")

    machine, counter = _counted(handlers={"Bad_state": nest})

    machine.add("Bad")

    waited = counter.read().waited
    assert sum(waited.counts) == 2
    assert waited.seconds > 0


def test_a_bucket_takes_what_is_no_more_than_its_bound() -> None:
    counter = Counter([10, 20], handlers=False, adopt=lambda _: None)
    ended: list[Transition] = []

    class Keeping(Tracer):
        def transition_end(self, tx: Transition) -> None:
            ended.append(tx)

    Machine(STATES, tracers=[Keeping()]).add("Bad")

    for taken_ns in (10, 11, 20, 21):
        ended[0].ended_ns = ended[0].started_ns + taken_ns
        counter.transition_end(ended[0])

    assert counter.read().taken.counts == (1, 2, 1)
    assert counter.read().taken.seconds == pytest.approx(62e-9)


def test_plans_are_forgotten_before_they_are_too_many_and_no_count_is_lost() -> None:
    names = [f"S{i}" for i in range(12)]
    counter = _counter()
    machine = Machine({name: State() for name in names}, tracers=[counter])
    done = 0

    for bits in range(1, 1 << len(names)):  # each combination of states is a plan of its own
        machine.set(*(name for i, name in enumerate(names) if bits >> i & 1))
        done += 1

    assert counter.read().transitions()["set", "executed"] == done == 4095


def test_threads_that_share_a_machine_lose_no_count() -> None:
    counter = _counter()
    machine = Machine(STATES, tracers=[counter], queue_limit=100_000)
    seen: list[int] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            counts = counter.read()
            all_of_them = (*counts.transitions().values(), *counts.autos().values())
            assert sum(counts.taken.counts) == sum(all_of_them)
            seen.append(sum(counts.taken.counts))

    def work(name: str) -> None:
        for n in range(500):
            machine.add(name, n=n)  # with args none is a duplicate

    reader = threading.Thread(target=read)
    workers = [threading.Thread(target=work, args=(name,)) for name in ("Foo", "Bad")]
    for thread in (reader, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    machine.when_queue_empty().wait(10)
    machine.eval(lambda: None)
    over.set()
    reader.join()

    assert seen == sorted(seen)
    assert counter.read().transitions()["add", "executed"] == 1000


@pytest.mark.parametrize(
    "buckets", [(), (0,), (-1.0, 1.0), (2.0, 1.0), (1.0, 1.0), (float("nan"),)]
)
def test_buckets_that_are_none_are_named(buckets: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="buckets are ever larger numbers of seconds above 0"):
        bounds_of(buckets)
