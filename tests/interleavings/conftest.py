"""Systematic interleavings prove something only if they run: here a skipped test has failed.

frontrun skips its tests when it is not in charge of the interpreter, which would look like
success. Run them with ``make interleavings``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

_ADVICE: Final = "an interleaving test that does not run proves nothing; use: make interleavings"

_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test, or one expected to fail, into a failed one."""
    return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module that skips itself into one that fails."""
    return _failed_if_skipped((yield))


def _failed_if_skipped(report: _Report) -> _Report:
    if report.outcome == "skipped":
        reason = getattr(report, "wasxfail", None) or _reason(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped: {reason}\n{_ADVICE}"
    return report


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
