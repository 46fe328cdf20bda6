"""Replies: a refusal of the gateway's own, in the words of the caller's API.

It knows statuses, shapes and the headers that tell an SDK when to come back; not why a
call was refused, nor how a message reads. Pure.
Invariant: whoever comes back exactly when told is not refused by what told them.

An SDK's own retry after exactly `Retry-After` serves its user best where the wait is
short, so up to `LONGEST_RETRY_US` its policy is left alone. Beyond that, and where no
wait would help, `x-should-retry: false` ends the call at once: some SDKs would
otherwise sleep for as long as they are told, be it a day.
"""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ratekeeper.core import units
from ratekeeper.providers.facts import Dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Header = tuple[bytes, bytes]

# Every window of a minute frees within it; a program that hangs for longer without a
# word is worse off than one that is told.
LONGEST_RETRY_US = units.MINUTE


class Fault(StrEnum):
    """Why a call was not answered by a provider."""

    BUSY = "busy"  # a limit: it frees by itself
    BUDGET = "budget"  # the money of the window is spent
    IMPOSSIBLE = "impossible"  # larger than a limit: no wait would help
    UNKNOWN_KEY = "unknown_key"
    EXPIRED = "expired"  # a key; callers are told the same as of one that is unknown
    REVOKED = "revoked"
    FORBIDDEN = "forbidden"  # the key is known and may not do this
    # No price is known, and the caller has a budget. Not a bad request: the operator
    # is whom it waits for, and programs that fall back to another model do so on 403.
    PRICE_UNKNOWN = "price_unknown"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    METHOD = "method"
    TOO_LARGE = "too_large"
    UNREACHABLE = "unreachable"  # no account could be reached
    UNAVAILABLE = "unavailable"  # all accounts set aside, the store down, or draining
    LATE = "late"  # a provider did not answer in time; it may have done the work


class _Words(NamedTuple):
    """What the APIs call a fault, each in its own vocabulary."""

    status: HTTPStatus
    kind: str  # OpenAI's `type`
    code: str  # OpenAI's `code`
    anthropic: str
    google: str
    amazon: str


_INVALID = "invalid_request_error"
_STRANGER = _Words(
    HTTPStatus.UNAUTHORIZED,
    _INVALID,
    "invalid_api_key",
    "authentication_error",
    "UNAUTHENTICATED",
    "UnrecognizedClientException",
)
_FAULTS: Mapping[Fault, _Words] = {
    Fault.BUSY: _Words(
        HTTPStatus.TOO_MANY_REQUESTS,
        "rate_limit_error",
        "rate_limit_exceeded",
        "rate_limit_error",
        "RESOURCE_EXHAUSTED",
        "ThrottlingException",
    ),
    Fault.BUDGET: _Words(
        HTTPStatus.TOO_MANY_REQUESTS,
        "rate_limit_error",
        "budget_exceeded",
        "rate_limit_error",
        "RESOURCE_EXHAUSTED",
        "ServiceQuotaExceededException",  # boto3 does not send these again
    ),
    Fault.IMPOSSIBLE: _Words(
        HTTPStatus.TOO_MANY_REQUESTS,
        "rate_limit_error",
        "request_too_large",
        "rate_limit_error",
        "RESOURCE_EXHAUSTED",
        "ServiceQuotaExceededException",
    ),
    Fault.UNKNOWN_KEY: _STRANGER,
    Fault.EXPIRED: _STRANGER,
    Fault.REVOKED: _STRANGER,
    Fault.FORBIDDEN: _Words(
        HTTPStatus.FORBIDDEN,
        _INVALID,
        "permission_denied",
        "permission_error",
        "PERMISSION_DENIED",
        "AccessDeniedException",
    ),
    Fault.PRICE_UNKNOWN: _Words(
        HTTPStatus.FORBIDDEN,
        _INVALID,
        "price_unknown",
        "permission_error",
        "PERMISSION_DENIED",
        "AccessDeniedException",
    ),
    Fault.BAD_REQUEST: _Words(
        HTTPStatus.BAD_REQUEST,
        _INVALID,
        "invalid_request",
        _INVALID,
        "INVALID_ARGUMENT",
        "ValidationException",
    ),
    Fault.NOT_FOUND: _Words(
        HTTPStatus.NOT_FOUND,
        _INVALID,
        "not_found",
        "not_found_error",
        "NOT_FOUND",
        "ResourceNotFoundException",
    ),
    Fault.METHOD: _Words(
        HTTPStatus.METHOD_NOT_ALLOWED,
        _INVALID,
        "method_not_allowed",
        _INVALID,
        "INVALID_ARGUMENT",
        "ValidationException",
    ),
    Fault.TOO_LARGE: _Words(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        _INVALID,
        "body_too_large",
        "request_too_large",
        "INVALID_ARGUMENT",
        "ValidationException",
    ),
    Fault.UNREACHABLE: _Words(
        HTTPStatus.BAD_GATEWAY,
        "server_error",
        "provider_unreachable",
        "api_error",
        "UNAVAILABLE",
        "InternalServerException",
    ),
    Fault.UNAVAILABLE: _Words(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "server_error",
        "service_unavailable",
        "overloaded_error",
        "UNAVAILABLE",
        "ServiceUnavailableException",
    ),
    Fault.LATE: _Words(
        HTTPStatus.GATEWAY_TIMEOUT,
        "server_error",
        "provider_timeout",
        "timeout_error",
        "DEADLINE_EXCEEDED",
        "ModelTimeoutException",
    ),
}

Json = dict[str, object]


def _openai(words: _Words, message: str, _: str, __: int | None) -> Json:
    error = {"message": message, "type": words.kind, "param": None, "code": words.code}
    return {"error": error}


def _anthropic(words: _Words, message: str, request_id: str, _: int | None) -> Json:
    error = {"type": words.anthropic, "message": message}
    return {"type": "error", "error": error, "request_id": request_id}


def _google(words: _Words, message: str, _: str, wait_us: int | None) -> Json:
    error: Json = {
        "code": words.status.value,
        "message": message,
        "status": words.google,
    }
    if wait_us is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        seconds, micros = divmod(wait_us, units.SECOND)
        delay = f"{seconds}.{micros:06}".rstrip("0").rstrip(".")
        error["details"] = [{"@type": kind, "retryDelay": f"{delay}s"}]
    return {"error": error}


def _interactions(words: _Words, message: str, _: str, __: int | None) -> Json:
    return {"error": {"code": words.code, "message": message}}


def _cohere(_: _Words, message: str, request_id: str, __: int | None) -> Json:
    return {"id": request_id, "message": message}


def _amazon(words: _Words, message: str, _: str, __: int | None) -> Json:
    return {"message": message, "__type": words.amazon}


class _Shape(NamedTuple):
    write: Callable[[_Words, str, str, int | None], Json]
    id_header: bytes  # where the SDK looks for the request's id


_SHAPES: Mapping[Dialect, _Shape] = {
    Dialect.OPENAI: _Shape(_openai, b"x-request-id"),
    Dialect.ANTHROPIC: _Shape(_anthropic, b"request-id"),
    Dialect.GEMINI: _Shape(_google, b"x-request-id"),
    Dialect.INTERACTIONS: _Shape(_interactions, b"x-request-id"),
    Dialect.COHERE: _Shape(_cohere, b"x-request-id"),
    Dialect.BEDROCK: _Shape(_amazon, b"x-amzn-requestid"),
}
# Faults that pass by themselves, where a wait is known. A call that was late may have
# been done and charged, and one that found nobody has been tried elsewhere already.
_PASSING = frozenset([Fault.BUSY, Fault.BUDGET, Fault.UNAVAILABLE])

_JSON: Header = (b"content-type", b"application/json")
_NO_RETRY: Header = (b"x-should-retry", b"false")
_BEARER: Header = (b"www-authenticate", b"Bearer")  # RFC 9110, 15.5.2


class Answer(NamedTuple):
    """An answer of the gateway's own, ready to be sent."""

    status: int
    headers: list[Header]
    body: bytes


def answer(
    fault: Fault,
    message: str,
    dialect: Dialect,
    *,
    retry_after_us: int | None = None,
    exact: bool = True,
    request_id: str,
    also: Iterable[Header] = (),
) -> Answer:
    """Write a fault so that the caller's SDK raises its own class of error for it.

    `message` says what is wrong and what to do, without the wait, which is added here;
    `exact` False tells that the call may have to wait for longer. `retry_after_us` is
    used where the fault passes by itself. `also` are headers to send as well: the
    caller's limits, or the methods of a path.
    """
    words, shape = _FAULTS[fault], _SHAPES[dialect]
    wait_us = None
    if retry_after_us is not None and fault in _PASSING:
        wait_us = max(0, retry_after_us)
        least = "" if exact else " at the earliest"
        message = f"{message}; try again in {units.format_wait(wait_us)}{least}"
    if not message.isascii():  # a lone surrogate, of a model's name, is not UTF-8
        message = message.encode("utf-8", "replace").decode()
    body = msgspec.json.encode(shape.write(words, message, request_id, wait_us))
    headers = [
        _JSON,
        (b"content-length", b"%d" % len(body)),
        (shape.id_header, request_id.encode("ascii", "replace")),
    ]
    if wait_us is not None:
        headers.append((b"retry-after", b"%d" % -(-wait_us // units.SECOND)))
        headers.append((b"retry-after-ms", b"%d" % -(-wait_us // 1000)))
    if wait_us is None or wait_us > LONGEST_RETRY_US:
        headers.append(_NO_RETRY)
    if words.status is HTTPStatus.UNAUTHORIZED:
        headers.append(_BEARER)
    if dialect is Dialect.BEDROCK:
        headers.append((b"x-amzn-errortype", words.amazon.encode()))
    headers.extend(also)
    return Answer(words.status.value, headers, body)
