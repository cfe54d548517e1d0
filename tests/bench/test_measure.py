"""Measuring itself, on statements that need no machine. No test asserts a time."""

from __future__ import annotations

import gc
from itertools import count

import pytest

from bench.cases import Case, Outcome, Timing, chosen
from bench.crowd import Crowd
from bench.growth import Growth
from bench.measure import BenchError, Loop, Ruler, Sample, iterations_for
from bench.rounds import Effort, Progress, measure
from bench.soak import Moment, Soak
from bench.weigh import footprint, kilobytes_each


def test_a_loop_repeats_its_statement() -> None:
    seen: list[int] = []
    loop = Loop("seen.append(1)\nseen.append(2)", names={"seen": seen}, steps=2)

    assert loop.run(3) >= 0
    assert seen == [1, 2] * 3


def test_a_sample_holds_the_step_against_the_empty_call() -> None:
    sample = Ruler().sample(Loop("f()", names={"f": lambda: None}), 1_000)

    assert sample.ns > 0
    assert sample.empty_calls > 0


def test_two_parts_share_the_reading_between_them() -> None:
    seen: list[int] = []
    ruler = Ruler()
    ruler.sample(Loop("seen.append(1)", names={"seen": seen}), 10, parts=3)

    assert len(seen) == 30
    assert len(ruler.readings) == 4


def test_a_ruler_leaves_the_loop_in_unless_told() -> None:
    ruler = Ruler()
    ruler.sample(Loop("pass"), 10)

    assert {reading.loop_ns for reading in ruler.readings} == {0.0}


def test_garbage_collection_is_off_while_a_loop_runs_and_on_again_after() -> None:
    enabled: list[bool] = []
    loop = Loop("note(ask())", names={"note": enabled.append, "ask": gc.isenabled})

    Ruler().sample(loop, 2)

    assert enabled == [False, False]
    assert gc.isenabled()


class _TenMicroseconds:
    """A subject of which each repetition takes just so long."""

    steps = 1
    loops = 1

    def run(self, times: int) -> int:
        return 10_000 * times

    def close(self) -> None: ...


@pytest.mark.parametrize(("part_ns", "fewest"), [(0, 1), (10_000, 1), (1_000_000, 100)])
def test_iterations_grow_until_a_part_is_long_enough(part_ns: float, fewest: int) -> None:
    assert fewest <= iterations_for(_TenMicroseconds(), part_ns) <= 2 * fewest


def test_a_crowd_runs_every_loop_on_a_thread_of_its_own() -> None:
    counters = [count(), count()]
    crowd = Crowd([Loop("next(c)", names={"c": counter}) for counter in counters])

    crowd.run(5)

    assert (crowd.steps, crowd.loops) == (2, 2)
    assert [next(counter) for counter in counters] == [5, 5]


def test_a_fault_in_a_thread_is_raised_by_the_crowd() -> None:
    with pytest.raises(BenchError, match="ZeroDivisionError"):
        Crowd([Loop("1 / 0"), Loop("pass")]).run(1)


def test_things_are_weighed() -> None:
    assert 1.0 <= kilobytes_each(lambda: bytearray(1_000), 100) < 1.5


def test_a_footprint_tells_what_is_held_for_a_moment_from_what_is_kept() -> None:
    moment = footprint(Loop("bytearray(100_000)"))
    kept: list[bytearray] = []
    for_good = footprint(Loop("kept.append(bytearray(1_000))", names={"kept": kept}))

    assert moment.peak >= 99_000
    assert moment.kept < 100
    assert for_good.kept >= 1_000


def test_a_fault_in_one_case_costs_no_other_its_figures() -> None:
    def broken() -> Loop:
        msg = "nothing to measure"
        raise BenchError(msg)

    cases = [Case("bad", "bad", {"": broken}), Case("good", "good", {"": lambda: Loop("pass")})]
    bad, good = measure(cases, Ruler(), Effort(1, 1, 0), Progress(quiet=True)).outcomes

    assert (bad.verdict, bad.fault) == ("FAILED", "BenchError: nothing to measure")
    assert good.value is not None


def test_a_check_that_fails_in_the_end_fails_the_case() -> None:
    def check() -> None:
        msg = "it did something else"
        raise BenchError(msg)

    case = Case("case", "case", {"": lambda: Loop("pass", check=check)}, limit=1_000)
    (outcome,) = measure([case], Ruler(), Effort(1, 1, 0), Progress(quiet=True)).outcomes

    assert outcome.verdict == "FAILED"
    assert "something else" in outcome.fault


def _timing(*empty_calls: float) -> Timing:
    return Timing(tuple(Sample(ns=10 * calls, empty_calls=calls) for calls in empty_calls))


def test_the_dearest_variant_counts() -> None:
    case = Case("case", "case", limit=20)
    outcome = Outcome(case, {"cheap": _timing(1, 2, 90), "dear": _timing(21, 30, 22)})

    assert (outcome.worst, outcome.value, outcome.verdict) == ("dear", 22, "OVER")
    assert outcome.timing is not None
    assert outcome.timing.ns == 220


def test_a_case_at_its_limit_is_ok() -> None:
    assert Outcome(Case("case", "case", limit=2), {"": _timing(2)}).verdict == "ok"


def test_cases_are_chosen_by_pattern_or_by_a_part_of_the_title() -> None:
    cases = [Case("toggle", "Flip"), Case("toggle-all", "Flip all"), Case("build", "Make one")]

    assert [case.key for case in chosen(cases, None)] == ["toggle", "toggle-all", "build"]
    assert [case.key for case in chosen(cases, "toggle-*")] == ["toggle-all"]
    assert [case.key for case in chosen(cases, "MAKE")] == ["build"]


@pytest.mark.parametrize(("largest", "verdict"), [(14, "flat"), (16, "GROWS")])
def test_growth_compares_the_largest_with_the_smallest(largest: float, verdict: str) -> None:
    sizes = [Outcome(Case(f"states-{e}", ""), {"": _timing(e)}) for e in (10, 30, largest)]

    assert Growth("states", tuple(sizes)).verdict == verdict
    assert Growth("states", tuple(sizes[:1])).verdict == ""


@pytest.mark.parametrize(("left_behind", "verdict"), [(0, "flat"), (1, "GROWS")])
def test_a_soak_tells_memory_that_is_left_behind(left_behind: int, verdict: str) -> None:
    # What is remembered comes and goes; what is left behind adds up.
    moments = [
        Moment(100 * n, 500.0, 40.0, 10_000 + 900 * (n % 7) + 100 * n * left_behind, None)
        for n in range(1, 101)
    ]

    assert Soak(tuple(moments)).verdict == verdict
