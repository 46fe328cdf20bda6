"""Turn: one call that was admitted, from its latency to the last byte of its answer.

Plain or streamed, in its own time or as its cue says: slow, cut, failing half-way. It
decides nothing about limits; it reports to the account what was generated.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ratekeeper.simulator import counting
from ratekeeper.simulator.account import Account, on_cue
from ratekeeper.simulator.cues import MOST_OUTPUT, Cue
from ratekeeper.simulator.dialect import Answer, Call, Endpoint, Trouble
from ratekeeper.simulator.rules import SECOND_US

if TYPE_CHECKING:
    from ratekeeper.simulator.dialect import Event, Headers, Problem
    from ratekeeper.simulator.enforcer import Admitted
    from ratekeeper.simulator.exchange import Exchange

_USUAL_OUTPUT = (20, 120)  # tokens of an answer whose length nobody asked for
_WITHOUT_WORDS = {Endpoint.EMBEDDINGS, Endpoint.MODELS, Endpoint.COUNT_TOKENS}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long an answer takes if no cue says: a latency, and at most so much more."""

    latency_us: int = 0
    jitter_us: int = 0


async def refuse(
    exchange: Exchange, account: Account, problem: Problem, cue: Cue, request_id: str
) -> None:
    """Send an error."""
    await exchange.pause(cue.latency_us or 0)
    reply = account.failure(problem, cue, request_id)
    account.stats.answered(reply.status, account.dialect.key(exchange.headers))
    headers = reply.headers
    if problem.trouble is Trouble.BODY_TOO_LARGE:
        headers = [*headers, ("connection", "close")]  # the rest is not read
    await exchange.reply(reply.status, headers, reply.body)


class Turn:
    """One admitted call."""

    def __init__(
        self,
        exchange: Exchange,
        account: Account,
        call: Call,
        cue: Cue,
        *,
        request_id: str,
        pace: Pace,
    ) -> None:
        self._exchange = exchange
        self._account = account
        self._call = call
        self._cue = cue
        self._request_id = request_id
        self._pace = pace
        self._generated = 0  # output tokens so far

    async def play(self, admitted: Admitted) -> None:
        """Answer or fail, and settle what was used."""
        account, cue, call = self._account, self._cue, self._call
        if cue.trouble is not None:
            problem = on_cue(cue.trouble, cue, call)
            await refuse(self._exchange, account, problem, cue, self._request_id)
            return
        answer = self._answer()
        try:
            if call.stream:
                await self._stream(answer, admitted)
            else:
                await self._whole(answer, admitted)
        finally:
            account.answered(call, admitted, self._generated)

    def _answer(self) -> Answer:
        """Think of an answer."""
        cue, call, source = self._cue, self._call, self._account.source
        wanted = source.randint(*_USUAL_OUTPUT) if cue.output is None else cue.output
        if call.endpoint in _WITHOUT_WORDS:
            wanted = 0
        most = MOST_OUTPUT if call.max_output is None else call.max_output
        return Answer(
            request_id=self._request_id,
            created=self._account.now_us() // SECOND_US,
            words=counting.words(min(wanted, most), source),
            truncated=wanted > most,
            with_usage=not cue.no_usage,
            cached_tokens=cue.cached or 0,
        )

    async def _begin(self, headers: Headers) -> None:
        """Take the time an answer takes, then start it.

        Signs of life, where the cue wants them, come after the headers and before the
        answer: so does a provider whose calls wait in a queue.
        """
        cue, exchange = self._cue, self._exchange
        wait_us = cue.latency_us
        if wait_us is None:
            jitter = self._account.source.random() * self._pace.jitter_us
            wait_us = self._pace.latency_us + round(jitter)
        if not cue.keep_alive:
            await exchange.pause(wait_us)
            await self._start(headers)
            return
        await self._start([one for one in headers if one[0] != "content-length"])
        sign = self._account.dialect.keep_alive(stream=self._call.stream)
        for _ in range(cue.keep_alive):
            await exchange.piece(sign)
            await exchange.pause(wait_us // cue.keep_alive)

    async def _start(self, headers: Headers) -> None:
        """Send the head of a 200 response, with the limits as they stand."""
        account, exchange = self._account, self._exchange
        account.stats.answered(200, account.dialect.key(exchange.headers))
        ids = account.dialect.id_headers(self._request_id)
        limits = account.limit_headers(self._cue)
        await exchange.start(200, [*headers, *ids, *limits])

    async def _whole(self, answer: Answer, admitted: Admitted) -> None:
        """Send an answer in one piece, or half of it where it is to be cut."""
        body = self._account.dialect.answer(self._call, answer)
        head = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
        ]
        await self._begin(head)
        self._generated = answer.tokens
        self._account.generated(self._call, admitted, answer.tokens)
        if self._cue.cut is None:
            await self._exchange.finish(body)
            return
        await self._exchange.piece(body[: len(body) // 2])
        await self._cut()

    async def _stream(self, answer: Answer, admitted: Admitted) -> None:
        """Send an answer as it is generated."""
        await self._begin(
            [
                ("content-type", "text/event-stream; charset=utf-8"),
                ("cache-control", "no-cache"),
            ]
        )
        cue, chunks = self._cue, 0
        for event in self._account.dialect.stream(self._call, answer):
            if chunks == cue.cut:
                await self._cut()
                return
            if chunks == cue.error:
                await self._break_off()
                return
            await self._exchange.piece(event.data)
            if event.tokens > self._generated:
                chunks += 1
                await self._pass_on(event, admitted, first=chunks == 1)
        await self._exchange.finish()

    async def _pass_on(self, event: Event, admitted: Admitted, *, first: bool) -> None:
        """Count what has been generated, and wait for the next."""
        self._generated = event.tokens
        self._account.generated(self._call, admitted, event.tokens)
        stall_us = (self._cue.stall_us or 0) if first else 0
        await self._exchange.pause((self._cue.pace_us or 0) + stall_us)

    async def _break_off(self) -> None:
        """End a stream that began well with an error."""
        problem = on_cue(self._cue.reason or Trouble.OVERLOADED, self._cue, self._call)
        problem = dataclasses.replace(problem, request_id=self._request_id)
        error = self._account.dialect.stream_error(self._call, problem)
        await self._exchange.finish(error)

    async def _cut(self) -> None:
        self._account.stats.cut += 1
        await self._exchange.hang_up()
