"""What the simulator saw: the figures behind `/_stats`. Every part has a bound."""

from __future__ import annotations

import collections
from typing import Any

from ratekeeper.simulator.rules import MINUTE_US

_MOST_KEYS = 1_000
_MOST_ARRIVALS = 10_000
_MOST_IN_WINDOW = 200_000  # admitted calls a minute that the worst window can count
_SHORT_KEY = 24  # real keys are longer, and are never shown whole
OTHERS = "(others)"


def mask(key: str) -> str:
    """Name a key without telling it: short made-up ones whole, long ones by the ends."""
    if not key:
        return "(none)"
    return key if len(key) <= _SHORT_KEY else f"{key[:8]}…{key[-4:]}"


class Stats:
    """Counts of one simulator since it started or was reset."""

    def __init__(self, now: int) -> None:
        self.since = now
        self.requests = 0
        self.connections = 0
        self.by_status: collections.Counter[int] = collections.Counter()
        self.refused_by_limit: collections.Counter[str] = collections.Counter()
        self.banned = 0
        self.bans = 0
        self.tokens_in_vain = 0
        self.input_tokens_served = 0
        self.output_tokens_served = 0
        self.admitted = 0
        self.client_closed = 0
        self.cut = 0
        self.in_flight = 0
        self.worst_in_flight = 0
        self.worst_minute = 0
        self.worst_minute_tokens = 0
        self._window: collections.deque[tuple[int, int]] = collections.deque()
        self._window_tokens = 0
        self._arrivals: collections.deque[int] = collections.deque(
            maxlen=_MOST_ARRIVALS
        )
        self._keys: dict[str, collections.Counter[str]] = {}

    def renewed(self, now: int) -> Stats:
        """Return counts from zero, except of what is open now."""
        fresh = Stats(now)
        fresh.in_flight = fresh.worst_in_flight = self.in_flight
        return fresh

    def arrived(self, now: int) -> int:
        """Count a request; return its number, from 1."""
        self.requests += 1
        self._arrivals.append(now)
        return self.requests

    def answered(self, status: int, key: str) -> None:
        """Count a response by its status, and whose it was."""
        self.by_status[status] += 1
        counts = self._of(key)
        counts["requests"] += 1
        counts[str(status)] += 1

    def _of(self, key: str) -> collections.Counter[str]:
        shown = mask(key)
        if shown not in self._keys and len(self._keys) >= _MOST_KEYS:
            shown = OTHERS
        return self._keys.setdefault(shown, collections.Counter())

    def admit(self, now: int, tokens: int) -> None:
        """Count an admitted call in the window of 60 s that ends now."""
        self.admitted += 1
        window = self._window
        window.append((now, tokens))
        self._window_tokens += tokens
        while window[0][0] + MINUTE_US <= now or len(window) > _MOST_IN_WINDOW:
            self._window_tokens -= window.popleft()[1]
        self.worst_minute = max(self.worst_minute, len(window))
        self.worst_minute_tokens = max(self.worst_minute_tokens, self._window_tokens)

    def entered(self) -> None:
        """Count a call that is now in flight."""
        self.in_flight += 1
        self.worst_in_flight = max(self.worst_in_flight, self.in_flight)

    def left(self) -> None:
        """Count a call that no longer is."""
        self.in_flight -= 1

    def served(self, key: str, input_tokens: int, output_tokens: int) -> None:
        """Count the tokens of an answer, whole or cut, and whose they were."""
        counts = self._of(key)
        counts["input_tokens"] += input_tokens
        counts["output_tokens"] += output_tokens
        self.input_tokens_served += input_tokens
        self.output_tokens_served += output_tokens

    def as_json(self, now: int) -> dict[str, Any]:
        """Return every figure, for `/_stats`."""
        return {
            "seconds": max(0, now - self.since) / 1_000_000,
            "requests": self.requests,
            "admitted": self.admitted,
            "by_status": {str(s): n for s, n in sorted(self.by_status.items())},
            "refused_by_limit": dict(self.refused_by_limit),
            "banned": self.banned,
            "bans": self.bans,
            "tokens_in_vain": self.tokens_in_vain,
            "tokens_served": self.input_tokens_served + self.output_tokens_served,
            "input_tokens_served": self.input_tokens_served,
            "output_tokens_served": self.output_tokens_served,
            "worst_minute_requests": self.worst_minute,
            "worst_minute_tokens": self.worst_minute_tokens,
            "in_flight": self.in_flight,
            "worst_in_flight": self.worst_in_flight,
            "connections": self.connections,
            "client_closed": self.client_closed,
            "cut": self.cut,
            "by_key": {key: dict(counts) for key, counts in list(self._keys.items())},
            "arrivals_us": list(self._arrivals),
        }
