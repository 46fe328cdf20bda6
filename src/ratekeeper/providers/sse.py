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
    """Turns bytes into events. `dropped` counts those above the bound.

    The size of an event is that of its lines, without their ends and without comments.
    """

    __slots__ = (
        "_after_cr",
        "_between",
        "_data",
        "_largest",
        "_line",
        "_size",
        "_skipping",
        "_start",
        "_type",
        "dropped",
    )

    def __init__(self, largest: int = LARGEST_EVENT) -> None:
        self.dropped = 0
        self._largest = largest
        self._line = bytearray()  # of the line that has not ended yet
        self._data: list[bytes] = []
        self._type = ""
        self._size = 0
        self._skipping = False  # the event is above the bound
        self._after_cr = False
        self._start = True
        self._between = False  # two events, with nothing begun

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that these bytes complete."""
        if self._between and len(data) <= self._largest:
            event = _alone(data)
            if event is not None:
                return [event]
        events: list[ServerEvent] = []
        if not data:
            return events
        if self._after_cr:
            data = data.removeprefix(b"\n")
        for piece in data.splitlines(keepends=True):
            line = piece.rstrip(b"\r\n")
            ended = len(line) < len(piece)
            self._size += len(line)
            if self._size > self._largest:
                self._skipping = True
                self._data.clear()
                if line or self._line:  # what is left of it is a comment, never blank
                    line = b":"
                    self._line.clear()
            if not ended:
                self._line += line
                break
            if self._line:
                line = bytes(self._line) + line
                self._line.clear()
            self._end_line(line, events)
        self._after_cr = data.endswith(b"\r")
        self._between = not (
            self._size or self._type or self._skipping or self._after_cr or self._start
        )
        return events

    def _end_line(self, line: bytes, events: list[ServerEvent]) -> None:
        if self._start:
            self._start = False
            line = line.removeprefix(_BOM)
        if line.startswith(b":"):
            self._size -= len(line)
        elif line:
            self._field(line)
        else:
            if self._skipping:
                self.dropped += 1
            elif self._data:
                events.append(ServerEvent(self._type, b"\n".join(self._data)))
            self._data.clear()
            self._type = ""
            self._size = 0
            self._skipping = False

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = _type(value)


def _alone(data: bytes) -> ServerEvent | None:
    """Read one whole event, as most come: each by itself, in a line of data or two."""
    if not data.endswith(b"\n\n") or b"\r" in data:
        return None
    kind, rest = b"", data[:-2]
    if rest.startswith(b"event: "):
        kind, _, rest = rest[7:].partition(b"\n")
    if not rest.startswith(b"data: ") or b"\n" in rest:
        return None
    return ServerEvent(_type(kind) if kind else "", rest[6:])


def _type(value: bytes) -> str:
    return value[:_LARGEST_NAME].decode("utf-8", "replace")
