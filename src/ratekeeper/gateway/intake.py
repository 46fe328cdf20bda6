"""Bodies of callers: read whole within bounds, or passed on as they come.

Bodies that are held while their calls wait are bounded each, and all together. What
goes on to a provider are the bytes that came.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from ratekeeper.providers import shapes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_LONGEST_NAME = 256  # of a model
_FIELD = re.compile(
    rb'name="?model"?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,256})\r\n', re.IGNORECASE
)
# What decides who may ask, and how much may be written, stands once; and nobody but who
# has something to hide writes a letter of it as \u0061. One search for each: a set of
# first letters in a pattern would take ten times as long.
_DECIDING = re.compile(rb'"(?:mod|max|n")')
_ESCAPE = b"\\u00"
_LETTER = re.compile(rb"\\u00[4-7]")


class BodyTooLarge(Exception):
    """One body is above the bound of each, or above what was announced."""


class Crowded(Exception):
    """All bodies together are above the bound: this one is not taken in."""


class Unclear(Exception):
    """A name stands twice in a JSON object: which one counts is up to its reader."""


class CallerGone(Exception):
    """The caller hung up before its body was there."""


class Held:
    """How many bytes of bodies are held, by all calls together.

    Whoever holds several bodies holds no more than is left for everybody else: one who
    sends a crowd of them is told so, and the others find room.
    """

    __slots__ = ("_by", "_most", "bytes")

    def __init__(self, most: int) -> None:
        self._most = most
        self._by: dict[str, int] = {}
        self.bytes = 0

    def take(self, size: int, owner: str, own: int = 0) -> None:
        """Make room for so many more; raises `Crowded` where there is none.

        `own` is what the body that grows has taken so far.
        """
        total, before = self.bytes + size, self._by.get(owner, 0)
        if total > self._most or (before > own and before + size > self._most - total):
            raise Crowded
        self.bytes = total
        self._by[owner] = before + size

    def give(self, size: int, owner: str) -> None:
        """Give room back."""
        self.bytes -= size
        left = self._by[owner] - size
        if left:
            self._by[owner] = left
        else:
            del self._by[owner]

    def resize(self, most: int) -> None:
        """Change the bound; what is held stays."""
        self._most = most


class Body:
    """One caller's body, held until it is let go."""

    __slots__ = ("_held", "_owner", "_size", "data")

    def __init__(self, held: Held) -> None:
        self._held = held
        self._owner = ""
        self._size = 0
        self.data = b""

    async def read(
        self, receive: Receive, most: int, announced: int | None, owner: str
    ) -> None:
        """Read it to its end; raises what bounds it."""
        self._owner = owner
        if announced is not None and announced > most:
            raise BodyTooLarge
        parts = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise CallerGone
            part = message.get("body", b"")
            more = message.get("more_body", False)
            if part:
                self._held.take(len(part), owner, self._size)
                self._size += len(part)
                if self._size > most:
                    raise BodyTooLarge
                parts.append(part)
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)

    def let_go(self) -> None:
        """Give its room back; a second time changes nothing."""
        if self._size:
            self._held.give(self._size, self._owner)
        self._size = 0
        self.data = b""


async def passing(receive: Receive, most: int) -> AsyncIterator[bytes]:
    """Pass a body on as it comes; raises what bounds it."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        part = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > most:
            raise BodyTooLarge
        if part:
            yield bytes(part)


def read_json(data: bytes) -> object:
    """Parse JSON that may be anything; None where it is none, or too deep."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return shapes.read_json(data)  # which puts up with more


def decoded(body: bytes) -> dict[str, object] | None:
    """Return the object that a JSON body is; None where it is none.

    Raises `Unclear` where providers could read another model or bound in it than we do.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _read_once(body)  # which puts up with more
    else:
        if _is_suspect(body) and _read_once(body) is None:
            raise Unclear
    return value if isinstance(value, dict) else None


def _is_suspect(body: bytes) -> bool:
    found = _DECIDING.findall(body)
    if len({*found}) < len(found):
        return True
    # One byte is found at once; to look for several takes longer than all else here.
    return b"\\" in body and _ESCAPE in body and _LETTER.search(body) is not None


def _read_once(body: bytes) -> object:
    """Parse JSON no object of which has a name twice; None where it is no JSON."""
    try:
        return json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unclear
    return found


def model_in_form(body: bytes) -> str:
    """Return the model that a multipart form names, "" where it names none."""
    match = _FIELD.search(body)
    if match is None:
        return ""
    return match[1].decode("utf-8", "replace").strip()[:_LONGEST_NAME]


def with_model(body: bytes, name: str) -> bytes:
    """Return a JSON body with another model in it, all else as it was."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The lenient reader took it: written anew it says the same.
        plain = {**(shapes.read_object(body) or {}), "model": name}
        return json.dumps(plain).encode()
    fields["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(fields)
