"""Arms of our own: Ratekeeper told and untold of the provider's model, and the bare SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.workload import SECOND
from ratekeeper import AsyncLimiter, MemoryStore
from ratekeeper.core.policy import Account

if TYPE_CHECKING:
    from benchmarks.workload import Call, Case
    from ratekeeper.grant import Grant
    from ratekeeper.testing import ManualClock


class Ratekeeper:
    """Ratekeeper as a transport uses it: every attempt is a grant of its own.

    With `known`, the limits say how the provider enforces them, and the guard how long
    a call may be in flight; else they are paced, which presumes nothing.
    """

    each_attempt = True

    def __init__(self, case: Case, clock: ManualClock, *, known: bool = True) -> None:
        self.name = "ratekeeper, model known" if known else "ratekeeper, paced"
        amounts = [(case.rpm, "rpm")]
        if case.tpm is not None:
            amounts.append((case.tpm, "tpm"))
        limits = [
            case.model.limit(amount, unit) if known else f"{amount} {unit}"
            for amount, unit in amounts
        ]
        account = Account(
            refunds=frozenset({"tokens"}) if case.refunds else frozenset(),
            guard_us=SECOND if case.model.jitter else 0,
        )
        store = MemoryStore(clock=clock)
        self._limiter = AsyncLimiter(*limits, store=store, account=account)
        self._tokens = case.tpm is not None

    async def admit(self, call: Call) -> Grant:
        """Wait in line for a grant."""
        if self._tokens:
            return await self._limiter.acquire(tokens=call.reserved)
        return await self._limiter.acquire()

    async def answered(self, ticket: Grant, call: Call) -> None:
        """Settle by what was used."""
        if self._tokens:
            ticket.settle(tokens=call.used)
        else:
            ticket.settle()

    async def refused(self, ticket: Grant, call: Call, retry_after_s: float) -> None:  # noqa: ARG002
        """Hand the provider's 429 on: the limit pauses for everyone."""
        ticket.refused(retry_after_s)


def paced(case: Case, clock: ManualClock) -> Ratekeeper:
    """Ratekeeper that was told amounts alone."""
    return Ratekeeper(case, clock, known=False)


class BareSDK:
    """An official SDK with its own two retries, and nothing in front."""

    name = "bare SDK (2 retries)"
    each_attempt = False

    def __init__(self, case: Case, clock: ManualClock) -> None:
        del case, clock

    async def admit(self, call: Call) -> None:
        """Send at once."""

    async def answered(self, ticket: Any, call: Call) -> None:
        """Nothing to learn."""

    async def refused(self, ticket: Any, call: Call, retry_after_s: float) -> None:
        """Nothing to learn."""
