"""What a span tells of its transition: how it has ended, with which args and which error."""

from __future__ import annotations

from traceback import format_exception
from typing import TYPE_CHECKING

from opentelemetry.trace import StatusCode

from asyncmachine.errors import described
from asyncmachine.logs import format_args, log_exception
from asyncmachine.telemetry import outlines as named
from asyncmachine.telemetry.outlines import TIME_AFTER, diff

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.util.types import Attributes, AttributeValue

    from asyncmachine.telemetry.outlines import Outline
    from asyncmachine.transition import Transition

__all__ = ["add_args", "attributes_when_over", "encodable", "tell_error"]


def encodable(text: str) -> str:
    r"""Give a text that UTF-8 can encode, as exporters must, else they lose the whole batch.

    What it can not encode is half characters, like those of file names that are no UTF-8.

    Example:
        >>> encodable("caf\udce9"), encodable("café")
        ('caf\\udce9', 'café')

    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def attributes_when_over(tx: Transition, outline: Outline) -> dict[str, AttributeValue]:
    """The attributes that are known when a transition is over."""
    moment = tx.moment
    if tx.rare is None and moment is not None:
        after = tx.ticks.copy()
        for i, by in tx.plan.moves:
            after[i] += by
        return {**outline.done, TIME_AFTER: tuple(after)}
    ticks = tx.time_after
    moved = [(i, tick - tx.ticks[i]) for i, tick in enumerate(ticks)]
    names = tx.plan.source.graph.schema.names
    return {
        named.ACCEPTED: tx.accepted,
        named.OUTCOME: tx.outcome,
        named.DIFF: diff(names, [each for each in moved if each[1]]),
        TIME_AFTER: ticks,
    }


def tell_error(span: Span, tx: Transition) -> None:
    """Record the error that has ended a transition, if one has, with a span."""
    error = tx.error
    if error is None:
        return
    text = described(error)
    told = encodable(text)
    try:
        span.record_exception(error, _encodable(error) if told != text else None)
    except Exception:  # noqa: BLE001 - the text of the error is the user's code
        log_exception("an error of %s can not be recorded", tx.machine.id)
    span.set_status(StatusCode.ERROR, told)


def _encodable(error: BaseException) -> Attributes:
    """What an exporter could not encode of an error, in a way that it can."""
    return {
        "exception.message": encodable(str(error)),
        "exception.stacktrace": encodable("".join(format_exception(error))),
    }


def add_args(tx: Transition, attributes: dict[str, AttributeValue]) -> None:
    """Add the args that ``log_args`` names, as the log would show them."""
    args = tx.args
    for name in tx.machine.log_args:
        if name in args:
            text = format_args(args, (name,))
            attributes[named.ARGS + name] = encodable(text[len(name) + 3 : -1])
