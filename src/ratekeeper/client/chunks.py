"""A stream's bytes turned into chunks, without reading a byte itself.

Whoever reads feeds it and takes what is ready. It knows the two endings of a stream
(`[DONE]`, the end of the bytes), the errors that come inside a 200, and what a cut is;
what has been delivered is never asked for again.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

from ratekeeper.client import answers, faults
from ratekeeper.providers.sse import SseParser

if TYPE_CHECKING:
    import httpx2

    from ratekeeper.client.answers import Failed
    from ratekeeper.client.terms import Terms

_LARGEST = 8 * 2**20  # bytes of one event: above an image inside a chunk
_DONE = b"[DONE]"


class Chunks:
    """The chunks of one stream; `ends_itself` where a cut can be told from the end."""

    def __init__(self, terms: Terms, attempts: int, *, ends_itself: bool) -> None:
        self._terms = terms
        self._attempts = attempts
        self._ends_itself = ends_itself
        self._events = SseParser(_LARGEST)
        self._ready: deque[dict[str, Any]] = deque()
        self._ended = False  # no more bytes
        self._whole = False  # the provider said that this was all
        self._delivered = False
        self.failure: Failed | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there is something to deliver, or never will be."""
        return bool(self._ready) or self._ended or self.failure is not None

    @property
    def stillborn(self) -> Failed | None:
        """Why the stream delivers nothing at all, None where it delivers something."""
        return None if self._ready or self._delivered else self.failure

    @property
    def is_over(self) -> bool:
        """Whether everything has been delivered."""
        return self._ended and not self._ready and self.failure is None

    def take(self) -> dict[str, Any] | None:
        """Return the next chunk, None where more bytes are needed or none will come.

        Raises what broke the stream off, once all that came before has been delivered.
        """
        if self._ready:
            self._delivered = True
            return self._ready.popleft()
        if self.failure is not None:
            self._ended = True
            raise self.failure.error
        return None

    def feed(self, data: bytes | None) -> None:
        """Take in bytes of the body; None is its end."""
        if self._ended or self.failure is not None:
            return
        if data is None:
            self._end()
            return
        for event in self._events.feed(data):
            self._read(event.data)
            if self.failure is not None:
                return
        if self._events.dropped:
            self._fail(f"with an event larger than {_LARGEST >> 20} MiB")

    def break_off(self, error: httpx2.HTTPError) -> None:
        """Take note that the connection broke; after the last word it does not matter."""
        if self._whole:
            self._ended = True
            return
        self.failure = answers.Failed(
            error=faults.unreachable(
                error,
                self._terms.wire,
                attempts=self._attempts,
                delivered=self._delivered,
            ),
            retry=False,
        )

    def close(self) -> None:
        """Deliver nothing more."""
        self._ended = True
        self._ready.clear()

    def _end(self) -> None:
        for event in self._events.feed(b"\n\n"):  # the last one, if left open
            self._read(event.data)
        if self._ends_itself and not self._whole and self.failure is None:
            self._fail("with a stream that ended before it was complete")
        self._ended = self.failure is None

    def _read(self, event: bytes) -> None:
        if event.strip() == _DONE:
            self._whole = True
            return
        try:
            chunk = json.loads(event)
        except (ValueError, RecursionError):
            chunk = None
        if not isinstance(chunk, dict):
            self._fail("with a chunk that is no JSON object")
        elif answers.is_error_chunk(chunk):
            self.failure = answers.broken_off(event, self._terms, self._attempts)
        else:
            self._whole = self._whole or _finishes(chunk)
            self._ready.append(chunk)

    def _fail(self, what: str) -> None:
        self.failure = answers.strange(what, self._terms, self._attempts)


def _finishes(chunk: dict[str, Any]) -> bool:
    """Say whether a chat chunk tells why the answer ends."""
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") is not None
        for choice in choices
    )
