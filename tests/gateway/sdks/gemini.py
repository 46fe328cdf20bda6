"""Gemini's API as the stand-in speaks it: generateContent, embeddings, files."""

from __future__ import annotations

from collections.abc import Iterator

from tests.gateway.sdks.mind import Json, Said, Turn, event, pieces, say

_WHEN = "2026-11-25T10:00:00Z"
_STATUSES = {401: "UNAUTHENTICATED", 404: "NOT_FOUND", 503: "UNAVAILABLE"}


def error(status: int, message: str) -> Json:
    said = {"code": status, "message": message, "status": _STATUSES[status]}
    return {"error": said}


def _turn(asked: Json) -> Turn:
    functions = [
        one
        for tool in asked.get("tools", [])
        for one in tool.get("functionDeclarations", [])
    ]
    config = asked.get("generationConfig", {})
    form = config.get("responseSchema") or config.get("responseJsonSchema")
    results = [
        str(part["functionResponse"]["response"].get("result"))
        for content in asked["contents"]
        for part in content["parts"]
        if "functionResponse" in part
    ]
    tools = {one["name"]: _schema(one) for one in functions}
    return Turn(tools, form, tuple(results))


def _schema(function: Json) -> Json:
    """Return what a function takes, in any of Google's spellings."""
    kinds = ("parameters", "parametersJsonSchema", "parameters_json_schema")
    return next(function[kind] for kind in kinds if kind in function)


def _parts(said: Said) -> list[Json]:
    if not said.calls:
        return [{"text": said.text}]
    return [
        {"functionCall": {"id": f"fc_{at}", "name": name, "args": given}}
        for at, (name, given) in enumerate(said.calls)
    ]


def _answer(name: str, parts: list[Json], reason: str | None = "STOP") -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": 11,
            "candidatesTokenCount": 7,
            "totalTokenCount": 18,
        },
        "modelVersion": name,
        "responseId": "resp-1",
    }


def generated(name: str, asked: Json) -> Json:
    return _answer(name, _parts(say(_turn(asked))))


def stream(name: str, asked: Json) -> Iterator[bytes]:
    said = say(_turn(asked))
    for piece in pieces(said.text):
        yield event(_answer(name, [{"text": piece}], None))
    yield event(_answer(name, _parts(said) if said.calls else [{"text": ""}]))


def endless(name: str) -> Iterator[bytes]:
    while True:
        yield event(_answer(name, [{"text": "on "}], None))


def embeddings(asked: Json) -> Json:
    return {"embeddings": [{"values": [0.25, -0.5, 1.0]} for _ in asked["requests"]]}


def model(name: str) -> Json:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": "Gemini",
        "inputTokenLimit": 1048576,
        "outputTokenLimit": 65536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


def file(name: str, size: int, root: str) -> Json:
    return {
        "name": f"files/{name}",
        "mimeType": "text/plain",
        "sizeBytes": str(size),
        "createTime": _WHEN,
        "updateTime": _WHEN,
        "expirationTime": "2026-11-27T10:00:00Z",
        "uri": f"{root}/v1beta/files/{name}",
        "state": "ACTIVE",
        "source": "UPLOADED",
    }


def batch(name: str, state: str) -> Json:
    kind = "type.googleapis.com/google.ai.generativelanguage.v1main"
    return {
        "name": "batches/batch-1",
        "metadata": {
            "@type": f"{kind}.GenerateContentBatch",
            "model": f"models/{name}",
            "displayName": "one",
            "state": f"BATCH_STATE_{state}",
            "createTime": _WHEN,
            "updateTime": _WHEN,
            "name": "batches/batch-1",
        },
    }
