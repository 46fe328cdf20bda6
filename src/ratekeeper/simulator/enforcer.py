"""Enforcer: all the limits of one provider account, held together.

A call is checked against every rule that counts one of its units; it is admitted by all
or by none. Pure: `now` is an argument in integer microseconds, there is no lock and no
randomness. It reads limits at its edge (`from_limits`) and knows nothing of HTTP.

    enforcer = Enforcer([TokenBucket(60), SlidingLog(120_000, unit="tokens")])
    match enforcer.admit({"requests": 1, "tokens": 900}, now):
        case Admitted() as call:
            enforcer.settle(call, {"tokens": 500}, later)   # cumulative: may be repeated
            enforcer.release(call)                          # frees concurrency slots
        case Refused(rule=rule, wait_us=wait):
            ...
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING

from ratekeeper.core.limits import Algorithm, Limit
from ratekeeper.errors import ConfigError
from ratekeeper.simulator.reset import EveryDay, EveryPeriod
from ratekeeper.simulator.rules import (
    SECOND_US,
    Concurrency,
    FixedWindow,
    Mark,
    QuantizedBucket,
    Rule,
    SlidingLog,
    TokenBucket,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_HOUR_US = 3600 * SECOND_US
_DAY_US = 24 * _HOUR_US
_MONTH_US = 30 * _DAY_US


class Enforcement(StrEnum):
    """How a provider holds a limit that does not say so itself.

    Quantized holds requests: 60 a minute as one a second. Tokens stay in a bucket of a
    minute then, or no call of more than a second's worth could ever pass.
    """

    TOKEN_BUCKET = "token-bucket"
    QUANTIZED = "quantized"
    SLIDING_LOG = "sliding-log"
    FIXED_WINDOW = "fixed-window"


class Admitted:
    """A call that was let in: what each rule took, until it is settled and released."""

    __slots__ = ("_marks", "costs", "released")

    def __init__(
        self, costs: Mapping[str, int], marks: list[tuple[Rule, Mark, int]]
    ) -> None:
        self.costs = costs
        self.released = False
        self._marks = marks


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A call that was not: the rule that keeps it out longest, and for how long.

    `wait_us` is exact if nothing else arrives; None where it is unknown (a concurrency
    slot), and where `never` says that no wait would help.
    """

    rule: Rule
    wait_us: int | None
    never: bool
    requested: int
    used: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one limit stands: what a provider writes into its headers."""

    rule: Rule
    limit: int
    remaining: int
    full_at: int


class Enforcer:
    """The limits of one account. A refused call takes nothing, unless it counts too."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)

    @classmethod
    def from_limits(
        cls,
        limits: Iterable[Limit | str],
        *,
        enforce: Enforcement | str = Enforcement.TOKEN_BUCKET,
        refunds: bool | Sequence[str] = False,
        counts_refused: bool = False,
    ) -> Enforcer:
        """Make an enforcer from the limit language.

        `using` and `burst` in a limit win over `enforce`; days and longer reset at
        midnight UTC unless they say otherwise. `refunds` names the units whose unused
        cost comes back at settle, or all or none of them. `counts_refused` lets a call
        that one rule refuses count in the others.
        """
        rules = []
        for text in limits:
            limit = Limit.parse(text) if isinstance(text, str) else text
            back = refunds if isinstance(refunds, bool) else limit.unit in refunds
            rule = rule_of(limit, enforce=Enforcement(enforce), refunds=back)
            rule.counts_refused = counts_refused and limit.window_us > 0
            rules.append(rule)
        return cls(rules)

    def admit(self, costs: Mapping[str, int], now: int) -> Admitted | Refused:
        """Admit a call by every rule or by none.

        A rule counts a call whose `costs` name its unit; a cost of 0 is still kept out
        while the rule is in debt. Every call takes one concurrency slot.
        """
        refused: Refused | None = None
        fits: list[tuple[Rule, int]] = []
        for rule in self.rules:
            cost = _cost(rule, costs)
            if cost is None:
                continue
            ready = rule.ready_at(cost, now)
            if ready is not None and ready <= now:
                fits.append((rule, cost))
            else:
                refused = _worse(refused, _refusal(rule, cost, ready, now))
        if refused is None:
            marks = [(rule, rule.take(cost, now), cost) for rule, cost in fits]
            return Admitted(costs, marks)
        for rule, cost in fits:
            if rule.counts_refused:
                rule.take(cost, now)
        return refused

    def settle(self, call: Admitted, used: Mapping[str, int], now: int) -> None:
        """True a call up to what it has used so far, per unit.

        The figures are cumulative, so tokens can be debited as they are generated.
        More than was taken is charged; less comes back where the rule gives back.
        """
        marks = call._marks  # noqa: SLF001 - the enforcer's own half of the handle
        for index, (rule, mark, taken) in enumerate(marks):
            actual = used.get(rule.unit)
            if actual is None or rule.window_us == 0:
                continue
            if actual > taken:
                rule.charge(actual - taken, now)
            elif actual < taken and rule.refunds:
                rule.give_back(mark, taken - actual, now)
            else:
                continue
            marks[index] = (rule, mark, actual)

    def release(self, call: Admitted) -> None:
        """End a call: its concurrency slots are free. A second time changes nothing."""
        if not call.released:
            call.released = True
            for rule, mark, _ in call._marks:  # noqa: SLF001 - as above
                rule.release(mark)

    def wait_us(self, costs: Mapping[str, int], now: int) -> int | None:
        """Tell how long until this call is admitted if nothing else arrives.

        None where no time can be named: it never is, or a slot must be freed first.
        """
        longest = 0
        for rule in self.rules:
            cost = _cost(rule, costs)
            if cost is None:
                continue
            ready = rule.ready_at(cost, now)
            if ready is None:
                return None
            longest = max(longest, ready - now)
        return longest

    def standing(self, now: int) -> list[Standing]:
        """Tell how every limit stands."""
        return [
            Standing(
                rule=rule,
                limit=rule.amount,
                remaining=max(0, rule.capacity - rule.used(now)),
                full_at=max(now, rule.full_at(now)),
            )
            for rule in self.rules
        ]


def rule_of(limit: Limit, *, enforce: Enforcement, refunds: bool = False) -> Rule:
    """Make the rule that a parsed limit asks for."""
    if limit.window_us == 0:
        return Concurrency(limit.amount, name=str(limit))
    kind = enforce
    match limit.algorithm:
        case Algorithm.TOKEN_BUCKET:
            kind = Enforcement.TOKEN_BUCKET
        case Algorithm.SLIDING_WINDOW:
            kind = Enforcement.SLIDING_LOG
        case Algorithm.FIXED_WINDOW:
            kind = Enforcement.FIXED_WINDOW
        case Algorithm.LEAKY_BUCKET:
            kind = Enforcement.QUANTIZED
        case Algorithm.PACED:
            message = (
                f"limit '{limit}': paced is how Ratekeeper sends, not how a provider "
                "enforces: expected token-bucket, sliding-window or fixed-window"
            )
            raise ConfigError(message)
        case _ if limit.burst is not None:
            kind = Enforcement.TOKEN_BUCKET
        case _ if limit.resets is not None or limit.window_us >= _DAY_US:
            kind = Enforcement.FIXED_WINDOW
        case _ if kind is Enforcement.QUANTIZED and limit.unit != "requests":
            kind = Enforcement.TOKEN_BUCKET
    return _build(limit, kind, refunds=refunds)


def _build(limit: Limit, kind: Enforcement, *, refunds: bool) -> Rule:
    unit, name = limit.unit, str(limit)
    amount, window_us = limit.amount, limit.window_us
    if kind is Enforcement.TOKEN_BUCKET:
        return TokenBucket(
            amount,
            window_us,
            unit=unit,
            capacity=limit.burst,
            refunds=refunds,
            name=name,
        )
    if kind is Enforcement.QUANTIZED:
        evenly = limit.algorithm is Algorithm.LEAKY_BUCKET
        return QuantizedBucket(
            amount,
            window_us,
            unit=unit,
            quantum_us=1 if evenly else SECOND_US,
            refunds=refunds,
            name=name,
        )
    if kind is Enforcement.SLIDING_LOG:
        return SlidingLog(amount, window_us, unit=unit, refunds=refunds, name=name)
    calendar: EveryDay | EveryPeriod = EveryPeriod(window_us)
    if limit.resets is not None:
        calendar = EveryDay(
            limit.resets.minute_of_day,
            limit.resets.zone,
            months=window_us == _MONTH_US,
        )
    return FixedWindow(
        amount, window_us, unit=unit, calendar=calendar, refunds=refunds, name=name
    )


def _cost(rule: Rule, costs: Mapping[str, int]) -> int | None:
    """What this rule counts of the call; None where it does not concern it."""
    return 1 if rule.window_us == 0 else costs.get(rule.unit)


def _refusal(rule: Rule, cost: int, ready: int | None, now: int) -> Refused:
    return Refused(
        rule=rule,
        wait_us=None if ready is None else ready - now,
        never=cost > rule.capacity,
        requested=cost,
        used=rule.used(now),
    )


def _worse(one: Refused | None, other: Refused) -> Refused:
    """Keep the refusal that lasts longest: never, then unknown, then by the wait."""
    if one is None:
        return other
    return max(one, other, key=_how_long)


def _how_long(refused: Refused) -> tuple[bool, bool, int]:
    return refused.never, refused.wait_us is None, refused.wait_us or 0
