"""What passes through the gateway arrives as it was sent, byte by byte."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.faults.scripted import Asked, scripted
from tests.gateway import gates
from tests.gateway.gates import MESSAGES, SECRET, account, gate

ASKED = {"model": "gpt-4o", "max_tokens": 5, "stream": True, "messages": MESSAGES}
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]%b}\n\n'
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
TOLD = CHUNK % b',"usage":null' + LAST + DONE


def said(head: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {head}\r\n\r\n".encode() + body


def ask(url: str, body: bytes, *headers: bytes) -> bytes:
    """Send bytes as no client would, and return those of the answer."""
    host, port = url.removeprefix("http://").split(":")
    head = [
        b"POST /v1/chat/completions HTTP/1.1",
        b"host: x",
        b"connection: close",
        b"authorization: Bearer " + SECRET.encode(),
        b"content-length: %d" % len(body),
        *headers,
    ]
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"\r\n".join(head) + b"\r\n\r\n" + body)
        answer = b""
        while part := sock.recv(1 << 16):
            answer += part
    return answer


def through(
    folder: Path, answer: bytes, body: bytes, *headers: bytes
) -> tuple[Asked, bytes]:
    """Return what the provider got, and what its caller."""

    def script(sock: socket.socket, _: Asked) -> bool:
        sock.sendall(answer)
        return True

    with scripted(script) as upstream:
        config = gates.config(folder, {"openai": account(upstream.url)})
        with gate(config) as it:
            got = ask(it.url, body, *headers)
    return upstream.asked[0], got


ANSWER = said("200 OK\r\ncontent-type: application/json\r\ncontent-length: 2", b"{}")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_a_body_of_any_encoding_stays_one(tmp_path: Path, encoding: str) -> None:
    body = json.dumps(ASKED).encode(encoding)
    asked, _ = through(tmp_path, ANSWER, body)
    read = json.loads(asked.body)

    assert ASKED == {k: v for k, v in read.items() if k != "stream_options"}


def test_a_header_beyond_ascii_arrives_as_it_was(tmp_path: Path) -> None:
    asked, _ = through(tmp_path, ANSWER, b"{}", "x-title: Bücher".encode())

    assert "x-title: Bücher".encode() in asked.head


def test_a_header_that_no_client_of_ours_could_write_is_left_out(
    tmp_path: Path,
) -> None:
    asked, got = through(tmp_path, ANSWER, b"{}", b"x-title: B\xfccher", b"x-other: 1")

    assert b"200" == got[9:12]
    assert b"x-title" not in asked.names
    assert b"x-other" in asked.names


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("length", ["", "\r\ncontent-length: 0"])
def test_an_answer_without_a_body_says_no_length(
    tmp_path: Path, status: str, length: str
) -> None:
    _, got = through(tmp_path, said(f"{status}\r\nx-seen: 1{length}"), b"{}")
    head, _, body = got.partition(b"\r\n\r\n")

    assert f"HTTP/1.1 {status}".encode() == head.split(b"\r\n")[0]
    assert b"x-seen: 1" in head
    assert b"content-length" not in head.lower()
    assert b"transfer-encoding" not in head.lower()
    assert b"" == body


@pytest.mark.parametrize("stream", [True, "true", 1])
@pytest.mark.parametrize(
    "framing", ["content-length: %d", "connection: close\r\nx: %d"]
)
def test_nobody_sees_usage_that_only_the_gateway_asked_for(
    tmp_path: Path, stream: object, framing: str
) -> None:
    """However the stream is framed, and however its caller writes that it is one."""
    head = "200 OK\r\ncontent-type: text/event-stream\r\n" + framing % len(TOLD)

    def script(sock: socket.socket, _: Asked) -> bool:
        sock.sendall(said(head, TOLD))
        return "content-length" in framing

    with scripted(script) as upstream:
        config = gates.config(tmp_path, {"openai": account(upstream.url)})
        with gate(config) as it, it.client() as client:
            reply = it.chat(client, stream=stream)

    assert b'"include_usage":true' in upstream.asked[0].body
    assert CHUNK % b"" + DONE == reply.content
