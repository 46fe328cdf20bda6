"""Every way in which no answer can come, on real sockets."""

from __future__ import annotations

import contextlib
import pickle
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from ratekeeper import ProviderUnreachable
from tests.client import clients, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> clients.Opened:
    return clients.opener(kind)


def _unreachable(act: Callable[[], Any]) -> ProviderUnreachable:
    with pytest.raises(ProviderUnreachable) as caught:
        act()
    return caught.value


@contextlib.contextmanager
def _accepting(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Hand each connection to `serve`, on a port of 127.0.0.1."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_refused_connection_says_so_after_every_attempt(make: clients.Opened) -> None:
    port = clients.closed_port()
    with make(f"http://127.0.0.1:{port}/v1") as ai:
        error = _unreachable(ai.chat)

    assert ("refused", 3) == (error.reason, error.attempts)
    assert f"127.0.0.1:{port} refused the connection: check base_url=" in str(error)
    assert isinstance(error.__cause__, httpx2.ConnectError)


@pytest.mark.parametrize("name", ["nobody.invalid", "a..b", "a" * 64 + ".invalid"])
def test_a_name_that_does_not_exist_is_dns(make: clients.Opened, name: str) -> None:
    with make(f"http://{name}/v1", attempts=1) as ai:
        error = _unreachable(ai.chat)

    assert "dns" == error.reason
    assert f"{name} cannot be resolved" in str(error)


def test_a_certificate_nobody_signed_is_tls_and_is_not_tried_again(
    make: clients.Opened,
) -> None:
    context = clients.server_context()
    shakes = []

    def serve(connection: socket.socket) -> None:
        shakes.append(1)
        with context.wrap_socket(connection, server_side=True):
            pass

    with _accepting(serve) as port, make(f"https://127.0.0.1:{port}/v1") as ai:
        error = _unreachable(ai.chat)

    assert ("tls", 1, 1) == (error.reason, error.attempts, len(shakes))
    assert "SSL_CERT_FILE" in str(error)


def test_a_certificate_that_is_trusted_works(make: clients.Opened) -> None:
    context = clients.server_context()

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            wire.read_request(tls)  # all of it: what is left unread resets
            tls.sendall(wire.http(200, wire.completion()))

    with (
        _accepting(serve) as port,
        make(f"https://127.0.0.1:{port}/v1", verify=clients.client_context()) as ai,
    ):
        answer = ai.chat()

    assert "All is well." == answer["choices"][0]["message"]["content"]


def test_https_to_a_server_that_speaks_http_is_tls(make: clients.Opened) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(10)
        connection.sendall(wire.http(400))
        connection.recv(65536)

    with (
        _accepting(serve) as port,
        make(f"https://127.0.0.1:{port}/v1", attempts=1) as ai,
    ):
        error = _unreachable(ai.chat)

    assert "tls" == error.reason


def test_a_handshake_that_is_hung_up_on_is_tls(make: clients.Opened) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(10)

    with (
        _accepting(serve) as port,
        make(f"https://127.0.0.1:{port}/v1", attempts=1) as ai,
    ):
        error = _unreachable(ai.chat)

    assert "tls" == error.reason


def test_a_dead_proxy_is_named_without_its_password(make: clients.Opened) -> None:
    port = clients.closed_port()
    proxy = f"http://user:pa55word@127.0.0.1:{port}"
    with make("https://api.example.com/v1", proxy=proxy, attempts=1) as ai:
        error = _unreachable(ai.chat)

    assert "proxy" == error.reason
    assert f"the proxy 127.0.0.1:{port} did not connect to api.example.com" in str(
        error
    )
    assert "pa55word" not in str(error)


def test_a_proxy_that_wants_to_know_who_asks_is_proxy(make: clients.Opened) -> None:
    with wire.Wire(wire.http(407)) as server:
        proxy = server.url.removesuffix("/v1")
        with make("https://api.example.com/v1", proxy=proxy, attempts=1) as ai:
            error = _unreachable(ai.chat)

    assert "proxy" == error.reason


def test_the_proxy_of_the_environment_is_used_and_named(
    make: clients.Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = clients.closed_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "")
    with make("https://api.example.com/v1", attempts=1) as ai:
        error = _unreachable(ai.chat)

    assert "proxy" == error.reason
    assert f"127.0.0.1:{port}" in str(error)


def test_a_host_that_takes_no_connection_is_a_connect_timeout(
    make: clients.Opened,
) -> None:
    with (
        clients.deaf_port() as port,
        make(f"http://127.0.0.1:{port}/v1", connect_timeout=0.1, attempts=2) as ai,
    ):
        error = _unreachable(ai.chat)

    assert ("connect-timeout", 2) == (error.reason, error.attempts)
    assert "within 0.1 s" in str(error)


def test_silence_is_a_read_timeout_that_says_what_to_do(make: clients.Opened) -> None:
    with (
        wire.Wire(wire.Script(5.0)) as server,
        make(server.url, read_timeout=0.1) as ai,
    ):
        error = _unreachable(ai.chat)
        sent = len(server.requests)

    assert ("read-timeout", 1, 1) == (error.reason, error.attempts, sent)
    assert "stream, lower max_tokens, or raise read_timeout=" in str(error)


@pytest.mark.parametrize("silent", ["read", "connect"])
def test_silence_ends_at_the_deadline_where_that_is_sooner(
    make: clients.Opened, silent: str
) -> None:
    with clients.deaf_port() as port, wire.Wire(wire.Script(5.0)) as server:
        url = server.url if silent == "read" else f"http://127.0.0.1:{port}/v1"
        with make(url, timeout=0.2) as ai:
            began = time.perf_counter()
            error = _unreachable(ai.chat)
            took = time.perf_counter() - began

    assert f"{silent}-timeout" == error.reason
    assert 0.19 < took < 1.0


def test_an_answer_that_drips_ends_at_the_deadline(make: clients.Opened) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    drips: list[bytes | float] = [head]
    for _ in range(100):
        drips += [b" ", 0.02]
    with wire.Wire(wire.Script(*drips)) as server, make(server.url, timeout=0.3) as ai:
        began = time.perf_counter()
        error = _unreachable(ai.chat)
        took = time.perf_counter() - began

    assert "read-timeout" == error.reason
    assert "raise timeout=" in str(error)
    assert 0.29 < took < 1.0


def test_no_free_connection_is_a_pool_timeout(kind: str, make: clients.Opened) -> None:
    few = httpx2.Limits(max_connections=1)
    library = httpx2.HTTPTransport if kind == "sync" else httpx2.AsyncHTTPTransport
    begun = [wire.STREAM_HEAD, *wire.chunked(*wire.events(wire.delta("a")), end=False)]
    with (
        wire.Wire(wire.Script(*begun, 5.0)) as server,
        make(server.url, transport=library(limits=few), timeout=0.2) as ai,
    ):
        options: Any = {**clients.CHAT, "stream": True}
        stream = ai.do(lambda client: client.chat_completion(**options))
        error = _unreachable(ai.chat)
        ai.do(lambda _: stream.close())

    assert "pool-timeout" == error.reason
    assert "lower the concurrency" in str(error)


BROKEN = {
    "hung up without a word": wire.Script(end="close"),
    "reset without a word": wire.Script(end="reset"),
    "not HTTP at all": wire.Script(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n", end="close"),
    "cut in the headers": wire.Script(b"HTTP/1.1 200 OK\r\ncont", end="close"),
    "cut in the body": wire.Script(
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", end="close"
    ),
    "reset in the body": wire.Script(
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", end="reset"
    ),
    "chunks of nonsense": wire.Script(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n", end="close"
    ),
    "damaged compression": wire.Script(
        wire.http(200, b"no gzip at all", "content-encoding: gzip")
    ),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
def test_what_breaks_after_sending_is_broken_and_is_not_paid_for_twice(
    make: clients.Opened, script: wire.Script
) -> None:
    with wire.Wire(script) as server, make(server.url) as ai:
        error = _unreachable(ai.chat)
        sent = len(server.requests)

    assert ("broken", 1, 1) == (error.reason, error.attempts, sent)


def test_a_lost_answer_is_asked_for_again_where_told_so(make: clients.Opened) -> None:
    scripts: list[wire.Script | bytes] = [
        wire.Script(end="close"),
        wire.http(200, wire.completion()),
    ]
    with wire.Wire(*scripts) as server, make(server.url, resend_lost=True) as ai:
        answer = ai.chat()
        sent = len(server.requests)

    assert 2 == sent
    assert 13 == answer["usage"]["total_tokens"]


def test_a_lost_get_is_asked_for_again(make: clients.Opened) -> None:
    scripts: list[wire.Script | bytes] = [
        wire.Script(end="close"),
        wire.http(200, b'{"data":[]}'),
    ]
    with wire.Wire(*scripts) as server, make(server.url) as ai:
        answer = ai.do(lambda client: client.request("GET", "/models"))

    assert {"data": []} == answer


def test_an_error_whose_body_breaks_off_is_still_that_error(
    make: clients.Opened,
) -> None:
    cut = b"HTTP/1.1 529 x\r\ncontent-length: 100\r\n\r\n{"
    scripts: list[wire.Script | bytes] = [
        wire.Script(cut, end="close"),
        wire.http(200, wire.completion()),
    ]
    with wire.Wire(*scripts) as server, make(server.url) as ai:
        answer = ai.chat()

    assert 13 == answer["usage"]["total_tokens"]


def test_a_stream_cut_after_delivery_delivers_what_came_and_is_not_sent_again(
    make: clients.Opened,
) -> None:
    parts = wire.chunked(*wire.events(wire.delta("a"), wire.delta("b"), done=False))
    script = wire.Script(wire.STREAM_HEAD, *parts[:-1], end="reset")
    got: list[Any] = []
    with wire.Wire(script) as server, make(server.url, resend_lost=True) as ai:

        def read() -> None:
            got.extend(ai.chunks(1))
            ai.chunks()

        error = _unreachable(read)
        sent = len(server.requests)

    assert ["a"] == [chunk["choices"][0]["delta"]["content"] for chunk in got]
    assert ("broken", 2) == (error.reason, sent)
    assert "part of the stream had been delivered" in str(error)


def test_a_stream_cut_before_its_first_chunk_is_asked_for_again_where_told_so(
    make: clients.Opened,
) -> None:
    whole = wire.chunked(*wire.events(wire.delta("a")))
    scripts: list[wire.Script | bytes] = [
        wire.Script(wire.STREAM_HEAD, end="reset"),
        wire.Script(wire.STREAM_HEAD, *whole),
    ]
    with wire.Wire(*scripts) as server, make(server.url, resend_lost=True) as ai:
        got = ai.chunks()

    assert 1 == len(got)


def test_a_stream_without_a_first_chunk_ends_at_the_deadline(
    make: clients.Opened,
) -> None:
    comments = [wire.STREAM_HEAD]
    script: list[bytes | float] = [*comments]
    for _ in range(100):
        script += [*wire.chunked(b": keep-alive\n\n", end=False), 0.02]
    with wire.Wire(wire.Script(*script)) as server, make(server.url, timeout=0.3) as ai:
        began = time.perf_counter()
        error = _unreachable(ai.chunks)
        took = time.perf_counter() - began

    assert "read-timeout" == error.reason
    assert 0.29 < took < 1.0


def test_a_failure_survives_pickling(make: clients.Opened) -> None:
    with make(f"http://127.0.0.1:{clients.closed_port()}/v1") as ai:
        error = _unreachable(ai.chat)

    twin = pickle.loads(pickle.dumps(error))

    assert (str(error), error.reason, error.attempts) == (
        str(twin),
        twin.reason,
        twin.attempts,
    )
