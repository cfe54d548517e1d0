"""`Machine`: the public face, which delegates.

Reading is in reading.py, waiting in awaiting.py, changing in changing.py, carrying out a
transition in traced.py and conducting.py, taking turns in turns.py, what is done between
transitions in resting.py, children and disposal in living.py; each is a base of the next.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

from asyncmachine.errors import MachineError, UnknownStateError, hint
from asyncmachine.handlers import Binding, collect, listeners_for
from asyncmachine.living import Living
from asyncmachine.logs import LogLevel
from asyncmachine.narration import Narrator
from asyncmachine.oneshot import OneShot
from asyncmachine.plans import graph_of
from asyncmachine.relations import ADD, REMOVE, SET
from asyncmachine.results import Canceled
from asyncmachine.running import is_inside
from asyncmachine.schema import EXCEPTION, Schema
from asyncmachine.threads import background_here, run_aside
from asyncmachine.tracing import Tracers, tracers_everywhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Literal

    from asyncmachine.api import MachineAPI
    from asyncmachine.handlers import Handler
    from asyncmachine.pipes import Pipe
    from asyncmachine.results import Result
    from asyncmachine.schema import State, States
    from asyncmachine.tracing import Tracer
    from asyncmachine.transition import Cause, Transition
    from asyncmachine.waiting import StateContext, Waiter

__all__ = ["Machine"]

KINDS: Final = (ADD, REMOVE, SET)

# Ids of machines that were given none: unique in the program, unlikely to meet elsewhere.
_IDS: Final = count(int.from_bytes(os.urandom(6), "big") | 1 << 47)

# How many requests may wait in the queue of a pipe's target.
PIPE_LIMIT: Final = 100_000

_T = TypeVar("_T")


class Machine(Living):
    """A relational state machine: many states at once, each with a logical clock.

    All methods may be called from any thread. Used in a ``with`` statement it is disposed
    at the end.

    Args:
        states: a mapping of names to `State`, a `States` class, or a `Schema`.
        id: its name; one is made up if none is given.
        handlers: what to `bind` at once: an object, a module, a mapping, or a list of these.
        parent: a machine that disposes this one when it is disposed.
        tags: labels for tools.
        tracers: the first `Tracer` objects.
        handler_timeout: seconds that each handler may take; ``None`` for any time.
        queue_limit: how many mutations may wait; more are canceled.
        log_level: how much is logged.
        log_args: names of the args that are logged.
        catch_errors: whether an error in a handler becomes an ``Exception`` mutation; if
            not, it is raised to the caller whose thread ran the handler.

    Raises:
        SchemaError: if the schema has faults.
        HandlerError: if the handlers do not fit.

    Example:
        >>> from asyncmachine import Machine, State
        >>> class Handlers:
        ...     def Bar_state(self, event):
        ...         print("Bar with", dict(event.args))
        >>> machine = Machine({"Foo": State(add="Bar"), "Bar": State()}, handlers=Handlers())
        >>> machine.add("Foo", answer=42)
        Bar with {'answer': 42}
        Result.EXECUTED
        >>> str(machine)
        '(Foo:1 Bar:1)'

    """

    __slots__ = ("_log_args", "_log_level", "tags")

    def __init__(
        self,
        states: Mapping[str, State] | type[States] | Schema,
        *,
        id: str | None = None,
        handlers: object = None,
        parent: Machine | None = None,
        tags: Iterable[str] = (),
        tracers: Iterable[Tracer] = (),
        handler_timeout: float | None = None,
        queue_limit: int = 1000,
        log_level: LogLevel = LogLevel.NOTHING,
        log_args: Iterable[str] = (),
        catch_errors: bool = True,
    ) -> None:
        if id is not None and not isinstance(id, str):
            msg = f"id must be a str, not {id!r}"
            raise TypeError(msg)
        if parent is not None and not isinstance(parent, Machine):
            msg = f"parent must be a Machine, not {parent!r}"
            raise TypeError(msg)
        if queue_limit < 1:
            msg = f"queue_limit must be at least 1, not {queue_limit!r}"
            raise ValueError(msg)
        super().__init__(
            f"{next(_IDS):x}" if id is None else id,
            states if type(states) is Schema else Schema(states),
            parent,
            handler_timeout,
            catch_errors,
            queue_limit,
        )
        if handler_timeout is not None:
            self.handler_timeout = handler_timeout  # which checks it
        self.tags = _names(tags) if tags else ()
        self._log_level = LogLevel.NOTHING
        self._log_args = _names(log_args) if log_args else ()
        if log_level:
            self.log_level = LogLevel(log_level)
        if handlers is not None:
            for each in handlers if isinstance(handlers, list | tuple) else (handlers,):
                ignored = _OWN_NAMES if isinstance(each, Machine) else ()
                self._bound = self._bound.plus(collect(self.schema, each, ignored))
            self._now = (graph_of(self.schema, self._bound.shape).start,)
        everywhere = tracers_everywhere()
        if tracers or everywhere:
            self._tracers = Tracers((*everywhere, *tracers))
            self._look_who_watches()
            self._tracers.tell("machine_init", self)
        if parent is not None:
            parent._adopt(self)

    # Mutations ------------------------------------------------------------------------

    def toggle(self, /, *states: str, **args: object) -> Result:
        """Remove states if all of them are active now, else add them.

        Args:
            states: names.
            args: what the handlers get.

        Returns:
            The result: executed, canceled, or queued if the machine is busy.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        return self._mutate(REMOVE if self.is_active(*states) else ADD, states, args)

    def add_error(self, /, error: BaseException | str, *states: str, **args: object) -> Result:
        """Add ``Exception``, with the error as arg ``error``, and keep it as ``machine.error``.

        Args:
            error: the error; a text is wrapped in `MachineError`.
            states: names of error states to add with it.
            args: what the handlers get besides.

        Returns:
            The result: executed, canceled, or queued if the machine is busy.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"NetworkDown": State(require="Exception")})
            >>> machine.add_error("no route", "NetworkDown"), str(machine)
            (Result.EXECUTED, '(NetworkDown:1 Exception:1)')

        """
        if isinstance(error, str):
            error = MachineError(error)
        if not isinstance(error, BaseException):
            msg = f"an exception or a text is needed, not {error!r}"
            raise TypeError(msg)
        self.schema.find(states)
        self.error = error
        return self._mutate(ADD, (EXCEPTION, *states), {**args, "error": error})

    def send(
        self, kind: Literal["add", "remove", "set"], /, *states: str, **args: object
    ) -> Result:
        """Request a mutation without carrying it out here: a background thread does.

        Args:
            kind: ``"add"``, ``"remove"`` or ``"set"``.
            states: names.
            args: what the handlers get.

        Returns:
            A queued result, or a canceled one.

        Raises:
            UnknownStateError: for a name that the schema lacks.
            ValueError: for another kind.

        """
        _check_kind(kind)
        try:
            result = self._enqueue(kind, states, args, serve=False)
            if self._baton:
                run_aside(self._serve_behind)
        except BaseException:
            self._serve_later()
            raise
        return result

    def can_add(self, /, *states: str, **args: object) -> Result:
        """Ask whether ``add`` would be executed: relations and negotiation, nothing else.

        Waits for its turn; inside a handler of the machine it is answered on the spot.

        Returns:
            An executed or a canceled result, with its ``why``.

        Raises:
            UnknownStateError: for a name that the schema lacks.

        """
        return self._can(ADD, states, args)

    def can_remove(self, /, *states: str, **args: object) -> Result:
        """Ask whether ``remove`` would be executed; see `can_add`."""
        return self._can(REMOVE, states, args)

    def can_set(self, /, *states: str, **args: object) -> Result:
        """Ask whether ``set`` would be executed; see `can_add`."""
        return self._can(SET, states, args)

    def eval(self, fn: Callable[[], _T], timeout: float | None = None) -> _T:
        """Run a function alone, between transitions; from inside a handler, at once.

        Mutations that it requests are queued. It may run on another thread, if that one
        has the machine's turn.

        Args:
            fn: takes nothing.
            timeout: seconds to wait for its turn at most; ``None`` waits for ever.

        Returns:
            What the function returned.

        Raises:
            TimeoutError: if its turn did not come in time; then it never runs.

        Example:
            >>> from asyncmachine import Machine, State
            >>> Machine({"Foo": State()}).eval(lambda: 6 * 7)
            42

        """
        return self._evaluate(fn, timeout)

    # Handlers -------------------------------------------------------------------------

    def bind(self, handlers: Mapping[str, Handler] | object) -> Binding:
        """Bind handlers, from the next transition on.

        Args:
            handlers: an object (its methods), a module, or a mapping of names to
                callables. Each handler takes one `Event`.

        Returns:
            A binding, to unbind them.

        Raises:
            HandlerError: with every fault found.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State()})
            >>> binding = machine.bind({"Foo_enter": lambda event: False})
            >>> machine.add("Foo").why
            'vetoed by Foo_enter'
            >>> binding.unbind()
            >>> machine.add("Foo")
            Result.EXECUTED

        """
        ignored = _OWN_NAMES if isinstance(handlers, Machine) else ()
        found = collect(self.schema, handlers, ignored)
        self._rebind(lambda bound: bound.plus(found))
        return Binding(lambda: self._rebind(lambda bound: bound.minus(found)))

    def on(self, name: str, fn: Handler) -> Binding:
        """Have a function hear of one handler name, after its handlers; it can not veto.

        It is called with the `Event` on the thread that carries out the transition. One
        that takes longer than ``handler_timeout``, or a second if there is none, is
        left behind: the machine goes on without it.

        Args:
            name: a handler name, like ``"Foo_state"``.
            fn: takes the event.

        Returns:
            A binding, to stop it.

        Raises:
            HandlerError: for a name that matches no state.

        """
        return self.listen({name: fn})

    def listen(
        self,
        listeners: Mapping[str, Handler],
        started: Callable[[], object] | None = None,
        *,
        pipes: bool = False,
    ) -> Binding:
        """Have functions hear of several handler names, all from the same transition on.

        Args:
            listeners: functions by handler name, as for `on`.
            started: called once they are in place, between two transitions.
            pipes: whether they are a pipe's, which are quick and never fail: nobody
                watches over them.

        Returns:
            A binding, to stop them all.

        Raises:
            HandlerError: for a name that matches no state.

        """
        found = listeners_for(self.schema, listeners, pipes=pipes)
        self._rebind(lambda bound: bound.plus(found), started)
        if self._handed is not None:
            self._await_handed()
        return Binding(lambda: self._rebind(lambda bound: bound.minus(found)))

    # Waiting for the queue ----------------------------------------------------------------

    def when_queue_empty(self, *, ctx: StateContext | None = None) -> Waiter:
        """Wait until the queue has been drained.

        Args:
            ctx: cancels the waiter when it expires.

        """
        return self._when_idle(ctx)

    # Reading more -------------------------------------------------------------------------

    def is_queued(self, kind: Literal["add", "remove", "set"], *states: str) -> bool:
        """Whether a mutation of this kind that calls these states waits in the queue.

        Args:
            kind: ``"add"``, ``"remove"`` or ``"set"``.
            states: names; the mutation may call others besides.

        Raises:
            UnknownStateError: for a name that the schema lacks.
            ValueError: for another kind.

        """
        _check_kind(kind)
        self.schema.find(states)
        waiting = self._queue.snapshot() if self._queue is not None else []
        return any(m.kind == kind and not m.dry and {*states} <= {*m.states} for m in waiting)

    @property
    def queue_length(self) -> int:
        """How many mutations and tasks wait for their turn."""
        return len(self._queue) if self._queue is not None else 0

    @property
    def queue_refused(self) -> int:
        """How many mutations were refused so far, for the queue was full."""
        return self._queue.refused if self._queue is not None else 0

    @property
    def in_transition(self) -> bool:
        """Whether a transition is being carried out, as far as handlers can see one."""
        return self._tx is not None

    @property
    def transition(self) -> Transition | None:
        """The transition that is being carried out, or ``None``."""
        return self._tx

    def import_state(self, data: Mapping[str, object]) -> None:
        """Set all clocks, and with them the active states, to those of a snapshot.

        Done alone, between transitions; from inside a handler, after its transition. No
        handler, waiter or auto state is moved by it until the next transition, but
        contexts of changed states expire. States that the snapshot lacks start at 0.

        Args:
            data: what `export_state` gave, of this machine or of another one.

        Raises:
            UnknownStateError: for a name that the schema lacks.
            ValueError: if the data is malformed.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State(), "Bar": State()})
            >>> machine.import_state({"names": ["Foo", "Bar"], "ticks": [3, 2]})
            >>> machine.describe()
            '(Foo:3)[Bar:2 Exception:0]'

        """
        ticks = _read_snapshot(self.schema, data)
        if is_inside(self):
            self._between(lambda: self._jump(ticks))
        else:
            self.eval(lambda: self._jump(ticks))

    # Watching -----------------------------------------------------------------------------

    def add_tracer(self, tracer: Tracer) -> Binding:
        """Add an observer, from the next transition on.

        Returns:
            A binding, to remove it.

        """

        def join() -> None:
            known = self._tracers.all if self._tracers is not None else ()
            Tracers((tracer,)).tell("machine_init", self)
            self._tracers = Tracers((*known, tracer))
            self._look_who_watches()

        def leave() -> None:
            known = self._tracers.all if self._tracers is not None else ()
            rest = list(known)
            for i in reversed(range(len(rest))):
                if rest[i] is tracer:  # it may have been added more than once
                    del rest[i]
                    break
            self._tracers = Tracers(rest) if rest else None
            self._look_who_watches()

        self._between(join)
        return Binding(lambda: self._between(leave))

    @property
    def tracers(self) -> tuple[Tracer, ...]:
        """The observers."""
        tracers = self._tracers  # read once, for they may leave
        return tracers.all if tracers is not None else ()

    @property
    def log_level(self) -> LogLevel:
        """How much is logged; may be changed at any time."""
        return self._log_level

    @log_level.setter
    def log_level(self, level: LogLevel) -> None:
        self._log_level = LogLevel(level)
        self._narrator = Narrator(self.id, level, self._log_args) if level else None
        self._look_who_watches()

    @property
    def log_args(self) -> tuple[str, ...]:
        """Names of the args that are logged; may be changed at any time."""
        return self._log_args

    @log_args.setter
    def log_args(self, names: Iterable[str]) -> None:
        self._log_args = _names(names)
        self.log_level = self._log_level

    def __repr__(self) -> str:
        return f"<Machine {self.id} {self}>"

    # Delivered by pipes -------------------------------------------------------------------

    def deliver(
        self,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        passed: tuple[str, ...],
        cause: Cause | None = None,
        trace: str = "",
    ) -> Result:
        """Take over a mutation that a pipe forwards, without carrying it out here.

        Args:
            kind: ``"add"`` or ``"remove"``.
            states: names.
            args: what the handlers get.
            passed: ids of the machines that it has passed.
            cause: the transition that it comes from, if not the one of this thread.
            trace: the W3C ``traceparent`` of that transition, if known.

        Returns:
            A queued result; a canceled one if the machine is disposed, or stuck for so
            long that it can take no more.

        """
        if self.queue_length >= PIPE_LIMIT:
            return Canceled(f"the queue is full ({PIPE_LIMIT})")
        return self._enqueue(
            kind, states, args, passed=passed, cause=cause, trace=trace, serve=False
        )

    def lay_pipe(
        self,
        target: MachineAPI,
        routes: list[tuple[str, str]],
        kinds: tuple[str, ...],
        *,
        sync: bool,
    ) -> Pipe | None:
        """Lay a pipe where this machine lives; None, for that is here."""
        return None

    def hand_over(self, source: object) -> None:
        """Have a background thread carry out what a pipe has delivered.

        Args:
            source: the machine that the pipe comes from; its caller gives the delivery a
                moment, so that a script of one thread sees the target move.

        """
        if not self._baton:  # who has the turn looks into the queue afterwards
            return
        background = background_here()
        if background is not None:
            background.put(self._serve_behind)
            if isinstance(source, Machine):
                source._handed = []  # its caller runs what waits
            return
        delivery = OneShot()

        def carry_out() -> None:
            try:
                self._serve_behind()
                self._await_handed()
            finally:
                delivery._fire()

        if isinstance(source, Machine):
            pending = [each for each in source._handed or () if not each.happened]
            source._handed = [*pending, delivery]
        run_aside(carry_out)

    # For its bases ------------------------------------------------------------------------

    def _fork_failed(self, error: Exception) -> None:
        self.add_error(error)

    def _jump(self, ticks: list[int]) -> None:
        """Move to other clocks, being alone; the active states come in declared order."""
        order = tuple(i for i, tick in enumerate(ticks) if tick & 1)
        node = self._now[0].graph.node(order)
        changed = sum(1 << i for i, tick in enumerate(ticks) if tick != self._ticks[i])
        self._now = (node, *(value for pair in enumerate(ticks) for value in pair))
        self._ticks[:] = ticks
        if self._index is not None:
            self._index.expire(changed)
            self._index.doubt()
            for tell in self._index.observers:
                tell()


def _names(given: Iterable[str] | str) -> tuple[str, ...]:
    """One name or several."""
    return (given,) if isinstance(given, str) else tuple(given)


# What a subclass of Machine that is bound to itself has, and that is no handler.
_OWN_NAMES: Final = frozenset(dir(Machine))


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        msg = f"unknown kind of mutation {kind!r}{hint(kind, KINDS)}; there are {', '.join(KINDS)}"
        raise ValueError(msg)


def _read_snapshot(schema: Schema, data: Mapping[str, object]) -> list[int]:
    """The clocks of a snapshot, checked, in the order of the schema."""
    try:
        names, given = list(data["names"]), list(data["ticks"])  # type: ignore[call-overload]
    except (KeyError, TypeError) as error:
        msg = f"a snapshot has lists of 'names' and 'ticks': {error}"
        raise ValueError(msg) from error
    if len(names) != len(given):
        msg = f"the snapshot has {len(names)} names but {len(given)} ticks"
        raise ValueError(msg)
    ticks = [0] * len(schema.names)
    for name, tick in zip(names, given, strict=True):
        if not isinstance(name, str) or name not in schema.index:
            raise UnknownStateError(name, schema.names, "the snapshot")
        if not isinstance(tick, int) or isinstance(tick, bool) or tick < 0:
            msg = f"the tick of {name} is a whole number from 0, not {tick!r}"
            raise ValueError(msg)
        ticks[schema.index[name]] = tick
    return ticks
