"""The machine's own calls: mutations, errors, dry runs, eval, snapshots, arguments."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from asyncmachine import (
    ErrorSource,
    Event,
    LogLevel,
    Machine,
    MachineError,
    Result,
    State,
    StateContext,
    Tracer,
    Transition,
    UnknownStateError,
    Waiter,
)


def _states() -> dict[str, State]:
    return {
        "Foo": State(),
        "Bar": State(require="Foo"),
        "Baz": State(remove="Foo"),
        "Multi": State(multi=True),
    }


@pytest.fixture
def mach() -> Machine:
    return Machine(_states(), id="m")


def _raise(error: BaseException) -> Callable[[Event], object]:
    def fail(event: Event) -> None:
        raise error

    return fail


# ------------------------------------------------------------------------- mutations


def test_add_remove_and_set(mach: Machine) -> None:
    assert mach.add("Foo", "Bar") == Result.EXECUTED
    assert str(mach) == "(Foo:1 Bar:1)"
    assert mach.remove("Bar") == Result.EXECUTED
    assert str(mach) == "(Foo:1)"
    assert mach.set("Baz", "Multi") == Result.EXECUTED
    assert str(mach) == "(Baz:1 Multi:1)"
    assert mach.set() == Result.EXECUTED
    assert str(mach) == "()"


def test_mutations_of_nothing_are_legal(mach: Machine) -> None:
    mach.add("Foo")

    assert mach.add() == Result.EXECUTED
    assert mach.remove() == Result.EXECUTED
    assert mach.toggle() == Result.EXECUTED
    assert str(mach) == "(Foo:1)"
    assert mach.set() == Result.EXECUTED
    assert str(mach) == "()"


def test_a_remove_of_what_is_inactive_is_executed_without_a_transition(mach: Machine) -> None:
    heard: list[str] = []
    mach.bind(dict.fromkeys(("Any_enter", "Any_state"), lambda event: heard.append(event.name)))

    assert mach.remove("Foo", "Bar") == Result.EXECUTED

    assert heard == []


def test_toggle_removes_if_all_are_active_and_adds_else(mach: Machine) -> None:
    assert mach.toggle("Foo") == Result.EXECUTED
    assert mach.is_active("Foo")
    mach.toggle("Foo", "Bar")
    assert mach.is_active("Foo", "Bar")
    mach.toggle("Foo", "Bar")
    assert mach.is_inactive("Foo", "Bar")


def test_toggle_passes_args(mach: Machine) -> None:
    waiter = mach.when_args("Foo", {"id": 1})

    mach.toggle("Foo", id=1)

    assert waiter.is_set()


def test_an_unknown_name_raises_before_anything_is_queued(mach: Machine) -> None:
    def request() -> None:
        with pytest.raises(UnknownStateError, match="Nope"):
            mach.add("Foo", "Nope")
        assert mach.queue_length == 0

    mach.eval(request)
    assert mach.time_sum() == 0


@pytest.mark.parametrize("name", ["kind", "states", "args", "event", "error", "self", "timeout"])
def test_args_may_have_any_name(mach: Machine, name: str) -> None:
    seen: list[dict[str, object]] = []
    mach.bind({"Multi_state": lambda event: seen.append(dict(event.args))})

    mach.add("Multi", **{name: 1})
    mach.set("Multi", **{name: 1})
    mach.can_add("Multi", **{name: 1})
    mach.send("add", "Multi", **{name: 1}).wait(5)  # type: ignore[misc, unused-ignore]

    assert seen == [{name: 1}] * 3


def test_a_set_drops_exception_unless_it_is_called(mach: Machine) -> None:
    mach.add_error("no")
    mach.set("Foo", "Exception")
    assert mach.is_active("Exception")
    mach.set("Foo")
    assert not mach.is_active("Exception")


# ------------------------------------------------------------------------------ auto


def test_auto_states_follow_a_transition_that_moved_a_clock() -> None:
    mach = Machine({"Foo": State(), "Auto": State(auto=True, require="Foo")})

    mach.add("Foo")
    assert mach.is_active("Auto")
    mach.remove("Auto")
    assert mach.is_active("Auto")  # it comes back at once
    assert mach.tick("Auto") == 3


def test_nothing_follows_a_transition_that_moved_no_clock() -> None:
    heard: list[str] = []
    mach = Machine({"Foo": State(), "Auto": State(auto=True)})

    def refuse(event: Event) -> bool:
        heard.append(event.name)
        return False

    mach.bind({"Auto_enter": refuse})

    mach.add("Foo")
    mach.add("Foo")

    assert heard == ["Auto_enter"]


def test_an_auto_state_that_is_vetoed_does_not_keep_out_the_others() -> None:
    mach = Machine({"Foo": State(), "One": State(auto=True), "Two": State(auto=True)})
    mach.bind({"One_enter": lambda event: False})

    mach.add("Foo")

    assert str(mach) == "(Foo:1 Two:1)"


def test_a_vetoed_auto_state_does_not_come_back_by_being_implied() -> None:
    mach = Machine({"Foo": State(), "One": State(auto=True), "Two": State(auto=True, add="One")})
    mach.bind({"One_enter": lambda event: False})

    mach.add("Foo")

    assert str(mach) == "(Foo:1 Two:1)"


@pytest.mark.parametrize("watched", [False, True])
def test_any_other_veto_cancels_the_auto_mutation(watched: bool) -> None:
    mach = Machine({"Foo": State(), "One": State(auto=True), "Two": State(auto=True)})
    mach.bind({"Any_enter": lambda event: not event.mutation.auto})
    if watched:
        mach.add_tracer(Tracer())

    mach.add("Foo")

    assert str(mach) == "(Foo:1)"


def test_an_auto_state_that_always_fails_does_not_spin() -> None:
    mach = Machine({"Foo": State(), "Auto": State(auto=True)})
    calls: list[str] = []

    def fail(event: Event) -> None:
        calls.append(event.name)
        raise ValueError

    mach.bind({"Auto_state": fail})
    mach.add("Foo")

    assert calls == ["Auto_state"]
    assert str(mach) == "(Foo:1 Exception:1)"


# ---------------------------------------------------------------------------- errors


def test_add_error_adds_exception_with_the_error(mach: Machine) -> None:
    waiter = mach.when_args("Exception", {})
    error = ValueError("no")

    assert mach.add_error(error, id=1) == Result.EXECUTED

    assert mach.error is error
    assert waiter.args == {"error": error, "id": 1}
    assert mach.is_active("Exception")


def test_add_error_adds_the_named_error_states() -> None:
    mach = Machine({"ErrNetwork": State(require="Exception"), "Other": State()})

    assert mach.add_error("no route", "ErrNetwork", "Other") == Result.EXECUTED

    assert mach.is_active("ErrNetwork", "Other", "Exception")
    assert isinstance(mach.error, MachineError)
    assert str(mach.error) == "no route"


@pytest.mark.parametrize("error", [None, 5, ValueError])
def test_add_error_takes_an_exception_or_a_text(mach: Machine, error: object) -> None:
    with pytest.raises(TypeError):
        mach.add_error(error)  # type: ignore[arg-type]  # wrong on purpose

    assert mach.error is None


def test_an_error_in_negotiation_cancels_and_becomes_an_exception(mach: Machine) -> None:
    error = ValueError("no")
    mach.bind({"Foo_enter": _raise(error)})

    assert mach.add("Foo") == Result.CANCELED

    assert mach.error is error
    assert mach.describe() == "(Exception:1)[Foo:0 Bar:0 Baz:0 Multi:0]"


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("name", ["Foo_enter", "Foo_state"])
def test_an_error_in_a_mutation_that_was_queued_is_told_by_its_result(
    mach: Machine, name: str, watched: bool
) -> None:
    mach.bind({name: _raise(ValueError("no"))})
    if watched:
        mach.add_tracer(Tracer())

    result, after = mach.eval(lambda: (mach.add("Foo"), mach.add("Multi")))

    assert result.wait(5).why == f"ValueError in {name}: no"
    assert after.wait(5) == Result.EXECUTED
    assert mach.is_active("Exception", "Multi")
    assert not mach.is_active("Foo")


@pytest.mark.parametrize("watched", [False, True])
def test_an_error_in_the_negotiation_of_an_auto_state_cancels_all_of_them(watched: bool) -> None:
    mach = Machine({"Foo": State(), "One": State(auto=True), "Two": State(auto=True)})
    mach.bind({"Two_enter": _raise(ValueError("no"))})
    if watched:
        mach.add_tracer(Tracer())

    assert mach.add("Foo") == Result.EXECUTED

    assert str(mach) == "(Foo:1 Exception:1)"


@pytest.mark.parametrize("watched", [False, True])
def test_a_veto_on_one_auto_state_starts_the_negotiation_again(watched: bool) -> None:
    mach = Machine({"Foo": State(), "One": State(auto=True), "Two": State(auto=True)})
    heard: list[str] = []

    def ask(event: Event) -> bool:
        heard.append(event.name)
        return event.name != "Any_Two"

    if watched:
        mach.add_tracer(Tracer())
    mach.bind(dict.fromkeys(("One_enter", "Any_Two", "Two_enter"), ask))
    mach.add("Foo")

    assert heard == ["One_enter", "Any_Two", "One_enter"]
    assert str(mach) == "(Foo:1 One:1)"


@pytest.mark.parametrize("watched", [False, True])
def test_when_all_auto_states_are_vetoed_nothing_happens(watched: bool) -> None:
    mach = Machine({"Foo": State(), "One": State(auto=True), "Two": State(auto=True)})
    mach.bind({"Any_One": lambda event: False, "Two_enter": lambda event: False})
    if watched:
        mach.add_tracer(Tracer())

    assert mach.add("Foo") == Result.EXECUTED

    assert str(mach) == "(Foo:1)"
    assert mach.time_sum() == 1


def test_an_error_in_a_final_handler_puts_back_what_had_not_completed() -> None:
    mach = Machine({name: State() for name in ("A", "B", "C", "D", "E")})
    mach.add("A", "B")
    mach.bind({"D_state": _raise(ValueError("no"))})

    assert mach.set("C", "D", "E") == Result.CANCELED

    # A_end, B_end, C_state have completed, D_state has not, E_state was not called
    assert mach.describe() == "(C:1 Exception:1)[A:2 B:2 D:2 E:2]"


def test_an_error_in_an_end_handler_restores_the_exits_in_their_order() -> None:
    mach = Machine({name: State() for name in ("A", "B", "C", "D")})
    mach.add("C", "B", "A")
    mach.bind({"B_end": _raise(ValueError("no"))})
    orders: list[tuple[str, ...]] = []
    mach.on("Exception_enter", lambda event: orders.append(event.transition.states_before))

    mach.set("D")

    assert orders == [("B", "A")]
    assert mach.time("A", "B", "C", "D") == (3, 3, 2, 2)


def test_a_multi_state_called_again_stays_as_it_is_after_an_error(mach: Machine) -> None:
    mach.add("Multi")
    mach.bind({"Multi_state": _raise(ValueError("no"))})

    assert mach.add("Multi") == Result.CANCELED

    assert mach.tick("Multi") == 3
    assert mach.is_active("Multi")


def test_an_error_in_the_very_last_handler_puts_nothing_back(mach: Machine) -> None:
    mach.bind({"Any_state": lambda e: 1 / 0 if "Foo" in e.mutation.states else None})

    assert mach.add("Foo") == Result.CANCELED

    assert mach.is_active("Foo", "Exception")


def test_the_failed_transition_has_no_auto_round_but_its_exception_has_one() -> None:
    mach = Machine({"Foo": State(), "Auto": State(auto=True)})
    order: list[tuple[str, ...]] = []
    mach.bind({"Foo_state": _raise(ValueError("no"))})
    mach.on("Any_enter", lambda event: order.append(event.mutation.states))

    mach.add("Foo")

    assert order == [("Foo",), ("Exception",), ("Auto",)]


def test_an_error_while_handling_exception_adds_nothing(
    mach: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("in the handler of errors")
    mach.bind({"Exception_enter": _raise(error)})

    assert mach.add_error("first") == Result.CANCELED

    assert mach.error is error
    assert mach.tick("Exception") == 0
    assert "in the handler of errors" in caplog.text


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["Foo_enter", "Foo_state"])
@pytest.mark.parametrize("watched", [False, True])
def test_an_interrupt_in_a_handler_goes_on_at_once_and_leaves_the_machine_consistent(
    mach: Machine, name: str, interrupt: type[BaseException], watched: bool
) -> None:
    binding = mach.bind({name: _raise(interrupt())})
    if watched:
        mach.add_tracer(Tracer())

    with pytest.raises(interrupt):
        mach.add("Foo")

    assert not mach.is_active("Foo")
    assert not mach.is_active("Exception")
    assert mach.error is None
    assert not mach.in_transition
    binding.unbind()
    assert mach.add("Foo").wait(5) == Result.EXECUTED
    assert mach.is_active("Foo")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_after_an_interrupt_waiters_and_contexts_are_as_the_machine_is(
    mach: Machine, interrupt: type[BaseException]
) -> None:
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")
    gone, kept, later = mach.when_not("Foo"), mach.when_tick("Foo", 9), mach.when("Multi")

    def act(event: Event) -> None:
        if "Baz" in event.mutation.states:
            raise interrupt

    mach.bind({"Any_state": act})

    with pytest.raises(interrupt):
        mach.set("Baz")
    assert mach.remove().wait(5) == Result.EXECUTED
    assert mach.add("Multi").wait(5) == Result.EXECUTED

    assert mach.is_active("Baz", "Multi")
    assert ctx.expired
    assert gone.is_set()
    assert later.is_set()
    assert not kept.is_set()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_eval_goes_on_and_the_machine_works(
    mach: Machine, interrupt: type[BaseException]
) -> None:
    def fail() -> None:
        assert mach.add("Foo") == Result.QUEUED
        raise interrupt

    with pytest.raises(interrupt):
        mach.eval(fail)

    assert mach.when("Foo").wait(5)
    assert mach.add("Multi").wait(5) == Result.EXECUTED


def test_an_interrupt_leaves_what_is_queued_to_others(mach: Machine) -> None:
    results: list[Result] = []

    def act(event: Event) -> None:
        results.extend([mach.add("Multi", n=n) for n in range(3)])
        raise KeyboardInterrupt

    mach.bind({"Foo_state": act})
    with pytest.raises(KeyboardInterrupt):
        mach.add("Foo")

    assert [result.wait(5) for result in results] == [Result.EXECUTED] * 3
    assert mach.tick("Multi") == 5


def test_with_catch_errors_off_the_error_is_raised_to_the_caller() -> None:
    mach = Machine(_states(), catch_errors=False)
    error = ValueError("no")
    mach.bind({"Foo_enter": _raise(error), "Multi_state": _raise(error)})

    with pytest.raises(ValueError, match="no") as caught:
        mach.add("Foo")
    assert caught.value is mach.error is error
    with pytest.raises(ValueError, match="no"):
        mach.add("Multi")

    assert mach.describe() == "()[Foo:0 Bar:0 Baz:0 Multi:2 Exception:0]"
    assert mach.add("Baz") == Result.EXECUTED


def test_with_catch_errors_off_what_is_queued_is_carried_out_all_the_same() -> None:
    mach = Machine(_states(), catch_errors=False)
    results: list[Result] = []

    def fail(event: Event) -> None:
        results.append(mach.add("Multi"))
        raise ValueError("no")

    mach.bind({"Foo_state": fail})
    with pytest.raises(ValueError, match="no"):
        mach.add("Foo")

    assert results[0].wait(5) == Result.EXECUTED
    assert mach.is_active("Multi")


def test_with_catch_errors_off_errors_in_dry_runs_and_listeners_are_not_raised() -> None:
    mach = Machine(_states(), catch_errors=False)
    mach.on("Foo_state", _raise(ValueError("in a listener")))

    assert mach.add("Foo") == Result.EXECUTED
    mach.bind({"Multi_enter": _raise(ValueError("in a dry run"))})
    assert mach.can_add("Multi").why == "ValueError in Multi_enter: in a dry run"


def test_the_source_of_an_error_is_passed_to_the_handler_of_exception(mach: Machine) -> None:
    sources: list[object] = []
    mach.bind(
        {
            "Foo_enter": _raise(ValueError("no")),
            "Exception_state": lambda event: sources.append(event.args["source"]),
        }
    )

    mach.add("Foo")

    (source,) = sources
    assert isinstance(source, ErrorSource)
    assert (source.handler, source.states, source.states_before) == ("Foo_enter", ("Foo",), ())


# -------------------------------------------------------------------------- dry runs


def test_dry_runs_ask_relations_and_negotiation_and_change_nothing(mach: Machine) -> None:
    heard: list[str] = []
    names = ("Foo_enter", "Any_enter", "Foo_exit", "Foo_Foo", "Foo_state", "Foo_end", "Any_state")
    mach.bind(dict.fromkeys(names, lambda event: heard.append(event.name)))
    mach.on("Foo_enter", lambda event: heard.append("listener"))
    waiter = mach.when("Foo")

    assert mach.can_add("Foo") == Result.EXECUTED
    assert heard == ["Foo_enter", "Any_enter"]
    assert mach.can_add("Bar") == Result.CANCELED
    assert mach.can_set("Foo", "Bar") == Result.EXECUTED
    assert mach.can_remove("Foo") == Result.EXECUTED

    assert mach.time_sum() == 0
    assert not waiter.is_set()
    assert mach.active_states() == ()
    assert "Foo_state" not in heard
    assert "Any_state" not in heard


def test_dry_runs_hear_a_veto_and_get_the_args(mach: Machine) -> None:
    mach.bind({"Foo_exit": lambda event: event.args.get("force", False)})
    mach.add("Foo")
    ctx = mach.state_ctx("Foo")

    assert mach.can_remove("Foo").why == "vetoed by Foo_exit"
    assert mach.can_remove("Foo", force=True) == Result.EXECUTED
    assert mach.can_set() == Result.CANCELED
    assert mach.is_active("Foo")
    assert not ctx.expired


def test_an_error_in_a_dry_run_is_a_refusal_and_nothing_more(mach: Machine) -> None:
    mach.bind({"Foo_enter": _raise(ValueError("no"))})

    assert mach.can_add("Foo").why == "ValueError in Foo_enter: no"

    assert mach.error is None
    assert not mach.is_active("Exception")


def test_dry_runs_inside_a_handler_are_answered_on_the_spot(mach: Machine) -> None:
    results: list[Result] = []

    def ask(event: Event) -> None:
        results.append(mach.can_add("Bar"))
        assert mach.transition is event.transition

    mach.bind({"Foo_enter": ask, "Foo_state": ask})
    mach.add("Foo")

    assert results == [Result.CANCELED, Result.EXECUTED]


def test_dry_runs_inside_eval_are_answered_on_the_spot(mach: Machine) -> None:
    assert mach.eval(lambda: mach.can_add("Foo")) == Result.EXECUTED


# ------------------------------------------------------------------------------ eval


def test_eval_gives_the_value_or_raises_the_error(mach: Machine) -> None:
    assert mach.eval(lambda: 42) == 42
    assert mach.eval(lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        mach.eval(lambda: 1 / 0)
    assert mach.error is None
    assert mach.add("Foo") == Result.EXECUTED


def test_eval_inside_a_handler_runs_at_once(mach: Machine) -> None:
    seen: list[object] = []

    def ask(event: Event) -> None:
        seen.append(mach.eval(lambda: mach.eval(lambda: mach.is_active("Foo"))))

    mach.bind({"Foo_enter": ask, "Foo_state": ask})
    mach.add("Foo")

    assert seen == [False, True]


def test_mutations_inside_eval_are_queued_and_carried_out_before_it_returns(mach: Machine) -> None:
    def act() -> bool:
        assert mach.add("Foo") == Result.QUEUED
        return mach.is_active("Foo")

    assert mach.eval(act) is False
    assert mach.is_active("Foo")


def test_eval_whose_turn_does_not_come_in_time_never_runs(mach: Machine) -> None:
    busy, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    def hold(event: Event) -> None:
        busy.set()
        go_on.wait(30)

    mach.bind({"Foo_state": hold})
    holder = threading.Thread(target=mach.add, args=("Foo",))
    holder.start()
    assert busy.wait(30)
    with pytest.raises(TimeoutError):
        mach.eval(lambda: ran.append(1), timeout=0)
    go_on.set()
    holder.join(30)
    mach.eval(lambda: ran.append(2))

    assert ran == [2]


def test_eval_works_after_disposal(mach: Machine) -> None:
    mach.dispose()

    assert mach.eval(lambda: 42) == 42


# ------------------------------------------------------------------------------ send


def test_send_requests_without_carrying_out_here(mach: Machine) -> None:
    threads: list[int] = []
    mach.bind({"Foo_state": lambda event: threads.append(threading.get_ident())})

    result = mach.send("add", "Foo", id=1)

    assert result.wait(5) == Result.EXECUTED
    assert mach.is_active("Foo")
    assert threads != [threading.get_ident()]


def test_what_is_sent_keeps_its_order(mach: Machine) -> None:
    order: list[object] = []
    mach.bind({"Multi_state": lambda event: order.append(event.args["n"])})

    for n in range(200):
        assert mach.send("add", "Multi", n=n)
    mach.add("Foo").wait(5)

    assert order == list(range(200))


@pytest.mark.parametrize("kind", ["add", "remove", "set"])
def test_every_kind_can_be_sent(mach: Machine, kind: str) -> None:
    mach.add("Foo", "Multi")

    getattr(mach, "send")(kind, "Foo").wait(5)  # noqa: B009 - the kind is a plain str here

    assert (
        mach.active_states()
        == {
            "add": ("Foo", "Multi"),
            "remove": ("Multi",),
            "set": ("Foo",),
        }[kind]
    )


def test_what_is_sent_inside_a_handler_comes_after_it(mach: Machine) -> None:
    results: list[Result] = []
    mach.bind({"Foo_state": lambda event: results.append(mach.send("add", "Multi"))})

    mach.add("Foo")

    assert results == [Result.QUEUED]
    assert results[0].wait(5) == Result.EXECUTED


# ------------------------------------------------------------------------- snapshots


def test_a_snapshot_brings_clocks_and_active_states_back_in_declared_order(mach: Machine) -> None:
    mach.add("Multi", "Foo")
    mach.add("Multi")
    assert mach.active_states() == ("Multi", "Foo")
    data = json.loads(json.dumps(mach.export_state()))
    other = Machine(_states(), id="other")
    other.add("Baz")

    other.import_state(data)

    assert other.time() == mach.time()
    assert other.active_states() == ("Foo", "Multi")
    assert other.id == "other"
    assert other.add("Bar") == Result.EXECUTED


def test_states_that_the_snapshot_lacks_start_at_0(mach: Machine) -> None:
    mach.add("Foo", "Multi")

    mach.import_state({"id": "m", "names": ["Multi"], "ticks": [7]})

    assert mach.time() == (0, 0, 0, 7, 0)
    assert mach.active_states() == ("Multi",)


def test_importing_moves_no_handler_and_no_auto_state() -> None:
    heard: list[str] = []
    mach = Machine({"Foo": State(), "Auto": State(auto=True, require="Foo"), "Bar": State()})
    names = ("Foo_enter", "Foo_state", "Any_state", "Auto_state")
    mach.bind(dict.fromkeys(names, lambda event: heard.append(event.name)))

    mach.import_state({"names": ["Foo"], "ticks": [1]})
    assert heard == []
    assert mach.active_states() == ("Foo",)
    mach.add("Bar")

    assert mach.is_active("Auto")
    assert heard == ["Any_state", "Auto_state", "Any_state"]


def test_importing_expires_contexts_of_changed_states_alone(mach: Machine) -> None:
    mach.add("Foo", "Multi")
    foo, multi = mach.state_ctx("Foo"), mach.state_ctx("Multi")

    mach.import_state({"names": ["Foo", "Multi"], "ticks": [1, 3]})

    assert not foo.expired
    assert multi.expired


def test_importing_inside_a_handler_comes_between_transitions(mach: Machine) -> None:
    mach.bind({"Foo_state": lambda event: mach.import_state({"names": ["Multi"], "ticks": [5]})})

    mach.add("Foo")

    assert mach.describe() == "(Multi:5)[Foo:0 Bar:0 Baz:0 Exception:0]"
    assert mach.add("Multi") == Result.EXECUTED
    assert mach.tick("Multi") == 7


def test_a_name_that_the_schema_lacks_is_an_error(mach: Machine) -> None:
    with pytest.raises(UnknownStateError, match="'Fooo'.*did you mean 'Foo'"):
        mach.import_state({"names": ["Fooo"], "ticks": [1]})

    assert mach.time_sum() == 0


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"names": ["Foo"]},
        {"names": 5, "ticks": [1]},
        {"names": ["Foo"], "ticks": [1, 2]},
        {"names": ["Foo"], "ticks": ["1"]},
        {"names": ["Foo"], "ticks": [-1]},
        {"names": ["Foo"], "ticks": [1.5]},
        {"names": ["Foo"], "ticks": [True]},
        {"names": [["Foo"]], "ticks": [1]},
        [],
        None,
    ],
)
def test_malformed_snapshots_are_refused_and_change_nothing(mach: Machine, data: object) -> None:
    mach.add("Multi")

    with pytest.raises((ValueError, UnknownStateError)):
        mach.import_state(data)  # type: ignore[arg-type]  # malformed on purpose

    assert mach.describe() == "(Multi:1)[Foo:0 Bar:0 Baz:0 Exception:0]"


# ------------------------------------------------------------------------- arguments


def test_a_machine_that_is_given_no_id_makes_one_up() -> None:
    ids = {Machine(_states()).id for _ in range(100)}

    assert len(ids) == 100
    assert all(isinstance(each, str) and each for each in ids)


def test_tags_and_tracers_are_kept() -> None:
    tracer = Tracer()

    mach = Machine(_states(), tags=["a", "b"], tracers=[tracer])

    assert mach.tags == ("a", "b")
    assert mach.tracers == (tracer,)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_handler_timeout_is_positive(seconds: float) -> None:
    with pytest.raises(ValueError, match="handler_timeout"):
        Machine(_states(), handler_timeout=seconds)


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        Machine(_states(), "m")  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(TypeError):
        Machine(_states(), ident="m")  # type: ignore[call-arg]  # wrong on purpose


def test_the_level_of_the_log_is_kept() -> None:
    assert Machine(_states()).log_level is LogLevel.NOTHING
    assert Machine(_states(), log_level=LogLevel.OPS).log_level is LogLevel.OPS


def test_leaving_the_with_block_disposes() -> None:
    with Machine(_states()) as mach:
        mach.add("Foo")
        assert not mach.is_disposed

    assert mach.is_disposed


def test_a_child_is_disposed_with_its_parent() -> None:
    parent = Machine(_states())
    child = Machine(_states(), parent=parent)

    parent.dispose()

    assert child.is_disposed
    with pytest.raises(MachineError, match=parent.id):
        Machine(_states(), parent=parent)


# ------------------------------------------------------------- nothing user-made leaks


def test_args_of_a_mutation_are_not_kept_afterwards(mach: Machine) -> None:
    waiters: list[Waiter] = [mach.when_args("Foo", {"id": 1})]
    contexts: list[StateContext] = []
    mach.bind({"Foo_state": lambda event: contexts.append(mach.state_ctx("Foo"))})

    mach.add("Foo", id=1)

    assert waiters[0].args == {"id": 1}
    assert not contexts[0].expired
    assert mach.transition is None


# ------------------------------------------- user code that the machine calls may call it


def _ask(mach: Machine, heard: list[object]) -> None:
    """Ask for what needs the machine's turn, inside something that the machine has called."""
    try:
        heard.append(mach.eval(lambda: "at once", timeout=1))
    except TimeoutError as error:
        heard.append(error)


@pytest.mark.parametrize("handlers", [{}, {"Any_state": lambda event: None}], ids=["bare", "bound"])
@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(
            lambda mach, ask: mach.state_ctx("Foo").on_expire(lambda ctx: ask()), id="on_expire"
        ),
        pytest.param(
            lambda mach, ask: mach.when_not("Foo").on_done(lambda waiter: ask()), id="on_done"
        ),
        pytest.param(
            lambda mach, ask: mach.when("Multi", ctx=mach.state_ctx("Foo")).on_done(
                lambda waiter: ask()
            ),
            id="on_done of a canceled waiter",
        ),
        pytest.param(
            lambda mach, ask: mach.when_query(lambda clock: clock["Foo"] == 2 and ask()),
            id="when_query",
        ),
        pytest.param(lambda mach, ask: mach.on("Foo_end", lambda event: ask()), id="on"),
    ],
)
def test_what_the_machine_calls_may_evaluate_at_once(
    prepare: Callable[[Machine, Callable[[], None]], object], handlers: object
) -> None:
    heard: list[object] = []
    mach = Machine(_states(), handlers=handlers)
    mach.add("Foo")

    held = prepare(mach, lambda: _ask(mach, heard))
    mach.remove("Foo")

    assert {*heard} == {"at once"}
    del held


@pytest.mark.parametrize(
    "hook",
    [
        "machine_init",
        "mutation_queued",
        "transition_init",
        "transition_start",
        "handler_start",
        "handler_end",
        "transition_end",
        "queue_empty",
        "machine_dispose",
    ],
)
def test_a_tracer_may_evaluate_at_once(hook: str) -> None:
    heard: list[object] = []
    tracer = Tracer()

    def ask(subject: Machine | Transition, *details: object) -> None:
        if not heard:
            _ask(subject if isinstance(subject, Machine) else subject.machine, heard)

    vars(tracer)[hook] = ask
    with Machine(_states(), tracers=[tracer]) as mach:
        mach.bind({"Foo_state": lambda event: mach.add("Multi")})
        mach.add("Foo")

    assert heard == ["at once"]
