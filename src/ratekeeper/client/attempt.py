"""One attempt of a call, from the question to the settlement.

It knows what an outcome means for the limits and nothing of sockets or HTTP libraries:
whoever sends tells it what happened. Whatever order the endings come in (the last
byte, a close, an error, a cancelled task, the garbage collector), a grant is settled
exactly once.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ratekeeper.client.cashier import Cashier, cost, nothing, partly
from ratekeeper.client.decode import decode_head, decoder
from ratekeeper.client.lessons import lessons_of
from ratekeeper.client.tries import Tries
from ratekeeper.core import units
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.errors import ConfigError
from ratekeeper.providers.facts import Endpoint, Kind, RequestFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ratekeeper.client.cashier import Bill
    from ratekeeper.client.decode import Decoder
    from ratekeeper.client.prices import Prices
    from ratekeeper.core.limits import Limit
    from ratekeeper.core.reading import Reading
    from ratekeeper.grant import Grant
    from ratekeeper.limiter import AsyncLimiter, Limiter
    from ratekeeper.providers.catalog import Provider
    from ratekeeper.providers.facts import Meter, Verdict

OPTIONS = frozenset(["again", "also", "hold", "key", "priority", "timeout"])
_PAUSES = frozenset([Kind.THROTTLED, Kind.RAMP, Kind.STOPPED])
_REFUSED = 429  # whatever else it means, it is not paid for
_KEEPS = frozenset([Kind.OVERLOADED, Kind.TRANSIENT])
_ANY = RequestFacts(endpoint=Endpoint.CHAT)  # to see which units a provider counts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What an attempt asks of the limiter: the request's facts and `acquire`'s terms."""

    facts: RequestFacts
    terms: Mapping[str, Any]
    bill: Mapping[str, Bill]  # by currency: how the call is paid for
    retry: bool = False  # an SDK sends it again by itself


class Counter:
    """Puts a provider's view of requests into the terms of one limiter."""

    def __init__(
        self,
        limiter: Limiter | AsyncLimiter,
        provider: Provider,
        prices: Prices | None = None,
    ) -> None:
        self.limiter = limiter
        self.provider = provider
        self.tries = Tries(provider.name)
        self.lessons = lessons_of(limiter._store)  # noqa: SLF001 - learned beside it
        self.now_us: Callable[[], int] = limiter._store.now_us  # noqa: SLF001 - readings are in its time
        self.units = frozenset(provider.costs(_ANY).reserved)
        self._cashier = Cashier(provider, prices)
        for limit in limiter.limits:
            if limit.is_money:
                self._cashier.open(limit)
            elif limit.unit not in {CONCURRENT, *self.units}:
                msg = (
                    f"the limit '{limit}' counts {limit.unit}, which a request to "
                    f"{provider.name} does not state: expected one of "
                    f"{', '.join(sorted(self.units))}"
                )
                raise ConfigError(msg)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        timeout: float | None,
        again: bool,
        options: Mapping[str, Any] | None = None,
    ) -> Ask:
        """Read a request, and say what it asks for; `options` are the caller's own.

        `again` says that an SDK has sent it before.
        """
        options = options or {}
        if not OPTIONS.issuperset(options):
            unknown = ", ".join(sorted(set(options) - OPTIONS))
            msg = (
                f"unknown request option {unknown}: expected "
                f"{', '.join(sorted(OPTIONS))}"
            )
            raise ConfigError(msg)
        read = self.provider.read_request(method, path, body)
        key, also = self._whose(read.model, options)
        facts = self.lessons.corrected(self.provider.name, read, key)
        costs = self.provider.costs(facts)
        fronts = [(self.limiter, key), *also]
        limits = [limit for front, of in fronts for limit in front._amounts(of)]  # noqa: SLF001 - as they are now
        amounts = reserve(limits, costs.charged, costs.reserved)
        terms = {"timeout": timeout, "again": again, **options}
        terms.update(key=key, also=also, **amounts)
        bill: Mapping[str, Bill] = {}
        owed = [limit for limit in limits if limit.is_money]
        if owed:
            # A budget is never passed: no lesson makes a call cheaper.
            worst = max(read, facts, key=lambda one: one.input_tokens)
            bill, most = self._cashier.most(owed, worst, method, path, body)
            terms.update(most)
        return Ask(facts=facts, terms=terms, bill=bill, retry=again)

    def _whose(
        self, model: str, options: Mapping[str, Any]
    ) -> tuple[str, tuple[tuple[Limiter | AsyncLimiter, str], ...]]:
        """Return whose limits a call is held to: the key, and who else must grant.

        Each model has limits of its own: learned ones must not be mixed. Those told
        beside them hold for all models.
        """
        key = options.get("key", "")
        also = tuple(options.get("also", ()))
        if not self.limiter.is_learned:
            return key, also
        beside = self.limiter._beside  # noqa: SLF001 - its other half
        if beside is not None:
            also = ((beside, key), *also)
        return f"{key} {model}".strip(), also


def reserve(
    limits: Iterable[Limit], charged: Mapping[str, int], reserved: Mapping[str, int]
) -> dict[str, int]:
    """Say what to take from each unit that is limited.

    As a precaution no more is held than a limit ever holds, but never less than is
    charged: a call the provider cannot admit is refused here.
    """
    amounts: dict[str, int] = {}
    for limit in limits:
        unit = limit.unit
        if unit != CONCURRENT and not limit.is_money:
            held = amounts.get(unit, reserved.get(unit, 0))
            amounts[unit] = max(charged.get(unit, 0), min(held, limit.amount))
    return amounts


class Attempt:
    """A granted attempt on its way; every way to end it may be called at any time."""

    def __init__(self, counter: Counter, ask: Ask, grant: Grant) -> None:
        self._counter = counter
        self._ask = ask
        self._open = [grant]  # popped once, by whichever ending is first
        self._meter: Meter | None = None
        self._decode: Decoder | None = None
        self._answered_us = 0

    def unsent(self) -> None:
        """Give all back: the provider never heard of it."""
        self._end(lambda grant: grant.cancel())

    def unanswered(self) -> None:
        """Count it in full: it was sent, and nobody knows what became of it."""
        self._end(lambda grant: grant.release())

    def answered(self, headers: Mapping[str, str], *, plain: bool = False) -> None:
        """Take in the headers of a good answer and make ready for its body.

        `plain` says that the body has been decoded already.
        """
        provider = self._counter.provider
        self._answered_us = self._counter.now_us()
        for grant in self._open:
            grant.answered(provider.readings(headers, self._answered_us))
        self._meter = provider.meter(self._ask.facts, headers.get("content-type", ""))
        self._decode = decoder("" if plain else headers.get("content-encoding", ""))

    def judge(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        plain: bool = False,
    ) -> Verdict:
        """Read an error answer, and do what it says to the limits."""
        encoding = "" if plain else headers.get("content-encoding", "")
        text = decode_head(encoding, body)
        provider, now_us = self._counter.provider, self._counter.now_us()
        verdict: Verdict = provider.judge(status, headers, text, now_us)
        readings = provider.readings(headers, now_us)
        unused = self._unused(verdict)
        if status == _REFUSED:
            unused.update(nothing(self._ask.bill))
        self._end(lambda grant: _turned_away(grant, verdict, unused, readings))
        return verdict

    def feed(self, data: bytes) -> None:
        """Look at bytes of a good answer as they pass."""
        if self._meter is not None and self._decode is not None and self._open:
            for plain in self._decode(data):
                self._meter.feed(plain)

    def end(self) -> None:
        """Settle by what the answer said, or by what flowed of it."""
        self._end(self._settle)

    def _settle(self, grant: Grant) -> None:
        meter, provider, facts = self._meter, self._counter.provider, self._ask.facts
        if meter is None:
            grant.release()
            return
        usage, failure = meter.usage(), meter.failure(self._answered_us)
        if usage is None:
            flowed = meter.flowed()
            actual = provider.partial(facts, flowed)
            actual.update(partly(self._ask.bill, facts, flowed))
        else:
            actual = provider.charged(facts, usage)
            actual.update(cost(self._ask.bill, usage))
        if failure is None:
            if usage is not None:
                key = self._ask.terms.get("key")
                self._counter.lessons.learn(provider.name, facts, key, usage)
            grant.settle(**actual)
        else:
            _turned_away(grant, failure, actual or self._unused(failure))

    def _unused(self, verdict: Verdict) -> dict[str, int]:
        """Return the settlement of a call that was turned away: it used nothing."""
        if verdict.kind in _KEEPS:
            return {}  # nobody knows: the reservation stands
        units = [unit for unit in self._counter.units if unit != "requests"]
        return {**dict.fromkeys(units, 0), **nothing(self._ask.bill)}

    def _end(self, ending: Callable[[Grant], None]) -> None:
        try:
            grant = self._open.pop()
        except IndexError:
            return
        ending(grant)

    def __del__(self) -> None:
        """Settle an answer that was dropped without being closed."""
        self.end()


def _turned_away(
    grant: Grant,
    verdict: Verdict,
    actual: dict[str, int],
    readings: Sequence[Reading] = (),
) -> None:
    """Settle a call by a verdict; one that speaks of a limit pauses it for everyone."""
    if verdict.kind not in _PAUSES:
        grant.answered(readings or None)
        grant.settle(**actual)
        return
    hint_us, window_us = verdict.retry_after_us, verdict.window_us
    grant.refused(
        None if hint_us is None else units.seconds(hint_us),
        unit=verdict.unit,
        window_s=None if window_us is None else units.seconds(window_us),
        readings=readings,
        ramp=verdict.kind is Kind.RAMP,
        **actual,
    )
