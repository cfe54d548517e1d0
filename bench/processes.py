"""Processes for a benchmark, which end with it: after an error and after Ctrl-C, too.

A target gets its end of a pipe, its *line*, before its other arguments. It has to end when
the line does, which happens also when the process that started it is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["STARTED_S", "process", "until_the_end"]

_P = ParamSpec("_P")

STARTED_S: Final = 30
_ENDED_S: Final = 5


@contextmanager
def process(
    target: Callable[Concatenate[Connection[object, object], _P], None],
    /,
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> Iterator[Connection[object, object]]:
    """Run ``target(line, …)`` in a fresh interpreter until the end of the block.

    Gives this end of the line, a pipe of ``multiprocessing``. Its own ``Process`` would
    leave a resource tracker behind, and have Ctrl-C hit the children before their parent.

    Args:
        target: a function that can be imported.
        args: what else it gets; has to be picklable.
        kwargs: the same by keyword.

    """
    ours, theirs = multiprocessing.Pipe()
    with ours:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-m", "bench.processes", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the parent's to see to.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        try:
            ours.send((target, args, kwargs))
            yield ours
        finally:
            ours.close()
            try:
                child.wait(_ENDED_S)
            finally:
                child.kill()
                child.wait()


def until_the_end(line: Connection[object, object]) -> None:
    """Block until the parent has closed its end of the line, or is gone."""
    try:
        line.recv()
    except (EOFError, OSError):
        pass


def _run(descriptor: int) -> None:
    with Connection(descriptor) as line:  # pickles from our own parent
        target, args, kwargs = line.recv()
        target(line, *args, **kwargs)


if __name__ == "__main__":
    _run(int(sys.argv[1]))
