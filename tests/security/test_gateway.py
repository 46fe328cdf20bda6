"""The gateway's secrets stay where they belong, and its calls go where they may."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ratekeeper.gateway.observer import Log
from tests.faults.scripted import Asked, scripted
from tests.gateway import gates
from tests.gateway.gates import Behind, account, asgi, behind, client_key, gate

PROMPT, HEADER, QUERY = "canary-prompt-77", "canary-header-78", "canary-query-79"
CANARIES = (PROMPT, HEADER, QUERY, gates.SECRET, gates.UPSTREAM_KEY)


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind() as it:
        yield it


def test_no_secret_and_no_prompt_reaches_logs_or_disk(
    tmp_path: Path, upstream: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [client_key(limits=["3 requests/day", "$1/day"], max_wait="0s")]
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
    with (
        caplog.at_level(logging.DEBUG),
        gate(config, observer=Log) as it,
        it.client() as client,
    ):
        for cue in ("", "status=400", "status=500", ""):
            client.post(
                f"/v1/chat/completions?note={QUERY}",
                headers={"x-note": HEADER, "x-simulate": cue or "latency=0"},
                json={
                    "model": "gpt-4o",
                    "max_tokens": 5,
                    "messages": [{"role": "user", "content": PROMPT}],
                },
            )
        httpx2.get(f"{it.url}/v1/models?key={gates.SECRET}x")
    disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    # The test's own client logs the URLs it asks for.
    told = "\n".join(
        record.getMessage() for record in caplog.records if record.name != "httpx2"
    )

    assert "refusals" in told
    assert [] == [one for one in CANARIES if one in told]
    assert [] == [one for one in CANARIES if one.encode() in disk]


def test_refusals_of_the_gateway_repeat_no_secret(
    tmp_path: Path, upstream: Behind
) -> None:
    keys = [client_key(allow_models=["gpt-4o"])]
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
    with gate(config) as it, it.client() as client:
        replies = [
            httpx2.get(f"{it.url}/v1/models", headers={"x-api-key": "rk-" + HEADER}),
            client.post("/v1/chat/completions", json={"model": "o3", "user": PROMPT}),
            client.get(f"/v1/nowhere/{QUERY}"),
            client.get("/v1/models", headers={"x-api-key": HEADER}),
        ]
    told = "".join(f"{reply.text}{reply.headers}" for reply in replies)

    assert [401, 403, 404, 400] == [reply.status_code for reply in replies]
    assert [] == [one for one in CANARIES if one in told]


def test_unknown_wrong_and_expired_keys_are_told_the_same(
    tmp_path: Path, upstream: Behind
) -> None:
    old = "rk-" + "e" * 43
    keys = [client_key(), client_key("old", old, expires="2020-01-01")]
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
    with gate(config) as it:
        bodies = set()
        for key in ("rk-" + "z" * 43, gates.SECRET[:-1] + "x", old, "short"):
            headers = {"authorization": f"Bearer {key}"}
            reply = httpx2.get(f"{it.url}/v1/models", headers=headers)
            bodies.add((reply.status_code, reply.text))

    assert 1 == len(bodies)
    assert 401 == bodies.pop()[0]


class _Recorder:
    """A provider that writes down what it is asked, and sends callers away."""

    def __init__(self, status: int = 200, *fields: tuple[bytes, bytes]) -> None:
        self.seen: list[dict[str, Any]] = []
        self._status = status
        self._fields = list(fields)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        self.seen.append(scope)
        headers = [(b"content-length", b"2"), *self._fields]
        start = {"type": "http.response.start", "status": self._status}
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})


AT_ONCE = {"x-ratekeeper-max-wait": "0s"}

HOPS = {
    "x-api-key": gates.SECRET,
    "cookie": "session=1",
    "proxy-authorization": "Basic x",
    "te": "trailers",
    "x-forwarded-for": "10.0.0.1",
    "x-base-url": "http://127.0.0.1:9/",
    "api-base": "http://127.0.0.1:9/",
    "openai-organization": "org-other",
    "x-ratekeeper-max-wait": "1s",
}


def test_what_belongs_to_the_caller_is_not_sent_on(tmp_path: Path) -> None:
    provider = _Recorder()
    with asgi(provider) as url:
        config = gates.config(tmp_path, {"openai": account(url)})
        with gate(config) as it:
            httpx2.post(
                f"{it.url}/v1/chat/completions?key={gates.SECRET}&n=1",
                headers=HOPS,
                json={"model": "gpt-4o", "api_base": "http://127.0.0.1:9/"},
            )
    (scope,) = provider.seen
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}

    assert f"Bearer {gates.UPSTREAM_KEY}" == headers["authorization"]
    assert b"n=1" == scope["query_string"]
    assert not {*HOPS} - {"x-base-url", "api-base"} & {*headers}
    assert gates.SECRET not in str(scope)
    assert headers["host"].startswith("127.0.0.1")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
def test_a_redirect_leads_neither_the_gateway_nor_its_caller_away(
    tmp_path: Path, status: int
) -> None:
    """An SDK that followed it could take its client key along."""
    trap = socket.create_server(("127.0.0.1", 0))
    trap.settimeout(0.5)
    caught: list[object] = []

    def listen() -> None:
        with pytest.raises(TimeoutError):
            caught.append(trap.accept())

    thread = threading.Thread(target=listen)
    thread.start()
    to = f"http://127.0.0.1:{trap.getsockname()[1]}/latest/meta-data".encode()
    with asgi(_Recorder(status, (b"location", to))) as url:
        config = gates.config(tmp_path, {"openai": account(url)})
        with gate(config) as it, it.client(follow_redirects=True) as client:
            reply = client.get("/v1/models")
    thread.join()
    trap.close()

    assert [] == caught
    assert 502 == reply.status_code
    assert "location" not in reply.headers
    assert "provider_unreachable" == reply.json()["error"]["code"]
    assert to.decode() not in reply.text


@pytest.mark.parametrize("status", [304, 308])
def test_an_answer_that_leads_nowhere_passes_as_it_is(
    tmp_path: Path, status: int
) -> None:
    """What has not changed, and an upload that is to go on, are told with a 3xx."""

    def script(sock: socket.socket, asked: Asked) -> None:
        del asked
        sock.sendall(
            b'HTTP/1.1 %d So\r\netag: "a"\r\ncontent-length: 0\r\n\r\n' % status
        )

    with scripted(script) as provider:
        config = gates.config(tmp_path, {"openai": account(provider.url)})
        with gate(config) as it, it.client() as client:
            reply = client.get("/v1/models")

    assert status == reply.status_code
    assert '"a"' == reply.headers["etag"]


def test_a_redirect_closes_no_account_to_other_callers(tmp_path: Path) -> None:
    """A path that leads away is there for anybody to ask for, as often as they like."""
    with asgi(_Recorder(301, (b"location", b"/v2/models"))) as url:
        config = gates.config(tmp_path, {"openai": account(url)})
        with gate(config) as it, it.client() as client:
            statuses = [
                client.get("/v1/models", headers=AT_ONCE).status_code for _ in range(6)
            ]

    assert [502] * 6 == statuses


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:9/v1/models",
        "//evil.example/v1/models",
        "/v1/%2e%2e/admin",
        "/v1/files/..%2f..%2fadmin",
        "/v1/../admin",
        "/p/openai/%2e%2e/organization",
        "/p/evil.example/v1/models",
        "/v1/models@evil.example",
    ],
)
def test_no_path_leads_elsewhere(tmp_path: Path, target: str) -> None:
    provider = _Recorder()
    with asgi(provider) as url:
        config = gates.config(tmp_path, {"openai": account(url)})
        with gate(config) as it:
            host, _, port = it.url.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port))) as caller:
                caller.sendall(
                    f"GET {target} HTTP/1.1\r\nhost: gateway\r\n"
                    f"authorization: Bearer {gates.SECRET}\r\n"
                    "connection: close\r\n\r\n".encode()
                )
                answer = caller.recv(1 << 16)

    assert re.match(rb"HTTP/1.1 (400|404) ", answer)
    assert [] == provider.seen


def test_an_accounts_key_does_not_come_back_in_an_error(tmp_path: Path) -> None:
    async def provider(scope: Any, receive: Any, send: Any) -> None:
        told = dict(scope["headers"])[b"authorization"]
        body = b'{"error": {"message": "no model for ' + told + b'"}}'
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with asgi(provider) as url:
        config = gates.config(tmp_path, {"openai": account(url)})
        with gate(config) as it, it.client() as client:
            reply = it.chat(client)

    assert "no model for Bearer [key]" == reply.json()["error"]["message"]
