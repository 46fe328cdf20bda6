"""One SQLite file: opened so that what is committed survives the end of the process.

It knows how to open, to migrate and to name what is wrong with the disk; what the
tables mean is the business of whoever asks for them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ratekeeper.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCHEME = "sqlite:///"
_LONGEST = 80  # characters of a wrong address that are shown
_LONG_LOG = 4000  # pages, 16 MB: twice a second's commits of a busy gateway
_LOOK_AROUND = "check that the disk has room and that this user may write there"
_MAKE_ROOM = "the disk is full: make room"
_ASK_LEAVE = "this user may not write there"
_WAYS_OUT = {  # by the system's number of an error
    errno.ENOSPC: _MAKE_ROOM,
    errno.EACCES: _ASK_LEAVE,
    errno.EPERM: _ASK_LEAVE,
    errno.EROFS: _ASK_LEAVE,
    errno.ESTALE: "put the one before back, or restart",
}
_WAYS_OUT_OF_SQLITE = {
    sqlite3.SQLITE_FULL: _MAKE_ROOM,
    sqlite3.SQLITE_READONLY: _ASK_LEAVE,
    sqlite3.SQLITE_BUSY: "another program holds it: end that, or try again",
    sqlite3.SQLITE_NOTADB: "it is some other file: name another store",
    sqlite3.SQLITE_CORRUPT: "it is damaged: put a copy in its place",
}
_BUSY_MS = 2000  # how long to wait for another process that writes


class Database:
    """A connection to one file; made readable for its owner alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._named():
            # Made before SQLite does, whose files anybody may read.
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self._inode = _inode(os.fstat(file))
            os.close(file)
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False
            )
            self._connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            _write_ahead(self._connection)
            # Survives the end of the process; a machine that loses its power may
            # lose the latest commits, and stays consistent.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("PRAGMA foreign_keys=ON")

    def close(self) -> None:
        """Close the file; a second time changes nothing."""
        self._connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction: all of it is committed, or none.

        Raises `StoreUnavailable` where the file cannot be written, and where it is gone:
        SQLite would go on writing to what nobody opens again.
        """
        with self._named():
            if _inode(self.path.stat()) != self._inode:
                raise OSError(errno.ESTALE, "another file is in its place")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def be_patient(self, milliseconds: int) -> None:
        """Wait so long, and no longer, while another process writes."""
        with self._named():
            self._connection.execute(f"PRAGMA busy_timeout={milliseconds}")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for reading."""
        with self._named():
            yield self._connection

    def checkpoint(self) -> None:
        """Move what was committed from the log into the file; any thread may.

        What holds it up, or fails, is left for the next time.
        """
        with contextlib.suppress(sqlite3.Error):
            connection = sqlite3.connect(self.path, isolation_level=None)
            with contextlib.closing(connection):
                connection.execute("PRAGMA synchronous=NORMAL")
                _, pages, _ = connection.execute(
                    "PRAGMA wal_checkpoint(PASSIVE)"
                ).fetchone()
                if pages > _LONG_LOG:
                    # It begins anew only when all of it has been moved: little is left
                    # by now, and whoever writes waits for that.
                    connection.execute("PRAGMA wal_checkpoint(RESTART)")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            msg = f"the store {self.path} cannot be used ({_cause(error)}): "
            raise StoreUnavailable(msg + self._way_out(error)) from error

    def _way_out(self, error: sqlite3.Error | OSError) -> str:
        """Say what to do about it."""
        if self.path.is_dir():
            return "it is a folder: name a file in it"
        if not self.path.parent.is_dir():
            return "its folder is not there: make it, or name another store"
        if isinstance(error, OSError):
            return _WAYS_OUT.get(error.errno or 0, _LOOK_AROUND)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without its details
        return _WAYS_OUT_OF_SQLITE.get(code, _LOOK_AROUND)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a log; SQLite does not wait where several open a new file at once."""
    end = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.005)
        else:
            return


def _cause(error: sqlite3.Error | OSError) -> str:
    """Return what the system says, without the path that stands before it already."""
    return getattr(error, "strerror", None) or str(error)


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def path_of(address: str) -> Path:
    """Return the file of an address such as `sqlite:///ratekeeper.db`."""
    if not address.startswith(_SCHEME) or len(address) == len(_SCHEME):
        # Of others no more than the scheme: a password may follow.
        shown = address.partition("://")[0][:20]
        if shown == "sqlite":
            shown = address[:_LONGEST]
        msg = (
            f"store {shown!r}: expected sqlite:///path, such as sqlite:///ratekeeper.db"
        )
        raise ConfigError(msg)
    return Path(address.removeprefix(_SCHEME)).expanduser()


def address_of(path: Path) -> str:
    """Return the address of a file."""
    return _SCHEME + path.as_posix()
