"""The rules of a machine, stated plainly, to compare the real one with.

This is ``semantics.md``, sections 1 to 5 and section 7 as far as one thread can see it,
written with names, tuples and sets. It is slow on purpose: each function is one sentence
of the page, in the page's order, and shares no idea and no line with ``asyncmachine``,
from which it imports nothing.

Not in here: threads, time-outs, waiters, contexts, log lines, duplicates in the queue
(give each queued mutation a token of its own, as the tests do) and the queue's limit.

Where the page leaves room, a comment that starts with ``Reading:`` says how it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Literal, NamedTuple, TypedDict

Names = tuple[str, ...]
Kind = Literal["add", "remove", "set"]
Verdict = Literal["executed", "canceled"]
Outcome = Literal["agree", "veto", "raise"]
Script = Mapping[str, Outcome]

EXCEPTION = "Exception"


# ---------------------------------------------------------------- schemas


class StateData(TypedDict, total=False):
    """One state as plain data, the way ``Schema.from_dict`` takes it."""

    add: list[str]
    remove: list[str]
    require: list[str]
    after: list[str]
    auto: bool
    multi: bool


SchemaData = dict[str, StateData]


class Rules(NamedTuple):
    """The relations and properties of one state, after schema hygiene."""

    add: Names = ()
    remove: Names = ()
    require: Names = ()
    after: Names = ()
    auto: bool = False
    multi: bool = False


RuleBook = dict[str, Rules]  # by name, in declared order


def read_schema(data: Mapping[str, StateData]) -> RuleBook:
    """Read plain data; ``Exception`` comes last unless it is declared."""
    book = {name: _read_state(name, state) for name, state in data.items()}
    book.setdefault(EXCEPTION, Rules(multi=True))
    return book


def _read_state(name: str, state: StateData) -> Rules:
    """Section 2, first line: schema hygiene."""
    add = unique(state.get("add", ()))
    return Rules(
        add=add,
        remove=without(unique(state.get("remove", ())), {name, *add}),
        require=unique(state.get("require", ())),
        after=without(unique(state.get("after", ())), {name}),
        auto=state.get("auto", False),
        multi=state.get("multi", False),
    )


def unique(names: Iterable[str]) -> Names:
    """The names without repetitions, in order."""
    return tuple(dict.fromkeys(names))


def without(names: Iterable[str], dropped: Iterable[str]) -> Names:
    """The names that are not dropped, in order."""
    gone = set(dropped)
    return tuple(name for name in names if name not in gone)


# ---------------------------------------------------------------- section 2: the target


def resolve(
    book: RuleBook, before: Sequence[str], kind: Kind, called: Sequence[str], vetoed: Names = ()
) -> Names:
    """Section 2: the states that a mutation leads to, ordered by ``After``.

    ``vetoed`` are the auto states that refused in section 5 and are excluded from the start.
    """
    wanted = wanted_names(before, kind, called)
    excluded = {*vetoed, *(called if kind == "remove" else ())}
    while True:
        implied = {name: implied_by(book, name, before, called) for name in book}
        names = with_all_implied(without(wanted, excluded), implied, excluded)
        lacking = [name for name in names if not set(book[name].require) <= set(names)]
        if lacking:
            excluded.update(lacking)
            continue
        stay = only_grounded(wanted, contest(book, names), implied)
        lacking = [name for name in names if name in stay and not set(book[name].require) <= stay]
        if lacking:
            excluded.add(lacking[-1])
            continue
        return order(book, [name for name in names if name in stay])


def wanted_names(before: Sequence[str], kind: Kind, called: Sequence[str]) -> Names:
    """Section 2: ``wanted``, in order of strength."""
    if kind == "remove":
        return without(before, called)
    if kind == "add":
        return unique([*called, *before])
    return unique(called)


def implied_by(book: RuleBook, name: str, before: Sequence[str], called: Sequence[str]) -> Names:
    """Section 2: a state implies when it activates, or when it is multi and called.

    In a removal the called states are excluded, so that none of them comes here to imply.
    """
    activates = name not in before
    called_again = book[name].multi and name in called
    return book[name].add if activates or called_again else ()


def with_all_implied(wanted: Names, implied: Mapping[str, Names], excluded: set[str]) -> Names:
    """Section 2: ``names`` = wanted, then everything it implies, breadth first."""
    names = list(wanted)
    for name in names:  # grows while it is walked: this is the breadth first part
        names.extend(without(implied[name], {*names, *excluded}))
    return tuple(names)


def only_grounded(wanted: Names, stay: set[str], implied: Mapping[str, Names]) -> set[str]:
    """Section 2: drop what was implied only by states that did not stay.

    Reading: what is dropped did not stay either, so this goes on through chains, and two
    states that only imply each other do not hold each other up.
    """
    grounded = [name for name in wanted if name in stay]
    for name in grounded:
        grounded.extend(i for i in implied[name] if i in stay and i not in grounded)
    return set(grounded)


def contest(book: RuleBook, names: Names) -> set[str]:
    """Section 2: the contest of names, decided one state at a time."""
    stay: set[str] = set()
    undecided = list(names)
    while undecided:
        beaten = [name for name in undecided if is_removed_by_any(book, name, stay)]
        if beaten:  # rule 1
            undecided.remove(beaten[0])
            continue
        free = [name for name in undecided if not is_removed_by_any(book, name, undecided)]
        if free:  # rule 2
            undecided.remove(free[0])
            stay.add(free[0])
            continue
        winner = first_ring_winner(book, undecided)  # rule 3
        stay.add(winner)
        undecided = [n for n in undecided if n != winner and winner not in book[n].remove]
    return stay


def is_removed_by_any(book: RuleBook, name: str, others: Iterable[str]) -> bool:
    """Whether one of the others removes the state."""
    return any(name in book[other].remove for other in others)


def first_ring_winner(book: RuleBook, undecided: Sequence[str]) -> str:
    """Section 2, rule 3: the first that removes every state that removes it."""
    beats = {name: all_removed_through(book, name, undecided) for name in undecided}
    for name in undecided:
        beaten_by = {other for other in undecided if name in beats[other]}
        if beaten_by <= beats[name]:
            return name
    raise AssertionError("some ring is not removed from outside")


def all_removed_through(book: RuleBook, name: str, undecided: Sequence[str]) -> set[str]:
    """What a state removes, directly or through other undecided states."""
    edges = {other: without(book[other].remove, set(book) - set(undecided)) for other in undecided}
    return all_reached(edges, name)


def all_reached(edges: Mapping[str, Names], start: str) -> set[str]:
    """Every name at the end of a way of one or more edges from the start."""
    reached = list(unique(edges[start]))
    for name in reached:
        reached.extend(without(edges[name], reached))
    return set(reached)


def order(book: RuleBook, names: Sequence[str]) -> Names:
    """Section 2, "Order": stable and topological by ``After``."""
    waits_for = {
        name: [a for a in book[name].after if a in names and not in_one_cycle(book, name, a)]
        for name in names
    }
    taken: list[str] = []
    rest = list(names)
    while rest:
        ready = [name for name in rest if set(waits_for[name]) <= set(taken)]
        taken.append(ready[0])
        rest.remove(ready[0])
    return tuple(taken)


def in_one_cycle(book: RuleBook, one: str, other: str) -> bool:
    """Whether two states are after each other, decided by the whole schema."""
    edges = {name: rules.after for name, rules in book.items()}
    return other in all_reached(edges, one) and one in all_reached(edges, other)


def broken_rules(book: RuleBook, active: Sequence[str]) -> list[str]:
    """Section 2: what must hold of every target; empty if all is well."""
    lacking = [
        f"{name} requires {r}" for name in active for r in book[name].require if r not in active
    ]
    clashing = [f"{name} removes {r}" for name in active for r in book[name].remove if r in active]
    return lacking + clashing


def is_accepted(kind: Kind, called: Names, target: Names, *, auto: bool) -> bool:
    """Section 1, step 2."""
    if kind == "remove":
        return True
    if auto:
        return any(name in target for name in called)
    return all(name in target for name in called)


# ---------------------------------------------------------------- section 3: handlers


class Call(NamedTuple):
    """One handler name of a transition, and the state that it speaks for."""

    handler: str
    state: str | None
    is_entry: bool = False


class Moves(NamedTuple):
    """Where a transition goes from and to."""

    before: Names
    target: Names
    called_active: Names
    exits: Names
    enters: Names


def moves_of(book: RuleBook, before: Names, kind: Kind, called: Names, target: Names) -> Moves:
    """Section 3, first line, with section 2, "Order"."""
    return Moves(
        before=before,
        target=target,
        called_active=() if kind == "remove" else tuple(n for n in called if n in before),
        exits=order(book, without(before, target)),
        enters=tuple(
            name for name in target if name not in before or (book[name].multi and name in called)
        ),
    )


def negotiation_calls(moves: Moves) -> list[Call]:
    """Section 3, the upper half of the table."""
    calls = [Call(f"{name}_{name}", name) for name in moves.called_active]
    for name in moves.exits:
        calls.append(Call(f"{name}_exit", name))
        calls.extend(Call(f"{name}_{to}", name) for to in moves.target)
        calls.append(Call(f"{name}_Any", name))
    for name in moves.enters:
        calls.append(Call(f"Any_{name}", name, is_entry=True))
        calls.append(Call(f"{name}_enter", name, is_entry=True))
    return [*calls, Call("Any_enter", None)]


def final_calls(moves: Moves) -> list[Call]:
    """Section 3, the lower half of the table."""
    return [
        *(Call(f"{name}_end", name) for name in moves.exits),
        *(Call(f"{name}_state", name, is_entry=True) for name in moves.enters),
        Call("Any_state", None),
    ]


def handler_names(book: RuleBook) -> list[str]:
    """Every handler name that a schema knows, in no special order."""
    names = ["Any_enter", "Any_state"]
    for state in book:
        names += [f"{state}_{what}" for what in ("exit", "Any", "enter", "end", "state")]
        names += [f"Any_{state}", *(f"{state}_{other}" for other in book)]
    return names


# ---------------------------------------------------------------- section 4: clocks


def clock_after(clock: Mapping[str, int], moves: Moves) -> dict[str, int]:
    """Section 4: +1 on activation and on deactivation, +2 when called again."""
    after = dict(clock)
    for name in moves.exits:
        after[name] += 1
    for name in moves.enters:
        after[name] += 2 if name in moves.before else 1
    return after


# ---------------------------------------------------------------- the machine


class Mutation(NamedTuple):
    """Section 1: what is asked for. Two flags tell where it comes from (sections 5 and 7)."""

    kind: Kind
    called: Names
    token: int | None = None
    auto: bool = False
    from_auto_error: bool = False


class Request(NamedTuple):
    """A mutation that a scripted handler asks for, once."""

    kind: Kind
    called: Names


class Turns(Mapping[str, Outcome]):
    """A script whose handlers do one thing after the other, and then start over.

    Looking up an outcome is taking a turn, so that a script serves one machine.
    """

    def __init__(self, turns: Mapping[str, Sequence[Outcome]]) -> None:
        self._turns = {name: cycle(outcomes) for name, outcomes in turns.items()}

    def __getitem__(self, name: str) -> Outcome:
        return next(self._turns[name])

    def __contains__(self, name: object) -> bool:
        return name in self._turns

    def __iter__(self) -> Iterator[str]:
        return iter(self._turns)

    def __len__(self) -> int:
        return len(self._turns)


class Ticket:
    """A queued mutation, and its verdict when it has been carried out."""

    def __init__(self, mutation: Mutation) -> None:
        self.mutation = mutation
        self.verdict: Verdict | None = None


class HandlerFailedError(Exception):
    """A scripted handler raised. Carries the call."""

    def __init__(self, call: Call) -> None:
        super().__init__(call.handler)
        self.call = call


class OracleMachine:
    """A machine whose handlers follow scripts.

    A script maps handler names to what the handler does; a name that it lacks has no
    handler. Scripts are asked in the order in which they are given, like bound objects.
    ``requests`` maps handler names to mutations that the first script's handler asks for
    the first time that it is called.

    Public to the tests: ``active`` (in target order), ``clock``, ``calls`` (each handler
    that was called, in order, with ``@token`` if its mutation has one), ``error`` (the
    name of the last handler that raised) and ``tickets`` (of the handlers' requests).
    """

    def __init__(
        self,
        book: RuleBook,
        *scripts: Script,
        requests: Mapping[str, Sequence[Request]] | None = None,
    ) -> None:
        self.book = book
        self.scripts = list(scripts)
        self.requests = {name: list(asked) for name, asked in (requests or {}).items()}
        self.active: Names = ()
        self.clock = dict.fromkeys(book, 0)
        self.calls: list[str] = []
        self.error: str | None = None
        self.tickets: list[Ticket] = []
        self._queue: list[Ticket] = []
        self._busy = False

    def add(self, *called: str) -> Verdict:
        """Add states from outside, with everything that follows from it."""
        return self.mutate("add", *called)

    def remove(self, *called: str) -> Verdict:
        """Remove states from outside, with everything that follows from it."""
        return self.mutate("remove", *called)

    def set(self, *called: str) -> Verdict:
        """Set states from outside, with everything that follows from it."""
        return self.mutate("set", *called)

    def mutate(self, kind: Kind, *called: str) -> Verdict:
        """Section 6, first lines: carry it out, and everything queued meanwhile."""
        ticket = self._request(Mutation(kind, unique(called)))
        self._drain()
        assert ticket.verdict is not None
        return ticket.verdict

    def can(self, kind: Kind, *called: str) -> Verdict:
        """Section 6, ``can_*``: relations and negotiation; an error is a refusal."""
        try:
            agreed = self._negotiated(Mutation(kind, unique(called)))
        except HandlerFailedError:
            return "canceled"
        return "canceled" if agreed is None else "executed"

    def import_clock(self, clock: Mapping[str, int]) -> None:
        """Set the clocks, and the active states in declared order."""
        self.clock = {name: clock.get(name, 0) for name in self.book}
        self.active = tuple(name for name in self.book if self.clock[name] % 2)

    # ------------------------------------------------------------ queue

    def _request(self, mutation: Mutation) -> Ticket:
        """Section 1, "Result", last but one sentence: the removal that is no transition."""
        ticket = Ticket(mutation)
        nothing_to_remove = mutation.kind == "remove" and not (
            set(mutation.called) & set(self.active)
        )
        if nothing_to_remove and not self._queue and not self._busy:
            ticket.verdict = "executed"
        else:
            self._queue.append(ticket)
        return ticket

    def _drain(self) -> None:
        """Section 6: first in, first out."""
        while self._queue:
            ticket = self._queue.pop(0)
            self._busy = True
            ticket.verdict = self._transition(ticket.mutation)
            self._busy = False

    def _put_in_front(self, mutation: Mutation) -> None:
        self._queue.insert(0, Ticket(mutation))

    # ------------------------------------------------------------ section 1

    def _transition(self, mutation: Mutation) -> Verdict:
        """Section 1: resolve, accept, negotiate, apply, final handlers, auto."""
        try:
            moves = self._negotiated(mutation)
        except HandlerFailedError as failure:
            self._keep_error(mutation, failure)
            return "canceled"
        if moves is None:
            return "canceled"
        moved = self._apply(moves)
        try:
            self._call_all(mutation, final_calls(moves))
        except HandlerFailedError as failure:
            self._roll_back(moves, failure.call)
            self._keep_error(mutation, failure)
            return "canceled"
        if moved:
            self._queue_auto_round(mutation)
        return "executed"

    def _negotiated(self, mutation: Mutation) -> Moves | None:
        """Sections 1.1 to 1.3, and section 5: the moves all agreed to, or nothing."""
        kind, called = mutation.kind, mutation.called
        vetoed: Names = ()
        while True:
            target = resolve(self.book, self.active, kind, called, vetoed)
            if not is_accepted(kind, called, target, auto=mutation.auto):
                return None
            moves = moves_of(self.book, self.active, kind, called, target)
            veto = self._first_veto(mutation, negotiation_calls(moves))
            if veto is None:
                return moves
            if veto.state is None or not self._may_go_on_without(mutation, veto):
                return None
            vetoed = (*vetoed, veto.state)

    def _may_go_on_without(self, mutation: Mutation, veto: Call) -> bool:
        """Section 5: a veto by one auto state's own handlers excludes only that state.

        Reading: an auto state is one that the schema calls auto, whether it was a
        candidate of this round or is implied by one.
        """
        if not mutation.auto or veto.state is None:
            return False
        return veto.is_entry and self.book[veto.state].auto

    def _apply(self, moves: Moves) -> bool:
        """Section 1, step 4; whether a clock moved."""
        before, self.clock = self.clock, clock_after(self.clock, moves)
        self.active = moves.target
        return self.clock != before

    # ------------------------------------------------------------ section 3

    def _first_veto(self, mutation: Mutation, calls: list[Call]) -> Call | None:
        """Ask in order; the first veto ends it."""
        for call in calls:
            for script in self.scripts:
                if self._call(mutation, call, script) == "veto":
                    return call
        return None

    def _call_all(self, mutation: Mutation, calls: list[Call]) -> None:
        """Final handlers cannot veto, whatever they return."""
        for call in calls:
            for script in self.scripts:
                self._call(mutation, call, script)

    def _call(self, mutation: Mutation, call: Call, script: Script) -> Outcome:
        name = call.handler
        if name not in script:
            return "agree"
        self.calls.append(name if mutation.token is None else f"{name}@{mutation.token}")
        for request in self.requests.pop(name, ()):
            asked = Mutation(request.kind, unique(request.called), token=len(self.tickets))
            self.tickets.append(self._request(asked))
        outcome = script[name]
        if outcome == "raise":
            raise HandlerFailedError(call)
        return outcome

    # ------------------------------------------------------------ section 5

    def _queue_auto_round(self, mutation: Mutation) -> None:
        """Section 5: the auto states that may come up by themselves, at the front."""
        if mutation.auto or mutation.from_auto_error:
            return
        candidates = tuple(
            name
            for name, rules in self.book.items()
            if rules.auto
            and name not in self.active
            and not is_removed_by_any(self.book, name, self.active)
        )
        if candidates:
            self._put_in_front(Mutation("add", candidates, auto=True))

    # ------------------------------------------------------------ section 7

    def _keep_error(self, mutation: Mutation, failure: HandlerFailedError) -> None:
        """Section 7: the error is kept, and becomes an ``Exception`` mutation.

        Reading: "while handling ``Exception``" is in a transition that was called with it,
        whoever called it.
        """
        self.error = failure.call.handler
        if EXCEPTION not in mutation.called:
            self._put_in_front(Mutation("add", (EXCEPTION,), from_auto_error=mutation.auto))

    def _roll_back(self, moves: Moves, failed: Call) -> None:
        """Section 7: put back the states whose final handler had not completed."""
        calls = final_calls(moves)
        undone = calls[calls.index(failed) :]
        restored = [c.state for c in undone if c.state in moves.exits]
        withdrawn = [
            c.state for c in undone if c.state in moves.enters and c.state not in moves.before
        ]
        for name in self.book:
            self.clock[name] += (name in restored) + (name in withdrawn)
        now = {*without(moves.target, [n for n in withdrawn if n]), *restored}
        self.active = (
            *(name for name in moves.before if name in now),
            *(name for name in moves.target if name in now and name not in moves.before),
        )
