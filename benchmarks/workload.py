"""Workload: who enforces what, and the calls that want in.

Pure and seeded: every arm and the oracle are given the very same calls. The provider's
rules come from the simulator's enforcer, which shares no code with the engine. Times are
integer microseconds since the start of the run.
"""

from __future__ import annotations

import dataclasses
import random
from enum import StrEnum
from typing import TYPE_CHECKING

from ratekeeper.simulator.enforcer import Admitted, Enforcer, Refused, Standing
from ratekeeper.simulator.rules import (
    FixedWindow,
    QuantizedBucket,
    Rule,
    SlidingLog,
    TokenBucket,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECOND = 1_000_000
MINUTE = 60 * SECOND
TPM = 120_000
OVERLOAD = 3  # demand, as a multiple of what the binding limit lets through
SMALLEST, LARGEST = 200, 4_000  # tokens a call really uses
_MEAN_USED = (SMALLEST + LARGEST) // 2
_PROMPT_SHARE = 4  # a quarter of a call's tokens is its prompt: what a 429 wastes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: when it is wanted, what it will use, and the estimate made before."""

    arrives_us: int
    used: int
    reserved: int

    @property
    def prompt(self) -> int:
        """The tokens sent with every attempt, whether it is answered or refused."""
        return self.used // _PROMPT_SHARE


class Shows(StrEnum):
    """What a provider's headers say of its limits."""

    NOTHING = "no headers"
    REMAINING = "limit, remaining"
    RESET = "limit, remaining, reset"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """How a provider holds a limit, and how Ratekeeper is told of it."""

    name: str
    kind: type[Rule]
    told: str  # the rest of the limit string; {burst} is filled in
    burst_s: int | None = None
    jitter: bool = False
    tokens: bool = True  # whether the run with tokens is made too

    def burst(self, amount: int) -> int | None:
        """Return what may go at once where that is less than a minute's worth."""
        if self.burst_s is None:
            return None
        return max(1, amount * self.burst_s // 60)

    def rule(
        self, amount: int, *, unit: str = "requests", refunds: bool = False
    ) -> Rule:
        """Build the provider's own rule."""
        if self.kind is TokenBucket:
            return TokenBucket(
                amount, unit=unit, capacity=self.burst(amount), refunds=refunds
            )
        return self.kind(amount, unit=unit, refunds=refunds)  # type: ignore[call-arg]

    def limit(self, amount: int, unit: str) -> str:
        """Write the limit as Ratekeeper is told it when the model is known."""
        return f"{amount} {unit} {self.told.format(burst=self.burst(amount))}"


MODELS = (
    Model(name="tb60", kind=TokenBucket, told="using token-bucket"),
    Model(name="log", kind=SlidingLog, told="using sliding-window"),
    Model(name="log+jitter", kind=SlidingLog, told="using sliding-window", jitter=True),
    Model(name="fixed", kind=FixedWindow, told="using fixed-window"),
    Model(
        name="tb10",
        kind=TokenBucket,
        told="burst {burst} using token-bucket",
        burst_s=10,
    ),
    Model(
        name="1s-quantum",
        kind=QuantizedBucket,
        told="burst {burst} using token-bucket",
        burst_s=1,
        tokens=False,
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The limits of a run, and whether unused tokens come back: a table of its own."""

    rpm: int
    tpm: int | None = None
    refunds: bool = False

    @property
    def models(self) -> list[Model]:
        """List the providers that an arm which knows them is measured at."""
        return [m for m in MODELS if m.tokens or self.tpm is None]

    @property
    def untold(self) -> list[Model]:
        """List those for an arm that knows none: each also behind jitter."""
        plain = [m for m in self.models if not m.jitter]
        return plain + [
            dataclasses.replace(m, name=f"{m.name}+jitter", jitter=True)
            for m in plain
            if m.kind is not QuantizedBucket
        ]

    def __str__(self) -> str:
        if self.tpm is None:
            return f"{self.rpm} rpm, requests alone"
        back = "come back" if self.refunds else "do not come back"
        return f"{self.rpm} rpm + {self.tpm // 1000}k tpm, unused tokens {back}"


def settings_of(rates: Iterable[int]) -> list[Setting]:
    """List what is measured at these rates."""
    return [
        setting
        for rpm in rates
        for setting in (
            Setting(rpm=rpm),
            Setting(rpm=rpm, tpm=TPM),
            Setting(rpm=rpm, tpm=TPM, refunds=True),
        )
    ]


class Changing(Enforcer):
    """An enforcer whose first limit changes at given instants."""

    def __init__(self, rules: list[Rule], changes: list[tuple[int, int]]) -> None:
        super().__init__(rules)
        self._changes = changes  # when, and to what amount

    def _turn(self, now: int) -> None:
        while self._changes and self._changes[0][0] <= now:
            at, amount = self._changes.pop(0)
            self.rules[0].change(amount, at)

    def admit(self, costs: Mapping[str, int], now: int) -> Admitted | Refused:
        """Admit a call by the limits of that moment."""
        self._turn(now)
        return super().admit(costs, now)

    def wait_us(self, costs: Mapping[str, int], now: int) -> int | None:
        """Tell when to ask again: after a change at the latest."""
        self._turn(now)
        wait = super().wait_us(costs, now)
        if wait is None or not self._changes:
            return wait
        return min(wait, self._changes[0][0] - now)

    def standing(self, now: int) -> list[Standing]:
        """Tell how every limit stands at that moment."""
        self._turn(now)
        return super().standing(now)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One provider under one load."""

    model: Model
    rpm: int
    tpm: int | None = None
    refunds: bool = False  # whether the provider gives unused tokens back
    minutes: int = 20
    skip_minutes: int = 2  # the start, which is not measured
    seed: int = 1
    shows: Shows = Shows.NOTHING
    answer_within_us: int | None = None  # any time up to this; else always as long
    changes: tuple[tuple[int, int], ...] = ()  # when, and to how many requests

    @property
    def answer_us(self) -> int:
        """The time from the provider's count to the answer (and its settlement)."""
        return SECOND if self.tpm else SECOND // 5

    @property
    def until_us(self) -> int:
        """The end of the run."""
        return self.minutes * MINUTE

    @property
    def since_us(self) -> int:
        """The end of the start, which is not measured."""
        return self.skip_minutes * MINUTE

    @property
    def calls_per_minute(self) -> int:
        """What the binding limit lets through, about, at its highest."""
        if self.tpm is None:
            return max(self.rpm, *(amount for _, amount in self.changes), 0)
        mean = _MEAN_USED if self.refunds else _MEAN_USED * 3 // 2
        return min(self.rpm, max(1, self.tpm // mean))

    @property
    def callers(self) -> int:
        """The callers that work the demand off: four seconds of it, at most 40.

        Where answers may be slow, as many again as are under way.
        """
        longest_us = self.answer_within_us or 0
        under_way = self.calls_per_minute * longest_us // MINUTE
        return under_way + max(12, min(40, self.calls_per_minute * OVERLOAD * 4 // 60))

    def enforcer(self, start_us: int) -> Enforcer:
        """Build the provider's side, for a run that starts then."""
        rules = [self.model.rule(self.rpm)]
        if self.tpm is not None:
            rules.append(self.model.rule(self.tpm, unit="tokens", refunds=self.refunds))
        if self.changes:
            return Changing(rules, [(start_us + at, n) for at, n in self.changes])
        return Enforcer(rules)

    def costs(self, call: Call) -> dict[str, int]:
        """Say what the provider counts when a call arrives."""
        if self.tpm is None:
            return {"requests": 1}
        return {"requests": 1, "tokens": call.reserved}

    def counted(self, call: Call) -> int:
        """Say what of the quota an answered call takes in the end."""
        return call.used if self.refunds else call.reserved

    def calls(self) -> list[Call]:
        """Draw the demand of the whole run: Poisson arrivals, uniform sizes."""
        rng = random.Random(self.seed)
        mean_us = MINUTE / (OVERLOAD * self.calls_per_minute)
        calls = []
        at = 0.0
        while at < self.until_us:
            used = rng.randint(SMALLEST, LARGEST)
            reserved = min(2 * used, int(used * rng.uniform(1, 2)) + 1)
            calls.append(Call(arrives_us=int(at), used=used, reserved=reserved))
            at += rng.expovariate(1 / mean_us)
        return calls
