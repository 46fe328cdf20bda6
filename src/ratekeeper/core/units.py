"""Microseconds, amounts and money: the integers everything else is made of.

Counts are whole numbers, time is whole microseconds, money is whole billionths of a
limit's own currency. Floats exist only at the public edge (`seconds`), and rounding is
against the caller: waits go up.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from ratekeeper.errors import ConfigError

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY
MONTH = 30 * DAY  # a rolling month; `resets` makes it a calendar month

NANO = 1_000_000_000  # money: billionths of the currency

_CENT = 7  # ten to this is a cent in billionths

MAX_AMOUNT = 10**15  # 2^53 is the largest integer a Lua number holds exactly
MAX_MONEY = 10**18  # a billion of the currency
MAX_COST = 10**15  # no call costs more; keeps sums far from any overflow
MAX_WINDOW = 366 * DAY

_LONGEST_WORD = 40
_PLAIN = 10_000  # below, amounts are printed without a suffix
_DAYS_FROM_H = 48
_SUFFIX = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}
_AMOUNT = re.compile(r"([0-9]+(?:_[0-9]+)*)(\.[0-9]+)?([A-Za-z]*)", re.ASCII)

# Words for money that would pass for units of one's own, and the codes they mean.
CURRENCY_WORDS = {
    "dollar": "usd",
    "buck": "usd",
    "euro": "eur",
    "pound": "gbp",
    "yen": "jpy",
    "yuan": "cny",
    "renminbi": "cny",
    "rmb": "cny",
    "rupee": "inr",
    "franc": "chf",
}

# ISO 4217 codes in use; a unit of this name is money, counted in billionths.
CURRENCIES = frozenset(
    [
        "aed",
        "ars",
        "aud",
        "bdt",
        "bgn",
        "brl",
        "cad",
        "chf",
        "clp",
        "cny",
        "cop",
        "czk",
        "dkk",
        "egp",
        "eur",
        "gbp",
        "hkd",
        "huf",
        "idr",
        "ils",
        "inr",
        "jpy",
        "kes",
        "krw",
        "kzt",
        "lkr",
        "mad",
        "mxn",
        "myr",
        "ngn",
        "nok",
        "nzd",
        "pen",
        "php",
        "pkr",
        "pln",
        "qar",
        "ron",
        "rub",
        "sar",
        "sek",
        "sgd",
        "thb",
        "try",
        "twd",
        "uah",
        "usd",
        "vnd",
        "zar",
    ]
)
SIGNS = {"$": "usd", "€": "eur", "£": "gbp"}


def parse_amount(word: str, scale: int = 1) -> int:
    """Read `120k`, `1.5M`, `10_000` as an integer number of 1/`scale`.

    Raises `ValueError` with what was expected.
    """
    match = _AMOUNT.fullmatch(word)
    if match is None or len(word) > _LONGEST_WORD:
        msg = "expected an amount such as 500, 10_000, 120k or 1.5M"
        raise ValueError(msg)
    whole, fraction, suffix = match.groups()
    if suffix not in _SUFFIX:
        hint = " (M is a million)" if suffix == "m" else ""
        msg = f"expected the suffix k, M or B, or none{hint}"
        raise ValueError(msg)
    decimals = (fraction or ".")[1:]
    number = int(whole.replace("_", "") + decimals) * _SUFFIX[suffix] * scale
    ones: int = 10 ** len(decimals)
    amount, rest = divmod(number, ones)
    if rest:
        smallest = "a whole number" if scale == 1 else "at most nine decimals"
        msg = f"expected {smallest}"
        raise ValueError(msg)
    return amount


def format_amount(amount: int) -> str:
    """Print an amount in its canonical form: 500, 15k, 1500k, 2M."""
    if amount < _PLAIN:
        return str(amount)
    for suffix in ("B", "M", "k"):
        if amount % _SUFFIX[suffix] == 0:
            return f"{amount // _SUFFIX[suffix]}{suffix}"
    return str(amount)


def format_money(nano: int) -> str:
    """Print billionths as a decimal without trailing zeros: 50, 0.25."""
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{rest:09}".rstrip("0").rstrip(".")


def show_money(nano: int, currency: str) -> str:
    """Print a sum for a person: to the cent, and tiny ones to two digits.

    What is not nothing never looks like it: $12.50, $0.00001, 0.034 cny.
    """
    step = 10 ** min(max(len(str(nano)) - 2, 0), _CENT)
    whole, rest = divmod((nano + step // 2) // step * step, NANO)
    sum_ = f"{whole}.{f'{rest:09}'.rstrip('0').ljust(2, '0')}"
    return f"${sum_}" if currency == "usd" else f"{sum_} {currency}"


def decimal(nano: int) -> Decimal:
    """Turn billionths into a sum of money, exactly, whatever the caller's context."""
    return Decimal(format_money(nano))


class Nano(int):
    """A sum of money that is in billionths already."""

    __slots__ = ()


def money(value: Decimal | str | int) -> int:
    """Turn a sum of money into billionths, rounded up: a budget is never passed.

    Takes Decimal, str or int. A float is refused: it has already been rounded.
    """
    if type(value) is Nano:
        if not 0 <= value <= MAX_COST * NANO:
            raise ConfigError(_NO_SUM.format("one of so many digits"))
        return int(value)
    if isinstance(value, bool) or not isinstance(value, Decimal | str | int):
        msg = f"money is a Decimal, a string or an int, not {type(value).__name__}"
        raise TypeError(msg)
    if isinstance(value, int):
        if not 0 <= value <= MAX_COST:
            raise ConfigError(_NO_SUM.format(_show(value)))
        return value * NANO
    try:
        if len(str(value)) > _LONGEST_SUM:
            raise InvalidOperation
        number = Decimal(value)
    except InvalidOperation as error:
        raise ConfigError(_NO_SUM.format(_show(value))) from error
    if not number.is_finite() or not 0 <= number <= MAX_COST:
        raise ConfigError(_NO_SUM.format(_show(value)))
    if number.adjusted() < _LEAST:
        return 0 if number == 0 else 1
    # A ratio of integers, as a decimal context may round to a few digits.
    top, bottom = number.as_integer_ratio()
    return -(-top * NANO // bottom)


_LONGEST_SUM = 100  # characters of a sum of money
_LEAST = -30  # ten to this is far below a billionth: it counts as the smallest sum
_NO_SUM = f"money must be a finite sum from 0 to {MAX_COST}, not {{}}"


def _show(value: object) -> str:
    """Print a wrong value, but not a wall of it."""
    if isinstance(value, int) and abs(value) > 10**_LONGEST_WORD:
        return "a far larger number"
    return str(value) if isinstance(value, int) else repr(str(value)[:_LONGEST_WORD])


def count(unit: str, value: object) -> int:
    """Check the cost of a call in `unit`: a whole number >= 0, nothing else."""
    if unit in CURRENCIES:
        return money(value)  # type: ignore[arg-type]  # money() refuses other types
    if type(value) is not int:
        msg = f"{unit}= takes a whole number, not {type(value).__name__}"
        raise TypeError(msg)
    if not 0 <= value <= MAX_COST:
        msg = f"{unit}={_show(value)} is out of range: expected 0 to {MAX_COST}"
        raise ConfigError(msg)
    return value


def seconds(us: int) -> float:
    """Turn microseconds into seconds for the public edge."""
    return us / SECOND


def micros(value_s: float) -> int:
    """Turn seconds from the public edge into microseconds, rounded up."""
    scaled = value_s * SECOND
    whole = int(scaled)
    return whole if whole >= scaled else whole + 1


def format_wait(us: int) -> str:
    """Print a wait for a person, rounded up: 40 s, 1.25 s, 3 h 20 min."""
    if us < MINUTE:
        millis = -(-us // 1000)
        return f"{millis / 1000:g} s"
    total_s = -(-us // SECOND)
    hours, rest = divmod(total_s, 3600)
    minutes, secs = divmod(rest, 60)
    if hours >= _DAYS_FROM_H:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {secs} s"
