"""Anthropic's API as the stand-in speaks it: messages, batches of them, files."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.gateway.sdks.mind import Json, Said, Turn, event, pieces, say

_WHEN = "2026-11-25T10:00:00Z"
_BEGUN = {
    "input_tokens": 11,
    "output_tokens": 1,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "service_tier": "standard",
}
_KINDS = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}


def error(status: int, message: str) -> Json:
    said = {"type": _KINDS[status], "message": message}
    return {"type": "error", "error": said, "request_id": "req_1"}


def _turn(asked: Json) -> Turn:
    tools = {one["name"]: one["input_schema"] for one in asked.get("tools", [])}
    form = asked.get("output_config", {}).get("format", {}).get("schema")
    results = [
        _text(block["content"])
        for message in asked["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "tool_result"
    ]
    return Turn(tools, form, tuple(results))


def _text(content: str | list[Json]) -> str:
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content)


def _blocks(said: Said) -> list[Json]:
    if not said.calls:
        return [{"type": "text", "text": said.text, "citations": None}]
    return [
        {"type": "tool_use", "id": f"toolu_{at}", "name": name, "input": given}
        for at, (name, given) in enumerate(said.calls)
    ]


def _message(asked: Json, blocks: list[Json], reason: str | None, used: Json) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": blocks,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": used,
    }


def message(asked: Json) -> Json:
    said = say(_turn(asked))
    reason = "tool_use" if said.calls else "end_turn"
    return _message(asked, _blocks(said), reason, {**_BEGUN, "output_tokens": 7})


def stream(asked: Json) -> Iterator[bytes]:
    for fields in _events(asked):
        yield event(fields, fields["type"])


def _events(asked: Json) -> Iterator[Json]:
    said = say(_turn(asked))
    yield {"type": "message_start", "message": _message(asked, [], None, _BEGUN)}
    yield {"type": "ping"}
    for at, block in enumerate(_blocks(said)):
        is_tool = block["type"] == "tool_use"
        empty = {**block, "input": {}} if is_tool else {**block, "text": ""}
        yield {"type": "content_block_start", "index": at, "content_block": empty}
        whole = json.dumps(block["input"]) if is_tool else block["text"]
        for piece in pieces(whole):
            delta = (
                {"type": "input_json_delta", "partial_json": piece}
                if is_tool
                else {"type": "text_delta", "text": piece}
            )
            yield {"type": "content_block_delta", "index": at, "delta": delta}
        yield {"type": "content_block_stop", "index": at}
    reason = "tool_use" if said.calls else "end_turn"
    ended = {"stop_reason": reason, "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 7}}
    yield {"type": "message_stop"}


def endless(asked: Json) -> Iterator[bytes]:
    begun = {"type": "message_start", "message": _message(asked, [], None, _BEGUN)}
    yield event(begun, "message_start")
    block = {"type": "text", "text": "", "citations": None}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    yield event(start, "content_block_start")
    delta = {"type": "text_delta", "text": "on "}
    while True:
        more = {"type": "content_block_delta", "index": 0, "delta": delta}
        yield event(more, "content_block_delta")


def model(name: str) -> Json:
    return {
        "type": "model",
        "id": name,
        "display_name": "Claude",
        "created_at": _WHEN,
        "lifecycle": "active",
    }


def file(name: str, size: int, filename: str) -> Json:
    return {
        "id": name,
        "type": "file",
        "filename": filename,
        "mime_type": "text/plain",
        "size_bytes": size,
        "created_at": _WHEN,
        "downloadable": True,
    }


def batch(root: str, status: str) -> Json:
    path = "/v1/messages/batches/msgbatch_1/results"
    counts = ("canceled", "errored", "expired", "processing", "succeeded")
    return {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": status,
        "request_counts": dict.fromkeys(counts, 0),
        "created_at": _WHEN,
        "expires_at": "2026-11-26T10:00:00Z",
        "ended_at": _WHEN if status == "ended" else None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": root + path if status == "ended" else None,
    }


def results(asked: list[Json]) -> bytes:
    rows = [
        {
            "custom_id": one["custom_id"],
            "result": {"type": "succeeded", "message": message(one["params"])},
        }
        for one in asked
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def listed(rows: list[Json]) -> Json:
    ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]} if rows else {}
    return {"data": rows, "has_more": False, **ends}
