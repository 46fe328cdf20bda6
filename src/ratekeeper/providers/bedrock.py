"""Bedrock's shapes: Converse, and InvokeModel where it carries Anthropic's messages.

A model's name is in the path. Its streams are frames of bytes, not server-sent events.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import TYPE_CHECKING

from ratekeeper.providers import shapes
from ratekeeper.providers.estimate import ANY_TOOLS, PER_MESSAGE, Prompt
from ratekeeper.providers.facts import Endpoint, Estimate, RequestFacts, Usage

if TYPE_CHECKING:
    from ratekeeper.providers.shapes import Glimpse, Json

_PATH = re.compile(r"/model/([^/]{1,1024})/([a-z\-]{1,40})")
_CONVERSE = ("converse", "converse-stream")
_INVOKE = ("invoke", "invoke-with-response-stream")
_INPUTS = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
_KINDS = (("image", "image"), ("document", "document"), ("video", "file"))
_PLACE = re.compile(r"(?:us|eu|apac|jp|au|global|us-gov)\.", re.ASCII)  # of a profile


class BedrockShapes:
    """Reads what AWS's SDK sends and what Bedrock answers."""

    usage_name = "usage"

    def read_request(
        self, method: str, path: str, body: bytes | Json, margin: int
    ) -> RequestFacts:
        """Read a request; never fails, whatever the bytes."""
        match = _PATH.search(shapes.clean_path(path))
        what = "" if match is None or method.upper() != "POST" else match[2]
        if match is None or what not in (*_CONVERSE, *_INVOKE):
            return RequestFacts(endpoint=Endpoint.OTHER)
        endpoint = Endpoint.CONVERSE if what in _CONVERSE else Endpoint.MESSAGES
        request = shapes.read_object(body)
        if request is None:
            return shapes.unreadable(endpoint, body)
        model = _model(match[1])
        estimate = _estimate(request, model, margin)
        bounds, name = request, "max_tokens"
        if endpoint is Endpoint.CONVERSE:
            bounds, name = shapes.inner(request, "inferenceConfig"), "maxTokens"
        return RequestFacts(
            endpoint=endpoint,
            model=model,
            stream=what.endswith("stream"),
            input_tokens=estimate.upper(),
            estimate=estimate,
            max_output=shapes.count(bounds, name),
        )

    def read_event(self, value: Json) -> Glimpse:
        """Look at one event of a stream; the last one tells the usage."""
        kind = shapes.text(value, "type")
        if kind.endswith("Exception"):
            return shapes.Glimpse(error={"code": kind, "message": value.get("message")})
        return shapes.Glimpse(
            usage=shapes.inner(value, self.usage_name) or None,
            text=_said(shapes.inner(value, "delta")),
        )

    def read_answer(self, value: Json) -> Glimpse:
        """Look at a whole answer."""
        message = shapes.inner(shapes.inner(value, "output"), "message")
        content = message.get("content")
        return shapes.Glimpse(
            usage=shapes.inner(value, self.usage_name) or None,
            text=sum(
                _said(block)
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
        return Usage(
            input_tokens=(plain or 0) + (read or 0) + (written or 0),
            output_tokens=out or 0,
            cache_read_tokens=read or 0,
            cache_write_tokens=written or 0,
        )

    def output(self, report: Json) -> int | None:
        """Return what was generated."""
        return shapes.count(report, "outputTokens")

    def refusal(self, message: str, code: str, unit: str | None) -> Json:  # noqa: ARG002 - AWS's errors are a message
        """Write an error body in AWS's shape."""
        return {"message": message, "__type": code}


def _model(name: str) -> str:
    """Return a model's name without what an ARN and an inference profile put before."""
    name = urllib.parse.unquote(name).rpartition("/")[2]
    return _PLACE.sub("", name, count=1).removeprefix("anthropic.")[:256]


def _said(block: Json) -> int:
    thought = shapes.inner(block, "reasoningContent")
    thought = shapes.inner(thought, "reasoningText") or thought
    called = shapes.inner(block, "toolUse").get("input")
    if called is not None and not isinstance(called, str):
        called = str(called)
    return sum(map(shapes.size, (block.get("text"), thought.get("text"), called)))


def _estimate(request: Json, model: str, margin: int) -> Estimate:
    prompt = Prompt(model=model)
    config = request if request.get("tools") else shapes.inner(request, "toolConfig")
    prompt.tools = shapes.length(config, "tools")
    messages = request.get("messages")
    listed = messages if isinstance(messages, list) else [messages]
    for message in listed:
        content = message.get("content") if isinstance(message, dict) else message
        for block in content if isinstance(content, list) else [content]:
            prompt.add(_block(block))
    for value in (request.get("system"), config.get("tools")):
        prompt.add(value)
    frame = PER_MESSAGE * (1 + len(listed))
    if prompt.tools:
        frame += ANY_TOOLS
    return prompt.estimate(frame=frame, margin=margin)


def _block(block: object) -> object:
    """Return a block of content in the words that a prompt knows."""
    if isinstance(block, dict):
        for name, kind in _KINDS:
            held = shapes.inner(block, name)
            if held:
                data = shapes.inner(held, "source").get("bytes")
                return {"type": kind, "data": data}
        text = block.get("text")
        if isinstance(text, str) and len(block) == 1:
            return text
    return block
