"""Meters: the usage in an answer, read as its bytes pass, keeping little of them.

A stream is read event by event. Of a whole answer at most `WHOLE_ANSWER` bytes are
kept; of a longer one only the last `ANSWER_TAIL`, where every provider puts the usage.
What cannot be found is not there: `usage` is None, and the caller falls back on what
flowed. A report that leaves out the input, or counts nothing where something flowed, is
completed by the estimate. Never fails, whatever the bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ratekeeper.providers import shapes, verdict
from ratekeeper.providers.eventstream import EventStreamParser
from ratekeeper.providers.facts import Endpoint, Meter, RequestFacts, Usage, Verdict
from ratekeeper.providers.sse import SseParser

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratekeeper.providers.shapes import Glimpse, Json, Shapes
    from ratekeeper.providers.verdict import ErrorFacts

    Judge = Callable[[ErrorFacts, int], Verdict]  # of an error inside a 200, and when
    Reader = Callable[[bytes], object]  # None where it is no JSON

WHOLE_ANSWER = 256 * 1024  # an answer of 50,000 tokens, or 8 embeddings
ANSWER_TAIL = 16 * 1024  # usage and what may follow it, such as 16 metadata values

BYTES_PER_TOKEN = 4  # what flows is counted like text at admission
_DECODER = json.JSONDecoder()


def meter(
    language: Shapes,
    judge: Judge,
    facts: RequestFacts,
    content_type: str,
    read: Reader = shapes.read_json,
) -> Meter:
    """Return the meter for an answer of this content type; `read` parses its JSON."""
    kind = content_type.lower()
    if "eventstream" in kind:
        return StreamMeter(language, judge, facts, EventStreamParser(), read)
    if "event-stream" in kind or (facts.stream and not kind):
        return StreamMeter(language, judge, facts, read=read)
    return AnswerMeter(language, judge, facts, read)


def _completed(usage: Usage, facts: RequestFacts, output: int) -> Usage:
    """Return a report with its output, and with an input: no prompt has no tokens."""
    put = usage.input_tokens or facts.input_tokens
    if put == usage.input_tokens and output == usage.output_tokens:
        return usage
    return usage._replace(input_tokens=put, output_tokens=output)


class StreamMeter:
    """Reads a stream of events."""

    __slots__ = (
        "_error",
        "_facts",
        "_judge",
        "_language",
        "_parser",
        "_pieces",
        "_read",
        "_report",
        "_reported_at",
        "_text",
    )

    def __init__(
        self,
        language: Shapes,
        judge: Judge,
        facts: RequestFacts,
        parser: SseParser | EventStreamParser | None = None,
        read: Reader = shapes.read_json,
    ) -> None:
        self._language = language
        self._judge = judge
        self._facts = facts
        self._parser = parser or SseParser()
        self._read = read
        self._report: Json = {}
        self._reported_at: int | None = None  # what had flowed when output was reported
        self._text = 0  # bytes of generated text
        self._pieces = 0  # events that held any
        self._error: Json | None = None

    def feed(self, data: bytes) -> None:
        """Look at bytes of the body."""
        for event in self._parser.feed(data):
            value = self._read(event.data)
            if isinstance(value, dict):
                if event.type:
                    value.setdefault("type", event.type)
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
        if self._error is None:
            self._error = seen.error

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
        if self._facts.background:
            return 0
        pieces = self._pieces + self._parser.dropped
        return max(pieces, -(-self._text // BYTES_PER_TOKEN))

    def failure(self, now_us: int) -> Verdict | None:
        """Return the error that came inside the stream."""
        error = self._error
        return None if error is None else self._judge(verdict.facts_of(error), now_us)


class AnswerMeter:
    """Reads a whole answer."""

    __slots__ = (
        "_cut",
        "_facts",
        "_judge",
        "_kept",
        "_language",
        "_length",
        "_parse",
        "_seen",
    )

    def __init__(
        self,
        language: Shapes,
        judge: Judge,
        facts: RequestFacts,
        read: Reader = shapes.read_json,
    ) -> None:
        self._language = language
        self._parse = read
        self._judge = judge
        self._facts = facts
        self._kept = bytearray()
        self._length = 0
        self._seen: tuple[int, shapes.Glimpse] | None = None
        self._cut = False  # as last looked at; a long one is not read whole

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
        """Return a guess by the text in the answer, or by its length; 0 if empty.

        0 as well for an answer cut short that was no stream: it had been written in
        full before its first byte was sent, and nobody knows how much that was. And for
        one that runs on in the background, whatever it said of itself so far.
        """
        if self._facts.background:
            return 0
        if not self._length or self._facts.endpoint is Endpoint.EMBEDDINGS:
            return min(self._length, 1)
        if self._was_cut() and not self._facts.stream:
            return 0
        return self._said() or -(-self._length // BYTES_PER_TOKEN)

    def _was_cut(self) -> bool:
        self._look()
        return self._cut

    def _said(self) -> int:
        """Return an estimate of the text in the answer."""
        return -(-self._look().text // BYTES_PER_TOKEN)

    def failure(self, now_us: int) -> Verdict | None:
        """Return the error that came as a 200 answer."""
        error = self._look().error
        return None if error is None else self._judge(verdict.facts_of(error), now_us)

    def _look(self) -> shapes.Glimpse:
        if self._seen is None or self._seen[0] != self._length:
            self._seen = self._length, self._read()
        return self._seen[1]

    def _read(self) -> shapes.Glimpse:
        self._cut = False
        if len(self._kept) < self._length:
            last = _last_usage(bytes(self._kept), self._language.usage_name)
            return shapes.Glimpse(usage=last)
        value = self._parse(bytes(self._kept))
        self._cut = value is None
        if isinstance(value, list):  # a stream that Gemini writes as one long list
            return self._read_list(value)
        return self._read_one(value)

    def _read_one(self, value: object) -> Glimpse:
        if not isinstance(value, dict):
            return shapes.Glimpse()
        return self._language.read_answer(value)

    def _read_list(self, values: list[object]) -> Glimpse:
        seen = [self._read_one(value) for value in values]
        reports = [one.usage for one in seen if one.usage is not None]
        errors = [one.error for one in seen if one.error is not None]
        return shapes.Glimpse(
            usage=reports[-1] if reports else None,
            text=sum(one.text for one in seen),
            error=errors[0] if errors else None,
        )


def _last_usage(tail: bytes, name: str) -> Json | None:
    """Find the last usage object in the end of an answer.

    Inside a text its quotes would be escaped, and the name not be found.
    """
    text = tail.decode("utf-8", "replace")
    quoted = f'"{name}"'
    end = len(text)
    while (end := text.rfind(quoted, 0, end)) >= 0:
        after = text[end + len(quoted) :].lstrip()
        if after.startswith(":"):
            try:
                value, _ = _DECODER.raw_decode(after[1:].lstrip())
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                return value
    return None
