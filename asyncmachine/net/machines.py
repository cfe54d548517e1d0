"""The machines that a process offers to others, by id."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from asyncmachine.errors import hint
from asyncmachine.net.errors import DuplicateMachineError, UnknownMachineError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncmachine.machine import Machine

__all__ = ["Machines"]


class Machines:
    """Machines by id; one that is disposed leaves by itself.

    Raises:
        DuplicateMachineError: for two of one id.

    """

    def __init__(self, machines: Iterable[Machine] = ()) -> None:
        self._lock = Lock()
        self._by_id: dict[str, Machine] = {}
        for machine in machines:
            self.add(machine)

    def add(self, machine: Machine) -> None:
        """Offer one more."""
        with self._lock:
            if self._by_id.setdefault(machine.id, machine) is not machine:
                raise DuplicateMachineError(f"there is a machine of the id {machine.id!r} already")
        machine.on_dispose(self._drop)

    def _drop(self, machine: Machine) -> None:
        with self._lock:
            if self._by_id.get(machine.id) is machine:
                del self._by_id[machine.id]

    def find(self, machine_id: str) -> Machine:
        """Give the machine of an id, or the only one if no id is given.

        Raises:
            UnknownMachineError: naming the nearest that there is.

        """
        with self._lock:
            known = dict(self._by_id)
        if not machine_id and len(known) == 1:
            return next(iter(known.values()))
        found = known.get(machine_id)
        if found is None:
            names = ", ".join(sorted(known)[:10]) or "none"
            if not machine_id:
                raise UnknownMachineError(f"which machine? There is {names}")
            near = hint(machine_id, known) or f"; there is {names}"
            raise UnknownMachineError(f"no machine {machine_id!r} is served here{near}")
        return found

    def all(self) -> list[Machine]:
        """Give all of them, in the order they came."""
        with self._lock:
            return list(self._by_id.values())
