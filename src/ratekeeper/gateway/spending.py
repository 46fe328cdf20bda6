"""What each client key has spent, read from the rows that the ledger writes.

It only reads, and a file in which nothing was ever spent has no such rows.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratekeeper.stores.database import Database

_BY_CURRENCY = """SELECT key, currency, sum(cost_nano), sum(
    CASE WHEN day = :day THEN cost_nano ELSE 0 END) FROM spend
    WHERE day BETWEEN :first AND :day AND cost_nano > 0
    GROUP BY key, currency ORDER BY key, currency"""


@dataclasses.dataclass(slots=True)
class Spent:
    """What one key spent this day and this calendar month, UTC, by currency."""

    day: dict[str, int] = dataclasses.field(default_factory=dict)
    month: dict[str, int] = dataclasses.field(default_factory=dict)


def spent_by_key(database: Database, now_us: int) -> dict[str, Spent]:
    """Return what each key has spent, in billionths; keys that spent nothing lack."""
    today = datetime.datetime.fromtimestamp(now_us // 1_000_000, datetime.UTC).date()
    days = {"day": today.isoformat(), "first": today.replace(day=1).isoformat()}
    found: dict[str, Spent] = {}
    with database.reading() as connection:
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'spend'"
        ).fetchone():
            return found
        for key, currency, month, day in connection.execute(_BY_CURRENCY, days):
            spent = found.setdefault(key, Spent())
            spent.month[currency] = month
            if day:
                spent.day[currency] = day
    return found
