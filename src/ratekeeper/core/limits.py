"""Limit: what is allowed, parsed from the limit language and validated once.

`Limit.parse` reads the language, `str(limit)` prints the canonical form, and parsing
that gives an equal limit. A `Limit` that exists is valid: nothing below re-checks it.
Every mistake is a `ConfigError` that points at the word and says what was expected.
It is long because the rules of a valid limit and the parser that points at the word
which breaks one are the same knowledge.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import zoneinfo
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn, Required, Self, TypedDict

from ratekeeper.core import units
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

CONCURRENT = "concurrent"


class Algorithm(StrEnum):
    """How a limit is counted."""

    TOKEN_BUCKET = "token-bucket"
    SLIDING_WINDOW = "sliding-window"
    FIXED_WINDOW = "fixed-window"
    LEAKY_BUCKET = "leaky-bucket"
    PACED = "paced"
    CONCURRENCY = "concurrency"


_BURSTABLE = {Algorithm.TOKEN_BUCKET, Algorithm.PACED}
_NAMED = tuple(a.value for a in Algorithm if a is not Algorithm.CONCURRENCY)

_PERIODS = {
    "second": units.SECOND,
    "minute": units.MINUTE,
    "hour": units.HOUR,
    "day": units.DAY,
    "week": units.WEEK,
    "month": units.MONTH,
}
PERIOD_WORDS = {
    **_PERIODS,
    **{f"{name}s": us for name, us in _PERIODS.items()},
    "s": units.SECOND,
    "sec": units.SECOND,
    "secs": units.SECOND,
    "min": units.MINUTE,
    "mins": units.MINUTE,
    "h": units.HOUR,
    "hr": units.HOUR,
    "d": units.DAY,
}
_ALIASES = {
    "rps": ("requests", units.SECOND),
    "rpm": ("requests", units.MINUTE),
    "rph": ("requests", units.HOUR),
    "rpd": ("requests", units.DAY),
    "tpm": ("tokens", units.MINUTE),
    "tpd": ("tokens", units.DAY),
    "itpm": ("input_tokens", units.MINUTE),
    "otpm": ("output_tokens", units.MINUTE),
}
_SINGULAR = {
    "request": "requests",
    "token": "tokens",
    "input_token": "input_tokens",
    "output_token": "output_tokens",
}
KNOWN_UNITS = tuple(_SINGULAR.values())
_SLIP = 0.82  # as near to a known unit as "in_tokens" and "tokn": a slip, not a unit
_SHORTEST_SLIP = 3  # letters: "req" is one, "re" may be anything
_SPACED = {*_ALIASES, *_SINGULAR, *_SINGULAR.values(), CONCURRENT}
_GLUED = re.compile(r"([0-9][0-9._]*[kKMB]?)([A-Za-z][A-Za-z_]*)", re.ASCII)
_UNIT = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
# Keywords of `acquire` and of a grant: a unit of this name could not be said there.
_RESERVED = frozenset(
    [
        "again",
        "also",
        "flow",
        "hold",
        "key",
        "priority",
        "remaining",
        "retry_after_s",
        "timeout",
        "unit",
        "weight",
        "window_s",
    ]
)
_OPTIONS = ("burst", "using", "resets")
_NO_UNITS = {*_RESERVED, *_SINGULAR, *_ALIASES, *_OPTIONS}
_WORD = re.compile(r"[^\s/]+|/")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_COUNTED_PERIOD = re.compile(r"([0-9]{1,8}(?:\.[0-9]{1,6})?)([A-Za-z]*)", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+)*", re.ASCII)

_LONGEST_TEXT = 200  # the longest sensible limit is a quarter of this


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resets:
    """When a calendar window starts anew: a time of day in a time zone."""

    minute_of_day: int
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if not 0 <= self.minute_of_day < 24 * 60:
            msg = f"minute_of_day={self.minute_of_day} is not a time of day"
            raise ConfigError(msg)
        _load_zone(self.zone)

    def __str__(self) -> str:
        hour, minute = divmod(self.minute_of_day, 60)
        return f"{hour:02}:{minute:02} {self.zone}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A rule: so much of a unit in a window, and how it is counted.

    `amount` and `burst` count units (money: billionths of the currency), `window_us`
    is 0 for concurrency. `algorithm` None means unsaid: `resolved` fills it in.
    """

    amount: int
    unit: str
    window_us: int
    algorithm: Algorithm | None = None
    burst: int | None = None
    resets: Resets | None = None

    def __post_init__(self) -> None:
        fault = _fault(self)
        if fault is not None:
            msg = f"limit of {self.amount!r} {self.unit!r}: {fault}"
            raise ConfigError(msg)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the limit language, e.g. `500 rpm` or `$50/day`.

        Raises `ConfigError` that points at the wrong word.
        """
        fields = _Parser(text).limit()
        return cls(**fields)

    @classmethod
    def per_second(cls, **amount: int) -> Self:
        """Make a limit per second: `Limit.per_second(requests=10)`."""
        return cls._per(units.SECOND, amount)

    @classmethod
    def per_minute(cls, **amount: int) -> Self:
        """Make a limit per minute: `Limit.per_minute(tokens=90_000)`."""
        return cls._per(units.MINUTE, amount)

    @classmethod
    def per_day(cls, **amount: int) -> Self:
        """Make a limit per rolling day: `Limit.per_day(tokens=10_000_000)`."""
        return cls._per(units.DAY, amount)

    @classmethod
    def _per(cls, window_us: int, amount: dict[str, int]) -> Self:
        if len(amount) != 1:
            msg = "name exactly one unit, for example requests=60"
            raise TypeError(msg)
        ((unit, value),) = amount.items()
        unit = _SINGULAR.get(unit, unit)
        scaled = units.count(unit, value)
        return cls(amount=scaled, unit=unit, window_us=window_us)

    @property
    def is_money(self) -> bool:
        """Whether the unit is a currency, counted in billionths."""
        return self.unit in units.CURRENCIES

    @property
    def identity(self) -> tuple[str, int, str, str]:
        """What stays the same when the amount of a limit is changed live."""
        return self.unit, self.window_us, self.algorithm or "", str(self.resets or "")

    def resolved(self, unsaid: Algorithm = Algorithm.SLIDING_WINDOW) -> Limit:
        """Return the limit with its algorithm filled in where none was said.

        `burst` unsaid means a token bucket, `resets` a calendar (fixed) window; days,
        months and money are never paced.
        """
        if self.algorithm is not None:
            return self
        algorithm = unsaid
        if self.burst is not None:
            algorithm = Algorithm.TOKEN_BUCKET
        elif self.resets is not None:
            algorithm = Algorithm.FIXED_WINDOW
        elif algorithm is Algorithm.PACED and (
            self.window_us > units.HOUR or self.is_money
        ):
            algorithm = Algorithm.SLIDING_WINDOW
        return dataclasses.replace(self, algorithm=algorithm)

    def __str__(self) -> str:
        if self.unit == CONCURRENT:
            return f"{units.format_amount(self.amount)} concurrent"
        words = [f"{self._print(self.amount)}/{_print_period(self.window_us)}"]
        if self.burst is not None:
            words.append(
                f"burst {units.format_money(self.burst)}"
                if self.is_money
                else f"burst {units.format_amount(self.burst)}"
            )
        if self.algorithm is not None:
            words.append(f"using {self.algorithm.value}")
        if self.resets is not None:
            words.append(f"resets {self.resets}")
        return " ".join(words)

    def _print(self, amount: int) -> str:
        if not self.is_money:
            return f"{units.format_amount(amount)} {self.unit}"
        text = units.format_money(amount)
        return f"${text}" if self.unit == "usd" else f"{text} {self.unit}"


def parse_limits(
    limits: Iterable[Limit | str], unsaid: Algorithm = Algorithm.SLIDING_WINDOW
) -> tuple[Limit, ...]:
    """Parse and resolve the limits of one policy; at least one, none twice."""
    parsed = tuple(
        (limit if isinstance(limit, Limit) else Limit.parse(limit)).resolved(unsaid)
        for limit in limits
    )
    if not parsed:
        msg = 'no limits given: name at least one, for example "500 rpm"'
        raise ConfigError(msg)
    seen: dict[tuple[str, int, str, str], Limit] = {}
    for limit in parsed:
        other = seen.setdefault(limit.identity, limit)
        if other is not limit:
            msg = f"limits '{other}' and '{limit}' rule the same thing: keep one"
            raise ConfigError(msg)
    return parsed


def _fault(limit: Limit) -> str | None:
    """Name the first rule a limit breaks."""
    algorithm = limit.algorithm
    most = units.MAX_MONEY if limit.is_money else units.MAX_AMOUNT
    if type(limit.amount) is not int or not 0 < limit.amount <= most:
        return f"expected an amount from 1 to {units.format_amount(most)}"
    unit = limit.unit
    if not isinstance(unit, str) or not _UNIT.fullmatch(unit) or unit in _NO_UNITS:
        return "expected a unit such as requests, tokens or my_unit"
    meant = _meant(unit)
    if meant:
        return f"expected a unit such as requests (did you mean '{meant}'?)"
    if algorithm is not None and not isinstance(algorithm, Algorithm):
        return "expected an Algorithm, for example Algorithm.SLIDING_WINDOW"
    if type(limit.window_us) is not int:
        return "expected a window in whole microseconds"
    if limit.unit == CONCURRENT or algorithm is Algorithm.CONCURRENCY:
        plain = limit.burst is None and limit.resets is None and limit.window_us == 0
        if limit.unit == CONCURRENT and plain and algorithm is Algorithm.CONCURRENCY:
            return None
        return "a concurrency limit is only a number: 20 concurrent"
    if not 0 < limit.window_us <= units.MAX_WINDOW:
        return "expected a window of at most 366 days"
    if limit.burst is not None:
        if type(limit.burst) is not int or not 0 < limit.burst <= most:
            return f"expected a burst from 1 to {units.format_amount(most)}"
        if algorithm not in {None, *_BURSTABLE} or limit.resets is not None:
            return "burst goes with token-bucket or paced"
    if limit.resets is not None:
        if limit.window_us not in {units.DAY, units.MONTH}:
            return "resets goes with a day or a month"
        if algorithm not in {None, Algorithm.FIXED_WINDOW}:
            return "resets goes with fixed-window"
    if algorithm is Algorithm.PACED and (
        limit.window_us > units.HOUR or limit.is_money
    ):
        return "paced is for windows up to an hour; leave `using` out"
    return None


def _meant(unit: str) -> str:
    """Return the known unit that another one must be a slip for, "" if it is none.

    A unit of one's own may have any other name; nobody would ever count one like this.
    """
    if unit in KNOWN_UNITS:
        return ""
    stem = unit.removesuffix("s")
    for known in KNOWN_UNITS:
        if len(stem) >= _SHORTEST_SLIP and known.startswith(stem):
            return known
    words = [*_SINGULAR, *KNOWN_UNITS]
    near = difflib.get_close_matches(unit, words, n=1, cutoff=_SLIP)
    return _SINGULAR.get(near[0], near[0]) if near else ""


def _load_zone(zone: str) -> zoneinfo.ZoneInfo:
    try:
        if not _ZONE.fullmatch(zone):
            raise ValueError(zone)
        return zoneinfo.ZoneInfo(zone)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError, OSError) as error:
        if not zoneinfo.available_timezones():
            hint = "this system has no time zone data: pip install tzdata"
        else:
            hint = _near(zone, zoneinfo.available_timezones())
            hint = f"expected a time zone such as America/Los_Angeles{hint}"
        raise ConfigError(f"{zone[:60]!r} is not a known time zone; {hint}") from error


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known))
    # Of words as near as each other, the one of the same letters: rpm for rmp, not rps.
    near.sort(key=lambda other: sorted(other) != sorted(word))
    return f" (did you mean '{near[0]}'?)" if near else ""


def _print_period(window_us: int) -> str:
    for name in reversed(_PERIODS):
        number, rest = divmod(window_us, _PERIODS[name])
        if rest == 0:
            return name if number == 1 else f"{number} {name}s"
    whole, rest = divmod(window_us, units.SECOND)
    return f"{whole}.{rest:06}".rstrip("0") + " seconds"


class _Fields(TypedDict, total=False):
    """The fields of a `Limit` as the parser finds them."""

    amount: Required[int]
    unit: Required[str]
    window_us: Required[int]
    algorithm: Algorithm
    burst: int
    resets: Resets


class _Parser:
    """One pass over the words of a limit, remembering where each stands."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            msg = f"a limit is a string such as '500 rpm', not {type(text).__name__}"
            if isinstance(text, list | tuple):
                msg += ": give several one by one, or with a star, as in *limits"
            raise ConfigError(msg)
        if len(text) > _LONGEST_TEXT or not text.isprintable():
            msg = f"limit {text[:40]!r}…: expected one short line such as '500 rpm'"
            raise ConfigError(msg)
        self.text = text
        self.words = list(_WORD.finditer(text))
        self.next = 0

    def limit(self) -> _Fields:
        """Parse the whole text into the fields of a `Limit`."""
        word = self._take("an amount such as 500, 120k or $50")
        sign = units.SIGNS.get(word[0])
        if sign is not None:
            unit, window_us = sign, self._slash_period()
            word = word[1:]
        else:
            self._shape(word)
            unit, window_us = self._unit_and_period(word)
        scale = units.NANO if unit in units.CURRENCIES else 1
        amount = self._amount(word, scale, at=0)
        fields: _Fields = {"amount": amount, "unit": unit, "window_us": window_us}
        if unit == CONCURRENT:
            fields["algorithm"] = Algorithm.CONCURRENCY
        self._options(fields)
        return fields

    def _unit_and_period(self, amount: str) -> tuple[str, int]:
        word = self._take(
            f"a unit after '{amount}', for example '{amount} requests/minute'"
        ).lower()
        if word == CONCURRENT:
            return CONCURRENT, 0
        if word in _ALIASES:
            if self._peek() == "/":
                self.next += 1
                self._wrong(f"'{word}' already says per what; leave out the rest")
            return _ALIASES[word]
        if not _UNIT.fullmatch(word) or word in _OPTIONS:
            self._wrong("expected a unit such as requests, tokens, concurrent or rpm")
        if word in _RESERVED:
            self._wrong("this word is taken by acquire(): use another name")
        currency = units.CURRENCY_WORDS.get(word.removesuffix("s"))
        if currency is not None:
            self._wrong(f"expected a currency's code (did you mean '{currency}'?)")
        after = self._peek()
        if after != "/":
            if after is not None and after.lower() not in _OPTIONS:
                self.next += 1
                unit = "requests" if word in {"per", "a", "an"} else word
                self._wrong(f"expected '/' and a period: '{unit}/minute'")
            self._wrong(
                "expected an alias such as rpm or tpm, 'concurrent', or a unit with "
                f"its period, for example '{word}/minute'"
                f"{_near(word, [*_ALIASES, CONCURRENT])}"
            )
        unit = _SINGULAR.get(word, word)
        meant = _meant(unit)
        if meant:
            self._wrong(f"expected a unit such as requests (did you mean '{meant}'?)")
        return unit, self._slash_period()

    def _slash_period(self) -> int:
        if self._take("'/' and a period, for example '/minute'") != "/":
            self._wrong("expected '/' and a period, for example '/minute'")
        word = self._take("a period such as minute, 5 hours or day")
        number = "1"
        counted = _COUNTED_PERIOD.fullmatch(word)
        if counted:
            number = counted[1]
            word = counted[2] or self._take("a period such as seconds or hours")
        one = PERIOD_WORDS.get(word.lower())
        if one is None:
            self._wrong(
                "expected a period: second, minute, hour, day, week or month"
                + _near(word.lower(), _PERIODS)
            )
        window_us = units.parse_amount(number, one)
        if not 0 < window_us <= units.MAX_WINDOW:
            self._wrong("expected a window of 1 microsecond to 366 days")
        return window_us

    def _options(self, fields: _Fields) -> None:
        scale = units.NANO if fields["unit"] in units.CURRENCIES else 1
        while (word := self._peek()) is not None:
            self.next += 1
            word = word.lower()
            if {"burst": "burst", "using": "algorithm"}.get(word, word) in fields:
                self._wrong(
                    "a concurrency limit is only a number"
                    if fields["unit"] == CONCURRENT
                    else f"'{word}' is there twice"
                )
            if word == "burst":
                fields["burst"] = self._amount(
                    self._take("how many may go at once"), scale
                )
            elif word == "using":
                fields["algorithm"] = self._algorithm()
            elif word == "resets":
                fields["resets"] = self._resets()
            else:
                self._wrong(f"expected burst, using or resets{_near(word, _OPTIONS)}")
            fault = _fault(_unchecked(fields))
            if fault is not None:
                self._wrong(fault)

    def _algorithm(self) -> Algorithm:
        word = self._take("an algorithm: " + ", ".join(_NAMED)).lower()
        if word not in _NAMED:
            self._wrong("expected " + ", ".join(_NAMED) + _near(word, _NAMED))
        return Algorithm(word)

    def _resets(self) -> Resets:
        match = _TIME.fullmatch(self._take("a time such as 00:00"))
        if match is None:
            self._wrong("expected a time of day such as 00:00 or 17:30")
        minute_of_day = int(match[1]) * 60 + int(match[2])
        start = self.next
        while (word := self._peek()) is not None and word.lower() not in _OPTIONS:
            self.next += 1
        if start == self.next:
            return Resets(minute_of_day=minute_of_day)
        zone = self.text[self.words[start].start() : self.words[self.next - 1].end()]
        try:
            return Resets(minute_of_day=minute_of_day, zone=zone)
        except ConfigError as error:
            self._wrong(str(error).partition("; ")[2], at=start)

    def _shape(self, word: str) -> None:
        """Point at a word that is no amount in any unit, before anything else."""
        try:
            units.parse_amount(word, units.NANO)
        except ValueError as error:
            glued = _GLUED.fullmatch(word)
            if glued and glued[2].lower() in _SPACED:
                self._wrong(f"expected a space: '{glued[1]} {glued[2]}'", at=0)
            self._wrong(str(error), at=0)

    def _amount(self, word: str, scale: int, at: int | None = None) -> int:
        try:
            amount = units.parse_amount(word, scale)
        except ValueError as error:
            self._wrong(str(error), at=at)
        most = units.MAX_AMOUNT if scale == 1 else units.MAX_MONEY
        if not 0 < amount <= most:
            top = units.format_amount(most // scale)
            self._wrong(f"expected an amount from 1 to {top}, not {word[:40]}", at=at)
        return amount

    def _peek(self) -> str | None:
        return self.words[self.next].group() if self.next < len(self.words) else None

    def _take(self, expected: str) -> str:
        word = self._peek()
        if word is None:
            msg = f"limit '{self.text}' ends too early: expected {expected}"
            raise ConfigError(msg)
        self.next += 1
        return word

    def _wrong(self, expected: str, at: int | None = None) -> NoReturn:
        """Point at the word just taken (or word number `at`)."""
        match = self.words[self.next - 1 if at is None else at]
        word = match.group()
        pointer = " " * match.start() + "^" * len(word)
        msg = f"limit '{self.text}': {word!r}: {expected}\n  {self.text}\n  {pointer}"
        raise ConfigError(msg)


def _unchecked(fields: _Fields) -> Limit:
    """Build a Limit without its checks, to let `_fault` name the word at fault."""
    limit = object.__new__(Limit)
    for field in dataclasses.fields(Limit):
        default = None if field.default is dataclasses.MISSING else field.default
        object.__setattr__(limit, field.name, fields.get(field.name, default))
    return limit
