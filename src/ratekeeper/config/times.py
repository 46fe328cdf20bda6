"""Durations, sizes and moments as an operator writes them: 20s, 32MiB, 2026-12-31.

Each becomes an integer: microseconds, bytes, microseconds since 1970. A mistake is a
`ConfigError` of one line that points at the wrong word. No clock: a moment is as written.
"""

from __future__ import annotations

import datetime
import difflib
import re

from ratekeeper.core import units
from ratekeeper.core.limits import PERIOD_WORDS
from ratekeeper.errors import ConfigError

LONGEST_US = units.MAX_WINDOW  # of a duration
MOST_BYTES = 1 << 40

_DURATIONS = {**PERIOD_WORDS, "ms": 1000, "m": units.MINUTE}
_SIZES = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_SIZE_WORDS = {name.lower(): size for name, size in _SIZES.items()}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LONGEST_WORD = 40  # characters of a wrong one that are shown


def duration_us(text: str) -> int:
    """Read `20s`, `500ms`, `1.5h` or `1 day` as microseconds; 0 needs no unit."""
    number, word = _quantity(text, "a duration such as 500ms, 20s, 10m or 1h")
    if word == "" and set(number) <= {"0", "."}:
        return 0
    one = _DURATIONS.get(word.lower())
    if one is None:
        expected = "expected ms, s, m, h or days"
        raise _wrong(text, word or number, expected + _near(word, _DURATIONS))
    found = _product(number, one)
    if found is None or found > LONGEST_US:
        raise _wrong(text, number, "expected whole microseconds, and at most 366 days")
    return found


def size_of(text: str) -> int:
    """Read `32MiB`, `10 MB` or `65536` as bytes."""
    number, word = _quantity(text, "a size such as 32MiB, 1GB or 65536")
    one = _SIZE_WORDS.get(word.lower())
    if one is None:
        expected = f"expected {', '.join(name for name in _SIZES if name)}"
        raise _wrong(text, word, expected + _near(word, _SIZES))
    found = _product(number, one)
    if found is None or not 0 < found <= MOST_BYTES:
        raise _wrong(text, number, "expected whole bytes, from 1 to 1024GiB")
    return found


def instant_us(text: str) -> int:
    """Read a date, which lasts to its end, or a time, as microseconds since 1970.

    A time without a zone is UTC, as a date is.
    """
    word = text.strip()
    try:
        moment = datetime.datetime.fromisoformat(word)
    except ValueError as error:
        # "month must be in 1..12": fit to show, unlike what repeats the whole text.
        why = str(error) if _DATE.match(word) and "string" not in str(error) else ""
        expected = "expected a date such as 2026-12-31, or 2026-12-31T18:00:00+08:00"
        raise _wrong(text, word, f"{why}: {expected}" if why else expected) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    found = (moment - _EPOCH) // datetime.timedelta(microseconds=1)
    return found + units.DAY if _DATE.fullmatch(word) else found


def _quantity(text: str, what: str) -> tuple[str, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise _wrong(text, text, f"expected {what}")
    return match[1], match[2]


def _product(number: str, one: int) -> int | None:
    """Multiply exactly; None where the product is not whole."""
    whole, _, decimals = number.partition(".")
    found, rest = divmod(int(whole + decimals) * one, 10 ** len(decimals))
    return None if rest else found


def _near(word: str, known: dict[str, int]) -> str:
    near = difflib.get_close_matches(word, known, n=1) if word else []
    return f" (did you mean '{near[0]}'?)" if near else ""


def _wrong(text: str, word: str, expected: str) -> ConfigError:
    shown, at = text[:_LONGEST_WORD], word[:_LONGEST_WORD]
    where = f"{shown!r}" if shown.strip() == at.strip() else f"{shown!r}: {at!r}"
    return ConfigError(f"{where}: {expected}")
