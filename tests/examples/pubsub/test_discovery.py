from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest

from asyncmachine import Event, Machine, Tracer, Transition
from examples.pubsub.args import args_of
from examples.pubsub.discovery import ENOUGH, Discovery
from examples.pubsub.host import Host
from tests.examples.pubsub.networks import TOPIC, Net, network


@pytest.fixture
def net() -> Iterator[Net]:
    with network() as made:
        yield made


class Stages(Tracer):
    """Keeps the stages that the flows of a discovery go through, and when.

    Attributes:
        flows: the machines of the flows.

    """

    def __init__(self, net: Net, discovery: Discovery) -> None:
        self._net = net
        self._seen: list[tuple[float, str]] = []
        self.flows: list[Machine] = []
        discovery.machine.add_tracer(self)

    def submachine(self, parent: Machine, child: Machine) -> None:
        self.flows.append(child)
        if self not in child.tracers:
            child.add_tracer(self)

    def transition_end(self, tx: Transition) -> None:
        if tx.accepted and tx.machine in self.flows and "Start" not in tx.mutation.states:
            self._seen.append((round(self._net.clock.now(), 6), tx.mutation.states[0]))

    @property
    def taken(self) -> list[tuple[float, str]]:
        """What has come since this was asked last."""
        seen, self._seen = self._seen, []
        return seen


class Questions:
    """Keeps when the registry is asked.

    Attributes:
        finds: when somebody was looked for, by who asks.
        advertised: when somebody has advertised itself.

    """

    def __init__(self, net: Net) -> None:
        self.finds: dict[str, list[float]] = {}
        self.advertised: dict[str, list[float]] = {}
        self._net = net
        net.registry.machine.on("Find_state", partial(self._keep, self.finds))
        net.registry.machine.on("Advertise_state", partial(self._keep, self.advertised))

    def _keep(self, times: dict[str, list[float]], event: Event) -> None:
        times.setdefault(args_of(event)["host"], []).append(self._net.clock.now())


def advertised(net: Net, *names: str, topic: str = TOPIC) -> list[Host]:
    """Make hosts that are in a topic, and are found there."""
    hosts = net.hosts(*names, topic=topic)
    for host in hosts:
        found = net.discovery(host)
        net.do(lambda found=found: found.machine.add("AdvertisingTopic", topic=topic))  # type: ignore[misc]
    return hosts


def me(net: Net) -> tuple[Host, Discovery]:
    """Give a host in the topic that has neither advertised itself nor looked for anybody."""
    (host,) = net.hosts("me", topic=TOPIC)
    return host, net.discovery(host)


def bootstrap(net: Net, discovery: Discovery, **args: object) -> None:
    net.do(lambda: discovery.machine.add("BootstrappingTopic", topic=TOPIC, **args))


def peers(net: Net, host: Host) -> list[str]:
    return sorted(net.ask(host, "GetPeers", topic=TOPIC))


# The flow -------------------------------------------------------------------------------------


def test_a_topic_with_enough_peers_is_bootstrapped_at_once(net: Net) -> None:
    (a,) = net.hosts("a", topic=TOPIC)
    host, discovery = me(net)
    net.connect(host, a)
    stages, questions = Stages(net, discovery), Questions(net)

    bootstrap(net, discovery)

    # The check is part of the first transition, which has just Start called.
    assert stages.taken == [(0.0, "TopicBootstrapped")]
    assert questions.finds == {}
    assert discovery.machine.tick("TopicBootstrapped") == 1


def test_a_flow_discovers_waits_and_checks_again(net: Net) -> None:
    advertised(net, "a")
    host, discovery = me(net)
    stages, questions = Stages(net, discovery), Questions(net)

    bootstrap(net, discovery)
    assert stages.taken == [(0.0, "DiscoveringTopic"), (0.0, "BootstrapDelay")]
    assert peers(net, host) == ["a"]
    assert discovery.machine.tick("TopicBootstrapped") == 0
    net.pass_time(0.2)

    assert stages.taken == [(0.1, "BootstrapChecking"), (0.1, "TopicBootstrapped")]
    assert questions.finds == {"me": [0.0]}


def test_a_flow_goes_round_every_100_ms_until_there_are_enough_peers(net: Net) -> None:
    host, discovery = me(net)
    stages = Stages(net, discovery)
    bootstrap(net, discovery, enough=2)
    net.pass_time(0.15)
    advertised(net, "a")
    net.pass_time(0.1)  # found at 0.2
    advertised(net, "b")
    net.pass_time(1.0)  # found at 0.3

    around = ["BootstrapChecking", "DiscoveringTopic", "BootstrapDelay"]
    assert stages.taken == [
        *[(0.0, stage) for stage in around[1:]],
        *[(0.1, stage) for stage in around],
        *[(0.2, stage) for stage in around],
        *[(0.3, stage) for stage in around],
        (0.4, "BootstrapChecking"),
        (0.4, "TopicBootstrapped"),
    ]
    assert peers(net, host) == ["a", "b"]


def test_only_one_stage_of_a_flow_is_active_at_a_time(net: Net) -> None:
    _, discovery = me(net)
    stages = Stages(net, discovery)
    bootstrap(net, discovery)
    (flow,) = stages.flows
    for _ in range(20):
        net.pass_time(0.03)
        assert len(flow.active_states()) == 2
        assert flow.is_active("Start")


def test_a_flow_is_disposed_when_its_topic_is_bootstrapped(net: Net) -> None:
    advertised(net, "a")
    _, discovery = me(net)
    stages = Stages(net, discovery)
    bootstrap(net, discovery)
    (flow,) = stages.flows
    assert [*discovery.machine.children] == [flow]
    net.pass_time(1.0)

    assert flow.is_disposed
    assert not discovery.machine.children


def test_a_topic_is_bootstrapped_by_one_flow_at_a_time(net: Net) -> None:
    _, discovery = me(net)
    stages = Stages(net, discovery)
    bootstrap(net, discovery)
    refused = []
    net.do(lambda: refused.append(discovery.machine.add("BootstrappingTopic", topic=TOPIC)))
    assert not refused[0]
    net.do(lambda: discovery.machine.add("BootstrappingTopic", topic="books"))
    assert len(stages.flows) == 2

    advertised(net, "a")
    net.pass_time(1.0)
    assert stages.flows[0].is_disposed
    bootstrap(net, discovery)

    assert len(stages.flows) == 3
    assert len({flow.id for flow in stages.flows}) == 3
    assert all(TOPIC in flow.id or "books" in flow.id for flow in stages.flows)


def test_a_flow_ends_when_its_topic_is_left(net: Net) -> None:
    _, discovery = me(net)
    stages = Stages(net, discovery)
    bootstrap(net, discovery)
    net.do(lambda: discovery.machine.add("StopAdvertisingTopic", topic=TOPIC))
    assert stages.flows[0].is_disposed
    assert stages.taken
    net.pass_time(1.0)

    assert stages.taken == []
    assert discovery.machine.tick("TopicBootstrapped") == 0
    bootstrap(net, discovery)
    assert len(stages.flows) == 2


def test_flows_end_with_their_host(net: Net) -> None:
    _host, discovery = me(net)
    stages = Stages(net, discovery)
    bootstrap(net, discovery)
    assert stages.taken
    net.do(lambda: net.site.drop("me"))
    net.pass_time(5.0)

    assert discovery.machine.is_disposed
    assert stages.flows[0].is_disposed
    assert stages.taken == []
    assert net.site.discoveries == {}


def test_a_late_answer_starts_no_second_round(net: Net) -> None:
    _, discovery = me(net)
    stages = Stages(net, discovery)
    bootstrap(net, discovery)
    net.do(lambda: discovery.found(TOPIC, []), lambda: discovery.found(TOPIC, []))
    assert {stage for _, stage in stages.taken} == {"DiscoveringTopic", "BootstrapDelay"}
    net.pass_time(0.15)

    assert stages.taken == [
        (0.1, "BootstrapChecking"),
        (0.1, "DiscoveringTopic"),
        (0.1, "BootstrapDelay"),
    ]


def test_an_answer_does_not_hurry_a_check_that_waits_for_a_busy_host(net: Net) -> None:
    host, discovery = me(net)
    stages = Stages(net, discovery)

    def ask_and_answer() -> None:
        discovery.machine.add("BootstrappingTopic", topic=TOPIC)
        assert stages.flows[0].is_active("BootstrapChecking")
        discovery.found(TOPIC, [])

    net.do(lambda: host.machine.eval(ask_and_answer))

    assert stages.taken == [(0.0, "DiscoveringTopic"), (0.0, "BootstrapDelay")]


def test_a_host_connects_to_no_more_peers_than_it_needs(net: Net) -> None:
    advertised(net, *[f"p{number}" for number in range(20)])
    host, discovery = me(net)
    bootstrap(net, discovery)
    net.pass_time(5.0)
    assert len(peers(net, host)) == ENOUGH

    other = net.hosts("other", topic=TOPIC)[0]
    bootstrapping = net.discovery(other)
    bootstrap(net, bootstrapping, enough=15)
    net.pass_time(5.0)
    assert len(peers(net, other)) == 15


def test_an_answer_for_a_topic_that_was_left_connects_to_nobody(net: Net) -> None:
    advertised(net, "a")
    host, discovery = me(net)
    net.do(lambda: discovery.machine.add("AdvertisingTopic", topic=TOPIC))
    net.tell(host, "RemoveSubscription", topic=TOPIC)
    net.do(lambda: discovery.machine.add("StopAdvertisingTopic", topic=TOPIC))

    net.do(lambda: discovery.found(TOPIC, [("a", 0)]))

    assert host.stream_count == 0


def test_found_hosts_that_are_gone_do_not_keep_a_flow_from_ending(net: Net) -> None:
    advertised(net, "ghost")
    net.do(lambda: net.site.drop("ghost", hang_up=False))
    host, discovery = me(net)
    bootstrap(net, discovery)
    net.pass_time(1.0)
    assert discovery.machine.tick("TopicBootstrapped") == 0
    advertised(net, "a")
    net.pass_time(1.0)

    assert peers(net, host) == ["a"]
    assert discovery.machine.tick("TopicBootstrapped") == 1


# Advertising ----------------------------------------------------------------------------------


def test_a_topic_is_advertised_again_before_its_entry_ends(net: Net) -> None:
    questions = Questions(net)
    advertised(net, "a")
    net.pass_time(300.0)

    times = questions.advertised["a"]
    assert times[0] == 0.0
    assert all(0 < later - earlier <= 32.0 for earlier, later in pairwise(times))
    assert times[-1] > 260.0


def test_a_topic_that_is_left_is_withdrawn_and_not_advertised_again(net: Net) -> None:
    (_a,) = advertised(net, "a")
    discovery = net.site.discoveries["a"]
    net.do(lambda: discovery.machine.add("StopAdvertisingTopic", topic=TOPIC))
    questions = Questions(net)
    host, mine = me(net)
    bootstrap(net, mine)
    net.pass_time(100.0)

    assert questions.advertised == {}
    assert peers(net, host) == []


# Looking again --------------------------------------------------------------------------------


def test_a_topic_that_lacks_peers_is_looked_at_less_and_less_often(net: Net) -> None:
    _, discovery = me(net)
    questions = Questions(net)
    net.do(lambda: discovery.machine.add("AdvertisingTopic", topic=TOPIC))
    net.pass_time(120.0)

    times = questions.finds["me"]
    pauses = [round(later - earlier, 6) for earlier, later in pairwise(times)]
    assert times[0] <= 1.0
    assert pauses[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, 16.0]
    assert set(pauses[6:]) == {16.0}


def test_a_look_finds_peers_that_have_come_meanwhile(net: Net) -> None:
    host, discovery = me(net)
    net.do(lambda: discovery.machine.add("AdvertisingTopic", topic=TOPIC))
    net.pass_time(20.0)
    assert peers(net, host) == []
    net.hosts("a", topic=TOPIC)
    found = net.discovery(net.site.hosts["a"])
    net.do(lambda: found.machine.add("AdvertisingTopic", topic=TOPIC))
    net.pass_time(16.0)

    assert peers(net, host) == ["a"]


def test_a_topic_with_half_as_many_peers_as_wanted_is_not_looked_for(net: Net) -> None:
    names = [f"p{number}" for number in range(ENOUGH // 2)]
    others = net.hosts(*names, topic=TOPIC)
    host, discovery = me(net)
    net.connect(host, *others[:-1])
    questions = Questions(net)
    net.do(lambda: discovery.machine.add("AdvertisingTopic", topic=TOPIC))
    net.pass_time(60.0)
    asked = len(questions.finds["me"])
    assert asked > 1

    net.connect(host, others[-1])
    net.pass_time(60.0)

    assert len(questions.finds["me"]) == asked


def test_a_topic_that_is_being_bootstrapped_is_left_to_its_flow(net: Net) -> None:
    _, discovery = me(net)
    questions = Questions(net)
    net.do(lambda: discovery.machine.add("AdvertisingTopic", topic=TOPIC))
    bootstrap(net, discovery)
    net.pass_time(3.05)

    assert [round(time, 6) for time in questions.finds["me"]] == [
        round(0.1 * number, 6) for number in range(31)
    ]


def test_a_discovery_looks_at_its_topics_every_second(net: Net) -> None:
    _, discovery = me(net)
    net.pass_time(1.0)
    looks = discovery.machine.tick("RefreshingDiscoveries")
    net.pass_time(10.0)

    assert discovery.machine.tick("RefreshingDiscoveries") == looks + 20
    assert discovery.machine.is_active("DiscoveriesRefreshed")


def test_a_discovery_that_has_stopped_looks_no_more(net: Net) -> None:
    _, discovery = me(net)
    questions = Questions(net)
    net.do(lambda: discovery.machine.add("AdvertisingTopic", topic=TOPIC))
    net.do(lambda: discovery.machine.remove("Start"))
    net.pass_time(100.0)

    assert questions.finds == {}
    assert questions.advertised == {"me": [0.0]}
    assert discovery.machine.tick("RefreshingDiscoveries") == 0


# All together ---------------------------------------------------------------------------------


def test_hosts_that_bootstrap_one_topic_all_hear_its_messages(net: Net) -> None:
    hosts = advertised(net, *[f"p{number}" for number in range(25)])
    for host in hosts:
        bootstrap(net, net.site.discoveries[host.name])
    net.pass_time(5.0)

    assert all(peers(net, host) for host in hosts)
    message_id = net.publish(hosts[0])
    assert sorted(net.receivers(message_id)) == sorted(host.name for host in hosts)
