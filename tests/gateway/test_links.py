"""No address in an answer leads a caller, and its key, past the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.gateway import links
from ratekeeper.gateway.links import LinkFilter
from tests.gateway import gates
from tests.gateway.gates import account, asgi, gate

TO = "/v1/messages/batches/msgbatch_1/results"
BATCH = {"id": "msgbatch_1", "results_url": f"https://api.anthropic.com{TO}"}
PLAIN = {"id": "msgbatch_1", "results_url": TO}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "root", ["https://api.anthropic.com", "http://10.0.0.1:81", "https://x/anthropic"]
)
def test_an_address_loses_its_host(root: str, indent: int | None) -> None:
    batch = {**BATCH, "results_url": root + TO}
    body = json.dumps(batch, indent=indent).encode()

    assert json.loads(links.relative(body)) == PLAIN


@pytest.mark.parametrize(
    "batch",
    [
        {"results_url": None},
        {"note": '"results_url": "https://api.anthropic.com/v1/messages/batches/x"'},
        {"cancel_url": f"https://api.anthropic.com{TO}"},
        {"results_url": "https://elsewhere.example/v2"},
    ],
)
def test_all_else_stays_as_it_is(batch: dict[str, object]) -> None:
    body = json.dumps(batch).encode()

    assert body == links.relative(body)


@given(st.lists(st.integers(1, 700), max_size=40), st.integers(1, 9))
def test_parts_say_what_the_whole_says(sizes: list[int], count: int) -> None:
    body = json.dumps({"data": [BATCH] * count, "has_more": False}).encode()
    rewriter, told, at = LinkFilter(), b"", 0
    for size in sizes:
        told += rewriter.feed(body[at : at + size])
        at += size
    told += rewriter.feed(body[at:]) + rewriter.end()

    assert links.relative(body) == told
    assert json.loads(told)["data"] == [PLAIN] * count


@pytest.mark.parametrize(
    ("path", "is_in"),
    [
        (b"/anthropic/v1/messages/batches", True),
        (b"/v1/messages/batches/msgbatch_1", True),
        (b"/v1/messages/batches/msgbatch_1/cancel", True),
        (b"/v1/messages/batches/msgbatch_1/results", False),
        (b"/v1/messages", False),
        (b"/v1/batches/batch_1", False),
    ],
)
def test_only_answers_about_batches_are_read(path: bytes, is_in: bool) -> None:
    assert is_in is links.are_in(path)


class _Batches:
    """A provider that names its own host in a batch, as Anthropic does."""

    def __init__(self, *, told_length: bool) -> None:
        self.told_length = told_length
        self.keys: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): text.decode() for name, text in scope["headers"]}
        self.keys.append(headers.get("x-api-key", ""))
        made: dict[str, Any] = {"id": "msgbatch_1"}
        if scope["method"] == "GET":
            made["results_url"] = f"http://{headers['host']}{TO}"
        body = json.dumps({**made, "processing_status": "ended"}).encode()
        if scope["path"].endswith("/results"):
            row = {"custom_id": "one", "result": {"type": "canceled"}}
            body = json.dumps(row).encode() + b"\n"
        length = [(b"content-length", str(len(body)).encode())]
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": length if self.told_length else []})
        await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("mount", ["", "/anthropic"])
@pytest.mark.parametrize("told_length", [True, False])
def test_an_sdk_fetches_results_through_the_gateway(
    tmp_path: Path, mount: str, told_length: bool
) -> None:
    app = _Batches(told_length=told_length)
    asked: Any = [{"custom_id": "one", "params": {"model": "claude-opus-4-8"}}]
    with (
        asgi(app) as url,
        gate(gates.config(tmp_path, {"anthropic": account(url)})) as it,
        anthropic.Anthropic(base_url=it.url + mount, api_key=gates.SECRET) as ai,
    ):
        made = ai.messages.batches.create(requests=asked)
        rows = list(ai.messages.batches.results(made.id))

    assert ["one"] == [row.custom_id for row in rows]
    assert [gates.UPSTREAM_KEY] * 3 == app.keys
