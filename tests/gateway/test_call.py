"""A call through the gateway: over real sockets, to a provider that really enforces."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ratekeeper.gateway.observer import Observer
from ratekeeper.testing import ManualClock
from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, asgi, behind, client_key, gate


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind() as it:
        yield it


def _one(
    folder: Path,
    upstream: Behind,
    *,
    keys: list[dict[str, Any]] | None = None,
    **said: Any,
) -> AbstractContextManager[Gate]:
    providers = {"openai": account(upstream.url)}
    return gate(gates.config(folder, providers, keys, **said))


def _two(folder: Path, one: Behind, two: Behind) -> AbstractContextManager[Gate]:
    accounts = [account(one.url, name="one"), account(two.url, name="two")]
    return gate(gates.config(folder, {"openai": {"accounts": accounts}}))


def test_an_answer_passes_with_what_the_gateway_says_of_it(
    tmp_path: Path, upstream: Behind
) -> None:
    with _one(tmp_path, upstream) as it, it.client() as client:
        reply = it.chat(client)

    assert 200 == reply.status_code
    assert "chat.completion" == reply.json()["object"]
    assert reply.headers["x-ratekeeper-request-id"].startswith("rk_")
    assert "0" == reply.headers["x-ratekeeper-waited-ms"]
    assert reply.headers["x-ratekeeper-cost"].endswith(" usd")


def test_a_stream_is_the_bytes_the_provider_sent(
    tmp_path: Path, upstream: Behind
) -> None:
    with _one(tmp_path, upstream) as it, it.client() as client:
        through = it.chat(client, stream=True).text

    assert through.endswith("data: [DONE]\n\n")
    assert '"usage"' not in through


def test_a_provider_never_sees_a_callers_key(tmp_path: Path, upstream: Behind) -> None:
    with _one(tmp_path, upstream) as it, it.client() as client:
        statuses = [
            it.chat(client).status_code,
            client.get("/v1/models").status_code,
            client.get(
                f"/v1/models?key={gates.SECRET}", headers={"authorization": ""}
            ).status_code,
        ]

    assert [200, 200, 200] == statuses  # it accepts one key: the account's


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer rk-wrong"}, {"x-api-key": "nobody"}]
)
def test_an_unknown_key_is_refused_before_its_body(
    tmp_path: Path, upstream: Behind, headers: dict[str, str]
) -> None:
    with _one(tmp_path, upstream) as it:
        reply = httpx2.post(f"{it.url}/v1/chat/completions", headers=headers, json={})

    assert 401 == reply.status_code
    assert 0 == upstream.requests


def test_a_refusal_bears_the_id_that_is_in_the_log(
    tmp_path: Path, upstream: Behind
) -> None:
    with _one(tmp_path, upstream) as it:
        reply = httpx2.get(f"{it.url}/v1/models")

    assert reply.headers["x-request-id"] == reply.headers["x-ratekeeper-request-id"]


def test_nobody_calls_without_a_key_unless_told(
    tmp_path: Path, upstream: Behind
) -> None:
    with _one(tmp_path, upstream, keys=[], auth="none") as it:
        reply = httpx2.get(f"{it.url}/v1/models")

    assert 200 == reply.status_code


def test_no_name_of_a_stranger_that_leads_here_calls_without_a_key(
    tmp_path: Path, upstream: Behind
) -> None:
    """A page whose own name leads here is of the same site, for its browser."""
    page = {"host": "evil.example:8080", "origin": "http://evil.example:8080"}
    with _one(tmp_path, upstream, keys=[], auth="none") as it:
        url = f"{it.url}/v1/chat/completions"
        stranger = httpx2.post(url, headers=page, content=b'{"model": "gpt-4o"}')
        reader = httpx2.get(f"{it.url}/v1/files", headers={"host": page["host"]})
    listen = "0.0.0.0:0"
    with _one(tmp_path, upstream, keys=[], auth="none", listen=listen) as it:
        named = httpx2.get(f"{it.url}/v1/models", headers={"host": "gateway"})
    with _one(tmp_path, upstream) as it, it.client() as client:
        known = client.get("/v1/models", headers=page)

    assert [403, 403] == [stranger.status_code, reader.status_code]
    assert "localhost" in stranger.text
    assert [200, 200] == [named.status_code, known.status_code]


def test_no_page_of_another_site_calls_without_a_key(
    tmp_path: Path, upstream: Behind
) -> None:
    """Its text/plain post asks nobody's leave, and would spend the account."""
    page = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    with _one(tmp_path, upstream, keys=[], auth="none") as it:
        url = f"{it.url}/v1/chat/completions"
        stranger = httpx2.post(url, headers=page, content=b'{"model": "gpt-4o"}')
    with _one(tmp_path, upstream) as it, it.client() as client:
        known = client.get("/v1/models", headers=page)

    assert 403 == stranger.status_code
    assert "another site" in stranger.text
    assert 200 == known.status_code
    assert 1 == upstream.requests


def test_a_model_that_a_key_may_not_use_is_refused(
    tmp_path: Path, upstream: Behind
) -> None:
    keys = [client_key(allow_models=["gpt-4o*"])]
    with _one(tmp_path, upstream, keys=keys) as it, it.client() as client:
        statuses = [
            it.chat(client, model=name).status_code for name in ("gpt-4o-mini", "o3")
        ]

    assert [200, 403] == statuses


def test_a_path_outside_the_table_reaches_nobody(
    tmp_path: Path, upstream: Behind
) -> None:
    with _one(tmp_path, upstream) as it, it.client() as client:
        reply = client.get("/v1/organization/admin_api_keys")

    assert 404 == reply.status_code
    assert 0 == upstream.requests


def test_a_body_above_the_bound_is_refused(tmp_path: Path, upstream: Behind) -> None:
    with _one(tmp_path, upstream, max_body="10KiB") as it, it.client() as client:
        reply = it.chat(client, user="x" * 20_000)

    assert 413 == reply.status_code
    assert 0 == upstream.requests


def test_a_call_over_its_limit_is_told_when_to_come_back(
    tmp_path: Path, upstream: Behind
) -> None:
    clock = ManualClock()
    keys = [client_key(limits=["2 requests/2s"], max_wait="0s")]
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
    with gate(config, clock=clock) as it, it.client() as client:
        statuses = [it.chat(client).status_code for _ in range(2)]
        refused = it.chat(client)
        wait_ms = int(refused.headers["retry-after-ms"])
        clock.advance(wait_ms / 1000)
        again = it.chat(client)

    assert [200, 200, 429, 200] == [*statuses, refused.status_code, again.status_code]
    assert "rate_limit_exceeded" == refused.json()["error"]["code"]
    assert 2000 <= wait_ms < 2500


def test_a_call_waits_in_line_where_it_may(tmp_path: Path, upstream: Behind) -> None:
    keys = [client_key(limits=["1 request/s"], max_wait="5s")]
    with _one(tmp_path, upstream, keys=keys) as it, it.client() as client:
        it.chat(client)
        reply = it.chat(client)

    assert 200 == reply.status_code
    assert 500 < int(reply.headers["x-ratekeeper-waited-ms"]) <= 1100


def test_a_caller_may_ask_for_less_patience(tmp_path: Path, upstream: Behind) -> None:
    keys = [client_key(limits=["1 request/minute"], max_wait="5s")]
    with _one(tmp_path, upstream, keys=keys) as it, it.client() as client:
        it.chat(client)
        headers = {"x-ratekeeper-max-wait": "10ms"}
        body = {"model": "gpt-4o", "messages": gates.MESSAGES}
        begun = time.monotonic()
        reply = client.post("/v1/chat/completions", json=body, headers=headers)

    assert 429 == reply.status_code
    assert time.monotonic() - begun < 1


def test_a_budget_is_never_passed(tmp_path: Path, upstream: Behind) -> None:
    # A call holds 20 tokens of output at $10 a million, and some input: $0.00025.
    keys = [client_key(limits=["$0.001/day"], max_wait="0s")]
    with _one(tmp_path, upstream, keys=keys) as it, it.client() as client:
        statuses = [it.chat(client).status_code for _ in range(30)]

    spent = statuses.count(200)
    assert 429 in statuses
    assert 3 <= spent <= 8


def test_what_was_spent_survives_a_restart(tmp_path: Path, upstream: Behind) -> None:
    keys = [client_key(limits=["3 requests/day"], max_wait="0s")]
    statuses = []
    for _ in range(2):
        with _one(tmp_path, upstream, keys=keys) as it, it.client() as client:
            statuses += [it.chat(client).status_code for _ in range(2)]

    assert [200, 200, 200, 429] == statuses


def test_a_team_shares_its_limits(tmp_path: Path, upstream: Behind) -> None:
    other = "rk-" + "o" * 43
    keys = [client_key(team="t"), client_key("other", other, team="t")]
    teams = {"t": {"limits": ["2 requests/minute"], "max_wait": "0s"}}
    with (
        _one(tmp_path, upstream, keys=keys, teams=teams) as it,
        it.client() as one,
        it.client(other) as two,
    ):
        answers = [it.chat(c) for c in (one, two, one)]

    assert [200, 200, 429] == [answer.status_code for answer in answers]
    assert "the limit '2 requests/minute' of team 't' is used up" in answers[2].text


def test_a_shadow_limit_refuses_nobody(tmp_path: Path, upstream: Behind) -> None:
    watched = [{"limit": "1 request/minute", "shadow": True}]
    keys = [client_key(limits=watched, max_wait="0s")]
    with _one(tmp_path, upstream, keys=keys) as it, it.client() as client:
        statuses = [it.chat(client).status_code for _ in range(3)]

    assert [200, 200, 200] == statuses


def test_a_budget_that_is_only_watched_needs_no_price(
    tmp_path: Path, upstream: Behind
) -> None:
    told: list[str] = []

    class Ear(Observer):
        def shadowed(self, key: str, limit: str) -> None:
            told.append(f"{key}: {limit}")

    teams = {"t": {"limits": ["$1/day"], "shadow": True}}
    providers = {"openai": account(upstream.url)}
    config = gates.config(tmp_path, providers, [client_key(team="t")], teams=teams)
    with gate(config, observer=lambda _: Ear()) as it, it.client() as client:
        statuses = [
            it.chat(client, model=model).status_code
            for model in ("my-own-model", "gpt-4o")
        ]
        (used,) = (
            meter.used(it.gateway.now_us())
            for scope, key in it.gateway.store._keys.kept
            for meter in scope.rows[key]
            if meter.limit.is_money
        )

    assert [200, 200] == statuses
    assert ["app: $1/day, without a price"] == told
    assert used > 0  # what has a price is counted


def _failing(status: int) -> AbstractContextManager[Behind]:
    return behind("openai", f"status={status} @ 1")


@pytest.mark.parametrize("status", [401, 402, 429, 500, 503, 529])
def test_another_account_answers_where_one_cannot(
    tmp_path: Path, upstream: Behind, status: int
) -> None:
    with (
        _failing(status) as failing,
        _two(tmp_path, failing, upstream) as it,
        it.client() as client,
    ):
        reply = it.chat(client)

    assert 200 == reply.status_code
    assert 1 == upstream.requests
    assert 1 <= failing.requests <= 3


@pytest.mark.parametrize("status", [401, 402, 503])
def test_an_account_that_is_closed_is_set_aside(
    tmp_path: Path, upstream: Behind, status: int
) -> None:
    with (
        _failing(status) as failing,
        _two(tmp_path, failing, upstream) as it,
        it.client() as client,
    ):
        statuses = [it.chat(client).status_code for _ in range(5)]

    assert [200] * 5 == statuses
    assert 1 == failing.requests


@pytest.mark.parametrize(
    ("status", "seen"), [(401, 502), (402, 503), (500, 500), (400, 400), (404, 404)]
)
def test_an_error_of_the_only_account_is_told_as_what_it_is(
    tmp_path: Path, status: int, seen: int
) -> None:
    with (
        _failing(status) as failing,
        _one(tmp_path, failing) as it,
        it.client() as client,
    ):
        reply = it.chat(client)

    assert seen == reply.status_code
    assert "error" in reply.json()


def test_a_provider_that_does_not_answer_is_a_502(tmp_path: Path) -> None:
    providers = {"openai": account("http://127.0.0.1:9/v1")}
    with gate(gates.config(tmp_path, providers)) as it, it.client() as client:
        reply = it.chat(client)
        (one,) = it.gateway.roster.upstreams["openai"].accounts

    assert 502 == reply.status_code
    assert "openai did not answer: nothing listens there" in reply.text
    assert "127.0.0.1" not in reply.text
    assert "127.0.0.1:9: nothing answers there: check base_url" in one.why(0)


@pytest.mark.parametrize(
    ("limit", "body", "says"),
    [
        (
            "$1/day",
            {"model": "new"},
            "the gateway's operator adds prices: "
            '{"new": {"input": "2.50", "output": "10"}} to its config',
        ),
        (
            "$1/day",
            {"model": "half", "max_tokens": None},
            "set max_tokens, or the gateway's operator adds prices: "
            '{"half": {"max_output": 4096}} to its config',
        ),
        (
            "5 eur/day",
            {},
            """the gateway's operator adds rates: {"eur": "0.92"} to its config""",
        ),
    ],
)
def test_what_no_price_is_known_of_is_told_in_the_config_s_words(
    tmp_path: Path, upstream: Behind, limit: str, body: dict[str, Any], says: str
) -> None:
    keys = [client_key(limits=[limit])]
    prices = {**gates.PRICES, "half": {"input": "1", "output": "2"}}
    with (
        _one(tmp_path, upstream, keys=keys, prices=prices) as it,
        it.client() as client,
    ):
        reply = it.chat(client, **body)

    assert 403 == reply.status_code
    assert says in reply.json()["error"]["message"]
    assert "prices=" not in reply.text
    assert 0 == upstream.requests


def test_a_fallback_takes_over_with_its_own_model(
    tmp_path: Path, upstream: Behind
) -> None:
    providers = {
        "openai": account("http://127.0.0.1:9/v1"),
        "holysheep": account(upstream.url),
    }
    fallbacks = {"gpt-4o": ["openai/gpt-4o", "holysheep/gpt-4o-mini"]}
    config = gates.config(tmp_path, providers, fallbacks=fallbacks)
    with gate(config) as it, it.client() as client:
        reply = it.chat(client)

    assert 200 == reply.status_code
    assert "gpt-4o-mini" == reply.json()["model"]


def test_a_caller_that_hangs_up_leaves_the_line(
    tmp_path: Path, upstream: Behind
) -> None:
    keys = [client_key(limits=["1 request/minute"], max_wait="90s")]
    with _one(tmp_path, upstream, keys=keys) as it, it.client() as client:
        it.chat(client)
        with pytest.raises(httpx2.ReadTimeout):
            client.post(
                "/v1/chat/completions",
                json={"model": "gpt-4o", "messages": gates.MESSAGES},
                timeout=0.2,
            )
        deadline = time.monotonic() + 2
        while it.gateway.open_calls and time.monotonic() < deadline:
            time.sleep(0.01)

        assert 0 == it.gateway.open_calls
        assert 0 == it.gateway.held.bytes


def test_many_callers_at_once_get_what_the_limit_allows(
    tmp_path: Path, upstream: Behind
) -> None:
    keys = [client_key(limits=["60 rpm"], max_wait="0s")]
    statuses: list[int] = []
    with _one(tmp_path, upstream, keys=keys) as it:

        def call() -> None:
            with it.client() as client:
                statuses.append(it.chat(client).status_code)

        threads = [threading.Thread(target=call) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 60 == statuses.count(200)
    assert 40 == statuses.count(429)
    assert 60 == upstream.requests


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data"])
def test_no_content_type_leads_past_the_limits(
    tmp_path: Path, upstream: Behind, kind: str
) -> None:
    """A body that passed as it came would be counted as nothing."""
    keys = [client_key(limits=["150 tokens/day"], max_wait="0s")]
    body = json.dumps(
        {"model": "gpt-4o", "max_tokens": 90, "messages": gates.MESSAGES}
    ).encode()
    with _one(tmp_path, upstream, keys=keys) as it, it.client() as client:
        statuses = [
            client.post(
                "/v1/chat/completions", content=body, headers={"content-type": kind}
            ).status_code
            for _ in range(3)
        ]

    assert [200, 429, 429] == statuses


def test_a_file_passes_as_it_comes(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def provider(scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        seen.extend(
            value for name, value in scope["headers"] if name == b"content-type"
        )
        body = json.dumps({"id": "file-1", "bytes": size}).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with asgi(provider) as url:
        config = gates.config(tmp_path, {"openai": account(url)}, max_body="8MiB")
        with gate(config) as it, it.client() as client:
            files = {"file": ("a.jsonl", b"x" * 5_000_000)}
            reply = client.post("/v1/files", files=files, data={"purpose": "batch"})
            held = it.gateway.held.bytes

    assert 200 == reply.status_code
    assert reply.json()["bytes"] > 5_000_000
    assert seen[0].startswith(b"multipart/form-data; boundary=")
    assert 0 == held


def test_bodies_do_not_weigh_once_they_are_answered(
    tmp_path: Path, upstream: Behind
) -> None:
    with _one(tmp_path, upstream) as it, it.client() as client:
        body = {
            "model": "gpt-4o",
            "stream": True,
            "max_tokens": 50,
            "messages": gates.MESSAGES,
            "user": "u" * 100_000,
        }
        headers = {"x-simulate": "pace=0.05"}
        url = "/v1/chat/completions"
        with client.stream("POST", url, json=body, headers=headers) as reply:
            next(reply.iter_bytes())
            held = it.gateway.held.bytes

    assert 0 == held


def test_the_head_of_an_answer_says_how_long_it_would_be(tmp_path: Path) -> None:
    async def provider(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"1234"), (b"x-seen", scope["method"].encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    with asgi(provider) as url:
        config = gates.config(tmp_path, {"openai": account(url)})
        with gate(config) as it, it.client() as client:
            reply = client.head("/v1/models")

    assert (200, "1234", "HEAD") == (
        reply.status_code,
        reply.headers["content-length"],
        reply.headers["x-seen"],
    )


def test_a_packed_body_leads_past_no_limit(tmp_path: Path, upstream: Behind) -> None:
    packed = gzip.compress(b'{"model": "gpt-4o", "messages": []}')
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    with _one(tmp_path, upstream) as it, it.client() as client:
        reply = client.post("/v1/chat/completions", content=packed, headers=headers)

    assert 400 == reply.status_code
    assert 0 == upstream.requests
