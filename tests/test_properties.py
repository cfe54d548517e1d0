"""Random machines against the oracle: random schemas, handlers and mutations.

Each example builds a real machine and an ``OracleMachine`` from one schema, gives both the
same scripted handlers, requests the same of both, and compares everything that a user can
see afterwards: result, active states with their order, clocks, the handlers that were called
with their order, and the error.

The default run is the same every time and takes about half a minute. To look further, with
fresh examples from hypothesis and thirty times as many of all kinds::

    ASYNCMACHINE_HYPOTHESIS=long pytest tests/test_properties.py --timeout=0
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asyncmachine import Binding, Event, Machine, Result, Schema
from tests.oracle import (
    EXCEPTION,
    Kind,
    Names,
    OracleMachine,
    Outcome,
    Request,
    RuleBook,
    SchemaData,
    StateData,
    Turns,
    Verdict,
    broken_rules,
    handler_names,
    is_accepted,
    read_schema,
    resolve,
    without,
)

_LONG = os.environ.get("ASYNCMACHINE_HYPOTHESIS") == "long"
settings.register_profile(
    "asyncmachine-default", deadline=None, derandomize=True, database=None, max_examples=400
)
settings.register_profile("asyncmachine-long", deadline=None, max_examples=10_000)
PROFILE = settings.get_profile("asyncmachine-long" if _LONG else "asyncmachine-default")
SWEEP = 100_000 if _LONG else 3_000

ScriptData = Mapping[str, Sequence[Outcome]]
OUTCOMES: list[Outcome] = ["agree", "veto", "raise"]
KINDS: list[Kind] = ["add", "remove", "set", "add"]
RESULTS: dict[Verdict, Result] = {"executed": Result.EXECUTED, "canceled": Result.CANCELED}
AGREEING = (None, True, 0, "", ())  # a veto is False itself, nothing that looks like it


@pytest.fixture(autouse=True, scope="module")
def _errors_of_handlers_are_not_logged() -> Iterator[None]:
    logger = logging.getLogger("asyncmachine")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


# ---------------------------------------------------------------- what is generated
#
# One plain generator serves both hypothesis, which hands it a Random that it can shrink
# (every choice gets simpler towards zero), and the sweep, which hands it a seeded one.


def few(rnd: Random, most: int) -> int:
    """A small number, zero more often than any other."""
    return max(0, rnd.randint(-most, most))


def some_names(rnd: Random, names: Sequence[str], count: int) -> list[str]:
    """Names with repetitions; ``Exception`` is among them, but seldom."""
    return [rnd.choice([*names, *names, EXCEPTION]) for _ in range(count)]


def random_state(rnd: Random, names: Sequence[str], requirements: int) -> StateData:
    """One state that requires nothing of what it removes; defaults are left out."""
    data: StateData = {}
    if add := some_names(rnd, names, few(rnd, 3)):
        data["add"] = add
    if remove := some_names(rnd, names, few(rnd, 3)):
        data["remove"] = remove
    require = some_names(rnd, names, few(rnd, requirements))
    if require := [name for name in require if name not in remove]:
        data["require"] = require
    if after := some_names(rnd, names, few(rnd, 2)):
        data["after"] = after
    if rnd.randint(0, 3) == 3:
        data["auto"] = True
    if rnd.randint(0, 3) == 3:
        data["multi"] = True
    return data


def random_schema(rnd: Random) -> SchemaData:
    """A valid schema of up to six states, sometimes with ``Exception`` declared too."""
    names = ["A", "B", "C", "D", "E", "F"][: rnd.randint(1, 6)]
    declared = names.copy()
    if rnd.randint(0, 3) == 3:
        declared.insert(rnd.randint(0, len(names)), EXCEPTION)
    # Many requirements make most mutations fail, so most schemas have few
    requirements = few(rnd, 2)
    return {name: random_state(rnd, names, requirements) for name in declared}


def random_script(rnd: Random, book: RuleBook) -> ScriptData:
    """What the handlers do: some of them this and that, the others agree or are not there."""
    names = handler_names(book)
    telling = [f"{state}_{what}" for state in book for what in ("enter", "exit", "state", "end")]
    script: dict[str, list[Outcome]] = {}
    if rnd.randint(0, 1):
        script = {name: ["agree"] for name in names}
    for pool in (names, telling):
        for _ in range(few(rnd, 4)):
            script[rnd.choice(pool)] = rnd.choices(OUTCOMES, k=rnd.randint(1, 3))
    return script


def random_request(rnd: Random, book: RuleBook) -> Request:
    """A mutation; called names may be repeated."""
    called = [rnd.choice([*book]) for _ in range(rnd.randint(0, 3))]
    return Request(rnd.choice(KINDS), tuple(called))


def random_requests(rnd: Random, book: RuleBook) -> dict[str, list[Request]]:
    """What the handlers request."""
    return {
        rnd.choice(handler_names(book)): [random_request(rnd, book) for _ in range(2)]
        for _ in range(rnd.randint(1, 12))
    }


def random_clock(rnd: Random, book: RuleBook) -> dict[str, int]:
    """Any clock at all: the active states may break every rule."""
    return {name: rnd.randint(0, 3) for name in book}


class Case(NamedTuple):
    """One machine's life: what it is made of, and what is asked of it."""

    schema: SchemaData
    scripts: list[ScriptData]
    asked: dict[str, list[Request]]
    clock: dict[str, int]
    mutations: list[Request]


def random_case(rnd: Random, *, objects: int = 1, asking: bool = False) -> Case:
    """A case.

    Args:
        rnd: what to choose with.
        objects: how many objects with handlers are bound.
        asking: whether handlers request mutations.

    """
    schema = random_schema(rnd)
    book = read_schema(schema)
    return Case(
        schema,
        scripts=[random_script(rnd, book) for _ in range(objects)],
        asked=random_requests(rnd, book) if asking else {},
        clock=random_clock(rnd, book) if rnd.randint(0, 1) else {},
        mutations=[random_request(rnd, book) for _ in range(rnd.randint(1, 8))],
    )


randoms = st.randoms(use_true_random=False)


def cases(*, objects: int = 1, asking: bool = False) -> st.SearchStrategy[Case]:
    """The cases that hypothesis tries, and shrinks when they fail."""
    return randoms.map(lambda rnd: random_case(rnd, objects=objects, asking=asking))


# ---------------------------------------------------------------- the two of them


class ScriptedError(Exception):
    """Raised by a scripted handler; its message is the handler's name."""


class Pair:
    """A real machine and the oracle, doing the same."""

    def __init__(self, schema: SchemaData, asked: Mapping[str, list[Request]] | None = None):
        self.machine = Machine(Schema.from_dict(schema))
        self.oracle = OracleMachine(read_schema(schema), requests=asked)
        self.calls: list[str] = []
        self.results: list[Result] = []
        self.queued: list[bool] = []
        self._asked = dict(asked or {})

    def bind(self, script: ScriptData) -> Binding:
        """Bind handlers to both that follow a script."""
        self.oracle.scripts.append(Turns(script))
        turns = Turns(script)

        def follow(event: Event) -> object:
            token = event.args.get("token")
            self.calls.append(event.name if token is None else f"{event.name}@{token}")
            self._ask(event)
            outcome = turns[event.name]
            if outcome == "raise":
                raise ScriptedError(event.name)
            return False if outcome == "veto" else AGREEING[len(self.calls) % len(AGREEING)]

        return self.machine.bind(dict.fromkeys(script, follow))

    def _ask(self, event: Event) -> None:
        """Request, once, what the handler of this name has to request."""
        for request in self._asked.pop(event.name, ()):
            result = self.request(request, token=len(self.results))
            self.results.append(result)
            self.queued.append(result == Result.QUEUED)

    def request(self, request: Request, **args: object) -> Result:
        """Request a mutation of the real machine."""
        machine = self.machine
        call = {"add": machine.add, "remove": machine.remove, "set": machine.set}[request.kind]
        return call(*request.called, **args)

    def mutate(self, request: Request) -> Result:
        """Request the same of both, and compare what comes of it."""
        result = self.request(request)
        verdict = self.oracle.mutate(request.kind, *request.called)
        assert self.calls == self.oracle.calls
        assert result == RESULTS[verdict]
        self.compare()
        return result

    def can(self, request: Request) -> None:
        """Ask both whether a mutation would do, and compare."""
        machine = self.machine
        calls = {"add": machine.can_add, "remove": machine.can_remove, "set": machine.can_set}
        result = calls[request.kind](*request.called)
        verdict = self.oracle.can(request.kind, *request.called)
        assert self.calls == self.oracle.calls
        assert result == RESULTS[verdict]
        self.compare()

    def import_clock(self, clock: Mapping[str, int]) -> None:
        """Put both where a clock says."""
        self.machine.import_state(
            {"id": self.machine.id, "names": list(clock), "ticks": list(clock.values())}
        )
        self.oracle.import_clock(clock)
        self.compare()

    def compare(self) -> None:
        """Everything that a user can see."""
        assert self.machine.active_states() == self.oracle.active
        assert self.machine.clock() == self.oracle.clock
        self._compare_errors()

    def _compare_errors(self) -> None:
        error = self.machine.error
        if self.oracle.error is None:
            assert error is None
        else:
            assert type(error) is ScriptedError
            assert str(error) == self.oracle.error


def pair_of(case: Case) -> Pair:
    """Both machines of a case, before its mutations."""
    pair = Pair(case.schema, case.asked)
    for script in case.scripts:
        pair.bind(script)
    if case.clock:
        pair.import_clock(case.clock)
    return pair


def live(case: Case) -> None:
    """Do all that a case asks for with both machines, and compare after each step."""
    pair = pair_of(case)
    for request in case.mutations:
        pair.mutate(request)

    assert all(pair.queued)
    assert [result.wait(0) for result in pair.results] == [
        RESULTS[ticket.verdict] for ticket in pair.oracle.tickets if ticket.verdict
    ]
    assert pair.machine.queue_length == 0


# ---------------------------------------------------------------- against the oracle


@PROFILE
@given(cases(objects=0))
def test_a_machine_without_handlers_does_as_the_oracle(case: Case) -> None:
    live(case)


@PROFILE
@given(cases())
def test_a_machine_with_handlers_does_as_the_oracle(case: Case) -> None:
    live(case)


@PROFILE
@given(cases(objects=3))
def test_a_machine_with_several_bound_objects_does_as_the_oracle(case: Case) -> None:
    live(case)


@PROFILE
@given(cases(asking=True))
def test_what_handlers_request_is_carried_out_in_the_order_of_the_requests(case: Case) -> None:
    live(case)


@pytest.mark.parametrize(("objects", "asking"), [(0, False), (1, False), (1, True), (2, True)])
def test_thousands_of_other_machines_do_as_the_oracle(objects: int, *, asking: bool) -> None:
    """The same without hypothesis, which is slow: broader, but what fails is not shrunk."""
    for seed in range(SWEEP):
        case = random_case(Random(seed), objects=objects, asking=asking)
        try:
            live(case)
        except AssertionError as error:
            error.add_note(f"seed {seed}: {case}")
            raise


def test_from_any_clock_a_mutation_leads_where_the_oracle_says() -> None:
    """More states and requirements than elsewhere: what decides last decides seldom."""
    for seed in range(SWEEP):
        rnd = Random(seed)
        schema = {name: random_state(rnd, "ABCDEFGH", requirements=3) for name in "ABCDEFGH"}
        pair = Pair(schema)
        for _ in range(8):
            clock = random_clock(rnd, pair.oracle.book)
            request = random_request(rnd, pair.oracle.book)
            pair.import_clock(clock)
            try:
                pair.mutate(request)
            except AssertionError as error:
                error.add_note(f"seed {seed}: {request} from {clock} in {schema}")
                raise


# ---------------------------------------------------------------- laws that need no oracle


@PROFILE
@given(cases(asking=True))
def test_odd_is_active_and_clocks_never_go_back(case: Case) -> None:
    pair = pair_of(case)
    machine = pair.machine
    for request in case.mutations:
        before = machine.time()
        pair.request(request)

        assert all(b <= a for b, a in zip(before, machine.time(), strict=True))
        odd = {name for name, tick in machine.clock().items() if tick % 2}
        assert odd == set(machine.active_states())
        assert [machine.is_active(name) for name in machine.states] == [
            name in odd for name in machine.states
        ]


@PROFILE
@given(cases())
def test_a_canceled_mutation_without_an_error_changes_nothing(case: Case) -> None:
    pair = pair_of(case)
    machine = pair.machine
    for request in case.mutations:
        before = machine.active_states(), machine.time(), machine.error
        result = pair.request(request)
        if result == Result.CANCELED and machine.error is before[2]:
            assert (machine.active_states(), machine.time(), machine.error) == before


@PROFILE
@given(cases(objects=0))
def test_an_executed_mutation_leaves_active_states_that_break_no_rule(case: Case) -> None:
    pair = pair_of(case)
    for request in case.mutations:
        before = pair.machine.time()
        result = pair.request(request)
        if result == Result.EXECUTED and pair.machine.time() != before:
            assert broken_rules(pair.oracle.book, pair.machine.active_states()) == []


@PROFILE
@given(cases(objects=0))
def test_doing_it_again_changes_nothing(case: Case) -> None:
    """Section 2, for ``add`` and ``remove``, in a schema without auto and multi states.

    Auto states come up on their own. A multi state that is called again implies again, and
    on rare occasions, about one in twenty thousand, what it implies then meets other states
    than the first time.
    """
    for state in case.schema.values():
        state.pop("auto", None)
        state.pop("multi", None)
    case.schema.setdefault(EXCEPTION, {})  # declared, it is not multi
    pair = pair_of(case)
    machine = pair.machine
    for request in case.mutations:
        result = pair.request(request)
        if result == Result.EXECUTED and request.kind != "set":
            before = set(machine.active_states()), machine.time()
            assert pair.request(request) == Result.EXECUTED
            assert (set(machine.active_states()), machine.time()) == before


@PROFILE
@given(randoms)
def test_what_is_not_in_the_target_was_not_needed_for_it(rnd: Random) -> None:
    """Section 2: the target is also found if all that is not in it is left out at once."""
    book = read_schema(random_schema(rnd))
    before: Names = tuple(dict.fromkeys(some_names(rnd, [*book], rnd.randint(0, 6))))
    request = random_request(rnd, book)
    called = tuple(dict.fromkeys(request.called))

    target = resolve(book, before, request.kind, called)

    assert broken_rules(book, target) == []
    if is_accepted(request.kind, called, target, auto=False):
        others = without(book, target)
        assert set(resolve(book, before, request.kind, called, others)) == set(target)


# ---------------------------------------------------------------- a longer life


class MachineBesideOracle(RuleBasedStateMachine):
    """A machine that is used in every way that the oracle knows, for as long as it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.pair: Pair | None = None
        self.bindings: list[Binding] = []

    @initialize(rnd=randoms)
    def build(self, rnd: Random) -> None:
        self.pair = Pair(random_schema(rnd))

    @property
    def both(self) -> Pair:
        assert self.pair is not None
        return self.pair

    @rule(rnd=randoms)
    def mutate(self, rnd: Random) -> None:
        self.both.mutate(random_request(rnd, self.both.oracle.book))

    @rule(rnd=randoms)
    def ask_first(self, rnd: Random) -> None:
        request = random_request(rnd, self.both.oracle.book)
        if request.kind != "remove" or self.both.machine.any_active(*request.called):
            self.both.can(request)

    @rule(rnd=randoms)
    def bind(self, rnd: Random) -> None:
        if len(self.bindings) < 3:
            self.bindings.append(self.both.bind(random_script(rnd, self.both.oracle.book)))

    @rule(rnd=randoms)
    def unbind(self, rnd: Random) -> None:
        if self.bindings:
            place = rnd.randint(0, len(self.bindings) - 1)
            self.bindings.pop(place).unbind()
            del self.both.oracle.scripts[place]

    @rule(rnd=randoms)
    def import_clock(self, rnd: Random) -> None:
        self.both.import_clock(random_clock(rnd, self.both.oracle.book))

    @rule()
    def export_and_import(self) -> None:
        self.both.machine.import_state(self.both.machine.export_state())
        self.both.oracle.import_clock(self.both.oracle.clock)

    @invariant()
    def the_two_agree(self) -> None:
        if self.pair is not None:
            self.pair.compare()


TestMachineBesideOracle = MachineBesideOracle.TestCase
TestMachineBesideOracle.settings = settings(PROFILE, stateful_step_count=40)
