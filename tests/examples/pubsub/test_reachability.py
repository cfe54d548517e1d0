"""Who hears of a message is who networkx says can be reached, in many small networks."""

from __future__ import annotations

from random import Random

import networkx as nx
import pytest

from examples.pubsub.host import Host
from tests.examples.pubsub.networks import TOPIC, Net, network

# What a router needs to get a message everywhere: heartbeats to build meshes before, in seconds,
# and heartbeats for gossip afterwards.
_PATIENCE = {"flood": 0.0, "gossip": 10.0}

_SEEDS = range(60)


def a_graph(rng: Random) -> nx.Graph[str]:
    """Give a random graph: thin or dense, in one piece or several."""
    size = rng.randint(2, 14)
    graph = nx.gnp_random_graph(size, rng.uniform(0.5, 4.0) / size, seed=rng.getrandbits(32))
    made: nx.Graph[str] = nx.relabel_nodes(graph, {number: f"p{number}" for number in graph})
    return made


def built(net: Net, graph: nx.Graph[str], rng: Random) -> dict[str, Host]:
    """Make a host of each node, and connect them along the edges, from either side."""
    hosts = dict(zip(graph, net.hosts(*graph)))
    for one, other in graph.edges:
        first, second = rng.sample([one, other], 2)
        net.connect(hosts[first], hosts[second])
    return hosts


def reachable(graph: nx.Graph[str], author: str, carrying: set[str]) -> set[str]:
    """Give who is reached from an author, if only some nodes carry messages."""
    return nx.node_connected_component(graph.subgraph(carrying | {author}), author)


def some(rng: Random, names: list[str], part: float) -> set[str]:
    return {name for name in names if rng.random() < part}


@pytest.mark.parametrize("router", _PATIENCE)
@pytest.mark.parametrize("seed", _SEEDS)
def test_a_message_is_received_once_by_all_who_are_reachable_and_nobody_else(
    router: str, seed: int
) -> None:
    rng = Random(seed)
    graph = a_graph(rng)
    with network(router, signed=False) as net:
        hosts = built(net, graph, rng)
        subscribed = some(rng, list(graph), 0.8)
        relaying = some(rng, list(graph), 0.2)
        for name in subscribed:
            net.tell(hosts[name], "AddSubscription", topic=TOPIC)
        for name in relaying:
            net.tell(hosts[name], "AddRelay", topic=TOPIC)
        net.pass_time(_PATIENCE[router])

        author = rng.choice(list(graph))  # which may be in no topic itself
        message_id = net.publish(hosts[author])
        net.pass_time(_PATIENCE[router])

        expected = reachable(graph, author, subscribed | relaying) & subscribed
        assert sorted(net.receivers(message_id)) == sorted(expected)


@pytest.mark.parametrize("router", _PATIENCE)
@pytest.mark.parametrize("seed", range(20))
def test_so_it_is_while_subscribers_and_connections_come_and_go(router: str, seed: int) -> None:
    rng = Random(seed)
    graph = a_graph(rng)
    with network(router, signed=False, latency=lambda: rng.uniform(0.001, 0.02)) as net:
        hosts = built(net, graph, rng)
        subscribed: set[str] = set()
        for _ in range(6):
            for name in sorted(some(rng, sorted(hosts), 0.3)):
                state = "RemoveSubscription" if name in subscribed else "AddSubscription"
                net.tell(hosts[name], state, topic=TOPIC)
                subscribed ^= {name}
            if len(hosts) > 2 and rng.random() < 0.5:
                gone = rng.choice(sorted(hosts))
                net.do(lambda gone=gone: net.site.drop(gone))  # type: ignore[misc]
                del hosts[gone]
                graph.remove_node(gone)
                subscribed.discard(gone)
            net.pass_time(1.0 + 2 * _PATIENCE[router])

            author = rng.choice(sorted(hosts))
            message_id = net.publish(hosts[author])
            net.pass_time(1.0 + _PATIENCE[router])

            expected = reachable(graph, author, subscribed) & subscribed
            assert sorted(net.receivers(message_id)) == sorted(expected)


@pytest.mark.parametrize("seed", range(20))
def test_under_flood_the_first_copy_takes_the_shortest_way_if_all_streams_are_as_fast(
    seed: int,
) -> None:
    rng = Random(seed)
    graph = a_graph(rng)
    with network("flood", signed=False, latency=lambda: 0.25) as net:
        hosts = built(net, graph, rng)
        for name in graph:
            net.tell(hosts[name], "AddSubscription", topic=TOPIC)
        net.pass_time(2.0)
        author = rng.choice(list(graph))
        net.publish(hosts[author])
        net.pass_time(10.0)

        lengths = nx.single_source_shortest_path_length(graph, author)
        assert {each.host: each.hops for each in net.deliveries} == dict(lengths)
        assert {each.host: each.received - 2.0 for each in net.deliveries} == {
            name: 0.25 * length for name, length in lengths.items()
        }


@pytest.mark.parametrize("seed", range(20))
def test_under_flood_every_edge_among_those_reached_carries_a_copy(seed: int) -> None:
    """Each host sends to all peers but where the copy came from and the author."""
    rng = Random(seed)
    graph = a_graph(rng)
    with network("flood", signed=False) as net:
        hosts = built(net, graph, rng)
        for name in graph:
            net.tell(hosts[name], "AddSubscription", topic=TOPIC)
        author = rng.choice(list(graph))
        before = sum(host.counts.frames for host in hosts.values())
        message_id = net.publish(hosts[author])

        reached = graph.subgraph(reachable(graph, author, set(graph)))
        copies = sum(host.counts.frames for host in hosts.values()) - before
        deliveries = len(net.receivers(message_id)) - 1
        duplicates = sum(host.counts.duplicates for host in hosts.values())
        assert copies == deliveries + duplicates
        # One way from the author, and both between others but for the way that a copy came.
        inner = reached.number_of_edges() - reached.degree[author]
        firsts_from_others = deliveries - reached.degree[author]
        assert copies == reached.degree[author] + 2 * inner - firsts_from_others
