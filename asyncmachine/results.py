"""What became of a mutation: `Result`, and the ticket by which a queued one is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from asyncmachine.oneshot import OneShot, call_safely
from asyncmachine.running import Blocked, is_inside

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CANCELED", "EXECUTED", "QUEUED", "Canceled", "Result", "Ticket"]


class Result:
    """What became of a mutation: equal to EXECUTED, CANCELED or QUEUED; compare with ``==``.

    A result is true unless it is canceled.

    Example:
        >>> from asyncmachine import Machine, State
        >>> machine = Machine({"Foo": State(), "Bar": State(require="Foo")})
        >>> machine.add("Bar") == Result.CANCELED
        True
        >>> machine.add("Bar").why
        'Bar requires Foo, which is inactive'

    """

    __slots__ = ("_name",)

    EXECUTED: ClassVar[Result]
    CANCELED: ClassVar[Result]
    QUEUED: ClassVar[Result]

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def why(self) -> str:
        """Why it was canceled, in one plain sentence that names who refused; else empty."""
        return ""

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for the final result, executed or canceled; a final one returns itself.

        Args:
            timeout: seconds to wait at most; ``None`` waits for ever.

        Raises:
            TimeoutError: if the time ran out first.
            RuntimeError: inside a handler of the same machine, where it could never end.

        """
        return self

    def on_done(self, callback: Callable[[Result], object]) -> None:
        """Have a function called with the final result; at once if this is it.

        It runs on the thread that carries out the mutation, so it should be quick. An
        error in it is logged.
        """
        call_safely(callback, self)

    def __bool__(self) -> bool:
        return self._name != "CANCELED"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        return self._name == other._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"Result.{self._name}"


class Canceled(Result):
    """A refusal, with its reason; a reason that has to be worked out waits for a reader."""

    __slots__ = ("_reason",)

    def __init__(self, reason: str | Callable[[], str]) -> None:
        super().__init__("CANCELED")
        self._reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return Canceled, (self.why,)

    @property
    def why(self) -> str:
        """Why it was canceled."""
        reason = self._reason
        if not isinstance(reason, str):
            self._reason = reason = reason()
        return reason


EXECUTED: Final = Result("EXECUTED")
CANCELED: Final = Result("CANCELED")
QUEUED: Final = Result("QUEUED")
Result.EXECUTED = EXECUTED
Result.CANCELED = CANCELED
Result.QUEUED = QUEUED


class Ticket(OneShot):
    """The place where the final result of something queued will be found."""

    __slots__ = ("final", "machine")

    def __init__(self, machine: object) -> None:
        super().__init__()
        self.machine = machine
        self.final: Result | None = None

    def settle(self, result: Result) -> None:
        """Give the final result to whoever waits for it; the first one counts."""
        if self.final is None:
            self.final = result
        self._fire()

    def when_settled(self, callback: Callable[[Result], object]) -> None:
        """Have a function called with the final result; at once if it is there."""

        def tell(ticket: Ticket) -> None:
            if ticket.final is not None:
                callback(ticket.final)

        self._add_callback(tell)

    def result(self) -> Result:
        """Give the final result, or a queued one that can be waited for."""
        return _Queued(self) if self.final is None else self.final


class _Queued(Result):
    """The result of a mutation whose turn is still to come."""

    __slots__ = ("_ticket",)

    def __init__(self, ticket: Ticket) -> None:
        super().__init__("QUEUED")
        self._ticket = ticket

    def wait(self, timeout: float | None = None) -> Result:
        ticket = self._ticket
        if ticket.final is not None:
            return ticket.final
        if is_inside(ticket.machine):
            msg = "this mutation comes after the handler that is running: waiting would never end"
            raise RuntimeError(msg)
        with Blocked(ticket.machine) as safe:
            if not safe:
                msg = "the machine waits for the handler that is running: waiting would never end"
                raise RuntimeError(msg)
            if not OneShot.wait(ticket, timeout) or ticket.final is None:
                msg = f"the mutation is still queued after {timeout} s"
                raise TimeoutError(msg)
        return ticket.final

    def on_done(self, callback: Callable[[Result], object]) -> None:
        self._ticket.when_settled(callback)
