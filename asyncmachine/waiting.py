"""What threads wait for: `Waiter`, `StateContext`; `wait_any`, `wait_all`, `as_future`.

Guarantees:

- Of ``cancel()``, disposal and the condition coming true, exactly one decides.
- A wait that starts before, during or after that returns: no lost wake-up.
- Nothing here blocks a machine: setting a waiter only wakes its threads and runs its
  callbacks, on the thread that has the machine's turn.
- A waiter that nobody holds any longer leaves its machine by itself. One with a callback
  or a future is held by the machine until it is set; a waiter holds its context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from weakref import ref

from asyncmachine.errors import ContextExpired
from asyncmachine.oneshot import OneShot, Sleeper, deadline_after, time_left

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

    from asyncmachine.conditions import Condition
    from asyncmachine.index import Index

__all__ = ["StateContext", "Waiter", "as_future", "wait_all", "wait_any"]


@final
class Waiter(OneShot):
    """Something that threads wait for: states of a machine, as ``when(…)`` returns it.

    It has the reading half of `threading.Event`'s interface. It is set once, when its
    condition comes true, when it is canceled, or when the machine is disposed.

    Example:
        >>> from asyncmachine import Machine, State
        >>> machine = Machine({"Connected": State(), "LoggedIn": State()})
        >>> ready = machine.when("Connected", "LoggedIn")
        >>> machine.add("LoggedIn"), ready.is_set()
        (Result.EXECUTED, False)
        >>> machine.add("Connected"), ready.wait(timeout=5)
        (Result.EXECUTED, True)

    """

    __slots__ = ("_args", "_condition", "_ctx", "_how", "_index")

    _args: Mapping[str, object]
    _ctx: StateContext
    _how: str

    def __init__(self, index: Index | None = None) -> None:
        """Make one that is pending in an index, or one that is set."""
        # Made on every when(), so what few waiters have is left unset.
        self._fired = index is None
        self._sleepers = None
        self._callbacks = None
        self._index = index
        self._condition: Condition | None = None

    @property
    def canceled(self) -> bool:
        """Whether it was set by being canceled."""
        return getattr(self, "_how", "") == "canceled"

    @property
    def disposed(self) -> bool:
        """Whether it was set by the disposal of the machine."""
        return getattr(self, "_how", "") == "disposed"

    @property
    def args(self) -> Mapping[str, object] | None:
        """What the activation came with, for ``when_args``; else ``None``."""
        return getattr(self, "_args", None)

    @property
    def ctx(self) -> StateContext | None:
        """The context that cancels it, if any."""
        return getattr(self, "_ctx", None)

    def is_set(self) -> bool:
        """Whether it has been set. Never blocks."""
        return self._fired

    def cancel(self) -> None:
        """Give up waiting: set it, so that its threads wake; ``canceled`` tells them.

        Does nothing once it is set.
        """
        condition = self._condition
        if condition is not None and self._index is not None and self._index.claim(condition):
            self.set("canceled")
            self._index.dead.append(condition)

    def set(self, how: str) -> None:
        """Set it, saying how; only by who has won the claim."""
        self._how = how
        self._fire()

    def come_true(self, args: Mapping[str, object]) -> None:
        """Keep the args that its condition came true with; before it is set."""
        self._args = args

    def bind_to(self, ctx: StateContext) -> None:
        """Have a context cancel it."""
        self._ctx = ctx
        ctx.tie(self)

    def on_done(self, callback: Callable[[Waiter], object]) -> None:
        """Have a function called with the waiter, once it is set; at once if it is.

        It runs on the thread that sets the waiter, so it should be quick. An error in it
        is logged.
        """
        if self._condition is not None and self._index is not None:
            self._index.hold(self._condition, self)
        self._add_callback(callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        if not self._fired:
            return "<Waiter pending>"
        how = "canceled" if self.canceled else "disposed" if self.disposed else "set"
        return f"<Waiter {how}>"


@final
class StateContext(OneShot):
    """Alive while one activation of a state lasts; background work is bound to it.

    Example:
        >>> from asyncmachine import Machine, State
        >>> machine = Machine({"Working": State()})
        >>> machine.state_ctx("Working").expired
        True
        >>> machine.add("Working")
        Result.EXECUTED
        >>> ctx = machine.state_ctx("Working")
        >>> ctx.expired, machine.remove("Working"), ctx.expired
        (False, Result.EXECUTED, True)

    """

    __slots__ = ("_index", "_most_tied", "_tied", "state", "tick")

    def __init__(self, state: str, tick: int, index: Index | None = None) -> None:
        """Bind to one activation; without an index it has expired from the start."""
        self._fired = index is None
        self._sleepers = None
        self._callbacks = None
        self._index = index
        self._tied: dict[ref[Waiter], None] = {}
        self._most_tied = 16
        self.state = state
        self.tick = tick

    @property
    def expired(self) -> bool:
        """Whether the activation has ended. Never blocks."""
        return self._fired

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it expires.

        Args:
            timeout: seconds to wait at most; ``None`` waits for ever.

        Returns:
            True if it has expired, False if the time ran out first.

        """
        return super().wait(timeout)

    def sleep(self, seconds: float) -> bool:
        """Sleep, but no longer than the activation lasts.

        Returns:
            True after the whole time, False as soon as the context has expired.

        """
        return not self.wait(seconds)

    def check(self) -> None:
        """Raise unless it is alive; for work that is done step by step.

        Raises:
            ContextExpired: if the activation has ended. In a fork it ends the fork.

        """
        if self._fired:
            msg = f"{self.state or 'the machine'} has ended since tick {self.tick}"
            raise ContextExpired(msg)

    def on_expire(self, callback: Callable[[StateContext], object]) -> None:
        """Have a function called with the context when it expires; at once if it has.

        It runs on the thread that changes the machine, so it should be quick. An error
        in it is logged.
        """
        if self._index is not None:
            self._index.hold_context(self)
        self._add_callback(callback)

    def tie(self, waiter: Waiter) -> None:
        """Cancel a waiter on expiry."""
        if len(self._tied) >= self._most_tied:
            self._untie_ended()
        self._tied[ref(waiter)] = None
        if self._fired:
            waiter.cancel()

    def _untie_ended(self) -> None:
        for each in list(self._tied):
            waiter = each()
            if waiter is None or waiter.is_set():
                self._tied.pop(each, None)
        self._most_tied = 16 + 2 * len(self._tied)

    def expire(self) -> None:
        """End it; what the machine does when the activation ends."""
        self._fire()
        for each in list(self._tied):
            waiter = each()
            if waiter is not None:
                waiter.cancel()

    def __repr__(self) -> str:
        status = "expired" if self._fired else "alive"
        return f"<StateContext {self.state}:{self.tick} {status}>"


def wait_any(*waiters: Waiter, timeout: float | None = None) -> Waiter | None:
    """Block until one of the waiters is set.

    Args:
        waiters: of one machine or of several.
        timeout: seconds to wait at most; ``None`` waits for ever.

    Returns:
        The first one that is set, or ``None`` if the time ran out before, or none was given.

    Example:
        >>> from asyncmachine import Machine, State
        >>> machine = Machine({"Done": State(), "Failed": State()})
        >>> done, failed = machine.when("Done"), machine.when("Failed")
        >>> machine.add("Failed")
        Result.EXECUTED
        >>> wait_any(done, failed, timeout=5) is failed
        True

    """
    found = _first_set(waiters)
    if found is not None or not waiters or (timeout is not None and timeout <= 0):
        return found
    sleeper = Sleeper()
    try:
        for waiter in waiters:
            waiter._add_sleeper(sleeper)
        sleeper.sleep(timeout)
    finally:
        for waiter in waiters:
            waiter._drop_sleeper(sleeper)
    return _first_set(waiters)


def _first_set(waiters: tuple[Waiter, ...]) -> Waiter | None:
    return next((each for each in waiters if each.is_set()), None)


def wait_all(*waiters: Waiter, timeout: float | None = None) -> bool:
    """Block until every one of the waiters is set.

    Args:
        waiters: of one machine or of several.
        timeout: seconds to wait at most, for all together; ``None`` waits for ever.

    Returns:
        True if all are set, False if the time ran out first.

    Example:
        >>> from asyncmachine import Machine, State
        >>> first, second = Machine({"Done": State()}), Machine({"Done": State()})
        >>> first.add("Done"), wait_all(first.when("Done"), second.when("Done"), timeout=0)
        (Result.EXECUTED, False)

    """
    deadline = deadline_after(timeout)
    return all(each.wait(time_left(deadline)) for each in waiters)


def as_future(waiter: Waiter) -> Future[Waiter]:
    """Give a future whose result is the waiter, once that is set.

    It is canceled when the waiter is, and the other way round, so that
    ``concurrent.futures.wait`` and ``asyncio.wrap_future`` work.

    Example:
        >>> from asyncmachine import Machine, State
        >>> machine = Machine({"Done": State()})
        >>> future = as_future(machine.when("Done"))
        >>> machine.add("Done"), future.result(timeout=5)
        (Result.EXECUTED, <Waiter set>)

    """
    from concurrent.futures import Future, InvalidStateError  # slow to import, seldom needed

    future: Future[Waiter] = Future()

    def settle(done: Waiter) -> None:
        if done.canceled:
            future.cancel()
            future.set_running_or_notify_cancel()
        elif future.set_running_or_notify_cancel():
            try:
                future.set_result(done)
            except InvalidStateError:  # pragma: no cover - nobody else sets it
                pass

    def give_up(ended: Future[Waiter]) -> None:
        if ended.cancelled():
            waiter.cancel()

    waiter.on_done(settle)
    future.add_done_callback(give_up)
    return future
