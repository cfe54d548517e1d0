"""From names to callables: which handlers there are, checked when they are bound.

A machine's handlers are one immutable `Bound`, replaced whole. Its *shape*, the names
without the callables, is what plans depend on: machines whose handlers have the same
shape share their plans, and a plan names a handler by its number in ``Bound.calls``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from asyncmachine.errors import HandlerError, hint
from asyncmachine.schema import ANY

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from asyncmachine.plans import Shape
    from asyncmachine.schema import Schema
    from asyncmachine.transition import Event

    Handler: TypeAlias = Callable[[Event], object]

__all__ = ["Binding", "Bound", "HandlerSet", "Meaning", "collect", "listeners_for", "parse"]

SUFFIXES: Final = ("enter", "exit", "state", "end")


class Binding:
    """Undoes what returned it: a bound object, a listener, a tracer.

    Example:
        >>> from asyncmachine import Machine, State
        >>> machine = Machine({"Foo": State()})
        >>> with machine.on("Foo_state", print):  # unbinds at the end
        ...     machine.add("Foo")
        <Event Foo_state>
        Result.EXECUTED

    """

    __slots__ = ("_undo",)

    def __init__(self, undo: Callable[[], object]) -> None:
        self._undo: Callable[[], object] | None = undo

    def unbind(self) -> None:
        """Take it back, from the next transition on; a second call does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unbind()


class Meaning(NamedTuple):
    """What a handler name stands for.

    Attributes:
        state: the state that the handler belongs to, or ``"Any"``.
        other: the second state of a pair like ``Foo_Bar``, else empty.
        suffix: ``"enter"``, ``"exit"``, ``"state"``, ``"end"``, or empty for a pair.

    """

    state: str
    other: str
    suffix: str

    @property
    def final(self) -> bool:
        """Whether it is called after the change, when nothing can be refused any more."""
        return self.suffix in ("state", "end")


def splits(name: str) -> list[tuple[str, str]]:
    """Give every way to part a name at an underscore."""
    parts = name.split("_")
    return [("_".join(parts[:i]), "_".join(parts[i:])) for i in range(1, len(parts))]


def parse(schema: Schema, name: str) -> list[Meaning]:
    """Give every meaning that a handler name has; one is right, none or two are faults.

    Example:
        >>> from asyncmachine import Schema, State
        >>> parse(Schema({"Foo": State()}), "Foo_enter")
        [Meaning(state='Foo', other='', suffix='enter')]

    """
    meanings = []
    for left, right in splits(name):
        if left in schema.index and right in SUFFIXES:
            meanings.append(Meaning(left, "", right))
        if left == ANY and right in ("enter", "state"):
            meanings.append(Meaning(left, "", right))
        known = [left in schema.index or left == ANY, right in schema.index or right == ANY]
        if all(known) and not left == right == ANY:
            meanings.append(Meaning(left, right, ""))
    return meanings


def _looks_like_one(schema: Schema, name: str) -> bool:
    if name.rpartition("_")[2] in SUFFIXES and "_" in name:
        return True
    return any(half in schema.index or half == ANY for pair in splits(name) for half in pair)


def _suggestion(schema: Schema, name: str) -> str:
    """The nearest name that would be right."""
    known = (*schema.names, ANY)
    near = [f"{state}_{suffix}" for state in schema.names for suffix in SUFFIXES]
    near += [f"{ANY}_enter", f"{ANY}_state"]
    for left, right in splits(name):
        if left in known:
            near += [f"{left}_{other}" for other in known]
        if right in known:
            near += [f"{other}_{right}" for other in known]
    return hint(name, [each for each in near if each != f"{ANY}_{ANY}"])


def check_name(schema: Schema, name: str) -> str:
    """Give what is wrong with a handler name, or an empty text."""
    meanings = parse(schema, name)
    if not meanings:
        return f"{name} matches no state{_suggestion(schema, name)}"
    if len(meanings) > 1:
        readings = " or ".join(
            f"from {m.state} to {m.other}" if m.other else f"the {m.suffix} of {m.state}"
            for m in meanings
        )
        return f"{name} has two meanings: {readings}"
    return ""


class HandlerSet:
    """The handlers of one bound object, or one listener.

    Attributes:
        owner: what the object is called in messages.
        calls: the callables by name.
        listens: whether it is a listener: called last, heard but not asked.
        pipes: whether it is a pipe, which is quick and never fails: called after the
            handlers, without being watched.

    """

    __slots__ = ("calls", "listens", "owner", "pipes")

    def __init__(
        self,
        owner: str,
        calls: dict[str, Handler],
        *,
        listens: bool = False,
        pipes: bool = False,
    ) -> None:
        self.owner = owner
        self.calls = calls
        self.listens = listens
        self.pipes = pipes


def collect(schema: Schema, handlers: object, ignored: Collection[str] = frozenset()) -> HandlerSet:
    """Find the handlers of an object, a module or a mapping.

    Args:
        schema: whose states they are for.
        handlers: the object.
        ignored: names that are no handlers, whatever they look like.

    Raises:
        HandlerError: with every fault found.

    """
    owner, found = _candidates(handlers)
    calls: dict[str, Handler] = {}
    faults: list[str] = []
    for name, value in found.items():
        if name.startswith("_") or name in ignored or not _looks_like_one(schema, name):
            continue
        if not callable(value):
            if parse(schema, name):
                faults.append(f"{name} can not be called: it is {value!r}")
            continue
        fault = check_name(schema, name) or _arity_fault(name, value, handlers)
        if fault:
            faults.append(fault)
        calls[name] = value
    if faults:
        raise HandlerError(f"handlers of {owner or 'the mapping'} do not fit:", faults)
    return HandlerSet(owner, calls)


def listeners_for(
    schema: Schema, listeners: Mapping[str, Handler], *, pipes: bool = False
) -> HandlerSet:
    """Make a set of listeners, by handler name; or that of a pipe.

    Raises:
        HandlerError: with every name that fits no state, and what can not be called.

    """
    faults: list[str] = []
    for name, fn in listeners.items():
        fault = check_name(schema, name) if isinstance(name, str) else f"{name!r} is no name"
        if not fault and not callable(fn):
            fault = f"the listener to {name} can not be called: it is {fn!r}"
        faults.append(fault or _arity_fault(name, fn, fn))
    if any(faults):
        raise HandlerError("the listener does not fit:", [each for each in faults if each])
    return HandlerSet("", dict(listeners), listens=not pipes, pipes=pipes)


def _candidates(handlers: object) -> tuple[str, dict[str, object]]:
    """What the object is called, and its attributes by name."""
    if isinstance(handlers, Mapping):
        return "", {str(name): value for name, value in handlers.items()}
    if isinstance(handlers, ModuleType):
        return handlers.__name__, dict(vars(handlers))
    if isinstance(handlers, type):
        return handlers.__name__, {name: getattr(handlers, name) for name in _class_order(handlers)}
    names = dict.fromkeys([*_class_order(type(handlers)), *getattr(handlers, "__dict__", ())])
    return type(handlers).__name__, {
        name: getattr(handlers, name)
        for name in names
        if not name.startswith("_") and not _is_computed(handlers, name)
    }


def _class_order(cls: type) -> list[str]:
    return [name for base in reversed(cls.__mro__) for name in vars(base)]


def _is_computed(handlers: object, name: str) -> bool:
    """Whether reading an attribute would run code of the user's, as a property does."""
    if name in getattr(handlers, "__dict__", ()):
        return False
    for base in type(handlers).__mro__:
        if name in vars(base):
            found = vars(base)[name]
            plain = isinstance(found, FunctionType | staticmethod | classmethod)
            return not plain and hasattr(type(found), "__get__") and not callable(found)
    return True


def _arity_fault(name: str, fn: Callable[..., object], handlers: object) -> str:
    """Complain about what can not be called with one argument."""
    if _takes_one(fn):
        return ""
    advice = f"; bind an instance: {handlers.__name__}()" if isinstance(handlers, type) else ""
    return f"{name} must take one argument, the event{advice}"


def _takes_one(fn: Callable[..., object]) -> bool:
    function, given = fn, 1
    if isinstance(fn, MethodType):
        function, given = fn.__func__, 2
    if not isinstance(function, FunctionType) or hasattr(function, "__wrapped__"):
        return _takes_one_slowly(fn)
    code = function.__code__
    needed = code.co_argcount - len(function.__defaults__ or ())
    takes_more = code.co_flags & 0x04  # *args
    keywords = code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
    return needed <= given and (given <= code.co_argcount or bool(takes_more)) and not keywords


def _takes_one_slowly(fn: Callable[..., object]) -> bool:
    from inspect import signature  # slow to import, and plain functions need it not

    try:
        signature(fn).bind(None)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: calling it will tell
        return True
    return True


class Bound:
    """All that is bound to a machine.

    Attributes:
        sets: the bound objects, in binding order.
        calls: every handler of theirs, by its number.
        listeners: who listens to a name, in the order of the calls of ``on``.
        own: how many of the calls are handlers; those of pipes come after them.
        shape: the names alone; what plans depend on.

    """

    __slots__ = ("calls", "listeners", "own", "sets", "shape")

    def __init__(
        self,
        sets: tuple[HandlerSet, ...] = (),
        listeners: dict[str, tuple[Handler, ...]] | None = None,
    ) -> None:
        self.sets = sets
        self.listeners = listeners or {}
        self.calls: list[Handler] = [call for each in sets for call in each.calls.values()]
        self.own = sum(len(each.calls) for each in sets if not each.pipes)
        self.shape: Shape = (
            tuple(tuple(each.calls) for each in sets),
            tuple(sorted(self.listeners)),
        )

    def plus(self, more: HandlerSet) -> Bound:
        """Give what is bound once this set is bound too."""
        if more.pipes:
            return Bound((*self.sets, more), self.listeners)
        if not more.listens:
            own = [each for each in self.sets if not each.pipes]
            pipes = self.sets[len(own) :]
            return Bound((*own, more, *pipes), self.listeners)
        listeners = dict(self.listeners)
        for name, call in more.calls.items():
            listeners[name] = (*listeners.get(name, ()), call)
        return Bound(self.sets, listeners)

    def minus(self, gone: HandlerSet) -> Bound:
        """Give what is bound once this set is unbound."""
        if not gone.listens:
            return Bound(tuple(each for each in self.sets if each is not gone), self.listeners)
        listeners = dict(self.listeners)
        for name, call in gone.calls.items():
            rest = _without(listeners.get(name, ()), call)
            listeners[name] = rest
            if not rest:
                del listeners[name]
        return Bound(self.sets, listeners)

    def label(self, number: int) -> str:
        """Give the full name of a handler, for messages: ``"Handlers.Foo_enter"``."""
        for each in self.sets:
            if number < len(each.calls):
                name = list(each.calls)[number]
                return f"{each.owner}.{name}" if each.owner else name
            number -= len(each.calls)
        return "?"  # pragma: no cover


def _without(calls: tuple[Handler, ...], gone: Handler) -> tuple[Handler, ...]:
    """The listeners without the first that is this one."""
    for i, call in enumerate(calls):
        if call is gone:
            return calls[:i] + calls[i + 1 :]
    return calls
