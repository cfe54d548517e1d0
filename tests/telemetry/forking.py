"""A program that forks while other threads have the lock of an observer."""

from __future__ import annotations

import subprocess
import sys

from tests.races import PATIENCE
from tests.telemetry.feeding import environment

_CODE = """
import os, sys, threading, warnings
from asyncmachine import Machine, State, Tracer
warnings.simplefilter("ignore", DeprecationWarning)
def make(name):
    machine = Machine({"Foo": State()}, id=name)
    machine.add_tracer(Tracer())
    return machine
first = make("first")
exec(sys.argv[1])
machines = [make(f"m{n}") for n in range(40)]
over = threading.Event()
def add_again():
    while not over.is_set():
        observer.add(first)
threads = [threading.Thread(target=add_again) for _ in range(3)]
for each in threads:
    each.start()
for each in machines:
    child = os.fork()
    if not child:
        observer.add(each)
        each.add("Foo")
        os._exit(0)
    os.waitpid(child, 0)
over.set()
exec(sys.argv[2])
"""


def fork_in_a_crowd(begin: str, end: str = "") -> None:
    """Run it; a child that hangs fails the test.

    Args:
        begin: what makes the ``observer`` of a machine, ``first``.
        end: what is done last.

    """
    subprocess.run(
        [sys.executable, "-c", _CODE, begin, end], env=environment(), check=True, timeout=PATIENCE
    )
