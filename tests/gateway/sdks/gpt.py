"""OpenAI's API as the stand-in speaks it: chat completions, responses, embeddings."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from tests.gateway.sdks.mind import Json, Said, Turn, event, pieces, say

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
_USED = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 18,
}
_VECTOR = (0.25, -0.5, 1.0)


def error(status: int, message: str) -> Json:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _chat_turn(asked: Json) -> Turn:
    functions = [tool["function"] for tool in asked.get("tools", [])]
    form = asked.get("response_format", {}).get("json_schema", {}).get("schema")
    said = [one["content"] for one in asked["messages"] if one["role"] == "tool"]
    return Turn({one["name"]: one["parameters"] for one in functions}, form, (*said,))


def chat(asked: Json) -> Json:
    said = say(_chat_turn(asked))
    message: Json = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.calls:
        message["tool_calls"] = [_call(at, *call) for at, call in enumerate(said.calls)]
    ended = "tool_calls" if said.calls else "stop"
    choice = {"index": 0, "message": message, "finish_reason": ended, "logprobs": None}
    return {**_chat("chat.completion", asked), "choices": [choice], "usage": USAGE}


def chat_stream(asked: Json) -> Iterator[bytes]:
    """Stream it; usage is told where it was asked for, and then in every chunk."""
    tells = asked.get("stream_options", {}).get("include_usage", False)
    common = _chat("chat.completion.chunk", asked) | ({"usage": None} if tells else {})

    def chunk(delta: Json, ended: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": ended}
        return event({**common, "choices": [choice]})

    said = say(_chat_turn(asked))
    yield chunk({"role": "assistant", "content": None if said.calls else ""})
    for at, (name, given) in enumerate(said.calls):
        begun = _call(at, name, {})
        begun["function"]["arguments"] = ""
        yield chunk({"tool_calls": [{"index": at, **begun}]})
        for piece in pieces(json.dumps(given)):
            more = {"index": at, "function": {"arguments": piece}}
            yield chunk({"tool_calls": [more]})
    for piece in pieces(said.text):
        yield chunk({"content": piece})
    yield chunk({}, "tool_calls" if said.calls else "stop")
    if tells:
        yield event({**common, "choices": [], "usage": USAGE})
    yield b"data: [DONE]\n\n"


def endless(asked: Json) -> Iterator[bytes]:
    delta = {"index": 0, "delta": {"content": "on "}, "finish_reason": None}
    while True:
        yield event({**_chat("chat.completion.chunk", asked), "choices": [delta]})


def _chat(kind: str, asked: Json) -> Json:
    made = {"id": "chatcmpl-1", "object": kind, "created": 1764000000}
    return {**made, "model": asked["model"], "system_fingerprint": "fp_1"}


def _call(at: int, name: str, given: Json) -> Json:
    function = {"name": name, "arguments": json.dumps(given)}
    return {"id": f"call_{at}", "type": "function", "function": function}


def _response_turn(asked: Json) -> Turn:
    tools = {one["name"]: one["parameters"] for one in asked.get("tools", [])}
    form = asked.get("text", {}).get("format", {}).get("schema")
    items = asked["input"] if isinstance(asked["input"], list) else []
    said = [i["output"] for i in items if i.get("type") == "function_call_output"]
    return Turn(tools, form, (*said,))


def _items(said: Said) -> list[Json]:
    if said.calls:
        return [
            {
                "type": "function_call",
                "id": f"fc_{at}",
                "call_id": f"call_{at}",
                "name": name,
                "arguments": json.dumps(given),
                "status": "completed",
            }
            for at, (name, given) in enumerate(said.calls)
        ]
    text = {"type": "output_text", "text": said.text, "annotations": []}
    item = {"type": "message", "id": "msg_1", "status": "completed"}
    return [{**item, "role": "assistant", "content": [text]}]


def response(asked: Json) -> Json:
    return _response(asked, "completed", _items(say(_response_turn(asked))), _USED)


def _response(asked: Json, status: str, items: list[Json], used: Json | None) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1764000000,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": asked.get("max_output_tokens"),
        "model": asked["model"],
        "output": items,
        "parallel_tool_calls": True,
        "previous_response_id": asked.get("previous_response_id"),
        "temperature": 1.0,
        "text": asked.get("text", {"format": {"type": "text"}}),
        "tool_choice": "auto",
        "tools": asked.get("tools", []),
        "top_p": 1.0,
        "metadata": {},
        "usage": used,
    }


def response_stream(asked: Json) -> Iterator[bytes]:
    for number, (kind, fields) in enumerate(_events(asked)):
        said = {"type": f"response.{kind}", **fields, "sequence_number": number}
        yield event(said, f"response.{kind}")


def _events(asked: Json) -> Iterator[tuple[str, Json]]:
    opening = {"response": _response(asked, "in_progress", [], None)}
    yield "created", opening
    yield "in_progress", opening
    for at, item in enumerate(_items(say(_response_turn(asked)))):
        place = {"item_id": item["id"], "output_index": at}
        begun = {**item, "status": "in_progress"}
        if item["type"] == "function_call":
            yield "output_item.added", {"output_index": at, "item": begun | _NOTHING}
            for piece in pieces(item["arguments"]):
                yield "function_call_arguments.delta", {**place, "delta": piece}
            whole = {"name": item["name"], "arguments": item["arguments"]}
            yield "function_call_arguments.done", {**place, **whole}
        else:
            yield "output_item.added", {"output_index": at, "item": begun | _EMPTY}
            yield from _text_events(item["content"][0], {**place, "content_index": 0})
        yield "output_item.done", {"output_index": at, "item": item}
    yield "completed", {"response": response(asked)}


_NOTHING: Json = {"arguments": ""}
_EMPTY: Json = {"content": []}


def _text_events(part: Json, place: Json) -> Iterator[tuple[str, Json]]:
    yield "content_part.added", {**place, "part": {**part, "text": ""}}
    for piece in pieces(part["text"]):
        yield "output_text.delta", {**place, "delta": piece, "logprobs": []}
    yield "output_text.done", {**place, "text": part["text"], "logprobs": []}
    yield "content_part.done", {**place, "part": part}


def embeddings(asked: Json) -> Json:
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    packed = base64.b64encode(struct.pack("<3f", *_VECTOR)).decode()
    vector: Any = packed if asked.get("encoding_format") == "base64" else [*_VECTOR]
    return {
        "object": "list",
        "model": asked["model"],
        "data": [
            {"object": "embedding", "index": at, "embedding": vector}
            for at in range(len(texts))
        ],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


def model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 1764000000, "owned_by": "openai"}


def file(name: str, size: int, filename: str) -> Json:
    return {
        "id": name,
        "object": "file",
        "bytes": size,
        "created_at": 1764000000,
        "filename": filename,
        "purpose": "batch",
        "status": "processed",
    }


def batch(source: str, status: str) -> Json:
    return {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": source,
        "completion_window": "24h",
        "created_at": 1764000000,
        "status": status,
    }


def listed(rows: list[Json]) -> Json:
    ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]} if rows else {}
    return {"object": "list", "data": rows, "has_more": False, **ends}
