"""OpenAI's Responses API: its response object and the events of its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratekeeper.simulator.dialect import Answer, Call, Event, Problem, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator


def whole(call: Call, answer: Answer) -> dict[str, Any]:
    """Write the finished response; one that max_output_tokens stopped is incomplete."""
    status = "incomplete" if answer.truncated else "completed"
    body = _frame(call, answer.request_id, answer.created, status)
    body["output"] = [_item(answer, "".join(answer.words), status)]
    if answer.truncated:
        body["incomplete_details"] = {"reason": "max_output_tokens"}
    if answer.with_usage:
        body["usage"] = {
            "input_tokens": call.input_tokens,
            "input_tokens_details": {
                "cached_tokens": min(answer.cached_tokens, call.input_tokens)
            },
            "output_tokens": answer.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": call.input_tokens + answer.tokens,
        }
    return body


def stream(call: Call, answer: Answer) -> Iterator[Event]:
    """Write the events of a streamed response, numbered in sequence."""
    for number, (kind, fields, tokens) in enumerate(_events(call, answer)):
        yield Event(_event(kind, {**fields, "sequence_number": number}), tokens)


def failed(call: Call, problem: Problem, error: dict[str, Any]) -> bytes:
    """Write the event of a response that fails after it has begun."""
    body = _frame(call, problem.request_id, 0, "failed")
    body["error"] = {
        "code": error["code"] or "server_error",
        "message": error["message"],
    }
    return _event("response.failed", {"response": body, "sequence_number": 999})


def _frame(call: Call, request_id: str, created: int, status: str) -> dict[str, Any]:
    return {
        "id": f"resp_{request_id}",
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": call.max_output,
        "model": call.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "metadata": {},
        "usage": None,
    }


def _item(answer: Answer, text: str | None, status: str) -> dict[str, Any]:
    return {
        "type": "message",
        "id": f"msg_{answer.request_id}",
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [_part(text)],
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _events(call: Call, answer: Answer) -> Iterator[tuple[str, dict[str, Any], int]]:
    opening = _frame(call, answer.request_id, answer.created, "in_progress")
    text = "".join(answer.words)
    done = answer.tokens
    end = "incomplete" if answer.truncated else "completed"
    here = {"item_id": f"msg_{answer.request_id}", "output_index": 0}
    place = {**here, "content_index": 0}
    yield "response.created", {"response": opening}, 0
    yield "response.in_progress", {"response": opening}, 0
    item = _item(answer, None, "in_progress")
    yield "response.output_item.added", {"output_index": 0, "item": item}, 0
    yield "response.content_part.added", {**place, "part": _part("")}, 0
    for piece, tokens in answer.pieces():
        delta = {**place, "delta": piece, "logprobs": []}
        yield "response.output_text.delta", delta, tokens
    finished = {**place, "text": text, "logprobs": []}
    yield "response.output_text.done", finished, done
    yield "response.content_part.done", {**place, "part": _part(text)}, done
    item = _item(answer, text, end)
    yield "response.output_item.done", {"output_index": 0, "item": item}, done
    yield f"response.{end}", {"response": whole(call, answer)}, done


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    body = to_json({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"
