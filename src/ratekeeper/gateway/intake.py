"""Bodies of callers: read whole within bounds, or passed on as they come.

Bodies that are held while their calls wait are bounded each, and all together. What
goes on to a provider are the bytes that came.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from ratekeeper.providers import form, shapes

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        MutableMapping,
    )

    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# In JSON. Some 0.2 s of work; 300,000 tokens to embed, or a batch of 20,000 requests.
MOST_VALUES = 400_000
_MODEL_WORDS = (["model"], ["models"])
_WORD = re.compile(r"[^\[\].\s]+")  # of a field's name: input_reference[file_id]
# What decides who may ask, and how much may be written, stands once; and nobody but who
# has something to hide writes a letter of it as \u0061. One search for each: a set of
# first letters in a pattern would take ten times as long.
_DECIDING = re.compile(rb'"(?:mod|max|n")')
_ESCAPE = b"\\u00"
_LETTER = re.compile(rb"\\u00[4-7]")


class BodyTooLarge(Exception):
    """One body is above the bound of each."""


class Crowded(Exception):
    """All bodies together are above the bound: this one is not taken in."""


class Unclear(Exception):
    """A name stands twice in a JSON object: which one counts is up to its reader."""


class NoObject(Exception):
    """A body is no JSON object, or one that not everybody could read."""


class TooManyValues(Exception):
    """JSON holds more values than may be looked at in one turn of the loop."""


class CallerGone(Exception):
    """The caller hung up before its body was there."""


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """Return the next part of a body, and whether there are more."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise CallerGone
    return message.get("body", b""), message.get("more_body", False)


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
        """Read it to its end; raises `BodyTooLarge`, `Crowded` or `CallerGone`."""
        self._owner = owner
        if announced is not None and announced > most:
            raise BodyTooLarge
        parts = []
        more = True
        while more:
            part, more = await _part(receive)
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
    """Pass a body on as it comes; raises `BodyTooLarge` or `CallerGone`."""
    size, more = 0, True
    while more:
        part, more = await _part(receive)
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


def decoded(body: bytes, *, each_once: bool = False) -> dict[str, object] | None:
    """Return the object that a JSON body is; None where there is nothing in it.

    Raises `NoObject`, `TooManyValues`, and `Unclear` where providers could read another
    model or bound in it than we do; with `each_once` whatever stands there twice.
    """
    if len(body) > MOST_VALUES and weight(body) > MOST_VALUES:
        raise TooManyValues
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _read_once(body)  # which puts up with more
    else:
        if each_once or _is_suspect(body):
            _read_once(body)
    if value is None or isinstance(value, dict):
        return value
    raise NoObject


def weight(body: bytes) -> int:
    """Return how many values JSON holds, objects and lists counted four times.

    Where the marks in its texts would not matter, those are counted as well.
    """
    if (
        _marks(body) <= MOST_VALUES or b"\0" in body[:4]
    ):  # UTF-16 is for nobody's prompt
        return _marks(body)
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * MOST_VALUES:  # two for a name and two for its value
        return MOST_VALUES + 1
    return _marks(b"".join(bare.split(b'"')[::2]))


def _marks(text: bytes) -> int:
    return text.count(b",") + 3 * (text.count(b"{") + text.count(b"["))


def _is_suspect(body: bytes) -> bool:
    found = _DECIDING.findall(body)
    if len({*found}) < len(found):
        return True
    # One byte is found at once; to look for several takes longer than all else here.
    return b"\\" in body and _ESCAPE in body and _LETTER.search(body) is not None


def _read_once(body: bytes) -> object:
    """Parse JSON no object of which has a name twice; None where there is nothing."""
    try:
        return json.loads(body, object_pairs_hook=_once) if body.strip() else None
    except (ValueError, RecursionError):
        raise NoObject from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unclear
    return found


def model_in(fields: Iterable[tuple[str, bytes]]) -> str:
    """Return the model that a form names, "" where it names none.

    Raises `form.Unclear` where it could be read as naming another one.
    """
    meant = [
        (name, value) for name, value in fields if _words(name)[:1] in _MODEL_WORDS
    ]
    if not meant:
        return ""
    if len(meant) > 1 or meant[0][0] != "model":
        raise form.Unclear
    return meant[0][1].decode("utf-8", "replace")[: shapes.LONGEST_MODEL]


def as_json(fields: Iterable[tuple[str, bytes]]) -> bytes:
    """Write a form's fields as members of JSON, by each word of their names.

    It is for whoever looks for members; as a whole it is no JSON.
    """
    members = []
    for name, value in fields:
        said = value
        if not value.lstrip().startswith((b"{", b"[")):
            said = json.dumps(value.decode("utf-8", "replace")).encode()
        members += [b"%b:%b" % (json.dumps(w).encode(), said) for w in _words(name)]
    return b",".join(members)


def _words(name: str) -> list[str]:
    return _WORD.findall(name.lower())


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
