"""Requests made to deceive: refused, or one request at the provider with one meaning."""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scripted import Asked, Scripted, scripted
from tests.gateway import gates
from tests.gateway.gates import Gate, account, client_key, gate
from tests.gateway.stand_in import Caller
from tests.gateway.test_http import CODED, PROBES

ANSWER = json.dumps(
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 5}}
).encode()
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    b"Authorization: Bearer " + gates.SECRET.encode() + b"\r\n"
)
REST = b'"messages": [{"role": "user", "content": "Say hello"}]}'
CAP = 1024 * 1024
KERNELS = 8 * 1024 * 1024  # what may be under way on both sides of a connection


def answered(sock: socket.socket, asked: Asked) -> bool:
    del asked
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    sock.sendall(head + b"content-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
    return True


@pytest.fixture(scope="module")
def provider() -> Iterator[Scripted]:
    with scripted(answered) as it:
        yield it


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory, provider: Scripted) -> Iterator[Gate]:
    limits = ["100k rpm", "100M tpm", "1000 USD/day"]
    keys = [client_key(allow_models=["gpt-4o*"], limits=limits)]
    folder: Path = tmp_path_factory.mktemp("gate")
    config = gates.config(
        folder, {"openai": account(provider.url)}, keys, max_body="1MiB"
    )
    with gate(config) as running:
        yield running


def ask(it: Gate, body: bytes, *headers: bytes) -> tuple[int, bytes]:
    """Send a body; return the status and the answer."""
    said = b"".join(header + b"\r\n" for header in headers)
    head = HEAD + said + b"Content-Length: %d\r\n" % len(body)
    with Caller(it.url) as caller:
        answer = caller.send(head + b"Connection: close\r\n\r\n" + body).read()
    return int(answer[9:12]), answer


@pytest.mark.parametrize(
    "probe",
    [*PROBES.values(), *(probe for _, probe in CODED.values())],
    ids=[*PROBES, *CODED],
)
def test_nothing_is_smuggled_to_the_provider(
    it: Gate, provider: Scripted, probe: bytes
) -> None:
    before = len(provider.asked)
    with Caller(it.url) as caller:
        answer = caller.send(probe + HEAD + b"Content-Length: 0\r\n\r\n").read()

    assert re.match(rb"HTTP/1\.1 4\d\d ", answer)
    assert 1 == len(re.findall(rb"HTTP/1\.1 \d", answer))
    assert before == len(provider.asked)


# The key may use gpt-4o and its kin. Parsers of JSON differ: some take the first of two
# names, some the last, some put up with letters that are escaped or of another case.
TWO_MODELS = {
    "the allowed one last": b'{"model": "o9", "model": "gpt-4o", ',
    "the allowed one first": b'{"model": "gpt-4o", "model": "o9", ',
    "one behind an escape": b'{"mod\\u0065l": "o9", "model": "gpt-4o", ',
    "both behind an escape": b'{"\\u006Dodel": "o9", "mode\\u006C": "gpt-4o", ',
    "one of another case": b'{"Model": "o9", "model": "gpt-4o", ',
    "beside what is no number": b'{"t": NaN, "model": "o9", "model": "gpt-4o", ',
    "two bounds": b'{"model": "gpt-4o", "max_tokens": 9, "max_tokens": 9999, ',
    "two bounds, hidden": b'{"model": "gpt-4o", "max_tokens":9,"max\\u005ftokens":99, ',
    "two numbers of answers": b'{"model": "gpt-4o", "n": 1, "n": 100, ',
    "two objects of bounds": b'{"model": "gpt-4o", "x": {"max": 1}, "x": {"max": 2}, ',
}


@pytest.mark.parametrize("start", TWO_MODELS.values(), ids=TWO_MODELS)
def test_a_body_that_says_two_things_is_refused(
    it: Gate, provider: Scripted, start: bytes
) -> None:
    before = len(provider.asked)
    status, _ = ask(it, start + REST)

    assert 400 == status
    assert before == len(provider.asked)


def test_a_body_that_says_two_things_in_utf_16_is_refused(
    it: Gate, provider: Scripted
) -> None:
    before = len(provider.asked)
    text = (TWO_MODELS["the allowed one last"] + REST).decode()
    status, _ = ask(it, text.encode("utf-16"))

    assert 400 == status
    assert before == len(provider.asked)


NO_NAMES = {
    "a NUL": b'"gpt-4o\\u0000"',
    "a line end": b'"gpt-4o\\n"',
    "half of a surrogate pair": b'"gpt-4o\\ud800"',
    "a direction": b'"gpt-4o\\u202e"',
    "5,000 characters": b'"gpt-4o' + b"x" * 5000 + b'"',
    "nothing": b"null",
}
NO_WORDS = {"a number": b"4", "a list": b'["gpt-4o"]'}


@pytest.mark.parametrize("name", NO_NAMES.values(), ids=NO_NAMES)
def test_a_model_that_is_no_name_is_refused_and_harms_nobody(
    it: Gate, provider: Scripted, name: bytes
) -> None:
    before = len(provider.asked)
    status, _ = ask(it, b'{"model": ' + name + b", " + REST)
    after, _ = ask(it, b'{"model": "gpt-4o", ' + REST)

    assert (400, 200) == (status, after)
    assert before + 1 == len(provider.asked)


@pytest.mark.parametrize("name", NO_WORDS.values(), ids=NO_WORDS)
def test_a_model_that_is_no_word_is_none_that_a_key_may_use(
    it: Gate, provider: Scripted, name: bytes
) -> None:
    before = len(provider.asked)
    status, _ = ask(it, b'{"model": ' + name + b", " + REST)

    assert 403 == status
    assert before == len(provider.asked)


OTHERS = {
    "in Greek letters that look alike": '{"model": "gpt-4ο", '.encode(),
    "escaped": b'{"model": "\\u006f9", ',
    "after a byte order mark": b'\xef\xbb\xbf{"model": "o9", ',
    "in UTF-16": '{"model": "o9"}'.encode("utf-16"),
}


@pytest.mark.parametrize("start", OTHERS.values(), ids=OTHERS)
def test_a_model_that_is_not_allowed_is_not_to_be_disguised(
    it: Gate, provider: Scripted, start: bytes
) -> None:
    before = len(provider.asked)
    status, _ = ask(it, start + (b"" if b"\0" in start else REST))

    assert 403 == status
    assert before == len(provider.asked)


UNREADABLE = {
    "100,000 deep": b'{"model": "gpt-4o", "x": ' + b"[" * 100_000 + b"]" * 100_000,
    "never closed": b"[" * 200_000,
    "two documents": b'{"model": "gpt-4o"}{"model": "o9"}',
    "a number of 5,000 digits": b'{"model": "gpt-4o", "n": ' + b"9" * 5000 + b"}",
    "not UTF-8": b'{"model": "gpt-4o\xff"}',
    "with a comment": b'{/*"model": "gpt-4o",*/ "model": "o9"}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_a_body_that_cannot_be_read_is_no_way_round_the_allowed_models(
    it: Gate, provider: Scripted, body: bytes
) -> None:
    before = len(provider.asked)
    status, _ = ask(it, body)

    assert 400 == status
    assert before == len(provider.asked)


def test_a_body_that_is_packed_is_refused_unread(it: Gate, provider: Scripted) -> None:
    before = len(provider.asked)
    bomb = gzip.compress(b'{"model": "gpt-4o", "x": "' + b"x" * 10_000_000 + b'"}')
    status, _ = ask(it, bomb, b"Content-Encoding: gzip")

    assert 400 == status
    assert before == len(provider.asked)


def test_a_body_with_odd_numbers_passes_as_it_is(it: Gate, provider: Scripted) -> None:
    odd = b'{"model": "gpt-4o", "stream": "no", "max_tokens": -5, "t": NaN, ' + REST
    status, _ = ask(it, odd)

    assert 200 == status
    assert odd == provider.asked[-1].body


def test_a_gigabyte_announced_is_refused_at_once(it: Gate, provider: Scripted) -> None:
    before = len(provider.asked)
    with Caller(it.url) as caller:
        answer = caller.send(HEAD + b"Content-Length: 1000000000\r\n\r\n").read()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert before == len(provider.asked)


def test_a_body_without_end_is_read_to_the_bound_and_little_more(
    it: Gate, provider: Scripted
) -> None:
    before, sent = len(provider.asked), 0
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with Caller(it.url) as caller:
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        caller.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        caller.socket.settimeout(0.5)
        try:
            while sent < 64 * CAP:
                caller.socket.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        answer = caller.read()

    assert not answer or answer.startswith(b"HTTP/1.1 413 ")
    assert sent <= CAP + 64 * 1024 + KERNELS
    assert before == len(provider.asked)
    assert 0 == it.gateway.held.bytes


def test_what_belongs_to_one_connection_or_caller_does_not_go_on(
    it: Gate, provider: Scripted
) -> None:
    hops = (
        b"Connection: close, x-secret-hop",
        b"X-Secret-Hop: 1",
        b"Keep-Alive: 5",
        b"Proxy-Authorization: Basic x",
        b"TE: trailers",
        b"Trailer: x",
        b"Upgrade: h2c",
        b"Via: 1.1 a",
        b"Forwarded: for=a",
        b"X-Forwarded-For: a",
        b"Cookie: a=b",
        b"Accept-Encoding: gzip",
        b"X-Kept: yes",
    )
    body = b'{"model": "gpt-4o", ' + REST
    said = b"".join(hop + b"\r\n" for hop in hops)
    with Caller(it.url) as caller:
        caller.send(HEAD + said + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        caller.read()
    got = provider.asked[-1]

    assert body == got.body
    assert gates.SECRET.encode() not in got.head
    assert b"x-kept" in got.names
    assert [gates.UPSTREAM_KEY.encode()] == re.findall(rb"Bearer (\S+)", got.head)
    assert not {hop.partition(b":")[0].lower() for hop in hops[1:-1]} - {
        b"accept-encoding"
    } & {*got.names}
    assert b"accept-encoding: identity" in got.head.lower()
    assert 1 == got.names.count(b"host")
