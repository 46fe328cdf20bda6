"""The gateway's HTTP: what reaches the app is one request with one meaning."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING

import pytest

from ratekeeper.gateway.listener import Bounds
from ratekeeper.gateway.run import serving
from tests.gateway.stand_in import Caller, StandIn, ends_with

if TYPE_CHECKING:
    from collections.abc import Iterator

POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.contextmanager
def serve(bounds: Bounds | None = None) -> Iterator[tuple[StandIn, str]]:
    app = StandIn()
    with serving(app, bounds=bounds or Bounds()) as url:
        yield app, url


@pytest.fixture(scope="module")
def usual() -> Iterator[tuple[StandIn, str]]:
    with serve() as pair:
        yield pair


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3})", answer)]


# The probes other servers were tried with. `NEXT` follows each, as a smuggled request
# would: it may be answered only where the probe is a good request.
PROBES = {
    "length and chunks": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths that differ": POST
    + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "two lengths alike": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "a list of lengths": POST + b"Content-Length: 1, 1\r\n\r\na",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nabcde",
    "a length in hex": POST + b"Content-Length: 0x5\r\n\r\nabcde",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "an empty length": POST + b"Content-Length: \r\n\r\n",
    "an endless length": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 1\r\n\r\na",
    "a bare CR": POST + b"X: a\rContent-Length: 1\r\n\r\n",
    "a NUL": POST + b"X: a\0b\r\n\r\n",
    "an unknown encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encodings in the wrong order": POST
    + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a second encoding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two encodings": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a padded encoding": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks on HTTP/1.0": b"POST /echo HTTP/1.0\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": POST + b"X: a\r\n b\r\n\r\n",
    "bare LF": b"POST /echo HTTP/1.1\nHost: x\n\n",
    "a bad chunk size": POST
    + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    "a chunk size with 0x": POST
    + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "a bad chunk end": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc0\r\n\r\n",
    "a chunk line ended by LF": POST
    + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "no host": b"POST /echo HTTP/1.1\r\n\r\n",
    "two hosts": POST + b"Host: y\r\n\r\n",
    "two authorizations": POST + b"Authorization: a\r\nAuthorization: b\r\n\r\n",
    "two keys": POST + b"X-Api-Key: a\r\nx-api-key: a\r\n\r\n",
    "two Google keys": POST + b"X-Goog-Api-Key: a\r\nx-goog-api-key: a\r\n\r\n",
    "two content types": POST + b"content-type: a/b\r\nContent-Type: a/b\r\n\r\n",
    "two content encodings": POST
    + b"content-encoding: gzip\r\ncontent-encoding: identity\r\n\r\n",
    "two Azure keys": POST + b"Api-Key: a\r\napi-key: a\r\n\r\n",
    "an absolute target": b"POST http://evil/echo HTTP/1.1\r\nHost: x\r\n\r\n",
    "an authority target": b"POST evil:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"POST /echo#a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target in UTF-8": "POST /écho HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "no version": b"POST /echo\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3.0": b"POST /echo HTTP/3.0\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 64,
}
CODED = {
    "CONNECT": (405, b"CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "TRACE": (405, b"TRACE /echo HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a method of WebDAV": (405, b"PROPFIND /echo HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a header of 100 KB": (431, POST + b"X: " + b"a" * 100_000 + b"\r\n\r\n"),
    "a head of 100 KB": (431, POST + (b"X: " + b"a" * 1000 + b"\r\n") * 99 + b"\r\n"),
    "1,000 headers": (431, POST + b"X: a\r\n" * 1000 + b"\r\n"),
    "a target of 9 KB": (
        414,
        b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
}


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_a_request_with_two_meanings_is_refused_and_is_the_last(
    usual: tuple[StandIn, str], probe: bytes
) -> None:
    app, url = usual
    before = len(app.bodies)
    with Caller(url) as caller:
        answer = caller.send(probe + NEXT).read()

    assert [400] == statuses(answer)
    assert b"connection: close\r\n" in answer
    assert b'"type": "invalid_request_error"' in answer
    assert before == len(app.bodies)


@pytest.mark.parametrize(("status", "probe"), CODED.values(), ids=CODED)
def test_a_request_beyond_the_bounds_is_told_which(
    usual: tuple[StandIn, str], status: int, probe: bytes
) -> None:
    app, url = usual
    before = len(app.calls)
    with Caller(url) as caller:
        answer = caller.send(probe + NEXT).read()

    assert [status] == statuses(answer)
    assert before == len(app.calls)


@pytest.mark.parametrize("cut", [1, 7, 50])
def test_a_request_may_come_in_any_pieces(usual: tuple[StandIn, str], cut: int) -> None:
    app, url = usual
    del app
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with Caller(url) as caller:
        for at in range(0, len(request), cut):
            caller.send(request[at : at + cut])
            time.sleep(0.001)
        answer = caller.read(ends_with(b"hello"))

    assert [200] == statuses(answer)


def test_three_requests_at_once_are_answered_in_order(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    one = POST.replace(b"echo", b"one") + b"Content-Length: 3\r\n\r\nabc"
    two = POST.replace(b"echo", b"two") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with Caller(url) as caller:
        answer = caller.send(one + two + NEXT).read(ends_with(b"/next "))

    assert [200, 200, 200] == statuses(answer)
    assert answer.index(b"/one abc") < answer.index(b"/two ") < answer.index(b"/next ")


def test_good_requests_before_a_bad_one_are_answered_first(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    with Caller(url) as caller:
        answer = caller.send(NEXT + NEXT + b"nonsense\r\n\r\n" + NEXT).read()

    assert [200, 200, 400] == statuses(answer)


def test_a_seventeenth_request_ahead_of_its_answers_is_refused(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    with Caller(url) as caller:
        answer = caller.send(NEXT * 40).read()

    assert [200] * 17 + [400] == statuses(answer)


def test_a_trailer_adds_nothing_to_any_request(usual: tuple[StandIn, str]) -> None:
    app, url = usual
    body = b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nAuthorization: b\r\n\r\n"
    with Caller(url) as caller:
        caller.send(POST + body + NEXT).read(ends_with(b"/next "))

    assert [
        [(b"host", b"x"), (b"transfer-encoding", b"chunked")],
        [(b"host", b"x")],
    ] == [call["headers"] for call in app.calls[-2:]]


def test_trailers_without_end_are_refused(usual: tuple[StandIn, str]) -> None:
    _, url = usual
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    with Caller(url) as caller:
        answer = caller.send(head + b"X: " + b"a" * 400_000).read()

    assert [431] == statuses(answer)


def test_a_body_that_turns_out_bad_ends_the_call(usual: tuple[StandIn, str]) -> None:
    app, url = usual
    app.gone.clear()
    app.entered.clear()
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    with Caller(url) as caller:
        caller.send(head)
        assert app.entered.wait(1)
        answer = caller.send(b"zz\r\n").read()

    assert [400] == statuses(answer)
    assert app.gone.wait(1)


def test_nothing_is_answered_after_an_answer_that_was_to_be_the_last(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    last = NEXT.replace(b"Host", b"Connection: close\r\nHost")
    with Caller(url) as caller:
        answer = caller.send(last + NEXT + b"nonsense").read()

    assert [200] == statuses(answer)


def test_a_caller_who_waits_to_go_on_is_told_when_the_body_is_wanted(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    head = POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with Caller(url) as caller:
        told = caller.send(head).read(ends_with(b"\r\n\r\n"))
        answer = caller.send(b"abc").read(ends_with(b"abc"))

    assert b"HTTP/1.1 100 Continue\r\n\r\n" == told
    assert [200] == statuses(answer)


def test_a_caller_who_waits_to_go_on_may_be_refused_without_a_body(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    head = POST.replace(b"echo", b"early") + b"Expect: 100-continue\r\n"
    with Caller(url) as caller:
        answer = caller.send(head + b"Content-Length: 3\r\n\r\n").read()

    assert [413] == statuses(answer)
    assert b"connection: close\r\n" in answer


def test_a_small_body_that_was_not_read_does_not_cost_the_connection(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    with Caller(url) as caller:
        caller.send(POST.replace(b"echo", b"early") + b"Content-Length: 9\r\n\r\n")
        first = caller.read(ends_with(b"early"))
        second = caller.send(b"x" * 9 + NEXT).read(ends_with(b"/next "))

    assert [413, 200] == statuses(first + second)


def test_a_large_body_is_not_read_once_it_is_answered(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    head = POST.replace(b"echo", b"early") + b"Content-Length: 1000000000\r\n\r\n"
    with Caller(url) as caller:
        caller.send(head)
        answer = caller.read(ends_with(b"early"))
        sent = 0
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                sent += caller.socket.send(b"x" * 100_000)

    assert b"connection: close\r\n" in answer
    assert sent < 20_000_000  # what the kernel's buffers take


def test_an_answer_to_http_1_0_has_no_chunks(usual: tuple[StandIn, str]) -> None:
    _, url = usual
    with Caller(url) as caller:
        answer = caller.send(b"GET /stream HTTP/1.0\r\nHost: x\r\n\r\n").read()

    assert b"transfer-encoding" not in answer
    assert answer.endswith(b"\r\n\r\n" + b"x" * 30 + b"end")


def test_an_answer_to_head_has_no_body(usual: tuple[StandIn, str]) -> None:
    _, url = usual
    head = NEXT.replace(b"GET", b"HEAD")
    with Caller(url) as caller:
        answer = caller.send(head + head).read(lambda data: data.count(b"\r\n\r\n") > 1)

    assert [200, 200] == statuses(answer)
    assert answer.endswith(b"\r\n\r\n")


def test_a_failing_app_is_a_500_and_its_words_are_not_logged(
    usual: tuple[StandIn, str], caplog: pytest.LogCaptureFixture
) -> None:
    _, url = usual
    with Caller(url) as caller:
        answer = caller.send(NEXT.replace(b"next", b"fail?key=sk-canary")).read()

    assert [500] == statuses(answer)
    assert "ValueError" in caplog.text
    assert "sk-canary" not in "".join(r.getMessage() for r in caplog.records)


def test_a_header_with_a_line_end_in_it_is_never_sent(
    usual: tuple[StandIn, str], caplog: pytest.LogCaptureFixture
) -> None:
    _, url = usual
    with Caller(url) as caller:
        answer = caller.send(NEXT.replace(b"next", b"bad-header")).read()

    assert [500] == statuses(answer)
    assert b"cookie" not in answer
    assert "BadHead" in caplog.text


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
OFFERED = {
    "nothing": (b"\r\n", b""),
    "a length": (
        b"Content-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        b"GET /smuggled HTTP/1.1\r\n\r\n",
    ),
    "chunks": (
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"hello",
    ),
}


@pytest.mark.parametrize("cut", [1, 40, 1000])
@pytest.mark.parametrize(("rest", "body"), OFFERED.values(), ids=OFFERED)
def test_an_offer_to_speak_another_protocol_is_passed_over(
    usual: tuple[StandIn, str], rest: bytes, body: bytes, cut: int
) -> None:
    app, url = usual
    del app.bodies[:], app.calls[:]
    request = POST + H2C + rest + NEXT
    with Caller(url) as caller:
        for at in range(0, len(request), cut):
            caller.send(request[at : at + cut])
        answer = caller.read(ends_with(b"/next "))

    assert [200, 200] == statuses(answer)
    assert ["/echo", "/next"] == [call["path"] for call in app.calls]
    assert [body, b""] == app.bodies


def test_an_offer_of_another_protocol_may_have_a_bad_body(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    with Caller(url) as caller:
        head = POST + H2C + b"Transfer-Encoding: chunked\r\n\r\n"
        answer = caller.send(head + b"zz\r\n" + NEXT).read()

    assert [400] == statuses(answer)


@pytest.mark.parametrize(
    "path", [b"fails-late", b"says-less", b"says-more", b"cuts", b"leaves-off"]
)
def test_an_answer_that_breaks_off_is_seen_to_be_broken(
    usual: tuple[StandIn, str], path: bytes
) -> None:
    _, url = usual
    with Caller(url) as caller:
        answer = caller.send(NEXT.replace(b"next", path) + NEXT).read()

    assert b"content-length: 20\r\n" in answer
    assert answer.endswith(b"\r\n\r\n1")


def test_a_new_connection_is_served_after_all_of_that(
    usual: tuple[StandIn, str],
) -> None:
    _, url = usual
    with Caller(url) as caller:
        answer = caller.send(NEXT + NEXT).read(lambda data: data.count(b"/next ") > 1)

    assert [200, 200] == statuses(answer)
    assert 2 == answer.count(b"date: ")


def test_a_bad_body_behind_a_call_that_waits_is_refused_in_its_turn() -> None:
    with serve() as (app, url), Caller(url) as caller:
        caller.send(NEXT.replace(b"next", b"hold"))
        assert app.entered.wait(1)
        caller.send(POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + NEXT)
        app.let_go_on()
        answer = caller.read()

    assert [200, 400] == statuses(answer)
    assert ["/hold"] == [call["path"] for call in app.calls]


def test_a_body_that_goes_on_after_its_answer_ends_the_connection() -> None:
    bounds = Bounds(most_unread=1000, linger_s=0.2)
    with serve(bounds) as (_, url), Caller(url) as caller:
        head = POST.replace(b"echo", b"early") + b"Content-Length: 1000\r\n\r\n"
        caller.send(head).read(ends_with(b"early"))
        again = POST.replace(b"echo", b"early")
        caller.send(b"x" * 1000 + again + b"Transfer-Encoding: chunked\r\n\r\n")
        answer = caller.read(ends_with(b"early"))
        caller.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        rest = caller.read()

    assert [413] == statuses(answer)
    assert b"connection: close\r\n" in answer
    assert b"" == rest


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 2000", b"x" * 2000),
        (b"Transfer-Encoding: chunked", b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n"),
    ],
)
def test_an_app_may_have_more_of_a_body_thrown_away(
    framing: bytes, body: bytes
) -> None:
    bounds = Bounds(most_unread=1000, linger_s=0.2)
    with serve(bounds) as (_, url), Caller(url) as caller:
        head = POST.replace(b"echo", b"early?unread=2000") + framing + b"\r\n\r\n"
        answers = [caller.send(head).read(ends_with(b"early"))]
        answers.append(caller.send(body + head).read(ends_with(b"early")))
        answers.append(caller.send(body + NEXT).read(ends_with(b"/next ")))

    assert [413, 413, 200] == statuses(b"".join(answers))
    assert b"connection: close" not in b"".join(answers)


def test_chunks_beyond_what_an_app_has_thrown_away_end_the_connection() -> None:
    bounds = Bounds(most_unread=1000, linger_s=0.2)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    with serve(bounds) as (_, url), Caller(url) as caller:
        head = POST.replace(b"echo", b"early?unread=2000") + chunked
        answer = caller.send(head).read(ends_with(b"early"))
        rest = caller.send(b"7d1\r\n" + b"x" * 2001 + b"\r\n").read()

    assert b"connection: close" not in answer
    assert b"" == rest
