"""The queue: order, duplicates, the limit, and what may be asked about it.

Mutations that the function of an ``eval`` requests are queued, so one thread is enough.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asyncmachine import Event, Machine, Result, State, Tracer, Transition
from asyncmachine.queueing import Queue, Task
from asyncmachine.transition import Mutation


class Recorder(Tracer):
    """Keeps what was carried out, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def transition_end(self, tx: Transition) -> None:
        args = "".join(f" {name}={value}" for name, value in tx.mutation.args.items())
        self.done.append(f"{tx.mutation.kind} {' '.join(tx.mutation.states)}{args}".strip())


def _machine(recorder: Recorder | None = None, **options: int) -> Machine:
    return Machine(
        {
            "A": State(),
            "B": State(),
            "C": State(),
            "X": State(remove="Y"),
            "Y": State(),
            "M": State(multi=True),
        },
        tracers=[recorder] if recorder else [],
        **options,  # type: ignore[arg-type]
    )


def _queued(mach: Machine, *requests: Callable[[], Result]) -> list[Result]:
    """Request several mutations while the machine is busy; give their final results."""
    results = mach.eval(lambda: [request() for request in requests])
    assert all(result == Result.QUEUED for result in results)
    return [result.wait(5) for result in results]


# ----------------------------------------------------------------------------- order


def test_first_in_first_out() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.add("A"), lambda: mach.remove("A"), lambda: mach.set("B"))

    assert recorder.done == ["add A", "remove A", "set B"]


def test_a_call_from_inside_a_handler_is_queued_and_comes_after_what_waits() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    results: list[Result] = []

    def request(event: Event) -> None:
        results.append(mach.add("B"))
        assert not mach.is_active("B")
        assert mach.is_queued("add", "B")
        assert mach.queue_length >= 1

    mach.bind({"A_enter": request, "A_state": lambda event: results.append(mach.add("C"))})

    assert mach.add("A") == Result.EXECUTED
    assert results == [Result.QUEUED, Result.QUEUED]
    assert recorder.done == ["add A", "add B", "add C"]
    assert mach.queue_length == 0


def test_exception_then_auto_then_eval_then_the_rest() -> None:
    recorder = Recorder()
    done = recorder.done
    mach = Machine(
        {
            "A": State(),
            "B": State(),
            "Auto": State(auto=True, require="Exception"),
            "Late": State(),
        },
        tracers=[recorder],
    )

    def act(event: Event) -> None:
        mach.add("Late")
        mach.bind({"B_state": lambda event: None})
        raise ValueError

    mach.bind({"A_state": act})
    mach.add("A")

    assert [line.split(" error")[0] for line in done] == [
        "add A",
        "add Exception",
        "add Auto",
        "add Late",
    ]


def test_an_auto_mutation_goes_ahead_of_what_is_queued() -> None:
    recorder = Recorder()
    mach = Machine(
        {"A": State(), "Auto": State(auto=True, require="A"), "B": State()}, tracers=[recorder]
    )
    mach.bind({"A_enter": lambda event: mach.add("B")})

    mach.add("A")

    assert recorder.done == ["add A", "add Auto", "add B"]


# ------------------------------------------------------------------------ duplicates


def test_a_duplicate_is_not_queued_again_and_shares_the_result() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    lengths: list[int] = []

    def request() -> list[Result]:
        results = [mach.add("A"), mach.add("A")]
        lengths.append(mach.queue_length)
        return results

    first, second = mach.eval(request)

    assert lengths == [1]
    assert recorder.done == ["add A"]
    assert first.wait(5) is second.wait(5)


@pytest.mark.parametrize("kind", ["add", "remove", "set"])
def test_every_kind_has_duplicates(kind: str) -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    mach.add("B")
    recorder.done.clear()

    _queued(mach, *[lambda: getattr(mach, kind)("A", "B")] * 3)

    assert recorder.done == [f"{kind} A B"]


def test_a_duplicate_of_a_refused_one_is_refused_with_the_same_reason() -> None:
    mach = Machine({"A": State(require="B"), "B": State()})

    results = _queued(mach, lambda: mach.add("A"), lambda: mach.add("A"))

    assert results == [Result.CANCELED, Result.CANCELED]
    assert [result.why for result in results] == ["A requires B, which is inactive"] * 2


def test_unrelated_mutations_in_between_do_not_matter() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.add("A"), lambda: mach.add("B"), lambda: mach.add("A"))

    assert recorder.done == ["add A", "add B"]


def test_the_opposite_in_between_makes_it_no_duplicate() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.add("A"), lambda: mach.remove("A"), lambda: mach.add("A"))

    assert recorder.done == ["add A", "remove A", "add A"]
    assert mach.tick("A") == 3


def test_one_that_touches_one_of_its_states_in_between_makes_it_no_duplicate() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.add("A", "B"), lambda: mach.remove("B"), lambda: mach.add("A", "B"))

    assert recorder.done == ["add A B", "remove B", "add A B"]
    assert mach.is_active("A", "B")


def test_a_set_in_between_touches_everything() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.add("A"), lambda: mach.set("B"), lambda: mach.add("A"))

    assert recorder.done == ["add A", "set B", "add A"]


def test_anything_in_between_makes_a_set_no_duplicate() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.set("A"), lambda: mach.add("B"), lambda: mach.set("A"))

    assert recorder.done == ["set A", "add B", "set A"]
    assert mach.active_states() == ("A",)


def test_what_a_relation_would_overrule_is_no_duplicate() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.add("Y"), lambda: mach.add("X"), lambda: mach.remove("X"))
    _queued(mach, lambda: mach.add("Y"), lambda: mach.add("X"), lambda: mach.add("Y"))

    assert mach.is_active("X")  # it keeps Y out: the last add of Y was refused, not lost
    assert recorder.done == ["add Y", "add X", "remove X", "add Y", "add X", "add Y"]


def test_another_order_of_states_is_no_duplicate() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.add("A", "B"), lambda: mach.add("B", "A"))

    assert recorder.done == ["add A B", "add B A"]


def test_names_called_twice_are_the_same_as_called_once() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.add("A", "A"), lambda: mach.add("A"))

    assert recorder.done == ["add A"]


def test_mutations_with_args_are_no_duplicates() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(
        mach,
        lambda: mach.add("A", n=1),
        lambda: mach.add("A", n=1),
        lambda: mach.add("A"),
        lambda: mach.add("A"),
        lambda: mach.add("A", n=1),
        lambda: mach.add("A"),
    )

    assert recorder.done == ["add A n=1", "add A n=1", "add A", "add A n=1", "add A"]


def test_two_bare_adds_of_a_multi_state_are_two() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    _queued(mach, lambda: mach.add("M"), lambda: mach.add("M"), lambda: mach.add("A", "M"))

    assert recorder.done == ["add M", "add M", "add A M"]
    assert mach.tick("M") == 5


def test_what_has_been_taken_out_of_the_queue_has_no_duplicates_any_more() -> None:
    recorder = Recorder()
    mach = _machine(recorder)
    mach.bind({"A_state": lambda event: mach.add("A")})  # while add A is carried out

    mach.add("A")

    assert recorder.done == ["add A", "add A"]


def test_after_a_drain_nothing_is_remembered() -> None:
    recorder = Recorder()
    mach = _machine(recorder)

    for _ in range(2):
        _queued(mach, lambda: mach.set("A"), mach.set)

    assert recorder.done == ["set A", "set", "set A", "set"]


# ----------------------------------------------------------------------------- limit


def test_at_the_limit_a_mutation_is_canceled_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    mach = _machine(recorder, queue_limit=2)

    results = mach.eval(lambda: [mach.add("M", n=n) for n in range(4)])

    assert results == [Result.QUEUED, Result.QUEUED, Result.CANCELED, Result.CANCELED]
    assert results[3].why == "the queue is full (2)"
    assert recorder.done == ["add M n=0", "add M n=1"]
    assert caplog.text.count("the queue is full (2)") == 2


def test_a_duplicate_at_the_limit_shares_the_result() -> None:
    mach = _machine(queue_limit=1)

    assert _queued(mach, lambda: mach.add("A"), lambda: mach.add("A")) == [Result.EXECUTED] * 2


def test_an_error_in_a_handler_passes_at_the_limit() -> None:
    mach = _machine(queue_limit=1)

    def act(event: Event) -> None:
        assert mach.add("B") == Result.QUEUED
        assert mach.add("C") == Result.CANCELED
        raise ValueError

    mach.bind({"A_state": act})
    mach.add("A")

    assert mach.is_active("Exception", "B")
    assert not mach.is_active("C")


def test_add_error_passes_at_the_limit() -> None:
    mach = _machine(queue_limit=1)

    results = mach.eval(lambda: [mach.add("A"), mach.add_error("no"), mach.add("B")])

    assert results == [Result.QUEUED, Result.QUEUED, Result.CANCELED]
    assert mach.is_active("A", "Exception")


def test_an_auto_mutation_passes_at_the_limit() -> None:
    mach = Machine(
        {"A": State(), "B": State(), "Auto": State(auto=True, require="A")}, queue_limit=1
    )
    mach.bind({"A_state": lambda event: mach.add("B")})

    mach.add("A")

    assert mach.is_active("A", "B", "Auto")


def test_asking_passes_at_the_limit_and_does_not_count() -> None:
    mach = _machine(queue_limit=1)
    seen: list[object] = []

    def act(event: Event) -> None:
        mach.add("B")
        seen.append(mach.can_add("C"))
        seen.append(mach.eval(lambda: 42))

    mach.bind({"A_state": act})
    mach.add("A")

    assert seen == [Result.EXECUTED, 42]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_a_value_error(limit: int) -> None:
    with pytest.raises(ValueError, match="queue_limit"):
        _machine(queue_limit=limit)


# ---------------------------------------------------------------------------- asking


def test_is_queued_tells_what_waits() -> None:
    mach = _machine()
    seen: list[bool] = []

    def look() -> None:
        mach.add("A", "B")
        mach.set("C")
        seen.extend(
            [
                mach.is_queued("add", "A", "B"),
                mach.is_queued("set", "C"),
                mach.is_queued("add", "C"),
                mach.is_queued("remove", "A"),
                mach.is_queued("remove"),
            ]
        )

    mach.eval(look)

    assert seen == [True, True, False, False, False]
    assert not mach.is_queued("add", "A", "B")


@pytest.mark.parametrize("kind", ["ad", "", "ADD"])
def test_another_kind_is_a_value_error_that_names_it(kind: str) -> None:
    mach = _machine()

    with pytest.raises(ValueError, match=repr(kind)):
        mach.is_queued(kind, "A")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=repr(kind)):
        mach.send(kind, "A")  # type: ignore[arg-type]  # wrong on purpose


def test_queue_length_counts_what_waits() -> None:
    mach = _machine()

    def look() -> int:
        mach.add("A")
        mach.add("B")
        return mach.queue_length

    assert mach.eval(look) == 2
    assert mach.queue_length == 0


# ------------------------------------------------------------- the queue by itself


def _queue() -> Queue:
    return Queue(_machine().schema)


def test_urgent_tasks_come_first() -> None:
    queue = _queue()
    mutation = Mutation("add", ("A",), {})
    late: Task[None] = Task(lambda: None)
    urgent: Task[None] = Task(lambda: None)
    queue.put(mutation, 10)
    queue.put_task(late, urgent=False)
    queue.put_task(urgent, urgent=True)

    assert [queue.take(), queue.take(), queue.take(), queue.take()] == [
        urgent,
        mutation,
        late,
        None,
    ]


def test_tasks_do_not_count_for_the_limit() -> None:
    queue = _queue()

    queue.put_task(Task(lambda: None), urgent=False)

    assert queue.put(Mutation("add", ("A",), {}), 1) is not None
    assert queue.put(Mutation("add", ("B",), {}), 1) is None


def test_a_task_is_run_or_withdrawn_but_not_both() -> None:
    withdrawn: Task[int] = Task(lambda: 42)

    assert withdrawn.claimable
    assert withdrawn.claim()
    assert not withdrawn.claim()
    assert not withdrawn.claimable
    withdrawn.run()
    assert not withdrawn.wait(0)

    run: Task[int] = Task(lambda: 42)
    run.run()
    assert not run.claim()
    assert run.wait(0)
    assert run.value() == 42


def test_a_task_raises_where_it_was_asked_for() -> None:
    task: Task[float] = Task(lambda: 1 / 0)

    task.run()

    with pytest.raises(ZeroDivisionError):
        task.value()
