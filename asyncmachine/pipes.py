"""Pipes: machines that feed machines.

Guarantees: a pipe keeps the order of what it carries. It hands a mutation over to the
target's queue and lets a background thread carry it out: the source's transition never
waits for the target's handlers. What a pipe can not deliver it tells the source.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from asyncmachine.errors import MachineError, PipeOverflowError
from asyncmachine.logs import log_exception
from asyncmachine.relations import ADD, REMOVE
from asyncmachine.schema import EXCEPTION

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal, Self

    from asyncmachine.api import MachineAPI
    from asyncmachine.handlers import Binding, Handler
    from asyncmachine.transition import Cause, Event

__all__ = ["Pipe", "pipe", "pipe_all", "pipe_routes"]


class Pipe:
    """What carries changes from a source to a target, until it is closed.

    Attributes:
        source: the machine whose changes are carried.
        target: the machine that is changed.
        cause: the transition that is carried, if not the one of the thread that carries.
        trace: the W3C ``traceparent`` of that transition, if it came from another process.

    """

    cause: Cause | None = None
    trace: str = ""

    def __init__(self, source: MachineAPI, target: MachineAPI) -> None:
        self.source = source
        self.target = target
        self._closed = False
        self._passed = (source.id,)
        self._undo: list[Binding] = []
        for machine in (source, target):
            self.undo_with(machine.on_dispose(lambda _: self.close()))

    @property
    def closed(self) -> bool:
        """Whether it carries nothing any more."""
        return self._closed

    def close(self) -> None:
        """Carry nothing any more; what has been handed over is still carried out."""
        self._closed = True
        undo, self._undo = self._undo, []
        for binding in undo:
            binding.unbind()

    def undo_with(self, binding: Binding) -> None:
        """Have a binding undone when it is closed."""
        self._undo.append(binding)
        if self._closed:
            binding.unbind()

    def lay(self, routes: list[tuple[str, str]], kinds: tuple[str, ...], *, sync: bool) -> None:
        """Begin to carry.

        Args:
            routes: pairs of a source's state and a target's.
            kinds: whether activations (``"add"``), deactivations (``"remove"``) or both.
            sync: whether what is active now is brought up at once.

        """
        listeners: dict[str, Handler] = {}
        for state, wanted in routes:
            if ADD in kinds:
                listeners[f"{state}_state"] = partial(self.forward, ADD, wanted)
            if REMOVE in kinds:
                listeners[f"{state}_end"] = partial(self.forward, REMOVE, wanted)
        started = partial(self._bring_up, routes) if sync and ADD in kinds else None
        self.undo_with(self.source.listen(listeners, started, pipes=True))

    def forward(self, kind: str, state: str, event: Event) -> None:
        """Carry one change of the source; what goes wrong is logged."""
        tx = event.transition
        request = tx.request  # one that nobody has looked at has passed no pipe
        passed: tuple[str, ...] = self._passed
        if request is not None and request.passed:
            passed = (*request.passed, self.source.id)
            if self.target.id in passed:
                return
        try:
            self.deliver(kind, state, dict(tx.args), passed)
        except Exception as error:  # noqa: BLE001 - the source has nothing to do with it
            log_exception("error in %r", self, error=error)

    def _bring_up(self, routes: list[tuple[str, str]]) -> None:
        for state, wanted in routes:
            multi = (
                self.source.schema.states[state].multi or self.target.schema.states[wanted].multi
            )
            if self.source.is_active(state) and not multi:
                self.deliver(ADD, wanted, {}, (self.source.id,))

    def deliver(
        self, kind: str, state: str, args: dict[str, object], passed: tuple[str, ...]
    ) -> None:
        """Hand one mutation over to the target; the source is told of what can not be."""
        if self._closed:
            return
        try:
            result = self.target.deliver(kind, (state,), args, passed, self.cause, self.trace)
        except MachineError as error:  # something in the args can not travel
            self.source.add_error(error)
            return
        if result:
            self.target.hand_over(self.source)
            return
        self.close()
        if not self.target.is_disposed:
            text = f"{self.target.id} takes no more of {state}, the pipe is closed: {result.why}"
            self.source.add_error(PipeOverflowError(text))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Pipe {self.source.id} -> {self.target.id}{' closed' if self._closed else ''}>"


def pipe(
    source: MachineAPI,
    state: str,
    target: MachineAPI,
    target_state: str,
    *,
    on: Literal["add", "remove"] | None = None,
    sync: bool = True,
) -> Pipe:
    """Have a state of one machine follow a state of another.

    An activation in the source adds the target's state, with its args; a deactivation
    removes it. Pipes that form a ring do not echo.

    Args:
        source: the machine to follow.
        state: its state.
        target: the machine that follows, another one.
        target_state: its state.
        on: ``"add"`` or ``"remove"`` to carry only activations or only deactivations.
        sync: whether the target is brought up at once if the source's state is active now
            (not for multi states, nor with ``on="remove"``).

    Returns:
        The pipe; it ends with ``close()``, or when either machine is disposed.

    Raises:
        UnknownStateError: for a state that its machine lacks.
        ValueError: if both ends are the same machine, or for another ``on``.

    Example:
        >>> from asyncmachine import Machine, State, pipe
        >>> server, monitor = Machine({"Ready": State()}), Machine({"ServerReady": State()})
        >>> link = pipe(server, "Ready", monitor, "ServerReady")
        >>> server.add("Ready"), monitor.when("ServerReady").wait(5)
        (Result.EXECUTED, True)
        >>> link.close()

    """
    if on not in (None, ADD, REMOVE):
        msg = f"on must be 'add', 'remove' or None, not {on!r}"
        raise ValueError(msg)
    source.schema.position(state)
    target.schema.position(target_state)
    return _laid(source, target, [(state, target_state)], on, sync=sync)


def pipe_all(source: MachineAPI, target: MachineAPI, *states: str) -> Pipe:
    """Mirror states of one machine in another.

    Args:
        source: the machine to follow.
        target: the machine that follows, another one.
        states: the states; all that both have, but ``Exception``, if none is named.

    Returns:
        One pipe for all of them.

    Raises:
        UnknownStateError: for a state that either machine lacks.
        ValueError: if both ends are the same machine, or have no state in common.

    """
    names = states or tuple(
        name for name in source.states if name != EXCEPTION and target.has(name)
    )
    if not names:
        msg = f"{source.id} and {target.id} have no state in common"
        raise ValueError(msg)
    for name in names:
        source.schema.position(name)
        target.schema.position(name)
    return _laid(source, target, [(name, name) for name in names], None, sync=True)


def _laid(
    source: MachineAPI,
    target: MachineAPI,
    routes: list[tuple[str, str]],
    on: str | None,
    *,
    sync: bool,
) -> Pipe:
    if source is target:
        msg = f"a pipe needs two machines, and both ends are {source.id}"
        raise ValueError(msg)
    return pipe_routes(source, target, routes, (on,) if on else (ADD, REMOVE), sync=sync)


def pipe_routes(
    source: MachineAPI,
    target: MachineAPI,
    routes: list[tuple[str, str]],
    kinds: tuple[str, ...],
    *,
    sync: bool,
) -> Pipe:
    """Lay one pipe for several pairs of states.

    Args:
        source: the machine to follow.
        target: the machine that follows.
        routes: pairs of a source's state and a target's.
        kinds: ``"add"``, ``"remove"`` or both.
        sync: whether what is active now is brought up at once.

    """
    made = source.lay_pipe(target, routes, kinds, sync=sync)
    if made is None:
        made = Pipe(source, target)
        made.lay(routes, kinds, sync=sync)
    return made
