"""OpenAI's shapes: chat completions, responses, embeddings and the old completions.

Also the shapes of every provider that calls itself compatible: where those differ it is
in what they count and enforce, which is the catalog's business.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ratekeeper.providers import form, shapes
from ratekeeper.providers.estimate import PER_MESSAGE, Prompt
from ratekeeper.providers.facts import Endpoint, Estimate, RequestFacts, Usage

if TYPE_CHECKING:
    from ratekeeper.providers.shapes import Glimpse, Json

_PATHS = (
    ("/chat/completions", Endpoint.CHAT),
    ("/completions", Endpoint.CHAT),
    ("/responses", Endpoint.RESPONSES),
    ("/responses/compact", Endpoint.RESPONSES),
    ("/embeddings", Endpoint.EMBEDDINGS),
)
_PICTURES = ("/images/generations", "/images/edits", "/images/variations")
_DEPLOYMENT = re.compile(r"/deployments/([^/?]{1,256})/")
# The fields of a request that reach no model. What is not named here is counted.
_SILENT = frozenset(
    [
        "background",
        "conversation",
        "encoding_format",
        "include",
        "logit_bias",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "model",
        "models",
        "previous_response_id",
        "prompt_cache_key",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "tool_choice",
        "truncation",
        "user",
        "verbosity",
    ]
)
# Which bounds an answer; a provider that does not know one of the two may heed the other.
_BOUNDS = {
    Endpoint.CHAT: ("max_completion_tokens", "max_tokens"),
    Endpoint.RESPONSES: ("max_output_tokens",),
}
_MOST_OTHERS = 16  # OpenRouter takes three
_LONGEST_NAME = 256
_DELTAS = frozenset(["content", "reasoning_content", "reasoning", "refusal"])
_USAGE_EVENTS = ("response.completed", "response.incomplete", "response.failed")


class OpenAIShapes:
    """Reads what OpenAI's SDK sends and what its API answers."""

    usage_name = "usage"

    def read_request(
        self, method: str, path: str, body: bytes | Json, margin: int
    ) -> RequestFacts:
        """Read a request; never fails, whatever the bytes."""
        endpoint = _endpoint(method, path)
        if endpoint is Endpoint.OTHER:
            return RequestFacts(endpoint=endpoint, choices=_pictures(path, body))
        request = shapes.read_object(body)
        if request is None:
            return shapes.unreadable(endpoint, body)
        # On Azure the path decides, whatever the body says.
        model = _deployment(path) or shapes.model_of(request)
        estimate = _estimate(endpoint, request, model, margin)
        return RequestFacts(
            endpoint=endpoint,
            model=model,
            stream=shapes.is_true(request.get("stream")),
            input_tokens=estimate.upper(),
            estimate=estimate,
            max_output=_max_output(endpoint, request),
            choices=_choices(request),
            others=_others(request),
            background=endpoint is Endpoint.RESPONSES
            and shapes.is_true(request.get("background")),
        )

    def read_event(self, value: Json) -> Glimpse:
        """Look at one chunk of a chat, or at one event of a response."""
        kind = shapes.text(value, "type")
        if kind.startswith("response."):
            return _read_response_event(kind, value)
        return self.read_answer(value)

    def read_answer(self, value: Json) -> Glimpse:
        """Look at a whole answer, or at a chunk: they carry the same names."""
        usage = value.get("usage")
        if not isinstance(usage, dict):
            usage = shapes.inner(value, "x_groq").get("usage")
        text = 0
        choices = value.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                text += _choice_size(choice)
                if not isinstance(usage, dict) and isinstance(choice, dict):
                    usage = choice.get("usage")  # where Moonshot's streams have it
        return shapes.Glimpse(
            usage=usage if isinstance(usage, dict) else None,
            text=text,
            error=_error_in(value),
        )

    def usage(self, report: Json) -> Usage | None:
        """Translate a report of chat (`prompt_`…) or of responses (`input_`…)."""
        put, out = _either(report, "prompt_tokens", "input_tokens"), self.output(report)
        if put is None and out is None:
            return None
        details = shapes.inner(report, "prompt_tokens_details")
        details = details or shapes.inner(report, "input_tokens_details")
        cached = shapes.count(details, "cached_tokens")
        if cached is None:  # DeepSeek's name
            cached = shapes.count(report, "prompt_cache_hit_tokens")
        spent = shapes.inner(report, "completion_tokens_details")
        spent = spent or shapes.inner(report, "output_tokens_details")
        return Usage(
            input_tokens=put or 0,
            output_tokens=out or 0,
            cache_read_tokens=min(cached or 0, put or 0),
            cache_write_tokens=shapes.count(details, "cache_write_tokens") or 0,
            reasoning_tokens=shapes.count(spent, "reasoning_tokens") or 0,
        )

    def output(self, report: Json) -> int | None:
        """Return what was generated, reasoning and all.

        xAI, and Google where it speaks like this, count reasoning in the total alone.
        """
        said = _either(report, "completion_tokens", "output_tokens")
        put = _either(report, "prompt_tokens", "input_tokens")
        total = shapes.count(report, "total_tokens")
        if put is None or total is None or total - put <= (said or 0):
            return said
        return total - put

    def refusal(self, message: str, code: str, unit: str | None) -> Json:
        """Write an error body in OpenAI's shape."""
        kind = unit or "rate_limit_error"
        error = {"message": message, "type": kind, "param": None, "code": code}
        return {"error": error}


def _error_in(value: Json) -> Json | None:
    error = value.get("error")
    if isinstance(error, dict):
        return error
    if value.get("type") == "error" or value.get("object") == "error":
        return value  # as the Responses API's own event is, and all of Mistral's
    if isinstance(error, str) and error:
        return {"code": value.get("code"), "message": error}
    return None


def _deployment(path: str) -> str:
    """Return the deployment that an older path of Azure's names."""
    match = _DEPLOYMENT.search(path)
    return "" if match is None else match[1]


def _either(report: Json, name: str, other: str) -> int | None:
    found = shapes.count(report, name)
    return shapes.count(report, other) if found is None else found


def _endpoint(method: str, path: str) -> Endpoint:
    if method.upper() == "POST":
        path = shapes.clean_path(path)
        for end, endpoint in _PATHS:
            if path.endswith(end):
                return endpoint
    return Endpoint.OTHER


def _estimate(endpoint: Endpoint, request: Json, model: str, margin: int) -> Estimate:
    prompt = Prompt(model=model)
    if endpoint is Endpoint.EMBEDDINGS:
        prompt.add_numbered(request.get("input"))
        return prompt.estimate(margin=margin)
    # What the provider keeps itself.
    prompt.unseen = bool(
        request.get("previous_response_id") or request.get("conversation")
    )
    for name, value in request.items():
        if name not in _SILENT and isinstance(value, str | list | dict):
            if name == "prompt":
                prompt.add_numbered(value)
            else:
                prompt.add(value)
    frames = 1
    for name in ("messages", "input"):
        frames += shapes.length(request, name)
    prompt.tools = shapes.length(request, "tools")
    return prompt.estimate(frame=PER_MESSAGE * frames, margin=margin)


def _max_output(endpoint: Endpoint, request: Json) -> int | None:
    if endpoint is Endpoint.EMBEDDINGS:
        return 0
    most = None
    for name in _BOUNDS[endpoint]:
        bound = shapes.count(request, name)
        if bound is not None and (most is None or bound > most):
            most = bound
    return most


def _others(request: Json) -> tuple[str, ...]:
    """Return the models that OpenRouter may turn to when the first is not to be had."""
    listed = request.get("models")
    if not isinstance(listed, list):
        return ()
    names = listed[:_MOST_OTHERS]
    return tuple(name[:_LONGEST_NAME] for name in names if isinstance(name, str))


def _pictures(path: str, body: bytes | Json) -> int:
    """Return how many pictures are asked for, 1 where it is none; each has its price."""
    if not shapes.clean_path(path).endswith(_PICTURES):
        return 1
    if isinstance(body, bytes) and body.lstrip().startswith(b"--"):
        return _pictures_of_form(body)
    said = shapes.read_object(body) or {}  # Go's JSON takes names in capitals as well
    return shapes.choices_of(*(said[name] for name in ("n", "N") if name in said))


def _pictures_of_form(body: bytes) -> int:
    try:
        said = form.fields(body)
    except form.Unclear:
        return 1
    numbers = (value.decode("utf-8", "replace") for name, value in said if name == "n")
    return shapes.choices_of(*numbers)


def _choices(request: Json) -> int:
    """Return how many answers are written: the old completions may have many prompts."""
    each = 1
    if "n" in request or "best_of" in request:
        each = shapes.choices_of(request.get("n"), request.get("best_of"))
    prompts = request.get("prompt")
    if not isinstance(prompts, list) or all(type(one) is int for one in prompts):
        return each
    return each * len(prompts)


def _choice_size(choice: object) -> int:
    """Return the bytes of text in a choice of a chunk, or of a whole answer."""
    if not isinstance(choice, dict):
        return 0
    total = 0
    said = choice.get("delta") or choice.get("message")
    if isinstance(said, dict):
        for name, value in said.items():
            if name in _DELTAS and value:
                total += shapes.size(value)
        calls = said.get("tool_calls")
        if isinstance(calls, list):
            total += sum(_call_size(call) for call in calls)
    return total + shapes.size(choice.get("text"))


def _call_size(call: object) -> int:
    function = shapes.inner(call, "function") if isinstance(call, dict) else {}
    return shapes.size(function.get("name")) + shapes.size(function.get("arguments"))


def _read_response_event(kind: str, value: Json) -> Glimpse:
    if kind.endswith(".delta"):
        return shapes.Glimpse(text=shapes.size(value.get("delta")))
    if kind not in _USAGE_EVENTS:
        return shapes.Glimpse()
    response = shapes.inner(value, "response")
    usage = response.get("usage")
    error = response.get("error")
    failed = kind == "response.failed"
    return shapes.Glimpse(
        usage=usage if isinstance(usage, dict) else None,
        error=(error if isinstance(error, dict) else {}) if failed else None,
    )
