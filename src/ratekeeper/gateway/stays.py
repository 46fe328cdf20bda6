"""Stays: which account a prompt's beginning went to last, where the provider caches it.

A provider's prompt cache is an account's own and lives for minutes: a call that begins
alike is cheaper and faster where the last one went. Bounded, in memory; a hint only.
"""

from __future__ import annotations

from collections import OrderedDict

from ratekeeper.core import units

LEAST_TOKENS = 1024  # the shortest prompt that OpenAI, Anthropic and Gemini cache
FULL = 0.9  # of an account's limits: above it the roomiest is better
_BEGINNING = 2048  # bytes
_KEPT_US = 5 * units.MINUTE
MOST = 10_000


class Stays:
    """What went where within the last minutes."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._last: OrderedDict[int, tuple[str, int]] = OrderedDict()

    def find(self, beginning: int, now_us: int) -> str | None:
        """Return the account that a beginning went to, None where it is long ago."""
        account, at_us = self._last.get(beginning, ("", 0))
        return account if account and now_us - at_us < _KEPT_US else None

    def went(self, beginning: int, account: str, now_us: int) -> None:
        """Take note of where it goes."""
        self._last[beginning] = account, now_us
        self._last.move_to_end(beginning)
        if len(self._last) > self._most:
            self._last.popitem(last=False)


def beginning_of(upstream: str, model: str, body: bytes) -> int:
    """Return what stands for the beginning of a prompt."""
    return hash((upstream, model, body[:_BEGINNING]))
