"""Images: what one comes to, by its width and height, where those can be seen.

Reads the first bytes of PNG, GIF, WebP and JPEG, and never the picture. What has no
size to be seen, or a model whose formula is not known, comes to the most there is.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

MOST = 3930  # Claude from 4.7; OpenAI's high detail 2,940
LOW = 85  # detail: low, OpenAI
MINI_LOW = 2833  # GPT-4o mini, whose images count for more tokens that cost less
GEMINI = 1101  # version 3, whatever its size
GEMINI_TILE = 258  # before it
ORIGINAL = 14_364  # detail: original, OpenAI

_HEAD = 64 * 1024  # characters of base64 looked at: a JPEG may begin with a thumbnail
_SHORTEST = 30  # bytes that tell the size of what is no JPEG
_LARGEST = 1 << 20  # pixels of a side; more is no image

_PATCH, _CLAUDE_MOST, _OLD_CLAUDE_MOST = 28, 3930, 1568
_OPENAI_PATCH, _OPENAI_MOST = 32, 2940
_TILE, _LONG_SIDE, _SHORT_SIDE = 512, 2048, 768
_MOST_TILES = 8
# Gemini's own: what is small is one tile, what is larger cut into squares by its
# shorter side, at most four by four.
_WHOLE_SIDE, _SMALLEST_CUT, _LARGEST_CUT, _MOST_CUTS = 384, 256, 768, 16

_PATCHED = re.compile(r"gpt-(?:5\.[5-9]|[6-9])")
_TILED = re.compile(r"(?:gpt-4o|chatgpt-4o|gpt-4\.1|gpt-5)(?!.*(?:mini|nano))")
_TILED_MINI = re.compile(r"gpt-4o-mini")
_OLDER_GEMINI = re.compile(r"gemini-(?:[12](?![0-9])|pro-vision)")


class Size(NamedTuple):
    """Width and height, in pixels."""

    width: int
    height: int


def image_tokens(data: str | None, detail: object, model: str, family: str) -> int:
    """Return what an image comes to; `data` is base64 or a data URL, None elsewhere."""
    name = model.rpartition("/")[2].lower()
    size = None if data is None else size_of(data)
    if family in {"claude", "claude-3"}:
        most = _CLAUDE_MOST if family == "claude" else _OLD_CLAUDE_MOST
        return most if size is None else min(_patches(size, _PATCH), most)
    if name.startswith("gemini-3"):
        return GEMINI
    if _OLDER_GEMINI.match(name):
        return GEMINI_TILE * _cuts(size)
    if detail == "low":
        return MINI_LOW if _TILED_MINI.match(name) else LOW
    most = ORIGINAL if detail == "original" else MOST
    if _PATCHED.match(name):
        most = min(most, _OPENAI_MOST) if detail != "original" else most
        if size is None:
            return most
        return min(-(-_patches(size, _OPENAI_PATCH) * 12 // 10), most)
    if detail == "original":
        return most
    if _TILED_MINI.match(name):
        return MINI_LOW + 5667 * _tiles(size)
    if _TILED.match(name):
        return LOW + 170 * _tiles(size)
    return most


def size_of(data: str) -> Size | None:
    """Return an image's size from base64 or a data URL; None where it is not seen."""
    if data.startswith("data:"):
        data = data[: _HEAD + 256].partition("base64,")[2]
    head = data[:_HEAD]
    try:
        seen = binascii.a2b_base64(head[: len(head) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    size = _read(seen) if len(seen) >= _SHORTEST else None
    return size if size and min(size) > 0 and max(size) <= _LARGEST else None


def _read(seen: bytes) -> Size | None:
    big, little = int.from_bytes, _little
    if seen.startswith(b"\x89PNG\r\n\x1a\n"):
        return Size(big(seen[16:20], "big"), big(seen[20:24], "big"))
    if seen.startswith((b"GIF87a", b"GIF89a")):
        return Size(little(seen[6:8]), little(seen[8:10]))
    if seen.startswith(b"RIFF") and seen[8:12] == b"WEBP":
        return _read_webp(seen)
    if seen.startswith(b"\xff\xd8"):
        return _read_jpeg(seen)
    return None


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _read_webp(seen: bytes) -> Size | None:
    match seen[12:16]:
        case b"VP8X":
            return Size(_little(seen[24:27]) + 1, _little(seen[27:30]) + 1)
        case b"VP8L":
            bits = _little(seen[21:25])
            return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8 ":
            return Size(_little(seen[26:28]) & 0x3FFF, _little(seen[28:30]) & 0x3FFF)
        case _:
            return None


def _read_jpeg(seen: bytes) -> Size | None:
    """Go from segment to segment until the frame tells its size."""
    at = 2
    while at + 9 <= len(seen) and seen[at] == 0xFF:  # noqa: PLR2004 - a marker begins
        kind = seen[at + 1]
        # The frames; C4, C8 and CC hold tables.
        if 0xC0 <= kind <= 0xCF and kind not in {0xC4, 0xC8, 0xCC}:  # noqa: PLR2004
            height = int.from_bytes(seen[at + 5 : at + 7], "big")
            return Size(int.from_bytes(seen[at + 7 : at + 9], "big"), height)
        at += 2 + int.from_bytes(seen[at + 2 : at + 4], "big")
    return None


def _patches(size: Size, side: int) -> int:
    return -(-size.width // side) * -(-size.height // side)


def _cuts(size: Size | None) -> int:
    """Return the tiles that older Geminis cut an image into."""
    if size is None:
        return _MOST_CUTS
    if max(size) <= _WHOLE_SIDE:
        return 1
    side = min(max(min(size) * 2 // 3, _SMALLEST_CUT), _LARGEST_CUT)
    return min(_patches(size, side), _MOST_CUTS)


def _tiles(size: Size | None) -> int:
    """Return the tiles of 512 once it is shrunk to fit 2048, and to 768 across."""
    if size is None:
        return _MOST_TILES
    long, short = max(size), min(size)
    if long > _LONG_SIDE:
        long, short = _LONG_SIDE, max(1, -(-short * _LONG_SIDE // long))
    if short > _SHORT_SIDE:
        long, short = -(-long * _SHORT_SIDE // short), _SHORT_SIDE
    return -(-long // _TILE) * -(-short // _TILE)
