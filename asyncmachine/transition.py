"""One change of a machine, and what is told of it: Mutation, Transition, Event, Result, Step.

These are made only when somebody looks: a handler, a tracer, a log line, a waiting thread.
"""

from __future__ import annotations

from itertools import count
from time import perf_counter_ns
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncmachine.moments import lay_over
from asyncmachine.oneshot import MAKING
from asyncmachine.running import LOCAL, Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from asyncmachine.forks import Fork
    from asyncmachine.machine import Machine
    from asyncmachine.moments import Moment
    from asyncmachine.plans import Plan
    from asyncmachine.results import Result, Ticket

__all__ = [
    "IDS",
    "Cause",
    "ErrorSource",
    "Event",
    "Mutation",
    "Step",
    "Transition",
    "cause_here",
    "transition_here",
]


class Cause(NamedTuple):
    """The transition whose handler requested another one.

    Attributes:
        machine_id: id of its machine.
        transition_id: id of the transition.

    """

    machine_id: str
    transition_id: int


class ErrorSource:
    """Where an error came from; the ``source`` arg of an ``Exception`` mutation.

    Attributes:
        handler: name of the handler.
        states: the called states of the transition that failed.
        states_before: the states that were active before it.
        traceback: the traceback of the error.

    """

    __slots__ = ("handler", "states", "states_before", "traceback")

    def __init__(
        self,
        handler: str,
        states: tuple[str, ...],
        states_before: tuple[str, ...],
        traceback: TracebackType | None,
    ) -> None:
        self.handler = handler
        self.states = states
        self.states_before = states_before
        self.traceback = traceback

    def __repr__(self) -> str:
        return f"<ErrorSource {self.handler} of {' '.join(self.states)}>"


class Step(NamedTuple):
    """One step of a transition, recorded for tracers that want steps.

    Attributes:
        kind: ``"called"``, ``"add"``, ``"require"``, ``"remove"``, ``"activate"``,
            ``"deactivate"``, ``"handler"``, ``"veto"`` or ``"error"``.
        state: the state that it is about, or an empty string.
        other: the state that caused it, or the name of the handler.

    """

    kind: str
    state: str
    other: str = ""


class Mutation:
    """A request to change the active states.

    Attributes:
        kind: ``"add"``, ``"remove"`` or ``"set"``.
        states: the called states, each once.
        auto: whether the machine requested it, for its auto states.
        cause: the transition whose handler requested it, if one did.
        ticket: where the final result will be found, if somebody may ask for it.
        thread: ident of the thread that requested it.
        passed: ids of the machines whose pipes have forwarded it.
        quiet: no auto round follows it, for it came from an error in one.
        dry: it is only asked about, not carried out.
        exempt: the queue's limit does not hold for it: who brings it looks for room.
        since: the moment of the machine when it was begun to be carried out, or ``None``.
        outcome: its result, once that is certain but not yet given to who waits for it.
        trace: the W3C ``traceparent`` of what it was requested in, if an observer follows
            traces; else empty.
        queued_ns: when it was queued, by ``perf_counter_ns``, if a tracer has listened.

    """

    __slots__ = (
        "_args",
        "auto",
        "cause",
        "dry",
        "exempt",
        "kind",
        "outcome",
        "passed",
        "queued_ns",
        "quiet",
        "since",
        "states",
        "thread",
        "ticket",
        "trace",
    )

    def __init__(
        self,
        kind: str,
        states: tuple[str, ...],
        args: dict[str, object],
        *,
        auto: bool = False,
        cause: Cause | None = None,
        ticket: Ticket | None = None,
        thread: int = 0,
        passed: tuple[str, ...] = (),
        quiet: bool = False,
        dry: bool = False,
        exempt: bool = False,
        trace: str = "",
    ) -> None:
        self.kind = kind
        self.states = states
        self._args = args
        self.auto = auto
        self.cause = cause
        self.ticket = ticket
        self.thread = thread
        self.passed = passed
        self.quiet = quiet
        self.dry = dry
        self.exempt = exempt
        self.trace = trace
        self.queued_ns = 0
        self.since: Moment | None = None
        self.outcome: Result | None = None

    @property
    def args(self) -> Mapping[str, object]:
        """The arguments of the request, read-only."""
        return MappingProxyType(self._args)

    def settle(self, result: Result) -> None:
        """Give the final result to whoever waits for it."""
        if self.ticket is not None:
            self.ticket.settle(result)

    @property
    def own_args(self) -> dict[str, object]:
        """The arguments themselves, for the machine that carries it out."""
        return self._args

    @property
    def has_args(self) -> bool:
        """Whether there are any arguments."""
        return bool(self._args)

    def __repr__(self) -> str:
        return f"<Mutation {self.kind} {' '.join(self.states)}>"


IDS: Final = count(1)  # of transitions


class Rare:
    """What only few transitions have: errors, data, and what observers ask for."""

    __slots__ = (
        "accepted",
        "at",
        "data",
        "error",
        "heard",
        "log",
        "step",
        "steps",
    )

    def __init__(self, *, accepted: bool) -> None:
        self.accepted = accepted
        self.error: BaseException | None = None
        self.at: tuple[str, int] | None = None
        self.step = self.heard = 0
        self.data: dict[str, object] = {}
        self.steps: list[Step] = []
        self.log: list[str] = []


class Transition:
    """One mutation being carried out.

    Attributes:
        machine: the machine.
        plan: what the mutation does from here.
        args: the arguments of the mutation.
        request: the mutation, if one has been made yet; ``mutation`` makes one.
        moment: the clocks that it has moved so far, if any.
        ticks: all clocks before.
        rare: what only few transitions have, if it has; ``more`` makes it.
        number: its id, or 0 as long as nobody has asked for it.
        started_ns, ended_ns: when, by ``perf_counter_ns``; only there if tracers listen.

    """

    # Who makes one sets all but the last two: a call of __init__ would cost more than all
    # the rest.
    __slots__ = (
        "args",
        "ended_ns",
        "machine",
        "moment",
        "number",
        "plan",
        "rare",
        "request",
        "started_ns",
        "ticks",
    )

    machine: Machine
    plan: Plan
    args: dict[str, object]
    request: Mutation | None
    moment: Moment | None
    ticks: list[int]
    rare: Rare | None
    number: int
    started_ns: int
    ended_ns: int

    @property
    def outer(self) -> None:
        """What its thread was carrying out before: nothing, if it is a link of the chain."""
        return None

    @property
    def more(self) -> Rare:
        """What only few transitions have; made when it is first asked for."""
        rare = self.rare
        if rare is None:
            with MAKING.now:
                if self.rare is None:
                    self.rare = Rare(accepted=self.plan.accepted)
                rare = self.rare
        return rare

    @property
    def id(self) -> int:
        """Number of the transition, unique in its process."""
        number = self.number
        if not number:
            with MAKING.now:
                if not self.number:
                    self.number = next(IDS)
                number = self.number
        return number

    @property
    def mutation(self) -> Mutation:
        """The request that is carried out."""
        if self.request is None:
            plan = self.plan
            self.request = Mutation(plan.kind, plan.states, self.args, auto=plan.auto)
        return self.request

    @property
    def cause(self) -> Cause | None:
        """The transition whose handler requested it, or ``None``."""
        return self.request.cause if self.request is not None else None

    @property
    def accepted(self) -> bool:
        """Whether relations and negotiation have agreed so far."""
        return self.rare.accepted if self.rare is not None else self.plan.accepted

    @property
    def outcome(self) -> str:
        """What became of it, or would if it ended now.

        ``"executed"``; ``"rejected"`` by the relations; ``"vetoed"`` by a handler;
        ``"failed"`` with an error, in whatever phase.
        """
        rare = self.rare
        if rare is None:
            return "executed" if self.plan.accepted else "rejected"
        if rare.error is not None:
            return "failed"
        if rare.accepted:
            return "executed"
        return "vetoed" if self.plan.accepted else "rejected"

    @property
    def error(self) -> BaseException | None:
        """The error that ended it, or ``None``."""
        return self.rare.error if self.rare is not None else None

    @property
    def data(self) -> dict[str, object]:
        """A dict for its handlers; lives as long as the transition."""
        return self.more.data

    @property
    def states_before(self) -> tuple[str, ...]:
        """The names of the states that were active before."""
        return self.plan.source.names

    @property
    def target_states(self) -> tuple[str, ...]:
        """The names of the states that shall be active afterwards."""
        return self.plan.target.names

    @property
    def time_before(self) -> tuple[int, ...]:
        """All clocks before, in declared order."""
        return tuple(self.ticks)

    @property
    def time_after(self) -> tuple[int, ...]:
        """All clocks afterwards, or so far, in declared order."""
        ticks = self.ticks.copy()
        if self.moment is not None:
            lay_over(ticks, self.moment)
        return tuple(ticks)

    @property
    def moves(self) -> tuple[tuple[int, int], ...]:
        """Position and ticks of every clock that it has moved, so far."""
        moment = self.moment
        if moment is None:
            return ()
        if self.error is None:
            return self.plan.moves
        _, *moved = moment
        ticks = dict(zip(moved[::2], moved[1::2], strict=True))
        return tuple((i, tick - self.ticks[i]) for i, tick in ticks.items())

    @property
    def steps(self) -> list[Step]:
        """What was decided and done, if a tracer wants steps; else empty."""
        return self.more.steps

    @property
    def log_entries(self) -> list[str]:
        """The lines that the machine has logged about it."""
        return self.more.log

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from start to end, or so far; 0 if no tracer has listened."""
        started_ns = getattr(self, "started_ns", 0)
        if not started_ns:
            return 0
        return (getattr(self, "ended_ns", 0) or perf_counter_ns()) - started_ns

    def __repr__(self) -> str:
        outcome = "" if self.accepted else " refused"
        return f"<Transition {self.id} {self.plan.kind} {' '.join(self.plan.states)}{outcome}>"


def transition_here() -> Transition | None:
    """Give the transition whose handler the current thread is in, if any."""
    top = LOCAL.here.top
    tx = top.transition if isinstance(top, Frame) and top.machine is not None else top
    return tx if isinstance(tx, Transition) else None


def cause_here() -> Cause | None:
    """Name the transition whose handler the current thread is in, if any."""
    tx = transition_here()
    return None if tx is None else Cause(tx.machine.id, tx.id)


class Event:
    """What a handler is told: which one it is, in which transition, with which args.

    Attributes:
        name: the handler's name, like ``"Foo_state"``.
        transition: the transition it belongs to.

    """

    __slots__ = ("_expired", "name", "transition")

    name: str
    transition: Transition

    @property
    def machine(self) -> Machine:
        """The machine that is changing."""
        return self.transition.machine

    @property
    def mutation(self) -> Mutation:
        """The request that is carried out."""
        return self.transition.mutation

    @property
    def args(self) -> Mapping[str, object]:
        """The arguments of the request, read-only, the same for all handlers."""
        return MappingProxyType(self.transition.args)

    @property
    def data(self) -> dict[str, object]:
        """A dict that lives as long as the transition, from handler to handler."""
        return self.transition.data

    @property
    def expired(self) -> bool:
        """Whether this call has overrun its time, so that nobody listens to it any more."""
        return getattr(self, "_expired", False)

    def expire(self) -> None:
        """Tell the late handler, which still has this event, that it is late."""
        self._expired = True

    def fork(self, fn: Callable[..., object], *args: object, **kwargs: object) -> Fork:
        """Run ``fn(ctx, *args, **kwargs)`` in the background, bound to the handler's state.

        The context ``ctx`` is that of the state which the handler belongs to; ``fn``
        should end when it expires. What ``fn`` raises becomes an ``Exception`` mutation,
        unless the context has expired by then. Does not block.

        Example:
            >>> from asyncmachine import Machine, State
            >>> class Handlers:
            ...     def Working_state(self, event):
            ...         event.fork(self.work, event.args["n"])
            ...     def work(self, ctx, n):
            ...         machine.add("Done", result=n * n)
            >>> machine = Machine({"Working": State(), "Done": State()}, handlers=Handlers())
            >>> done = machine.when_args("Done", {"result": 9})
            >>> machine.add("Working", n=3), done.wait(5)
            (Result.EXECUTED, True)

        """
        return self.machine.fork(self, fn, args, kwargs)

    def __repr__(self) -> str:
        return f"<Event {self.name}>"
