"""What a machine tells of its transitions: log lines (semantics.md section 9) and steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncmachine.errors import described
from asyncmachine.logs import LogLevel, format_args, log_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncmachine.conditions import Condition
    from asyncmachine.plans import Plan
    from asyncmachine.transition import Mutation, Transition

__all__ = ["Narrator", "record_steps"]


class Narrator:
    """Writes the log lines of one machine at one level.

    Args:
        machine_id: what the lines begin with.
        level: which lines are written.
        shown: the args that are printed.

    """

    __slots__ = ("_id", "_shown", "level")

    def __init__(self, machine_id: str, level: LogLevel, shown: tuple[str, ...]) -> None:
        self._id = machine_id
        self._shown = shown
        self.level = level

    def say(self, level: LogLevel, line: str, tx: Transition | None = None) -> None:
        """Write a line if the machine's level includes it, and keep it with the transition."""
        if level <= self.level:
            if tx is not None:
                tx.log_entries.append(line)
            log_line(self._id, line)

    def queued(self, mutation: Mutation) -> None:
        """Tell of a mutation that has to wait."""
        line = f"[queue:{mutation.kind}] {' '.join(mutation.states)}"
        self.say(LogLevel.OPS, line + format_args(mutation.args, self._shown))

    def begun(self, tx: Transition) -> None:
        """Tell what is called, and what the relations make of it."""
        plan = tx.plan
        called = " ".join(plan.states) + format_args(tx.args, self._shown)
        if plan.auto:
            self.say(LogLevel.OPS, f"[auto] {called}", tx)
            self.say(LogLevel.DECISIONS, f"[{plan.kind}:auto] {called}", tx)
        else:
            self.say(LogLevel.OPS, f"[{plan.kind}] {called}", tx)
        if self.level >= LogLevel.DECISIONS:
            for line in _decisions(plan):
                self.say(LogLevel.DECISIONS, line, tx)
        for name in _implied(plan) if plan.accepted else ():
            self.say(LogLevel.OPS, f"[implied] {name}", tx)
        if self.level >= LogLevel.EVERYTHING and plan.accepted:
            for name in (*plan.negotiation_names(), *plan.final_names()):
                self.say(LogLevel.EVERYTHING, f"[offer] {name}", tx)

    def handler(self, tx: Transition, name: str) -> None:
        """Tell that a handler is called."""
        self.say(LogLevel.OPS, f"[handler] {name}", tx)

    def refused(self, tx: Transition) -> None:
        """Tell that the relations have refused it."""
        lost = [name for name in tx.plan.states if name not in tx.plan.target.names]
        self.say(LogLevel.OPS, f"[cancel:reject] {' '.join(lost)}", tx)

    def vetoed(self, tx: Transition, handler: str) -> None:
        """Tell that a handler has refused it."""
        self.say(LogLevel.OPS, f"[cancel] ({' '.join(tx.plan.target.names)}) by {handler}", tx)

    def changed(self, tx: Transition) -> None:
        """Tell what has become active and inactive."""
        plan = tx.plan
        names = plan.source.graph.schema.names
        parts = [f"+{names[i]}" for i in plan.enters] + [f"-{names[i]}" for i in plan.exits]
        if parts:
            tag = "[state:auto]" if plan.auto else "[state]"
            line = f"{tag} {' '.join(parts)}{format_args(tx.args, self._shown)}"
            self.say(LogLevel.CHANGES, line, tx)

    def failed(self, tx: Transition, error: BaseException) -> None:
        """Tell of an error in a handler."""
        self.say(LogLevel.OPS, f"[error] {described(error)}", tx)

    def woken(self, tx: Transition, conditions: Iterable[Condition]) -> None:
        """Tell whose conditions have come true."""
        names = tx.machine.schema.names
        for condition in conditions:
            states = [names[i] for i in condition.positions()]
            self.say(LogLevel.DECISIONS, f"[when] {' '.join(states)}".rstrip(), tx)


def _implied(plan: Plan) -> list[str]:
    names = plan.source.graph.schema.names
    return [names[i] for i in plan.enters if i not in plan.called]


def _decisions(plan: Plan) -> Iterator[str]:
    names = plan.source.graph.schema.names
    for note in plan.notes():
        if note.kind == "remove":
            yield f"[rel:remove] {names[note.state]} by {names[note.other]}"
        elif note.kind == "require":
            yield f"[reject] {names[note.state]}(-{names[note.other]})"


def record_steps(tx: Transition) -> None:
    """Write down what the relations decided, for tracers that want steps."""
    tx.steps.extend(tx.plan.steps())
