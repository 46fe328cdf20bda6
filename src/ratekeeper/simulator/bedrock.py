"""Amazon Bedrock: Converse, InvokeModel with Claude's messages, and OpenAI's chat.

Input and max_tokens are taken at admission; what comes back at the end is all but the
input and the output, an output token counting as many as its model's factor. No header
tells of a limit. Streams of its own are frames of bytes; errors are AWS's on every path.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import urllib.parse
from typing import TYPE_CHECKING, Any

from ratekeeper.simulator import counting, eventstream
from ratekeeper.simulator.anthropic import Anthropic
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

    from ratekeeper.simulator.enforcer import Standing

_PATH = re.compile(r"/model/(?P<model>[^/]+)/(?P<action>[a-z-]+)")
_ACTIONS = {
    "converse": Endpoint.CONVERSE,
    "converse-stream": Endpoint.CONVERSE_STREAM,
    "invoke": Endpoint.INVOKE,
    "invoke-with-response-stream": Endpoint.INVOKE_STREAM,
}
_CONVERSING = {Endpoint.CONVERSE, Endpoint.CONVERSE_STREAM}
_INVOKING = {Endpoint.INVOKE, Endpoint.INVOKE_STREAM}
_STREAMS = {Endpoint.CONVERSE_STREAM, Endpoint.INVOKE_STREAM}
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 .*?\bCredential=([^/,\s]+)/")
_UNSET = 32_768  # the model's own bound, reserved where a call sets none
_DAY_US = 86_400_000_000
_BURNDOWN = (  # what an output token counts; the first that fits, else one
    (re.compile(r"claude-[a-z]+-4-8"), 15),
    (re.compile(r"claude-(?:3-7|[a-z]+-4)"), 5),
    (re.compile(r"claude-[a-z]+-5|gpt-5\.6"), 10),
)

_UNPAID = "Your account has no valid means of payment."
_WAIT = "please wait before trying again."
_WORDS: Mapping[Trouble, tuple[int, str, str]] = {
    Trouble.UNAUTHORIZED: (
        403,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    ),
    Trouble.FORBIDDEN: (
        403,
        "AccessDeniedException",
        "You don't have access to the model with the specified model ID.",
    ),
    Trouble.BANNED: (403, "AccessDeniedException", "Your account is suspended."),
    Trouble.BILLING: (403, "AccessDeniedException", _UNPAID),
    Trouble.SPEND_LIMIT: (403, "AccessDeniedException", _UNPAID),
    Trouble.NOT_FOUND: (404, "ResourceNotFoundException", "No such resource."),
    Trouble.BAD_REQUEST: (400, "ValidationException", "The request is not valid."),
    Trouble.BODY_TOO_LARGE: (413, "ValidationException", "The request is too large."),
    Trouble.OVERLOADED: (
        429,
        "ModelNotReadyException",
        "Model is not ready for inference. Please wait and try your request again.",
    ),
    Trouble.SERVER: (500, "InternalServerException", "Something went wrong."),
    Trouble.TIMEOUT: (408, "ModelTimeoutException", "The model took too long."),
    Trouble.OTHER: (424, "ModelErrorException", "The model failed."),
}
_BUSY = (503, "ServiceUnavailableException", "The service is not available.")
_THROTTLED = (429, "ThrottlingException", f"Too many requests, {_WAIT}")


class Bedrock(OpenAI):
    """Amazon Bedrock: requests and tokens of a minute, and tokens of a day."""

    name = "bedrock"
    base_path = "/openai/v1"
    own_path = "/model/NAME/converse"
    key_variable = "AWS_BEARER_TOKEN_BEDROCK"
    usual_limits = ("200 rpm", "200k tpm", "288M tpd")
    settles = True
    refunded = ("tokens",)

    def __init__(self) -> None:
        self._claude = Anthropic()

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does: a model's own, or OpenAI's below `/openai/v1`."""
        own = _PATH.fullmatch(path)
        if own is not None:
            return _ACTIONS.get(own["action"]) if method == "POST" else None
        return super().route(method, path.removeprefix("/openai"))

    def key(self, headers: Mapping[str, str]) -> str:
        """Return the bearer key, or the name of the key that signed the request."""
        signed = _CREDENTIAL.match(headers.get("authorization", ""))
        return bearer(headers) if signed is None else signed[1]

    def read(self, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> Call:
        """Read a request, its model in the path; raises `BadRequest`."""
        own = _PATH.fullmatch(headers.get(":path", ""))
        model = "simulated" if own is None else urllib.parse.unquote(own["model"])
        if endpoint in _CONVERSING:
            return _read_converse(endpoint, model, read_object(body))
        if endpoint in _INVOKING:
            return self._read_invoke(endpoint, model, read_object(body))
        return super().read(endpoint, body, headers)

    def _read_invoke(
        self, endpoint: Endpoint, model: str, request: dict[str, Any]
    ) -> Call:
        version = request.pop("anthropic_version", None)
        if not isinstance(version, str):
            message = "anthropic_version: Field required"
            raise BadRequest(message)
        request |= {"model": model, "stream": endpoint in _STREAMS}
        fields = {"anthropic-version": version}
        call = self._claude.read(Endpoint.MESSAGES, to_json(request), fields)
        return _at(endpoint, call)

    def costs(self, call: Call) -> dict[str, int]:
        """Take one request, the estimated input, and all that may be generated."""
        if call.endpoint is Endpoint.MODELS:
            return {}
        most = _UNSET if call.max_output is None else call.max_output
        return {"requests": 1, "tokens": call.estimate + most * call.choices}

    def used(self, call: Call, output_tokens: int) -> dict[str, int]:
        """Count the input, and the output times what its model makes of it."""
        fits = (factor for name, factor in _BURNDOWN if name.search(call.model))
        return {"tokens": call.input_tokens + output_tokens * next(fits, 1)}

    def limit_headers(
        self,
        standing: Sequence[Standing],  # noqa: ARG002 - it tells nothing of them
        now: int,  # noqa: ARG002
    ) -> Headers:
        """Write nothing."""
        return []

    def id_headers(self, request_id: str) -> Headers:
        """Name the request, as every response does."""
        return [("x-amzn-requestid", request_id)]

    def answer(self, call: Call, answer: Answer) -> bytes:
        """Write a whole answer."""
        if call.endpoint in _INVOKING:
            return self._claude.answer(_at(Endpoint.MESSAGES, call), answer)
        if call.endpoint not in _CONVERSING:
            return super().answer(call, answer)
        content = [{"text": "".join(answer.words)}]
        body = {
            "metrics": {"latencyMs": 1},
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": _stop(answer),
        }
        if answer.with_usage:
            body["usage"] = _usage(call, answer)
        return to_json(body)

    def stream(self, call: Call, answer: Answer) -> Iterator[Event]:
        """Write an answer as frames, or as OpenAI's events."""
        if call.endpoint in _INVOKING:
            yield from self._chunks(call, answer)
            return
        if call.endpoint not in _CONVERSING:
            yield from super().stream(call, answer)
            return
        yield _event("messageStart", {"role": "assistant"}, 0)
        place = {"contentBlockIndex": 0}
        for text, tokens in answer.pieces():
            delta = {**place, "delta": {"text": text}}
            yield _event("contentBlockDelta", delta, tokens)
        done = answer.tokens
        yield _event("contentBlockStop", place, done)
        yield _event("messageStop", {"stopReason": _stop(answer)}, done)
        last: dict[str, Any] = {"metrics": {"latencyMs": 1}}
        if answer.with_usage:
            last["usage"] = _usage(call, answer)
        yield _event("metadata", last, done)

    def _chunks(self, call: Call, answer: Answer) -> Iterator[Event]:
        """Wrap each event of Claude's into a frame, its JSON in base64."""
        for event in self._claude.stream(_at(Endpoint.MESSAGES, call), answer):
            data = event.data.partition(b"data: ")[2].strip()
            yield _event(
                "chunk", {"bytes": base64.b64encode(data).decode()}, event.tokens
            )

    def stream_type(self, call: Call) -> str:
        """Return the content type of a stream."""
        if call.endpoint in _STREAMS:
            return eventstream.CONTENT_TYPE
        return super().stream_type(call)

    def keep_alive(self, *, stream: bool) -> bytes:
        """Write nothing into a stream: its frames have none that is idle."""
        return b"" if stream else b"\n"

    def stream_error(self, call: Call, problem: Problem) -> bytes:
        """Write the exception of a stream that has begun with 200."""
        _, kind, text = _worded(problem)
        if call.endpoint in _STREAMS:
            return eventstream.exception(kind[:1].lower() + kind[1:], text)
        return b"data: " + to_json({"error": {"code": kind, "message": text}}) + b"\n\n"

    def failure(
        self,
        problem: Problem,
        standing: Sequence[Standing],  # noqa: ARG002 - no header tells of them
        now: int,  # noqa: ARG002
    ) -> Reply:
        """Write an error response: its kind in a header, its text in the body."""
        status, kind, text = _worded(problem)
        headers: Headers = [
            ("content-type", "application/json"),
            ("x-amzn-errortype", kind),
            *self.id_headers(problem.request_id),
        ]
        body = to_json({"message": problem.message or text})
        return Reply(status=problem.status or status, headers=headers, body=body)


def _at(endpoint: Endpoint, call: Call) -> Call:
    return dataclasses.replace(call, endpoint=endpoint)


def _read_converse(endpoint: Endpoint, model: str, request: dict[str, Any]) -> Call:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        message = "The messages of a conversation must not be empty."
        raise BadRequest(message)
    bounds = request.get("inferenceConfig")
    if bounds is not None and not isinstance(bounds, dict):
        message = "inferenceConfig: expected an object"
        raise BadRequest(message)
    system = request.get("system")
    prompt = messages if system is None else [{"content": system}, *messages]
    tools = request.get("toolConfig")
    truth, estimate = counting.count_prompt(prompt, {"toolConfig": tools})
    return Call(
        endpoint=endpoint,
        model=model,
        stream=endpoint in _STREAMS,
        input_tokens=truth,
        estimate=estimate,
        max_output=read_count(bounds or {}, "maxTokens"),
    )


def _worded(problem: Problem) -> tuple[int, str, str]:
    """Return status, kind and text of an error."""
    if problem.refused is not None and problem.refused.rule.unit == "tokens":
        span = " per day" if problem.refused.rule.window_us >= _DAY_US else ""
        return 429, "ThrottlingException", f"Too many tokens{span}, {_WAIT}"
    if problem.trouble is Trouble.OVERLOADED and problem.status == _BUSY[0]:
        return _BUSY
    return _WORDS.get(problem.trouble, _THROTTLED)


def _stop(answer: Answer) -> str:
    return "max_tokens" if answer.truncated else "end_turn"


def _usage(call: Call, answer: Answer) -> dict[str, int]:
    cached = min(answer.cached_tokens, call.input_tokens)
    return {
        "inputTokens": call.input_tokens - cached,
        "outputTokens": answer.tokens,
        "totalTokens": call.input_tokens + answer.tokens,
        "cacheReadInputTokens": cached,
        "cacheWriteInputTokens": 0,
    }


def _event(kind: str, payload: dict[str, Any], tokens: int) -> Event:
    return Event(eventstream.event(kind, payload), tokens)
