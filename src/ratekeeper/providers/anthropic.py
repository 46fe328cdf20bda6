"""Anthropic's shapes: Messages, its named events, and count_tokens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ratekeeper.providers import shapes
from ratekeeper.providers.estimate import ANY_TOOLS, PER_MESSAGE, Prompt
from ratekeeper.providers.facts import Endpoint, Estimate, RequestFacts, Usage

if TYPE_CHECKING:
    from ratekeeper.providers.shapes import Glimpse, Json

_PROMPT = ("system", "messages", "tools", "mcp_servers", "output_format")
_INPUTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
# Claude on Vertex: the model is in the path.
_VERTEX = re.compile(
    r"/publishers/anthropic/models/([^/:]{1,256}):(?:rawPredict|streamRawPredict)"
)
_USUAL = (None, "standard")  # speed
_DELTAS = ("text", "thinking", "partial_json")


class AnthropicShapes:
    """Reads what Anthropic's SDK sends and what its API answers."""

    usage_name = "usage"

    def read_request(
        self, method: str, path: str, body: bytes | Json, margin: int
    ) -> RequestFacts:
        """Read a request; never fails, whatever the bytes."""
        endpoint = _endpoint(method, path)
        if endpoint is not Endpoint.MESSAGES:
            return RequestFacts(endpoint=endpoint)
        request = shapes.read_object(body)
        if request is None:
            return shapes.unreadable(endpoint, body)
        on_vertex = _VERTEX.search(path)
        model = shapes.model_of(request) if on_vertex is None else on_vertex[1]
        estimate = _estimate(request, model, margin)
        return RequestFacts(
            endpoint=endpoint,
            model=model,
            stream=shapes.is_true(request.get("stream")),
            input_tokens=estimate.upper(),
            estimate=estimate,
            max_output=shapes.count(request, "max_tokens"),
            is_fast=request.get("speed") not in _USUAL,
        )

    def read_event(self, value: Json) -> Glimpse:
        """Look at one event: usage is cumulative, and comes in two halves."""
        match value.get("type"):
            case "message_start":
                report = shapes.inner(shapes.inner(value, "message"), "usage")
                # Its output is the first token alone: the last word comes at the end.
                report = {k: v for k, v in report.items() if k != "output_tokens"}
                return shapes.Glimpse(usage=report or None)
            case "content_block_delta":
                delta = shapes.inner(value, "delta")
                return shapes.Glimpse(
                    text=sum(shapes.size(delta.get(name)) for name in _DELTAS)
                )
            case "message_delta":
                return shapes.Glimpse(usage=shapes.inner(value, "usage") or None)
            case "error":
                return shapes.Glimpse(error=shapes.inner(value, "error"))
            case str(kind) if kind.endswith("Exception"):  # where Bedrock carries it
                return shapes.Glimpse(error={"code": kind})
            case _:
                return shapes.Glimpse()

    def read_answer(self, value: Json) -> Glimpse:
        """Look at a whole answer."""
        if value.get("type") == "error":
            return shapes.Glimpse(error=shapes.inner(value, "error"))
        content = value.get("content")
        return shapes.Glimpse(
            usage=shapes.inner(value, "usage") or None,
            text=sum(
                shapes.size(block.get("text"))
                for block in (content if isinstance(content, list) else [])
                if isinstance(block, dict)
            ),
        )

    def usage(self, report: Json) -> Usage | None:
        """Translate a report: its input is what was not cached, so the rest is added."""
        plain, read, written = (shapes.count(report, name) for name in _INPUTS)
        out = self.output(report)
        if plain is read is written is out is None:
            return None
        details = shapes.inner(report, "output_tokens_details")
        kept = shapes.inner(report, "cache_creation")
        long = shapes.count(kept, "ephemeral_1h_input_tokens")
        if long is None and shapes.count(kept, "ephemeral_5m_input_tokens") is not None:
            long = 0
        return Usage(
            input_tokens=(plain or 0) + (read or 0) + (written or 0),
            output_tokens=out or 0,
            cache_read_tokens=read or 0,
            cache_write_tokens=written or 0,
            cache_write_1h_tokens=long,
            reasoning_tokens=shapes.count(details, "thinking_tokens") or 0,
        )

    def output(self, report: Json) -> int | None:
        """Return what was generated, thinking and all."""
        return shapes.count(report, "output_tokens")

    def refusal(self, message: str, code: str, unit: str | None) -> Json:  # noqa: ARG002 - Anthropic names the limit in its text
        """Write an error body in Anthropic's shape."""
        error = {"type": code, "message": message}
        return {"type": "error", "error": error, "request_id": None}


def _endpoint(method: str, path: str) -> Endpoint:
    if method.upper() == "POST":
        path = shapes.clean_path(path)
        if path.endswith("/messages") or _VERTEX.search(path):
            return Endpoint.MESSAGES
        if path.endswith("/messages/count_tokens"):
            return Endpoint.COUNT_TOKENS
    return Endpoint.OTHER


def _estimate(request: Json, model: str, margin: int) -> Estimate:
    prompt = Prompt(model=model)
    for name in _PROMPT:
        prompt.add(request.get(name))
    frame = PER_MESSAGE * (1 + shapes.length(request, "messages"))
    prompt.tools = shapes.length(request, "tools")
    if prompt.tools:
        frame += ANY_TOOLS
    return prompt.estimate(frame=frame, margin=margin)
