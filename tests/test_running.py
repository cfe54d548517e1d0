"""What threads are carrying out, and which waits could never end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from asyncmachine.running import LOCAL, Blocked, Frame, is_inside
from tests.races import PATIENCE, outcome, start, switching_often, together


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with switching_often():
        yield


@contextmanager
def inside(*machines: object) -> Iterator[None]:
    """Be in handlers of machines, the innermost last."""
    here = LOCAL.here
    outer = here.top
    for machine in machines:
        here.top = Frame(machine, here.top)
    try:
        yield
    finally:
        here.top = outer


def test_a_thread_is_inside_every_machine_of_its_chain() -> None:
    near, far, other = "near", "far", "other"
    assert not is_inside(near)
    with inside(near):
        with inside(far):
            assert (is_inside(near), is_inside(far), is_inside(other)) == (True, True, False)
        assert not is_inside(far)
    assert not is_inside(near)


def test_what_one_thread_is_inside_of_is_nothing_to_another() -> None:
    with inside("near"):
        assert outcome(start(lambda: is_inside("near"))) is False


def test_a_frame_that_has_lost_the_turn_counts_no_more() -> None:
    with inside("near"):
        top = LOCAL.here.top
        assert isinstance(top, Frame)
        top.machine = None
        assert not is_inside("near")


def test_who_holds_nothing_may_always_wait() -> None:
    with Blocked("near") as safe:
        assert safe


def test_who_holds_a_machine_may_wait_for_another_but_not_for_itself() -> None:
    with inside("near"):
        with Blocked("far") as safe:
            assert safe
        with Blocked("near") as safe:
            assert not safe


MACHINES: dict[str, object] = {name: object() for name in "abcdxyz"}


class Waiting:
    """A thread that is inside some machines and waits for another one, until it is let go."""

    def __init__(self, machines: str, awaited: str) -> None:
        self._machines = [MACHINES[name] for name in machines]
        self._awaited = MACHINES[awaited]
        self._declared = threading.Event()
        self._end = threading.Event()

    def _wait(self) -> bool:
        with inside(*self._machines), Blocked(self._awaited) as safe:
            self._declared.set()
            assert self._end.wait(PATIENCE)
            return safe

    def __enter__(self) -> None:
        self._thread = start(self._wait)
        assert self._declared.wait(PATIENCE)

    def __exit__(self, *error: object) -> None:
        self._end.set()
        assert outcome(self._thread) is True


@pytest.mark.parametrize(
    ("waiting", "mine", "awaited", "safe"),
    [
        ([], "a", "b", True),
        ([("b", "c")], "a", "b", True),
        ([("b", "a")], "a", "b", False),
        ([("b", "c"), ("c", "a")], "a", "b", False),
        ([("b", "c"), ("c", "d")], "a", "b", True),
        ([("b", "c"), ("c", "d"), ("d", "a")], "a", "b", False),
        ([("xb", "c"), ("cy", "a")], "za", "b", False),
        ([("b", "a")], "c", "b", True),
        ([("b", "z")], "az", "b", False),
    ],
)
def test_a_wait_that_closes_a_ring_is_not_safe(
    waiting: list[tuple[str, str]], mine: str, awaited: str, *, safe: bool
) -> None:
    with ExitStack() as stack:
        for machines, other in waiting:
            stack.enter_context(Waiting(machines, other))
        with inside(*(MACHINES[name] for name in mine)), Blocked(MACHINES[awaited]) as answer:
            assert answer is safe


def test_a_wait_that_is_over_stands_in_nobodys_way() -> None:
    with Waiting("b", "a"):
        pass
    with inside(MACHINES["a"]), Blocked(MACHINES["b"]) as safe:
        assert safe


@pytest.mark.parametrize("number", [2, 3, 4])
def test_of_threads_that_close_a_ring_together_at_least_one_is_told(number: int) -> None:
    names = [str(n) for n in range(number)]
    for _ in range(100):
        declared = threading.Barrier(number)

        def wait(n: int, declared: threading.Barrier = declared) -> bool:
            with inside(names[n]), Blocked(names[(n + 1) % number]) as safe:
                declared.wait(PATIENCE)  # nobody goes on before all have declared
                return safe

        jobs: list[Callable[[], bool]] = [lambda n=n: wait(n) for n in range(number)]  # type: ignore[misc]
        assert together(*jobs).count(False) == 1
