"""OpenAI's requests: what they ask for, and what is wrong with those that make no sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratekeeper.simulator import counting
from ratekeeper.simulator.dialect import BadRequest, Call, Endpoint, read_count

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_VECTOR = 4096
_MOST_CHOICES = 128  # OpenAI's own bound
_MOST_INPUTS = 2048  # texts in one embeddings request, OpenAI's own bound

_CHAT_BOUNDS: Sequence[str] = ("max_completion_tokens", "max_tokens")
_RESPONSE_BOUNDS: Sequence[str] = ("max_output_tokens",)


def read(endpoint: Endpoint, request: dict[str, Any]) -> Call:
    """Read a request; raises `BadRequest`."""
    model = request.get("model")
    if not isinstance(model, str) or not model:
        message = "you must provide a model parameter"
        raise BadRequest(message, param="model")
    if endpoint is Endpoint.EMBEDDINGS:
        return _read_embeddings(model, request)
    return _read_chat(endpoint, model, request)


def _read_chat(endpoint: Endpoint, model: str, request: dict[str, Any]) -> Call:
    responses = endpoint is Endpoint.RESPONSES
    field = "input" if responses else "messages"
    prompt = request.get(field)
    if responses and isinstance(prompt, str):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt:
        message = f"Missing required parameter: '{field}'."
        raise BadRequest(message, param=field)
    if not responses and not all(_is_message(one) for one in prompt):
        message = f"Invalid value for '{field}': expected objects with a role."
        raise BadRequest(message, param=field)
    names = ("instructions", "tools", "response_format", "text")
    truth, estimate = counting.count_prompt(
        prompt, {name: request.get(name) for name in names}
    )
    bounds = _RESPONSE_BOUNDS if responses else _CHAT_BOUNDS
    asked = [n for n in (read_count(request, name) for name in bounds) if n is not None]
    stream = request.get("stream")
    if stream is not None and not isinstance(stream, bool):
        message = "Invalid type for 'stream': expected a boolean."
        raise BadRequest(message, param="stream")
    choices = 1 if responses else read_count(request, "n") or 1
    if choices > _MOST_CHOICES:
        message = f"Invalid 'n': expected at most {_MOST_CHOICES}."
        raise BadRequest(message, param="n")
    options = request.get("stream_options")
    return Call(
        endpoint=endpoint,
        model=model,
        stream=bool(stream),
        include_usage=isinstance(options, dict)
        and options.get("include_usage") is True,
        input_tokens=truth,
        estimate=estimate,
        max_output=asked[0] if asked else None,
        choices=choices,
    )


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _read_embeddings(model: str, request: dict[str, Any]) -> Call:
    texts = request.get("input")
    if isinstance(texts, str) or (texts and _is_tokens(texts)):
        texts = [texts]
    if not isinstance(texts, list) or not 0 < len(texts) <= _MOST_INPUTS:
        message = f"'input' must be a text or a list of 1 to {_MOST_INPUTS} texts."
        raise BadRequest(message, param="input")
    truth = estimate = 0
    for text in texts:
        if isinstance(text, str):
            truth += counting.true_tokens(text)
            estimate += counting.estimated_tokens(text)
        elif _is_tokens(text):
            truth += len(text)
            estimate += len(text)
        else:
            message = "'input' must hold texts or lists of token numbers."
            raise BadRequest(message, param="input")
    dimensions = read_count(request, "dimensions") or 16
    return Call(
        endpoint=Endpoint.EMBEDDINGS,
        model=model,
        input_tokens=truth,
        estimate=max(1, estimate),
        inputs=len(texts),
        dimensions=min(dimensions, _LONGEST_VECTOR),
        base64=request.get("encoding_format") == "base64",
    )


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int for one in value)
