"""What is tried with openai, OpenAI's SDK for Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import openai
from openai.lib.responses_tool_runner import (
    AsyncRegisteredFunction,
    AsyncResponsesToolRunner,
    RegisteredFunction,
    ResponsesToolRunner,
)

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
CHAT: dict[str, Any] = {"model": MODEL, "max_tokens": 90, "messages": MESSAGES}
ASK: dict[str, Any] = {"model": MODEL, "input": QUESTION, "max_output_tokens": 90}
_USAGE = {"include_usage": True}
_FUNCTIONS = [
    openai.pydantic_function_tool(one, name=name) for name, one in TOOLS.items()
]
_FLAT: Any = [{"type": "function", **one["function"]} for one in _FUNCTIONS]


async def _plain(ai: Any) -> Any:
    reply = await now(ai.chat.completions.create(**CHAT))
    assert TEXT == reply.choices[0].message.content
    return valid(reply)


async def _streams(ai: Any) -> Any:
    create = ai.chat.completions.create
    chunks = await all_of(create(**CHAT, stream=True))
    assert TEXT == "".join(one.choices[0].delta.content or "" for one in chunks)
    told = await all_of(create(**CHAT, stream=True, stream_options=_USAGE))
    assert (None, 18) == (chunks[-1].usage, told[-1].usage.total_tokens)
    async with opened(ai.chat.completions.stream(**CHAT)) as stream:
        events = [dumped(event) async for event in each(stream)]
        whole = await now(stream.get_final_completion())
    return [valid(chunks), valid(told), events, dumped(whole)]


async def _responses(ai: Any) -> Any:
    reply = await now(ai.responses.create(**ASK))
    assert TEXT == reply.output_text
    async with opened(ai.responses.stream(**ASK)) as stream:
        events = [dumped(event) async for event in each(stream)]
        whole = await now(stream.get_final_response())
    assert TEXT == whole.output_text
    further = await now(ai.responses.create(**ASK, previous_response_id=reply.id))
    return [valid(reply), events, dumped(whole), valid(further)]


async def _tools(ai: Any) -> Any:
    create = ai.chat.completions.create
    asked = await now(create(**CHAT, tools=_FUNCTIONS))
    said = asked.choices[0].message
    assert CALLED == [_of(call.function) for call in said.tool_calls]
    told = [
        {"role": "tool", "tool_call_id": call.id, "content": f"heard {call.id}"}
        for call in said.tool_calls
    ]
    messages = [*MESSAGES, said.to_dict(), *told]
    reply = await now(create(**{**CHAT, "messages": messages}, tools=_FUNCTIONS))
    assert "heard call_0, heard call_1" == reply.choices[0].message.content
    flat = await now(ai.responses.create(**ASK, tools=_FLAT))
    assert CALLED == [_of(item) for item in flat.output]
    parsed = await now(ai.chat.completions.parse(**CHAT, tools=_FUNCTIONS))
    calls = parsed.choices[0].message.tool_calls
    assert [*TOOLS.values()] == [type(c.function.parsed_arguments) for c in calls]
    return valid([asked, reply, flat])


def _of(call: Any) -> tuple[str, Any]:
    return call.name, json.loads(call.arguments)


async def _streamed_tools(ai: Any) -> Any:
    chunks = await all_of(
        ai.chat.completions.create(**CHAT, tools=_FUNCTIONS, stream=True)
    )
    deltas = [d for one in chunks for d in one.choices[0].delta.tool_calls or ()]
    told = [
        "".join(d.function.arguments for d in deltas if d.index == at) for at in (0, 1)
    ]
    assert [given for _, given in CALLED] == [json.loads(text) for text in told]
    async with opened(ai.chat.completions.stream(**CHAT, tools=_FUNCTIONS)) as stream:
        whole = await now(stream.get_final_completion())
    calls = whole.choices[0].message.tool_calls
    assert CALLED == [_of(call.function) for call in calls]
    async with opened(ai.responses.stream(**ASK, tools=_FLAT)) as stream:
        events = [event async for event in each(stream)]
        flat = await now(stream.get_final_response())
    assert CALLED == [_of(item) for item in flat.output]
    return [valid(chunks), dumped(events)]


async def _runner(ai: Any) -> Any:
    def run(given: Any) -> str:
        return weather(**given)

    async def awaited(given: Any) -> str:
        return weather(**given)

    tool, asked = _FLAT[0], cast("Any", ASK)
    if isinstance(ai, openai.AsyncOpenAI):
        function = AsyncRegisteredFunction(tool, awaited)
        reply = await AsyncResponsesToolRunner(functions=[function]).run(ai, asked)
    else:
        known = RegisteredFunction(tool, run)
        reply = ResponsesToolRunner(functions=[known]).run(ai, asked)
    assert HEARD == reply.output_text
    return valid(reply)


async def _structured(ai: Any) -> Any:
    reply = await now(ai.chat.completions.parse(**CHAT, response_format=Report))
    assert REPORT == reply.choices[0].message.parsed
    flat = await now(ai.responses.parse(**ASK, text_format=Report))
    assert REPORT == flat.output_parsed
    form = {**CHAT, "response_format": Report}
    async with opened(ai.chat.completions.stream(**form)) as stream:
        whole = await now(stream.get_final_completion())
    assert REPORT == whole.choices[0].message.parsed
    return dumped([reply, flat, whole])


async def _embeddings(ai: Any) -> Any:
    texts = ["one", "two"]
    create = ai.embeddings.create
    packed = await now(create(model=MODEL, input=texts))
    plain = await now(create(model=MODEL, input="one", encoding_format="float"))
    assert [[0.25, -0.5, 1.0]] * 3 == [
        [*row.embedding] for row in (*packed.data, *plain.data)
    ]
    return [valid(packed), valid(plain)]


async def _count(ai: Any) -> Any:
    counted = await now(ai.responses.input_tokens.count(model=MODEL, input=QUESTION))
    assert 11 == counted.input_tokens
    return valid(counted)


async def _models(ai: Any) -> Any:
    rows = await all_of(ai.models.list())
    assert [MODEL] == [row.id for row in rows]
    return valid(rows)


async def _files(ai: Any) -> Any:
    made = await now(ai.files.create(file=FILE, purpose="batch"))
    found = await now(ai.files.retrieve(made.id))
    rows = await all_of(ai.files.list())
    content = await now(ai.files.content(made.id))
    gone = await now(ai.files.delete(made.id))
    assert (FILE[1], True) == (content.content, gone.deleted)
    return valid([made, found, rows, gone])


async def _batches(ai: Any) -> Any:
    source = await now(ai.files.create(file=FILE, purpose="batch"))
    made = await now(
        ai.batches.create(
            input_file_id=source.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
        )
    )
    done = await now(ai.batches.retrieve(made.id))
    assert ("validating", "completed") == (made.status, done.status)
    return [valid(made), valid(done), valid(await all_of(ai.batches.list()))]


class OpenAI:
    """OpenAI's SDK for Python."""

    name: ClassVar[str] = "openai"
    here: ClassVar[str] = "/v1"
    there: ClassVar[str] = "/v1"
    errors: ClassVar[Mapping[int, type[Exception]]] = {
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        413: openai.APIStatusError,
        429: openai.RateLimitError,
        502: openai.InternalServerError,
        503: openai.InternalServerError,
        504: openai.InternalServerError,
    }
    timeouts: ClassVar[tuple[type[Exception], ...]] = (openai.APITimeoutError,)
    variables: ClassVar[tuple[str, str]] = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
    checks: ClassVar[Mapping[str, Check]] = {
        "plain calls": _plain,
        "streams": _streams,
        "Responses API": _responses,
        "tools": _tools,
        "streamed tools": _streamed_tools,
        "tool runner": _runner,
        "structured output": _structured,
        "embeddings": _embeddings,
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
        make = openai.AsyncOpenAI if is_async else openai.OpenAI
        return make(base_url=url or None, api_key=key or None, **options)

    async def ask(self, ai: Any, *, model: str = MODEL, text: str = QUESTION) -> Any:
        said = [{"role": "user", "content": text}]
        return await now(ai.chat.completions.create(model=model, messages=said))

    async def stream(self, ai: Any, *, model: str) -> Any:
        asked = {**CHAT, "model": model}
        return await now(ai.chat.completions.create(**asked, stream=True))

    async def headers(self, ai: Any) -> Mapping[str, str]:
        raw = await now(ai.chat.completions.with_raw_response.create(**CHAT))
        reply = raw.parse()
        assert TEXT == reply.choices[0].message.content
        assert "req_1" == reply._request_id
        return raw.headers  # type: ignore[no-any-return]

    async def close(self, ai: Any) -> None:
        await now(ai.close())
