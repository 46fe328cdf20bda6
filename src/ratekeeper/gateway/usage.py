"""Usage on request: asked for in a caller's stead, and taken out of what it is sent.

OpenAI's streams of chat completions tell what they used only where
`stream_options.include_usage` says so. Then a last chunk tells it, and every other one
holds a null in its place. A caller that did not ask sees neither: the bytes are those it
would have seen. Bodies pass through here and are kept nowhere. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ratekeeper.providers.facts import Endpoint
from ratekeeper.providers.sse import LARGEST_EVENT

if TYPE_CHECKING:
    from ratekeeper.providers.facts import RequestFacts
    from ratekeeper.providers.provider import Provider

# Not asked, because a stream of theirs ends with its usage whether asked or not.
# Mistral must not be: it answers 422 to a field that it does not know.
_TELL_ANYWAY = frozenset(["groq", "mistral", "moonshot", "together", "zhipu"])

_OPTIONS = b'"stream_options"'
_ASKING = b'"stream_options":{"include_usage":true},'
_WANTED = msgspec.Raw(b"true")
_DATA_SOURCES = b'"data_sources"'  # Azure takes no stream_options beside these

_USAGE = b'"usage"'
_NULL = re.compile(rb'"usage"[ \t]*:[ \t]*null')
_BACKSLASH = 0x5C
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]')
_BLANK = b" \t"
_FIELD = b"data:"

_Members = dict[str, msgspec.Raw]
_decode_members = msgspec.json.Decoder(_Members).decode
_decode_options = msgspec.json.Decoder(_Members | None).decode
_NO_OPTIONS = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct):
    """What one chunk of a stream says at its top level, still as bytes."""

    choices: msgspec.Raw = msgspec.Raw(b"")
    usage: msgspec.Raw = msgspec.Raw(b"")


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


def is_asked_for(provider: Provider, facts: RequestFacts) -> bool:
    """Say whether a call's usage comes only if somebody asks."""
    return (
        facts.stream
        and facts.endpoint is Endpoint.CHAT
        and provider.name not in _TELL_ANYWAY
    )


def ask(body: bytes) -> bytes | None:
    """Return the body that asks for usage; None where the caller did, or nobody can.

    The value of every member stays as it was written, to the byte.
    """
    if _DATA_SOURCES in body or b"\0" in body[:4]:  # UTF-16 is read, and not written
        return None
    if _OPTIONS not in body:
        start = body.find(b"{") + 1
        return body[:start] + _ASKING + body[start:] if start else None
    try:
        members = _decode_members(body)
        options = _decode_options(members.get("stream_options", _NO_OPTIONS)) or {}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if options.get("include_usage") == _WANTED:
        return None
    options["include_usage"] = _WANTED
    members["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(members)


class UsageFilter:
    """Takes out of a stream what asking for usage has added to it.

    It keeps the line that has not ended yet, if that can hold usage, and nothing else.
    A line above 1 MiB passes as it is, as does whatever is no JSON.
    """

    __slots__ = ("_dropped", "_held", "_passing")

    def __init__(self) -> None:
        self._held = bytearray()
        self._passing = False  # amid a line that goes as it comes
        self._dropped = False  # the line before: what ends its event goes with it

    def feed(self, data: bytes) -> bytes:
        """Return what of the stream may go to the caller now."""
        if not (self._held or self._passing or self._dropped) and _is_event(data):
            if _USAGE not in data:
                return data
            line = self._told(data[:-1])
            if not self._dropped:
                return line + b"\n"
            self._dropped = False
            return b""
        if self._held:
            self._held += data
            if len(self._held) <= LARGEST_EVENT and not _has_end(data):
                return b""
            data = bytes(self._held)
            self._held.clear()
        lines = data.splitlines(keepends=True)
        rest = b""
        if lines and not lines[-1].endswith(b"\n"):  # it ends in CR? LF may follow
            rest = lines.pop()
        passed = b"".join([self._told(line) for line in lines])
        return passed + self._begun(rest) if rest else passed

    def end(self) -> bytes:
        """Return what was kept of a stream that is over."""
        held = bytes(self._held)
        self._held.clear()
        return self._told(held)

    def _begun(self, rest: bytes) -> bytes:
        """Keep a line without its end, unless it goes as it comes."""
        if not self._passing:
            may_tell = rest.startswith(_FIELD) or _FIELD.startswith(rest)
            if rest == b"\r" or (may_tell and len(rest) <= LARGEST_EVENT):
                self._held += rest
                return b""
            self._passing = True
            self._dropped = False  # its event goes on
        if rest.endswith(b"\r"):
            self._held += b"\r"
            return rest[:-1]
        return rest

    def _told(self, line: bytes) -> bytes:
        """Return what of a whole line the caller would have seen."""
        if self._passing:
            self._passing = False
            return line
        if self._dropped:
            self._dropped = False
            if not line.strip(b"\r\n"):
                return b""
        at = line.find(_USAGE)
        if at < 0 or not line.startswith(_FIELD) or len(line) > LARGEST_EVENT:
            return line
        try:
            chunk = _decode_chunk(line[len(_FIELD) :])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return line
        usage = bytes(chunk.usage)
        if usage == b"null":
            return _without_null(line, at)
        if usage.startswith(b"{") and b"".join(bytes(chunk.choices).split()) == b"[]":
            self._dropped = True
            return b""
        return line


def _is_event(data: bytes) -> bool:
    """Say whether it is one line and the end of its event, as most parts are."""
    return data.endswith(b"\n\n") and data.count(b"\n") == 2 and b"\r" not in data  # noqa: PLR2004


def _has_end(data: bytes) -> bool:
    return b"\n" in data or b"\r" in data


def _without_null(line: bytes, at: int) -> bytes:
    """Cut the null usage out of a chunk that has one at its top level.

    `at` is where the word first stands. A quote within a string has a backslash before
    it, so a word that stands there once, and without one, is the key.
    """
    is_key = line.find(_USAGE, at + 1) < 0 and line[at - 1] != _BACKSLASH
    found = _NULL.match(line, at) if is_key else _at_top(line)
    if found is None:  # the key is written with escapes
        return line
    before = line[: found.start()]
    bare = before.rstrip(_BLANK)
    after = line[found.end() :]
    if bare.endswith(b","):
        return bare[:-1] + after
    return before + after.lstrip(_BLANK).removeprefix(b",").lstrip(_BLANK)


def _at_top(line: bytes) -> re.Match[bytes] | None:
    """Return the null usage that is in no object but the outermost."""
    depth = 0
    for token in _TOKEN.finditer(line):
        word = token[0]
        if word in b"{[":
            depth += 1
        elif word in b"}]":
            depth -= 1
        elif depth == 1 and word == _USAGE:
            found = _NULL.match(line, token.start())
            if found:
                return found
    return None
