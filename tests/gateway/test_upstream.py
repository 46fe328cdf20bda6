"""Accounts: how long each is closed, and why."""

import json
from pathlib import Path
from typing import Any

import pytest

from ratekeeper.core.units import DAY, SECOND
from ratekeeper.gateway.admit import Way
from ratekeeper.gateway.upstream import Account
from ratekeeper.providers.catalog import PROVIDERS
from ratekeeper.providers.facts import Kind, Verdict
from tests.gateway import gates


@pytest.fixture
def account(tmp_path: Path) -> Account:
    """Return the only account of a gateway."""
    providers = {"openai": gates.account("http://127.0.0.1:9/v1")}
    with gates.gate(gates.config(tmp_path, providers)) as it:
        (one,) = it.gateway.roster.upstreams["openai"].accounts
    return one


def test_an_account_that_fails_is_not_told_by_what_closed_it_before(
    account: Account,
) -> None:
    account.judged(
        Verdict(kind=Kind.BILLING, retry=False, retry_after_us=2 * SECOND), now=0
    )
    before = account.why(SECOND)
    for _ in range(5):
        account.judged(Verdict(kind=Kind.TRANSIENT, retry=True), now=3 * SECOND)

    assert "billing" == before
    assert account.wait_us(4 * SECOND)
    assert "it fails: its answers are errors" == account.why(4 * SECOND)


def test_what_a_provider_says_closes_an_account_for_a_month_at_most(
    account: Account,
) -> None:
    account.judged(
        Verdict(kind=Kind.BILLING, retry=False, retry_after_us=400 * DAY), now=0
    )

    assert 31 * DAY == account.wait_us(0)


def test_an_answer_to_a_call_from_before_it_closed_proves_nothing(
    account: Account,
) -> None:
    proved = [account.is_proved]
    account.judged(
        Verdict(kind=Kind.OVERLOADED, retry=True, retry_after_us=2 * SECOND), now=0
    )
    for now in (SECOND, 3 * SECOND):
        account.succeeded(now)
        proved.append(account.is_proved)

    assert [True, False, True] == proved


def test_what_answers_show_of_limits_is_read_once_in_a_moment() -> None:
    way, openai = Way((), ()), PROVIDERS["openai"]
    shown = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "9"}
    told = [
        len(way.readings(openai, fields, now))
        for now, fields in (
            (SECOND, {}),  # it shows nothing: the next one is read
            (SECOND + 1, shown),
            (SECOND + 9_999, shown),
            (SECOND + 10_001, shown),
            (SECOND - 1, shown),  # the clock was set back
        )
    ]

    assert [0, 1, 0, 1, 1] == told


_QUOTA = "GenerateRequestsPerDayPerProject{}"


def _exhausted(quota: str) -> bytes:
    violation = {"quotaId": quota, "quotaDimensions": {"model": "gemini-3-pro"}}
    kind = "type.googleapis.com/google.rpc.QuotaFailure"
    detail = {"@type": kind, "violations": [violation]}
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [detail]}
    return json.dumps({"error": error}).encode()


def _statuses(folder: Path, quota: str, **terms: Any) -> list[int]:
    """Use up a quota of one model; return what that and another one answer then."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.append(scope["path"])
        is_out = "gemini-3-pro" in scope["path"]
        body = _exhausted(quota) if is_out else b"{}"
        headers = [(b"content-length", b"%d" % len(body))]
        start = {"status": 429 if is_out else 200, "headers": headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": body})

    with gates.asgi(app) as url:
        base_url = url.replace("/v1", "/v1beta/openai")
        account = {**gates.account(base_url, "1000 rpm", "10k rpd")}
        config = gates.config(folder, {"gemini": {"accounts": [account], **terms}})
        with gates.gate(config) as it, it.client() as client:
            statuses = [
                client.post(
                    f"/gemini/v1beta/models/{model}:generateContent",
                    json={"contents": []},
                    headers={"x-ratekeeper-max-wait": "0s"},
                ).status_code
                for model in ("gemini-3-pro", "gemini-3-pro", "gemini-2.5-flash")
            ]

    assert 1 == sum("pro" in path for path in seen)
    return statuses


def test_a_quota_of_one_model_closes_no_other(tmp_path: Path) -> None:
    assert [429, 429, 200] == _statuses(tmp_path, _QUOTA.format("PerModel"))


def test_nor_does_it_pause_limits_that_models_share(tmp_path: Path) -> None:
    terms = {"models": {"gemini*": ["500 rpm"]}}

    assert [429, 429, 200] == _statuses(tmp_path, _QUOTA.format("PerModel"), **terms)


def test_a_quota_of_the_account_closes_all_of_it(tmp_path: Path) -> None:
    assert [429, 429, 429] == _statuses(tmp_path, _QUOTA.format(""))
