"""Arms of our own: Ratekeeper told more or less of a provider, and the bare SDK."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from benchmarks.workload import SECOND
from ratekeeper import AsyncLimiter, MemoryStore
from ratekeeper.core.policy import Account
from ratekeeper.providers.catalog import GUARD_US, find_provider

if TYPE_CHECKING:
    from benchmarks.provider import Answer
    from benchmarks.workload import Call, Case
    from ratekeeper.grant import Grant
    from ratekeeper.testing import ManualClock


class Told(StrEnum):
    """What Ratekeeper was told of the provider."""

    MODEL = "model known"  # how it enforces, and how long a call may be in flight
    FLIGHT = "paced"  # amounts, and how long a call may be in flight
    AMOUNTS = "amounts alone"
    NOTHING = "learned"


class Ratekeeper:
    """Ratekeeper as a transport uses it: every attempt is a grant of its own.

    Limits whose model is not told are paced, which presumes nothing. Whether unused
    tokens come back is a fact of the provider that every arm knows.
    """

    each_attempt = True

    def __init__(
        self,
        case: Case,
        clock: ManualClock,
        *,
        told: Told = Told.MODEL,
        rpm: int | None = None,
    ) -> None:
        self.name = f"ratekeeper, {told}"
        self._learns = told in {Told.AMOUNTS, Told.NOTHING}
        self._tokens = case.tpm is not None
        self._limiter = AsyncLimiter(
            *_limits(case, told, rpm or case.rpm),
            store=MemoryStore(clock=clock),
            account=_account(case, told),
        )

    async def admit(self, call: Call) -> Grant:
        """Wait in line for a grant."""
        if self._tokens:
            return await self._limiter.acquire(tokens=call.reserved)
        return await self._limiter.acquire()

    async def answered(self, ticket: Grant, call: Call, answer: Answer) -> None:
        """Hand on what the headers show, and settle by what was used."""
        if self._learns:
            ticket.answered(answer.readings)
        if self._tokens:
            ticket.settle(tokens=call.used)
        else:
            ticket.settle()

    async def refused(self, ticket: Grant, call: Call, answer: Answer) -> None:
        """Hand the provider's 429 on: the limit pauses for everyone."""
        del call
        ticket.refused(answer.retry_after_s, readings=answer.readings)


def _account(case: Case, told: Told) -> Account:
    refunds = frozenset({"tokens"}) if case.refunds else frozenset()
    if told is Told.NOTHING:  # whose headers are read as OpenAI's: without a window
        return dataclasses.replace(find_provider("openai").account(), refunds=refunds)
    if told is Told.AMOUNTS:
        return Account(refunds=refunds, guard_us=GUARD_US)
    return Account(refunds=refunds, guard_us=SECOND if case.model.jitter else 0)


def _limits(case: Case, told: Told, rpm: int) -> list[str]:
    if told is Told.NOTHING:
        return ["learned"]
    amounts = [(rpm, "rpm")]
    if case.tpm is not None:
        amounts.append((case.tpm, "tpm"))
    if told is Told.MODEL:
        return [case.model.limit(amount, unit) for amount, unit in amounts]
    return [f"{amount} {unit}" for amount, unit in amounts]


def paced(case: Case, clock: ManualClock) -> Ratekeeper:
    """Ratekeeper that was told amounts and the flight."""
    return Ratekeeper(case, clock, told=Told.FLIGHT)


def untold(case: Case, clock: ManualClock) -> Ratekeeper:
    """Ratekeeper that was told amounts alone."""
    return Ratekeeper(case, clock, told=Told.AMOUNTS)


def learned(case: Case, clock: ManualClock) -> Ratekeeper:
    """Ratekeeper that was told no number at all."""
    return Ratekeeper(case, clock, told=Told.NOTHING)


class BareSDK:
    """An official SDK with its own two retries, and nothing in front."""

    name = "bare SDK (2 retries)"
    each_attempt = False

    def __init__(self, case: Case, clock: ManualClock) -> None:
        del case, clock

    async def admit(self, call: Call) -> None:
        """Send at once."""

    async def answered(self, ticket: Any, call: Call, answer: Answer) -> None:
        """Nothing to learn."""

    async def refused(self, ticket: Any, call: Call, answer: Answer) -> None:
        """Nothing to learn."""
