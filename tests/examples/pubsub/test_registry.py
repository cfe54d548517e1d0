from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.pubsub.registry import MOST_FOUND
from tests.examples.pubsub.networks import TOPIC, Net, network


class Asker:
    """Asks the registry over the site, and keeps the answers.

    Attributes:
        answers: what was found, by question.

    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self.answers: list[dict[str, object]] = []
        net.site.seen_to["found"] = self.answers.append

    def _ask(self, ask: str, host: str, topic: str, **args: object) -> None:
        site = self._net.site
        self._net.do(
            lambda: site.send(0, "registry", ask=ask, topic=topic, host=host, site=0, **args)
        )

    def advertise(self, *hosts: str, topic: str = TOPIC, ttl: float = 60.0) -> None:
        for host in hosts:
            self._ask("Advertise", host, topic, ttl=ttl)

    def withdraw(self, host: str, topic: str = TOPIC) -> None:
        self._ask("Withdraw", host, topic)

    def find(self, host: str = "me", topic: str = TOPIC) -> list[str]:
        """Have a host ask; gives the names that are found."""
        self._ask("Find", host, topic)
        answer = self.answers[-1]
        assert (answer["host"], answer["topic"]) == (host, topic)
        found = answer["found"]
        assert isinstance(found, list)
        assert all(site == 0 for _, site in found)
        return [name for name, _ in found]


@pytest.fixture
def net() -> Iterator[Net]:
    with network() as made:
        yield made


@pytest.fixture
def asker(net: Net) -> Asker:
    return Asker(net)


def test_what_is_advertised_is_found_in_its_topic_only(asker: Asker) -> None:
    asker.advertise("a", "b")
    asker.advertise("c", topic="books")

    assert asker.find() == ["a", "b"]
    assert asker.find(topic="books") == ["c"]
    assert asker.find(topic="songs") == []


def test_nobody_finds_itself(asker: Asker) -> None:
    asker.advertise("a", "b")

    assert asker.find("a") == ["b"]


def test_what_is_withdrawn_is_not_found_and_the_rest_is(asker: Asker) -> None:
    asker.advertise("a", "b")
    asker.advertise("a", topic="books")
    asker.withdraw("a")
    asker.withdraw("a")
    asker.withdraw("a", "songs")

    assert asker.find() == ["b"]
    assert asker.find(topic="books") == ["a"]


def test_an_entry_ends_with_its_time_unless_it_is_made_again(net: Net, asker: Asker) -> None:
    asker.advertise("a", "b")
    net.pass_time(30.0)
    asker.advertise("a")
    net.pass_time(29.0)
    assert asker.find() == ["b", "a"]

    net.pass_time(1.0)
    assert asker.find() == ["a"]
    net.pass_time(30.0)
    assert asker.find() == []


def test_an_entry_that_lasts_long_does_not_keep_others(net: Net, asker: Asker) -> None:
    asker.advertise("a", ttl=60.0)
    asker.advertise("b", ttl=1.0)
    net.pass_time(30.0)

    assert asker.find() == ["a"]


@pytest.mark.parametrize("asking", ["me", "p7"])
def test_at_most_thirty_are_found_and_as_many_as_that_if_there_are(
    asker: Asker, asking: str
) -> None:
    names = [f"p{number}" for number in range(MOST_FOUND + 20)]
    asker.advertise(*names)

    finds = [asker.find(asking) for _ in range(20)]

    assert MOST_FOUND == 30
    for found in finds:
        assert len(found) == len(set(found)) == MOST_FOUND
        assert asking not in found
    assert set().union(*finds) == set(names) - {asking}  # not always the same ones


def test_equal_seeds_find_equal_peers() -> None:
    finds = []
    for _ in range(2):
        with network() as net:
            asker = Asker(net)
            asker.advertise(*[f"p{number}" for number in range(50)])
            finds.append([asker.find() for _ in range(3)])

    assert finds[0] == finds[1]
    assert finds[0][0] != finds[0][1]


def test_hosts_of_a_site_that_is_gone_are_forgotten(net: Net, asker: Asker) -> None:
    asker.advertise("a", "b")
    site = net.site
    net.do(
        lambda: site.send(0, "registry", ask="Advertise", topic=TOPIC, host="c", site=1, ttl=60.0)
    )
    net.do(lambda: net.registry.machine.eval(lambda: net.registry.forget_site(1)))

    assert asker.find() == ["a", "b"]


def test_a_registry_that_has_stopped_answers_nothing(net: Net, asker: Asker) -> None:
    asker.advertise("a")
    net.do(lambda: net.registry.machine.remove("Start"))
    net.do(lambda: net.site.send(0, "registry", ask="Find", topic=TOPIC, host="me", site=0))

    assert asker.answers == []
