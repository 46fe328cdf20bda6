"""What a provider is to the floors above: facts, and the questions they answer.

An entry of the table says where a provider is, how it takes a key, whose shapes it
speaks, how it counts, what it shows and what its errors mean; all else follows from
that. Pure.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import urllib.parse
from typing import TYPE_CHECKING

from ratekeeper.core.limits import Algorithm
from ratekeeper.core.policy import Account
from ratekeeper.core.units import DAY, MINUTE, SECOND
from ratekeeper.errors import ConfigError
from ratekeeper.providers import counting, headers, verdict
from ratekeeper.providers import meter as meters
from ratekeeper.providers.anthropic import AnthropicShapes
from ratekeeper.providers.bedrock import BedrockShapes
from ratekeeper.providers.cohere import CohereShapes
from ratekeeper.providers.facts import (
    NATIVE,
    Counting,
    Dialect,
    Endpoint,
    Kind,
    Meter,
)
from ratekeeper.providers.gemini import UNAVAILABLE, GeminiShapes
from ratekeeper.providers.headers import HeaderRow
from ratekeeper.providers.interactions import InteractionShapes
from ratekeeper.providers.openai import OpenAIShapes
from ratekeeper.providers.shapes import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.core.reading import Reading
    from ratekeeper.providers.facts import (
        Costs,
        RequestFacts,
        Usage,
        Verdict,
    )
    from ratekeeper.providers.headers import HeaderSource
    from ratekeeper.providers.meter import Reader
    from ratekeeper.providers.shapes import Json, Shapes
    from ratekeeper.providers.verdict import ErrorFacts, Row

_SHAPES: Mapping[Dialect, Shapes] = {
    Dialect.OPENAI: OpenAIShapes(),
    Dialect.ANTHROPIC: AnthropicShapes(),
    Dialect.GEMINI: GeminiShapes(),
    Dialect.INTERACTIONS: InteractionShapes(),
    Dialect.COHERE: CohereShapes(),
    Dialect.BEDROCK: BedrockShapes(),
}

# Between sending a call and the provider counting it: a round trip across an ocean on
# an open connection. It costs a minute's window 0.4 %.
GUARD_US = SECOND // 4

_REFUSED = 429
_UNAVAILABLE = 503
_ENDS = frozenset([Kind.THROTTLED, Kind.STOPPED])  # when the limit is whole again

OPENAI_ROWS = (
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


@functools.lru_cache(maxsize=1024)  # most calls ask for a few paths
def counts_tokens(path: str) -> bool:
    """Say whether a POST to a path has tokens counted, by any provider that serves it."""
    kinds = (
        shapes.read_request("POST", path, {}, 1).endpoint for shapes in _SHAPES.values()
    )
    return Endpoint.COUNT_TOKENS in kinds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One AI API.

    `base_url` is "" where every account has its own, whose form `base_form` shows; it
    is also known by its `hosts`, in which a * stands for anything. `native` says how to
    use what is not below the base URL. `algorithm` is what it enforces for a limit that
    does not say, None where nobody knows; `refunds` names the units whose unused cost
    it gives back; `cached_free` says that it does not count cached input; `guard_us` is
    the longest time between sending a call and its being counted. `margin` is what the
    input estimate is raised to, in per cent. `errors` are read before the table of all;
    `code_header` is where the code of an error may stand. `teaches` says that what it
    `shows` is on every answer, and as much as a limit can be learned from.
    """

    name: str
    title: str
    base_url: str = ""
    base_form: str = ""
    hosts: tuple[str, ...] = ()
    native: str = ""
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
    shows: tuple[HeaderRow, ...] = OPENAI_ROWS
    teaches: bool = True
    errors: tuple[Row, ...] = ()
    code_header: str = ""
    algorithm: Algorithm | None = None
    refunds: frozenset[str] = frozenset()
    cached_free: bool = False
    guard_us: int = GUARD_US
    _shown_by: frozenset[str] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_shown_by", headers.names_of(self.shows))

    def account(self) -> Account:
        """Return what the engine must know of an account here."""
        return Account(
            unsaid=self.algorithm or Algorithm.PACED,
            refunds=self.refunds,
            cold=True,
            guard_us=self.guard_us,
            shows=tuple(
                dict.fromkeys(
                    (row.unit, window_us)
                    for row in self.shows
                    if self.teaches and row.limit and row.remaining
                    for window_us in _windows(row)
                )
            ),
        )

    def require(self, method: str = "", path: str = "") -> None:
        """Raise `ConfigError` where a call cannot be sent below the base URL."""
        if not self.base_url:
            name = f"{self.name.upper()}_BASE_URL"
            raise ConfigError(
                f"{self.name} has a base URL for each account: give base_url=, or type: "
                f"export {name}={self.base_form} (your own words for those in capitals)"
            )
        if self.native and urllib.parse.urlsplit(self.base_url).path:
            facts = self.read_request(method, path, b"")
            if facts.endpoint in NATIVE:
                raise ConfigError(
                    f"{self.title}'s own API is not below {self.base_url}: {self.native}"
                )

    def read_request(self, method: str, path: str, body: bytes | Json) -> RequestFacts:
        """Read a request; never fails, whatever the bytes.

        Whoever has decoded its JSON already may give the object instead.
        """
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
        return counting.charged(
            self.counting, facts, usage, cached_free=self.cached_free
        )

    def partial(self, facts: RequestFacts, flowed: int) -> dict[str, int]:
        """Say what to settle a call with whose answer did not; {}: as reserved."""
        return counting.partial(self.counting, facts, flowed)

    def meter(
        self, facts: RequestFacts, content_type: str, read: Reader = read_json
    ) -> Meter:
        """Return the reader of an answer's usage; `read` parses what is JSON in it."""
        shapes = _SHAPES[self._dialect(facts.endpoint)]
        return meters.meter(shapes, self._judge_inside, facts, content_type, read)

    def judge(
        self, status: int, headers_: HeaderSource, body: bytes, now_us: int
    ) -> Verdict:
        """Say what an error answer means; `now_us` is epoch microseconds."""
        error = verdict.read_error(body)
        return self._judge(status, headers.fold(headers_), error, now_us)

    def _judge_inside(self, error: ErrorFacts, now_us: int) -> Verdict:
        return self._judge(verdict.IN_STREAM, {}, error, now_us)

    def _judge(
        self, status: int, fields: Mapping[str, str], error: ErrorFacts, now_us: int
    ) -> Verdict:
        fields = {**error.fields, **fields}
        code = fields.get(self.code_header, "").partition(":")[0]
        if code:
            error = dataclasses.replace(error, codes=(code, *error.codes))
        read = verdict.judge(self.errors, status, fields, error, now_us)
        if read.kind in _ENDS and read.retry_after_us is None:
            # Told nowhere else: until the limit it names, or one that is used up, is
            # whole again.
            for one in headers.read_readings(self.shows, fields, now_us, bare=True):
                used_up = not one.remaining and (
                    one.limit is None or one.remaining == 0
                )
                if one.unit == read.unit or (read.unit is None and used_up):
                    hint_us = one.full_after_us
                    return dataclasses.replace(
                        read, unit=one.unit, retry_after_us=hint_us
                    )
        return read

    def readings(self, headers_: HeaderSource, now_us: int) -> tuple[Reading, ...]:
        """Return the limits that an answer's headers show."""
        fields = headers.fold(headers_, self._shown_by)
        return headers.read_readings(self.shows, fields, now_us)

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
        fields = [*_NO_RETRY]
        if retry_after_us is not None:
            wait_us = max(0, retry_after_us)
            fields.append(("retry-after", str(-(-wait_us // SECOND))))
            fields.append(("retry-after-ms", str(-(-wait_us // 1000))))
        return _REFUSED, fields, json.dumps(body).encode()

    def unavailable(
        self, message: str, *, endpoint: Endpoint = Endpoint.OTHER
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Write the 503 by which this provider's own SDK raises its server error.

        The SDK is told not to try again by itself.
        """
        dialect = self._dialect(endpoint)
        code = _UNAVAILABLE_CODES[dialect]
        body = _SHAPES[dialect].refusal(message, code, "server_error")
        return _UNAVAILABLE, [*_NO_RETRY], json.dumps(body).encode()

    def _dialect(self, endpoint: Endpoint) -> Dialect:
        return _SPOKEN.get(endpoint, self.speaks)


def _windows(row: HeaderRow) -> tuple[int, ...]:
    """Return the windows a header may speak of."""
    if row.window_us is not None:
        return (row.window_us,)
    return (SECOND, 10 * SECOND, MINUTE) if row.period else (MINUTE, DAY)


_SPOKEN = {
    Endpoint.CHAT: Dialect.OPENAI,
    Endpoint.RESPONSES: Dialect.OPENAI,
    Endpoint.EMBEDDINGS: Dialect.OPENAI,
    Endpoint.MESSAGES: Dialect.ANTHROPIC,
    Endpoint.COUNT_TOKENS: Dialect.ANTHROPIC,
    Endpoint.GENERATE: Dialect.GEMINI,
    Endpoint.INTERACTIONS: Dialect.INTERACTIONS,
    Endpoint.COHERE_CHAT: Dialect.COHERE,
    Endpoint.CONVERSE: Dialect.BEDROCK,
}
_NO_RETRY = (("content-type", "application/json"), ("x-should-retry", "false"))
_UNAVAILABLE_CODES = {
    Dialect.OPENAI: "service_unavailable",
    Dialect.ANTHROPIC: "overloaded_error",
    Dialect.GEMINI: UNAVAILABLE,
    Dialect.INTERACTIONS: "service_unavailable",
    Dialect.COHERE: "service_unavailable",
    Dialect.BEDROCK: "ServiceUnavailableException",
}
_REFUSAL_CODES = {
    Dialect.OPENAI: "rate_limit_exceeded",
    Dialect.ANTHROPIC: "rate_limit_error",
    Dialect.GEMINI: "RESOURCE_EXHAUSTED",
    Dialect.INTERACTIONS: "rate_limit_exceeded",
    Dialect.COHERE: "rate_limit_exceeded",
    Dialect.BEDROCK: "ThrottlingException",
}
