"""What a mutation does from here: resolved once, remembered, followed many times.

What a mutation does is a pure function of the active states, the kind and the called
states. An ordered set of active states is a `Node`, what one mutation does there is a
`Plan`, an edge to the next node; running a machine is walking this `Graph`. All machines
of one schema whose handlers have the same names share one graph.

Guarantees: any thread may ask for any plan at any time. Two that ask for the same new
one may both make it; the copies are equal, and one of them is remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncmachine.relations import ADD, REMOVE, SET, Note, arrange, resolve
from asyncmachine.results import Canceled
from asyncmachine.schema import ANY
from asyncmachine.transition import Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from asyncmachine.results import Result
    from asyncmachine.schema import Schema

    # The names that each bound object has, and those that are listened to.
    Shape: TypeAlias = tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]

__all__ = ["Graph", "Node", "Plan", "graph_of"]

# A graph that has grown beyond this many plans starts afresh, so that a program that
# wanders through ever new combinations of states does not grow for ever.
MOST_PLANS: Final = 4096
MOST_GRAPHS: Final = 64

AUTO: Final = "auto"
# Stands for all listeners to a name where other handlers have a number.
LISTENERS: Final = -1


def _numbered(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Give the numbers of the handlers of each name, in calling order.

    All listeners to a name together come last, as ``LISTENERS``.
    """
    bound, listened = shape
    offers: dict[str, list[int]] = {}
    number = 0
    for names in bound:
        for name in names:
            offers.setdefault(name, []).append(number)
            number += 1
    for name in listened:
        offers.setdefault(name, []).append(LISTENERS)
    return {name: tuple(numbers) for name, numbers in offers.items()}


class Graph:
    """Nodes and plans of all machines of one schema and one shape of handlers.

    Attributes:
        schema: the rules.
        offers: the numbers of the handlers of each name.
        pairs: whether there are handlers for pairs of states.
        nodes: the nodes that are known.
        plans: how many plans have been made.
        start: the node of a machine that begins: nothing is active.

    """

    __slots__ = ("__weakref__", "nodes", "offers", "pairs", "plans", "schema", "start")

    def __init__(self, schema: Schema, shape: Shape) -> None:
        self.schema = schema
        self.offers = _numbered(shape)
        self.pairs = any(_may_be_pair(schema, name) for name in self.offers)
        self.nodes: dict[tuple[int, ...], Node] = {}
        self.plans = 0
        self.start = self.node(())

    def node(self, order: tuple[int, ...]) -> Node:
        """Give the node of these active states, in this order."""
        node = self.nodes.get(order)
        if node is None:
            if len(self.nodes) >= MOST_PLANS:
                self.forget()
            node = self.nodes.setdefault(order, Node(self, order))
        return node

    def count(self) -> None:
        """Take note of a new plan, and forget all when there are too many."""
        self.plans += 1
        if self.plans > MOST_PLANS:
            self.forget()

    def forget(self) -> None:
        """Drop all nodes and plans; machines go on from the nodes that they have."""
        self.plans = 0
        nodes, self.nodes = self.nodes, {}
        for node in list(nodes.values()):
            node.forget()


def _may_be_pair(schema: Schema, name: str) -> bool:
    """Whether a handler name can be parted into two states, or a state and Any."""
    parts = name.split("_")
    halves = (("_".join(parts[:i]), "_".join(parts[i:])) for i in range(1, len(parts)))
    return any(a in schema.index and (b in schema.index or b == ANY) for a, b in halves)


def graph_of(schema: Schema, shape: Shape) -> Graph:
    """Give the graph that machines of this schema and shape share."""
    graphs = schema.graphs
    graph = graphs.get(shape)
    if graph is None:
        if len(graphs) >= MOST_GRAPHS:
            graphs.clear()
        graph = graphs.setdefault(shape, Graph(schema, shape))
    assert isinstance(graph, Graph)
    return graph


class Node:
    """The active states, in target order of the transition that led here.

    Attributes:
        graph: where it belongs.
        order: positions of the active states.
        active: bit set of them.
        names: their names.
        edges: the plans from here, by kind and called states.
        adds: those of them that add, which are asked for most.

    """

    __slots__ = ("_autos", "active", "adds", "edges", "graph", "names", "order")

    def __init__(self, graph: Graph, order: tuple[int, ...]) -> None:
        self.graph = graph
        self.order = order
        self.active = 0
        for i in order:
            self.active |= 1 << i
        self.names = tuple(graph.schema.names[i] for i in order)
        self._autos: tuple[int, ...] | None = None
        self.forget()

    def forget(self) -> None:
        """Drop the plans from here."""
        self.adds: dict[object, Plan] = {}
        self.edges = {ADD: self.adds, REMOVE: {}, SET: {}, AUTO: {}}

    def plan(self, kind: str, states: tuple[str, ...]) -> Plan:
        """Give what a mutation does from here.

        Raises:
            UnknownStateError: for the first name that the schema lacks.

        """
        try:
            plan = self.edges[kind].get(states)
        except TypeError:  # not a name, but a list of names, say
            plan = None
        if plan is None:
            called = self.graph.schema.find(states)
            plan = self.edges[kind][states] = Plan(self, kind, called)
            self.graph.count()
        return plan

    def auto_plan(self, barred: int = 0) -> Plan:
        """Give what the auto mutation does from here, when some states have been vetoed."""
        plan = self.edges[AUTO].get(barred)
        if plan is None:
            plan = self.edges[AUTO][barred] = Plan(self, ADD, self.autos, barred, auto=True)
            self.graph.count()
        return plan

    @property
    def autos(self) -> tuple[int, ...]:
        """The auto states that are inactive and that no active state removes."""
        if self._autos is None:
            schema = self.graph.schema
            free = schema.auto & ~self.active
            for i in self.order:
                free &= ~schema.remove[i]
            self._autos = tuple(i for i in range(len(schema.names)) if free >> i & 1)
        return self._autos


class Plan:
    """What one mutation does from one node.

    Attributes:
        source: the node it starts from.
        target: the node it leads to, if it is accepted.
        kind: the kind of mutation.
        states: names of the called states, each once.
        auto: whether it is an auto mutation.
        accepted: whether the relations agree.
        idle: a remove of states that are all inactive.
        moves: position and ticks of every clock that moves.
        changed: bit set of the clocks that move.
        exits: positions of the states that deactivate, in order.
        enters: positions of the states that activate, in order.
        negotiation: name and number of every handler to ask, in order.
        final: name and number of every handler to tell, in order.
        listened: whether any of them is a listener.
        follow: whether an auto mutation comes after it.
        few: whether at most two clocks move.
        bare: nothing but clocks to move.
        simple: nothing but few clocks to move: the hottest way.
        direct: only clocks to move and handlers to call: the second hottest.
        steady: nothing but clocks and handlers, or a refusal: what can be traced quickly.
        first, first_by, second, second_by: those clocks, and by how much; one clock
            alone stands there twice.

    """

    __slots__ = (
        "_refusal",
        "accepted",
        "auto",
        "bare",
        "barred",
        "called",
        "changed",
        "direct",
        "enters",
        "exits",
        "few",
        "final",
        "first",
        "first_by",
        "follow",
        "idle",
        "kind",
        "listened",
        "moves",
        "negotiation",
        "second",
        "second_by",
        "simple",
        "source",
        "states",
        "steady",
        "target",
    )

    def __init__(
        self,
        source: Node,
        kind: str,
        called: tuple[int, ...],
        barred: int = 0,
        *,
        auto: bool = False,
    ) -> None:
        graph = source.graph
        schema = graph.schema
        self.source = source
        self.kind = kind
        self.called = called
        self.barred = barred
        self.states = tuple(schema.names[i] for i in called)
        self.auto = auto
        asked = tuple(i for i in called if not barred >> i & 1) if barred else called
        order = resolve(schema, source.order, kind, asked, barred)
        self.target = target = graph.node(order)
        self._refusal: Result | None = None
        self._decide(asked)
        self._find_moves(schema, called)
        self._find_handlers(graph)
        self.follow = bool(self.changed and not auto and self.accepted and target.autos)
        self.few = len(self.moves) <= 2
        self.bare = self.accepted and not self.idle and not self.negotiation and not self.final
        self.simple = self.bare and self.few
        told = bool(self.negotiation or self.final) and not self.listened
        self.direct = self.accepted and not self.idle and not auto and told
        # Of auto states, a veto may take some and leave others, which only the watched way does.
        self.steady = not (self.idle or self.listened) and not (auto and self.negotiation)
        moves = self.moves or ((0, 0),)
        self.first, self.first_by = moves[0]
        self.second, self.second_by = moves[-1]

    def _decide(self, asked: tuple[int, ...]) -> None:
        target, source = self.target.active, self.source.active
        self.idle = self.kind == REMOVE and not any(source >> i & 1 for i in self.called)
        if self.kind == REMOVE:
            self.accepted = True
        elif self.auto:
            self.accepted = any(target >> i & 1 for i in asked)
        else:
            self.accepted = all(target >> i & 1 for i in asked)

    def _find_moves(self, schema: Schema, called: tuple[int, ...]) -> None:
        before, target = self.source.active, self.target.active
        again = 0
        if self.kind != REMOVE:
            for i in called:
                again |= 1 << i
            again &= schema.multi & before & target
        gone = before & ~target
        self.exits = arrange(schema, [i for i in self.source.order if gone >> i & 1])
        self.enters = tuple(i for i in self.target.order if (again | ~before) >> i & 1)
        self.moves = (
            *((i, 1) for i in self.exits),
            *((i, 2 if again >> i & 1 else 1) for i in self.enters),
        )
        self.changed = gone | target & ~before | again

    def _find_handlers(self, graph: Graph) -> None:
        self.negotiation: tuple[tuple[str, int], ...] = ()
        self.final: tuple[tuple[str, int], ...] = ()
        self.listened = False
        if graph.offers:
            offers = graph.offers
            self.negotiation = tuple(
                (name, i) for name in self.negotiation_names() for i in offers.get(name, ())
            )
            self.final = tuple(
                (name, i) for name in self.final_names() for i in offers.get(name, ())
            )
            self.listened = any(i < 0 for _, i in (*self.negotiation, *self.final))

    def negotiation_names(self) -> Iterator[str]:
        """Give the names of the negotiation, in order: semantics.md section 3."""
        names = self.source.graph.schema.names
        if self.kind != REMOVE:
            for i in self.called:
                if self.source.active >> i & 1:
                    yield f"{names[i]}_{names[i]}"
        pairs = self.source.graph.pairs
        for i in self.exits:
            name = names[i]
            yield f"{name}_exit"
            if pairs:
                for j in self.target.order:
                    yield f"{name}_{names[j]}"
                yield f"{name}_{ANY}"
        for i in self.enters:
            yield f"{ANY}_{names[i]}"
            yield f"{names[i]}_enter"
        yield f"{ANY}_enter"

    def final_names(self) -> Iterator[str]:
        """Give the names of the final phase, in order: semantics.md section 3."""
        names = self.source.graph.schema.names
        for i in self.exits:
            yield f"{names[i]}_end"
        for i in self.enters:
            yield f"{names[i]}_state"
        yield f"{ANY}_state"

    def not_completed(self, handler: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Give the exits and enters that are put back when a final handler has failed.

        Args:
            handler: the name of the final handler that has not completed.

        """
        sequence = list(self.final_names())
        done = sequence.index(handler)
        exits = self.exits[done:]
        enters = self.enters[max(0, done - len(self.exits)) :]
        return exits, enters

    def vetoed_auto(self, handler: str) -> int:
        """Give the bit of the auto state whose own handler this is, or 0."""
        schema = self.source.graph.schema
        names = schema.names
        for i in self.enters if self.auto else ():
            if schema.auto >> i & 1 and handler in (f"{ANY}_{names[i]}", f"{names[i]}_enter"):
                return 1 << i
        return 0

    @property
    def refusal(self) -> Result:
        """The result of a mutation that the relations refuse."""
        if self._refusal is None:
            self._refusal = Canceled(self.explain)
        return self._refusal

    def notes(self) -> list[Note]:
        """Resolve it once more and tell what was decided on the way."""
        notes: list[Note] = []
        asked = tuple(i for i in self.called if not self.barred >> i & 1)
        schema = self.source.graph.schema
        resolve(schema, self.source.order, self.kind, asked, self.barred, notes)
        return notes

    def steps(self) -> list[Step]:
        """Give what the relations decided, step by step: the same for every transition of it."""
        names = self.source.graph.schema.names
        steps = [Step("called", name) for name in self.states]
        steps += (Step(note.kind, names[note.state], names[note.other]) for note in self.notes())
        if self.accepted:
            steps += (Step("deactivate", names[i]) for i in self.exits)
            steps += (Step("activate", names[i]) for i in self.enters)
        return steps

    def explain(self) -> str:
        """Say in one sentence why the relations refuse it."""
        lost = [i for i in self.called if not self.target.active >> i & 1]
        if not lost:
            return ""
        names = self.source.graph.schema.names
        fate = {note.state: note for note in self.notes() if note.kind != "add"}
        return f"{names[lost[0]]} {self._fate(lost[0], fate, set())}"

    def _fate(self, state: int, fate: dict[int, Note], told: set[int]) -> str:
        names = self.source.graph.schema.names
        note = fate.get(state)
        if note is None or state in told:
            dropped = self.kind == SET and self.source.active >> state & 1
            return "is not called, and so dropped" if dropped else "is inactive"
        told.add(state)
        other = names[note.other]
        if note.kind == "remove":
            stays = self.source.active >> note.other & 1
            return f"is removed by {other}, which {'stays active' if stays else 'activates too'}"
        return f"requires {other}, which {self._fate(note.other, fate, told)}"
