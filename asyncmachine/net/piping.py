"""Pipes that begin where a machine of another process lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from asyncmachine.machine import Machine
from asyncmachine.pipes import Pipe
from asyncmachine.relations import ADD, REMOVE
from asyncmachine.transition import Cause

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.api import MachineAPI
    from asyncmachine.handlers import Handler
    from asyncmachine.net.remote import RemoteMachine
    from asyncmachine.transition import Event

__all__ = ["DirectPipe", "InboundPipe", "PipeLayer", "lay_between"]


class PipeLayer(Protocol):
    """What lays pipes straight between the processes of a network."""

    def lay(
        self,
        pipe: DirectPipe,
        routes: list[tuple[str, str]],
        kinds: tuple[str, ...],
        *,
        sync: bool,
    ) -> Callable[[], object]:
        """Lay a pipe; give what closes it."""


class InboundPipe(Pipe):
    """A pipe from a machine elsewhere that passes through this process.

    It waits for room at its target; meanwhile the source's process keeps the rest.
    """

    def lay(self, routes: list[tuple[str, str]], kinds: tuple[str, ...], *, sync: bool) -> None:
        if self.closed:  # one of the machines is gone
            return
        source = cast("RemoteMachine", self.source)
        listeners: dict[str, Handler] = {}
        bring_up: list[int] = []
        for state, wanted in routes:
            if ADD in kinds:
                listeners[f"{state}_state"] = self._carrier(ADD, wanted)
            if REMOVE in kinds:
                listeners[f"{state}_end"] = self._carrier(REMOVE, wanted)
            multi = source.schema.states[state].multi or self.target.schema.states[wanted].multi
            if sync and ADD in kinds and not multi:
                bring_up.append(source.schema.position(state))
        binding = source.subscribe_pipe(listeners, tuple(bring_up), self.close)
        self.undo_with(binding)

    def _carrier(self, kind: str, state: str) -> Handler:
        def carry(event: Event) -> None:
            tx = event.transition
            self.cause = Cause(tx.machine.id, tx.id) if tx.id else None  # one at a time
            self.trace = getattr(tx, "trace", "")
            self.forward(kind, state, event)

        return carry

    def deliver(
        self, kind: str, state: str, args: dict[str, object], passed: tuple[str, ...]
    ) -> None:
        target = self.target
        if isinstance(target, Machine):
            while target.queue_length >= target.queue_limit and not self.closed:
                target.when_queue_empty().wait()
        super().deliver(kind, state, args, passed)


class DirectPipe(Pipe):
    """A pipe that runs straight from one process of a network to another."""

    def __init__(self, source: MachineAPI, target: MachineAPI) -> None:
        self._close_there: Callable[[], object] | None = None
        super().__init__(source, target)

    def lay_with(
        self,
        layer: PipeLayer,
        routes: list[tuple[str, str]],
        kinds: tuple[str, ...],
        *,
        sync: bool,
    ) -> None:
        """Have it laid where the source lives."""
        if self.closed:  # one of the machines is gone
            return
        try:
            self.reconnect(layer.lay(self, routes, kinds, sync=sync))
        except BaseException:
            self.close()
            raise

    def reconnect(self, close_there: Callable[[], object]) -> None:
        """Take note that it was laid again, in another process as a rule."""
        before, self._close_there = self._close_there, close_there
        if before is not None:
            before()
        if self.closed:  # meanwhile
            self._undo_there()

    def close(self) -> None:
        super().close()
        self._undo_there()

    def closed_there(self) -> None:
        """Take note that it has closed where it was laid."""
        self._close_there = None
        super().close()

    def _undo_there(self) -> None:
        close, self._close_there = self._close_there, None
        if close is not None:
            close()


def lay_between(
    source: RemoteMachine,
    target: MachineAPI,
    routes: list[tuple[str, str]],
    kinds: tuple[str, ...],
    *,
    sync: bool,
) -> Pipe | None:
    """Lay a pipe straight between two processes; None if they are not of one network."""
    here = source.place
    there = getattr(target, "place", None)
    if here is None or there is None or here.network is not there.network:
        return None
    made = DirectPipe(source, target)
    made.lay_with(cast("PipeLayer", here.network), routes, kinds, sync=sync)
    return made
