"""Upstream: the accounts behind the gateway, and which of them are open.

Which of those takes a call is for `choice.py` to say. An account that the provider has
closed for a while is set aside exactly as long as it said; one that fails again and
again is left alone by its circuit breaker. It sends nothing.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import TYPE_CHECKING

from ratekeeper.core import units
from ratekeeper.core.breaker import Breaker
from ratekeeper.gateway.admit import Way
from ratekeeper.providers.facts import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ratekeeper.client.cashier import Cashier
    from ratekeeper.client.lessons import Lessons
    from ratekeeper.gateway.admit import Crowd
    from ratekeeper.gateway.roster import Caller
    from ratekeeper.providers.catalog import Provider
    from ratekeeper.providers.facts import Dialect, Verdict
    from ratekeeper.stores.keys import Scope, Target

# How long an account is set aside that is closed until somebody sees to it.
_BILLING_US = 5 * units.MINUTE
_REFUSED_KEY_US = units.MINUTE
_OVERLOADED_US = units.SECOND
LONGEST_US = 31 * units.DAY
_MOST_WAYS = 10_000

_FAILS = frozenset([Kind.TRANSIENT, Kind.OVERLOADED])


class Standing:
    """How an account stands with its provider; a reload hands it on as it is."""

    __slots__ = (
        "breaker",
        "crowd",
        "failure",
        "is_announced",
        "is_proved",
        "until_us",
        "why",
    )

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd  # of those who wait for it
        self.breaker = Breaker()
        self.until_us = 0  # it is set aside so long
        self.why = ""
        self.failure = ""  # the last one, for its operator
        self.is_proved = True  # it has answered since it was closed last
        self.is_announced = False  # closed, and not yet that it answers again


class Account:
    """One API key of a provider, as the gateway uses it."""

    def __init__(
        self,
        *,
        name: str,
        upstream: str,
        provider: Provider,
        proxy: str | None,
        headers: Sequence[tuple[str, str]],
        native_headers: Sequence[tuple[str, str]],
        scope: Scope,
        is_learned: bool,
        beside: Scope | None,
        refusals: Scope | None,
        models: Sequence[tuple[Callable[[str], bool], Scope]],
        cashier: Cashier,
        lessons: Lessons,
        now_us: Callable[[], int],
        crowd: Crowd,
    ) -> None:
        self.name = name
        self.upstream = upstream  # the provider, as the config names it
        self.provider = provider
        self.proxy = proxy
        self.headers = tuple(headers)  # what proves the account, and only it
        # As it may come back in a provider's error.
        self._secrets = [value.rpartition(" ")[2].encode() for _, value in headers]
        self.native_headers = tuple(native_headers)  # the same at its own API's root
        self.cashier = cashier
        self.lessons = lessons
        self.now_us = now_us
        self.standing = Standing(crowd)
        self._scope = scope
        self._is_learned = is_learned
        self._beside = beside
        self._refusals = refusals  # of models, where no limit of theirs is kept
        self._models = tuple(models)
        self._ways: dict[tuple[Caller, str], Way] = {}  # by caller and model

    def __repr__(self) -> str:
        return f"<Account {self.name}>"

    @property
    def crowd(self) -> Crowd:
        """Who waits for it."""
        return self.standing.crowd

    @property
    def breaker(self) -> Breaker:
        """What leaves it alone where it fails."""
        return self.standing.breaker

    @property
    def is_proved(self) -> bool:
        """Whether it has answered since it was closed last."""
        return self.standing.is_proved

    def masked(self, text: bytes) -> bytes:
        """Return what a provider wrote without the account's key in it."""
        for secret in self._secrets:
            text = text.replace(secret, b"[key]")
        return text

    def targets(self, model: str) -> list[Target]:
        """Return whose limits a call to a model goes through here."""
        found: list[Target] = [
            (scope, "") for fits, scope in self._models if fits(model)
        ]
        # Each model has limits of its own: learned ones must not be mixed.
        found.append((self._scope, model if self._is_learned else ""))
        if self._beside is not None:
            found.append((self._beside, ""))
        if self._refusals is not None and model:
            found.append((self._refusals, model))
        return found

    def way(self, caller: Caller, model: str) -> Way:
        """Return whose limits a caller's calls to a model go through here."""
        is_by_model = self._is_learned or self._models or self._refusals is not None
        key = caller, model if is_by_model else ""
        found = self._ways.get(key)
        if found is None or not found.is_current:
            if len(self._ways) >= _MOST_WAYS:
                self._ways.clear()
            found = self._ways[key] = Way(caller.targets, self.targets(model))
        return found

    def wait_us(self, now: int) -> int:
        """Return how long it is closed, whatever its limits say; 0: it is open."""
        standing = self.standing
        return max(standing.until_us - now, standing.breaker.wait_us(now), 0)

    def why(self, now: int) -> str:
        """Say why it is closed."""
        standing = self.standing
        is_aside = standing.until_us > now
        return standing.why if is_aside else f"it fails: {standing.failure}"

    def take_over(self, other: Account) -> None:
        """Stand as the account does that a reload has replaced by this one.

        Calls under way still go by the other: what they come to concerns both.
        """
        if (self.headers, self.provider.base_url) == (
            other.headers,
            other.provider.base_url,
        ):
            self.standing = other.standing
        else:  # it is another one, and open
            self.standing.is_announced = other.standing.is_announced

    def succeeded(self, now: int) -> None:
        """Take note of an answer."""
        standing = self.standing
        standing.breaker.succeeded()
        if now >= standing.until_us:  # else it may be to a call from before
            standing.is_proved = True

    def failed(self, failure: str, now: int) -> None:
        """Take note that no answer came, or one that is an error."""
        standing = self.standing
        standing.failure = failure
        standing.breaker.failed(now)
        standing.is_proved = standing.is_proved and standing.breaker.is_closed

    def judged(self, verdict: Verdict, now: int) -> None:
        """Heed an error answer; what it says of limits is the engine's to heed."""
        hint = verdict.retry_after_us
        match verdict.kind:
            case Kind.BILLING:
                self._set_aside("billing", hint or _BILLING_US, now)
            case Kind.UNAUTHORIZED:
                self._set_aside("key refused", hint or _REFUSED_KEY_US, now)
            case Kind.OVERLOADED:
                self._set_aside("overloaded", hint or _OVERLOADED_US, now)
            case _:
                pass
        if verdict.kind in _FAILS:
            self.failed("its answers are errors", now)
        elif verdict.kind is Kind.UNAUTHORIZED or verdict.kind is Kind.BILLING:
            self.breaker.given_up()  # it says nothing of how the provider does
        else:
            self.succeeded(now)

    def _set_aside(self, why: str, for_us: int, now: int) -> None:
        until_us = now + min(for_us, LONGEST_US)
        standing = self.standing
        if until_us > standing.until_us:
            standing.until_us, standing.why = until_us, why
            standing.is_proved = False


@dataclasses.dataclass(frozen=True, slots=True)
class Upstream:
    """One configured provider: its accounts, and the models it is meant for."""

    name: str
    dialects: frozenset[Dialect]
    accounts: tuple[Account, ...]
    patterns: tuple[str, ...]

    def speaks(self, dialect: Dialect) -> bool:
        """Say whether calls in a dialect may go to one of its accounts."""
        return dialect in self.dialects and bool(self.accounts)

    def is_for(self, name: str) -> bool:
        """Say whether a model was named for it."""
        return any(fits(pattern, name) for pattern in self.patterns)


def fits(pattern: str, model: str) -> bool:
    """Say whether a pattern such as `gpt-4o*` fits a model's name."""
    return fnmatch.fnmatchcase(model, pattern)


def open_ones(accounts: Iterable[Account], now: int) -> tuple[list[Account], int]:
    """Return the accounts that are open, and how long until the first is if none is."""
    found, least = [], LONGEST_US
    for account in accounts:
        wait = account.wait_us(now)
        if wait:
            least = min(least, wait)
        else:
            found.append(account)
    return found, least
