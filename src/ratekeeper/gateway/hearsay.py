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
        self._until: dict[tuple[str, ...], int] = {}  # by model as well
        self._spent: dict[tuple[str, ...], int] = {}  # until when it is earned again

    def heard(self, flow: str, account: str, model: str, wait_us: int, now: int) -> int:
        """Take note that an account refuses calls; return how long others are to wait."""
        busy_us = max(self._spent.get((flow, account), 0) - now, 0)
        for_all_us = max(0, min(wait_us, _OTHERS_US - busy_us // _EARNED_IN))
        _keep(self._spent, (flow, account), now + busy_us + for_all_us * _EARNED_IN)
        if wait_us > for_all_us:
            until_us = now + min(wait_us, _LONGEST_US)
            _keep(self._until, (flow, account, model), until_us)
        return for_all_us

    def wait_us(self, flow: str, account: str, model: str, now: int) -> int:
        """Return for how long a flow stays away from an account, of its own word."""
        return max(0, self._until.get((flow, account, model), 0) - now)


def _keep(
    book: dict[tuple[str, ...], int], key: tuple[str, ...], until_us: int
) -> None:
    """Write down the latest, and forget the oldest where there is no room."""
    until_us = max(until_us, book.pop(key, 0))
    book[key] = until_us
    if len(book) > _MOST:
        del book[next(iter(book))]
