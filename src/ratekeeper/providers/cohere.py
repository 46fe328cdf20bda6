"""Cohere's own shapes: chat and embed of its second API. OpenAI's it serves elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.providers import shapes
from ratekeeper.providers.estimate import PER_MESSAGE, Prompt
from ratekeeper.providers.facts import Endpoint, Estimate, RequestFacts, Usage

if TYPE_CHECKING:
    from ratekeeper.providers.shapes import Glimpse, Json

_EMBEDDED = ("texts", "inputs", "images")
_PROMPT = ("messages", "documents", "tools", "message", "chat_history", "preamble")


class CohereShapes:
    """Reads what Cohere's SDK sends and what its API answers."""

    usage_name = "usage"

    def read_request(
        self, method: str, path: str, body: bytes | Json, margin: int
    ) -> RequestFacts:
        """Read a request; never fails, whatever the bytes."""
        path = shapes.clean_path(path)
        endpoint = _endpoint(path) if method.upper() == "POST" else Endpoint.OTHER
        if endpoint is Endpoint.OTHER:
            return RequestFacts(endpoint=endpoint)
        request = shapes.read_object(body)
        if request is None:
            return shapes.unreadable(endpoint, body)
        model = shapes.model_of(request)
        if endpoint is Endpoint.EMBEDDINGS:
            estimate = _embedded(request, model, margin)
            return RequestFacts(
                endpoint=endpoint,
                model=model,
                input_tokens=estimate.upper(),
                estimate=estimate,
                max_output=0,
            )
        estimate = _estimate(request, model, margin)
        return RequestFacts(
            endpoint=endpoint,
            model=model,
            stream=shapes.is_true(request.get("stream")),
            input_tokens=estimate.upper(),
            estimate=estimate,
            max_output=shapes.count(request, "max_tokens"),
        )

    def read_event(self, value: Json) -> Glimpse:
        """Look at one event: text comes in deltas, usage with the last one."""
        delta = shapes.inner(value, "delta")
        message = shapes.inner(delta, "message")
        content = shapes.inner(message, "content")
        calls = shapes.inner(shapes.inner(message, "tool_calls"), "function")
        failed = value.get("finish_reason") == "ERROR" or delta.get("error")
        return shapes.Glimpse(
            usage=shapes.inner(delta, "usage") or None,
            text=sum(
                shapes.size(one)
                for one in (
                    content.get("text"),
                    content.get("thinking"),
                    message.get("tool_plan"),
                    calls.get("arguments"),
                )
            ),
            error={"message": delta.get("error")} if failed else _error(value),
        )

    def read_answer(self, value: Json) -> Glimpse:
        """Look at a whole answer."""
        content = shapes.inner(value, "message").get("content")
        usage = shapes.inner(value, "usage") or shapes.inner(value, "meta")
        return shapes.Glimpse(
            usage=usage or None,
            text=shapes.size(value.get("text"))
            + sum(
                shapes.size(block.get("text"))
                for block in (content if isinstance(content, list) else [])
                if isinstance(block, dict)
            ),
            error=_error(value),
        )

    def usage(self, report: Json) -> Usage | None:
        """Translate a report: `tokens` is all that was read, billed or not."""
        counted = _counted(report)
        put = shapes.count(counted, "input_tokens")
        out = self.output(report)
        if put is None and out is None:
            return None
        cached = shapes.count(report, "cached_tokens") or 0
        return Usage(
            input_tokens=put or 0,
            output_tokens=out or 0,
            cache_read_tokens=min(cached, put or 0),
        )

    def output(self, report: Json) -> int | None:
        """Return what was generated."""
        return shapes.count(_counted(report), "output_tokens")

    def refusal(self, message: str, code: str, unit: str | None) -> Json:  # noqa: ARG002 - Cohere's errors are a message
        """Write an error body in Cohere's shape."""
        return {"message": message}


def _counted(report: Json) -> Json:
    return shapes.inner(report, "tokens") or shapes.inner(report, "billed_units")


def _error(value: Json) -> Json | None:
    return shapes.inner(value, "error") or None


def _endpoint(path: str) -> Endpoint:
    if path.endswith(("/v1/chat", "/v2/chat")):
        return Endpoint.COHERE_CHAT
    return Endpoint.EMBEDDINGS if path.endswith("/v2/embed") else Endpoint.OTHER


def _embedded(request: Json, model: str, margin: int) -> Estimate:
    prompt = Prompt(model=model)
    for name in _EMBEDDED:
        prompt.add(request.get(name))
    return prompt.estimate(margin=margin)


def _estimate(request: Json, model: str, margin: int) -> Estimate:
    prompt = Prompt(model=model)
    for name in _PROMPT:
        prompt.add(request.get(name))
    prompt.tools = shapes.length(request, "tools")
    frame = PER_MESSAGE * (1 + shapes.length(request, "messages"))
    return prompt.estimate(frame=frame, margin=margin)
