"""Providers that misbehave: the caller is told, nothing leaks, and all is settled."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ratekeeper.client.pool import Pool
from ratekeeper.gateway.app import Gateway
from ratekeeper.gateway.run import serving
from tests.faults.scripted import Asked, Script, Scripted, scripted
from tests.gateway import gates
from tests.gateway.gates import Gate, account, client_key, gate
from tests.gateway.stand_in import Caller

LIMITS = ["100k rpm", "100M tpm", "40 concurrent"]
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
BODY = b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 5}}'
EVENT = b'data: {"choices": [{"delta": {"content": "hello"}}]}\n\n'
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def sized(body: bytes, head: bytes = PLAIN) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def saying(*parts: bytes) -> Script:
    def script(sock: socket.socket, asked: Asked) -> None:
        del asked
        for part in parts:
            sock.sendall(part)

    return script


def ask(it: Gate, *, stream: bool = False) -> bytes:
    """Send a call and return the bytes of its answer."""
    asked = {
        "model": "gpt-4o",
        "max_tokens": 400,
        "stream": stream,
        "messages": gates.MESSAGES,
    }
    body = json.dumps(asked).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
        f"authorization: Bearer {gates.SECRET}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with Caller(it.url) as caller:
        return caller.send(head.encode() + body).read()


def settled(it: Gate) -> dict[str, int]:
    """Return what the caller's limits count once no call is open."""
    until = time.monotonic() + 5
    while it.gateway.open_calls and time.monotonic() < until:
        time.sleep(0.005)
    caller = it.gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    rows = it.gateway.store.status(*caller.targets[0])
    names = ("requests", "tokens", "slots")
    return {name: int(row.used) for name, row in zip(names, rows, strict=True)}


Start = Callable[[Script], tuple[Gate, Scripted]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    from contextlib import ExitStack

    with ExitStack() as stack:

        def begin(script: Script) -> tuple[Gate, Scripted]:
            provider = stack.enter_context(scripted(script))
            config = gates.config(
                tmp_path,
                {"openai": account(provider.url)},
                [client_key(limits=LIMITS)],
            )
            return stack.enter_context(gate(config)), provider

        yield begin


# What is no answer, or none that can be passed on.
NO_ANSWERS = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\ncont",
    "garbage": b"\0\xff\x12\r\n\r\n",
    "another HTTP": b"HTTP/2 200\r\n\r\n",
    "a megabyte of one header": sized(
        b"{}", PLAIN + b"x: " + b"a" * 1_000_000 + b"\r\n"
    ),
    "20,000 headers": sized(b"{}", PLAIN + b"x: a\r\n" * 20_000),
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + sized(BODY),
    "an offered switch": b"HTTP/1.1 101 Switching Protocols\r\n"
    b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "a status that is none": b"HTTP/1.1 099 Huh\r\ncontent-length: 2\r\n\r\n{}",
    "two lengths": PLAIN + b"content-length: 5\r\ncontent-length: 7\r\n\r\nhello",
    "a negative length": PLAIN + b"content-length: -5\r\n\r\nhello",
    "less than it said": PLAIN + b"content-length: 200\r\n\r\n" + BODY,
    "length and chunks": PLAIN
    + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    + chunk(BODY)
    + LAST,
    "a control character": sized(BODY, PLAIN + b"x: a\x01b\r\n"),
}


@pytest.mark.parametrize("said", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_is_a_502_in_the_callers_words(
    start: Start, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    it, _ = start(saying(said))
    answer = ask(it)
    used = settled(it)

    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b'"code":"provider_unreachable"' in answer
    assert (1, 0) == (used["requests"], used["slots"])
    assert not [one for one in caplog.records if one.exc_info]
    assert "failed with" not in caplog.text


# What begins well and then breaks: it must be seen to be broken.
BROKEN = {
    "cut amid a chunk": (chunk(EVENT) * 3, b"50\r\ndata: {"),
    "cut between chunks": (chunk(EVENT) * 3,),
    "a chunk that is none": (chunk(EVENT) * 3, b"zz\r\nfoo\r\n"),
}


@pytest.mark.parametrize("parts", BROKEN.values(), ids=BROKEN)
def test_a_stream_that_breaks_is_broken_for_its_caller_too(
    start: Start, parts: tuple[bytes, ...]
) -> None:
    def script(sock: socket.socket, asked: Asked) -> None:
        del asked
        sock.sendall(STREAM)
        for part in parts:
            sock.sendall(part)
            time.sleep(0.1)

    it, _ = start(script)
    answer = ask(it, stream=True)
    used = settled(it)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert 3 == answer.count(b"hello")
    assert not answer.endswith(LAST)
    assert 0 == used["slots"]
    assert 1 <= used["tokens"] < 400  # what flowed, not what was held


def most_kb(*, anew: bool = False) -> int:
    """Return the most memory this process has had, from now on with `anew`."""
    with contextlib.suppress(OSError):  # Linux alone can say it anew
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        fields = Path("/proc/self/status").read_text().split()
        return int(fields[fields.index("VmHWM:") + 1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bomb(megabytes: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        for _ in range(megabytes):
            file.write(b"\0" * (1 << 20))
    return packed.getvalue()


# What is odd, and passes all the same.
PASSING = {
    "words before the answer": b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + sized(BODY),
    "no length": PLAIN + b"\r\n" + BODY,
    "a header in Latin-1": sized(BODY, PLAIN + b"x: \xff\xfe\r\n"),
    "text that is not UTF-8": STREAM + chunk(b"data: \xff\xfe\n\n\0\n\n") + LAST,
    "JSON 100,000 deep": sized(b"[" * 100_000 + b"]" * 100_000),
    "usage that is no number": sized(b'{"usage": {"prompt_tokens": NaN}}'),
    "usage beyond reason": sized(
        b'{"usage": {"prompt_tokens": 999999999999999999, "completion_tokens": 1e308}}'
    ),
    "a bomb": sized(bomb(100), PLAIN + b"content-encoding: gzip\r\n"),
    "100,000 chunks": STREAM + chunk(EVENT) * 100_000 + LAST,
}


@pytest.mark.parametrize("said", PASSING.values(), ids=PASSING)
def test_an_odd_answer_passes_and_its_call_is_settled(
    start: Start, said: bytes
) -> None:
    it, _ = start(saying(said))
    before_kb = most_kb(anew=True)
    answer = ask(it)
    grown_kb = most_kb() - before_kb
    used = settled(it)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (1, 0) == (used["requests"], used["slots"])
    assert 1 <= used["tokens"] <= 1000
    assert grown_kb < 60 * 1024


def test_what_comes_after_an_answer_is_nobodys_answer(start: Start) -> None:
    def script(sock: socket.socket, asked: Asked) -> bool:
        del asked
        sock.sendall(sized(BODY) + sized(b"POISON"))
        return True

    it, provider = start(script)
    answers = [ask(it) for _ in range(3)]

    assert 3 == provider.connections
    assert not [one for one in answers if b"POISON" in one]


def test_a_limit_that_is_told_amid_a_stream_is_heeded(start: Start) -> None:
    said = {"message": "Rate limit reached", "code": "rate_limit_exceeded"}
    error = b"data: " + json.dumps({"error": said}).encode() + b"\n\n"

    it, provider = start(saying(STREAM + chunk(EVENT) + chunk(error) + LAST))
    answer = ask(it, stream=True)
    begun = time.monotonic()
    ask(it, stream=True)

    assert error in answer
    assert 2 == len(provider.asked)
    assert time.monotonic() - begun > 0.5  # the account's limits were paused


def test_a_connection_that_is_closed_as_it_is_used_is_told_and_paid_for(
    start: Start,
) -> None:
    calls = 0

    def script(sock: socket.socket, asked: Asked) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            return False  # closed, unanswered, as idle connections are
        sock.sendall(sized(BODY))
        return True

    it, provider = start(script)
    answers = [ask(it)[:12] for _ in range(3)]
    used = settled(it)

    assert [b"HTTP/1.1 200", b"HTTP/1.1 502", b"HTTP/1.1 200"] == answers
    assert 3 == len(provider.asked)  # nothing is sent twice that may have been done
    assert (3, 0) == (used["requests"], used["slots"])


class Impatient(Gateway):
    """A gateway that waits for no provider longer than a fifth of a second."""

    async def start(self) -> None:
        await super().start()
        await self.pool.close()
        self.pool = Pool(silence_s=0.2)
        self._parts.push_async_callback(self.pool.close)


@pytest.mark.parametrize("said", [b"", STREAM + chunk(EVENT)])
def test_a_provider_that_falls_silent_is_given_up(tmp_path: Path, said: bytes) -> None:
    def script(sock: socket.socket, asked: Asked) -> None:
        del asked
        sock.sendall(said)
        sock.recv(1)  # until the gateway hangs up

    with scripted(script) as provider:
        config = gates.config(
            tmp_path, {"openai": account(provider.url)}, [client_key(limits=LIMITS)]
        )
        gateway = Impatient(config, environ=gates.ENVIRON)
        with serving(gateway) as url:
            it = Gate(url, gateway)
            answer = ask(it, stream=True)
            used = settled(it)

    if said:
        assert b"hello" in answer
        assert not answer.endswith(LAST)
    else:
        assert answer.startswith(b"HTTP/1.1 504 ")
    assert 0 == used["slots"]
    assert used["tokens"] > 0


def test_an_answer_that_drips_is_passed_on_drop_by_drop(start: Start) -> None:
    def script(sock: socket.socket, asked: Asked) -> None:
        del asked
        for at in range(len(sized(BODY))):
            sock.sendall(sized(BODY)[at : at + 1])
            time.sleep(0.001)

    it, _ = start(script)

    assert ask(it).endswith(BODY)
    assert 10 == settled(it)["tokens"]


def test_a_provider_that_is_not_read_is_held_back(start: Start) -> None:
    sent = 0

    def script(sock: socket.socket, asked: Asked) -> None:
        nonlocal sent
        del asked
        sock.sendall(STREAM)
        piece = chunk(EVENT * 1000)
        while sent < 256 << 20:
            sock.sendall(piece)
            sent += len(piece)

    it, provider = start(script)
    body = json.dumps({"model": "gpt-4o", "stream": True, "messages": gates.MESSAGES})
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
        f"authorization: Bearer {gates.SECRET}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with Caller(it.url, buffer=4096) as caller:
        caller.send((head + body).encode())
        caller.socket.recv(1)
        before = -1
        while sent != before:
            before = sent
            time.sleep(0.3)
    settled(it)

    assert sent < 16 << 20  # what kernels hold of it
    assert 1 == len(provider.asked)


def test_a_gateway_ends_with_its_providers_silent(tmp_path: Path) -> None:
    def script(sock: socket.socket, asked: Asked) -> None:
        del asked
        sock.recv(1)

    with scripted(script) as provider:
        config = gates.config(tmp_path, {"openai": account(provider.url)})
        with gate(config) as it, Caller(it.url) as caller:
            caller.send(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
                b"authorization: Bearer " + gates.SECRET.encode() + b"\r\n"
                b'content-length: 19\r\n\r\n{"model": "gpt-4o"}'
            )
            until = time.monotonic() + 5
            while not provider.asked and time.monotonic() < until:
                time.sleep(0.005)
            begun = time.monotonic()
    took = time.monotonic() - begun

    assert took < 5
    assert 0 == it.gateway.open_calls


@pytest.mark.parametrize("size", [1000, 200_000, 5_000_000])
@pytest.mark.parametrize("framing", ["chunks", "length", "end"])
def test_a_slow_reader_gets_all_of_a_provider_that_has_hung_up(
    start: Start, size: int, framing: str
) -> None:
    body = b'{"x": "' + b"y" * size + b'"}'
    said = {
        "chunks": STREAM
        + b"".join(chunk(body[at : at + 7000]) for at in range(0, len(body), 7000))
        + LAST,
        "length": sized(body),
        "end": PLAIN + b"\r\n" + body,
    }[framing]
    it, _ = start(saying(said))
    asked = b'{"model": "gpt-4o"}'
    head = (
        "POST /v1/chat/completions HTTP/1.0\r\nhost: gateway\r\n"
        f"authorization: Bearer {gates.SECRET}\r\ncontent-length: {len(asked)}\r\n\r\n"
    )
    got = b""
    with Caller(it.url, buffer=4096) as caller:
        caller.send(head.encode() + asked)
        time.sleep(0.3)
        while part := caller.socket.recv(1 << 16):
            got += part

    assert body == got.partition(b"\r\n\r\n")[2]
