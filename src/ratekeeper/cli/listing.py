"""What `ratekeeper keys list` says of client keys: a table for people, facts as JSON.

Of a key it knows name, terms and times; it asks nothing, and neither secret nor hash
is in anything it returns.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Any

from ratekeeper.core.units import format_money, show_money
from ratekeeper.gateway.keys import record_of
from ratekeeper.gateway.keystore import StoredKey, terms_of
from ratekeeper.gateway.spending import Spent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ratekeeper.config.model import ClientKey

_HEAD = ("NAME", "STATE", "TEAM", "CREATED", "EXPIRES", "TODAY", "MONTH", "LIMITS")
_NOTHING = "-"
_DAY = 10  # characters of a moment that are its date


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    said: ClientKey
    state: str
    spent: Spent
    created_us: int | None = None  # None: it stands in the config
    revoked_us: int | None = None
    old_until_us: int | None = None  # while the secret before has its grace


class Listing:
    """The keys of a store and of a config, at one moment."""

    def __init__(
        self,
        *,
        stored: Iterable[StoredKey],
        written: Iterable[ClientKey],
        spent: Mapping[str, Spent],
        now_us: int,
    ) -> None:
        self._now_us = now_us
        self._spent = spent
        self.rows = [
            *(self._row(StoredKey(said=one, created_us=0), None) for one in written),
            *(self._row(one, one.created_us) for one in stored),
        ]

    def _row(self, key: StoredKey, created_us: int | None) -> _Row:
        until_us = key.old_until_us or 0
        state = "active"
        if key.revoked_us is not None:
            state = "revoked"
        elif record_of(key.said).is_expired(self._now_us):
            state = "expired"
        return _Row(
            said=key.said,
            state=state,
            spent=self._spent.get(key.said.name, Spent()),
            created_us=created_us,
            revoked_us=key.revoked_us,
            old_until_us=until_us if until_us > self._now_us else None,
        )

    def lines(self) -> list[str]:
        """Return a table for a person."""
        table = [_HEAD, *(_cells(row) for row in self.rows)]
        if len(table) == 1:
            return []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return [
            "  ".join(
                cell.ljust(width) for cell, width in zip(line, widths, strict=True)
            ).rstrip()
            for line in table
        ]

    def facts(self) -> list[dict[str, Any]]:
        """Return what JSON says."""
        return [_facts(row) for row in self.rows]


def words_of(said: ClientKey) -> list[str]:
    """Return what a key may do, in few words."""
    words = [
        one if isinstance(one, str) else one.limit + " (watched)" * one.shadow
        for one in said.limits
    ]
    if said.priority:
        words.append(said.priority)
    if said.max_wait:
        words.append(f"waits {said.max_wait}")
    if said.allow_models:
        words.append("only " + " ".join(said.allow_models))
    if said.shadow:
        words.append("all only watched")
    return words


def moment(us: int) -> str:
    """Return a moment to the second, in UTC."""
    when = datetime.datetime.fromtimestamp(us // 1_000_000, datetime.UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _cells(row: _Row) -> tuple[str, ...]:
    words = words_of(row.said)
    if row.old_until_us is not None:
        words.append(f"old secret until {moment(row.old_until_us)}")
    return (
        row.said.name,
        row.state,
        row.said.team or _NOTHING,
        "config" if row.created_us is None else moment(row.created_us)[:_DAY],
        row.said.expires or _NOTHING,
        _sums(row.spent.day),
        _sums(row.spent.month),
        ", ".join(words) or _NOTHING,
    )


def _facts(row: _Row) -> dict[str, Any]:
    times = {
        "created": row.created_us,
        "revoked": row.revoked_us,
        "old_key_until": row.old_until_us,
    }
    return {
        "name": row.said.name,
        "state": row.state,
        "source": "config" if row.created_us is None else "store",
        **terms_of(row.said),
        **{name: moment(us) for name, us in times.items() if us is not None},
        "spent_today": _decimals(row.spent.day),
        "spent_this_month": _decimals(row.spent.month),
    }


def _sums(spent: Mapping[str, int]) -> str:
    shown = [show_money(nano, currency) for currency, nano in spent.items()]
    return " + ".join(shown) or _NOTHING


def _decimals(spent: Mapping[str, int]) -> dict[str, str]:
    return {currency: format_money(nano) for currency, nano in spent.items()}
