"""What is written for users: the examples run as printed, and every public name is explained.

Every ```` ```python ```` fence is run, in the order of its file, all of one file in one
namespace. A fence with prompts is a doctest, one without is a script: it must not raise.
What is not meant to run is fenced as ``py``, ``text`` or ``console``.
"""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import asyncmachine

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    """One fence: its code, and how many lines of the file come before it."""

    code: str
    offset: int


def _examples(document: Path) -> list[Example]:
    text = document.read_text(encoding="utf-8")
    return [Example(m[1], text.count("\n", 0, m.start(1))) for m in FENCE.finditer(text)]


def _run_doctest(example: Example, document: Path, namespace: dict[str, object]) -> None:
    name = str(document.relative_to(ROOT))
    test = doctest.DocTestParser().get_doctest(
        example.code, namespace, name, str(document), example.offset
    )
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=flags)
    runner.run(test, out=report.append, clear_globs=False)
    namespace.update(test.globs)
    assert not report, "".join(report)


def _run_script(example: Example, document: Path, namespace: dict[str, object]) -> None:
    padded = "\n" * example.offset + example.code  # so that a traceback shows the file's own line
    exec(compile(padded, str(document), "exec"), namespace)


@pytest.mark.parametrize("document", [pytest.param(d, id=d.name) for d in DOCUMENTS])
def test_the_examples_run_as_printed(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # an example may write files
    namespace: dict[str, object] = {"__name__": "__main__"}
    for example in _examples(document):
        run = _run_doctest if ">>> " in example.code else _run_script
        run(example, document, namespace)


def _undocumented(name: str) -> list[str]:
    """The name itself and, of a class, the public methods and properties without a docstring."""
    value = getattr(asyncmachine, name)
    members = [
        (f"{name}.{attribute}", getattr(value, attribute))
        for attribute in (dir(value) if isinstance(value, type) else ())
        if not attribute.startswith("_")
    ]
    explained = [
        (name, value),
        *(m for m in members if callable(m[1]) or isinstance(m[1], property)),
    ]
    return [each for each, thing in explained if not (inspect.getdoc(thing) or "").strip()]


@pytest.mark.parametrize("name", asyncmachine.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert _undocumented(name) == []
