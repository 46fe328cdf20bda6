"""The journal: the use of limits that outlives the process, in an SQLite file.

Use is kept by spans of time: what is taken in a span counts as of its end, so a meter
that starts from the journal denies what it would have denied, and up to a span longer.
It decides nothing and asks no clock. One thread uses it, which is also the only one
that makes meters of the store it is given to; one process has a file's journal.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ratekeeper.core.units import DAY, MINUTE, SECOND
from ratekeeper.stores.claim import Claim

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from ratekeeper.core.limits import Limit
    from ratekeeper.stores.database import Database

    Write = Callable[[sqlite3.Connection], None]

_TABLES = (
    """CREATE TABLE IF NOT EXISTS limits (
        id INTEGER PRIMARY KEY,
        scope TEXT NOT NULL, key TEXT NOT NULL, rule TEXT NOT NULL,
        window_s INTEGER NOT NULL,
        UNIQUE (scope, key, rule))""",
    """CREATE TABLE IF NOT EXISTS used (
        limit_id INTEGER NOT NULL, until_s INTEGER NOT NULL, amount INTEGER NOT NULL,
        PRIMARY KEY (limit_id, until_s)) WITHOUT ROWID""",
)
_ADD = """INSERT INTO used VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"""
_SPANS = DAY // MINUTE  # in a window; a minute each where it is a day
# A cross join is taken in its order: limit by limit, each sought by the primary key.
# What ends a whole span ahead began after now: it counts from now on instead.
_PULL_BACK = """INSERT INTO used
    SELECT id, :now, sum(amount) FROM limits CROSS JOIN used ON limit_id = id
    AND until_s > :now + max(60, window_s / :spans) GROUP BY id
    ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"""
_DROP_AHEAD = """DELETE FROM used WHERE (limit_id, until_s) IN (
    SELECT limit_id, until_s FROM limits CROSS JOIN used ON limit_id = id
    AND until_s > :now + max(60, window_s / :spans))"""
_DROP_UNUSED = """DELETE FROM limits
    WHERE NOT EXISTS (SELECT 1 FROM used WHERE limit_id = id)"""

# What is taken above a limit is debt that the next window pays: it is remembered too.
_WINDOWS = 2
_AT_ONCE = 500  # rows deleted, and limits looked at, before others have their turn


class Page:
    """The use of one limit of one key: what a meter writes to."""

    __slots__ = ("_journal", "_span_us", "limit_id", "row")

    def __init__(
        self, journal: Journal, scope: str, key: str, limit: Limit, limit_id: int | None
    ) -> None:
        self._journal = journal
        self._span_us = span_us(limit)
        window_s = -(-limit.window_us // SECOND)
        self.row = scope, key, _rule(limit), window_s
        self.limit_id = limit_id  # None until it has been written to

    def note(self, amount: int, at_us: int) -> None:
        """Write down what was taken then; a refund is less than 0."""
        self._journal.notes.append((self, at_us // self._span_us, amount))

    def recall(self, now: int) -> list[tuple[int, int]]:
        """Return what was taken, as instants in order and amounts."""
        return self._journal.used(self, now)

    def until_s(self, span: int) -> int:
        """Return the end of a span in epoch seconds."""
        return (span + 1) * self._span_us // SECOND


class Journal:
    """What was used of durable limits, on disk and about to be.

    Raises `ConfigError` where another process has the file's journal, and
    `StoreUnavailable` from whatever reads or writes the file.
    """

    def __init__(self, database: Database) -> None:
        self._claim = Claim(database.path)
        self._database = database
        # Appended to in the midst of anything, a collection of garbage included.
        self.notes: deque[tuple[Page, int, int]] = deque()
        self._unwritten: dict[tuple[Page, int], int] = {}
        try:
            with database.writing() as connection:
                for table in _TABLES:
                    connection.execute(table)
        except BaseException:
            self._claim.release()
            raise

    def close(self) -> None:
        """Let another process have the journal; what was not flushed is lost."""
        self._claim.release()

    def page(self, scope: str, key: str, limit: Limit) -> Page:
        """Return the page of one limit of one key, whatever its amount."""
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT id FROM limits WHERE (scope, key, rule) = (?, ?, ?)",
                (scope, key, _rule(limit)),
            ).fetchone()
        return Page(self, scope, key, limit, None if found is None else found[0])

    def used(self, page: Page, now: int) -> list[tuple[int, int]]:
        """Return what a page has, as instants in order, none later than `now`."""
        self._merge()
        spans: dict[int, int] = {}
        for (other, span), amount in self._unwritten.items():
            if other.row == page.row:
                until_s = page.until_s(span)
                spans[until_s] = spans.get(until_s, 0) + amount
        if page.limit_id is not None:
            since_s = now // SECOND - _WINDOWS * page.row[3]
            with self._database.reading() as connection:
                for until_s, amount in connection.execute(
                    "SELECT until_s, amount FROM used "
                    "WHERE limit_id = ? AND until_s >= ?",
                    (page.limit_id, since_s),
                ):
                    spans[until_s] = spans.get(until_s, 0) + amount
        return [
            (min(until_s * SECOND - 1, now), amount)
            for until_s, amount in sorted(spans.items())
            if amount > 0
        ]

    @property
    def is_behind(self) -> bool:
        """Whether something was noted that is not on disk."""
        return bool(self.notes or self._unwritten)

    def flush(self, *also: Write) -> None:
        """Write all that was noted, and what others have to write, or nothing of it.

        Raises `StoreUnavailable`; what was noted is then kept for the next time.
        """
        self._merge()
        ids: dict[tuple[str, str, str, int], int] = {}
        with self._database.writing() as connection:
            for page, _ in self._unwritten:
                if page.limit_id is None and page.row not in ids:
                    ids[page.row] = _interned(connection, page)
            connection.executemany(
                _ADD,
                [
                    (
                        ids[page.row] if page.limit_id is None else page.limit_id,
                        page.until_s(span),
                        amount,
                    )
                    for (page, span), amount in self._unwritten.items()
                ],
            )
            for write in also:
                write(connection)
        for page, _ in self._unwritten:
            if page.limit_id is None:
                page.limit_id = ids[page.row]
        self._unwritten.clear()

    def _merge(self) -> None:
        """Add up notes of the same limit and span: that bounds what is kept."""
        notes, merged = self.notes, self._unwritten
        while notes:
            page, span, amount = notes.popleft()
            at = page, span
            amount += merged.get(at, 0)
            if amount:
                merged[at] = amount
            else:
                del merged[at]  # a charge and its refund

    # What is no longer needed.

    def begin(self, now: int) -> None:
        """Put right what another run left behind, before a page is asked for.

        Where the clock was ahead then, use that lies in the future counts from now on,
        so that it is over after a window. Limits that nothing is known of are forgotten.
        """
        with self._database.writing() as connection:
            at = {"now": now // SECOND, "spans": _SPANS}
            for statement in (_PULL_BACK, _DROP_AHEAD):
                connection.execute(statement, at)
            connection.execute(_DROP_UNUSED)

    def prune(self, now: int, after: int = 0) -> int | None:
        """Forget a few rows older than their windows; returns where to go on, if at all."""
        now_s = now // SECOND
        with self._database.writing() as connection:
            last = connection.execute(
                "SELECT max(id) FROM "
                "(SELECT id FROM limits WHERE id > ? ORDER BY id LIMIT ?)",
                (after, _AT_ONCE),
            ).fetchone()[0]
            if last is None:
                return None
            deleted = connection.execute(
                "DELETE FROM used WHERE (limit_id, until_s) IN ("
                "SELECT limit_id, until_s FROM limits CROSS JOIN used ON limit_id = id "
                "AND until_s < ? - ? * window_s WHERE id > ? AND id <= ? LIMIT ?)",
                (now_s, _WINDOWS, after, last, _AT_ONCE),
            ).rowcount
        return after if deleted == _AT_ONCE else int(last)


def span_us(limit: Limit) -> int:
    """Return the width of the spans in which use of a limit is kept: whole seconds.

    A calendar window begins on a whole minute: no span reaches into two of them.
    """
    if limit.resets is not None:
        return MINUTE
    return max(1, limit.window_us // _SPANS // SECOND) * SECOND


def _rule(limit: Limit) -> str:
    """Return what stays the same when the amount of a limit is changed."""
    return " ".join(str(part) for part in limit.identity)


def _interned(connection: sqlite3.Connection, page: Page) -> int:
    row = connection.execute(
        "INSERT INTO limits (scope, key, rule, window_s) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET window_s = excluded.window_s RETURNING id",
        page.row,
    ).fetchone()
    return int(row[0])
