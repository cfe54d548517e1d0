"""The life of a machine: children, background work, disposal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncmachine.errors import MachineError
from asyncmachine.forks import Fork, Forks
from asyncmachine.handlers import Binding, parse
from asyncmachine.oneshot import MAKING, OneShot, call_all, deadline_after, time_left
from asyncmachine.queueing import Task
from asyncmachine.resting import Resting
from asyncmachine.running import Blocked, is_inside
from asyncmachine.schema import ANY
from asyncmachine.threads import run_aside
from asyncmachine.waiting import StateContext

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from asyncmachine.schema import Schema
    from asyncmachine.transition import Event

__all__ = ["Living"]

# How long dispose() waits for forks that do not end, in seconds.
FORK_GRACE: Final = 1.0


class _Life:
    """What a machine needs for its end, made when it is first needed."""

    __slots__ = ("callbacks", "children", "forks", "over")

    def __init__(self, on_error: Callable[[Exception], object]) -> None:
        self.children: list[Living] = []
        self.forks = Forks(on_error)
        self.callbacks: list[Callable[[Living], object]] = []
        self.over = OneShot()


class Living(Resting):
    """A machine with children, forks and an end.

    Attributes:
        parent: the machine that disposes this one when it is disposed.

    """

    __slots__ = ("_life", "parent")

    def __init__(
        self,
        machine_id: str,
        schema: Schema,
        parent: Living | None,
        handler_timeout: float | None,
        catch_errors: bool,
        queue_limit: int,
    ) -> None:
        super().__init__(machine_id, schema, handler_timeout, catch_errors, queue_limit)
        self._life: _Life | None = None
        self.parent = parent

    # Forks ------------------------------------------------------------------------------

    def fork(
        self,
        event: Event,
        fn: Callable[..., object],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Fork:
        """Run ``fn(ctx, *args, **kwargs)`` in the background; what `Event.fork` calls."""
        ctx = self._context_of(event)
        named = dict(kwargs or {})
        return self._living().forks.start(ctx, lambda: fn(ctx, *args, **named))

    def _context_of(self, event: Event) -> StateContext:
        """The context of the state that a handler belongs to."""
        meaning = parse(self.schema, event.name)[0]
        if event.expired:
            return StateContext(meaning.state, 0)
        return self.lifetime() if meaning.state == ANY else self.state_ctx(meaning.state)

    def lifetime(self) -> StateContext:
        """Give the context that lasts as long as the machine."""
        return self._waiters().lifetime

    @property
    def forks_running(self) -> int:
        """How many forks have not ended yet."""
        return len(self._life.forks.running) if self._life is not None else 0

    def _fork_failed(self, error: Exception) -> None:
        """Report an error in a fork."""

    # Children and disposal ----------------------------------------------------------------

    @property
    def is_disposed(self) -> bool:
        """Whether mutations are refused, for the machine is disposed."""
        return self._disposed

    @property
    def children(self) -> tuple[Living, ...]:
        """The machines that were built with this one as ``parent``, and live."""
        return tuple(self._life.children) if self._life is not None else ()

    def on_dispose(self, callback: Callable[[Self], object]) -> Binding:
        """Have a function called with the machine when it is disposed; at once if it is.

        An error in it is logged.

        Returns:
            A binding, to take it back.

        """
        callbacks = self._living().callbacks
        callbacks.append(callback)  # type: ignore[arg-type]  # it is called with self only
        if self._disposed:
            self._run_callbacks()

        def undo() -> None:
            if callback in callbacks:
                callbacks.remove(callback)

        return Binding(undo)

    def dispose(self, timeout: float | None = None) -> None:
        """End the machine: children first, then the queue is drained, waiters are set.

        Afterwards mutations return a canceled result, and reading still works. Waits until
        disposal is over, and a bounded time for forks to end. From inside a handler of the
        machine it only requests the disposal, which comes after what is queued. Safe from
        several threads, and twice.

        Args:
            timeout: seconds to wait at most for what is running and queued; after that
                the machine is disposed regardless, and what is queued is canceled.

        Example:
            >>> from asyncmachine import Machine, State
            >>> machine = Machine({"Foo": State()})
            >>> machine.dispose()
            >>> machine.add("Foo").why, machine.is_disposed
            ('the machine is disposed', True)

        """
        deadline = deadline_after(timeout)
        told = self._dispose(deadline)
        left = time_left(deadline)
        patience = deadline_after(FORK_GRACE if left is None else min(left, FORK_GRACE))
        for forks in told:
            forks.wait(time_left(patience) or 0.0)

    def _dispose(self, deadline: float | None) -> list[Forks]:
        """Dispose children and self; give the forks that have been told to end."""
        life = self._living()
        told: list[Forks] = []
        for child in reversed(tuple(life.children)):
            told += child._dispose(deadline)
        inside = is_inside(self)
        task = Task(self._retire_surely, awaited=not inside)
        try:
            self._queue_made().put_task(task, urgent=False)
            self._serve()
        except BaseException:
            self._serve_later()
            raise
        with Blocked(self) as safe:
            if inside or not safe:
                return []
            if not task.wait(time_left(deadline)) and task.claim():
                self._retire_surely()
                # First noted, then refused: who asks meanwhile does it the other way round.
                self._abandoned = True
                self._refuse_queued()
            life.over.wait(time_left(deadline))
        if task.error is not None and not isinstance(task.error, Exception):
            raise task.error  # an interrupt
        return [*told, life.forks]

    def _living(self) -> _Life:
        life = self._life
        if life is None:
            with MAKING.now:
                if self._life is None:
                    self._life = _Life(self._fork_failed)
                life = self._life
        return life

    def _adopt(self, child: Living) -> None:
        msg = f"the parent {self.id} is disposed"
        if self._disposed:
            raise MachineError(msg)
        children = self._living().children
        children.append(child)
        if self._disposed and child in children:  # by another thread, just now
            children.remove(child)
            raise MachineError(msg)
        tracers = self._tracers  # read once, for they may leave
        if tracers is not None:
            tracers.tell("submachine", self, child)

    def _retire_surely(self) -> None:
        """End the machine, though an interrupt may come."""
        try:
            self._retire()
        except BaseException:
            self._retire()
            raise

    def _retire(self) -> None:
        """Refuse mutations from now on, set all waiters, tell everybody; once, or once more."""
        if self._living().over.happened:
            return
        self._disposed = True
        self._look_who_watches()
        for child in self.children:  # made after its siblings were disposed
            run_aside(child.dispose)
        if self._index is not None:
            self._index.dispose()
        self._run_callbacks()
        if self._tracers is not None:
            self._tracers.tell("machine_dispose", self)
        siblings = self.parent._life.children if self.parent and self.parent._life else []
        if self in siblings:
            siblings.remove(self)
        self._finished = True
        if self._index is not None:
            self._index.finish()
        self._living().over._fire()
        # Who waits for results of what was queued must not wait for ever.
        if not is_inside(self):
            self._serve()

    def _run_callbacks(self) -> None:
        call_all(self._living().callbacks, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.dispose()
