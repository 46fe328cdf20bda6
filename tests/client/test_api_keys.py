"""Which key is sent, what cannot be one, and that none is ever printed."""

from __future__ import annotations

import json
import logging
import pickle
from typing import Any

import pytest

from ratekeeper import AuthenticationError, ConfigError, ProviderError
from ratekeeper.client import keys
from ratekeeper.client.check import KeyStatus
from ratekeeper.providers.catalog import find_provider
from tests.client import clients
from tests.client.clients import KEY, OK, Told, error, virtual


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _refused(kind: str, **options: Any) -> AuthenticationError:
    told = Told(error(401, "invalid_api_key", f"Incorrect API key provided: {KEY}."))
    with virtual(kind, told, **options) as ai, pytest.raises(AuthenticationError) as e:
        ai.chat()
    return e.value


def test_a_key_is_read_from_the_providers_variable(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    told = Told(OK)
    with virtual(kind, told, api_key=None) as ai:
        ai.chat()

    assert f"Bearer {KEY}" == told.requests[0].headers["authorization"]


def test_a_key_is_read_from_the_variable_that_is_named(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_KEY", KEY)
    told = Told(OK)
    with virtual(kind, told, api_key="env:SECOND_KEY") as ai:
        ai.chat()

    assert f"Bearer {KEY}" == told.requests[0].headers["authorization"]


def test_a_missing_key_names_the_variable_and_nothing_is_sent(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOLYSHEEP_API_KEY", raising=False)
    told = Told(OK)
    with pytest.raises(ConfigError) as caught:
        virtual(kind, told, "holysheep", api_key=None)

    assert (
        "no API key for holysheep: HOLYSHEEP_API_KEY is not set; type: export "
        "HOLYSHEEP_API_KEY=sk-… (or pass api_key=); keys begin with sk- or hs-; get "
        "one at https://www.holysheep.ai"
    ) == str(caught.value)
    assert [] == told.requests


def test_a_server_known_by_its_address_alone_needs_no_key(kind: str) -> None:
    told = Told(OK)
    with virtual(kind, told, "http://127.0.0.1:9/v1", api_key=None) as ai:
        ai.chat()

    assert "authorization" not in told.requests[0].headers


def test_anthropic_takes_the_key_in_its_own_header(kind: str) -> None:
    told = Told((200, {}, {"type": "message", "content": []}))
    key = f"sk-ant-api03-{KEY}"
    with virtual(kind, told, "anthropic", api_key=key) as ai:
        ai.do(lambda client: client.request("POST", "/v1/messages", json={}))

    headers = told.requests[0].headers
    assert (key, "2023-06-01") == (headers["x-api-key"], headers["anthropic-version"])
    assert "authorization" not in headers


PLACEHOLDERS = [
    "your-api-key",
    "YOUR_HOLYSHEEP_API_KEY",
    "sk-your-openai-key-goes-in-this-place-0123456",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "sk-................................................",
    "<paste the key>",
    "<OPENAI_API_KEY_GOES_INTO_THESE_BRACKETS_HERE>",
    "{{OPENAI_API_KEY_FROM_THE_TEMPLATE_0123456789}}",
    "changeme-changeme-changeme-changeme-changeme",
    "replace-me-0123456789-0123456789-0123456789",
    "sk-0000000000000000000000000000000000000000000",
    "sk-short",
    f'"{KEY}"',
    f"{KEY[:20]} {KEY[20:]}",
    f"{KEY}é",
    f"rk-{KEY[3:]}",
    "   ",
    "",
]


@pytest.mark.parametrize("key", PLACEHOLDERS)
def test_what_cannot_be_a_key_is_refused_without_network(kind: str, key: str) -> None:
    told = Told(OK)
    with pytest.raises(ConfigError) as caught:
        virtual(kind, told, api_key=key)

    assert "api_key=" in str(caught.value)
    assert [] == told.requests
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize("key", PLACEHOLDERS)
def test_what_cannot_be_a_key_is_told_so_by_a_check(kind: str, key: str) -> None:
    told = Told(OK)
    with virtual(kind, told) as ai:
        found = ai.do(lambda client: client.validate_key(key))

    status = KeyStatus.MALFORMED if key.strip() else KeyStatus.MISSING
    assert (status, False, None) == (found.status, found.ok, found.round_trip_s)
    assert [] == told.requests


def test_a_key_that_begins_unlike_others_is_warned_of_and_sent(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(OK)
    key = "zz-" + KEY[3:]
    with virtual(kind, told, "holysheep", api_key=key) as ai:
        ai.chat()

    assert f"Bearer {key}" == told.requests[0].headers["authorization"]
    assert [
        "api_key= does not begin like a key of holysheep (sk- or hs-): it is sent all "
        "the same"
    ] == [record.getMessage() for record in caplog.records]


def test_a_gateway_is_sent_the_client_key_it_has_made(kind: str) -> None:
    told, key = Told(OK), f"rk-{KEY[3:]}"
    with virtual(kind, told, base_url="http://gateway:8080/v1", api_key=key) as ai:
        ai.chat()

    assert f"Bearer {key}" == told.requests[0].headers["authorization"]


@pytest.mark.parametrize("prefix", ["sk-", "hs-"])
def test_a_key_of_a_known_form_is_sent_without_a_word(
    prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = keys.find_key(find_provider("holysheep"), prefix + KEY[3:], {})

    assert key is not None
    assert [] == caplog.records


def test_a_refused_key_from_the_environment_says_which_variable_and_what_to_type(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    failed = _refused(kind, api_key=None)

    assert (
        "api.openai.com answered 401 (invalid_api_key): it refuses the key of the "
        "environment variable OPENAI_API_KEY (…abcd); type: export OPENAI_API_KEY=sk-… "
        "(or pass api_key=); keys begin with sk-; get one at "
        "https://platform.openai.com/api-keys"
    ) == str(failed)


def test_a_refused_key_that_was_passed_says_so(kind: str) -> None:
    failed = _refused(kind)

    assert (
        "api.openai.com answered 401 (invalid_api_key): it refuses the key of api_key= "
        "(…abcd); pass another api_key= or leave it out and type: export "
        "OPENAI_API_KEY=sk-…; keys begin with sk-; get one at "
        "https://platform.openai.com/api-keys"
    ) == str(failed)


def test_a_key_is_in_no_text_of_an_error_or_client(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = f"key {KEY}, also sk-proj-12345678secret90 and Bearer hs-abcdef123456789"
    told = Told(error(400, message=said))
    with virtual(kind, told) as ai:
        with pytest.raises(ProviderError) as caught:
            ai.chat()
        shown = [repr(ai.client), str(ai.client.__dict__)]

    failed = pickle.loads(pickle.dumps(caught.value))
    shown += [str(failed), failed.body, repr(failed.__dict__), *caplog.messages]
    for secret in (KEY, "12345678secret90", "hs-abcdef123456789"):
        assert not any(secret in text for text in shown), shown
    assert "…abcd" in repr(ai.client)


def test_the_text_of_an_error_is_bounded(kind: str) -> None:
    told = Told(error(400, message="lorem ipsum " * 10_000))
    with virtual(kind, told) as ai, pytest.raises(ProviderError) as caught:
        ai.chat()

    assert 2000 == len(caught.value.body)
    assert "lorem" not in str(caught.value)


CHECKS = {
    "alive": ((200, {}, {"data": []}), KeyStatus.OK, True),
    "throttled": (error(429), KeyStatus.THROTTLED, True),
    "no credit": (error(429, "insufficient_quota"), KeyStatus.NO_CREDIT, True),
    "refused": (error(401), KeyStatus.REFUSED, False),
    "no permission": (error(403), KeyStatus.NO_PERMISSION, False),
    "a scope is missing": (
        error(401, message="Missing scopes: api.model.read."),
        KeyStatus.NO_PERMISSION,
        False,
    ),
    "trouble": (error(500), KeyStatus.CANNOT_TELL, False),
    "overloaded": (error(529), KeyStatus.CANNOT_TELL, False),
    "no such page": (error(404), KeyStatus.CANNOT_TELL, False),
    "a page for people": ((200, {}, None), KeyStatus.OK, True),
}


@pytest.mark.parametrize(("answer", "status", "ok"), CHECKS.values(), ids=CHECKS)
def test_a_check_tells_what_an_answer_says_of_the_key(
    kind: str, answer: Any, status: KeyStatus, ok: bool
) -> None:
    told = Told(answer)
    with virtual(kind, told) as ai:
        found = ai.do(lambda client: client.validate_key())

    assert (status, ok, "…abcd") == (found.status, found.ok, found.key)
    assert ["GET"] == [request.method for request in told.requests]
    assert "https://api.openai.com/v1/models" == str(told.requests[0].url)


FLAWS = {
    "sk-" + "x" * 40: "placeholder",
    KEY[:20]: "too short",
    f"'{KEY}'": "quoted",
    f"{KEY}\u00e9": "characters",
    KEY * 100: "too long",
    f"rk-{KEY[3:]}": "a client key",
}


@pytest.mark.parametrize(("key", "reason"), FLAWS.items(), ids=FLAWS.values())
def test_a_check_names_the_flaw_of_what_cannot_be_a_key(
    kind: str, key: str, reason: str
) -> None:
    with virtual(kind, Told(OK)) as ai:
        found = ai.do(lambda client: client.validate_key(key))

    assert reason == found.reason


def test_a_check_tells_what_was_asked_and_what_the_answer_shows(kind: str) -> None:
    shows = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "retry-after": "7",
    }
    status, _, body = error(429, "rate_limit_exceeded")
    with virtual(kind, Told((status, shows, body))) as ai:
        found = ai.do(lambda client: client.validate_key())

    asked = (found.host, found.proxy, found.http_status, found.code)
    assert ("api.openai.com", "", 429, "rate_limit_exceeded") == asked
    assert 7.0 == found.retry_after_s
    assert ["500 requests/minute"] == [one.limit for one in found.limits]
    assert [(499, 0.12)] == [(x.remaining, x.full_after_s) for x in found.limits]


PROBES = {
    "openai": ("/v1/chat/completions", OK),
    "anthropic": ("/v1/messages", (200, {}, {"type": "message", "content": []})),
}


@pytest.mark.parametrize("provider", PROBES)
def test_a_check_with_a_model_is_one_call_of_one_token(
    kind: str, provider: str
) -> None:
    path, answer = PROBES[provider]
    told = Told(answer)
    with virtual(kind, told, provider) as ai:
        found = ai.do(lambda client: client.validate_key(model="m"))

    (request,) = told.requests
    sent = json.loads(request.content)
    assert (KeyStatus.OK, "POST", path) == (
        found.status,
        request.method,
        request.url.path,
    )
    assert ("m", 1) == (sent["model"], sent["max_tokens"])


def test_a_check_of_another_key_sends_that_one(kind: str) -> None:
    told = Told((200, {}, {}))
    other = "sk-" + "9f" * 20 + "wxyz"
    with virtual(kind, told) as ai:
        found = ai.do(lambda client: client.validate_key(other))

    assert f"Bearer {other}" == told.requests[0].headers["authorization"]
    assert "…wxyz" == found.key
    assert other not in json.dumps(repr(found))


def test_a_check_of_a_provider_that_is_not_there_is_unreachable(kind: str) -> None:
    url = f"http://127.0.0.1:{clients.closed_port()}/v1"
    with clients.opener(kind)(url) as ai:
        found = ai.do(lambda client: client.validate_key())

    assert (KeyStatus.UNREACHABLE, False) == (found.status, found.ok)
    assert "refused the connection" in found.detail
    assert ("refused", None) == (found.reason, found.http_status)
    assert found.round_trip_s is not None


def test_of_a_short_key_nothing_is_shown() -> None:
    assert "…" == keys.ending("sk-12345678")
    assert "…9012" == keys.ending("sk-123456789012")


def test_the_sdks_own_variable_says_where_calls_go(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://proxy.test/v1/")
    told = Told(OK)
    with virtual(kind, told, base_url=None) as ai:
        ai.chat()

    assert "http://proxy.test/v1/chat/completions" == str(told.requests[0].url)


def test_a_base_url_of_ones_own_takes_keys_of_any_length(kind: str) -> None:
    told = Told(OK)
    with virtual(kind, told, api_key="sk-mine", base_url="http://proxy.test/v1") as ai:
        ai.chat()

    assert "Bearer sk-mine" == told.requests[0].headers["authorization"]
