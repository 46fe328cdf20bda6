"""Vertex AI: Gemini's shapes, Claude's below another publisher, and OpenAI's.

Its quota for Gemini is shared by everybody: a refusal names no limit and no wait. That
for Claude is the project's own, and named. No header tells of any.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ratekeeper.simulator.anthropic import Anthropic
from ratekeeper.simulator.dialect import (
    Answer,
    BadRequest,
    Call,
    Endpoint,
    Event,
    Problem,
    Trouble,
    bearer,
    read_object,
    to_json,
)
from ratekeeper.simulator.gemini import GOOGLE_WORDS, Gemini
from ratekeeper.simulator.openai import OpenAI

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PLACE = r"/v1(?:beta1)?/projects/[^/]+/locations/[^/]+"
_GOOGLE = re.compile(
    rf"{_PLACE}/publishers/google/models/(?P<model>[^/:]+):(?P<method>[A-Za-z]+)"
)
_CLAUDE = re.compile(
    rf"{_PLACE}/publishers/anthropic/models/(?P<model>[^/:]+)"
    r":(?:rawPredict|streamRawPredict)"
)
_COMPATIBLE = re.compile(rf"{_PLACE}/endpoints/openapi(?P<path>/.*)")
_EXHAUSTED = (
    "Resource exhausted. Please try again later. Please refer to "
    "https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more "
    "details."
)
_QUOTA = (
    "Quota exceeded for aiplatform.googleapis.com/online_prediction_{quota}_per_base_"
    "model with base model: anthropic-{model}. Please submit a quota increase request. "
    "https://cloud.google.com/vertex-ai/docs/generative-ai/quotas-genai."
)
_QUOTAS = {
    "requests": "requests",
    "tokens": "tokens_per_minute",
    "input_tokens": "input_tokens_per_minute",
    "output_tokens": "output_tokens_per_minute",
}


class Vertex(Gemini):
    """Vertex AI, with Google's own models and Anthropic's."""

    name = "vertex"
    base_path = "/v1/projects/simulated/locations/global/endpoints/openapi"
    own_path = (
        "/v1/projects/simulated/locations/global/publishers/google/models/NAME"
        ":generateContent"
    )
    key_variable = "GOOGLE_OAUTH_ACCESS_TOKEN"
    units = ("requests", "tokens", "input_tokens", "output_tokens")
    usual_limits = ("30000 rpm", "2M tpm")
    settles = True
    path = _GOOGLE
    words = {  # noqa: RUF012 - a table, never changed
        **GOOGLE_WORDS,
        Trouble.UNAUTHORIZED: (
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access "
            "token, login cookie or other valid authentication credential.",
        ),
        Trouble.THROTTLED: (429, "RESOURCE_EXHAUSTED", _EXHAUSTED),
        Trouble.TOO_LARGE: (429, "RESOURCE_EXHAUSTED", _EXHAUSTED),
        Trouble.SLOW_DOWN: (429, "RESOURCE_EXHAUSTED", _EXHAUSTED),
    }

    def __init__(self) -> None:
        self._claude = Anthropic()

    def route(self, method: str, path: str) -> Endpoint | None:
        """Tell what a path does: Gemini's, Claude's, or OpenAI's."""
        if _CLAUDE.fullmatch(path):
            return Endpoint.MESSAGES if method == "POST" else None
        compatible = _COMPATIBLE.fullmatch(path)
        if compatible is not None:
            return OpenAI.route(self, method, compatible["path"])
        return super().route(method, path)

    def key(self, headers: Mapping[str, str]) -> str:
        """Return the access token."""
        return bearer(headers)

    def read(self, endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> Call:
        """Read a request; Claude's names its version in the body, its model not."""
        if endpoint is not Endpoint.MESSAGES:
            return super().read(endpoint, body, headers)
        request = read_object(body)
        version = request.pop("anthropic_version", None)
        if not isinstance(version, str):
            message = "anthropic_version: Field required"
            raise BadRequest(message)
        own = _CLAUDE.fullmatch(headers.get(":path", ""))
        request["model"] = "claude-simulated" if own is None else own["model"]
        fields = {**headers, "anthropic-version": version}
        return self._claude.read(endpoint, to_json(request), fields)

    def costs(self, call: Call) -> dict[str, int]:
        """Take one request and the estimated input."""
        if call.endpoint in {Endpoint.MODELS, Endpoint.COUNT_TOKENS}:
            return {}
        return {
            "requests": 1,
            "tokens": call.estimate,
            "input_tokens": call.estimate,
            "output_tokens": 0,
        }

    def used(self, call: Call, output_tokens: int) -> dict[str, int]:
        """Count the true input, and the output where that has a limit of its own."""
        return {
            "tokens": call.input_tokens,
            "input_tokens": call.input_tokens,
            "output_tokens": output_tokens,
        }

    def answer(self, call: Call, answer: Answer) -> bytes:
        """Write a whole answer."""
        if call.endpoint is Endpoint.MESSAGES:
            return self._claude.answer(call, answer)
        return super().answer(call, answer)

    def stream(self, call: Call, answer: Answer) -> Iterator[Event]:
        """Write an answer as server-sent events."""
        if call.endpoint is Endpoint.MESSAGES:
            return self._claude.stream(call, answer)
        return super().stream(call, answer)

    def stream_error(self, call: Call, problem: Problem) -> bytes:
        """Write an error into a stream that has begun with 200."""
        if call.endpoint is Endpoint.MESSAGES:
            return self._claude.stream_error(call, problem)
        return super().stream_error(call, problem)

    def error_body(self, problem: Problem) -> dict[str, Any]:
        """Write an error; only a quota for Claude is named."""
        error = self.status_of(problem)
        refused = problem.refused
        if refused is not None and problem.model.startswith("claude"):
            quota = _QUOTAS.get(refused.rule.unit, "requests")
            model = problem.model.partition("@")[0]
            error["message"] = _QUOTA.format(quota=quota, model=model)
        return {"error": error}
