"""What waits for a machine's turn: mutations, and tasks that need the machine to rest.

Guarantees: first in, first out, but for urgent tasks, which come first. Every operation
may be called by any thread, in signal handlers too: the lock is re-entrant, and what it
guards is right at every step.
"""

from __future__ import annotations

from collections import deque
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from asyncmachine.oneshot import OneShot
from asyncmachine.relations import SET
from asyncmachine.results import EXECUTED
from asyncmachine.schema import EXCEPTION
from asyncmachine.transition import Mutation, transition_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.conditions import Idle
    from asyncmachine.moments import Moment
    from asyncmachine.schema import Schema

__all__ = ["Queue", "Task"]

_T = TypeVar("_T")
# So many combinations of called states are remembered.
_MOST_KEYED: Final = 1024


class Task(OneShot, Generic[_T]):
    """A function that is to run alone, between transitions, by whoever has the turn then.

    Attributes:
        awaited: whether somebody waits for it, and is told of an error.
        error: what it raised.
        thread: ident of the thread that asked for it.
        transition: what that thread was carrying out, if anything.

    """

    __slots__ = ("_claims", "_function", "_value", "awaited", "error", "thread", "transition")

    def __init__(self, function: Callable[[], _T], *, awaited: bool = False) -> None:
        super().__init__()
        self.awaited = awaited
        self._function = function
        self._claims = [None]
        self._value: list[_T] = []
        self.error: BaseException | None = None
        self.thread = get_ident()
        self.transition = transition_here()

    def claim(self) -> bool:
        """Win the right to run it, or to withdraw it; only one ever does."""
        try:
            del self._claims[0]
        except IndexError:
            return False
        return True

    @property
    def claimable(self) -> bool:
        """Whether nobody has won the claim yet."""
        return bool(self._claims)

    def run(self) -> None:
        """Claim and run it, unless somebody has claimed it; what it raises is kept."""
        # As in claim(), spelled out: no interrupt can come between the claim and the try.
        try:
            del self._claims[0]
        except IndexError:
            return
        try:
            self._value.append(self._function())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            self.error = error
        try:
            self._fire()
        except BaseException:
            self._fire()
            raise

    def fail(self, error: BaseException) -> None:
        """Give up on it, after winning the claim."""
        self.error = error
        self._fire()

    def value(self) -> _T:
        """Give what the function returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self._value[0]


class Queue:
    """The queue of one machine.

    Attributes:
        waiting: mutations and tasks, oldest first.
        urgent: tasks that come before them.
        idlers: who waits for the queue to be drained.
        taken: what has been taken out last.
        refused: how many mutations found no room.

    """

    __slots__ = (
        "_counted",
        "_keyed",
        "_last",
        "_last_set",
        "_lock",
        "_schema",
        "idlers",
        "refused",
        "taken",
        "urgent",
        "waiting",
    )

    def __init__(self, schema: Schema) -> None:
        self.waiting: deque[Mutation | Task[object]] = deque()
        self.urgent: list[Task[object]] = []
        self.idlers: dict[Idle, None] = {}
        self.taken: Mutation | Task[object] | None = None
        self.refused = 0
        self._schema = schema
        self._lock = RLock()
        self._counted = 0
        # The last mutation that touches each set of related states; a set() touches all.
        self._last: dict[int, Mutation] = {}
        self._keyed: dict[tuple[str, ...], set[int]] = {}
        self._last_set: Mutation | None = None

    def __len__(self) -> int:
        return len(self.waiting) + len(self.urgent)

    def put(self, mutation: Mutation, limit: int) -> Mutation | None:
        """Queue a mutation.

        Args:
            mutation: the request.
            limit: how many may wait; dry runs, what pipes bring and ``Exception`` always
                pass and do not count.

        Returns:
            The mutation that is queued: an earlier one if this is a duplicate of it.
            None if the queue is full.

        """
        with self._lock:
            twin = self._twin(mutation)
            if twin is not None:
                return twin
            if _counts(mutation):
                if self._counted >= limit:
                    self.refused += 1
                    return None
                self._counted += 1
            self.waiting.append(mutation)
            if not mutation.dry:
                self._remember(mutation)
        return mutation

    def put_task(self, task: Task[_T], *, urgent: bool) -> None:
        """Queue a task; it does not count for the limit."""
        (self.urgent if urgent else self.waiting).append(cast("Task[object]", task))

    def take(self) -> Mutation | Task[object] | None:
        """Take the next one out, or None; only by the thread that has the turn."""
        with self._lock:
            if self.urgent:
                self.taken = self.urgent[0]
                return self.urgent.pop(0)
            if not self.waiting:
                self.taken = None
                return None
            # Noted before it is taken out, so that no interrupt can lose it in between.
            self.taken = item = self.waiting[0]
            self.waiting.popleft()
            if isinstance(item, Mutation) and _counts(item):
                self._counted -= 1
            if not self.waiting:
                self._last.clear()
                self._last_set = None
            elif isinstance(item, Mutation) and not item.dry:
                self._forget(item)
            return item

    def put_back(self, now: Moment) -> None:
        """After an interrupt: put back what was taken last, or settle it if it has begun.

        Args:
            now: the present moment of the machine.

        """
        with self._lock:
            item, self.taken = self.taken, None
            if isinstance(item, Mutation):
                self._put_back(item, now)
            elif item is not None and item.claimable and item not in self.urgent:
                self.urgent.insert(0, item)

    def _put_back(self, mutation: Mutation, now: Moment) -> None:
        if mutation.ticket is None:
            return
        if mutation.ticket.final is not None:
            mutation.ticket.settle(mutation.ticket.final)  # once more: somebody may sleep on
            return
        if mutation.outcome is None and mutation.since in (None, now):  # nothing was done
            if not (self.waiting and self.waiting[0] is mutation):
                self.waiting.appendleft(mutation)
                self._counted += _counts(mutation)
        else:
            mutation.settle(EXECUTED if mutation.outcome is None else mutation.outcome)

    def snapshot(self) -> list[Mutation]:
        """Give the mutations that wait, oldest first."""
        with self._lock:
            return [item for item in self.waiting if isinstance(item, Mutation)]

    def _keys(self, mutation: Mutation) -> set[int]:
        keys = self._keyed.get(mutation.states)
        if keys is None:
            related = self._schema.related
            keys = {related[i] for i in self._schema.find(mutation.states)}
            if len(self._keyed) < _MOST_KEYED:
                self._keyed[mutation.states] = keys
        return keys

    def _remember(self, mutation: Mutation) -> None:
        if mutation.kind == SET:
            self._last.clear()
            self._last_set = mutation
        else:
            self._last.update(dict.fromkeys(self._keys(mutation), mutation))

    def _forget(self, mutation: Mutation) -> None:
        if self._last_set is mutation:
            self._last_set = None
        for key in self._keys(mutation):
            if self._last.get(key) is mutation:
                del self._last[key]

    def _twin(self, mutation: Mutation) -> Mutation | None:
        """Find the queued mutation that makes this one a duplicate, or None.

        It must be the last one that touches any state which this one may move, by name
        or through relations, or else what came between would be overruled.
        """
        if mutation.has_args or mutation.passed or mutation.dry:
            return None
        if mutation.kind == SET:
            last = None if self._last else self._last_set
        else:
            found = {
                id(m): m for k in self._keys(mutation) if (m := self._last.get(k, self._last_set))
            }
            last = found.popitem()[1] if len(found) == 1 else None
        if last is None or last.has_args or last.passed or last.kind != mutation.kind:
            return None
        if last.states != mutation.states:
            return None
        multi = self._schema.multi
        if any(multi >> i & 1 for i in self._schema.find(mutation.states)):
            return None
        return last


def _counts(mutation: Mutation) -> bool:
    """Whether a mutation counts for the limit."""
    return not (mutation.dry or mutation.passed or mutation.exempt or EXCEPTION in mutation.states)
