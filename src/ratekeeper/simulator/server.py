"""Simulator: a provider that really enforces, served over HTTP.

It joins a dialect (words), an enforcer (limits), bans and cues (faults) into one ASGI
app, and counts what it saw. All keys share one account, as they do at a provider. It
never asks Ratekeeper's own algorithms: whoever is tested here is checked by other code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
import socket
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from ratekeeper.errors import ConfigError
from ratekeeper.runtime.clock import MonotonicClock
from ratekeeper.simulator import counting
from ratekeeper.simulator.bans import Bans
from ratekeeper.simulator.cues import MOST_OUTPUT, NO_CUE, Cue, FaultPlan
from ratekeeper.simulator.dialect import (
    Answer,
    BadRequest,
    Call,
    Endpoint,
    Problem,
    Trouble,
)
from ratekeeper.simulator.dialects import find_dialect
from ratekeeper.simulator.enforcer import Admitted, Enforcement, Enforcer, Refused
from ratekeeper.simulator.exchange import (
    TRANSPORT,
    BodyTooLarge,
    ClientGone,
    Exchange,
)
from ratekeeper.simulator.rules import SECOND_US
from ratekeeper.simulator.stats import Stats

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Iterator, Sequence

    import uvicorn

    from ratekeeper.core.limits import Limit
    from ratekeeper.runtime.clock import Clock
    from ratekeeper.simulator.exchange import Receive, Scope, Send

MOST_BODY = 8 * 1024 * 1024  # of one request; real ones are below 1 MiB
_MOST_CONNECTIONS = 10_000
_KEEP_ALIVE_S = 75  # as the front ends of real providers
_USUAL_OUTPUT = (20, 120)  # tokens of an answer nobody asked a length for
_HINT_US = SECOND_US  # of a 429 on cue that names no wait
_WITHOUT_WORDS = {Endpoint.EMBEDDINGS, Endpoint.MODELS, Endpoint.COUNT_TOKENS}
_THROTTLED = 429
_SERVER_FAULT = 500


class Simulator:
    """A provider to rehearse against: limits, faults, and an ASGI app that has them.

    `limits` are limit strings; none means the provider's usual ones. `enforce` says how
    a limit is held that does not say so itself. `keys` None accepts any key.
    `refunds` overrides whether unused tokens come back. After `ban_after` refusals
    within a minute the account is closed for `ban_s`.
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
        most_body: int = MOST_BODY,
        seed: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.dialect = find_dialect(provider)
        self.limits = tuple(limits) or self.dialect.usual_limits
        self.enforcer = Enforcer.from_limits(
            self.limits,
            enforce=enforce,
            refunds=self.dialect.refunded if refunds is None else refunds,
        )
        self._check_units()
        self._settles = self.dialect.settles or bool(refunds)
        self._latency_us = _pause_us("latency", latency_s)
        self._jitter_us = _pause_us("jitter", jitter_s)
        self._keys = None if keys is None else frozenset(keys)
        self._faults = faults or FaultPlan()
        self._bans = Bans(ban_after, round(ban_s * SECOND_US))
        self._most_body = most_body
        self._source = random.Random(seed)
        self._clock = clock or MonotonicClock()
        self._stats = Stats(self._clock.now_us())

    @property
    def stats(self) -> dict[str, Any]:
        """What it has seen, as `/_stats` shows it."""
        return self._stats.as_json(self._clock.now_us())

    def reset_stats(self) -> None:
        """Count anew; limits and bans stay as they are."""
        self._stats = self._stats.renewed(self._clock.now_us())

    def connected(self) -> None:
        """Count a connection: the server says so, an ASGI app cannot see it."""
        self._stats.connections += 1

    def _check_units(self) -> None:
        known = {*self.dialect.units, "concurrent"}
        for rule in self.enforcer.rules:
            if rule.unit not in known:
                message = (
                    f"limit '{rule.name}': {self.dialect.name} does not count "
                    f"{rule.unit}; expected one of {', '.join(sorted(known))}"
                )
                raise ConfigError(message)

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
            self._stats.client_closed += 1
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
        number = self._stats.arrived(self._clock.now_us())
        request_id = f"{self._source.getrandbits(96):024x}"
        try:
            cue = self._cue(exchange, number)
        except ConfigError as error:
            cue = NO_CUE
            read: Call | Problem = Problem(
                trouble=Trouble.BAD_REQUEST, message=str(error)
            )
        else:
            read = await self._read(exchange)
        if cue.drop:
            self._stats.cut += 1
            await exchange.hang_up()
            return
        if isinstance(read, Problem):
            await self._refuse(exchange, read, cue, request_id)
            return
        verdict = self._judge(read, cue)
        if isinstance(verdict, Problem):
            await self._refuse(exchange, verdict, cue, request_id)
            return
        turn = _Turn(self, exchange, read, cue, request_id, verdict)
        self._stats.entered()
        try:
            await turn.play()
        finally:
            self._stats.left()
            self.enforcer.release(verdict)

    def _cue(self, exchange: Exchange, number: int) -> Cue:
        """Find out what shall go wrong: a request's own word wins over the plan."""
        text = exchange.headers.get("x-simulate")
        if text is not None:
            return Cue.parse(text)
        return self._faults.cue(number, self._source)

    async def _read(self, exchange: Exchange) -> Call | Problem:
        """Read the call out of a request, or say what is wrong with it."""
        endpoint = self.dialect.route(exchange.method, exchange.path)
        if endpoint is None:
            return Problem(trouble=Trouble.NOT_FOUND)
        key = self.dialect.key(exchange.headers)
        if not key or (self._keys is not None and key not in self._keys):
            return Problem(trouble=Trouble.UNAUTHORIZED)
        try:
            body = await exchange.body(self._most_body)
            return self.dialect.read(endpoint, body, exchange.headers)
        except BodyTooLarge:
            return Problem(trouble=Trouble.BODY_TOO_LARGE)
        except BadRequest as error:
            return Problem(
                trouble=Trouble.BAD_REQUEST, message=str(error), param=error.param
            )

    def _judge(self, call: Call, cue: Cue) -> Admitted | Problem:
        """Admit a call or say why not. Faults of 5xx count it first, others do not."""
        now = self._clock.now_us()
        banned_us = self._bans.wait_us(now)
        if banned_us:
            self._stats.banned += 1
            problem = Problem(
                trouble=Trouble.BANNED, model=call.model, wait_us=banned_us
            )
            return self._in_vain(call, problem, now)
        trouble = cue.trouble
        if trouble is not None and (cue.status or 0) < _SERVER_FAULT:
            return self._in_vain(call, _on_cue(trouble, cue, call), now)
        costs = self.dialect.costs(call)
        verdict = self.enforcer.admit(costs, now)
        if isinstance(verdict, Refused):
            problem = Problem(
                trouble=Trouble.TOO_LARGE if verdict.never else Trouble.THROTTLED,
                model=call.model,
                refused=verdict,
                wait_us=verdict.wait_us,
            )
            self._stats.refused_by_limit[verdict.rule.name] += 1
            return self._in_vain(call, problem, now)
        if costs:
            self._stats.admit(now, costs.get("tokens", 0))
        return verdict

    def _in_vain(self, call: Call, problem: Problem, now: int) -> Problem:
        """Count a refused call, which may bring a ban."""
        self._stats.tokens_in_vain += call.input_tokens
        counted = {Trouble.THROTTLED, Trouble.TOO_LARGE, Trouble.SLOW_DOWN}
        if problem.trouble in counted and self._bans.refused(now):
            self._stats.bans += 1
        return problem

    async def _refuse(
        self, exchange: Exchange, problem: Problem, cue: Cue, request_id: str
    ) -> None:
        """Send an error."""
        await exchange.pause(cue.latency_us or 0)
        now = self._clock.now_us()
        standing = [] if cue.no_headers else self.enforcer.standing(now)
        problem = dataclasses.replace(
            problem,
            request_id=request_id,
            wait_us=None if cue.no_headers else problem.wait_us,
        )
        reply = self.dialect.failure(problem, standing, now)
        self._stats.answered(reply.status, self.dialect.key(exchange.headers))
        headers = reply.headers
        if problem.trouble is Trouble.BODY_TOO_LARGE:
            headers = [*headers, ("connection", "close")]
        await exchange.reply(reply.status, headers, reply.body)


class _Turn:
    """One admitted call, from its latency to the last byte of its answer."""

    def __init__(
        self,
        simulator: Simulator,
        exchange: Exchange,
        call: Call,
        cue: Cue,
        request_id: str,
        admitted: Admitted,
    ) -> None:
        self._simulator = simulator
        self._exchange = exchange
        self._call = call
        self._cue = cue
        self._request_id = request_id
        self._admitted = admitted
        self._generated = 0  # output tokens so far

    async def play(self) -> None:
        """Wait, then answer or fail."""
        simulator, cue, call = self._simulator, self._cue, self._call
        trouble = cue.trouble
        if trouble is not None:
            problem = _on_cue(trouble, cue, call)
            await simulator._refuse(  # noqa: SLF001 - a turn is part of its simulator
                self._exchange, problem, cue, self._request_id
            )
            return
        answer = self._answer()
        try:
            if call.stream:
                await self._stream(answer)
            else:
                await self._whole(answer)
        finally:
            self._settle()

    def _settle(self) -> None:
        """True the limits up to what was used, and count what was served."""
        simulator, call = self._simulator, self._call
        self._debit()
        if call.endpoint not in {Endpoint.MODELS, Endpoint.COUNT_TOKENS}:
            simulator._stats.served(call.input_tokens, self._generated)  # noqa: SLF001

    def _debit(self) -> None:
        simulator, call = self._simulator, self._call
        if simulator._settles and simulator.dialect.costs(call):  # noqa: SLF001
            used = simulator.dialect.used(call, self._generated)
            now = simulator._clock.now_us()  # noqa: SLF001
            simulator.enforcer.settle(self._admitted, used, now)

    def _answer(self) -> Answer:
        """Think of an answer."""
        simulator, cue, call = self._simulator, self._cue, self._call
        source = simulator._source  # noqa: SLF001
        wanted = source.randint(*_USUAL_OUTPUT) if cue.output is None else cue.output
        if call.endpoint in _WITHOUT_WORDS:
            wanted = 0
        most = MOST_OUTPUT if call.max_output is None else call.max_output
        return Answer(
            request_id=self._request_id,
            created=simulator._clock.now_us() // SECOND_US,  # noqa: SLF001
            words=counting.words(min(wanted, most), source),
            truncated=wanted > most,
            with_usage=not cue.no_usage,
            cached_tokens=cue.cached or 0,
        )

    async def _wait(self) -> None:
        """Take the time an answer takes, sending signs of life where asked to."""
        simulator, cue = self._simulator, self._cue
        wait_us = cue.latency_us
        if wait_us is None:
            jitter = simulator._source.random() * simulator._jitter_us  # noqa: SLF001
            wait_us = simulator._latency_us + round(jitter)  # noqa: SLF001
        if not cue.keep_alive:
            await self._exchange.pause(wait_us)
            return
        sign = simulator.dialect.keep_alive(stream=self._call.stream)
        for _ in range(cue.keep_alive):
            await self._exchange.piece(sign)
            await self._exchange.pause(wait_us // cue.keep_alive)

    async def _start(self, headers: list[tuple[str, str]]) -> None:
        """Begin a 200 response with the limits as they stand now."""
        simulator = self._simulator
        headers += simulator.dialect.id_headers(self._request_id)
        if not self._cue.no_headers:
            now = simulator._clock.now_us()  # noqa: SLF001
            standing = simulator.enforcer.standing(now)
            headers += simulator.dialect.limit_headers(standing, now)
        key = simulator.dialect.key(self._exchange.headers)
        simulator._stats.answered(200, key)  # noqa: SLF001
        await self._exchange.start(200, headers)

    async def _whole(self, answer: Answer) -> None:
        """Send an answer in one piece (or half of it, where it is to be cut)."""
        exchange, cue = self._exchange, self._cue
        body = self._simulator.dialect.answer(self._call, answer)
        headers = [("content-type", "application/json")]
        if cue.keep_alive:
            await self._start(headers)
            await self._wait()
            self._generated = answer.tokens
        else:
            await self._wait()
            self._generated = answer.tokens
            self._debit()
            await self._start([*headers, ("content-length", str(len(body)))])
        if cue.cut is None:
            await exchange.finish(body)
            return
        await exchange.piece(body[: len(body) // 2])
        await self._cut()

    async def _stream(self, answer: Answer) -> None:
        """Send an answer as it is generated."""
        simulator, exchange, cue = self._simulator, self._exchange, self._cue
        headers = [
            ("content-type", "text/event-stream; charset=utf-8"),
            ("cache-control", "no-cache"),
        ]
        if cue.keep_alive:
            await self._start(headers)
            await self._wait()
        else:
            await self._wait()
            await self._start(headers)
        chunks = 0
        for event in simulator.dialect.stream(self._call, answer):
            if cue.cut is not None and chunks >= cue.cut:
                await self._cut()
                return
            if cue.error is not None and chunks >= cue.error:
                trouble = cue.reason or Trouble.OVERLOADED
                problem = _on_cue(trouble, cue, self._call)
                problem = dataclasses.replace(problem, request_id=self._request_id)
                error = simulator.dialect.stream_error(self._call, problem)
                await exchange.finish(error)
                return
            await exchange.piece(event.data)
            if event.tokens > self._generated:
                chunks += 1
                self._generated = event.tokens
                if simulator.dialect.debits:
                    self._debit()
                await exchange.pause(
                    (cue.pace_us or 0) + ((cue.stall_us or 0) if chunks == 1 else 0)
                )
        await exchange.finish()

    async def _cut(self) -> None:
        self._simulator._stats.cut += 1  # noqa: SLF001
        await self._exchange.hang_up()


def _on_cue(trouble: Trouble, cue: Cue, call: Call) -> Problem:
    """Write the problem that a cue asks for."""
    wait_us = cue.retry_after_us
    if wait_us is None and trouble is Trouble.THROTTLED:
        wait_us = _HINT_US
    return Problem(
        trouble=trouble, status=cue.status, model=call.model, wait_us=wait_us
    )


def _pause_us(name: str, seconds: float) -> int:
    if not 0 <= seconds <= 3600:  # noqa: PLR2004 - an hour; also refuses NaN
        message = f"{name} of {seconds} s: expected 0 to 3600"
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
        message = f"cannot listen on {host} port {port}: {why}"
        raise ConfigError(message) from error
    listener.listen(2048)
    return listener


def _server(simulator: Simulator) -> uvicorn.Server:
    """Make a quiet server that tells the app of connections and how to end them."""
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Wire(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # h11 or httptools
        app_state: dict[str, Any]

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.app_state = {**self.app_state, TRANSPORT: transport}
            simulator.connected()

    config = uvicorn.Config(
        simulator,
        http=Wire,
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
