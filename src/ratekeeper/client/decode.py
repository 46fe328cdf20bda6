"""Reading a copy of an encoded body as it passes, in bounded pieces.

The bytes handed to the caller stay as they are. What cannot be decoded is not metered:
the call counts as one that was answered without usage.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

Decoder = Callable[[bytes], Iterator[bytes]]

_PIECE = 1 << 20  # no piece of decoded body is larger, however well it was packed
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # by its header
_HEADER = 2  # bytes of a header that tell whether it is one


def decoder(encoding: str) -> Decoder | None:
    """Return a decoder for a Content-Encoding; None for one that cannot be read."""
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return _plain
    if name in {"gzip", "x-gzip", "deflate"}:
        return _Inflate()
    if name == "br":
        return _brotli()
    if name == "zstd":
        return _zstd()
    return None


def decode_head(encoding: str, data: bytes) -> bytes:
    """Return the first piece of a body, decoded; nothing if it cannot be read."""
    decode = decoder(encoding)
    return b"" if decode is None else next(decode(data), b"")


def _plain(data: bytes) -> Iterator[bytes]:
    yield data


class _Inflate:
    """Gzip and deflate; the latter without its header too, as some servers send it."""

    def __init__(self) -> None:
        self._inner: Any = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._early: bytes | None = b""  # until the header has been seen to be one

    def __call__(self, data: bytes) -> Iterator[bytes]:
        rest = data
        while rest and self._inner is not None:
            try:
                piece = self._inner.decompress(rest, _PIECE)
            except zlib.error:
                if self._early is None:
                    self._inner = None  # damaged: what follows cannot be read
                    return
                rest, self._early = self._early + rest, None
                self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
                continue
            if self._early is not None:
                early = self._early + rest
                self._early = early if len(early) < _HEADER else None
            rest = self._inner.unconsumed_tail
            if piece:
                yield piece


class _Pieces:
    """A decompressor that takes all input at once and is asked for bounded output."""

    def __init__(self, step: Callable[[bytes], bytes], fault: type[Exception]) -> None:
        self._step: Callable[[bytes], bytes] | None = step
        self._fault = fault

    def __call__(self, data: bytes) -> Iterator[bytes]:
        while self._step is not None:
            try:
                piece = self._step(data)
            except (self._fault, EOFError):
                self._step = None
                return
            if not piece:
                return
            yield piece
            data = b""


def _brotli() -> Decoder | None:
    try:
        brotli = importlib.import_module("brotli")
    except ImportError:
        return None
    inner = brotli.Decompressor()
    return _Pieces(
        lambda data: inner.process(data, output_buffer_limit=_PIECE), brotli.error
    )


def _zstd() -> Decoder | None:
    try:
        zstd = importlib.import_module("backports.zstd")
    except ImportError:
        return None
    inner = zstd.ZstdDecompressor()
    return _Pieces(lambda data: inner.decompress(data, _PIECE), zstd.ZstdError)
