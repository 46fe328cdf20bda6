"""A bare relay on Ratekeeper's own stack: what uvicorn and aiohttp cost by themselves.

Raw ASGI on uvicorn (uvloop, httptools), aiohttp upstream with the options of
Ratekeeper's pool. Bodies go through as they come, both ways. No key, no limit, no
account, no price, nothing read.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import uvicorn
from multidict import CIMultiDict
from yarl import URL

from benchmarks.gateways.peer import SECRET, Launch, bearer
from benchmarks.gateways.process import OURS, python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.gateways.peer import Limits, Place

KEPT_BACK = {b"host", b"authorization", b"connection", b"transfer-encoding"}


class Relay:
    """The ASGI application."""

    def __init__(self, upstream: int) -> None:
        self._base = f"http://127.0.0.1:{upstream}"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = CIMultiDict(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in KEPT_BACK
        )
        headers["authorization"] = f"Bearer {SECRET}"
        first = await receive()
        body = _body(first, receive) if first["more_body"] else first["body"]
        url = URL(self._base + scope["path"], encoded=True)
        async with self._open().request(
            scope["method"], url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            sent = [
                (name.lower(), value)
                for name, value in answer.raw_headers
                if name.lower() not in KEPT_BACK
            ]
            await send({
                "type": "http.response.start", "status": answer.status, "headers": sent
            })  # fmt: skip
            while part := await answer.content.readany():
                await send({
                    "type": "http.response.body", "body": part, "more_body": True
                })  # fmt: skip
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=55),
                auto_decompress=False,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=10, sock_read=600
                ),
                skip_auto_headers=("user-agent", "accept", "content-type"),
                read_bufsize=64 * 1024,
            )
        return self._session


async def _body(message: dict[str, Any], receive: Any) -> AsyncIterator[bytes]:
    yield message["body"]
    while message["more_body"]:
        message = await receive()
        yield message["body"]


class Bare:
    """Its row."""

    name = "bare relay, same stack"

    def missing(self) -> str:
        return ""

    def launch(self, place: Place, limits: Limits) -> Launch:
        assert not limits.bind, "it has no limits"
        words = (str(place.port), str(place.upstream))
        return Launch(
            argv=python("benchmarks.gateways.bare", *words),
            callers=[bearer()],
            env=OURS,
        )


def main(port: int, upstream: int) -> None:
    """Serve until the process is ended."""
    uvicorn.run(
        Relay(upstream),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
