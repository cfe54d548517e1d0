"""What machines went through: kept in memory or in a file, asked, and restored from.

- `MemoryHistory` is quick, bounded, and gone with the process.
- `SQLiteHistory` outlives the process; `restore` brings a machine back from it.

Both are tracers, and answer the same questions, those of their base `History`. The standard
library is all they need.
"""

from __future__ import annotations

from asyncmachine.history.errors import HistoryError
from asyncmachine.history.memory import MemoryHistory
from asyncmachine.history.queries import Clocks, History
from asyncmachine.history.records import Record, Ticks, Times
from asyncmachine.history.restoring import restore
from asyncmachine.history.sqlite import SQLiteHistory

__all__ = [
    "Clocks",
    "History",
    "HistoryError",
    "MemoryHistory",
    "Record",
    "SQLiteHistory",
    "Ticks",
    "Times",
    "restore",
]
