"""Meters: the usage in an answer, read as its bytes pass, keeping little of them.

A stream is read event by event. Of a whole answer at most `WHOLE_ANSWER` bytes are
kept; of a longer one only the last `ANSWER_TAIL`, where every provider puts the usage.
What cannot be found is not there: `usage` is None, and the caller falls back on what
flowed. A report that leaves out the input, or counts nothing where something flowed, is
completed by the estimate. Never fails, whatever the bytes.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from ratekeeper.providers import shapes, verdict
from ratekeeper.providers.facts import Endpoint, Meter, RequestFacts, Usage, Verdict
from ratekeeper.providers.sse import SseParser

if TYPE_CHECKING:
    from ratekeeper.providers.shapes import Json, Shapes

WHOLE_ANSWER = 256 * 1024  # an answer of 50,000 tokens, or 8 embeddings
ANSWER_TAIL = 16 * 1024  # usage and what may follow it, such as 16 metadata values

BYTES_PER_TOKEN = 4  # what flows is counted like text at admission
_DECODER = json.JSONDecoder()
_USAGE = '"usage"'


def meter(
    language: Shapes, provider: str, facts: RequestFacts, content_type: str
) -> Meter:
    """Return the meter for an answer of this content type."""
    kind = content_type.lower()
    if "event-stream" in kind or (facts.stream and not kind):
        return StreamMeter(language, provider, facts)
    return AnswerMeter(language, provider, facts)


def _completed(usage: Usage, facts: RequestFacts, output: int) -> Usage:
    """Return a report with its output, and with an input: no prompt has no tokens."""
    put = usage.input_tokens or facts.input_tokens
    return dataclasses.replace(usage, input_tokens=put, output_tokens=output)


class StreamMeter:
    """Reads a stream of events."""

    __slots__ = (
        "_facts",
        "_failure",
        "_language",
        "_parser",
        "_pieces",
        "_provider",
        "_report",
        "_reported_at",
        "_text",
    )

    def __init__(self, language: Shapes, provider: str, facts: RequestFacts) -> None:
        self._language = language
        self._provider = provider
        self._facts = facts
        self._parser = SseParser()
        self._report: Json = {}
        self._reported_at: int | None = None  # what had flowed when output was reported
        self._text = 0  # bytes of generated text
        self._pieces = 0  # events that held any
        self._failure: Verdict | None = None

    def feed(self, data: bytes) -> None:
        """Look at bytes of the body."""
        for event in self._parser.feed(data):
            value = shapes.read_object(event.data)
            if value is not None:
                self._look(value)

    def _look(self, value: Json) -> None:
        seen = self._language.read_event(value)
        if seen.text:
            self._text += seen.text
            self._pieces += 1
        if seen.usage is not None:
            said = {k: v for k, v in seen.usage.items() if v is not None}
            self._report.update(said)
            if self._language.output(said) is not None:
                self._reported_at = self.flowed()
        if seen.error is not None and self._failure is None:
            error = verdict.facts_of(seen.error)
            self._failure = verdict.judge(
                self._provider, verdict.IN_STREAM, {}, error, 0
            )

    def usage(self) -> Usage | None:
        """Return what was used so far: as reported, and what has flowed since.

        None where nothing has been reported, or only the input and nothing flowed.
        """
        flowed = self.flowed()
        usage = self._language.usage(self._report)
        if usage is None or (self._reported_at is None and not flowed):
            return None
        since = flowed - (self._reported_at or 0)
        return _completed(usage, self._facts, usage.output_tokens + since or flowed)

    def flowed(self) -> int:
        """Return an estimate of the output tokens seen: at least one an event."""
        pieces = self._pieces + self._parser.dropped
        return max(pieces, -(-self._text // BYTES_PER_TOKEN))

    def failure(self) -> Verdict | None:
        """Return the error that came inside the stream."""
        return self._failure


class AnswerMeter:
    """Reads a whole answer."""

    __slots__ = ("_facts", "_kept", "_language", "_length", "_provider", "_seen")

    def __init__(self, language: Shapes, provider: str, facts: RequestFacts) -> None:
        self._language = language
        self._provider = provider
        self._facts = facts
        self._kept = bytearray()
        self._length = 0
        self._seen: tuple[int, shapes.Glimpse] | None = None

    def feed(self, data: bytes) -> None:
        """Look at bytes of the body."""
        if not self._length:
            data = data.lstrip()  # what DeepSeek sends while a call waits its turn
        self._length += len(data)
        self._kept += data
        if self._length > WHOLE_ANSWER and len(self._kept) > 2 * ANSWER_TAIL:
            del self._kept[:-ANSWER_TAIL]

    def usage(self) -> Usage | None:
        """Return what the answer said it used; None before it has."""
        report = self._look().usage
        usage = None if report is None else self._language.usage(report)
        if usage is None or self._facts.endpoint is Endpoint.EMBEDDINGS:
            return usage
        return _completed(usage, self._facts, usage.output_tokens or self._said())

    def flowed(self) -> int:
        """Return a guess by the text in the answer, or by its length; 0 if empty."""
        if not self._length or self._facts.endpoint is Endpoint.EMBEDDINGS:
            return min(self._length, 1)
        return self._said() or -(-self._length // BYTES_PER_TOKEN)

    def _said(self) -> int:
        """Return an estimate of the text in the answer."""
        return -(-self._look().text // BYTES_PER_TOKEN)

    def failure(self) -> Verdict | None:
        """Return the error that came as a 200 answer."""
        error = self._look().error
        if error is None:
            return None
        facts = verdict.facts_of(error)
        return verdict.judge(self._provider, verdict.IN_STREAM, {}, facts, 0)

    def _look(self) -> shapes.Glimpse:
        if self._seen is None or self._seen[0] != self._length:
            self._seen = self._length, self._read()
        return self._seen[1]

    def _read(self) -> shapes.Glimpse:
        if len(self._kept) < self._length:
            return shapes.Glimpse(usage=_last_usage(bytes(self._kept)))
        value = shapes.read_object(bytes(self._kept))
        if value is None:
            return shapes.Glimpse()
        return self._language.read_answer(value)


def _last_usage(tail: bytes) -> Json | None:
    """Find the last usage object in the end of an answer.

    Inside a text its quotes would be escaped, and the name not be found.
    """
    text = tail.decode("utf-8", "replace")
    end = len(text)
    while (end := text.rfind(_USAGE, 0, end)) >= 0:
        after = text[end + len(_USAGE) :].lstrip()
        if after.startswith(":"):
            try:
                value, _ = _DECODER.raw_decode(after[1:].lstrip())
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                return value
    return None
