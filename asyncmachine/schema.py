"""What states there are and how they relate: `State`, `States`, `Schema`, `group`.

A schema is compiled once, into bit sets (state number ``i`` is bit ``1 << i``), and
shared by all machines that are built from the same declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar, Union
from weakref import WeakValueDictionary

from asyncmachine.bits import bits, components, transposed, without_cycles
from asyncmachine.errors import SchemaError, UnknownStateError, hint

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ANY", "EXCEPTION", "Relation", "Schema", "State", "StateName", "States", "group"]

ANY: Final = "Any"
EXCEPTION: Final = "Exception"
RELATIONS: Final = ("add", "remove", "require", "after")

Relation = Union[str, "State", Iterable[Union[str, "State"]]]


class State:
    """One declared state: its relations to others, and its two properties.

    Every relation takes one name or any iterable of names; in the body of a `States`
    class an earlier state may be named by its attribute.

    Args:
        add: states that activate with this one.
        remove: states that this one deactivates, and keeps out.
        require: states without which this one can not be active.
        after: states whose handlers run before this one's.
        auto: try to activate by itself after every transition that changed something.
        multi: activate again when it is called while active.

    Example:
        >>> State(require="Connected", auto=True)
        State(require=('Connected',), auto=True)

    """

    __slots__ = ("add", "after", "auto", "multi", "name", "remove", "require")

    def __init__(
        self,
        *,
        add: Relation = (),
        remove: Relation = (),
        require: Relation = (),
        after: Relation = (),
        auto: bool = False,
        multi: bool = False,
    ) -> None:
        # Whatever is given is kept: Schema reports all faults of all states at once.
        self.add = _references(add)
        self.remove = _references(remove)
        self.require = _references(require)
        self.after = _references(after)
        self.auto = auto
        self.multi = multi
        self.name = ""

    def extend(
        self,
        *,
        add: Relation = (),
        remove: Relation = (),
        require: Relation = (),
        after: Relation = (),
        auto: bool | None = None,
        multi: bool | None = None,
    ) -> State:
        """Give a wider copy: relations are joined, the properties replaced where given.

        Example:
            >>> State(require="Start").extend(require="Connected", multi=True)
            State(require=('Start', 'Connected'), multi=True)

        """
        return State(
            add=_joined(self.add, add),
            remove=_joined(self.remove, remove),
            require=_joined(self.require, require),
            after=_joined(self.after, after),
            auto=self.auto if auto is None else auto,
            multi=self.multi if multi is None else multi,
        )

    def to_dict(self) -> dict[str, object]:
        """Give plain data that `Schema.from_dict` understands; defaults are left out."""
        data: dict[str, object] = {}
        for relation in RELATIONS:
            if names := getattr(self, relation):
                data[relation] = [_name_of(each) for each in names]
        if self.auto:
            data["auto"] = True
        if self.multi:
            data["multi"] = True
        return data

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> StateName:
        return StateName(self.name, self)

    def __repr__(self) -> str:
        given = [f"{r}={getattr(self, r)!r}" for r in RELATIONS if getattr(self, r)]
        given += [f"{flag}=True" for flag in ("auto", "multi") if getattr(self, flag)]
        return f"State({', '.join(given)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = object.__hash__


class StateName(str):
    """The name of a state that was declared in a `States` class: a str that can be extended."""

    __slots__ = ("_state",)

    # In a tuple, for an attribute that is a State would be read as its name.
    _state: tuple[State]

    def __new__(cls, name: str, state: State) -> Self:
        self = super().__new__(cls, name)
        self._state = (state,)
        return self

    def declaration(self) -> State:
        """Give the state behind this name."""
        return self._state[0]

    def extend(
        self,
        *,
        add: Relation = (),
        remove: Relation = (),
        require: Relation = (),
        after: Relation = (),
        auto: bool | None = None,
        multi: bool | None = None,
    ) -> State:
        """Give a wider copy of the state behind this name; see `State.extend`."""
        return self.declaration().extend(
            add=add, remove=remove, require=require, after=after, auto=auto, multi=multi
        )

    def __reduce__(self) -> tuple[object, ...]:
        return str, (str(self),)


def _references(given: object) -> tuple[str | State, ...]:
    """One name or many, as a tuple; what is neither stays for Schema to complain about."""
    if isinstance(given, str | State) or not isinstance(given, Iterable):
        return (given,)  # type: ignore[return-value]
    return tuple(given)


def _joined(mine: tuple[str | State, ...], more: Relation) -> tuple[str | State, ...]:
    references = (*mine, *_references(more))
    named = tuple(r.name if isinstance(r, State) and r.name else r for r in references)
    try:
        return tuple(dict.fromkeys(named))
    except TypeError:  # not names at all, for Schema to complain about
        return named


def _name_of(reference: object) -> str:
    return reference.name if isinstance(reference, State) else plain(reference)


def plain(name: object) -> str:
    """Give a name as a str and nothing more, though it may be a member of an enum."""
    return str.__str__(name) if isinstance(name, str) else str(name)


def group(*names: str | State) -> tuple[str | State, ...]:
    """Name states that exclude each other, for the ``remove=`` of each of them.

    Example:
        >>> lights = group("Red", "Green")
        >>> from asyncmachine import Machine
        >>> light = Machine({"Red": State(remove=lights), "Green": State(remove=lights)})
        >>> light.add("Red"), light.add("Green"), str(light)
        (Result.EXECUTED, Result.EXECUTED, '(Green:1)')

    """
    return names


class States:
    """Base of classes that declare states as attributes, so that an editor completes them.

    Classes merge by inheritance: the states of the bases, left to right, then the
    class's own. A redeclared state replaces the inherited one and keeps its place.

    Attributes:
        names: the names of all states, in order.

    Example:
        >>> class Door(States):
        ...     Open = State()
        ...     Closed = State(remove=Open)
        >>> Door.Open, Door.names
        ('Open', ('Open', 'Closed'))

    """

    names: ClassVar[tuple[str, ...]] = ()

    def __new__(cls) -> Self:
        msg = f"{cls.__name__} is a declaration, not to be instantiated: Machine({cls.__name__})"
        raise TypeError(msg)

    def __init_subclass__(cls) -> None:
        if isinstance(vars(cls).get("names"), State):
            raise SchemaError(f"faults in {cls.__name__}:", ["'names' can not be a state's name"])
        order: dict[str, None] = {}
        for base in cls.__bases__:
            order.update(dict.fromkeys(getattr(base, "names", ())))
        own = _declared(cls)
        order.update(dict.fromkeys(own))
        cls.names = tuple(order)
        # References to State objects become names now, for a State that another class
        # declares once more gets another name there.
        for name, state in own.items():
            setattr(cls, name, StateName(name, state.extend()))


def _declared(cls: type) -> dict[str, State]:
    """The states that the body of this very class declares."""
    own: dict[str, State] = {}
    for name, value in vars(cls).items():
        if isinstance(value, State):
            own[name] = value
        elif isinstance(value, StateName) and value == name:  # Foo = Other.Foo
            own[name] = value.declaration()
    return own


def _states_of(cls: type[States]) -> dict[str, State]:
    """All states of a class: its order of names, each as Python's resolution order has it."""
    found: dict[str, State] = {}
    for base in reversed(cls.__mro__):
        found.update(_declared(base))
    return {name: found[name] for name in cls.names}


class Schema:
    """States and relations, checked and compiled once, shared by many machines.

    Args:
        states: a mapping of names to `State`, a `States` class, or a `Schema`.

    Raises:
        SchemaError: with every fault found.

    Attributes:
        names: all names in declared order; ``Exception`` is last unless declared.
        states: the states by name, with relations as tuples of names.

    Example:
        >>> schema = Schema({"Foo": State(add="Bar"), "Bar": State()})
        >>> schema.names
        ('Foo', 'Bar', 'Exception')
        >>> Schema.from_dict(schema.to_dict()) is schema
        True

    """

    __slots__ = (
        "__weakref__",
        "add_lists",
        "after",
        "auto",
        "graphs",
        "index",
        "masks",
        "multi",
        "names",
        "positions",
        "related",
        "remove",
        "removers",
        "require",
        "states",
    )

    names: tuple[str, ...]
    states: dict[str, State]
    index: dict[str, int]  # position of each name
    positions: dict[tuple[str, ...], tuple[int, ...]]  # of names that have been asked for
    masks: dict[tuple[str, ...], int]  # bit sets of names that have been asked for
    add_lists: tuple[tuple[int, ...], ...]
    remove: tuple[int, ...]  # bit sets, by position
    removers: tuple[int, ...]  # who removes it
    require: tuple[int, ...]
    after: tuple[int, ...]  # without those that are in a cycle with it
    related: tuple[int, ...]  # all that any chain of add, remove and require connects
    auto: int
    multi: int
    graphs: dict[object, object]  # plans of machines with the same handlers, see plans.py

    def __new__(  # noqa: PYI034 - one that is known already, perhaps
        cls, states: Mapping[str, State] | type[States] | Schema
    ) -> Schema:
        if isinstance(states, Schema):
            return states
        if isinstance(states, type) and issubclass(states, States):
            known = vars(states).get("_schema")
            if isinstance(known, Schema):
                return known
            schema = _interned(states.__name__, _states_of(states))
            states._schema = schema  # type: ignore[attr-defined]
            return schema
        if isinstance(states, Mapping):
            return _interned("the mapping", states)
        msg = f"takes a mapping of names to State, or a States class, not {states!r}"
        raise SchemaError("no schema:", [msg])

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, object]]) -> Schema:
        """Build a schema from plain data, as `to_dict` gives it.

        Raises:
            SchemaError: if the data is malformed, or describes a faulty schema.

        """
        if not isinstance(data, Mapping):
            raise SchemaError("no schema data:", [f"a mapping is needed, not {data!r}"])
        keys = (*RELATIONS, "auto", "multi")
        states, faults = {}, []
        for name, options in data.items():
            if not isinstance(options, Mapping):
                faults.append(f"{name}: a mapping of options is needed, not {options!r}")
                continue
            for key in options:
                if key not in keys:
                    faults.append(f"{name}: unknown option {key!r}{hint(key, keys)}")
            given = {key: options[key] for key in keys if key in options}
            states[name] = State(**given)  # type: ignore[arg-type]  # Schema checks the values
        if faults:
            raise SchemaError("faults in schema data:", faults)
        return cls(states)

    def to_dict(self) -> dict[str, dict[str, object]]:
        """Give the schema as plain JSON-able data.

        Example:
            >>> Schema({"Foo": State(add="Bar"), "Bar": State()}).to_dict()
            {'Foo': {'add': ['Bar']}, 'Bar': {}, 'Exception': {'multi': True}}

        """
        return {name: state.to_dict() for name, state in self.states.items()}

    def mask(self, names: tuple[str, ...]) -> int:
        """Give the bit set of some names; remembered, since readers ask the same again.

        Raises:
            UnknownStateError: for the first name that the schema lacks.

        """
        try:
            return self.masks[names]
        except (KeyError, TypeError):
            mask = 0
            for position in self.find(names):
                mask |= 1 << position
            return _remember(self.masks, names, mask)

    def find(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Give the positions of some names, each once, in the order given.

        Raises:
            UnknownStateError: for the first name that the schema lacks.

        """
        try:
            return self.positions[names]
        except KeyError:
            pass
        except TypeError:
            bad = next(each for each in names if not isinstance(each, str))
            raise UnknownStateError(bad, self.names) from None
        found: dict[int, None] = {}
        for name in names:
            position = self.index.get(name)
            if position is None:
                raise UnknownStateError(name, self.names) from None
            found[position] = None
        return _remember(self.positions, names, tuple(found))

    def position(self, name: str) -> int:
        """Give the position of one name.

        Raises:
            UnknownStateError: if the schema lacks it.

        """
        try:
            return self.index[name]
        except (KeyError, TypeError):
            raise UnknownStateError(name, self.names) from None

    def __reduce__(self) -> tuple[object, ...]:
        return Schema.from_dict, (self.to_dict(),)

    def __repr__(self) -> str:
        return f"Schema({', '.join(self.names)})"


# Names that a program asks for are few; one that makes up ever new combinations of them
# must not grow the memory of what was asked.
_REMEMBERED: Final = 4096


_T = TypeVar("_T")


def _remember(memory: dict[tuple[str, ...], _T], names: tuple[str, ...], value: _T) -> _T:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[names] = value
    return value


# Machines of the same declarations share one schema, and with it their plans.
_known: WeakValueDictionary[object, Schema] = WeakValueDictionary()


def _interned(source: str, given: Mapping[str, State]) -> Schema:
    declared = _checked(source, given)
    key = tuple(
        (name, s.add, s.remove, s.require, s.after, s.auto, s.multi) for name, s in declared.items()
    )
    schema = _known.get(key)
    if schema is None:
        schema = _compiled(declared)
        schema = _known.setdefault(key, schema)
    return schema


def _checked(source: str, given: Mapping[str, State]) -> dict[str, State]:
    """The states with plain names in their relations, or a report of every fault."""
    states: dict[object, State] = dict(given.items())
    states.setdefault(EXCEPTION, State(multi=True))
    faults: list[str] = []
    checked: dict[str, State] = {}
    for name, state in states.items():
        faults += _name_faults(name)
        if not isinstance(state, State):
            faults.append(f"{name}: a State is needed, not {state!r}")
            continue
        clean = State(auto=state.auto, multi=state.multi)
        for flag in ("auto", "multi"):
            if not isinstance(getattr(state, flag), bool):
                faults.append(f"{name}: {flag} is True or False, not {getattr(state, flag)!r}")
        for relation in RELATIONS:
            where = f"{name}: {relation}"
            names = _checked_relation(where, getattr(state, relation), states, faults)
            setattr(clean, relation, names)
        checked[plain(name)] = clean
        # What a state adds, and the state itself, it does not remove.
        removed = {*clean.remove} - {*clean.add, plain(name)}
        faults += (
            f"{name}: requires {each}, which it removes"
            for each in clean.require
            if each in removed
        )
    if faults:
        raise SchemaError(f"faults in {source}:", faults)
    return checked


def _name_faults(name: object) -> list[str]:
    if not isinstance(name, str):
        return [f"{name!r}: a state's name is a str, not {type(name).__name__}"]
    if name == ANY:
        return ["'Any' is reserved: it stands for all states in handler names"]
    if not name.isidentifier():
        return [f"{name!r}: a state's name must be an identifier"]
    return []


def _checked_relation(
    where: str,
    references: tuple[object, ...],
    states: Mapping[object, State],
    faults: list[str],
) -> tuple[str, ...]:
    """The names of one relation, each once; what is wrong with it joins the faults."""
    names: dict[str, None] = {}
    for reference in references:
        if not isinstance(reference, str | State):
            faults.append(f"{where} takes names, not {reference!r}")
            continue
        name = _name_of(reference)
        if not name:
            faults.append(f"{where} takes a State that no class has named")
        elif name not in states:
            known = [str(each) for each in states]
            faults.append(f"{where}: unknown state {name!r}{hint(name, known)}")
        else:
            names[name] = None
    return tuple(names)


def _compiled(states: dict[str, State]) -> Schema:
    schema: Schema = object.__new__(Schema)
    names = tuple(states)
    index = {name: i for i, name in enumerate(names)}

    def positions(relation: str) -> list[tuple[int, ...]]:
        return [tuple(index[n] for n in getattr(states[name], relation)) for name in names]

    add_lists = positions("add")
    add = [bits(each) for each in add_lists]
    # Hygiene: a state never removes itself, nor what it adds, and is never after itself.
    remove = [bits(m) & ~(1 << i) & ~add[i] for i, m in enumerate(positions("remove"))]
    require = [bits(each) for each in positions("require")]
    after = [bits(each) & ~(1 << i) for i, each in enumerate(positions("after"))]
    schema.names = names
    schema.states = states
    schema.index = index
    schema.positions = {}
    schema.masks = {}
    schema.add_lists = tuple(tuple(j for j in each if j != i) for i, each in enumerate(add_lists))
    schema.remove = tuple(remove)
    schema.removers = tuple(transposed(remove))
    schema.require = tuple(require)
    schema.after = tuple(without_cycles(after))
    schema.related = tuple(components([a | b | c for a, b, c in zip(add, remove, require)]))
    schema.auto = bits(i for i, name in enumerate(names) if states[name].auto)
    schema.multi = bits(i for i, name in enumerate(names) if states[name].multi)
    schema.graphs = {}
    return schema
