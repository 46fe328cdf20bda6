"""Gemini's shapes: generateContent, its stream and countTokens, on AI Studio and Vertex.

Usage is cumulative: each chunk repeats the whole of it. Thoughts are counted apart from
candidates, and are output all the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ratekeeper.providers import shapes
from ratekeeper.providers.estimate import PER_MESSAGE, Prompt
from ratekeeper.providers.facts import Endpoint, Estimate, RequestFacts, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratekeeper.providers.shapes import Glimpse, Json

# /v1beta/models/NAME:METHOD, and below projects/… and publishers/google/ on Vertex
_PATH = re.compile(
    r"/(?:dynamic/[^/:]{1,256}|(?:models|tunedModels|endpoints)/([^/:]{1,256}))"
    r":([A-Za-z]{1,40})"
)
_ENDPOINTS = {
    "generateContent": Endpoint.GENERATE,
    "streamGenerateContent": Endpoint.GENERATE,
    "countTokens": Endpoint.COUNT_TOKENS,
    "generateAnswer": Endpoint.GENERATE,
    "embedContent": Endpoint.EMBEDDINGS,
    "batchEmbedContents": Endpoint.EMBEDDINGS,
}
# The fields of a request that reach no model. What is not named here is counted.
_SILENT = frozenset(
    [
        "cachedContent",
        "generationConfig",
        "generation_config",
        "labels",
        "model",
        "outputDimensionality",
        "safetySettings",
        "taskType",
        "toolConfig",
    ]
)
_SNAKES = {
    "candidate_count": "candidateCount",
    "max_output_tokens": "maxOutputTokens",
}
UNAVAILABLE = "UNAVAILABLE"  # what Google calls a 503
_DATA = ("inlineData", "inline_data", "fileData", "file_data")


class GeminiShapes:
    """Reads what Google's SDK sends and what its API answers."""

    usage_name = "usageMetadata"

    def read_request(
        self, method: str, path: str, body: bytes | Json, margin: int
    ) -> RequestFacts:
        """Read a request; never fails, whatever the bytes."""
        match = _PATH.search(shapes.clean_path(path))
        endpoint = None if match is None else _ENDPOINTS.get(match[2])
        if match is None or endpoint is None or method.upper() != "POST":
            return RequestFacts(endpoint=Endpoint.OTHER)
        if endpoint is Endpoint.COUNT_TOKENS:
            return RequestFacts(endpoint=endpoint)
        request = shapes.read_object(body)
        if request is None:
            return shapes.unreadable(endpoint, body)
        bounds, model = _bounds(request), match[1] or ""  # of an app it is not said
        estimate = _estimate(request, model, margin)
        embeds = endpoint is Endpoint.EMBEDDINGS
        return RequestFacts(
            endpoint=endpoint,
            model=model,
            stream=match[2].startswith("stream"),
            input_tokens=estimate.upper(),
            estimate=estimate,
            max_output=0 if embeds else shapes.count(bounds, "maxOutputTokens"),
            choices=shapes.choices_of(bounds.get("candidateCount")),
        )

    def read_event(self, value: Json) -> Glimpse:
        """Look at one chunk: it has the shape of a whole answer."""
        return self.read_answer(value)

    def read_answer(self, value: Json) -> Glimpse:
        """Look at a whole answer."""
        candidates = value.get("candidates")
        return shapes.Glimpse(
            usage=shapes.inner(value, self.usage_name) or None,
            text=sum(
                _said(candidate)
                for candidate in (candidates if isinstance(candidates, list) else [])
                if isinstance(candidate, dict)
            ),
            error=shapes.inner(value, "error") or None,
        )

    def usage(self, report: Json) -> Usage | None:
        """Translate a report: its prompt holds what was cached."""
        put, out = shapes.count(report, "promptTokenCount"), self.output(report)
        if put is None and out is None:
            return None
        tools = shapes.count(report, "toolUsePromptTokenCount") or 0
        cached = shapes.count(report, "cachedContentTokenCount") or 0
        return Usage(
            input_tokens=(put or 0) + tools,
            output_tokens=out or 0,
            cache_read_tokens=min(cached, put or 0),
            reasoning_tokens=shapes.count(report, "thoughtsTokenCount") or 0,
        )

    def output(self, report: Json) -> int | None:
        """Return what was generated: candidates and thoughts."""
        said = shapes.count(report, "candidatesTokenCount")
        thought = shapes.count(report, "thoughtsTokenCount")
        if said is None and thought is None:
            return None
        return (said or 0) + (thought or 0)

    def refusal(self, message: str, code: str, unit: str | None) -> Json:  # noqa: ARG002 - Google names the limit in its text
        """Write an error body in Google's shape."""
        number = 503 if code == UNAVAILABLE else 429
        return {"error": {"code": number, "message": message, "status": code}}


def _bounds(request: Json) -> Json:
    """Return the settings of a request, by Google's names or those of its protocol.

    What is said by both, and not the same, is not known: which one counts is up to
    Google.
    """
    bounds: Json = {}
    for name in ("generation_config", "generationConfig"):
        for key, value in shapes.inner(request, name).items():
            plain = _SNAKES.get(key, key)
            said = bounds.setdefault(plain, value)
            if said != value:
                is_count = plain == "candidateCount"
                bounds[plain] = shapes.choices_of(said, value) if is_count else None
    return bounds


def _estimate(request: Json, model: str, margin: int) -> Estimate:
    prompt = Prompt(model=model)
    frames = 1 + shapes.length(request, "contents")
    prompt.tools = shapes.length(request, "tools")
    prompt.unseen = bool(request.get("cachedContent"))
    for name, value in request.items():
        if name not in _SILENT:
            for part in _parts(value):
                prompt.add(part)
    return prompt.estimate(frame=PER_MESSAGE * frames, margin=margin)


def _parts(value: object) -> Iterator[object]:
    """Return what a content holds, part by part, in the words that a prompt knows."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(reversed(one))
        elif isinstance(one, dict) and ("parts" in one or "content" in one):
            waiting.extend((one.get("content"), one.get("parts")))
        elif isinstance(one, dict):
            yield _part(one)
        else:
            yield one


def _part(part: Json) -> object:
    for name in _DATA:
        held = shapes.inner(part, name)
        if held:
            kind = shapes.text(held, "mimeType") or shapes.text(held, "mime_type")
            said = kind.partition("/")[0]
            said = said if said in {"image", "audio"} else "file"
            return {"type": said, "data": held.get("data")}
    text = part.get("text")
    return text if isinstance(text, str) and len(part) == 1 else part


def _said(candidate: Json) -> int:
    parts = shapes.inner(candidate, "content").get("parts")
    total = 0
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict):
            called = part.get("functionCall")
            total += shapes.size(part.get("text"))
            total += shapes.size(str(called)) if called else 0
    return total
