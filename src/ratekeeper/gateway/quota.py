"""Quota: a caller's own limits, as headers of the answers it gets.

In OpenAI's or Anthropic's names, as the caller's SDK reads them, and in those of the
IETF (draft-ietf-httpapi-ratelimit-headers-10). It says nothing of the accounts behind.
Money is in none of them, since none has a name for it, and no limit that is only
watched. Pure.
Invariant: what is left is rounded down, waits are rounded up.
"""

from __future__ import annotations

import datetime
import functools
from typing import TYPE_CHECKING, NamedTuple

from ratekeeper.core import units
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.providers.facts import Dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratekeeper.core.meter import Meter
    from ratekeeper.core.policy import Rule
    from ratekeeper.gateway.reply import Header

_OPENAI = ("requests", "tokens")
_ANTHROPIC = ("requests", "tokens", "input_tokens", "output_tokens")
_MILLISECOND = 1000
_NOTHING = 0, 0, 0  # of a limit that is not shown

# The draft's own name; tokens and units of the operator's are named as limits name them.
_QUOTA_UNITS = {CONCURRENT: "concurrent-requests"}


class _Names(NamedTuple):
    """The headers of one unit; of its windows, that which would refuse first is shown."""

    rows: tuple[int, ...]
    limit: bytes
    remaining: bytes
    reset: bytes


class QuotaHeaders:
    """Writes the headers of a caller's limits; what never changes is written once."""

    __slots__ = ("_anthropic", "_items", "_openai", "_policy")

    def __init__(self, rules: Sequence[Rule]) -> None:
        names = _names(rules)
        self._policy = (
            b"ratelimit-policy",
            ", ".join(
                f'"{name}"{_policy(rule)}'
                for rule, name in zip(rules, names, strict=True)
                if name
            ).encode(),
        )
        self._items = tuple(f'"{one}";r=%d'.encode() if one else b"" for one in names)
        self._openai = tuple(
            _Names(
                rows,
                b"x-ratelimit-limit-" + said,
                b"x-ratelimit-remaining-" + said,
                b"x-ratelimit-reset-" + said,
            )
            for said, rows in _units(rules, _OPENAI)
        )
        self._anthropic = tuple(
            _Names(
                rows,
                b"anthropic-ratelimit-" + said + b"-limit",
                b"anthropic-ratelimit-" + said + b"-remaining",
                b"anthropic-ratelimit-" + said + b"-reset",
            )
            for said, rows in _units(rules, _ANTHROPIC)
        )

    def __len__(self) -> int:
        """Return how many limits there are, shown or not."""
        return len(self._items)

    def write(
        self,
        meters: Sequence[Meter],
        now_us: int,
        dialect: Dialect,
        *,
        refused: bool = False,
    ) -> list[Header]:
        """Return the headers for the meters of the rules, in the rules' order.

        A refusal leaves out when each limit is whole again: to the draft, a
        `Retry-After` must not come before that, and a sliding window's does.
        """
        if not self._policy[1]:
            return []
        readings = []
        shown = []
        at = 0
        for meter in meters:
            item = self._items[at]
            at += 1
            if not item:
                readings.append(_NOTHING)
                continue
            limit = meter.limit
            left = meter.remaining(now_us)
            item %= left
            reset_us = 0
            if limit.window_us:  # nobody knows when a slot becomes free
                reset_us = meter.reset_us(now_us)
                if not refused:
                    item += b";t=%d" % -(-reset_us // units.SECOND)
            readings.append((left, -reset_us, limit.amount))
            shown.append(item)
        if dialect is Dialect.ANTHROPIC:
            headers = _written(self._anthropic, readings, now_us, _moment)
        else:
            headers = _written(self._openai, readings, now_us, _duration)
        headers.append(self._policy)
        headers.append((b"ratelimit", b", ".join(shown)))
        return headers


def _written(
    names: Sequence[_Names],
    readings: Sequence[tuple[int, int, int]],
    now_us: int,
    print_reset: Callable[[int, int], bytes],
) -> list[Header]:
    headers: list[Header] = []
    for rows, limit, remaining, reset in names:
        if len(rows) == 1:
            tightest = readings[rows[0]]
        else:
            tightest = min([readings[row] for row in rows])
        left, before_us, amount = tightest
        headers += (
            (limit, b"%d" % amount),
            (remaining, b"%d" % left),
            (reset, print_reset(-before_us, now_us)),
        )
    return headers


def _units(
    rules: Sequence[Rule], known: Sequence[str]
) -> list[tuple[bytes, tuple[int, ...]]]:
    """Return the units that an API has names for, and the places of their limits."""
    found = []
    for unit in known:
        rows = tuple(
            at
            for at, rule in enumerate(rules)
            if rule.limit.unit == unit and not rule.shadow
        )
        if rows:
            found.append((unit.replace("_", "-").encode(), rows))
    return found


def _names(rules: Sequence[Rule]) -> list[str]:
    """Name each policy by its limit: a key's and its team's may read the same."""
    names: list[str] = []
    for rule in rules:
        name = "" if rule.limit.is_money or rule.shadow else rule.text
        again = sum(one.split(" #")[0] == name for one in names)
        names.append(f"{name} #{again + 1}" if name and again else name)
    return names


def _policy(rule: Rule) -> str:
    limit = rule.limit
    unit = _QUOTA_UNITS.get(limit.unit, limit.unit)
    window_s = -(-limit.window_us // units.SECOND)
    return (
        f";q={limit.amount}" + (f";w={window_s}" if window_s else "") + f';qu="{unit}"'
    )


def _duration(wait_us: int, _: int) -> bytes:
    """Print a wait as OpenAI does: 17ms, 1.25s, 6m0s, 24h0m0s."""
    millis = -(-wait_us // _MILLISECOND)
    if millis < 1000:  # noqa: PLR2004 - of a second
        return b"%dms" % millis if millis else b"0s"
    seconds, millis = divmod(millis, 1000)
    minutes, seconds = divmod(seconds, 60)
    fraction = b"" if not millis else (b".%03d" % millis).rstrip(b"0")
    if not minutes:
        return b"%d%ss" % (seconds, fraction)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return b"%dm%d%ss" % (minutes, seconds, fraction)
    return b"%dh%dm%d%ss" % (hours, minutes, seconds, fraction)


def _moment(wait_us: int, now_us: int) -> bytes:
    """Print when a wait is over as Anthropic does: 2026-11-25T07:00:00Z."""
    return _second(-(-(now_us + wait_us) // units.SECOND))


@functools.lru_cache(maxsize=64)  # a second's calls see the same few moments
def _second(epoch_s: int) -> bytes:
    then = datetime.datetime.fromtimestamp(epoch_s, datetime.UTC)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
