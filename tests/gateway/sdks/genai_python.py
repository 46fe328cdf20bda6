"""What is tried with google-genai, Google's SDK for Python."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx2
from google import genai
from google.genai import errors, types

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
from tests.gateway.sdks.playing import Check, all_of, now
from tests.gateway.sdks.provider import MODEL

ASK: dict[str, Any] = {"model": MODEL, "contents": QUESTION}
_DECLARED: Any = [
    {
        "name": name,
        "description": one.__doc__,
        "parameters_json_schema": one.model_json_schema(),
    }
    for name, one in TOOLS.items()
]
_TOOLS: Any = {"tools": [{"function_declarations": _DECLARED}]}
_FORM = {"response_mime_type": "application/json", "response_schema": Report}


def _dumped(got: Any) -> Any:
    """Return an answer as plain data, without the headers that it carries."""
    if isinstance(got, list):
        return [_dumped(one) for one in got]
    return got.model_dump(
        exclude={"sdk_http_response", "automatic_function_calling_history"}
    )


def _calls(reply: Any) -> list[tuple[str, Any]]:
    return [(call.name, call.args) for call in reply.function_calls]


async def _plain(ai: Any) -> Any:
    reply = await now(ai.models.generate_content(**ASK))
    assert TEXT == reply.text
    return _dumped(reply)


async def _streams(ai: Any) -> Any:
    parts = await all_of(ai.models.generate_content_stream(**ASK))
    assert TEXT == "".join(one.text for one in parts)
    return _dumped(parts)


async def _tools(ai: Any) -> Any:
    asked = await now(ai.models.generate_content(**ASK, config=_TOOLS))
    assert CALLED == _calls(asked)
    told = [
        types.Part.from_function_response(
            name=name, response={"result": f"heard {name}"}
        )
        for name, _ in CALLED
    ]
    contents = [
        types.UserContent(QUESTION),
        asked.candidates[0].content,
        types.Content(role="user", parts=told),
    ]
    reply = await now(
        ai.models.generate_content(model=MODEL, contents=contents, config=_TOOLS)
    )
    assert "heard weather, heard clock" == reply.text
    return [_dumped(asked), _dumped(reply)]


async def _streamed_tools(ai: Any) -> Any:
    parts = await all_of(ai.models.generate_content_stream(**ASK, config=_TOOLS))
    assert CALLED == _calls(parts[-1])
    return _dumped(parts)


async def _runner(ai: Any) -> Any:
    chat = ai.chats.create(model=MODEL, config={"tools": [weather]})
    reply = await now(chat.send_message(QUESTION))
    assert HEARD == reply.text
    return _dumped(reply)


async def _structured(ai: Any) -> Any:
    reply = await now(ai.models.generate_content(**ASK, config=_FORM))
    assert REPORT == reply.parsed
    json_form = {**_FORM, "response_schema": None}
    json_form["response_json_schema"] = Report.model_json_schema()
    other = await now(ai.models.generate_content(**ASK, config=json_form))
    assert REPORT == Report.model_validate_json(other.text)
    return [_dumped(reply), _dumped(other)]


async def _embeddings(ai: Any) -> Any:
    reply = await now(ai.models.embed_content(model=MODEL, contents=["one", "two"]))
    assert [[0.25, -0.5, 1.0]] * 2 == [one.values for one in reply.embeddings]
    return _dumped(reply)


async def _count(ai: Any) -> Any:
    counted = await now(ai.models.count_tokens(**ASK))
    assert 11 == counted.total_tokens
    return _dumped(counted)


async def _models(ai: Any) -> Any:
    rows = await all_of(ai.models.list())
    assert [f"models/{MODEL}"] == [row.name for row in rows]
    return _dumped(rows)


async def _files(ai: Any) -> Any:
    config = {"mime_type": "text/plain", "display_name": FILE[0]}
    made = await now(ai.files.upload(file=io.BytesIO(FILE[1]), config=config))
    found = await now(ai.files.get(name=made.name))
    rows = await all_of(ai.files.list())
    await now(ai.files.delete(name=made.name))
    assert [len(FILE[1])] * 2 == [made.size_bytes, found.size_bytes]
    places = {"uri"}  # of the provider, which is asked under two names here
    return [one.model_dump(exclude=places) for one in (made, found, *rows)]


async def _batches(ai: Any) -> Any:
    asked = [{"contents": [{"parts": [{"text": "hi"}], "role": "user"}]}]
    made = await now(ai.batches.create(model=MODEL, src=asked))
    done = await now(ai.batches.get(name=made.name))
    assert (types.JobState.JOB_STATE_SUCCEEDED, False) == (done.state, made.done)
    return [_dumped(made), _dumped(done)]


class GenAI:
    """Google's SDK for Python."""

    name: ClassVar[str] = "google-genai"
    here: ClassVar[str] = "/gemini"
    there: ClassVar[str] = ""
    errors: ClassVar[Mapping[int, type[Exception]]] = {
        **dict.fromkeys((401, 403, 404, 413, 429), errors.ClientError),
        **dict.fromkeys((502, 503, 504), errors.ServerError),
    }
    timeouts: ClassVar[tuple[type[Exception], ...]] = (
        httpx2.TimeoutException,
        TimeoutError,  # of aiohttp, which its async client rides on where it is there
    )
    variables: ClassVar[tuple[str, str]] = ("GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY")
    checks: ClassVar[Mapping[str, Check]] = {
        "plain calls": _plain,
        "streams": _streams,
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
        http: Any = {"base_url": url} if url else {}
        if options.get("retries"):
            said = {"attempts": options["retries"] + 1, "initial_delay": 1.0}
            http["retry_options"] = {**said, "http_status_codes": [429]}
        if "timeout_s" in options:
            http["timeout"] = int(options["timeout_s"] * 1000)
        client = genai.Client(api_key=key or None, http_options=http or None)
        return client.aio if is_async else client

    async def ask(self, ai: Any, *, model: str = MODEL, text: str = QUESTION) -> Any:
        return await now(ai.models.generate_content(model=model, contents=text))

    async def stream(self, ai: Any, *, model: str) -> Any:
        return await now(ai.models.generate_content_stream(**{**ASK, "model": model}))

    async def headers(self, ai: Any) -> Mapping[str, str]:
        reply = await self.ask(ai)
        assert TEXT == reply.text
        return reply.sdk_http_response.headers  # type: ignore[no-any-return]

    async def close(self, ai: Any) -> None:
        await (ai.aclose() if hasattr(ai, "aclose") else now(ai.close()))
