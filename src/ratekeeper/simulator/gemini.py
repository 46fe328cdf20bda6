"""Gemini: its own generateContent, its stream and countTokens; OpenAI's shapes as well.

No header tells of a limit: the body of an error does, and how soon to come back; for a
day's quota that hint is as short as the true one's, and wrong. Its streams are always
server-sent events, as its SDKs ask for them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ratekeeper.simulator import counting
from ratekeeper.simulator.dialect import (
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
    to_json,
)
from ratekeeper.simulator.openai import OpenAI

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ratekeeper.simulator.enforcer import Refused, Standing

_PATH = re.compile(r"/v1(?:beta)?/models/(?P<model>[^/:]+):(?P<method>[A-Za-z]+)")
_METHODS = {
    "generateContent": Endpoint.GENERATE,
    "streamGenerateContent": Endpoint.STREAM_GENERATE,
    "countTokens": Endpoint.COUNT_TOKENS,
}
_NATIVE = frozenset(_METHODS.values())
_TYPES = "type.googleapis.com/google.rpc."
_METRICS = "generativelanguage.googleapis.com/generate_content_"
_DAY_US = 86_400_000_000
_SHORT_US = 60_000_000  # the longest hint it gives

# Status of HTTP, its own name for it, and the text.
GOOGLE_WORDS: Mapping[Trouble, tuple[int, str, str]] = {
    Trouble.UNAUTHORIZED: (
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
    ),
    Trouble.FORBIDDEN: (403, "PERMISSION_DENIED", "The caller has no permission."),
    Trouble.BANNED: (403, "PERMISSION_DENIED", "The consumer has been suspended."),
    Trouble.NOT_FOUND: (404, "NOT_FOUND", "Requested entity was not found."),
    Trouble.BAD_REQUEST: (400, "INVALID_ARGUMENT", "Request contains an error."),
    Trouble.BODY_TOO_LARGE: (413, "INVALID_ARGUMENT", "Request is too large."),
    Trouble.OVERLOADED: (
        503,
        "UNAVAILABLE",
        "The model is overloaded. Please try again later.",
    ),
    Trouble.BILLING: (402, "FAILED_PRECONDITION", "The account has no credit left."),
    Trouble.SPEND_LIMIT: (402, "FAILED_PRECONDITION", "The spend cap is reached."),
    Trouble.SERVER: (500, "INTERNAL", "An internal error has occurred."),
    Trouble.TIMEOUT: (504, "DEADLINE_EXCEEDED", "The deadline has passed."),
    Trouble.OTHER: (418, "UNKNOWN", "Something went wrong."),
}
_EXHAUSTED = (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.")


class Gemini(OpenAI):
    """Gemini AI Studio: counts requests, and of the tokens the input alone."""

    name = "gemini"
    base_path = "/v1beta/openai"
    own_path = "/v1beta/models/NAME:generateContent"
    key_variable = "GEMINI_API_KEY"
    usual_limits: Sequence[str] = (
        "10 rpm",
        "250k tpm",
        "250 requests/day resets 00:00 America/Los_Angeles",
    )

    path: re.Pattern[str] = _PATH  # of its own API: model and method
    words: Mapping[Trouble, tuple[int, str, str]] = GOOGLE_WORDS

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does: its own, or OpenAI's below `/v1beta/openai`."""
        own = self.path.fullmatch(path)
        if own is not None:
            return _METHODS.get(own["method"]) if method == "POST" else None
        return super().route(method, path.removeprefix("/v1beta/openai"))

    def key(self, headers: Mapping[str, str]) -> str:
        """Return the key of the `x-goog-api-key` header, or the bearer's."""
        return headers.get("x-goog-api-key", "").strip() or bearer(headers)

    def read(self, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> Call:
        """Read a request, its model in the path; raises `BadRequest`."""
        if endpoint not in _NATIVE:
            return super().read(endpoint, body, headers)
        request = read_object(body)
        contents = request.get("contents")
        if not isinstance(contents, list) or not contents:
            message = "* GenerateContentRequest.contents: contents is not specified"
            raise BadRequest(message)
        extra = {name: request.get(name) for name in ("systemInstruction", "tools")}
        truth, estimate = counting.count_prompt([*map(_message, contents)], extra)
        bounds = request.get("generationConfig")
        if bounds is not None and not isinstance(bounds, dict):
            message = "Invalid value at 'generation_config'"
            raise BadRequest(message)
        return Call(
            endpoint=endpoint,
            model=self.model(headers),
            stream=endpoint is Endpoint.STREAM_GENERATE,
            input_tokens=truth,
            estimate=estimate,
            max_output=read_count(bounds or {}, "maxOutputTokens"),
        )

    def model(self, headers: Mapping[str, str]) -> str:
        """Return the model that the path of a request names."""
        own = self.path.fullmatch(headers.get(":path", ""))
        return "gemini-simulated" if own is None else own["model"]

    def costs(self, call: Call) -> dict[str, int]:
        """Take one request, and the tokens of its input."""
        if call.endpoint in {Endpoint.MODELS, Endpoint.COUNT_TOKENS}:
            return {}
        return {"requests": 1, "tokens": call.estimate}

    def limit_headers(
        self,
        standing: Sequence[Standing],  # noqa: ARG002 - it tells nothing of them
        now: int,  # noqa: ARG002
    ) -> Headers:
        """Write nothing."""
        return []

    def answer(self, call: Call, answer: Answer) -> bytes:
        """Write a whole answer."""
        if call.endpoint is Endpoint.COUNT_TOKENS:
            return to_json({"totalTokens": call.input_tokens})
        if call.endpoint not in _NATIVE:
            return super().answer(call, answer)
        finish = "MAX_TOKENS" if answer.truncated else "STOP"
        text = "".join(answer.words)
        return to_json(_part(call, answer, text, answer.tokens, finish))

    def stream(self, call: Call, answer: Answer) -> Iterator[Event]:
        """Write an answer in chunks; each repeats the usage so far."""
        if call.endpoint is not Endpoint.STREAM_GENERATE:
            yield from super().stream(call, answer)
            return
        for text, tokens in answer.pieces():
            yield _event(_part(call, answer, text, tokens, None), tokens)
        finish = "MAX_TOKENS" if answer.truncated else "STOP"
        yield _event(_part(call, answer, "", answer.tokens, finish), answer.tokens)

    def stream_error(self, call: Call, problem: Problem) -> bytes:  # noqa: ARG002 - the same for all
        """Write an error into a stream that has begun with 200."""
        return _event(self.error_body(problem), 0).data

    def failure(
        self,
        problem: Problem,
        standing: Sequence[Standing],  # noqa: ARG002 - no header tells of them
        now: int,  # noqa: ARG002
    ) -> Reply:
        """Write an error response; its body tells all."""
        error = self.error_body(problem)
        return Reply(
            status=error["error"]["code"],
            headers=[("content-type", "application/json; charset=UTF-8")],
            body=to_json(error),
        )

    def id_headers(self, request_id: str) -> Headers:  # noqa: ARG002 - it names none
        """Write nothing."""
        return []

    def error_body(self, problem: Problem) -> dict[str, Any]:
        """Write an error, and in its details which quota is used up."""
        error = self.status_of(problem)
        if problem.trouble is Trouble.UNAUTHORIZED:
            reason = {"@type": f"{_TYPES}ErrorInfo", "reason": "API_KEY_INVALID"}
            error["details"] = [reason]
        if problem.refused is not None:
            error["message"] += _said(problem.refused)
            error["details"] = _details(problem, problem.refused)
        return {"error": error}

    def status_of(self, problem: Problem) -> dict[str, Any]:
        """Write code, text and status of an error, as Google's APIs do."""
        status, name, text = self.words.get(problem.trouble, _EXHAUSTED)
        return {
            "code": problem.status or status,
            "message": problem.message or text,
            "status": name,
        }


def _message(content: object) -> object:
    """Write a content in the words that the count knows."""
    parts = content.get("parts") if isinstance(content, dict) else content
    listed = parts if isinstance(parts, list) else [parts]
    return {
        "content": [
            {"type": "image"} if isinstance(one, dict) and "inlineData" in one else one
            for one in listed
        ]
    }


def _part(
    call: Call, answer: Answer, text: str, tokens: int, finish: str | None
) -> dict[str, Any]:
    candidate: dict[str, Any] = {
        "content": {"role": "model", "parts": [{"text": text}]},
        "index": 0,
    }
    if finish is not None:
        candidate["finishReason"] = finish
    part: dict[str, Any] = {
        "candidates": [candidate],
        "modelVersion": call.model,
        "responseId": answer.request_id,
    }
    if answer.with_usage:
        part["usageMetadata"] = {
            "promptTokenCount": call.input_tokens,
            "candidatesTokenCount": tokens,
            "totalTokenCount": call.input_tokens + tokens,
            "cachedContentTokenCount": min(answer.cached_tokens, call.input_tokens),
        }
    return part


def _event(value: object, tokens: int) -> Event:
    return Event(b"data: " + to_json(value) + b"\r\n\r\n", tokens)


def _said(refused: Refused) -> str:
    rule = refused.rule
    again = ""
    if refused.wait_us is not None:
        again = f"\nPlease retry in {_duration(refused.wait_us)}."
    metric = _metric(rule.unit)
    return f"\n* Quota exceeded for metric: {metric}, limit: {rule.amount}{again}"


def _details(problem: Problem, refused: Refused) -> list[dict[str, Any]]:
    rule = refused.rule
    period = "Day" if rule.window_us >= _DAY_US else "Minute"
    quota = f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier"
    if rule.unit == "tokens":
        quota = f"GenerateContentInputTokensPerModelPer{period}-FreeTier"
    violation = {
        "quotaMetric": _metric(rule.unit),
        "quotaId": quota,
        "quotaDimensions": {"location": "global", "model": problem.model},
        "quotaValue": str(rule.amount),
    }
    details: list[dict[str, Any]] = [
        {"@type": f"{_TYPES}QuotaFailure", "violations": [violation]}
    ]
    if refused.wait_us is not None:
        delay = _duration(refused.wait_us)
        details.append({"@type": f"{_TYPES}RetryInfo", "retryDelay": delay})
    return details


def _metric(unit: str) -> str:
    if unit == "tokens":
        return f"{_METRICS}free_tier_input_token_count"
    return f"{_METRICS}free_tier_requests"


def _duration(wait_us: int) -> str:
    """Write a wait as protobuf does, a long one cut short."""
    seconds, rest = divmod(min(wait_us, _SHORT_US), 1_000_000)
    return f"{seconds}.{rest:06}".rstrip("0").rstrip(".") + "s"
