"""How long a caller may take, and how little of one who takes long is kept."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ratekeeper.gateway.listener import Bounds, Listener
from ratekeeper.gateway.run import serving
from tests.gateway.stand_in import Caller, StandIn, ends_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.contextmanager
def serve(**bounds: Any) -> Iterator[tuple[StandIn, str]]:
    app = StandIn()
    with serving(app, bounds=Bounds(**bounds)) as url:
        yield app, url


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _has_calls(app: StandIn, count: int) -> bool:
    return len(app.calls) == count


def drip(caller: Caller, piece: bytes, every_s: float = 0.05) -> float:
    """Send a piece again and again until the other side has enough; return for how long."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - began < 5:
            caller.send(piece)
            time.sleep(every_s)
    return time.monotonic() - began


def test_a_head_that_drips_is_cut_off_at_its_deadline() -> None:
    with serve(head_s=0.4, linger_s=0.2) as (app, url), Caller(url) as caller:
        lasted = drip(caller.send(HEAD), b"x: a\r\n")

    assert 0.3 < lasted < 2
    assert [] == app.calls


def test_a_head_that_is_late_is_told_so() -> None:
    with serve(head_s=0.3) as (_, url), Caller(url) as caller:
        answer = caller.send(HEAD).read()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close\r\n" in answer


def test_a_connection_that_says_nothing_is_closed() -> None:
    with serve(head_s=0.3) as (_, url), Caller(url) as caller:
        assert b"" == caller.read()


def test_blank_lines_are_no_way_to_stay() -> None:
    with serve(head_s=0.3, linger_s=0.2) as (_, url), Caller(url) as caller:
        first = caller.send(GET).read(ends_with(b"/next "))
        lasted = drip(caller, b"\r\n")

    assert b" 200 " in first
    assert lasted < 2


def test_the_second_head_of_a_connection_has_a_deadline_too() -> None:
    with serve(head_s=0.3) as (_, url), Caller(url) as caller:
        first = caller.send(GET + HEAD).read(ends_with(b"/next "))
        second = caller.read()

    assert b" 200 " in first
    assert second.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed_without_a_word() -> None:
    with serve(idle_s=0.3) as (_, url), Caller(url) as caller:
        caller.send(GET).read(ends_with(b"/next "))

        assert b"" == caller.read()


def test_a_body_that_drips_is_refused_and_its_call_ended() -> None:
    with serve(body_s=0.4, linger_s=0.2) as (app, url), Caller(url) as caller:
        caller.send(HEAD + b"Content-Length: 100000\r\n\r\n")
        dripping = threading.Thread(target=drip, args=(caller, b"x"))
        dripping.start()
        answer = caller.read()
        dripping.join()
        gone = app.gone.is_set()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert gone
    assert [] == app.bodies


def test_a_body_that_comes_slowly_but_steadily_is_taken() -> None:
    bounds = {"body_s": 0.3, "least_body": 10, "slowest_body": 50}
    with serve(**bounds) as (_, url), Caller(url) as caller:
        caller.send(HEAD + b"Content-Length: 100\r\n\r\n")
        for _ in range(10):
            time.sleep(0.1)
            caller.send(b"x" * 10)
        answer = caller.read(ends_with(b"x" * 100))

    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_body_that_is_slow_on_the_whole_is_refused() -> None:
    """However steadily: a slot of an account would be held for days."""
    bounds = {"body_s": 0.4, "least_body": 10, "slowest_body": 1000, "linger_s": 0.2}
    with serve(**bounds) as (app, url), Caller(url) as caller:
        caller.send(HEAD + b"Content-Length: 100000\r\n\r\n")
        dripping = threading.Thread(target=drip, args=(caller, b"x" * 20))
        began = time.monotonic()
        dripping.start()
        answer = caller.read()
        took = time.monotonic() - began
        dripping.join()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 0.5 < took < 3  # of each 0.05 s it is 0.02 s that were earned
    assert [] == app.bodies


def test_a_body_that_nobody_takes_yet_is_not_slow() -> None:
    """It is held back for longer than the whole of it may take."""
    bounds = {"body_s": 0.2, "least_body": 10, "slowest_body": 1 << 20}
    with serve(**bounds) as (app, url), Caller(url) as caller:
        caller.send(HEAD.replace(b"echo", b"echo?after_s=1"))
        caller.send(b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000)
        answer = caller.read(ends_with(b"x" * 1000))
        seen = [len(body) for body in app.bodies]

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [300_000] == seen


def test_a_caller_who_was_not_told_to_go_on_has_no_deadline() -> None:
    with serve(body_s=0.2) as (app, url), Caller(url) as caller:
        path = HEAD.replace(b"echo", b"stream?every_s=0.2&count=4")
        caller.send(path + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        answer = caller.read()
        gone = app.gone.is_set()

    assert answer.endswith(b"end\r\n0\r\n\r\n")
    assert not gone


def test_a_reader_who_stalls_is_cut_and_the_app_told() -> None:
    bounds = {"write_s": 0.4, "most_unsent": 16 * 1024}
    with serve(**bounds) as (app, url), Caller(url, buffer=4096) as caller:
        began = time.monotonic()
        caller.send(GET.replace(b"next", b"stream?size=20000&count=1000"))
        told = app.gone.wait(5)

    assert told
    assert time.monotonic() - began < 3


def test_a_reader_who_is_slow_is_not_cut() -> None:
    bounds = {"write_s": 0.4, "most_unsent": 1024}
    with serve(**bounds) as (app, url), Caller(url, buffer=4096) as caller:
        caller.send(GET.replace(b"next", b"stream?size=400000&count=1"))
        seen = 0
        while piece := caller.socket.recv(20_000):
            seen += len(piece)
            time.sleep(0.02)
            if piece.endswith(b"end\r\n0\r\n\r\n"):
                break
        gone = app.gone.is_set()

    assert seen > 400_000
    assert not gone


def test_what_was_said_last_is_given_up_when_nobody_reads_it() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        app = StandIn()
        await app.start()
        bounds = Bounds(write_s=0.3, linger_s=0.2, most_unsent=1 << 20)
        listener = Listener(app, loop, bounds)
        listener.start()
        server = await loop.create_server(listener.protocol, "127.0.0.1", 0)
        where = server.sockets[0].getsockname()
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.setblocking(False)
            await loop.sock_connect(caller, where)
            last = b"GET /stream?size=900000&count=8 HTTP/1.0\r\nHost: x\r\n\r\n"
            await loop.sock_sendall(caller, last)
            async with asyncio.timeout(5):
                while not app.calls or listener.open:  # noqa: ASYNC110 - a real one
                    await asyncio.sleep(0.05)
        server.close()
        listener.close()
        return len(listener.open)

    assert 0 == asyncio.run(main())


@pytest.mark.parametrize("size", [0, 3, 500_000], ids=["none", "small", "large"])
def test_the_app_is_told_at_once_when_its_caller_leaves(size: int) -> None:
    with serve() as (app, url), Caller(url) as caller:
        request = HEAD.replace(b"echo", b"hold")
        request += b"Content-Length: %d\r\n\r\n" % size
        caller.send(request + b"x" * size)
        deadline = time.monotonic() + 5
        while not app.bodies and time.monotonic() < deadline:
            time.sleep(0.005)
        caller.socket.close()
        told = app.gone.wait(0.25)

    assert told
    assert [size] == [len(body) for body in app.bodies]


def test_the_app_is_told_when_its_caller_resets_the_connection() -> None:
    with serve() as (app, url), Caller(url) as caller:
        caller.send(GET.replace(b"next", b"stream?every_s=0.05&count=200"))
        caller.read(lambda data: b"xxx" in data)
        linger = struct.pack("ii", 1, 0)
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        caller.socket.close()

        assert app.gone.wait(0.25)


def test_an_answer_that_is_whole_has_nobody_gone() -> None:
    with serve() as (app, url), Caller(url) as caller:
        caller.send(GET).read(ends_with(b"/next "))
        caller.socket.close()
        time.sleep(0.1)

        assert not app.gone.is_set()


def test_a_connection_too_many_is_told_so() -> None:
    hold = GET.replace(b"next", b"hold")
    with serve(most_connections=3) as (app, url), contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Caller(url)) for _ in range(3)]
        for at, caller in enumerate(callers, 1):
            caller.send(hold)
            until(functools.partial(_has_calls, app, at))
        refused = stack.enter_context(Caller(url)).read()
        app.let_go_on()
        answers = [caller.read(ends_with(b"/hold ")) for caller in callers]

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert all(b" 200 " in answer for answer in answers)


def test_whoever_is_idle_longest_makes_room_for_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else as many strangers as there is room for would keep everybody out."""
    with serve(most_connections=3) as (_, url), contextlib.ExitStack() as stack:
        silent, *callers = [stack.enter_context(Caller(url)) for _ in range(3)]
        for caller in (*callers, callers[0]):
            caller.send(GET).read(ends_with(b"/next "))
        news = [stack.enter_context(Caller(url)) for _ in range(2)]
        answers = [one.send(GET).read(ends_with(b"/next ")) for one in news]
        ends = [silent.read(), callers[1].read()]
        again = callers[0].send(GET).read(ends_with(b"/next "))

    assert [b"", b""] == ends
    assert all(b" 200 " in answer for answer in (*answers, again))
    assert (
        "2 connections closed, idle or of nobody known: too many are open"
        in caplog.messages
    )


@pytest.mark.parametrize(
    "begun",
    [
        GET[:-2],
        b"POST /nobody HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
    ],
)
def test_nobody_without_a_key_keeps_others_out(begun: bytes) -> None:
    hold = GET.replace(b"next", b"hold")
    with serve(most_connections=5) as (app, url), contextlib.ExitStack() as stack:
        held, idle = [stack.enter_context(Caller(url)) for _ in range(2)]
        held.send(hold)
        idle.send(GET).read(ends_with(b"/next "))
        crowd = [stack.enter_context(Caller(url)).send(begun) for _ in range(6)]
        until(lambda: len(app.calls) >= (8 if b"nobody" in begun else 2))
        for _ in range(4):
            other = stack.enter_context(Caller(url))
            assert b" 200 " in other.send(GET).read(ends_with(b"/next "))
        app.let_go_on()
        answer = held.read(ends_with(b"/hold "))

    assert b" 200 " in answer
    assert 6 == len(crowd)


def test_room_is_made_for_as_many_as_come_at_once() -> None:
    with serve(most_connections=20) as (_, url), contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(Caller(url))
        news = [stack.enter_context(Caller(url)) for _ in range(20)]
        answers = [one.send(GET).read(ends_with(b"/next ")) for one in news]

    assert all(b" 200 " in answer for answer in answers)


def test_one_line_sums_up_what_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    with serve() as (_, url):
        for _ in range(5):
            with Caller(url) as caller:
                caller.send(b"sk-canary\r\n\r\n").read()

    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]

    assert ["5 requests refused as bad HTTP: 5 x 400, this is no HTTP request"] == told
