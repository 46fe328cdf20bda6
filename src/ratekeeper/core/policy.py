"""Policy: the limits one caller is held to, and how their meters start.

A policy says what a call costs in each of its limits; it holds no state.
Our own limits refund what was not used and start full; an account's follow the
provider's refund rule and start cold, with a guard for the time a call is in flight.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING

from ratekeeper.core.gcra import Bucket
from ratekeeper.core.learning import Learner
from ratekeeper.core.limits import CONCURRENT, Algorithm, Limit, parse_limits
from ratekeeper.core.overlay import Noted, laid_over
from ratekeeper.core.paced import Paced
from ratekeeper.core.slots import Adaptive, Gate, Slots
from ratekeeper.core.units import CURRENCIES, DAY, HOUR, MAX_AMOUNT, MINUTE, count
from ratekeeper.core.window import FixedWindow, SlidingWindow
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from ratekeeper.core.meter import Meter
    from ratekeeper.core.overlay import Page

LEARNED = "learned"  # said instead of limits: they are read from headers
FROM_REFUSALS = "learned from refusals"  # or, where headers show none, felt for

_SLIP = 0.8  # how near to the word `learnd`, `leaned` and `learning` are, at least

HOLD = 15 * MINUTE  # the longest life of a concurrency slot unless said

_METERS: dict[Algorithm | None, type[Meter]] = {
    Algorithm.TOKEN_BUCKET: Bucket,
    Algorithm.LEAKY_BUCKET: Bucket,
    Algorithm.SLIDING_WINDOW: SlidingWindow,
    Algorithm.FIXED_WINDOW: FixedWindow,
    Algorithm.PACED: Paced,
    Algorithm.CONCURRENCY: Slots,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One limit of a policy with what is known about who enforces it."""

    limit: Limit  # its algorithm is said
    text: str  # as the operator wrote it, in canonical form
    kind: type[Meter] | None = None  # None: as its algorithm says
    refunds: bool = True
    cold: bool = False
    guard_us: int = 0
    learns: bool = False
    is_told: bool = True  # whether the amount is known before a header shows it
    shadow: bool = False  # decided and counted, not enforced

    @property
    def is_durable(self) -> bool:
        """Whether its use is to outlive the process: money, and windows of days."""
        return self.is_told and (self.limit.is_money or self.limit.window_us >= DAY)

    def kind_with(self, page: Page | None) -> type[Meter]:
        """Return the algorithm with what lies over it."""
        kind = self.kind or _METERS[self.limit.algorithm]
        return laid_over(kind, noted=page is not None, shadow=self.shadow)

    def meter(self, now: int, page: Page | None = None) -> Meter:
        """Build the meter of this rule for a key first seen at `now`.

        With a page, which a rule that `is_durable` has, it starts from what is there.
        """
        meter = self.kind_with(page)(self.limit, guard_us=self.guard_us)
        if page is not None:
            assert isinstance(meter, Noted)  # as its kind says
            meter.restore(page, now)
        meter.text = self.text
        meter.refunds = self.refunds
        if self.learns and self.limit.window_us:
            meter.learner = Learner(meter, self.limit if self.is_told else None)
        if self.cold:
            meter.start_cold(now, Bucket(self.limit, paced=True))
        return meter


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is known about the provider behind a policy's limits.

    `refunds` names the units whose unused cost the provider gives back; `guard_us` is
    the usual time between sending a call and the provider counting it, at most. `shows`
    are the limits its headers may show: units, and windows in microseconds.
    """

    unsaid: Algorithm = Algorithm.PACED
    refunds: frozenset[str] = frozenset()
    cold: bool = True
    guard_us: int = 0
    shows: tuple[tuple[str, int], ...] = ()


def rules_of(
    limits: Iterable[Limit | str],
    account: Account | None = None,
    *,
    shadow: Container[int] = (),
) -> tuple[Rule, ...]:
    """Parse the limits of a policy: our own, or those of a provider's account.

    "learned" stands for those that the account's answers show. `shadow` holds the
    places of those that are only watched: decided and counted, not enforced.
    """
    limits = tuple(limits)
    words = [x for x in limits if isinstance(x, str) and means_learned(x)]
    if words:
        if any(at in shadow and x in words for at, x in enumerate(limits)):
            msg = f"'{LEARNED}' has no shadow: say the limits that are to be watched"
            raise ConfigError(msg)
        rest = [at for at, x in enumerate(limits) if x not in words]
        if not rest:
            return _learned(words, account)
        watched = [place for place, at in enumerate(rest) if at in shadow]
        told = rules_of([limits[at] for at in rest], account, shadow=watched)
        return (*_learned(words, account), *told)
    rules = _told(limits, account)
    return tuple(
        dataclasses.replace(rule, shadow=True, cold=False, learns=False)
        if at in shadow
        else rule
        for at, rule in enumerate(rules)
    )


def _told(limits: Sequence[Limit | str], account: Account | None) -> tuple[Rule, ...]:
    """Return the rules of limits whose amounts are said."""
    said = tuple(x if isinstance(x, Limit) else Limit.parse(x) for x in limits)
    if account is None:
        resolved = parse_limits(said)
        return tuple(
            Rule(limit=limit, text=str(text))
            for limit, text in zip(resolved, said, strict=True)
        )
    return tuple(
        Rule(
            limit=limit,
            text=str(text),
            refunds=limit.is_money
            or limit.unit == CONCURRENT
            or limit.unit in account.refunds,
            cold=account.cold and not limit.is_money and 0 < limit.window_us <= _COLD,
            guard_us=0 if limit.is_money else account.guard_us,
            learns=not limit.is_money and limit.window_us > 0,
        )
        for limit, text in zip(parse_limits(said, account.unsaid), said, strict=True)
    )


_COLD = HOUR  # days start as they are: pacing a day would waste most of it


def means_learned(limit: Limit | str) -> bool:
    """Say whether a limit is the word for one that nobody has told, or a slip of it."""
    first = limit.lower().split()[:1] if isinstance(limit, str) else []
    return bool(difflib.get_close_matches(LEARNED, first, cutoff=_SLIP))


def _learned(words: Sequence[str], account: Account | None) -> tuple[Rule, ...]:
    """Return the rules of limits that nobody has told."""
    said = " ".join(words[0].lower().split())
    if len(words) > 1 or said not in {LEARNED, FROM_REFUSALS}:
        msg = f"limit '{said}': expected '{LEARNED}' once, or '{FROM_REFUSALS}'"
        raise ConfigError(msg)
    if account is None:
        msg = f"'{said}' needs the account it is learned of: account=\"openai\""
        raise ConfigError(msg)
    one = Limit(amount=1, unit=CONCURRENT, window_us=0, algorithm=Algorithm.CONCURRENCY)
    if said == FROM_REFUSALS:
        return (Rule(limit=one, text=said, kind=Adaptive, learns=True),)
    if not account.shows:
        msg = (
            "this provider does not show its limits in every answer: give a limit such "
            f"as '500 rpm', or say '{FROM_REFUSALS}'"
        )
        raise ConfigError(msg)
    return (
        Rule(limit=one, text=said, kind=Gate),
        *(_shown(unit, window_us, account) for unit, window_us in account.shows),
    )


def _shown(unit: str, window_us: int, account: Account) -> Rule:
    """Return the rule of a limit that a header may show: it bounds nothing before."""
    is_short = window_us <= HOUR
    limit = Limit(
        amount=MAX_AMOUNT,
        unit=unit,
        window_us=window_us,
        algorithm=Algorithm.PACED if is_short else Algorithm.SLIDING_WINDOW,
    )
    return Rule(
        limit=limit,
        text=f"{LEARNED} {unit}",
        refunds=unit in account.refunds,
        cold=account.cold and is_short,
        guard_us=account.guard_us,
        learns=True,
        is_told=False,
    )


# What code that knows no limits may always say, whether or not a limit counts it.
COUNTS = frozenset(["requests", "tokens", "input_tokens", "output_tokens"])
_KEYWORDS = ("timeout", "priority", "key", "hold")


def counted(cost: Mapping[str, object], own: Iterable[str]) -> dict[str, int]:
    """Check the costs a caller states: whole numbers >= 0 of units that exist.

    `own` are the units of the limits at hand. Raises `TypeError` for a unit that
    nothing counts: a slip such as `token=500` must not pass unseen.
    """
    units = {*own}
    for unit in cost:
        if unit == CONCURRENT:
            msg = "a call takes one slot: say with hold= how long it may keep it"
            raise TypeError(msg)
        if unit not in units and unit not in COUNTS and unit not in CURRENCIES:
            known = sorted({*units, *COUNTS} - {CONCURRENT})
            near = difflib.get_close_matches(unit, [*known, *_KEYWORDS], n=1)
            hint = f" (did you mean {near[0]}=?)" if near else ""
            msg = f"no limit here counts {unit}={hint}: known are {', '.join(known)}"
            raise TypeError(msg)
    return {unit: count(unit, amount) for unit, amount in cost.items()}


def costs_of(rules: Sequence[Rule], cost: Mapping[str, int], hold_us: int) -> list[int]:
    """Say what a call takes from each limit, in their order.

    `cost` has been `counted`. Raises `TypeError` where a limit counts something the
    call does not state.
    """
    costs = []
    for rule in rules:
        unit = rule.limit.unit
        if unit == CONCURRENT:
            costs.append(hold_us)
        elif unit in cost:
            costs.append(cost[unit])
        elif unit == "requests":
            costs.append(1)
        elif not rule.is_told:
            costs.append(0)
        else:
            msg = f"the limit '{rule.text}' needs {unit}=: say how much the call takes"
            raise TypeError(msg)
    return costs
