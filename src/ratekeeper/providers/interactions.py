"""The shapes of Gemini's Interactions API, which replaces generateContent.

A request names a model or an agent and may go on from an interaction that Google keeps,
whose tokens are input again. Thoughts are counted apart from output, and are output all
the same; what tools put into the prompt is counted apart from input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.providers import shapes
from ratekeeper.providers.estimate import PER_MESSAGE, Prompt
from ratekeeper.providers.facts import Endpoint, Estimate, RequestFacts, Usage

if TYPE_CHECKING:
    from ratekeeper.providers.shapes import Glimpse, Json

_PROMPT = ("system_instruction", "input", "tools", "response_format")


class InteractionShapes:
    """Reads what Google's SDK sends to /interactions and what it answers."""

    usage_name = "usage"

    def read_request(
        self, method: str, path: str, body: bytes | Json, margin: int
    ) -> RequestFacts:
        """Read a request; never fails, whatever the bytes."""
        path = shapes.clean_path(path)
        if method.upper() != "POST" or not path.endswith("/interactions"):
            return RequestFacts(endpoint=Endpoint.OTHER)
        request = shapes.read_object(body)
        if request is None:
            return shapes.unreadable(Endpoint.INTERACTIONS, body)
        model = shapes.model_of(request) or shapes.text(request, "agent")[:256]
        estimate = _estimate(request, model, margin)
        bounds = shapes.inner(request, "generation_config")
        return RequestFacts(
            endpoint=Endpoint.INTERACTIONS,
            model=model,
            stream=shapes.is_true(request.get("stream")),
            input_tokens=estimate.upper(),
            estimate=estimate,
            max_output=shapes.count(bounds, "max_output_tokens"),
            background=shapes.is_true(request.get("background")),
        )

    def read_event(self, value: Json) -> Glimpse:
        """Look at one event: text comes in deltas, usage with the whole at the end."""
        whole = shapes.inner(value, "interaction")
        delta = shapes.inner(value, "delta")
        return shapes.Glimpse(
            usage=shapes.inner(whole, self.usage_name) or None,
            text=_said(delta) + _content(delta),
            error=shapes.inner(value, "error") or None,
        )

    def read_answer(self, value: Json) -> Glimpse:
        """Look at a whole answer: its steps, or as it was at first, its outputs."""
        text = 0
        for name in ("outputs", "steps"):
            listed = value.get(name)
            for one in listed if isinstance(listed, list) else []:
                if isinstance(one, dict):
                    text += _said(one) + _content(one)
        return shapes.Glimpse(
            usage=shapes.inner(value, self.usage_name) or None,
            text=text,
            error=shapes.inner(value, "error") or None,
        )

    def usage(self, report: Json) -> Usage | None:
        """Translate a report: its input holds what was cached."""
        put, out = shapes.count(report, "total_input_tokens"), self.output(report)
        if put is None and out is None:
            return None
        tools = shapes.count(report, "total_tool_use_tokens") or 0
        cached = shapes.count(report, "total_cached_tokens") or 0
        return Usage(
            input_tokens=(put or 0) + tools,
            output_tokens=out or 0,
            cache_read_tokens=min(cached, put or 0),
            reasoning_tokens=shapes.count(report, "total_thought_tokens") or 0,
        )

    def output(self, report: Json) -> int | None:
        """Return what was generated: output and thoughts."""
        said = shapes.count(report, "total_output_tokens")
        thought = shapes.count(report, "total_thought_tokens")
        if said is None and thought is None:
            return None
        return (said or 0) + (thought or 0)

    def refusal(self, message: str, code: str, unit: str | None) -> Json:  # noqa: ARG002 - Google names the limit in its text
        """Write an error body in the shape of this API."""
        return {"error": {"code": code, "message": message}}


def _estimate(request: Json, model: str, margin: int) -> Estimate:
    prompt = Prompt(model=model)
    for name in _PROMPT:
        prompt.add(request.get(name))
    prompt.tools = shapes.length(request, "tools")
    prompt.unseen = bool(request.get("previous_interaction_id"))
    frame = PER_MESSAGE * (2 + shapes.length(request, "input"))
    return prompt.estimate(frame=frame, margin=margin)


def _said(part: Json) -> int:
    """Return the bytes that a part of an answer says, or calls a tool with."""
    called = part.get("arguments")
    return shapes.size(part.get("text")) + (shapes.size(str(called)) if called else 0)


def _content(step: Json) -> int:
    content = step.get("content")
    parts = content if isinstance(content, list) else [content]
    return sum(_said(part) for part in parts if isinstance(part, dict))
