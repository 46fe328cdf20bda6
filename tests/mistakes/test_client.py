"""The mistakes of homemade clients, one test each: MISTAKES rows 29-63."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from ratekeeper import (
    AuthenticationError,
    BillingStopped,
    BudgetExceeded,
    Client,
    ConfigError,
    LimitExceeded,
    ProviderThrottled,
    ProviderUnreachable,
    RatekeeperError,
)
from ratekeeper.client.check import KeyStatus
from ratekeeper.simulator.server import Simulator, serving
from tests.client import clients, wire
from tests.client.clients import CHAT, KEY, OK, Told, error, virtual


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> clients.Opened:
    return clients.opener(kind)


def _fail(ai: clients.Ai, **body: Any) -> Any:
    with pytest.raises(RatekeeperError) as caught:
        ai.chat(**body)
    return caught.value


def test_row_29_the_timeout_covers_line_http_and_retries(kind: str) -> None:
    """Row 29: the time-out covers the queue alone."""
    told = Told(OK, error(500))
    limit = "6 requests/minute using leaky-bucket"
    with virtual(kind, told, limits=[limit], attempts=9) as ai:
        ai.chat()
        began_s = told.clock.now_us() / 1e6
        failed = _fail(ai, timeout=25)
        took_s = told.clock.now_us() / 1e6 - began_s

    assert isinstance(failed, LimitExceeded)  # the next place in line comes too late
    assert 2 == failed.attempts
    assert took_s <= 25


def test_row_30_the_body_sent_is_the_body_given(kind: str) -> None:
    """Row 30: imposes model, temperature, max_tokens."""
    body = {"model": "mine", "messages": [], "max_tokens": 0}
    told = Told(OK)
    with virtual(kind, told) as ai:
        ai.do(lambda client: client.chat_completion(**body))

    assert body == json.loads(told.requests[0].content)


def test_row_39_wrong_requests_are_sent_once_and_refused_connections_again(
    kind: str,
) -> None:
    """Row 39: 400, 403, 404 retried; connect errors not."""
    counts = []
    for status in (400, 403, 404):
        told = Told(error(status))
        with virtual(kind, told) as ai:
            _fail(ai)
        counts.append(len(told.requests))
    refused = httpx2.ConnectError("refused")
    told = Told(refused, refused, OK)
    with virtual(kind, told) as ai:
        answer = ai.chat()

    assert [1, 1, 1] == counts
    assert OK[2] == answer


def test_row_40_after_the_last_attempt_the_typed_error_comes_at_once(
    kind: str,
) -> None:
    """Row 40: sleeps after the last attempt, then a bare Exception."""
    told = Told(error(429, retry_after="2"))
    with virtual(kind, told) as ai:
        failed = _fail(ai)
        late_s = told.clock.now_us() / 1e6 - told.at_s[-1]

    assert isinstance(failed, ProviderThrottled)
    assert (2.0, 3, 0.0) == (failed.retry_after_s, failed.attempts, late_s)


def test_row_41_a_billing_429_is_sent_once(kind: str) -> None:
    """Row 41: billing 429 retried."""
    told = Told(error(429, "insufficient_quota"))
    with virtual(kind, told) as ai:
        failed = _fail(ai)

    assert isinstance(failed, BillingStopped)
    assert 1 == len(told.requests)


def test_row_42_a_hint_of_nothing_or_of_years_does_no_harm(kind: str) -> None:
    """Row 42: Retry-After 0 hot-loops, 1e9 sleeps for ever."""
    told = Told(error(429, retry_after="0"))
    with virtual(kind, told) as ai:
        _fail(ai)
    beyond = Told(error(429, retry_after="86400"))
    with virtual(kind, beyond) as ai:
        failed = _fail(ai)
    absurd = Told(error(529, retry_after="1000000000"), OK)
    with virtual(kind, absurd) as ai:
        ai.chat()

    assert all(wait >= 0.5 for wait in told.waits_s), told.waits_s
    assert (86400.0, 1) == (failed.retry_after_s, len(beyond.requests))
    assert absurd.waits_s[0] <= 1


def test_row_43_a_hint_is_not_multiplied(kind: str) -> None:
    """Row 43: Retry-After x 2^n: 5 s becomes 155 s over five tries."""
    told = Told(error(429, retry_after="5"))
    with virtual(kind, told, attempts=6) as ai:
        _fail(ai)

    assert 5 == len(told.waits_s)
    for n, wait in enumerate(told.waits_s):
        assert 5 <= wait <= 5 + 2**n


def test_row_44_a_hundred_retries_spread(kind: str) -> None:
    """Row 44: no jitter."""
    waits = []
    for seed in range(100):
        told = Told(error(529), OK)
        with virtual(kind, told, draw=random.Random(seed)) as ai:
            ai.chat()
        waits += told.waits_s

    assert 95 < len(set(waits))
    for tenth in range(10):
        assert 2 <= sum(tenth / 10 <= wait < (tenth + 1) / 10 for wait in waits)


def test_row_45_calls_share_connections(make: clients.Opened) -> None:
    """Row 45: a new HTTP client per attempt."""
    good = wire.http(200, wire.completion())
    with wire.Wire(wire.http(503), good) as server, make(server.url) as ai:
        ai.batch([CHAT] * 100, concurrency=5)
        connections = server.connections

    assert connections <= 5


def test_row_46_a_stream_iterates(make: clients.Opened) -> None:
    """Row 46: `stream=True`, then `.json()`."""
    said = wire.events(wire.delta("a"), wire.delta("b"), wire.usage(2, 2))
    script = wire.Script(wire.STREAM_HEAD, *wire.chunked(*said))
    with wire.Wire(script) as server, make(server.url) as ai:
        chunks = ai.chunks()

    assert [wire.delta("a"), wire.delta("b"), wire.usage(2, 2)] == chunks


def test_row_47_no_key_names_the_variable_and_sends_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 47: a placeholder key as the default; environment unread."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    told = Told(OK)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        virtual(kind, told, api_key=None)

    assert [] == told.requests


def test_row_49_a_generator_without_end_is_bounded_and_zero_is_refused(
    make: clients.Opened,
) -> None:
    """Row 49: all batch tasks created at once; concurrency 0 hangs."""
    taken = 0

    def give() -> Iterator[Any]:
        nonlocal taken
        for taken in itertools.count(1):  # noqa: B007 - read below
            yield CHAT

    good = wire.http(200, wire.completion())
    with wire.Wire(good) as server, make(server.url) as ai:
        results = ai.stream_batch(give(), 30, concurrency=3)
        with pytest.raises(ConfigError, match="concurrency=0"):
            ai.batch([CHAT], concurrency=0)

    assert 30 == len(results)
    assert taken <= 30 + 4 * 3


def test_row_50_the_first_401_stops_what_is_not_sent(make: clients.Opened) -> None:
    """Row 50: a 401 for every item."""
    with wire.Wire(wire.http(401)) as server, make(server.url) as ai:
        results = ai.batch([CHAT] * 500, concurrency=5)
        sent = len(server.requests)

    assert 500 == sum(isinstance(result, AuthenticationError) for result in results)
    assert sent <= 5


def test_row_51_429_429_200_gives_the_200(kind: str) -> None:
    """Row 51: `.status_code` of a dict."""
    told = Told(error(429), error(429), OK)
    with virtual(kind, told) as ai:
        answer = ai.chat()

    assert OK[2] == answer


def test_row_53_known_forms_of_keys_are_accepted_and_others_warned_of(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 53: key prefixes disagree (hs_, hs-, sk-)."""
    sent = []
    for prefix in ("sk-", "hs-", "hs_"):
        told = Told(OK)
        with virtual(kind, told, "holysheep", api_key=prefix + KEY[3:]) as ai:
            ai.chat()
        sent.append(told.requests[0].headers["authorization"][:10])

    assert ["Bearer sk-", "Bearer hs-", "Bearer hs_"] == sent
    assert 1 == len(caplog.records)


def test_row_54_a_placeholder_is_refused_without_network(kind: str) -> None:
    """Row 54: a 22-character placeholder passes as a key."""
    told = Told(OK)
    with pytest.raises(ConfigError, match="placeholder"):
        virtual(kind, told, "holysheep", api_key="YOUR_HOLYSHEEP_API_KEY")
    with virtual(kind, told, "holysheep") as ai:
        found = ai.do(lambda client: client.validate_key("YOUR_HOLYSHEEP_API_KEY"))

    assert KeyStatus.MALFORMED is found.status
    assert [] == told.requests


def test_row_55_an_answer_that_is_not_200_is_not_always_invalid(kind: str) -> None:
    """Row 55: 403, 429, 5xx all "invalid"."""
    found = {}
    for status in (200, 401, 403, 429, 500):
        told = Told(error(status) if status != 200 else (200, {}, {}))
        with virtual(kind, told) as ai:
            found[status] = ai.do(lambda client: client.validate_key()).status

    assert {
        200: KeyStatus.OK,
        401: KeyStatus.REFUSED,
        403: KeyStatus.NO_PERMISSION,
        429: KeyStatus.THROTTLED,
        500: KeyStatus.CANNOT_TELL,
    } == found


def test_row_56_the_configured_host_is_named_whatever_the_vendor(kind: str) -> None:
    """Row 56: the error names the vendor whatever the base URL."""
    texts = []
    for answer in (error(401), error(429), error(500), httpx2.ReadTimeout("")):
        told = Told(answer)
        url = "http://relay.example:8443/v1"
        with virtual(kind, told, base_url=url, attempts=1) as ai:
            texts.append(str(_fail(ai)))

    assert all(text.startswith("relay.example:8443") for text in texts), texts


def test_row_57_failures_are_told_apart_by_type(make: clients.Opened) -> None:
    """Row 57: tells failures apart by text."""
    port = clients.closed_port()
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "refused": (f"http://127.0.0.1:{port}/v1", {}),
        "dns": ("http://nobody.invalid/v1", {}),
        "proxy": ("https://x.example/v1", {"proxy": f"http://127.0.0.1:{port}"}),
    }
    found = {}
    for reason, (url, options) in ways.items():
        with make(url, attempts=1, **options) as ai:
            failed = _fail(ai)
        assert "check " in str(failed)
        found[reason] = failed.reason

    assert {reason: reason for reason in ways} == found


def test_row_58_a_read_timed_out_post_is_not_sent_again_and_counts(
    make: clients.Opened,
) -> None:
    """Row 58: a read-timed-out POST is sent again: paid twice."""
    limits = ["1000 requests/day", "1M tokens/day"]
    with (
        wire.Wire(wire.Script(5.0)) as server,
        make(server.url, read_timeout=0.1, limits=limits) as ai,
    ):
        failed = _fail(ai)
        used = ai.used()
        sent = len(server.requests)

    assert ("read-timeout", 1) == (failed.reason, sent)
    assert 1 == used[0]
    assert used[1] >= 9  # max_tokens at least


def test_row_59_every_transport_error_is_typed(kind: str) -> None:
    """Row 59: read error, protocol error, pool time-out "unknown"."""
    raised: dict[Exception, str] = {
        httpx2.ReadError(""): "broken",
        httpx2.WriteError(""): "broken",
        httpx2.RemoteProtocolError(""): "broken",
        httpx2.LocalProtocolError(""): "broken",
        httpx2.WriteTimeout(""): "broken",
        httpx2.DecodingError(""): "broken",
        httpx2.PoolTimeout(""): "pool-timeout",
        httpx2.ReadTimeout(""): "read-timeout",
        httpx2.ConnectTimeout(""): "connect-timeout",
        httpx2.ProxyError(""): "proxy",
    }
    found = {}
    for cause in raised:
        with virtual(kind, Told(cause)) as ai:
            failed = _fail(ai)
        assert isinstance(failed, ProviderUnreachable)
        found[cause] = failed.reason

    assert raised == found


def test_row_60_the_callers_headers_stay_as_they_are(kind: str) -> None:
    """Row 60: the caller's headers dict receives the key."""
    own = {"x-team": "search"}
    with virtual(kind, Told(OK), headers=own) as ai:
        ai.chat()

    assert {"x-team": "search"} == own


def test_row_61_a_log_line_for_each_retry_and_no_handler_at_import(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 61: logs "retry" where there is none; `basicConfig` at import."""
    counts = []
    for answers in ([OK], [error(500), OK], [error(500)], [error(400)]):
        caplog.clear()
        told = Told(*answers)
        with (
            caplog.at_level(logging.INFO, "ratekeeper"),
            virtual(kind, told) as ai,
            contextlib.suppress(RatekeeperError),
        ):
            ai.chat()
        counts.append((len(told.requests) - 1, len(caplog.records)))
    code = (
        "import logging, ratekeeper; ratekeeper.Client; "
        "print(len(logging.getLogger().handlers),"
        " len(logging.getLogger('ratekeeper').handlers))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert [(0, 0), (1, 1), (2, 2), (0, 0)] == counts
    assert b"0 0" == done.stdout.strip()


def test_row_62_one_root_catches_all_and_no_secret_is_printed(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 62: raw library errors, two classes of one name, response text in messages."""
    caplog.set_level(logging.DEBUG)
    canary = "canary-4711"
    texts = []
    answers: list[Any] = [
        error(status, message=f"{KEY} {canary}") for status in (400, 401, 403, 429, 500)
    ]
    answers += [httpx2.ReadError(canary), (200, {}, {"error": {"message": canary}})]
    for answer in answers:
        with virtual(kind, Told(answer), attempts=2) as ai:
            failed = _fail(ai, user=canary)
        assert isinstance(failed, RatekeeperError)
        texts.append(str(failed))
        assert KEY not in getattr(failed, "body", "")
        if isinstance(answer, Exception):
            assert answer is failed.__cause__
    texts += [record.getMessage() for record in caplog.records]

    assert not any(canary in text or KEY in text for text in texts), texts


def test_row_63_a_trailing_slash_makes_no_difference(kind: str) -> None:
    """Row 63: trailing slash in base URL: `//`."""
    urls = []
    for base in ("https://relay.example/v1", "https://relay.example/v1/"):
        told = Told(OK)
        with virtual(kind, told, base_url=base) as ai:
            ai.chat()
        urls.append(str(told.requests[0].url))

    assert ["https://relay.example/v1/chat/completions"] * 2 == urls


def test_row_48_a_budget_of_a_dollar_stops_at_a_dollar_or_before() -> None:
    prices = {"m": {"input": "100", "output": "1000"}}
    body = {"model": "m", "messages": CHAT["messages"], "max_tokens": 100}
    there = Simulator("openai", ["1M rpm", "1B tpm"])
    with (
        serving(there) as url,
        Client(url, api_key=KEY, limits=["$1/day"], prices=prices) as ai,
    ):
        results = ai.batch_chat([body] * 60, concurrency=8)

    stats = there.stats
    spent = stats["input_tokens_served"] * 100 + stats["output_tokens_served"] * 1000
    failed = [one for one in results if isinstance(one, Exception)]
    assert {BudgetExceeded} == {type(one) for one in failed}
    assert 0 < spent <= 1_000_000  # millionths of a dollar
