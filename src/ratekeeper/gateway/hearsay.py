"""Hearsay: what callers say that a provider said, and how far it binds others.

A client key is trusted with its own calls alone. So a 429 that one reports has others
wait a minute at most, and of ten minutes one; whoever shares the reporter's turn stays
away for all of the time. Pure.
"""

from __future__ import annotations

from ratekeeper.core.units import HOUR, MINUTE

_OTHERS_US = MINUTE  # that a flow may have others wait, one time after another
_EARNED_IN = 10  # as long, that a flow waits until it may do so again
_LONGEST_US = HOUR  # after which it may ask again: what it was told may be a slip
_MOST = 10_000  # remembered; models are whatever callers write


class Hearsay:
    """What has been said of accounts, by flow."""

    def __init__(self) -> None:
        self._away: dict[tuple[str, ...], int] = {}  # until when, by model as well
        self._others: dict[tuple[str, ...], int] = {}  # until when others wait
        self._earned: dict[tuple[str, ...], int] = {}  # until when that is paid for

    def heard(self, flow: str, account: str, model: str, wait_us: int, now: int) -> int:
        """Take note that an account refuses calls; return how long others are to wait.

        Time in which they wait already, as it has said before, is not paid for again.
        """
        whose = flow, account
        owed_us = max(0, self._earned.get(whose, 0) - now)
        since_us = max(now, self._others.get(whose, 0))
        room_us = max(0, _OTHERS_US - -(-owed_us // _EARNED_IN))
        until_us = min(now + wait_us, since_us + room_us)
        paid_us = max(0, until_us - since_us) * _EARNED_IN
        _keep(self._earned, whose, now + owed_us + paid_us)
        _keep(self._others, whose, until_us)
        if until_us < now + wait_us:
            _keep(self._away, (*whose, model), now + min(wait_us, _LONGEST_US))
        return until_us - now

    def wait_us(self, flow: str, account: str, model: str, now: int) -> int:
        """Return for how long a flow stays away from an account, of its own word."""
        return max(0, self._away.get((flow, account, model), 0) - now)


def _keep(
    book: dict[tuple[str, ...], int], key: tuple[str, ...], until_us: int
) -> None:
    """Write down the latest, and forget the oldest where there is no room."""
    book[key] = max(until_us, book.pop(key, 0))
    if len(book) > _MOST:
        del book[next(iter(book))]
