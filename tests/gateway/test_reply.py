"""Refusals of the gateway's own, as the official SDKs raise them."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
import uvicorn
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google_types
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND
from ratekeeper.gateway.reply import LONGEST_RETRY_US, Answer, Fault, answer
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Dialect, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
SPEAKS = {Dialect.OPENAI: "openai", Dialect.ANTHROPIC: "anthropic"}
WAITS = [Fault.BUSY, Fault.BUDGET, Fault.UNAVAILABLE]


class Sayer:
    """An ASGI app that gives each call the next of its answers, the last for good."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Answer] = []
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        start = {"type": "http.response.start", "status": said.status}
        await send({**start, "headers": said.headers})
        await send({"type": "http.response.body", "body": said.body})


@pytest.fixture(scope="module")
def server() -> Iterator[Sayer]:
    sayer = Sayer()
    config = uvicorn.Config(
        sayer, lifespan="off", ws="none", log_config=None, access_log=False
    )
    running = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sayer.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield sayer
        running.should_exit = True
        thread.join()


@pytest.fixture
def sayer(server: Sayer) -> Sayer:
    server.answers, server.calls = [], 0
    return server


def said(fault: Fault, dialect: Dialect, **options: Any) -> Answer:
    return answer(fault, "No, because.", dialect, request_id="req_7", **options)


def openai_error(sayer: Sayer, retries: int = 0) -> openai.APIStatusError:
    url, key = f"{sayer.url}/v1", "rk-test"
    with (
        openai.OpenAI(base_url=url, api_key=key, max_retries=retries) as ai,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        ai.chat.completions.create(**ASK)
    return caught.value


def anthropic_error(sayer: Sayer, retries: int = 0) -> anthropic.APIStatusError:
    with (
        anthropic.Anthropic(
            base_url=sayer.url, api_key="rk-test", max_retries=retries
        ) as ai,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        ai.messages.create(**ASK, max_tokens=5)
    return caught.value


def google_error(sayer: Sayer) -> google_errors.APIError:
    options = google_types.HttpOptions(base_url=sayer.url)
    with (
        genai.Client(api_key="rk-test", http_options=options) as ai,
        pytest.raises(google_errors.APIError) as caught,
    ):
        ai.models.generate_content(model="m", contents="Hi")
    return caught.value


def headers_of(one: Answer) -> dict[bytes, bytes]:
    found = dict(one.headers)

    assert len(one.headers) == len(found)
    return found


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.BUSY, openai.RateLimitError),
        (Fault.BUDGET, openai.RateLimitError),
        (Fault.IMPOSSIBLE, openai.RateLimitError),
        (Fault.UNKNOWN_KEY, openai.AuthenticationError),
        (Fault.FORBIDDEN, openai.PermissionDeniedError),
        (Fault.PRICE_UNKNOWN, openai.PermissionDeniedError),
        (Fault.BAD_REQUEST, openai.BadRequestError),
        (Fault.NOT_FOUND, openai.NotFoundError),
        (Fault.METHOD, openai.APIStatusError),
        (Fault.TOO_LARGE, openai.APIStatusError),
        (Fault.UNREACHABLE, openai.InternalServerError),
        (Fault.UNAVAILABLE, openai.InternalServerError),
        (Fault.LATE, openai.InternalServerError),
    ],
)
def test_openais_sdk_raises_its_own_class(
    sayer: Sayer, fault: Fault, kind: type[Exception]
) -> None:
    sayer.answers = [said(fault, Dialect.OPENAI, retry_after_us=3 * SECOND)]

    error = openai_error(sayer)

    assert kind is type(error)
    assert error.message.startswith(f"Error code: {error.status_code} - ")
    assert error.body is not None
    assert error.code
    assert error.type
    assert "req_7" == error.request_id


@pytest.mark.parametrize(
    ("fault", "kind", "word"),
    [
        (Fault.BUSY, anthropic.RateLimitError, "rate_limit_error"),
        (Fault.BUDGET, anthropic.RateLimitError, "rate_limit_error"),
        (Fault.IMPOSSIBLE, anthropic.RateLimitError, "rate_limit_error"),
        (Fault.UNKNOWN_KEY, anthropic.AuthenticationError, "authentication_error"),
        (Fault.FORBIDDEN, anthropic.PermissionDeniedError, "permission_error"),
        (Fault.PRICE_UNKNOWN, anthropic.PermissionDeniedError, "permission_error"),
        (Fault.BAD_REQUEST, anthropic.BadRequestError, "invalid_request_error"),
        (Fault.NOT_FOUND, anthropic.NotFoundError, "not_found_error"),
        (Fault.METHOD, anthropic.APIStatusError, "invalid_request_error"),
        (Fault.TOO_LARGE, anthropic.ContentTooLargeError, "request_too_large"),
        (Fault.UNREACHABLE, anthropic.InternalServerError, "api_error"),
        (Fault.UNAVAILABLE, anthropic.ServiceUnavailableError, "overloaded_error"),
        (Fault.LATE, anthropic.GatewayTimeoutError, "timeout_error"),
    ],
)
def test_anthropics_sdk_raises_its_own_class(
    sayer: Sayer, fault: Fault, kind: type[Exception], word: str
) -> None:
    sayer.answers = [said(fault, Dialect.ANTHROPIC, retry_after_us=3 * SECOND)]

    error = anthropic_error(sayer)
    body: Any = error.body

    assert (kind, "req_7", "req_7") == (
        type(error),
        error.request_id,
        body["request_id"],
    )
    assert word == body["error"]["type"]


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (Fault.BUSY, 429, "RESOURCE_EXHAUSTED"),
        (Fault.BUDGET, 429, "RESOURCE_EXHAUSTED"),
        (Fault.IMPOSSIBLE, 429, "RESOURCE_EXHAUSTED"),
        (Fault.UNKNOWN_KEY, 401, "UNAUTHENTICATED"),
        (Fault.FORBIDDEN, 403, "PERMISSION_DENIED"),
        (Fault.PRICE_UNKNOWN, 403, "PERMISSION_DENIED"),
        (Fault.BAD_REQUEST, 400, "INVALID_ARGUMENT"),
        (Fault.NOT_FOUND, 404, "NOT_FOUND"),
        (Fault.METHOD, 405, "INVALID_ARGUMENT"),
        (Fault.TOO_LARGE, 413, "INVALID_ARGUMENT"),
        (Fault.UNREACHABLE, 502, "UNAVAILABLE"),
        (Fault.UNAVAILABLE, 503, "UNAVAILABLE"),
        (Fault.LATE, 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_googles_sdk_raises_its_own_class(
    sayer: Sayer, fault: Fault, code: int, status: str
) -> None:
    sayer.answers = [said(fault, Dialect.GEMINI)]

    error = google_error(sayer)

    own = google_errors.ClientError if code < 500 else google_errors.ServerError
    assert own is type(error)
    assert (code, status) == (error.code, error.status)
    assert "No, because." == error.message


@pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.ANTHROPIC])
def test_an_sdk_comes_back_by_itself_after_a_short_wait(
    sayer: Sayer, dialect: Dialect
) -> None:
    sayer.answers = [
        said(Fault.BUSY, dialect, retry_after_us=40_001),
        said(Fault.FORBIDDEN, dialect),
    ]
    begun = time.monotonic()

    raised = openai_error if dialect is Dialect.OPENAI else anthropic_error
    error = raised(sayer, retries=2)

    assert (403, 2) == (error.status_code, sayer.calls)
    assert time.monotonic() - begun >= 0.041


@pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.ANTHROPIC])
@pytest.mark.parametrize(
    ("fault", "wait_us"),
    [
        (Fault.BUSY, LONGEST_RETRY_US + 1),
        (Fault.BUDGET, DAY),
        (Fault.UNAVAILABLE, None),
        (Fault.IMPOSSIBLE, None),
        (Fault.UNREACHABLE, None),
        (Fault.LATE, 1000),
    ],
)
def test_an_sdk_does_not_come_back_where_that_serves_nobody(
    sayer: Sayer, dialect: Dialect, fault: Fault, wait_us: int | None
) -> None:
    sayer.answers = [said(fault, dialect, retry_after_us=wait_us)]

    raised = openai_error if dialect is Dialect.OPENAI else anthropic_error
    raised(sayer, retries=2)

    assert 1 == sayer.calls


@given(wait_us=st.integers(0, 40 * DAY), fault=st.sampled_from(WAITS))
def test_whoever_waits_as_told_waits_long_enough(wait_us: int, fault: Fault) -> None:
    found = headers_of(said(fault, Dialect.OPENAI, retry_after_us=wait_us))

    seconds, millis = int(found[b"retry-after"]), int(found[b"retry-after-ms"])
    assert wait_us <= seconds * SECOND < wait_us + SECOND
    assert wait_us <= millis * 1000 < wait_us + 1000
    assert (wait_us > MINUTE) == (b"x-should-retry" in found)


@pytest.mark.parametrize("fault", sorted({*Fault} - {*WAITS}))
def test_no_wait_is_promised_where_none_would_help(fault: Fault) -> None:
    one = said(fault, Dialect.GEMINI, retry_after_us=3 * SECOND)

    found = headers_of(one)
    assert b"false" == found[b"x-should-retry"]
    assert b"retry-after" not in found
    assert b"retry-after-ms" not in found
    assert b"again" not in one.body
    assert b"RetryInfo" not in one.body


def test_a_wait_that_is_a_lower_bound_says_so() -> None:
    one = said(Fault.BUSY, Dialect.COHERE, retry_after_us=1_250_000, exact=False)

    text = "No, because.; try again in 1.25 s at the earliest"
    assert {"id": "req_7", "message": text} == json.loads(one.body)


def test_google_is_told_the_wait_in_its_own_detail() -> None:
    one = said(Fault.BUSY, Dialect.GEMINI, retry_after_us=1_250_000)

    detail = {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "1.25s",
    }
    assert [detail] == json.loads(one.body)["error"]["details"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.BUSY, Kind.THROTTLED),
        (Fault.BUDGET, Kind.THROTTLED),
        (Fault.IMPOSSIBLE, Kind.IMPOSSIBLE),
        (Fault.UNKNOWN_KEY, Kind.UNAUTHORIZED),
        (Fault.FORBIDDEN, Kind.FORBIDDEN),
        (Fault.PRICE_UNKNOWN, Kind.FORBIDDEN),
        (Fault.BAD_REQUEST, Kind.REJECTED),
        (Fault.NOT_FOUND, Kind.REJECTED),
        (Fault.METHOD, Kind.REJECTED),
        (Fault.TOO_LARGE, Kind.IMPOSSIBLE),
        (Fault.UNREACHABLE, Kind.TRANSIENT),
        (Fault.UNAVAILABLE, Kind.OVERLOADED),
        (Fault.LATE, Kind.TRANSIENT),
    ],
)
def test_our_own_client_reads_what_is_meant(fault: Fault, kind: Kind) -> None:
    one = said(fault, Dialect.OPENAI, retry_after_us=2 * HOUR)
    fields = {name.decode(): value.decode() for name, value in one.headers}

    verdict = find_provider("openai").judge(one.status, fields, one.body, 0)

    assert kind is verdict.kind


def test_every_fault_has_a_shape_in_every_dialect() -> None:
    for fault in Fault:
        for dialect in Dialect:
            one = said(fault, dialect)

            found = headers_of(one)
            assert b"No, because." in one.body
            assert b"application/json" == found[b"content-type"]
            assert len(one.body) == int(found[b"content-length"])
            assert b"req_7" in found.values()


def test_boto_is_told_the_error_in_its_header() -> None:
    found = headers_of(said(Fault.LATE, Dialect.BEDROCK))

    assert b"ModelTimeoutException" == found[b"x-amzn-errortype"]


def test_an_unknown_key_is_told_how_to_send_one() -> None:
    found = headers_of(said(Fault.UNKNOWN_KEY, Dialect.OPENAI))

    assert b"Bearer" == found[b"www-authenticate"]


def test_what_became_of_a_key_is_not_told() -> None:
    faults = [Fault.UNKNOWN_KEY, Fault.EXPIRED, Fault.REVOKED]

    for dialect in Dialect:
        assert 1 == len({str(said(fault, dialect)) for fault in faults})


def test_further_headers_go_along() -> None:
    one = said(Fault.METHOD, Dialect.OPENAI, also=[(b"allow", b"GET, POST")])

    assert b"GET, POST" == headers_of(one)[b"allow"]


def test_a_model_name_that_is_no_text_breaks_nothing() -> None:
    one = answer(Fault.FORBIDDEN, 'no "\ud800é\r\n', Dialect.OPENAI, request_id="r")

    assert 'no "?é\r\n' == json.loads(one.body)["error"]["message"]
