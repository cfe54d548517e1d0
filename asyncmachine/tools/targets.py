"""From ``MODULE:NAME`` on the command line to the thing that it names."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Final

from asyncmachine import Machine, Schema, State, States
from asyncmachine.errors import SchemaError, hint
from asyncmachine.tools.command import CommandError

__all__ = ["find_machine", "find_object", "find_states"]

_WANTED: Final = "a States class, a mapping of states, a Schema or a Machine"


def find_states(target: str) -> Schema | Machine:
    """Give the schema or machine that ``MODULE:NAME`` names.

    The module is imported, and so it runs; one in the current directory is found too.

    Raises:
        CommandError: if there is no such thing, or it declares no states.

    """
    found = find_object(target)
    if isinstance(found, Schema | Machine):
        return found
    try:
        if isinstance(found, Mapping):
            return Schema(found)
        if isinstance(found, type) and issubclass(found, States):
            return Schema(found)
    except SchemaError as error:
        raise CommandError(f"{target} is no valid schema: {error}") from error
    offer = _offer(_find_module(target.partition(":")[0]))
    raise CommandError(f"{target} is {_kind(found)}, but {_WANTED} is needed{offer}")


def find_machine(target: str) -> Machine:
    """Give the machine that ``MODULE:NAME`` names, or one that is built from it.

    A function is called, without arguments, and has to return a machine. A machine that is
    built from a schema has NAME as its id.

    Raises:
        CommandError: if there is no such thing, or no machine comes of it.

    """
    found = find_object(target)
    if not callable(found) or (isinstance(found, type) and issubclass(found, States)):
        states = find_states(target)
        if isinstance(states, Machine):
            return states
        return Machine(states, id=target.partition(":")[2])
    try:
        built = found()
    except (Exception, SystemExit) as error:
        last = "".join(traceback.format_exception_only(error)).strip()
        raise CommandError(f"calling {target} failed: {last}{_where(error)}") from error
    if not isinstance(built, Machine):
        raise CommandError(f"{target} returned no Machine but a {type(built).__name__}")
    return built


def find_object(target: str) -> object:
    """Import the module of ``MODULE:NAME`` and give what has that name in it.

    Raises:
        CommandError: naming the part that can not be found, and the nearest that can.

    """
    module_name, _, path = target.partition(":")
    if not (module_name and path):
        raise CommandError(f"{target!r} is not of the form MODULE:NAME{_form_hint(module_name)}")
    found: object = _find_module(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            raise CommandError(_no_name(module_name, name, found))
        found = getattr(found, name)
    return found


def _form_hint(name: str) -> str:
    """What the user may have meant by a name without a colon: a whole module, or a dot too many."""
    if not name:
        return ""
    try:
        return _offer(_find_module(name))
    except CommandError:
        package, _, last = name.rpartition(".")
        return f"; did you mean {package}:{last}?" if package else ""


def _find_module(name: str) -> ModuleType:
    if os.sep in name or name.endswith(".py"):
        dotted = name.removesuffix(".py").strip(f".{os.sep}").replace(os.sep, ".")
        raise CommandError(f"{name!r} is a file, not a module; did you mean {dotted!r}?")
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise CommandError(_no_module(error.name)) from error
        raise CommandError(_failed_import(name, error)) from error
    except (Exception, SystemExit) as error:
        raise CommandError(_failed_import(name, error)) from error


def _no_module(name: str) -> str:
    package, _, last = name.rpartition(".")
    path = getattr(sys.modules[package], "__path__", ()) if package else None
    near = hint(last, {each.name for each in pkgutil.iter_modules(path)})
    where = f" in {package}" if package else ""
    return f"there is no module {last!r}{where}{near}"


def _failed_import(name: str, error: BaseException) -> str:
    last = "".join(traceback.format_exception_only(error)).strip()
    return f"importing {name} failed: {last}{_where(error)}"


def _where(error: BaseException) -> str:
    """Where in the user's code an error was raised, if it came that far."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _no_name(module_name: str, name: str, owner: object) -> str:
    names = [each for each in dir(owner) if not each.startswith("_")]
    near = hint(name, _names_of_states(owner)) or hint(name, names) or _offer(owner)
    where = module_name if isinstance(owner, ModuleType) else f"{_kind(owner)} in {module_name}"
    return f"{where} has no {name!r}{near}"


def _offer(owner: object) -> str:
    names = _names_of_states(owner)
    return f"; it has {', '.join(names)}" if names else ""


def _names_of_states(owner: object) -> list[str]:
    """The names in a module or class of what declares states."""
    members: dict[str, object] = getattr(owner, "__dict__", {})
    return [
        name
        for name, value in members.items()
        if not name.startswith("_") and _declares_states(value)
    ]


def _declares_states(value: object) -> bool:
    if isinstance(value, type):
        return issubclass(value, States) and value is not States
    if isinstance(value, Mapping):
        return any(isinstance(state, State) for state in value.values())
    return isinstance(value, Schema | Machine)


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, ModuleType):
        return "a module"
    if callable(value):
        return f"the function {getattr(value, '__name__', value)}"
    return f"of type {type(value).__name__}"
