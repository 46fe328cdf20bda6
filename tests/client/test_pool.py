"""The pool: bytes out, bytes back, and every way a call can fail to be answered."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from ratekeeper.client.pool import Pool, Silence, Unreached, Unsent
from tests.client.clients import deaf_port


@contextlib.asynccontextmanager
async def _server(
    answer: bytes, *, reads: bool = True, wait_s: float = 0.0, after_s: float = 0.0
) -> AsyncIterator[tuple[str, list[bytes]]]:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n") if reads else b""
            seen.append(head)
            await asyncio.sleep(wait_s)
            writer.write(answer)
            await writer.drain()
            await asyncio.sleep(after_s)
        writer.close()
        with contextlib.suppress(ConnectionError, OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", seen
    finally:
        server.close()
        await asyncio.sleep(wait_s + after_s + 0.02)  # for its connections to close


@contextlib.asynccontextmanager
async def _pool(**options: Any) -> AsyncIterator[Pool]:
    pool = Pool(**options)
    try:
        yield pool
    finally:
        await pool.close()
        await asyncio.sleep(0.05)  # a handshake that failed is closed by a timer


def _answer(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", *fields, f"content-length: {len(body)}"])
    return head.encode() + b"\r\n\r\n" + body


async def _whole(pool: Pool, url: str, **options: Any) -> tuple[int, bytes]:
    answer = await pool.send("GET", url, [], **options)
    try:
        return answer.status, await answer.whole()
    finally:
        answer.close()


def test_every_reason_for_silence_has_words_for_the_operator() -> None:
    told = {str(Unreached("host", reason=why, was_sent=True)) for why in Silence}

    assert len(Silence) == len(told)


def test_bytes_come_back_as_they_were_sent() -> None:
    packed = b"\x1f\x8b not really packed \x00\xff"

    async def play() -> tuple[int, bytes]:
        reply = _answer(packed, "content-encoding: gzip")
        async with _server(reply) as (url, _), _pool() as pool:
            return await _whole(pool, f"{url}/v1/x")

    assert (200, packed) == asyncio.run(play())


def test_no_redirect_is_followed() -> None:
    async def play() -> None:
        reply = _answer(b"", "location: http://127.0.0.1:1/", status="302 Found")
        async with _server(reply) as (url, _), _pool() as pool:
            await _whole(pool, url)

    error = _unreached(play)

    assert "redirect" == error.reason
    assert error.was_sent


def test_no_cookie_is_kept() -> None:
    async def play() -> list[bytes]:
        reply = _answer(b"{}", "set-cookie: a=b", "connection: close")
        async with _server(reply) as (url, seen), _pool() as pool:
            await _whole(pool, url)
            await _whole(pool, url)
            return seen

    seen = asyncio.run(play())

    assert 2 == len(seen)
    assert b"cookie" not in seen[1].lower()


def test_the_environment_says_nothing_about_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async def play() -> tuple[int, bytes]:
        async with _server(_answer(b"ok")) as (url, _), _pool() as pool:
            return await _whole(pool, url)

    assert (200, b"ok") == asyncio.run(play())


def test_a_header_goes_out_as_it_was_given() -> None:
    async def play() -> bytes:
        async with _server(_answer(b"")) as (url, seen), _pool() as pool:
            given = [
                ("x-api-key", "k"),
                ("anthropic-beta", "a"),
                ("anthropic-beta", "b"),
            ]
            answer = await pool.send("POST", f"{url}/v1/a%20b?x=1", given, b"{}")
            answer.close()
            return seen[0]

    head = asyncio.run(play()).decode().lower()

    assert "post /v1/a%20b?x=1 http/1.1" in head
    assert "anthropic-beta: a\r\n" in head
    assert "anthropic-beta: b\r\n" in head
    assert "user-agent" not in head


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _unreached(play: Callable[[], Coroutine[Any, Any, None]]) -> Unreached:
    with pytest.raises(Unreached) as caught:
        asyncio.run(play())
    return caught.value


def test_where_nothing_listens_nothing_was_sent() -> None:
    async def play() -> None:
        async with _pool() as pool:
            await _whole(pool, f"http://127.0.0.1:{_free_port()}/")

    error = _unreached(play)

    assert ("refused", False) == (error.reason, error.was_sent)


def test_a_name_that_does_not_resolve_is_said_to_be_that() -> None:
    async def play() -> None:
        async with _pool() as pool:
            await _whole(pool, "http://no-such-host.invalid/")

    error = _unreached(play)

    assert ("dns", False) == (error.reason, error.was_sent)


def test_a_server_that_hangs_up_may_have_heard() -> None:
    async def play() -> None:
        async with _server(b"") as (url, _), _pool() as pool:
            await _whole(pool, url)

    error = _unreached(play)

    assert ("broken", True) == (error.reason, error.was_sent)


def test_silence_has_a_bound() -> None:
    async def play() -> None:
        async with _server(b"", wait_s=0.2) as (url, _), _pool(silence_s=0.05) as pool:
            await _whole(pool, url)

    error = _unreached(play)

    assert ("read-timeout", True) == (error.reason, error.was_sent)


def test_a_body_that_breaks_off_is_an_error() -> None:
    async def play() -> None:
        reply = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
        async with _server(reply) as (url, _), _pool() as pool:
            await _whole(pool, url)

    assert "broken" == _unreached(play).reason


def test_an_untrusted_certificate_is_said_to_be_that() -> None:
    async def play() -> None:
        async with _server(b"no tls here", reads=False) as (url, _), _pool() as pool:
            await _whole(pool, url.replace("http:", "https:"))

    assert "tls" == _unreached(play).reason


def test_a_proxy_that_is_not_there_is_blamed() -> None:
    async def play() -> None:
        async with _server(_answer(b"ok")) as (url, _), _pool() as pool:
            await _whole(pool, url, proxy=f"http://127.0.0.1:{_free_port()}")

    error = _unreached(play)

    assert ("proxy", False) == (error.reason, error.was_sent)


def test_a_message_names_the_host_and_no_secret() -> None:
    async def play() -> None:
        async with _pool() as pool:
            headers = [("authorization", "Bearer sk-canary")]
            await pool.send(
                "POST", f"http://127.0.0.1:{_free_port()}/v1", headers, b"p"
            )

    error = _unreached(play)

    assert "127.0.0.1" in str(error)
    assert "canary" not in str(error)


async def _head(
    reply: bytes, most: int, within_s: float | None = None, *, wait_s: float = 0.0
) -> tuple[bytes, Silence | None]:
    async with _server(reply, after_s=wait_s) as (url, _), _pool() as pool:
        answer = await pool.send("GET", url, [])
        try:
            return await answer.head(most, within_s)
        finally:
            answer.close()


def test_the_head_of_an_error_is_bounded() -> None:
    reply = _answer(b"x" * 100_000, status="500 Oops")

    assert (b"x" * 1000, Silence.BROKEN) == asyncio.run(_head(reply, 1000))


def test_a_head_that_is_all_there_is_is_told_from_one_that_is_not() -> None:
    reply = _answer(b"x" * 1000, status="500 Oops")

    assert (b"x" * 1000, None) == asyncio.run(_head(reply, 1000))
    assert (b"x" * 999, Silence.BROKEN) == asyncio.run(_head(reply, 999))
    assert (b"x" * 990, Silence.BROKEN) == asyncio.run(_head(reply[:-10], 1000))


def test_a_head_that_stalls_is_what_has_come_in_time() -> None:
    reply = _answer(b"x" * 1000, status="500 Oops")[:-990]
    told = asyncio.run(_head(reply, 1000, 0.05, wait_s=0.2))

    assert (b"x" * 10, Silence.READ_TIMEOUT) == told


@pytest.mark.parametrize("method", ["DELETE", "PUT", "GET", "HEAD", "POST"])
def test_nothing_is_sent_twice_where_a_kept_connection_closes(method: str) -> None:
    async def play() -> list[bytes]:
        seen: list[bytes] = []

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                seen.append(await reader.readuntil(b"\r\n\r\n"))
                if len(seen) == 1:
                    writer.write(_answer(b"{}"))
                    seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, _pool() as pool:
            await _whole(pool, url)
            with pytest.raises(Unreached) as error:
                await pool.send(method, f"{url}/items/1", [])
        assert error.value.was_sent
        return seen

    assert 2 == len(asyncio.run(play()))


def test_who_leaves_before_there_is_a_connection_has_sent_nothing() -> None:
    async def play() -> None:
        with deaf_port() as port:
            async with _pool() as pool:
                url = f"http://127.0.0.1:{port}/"
                call = asyncio.ensure_future(pool.send("POST", url, [], b"{}"))
                await asyncio.sleep(0.05)
                call.cancel()
                with pytest.raises(Unsent):
                    await call
        assert call.cancelled()

    asyncio.run(play())


def test_who_leaves_once_it_is_sent_may_have_been_heard() -> None:
    async def play() -> None:
        async with _server(b"", wait_s=0.2) as (url, seen), _pool() as pool:
            call = asyncio.ensure_future(pool.send("POST", url, [], b"{}"))
            await asyncio.sleep(0.1)
            assert seen
            call.cancel()
            with pytest.raises(asyncio.CancelledError) as error:
                await call
        assert error.type is asyncio.CancelledError

    asyncio.run(play())
