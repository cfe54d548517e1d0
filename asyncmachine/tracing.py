"""Watching a machine from outside: `Tracer`, and who is registered for what.

Only the methods that a tracer really overrides are called. A tracer that raises is
logged and never disturbs the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncmachine.logs import log_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncmachine.machine import Machine
    from asyncmachine.schema import Schema
    from asyncmachine.transition import Mutation, Transition

__all__ = ["Tracer", "Tracers"]


class Tracer:
    """Base of observers: override what you want to hear of, and add it to a machine.

    The methods run on the thread that carries out the transition, so they should be
    quick. Called in this order for a transition: ``transition_init``,
    ``transition_start``, ``handler_start`` and ``handler_end`` for each handler,
    ``transition_end``.

    Attributes:
        wants_steps: whether transitions shall record their ``steps``, which costs time.

    Example:
        >>> from asyncmachine import Machine, State
        >>> class Printer(Tracer):
        ...     def transition_end(self, tx):
        ...         print(tx.mutation.kind, tx.mutation.states, tx.accepted)
        >>> machine = Machine({"Foo": State()}, tracers=[Printer()])
        >>> machine.add("Foo")
        add ('Foo',) True
        Result.EXECUTED

    """

    wants_steps: bool = False

    def machine_init(self, mach: Machine) -> None:
        """A machine has been built with this tracer, or the tracer has been added to it."""

    def machine_dispose(self, mach: Machine) -> None:
        """The machine has been disposed."""

    def submachine(self, parent: Machine, child: Machine) -> None:
        """A machine has been built with ``parent`` as its parent."""

    def mutation_queued(self, mach: Machine, mutation: Mutation) -> None:
        """A mutation has to wait for its turn."""

    def transition_init(self, tx: Transition) -> None:
        """A transition has been resolved; nothing has been asked or changed yet."""

    def transition_start(self, tx: Transition) -> None:
        """The handlers of the transition, if any, come next."""

    def transition_end(self, tx: Transition) -> None:
        """The transition is over, refused ones included, and waiters have been set."""

    def handler_start(self, tx: Transition, name: str) -> None:
        """A handler is about to be called."""

    def handler_end(self, tx: Transition, name: str) -> None:
        """A handler has returned, raised, or overrun its time."""

    def queue_empty(self, mach: Machine) -> None:
        """The machine's queue has been drained."""

    def schema_change(self, mach: Machine, old: Schema, new: Schema) -> None:
        """The schema of the machine has been replaced."""


HOOKS: Final = tuple(name for name, value in vars(Tracer).items() if callable(value))


class Tracers:
    """The tracers of one machine, by hook; replaced whole when one comes or goes."""

    __slots__ = ("_by_hook", "all", "wants_steps")

    def __init__(self, tracers: Iterable[Tracer]) -> None:
        self.all: tuple[Tracer, ...] = tuple(tracers)
        self.wants_steps = any(getattr(tracer, "wants_steps", False) for tracer in self.all)
        self._by_hook: dict[str, list[Callable[..., object]]] = {}
        for hook in HOOKS:
            ignored = getattr(Tracer, hook)
            methods = [
                getattr(each, hook)
                for each in self.all
                if getattr(type(each), hook, ignored) is not ignored or hook in _own(each)
            ]
            if methods:
                self._by_hook[hook] = methods

    def tell(self, hook: str, *details: object) -> None:
        """Call one hook of all tracers that have it."""
        for method in self._by_hook.get(hook, ()):
            try:
                method(*details)
            except Exception:  # noqa: BLE001 - it is the user's code
                log_exception("error in the tracer %r", method)


def _own(tracer: Tracer) -> dict[str, object]:
    return getattr(tracer, "__dict__", {})
