"""The providers, one entry each: what Ratekeeper knows of them.

An entry says where a provider is, how it takes a key, whose shapes it speaks, how it
counts and what it enforces; all else follows from that. Pure data, and the few methods
through which the floors above ask it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import urllib.parse
from typing import TYPE_CHECKING

from ratekeeper.core.limits import Algorithm
from ratekeeper.core.policy import Account
from ratekeeper.core.units import MINUTE, SECOND
from ratekeeper.errors import ConfigError
from ratekeeper.providers import counting, headers, verdict
from ratekeeper.providers import meter as meters
from ratekeeper.providers.anthropic import AnthropicShapes
from ratekeeper.providers.facts import Counting, Dialect, Endpoint, Kind, Meter
from ratekeeper.providers.headers import HeaderRow
from ratekeeper.providers.openai import OpenAIShapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.providers.facts import (
        Costs,
        Reading,
        RequestFacts,
        Usage,
        Verdict,
    )
    from ratekeeper.providers.headers import HeaderSource
    from ratekeeper.providers.shapes import Shapes

_SHAPES: Mapping[Dialect, Shapes] = {
    Dialect.OPENAI: OpenAIShapes(),
    Dialect.ANTHROPIC: AnthropicShapes(),
}

# Between sending a call and the provider counting it: a round trip across an ocean on
# an open connection. It costs a minute's window 0.4 %.
GUARD_US = SECOND // 4

_REFUSED = 429
_LONGEST_NAME = 80

_OPENAI_ROWS = (
    HeaderRow(
        unit="requests",
        limit="x-ratelimit-limit-requests",
        remaining="x-ratelimit-remaining-requests",
        reset="x-ratelimit-reset-requests",
    ),
    HeaderRow(
        unit="tokens",
        limit="x-ratelimit-limit-tokens",
        remaining="x-ratelimit-remaining-tokens",
        reset="x-ratelimit-reset-tokens",
    ),
)
_ANTHROPIC_ROWS = tuple(
    HeaderRow(
        unit=unit,
        window_us=MINUTE,
        limit=f"anthropic-ratelimit-{unit.replace('_', '-')}-limit",
        remaining=f"anthropic-ratelimit-{unit.replace('_', '-')}-remaining",
        reset=f"anthropic-ratelimit-{unit.replace('_', '-')}-reset",
        rounded_to=rounded_to,
        repeats=unit == "tokens",  # the tightest limit in force, whichever that is
    )
    for unit, rounded_to in (
        ("requests", 1),
        ("input_tokens", 1000),
        ("output_tokens", 1000),
        ("tokens", 1000),
    )
)
_PLAIN_ROWS = (
    HeaderRow(
        unit="requests",
        limit="x-ratelimit-limit",
        remaining="x-ratelimit-remaining",
        reset="x-ratelimit-reset",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One AI API.

    `algorithm` is what it enforces for a limit that does not say, None where nobody
    knows; `refunds` names the units whose unused cost it gives back; `guard_us` is the
    longest time between sending a call and its being counted. `margin` is what the
    input estimate is raised to, in per cent.
    """

    name: str
    title: str
    base_url: str
    key_variable: str = ""
    key_prefixes: tuple[str, ...] = ()
    key_min_length: int = 8
    key_url: str = ""
    auth_header: str = "authorization"
    auth_scheme: str = "Bearer"  # "" where the key stands alone
    extra_headers: tuple[tuple[str, str], ...] = ()
    speaks: Dialect = Dialect.OPENAI
    counting: Counting = Counting.SUM
    margin: int = 125
    shows: tuple[HeaderRow, ...] = _OPENAI_ROWS
    algorithm: Algorithm | None = None
    refunds: frozenset[str] = frozenset()
    guard_us: int = GUARD_US

    def account(self) -> Account:
        """Return what the engine must know of an account here."""
        return Account(
            unsaid=self.algorithm or Algorithm.PACED,
            refunds=self.refunds,
            cold=True,
            guard_us=self.guard_us,
        )

    def read_request(self, method: str, path: str, body: bytes) -> RequestFacts:
        """Read a request; never fails, whatever the bytes."""
        own = _SHAPES[self.speaks]
        facts = own.read_request(method, path, body, self.margin)
        if facts.endpoint is Endpoint.OTHER:
            # Some serve the other family's paths as well: DeepSeek has /messages.
            for shapes in _SHAPES.values():
                other = shapes.read_request(method, path, body, self.margin)
                if other.endpoint is not Endpoint.OTHER:
                    return other
        return facts

    def costs(self, facts: RequestFacts) -> Costs:
        """Say what a call takes at admission, as this provider counts."""
        return counting.costs(self.counting, facts)

    def charged(self, facts: RequestFacts, usage: Usage) -> dict[str, int]:
        """Say what to settle a call with whose answer told its usage."""
        return counting.charged(self.counting, facts, usage)

    def partial(self, facts: RequestFacts, flowed: int) -> dict[str, int]:
        """Say what to settle a call with whose answer did not; {}: as reserved."""
        return counting.partial(self.counting, facts, flowed)

    def meter(self, facts: RequestFacts, content_type: str) -> Meter:
        """Return the reader of an answer's usage."""
        shapes = _SHAPES[self._dialect(facts.endpoint)]
        return meters.meter(shapes, self.name, facts, content_type)

    def judge(
        self, status: int, headers_: HeaderSource, body: bytes, now_us: int
    ) -> Verdict:
        """Say what an error answer means; `now_us` is epoch microseconds."""
        fields = headers.fold(headers_)
        error = verdict.read_error(body)
        read = verdict.judge(self.name, status, fields, error, now_us)
        if read.kind is Kind.THROTTLED and read.retry_after_us is None:
            # Told nowhere else: until the limit it names, or one that is used up, is
            # whole again.
            for one in headers.read_readings(self.shows, fields, now_us):
                if one.unit == read.unit or (read.unit is None and one.remaining == 0):
                    hint_us = one.full_after_us
                    return dataclasses.replace(
                        read, unit=one.unit, retry_after_us=hint_us
                    )
        return read

    def readings(self, headers_: HeaderSource, now_us: int) -> tuple[Reading, ...]:
        """Return the limits that an answer's headers show."""
        return headers.read_readings(self.shows, headers.fold(headers_), now_us)

    def refusal(
        self,
        message: str,
        retry_after_us: int | None = None,
        *,
        code: str | None = None,
        unit: str | None = None,
        endpoint: Endpoint = Endpoint.OTHER,
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Write the 429 by which this provider's own SDK raises its RateLimitError.

        The SDK is told not to try again by itself; `retry_after_us` None says that no
        wait would help. `endpoint` is what was asked for, where it is known.
        """
        dialect = self._dialect(endpoint)
        code = code or _REFUSAL_CODES[dialect]
        body = _SHAPES[dialect].refusal(message, code, unit)
        fields = [("content-type", "application/json"), ("x-should-retry", "false")]
        if retry_after_us is not None:
            wait_us = max(0, retry_after_us)
            fields.append(("retry-after", str(-(-wait_us // SECOND))))
            fields.append(("retry-after-ms", str(-(-wait_us // 1000))))
        return _REFUSED, fields, json.dumps(body).encode()

    def _dialect(self, endpoint: Endpoint) -> Dialect:
        return _SPOKEN.get(endpoint, self.speaks)


_SPOKEN = {
    Endpoint.CHAT: Dialect.OPENAI,
    Endpoint.RESPONSES: Dialect.OPENAI,
    Endpoint.EMBEDDINGS: Dialect.OPENAI,
    Endpoint.MESSAGES: Dialect.ANTHROPIC,
    Endpoint.COUNT_TOKENS: Dialect.ANTHROPIC,
}
_REFUSAL_CODES = {
    Dialect.OPENAI: "rate_limit_exceeded",
    Dialect.ANTHROPIC: "rate_limit_error",
}

_GENERIC = Provider(name="", title="", base_url="")

PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            name="openai",
            title="OpenAI",
            base_url="https://api.openai.com/v1",
            key_variable="OPENAI_API_KEY",
            key_prefixes=("sk-",),
            key_min_length=40,
            key_url="https://platform.openai.com/api-keys",
            counting=Counting.GREATER,
            margin=100,  # it guesses by characters itself, and never corrects
        ),
        Provider(
            name="anthropic",
            title="Anthropic",
            base_url="https://api.anthropic.com",
            key_variable="ANTHROPIC_API_KEY",
            key_prefixes=("sk-ant-",),
            key_min_length=40,
            key_url="https://console.anthropic.com/settings/keys",
            auth_header="x-api-key",
            auth_scheme="",
            extra_headers=(("anthropic-version", "2023-06-01"),),
            speaks=Dialect.ANTHROPIC,
            counting=Counting.GENERATED,
            shows=_ANTHROPIC_ROWS,
            algorithm=Algorithm.TOKEN_BUCKET,
            refunds=frozenset(["input_tokens", "output_tokens", "tokens"]),
        ),
        Provider(
            name="deepseek",
            title="DeepSeek",
            base_url="https://api.deepseek.com",
            key_variable="DEEPSEEK_API_KEY",
            key_prefixes=("sk-",),
            key_min_length=32,
            key_url="https://platform.deepseek.com/api_keys",
            shows=(),
        ),
        Provider(
            name="holysheep",
            title="HolySheep",
            base_url="https://api.holysheep.ai/v1",
            key_variable="HOLYSHEEP_API_KEY",
            key_prefixes=("sk-", "hs-"),
            key_min_length=24,
            key_url="https://www.holysheep.ai",
            counting=Counting.RELAY,
            shows=_PLAIN_ROWS,
        ),
    )
}


def find_provider(name_or_url: str, *, base_url: str | None = None) -> Provider:
    """Return a provider by name, or any OpenAI-compatible one by its base URL.

    `base_url` sends a known provider's calls elsewhere, to a proxy or a simulator, whose
    keys may be of any length. An unknown name or a malformed URL is a `ConfigError`.
    """
    if base_url is not None:
        known = find_provider(name_or_url)
        url = read_base_url(base_url)
        shortest = known.key_min_length if url == known.base_url else 1
        return dataclasses.replace(known, base_url=url, key_min_length=shortest)
    if "://" in name_or_url:
        return _at(read_base_url(name_or_url))
    provider = PROVIDERS.get(name_or_url.lower())
    if provider is None:
        near = difflib.get_close_matches(name_or_url.lower(), PROVIDERS, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ConfigError(
            f"{name_or_url[:_LONGEST_NAME]!r} is not a provider{hint}: expected one of "
            f"{', '.join(sorted(PROVIDERS))}, or a base URL such as "
            "https://llm.example.com/v1"
        )
    return provider


def _at(url: str) -> Provider:
    """Return the known provider at a URL's host, or a generic one."""
    host = urllib.parse.urlsplit(url).hostname or ""
    for provider in PROVIDERS.values():
        if urllib.parse.urlsplit(provider.base_url).hostname == host:
            return dataclasses.replace(provider, base_url=url)
    return dataclasses.replace(_GENERIC, name=host, title=host, base_url=url)


_NETLOC = re.compile(
    r"(?:[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII
)


def read_base_url(url: str) -> str:
    """Return a base URL without its trailing slash; a wrong one is a `ConfigError`.

    The message never repeats the URL: it may hold a secret.
    """
    expected = "expected a base URL such as https://llm.example.com/v1"
    if not url.isprintable() or " " in url or not url.isascii():
        raise ConfigError(f"the base URL has characters no URL has: {expected}")
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigError(f"the base URL is malformed: {expected}") from None
    if parts.scheme.lower() not in {"http", "https"}:
        raise ConfigError(
            f"the base URL begins with neither http nor https: {expected}"
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "the base URL holds a user or a password: give the key as api_key= instead"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"the base URL has a query or a fragment: {expected}")
    if not _NETLOC.fullmatch(parts.netloc):
        raise ConfigError(f"the base URL names no host: {expected}")
    path = parts.path.rstrip("/")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}"
