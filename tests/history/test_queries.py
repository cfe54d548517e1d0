"""What both histories answer."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest

from asyncmachine import Event, Machine, State, UnknownStateError
from asyncmachine.history import HistoryError, Record, Ticks, Times
from tests.history.backends import SCHEMA, Clock, Maker, both, machine

pytestmark = both


def test_every_transition_is_told_with_all_that_belongs_to_it(make: Maker) -> None:
    with make() as history:
        mach = machine(history, log_args=["n"])
        start_ns = time.time_ns()
        mach.add("Foo", n=1, secret="x")
        mach.set("Bar")
        mach.remove("Bar")
        first, second, third = history.transitions()

        assert first.machine_id == "m"
        assert (first.kind, first.called, first.auto) == ("add", ("Foo",), False)
        assert (first.outcome, first.accepted, first.error) == ("executed", True, "")
        assert first.args == "n=1"
        assert first.names == mach.states
        assert first.time == (1, 0, 0, 0, 0)
        assert first.moved == (("Foo", 1),)
        assert first.cause is None
        assert start_ns <= first.wall_ns <= second.wall_ns <= time.time_ns()
        assert first.seq < second.seq < third.seq
        assert 0 < first.transition_id < second.transition_id
        assert 0 < first.duration_ns < 10**10
        assert (second.active_before, second.active) == (("Foo",), ("Bar",))
        assert (second.activated, second.deactivated) == (("Bar",), ("Foo",))
        assert second.time_before == first.time
        assert second.time_sum == 3
        assert third.clock == mach.clock()
        assert third.at.timestamp() == pytest.approx(third.wall_ns / 1e9)
        with pytest.raises(AttributeError):
            first.kind = "set"  # type: ignore[misc]


def test_newest_first_is_the_same_backwards(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        for _ in range(1300):  # more than are read at once
            mach.toggle("Foo")
        forwards = list(history.transitions())
        assert len(forwards) == 1300
        assert list(history.transitions(newest_first=True)) == forwards[::-1]


def test_no_transition_lies_in_a_window_before_or_after_all(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        mach.add("Foo")
        mach.remove("Foo")
        sums = history.latest()
        assert sums is not None
        at = sums.wall_ns / 1e9
        for window in (Times(at + 60), Times(None, at - 60), Ticks(3), Ticks(-2, -1)):
            assert list(history.transitions(between=window)) == []
            assert list(history.transitions(between=window, newest_first=True)) == []
            assert history.latest(between=window) is None
            assert not history.activated_between("Foo", between=window)


def test_where_chooses_among_the_records(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        mach.add("Foo")
        mach.add("Bar")
        found = history.transitions(where=lambda record: "Bar" in record.called)
        assert [record.called for record in found] == [("Bar",)]


def test_an_iterator_gives_what_was_there_when_it_was_asked_for(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        mach.add("Foo")
        records = history.transitions()
        mach.add("Bar")
        assert [record.called for record in records] == [("Foo",)]


def test_what_was_activated_recently(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        assert not history.activated_recently("Foo", 60)
        mach.add("Foo")
        mach.remove("Foo")
        assert history.activated_recently("Foo", 60)
        assert not history.activated_recently("Bar", 60)
        seen = history.latest(activated="Foo")
        assert seen is not None
        while time.time_ns() <= seen.wall_ns:  # at most one step of the system's clock
            pass
        assert not history.activated_recently("Foo", 0)


def test_windows_of_time_include_both_ends(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        mach.add("Foo")
        mach.remove("Foo")
        on, off = history.transitions()
        for at in (on.wall_ns / 1e9, on.at):
            assert history.activated_between("Foo", at, on.at + timedelta(microseconds=1))
        assert history.activated_between("Foo", on.at, on.at)
        assert history.deactivated_between("Foo", off.at, off.at)
        assert history.activated_between("Foo")
        long_ago = on.at - timedelta(days=1)
        assert not history.activated_between("Foo", None, long_ago)
        assert not history.activated_between("Foo", off.at + timedelta(seconds=1))
        assert history.activated_between("Foo", between=Times(long_ago, None))
        assert history.activated_between("Foo", on.at.astimezone(timezone(timedelta(hours=9))))
        naive = datetime.fromtimestamp(on.at.timestamp())  # noqa: DTZ006 - local time is meant
        assert history.activated_between("Foo", naive, naive + timedelta(microseconds=1))


def test_windows_of_ticks_include_both_ends(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        mach.add("Foo")  # 1
        mach.set("Bar")  # 3
        mach.remove("Bar")  # 4
        assert history.activated_between("Foo", between=Ticks(1, 1))
        assert not history.activated_between("Foo", between=Ticks(2, 9))
        assert history.deactivated_between("Foo", between=Ticks(3, 3))
        assert history.active_between("Bar", between=Ticks(3, 3))
        assert not history.active_between("Bar", between=Ticks(4))
        assert not history.active_between("Bar", between=Ticks(None, 2))
        assert history.inactive_between("Bar", between=Ticks(4))
        assert not history.inactive_between("Bar", between=Ticks(2, 3))
        latest = history.latest(between=Ticks(None, 3))
        assert latest is not None
        assert latest.called == ("Bar",)
        assert [each.time_sum for each in history.transitions(between=Ticks(1, 3))] == [1, 3]


def test_a_state_is_active_between_if_it_was_at_some_moment_even_without_a_change(
    make: Maker,
) -> None:
    with make() as history:
        mach = machine(history)
        mach.add("Foo")
        now = time.time()
        assert history.active_between("Foo", now, now + 60)
        assert not history.activated_between("Foo", now, now + 60)
        assert not history.inactive_between("Foo", now, now + 60)
        mach.remove("Foo")
        assert history.active_between("Foo", now, now + 60)
        assert history.inactive_between("Foo", now, now + 60)
        later = time.time() + 1
        assert not history.active_between("Foo", later, later + 60)
        assert not history.active_between("Foo", None, now - 3600)
        assert not history.inactive_between("Foo", None, now - 3600)  # it is not known


def test_what_was_active_when_the_history_came_is_known_from_then_on(make: Maker) -> None:
    with make() as history:
        mach = machine()
        mach.add("Foo")
        mach.add_tracer(history)
        assert history.active_between("Foo")
        assert history.inactive_between("Bar")
        assert not history.activated_between("Foo")
        assert list(history.transitions()) == []
        assert history.latest(active="Foo") is None  # no transition is known


def test_a_multi_state_is_activated_again_and_never_deactivated(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        mach.add("Many")
        mach.add("Many")
        assert [record.activated for record in history.transitions()] == [("Many",)] * 2
        assert not history.deactivated_between("Many")


def test_latest_meets_all_conditions(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        mach.add("Foo")
        mach.add("Many")
        mach.add("Bar", "Baz")
        mach.remove("Baz")
        mach.remove("Bar")

        def clocks(record: Record | None) -> dict[str, int] | None:
            return None if record is None else {k: v for k, v in record.clock.items() if v}

        assert clocks(history.latest()) == {"Foo": 2, "Bar": 2, "Baz": 2, "Many": 1}
        assert clocks(history.latest(active="Foo")) == {"Foo": 1, "Many": 1}
        assert clocks(history.latest(active=["Foo"], inactive="Many")) == {"Foo": 1}
        assert clocks(history.latest(active=("Bar", "Many"), inactive="Baz")) == {
            "Foo": 2,
            "Bar": 1,
            "Baz": 2,
            "Many": 1,
        }
        assert clocks(history.latest(activated="Baz", deactivated="Foo")) == {
            "Foo": 2,
            "Bar": 1,
            "Baz": 1,
            "Many": 1,
        }
        assert history.latest(activated="Baz", deactivated="Baz") is None
        assert history.latest(active=("Foo", "Bar")) is None
        assert history.latest(active="Exception") is None
        first = next(history.transitions())
        assert history.latest(between=Times(None, first.wall_ns / 1e9 - 1)) is None


def test_refused_ones_are_kept_if_that_is_asked_for(make: Maker) -> None:
    class Handlers:
        def Foo_enter(self, event: Event) -> bool:
            return False

        def Many_enter(self, event: Event) -> None:
            msg = "no"
            raise ValueError(msg)

    with make(rejected=True) as all_of_them, make() as executed:
        mach = machine(all_of_them, executed, handlers=Handlers())
        mach.add("Baz")
        mach.add("Foo")
        mach.add("Many")
        told = [(each.called, each.outcome, each.error) for each in all_of_them.transitions()]
        assert told == [
            (("Baz",), "rejected", ""),
            (("Foo",), "vetoed", ""),
            (("Many",), "failed", "ValueError: no"),
            (("Exception",), "executed", ""),
        ]
        *_, failed, error = all_of_them.transitions()
        assert not failed.accepted
        assert error.cause == ("m", failed.transition_id)
        assert error.active == ("Exception",)
        assert [each.called for each in executed.transitions()] == [("Exception",)]


def test_what_an_error_puts_back_has_moved_all_the_same(make: Maker) -> None:
    class Handlers:
        def Bar_state(self, event: Event) -> None:
            msg = "no"
            raise ValueError(msg)

    with make() as history:
        mach = machine(history, handlers=Handlers())
        mach.add("Foo")
        mach.add("Bar")
        _, failed, error = history.transitions()
        assert (failed.outcome, failed.accepted) == ("failed", True)
        assert failed.clock["Bar"] == 2
        assert error.clock == mach.clock()
        assert history.deactivated_between("Bar")
        assert not history.active_between("Bar")


def test_only_what_was_called_or_changed_is_kept(make: Maker) -> None:
    with make(called="Foo") as called, make(changed=["Foo"]) as changed:
        mach = machine(called, changed)
        mach.add("Foo")
        mach.add("Bar")  # removes Foo
        mach.add("Many")
        assert [record.called for record in called.transitions()] == [("Foo",)]
        assert [record.called for record in changed.transitions()] == [("Foo",), ("Bar",)]
    with make(called="Many", changed="Foo") as either:
        mach = machine(either)
        mach.add("Foo")
        mach.add("Baz", "Bar")
        mach.add("Many")
        mach.remove("Bar")
        assert [record.called for record in either.transitions()] == [
            *(("Foo",), ("Baz", "Bar"), ("Many",))
        ]
        assert either.inactive_between("Foo")


def test_only_tracked_states_are_told_of(make: Maker) -> None:
    with make(states=["Bar", "Many"]) as history:
        mach = machine(history)
        mach.add("Foo")
        mach.add("Bar")
        mach.add("Many")
        assert [record.clock for record in history.transitions()] == [
            *({"Bar": 1, "Many": 0}, {"Bar": 1, "Many": 1})
        ]
        assert [record.moved for record in history.transitions()] == [
            *((("Bar", 1),), (("Many", 1),))
        ]
        assert history.active_between("Bar", between=Ticks(2, 2))
        with pytest.raises(UnknownStateError, match="unknown state 'Foo' in the history of m"):
            history.activated_recently("Foo", 1)
        with pytest.raises(UnknownStateError, match="Foo"):
            history.latest(active="Foo")
        clocks = history.last_clocks()
        assert clocks is not None
        assert dict(zip(*clocks, strict=True)) == mach.clock()


@pytest.mark.parametrize("option", ["called", "changed", "states"])
def test_a_wrong_name_is_told_with_the_nearest(
    make: Maker, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    with make(**{option: "Fooo"}) as history:
        mach = machine(history)
        wrong = f"unknown state 'Fooo' in {option}= of a history; did you mean 'Foo'"
        assert wrong in caplog.text
        with pytest.raises(UnknownStateError, match=wrong):
            history.activated_recently("Foo", 1, machine=mach)
        assert mach.add("Foo")


def test_a_wrong_question_is_refused_with_its_reason(make: Maker) -> None:
    with make() as history:
        machine(history)
        with pytest.raises(UnknownStateError, match="did you mean 'Foo'"):
            history.activated_between("Fooo")
        with pytest.raises(UnknownStateError, match="did you mean 'Foo'"):
            history.inactive_between("Fooo")
        with pytest.raises(TypeError, match="not both"):
            history.active_between("Foo", 1, between=Times(1))
        with pytest.raises(TypeError, match="Times.*Ticks"):
            history.active_between("Foo", between=(1, 2))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="seconds since 1970"):
            history.active_between("Foo", "yesterday")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="whole numbers"):
            history.active_between("Foo", between=Ticks(1.5))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="ends before it starts"):
            history.active_between("Foo", 2, 1)
        with pytest.raises(HistoryError, match="no machine 'n'"):
            history.latest(machine="n")


def test_a_history_may_keep_several_machines(make: Maker) -> None:
    with make() as history:
        with pytest.raises(HistoryError, match="knows no machine yet"):
            history.latest()
        one, two = machine(history, id="one"), machine(history, id="two")
        one.add("Foo")
        two.add("Bar")
        with pytest.raises(HistoryError, match="knows 2 of them, like one, two"):
            history.latest()
        assert sorted(history.machines) == ["one", "two"]
        assert history.active_between("Foo", machine=one)
        assert not history.active_between("Foo", machine="two")
        assert [each.machine_id for each in history.transitions(machine=two)] == ["two"]


def test_two_machines_of_one_id_do_not_mix(make: Maker, caplog: pytest.LogCaptureFixture) -> None:
    with make() as history:
        one, two = machine(history), machine(history)
        assert "m is being recorded" in caplog.text
        one.add("Foo")
        two.add("Bar")
        with pytest.raises(HistoryError, match="keeps one machine of an id"):
            history.latest()
        two.dispose()
        one.add("Many")


def test_a_machine_goes_on_with_the_record_of_one_that_has_ended(make: Maker) -> None:
    with make() as history:
        with machine(history) as mach:
            mach.add("Foo")
        again = Machine({"New": State(), **SCHEMA}, id="m", tracers=[history])
        assert history.inactive_between("Foo", time.time())  # the new one begins at 0
        again.add("Bar")
        first, second = history.transitions()
        assert first.seq < second.seq
        assert first.time == (1, 0, 0, 0, 0)
        assert second.time == (0, 0, 1, 0, 0, 0)
        assert history.active_between("Foo")
        assert history.activated_recently("Foo", 60)
        assert not history.active_between("New")


def test_a_history_that_is_added_twice_records_once(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        binding = mach.add_tracer(history)
        mach.add("Foo")
        assert len(list(history.transitions())) == 1
        binding.unbind()  # it is still there once
        mach.add("Bar")
        assert len(list(history.transitions())) == 2


def test_a_history_that_comes_back_knows_the_clocks_from_then_on(make: Maker) -> None:
    with make() as history:
        mach = machine()
        mach.add_tracer(history).unbind()
        mach.add("Foo")
        assert not history.active_between("Foo")
        mach.add_tracer(history)
        assert history.active_between("Foo")
        assert list(history.transitions()) == []
        mach.add("Many")
        assert [record.active for record in history.transitions()] == [("Foo", "Many")]


def test_a_history_does_not_keep_its_machines_alive(make: Maker) -> None:
    import weakref

    with make() as history:
        mach = machine(history)
        mach.add("Foo")
        watched = weakref.ref(mach)
        del mach
        assert watched() is None
        assert history.activated_recently("Foo", 60)
        mach = machine(history)
        mach.add("Bar")
        assert history.active_between("Bar")


def test_children_are_recorded_if_that_is_asked_for(make: Maker) -> None:
    with make(inherit=True) as history, make() as only_parent:
        parent = machine(history, only_parent, id="parent")
        child = machine(id="child", parent=parent)
        child.add("Foo")
        grandchild = machine(id="grandchild", parent=child)
        grandchild.add("Bar")
        assert sorted(history.machines) == ["child", "grandchild", "parent"]
        assert history.active_between("Foo", machine=child)
        assert only_parent.machines == ("parent",)
        parent.dispose()


def test_import_state_is_seen_with_the_next_transition(make: Maker) -> None:
    with make() as history:
        mach = machine(history)
        mach.add("Foo")
        mach.import_state({"names": ["Foo", "Many"], "ticks": [8, 5]})
        mach.add("Bar")
        assert [each.clock["Foo"] for each in history.transitions()] == [1, 8]
        assert history.active_between("Many")
        assert not history.activated_between("Many")
        assert history.inactive_between("Foo", time.time() - 60)
        assert next(history.transitions(newest_first=True)).clock_before["Many"] == 5


def test_no_more_than_so_many_are_kept(make: Maker) -> None:
    with make(max_count=10) as history:
        mach = machine(history)
        mach.add("Many")
        mach.add("Bar")
        for _ in range(500):
            mach.toggle("Baz")
        records = list(history.transitions())
        assert len(records) == 10
        assert records[-1].clock == mach.clock()
        assert history.active_between("Many")  # from the oldest record on, at least
        assert not history.activated_between("Many")
        assert not history.active_between("Many", None, records[0].wall_ns / 1e9 - 0.001)
        latest = history.latest(active="Many")
        assert latest == records[-1]


def test_nothing_is_kept_longer_than_asked_for(make: Maker, clock: Clock) -> None:
    with make(max_age=3600) as history:
        mach = machine(history)
        for _ in range(600):
            mach.add("Many")
        mach.add("Foo")
        clock.advance(3000)
        assert len(list(history.transitions())) == 601
        clock.advance(700)
        assert list(history.transitions()) == []
        assert not history.active_between("Foo")
        mach.add("Bar")
        assert [each.called for each in history.transitions()] == [("Bar",)]
        assert history.active_between("Many")
        clock.advance(4000)
        for _ in range(600):
            mach.add("Many")
        assert len(list(history.transitions())) == 600
        assert history.active_between("Bar")


def test_records_take_no_more_room_than_asked_for(make: Maker) -> None:
    with make(max_bytes=400_000) as history:
        mach = machine(history)
        for _ in range(10_000):
            mach.add("Many")
        kept = list(history.transitions())
        assert 100 < len(kept) < 9000
        assert kept[-1].clock == mach.clock()


@pytest.mark.parametrize("limit", ["max_count", "max_age", "max_bytes"])
def test_a_limit_that_is_none_is_refused(make: Maker, limit: str) -> None:
    refused = pytest.raises(ValueError, match=f"{limit} of a history must be finite, not inf")
    with refused, make(**{limit: float("inf")}):
        pass


@pytest.mark.parametrize("limit", ["max_count", "max_bytes"])
def test_half_a_record_or_byte_is_no_limit(make: Maker, limit: str) -> None:
    refused = pytest.raises(TypeError, match=f"{limit} of a history must be a whole number")
    with refused, make(**{limit: 1000.5}):
        pass


@pytest.mark.parametrize("limit", ["max_count", "max_age", "max_bytes"])
def test_a_limit_that_allows_nothing_is_refused(make: Maker, limit: str) -> None:
    refused = pytest.raises(ValueError, match=f"{limit} of a history must be positive, not 0")
    with refused, make(**{limit: 0}):
        pass


def test_a_system_clock_that_is_set_back_does_not_confuse_the_order(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asyncmachine.history import tracking

    with make() as history:
        mach = machine(history)
        mach.add("Foo")
        now = time.time_ns()
        with monkeypatch.context() as patch:
            patch.setattr(tracking, "time_ns", lambda: now - 10**12)
            mach.add("Bar")
            mach.add("Many", x=1)
        first, *others = history.transitions()
        assert [each.wall_ns for each in others] == [first.wall_ns] * 2
        assert history.activated_between("Bar", first.wall_ns / 1e9, now / 1e9 + 1)


def test_a_cause_is_told(make: Maker) -> None:
    with make() as history:
        other = machine(history, id="other")

        class Handlers:
            def Foo_state(self, event: Event) -> None:
                other.add("Bar")

        mach = machine(history, handlers=Handlers())
        mach.add("Foo")
        (cause,) = history.transitions(machine=mach)
        (effect,) = history.transitions(machine=other)
        assert effect.cause == ("m", cause.transition_id)
