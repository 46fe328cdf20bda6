"""Whatever arrives is ignored by rule or read: never a crash, a hang, a wrong grant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ratekeeper.providers import headers
from ratekeeper.providers.catalog import PROVIDERS, find_provider
from ratekeeper.providers.facts import Kind, RequestFacts
from ratekeeper.providers.sse import ServerEvent, SseParser
from tests.providers import malformed
from tests.providers.malformed import NOW_US

if TYPE_CHECKING:
    from ratekeeper.providers.catalog import Provider

PATHS = {
    "openai": ("/v1/chat/completions", "/v1/responses", "/v1/embeddings"),
    "anthropic": ("/v1/messages",),
    "deepseek": ("/chat/completions",),
    "holysheep": ("/v1/chat/completions",),
}


@pytest.fixture(params=sorted(PROVIDERS))
def provider(request: pytest.FixtureRequest) -> Provider:
    return find_provider(request.param)


def name_of(value: str | bytes | list[object]) -> str:
    return f"{repr(value[:40])[:60]}-{len(value)}"


def test_the_corpus_has_at_least_three_hundred_rows() -> None:
    tables = (
        malformed.NO_WAIT,
        malformed.ABSURD,
        malformed.NO_RESET,
        malformed.NO_COUNT,
        malformed.STREAMS,
        malformed.BODIES,
        malformed.NO_USAGE,
        malformed.ODD_USAGE,
        malformed.ERRORS,
    )

    assert sum(map(len, tables)) >= 300


@pytest.mark.parametrize("value", malformed.NO_WAIT, ids=name_of)
def test_a_retry_after_that_says_nothing_is_ignored(value: str) -> None:
    fields = {"retry-after": value, "retry-after-ms": value}

    assert headers.read_hint(fields, "", NOW_US) is None


@pytest.mark.parametrize("value", malformed.ABSURD)
def test_a_retry_after_of_more_than_a_month_is_ignored(value: str) -> None:
    assert headers.read_hint({"retry-after": value}, "", NOW_US) is None


@pytest.mark.parametrize("value", malformed.NO_WAIT, ids=name_of)
def test_a_date_that_says_nothing_leaves_our_own_clock(value: str) -> None:
    later = "Wed, 18 Nov 2026 11:06:50 GMT"

    assert headers.read_retry_after(later, value, NOW_US) == 10_000_000


@pytest.mark.parametrize("value", malformed.NO_RESET, ids=name_of)
def test_a_reset_that_says_nothing_is_ignored(value: str) -> None:
    assert headers.read_reset(value, NOW_US) is None


@pytest.mark.parametrize("value", malformed.NO_COUNT, ids=name_of)
def test_a_limit_that_says_nothing_is_no_reading(
    value: str, provider: Provider
) -> None:
    shown = {row.limit: value for row in provider.shows}
    shown |= {row.remaining: value for row in provider.shows}

    assert provider.readings(shown, NOW_US) == ()


@pytest.mark.parametrize(("data", "events"), malformed.STREAMS, ids=name_of)
def test_a_stream_is_read_as_a_browser_reads_it(
    data: bytes, events: list[tuple[str, bytes]]
) -> None:
    expected = [ServerEvent(*event) for event in events]
    byte_by_byte = SseParser()
    one_by_one = [
        event for i in range(len(data)) for event in byte_by_byte.feed(data[i : i + 1])
    ]

    assert expected == SseParser().feed(data)
    assert expected == one_by_one


@pytest.mark.parametrize("body", malformed.BODIES, ids=name_of)
def test_a_request_is_read_whatever_its_body(body: bytes, provider: Provider) -> None:
    for path in PATHS[provider.name]:
        facts = provider.read_request("POST", path, body)
        costs = provider.costs(facts)

        assert facts.input_tokens >= (1 if body.strip() else 0)
        assert facts.input_tokens <= 4 * len(body) + 25_000
        assert all(
            costs.reserved[unit] >= costs.charged[unit] for unit in costs.charged
        )
        assert all(amount >= 0 for amount in costs.charged.values())


@pytest.mark.parametrize("body", malformed.NO_USAGE, ids=name_of)
def test_an_answer_without_usage_has_none(body: bytes, provider: Provider) -> None:
    facts = provider.read_request("POST", PATHS[provider.name][0], b"{}")
    meter = provider.meter(facts, "application/json")
    meter.feed(body)

    assert meter.usage() is None
    assert (meter.flowed() > 0) == bool(body.strip())
    assert meter.failure() is None


@pytest.mark.parametrize("body", malformed.NO_USAGE, ids=name_of)
def test_an_event_without_usage_has_none(body: bytes, provider: Provider) -> None:
    meter = provider.meter(RequestFacts(endpoint="chat"), "text/event-stream")  # type: ignore[arg-type]  # the value is the name
    meter.feed(b"data: " + body.strip() + b"\n\n")

    assert meter.usage() is None
    assert meter.failure() is None


@pytest.mark.parametrize("body", malformed.ODD_USAGE, ids=name_of)
def test_usage_that_makes_no_sense_is_none(body: bytes, provider: Provider) -> None:
    facts = provider.read_request("POST", PATHS[provider.name][0], b"{}")
    meter = provider.meter(facts, "application/json")
    meter.feed(body)

    assert meter.usage() is None


@pytest.mark.parametrize("body", malformed.ERRORS, ids=name_of)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.REJECTED),
        (401, Kind.UNAUTHORIZED),
        (402, Kind.BILLING),
        (403, Kind.FORBIDDEN),
        (404, Kind.REJECTED),
        (408, Kind.TRANSIENT),
        (413, Kind.IMPOSSIBLE),
        (429, Kind.THROTTLED),
        (500, Kind.TRANSIENT),
        (503, Kind.OVERLOADED),
        (529, Kind.OVERLOADED),
    ],
)
def test_an_error_of_no_known_shape_is_judged_by_its_status(
    status: int, kind: Kind, body: bytes, provider: Provider
) -> None:
    verdict = provider.judge(status, {}, body, NOW_US)

    assert kind is verdict.kind
    assert verdict.retry_after_us is None
