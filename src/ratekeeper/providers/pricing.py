"""Prices: what somebody wrote down of a model, and the book that finds it.

A price is exact fractions in its own currency; the book compiles it once to a quote in
the currency of a limit, never below the price as written. What is not known is None and
never 0. No file, no price library, no clock.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ratekeeper.core.units import CURRENCIES, NANO
from ratekeeper.errors import ConfigError
from ratekeeper.providers.quote import SCALE, Quote, Quotes, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MILLION = 1_000_000
USD = "usd"
MOST_RATE = Fraction(1_000)  # of a currency, a token: a million times any list price
MOST_FEE = Fraction(10**9)
MOST_TOKENS = 10**9  # of a context or an answer
MOST_QUOTES = 4096  # names of models are the caller's: what is remembered has a bound
LONGEST_NAME = 300  # of a model or a path that is remembered

_LONGEST = 60  # characters of a figure, and of a name that is shown
_SMALLEST = -40  # a power of ten; far below any price, and still no long fraction
_DATED = re.compile(r"(?<=.)[-@]20[0-9]{2}-?[01][0-9]-?[0-3][0-9]\Z", re.ASCII)
_FIELDS = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "request",
    "max_output",
    "context",
    "currency",
)

# What writing to a cache costs over input, where a list names the input alone: the
# makers of Claude charge more, for five minutes and for an hour; all others do not.
_CLAUDE = "claude"
_CLAUDE_WRITE, _CLAUDE_WRITE_1H = Fraction(5, 4), Fraction(2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one token costs, in a call with more than `above` tokens of input."""

    above: int = 0
    input: Fraction | None = None
    output: Fraction | None = None
    cache_read: Fraction | None = None
    cache_write: Fraction | None = None
    cache_write_1h: Fraction | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs, as a list has it; None where the list does not say.

    `tiers` begin with the one above 0. `dearer` are the tiers that hold where a request
    contains a name and a word, such as "service_tier" and "priority". `request` is a
    fee for each call; `max_output` and `context` are the model's longest answer and its
    window, in tokens.
    """

    tiers: tuple[Rates, ...] = (Rates(),)
    currency: str = USD
    request: Fraction | None = None
    max_output: int | None = None
    context: int | None = None
    dearer: tuple[tuple[bytes, bytes, tuple[Rates, ...]], ...] = ()

    def filled(self, below: Price) -> Price:
        """Fill in what this list does not say from another in the same currency.

        What is read from a cache and written to one is priced by whoever says the input.
        """
        if below.currency != self.currency:
            return self
        own = self.tiers[0]
        own_put, own_out = own.input is not None, own.output is not None
        tiers, dearer = self.tiers, self.dearer
        if not (own_put and own_out):
            tiers = _over(own, below.tiers, put=own_put, out=own_out)
            dearer = tuple(
                (name, word, _over(own, rows, put=own_put, out=own_out))
                for name, word, rows in below.dearer
            )
        return dataclasses.replace(
            self,
            tiers=tiers,
            dearer=dearer,
            request=below.request if self.request is None else self.request,
            max_output=self.max_output or below.max_output,
            context=self.context or below.context,
        )


def _over(
    own: Rates, below: tuple[Rates, ...], *, put: bool, out: bool
) -> tuple[Rates, ...]:
    """Lay what one list says of input or output over all tiers of another."""
    found = []
    for row in below:
        top, end = own if put else row, own if out else row
        found.append(dataclasses.replace(top, above=row.above, output=end.output))
    return tuple(found)


FAST = "+fast"  # after the name of a model: its price when it is asked to be faster


class PriceBook:
    """Finds what a model costs: the operator's own word first, then other sources.

    `models` maps names as the provider writes them, or patterns, with or without
    `provider/` in front, to prices for a million tokens. `rates` says how much of a
    currency buys what a dollar buys, for all providers ("eur") or one ("name/eur").
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, object]] | None = None,
        *,
        rates: Mapping[str, object] | None = None,
        sources: Sequence[Callable[[str, str], Price | None]] = (),
    ) -> None:
        self._models = {
            _name(name): read_price(name, said) for name, said in _pairs(models)
        }
        self._rates = {**RATES, **_read_rates(rates)}
        self._sources = (*sources, holysheep)
        self._quotes: dict[tuple[str, str, str], Quotes | None] = {}

    def price(self, provider: str, model: str) -> Price | None:
        """Return what is known of a model's price; None where that is nothing."""
        found: Price | None = None
        if model.endswith(FAST):
            return self._own(provider, model)  # nobody else has prices by speed
        for look in (self._own, *self._sources):
            price = look(provider, model)
            if price is not None:
                found = price if found is None else found.filled(price)
        return found

    def _own(self, provider: str, model: str) -> Price | None:
        name = model.lower()
        names = (f"{provider}/{name}", name)
        for one in (*names, *(_DATED.sub("", one) for one in names)):
            if one in self._models:
                return self._models[one]
        for pattern, price in self._models.items():
            if name.endswith(FAST) and not pattern.endswith(FAST):
                continue
            if any(fnmatch.fnmatchcase(one, pattern) for one in names):
                return price
        return None

    def rate(self, provider: str, currency: str) -> Fraction | None:
        """Return how much of a currency buys what a dollar buys at a provider."""
        found = self._rates.get(f"{provider}/{currency}")
        return self._rates.get(currency) if found is None else found

    def quotes(self, provider: str, model: str, currency: str) -> Quotes | None:
        """Return a model's price in a currency, compiled once; None: unknown."""
        at = (provider, model, currency)
        try:
            return self._quotes[at]
        except KeyError:
            pass
        found = self._compile(provider, model, currency)
        if len(model) <= LONGEST_NAME:
            if len(self._quotes) >= MOST_QUOTES:
                self._quotes.clear()
            self._quotes[at] = found
        return found

    def _compile(self, provider: str, model: str, currency: str) -> Quotes | None:
        price = self.price(provider, model)
        if price is None:
            return None
        there = self.rate(provider, price.currency)
        here = self.rate(provider, currency)
        if there is None or here is None:
            return None
        factor = here / there * NANO * SCALE
        is_claude = _CLAUDE in model.lower()

        def quote(tiers: tuple[Rates, ...]) -> Quote | None:
            rows = [_row(rates, factor, is_claude=is_claude) for rates in tiers]
            known = tuple(row for row in rows if row is not None)
            if len(known) < len(rows):
                # A call that is charged by the call alone is known all the same.
                if price.request is None or len(tiers) > 1 or tiers[0].output:
                    return None
                known = (Row(0, 0, 0, 0, 0, 0, 0),)
            fee = None if price.request is None else _ceil(price.request * factor)
            return Quote(known, fee, price.max_output, price.context)

        usual = quote(price.tiers)
        if usual is None:
            return None
        dearer: dict[bytes, tuple[tuple[bytes, Quote], ...]] = {}
        for name, word, tiers in price.dearer:
            one = quote(tiers)
            if one is None:
                return None
            dearer[name] = (*dearer.get(name, ()), (word, one))
        return Quotes(usual, tuple(dearer.items()))


def _row(rates: Rates, factor: Fraction, *, is_claude: bool) -> Row | None:
    """Compile a tier; None where its input has no price."""
    if rates.input is None:
        return None
    write, write_1h = rates.cache_write, rates.cache_write_1h
    if write is None:
        write = rates.input * (_CLAUDE_WRITE if is_claude else 1)
    if write_1h is None:
        write_1h = max(write, rates.input * _CLAUDE_WRITE_1H) if is_claude else write
    read = rates.input if rates.cache_read is None else rates.cache_read
    put, read_, write_, long = (
        _ceil(rate * factor) for rate in (rates.input, read, write, write_1h)
    )
    out = None if rates.output is None else _ceil(rates.output * factor)
    dearest = max(put, read_, write_, long)
    return Row(rates.above, put, read_, write_, long, out, dearest)


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def read_price(name: str, said: object) -> Price:
    """Read what an operator says of a model; a mistake is a `ConfigError`."""
    where = f"the price of {str(name)[:_LONGEST]!r}"
    if not isinstance(said, Mapping):
        raise ConfigError(
            f"{where}: expected prices for a million tokens, such as "
            '{"input": "2.50", "output": "10"}'
        )
    for field in said:
        if field not in _FIELDS:
            raise ConfigError(
                f"{where}: {str(field)[:_LONGEST]!r} is not known: expected "
                f"{', '.join(_FIELDS)}"
            )
    currency = said.get("currency", USD)
    if not isinstance(currency, str) or currency.lower() not in CURRENCIES:
        raise ConfigError(f"{where}: the currency is an ISO 4217 code, such as usd")
    rates = Rates(
        input=_rate(said, "input", where),
        output=_rate(said, "output", where),
        cache_read=_rate(said, "cache_read", where),
        cache_write=_rate(said, "cache_write", where),
        cache_write_1h=_rate(said, "cache_write_1h", where),
    )
    caches = (rates.cache_read, rates.cache_write, rates.cache_write_1h)
    if rates.input is None and any(rate is not None for rate in caches):
        raise ConfigError(f"{where}: a cache is priced, and input is not")
    return Price(
        tiers=(rates,),
        currency=currency.lower(),
        request=_number(said, "request", where, MOST_FEE),
        max_output=_tokens(said, "max_output", where),
        context=_tokens(said, "context", where),
    )


def _rate(said: Mapping[str, Any], name: str, where: str) -> Fraction | None:
    found = _number(said, name, where, MOST_RATE * MILLION)
    return None if found is None else found / MILLION


def _number(
    said: Mapping[str, Any], name: str, where: str, most: Fraction
) -> Fraction | None:
    if said.get(name) is None:
        return None
    found = figure(said[name], most)
    if found is None:
        raise ConfigError(f"{where}: {name} is no price: expected 0 to {most}, as 2.50")
    return found


def _tokens(said: Mapping[str, Any], name: str, where: str) -> int | None:
    value = said.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= MOST_TOKENS:
        raise ConfigError(f"{where}: {name} is a number of tokens, as 16384")
    return value


def figure(value: object, most: Fraction) -> Fraction | None:
    """Read a number exactly as it is written; None where it is none from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        text = repr(value) if isinstance(value, float) else str(value)
        number = Decimal(text) if len(text) <= _LONGEST else None
    except (InvalidOperation, ValueError):
        return None
    if number is None or not number.is_finite() or number < 0:
        return None
    if number and not _SMALLEST <= number.adjusted() <= -_SMALLEST:
        return None
    found = Fraction(number)
    return found if found <= most else None


def _pairs(said: object) -> list[tuple[str, object]]:
    if said is None:
        return []
    if not isinstance(said, Mapping):
        raise ConfigError(
            "prices are a mapping from a model to its price, such as "
            '{"gpt-4o": {"input": "2.50", "output": "10"}}'
        )
    return list(said.items())


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigError("prices are given by the name of a model")
    return name.lower()


def _read_rates(said: object) -> dict[str, Fraction]:
    if said is not None and not isinstance(said, Mapping):
        raise ConfigError('rates are a mapping, such as {"eur": "0.92"}')
    found: dict[str, Fraction] = {}
    for name, value in (said or {}).items():
        code = str(name).lower().rpartition("/")[2]
        rate = figure(value, MOST_FEE)
        if code not in CURRENCIES or not rate:
            raise ConfigError(
                f"the rate {str(name)[:_LONGEST]!r}: expected how much of a currency "
                'buys a dollar, for all ("eur") or one provider ("holysheep/cny")'
            )
        found[str(name).lower()] = rate
    return found


# How much of a currency buys what a dollar buys. The relay sells a dollar's worth for
# one yuan; the official rate is for everybody else. Both dated 2026-11.
RATES: Mapping[str, Fraction] = {
    USD: Fraction(1),
    "cny": Fraction("7.3"),
    "holysheep/cny": Fraction(1),
}

# Dollars for a million tokens of output, from the relay's own list, 2026-11. It names
# no price of input: half a price is none, until the operator gives the other half.
_HOLYSHEEP = {
    "gpt-4o": "15",
    "gpt-4o-mini": "2.50",
    "claude-sonnet-4-20250514": "15",
    "claude-3-5-sonnet-20241022": "15",
    "gemini-2.5-flash": "2.50",
    "deepseek-chat": "0.42",
}


def holysheep(provider: str, model: str) -> Price | None:
    """Return what the relay's own list says of a model."""
    said = _HOLYSHEEP.get(model.lower()) if provider == "holysheep" else None
    return None if said is None else read_price(model, {"output": said})
