"""Whatever arrives is ignored by rule or read: never a crash, a hang, a wrong grant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ratekeeper.providers import headers
from ratekeeper.providers.catalog import PROVIDERS, find_provider
from ratekeeper.providers.facts import Endpoint, Kind
from ratekeeper.providers.meter import WHOLE_ANSWER
from ratekeeper.providers.shapes import read_json
from ratekeeper.providers.sse import ServerEvent, SseParser
from tests.providers import malformed
from tests.providers.malformed import NOW_US

if TYPE_CHECKING:
    from ratekeeper.providers.catalog import Provider

# A path of each shape; all providers read all of them, for some serve several.
PATHS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/v1beta/models/gemini-2.5-flash:generateContent",
    "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    "/v1beta/models/gemini-embedding-001:embedContent",
    "/v2/chat",
    "/model/us.anthropic.claude-sonnet-5-v1:0/converse",
    "/model/us.anthropic.claude-sonnet-5-v1:0/invoke",
)
WRITES = tuple(path for path in PATHS if "mbed" not in path)


@pytest.fixture(params=sorted(PROVIDERS))
def provider(request: pytest.FixtureRequest) -> Provider:
    return find_provider(request.param)


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WRITES)
def written(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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

    assert 10_000_000 == headers.read_retry_after(later, value, NOW_US)


@pytest.mark.parametrize("value", malformed.NO_RESET, ids=name_of)
def test_a_reset_that_says_nothing_is_ignored(value: str) -> None:
    assert headers.read_reset(value, NOW_US) is None


@pytest.mark.parametrize("value", malformed.NO_COUNT, ids=name_of)
def test_a_limit_that_says_nothing_is_no_reading(
    value: str, provider: Provider
) -> None:
    shown = {row.limit: value for row in provider.shows}
    shown |= {row.remaining: value for row in provider.shows}

    assert () == provider.readings(shown, NOW_US)


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
def test_a_request_is_read_whatever_its_body(body: bytes, path: str) -> None:
    facts = find_provider("openai").read_request("POST", path, body)

    assert facts.input_tokens >= (1 if body.strip() else 0)
    assert facts.input_tokens <= 4 * len(body) + 25_000
    for provider in PROVIDERS.values():
        costs = provider.costs(facts)

        assert all(
            costs.reserved[unit] >= costs.charged[unit] for unit in costs.charged
        )
        assert all(amount >= 0 for amount in costs.charged.values())


@pytest.mark.parametrize("body", malformed.NO_USAGE, ids=name_of)
def test_an_answer_without_usage_has_none(body: bytes, written: str) -> None:
    provider = find_provider("openai")
    facts = provider.read_request("POST", written, b"{}")
    meter = provider.meter(facts, "application/json")
    meter.feed(body)

    # What cannot be read may have been cut: only of a stream is that what flowed.
    is_long = len(body) > WHOLE_ANSWER
    flows = facts.stream or is_long or facts.endpoint is Endpoint.EMBEDDINGS
    assert meter.usage() is None
    assert (meter.flowed() > 0) == (
        bool(body.strip()) and (flows or read_json(body) is not None)
    )
    assert meter.failure(NOW_US) is None


@pytest.mark.parametrize("body", malformed.NO_USAGE, ids=name_of)
def test_an_event_without_usage_has_none(body: bytes, written: str) -> None:
    provider = find_provider("openai")
    facts = provider.read_request("POST", written, b"{}")
    meter = provider.meter(facts, "text/event-stream")
    meter.feed(b"data: " + body.strip() + b"\n\n")

    assert meter.usage() is None
    assert meter.failure(NOW_US) is None


@pytest.mark.parametrize("body", malformed.ODD_USAGE, ids=name_of)
def test_usage_that_makes_no_sense_is_none(body: bytes, written: str) -> None:
    provider = find_provider("openai")
    facts = provider.read_request("POST", written, b"{}")
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
    status: int, kind: Kind, body: bytes
) -> None:
    verdicts = [one.judge(status, {}, body, NOW_US) for one in PROVIDERS.values()]

    assert {(kind, None)} == {(one.kind, one.retry_after_us) for one in verdicts}
