"""One call with its retries, written once as a plan: what to send, when to give up.

The plan yields effects and is sent their results; it opens no socket and sleeps
nowhere. Each attempt goes through the transport, which takes the grant for it, so no
slot is held while the plan waits between attempts. One deadline covers the line, HTTP
and the waits.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from typing import TYPE_CHECKING, Any

import httpx2

from ratekeeper.client import answers, faults
from ratekeeper.client.answers import Failed
from ratekeeper.client.chunks import Chunks
from ratekeeper.client.terms import TURN, Call, Terms, Turn
from ratekeeper.core import units
from ratekeeper.errors import LimitExceeded, NeverPossible

if TYPE_CHECKING:
    from collections.abc import Generator

_log = logging.getLogger("ratekeeper")

_LARGEST_ERROR = 2**20  # bytes of an error that are read
_FIRST_ERROR = 400  # statuses from here on are errors
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110, 9.2.2


class Held(httpx2.ConnectError):
    """A call was stopped before it left: to a transport, as if it had not connected."""

    def __init__(self, why: Exception) -> None:
        super().__init__("the call was stopped before it left")
        self.why = why


class TooLarge(Exception):
    """An answer is larger than it may be."""


@dataclasses.dataclass(frozen=True, slots=True)
class Send:
    """Send a request through the transport; gives back the answer, its body unread."""

    request: httpx2.Request


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """Read the whole body and close the answer; gives back at most so many bytes."""

    answer: httpx2.Response
    turn: Turn
    most: int


@dataclasses.dataclass(frozen=True, slots=True)
class Open:
    """Read a stream up to its first chunk; gives back the stream for the caller."""

    answer: httpx2.Response
    turn: Turn
    chunks: Chunks


@dataclasses.dataclass(frozen=True, slots=True)
class Sleep:
    """Do nothing for so many microseconds."""

    wait_us: int


Effect = Send | Read | Open | Sleep


def plan(call: Call, terms: Terms) -> Generator[Effect, Any, Any]:
    """Make one call, again if that may help; the result is the parsed answer."""
    turn = Turn(call, terms)
    last: Failed | None = None
    for attempt in itertools.count(1):
        try:
            outcome = yield from _attempt(call, terms, turn, attempt)
        except (LimitExceeded, NeverPossible) as error:
            # Refused in line: this attempt was never sent.
            error.attempts = attempt - 1
            _explain(error, turn, terms)
            raise error from (None if last is None else last.error)
        if not isinstance(outcome, Failed):
            with terms.guard:
                terms.budget.succeeded()
            _learn(turn, terms)
            return outcome
        last = outcome
        wait_us = _wait_us(outcome, terms, turn, attempt)
        if wait_us is None:
            raise outcome.error
        _log.info(
            "attempt %d of %d failed (%s): again in %s",
            attempt,
            terms.backoff.attempts,
            outcome.error,
            units.format_wait(wait_us),
        )
        turn.back()
        yield Sleep(wait_us)


def _wait_us(failed: Failed, terms: Terms, turn: Turn, attempt: int) -> int | None:
    """Return how long to wait before another attempt; None where there is none."""
    if not failed.retry:
        return None
    wait_us = terms.backoff.wait_us(attempt, failed.hint_us, terms.draw)
    if wait_us is None:
        return None
    left_us = turn.left_us()
    if left_us is not None and wait_us >= left_us:
        return None
    with terms.guard:
        paid = terms.budget.spend(throttled=failed.throttled)
    return wait_us if paid else None


def _explain(error: LimitExceeded | NeverPossible, turn: Turn, terms: Terms) -> None:
    """Say why a wait that is shorter than what is left of the time was too long."""
    left_us = turn.left_us()
    if left_us is not None and isinstance(error, LimitExceeded):
        kept_us = left_us - terms.patience.in_line_us(left_us)
        if units.micros(error.retry_after_s) < left_us and kept_us:
            kept = units.format_wait(kept_us)
            error.add_note(f"{kept} of the time-out are kept for the answer itself")


def _learn(turn: Turn, terms: Terms) -> None:
    """Learn how long an answer takes, or at least how long it was waited for."""
    took_us = turn.took_us()
    if took_us is not None:
        with terms.guard:
            terms.patience.took(took_us)


def _attempt(
    call: Call, terms: Terms, turn: Turn, attempt: int
) -> Generator[Effect, Any, Any]:
    """Send the call once; the result is the answer, or `Failed`."""
    try:
        answer = yield Send(_request(call, terms, turn, attempt))
        if answer.status_code >= _FIRST_ERROR:
            return (yield from _turned_away(terms, turn, answer, attempt))
        if call.stream and "json" not in answer.headers.get("content-type", ""):
            return (yield from _opened(call, terms, turn, answer, attempt))
        body = yield Read(answer, turn, terms.max_answer)
    except Held as held:
        raise held.why from None
    except TooLarge:
        return answers.too_large(terms, attempt)
    except httpx2.HTTPError as error:
        return _lost(error, call, terms, turn, attempt)
    outcome = answers.parsed(answer, body, terms, attempt)
    if call.stream and not isinstance(outcome, Failed):
        what = "with a single answer where a stream was asked for"
        return answers.strange(what, terms, attempt)
    return outcome


def _turned_away(
    terms: Terms, turn: Turn, answer: httpx2.Response, attempt: int
) -> Generator[Effect, Any, Failed]:
    """Read an error; one that breaks off or has no end is an error all the same."""
    try:
        body = yield Read(answer, turn, _LARGEST_ERROR)
    except (httpx2.HTTPError, TooLarge):
        body = b""
    return answers.refused(answer, body, terms, attempt)


def _opened(
    call: Call, terms: Terms, turn: Turn, answer: httpx2.Response, attempt: int
) -> Generator[Effect, Any, Any]:
    """Open a stream; what fails before its first chunk may be tried again."""
    chat = call.url.partition("?")[0].endswith("/chat/completions")
    chunks = Chunks(terms, attempt, ends_itself=chat)
    stream = yield Open(answer, turn, chunks)
    return chunks.stillborn or stream


def _request(call: Call, terms: Terms, turn: Turn, attempt: int) -> httpx2.Request:
    left_us = turn.left_us()
    line_us = None if left_us is None else terms.patience.in_line_us(left_us)
    return httpx2.Request(
        call.method,
        call.url,
        headers=list(call.headers),
        content=call.body,
        extensions={
            "timeout": turn.timeouts,
            TURN: turn,
            "ratekeeper": {
                "timeout": None if line_us is None else units.seconds(line_us),
                "priority": terms.priority,
                "again": attempt > 1,
            },
        },
    )


def _lost(
    error: httpx2.HTTPError, call: Call, terms: Terms, turn: Turn, attempt: int
) -> Failed:
    """Judge a failure without an answer: a call that may cost twice is not resent."""
    retry = not faults.is_final(error) and (
        not faults.was_sent(error) or call.method in _REPEATABLE or terms.resend_lost
    )
    if turn.is_over():
        _learn(turn, terms)
    failure = faults.unreachable(
        error,
        terms.wire,
        proxy=turn.proxy,
        attempts=attempt,
        out_of_time=turn.is_over(),
    )
    return Failed(error=failure, retry=retry)
