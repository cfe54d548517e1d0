"""``python -m bench pubsub`` and its plain side, for real. No test asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event

import pytest

from bench.plain_discovery import ENOUGH as PLAIN_ENOUGH
from bench.plain_pubsub import PlainDelivery, PlainHost, PlainNetwork
from bench.plain_timers import Timers
from bench.pubsub_course import Course, LateError, Tally, run_course
from bench.pubsub_plain import PlainSide
from bench.pubsub_report import points_table, verdicts
from bench.pubsub_runs import Point, SideRuns
from examples.pubsub.discovery import ENOUGH
from examples.pubsub.rpc import Message, Rpc, Sent, encode
from tests.bench.interrupting import interrupted
from tests.bench.running import python_m_bench

ROOT = Path(__file__).parents[2]
TOPIC = "news"
SOON = 10.0


_python_m_bench_pubsub = partial(python_m_bench, "pubsub")


def test_its_help_teaches() -> None:
    done = _python_m_bench_pubsub("--help")

    assert done.returncode == 0
    for word in ("plain threads", "examples:", "--hosts", "--messages", "--runs", "--quick"):
        assert word in done.stdout


def test_it_names_its_case() -> None:
    done = _python_m_bench_pubsub("--list")

    assert (done.returncode, done.stdout.split()[0]) == (0, "simple-discovery")


@pytest.mark.parametrize("wrong", [("--hosts", "1"), ("--messages", "0"), ("--hosts", "some")])
def test_numbers_that_make_no_sense_are_refused(wrong: tuple[str, str]) -> None:
    done = _python_m_bench_pubsub(*wrong)

    assert done.returncode == 2
    assert wrong[0] in done.stderr


def test_both_sides_run_and_are_written_down_and_drawn(tmp_path: Path) -> None:
    file, picture = tmp_path / "pubsub.json", tmp_path / "pubsub.png"
    size = ("--hosts", "5", "--messages", "3", "--runs", "2", "--quiet")
    done = _python_m_bench_pubsub(*size, "--json", str(file), "--plot", str(picture))

    assert done.returncode == 0, done.stderr
    assert "5 × 3" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = json.loads(file.read_text(encoding="utf-8"))
    (point,) = told["points"]
    assert (point["hosts"], point["messages"], told["rounds"]) == (5, 3, 2)
    for side in (point["machines"], point["plain"]):
        assert (side["failed"], len(side["runs"])) == (0, 2)
        assert 0 < side["min_s"] <= side["median_s"] <= side["max_s"]
        assert 0 < side["start_bytes"] <= side["peak_bytes"]
        assert side["threads"] > 1
    assert told["verdicts"]["failures"]["verdict"] == "ok"
    assert told["verdicts"]["overhead"]["verdict"] == "not measured"


def test_ctrl_c_ends_it_and_every_process_that_it_started() -> None:
    returncode, out = interrupted(
        "pubsub", "--hosts", "3", "--messages", "1", "--runs", "100000", heard=b"run 3 "
    )

    assert returncode == 130
    assert "stopped early with Ctrl-C" in out


# What a run is judged by


def _side(*seconds: float, failed: int = 0) -> SideRuns:
    courses = [Course(each, {}, 1) for each in seconds]
    return SideRuns([*courses, *[Course(3.5, {}, 1, "too long")] * failed])


def test_the_overhead_is_that_of_the_medians_without_failed_runs() -> None:
    point = Point(20, 100, {"machines": _side(1.1, 9, 0.1, failed=2), "plain": _side(1, 1, 1)})

    assert point.overhead == pytest.approx(0.1)
    assert point.machines.failures == ["too long", "too long"]


@pytest.mark.parametrize(("seconds", "verdict"), [(1.05, "ok"), (1.2, "OVER")])
def test_the_overhead_has_a_limit(seconds: float, verdict: str) -> None:
    point = Point(20, 100, {"machines": _side(seconds), "plain": _side(1.0)})
    judged = verdicts([point])

    assert (judged["overhead"].verdict, judged["failures"].verdict) == (verdict, "ok")


def test_one_failed_run_is_too_much_and_is_told() -> None:
    point = Point(5, 20, {"machines": _side(1.0, failed=1), "plain": _side(1.0)})

    assert verdicts([point])["failures"].verdict == "OVER"
    assert any("FAILED 5 × 20, machines: too long" in note for note in points_table([point]).notes)


def test_a_run_without_a_success_has_no_overhead() -> None:
    point = Point(20, 100, {"machines": _side(failed=1), "plain": _side(1.0)})

    assert point.overhead is None
    assert verdicts([point])["overhead"].verdict == "OVER"


def test_a_run_that_takes_longer_than_its_limit_has_failed() -> None:
    course = run_course(PlainSide, 3, 1, 0, limit=0.0)

    assert course.failure
    assert "dispose" in course.stages


def test_a_message_that_not_all_have_received_is_late() -> None:
    tally = Tally(2)
    tally.received("a", "a/1")

    with pytest.raises(LateError, match="1 of 2 hosts"):
        tally.wait("a/1", 0)


def test_a_message_that_was_received_twice_is_a_failure() -> None:
    tally = Tally(2)
    for host in ("a", "a", "b"):
        tally.received(host, "a/1")

    with pytest.raises(LateError, match="twice"):
        tally.wait("a/1", SOON)


# The plain side


@pytest.fixture
def network() -> Iterator[PlainNetwork]:
    network = PlainNetwork(seed=1)
    yield network
    network.close()


def _joined(network: PlainNetwork, *names: str) -> list[PlainHost]:
    """Give hosts in the topic, of which the last one knows all others."""
    hosts = [network.host(name) for name in names]
    for host in hosts[:-1]:
        host.discovery.close()  # else they would connect to each other after a while
    for host in hosts:
        host.subscribe(TOPIC)
    assert hosts[-1].bootstrap(TOPIC, len(hosts) - 1).wait(SOON)
    return hosts


def _inbox(host: PlainHost) -> SimpleQueue[PlainDelivery]:
    arrived: SimpleQueue[PlainDelivery] = SimpleQueue()
    host.on_delivery(arrived.put)
    return arrived


def _sent(network: PlainNetwork, author: str, number: int, signer: str | None = None) -> Sent:
    body = encode(Message(author, number, TOPIC, b"hi", 0.0))
    signature = network.identity_of(signer or author).sign(body)
    return Sent(f"{author}/{number}", 1, body, signature)


def _frame(*sent: Sent) -> bytes:
    return encode(Rpc(publish=[*sent]))


def test_it_says_the_same_of_numbers_as_the_case_study() -> None:
    assert PLAIN_ENOUGH == ENOUGH


def test_it_loads_no_machines() -> None:
    loaded = "import sys, bench.pubsub_plain; print('asyncmachine' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "False"


def test_a_message_reaches_all_through_a_host_in_the_middle(network: PlainNetwork) -> None:
    hosts = _joined(network, "a", "b", "c")  # c has connected to both
    inboxes = [_inbox(host) for host in hosts]
    message_id = hosts[0].publish(TOPIC, b"hi")
    arrived = [inbox.get(timeout=SOON) for inbox in inboxes]

    assert [(each.host, each.id) for each in arrived] == [(n, message_id) for n in "abc"]
    assert [each.hops for each in arrived] == [0, 2, 1]
    assert {each.message.data for each in arrived} == {b"hi"}


def test_a_message_that_was_seen_is_neither_delivered_nor_forwarded(network: PlainNetwork) -> None:
    _, b, c = _joined(network, "a", "b", "c")
    at_b, at_c = _inbox(b), _inbox(c)
    before = c.counts.frames
    first, second = _sent(network, "a", 1), _sent(network, "a", 2)
    for frame in (_frame(first), _frame(first), _frame(second)):
        c.receive("a", frame)
    # Frames are handled in order, so with the second message all before it is over.
    assert [at_c.get(timeout=SOON).id, at_c.get(timeout=SOON).id] == ["a/1", "a/2"]
    assert [at_b.get(timeout=SOON).id, at_b.get(timeout=SOON).id] == ["a/1", "a/2"]
    network.close()

    assert at_b.empty()
    assert (c.counts.duplicates, b.counts.duplicates) == (1, 0)
    assert c.counts.frames - before == 2


def test_a_wrong_signature_is_dropped(network: PlainNetwork) -> None:
    _, b, c = _joined(network, "a", "b", "c")
    at_b, at_c = _inbox(b), _inbox(c)
    c.receive("a", _frame(_sent(network, "a", 1, signer="b"), _sent(network, "a", 2)))
    assert at_c.get(timeout=SOON).id == "a/2"
    assert at_b.get(timeout=SOON).id == "a/2"
    network.close()

    assert at_c.empty()
    assert at_b.empty()
    assert (c.counts.invalid, b.counts.invalid) == (1, 0)


def test_an_id_that_is_not_the_authors_is_dropped(network: PlainNetwork) -> None:
    _, c = _joined(network, "a", "c")
    inbox = _inbox(c)
    true = _sent(network, "a", 1)
    c.receive("a", _frame(Sent("b/1", 1, true.body, true.signature), true))
    assert inbox.get(timeout=SOON).id == "a/1"
    network.close()

    assert c.counts.invalid == 1


def test_without_signatures_none_is_checked() -> None:
    network = PlainNetwork(signed=False)
    try:
        a, c = _joined(network, "a", "c")
        inbox = _inbox(c)
        a.publish(TOPIC, b"hi")
        assert inbox.get(timeout=SOON).message.author == "a"
    finally:
        network.close()


def test_what_a_validator_refuses_is_dropped(network: PlainNetwork) -> None:
    a, c = _joined(network, "a", "c")
    inbox = _inbox(c)
    c.validate(TOPIC, lambda message: message.data != b"spam")
    a.publish(TOPIC, b"spam")
    a.publish(TOPIC, b"news")

    assert inbox.get(timeout=SOON).message.data == b"news"


def test_bootstrapping_waits_for_enough_peers(network: PlainNetwork) -> None:
    a, c = network.host("a"), network.host("c")
    a.subscribe(TOPIC)
    c.subscribe(TOPIC)
    assert c.bootstrap(TOPIC, 1).wait(SOON)
    done = c.bootstrap(TOPIC, 2)
    looked_again = Event()
    network.timers.call_later(0.15, looked_again.set)  # calls are made in order of their times
    assert looked_again.wait(SOON)
    assert c.bootstrap(TOPIC, 2) is done
    assert c.peers_in(TOPIC) == ["a"]
    assert not done.is_set()

    network.host("b").subscribe(TOPIC)
    assert done.wait(SOON)
    assert sorted(c.peers_in(TOPIC)) == ["a", "b"]


def test_who_leaves_a_topic_is_not_found_and_hears_no_more(network: PlainNetwork) -> None:
    a, b, c = _joined(network, "a", "b", "c")
    at_a, at_b, at_c = (_inbox(host) for host in (a, b, c))
    a.unsubscribe(TOPIC)
    assert network.registry.find(TOPIC) == ["b", "c"]
    c.receive("a", _frame(_sent(network, "a", 1)))  # comes after the news that a has left
    assert at_c.get(timeout=SOON).id == "a/1"
    assert c.peers_in(TOPIC) == ["b"]
    c.publish(TOPIC, b"hi")
    assert [at_b.get(timeout=SOON).id, at_b.get(timeout=SOON).id] == ["a/1", "c/1"]
    network.close()

    assert at_a.empty()


def test_what_is_no_frame_ends_the_connection(network: PlainNetwork) -> None:
    a, _, c = _joined(network, "a", "b", "c")
    inbox = _inbox(c)
    c.receive("a", b"\xff")
    c.receive("b", _frame(_sent(network, "b", 1)))
    assert inbox.get(timeout=SOON).id == "b/1"
    network.close()

    assert c.counts.invalid == 1
    assert (c.peers_in(TOPIC), a.peers_in(TOPIC)) == (["b"], [])


def test_a_blacklisted_peer_is_not_listened_to(network: PlainNetwork) -> None:
    *_, c = _joined(network, "a", "b", "c")
    inbox = _inbox(c)
    c.blacklist("a")
    c.receive("a", _frame(_sent(network, "a", 1)))
    c.receive("b", _frame(_sent(network, "b", 1)))

    assert inbox.get(timeout=SOON).id == "b/1"
    assert c.peers_in(TOPIC) == ["b"]


def test_calls_are_made_in_the_order_of_their_times_and_canceled_ones_are_not() -> None:
    timers = Timers()
    made: SimpleQueue[str] = SimpleQueue()
    timers.call_later(0.02, lambda: made.put("late"))
    timers.call_later(0.01, lambda: made.put("canceled")).cancel()
    timers.call_later(0.0, lambda: made.put("early"))

    assert [made.get(timeout=SOON), made.get(timeout=SOON)] == ["early", "late"]
    timers.close()
    assert made.empty()
