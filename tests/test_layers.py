"""The order of the house: imports only go down, and the core stands on the standard library."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import pytest

import asyncmachine

# Top to bottom: a module of the core may import only from those below it.
LAYERS: Final = (
    "pipes",
    "machine",
    # the engine: what Machine delegates to
    "living",
    "resting",
    "turns",
    "conducting",
    "traced",
    "changing",
    "mirror",
    "awaiting",
    "index",
    "conditions",
    "reading",
    "narration",
    "queueing",
    # what a machine is made of
    "api",
    "forks",
    "watchdog",
    "waiting",
    "handlers",
    "plans",
    "relations",
    "transition",
    "results",
    "states",
    "schema",
    # what knows nothing of machines
    "threads",
    "oneshot",
    "running",
    "locking",
    "moments",
    "bits",
    "tracing",
    "logs",
    "errors",
)

PACKAGE: Final = "asyncmachine"
ROOT: Final = Path(asyncmachine.__file__).parent
CORE: Final = sorted(path.stem for path in ROOT.glob("*.py") if path.stem != "__init__")
SUBPACKAGES: Final = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
FILES: Final = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))

_NEVER_RUN: Final = ("TYPE_CHECKING", "typing.TYPE_CHECKING")


class Import(NamedTuple):
    """One import of a file: the module, and the name taken from it, if any."""

    line: int
    module: str
    name: str


def _imports(file: str) -> list[Import]:
    """What a file imports when it runs, inside functions too; annotations do not count."""
    package = [PACKAGE, *Path(file).parts[:-1]]
    found: list[Import] = []
    left: list[ast.AST] = [ast.parse((ROOT / file).read_text(encoding="utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in _NEVER_RUN:
            left += node.orelse
        elif isinstance(node, ast.Import):
            found += [Import(node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            found += [_resolved(node.lineno, module, alias.name) for alias in node.names]
        else:
            left += ast.iter_child_nodes(node)
    return sorted(found)


def _resolved(line: int, module: str, name: str) -> Import:
    """``from asyncmachine import schema`` takes a module, not a name of the package."""
    path = ROOT.joinpath(*module.split(".")[1:], name)
    is_module = path.with_suffix(".py").exists() or (path / "__init__.py").exists()
    if _inside(module) and is_module:
        return Import(line, f"{module}.{name}", "")
    return Import(line, module, name)


def _inside(module: str) -> bool:
    return _top(module) == PACKAGE


def _top(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_of_the_core_has_its_layer() -> None:
    assert sorted(LAYERS) == CORE, (
        "give a new module of the core its place in LAYERS of this file, and in architecture"
    )


@pytest.mark.parametrize("module", CORE)
def test_a_module_of_the_core_imports_only_from_layers_below(module: str) -> None:
    below = LAYERS[LAYERS.index(module) + 1 :] if module in LAYERS else ()
    allowed = {f"{PACKAGE}.{layer}" for layer in below}

    wrong = {
        f"{module}.py, line {line}: imports {imported}, which is not below it"
        for line, imported, _ in _imports(f"{module}.py")
        if _inside(imported) and imported not in allowed
    }

    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize("module", ["__init__", *CORE])
def test_the_core_imports_only_itself_and_the_standard_library(module: str) -> None:
    allowed = {PACKAGE} | {f"{PACKAGE}.{each}" for each in CORE}

    wrong = {
        f"{module}.py, line {line}: imports {imported}"
        for line, imported, _ in _imports(f"{module}.py")
        if imported not in allowed and _top(imported) not in sys.stdlib_module_names
    }

    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize("file", [file for file in FILES if "/" in file])
def test_a_subpackage_uses_only_public_names_of_others(file: str) -> None:
    own = f"{PACKAGE}.{Path(file).parts[0]}"

    wrong = [
        f"{file}, line {line}: imports {name or imported} of {imported}"
        for line, imported, name in _imports(file)
        if _inside(imported)
        and not f"{imported}.".startswith(f"{own}.")
        and any(part.startswith("_") for part in (*imported.split("."), name))
    ]
    wrong += [
        f"{file}, line {line}: uses .{name} of something that is not its own"
        for line, name in _foreign_attributes(file)
    ]

    assert not wrong, "\n".join(wrong)


def _foreign_attributes(file: str) -> list[tuple[int, str]]:
    """Private attributes that a file of a subpackage uses, and no file of that defines."""
    folder = ROOT / Path(file).parts[0]
    own = {"_exit"}  # of os, documented in spite of its name
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls"):
                own.add(node.attr)
    return [
        (node.lineno, node.attr)
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr) and node.attr not in own
    ]


def _public(module: ModuleType) -> set[str]:
    """What a reader of the module would take for public: no submodules, no ``annotations``."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }


@pytest.mark.parametrize("package", [PACKAGE, *(f"{PACKAGE}.{each}" for each in SUBPACKAGES)])
def test_a_package_lists_exactly_what_it_offers(package: str) -> None:
    module = importlib.import_module(package)

    assert module.__all__ == sorted(set(module.__all__))
    assert _public(module) <= set(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize(
    "name", [each.name for each in pkgutil.walk_packages([str(ROOT)], f"{PACKAGE}.")]
)
def test_a_module_offers_what_its_list_names(name: str) -> None:
    module = importlib.import_module(name)

    listed = getattr(module, "__all__", [])

    assert len(listed) == len(set(listed))  # their order is ruff's business
    assert [each for each in listed if not hasattr(module, each)] == []
