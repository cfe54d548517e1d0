"""Sphinx: ``make docs`` builds the manual into build/docs."""

from __future__ import annotations

import doctest
import tomllib
from pathlib import Path

_metadata = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _metadata["name"]
author = _metadata["authors"][0]["name"]
release = _metadata["version"]
copyright = f"2026, {author}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = f"asyncmachine {release}"

# Docstrings are in Google style; single backticks in them name Python things.
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else the fields of a named tuple are described twice
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Only explicit doctest directives: pytest runs the examples in docstrings, with the names of
# their modules, and tests/test_documents.py those of the pages.
doctest_default_flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
doctest_global_setup = "from asyncmachine import *"
doctest_test_doctest_blocks = ""
