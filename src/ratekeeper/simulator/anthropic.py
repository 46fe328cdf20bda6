"""The Anthropic dialect: Messages, its named events, its limits and its errors.

Input is estimated at admission and corrected when it is known; output takes nothing at
admission and is debited as it is generated, whatever max_tokens says (2026 text of the
rate-limit page).
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from ratekeeper.simulator import counting
from ratekeeper.simulator.dialect import (
    SERVER_SENT_EVENTS,
    Answer,
    BadRequest,
    Call,
    Endpoint,
    Event,
    Headers,
    Problem,
    Reply,
    Trouble,
    bearer,
    read_count,
    read_object,
    shortest,
    to_json,
    whole_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ratekeeper.simulator.enforcer import Refused, Standing

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_DOCS = "https://docs.claude.com/en/api/rate-limits"
_ROUNDED = 1000  # remaining tokens are told to the nearest thousand

_PATHS = {
    ("POST", "/messages"): Endpoint.MESSAGES,
    ("POST", "/messages/count_tokens"): Endpoint.COUNT_TOKENS,
    ("GET", "/models"): Endpoint.MODELS,
}

_WORDINGS: dict[Trouble, tuple[int, str, str]] = {
    Trouble.THROTTLED: (
        429,
        "rate_limit_error",
        f"This request would exceed your organization's rate limit. See {_DOCS}.",
    ),
    Trouble.BANNED: (
        429,
        "rate_limit_error",
        "Your organization is temporarily blocked after repeated requests above its "
        "rate limits.",
    ),
    Trouble.SLOW_DOWN: (
        429,
        "rate_limit_error",
        "This request would exceed your organization's acceleration limit. Please ramp "
        f"up gradually. See {_DOCS}.",
    ),
    Trouble.SPEND_LIMIT: (
        429,
        "rate_limit_error",
        "Your organization has reached its monthly spend limit.",
    ),
    Trouble.BILLING: (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to "
        "Plans & Billing to upgrade or purchase credits.",
    ),
    Trouble.UNAUTHORIZED: (401, "authentication_error", "invalid x-api-key"),
    Trouble.FORBIDDEN: (
        403,
        "permission_error",
        "Your API key does not have permission to use the specified resource.",
    ),
    Trouble.NOT_FOUND: (404, "not_found_error", "Not found"),
    Trouble.BAD_REQUEST: (400, "invalid_request_error", "Bad request"),
    Trouble.BODY_TOO_LARGE: (
        413,
        "request_too_large",
        "Request exceeds the maximum size",
    ),
    Trouble.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    Trouble.SERVER: (500, "api_error", "Internal server error"),
    Trouble.TIMEOUT: (504, "timeout_error", "Request timed out"),
    Trouble.OTHER: (418, "api_error", "Something went wrong"),
}

_CODES = {  # as anthropic 2.13 types them in `types/shared/error_details.py`
    Trouble.SLOW_DOWN: "ramp_limit_exceeded",
    Trouble.SPEND_LIMIT: "enforced_spend_limit_reached",
}


class Anthropic:
    """Anthropic: requests, input tokens and output tokens, in token buckets."""

    name = "anthropic"
    base_path = ""
    own_path = ""
    key_variable = "ANTHROPIC_API_KEY"
    units: Sequence[str] = ("requests", "input_tokens", "output_tokens", "tokens")
    usual_limits: Sequence[str] = ("1000 rpm", "2M itpm", "400k otpm")
    settles = True
    debits = True
    refunded: Sequence[str] = ("input_tokens", "tokens")

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does."""
        return _PATHS.get((method, path.removeprefix("/v1")))

    def key(self, headers: Mapping[str, str]) -> str:
        """Return the key of `x-api-key`, or of a bearer."""
        return headers.get("x-api-key", "").strip() or bearer(headers)

    def read(self, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> Call:
        """Read a request; raises `BadRequest`."""
        if "anthropic-version" not in headers:
            message = "anthropic-version: header is required"
            raise BadRequest(message)
        if endpoint is Endpoint.MODELS:
            return Call(endpoint=endpoint)
        request = read_object(body)
        model = _required(request, "model", str)
        messages = _required(request, "messages", list)
        for index, one in enumerate(messages):
            if not isinstance(one, dict) or one.get("role") not in {
                "user",
                "assistant",
                "system",
            }:
                message = f"messages.{index}: Input should be a message with a role"
                raise BadRequest(message)
        extra = {"tools": request.get("tools")}
        system = request.get("system")
        prompt = messages if system is None else [{"content": system}, *messages]
        truth, estimate = counting.count_prompt(prompt, extra)
        if endpoint is Endpoint.COUNT_TOKENS:
            return Call(endpoint=endpoint, model=model, input_tokens=truth)
        stream = request.get("stream")
        if stream is not None and not isinstance(stream, bool):
            message = "stream: Input should be a valid boolean"
            raise BadRequest(message)
        most = read_count(request, "max_tokens")
        if most is None:
            message = "max_tokens: Field required"
            raise BadRequest(message)
        return Call(
            endpoint=endpoint,
            model=model,
            stream=bool(stream),
            input_tokens=truth,
            estimate=estimate,
            max_output=most,
        )

    def costs(self, call: Call) -> dict[str, int]:
        """Take one request and the estimated input; output nothing."""
        if call.endpoint is not Endpoint.MESSAGES:
            return {}
        return {
            "requests": 1,
            "input_tokens": call.estimate,
            "output_tokens": 0,
            "tokens": call.estimate,
        }

    def used(self, call: Call, output_tokens: int) -> dict[str, int]:
        """Count the true input and the output generated so far."""
        return {
            "input_tokens": call.input_tokens,
            "output_tokens": output_tokens,
            "tokens": call.input_tokens + output_tokens,
        }

    def limit_headers(self, standing: Sequence[Standing], now: int) -> Headers:
        """Write limit, remaining and time of full; `tokens` is the tightest in force."""
        headers: Headers = []
        counted = [one for one in standing if one.rule.unit.endswith("tokens")]
        tightest = min(counted, key=lambda one: one.remaining / one.limit, default=None)
        for unit in ("requests", "input_tokens", "output_tokens", "tokens"):
            shown = tightest if unit == "tokens" else shortest(standing, unit)
            if shown is None:
                continue
            remaining = shown.remaining
            if unit != "requests":
                remaining = round(remaining / _ROUNDED) * _ROUNDED
            name = f"anthropic-ratelimit-{unit.replace('_', '-')}"
            headers += [
                (f"{name}-limit", str(shown.limit)),
                (f"{name}-remaining", str(remaining)),
                (f"{name}-reset", _rfc3339(max(shown.full_at, now))),
            ]
        return headers

    def answer(self, call: Call, answer: Answer) -> bytes:
        """Write a whole answer."""
        if call.endpoint is Endpoint.MODELS:
            return to_json(_models())
        if call.endpoint is Endpoint.COUNT_TOKENS:
            return to_json({"input_tokens": call.input_tokens})
        body = _message(call, answer)
        body["content"] = [{"type": "text", "text": "".join(answer.words)}]
        body["stop_reason"] = _stop(answer)
        if answer.with_usage:
            body["usage"] = _usage(call, answer, answer.tokens)
        else:
            del body["usage"]
        return to_json(body)

    def stream(self, call: Call, answer: Answer) -> Iterator[Event]:
        """Write an answer as named server-sent events; usage is cumulative."""
        message = _message(call, answer)
        if not answer.with_usage:
            message["usage"] = {"input_tokens": 0, "output_tokens": 0}
        yield Event(_event("message_start", {"message": message}), 0)
        block = {"index": 0, "content_block": {"type": "text", "text": ""}}
        yield Event(_event("content_block_start", block), 0)
        yield Event(_event("ping", {}), 0)
        for text, tokens in answer.pieces():
            delta = {"index": 0, "delta": {"type": "text_delta", "text": text}}
            yield Event(_event("content_block_delta", delta), tokens)
        yield Event(_event("content_block_stop", {"index": 0}), answer.tokens)
        end: dict[str, Any] = {
            "delta": {"stop_reason": _stop(answer), "stop_sequence": None}
        }
        if answer.with_usage:
            end["usage"] = {"output_tokens": answer.tokens}
        yield Event(_event("message_delta", end), answer.tokens)
        yield Event(_event("message_stop", {}), answer.tokens)

    def stream_type(self, call: Call) -> str:  # noqa: ARG002 - the same for all
        """Return the content type of a stream."""
        return SERVER_SENT_EVENTS

    def keep_alive(self, *, stream: bool) -> bytes:
        """Write what is sent while a call waits: a ping, or white space."""
        return _event("ping", {}) if stream else b"\n"

    def stream_error(self, call: Call, problem: Problem) -> bytes:  # noqa: ARG002
        """Write the error event of a stream that has begun with 200."""
        return _event("error", {"error": _error(problem)})

    def failure(
        self, problem: Problem, standing: Sequence[Standing], now: int
    ) -> Reply:
        """Write an error response."""
        status = problem.status or _WORDINGS[_worded(problem.trouble)][0]
        headers: Headers = [("content-type", "application/json")]
        headers += self.id_headers(problem.request_id)
        if problem.trouble in {Trouble.THROTTLED, Trouble.TOO_LARGE}:
            headers += self.limit_headers(standing, now)
        if problem.wait_us is not None and problem.trouble is not Trouble.SPEND_LIMIT:
            headers.append(("retry-after", whole_seconds(problem.wait_us)))
        body = {
            "type": "error",
            "error": _error(problem),
            "request_id": f"req_{problem.request_id}",
        }
        return Reply(status=status, headers=headers, body=to_json(body))

    def id_headers(self, request_id: str) -> Headers:
        """Name the request and the organization, as every response does."""
        return [
            ("request-id", f"req_{request_id}"),
            ("anthropic-organization-id", "00000000-0000-0000-0000-000000000000"),
        ]


def _required(request: dict[str, Any], name: str, kind: type) -> Any:
    value = request.get(name)
    if value is None:
        message = f"{name}: Field required"
        raise BadRequest(message)
    if not isinstance(value, kind) or not value:
        what = "list" if kind is list else "string"
        message = f"{name}: Input should be a valid {what}, and not empty"
        raise BadRequest(message)
    return value


def _worded(trouble: Trouble) -> Trouble:
    """Pick the row of words: what is too large is told like any other excess."""
    return Trouble.THROTTLED if trouble is Trouble.TOO_LARGE else trouble


def _error(problem: Problem) -> dict[str, Any]:
    _, kind, text = _WORDINGS[_worded(problem.trouble)]
    if problem.refused is not None:
        text = _exceeds(problem, problem.refused)
    error: dict[str, Any] = {"type": kind, "message": problem.message or text}
    code = _CODES.get(problem.trouble)
    if code is not None:
        error["details"] = {"error_code": code}
    return error


def _exceeds(problem: Problem, refused: Refused) -> str:
    rule = refused.rule
    if rule.window_us == 0:
        return (
            "Number of concurrent connections has exceeded your rate limit of "
            f"{rule.amount:,}. See {_DOCS}."
        )
    per = {60: "minute", 3600: "hour", 86_400: "day"}
    seconds = rule.window_us // 1_000_000
    return (
        f"This request would exceed your organization's rate limit of {rule.amount:,} "
        f"{rule.unit.replace('_', ' ')} per {per.get(seconds, f'{seconds} seconds')} "
        f"(org: 00000000-0000-0000-0000-000000000000, model: {problem.model}). For "
        f"details, refer to: {_DOCS}. You can see the response headers for current "
        "usage. Please reduce the prompt length or the maximum tokens requested, or "
        "try again later."
    )


def _message(call: Call, answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.request_id}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(call, answer, 1),
    }


def _usage(call: Call, answer: Answer, output_tokens: int) -> dict[str, Any]:
    cached = min(answer.cached_tokens, call.input_tokens)
    return {
        "input_tokens": call.input_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _stop(answer: Answer) -> str:
    return "max_tokens" if answer.truncated else "end_turn"


def _models() -> dict[str, Any]:
    names = ("simulated-large", "simulated-small")
    return {
        "data": [
            {
                "type": "model",
                "id": name,
                "display_name": name,
                "created_at": "2026-01-01T00:00:00Z",
            }
            for name in names
        ],
        "has_more": False,
        "first_id": names[0],
        "last_id": names[-1],
    }


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    body = to_json({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"


def _rfc3339(moment_us: int) -> str:
    """Print a moment in whole seconds, rounded up: never a promise too early."""
    moment = _EPOCH + datetime.timedelta(seconds=-(-moment_us // 1_000_000))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
