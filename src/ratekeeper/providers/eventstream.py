"""AWS's event streams: frames of bytes, read as they pass, keeping at most one.

A frame holds its length and that of its headers, a checksum of both, the headers, the
payload and a checksum of all. Where the first checksum is wrong these are no frames,
and nothing more is read. A frame above the bound is dropped and counted. Pure; it never
fails, whatever the bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import zlib

from ratekeeper.providers.sse import LARGEST_EVENT, ServerEvent

_PRELUDE = struct.Struct(">III")
_LAST = 4  # bytes of the checksum at the end
# The lengths of a header's value by its type; None where two bytes before it tell.
_LENGTHS = (0, 0, 1, 2, 4, 8, None, None, 8, 16)
_STRING = 7


class EventStreamParser:
    """Turns bytes into events, of the type that their headers say."""

    __slots__ = ("_buffer", "_dead", "_largest", "_skip", "dropped")

    def __init__(self, largest: int = LARGEST_EVENT) -> None:
        self.dropped = 0
        self._largest = largest
        self._buffer = bytearray()
        self._skip = 0  # bytes of a dropped frame that are still to come
        self._dead = False

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that these bytes complete."""
        events: list[ServerEvent] = []
        if self._dead:
            return events
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._buffer += data[skipped:]
        while len(self._buffer) >= _PRELUDE.size and not self._dead:
            total, fields, checksum = _PRELUDE.unpack_from(self._buffer)
            sound = checksum == zlib.crc32(self._buffer[:8])
            if not sound or total < _PRELUDE.size + fields + _LAST:
                self._dead = True
                self._buffer.clear()
            elif total > self._largest:
                self.dropped += 1
                self._skip = max(0, total - len(self._buffer))
                del self._buffer[:total]
            elif len(self._buffer) < total:
                break
            else:
                frame = bytes(self._buffer[:total])
                del self._buffer[:total]
                middle = _PRELUDE.size + fields
                events.append(_event(frame[_PRELUDE.size : middle], frame[middle:-4]))
        return events


def _event(fields: bytes, payload: bytes) -> ServerEvent:
    named = _headers(fields)
    kind = named.get(":exception-type") or named.get(":event-type", "")
    return ServerEvent(kind, _unwrapped(payload) if kind == "chunk" else payload)


def _headers(data: bytes) -> dict[str, str]:
    """Return the headers that are text, as far as they can be read."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        name = data[at + 1 : at + 1 + data[at]].decode("utf-8", "replace")
        at += 1 + data[at]
        kind = data[at] if at < len(data) else len(_LENGTHS)
        if kind >= len(_LENGTHS):
            break
        at += 1
        length = _LENGTHS[kind]
        if length is None:
            length = int.from_bytes(data[at : at + 2])
            at += 2
        if kind == _STRING:
            found[name] = data[at : at + length].decode("utf-8", "replace")
        at += length
    return found


def _unwrapped(payload: bytes) -> bytes:
    """Return what InvokeModel wraps: an event of the model's own, in base64."""
    try:
        value = json.loads(payload)
        return base64.b64decode(value["bytes"], validate=True)
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        return payload
