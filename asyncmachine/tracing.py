"""Watching a machine from outside: `Tracer`, who is registered for what, and for all.

Only the methods that a tracer really overrides are called. A tracer that raises is
logged and never disturbs the machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeAlias

from asyncmachine.logs import log_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncmachine.machine import Machine
    from asyncmachine.schema import Schema
    from asyncmachine.transition import Mutation, Transition

__all__ = [
    "PROPAGATORS",
    "Tracer",
    "Tracers",
    "propagate_with",
    "tell",
    "trace_here",
    "tracers_everywhere",
]


class Tracer:
    """Base of observers: override what you want to hear of, and add it to a machine.

    The methods run on the thread that carries out the transition, so they should be
    quick. Called in this order for a transition: ``transition_init``,
    ``transition_start``, ``handler_start`` and ``handler_end`` for each handler,
    ``transition_commit`` if it was executed, ``transition_end``.

    Attributes:
        wants_steps: whether transitions shall record their ``steps``, which costs time.
        wants_bare: whether to hear ``transition_init`` and ``transition_start`` also of
            transitions that call no handler; they may be told all the same.
        wants_ids: whether it asks for the ``id`` of each transition, which is quicker if it
            is known to be wanted.

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
    wants_bare: bool = True
    wants_ids: bool = False

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

    def transition_commit(self, tx: Transition) -> None:
        """The transition has changed the machine and its handlers have run.

        Nobody has been told of it yet: waiters and results come after, so what is written
        down here is safe before anybody can rely on it. Refused ones do not come here.
        """

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
Hook: TypeAlias = "tuple[Callable[..., object], ...]"


class Tracers:
    """The tracers of one machine, by hook; replaced whole when one comes or goes.

    Attributes:
        all: the tracers.
        wants_steps, wants_bare, wants_ids: whether one of them wants these.
        early: whether one of them wants to hear of a transition before it is over.
        thorough: whether one wants to hear of every transition before it is over.
        sole_end: the method for ``transition_end``, if there is just one.

    Each hook is an attribute too: the methods of the tracers that have it.

    """

    __slots__ = (
        *HOOKS,
        "all",
        "early",
        "sole_end",
        "thorough",
        "wants_bare",
        "wants_ids",
        "wants_steps",
    )

    machine_init: Hook
    machine_dispose: Hook
    submachine: Hook
    mutation_queued: Hook
    transition_init: Hook
    transition_start: Hook
    transition_commit: Hook
    transition_end: Hook
    handler_start: Hook
    handler_end: Hook
    queue_empty: Hook
    schema_change: Hook

    def __init__(self, tracers: Iterable[Tracer]) -> None:
        self.all: tuple[Tracer, ...] = tuple(tracers)
        self.wants_steps = any(getattr(each, "wants_steps", False) for each in self.all)
        self.wants_bare = any(getattr(each, "wants_bare", True) for each in self.all)
        self.wants_ids = any(getattr(each, "wants_ids", False) for each in self.all)
        for hook in HOOKS:
            ignored = getattr(Tracer, hook)
            methods = [
                getattr(each, hook)
                for each in self.all
                if getattr(type(each), hook, ignored) is not ignored or hook in _own(each)
            ]
            setattr(self, hook, tuple(methods))
        self.early = bool(self.transition_init or self.transition_start)
        self.thorough = bool(self.transition_commit) or (self.early and self.wants_bare)
        ends = self.transition_end
        self.sole_end = ends[0] if len(ends) == 1 else None

    def tell(self, hook: str, *details: object) -> None:
        """Call one hook of all tracers that have it."""
        tell(getattr(self, hook), *details)


def tell(methods: Hook, *details: object) -> None:
    """Call the methods of several tracers for one hook; what they raise is logged."""
    for method in methods:
        try:
            method(*details)
        except Exception:  # noqa: BLE001 - it is the user's code
            log_exception("error in the tracer %r", method)


def _own(tracer: Tracer) -> dict[str, object]:
    return getattr(tracer, "__dict__", {})


# Traces that cross processes ------------------------------------------------------------

Propagator: TypeAlias = "Callable[[Transition | None], str]"
PROPAGATORS: Final[list[Propagator]] = []  # one, or none: cheap to look at


def propagate_with(propagator: Propagator | None) -> None:
    """Have the trace that a mutation belongs to travel with it to other processes.

    Args:
        propagator: given the transition whose handler the current thread is in, or
            ``None``, it returns the W3C ``traceparent`` to send along, or an empty text.
            The last one given counts; ``None`` stops it.

    """
    PROPAGATORS[:] = () if propagator is None else (propagator,)


def trace_here(tx: Transition | None) -> str:
    """Give the ``traceparent`` of what the current thread is doing; empty if nobody traces."""
    for propagator in tuple(PROPAGATORS):
        try:
            return propagator(tx)
        except Exception:  # noqa: BLE001 - an observer's fault harms no mutation
            log_exception("error in the propagator %r", propagator)
    return ""


# Tracers for every machine --------------------------------------------------------------

GROUP: Final = "asyncmachine.tracers"
_everywhere: list[tuple[Tracer, ...]] = []


def tracers_everywhere() -> tuple[Tracer, ...]:
    """Give the tracers that the environment asks for, for every machine of the program.

    They are the entry points of the group ``asyncmachine.tracers``: one named ``AM_DBG``
    is loaded, and called without arguments, if the environment variable ``AM_DBG`` is
    set when the first machine is built. It returns a `Tracer`, or ``None``.
    """
    if not _everywhere:
        _everywhere.append(_asked_for())  # twice, if threads race: the first one counts
    return _everywhere[0]


def _asked_for() -> tuple[Tracer, ...]:
    if not any(name.startswith("AM_") for name in os.environ):
        return ()
    from importlib.metadata import entry_points  # slow, and rarely needed

    found: list[Tracer] = []
    for point in entry_points(group=GROUP):
        if not os.environ.get(point.name):
            continue
        try:
            tracer = point.load()()
        except Exception:  # noqa: BLE001 - a missing extra, say: the program goes on
            log_exception("the tracer that %s asks for can not be had", point.name)
        else:
            found += () if tracer is None else (tracer,)
    return tuple(found)
