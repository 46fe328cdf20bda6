"""Server-sent events, read byte by byte as they pass, keeping at most one event.

Follows the WHATWG HTML standard (section 9.2.6): lines end in CR, LF or CRLF, wherever
the bytes are cut. An event above the bound is dropped whole and counted, and the next
one is read as ever. Pure; it never fails, whatever the bytes.
"""

from __future__ import annotations

from typing import NamedTuple

# 1 MiB: twice the longest answer of 128,000 tokens, which OpenAI's Responses API
# repeats whole in its last event.
LARGEST_EVENT = 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_LARGEST_NAME = 256  # of an event's type; a longer one is no type that anybody sends


class ServerEvent(NamedTuple):
    """One event: its type ("" where none was said) and its data."""

    type: str
    data: bytes


class SseParser:
    """Turns bytes into events. `dropped` counts those above the bound."""

    __slots__ = (
        "_after_cr",
        "_data",
        "_has_data",
        "_largest",
        "_line",
        "_skipping",
        "_start",
        "_type",
        "dropped",
    )

    def __init__(self, largest: int = LARGEST_EVENT) -> None:
        self.dropped = 0
        self._largest = largest
        self._line = bytearray()  # the line that has not ended yet
        self._data = bytearray()
        self._has_data = False
        self._type = ""
        self._skipping = False  # the event is above the bound
        self._after_cr = False
        self._start = True

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that these bytes complete."""
        events: list[ServerEvent] = []
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        pieces = data.splitlines(keepends=True)
        for piece in pieces:
            line = piece.rstrip(b"\r\n")
            if len(line) == len(piece):
                self._grow(self._line, line)
                break
            if self._line:
                self._grow(self._line, line)
                line = bytes(self._line)
                self._line.clear()
            self._end_line(line, events)
        if pieces and pieces[-1].endswith(b"\r"):
            self._after_cr = True
        return events

    def _end_line(self, line: bytes, events: list[ServerEvent]) -> None:
        if self._start:
            self._start = False
            line = line.removeprefix(_BOM)
        if line:
            self._field(line)
            return
        if self._skipping:
            self.dropped += 1
        elif self._has_data:
            events.append(ServerEvent(self._type, bytes(self._data)))
        self._data.clear()
        self._has_data = False
        self._type = ""
        self._skipping = False

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if self._has_data:
                self._grow(self._data, b"\n")
            self._has_data = True
            self._grow(self._data, value)
        elif name == b"event":
            self._type = value[:_LARGEST_NAME].decode("utf-8", "replace")

    def _grow(self, buffer: bytearray, data: bytes) -> None:
        """Add to a buffer, unless the event grows above the bound."""
        if self._skipping or len(self._data) + len(self._line) + len(data) > (
            self._largest
        ):
            self._skipping = True
            self._data.clear()
            if buffer is self._line:
                buffer[:] = b":"  # what is left of the line is a comment, never blank
            return
        buffer += data
