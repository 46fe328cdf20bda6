"""What is tried with anthropic, Anthropic's SDK for Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import anthropic

from tests.gateway.sdks.forms import (
    CALLED,
    FILE,
    HEARD,
    QUESTION,
    REPORT,
    TEXT,
    TOOLS,
    Report,
    weather,
)
from tests.gateway.sdks.playing import Check, all_of, dumped, each, now, opened, valid
from tests.gateway.sdks.provider import MODEL

MESSAGES: Any = [{"role": "user", "content": QUESTION}]
ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 90, "messages": MESSAGES}
_TOOLS: Any = [
    {"name": name, "description": one.__doc__, "input_schema": one.model_json_schema()}
    for name, one in TOOLS.items()
]


def _calls(reply: Any) -> list[tuple[str, Any]]:
    return [(block.name, block.input) for block in reply.content]


async def _plain(ai: Any) -> Any:
    reply = await now(ai.messages.create(**ASK))
    assert TEXT == reply.content[0].text
    return valid(reply)


async def _streams(ai: Any) -> Any:
    events = await all_of(ai.messages.create(**ASK, stream=True))
    async with opened(ai.messages.stream(**ASK)) as stream:
        texts = [text async for text in each(stream.text_stream)]
        whole = await now(stream.get_final_message())
    assert (TEXT, 7) == ("".join(texts), whole.usage.output_tokens)
    return [valid(events), texts, dumped(whole)]


async def _tools(ai: Any) -> Any:
    asked = await now(ai.messages.create(**ASK, tools=_TOOLS))
    assert ("tool_use", CALLED) == (asked.stop_reason, _calls(asked))
    told = [
        {"type": "tool_result", "tool_use_id": one.id, "content": f"heard {one.id}"}
        for one in asked.content
    ]
    said = [
        *MESSAGES,
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": told},
    ]
    reply = await now(ai.messages.create(**{**ASK, "messages": said}, tools=_TOOLS))
    assert "heard toolu_0, heard toolu_1" == reply.content[0].text
    return [valid(asked), valid(reply)]


async def _streamed_tools(ai: Any) -> Any:
    async with opened(ai.messages.stream(**ASK, tools=_TOOLS)) as stream:
        events = [event async for event in each(stream)]
        whole = await now(stream.get_final_message())
    assert CALLED == _calls(whole)
    kinds = {event.type for event in events}
    assert {"input_json", "content_block_delta", "message_stop"} <= kinds
    return [dumped(events), dumped(whole)]


async def _runner(ai: Any) -> Any:
    async def awaited(city: str, days: int) -> str:
        return weather(city, days)

    is_async = isinstance(ai, anthropic.AsyncAnthropic)
    tool: Any = (
        anthropic.beta_async_tool(awaited, name="weather", description="It")
        if is_async
        else anthropic.beta_tool(weather)
    )
    runner = ai.beta.messages.tool_runner(**ASK, tools=[tool])
    rounds = [one async for one in each(runner)]
    assert HEARD == rounds[-1].content[0].text
    return valid(rounds)


async def _structured(ai: Any) -> Any:
    reply = await now(ai.messages.parse(**ASK, output_format=Report))
    assert REPORT == reply.parsed_output
    beta = await now(ai.beta.messages.parse(**ASK, output_format=Report))
    assert REPORT == beta.parsed_output
    async with opened(ai.messages.stream(**ASK, output_format=Report)) as stream:
        whole = await now(stream.get_final_message())
    assert REPORT == whole.parsed_output
    return dumped([reply, beta, whole])


async def _count(ai: Any) -> Any:
    counted = await now(ai.messages.count_tokens(model=MODEL, messages=MESSAGES))
    assert 11 == counted.input_tokens
    return valid(counted)


async def _models(ai: Any) -> Any:
    rows = await all_of(ai.models.list())
    assert [MODEL] == [row.id for row in rows]
    return valid(rows)


async def _files(ai: Any) -> Any:
    files = ai.beta.files
    made = await now(files.upload(file=FILE))
    found = await now(files.retrieve_metadata(made.id))
    rows = await all_of(files.list())
    content = await now(files.download(made.id))
    gone = await now(files.delete(made.id))
    assert FILE[1] == await now(content.read())
    return valid([made, found, rows, gone])


async def _batches(ai: Any) -> Any:
    batches = ai.messages.batches
    asked = [{"custom_id": "one", "params": ASK}]
    made = await now(batches.create(requests=asked))
    done = await now(batches.retrieve(made.id))
    assert ("in_progress", "ended") == (made.processing_status, done.processing_status)
    rows = await all_of(batches.results(made.id))
    assert ["one"] == [row.custom_id for row in rows]
    assert TEXT == rows[0].result.message.content[0].text
    return [valid(made), valid(rows)]  # `done` names where its results are


class Anthropic:
    """Anthropic's SDK for Python."""

    name: ClassVar[str] = "anthropic"
    here: ClassVar[str] = "/anthropic"
    there: ClassVar[str] = ""
    errors: ClassVar[Mapping[int, type[Exception]]] = {
        401: anthropic.AuthenticationError,
        403: anthropic.PermissionDeniedError,
        404: anthropic.NotFoundError,
        413: anthropic._exceptions.ContentTooLargeError,
        429: anthropic.RateLimitError,
        502: anthropic.InternalServerError,
        503: anthropic._exceptions.ServiceUnavailableError,
        504: anthropic._exceptions.GatewayTimeoutError,
    }
    timeouts: ClassVar[tuple[type[Exception], ...]] = (anthropic.APITimeoutError,)
    variables: ClassVar[tuple[str, str]] = ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY")
    checks: ClassVar[Mapping[str, Check]] = {
        "plain calls": _plain,
        "streams": _streams,
        "tools": _tools,
        "streamed tools": _streamed_tools,
        "tool runner": _runner,
        "structured output": _structured,
        "counting tokens": _count,
        "list of models": _models,
        "files": _files,
        "batches": _batches,
    }

    def client(self, url: str, key: str, *, is_async: bool, **options: Any) -> Any:
        if "retries" in options:
            options["max_retries"] = options.pop("retries")
        if "timeout_s" in options:
            options["timeout"] = options.pop("timeout_s")
        make = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
        return make(base_url=url or None, api_key=key or None, **options)

    async def ask(self, ai: Any, *, model: str = MODEL, text: str = QUESTION) -> Any:
        said = [{"role": "user", "content": text}]
        return await now(
            ai.messages.create(**{**ASK, "messages": said, "model": model})
        )

    async def stream(self, ai: Any, *, model: str) -> Any:
        return await now(ai.messages.create(**{**ASK, "model": model}, stream=True))

    async def headers(self, ai: Any) -> Mapping[str, str]:
        raw = await now(ai.messages.with_raw_response.create(**ASK))
        reply = await now(raw.parse())
        assert TEXT == reply.content[0].text
        assert "req_1" == reply._request_id
        return raw.headers  # type: ignore[no-any-return]

    async def close(self, ai: Any) -> None:
        await now(ai.close())
