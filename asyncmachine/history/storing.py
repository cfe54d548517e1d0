"""The file of an `SQLiteHistory`: opening it, and the layout of what is in it.

One file keeps any number of machines. For each there is a row with its last clocks, from
which it is restored; for each transition a *record*; and a *fact* for each tracked state
whose clock is not what it was at the record before. The value of a clock at a record is
that of its last fact up to there, so that questions about one state touch only its facts.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncmachine.history.errors import HistoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["VERSION", "connect", "explained", "never_close"]

# Milliseconds of this many seconds still fit where SQLite counts them.
_LONGEST: Final = 2_000_000.0

# What marks the file as a history, and the version of its layout.
APPLICATION: Final = 0x414D4849
VERSION: Final = 1

# names and ticks are parallel; a name never leaves its place, a tick is null when the state
# has gone from the schema. The clocks of a record are those of its layout's names.
LAYOUT: Final = """
CREATE TABLE machines (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, names TEXT NOT NULL, ticks TEXT,
    seq INTEGER NOT NULL, ns INTEGER NOT NULL, oldest INTEGER NOT NULL
);
CREATE TABLE layouts (key INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE);
CREATE TABLE records (
    machine INTEGER NOT NULL, seq INTEGER NOT NULL, ns INTEGER NOT NULL,
    total INTEGER NOT NULL, tx INTEGER NOT NULL, duration INTEGER NOT NULL,
    kind TEXT NOT NULL, called TEXT NOT NULL, auto INTEGER NOT NULL, moved TEXT NOT NULL,
    layout INTEGER NOT NULL, clocks BLOB NOT NULL, note TEXT,
    PRIMARY KEY (machine, seq)
) WITHOUT ROWID;
CREATE INDEX records_ns ON records (machine, ns);
CREATE INDEX records_total ON records (machine, total);
CREATE TABLE facts (
    machine INTEGER NOT NULL, state INTEGER NOT NULL, seq INTEGER NOT NULL,
    tick INTEGER NOT NULL, moved INTEGER NOT NULL,
    PRIMARY KEY (machine, state, seq)
) WITHOUT ROWID;
"""


def connect(path: Path, *, durable: bool, patience: float) -> sqlite3.Connection:
    """Open a file, and make it a history if it is new.

    Args:
        path: where it is, or shall be.
        durable: whether every commit has to reach the disk.
        patience: seconds to wait for other processes that write to it.

    Returns:
        A connection for any thread, in autocommit mode; one thread at a time may use it.

    Raises:
        HistoryError: if it can not be opened, is no history, or a newer one.

    """
    if str(path) == ":memory:":
        msg = "a history in a file needs one; MemoryHistory is the one without"
        raise HistoryError(msg)
    with explained(path):
        db = sqlite3.connect(
            path,
            timeout=min(patience, _LONGEST),
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            _prepare(db, path)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        except BaseException:
            db.close()
            raise
    return db


def never_close(db: sqlite3.Connection) -> None:
    """Keep a connection open that belongs to the process that this one was forked from.

    To close it here would meddle with what that one does to the file.
    """
    _OF_OTHERS.append(db)


_OF_OTHERS: Final[list[sqlite3.Connection]] = []


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    if _known(db, path):
        return
    db.execute("BEGIN IMMEDIATE")  # of several that find it new, one makes it
    try:
        if not _known(db, path):
            for statement in LAYOUT.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _known(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is a history already, and not only empty."""
    ((application,),) = db.execute("PRAGMA application_id")
    ((version,),) = db.execute("PRAGMA user_version")
    ((tables,),) = db.execute("SELECT count(*) FROM sqlite_master")
    if application == APPLICATION:
        if version != VERSION:
            msg = (
                f"{path} is a history of version {version}, and this is for version {VERSION}: "
                "update asyncmachine, or begin another file"
            )
            raise HistoryError(msg)
        return True
    if application or version or tables:
        msg = f"{path} is a database, but not a history of asyncmachine"
        raise HistoryError(msg)
    return False


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into a `HistoryError` that names the file."""
    try:
        yield
    except (sqlite3.Error, UnicodeError) as error:  # the latter: an id that is no UTF-8
        msg = f"the history {path} can not be used: {error}"
        raise HistoryError(msg) from error
