"""The OpenAI dialect: chat completions, responses and embeddings, and its errors.

Also the mold for providers that speak OpenAI's shapes with their own limits: a subclass
changes a header, a text, a way of counting (`dialects.py`).
"""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

from ratekeeper.simulator import openai_requests, openai_responses
from ratekeeper.simulator.dialect import (
    SERVER_SENT_EVENTS,
    Answer,
    Call,
    Endpoint,
    Event,
    Headers,
    Problem,
    Reply,
    Trouble,
    bearer,
    go_duration,
    read_object,
    shortest,
    to_json,
    whole_seconds,
)
from ratekeeper.simulator.openai_wordings import WORDINGS, Wording, per_what

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ratekeeper.simulator.enforcer import Refused, Standing

_PATHS = {
    "/chat/completions": Endpoint.CHAT,
    "/responses": Endpoint.RESPONSES,
    "/embeddings": Endpoint.EMBEDDINGS,
}


class OpenAI:
    """OpenAI: `tokens` takes the greater of max_tokens and an estimate of the input."""

    name = "openai"
    base_path = "/v1"
    own_path = ""
    key_variable = "OPENAI_API_KEY"
    units: Sequence[str] = ("requests", "tokens")
    usual_limits: Sequence[str] = ("500 rpm", "120k tpm")
    settles = False
    debits = False
    refunded: Sequence[str] = ()
    wordings: Mapping[Trouble, Wording] = WORDINGS
    usage_at_end = False  # of a stream: in the chunk that ends it, asked for or not
    usage_in_choice = False  # and there inside the choice

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does, with or without the leading `/v1`."""
        path = path.removeprefix("/v1")
        if method == "GET":
            return Endpoint.MODELS if path == "/models" else None
        return _PATHS.get(path) if method == "POST" else None

    def key(self, headers: Mapping[str, str]) -> str:
        """Return the bearer key."""
        return bearer(headers)

    def read(
        self,
        endpoint: Endpoint,
        body: bytes,
        headers: Mapping[str, str],  # noqa: ARG002 - Anthropic's needs them
    ) -> Call:
        """Read a request; raises `BadRequest`."""
        if endpoint is Endpoint.MODELS:
            return Call(endpoint=endpoint)
        return openai_requests.read(endpoint, read_object(body))

    def costs(self, call: Call) -> dict[str, int]:
        """Take one request, and the greater of max_tokens and the estimated input."""
        if call.endpoint is Endpoint.MODELS:
            return {}
        most = (call.max_output or 0) * call.choices
        return {"requests": 1, "tokens": max(most, call.estimate)}

    def used(self, call: Call, output_tokens: int) -> dict[str, int]:
        """Count every token, in and out."""
        return {"tokens": call.input_tokens + output_tokens}

    def limit_headers(self, standing: Sequence[Standing], now: int) -> Headers:
        """Write limit, remaining and time to full of requests and tokens."""
        headers: Headers = []
        for unit in ("requests", "tokens"):
            shown = shortest(standing, unit)
            if shown is not None:
                headers += [
                    (f"x-ratelimit-limit-{unit}", str(shown.limit)),
                    (f"x-ratelimit-remaining-{unit}", str(shown.remaining)),
                    (f"x-ratelimit-reset-{unit}", go_duration(shown.full_at - now)),
                ]
        return headers

    def answer(self, call: Call, answer: Answer) -> bytes:
        """Write a whole answer."""
        match call.endpoint:
            case Endpoint.MODELS:
                return to_json(_models(self.name))
            case Endpoint.EMBEDDINGS:
                return to_json(_embeddings(call))
            case Endpoint.RESPONSES:
                return to_json(openai_responses.whole(call, answer))
            case _:
                return to_json(_completion(call, answer))

    def stream(self, call: Call, answer: Answer) -> Iterator[Event]:
        """Write an answer as server-sent events."""
        if call.endpoint is Endpoint.RESPONSES:
            yield from openai_responses.stream(call, answer)
            return
        frame: dict[str, Any] = {
            "id": f"chatcmpl-{answer.request_id}",
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": call.model,
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
        }
        if call.include_usage:
            frame["usage"] = None
        opening = {"role": "assistant", "content": "", "refusal": None}
        for index in range(call.choices):
            yield _chunk(frame, _choice(index, opening), 0)
        for index, text, tokens in answer.pieces_of_all():
            yield _chunk(frame, _choice(index, {"content": text}), tokens)
        finish = "length" if answer.truncated else "stop"
        for index in range(call.choices):
            last = _choice(index, {}, finish)
            if self.usage_at_end and answer.with_usage and index == call.choices - 1:
                place = last if self.usage_in_choice else frame
                place |= self.closing(call, answer)
            yield _chunk(frame, last, answer.tokens)
        if call.include_usage and answer.with_usage and not self.usage_at_end:
            frame |= {"choices": [], "usage": usage_of(call, answer)}
            yield Event(data(frame), answer.tokens)
        yield Event(b"data: [DONE]\n\n", answer.tokens)

    def stream_type(self, call: Call) -> str:  # noqa: ARG002 - Bedrock's differ
        """Return the content type of a stream."""
        return SERVER_SENT_EVENTS

    def keep_alive(self, *, stream: bool) -> bytes:
        """Write what is sent while a call waits: a comment, or an empty line."""
        return b": keep-alive\n\n" if stream else b"\n"

    def stream_error(self, call: Call, problem: Problem) -> bytes:
        """Write an error into a stream that has begun with 200."""
        error = self.error(problem)
        if call.endpoint is Endpoint.RESPONSES:
            return openai_responses.failed(call, problem, error)
        return data(self.envelope(error, problem))

    def closing(self, call: Call, answer: Answer) -> dict[str, Any]:
        """Tell the usage in the chunk that ends a stream."""
        return {"usage": usage_of(call, answer)}

    def envelope(
        self,
        error: dict[str, Any],
        problem: Problem,  # noqa: ARG002 - some tell more of it
    ) -> dict[str, Any]:
        """Write the body around an error."""
        return {"error": error}

    def failure(
        self, problem: Problem, standing: Sequence[Standing], now: int
    ) -> Reply:
        """Write an error response; limits stand in the headers of a throttled one."""
        headers: Headers = [("content-type", "application/json")]
        headers += self.id_headers(problem.request_id)
        if problem.trouble in {Trouble.THROTTLED, Trouble.TOO_LARGE}:
            headers += self.limit_headers(standing, now)
        headers += self.hint_headers(problem)
        return Reply(
            status=self.status(problem),
            headers=headers,
            body=to_json(self.envelope(self.error(problem), problem)),
        )

    def status(self, problem: Problem) -> int:
        """Return the status of an error."""
        wording = self.wordings.get(problem.trouble)
        return problem.status or (429 if wording is None else wording.status)

    def hint_headers(self, problem: Problem) -> Headers:
        """Write how long to wait, where that is known."""
        if problem.wait_us is None:
            return []
        return [("retry-after", whole_seconds(problem.wait_us))]

    def id_headers(self, request_id: str) -> Headers:
        """Name the request, as every response does."""
        headers: Headers = [("x-request-id", f"req_{request_id}")]
        if self.name == "openai":
            headers.append(("openai-organization", "org-simulated"))
        return headers

    def error(self, problem: Problem) -> dict[str, Any]:
        """Write what an error says."""
        if problem.refused is not None:
            return self.throttled(problem, problem.refused)
        wording = self.wordings.get(problem.trouble)
        if wording is None:  # throttled on cue, without a limit behind it
            wait = go_duration(problem.wait_us or 0)
            text = (
                f"Rate limit reached for {problem.model}. Please try again in {wait}."
            )
            wording = Wording(429, "requests", "rate_limit_exceeded", text)
        text = problem.message or wording.text.replace("{key}", "sk-…")
        return {
            "message": text,
            "type": wording.type,
            "param": problem.param,
            "code": wording.code,
        }

    def throttled(self, problem: Problem, refused: Refused) -> dict[str, Any]:
        """Say which limit is reached, how far, and when to come back."""
        rule = refused.rule
        what = per_what(rule.unit, rule.window_us)
        whom = f"{problem.model or 'default'} in organization org-simulated"
        most = rule.capacity if refused.never else rule.amount
        if refused.never:
            text = (
                f"Request too large for {whom} on {what}: Limit {most}, Requested "
                f"{refused.requested}. The input or output tokens must be reduced in "
                "order to run successfully."
            )
        else:
            again = ""
            if refused.wait_us is not None:
                again = f"Please try again in {go_duration(refused.wait_us)}. "
            text = (
                f"Rate limit reached for {whom} on {what}: Limit {most}, Used "
                f"{refused.used}, Requested {refused.requested}. {again}Visit "
                "https://platform.openai.com/account/rate-limits to learn more."
            )
        return {
            "message": text,
            "type": rule.unit,
            "param": None,
            "code": "rate_limit_exceeded",
        }


def usage_of(call: Call, answer: Answer) -> dict[str, Any]:
    """Report what a call has used."""
    return {
        "prompt_tokens": call.input_tokens,
        "completion_tokens": answer.tokens,
        "total_tokens": call.input_tokens + answer.tokens,
        "prompt_tokens_details": {
            "cached_tokens": min(answer.cached_tokens, call.input_tokens),
            "audio_tokens": 0,
        },
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _completion(call: Call, answer: Answer) -> dict[str, Any]:
    body = {
        "id": f"chatcmpl-{answer.request_id}",
        "object": "chat.completion",
        "created": answer.created,
        "model": call.model,
        "choices": [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": "".join(words),
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "length" if answer.truncated else "stop",
            }
            for index, words in enumerate(answer.choices)
        ],
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }
    if answer.with_usage:
        body["usage"] = usage_of(call, answer)
    return body


def _embeddings(call: Call) -> dict[str, Any]:
    data = []
    for index in range(call.inputs):
        vector = [1.0 / (1 + index + place) for place in range(call.dimensions)]
        shown: object = vector
        if call.base64:
            packed = struct.pack(f"<{len(vector)}f", *vector)
            shown = base64.b64encode(packed).decode()
        data.append({"object": "embedding", "index": index, "embedding": shown})
    tokens = call.input_tokens
    return {
        "object": "list",
        "data": data,
        "model": call.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _models(owner: str) -> dict[str, Any]:
    names = ("simulated-large", "simulated-small", "simulated-embedding")
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": owner}
            for name in names
        ],
    }


def data(value: object) -> bytes:
    """Write a server-sent event without a name."""
    return b"data: " + to_json(value) + b"\n\n"


def _choice(
    index: int, delta: dict[str, Any], finish: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _chunk(frame: dict[str, Any], choice: dict[str, Any], tokens: int) -> Event:
    return Event(data({**frame, "choices": [choice]}), tokens)
