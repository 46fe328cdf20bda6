"""Accounts: how long each is closed, and why."""

from pathlib import Path

from ratekeeper.core.units import SECOND
from ratekeeper.gateway.admit import Way
from ratekeeper.providers.catalog import PROVIDERS
from ratekeeper.providers.facts import Kind, Verdict
from tests.gateway import gates


def test_an_account_that_fails_is_not_told_by_what_closed_it_before(
    tmp_path: Path,
) -> None:
    providers = {"openai": gates.account("http://127.0.0.1:9/v1")}
    with gates.gate(gates.config(tmp_path, providers)) as it:
        (account,) = it.gateway.roster.upstreams["openai"].accounts
    account.judged(
        Verdict(kind=Kind.BILLING, retry=False, retry_after_us=2 * SECOND), now=0
    )
    before = account.why(SECOND)
    for _ in range(5):
        account.judged(Verdict(kind=Kind.TRANSIENT, retry=True), now=3 * SECOND)

    assert "billing" == before
    assert account.wait_us(4 * SECOND)
    assert "it fails: its answers are errors" == account.why(4 * SECOND)


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
