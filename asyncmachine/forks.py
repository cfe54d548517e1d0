"""Background work that is bound to a state context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncmachine.oneshot import OneShot, deadline_after, time_left
from asyncmachine.running import LOCAL
from asyncmachine.threads import run_aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncmachine.waiting import StateContext

__all__ = ["Fork", "Forks"]


class Fork(OneShot):
    """One function that runs in the background; ``wait`` waits for its end.

    Attributes:
        ctx: the context that it is bound to.
        error: what it raised, if it did.

    """

    __slots__ = ("ctx", "error")

    def __init__(self, ctx: StateContext) -> None:
        super().__init__()
        self.ctx = ctx
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the function has ended. Never blocks."""
        return self._fired

    def finish(self) -> None:
        """Take note that the function has ended."""
        self._fire()

    def __repr__(self) -> str:
        return f"<Fork of {self.ctx!r} {'done' if self._fired else 'running'}>"


class Forks:
    """The forks of one machine that are running."""

    __slots__ = ("_on_error", "running")

    def __init__(self, on_error: Callable[[Exception], object]) -> None:
        self.running: dict[Fork, None] = {}
        self._on_error = on_error

    def start(self, ctx: StateContext, call: Callable[[], object]) -> Fork:
        """Run a function on a background thread; its error is reported unless ``ctx`` expired."""
        fork = Fork(ctx)
        self.running[fork] = None
        run_aside(lambda: self._run(fork, call))
        return fork

    def _run(self, fork: Fork, call: Callable[[], object]) -> None:
        LOCAL.here.fork = fork
        try:
            call()
        except Exception as error:  # noqa: BLE001 - it is the user's code
            fork.error = error
            if not fork.ctx.expired:
                self._on_error(error)
        finally:
            LOCAL.here.fork = None
            self.running.pop(fork, None)
            fork.finish()

    def wait(self, timeout: float) -> bool:
        """Wait until all but the caller's own have ended; false if the time ran out first."""
        deadline = deadline_after(timeout)
        others = [fork for fork in list(self.running) if fork is not LOCAL.here.fork]
        return all(fork.wait(time_left(deadline)) for fork in others)
