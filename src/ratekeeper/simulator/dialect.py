"""Dialect: what any provider must be able to say, whatever words it uses for it.

A dialect turns requests into a `Call`, and answers, limits and problems into bytes and
headers. It is pure: the server gives it the time, the answer and the reason, and it
never decides whether a call is admitted.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ratekeeper.simulator.rules import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ratekeeper.simulator.enforcer import Refused, Standing

Headers = list[tuple[str, str]]

_LARGEST_COUNT = 10**9  # of tokens in one request; anything above is a bad request


class Endpoint(StrEnum):
    """What a path does."""

    CHAT = "chat"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    GENERATE = "generate"
    STREAM_GENERATE = "stream_generate"
    MODELS = "models"


class Trouble(StrEnum):
    """Why a call fails; every dialect has its own words for each."""

    THROTTLED = "throttled"
    TOO_LARGE = "too_large"  # larger than a limit: no wait would help
    BANNED = "banned"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    BAD_REQUEST = "bad_request"
    BODY_TOO_LARGE = "body_too_large"
    OVERLOADED = "overloaded"
    SLOW_DOWN = "slow_down"  # the ramp is too steep, though no limit is reached
    BILLING = "billing"  # credit is used up
    SPEND_LIMIT = "spend_limit"
    SERVER = "server"
    TIMEOUT = "timeout"
    OTHER = "other"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the provider read in a request."""

    endpoint: Endpoint
    model: str = ""
    stream: bool = False
    include_usage: bool = True
    input_tokens: int = 0  # what will be billed
    estimate: int = 0  # what is reserved for the input at admission
    max_output: int | None = None
    inputs: int = 1  # texts to embed
    dimensions: int = 16
    base64: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model says: its words, each exactly one token."""

    request_id: str
    created: int  # epoch seconds
    words: Sequence[str]
    truncated: bool  # stopped by max_tokens
    with_usage: bool = True
    cached_tokens: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens the answer is."""
        return len(self.words)

    def pieces(self, most: int = 50) -> Iterator[tuple[str, int]]:
        """Cut the text for a stream: pieces, and the tokens generated with each.

        At most fifty: enough to cut anywhere, few enough for 3,000 calls a minute.
        """
        step = max(1, -(-self.tokens // most))
        for start in range(0, self.tokens, step):
            end = min(start + step, self.tokens)
            yield "".join(self.words[start:end]), end


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A failure to be put into words."""

    trouble: Trouble
    status: int | None = None  # None: what the provider uses for this trouble
    message: str = ""
    param: str | None = None
    model: str = ""
    request_id: str = ""
    refused: Refused | None = None
    wait_us: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole response."""

    status: int
    headers: Headers
    body: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """A piece of a stream, and how many tokens have been generated when it is sent."""

    data: bytes
    tokens: int


class BadRequest(Exception):
    """The request does not make sense; `param` is the field at fault."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Dialect(Protocol):
    """One provider's way of speaking."""

    name: str
    base_path: str  # what an SDK's base URL has after the host
    key_variable: str
    units: Sequence[str]  # what it can count
    usual_limits: Sequence[str]  # what it enforces if nobody says
    settles: bool  # whether true usage changes what was counted at admission
    debits: bool  # whether output counts while it is generated, not at the end
    refunded: Sequence[str]  # units whose unused cost comes back

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does; None where there is nothing."""

    def key(self, headers: Mapping[str, str]) -> str:
        """Return the API key a request carries, or nothing."""

    def read(self, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> Call:
        """Read a request; raises `BadRequest`."""

    def costs(self, call: Call) -> dict[str, int]:
        """Tell what a call takes at admission, per unit."""

    def used(self, call: Call, output_tokens: int) -> dict[str, int]:
        """Tell what a call has really used so far, per unit."""

    def limit_headers(self, standing: Sequence[Standing], now: int) -> Headers:
        """Write how the limits stand."""

    def id_headers(self, request_id: str) -> Headers:
        """Name the request, as every response does."""

    def answer(self, call: Call, answer: Answer) -> bytes:
        """Write a whole answer."""

    def stream(self, call: Call, answer: Answer) -> Iterator[Event]:
        """Write an answer as server-sent events."""

    def keep_alive(self, *, stream: bool) -> bytes:
        """Write what is sent while a call waits for its turn."""

    def stream_error(self, call: Call, problem: Problem) -> bytes:
        """Write an error into a stream that has begun with 200."""

    def failure(
        self, problem: Problem, standing: Sequence[Standing], now: int
    ) -> Reply:
        """Write an error response."""


def shortest(standing: Sequence[Standing], unit: str) -> Standing | None:
    """Pick the limit that a provider shows for a unit: the one of shortest window."""
    shown = [one for one in standing if one.rule.unit == unit]
    return min(shown, key=lambda one: one.rule.window_us, default=None)


def to_json(value: object) -> bytes:
    """Write JSON as the providers do: compact, UTF-8."""
    return msgspec.json.encode(value)


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raises `BadRequest` on anything else, however deep."""
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        message = "The body of your request is not valid JSON."
        raise BadRequest(message) from error
    if not isinstance(value, dict):
        message = "The body of your request must be a JSON object."
        raise BadRequest(message)
    return value


def read_count(body: Mapping[str, Any], name: str) -> int | None:
    """Read a whole number that may be absent; raises `BadRequest`."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= _LARGEST_COUNT:
        message = f"{name}: expected an integer of at least 1"
        raise BadRequest(message, param=name)
    return value


def bearer(headers: Mapping[str, str]) -> str:
    """Return the key of an `Authorization: Bearer` header, or nothing."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def whole_seconds(us: int) -> str:
    """Print a wait in seconds, rounded up: what a Retry-After can hold."""
    return str(max(0, -(-us // SECOND_US)))


def go_duration(us: int) -> str:
    """Print a duration as Go does, rounded up to milliseconds: 12ms, 1.146s, 6m0s."""
    millis = max(0, -(-us // 1000))
    if millis < 1000:  # noqa: PLR2004 - below a second Go prints milliseconds
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 1000}.{rest % 1000:03}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
