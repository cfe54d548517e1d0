"""Who waits for what of one machine: its pending waiters and living state contexts.

Guarantees:

- Registering takes no lock and waits for nobody: a new condition goes into the inbox,
  *then* its thread looks whether it holds already. The thread that has the machine's
  turn first publishes the change, *then* looks into the inbox: one of them sees the other.
- ``claim`` is won once for each condition, by whoever sets its waiter.
- All else is touched only by the thread that has the turn.
- A transition costs nothing for waiters that its states do not concern, and conditions
  on the same states are looked at together, once for each set of active states.

Assumes that single operations of ``dict``, ``list`` and ``deque`` are atomic, as CPython
has it with and without the interpreter lock.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar
from weakref import ref

from asyncmachine.bits import members
from asyncmachine.conditions import Condition, Gone, Idle, Present, Query, Ticks, WithArgs
from asyncmachine.logs import log_exception
from asyncmachine.oneshot import MAKING
from asyncmachine.running import LOCAL, Frame
from asyncmachine.waiting import StateContext, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncmachine.conditions import Clocks
    from asyncmachine.plans import Node

    _Fired: TypeAlias = dict[Condition, Waiter]

_T = TypeVar("_T")

__all__ = ["Index"]

# So many conditions may lie in the inbox or wait for burial before somebody tidies up.
UNTIDY: Final = 64
# So many sets of active states are remembered to fulfil nothing.
MOST_ASLEEP: Final = 1024


class _Group:
    """All conditions on the same states."""

    __slots__ = ("key", "members", "sample")

    def __init__(self, key: tuple[int, int, bool], sample: Present) -> None:
        self.key = key
        self.sample = sample
        self.members: dict[Condition, None] = {}


class Index:
    """The waiters and contexts of one machine.

    Attributes:
        machine: whose they are.
        pending: every condition that is not decided yet.
        held: waiters that are kept alive, for they have callbacks.
        inbox: conditions that have not been sorted in yet.
        dead: conditions whose waiters are gone or canceled.
        graves: those of them that have been sorted in, to be sorted out again.
        interest: bit set of the states that sorted conditions wait for.
        contexts: living contexts by state.
        lifetime: the context that lasts as long as the machine.
        observers: who is told of every change; replaced whole.

    """

    __slots__ = (
        "_args",
        "_asleep",
        "_by_state",
        "_firing",
        "_groups",
        "_heaps",
        "_held_contexts",
        "_serial",
        "_stale",
        "contexts",
        "dead",
        "graves",
        "held",
        "inbox",
        "interest",
        "lifetime",
        "machine",
        "observers",
        "pending",
        "queries",
    )

    def __init__(self, machine: Clocks) -> None:
        self.machine = machine
        self.pending: dict[Condition, None] = {}
        self.held: dict[Condition, Waiter] = {}
        self.inbox: dict[Condition, None] = {}
        self.dead: deque[Condition] = deque()
        self.graves: deque[Condition] = deque()
        self.interest = 0
        self.contexts: dict[int, list[ref[StateContext]]] = {}
        self.lifetime = StateContext("", 0, self)
        self.queries: dict[Query, None] = {}
        self._groups: dict[tuple[int, int, bool], _Group] = {}
        self._by_state: dict[int, dict[_Group, None]] = {}
        self._asleep: set[Node] = set()
        self._heaps: dict[int, list[tuple[int, int, Ticks]]] = {}
        self._firing: _Fired = {}  # claimed, or just about to be, and not yet set
        self._stale = 0
        self._serial = 0
        self._args: dict[int, dict[WithArgs, None]] = {}
        self._held_contexts: dict[StateContext, None] = {}
        self.observers: tuple[Callable[[], object], ...] = ()

    # Any thread ---------------------------------------------------------------------

    def claim(self, condition: Condition) -> bool:
        """Win the right to set the waiter of a condition; only one ever does."""
        won = self.pending.pop(condition, _MISSING) is not _MISSING
        if won and self.held:
            self.held.pop(condition, None)
        return won

    def hold(self, condition: Condition, waiter: Waiter) -> None:
        """Keep a waiter that has callbacks alive until it is set."""
        self.held[condition] = waiter
        if condition not in self.pending:  # the claim may have been won just before
            self.held.pop(condition, None)

    def hold_context(self, ctx: StateContext) -> None:
        """Keep a context that has callbacks alive until it expires."""
        self._held_contexts[ctx] = None
        if ctx.expired:
            self._held_contexts.pop(ctx, None)

    def context(self, position: int, state: str, tick: int) -> StateContext:
        """Give the context of the activation that began at this tick; one for all."""
        refs = self.contexts.get(position)
        for each in tuple(refs or ()):
            ctx = each()
            if ctx is None:
                _discard(refs, each)
            elif ctx.tick == tick and not ctx.expired:
                return ctx
        ctx = StateContext(state, tick, self)
        entry = ref(ctx)
        while True:
            refs = self.contexts.setdefault(position, [])
            refs.append(entry)
            # The thread that has the turn may have taken the list away before we put
            # ourselves on it.
            if self.contexts.get(position) is refs:
                break
        if self.machine.tick_at(position) != tick:
            ctx.expire()
        return ctx

    def observe(self, callback: Callable[[], object]) -> None:
        """Have a function called after each change."""
        with MAKING.now:
            self.observers = (*self.observers, callback)

    def forget(self, callback: Callable[[], object]) -> None:
        """Call a function no more."""
        with MAKING.now:
            self.observers = tuple(each for each in self.observers if each is not callback)

    def bury_unsorted(self) -> None:
        """Forget conditions whose waiters are gone, as far as that needs no turn."""
        while self.dead:
            try:
                condition = self.dead.popleft()
            except IndexError:  # another thread took the last one
                return
            self.pending.pop(condition, None)
            if isinstance(condition, Idle):
                condition.leave()
            elif self.inbox.pop(condition, _MISSING) is _MISSING:
                self.graves.append(condition)

    # The thread that has the turn -----------------------------------------------------

    def expire(self, changed: int) -> None:
        """End the contexts of states whose clocks have moved."""
        for position in tuple(self.contexts):
            if changed >> position & 1:
                tick = self.machine.tick_at(position)
                for each in self.contexts.pop(position, ()):
                    ctx = each()
                    if ctx is None:
                        continue
                    if ctx.tick == tick:  # it belongs to the activation that begins
                        self.contexts.setdefault(position, []).append(each)
                    else:
                        self._expire(ctx)

    def _expire(self, ctx: StateContext) -> None:
        self._inside(ctx.expire)
        self._held_contexts.pop(ctx, None)

    def expire_all(self) -> None:
        """End all contexts but the lifetime, whatever their clocks say."""
        for position in tuple(self.contexts):
            for each in self.contexts.pop(position, ()):
                if (ctx := each()) is not None:
                    self._expire(ctx)

    def settle(
        self, node: Node, changed: int, entered: Iterable[int], args: Mapping[str, object]
    ) -> list[Condition]:
        """Set the waiters whose condition holds after a transition.

        Args:
            node: the active states now.
            changed: bit set of the states whose clocks have moved.
            entered: positions of the states that have been activated.
            args: what they have been activated with.

        Returns:
            The conditions whose waiters have been set.

        """
        fired = self._firing
        if changed:
            for tell in self.observers:
                tell()
        if self.dead or self.graves:
            self._bury()
        queries = list(self.queries) if self.queries and changed else ()
        if self.interest & changed:
            if self._groups and node not in self._asleep:
                self._wake_present(node, changed, fired)
            if self._heaps:
                self._wake_ticks(changed, fired)
            if self._args:
                for position in entered:
                    self._wake_args(position, args, fired)
        if queries:
            self._wake_queries(queries, fired)
        if self.inbox:
            self._sort_in(fired, node, entered, args)
        return self._fire() if fired else []

    def doubt(self) -> None:
        """Have everything looked at again at the next transition."""
        self._asleep.clear()
        self.inbox.update(dict.fromkeys(list(self.pending)))

    def begin_anew(self, before: list[int], now: list[int]) -> None:
        """Take note that the clocks have begun a new life; everything is looked at again.

        Args:
            before: the clocks of the life that is over.
            now: those of the new one.

        """
        self._heaps.clear()
        self._stale = 0
        for condition in list(self.pending):
            if isinstance(condition, Ticks) and condition.relative:
                condition.ticks = {
                    i: now[i] + max(tick - before[i], 0) for i, tick in condition.ticks.items()
                }
            elif isinstance(condition, WithArgs):
                condition.since = min(condition.since, now[condition.state])
        self.doubt()

    def awaits_args(self, position: int) -> bool:
        """Whether somebody waits for an activation of this state with args."""
        return any(
            isinstance(each, WithArgs) and each.state == position for each in list(self.pending)
        )

    def tidy(self) -> None:
        """Clear away what has been abandoned, and look at what lies in the inbox."""
        self._fire(again=True)
        self.expire(-1)
        self._bury()
        self._sort_in(self._firing, None, (), {})
        self._fire()

    def drained(self, idlers: dict[Idle, None]) -> None:
        """Set those who wait for the queue to be drained; needs no turn."""
        for condition in list(idlers):
            waiter = condition()
            if idlers.pop(condition, _MISSING) is None and self.claim(condition) and waiter:
                waiter.set("idle")

    def dispose(self) -> None:
        """Set every waiter but those for disposal, and expire every context, for good."""
        self._set_all(c for c in list(self.pending) if not isinstance(c, Gone))
        for refs in list(self.contexts.values()):
            for each in tuple(refs):
                if (ctx := each()) is not None:
                    self._expire(ctx)
        self._expire(self.lifetime)

    def finish(self) -> None:
        """Set those who wait for disposal."""
        self._set_all(list(self.pending))

    def _set_all(self, conditions: Iterable[Condition]) -> None:
        for condition in conditions:
            waiter = condition()
            if waiter is not None and self.claim(condition):
                waiter.set("disposed")

    def _fire(self, *, again: bool = False) -> list[Condition]:
        """Set the waiters that have been taken; again, if an interrupt has cut it short."""
        firing = self._firing
        taken = list(firing)
        for condition in taken:
            waiter = firing[condition]
            if again and condition in self.pending:  # the interrupt came before the claim
                del firing[condition]
                continue
            waiter._condition = None  # with the waiter pending no more, nothing is to be buried
            waiter._fired = True
            if waiter._sleepers is not None:
                waiter._fire()
            if waiter._callbacks is not None:
                self._inside(waiter._fire)
            del firing[condition]
        return taken

    def _inside(self, call: Callable[[], _T]) -> _T:
        """Call something of the user's, which must not wait for the machine's turn."""
        here = LOCAL.here
        outer = here.top
        try:
            here.top = Frame(self.machine, outer)
            return call()
        finally:
            here.top = outer

    def _take(self, condition: Condition, fired: _Fired) -> bool:
        """Claim a condition that has come true, for its waiter to be set."""
        waiter = condition()
        if waiter is None:
            return False
        if condition in fired and condition not in self.pending:
            return True  # sorted in, and looked at again besides: see doubt()
        fired[condition] = waiter  # before the claim, so that no interrupt can lose it
        if self.pending.pop(condition, _MISSING) is _MISSING:
            del fired[condition]
            return False
        if self.held:
            self.held.pop(condition, None)
        return True

    def _bury(self) -> None:
        self.bury_unsorted()
        while self.graves:
            condition = self.graves.popleft()
            if getattr(condition, "sorted", False):
                condition.delist(self)

    def _sort_in(
        self,
        fired: _Fired,
        node: Node | None,
        entered: Iterable[int],
        args: Mapping[str, object],
    ) -> None:
        inbox, pending = self.inbox, self.pending
        active = self.machine.active_mask() if node is None else node.active
        for condition in list(inbox):
            condition.sorted = True  # first: who buries it meanwhile must see that
            try:
                del inbox[condition]
            except KeyError:
                continue
            if type(condition) is Present:
                on = condition.on
                if condition.any:
                    holds = active & on != 0
                else:
                    holds = active & on == on and not active & condition.off
                if holds:
                    self._take(condition, fired)
                elif condition in pending:
                    self.add_present(condition)
            elif condition not in pending:
                continue
            elif self._holds(condition):
                self._take(condition, fired)
            elif isinstance(condition, WithArgs) and condition.state in entered:
                if not self._take_with(condition, args, fired):
                    condition.enlist(self)
            else:
                condition.enlist(self)

    def _holds(self, condition: Condition) -> bool:
        try:
            if isinstance(condition, Query):
                return self._inside(lambda: condition.holds(self.machine))
            return condition.holds(self.machine)
        except Exception:  # noqa: BLE001 - a query of the user's
            log_exception("error in a when_query of %r", self.machine)
            return False

    # States that are active at the same time

    def add_present(self, condition: Present) -> None:
        """Sort in a condition on active states."""
        key = (condition.on, condition.off, condition.any)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key, condition)
            for position in members(condition.on | condition.off):
                self._by_state.setdefault(position, {})[group] = None
                self.interest |= 1 << position
            self._asleep.clear()
        group.members[condition] = None

    def drop_present(self, condition: Present) -> None:
        """Sort out a condition on active states."""
        group = self._groups.get((condition.on, condition.off, condition.any))
        if group is not None:
            group.members.pop(condition, None)
            if not group.members:
                self._drop_group(group)

    def _drop_group(self, group: _Group) -> None:
        on, off, _ = group.key
        del self._groups[group.key]
        for position in members(on | off):
            groups = self._by_state[position]
            del groups[group]
            if not groups:
                del self._by_state[position]
                self._lose_interest(position)

    def _wake_present(self, node: Node, changed: int, fired: _Fired) -> None:
        active = node.active
        woken: dict[_Group, None] = {}
        for position in members(changed & self.interest):
            for group in self._by_state.get(position, ()):
                if group.sample.holds_of(active):
                    woken[group] = None
        for group in woken:
            for condition in group.members:
                self._take(condition, fired)
            self._drop_group(group)
        if not woken:
            if len(self._asleep) >= MOST_ASLEEP:
                self._asleep.clear()
            self._asleep.add(node)

    # Clocks that reach a tick

    def add_ticks(self, condition: Ticks) -> None:
        """Sort in a condition on clocks, under the first clock that is not there yet."""
        for position, tick in condition.ticks.items():
            if self.machine.tick_at(position) < tick:
                self._serial += 1
                heap = self._heaps.setdefault(position, [])
                heappush(heap, (tick, self._serial, condition))
                self.interest |= 1 << position
                return

    def drop_ticks(self) -> None:
        """Take note that a condition on clocks is to be sorted out."""
        self._stale += 1
        if self._stale <= UNTIDY or self._stale * 2 < sum(map(len, self._heaps.values())):
            return
        self._stale = 0
        for position, heap in list(self._heaps.items()):
            heap[:] = [each for each in heap if each[2] in self.pending]
            heapify(heap)
            if not heap:
                self._drop_heap(position)

    def _drop_heap(self, position: int) -> None:
        del self._heaps[position]
        self._lose_interest(position)

    def _wake_ticks(self, changed: int, fired: _Fired) -> None:
        for position in members(changed & self.interest):
            heap = self._heaps.get(position)
            if heap is None:
                continue
            tick = self.machine.tick_at(position)
            while heap and heap[0][0] <= tick:
                condition = heappop(heap)[2]
                if condition not in self.pending:
                    self._stale -= 1
                elif self._holds(condition):
                    self._take(condition, fired)
                else:
                    self.add_ticks(condition)
            if not heap:
                self._drop_heap(position)

    # Activations with args

    def add_args(self, condition: WithArgs) -> None:
        """Sort in a condition on args."""
        self._args.setdefault(condition.state, {})[condition] = None
        self.interest |= 1 << condition.state

    def drop_args(self, condition: WithArgs) -> None:
        """Sort out a condition on args."""
        listed = self._args.get(condition.state)
        if listed is not None:
            listed.pop(condition, None)
            if not listed:
                del self._args[condition.state]
                self._lose_interest(condition.state)

    def _wake_args(self, position: int, args: Mapping[str, object], fired: _Fired) -> None:
        for condition in list(self._args.get(position, ())):
            if self._take_with(condition, args, fired):
                self.drop_args(condition)

    def _take_with(self, condition: WithArgs, args: Mapping[str, object], fired: _Fired) -> bool:
        # One that was made during this activation waits for the next.
        if self.machine.tick_at(condition.state) <= condition.since:
            return False
        try:
            if not self._inside(lambda: condition.matches(args)):
                return False
        except Exception:  # noqa: BLE001 - an __eq__ of the user's
            log_exception("error when comparing args of %r", self.machine)
            return False
        if self._take(condition, fired):
            fired[condition].come_true(dict(args))
        return True

    # Functions of the clocks

    def _wake_queries(self, queries: Iterable[Query], fired: _Fired) -> None:
        for condition in queries:
            if self._holds(condition):
                self._take(condition, fired)
                self.queries.pop(condition, None)

    def _lose_interest(self, position: int) -> None:
        if (
            position not in self._by_state
            and position not in self._heaps
            and position not in self._args
        ):
            self.interest &= ~(1 << position)


_MISSING: Final = object()


def _discard(refs: list[ref[StateContext]] | None, entry: ref[StateContext]) -> None:
    try:
        if refs is not None:
            refs.remove(entry)
    except ValueError:  # another thread was faster
        pass
