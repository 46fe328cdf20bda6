"""Simulator: a provider that really enforces, served over HTTP.

It joins a dialect (words), an account (limits, bans, figures) and cues (faults) into
one ASGI app. It never asks Ratekeeper's own algorithms: whoever is tested here is
checked by other code.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import socket
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from ratekeeper.errors import ConfigError
from ratekeeper.runtime.clock import MonotonicClock
from ratekeeper.simulator.account import Account
from ratekeeper.simulator.bans import Bans
from ratekeeper.simulator.cues import NO_CUE, Cue, FaultPlan
from ratekeeper.simulator.dialect import BadRequest, Call, Problem, Trouble
from ratekeeper.simulator.dialects import find_dialect
from ratekeeper.simulator.enforcer import Enforcement, Enforcer
from ratekeeper.simulator.exchange import (
    TRANSPORT,
    BodyTooLarge,
    ClientGone,
    Crowded,
    Exchange,
    Intake,
)
from ratekeeper.simulator.rules import SECOND_US
from ratekeeper.simulator.turn import Pace, Turn, refuse

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Iterator, Sequence

    import uvicorn

    from ratekeeper.core.limits import Limit
    from ratekeeper.runtime.clock import Clock
    from ratekeeper.simulator.exchange import Receive, Scope, Send

MOST_BODY = 8 * 1024 * 1024  # of one request; real ones are below 1 MiB
_MOST_HEAD = 256 * 1024  # bytes of headers; what asyncio reads at once
_MOST_TOGETHER = 256 * 1024 * 1024  # of all bodies that are arriving
_MOST_CONNECTIONS = 10_000
_BACKLOG = 2048  # connections that wait to be accepted
_LONGEST_BAN_S = 366 * 86_400.0
_HEAD_S = 10.0  # the longest a head may take to arrive, on a fresh connection too
_KEEP_ALIVE_S = 75  # as the front ends of real providers


class Simulator:
    """A provider to rehearse against: limits, faults, and an ASGI app that has them.

    `limits` are limit strings; none means the provider's usual ones. `enforce` says how
    a limit is held that does not say so itself. `keys` None accepts any key.
    `refunds` overrides whether unused tokens come back; with `counts_refused` a refused
    call counts in the limits that had room for it. After `ban_after` refusals within a
    minute the account is closed for `ban_s`.
    """

    def __init__(
        self,
        provider: str = "openai",
        limits: Sequence[Limit | str] = (),
        *,
        enforce: Enforcement | str = Enforcement.TOKEN_BUCKET,
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
        keys: Collection[str] | None = None,
        faults: FaultPlan | None = None,
        ban_after: int | None = None,
        ban_s: float = 4 * 3600.0,
        refunds: bool | None = None,
        counts_refused: bool = False,
        most_body: int = MOST_BODY,
        seed: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.dialect = find_dialect(provider)
        self._pace = Pace(
            latency_us=_microseconds("latency", latency_s),
            jitter_us=_microseconds("jitter", jitter_s),
        )
        self._keys = None if keys is None else frozenset(keys)
        self._faults = faults or FaultPlan()
        self._intake = Intake(most_body, _MOST_TOGETHER)
        enforcer = Enforcer.from_limits(
            limits or self.dialect.usual_limits,
            enforce=enforce,
            refunds=self.dialect.refunded if refunds is None else refunds,
            counts_refused=counts_refused,
        )
        self.limits = tuple(rule.name for rule in enforcer.rules)
        self._account = Account(
            self.dialect,
            enforcer,
            Bans(ban_after, _microseconds("ban", ban_s, _LONGEST_BAN_S)),
            settles=self.dialect.settles or bool(refunds),
            source=random.Random(seed),
            clock=clock or MonotonicClock(),
        )

    @property
    def stats(self) -> dict[str, Any]:
        """What it has seen, as `/_stats` shows it."""
        return self._account.stats.as_json(self._account.now_us())

    def reset_stats(self) -> None:
        """Count anew; limits and bans stay as they are."""
        self._account.stats = self._account.stats.renewed(self._account.now_us())

    def connected(self) -> None:
        """Count a connection: the server says so, an ASGI app cannot see it."""
        self._account.stats.connections += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            if exchange.path in {"/_stats", "/_stats/reset"}:
                await self._show(exchange)
            else:
                await self._serve(exchange)
        except ClientGone:
            self._account.stats.client_closed += 1
        finally:
            exchange.close()

    async def _show(self, exchange: Exchange) -> None:
        """Show what was seen, or forget it."""
        status = 200
        match exchange.method, exchange.path:
            case "GET", "/_stats":
                shown: dict[str, Any] = self.stats
            case "POST", "/_stats/reset":
                self.reset_stats()
                shown = {"reset": True}
            case _:
                status, shown = 405, {"error": "GET /_stats, or POST /_stats/reset"}
        headers = [("content-type", "application/json")]
        await exchange.reply(status, headers, msgspec.json.encode(shown))

    async def _serve(self, exchange: Exchange) -> None:
        """Read a call, admit or refuse it, and answer."""
        account = self._account
        number = account.stats.arrived(account.now_us())
        request_id = f"{account.source.getrandbits(96):024x}"
        cue = self._cue(exchange, number)
        if isinstance(cue, Problem):
            await refuse(exchange, account, cue, NO_CUE, request_id)
            return
        call = await self._read(exchange)
        if cue.drop:
            account.stats.cut += 1
            await exchange.hang_up()
            return
        verdict = call if isinstance(call, Problem) else account.judge(call, cue)
        if isinstance(call, Problem) or isinstance(verdict, Problem):
            assert isinstance(verdict, Problem)
            await refuse(exchange, account, verdict, cue, request_id)
            return
        turn = Turn(
            exchange, account, call, cue, request_id=request_id, pace=self._pace
        )
        try:
            await turn.play(verdict)
        finally:
            account.left(verdict)

    def _cue(self, exchange: Exchange, number: int) -> Cue | Problem:
        """Find out what shall go wrong: a request's own word wins over the plan."""
        text = exchange.headers.get("x-simulate")
        if text is None:
            return self._faults.cue(number, self._account.source)
        try:
            return Cue.parse(text)
        except ConfigError as error:
            return Problem(trouble=Trouble.BAD_REQUEST, message=str(error))

    async def _read(self, exchange: Exchange) -> Call | Problem:
        """Read the call out of a request, or say what is wrong with it."""
        endpoint = self.dialect.route(exchange.method, exchange.path)
        if endpoint is None:
            return Problem(trouble=Trouble.NOT_FOUND)
        key = self.dialect.key(exchange.headers)
        if not key or (self._keys is not None and key not in self._keys):
            return Problem(trouble=Trouble.UNAUTHORIZED)
        try:
            body = await exchange.body(self._intake)
            return self.dialect.read(endpoint, body, exchange.headers)
        except BodyTooLarge:
            return Problem(trouble=Trouble.BODY_TOO_LARGE)
        except Crowded:
            return Problem(trouble=Trouble.OVERLOADED)
        except BadRequest as error:
            return Problem(
                trouble=Trouble.BAD_REQUEST, message=str(error), param=error.param
            )


def _microseconds(name: str, seconds: float, most: float = 3600.0) -> int:
    if not 0 <= seconds <= most:  # also refuses NaN
        message = f"{name} of {seconds} s: expected 0 to {most:g}"
        raise ConfigError(message)
    return round(seconds * SECOND_US)


@contextlib.contextmanager
def serving(
    simulator: Simulator, host: str = "127.0.0.1", port: int = 0
) -> Iterator[str]:
    """Serve a simulator from a thread of its own; yields the base URL for an SDK.

    Port 0 takes a free one; one that is taken is a `ConfigError`. At the end every
    connection is closed, unfinished answers too.
    """
    listener = _listen(host, port)
    server = _server(simulator)
    thread = threading.Thread(
        target=server.run,
        kwargs={"sockets": [listener]},
        name="ratekeeper-simulator",
        daemon=True,
    )
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    try:
        yield (
            f"http://{shown}:{listener.getsockname()[1]}{simulator.dialect.base_path}"
        )
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            why += ": take another port, or 0 for a free one"
        message = f"cannot listen on {host} port {port}: {why}"
        raise ConfigError(message) from error
    listener.listen(_BACKLOG)
    return listener


def _server(simulator: Simulator) -> uvicorn.Server:
    """Make a quiet server that tells the app of connections and how to end them."""
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    protocol = _timed(_known_to(simulator, AutoHTTPProtocol))
    if hasattr(protocol, "on_headers_complete"):  # h11 has a bound of its own
        protocol = _bounded(protocol)
    config = uvicorn.Config(
        simulator,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=0,
        limit_concurrency=_MOST_CONNECTIONS,
        workers=1,
    )
    return uvicorn.Server(config)


def _known_to(simulator: Simulator, protocol: Any) -> Any:
    """Make a protocol tell the simulator of connections and how to end them."""

    class Known(protocol):  # type: ignore[misc]
        app_state: dict[str, Any]

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.app_state = {**self.app_state, TRANSPORT: transport}
            simulator.connected()

    return Known


def _timed(protocol: Any) -> Any:
    """Make a protocol hang up on a head that does not arrive."""

    class Timed(protocol):  # type: ignore[misc]
        cycle: Any  # the request that is being answered, or was last
        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.late = self.loop.call_later(_HEAD_S, transport.abort)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:
                self.arrived()
            elif self.late is None and (before is None or before.response_complete):
                self.late = self.loop.call_later(_HEAD_S, self.transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            self.arrived()
            super().connection_lost(exc)

        def arrived(self) -> None:
            """Wait for no head any longer."""
            if self.late is not None:
                self.late.cancel()
                self.late = None

    return Timed


def _bounded(protocol: Any) -> Any:
    """Make a protocol of httptools hang up on a head, or trailers, without end."""

    class Bounded(protocol):  # type: ignore[misc]
        unread = 0  # bytes of which nothing has come yet

        def data_received(self, data: bytes) -> None:
            self.unread += len(data)
            super().data_received(data)
            if self.unread > _MOST_HEAD:
                self.transport.abort()

        def on_headers_complete(self) -> None:
            self.unread = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self.unread = 0
            super().on_body(body)

    return Bounded
