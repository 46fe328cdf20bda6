"""Cue: what shall go wrong with one call, and the little language that says so.

    status=529                 cut=3, output=40            latency=0.5, stall=2

The same words come from the header `x-simulate` of one request, from a script by
request number and from rates. A cue decides nothing about limits.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Self

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.dialect import Trouble
from ratekeeper.simulator.rules import SECOND_US

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping

_LONGEST_TEXT = 400
_LONGEST_S = 3600.0
MOST_OUTPUT = 32_768  # tokens of one answer: 128 KiB of text

_BY_STATUS = {
    400: Trouble.BAD_REQUEST,
    401: Trouble.UNAUTHORIZED,
    402: Trouble.BILLING,
    403: Trouble.FORBIDDEN,
    404: Trouble.NOT_FOUND,
    413: Trouble.BODY_TOO_LARGE,
    429: Trouble.THROTTLED,
    500: Trouble.SERVER,
    502: Trouble.SERVER,
    503: Trouble.OVERLOADED,
    504: Trouble.TIMEOUT,
    529: Trouble.OVERLOADED,
}
_NUMBERS = ("status", "cut", "error", "output", "keep-alive", "cached")
_SECONDS = ("latency", "stall", "pace", "retry-after")
_FLAGS = ("drop", "no-usage", "no-headers")
_WORDS = (*_NUMBERS, *_SECONDS, "reason", *_FLAGS)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """What shall go wrong with one call; nothing, unless said.

    `status` and `reason` refuse it; `cut` and `error` end the stream after so many
    chunks, by hanging up or with an error event; `stall_us` is a pause after the first
    chunk and `pace_us` one after each; `keep_alive` comments come before the answer.
    """

    status: int | None = None
    reason: Trouble | None = None
    cut: int | None = None
    error: int | None = None
    output: int | None = None
    keep_alive: int | None = None
    cached: int | None = None
    latency_us: int | None = None
    stall_us: int | None = None
    pace_us: int | None = None
    retry_after_us: int | None = None
    drop: bool = False  # hang up without a word
    no_usage: bool = False
    no_headers: bool = False  # leave out what tells of limits

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `status=529, latency=0.5`; raises `ConfigError` that names the word."""
        if len(text) > _LONGEST_TEXT:
            message = f"a cue of {len(text)} characters: expected at most 400"
            raise ConfigError(message)
        fields: dict[str, object] = {}
        for part in text.split(","):
            name, equals, value = (side.strip() for side in part.partition("="))
            if not name and not equals:
                continue
            field, parsed = _read(name.lower(), value, has_value=bool(equals))
            fields[field] = parsed
        return cls(**fields)  # type: ignore[arg-type]  # _read pairs name and type

    @property
    def trouble(self) -> Trouble | None:
        """What the call is refused for, None where it is not."""
        if self.reason is not None and self.error is None:
            return self.reason
        if self.status is None:
            return None
        other = Trouble.SERVER if self.status >= 500 else Trouble.OTHER  # noqa: PLR2004
        return _BY_STATUS.get(self.status, other)


class FaultPlan:
    """Which calls go wrong by themselves: by number, counted from 1, and by rate."""

    def __init__(
        self,
        script: Mapping[int, str] | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self._script = {n: Cue.parse(text) for n, text in (script or {}).items()}
        self._rates = [(Cue.parse(text), rate) for text, rate in (rates or {}).items()]
        for text, rate in (rates or {}).items():
            if not 0 <= rate <= 1:
                message = f"rate {rate!r} of fault '{text}': expected 0 to 1"
                raise ConfigError(message)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Read faults: `status=529 @ 0.05` by rate, `cut=3 # 7` for the 7th call."""
        script: dict[int, str] = {}
        rates: dict[str, float] = {}
        for text in texts:
            cue, by_number, number = text.rpartition("#")
            if by_number and number.strip().isascii() and number.strip().isdigit():
                script[int(number.strip()[:12])] = cue
                continue
            cue, by_rate, rate = text.rpartition("@")
            try:
                rates[cue] = float(rate) if by_rate else -1.0
            except ValueError:
                rates[cue] = -1.0
            if not 0 <= rates[cue] <= 1:
                message = (
                    f"fault '{text[:80]}': expected a cue and how often it comes, for "
                    "example 'status=529 @ 0.05' (one in twenty) or 'cut=3 # 7' (the "
                    "7th call)"
                )
                raise ConfigError(message)
        return cls(script, rates)

    def cue(self, number: int, source: random.Random) -> Cue:
        """Return what goes wrong with the call of this number."""
        if number in self._script:
            return self._script[number]
        for cue, rate in self._rates:
            if source.random() < rate:
                return cue
        return NO_CUE


NO_CUE = Cue()


def _read(name: str, value: str, *, has_value: bool) -> tuple[str, object]:
    """Read one word of a cue into the field it sets."""
    if name in _FLAGS and not has_value:
        return name.replace("-", "_"), True
    if name in _NUMBERS and value.isascii() and value.isdigit() and len(value) <= 6:  # noqa: PLR2004
        number = int(value)
        if name != "status" or 400 <= number <= 599:  # noqa: PLR2004 - errors only
            return name.replace("-", "_"), min(number, MOST_OUTPUT)
    if name in _SECONDS:
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if 0 <= seconds <= _LONGEST_S:
            return f"{name.replace('-', '_')}_us", round(seconds * SECOND_US)
    if name == "reason" and value in set(Trouble):
        return "reason", Trouble(value)
    if name not in _WORDS:
        message = f"cue {name!r} is not known: expected one of {', '.join(_WORDS)}"
    elif name == "reason":
        message = f"cue 'reason={value}': expected one of {', '.join(Trouble)}"
    else:
        message = f"cue '{name}={value}': expected {_expected(name)}"
    raise ConfigError(message)


def _expected(name: str) -> str:
    if name == "status":
        return "an error status from 400 to 599"
    if name in _SECONDS:
        return f"seconds from 0 to {_LONGEST_S:g}"
    return "no value" if name in _FLAGS else "a whole number"
