"""Ask a simulator something, without a socket: its ASGI app is called directly."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.simulator.server import Simulator

KEY = "sk-test"
ROLES: list[dict[str, Any]] = [{"role": "user", "content": "Say hello"}]


def ask(
    simulator: Simulator,
    path: str,
    body: Mapping[str, Any] | bytes | None = None,
    *,
    key: str = KEY,
    cue: str = "",
    method: str = "",
) -> httpx2.Response:
    """Send one request with a key, and with a cue where one is given."""
    headers = {"anthropic-version": "2023-06-01"}
    if key:
        name = "x-api-key" if simulator.dialect.name == "anthropic" else "authorization"
        headers[name] = key if name == "x-api-key" else f"Bearer {key}"
    if cue:
        headers["x-simulate"] = cue
    content = body if isinstance(body, bytes) or body is None else json.dumps(body)

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(simulator)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://simulated"
        ) as client:
            verb = method or ("GET" if body is None else "POST")
            return await client.request(verb, path, content=content, headers=headers)

    return asyncio.run(send())


def chat(simulator: Simulator, cue: str = "", **fields: Any) -> httpx2.Response:
    """Ask for a chat completion."""
    body = {"model": "gpt-4o-mini", "messages": ROLES, **fields}
    return ask(simulator, "/v1/chat/completions", body, cue=cue)


def messages(simulator: Simulator, cue: str = "", **fields: Any) -> httpx2.Response:
    """Ask for an Anthropic message."""
    body = {"model": "claude-x", "max_tokens": 20, "messages": ROLES, **fields}
    return ask(simulator, "/v1/messages", body, cue=cue)


def events(response: httpx2.Response) -> list[tuple[str, Any]]:
    """Read server-sent events: names ('' where there is none) and their data."""
    read = []
    for block in response.text.replace("\r\n", "\n").strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        read.append(
            (fields.get("event", ""), data if data == "[DONE]" else _json(data))
        )
    return read


def _json(text: str) -> Any:
    return json.loads(text)
