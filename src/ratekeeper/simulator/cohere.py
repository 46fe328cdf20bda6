"""Cohere: chat of its second API, and OpenAI's shapes below `/compatibility/v1`.

A trial key has a bound on its calls a month, and only its answers tell of limits, in
headers that a refusal leaves out. Errors are one sentence, on every path.
"""

from __future__ import annotations

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
    read_count,
    read_object,
    to_json,
)
from ratekeeper.simulator.openai import OpenAI, data
from ratekeeper.simulator.openai_wordings import WORDINGS, Wording

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ratekeeper.simulator.enforcer import Refused, Standing

_MINUTE_US = 60_000_000
_MONTH_US = 28 * 24 * 60 * _MINUTE_US  # the shortest
_PER_MINUTE = (
    "You are past the per minute request limit, please wait and try again later."
)
_TRIAL = (
    "You are using a Trial key, which is limited to {limit} API calls / {period}. You "
    "can continue to use the Trial key for free or upgrade to a Production key with "
    "higher rate limits at 'https://dashboard.cohere.com/api-keys'."
)
_TOKENS = "trial token rate limit exceeded, limit is {limit} tokens per {period}"


class Cohere(OpenAI):
    """Cohere: calls a minute and a month, tokens a minute."""

    name = "cohere"
    base_path = "/compatibility/v1"
    own_path = "/v2/chat"
    key_variable = "CO_API_KEY"
    usual_limits = ("20 rpm", "1000 requests/month", "100k tpm")
    settles = True
    wordings = {  # noqa: RUF012 - a table, never changed
        **WORDINGS,
        Trouble.UNAUTHORIZED: Wording(401, "", None, "invalid api token"),
        Trouble.BILLING: Wording(
            402, "", None, "Please add or update your payment method to continue."
        ),
        Trouble.SPEND_LIMIT: Wording(402, "", None, "The spend limit is reached."),
    }

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does: its own, or OpenAI's below `/compatibility/v1`."""
        if path == "/v2/chat":
            return Endpoint.COHERE_CHAT if method == "POST" else None
        return super().route(method, path.removeprefix("/compatibility"))

    def read(self, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> Call:
        """Read a request; raises `BadRequest`."""
        if endpoint is not Endpoint.COHERE_CHAT:
            return super().read(endpoint, body, headers)
        request = read_object(body)
        messages, model = request.get("messages"), request.get("model")
        if not isinstance(model, str) or not model:
            message = "invalid request: model is required"
            raise BadRequest(message)
        if not isinstance(messages, list) or not messages:
            message = "invalid request: list of messages must not be empty"
            raise BadRequest(message)
        names = ("documents", "tools")
        truth, estimate = counting.count_prompt(
            messages, {name: request.get(name) for name in names}
        )
        return Call(
            endpoint=endpoint,
            model=model,
            stream=request.get("stream") is True,
            input_tokens=truth,
            estimate=estimate,
            max_output=read_count(request, "max_tokens"),
        )

    def costs(self, call: Call) -> dict[str, int]:
        """Take one call, and the tokens of its input."""
        if call.endpoint is Endpoint.MODELS:
            return {}
        return {"requests": 1, "tokens": call.estimate}

    def limit_headers(
        self,
        standing: Sequence[Standing],
        now: int,  # noqa: ARG002 - it tells of no reset
    ) -> Headers:
        """Write the calls of a minute and of a month, where the key is a trial's."""
        calls = [one for one in standing if one.rule.unit == "requests"]
        headers: Headers = []
        for one in calls:
            if one.rule.window_us >= _MONTH_US:
                headers.append(("x-endpoint-monthly-call-limit", str(one.limit)))
        if headers:
            for one in calls:
                if one.rule.window_us == _MINUTE_US:
                    left = str(one.remaining)
                    headers += [
                        ("x-trial-endpoint-call-limit", str(one.limit)),
                        ("x-trial-endpoint-call-remaining", left),
                    ]
        return headers

    def failure(
        self,
        problem: Problem,
        standing: Sequence[Standing],  # noqa: ARG002 - a refusal tells of no limit
        now: int,
    ) -> Reply:
        """Write an error response."""
        return super().failure(problem, [], now)

    def hint_headers(self, problem: Problem) -> Headers:  # noqa: ARG002 - it gives none
        """Write nothing."""
        return []

    def id_headers(self, request_id: str) -> Headers:
        """Name the request, as every response does."""
        return [("x-debug-trace-id", request_id)]

    def throttled(self, problem: Problem, refused: Refused) -> dict[str, Any]:
        """Say which limit is reached."""
        error = super().throttled(problem, refused)
        rule = refused.rule
        text = _PER_MINUTE
        if rule.unit == "tokens":
            text = _TOKENS.format(limit=rule.amount, period="minute")
        elif rule.window_us >= _MONTH_US:
            text = _TRIAL.format(limit=rule.amount, period="month")
        error["message"] = text
        return error

    def envelope(
        self,
        error: dict[str, Any],
        problem: Problem,  # noqa: ARG002 - all is in the error
    ) -> dict[str, Any]:
        """Write the sentence, and nothing else."""
        return {"message": error["message"]}

    def answer(self, call: Call, answer: Answer) -> bytes:
        """Write a whole answer."""
        if call.endpoint is not Endpoint.COHERE_CHAT:
            return super().answer(call, answer)
        content = [{"type": "text", "text": "".join(answer.words)}]
        body = {
            "id": answer.request_id,
            "finish_reason": _finish(answer),
            "message": {"role": "assistant", "content": content},
        }
        if answer.with_usage:
            body["usage"] = _usage(call, answer)
        return to_json(body)

    def stream(self, call: Call, answer: Answer) -> Iterator[Event]:
        """Write an answer as named events; the last one tells the usage."""
        if call.endpoint is not Endpoint.COHERE_CHAT:
            yield from super().stream(call, answer)
            return
        opening = {"role": "assistant", "content": [], "tool_plan": "", "citations": []}
        start = {"id": answer.request_id, "delta": {"message": opening}}
        yield _event("message-start", start, 0)
        yield _event("content-start", _content({"type": "text", "text": ""}), 0)
        for text, tokens in answer.pieces():
            yield _event("content-delta", _content({"text": text}), tokens)
        yield _event("content-end", {"index": 0}, answer.tokens)
        delta: dict[str, Any] = {"finish_reason": _finish(answer)}
        if answer.with_usage:
            delta["usage"] = _usage(call, answer)
        yield _event("message-end", {"delta": delta}, answer.tokens)

    def stream_error(self, call: Call, problem: Problem) -> bytes:
        """Write the event that ends a stream with an error."""
        if call.endpoint is not Endpoint.COHERE_CHAT:
            return data({"error": self.error(problem)})
        text = self.error(problem)["message"]
        delta = {"finish_reason": "ERROR", "error": text}
        return _event("message-end", {"delta": delta}, 0).data


def _finish(answer: Answer) -> str:
    return "MAX_TOKENS" if answer.truncated else "COMPLETE"


def _content(part: dict[str, str]) -> dict[str, Any]:
    return {"index": 0, "delta": {"message": {"content": part}}}


def _usage(call: Call, answer: Answer) -> dict[str, Any]:
    counted = {"input_tokens": call.input_tokens, "output_tokens": answer.tokens}
    cached = min(answer.cached_tokens, call.input_tokens)
    return {"billed_units": counted, "tokens": counted, "cached_tokens": cached}


def _event(kind: str, fields: dict[str, Any], tokens: int) -> Event:
    body = to_json({"type": kind, **fields})
    return Event(b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n", tokens)
