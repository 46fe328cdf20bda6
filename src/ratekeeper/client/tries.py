"""What an SDK's own retries may cost: one budget for all that goes through a door.

An SDK counts the retries of one call, and cannot see that all the others fail as well.
Here they are paid for by answers, as the plain client's are: an outage is not met with
three times the traffic. It keeps no time and sends nothing.
"""

from __future__ import annotations

import threading

from ratekeeper.core.backoff import RetryBudget
from ratekeeper.errors import ProviderOverloaded
from ratekeeper.providers.facts import Kind

THROTTLING = frozenset({Kind.THROTTLED, Kind.RAMP, Kind.STOPPED})


class Tries:
    """Counts answers and failures, and pays for retries while it can."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._budget = RetryBudget()
        self._throttled = False  # what the latest failure was
        self._guard = threading.Lock()

    def pay(self) -> None:
        """Pay for a retry; raises `ProviderOverloaded` where there is nothing left."""
        with self._guard:
            paid = self._budget.spend(throttled=self._throttled)
        if not paid:
            msg = (
                f"{self._provider} has failed too often lately: this call is not sent "
                "again. Retries are paid for by answers; call anew in a while"
            )
            raise ProviderOverloaded(
                msg, status=503, attempts=0, provider=self._provider
            )

    def answered(self) -> None:
        """Take note of a good answer."""
        with self._guard:
            self._budget.succeeded()

    def failed(self, kind: Kind | None = None) -> None:
        """Take note of a failure; no kind: there was no answer."""
        self._throttled = kind in THROTTLING
