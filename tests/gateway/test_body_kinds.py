"""Kinds of bodies: what is read is JSON or a form, whatever its caller calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway import gates
from tests.gateway.gates import Gate, account, asgi, gate


async def _provider(scope: Any, receive: Any, send: Any) -> None:
    """Say yes to everything."""
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with asgi(_provider) as url:
        google = account(url.removesuffix("/v1") + "/v1beta/openai")
        providers = {"openai": account(url), "gemini": google}
        with gate(gates.config(tmp_path_factory.mktemp("door"), providers)) as it:
            yield it


@pytest.mark.parametrize(
    "path",
    [
        "/v1/batches/b/cancel",
        "/v1/responses/r/cancel",
        "/v1/fine_tuning/jobs/f/cancel",
        "/v1/uploads/u/cancel",
        "/v1/threads/t/runs/r/cancel",
        "/v1/containers",
    ],
)
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "", 200),
        (b"", "application/json", 200),
        (b"null", "application/json", 200),
        (b"{}", "application/json; charset=utf-8", 200),
        (b"{}", "application/x-www-form-urlencoded", 200),
        (b"{}", "application/vnd.api+json", 200),
        (b'\xef\xbb\xbf{"a": "\xc3\xa9"}', "application/json", 200),
        (b'{"a": "\xe9"}', "application/json", 400),
        (b"a=b", "application/x-www-form-urlencoded", 400),
        (b"\n\x02{}", "application/x-protobuf", 400),
        (b"\x89PNG", "image/png", 400),
        (b"\x89PNG", "application/octet-stream", 400),
    ],
)
def test_a_body_is_json_or_nothing_whatever_it_is_called(
    door: Gate, path: str, body: bytes, kind: str, status: int
) -> None:
    with door.client() as client:
        headers = {"content-type": kind} if kind else {}
        reply = client.post(path, content=body, headers=headers)

    assert status == reply.status_code


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_what_is_called_a_file_is_read_where_no_file_is_taken(
    door: Gate, kind: str
) -> None:
    """Else nobody would have seen that it asks for ten pictures, or of whose file."""
    body = b'{"model": "gpt-image-1", "n": 10, "n": 1}'
    with door.client() as client:
        replies = [
            client.post(path, content=body, headers={"content-type": kind})
            for path in ("/v1/images/generations", "/v1/audio/speech", "/v1/videos")
        ]

    assert [400] * 3 == [reply.status_code for reply in replies]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/%20",
        "/v1/chat/completions/%C2%A0",
        "/v1/chat/completions/%E2%80%8B",
        "/v1/files/file-1%20",
        "/v1/files/%20file-1",
        "/v1/complete",
        "/anthropic/v1/complete",
        "/gemini/v1beta/models/x:generateText",
        "/gemini/v1beta/models/x:generateMessage",
        "/gemini/v1beta/models/x:embedText",
        "/gemini/v1beta/models/x:batchEmbedText",
    ],
)
def test_no_path_leads_past_what_is_counted(door: Gate, path: str) -> None:
    with door.client() as client:
        statuses = [
            client.post(path, json={}).status_code,
            client.post(path, json={}, headers={"anthropic-version": "1"}).status_code,
        ]

    assert [404, 404] == statuses


def test_a_part_of_an_upload_is_a_file_whatever_it_is_called(door: Gate) -> None:
    """SDKs go on with the content type of the call that began it."""
    with door.client() as client:
        reply = client.post(
            "/gemini/upload/v1beta/files?upload_id=x",
            content=b"\x89PNG",
            headers={"content-type": "application/json"},
        )

    assert 200 == reply.status_code
