from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from examples.pubsub.clock import VirtualClock, WallClock
from examples.pubsub.validation import AtOnce, Validation, Workers
from tests.races import PATIENCE, Gate, outcome, start, switching_often


@pytest.fixture
def wall() -> Iterator[WallClock]:
    clock = WallClock()
    with switching_often():
        yield clock
    clock.close()


@pytest.fixture(params=["at once", "workers"])
def validation(request: pytest.FixtureRequest, wall: WallClock) -> Iterator[Validation]:
    made: Validation = AtOnce() if request.param == "at once" else Workers(wall, 2)
    yield made
    made.close()


def _keep(answers: list[tuple[int, bool]], number: int, valid: bool) -> None:
    answers.append((number, valid))


def answer(validation: Validation, is_valid: Callable[[], bool]) -> bool:
    answers: list[bool] = []
    answered = threading.Event()

    def done(valid: bool) -> None:
        answers.append(valid)
        answered.set()

    validation.check(is_valid, done)
    assert answered.wait(PATIENCE)
    assert len(answers) == 1
    return answers[0]


def test_the_answer_is_what_the_check_says(validation: Validation) -> None:
    assert answer(validation, lambda: True)
    assert not answer(validation, lambda: False)


def test_what_can_not_be_checked_is_not_valid(
    validation: Validation, caplog: pytest.LogCaptureFixture
) -> None:
    assert not answer(validation, lambda: bool(int("none")))
    assert answer(validation, lambda: True)
    assert "error in a validator" in caplog.text


def test_at_once_everything_is_over_when_the_call_returns() -> None:
    threads: list[int] = []

    def is_valid() -> bool:
        threads.append(threading.get_ident())
        return True

    answers: list[bool] = []
    AtOnce().check(is_valid, answers.append)

    assert answers == [True]
    assert threads == [threading.get_ident()]


def test_workers_check_on_threads_of_their_own_and_answer_on_that_of_the_clock(
    wall: WallClock,
) -> None:
    clock_thread: list[int] = []
    known = threading.Event()
    wall.call_soon(lambda: clock_thread.append(threading.get_ident()))
    wall.call_soon(known.set)
    assert known.wait(PATIENCE)
    workers = Workers(wall, 1)
    checked: list[int] = []
    answered: list[int] = []
    over = threading.Event()

    def is_valid() -> bool:
        checked.append(threading.get_ident())
        return True

    def done(valid: bool) -> None:
        answered.append(threading.get_ident())
        over.set()

    workers.check(is_valid, done)
    assert over.wait(PATIENCE)
    workers.close()

    assert answered == clock_thread
    assert checked != clock_thread
    assert checked != [threading.get_ident()]


def test_workers_check_several_things_at_a_time(wall: WallClock) -> None:
    workers = Workers(wall, 3)
    meeting = threading.Barrier(3)
    answers: list[bool] = []
    over = threading.Semaphore(0)

    def is_valid() -> bool:
        meeting.wait(PATIENCE)  # breaks if they come one by one
        return True

    def done(valid: bool) -> None:
        answers.append(valid)
        over.release()

    for _ in range(3):
        workers.check(is_valid, done)
    assert all(over.acquire(timeout=PATIENCE) for _ in range(3))
    workers.close()

    assert answers == [True] * 3


def test_every_check_is_answered_once(wall: WallClock) -> None:
    workers = Workers(wall, 3)
    answers: list[tuple[int, bool]] = []
    for number in range(500):
        workers.check(partial(bool, number % 3), partial(_keep, answers, number))
    workers.close()
    said = threading.Event()
    wall.call_soon(said.set)
    assert said.wait(PATIENCE)

    assert sorted(answers) == [(number, number % 3 > 0) for number in range(500)]


def test_one_worker_answers_in_order(wall: WallClock) -> None:
    workers = Workers(wall, 1)
    answers: list[tuple[int, bool]] = []
    for number in range(100):
        workers.check(lambda: True, partial(_keep, answers, number))
    workers.close()
    said = threading.Event()
    wall.call_soon(said.set)
    assert said.wait(PATIENCE)

    assert answers == [(number, True) for number in range(100)]


def test_closing_waits_for_what_is_being_checked_and_ends_the_threads() -> None:
    clock = VirtualClock()
    before = set(threading.enumerate())
    workers = Workers(clock, 2)
    gate = Gate()
    answers: list[bool] = []
    workers.check(lambda: bool(gate()) or True, answers.append)
    gate.await_reached()
    closing = start(workers.close)
    assert not closing.done()
    gate.open()
    outcome(closing)

    left = {each.name for each in set(threading.enumerate()) - before}
    assert not any(name.startswith("validation") for name in left)
    assert answers == []  # the clock has not had the time to tell
    clock.run(0.0)
    assert answers == [True]
