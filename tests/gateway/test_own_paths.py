"""Below `/p/{provider}`, a provider's own SDK finds the paths that it writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway import gates
from tests.gateway.gates import Gate, account, behind, client_key, gate

OTHER = "rk-" + "o" * 43
CHAT: dict[str, Any] = {"model": "gpt-4o", "max_tokens": 9, "messages": gates.MESSAGES}
VERSION = "2024-10-21"


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Gate]:
    keys = [
        client_key(limits=["1M tokens/minute"]),
        client_key("narrow", OTHER, allow_models=["gpt-4o-mini"]),
    ]
    with behind("azure") as one, behind("cohere") as two, behind("groq") as three:
        providers = {
            "azure": account(one.url),
            "cohere": account(two.url),
            "groq": account(three.url),
        }
        with gate(gates.config(tmp_path, providers, keys)) as running:
            yield running


def _used(it: Gate) -> int:
    caller = it.gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    ((scope, key),) = caller.targets
    return int(it.gateway.store.status(scope, key)[0].used)


def test_azures_client_is_let_in_by_its_deployments(it: Gate) -> None:
    url = f"{it.url}/p/azure"
    with openai.AzureOpenAI(
        azure_endpoint=url, api_version=VERSION, api_key=gates.SECRET
    ) as ai:
        reply = ai.chat.completions.create(**CHAT)
        assert reply.usage is not None
        used = _used(it)
        chunks = list(ai.chat.completions.create(**CHAT, stream=True))
        names = [row.id for row in ai.models.list()]

    assert reply.usage.total_tokens == used
    assert all(chunk.usage is None for chunk in chunks)
    assert _used(it) > used
    assert names


def test_azures_async_client_is_let_in_too(it: Gate) -> None:
    async def play() -> Any:
        url = f"{it.url}/p/azure"
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=url, api_version=VERSION, api_key=gates.SECRET
        ) as ai:
            return await ai.chat.completions.create(**CHAT)

    assert asyncio.run(play()).choices


@pytest.mark.parametrize(
    ("deployment", "model", "status"),
    [
        ("gpt-4o-mini", "gpt-4o-mini", 200),
        ("gpt-4o", "gpt-4o", 403),
        ("gpt-4o", "gpt-4o-mini", 403),  # the path decides, whatever the body says
    ],
)
def test_a_deployment_is_a_model_that_a_key_may_use_or_not(
    it: Gate, deployment: str, model: str, status: int
) -> None:
    path = f"/p/azure/openai/deployments/{deployment}/chat/completions"
    with it.client(OTHER) as client:
        reply = client.post(
            path, params={"api-version": VERSION}, json={**CHAT, "model": model}
        )

    assert status == reply.status_code


@pytest.mark.parametrize("stream", [False, True])
def test_coheres_own_chat_is_counted(it: Gate, stream: bool) -> None:
    asked = {**CHAT, "model": "command-a-03-2025", "stream": stream}
    with it.client() as client:
        reply = client.post("/p/cohere/v2/chat", json=asked)
    used = _used(it)

    assert 200 == reply.status_code
    assert 9 < used < 100


def test_cohere_is_refused_in_its_own_words(it: Gate) -> None:
    with it.client("rk-nobody") as client:
        reply = client.post("/p/cohere/v2/chat", json=CHAT)

    assert 401 == reply.status_code
    assert {"id", "message"} == reply.json().keys()


def test_a_url_of_groqs_may_keep_its_path(it: Gate) -> None:
    with it.client() as client:
        reply = client.post("/p/groq/openai/v1/chat/completions", json=CHAT)

    assert 200 == reply.status_code
