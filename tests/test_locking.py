"""Locks that are new in a forked child."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from asyncmachine.locking import FreshLock
from tests.races import PATIENCE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("whose", ["own", "another's"])
def test_a_child_finds_it_free_and_gives_back_what_it_has_taken(whose: str) -> None:
    lock = FreshLock()
    had, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.now:
            had.set()
            assert over.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    if whose == "own":
        with lock.now:
            child = _fork_and_take(lock)
    else:
        holder.start()
        assert had.wait(PATIENCE)
        child = _fork_and_take(lock)
        over.set()
        holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def _fork_and_take(lock: FreshLock) -> int:
    child = os.fork()
    if not child:  # pragma: no cover - measured in the parent only
        os._exit(7 if lock.now.acquire(timeout=1) else 1)
    return child


def test_a_child_leaves_the_block_in_which_it_was_forked() -> None:
    lock = FreshLock()
    with lock.now:
        lock.renew()  # as in a child
    with lock.now:
        pass


def test_a_signal_handler_may_come_again() -> None:
    lock = FreshLock()
    came: list[bool] = []

    def come(*_: object) -> None:
        had = lock.now.acquire(timeout=1)
        came.append(had)
        if had:
            lock.now.release()

    before = signal.signal(signal.SIGUSR1, come)
    try:
        with lock.now:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came == [True]
