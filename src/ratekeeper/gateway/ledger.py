"""The ledger: when what was used is on disk, and what was spent by whom.

Calls that are charged in one turn of the event loop share one commit, and each waits
for it before it is sent; what is settled afterwards follows within moments. While the
disk refuses, nothing is lost and no call that needs it is sent. The file is kept small
and its checkpoints run in a thread, so that none of this holds up the loop.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from typing import TYPE_CHECKING

from ratekeeper.core.units import DAY
from ratekeeper.errors import StoreUnavailable
from ratekeeper.runtime.clock import MonotonicClock

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from ratekeeper.providers.facts import Usage
    from ratekeeper.runtime.clock import Clock
    from ratekeeper.stores.database import Database
    from ratekeeper.stores.journal import Journal, Write

_log = logging.getLogger("ratekeeper")

_TABLE = """CREATE TABLE IF NOT EXISTS spend (
    day TEXT NOT NULL, key TEXT NOT NULL, team TEXT NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL, currency TEXT NOT NULL,
    requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, cost_nano INTEGER NOT NULL,
    PRIMARY KEY (day, key, team, provider, model, currency)) WITHOUT ROWID"""
_ADD = """INSERT INTO spend VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cost_nano = cost_nano + excluded.cost_nano"""

_SOON_S = 0.05
_AGAIN_S = 0.25  # after a commit that failed
_PATIENCE_MS = 250  # while another process writes: the loop stands still meanwhile
_CHECKPOINT_S = 1.0
_PRUNE_S = 3600.0
_PRUNE_STEP_S = 0.02  # between two slices: others have the loop meanwhile
_MOST_ROWS = 10_000  # not yet written; further models are counted together
_MOST_MODELS = 256  # of a key in a day; further ones are counted together as well
_OTHER = "(other)"
_LONGEST_NAME = 200  # of a model, which a caller chooses
_EPOCH = datetime.date(1970, 1, 1).toordinal()

_Row = tuple[int, str, str, str, str, str]  # day, key, team, provider, model, currency


class Ledger:
    """What was used and spent, committed in groups; one for a gateway.

    It belongs to one event loop. Made before the first call, it puts right what the run
    before has left behind.
    """

    def __init__(
        self,
        database: Database,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._journal = journal
        self._loop = loop
        self._clock = MonotonicClock() if clock is None else clock
        self._spend: dict[_Row, list[int]] = {}
        self._models: dict[str, set[str]] = {}  # of this day, by key
        self._day = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._turn: asyncio.Handle | None = None  # the commit of this turn of the loop
        self._later: asyncio.TimerHandle | None = None
        self._failure = ""  # why the last commit failed
        self._grown = False  # whether the log of the file has, since its checkpoint
        self._checkpoint: asyncio.Future[None] | None = None
        with database.writing() as connection:
            connection.execute(_TABLE)
        with database.reading() as connection:
            connection.execute("PRAGMA wal_autocheckpoint=0")
        database.be_patient(_PATIENCE_MS)
        journal.begin(self._clock.now_us())
        self._upkeep = [
            loop.call_later(_CHECKPOINT_S, self._check),
            loop.call_soon(self._prune, 0),
        ]

    async def kept(self) -> None:
        """Return when everything noted so far is on disk.

        Raises `StoreUnavailable` where it cannot be: a call that was charged then must
        not be sent.
        """
        if not self._journal.is_behind:
            return
        if self._failure:  # it is tried again all the time, without them
            raise StoreUnavailable(self._failure)
        if self._turn is None:
            self._turn = self._loop.call_soon(self._commit)
        future = self._loop.create_future()
        self._waiting.append(future)
        await future

    def soon(self) -> None:
        """Let what was noted be on disk within moments."""
        if self._later is None:
            self._later = self._loop.call_later(_SOON_S, self._commit)

    def spent(
        self,
        key: str,
        team: str,
        provider: str,
        model: str,
        usage: Usage,
        cost_nano: Mapping[str, int],
        *,
        requests: int = 1,
    ) -> None:
        """Note one call: its tokens, and what it cost in each currency."""
        day = self._clock.now_us() // DAY
        model = self._told_apart(day, key, model[:_LONGEST_NAME])
        put, out = usage.input_tokens, usage.output_tokens
        for currency, nano in (cost_nano or {"": 0}).items():
            row = day, key, team, provider, model, currency
            if len(self._spend) >= _MOST_ROWS and row not in self._spend:
                row = day, key, team, provider, _OTHER, currency
            sums = self._spend.setdefault(row, [0, 0, 0, 0])
            sums[0] += requests
            sums[1] += put
            sums[2] += out
            sums[3] += nano
            requests = put = out = 0  # a call is counted once
        self.soon()

    def _told_apart(self, day: int, key: str, model: str) -> str:
        """Return the name under which a model is counted: rows are kept for good."""
        if day != self._day:
            self._day = day
            self._models.clear()
        models = self._models.setdefault(key, set())
        if model not in models:
            if len(models) >= _MOST_MODELS:
                return _OTHER
            models.add(model)
        return model

    def grew(self) -> None:
        """Take note that others have written to the file, whose upkeep is done here."""
        self._grown = True

    async def close(self) -> None:
        """Commit what is left and end; raises `StoreUnavailable` where it cannot."""
        for handle in self._upkeep:
            handle.cancel()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._checkpoint is not None:
            await asyncio.wait([self._checkpoint])
        self._flush()

    # Commits.

    def _commit(self) -> None:
        """Commit, and tell those who wait for it."""
        waiting, self._waiting = self._waiting, []
        for handle in (self._turn, self._later):
            if handle is not None:
                handle.cancel()
        self._turn = self._later = None
        try:
            self._flush(*((_prove,) if self._failure else ()))
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for ever
            self._failed(error, waiting)
            return
        if self._failure:
            self._failure = ""
            self._database.be_patient(_PATIENCE_MS)
            _log.warning("use is written again, nothing was lost")
        for future in waiting:
            if not future.done():  # its call was cancelled
                future.set_result(None)

    def _failed(self, error: Exception, waiting: list[asyncio.Future[None]]) -> None:
        """Have it tried again, and tell those who wait that they cannot be sent."""
        self._later = self._loop.call_later(_AGAIN_S, self._commit)
        known = isinstance(error, StoreUnavailable)
        why = str(error) if known else type(error).__name__  # it may quote a name
        if not self._failure:
            self._database.be_patient(0)
            _log.error("use is not written and will be tried again: %s", why)
        self._failure = why
        for future in waiting:
            if not future.done():
                future.set_exception(StoreUnavailable(why))

    def _flush(self, *also: Write) -> None:
        if self._spend:
            also = (*also, self._write_spend)
        if also or self._journal.is_behind:
            self._journal.flush(*also)
            self._spend.clear()
            self._grown = True

    def _write_spend(self, connection: sqlite3.Connection) -> None:
        connection.executemany(
            _ADD,
            [
                (_date(day), *map(_storable, names), *sums)
                for (day, *names), sums in self._spend.items()
            ],
        )

    # Upkeep.

    def _check(self) -> None:
        """Move what was committed from the log into the file, in a thread."""
        if self._grown and (self._checkpoint is None or self._checkpoint.done()):
            self._grown = False
            self._checkpoint = self._loop.run_in_executor(
                None, self._database.checkpoint
            )
        self._upkeep[0] = self._loop.call_later(_CHECKPOINT_S, self._check)

    def _prune(self, after: int) -> None:
        """Forget what no limit counts any more, a slice at a time."""
        try:
            more = self._journal.prune(self._clock.now_us(), after)
        except StoreUnavailable:
            more = None  # there is another time
        delay_s = _PRUNE_S if more is None else _PRUNE_STEP_S
        self._upkeep[1] = self._loop.call_later(delay_s, self._prune, more or 0)


def _prove(connection: sqlite3.Connection) -> None:
    """Write a page that nobody reads: a charge and its refund come to nothing.

    And a transaction of nothing is committed on any disk, one without room as well.
    """
    connection.execute("PRAGMA user_version=0")


def _storable(name: str) -> str:
    """Return a name that can be written to a file, whoever made it up."""
    return name.encode("utf-8", "replace").decode()


def _date(day: int) -> str:
    return datetime.date.fromordinal(_EPOCH + day).isoformat()
