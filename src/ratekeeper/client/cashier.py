"""Cashier: what a call costs at most before it is sent, and what it came to after.

It looks a model up in the price book and refuses to guess: where nobody has said what
a call costs, or how long its answer may get, the call is not sent, and the error says
what to write where.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from ratekeeper.client.prices import book_of, warm
from ratekeeper.core.limits import Limit
from ratekeeper.core.units import Nano
from ratekeeper.errors import ConfigError, PriceUnknown
from ratekeeper.providers.facts import Endpoint, Usage
from ratekeeper.providers.pricing import FAST
from ratekeeper.providers.quote import dearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NoReturn

    from ratekeeper.client.prices import Prices
    from ratekeeper.providers.catalog import Provider
    from ratekeeper.providers.facts import RequestFacts
    from ratekeeper.providers.pricing import PriceBook
    from ratekeeper.providers.quote import Quote

_SAFE = 125  # per cent of an input estimate; an estimate of fewer is raised to it
# Reading a member of an Enum is no small price.
_COUNTS, _OTHER = Endpoint.COUNT_TOKENS, Endpoint.OTHER
_FREE = frozenset(["GET", "HEAD", "OPTIONS", "DELETE"])  # they list, show and remove
_REPORTED = "usd"
_DOLLARS = Limit.parse("$1/month")  # its amount is never asked for
_LONGEST = 80  # characters of a name that is shown


# Models that think where nobody sees it, and are paid for it: what flowed of an answer
# says nothing of what it came to.
_THINKS = re.compile(
    r"(?:.*/)?(?:o[1-9]|gpt-[5-9]|codex|grok-[4-9]"
    r"|gemini-(?:2\.5|[3-9]|(?:flash|pro)(?:-lite)?-latest))",
    re.IGNORECASE,
)


class Ask(NamedTuple):
    """How whoever reads an error gives what lacks: with {} for what to write."""

    prices: str
    rates: str


IN_CODE = Ask("give prices={}", "give prices=price_book(rates={})")


class Bill(NamedTuple):
    """How a call is paid for in one currency; `put` is the input that is held."""

    quote: Quote
    put: int


class Cashier:
    """Says what calls to one provider cost in the currencies of the limits."""

    def __init__(
        self, provider: Provider, prices: Prices | None, ask: Ask = IN_CODE
    ) -> None:
        self._provider = provider
        self._ask = ask
        self._prices = prices
        self._book: PriceBook | None = None if prices is None else book_of(prices)
        # The estimate of a provider that guesses by characters itself is the likely
        # figure; money is held for more than is likely.
        self._margin = max(_SAFE, provider.margin)

    def open(self, limit: Limit) -> PriceBook:
        """Make ready to count by a limit, ahead of any call.

        A currency nobody knows the rate of is a `ConfigError`.
        """
        if self._book is None:
            self._book = book_of(None)
        if self._book.rate(self._provider.name, limit.unit) is None:
            given = f'{{"{limit.unit}": "0.92"}}'
            raise ConfigError(
                f"the limit '{_as_written(limit)}' counts {limit.unit}, and prices are "
                f"in usd: {self._ask.rates.format(given)}, for how much of it buys a "
                "dollar"
            )
        warm()
        return self._book

    def most(
        self,
        limits: Iterable[Limit],
        facts: RequestFacts,
        method: str,
        path: str,
        body: bytes,
        *,
        is_held: bool = True,
    ) -> tuple[dict[str, Bill], dict[str, Nano]]:
        """Return how a call is paid for, and the most it may cost, by currency.

        Raises `PriceUnknown` where nobody can say. What is not held is a price alone:
        how long an answer may get need not be known.
        """
        bill: dict[str, Bill] = {}
        most: dict[str, Nano] = {}
        free = facts.endpoint is _COUNTS or (
            facts.endpoint is _OTHER and method.upper() in _FREE
        )
        for limit in limits:
            unit = limit.unit
            if unit in most:
                continue
            if free:
                most[unit] = Nano()
                continue
            priced = self._priced(limit, facts, path, body, is_held=is_held)
            bill[unit], most[unit] = priced
        return bill, most

    def bill(
        self,
        limits: Iterable[Limit],
        facts: RequestFacts,
        method: str,
        path: str,
        body: bytes,
        watched: Iterable[Limit] = (),
    ) -> tuple[dict[str, Bill], dict[str, Nano]]:
        """Return the same, and a bill in dollars for reports where a price is known.

        For limits that are only watched the price need not be known: it is left out.
        """
        bill, most = self.most(limits, facts, method, path, body)
        for limit in watched:
            if limit.unit not in most:
                with contextlib.suppress(ConfigError):
                    quoted, held = self.most((limit,), facts, method, path, body)
                    bill.update(quoted)
                    most.update(held)
        if _REPORTED not in most:
            with contextlib.suppress(PriceUnknown):
                found, _ = self.most(
                    (_DOLLARS,), facts, method, path, body, is_held=False
                )
                bill.update(found)
        return bill, most

    def _priced(
        self,
        limit: Limit,
        facts: RequestFacts,
        path: str,
        body: bytes,
        *,
        is_held: bool,
    ) -> tuple[Bill, Nano]:
        is_other = facts.endpoint is _OTHER
        name = path.partition("?")[0] if is_other else facts.model
        if facts.is_fast:
            name += FAST
        quote = self._quote(limit, name, body, is_other=is_other)
        for other in facts.others:
            found = self._quote(limit, other, body, is_other=False)
            quote = dearest(quote, found)
        if is_other:
            quote = quote.each(facts.choices)
        put = -(-facts.input_tokens * self._margin // self._provider.margin)
        out = 0 if is_other else quote.longest(facts)
        if out is None and not is_held:
            out = 1
        if out is None:
            raise PriceUnknown(
                f"the request sets no max_tokens, and how long an answer of {name!r} "
                f"may get is not known, so '{_as_written(limit)}' cannot hold its "
                "price and it was not sent: set max_tokens, or "
                + self._given(name, {"max_output": 4096})
            )
        most = quote.worst(put, out)
        if most is None:
            self._refuse(limit, name, is_other=False)
        return Bill(quote, put), Nano(most)

    def _quote(self, limit: Limit, name: str, body: bytes, *, is_other: bool) -> Quote:
        book = self._book or self.open(limit)
        quotes = book.quotes(self._provider.name, name, limit.unit)
        if quotes is None or (is_other and quotes.usual.fee is None):
            self.open(limit)  # a limit of another limiter may be in any currency
            self._refuse(limit, name, is_other=is_other)
        return quotes.of(body)

    def _refuse(self, limit: Limit, name: str, *, is_other: bool) -> NoReturn:
        shown, counted_by = _shown(name), _as_written(limit)
        if is_other:
            raise PriceUnknown(
                f"what a call to {shown} costs is not known, so '{counted_by}' cannot "
                "count it and it was not sent: "
                + self._given(f"*{name}", {"request": "0.04"})
            )
        given = self._given(name, {"input": "2.50", "output": "10"})
        hint = "" if warm() else ", or: pip install 'ratekeeper[prices]'"
        raise PriceUnknown(
            f"no full price of '{shown}' at {self._provider.name} is known, so "
            f"'{counted_by}' cannot count the call and it was not sent: {given}, usd "
            f"for a million tokens{hint}"
        )

    def _given(self, name: str, price: Mapping[str, object]) -> str:
        """Say how to give the price of a model."""
        return self._ask.prices.format(json.dumps({_shown(name): price}))


def _as_written(limit: Limit) -> Limit:
    """Return a limit without the algorithm that money has where none is said."""
    plain = dataclasses.replace(limit, algorithm=None)
    return plain if plain.resolved() == limit else limit


def _shown(name: str) -> str:
    text = name[:_LONGEST]
    return text if text.isprintable() else repr(text)


def cost(bills: Mapping[str, Bill], usage: Usage) -> dict[str, int]:
    """Say what a call came to, now that its answer has told."""
    return {unit: Nano(bill.quote.actual(usage)) for unit, bill in bills.items()}


def partly(
    bills: Mapping[str, Bill], facts: RequestFacts, flowed: int
) -> dict[str, int]:
    """Say what a call came to whose answer did not tell; {}: as reserved.

    Of its input nobody knows more than before it was sent: all that was held is paid.
    """
    if flowed <= 0 or _THINKS.match(facts.model):
        return {}
    if facts.max_output:
        flowed = min(flowed, facts.max_output * facts.choices)
    worst = {unit: bill.quote.worst(bill.put, flowed) for unit, bill in bills.items()}
    return {unit: Nano(most) for unit, most in worst.items() if most is not None}


def held(bills: Mapping[str, Bill], facts: RequestFacts) -> dict[str, int]:
    """Say the most that a call may have come to, of which nobody will know more."""
    found: dict[str, int] = {}
    for unit, bill in bills.items():
        is_other = facts.endpoint is _OTHER
        out = 0 if is_other else bill.quote.longest(facts)
        most = None if out is None else bill.quote.worst(bill.put, out)
        if most is not None:
            found[unit] = Nano(most)
    return found


def nothing(bill: Mapping[str, Bill]) -> dict[str, int]:
    """Say that a call is not paid for."""
    return dict.fromkeys(bill, Nano())
