"""Homes: in which account an id lives, and whose it is.

Learned from answers, kept in SQLite behind a bounded memory: written within moments,
many in one transaction. What one owner made does not exist for another. It knows ids
and names of accounts, and refuses to know what an id stands for.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from ratekeeper.core.units import DAY
from ratekeeper.errors import StoreUnavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable

    from ratekeeper.stores.database import Database

_log = logging.getLogger("ratekeeper.gateway")

_TABLES = (
    """CREATE TABLE IF NOT EXISTS homes (
        id TEXT NOT NULL, account TEXT NOT NULL, owner TEXT NOT NULL,
        used_us INTEGER NOT NULL, PRIMARY KEY (id, account)) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS homes_used ON homes (used_us)",
)
_PUT = """INSERT INTO homes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE
    SET owner = excluded.owner, used_us = excluded.used_us"""
_ADD = "INSERT INTO homes VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_OLDEST = """DELETE FROM homes WHERE (id, account) IN
    (SELECT id, account FROM homes WHERE used_us < ? ORDER BY used_us LIMIT ?)"""
_EXCESS = "SELECT used_us FROM homes ORDER BY used_us DESC LIMIT 1 OFFSET ?"

_SOON_S = 0.05
_AGAIN_S = 1.0  # after a write that failed
_PRUNE_S = 3600.0
_SLICE_S = 0.02  # between two slices: others have the loop meanwhile
_SLICE = 2000  # rows
KEPT_US = 31 * DAY  # after it was last used
_TOUCH_US = DAY  # how often a use is written down
MOST_ROWS = 1_000_000
MOST_KNOWN = 50_000  # ids in memory, 15 MB


class Home(NamedTuple):
    """An account in which an id lives, and whose it is there."""

    account: str
    owner: str
    used_us: int

    @property
    def provider(self) -> str:
        """The provider, as the config names it."""
        return self.account.partition("/")[0]


class Foreign(Exception):
    """The id is another owner's."""


class Apart(Exception):
    """Two ids live in two accounts."""


def home_of(
    found: Iterable[tuple[Home, ...]], owner: str, providers: Collection[str]
) -> str | None:
    """Return the account in which all ids of a call live, None where nobody knows any.

    Raises `Foreign` and `Apart`.
    """
    common: dict[str, int] | None = None
    for homes in found:
        there = [one for one in homes if one.provider in providers]
        mine = {one.account: one.used_us for one in there if one.owner == owner}
        if there and not mine:
            raise Foreign
        if mine:
            common = (
                mine
                if common is None
                else {name: at for name, at in common.items() if name in mine}
            )
            if not common:
                raise Apart
    return None if common is None else max(common, key=common.__getitem__)


def is_owned(found: tuple[Home, ...], owner: str, provider: str) -> bool | None:
    """Say whether an id at a provider is an owner's, None where nobody knows whose."""
    there = [one.owner == owner for one in found if one.provider == provider]
    return any(there) if there else None


class Homes:
    """All homes of one file; it belongs to one event loop."""

    def __init__(
        self,
        database: Database,
        loop: asyncio.AbstractEventLoop,
        now_us: Callable[[], int],
        *,
        written: Callable[[], None] = lambda: None,
        most_known: int = MOST_KNOWN,
        most_rows: int = MOST_ROWS,
    ) -> None:
        self._database = database
        self._loop = loop
        self._now_us = now_us
        self._written = written  # told after a write: the log of the file has grown
        self._most_known = most_known
        self._most_rows = most_rows
        self._known: OrderedDict[str, tuple[Home, ...]] = OrderedDict()
        self._unwritten: dict[str, tuple[Home, ...]] = {}
        self._unread: set[str] = set()  # of these: whether they have rows
        self._is_failing = False
        self._later: asyncio.TimerHandle | None = None
        with database.writing() as connection:
            for table in _TABLES:
                connection.execute(table)
            self.is_empty = connection.execute("SELECT 1 FROM homes").fetchone() is None
        self._upkeep = loop.call_later(_SLICE_S, self._prune)

    def find(self, name: str) -> tuple[Home, ...]:
        """Return where an id lives; raises `StoreUnavailable`."""
        homes = self._known.get(name)
        if homes is not None:
            self._known.move_to_end(name)
            return homes
        homes = self._unwritten.get(name)
        if homes is None:
            with self._database.reading() as connection:
                rows = connection.execute(
                    "SELECT account, owner, used_us FROM homes WHERE id = ?", (name,)
                ).fetchall()
            homes = tuple(Home(*row) for row in rows)
        if homes:  # what is not known may be made by another process
            self._know(name, homes)
        return homes

    def made(
        self, name: str, account: str, owner: str, *, is_chosen: bool = False
    ) -> None:
        """Take note of an id that an account has made for somebody.

        Whose it is already it stays. Only what callers have chosen (`is_chosen`) may be
        made again by another, once it has been deleted or has expired.
        """
        try:
            before = self.find(name)
        except StoreUnavailable:
            before = ()
            self._unread.add(name)
        there = next((one for one in before if one.account == account), None)
        if there is None or (is_chosen and there.owner != owner):
            self._put(name, Home(account, owner, self._now_us()), before)
        elif there.owner == owner:
            self.used([name], account)

    def used(self, names: Iterable[str], account: str) -> None:
        """Take note that ids are in use, so that they are not forgotten."""
        now = self._now_us()
        for name in names:
            homes = self.find(name)
            for home in homes:
                if home.account == account and now - home.used_us > _TOUCH_US:
                    self._put(name, home._replace(used_us=now), homes)

    def _put(self, name: str, home: Home, before: tuple[Home, ...]) -> None:
        self.is_empty = False
        others = tuple(one for one in before if one.account != home.account)
        homes = (*others, home)
        self._know(name, homes)
        self._unwritten[name] = homes
        if len(self._unwritten) > self._most_known:  # the disk has failed for long
            lost = next(iter(self._unwritten))
            del self._unwritten[lost]
            self._unread.discard(lost)
        if self._later is None:
            self._later = self._loop.call_later(_SOON_S, self._write)

    def _know(self, name: str, homes: tuple[Home, ...]) -> None:
        self._known[name] = homes
        self._known.move_to_end(name)
        if len(self._known) > self._most_known:
            self._known.popitem(last=False)

    def _write(self) -> None:
        self._later = None
        try:
            self.flush()
        except StoreUnavailable as error:
            self._later = self._loop.call_later(_AGAIN_S, self._write)
            if not self._is_failing:
                self._is_failing = True
                _log.error("ids are not written and will be tried again: %s", error)
        else:
            self._is_failing = False

    def flush(self) -> None:
        """Write what is not on disk yet; raises `StoreUnavailable`, and keeps it then."""
        if not self._unwritten:
            return
        rows: dict[bool, list[tuple[str, str, str, int]]] = {True: [], False: []}
        for name, homes in self._unwritten.items():
            rows[name in self._unread] += [(name, *home) for home in homes]
        with self._database.writing() as connection:
            connection.executemany(_PUT, rows[False])
            connection.executemany(_ADD, rows[True])
        for name in self._unread:
            self._known.pop(name, None)  # it may have been another's before
        self._unread.clear()
        self._unwritten.clear()
        self._written()

    def close(self) -> None:
        """Write what is left and end; raises `StoreUnavailable` where it cannot."""
        self._upkeep.cancel()
        if self._later is not None:
            self._later.cancel()
        self.flush()

    def oldest_us(self) -> int:
        """Return from when on ids are kept: for a month, and not more than the bound."""
        since_us = self._now_us() - KEPT_US
        with self._database.reading() as connection:
            excess = connection.execute(_EXCESS, (self._most_rows,)).fetchone()
        return since_us if excess is None else max(since_us, excess[0] + 1)

    def prune(self, since_us: int) -> bool:
        """Forget a slice of what is older; True where more may be left."""
        with self._database.writing() as connection:
            gone = connection.execute(_OLDEST, (since_us, _SLICE)).rowcount
        self._written()
        return gone == _SLICE

    def _prune(self, since_us: int | None = None) -> None:
        more = False
        with contextlib.suppress(StoreUnavailable):  # there is another time
            since_us = self.oldest_us() if since_us is None else since_us
            more = self.prune(since_us)
        delay_s, again = (_SLICE_S, since_us) if more else (_PRUNE_S, None)
        self._upkeep = self._loop.call_later(delay_s, self._prune, again)
