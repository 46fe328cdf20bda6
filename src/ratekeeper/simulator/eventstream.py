"""The frames of bytes in which AWS streams, written from the provider's side.

A frame: its length, that of its headers, a checksum of both, the headers, the payload,
and a checksum of all before. Written apart from the parser in `ratekeeper.providers`,
so that each checks the other.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any

from ratekeeper.simulator.dialect import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_AROUND = 16  # bytes of a frame beside its headers and its payload
_TEXT = b"\x07"  # the type of a header's value


def event(kind: str, payload: dict[str, Any]) -> bytes:
    """Write an event of a stream."""
    return _json(payload, (":event-type", kind), (":message-type", "event"))


def exception(kind: str, message: str) -> bytes:
    """Write the exception that ends a stream."""
    payload = {"message": message}
    return _json(payload, (":exception-type", kind), (":message-type", "exception"))


def _json(
    payload: dict[str, Any], kind: tuple[str, str], message: tuple[str, str]
) -> bytes:
    fields = (kind, (":content-type", "application/json"), message)
    return frame(fields, to_json(payload))


def frame(fields: Iterable[tuple[str, str]], payload: bytes) -> bytes:
    """Write one frame."""
    headers = b"".join(_header(name.encode(), value.encode()) for name, value in fields)
    total = _AROUND + len(headers) + len(payload)
    prelude = total.to_bytes(4) + len(headers).to_bytes(4)
    body = prelude + _checksum(prelude) + headers + payload
    return body + _checksum(body)


def _header(name: bytes, value: bytes) -> bytes:
    return len(name).to_bytes(1) + name + _TEXT + len(value).to_bytes(2) + value


def _checksum(data: bytes) -> bytes:
    return binascii.crc32(data).to_bytes(4)
