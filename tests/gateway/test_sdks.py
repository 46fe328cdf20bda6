"""Official SDKs, unchanged, through the gateway: what docs/sdks.md ticks is run here."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from google import genai
from google.genai import errors as google

from tests.gateway import gates
from tests.gateway.gates import Gate, account, asgi, behind, client_key, gate

ROOT = Path(__file__).parents[2]
CHAT: dict[str, Any] = {"model": "gpt-4o", "max_tokens": 9, "messages": gates.MESSAGES}
ASK: dict[str, Any] = {**CHAT, "model": "claude-opus-4-8"}
FLASH: dict[str, Any] = {"model": "gemini-2.5-flash", "contents": "hi"}
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {}}}


class City(pydantic.BaseModel):
    """What a structured answer would be."""

    name: str


async def _heeding(scope: Any, receive: Any, send: Any) -> None:
    """Answer by the tools and the form that a request asks for, as a model would."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    asked = json.loads(body)
    answer = _as_claude(asked) if "messages" in scope["path"] else _as_gpt(asked)
    data = json.dumps(answer).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


def _as_gpt(asked: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": "hello"}
    ended = "stop"
    if "tools" in asked:
        name = asked["tools"][0]["function"]["name"]
        call = {"id": "1", "type": "function"}
        said["tool_calls"] = [{**call, "function": {"name": name, "arguments": "{}"}}]
        ended = "tool_calls"
    if "response_format" in asked:
        form = asked["response_format"]["json_schema"]["schema"]
        said["content"] = json.dumps(dict.fromkeys(form["properties"], "Paris"))
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": asked["model"],
        "choices": [{"index": 0, "message": said, "finish_reason": ended}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _as_claude(asked: dict[str, Any]) -> dict[str, Any]:
    block = {"type": "tool_use", "id": "1", "name": asked["tools"][0]["name"]}
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{**block, "input": {}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    folder = tmp_path_factory.mktemp("sdks")
    keys = [
        client_key(),
        client_key("poor", "rk-" + "p" * 43, limits=["1 request/day"], max_wait="0s"),
        client_key("short", "rk-" + "q" * 43, limits=["1 request/s"], max_wait="0s"),
        client_key("narrow", "rk-" + "n" * 43, allow_models=["none"]),
    ]
    with (
        behind("openai") as one,
        behind("anthropic") as two,
        behind("gemini") as three,
        asgi(_heeding) as four,
    ):
        providers = {
            "openai": account(one.url),
            "anthropic": account(two.url),
            "gemini": account(three.url),
            "heeding": {"base_url": four, "accounts": [account(four)]},
        }
        with gate(gates.config(folder, providers, keys, max_body="1MiB")) as running:
            yield running


def _openai(it: Gate, key: str = gates.SECRET, **more: Any) -> Any:
    return openai.OpenAI(base_url=f"{it.url}/v1", api_key=key, **more)


def _openai_async(it: Gate) -> Any:
    return openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key=gates.SECRET)


def _claude(it: Gate, key: str = gates.SECRET, **more: Any) -> Any:
    return anthropic.Anthropic(base_url=f"{it.url}/anthropic", api_key=key, **more)


def _claude_async(it: Gate) -> Any:
    return anthropic.AsyncAnthropic(base_url=it.url, auth_token=gates.SECRET)


def _google(it: Gate, key: str = gates.SECRET) -> genai.Client:
    return genai.Client(api_key=key, http_options={"base_url": f"{it.url}/gemini"})


def _openai_plain(it: Gate) -> None:
    reply = _openai(it).chat.completions.create(**CHAT)
    assert reply.usage is not None
    assert 9 == reply.usage.completion_tokens


def _openai_stream(it: Gate) -> None:
    chunks = list(_openai(it).chat.completions.create(**CHAT, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    options = {"include_usage": True}
    told = list(
        _openai(it).chat.completions.create(**CHAT, stream=True, stream_options=options)
    )
    assert told[-1].usage is not None
    assert len(told) == len(chunks) + 1


def _openai_async_plain(it: Gate) -> None:
    async def play() -> None:
        async with _openai_async(it) as client:
            reply = await client.chat.completions.create(**CHAT)
            assert reply.choices
            stream = await client.chat.completions.create(**CHAT, stream=True)
            assert [chunk async for chunk in stream]

    asyncio.run(play())


def _openai_responses(it: Gate) -> None:
    client = _openai(it)
    reply = client.responses.create(model="gpt-4o", input="hi", max_output_tokens=16)
    assert reply.usage is not None
    with client.responses.stream(model="gpt-4o", input="hi") as stream:
        assert "completed" == stream.get_final_response().status


def _openai_tools(it: Gate) -> None:
    client = _openai(it).with_options(base_url=f"{it.url}/p/heeding")
    tools: Any = [{"type": "function", "function": TOOL}]
    (choice,) = client.chat.completions.create(**CHAT, tools=tools).choices
    (call,) = choice.message.tool_calls
    assert ("weather", "tool_calls") == (call.function.name, choice.finish_reason)


def _openai_structured(it: Gate) -> None:
    client = _openai(it).with_options(base_url=f"{it.url}/p/heeding")
    reply = client.chat.completions.parse(**CHAT, response_format=City)
    assert City(name="Paris") == reply.choices[0].message.parsed
    raw = client.chat.completions.with_raw_response.create(**CHAT)
    assert raw.headers["x-ratekeeper-request-id"].startswith("rk_")
    assert "hello" == raw.parse().choices[0].message.content


def _openai_embeddings(it: Gate) -> None:
    reply = _openai(it).embeddings.create(model="text-embedding-3-small", input="x")
    assert reply.data[0].embedding


def _openai_models(it: Gate) -> None:
    assert list(_openai(it).models.list())


def _openai_errors(it: Gate) -> None:
    with pytest.raises(openai.AuthenticationError):
        _openai(it, "rk-nobody").models.list()
    with pytest.raises(openai.PermissionDeniedError):
        _openai(it, "rk-" + "n" * 43).chat.completions.create(**CHAT)
    with pytest.raises(openai.NotFoundError):
        _openai(it).get("/nowhere", cast_to=object)
    with pytest.raises(openai.APIStatusError) as large:
        _openai(it).chat.completions.create(**CHAT, user="u" * 2_000_000)
    assert 413 == large.value.status_code
    client = _openai(it, "rk-" + "p" * 43)
    client.models.list()
    with pytest.raises(openai.RateLimitError) as caught:
        client.models.list()
    assert int(caught.value.response.headers["retry-after"]) > 80_000


def _openai_retries(it: Gate) -> None:
    client = _openai(it, "rk-" + "q" * 43)
    assert 3 == len([client.chat.completions.create(**CHAT) for _ in range(3)])


def _claude_plain(it: Gate) -> None:
    assert 9 == _claude(it).messages.create(**ASK).usage.output_tokens


def _claude_stream(it: Gate) -> None:
    with _claude(it).messages.stream(**ASK) as stream:
        assert 9 == stream.get_final_message().usage.output_tokens
    assert list(_claude(it).messages.create(**ASK, stream=True))


def _claude_async_plain(it: Gate) -> None:
    async def play() -> None:
        async with _claude_async(it) as client:
            assert (await client.messages.create(**ASK)).content
            async with client.messages.stream(**ASK) as stream:
                assert (await stream.get_final_message()).content

    asyncio.run(play())


def _claude_tools(it: Gate) -> None:
    client = _claude(it).with_options(base_url=f"{it.url}/p/heeding")
    tools: Any = [{"name": "weather", "input_schema": TOOL["parameters"]}]
    reply = client.messages.create(**ASK, tools=tools)
    (block,) = reply.content
    assert ("tool_use", "weather") == (block.type, block.name)
    assert "tool_use" == reply.stop_reason


def _claude_models(it: Gate) -> None:
    assert list(_claude(it).models.list())


def _claude_count(it: Gate) -> None:
    said = {"model": ASK["model"], "messages": gates.MESSAGES}
    assert _claude(it).messages.count_tokens(**said).input_tokens > 0


def _claude_errors(it: Gate) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        _claude(it, "rk-nobody").messages.create(**ASK)
    with pytest.raises(anthropic.PermissionDeniedError):
        _claude(it, "rk-" + "n" * 43).messages.create(**ASK)
    with pytest.raises(anthropic.NotFoundError):
        _claude(it).get("/v1/nowhere", cast_to=object)
    with pytest.raises(anthropic.APIStatusError) as large:
        _claude(it).messages.create(**ASK, system="s" * 2_000_000)
    assert 413 == large.value.status_code


def _google_plain(it: Gate) -> None:
    with _google(it) as client:
        reply = client.models.generate_content(**FLASH)
    assert reply.usage_metadata is not None


def _google_stream(it: Gate) -> None:
    with _google(it) as client:
        assert list(client.models.generate_content_stream(**FLASH))


def _google_async_plain(it: Gate) -> None:
    async def play() -> None:
        client = _google(it).aio
        assert (await client.models.generate_content(**FLASH)).text
        stream = await client.models.generate_content_stream(**FLASH)
        assert [chunk async for chunk in stream]
        await client.aclose()

    asyncio.run(play())


def _google_errors(it: Gate) -> None:
    with (
        _google(it, "rk-nobody") as client,
        pytest.raises(google.ClientError) as caught,
    ):
        client.models.generate_content(**FLASH)
    assert 401 == caught.value.code
    with (
        _google(it, "rk-" + "n" * 43) as client,
        pytest.raises(google.ClientError) as caught,
    ):
        client.models.generate_content(**FLASH)
    assert 403 == caught.value.code


Check = Callable[[Gate], None]
MATRIX: dict[str, dict[str, Check]] = {
    "openai": {
        "plain": _openai_plain,
        "stream": _openai_stream,
        "async": _openai_async_plain,
        "responses": _openai_responses,
        "tools": _openai_tools,
        "structured output": _openai_structured,
        "embeddings": _openai_embeddings,
        "models": _openai_models,
        "its error classes": _openai_errors,
        "its own retries": _openai_retries,
    },
    "anthropic": {
        "plain": _claude_plain,
        "stream": _claude_stream,
        "async": _claude_async_plain,
        "tools": _claude_tools,
        "models": _claude_models,
        "count tokens": _claude_count,
        "its error classes": _claude_errors,
    },
    "google-genai": {
        "plain": _google_plain,
        "stream": _google_stream,
        "async": _google_async_plain,
        "its error classes": _google_errors,
    },
}
CELLS = [(sdk, what) for sdk, checks in MATRIX.items() for what in checks]


@pytest.mark.parametrize(("sdk", "what"), CELLS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_official_sdk_works_unchanged(it: Gate, sdk: str, what: str) -> None:
    MATRIX[sdk][what](it)


@pytest.mark.parametrize("page", ["sdks.md", "sdks.zh-CN.md"])
def test_the_page_ticks_what_is_run_and_nothing_else(page: str) -> None:
    rows = re.findall(r"^\|(.+)\|$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    table = [[cell.strip() for cell in row.split("|")] for row in rows]
    names = [cell.strip("`") for cell in table[0][1:]]
    whats = list(dict.fromkeys(what for _, what in CELLS))
    table = table[: 2 + len(whats)]
    ticked = {
        (sdk, what)
        for what, row in zip(whats, table[2:], strict=True)
        for sdk, cell in zip(names, row[1:], strict=True)
        if cell == "✓"
    }

    assert {*CELLS} == ticked
