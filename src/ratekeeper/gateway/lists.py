"""Lists of what an account holds, without what is another owner's.

What is taken out of a page is what its caller would be told is not there, and nothing
else: the rest keeps its bytes. A page of which nothing is left is no end of the list,
so it knows how each API asks for the next one. Pure.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import TYPE_CHECKING, Any

import msgspec

from ratekeeper.gateway.ids import normal
from ratekeeper.providers.facts import Dialect

if TYPE_CHECKING:
    from collections.abc import Collection

_Members = dict[str, msgspec.Raw]
_Items = dict[str, list[tuple[str, msgspec.Raw]]]  # with the id of each
_BARE = ""  # whose list it is where it stands for itself, as of Together's batches
_ENDS = {"first_id": 0, "last_id": -1}  # of the page: cursors, and ids of others
_HALF = re.compile("[\ud800-\udfff]")  # of a pair: a name that was cut


class _Item(msgspec.Struct):
    batch_id: Any = None  # xAI
    id: Any = None
    name: Any = None


class Page:
    """One page of a list, as it is or, where half a character is in it, written anew.

    Raises `msgspec.DecodeError` where it is neither an object nor a list of JSON.
    """

    def __init__(self, body: bytes, dialect: Dialect) -> None:
        self._dialect = dialect
        try:
            self._members, self._items = _read(body, dialect)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._members, self._items = _read(_mended(body), dialect)
        self._all = [name for items in self._items.values() for name, _ in items]
        self.is_bare = False  # nothing is left of what it held

    @property
    def names(self) -> list[str]:
        """The ids of what it lists."""
        return [name for name in self._all if name]

    def of(self, names: Collection[str]) -> list[msgspec.Raw]:
        """Return the items that have some ids."""
        return [
            raw
            for items in self._items.values()
            for name, raw in items
            if name in names
        ]

    def drop(self, hidden: Collection[str], *, nameless: bool = False) -> None:
        """Take out what its caller is not to see; `nameless`, objects without an id."""
        for member, items in self._items.items():
            kept = [
                (name, raw)
                for name, raw in items
                if name not in hidden
                and (name or not (nameless and _begins(raw, b"{")))
            ]
            if len(kept) < len(items):
                self._members[member] = _raw([raw for _, raw in kept])
                self._items[member] = kept
        left = [name for items in self._items.values() for name, _ in items]
        self.is_bare = bool(self._all) and not left
        if len(left) < len(self._all):
            for end, at in _ENDS.items():
                if end in self._members:
                    self._members[end] = _raw(left[at] if left else None)

    def body(self) -> bytes:
        """Return it as it is now."""
        return msgspec.json.encode(self._members.get(_BARE, self._members))

    def next_query(self, query: bytes) -> bytes | None:
        """Return what asks for the page after it, None where it is the last one."""
        if self._dialect is Dialect.GEMINI:
            name, cursor = "pageToken", self._said("nextPageToken")
        elif isinstance(self._said("next_page"), str):  # as of Anthropic's files
            name, cursor = "page", self._said("next_page")
        elif isinstance(self._said("pagination_token"), str):  # as of xAI's batches
            name, cursor = "pagination_token", self._said("pagination_token")
        else:
            suffix = "_id" if self._dialect is Dialect.ANTHROPIC else ""
            is_back = f"before{suffix}=".encode() in query
            name = f"{'before' if is_back else 'after'}{suffix}"
            is_last = not self._all or not self._said("has_more")
            cursor = None if is_last else self._all[0 if is_back else -1]
        if not isinstance(cursor, str) or not cursor:
            return None
        rest = [
            one
            for one in query.split(b"&")
            if one and not one.startswith(f"{name}=".encode())
        ]
        asked = f"{name}={urllib.parse.quote(cursor, safe='')}".encode()
        return b"&".join([*rest, asked])

    def _said(self, member: str) -> Any:
        raw = self._members.get(member)
        return None if raw is None else msgspec.json.decode(raw)


def _read(body: bytes, dialect: Dialect) -> tuple[_Members, _Items]:
    """Return the members of a page, and the items of those that are lists."""
    said = msgspec.json.decode(body, type=_Members | list[msgspec.Raw])
    members = said if isinstance(said, dict) else {_BARE: _raw(said)}
    items = {
        member: [
            (_name_of(one, dialect), one)
            for one in msgspec.json.decode(raw, type=list[msgspec.Raw])
        ]
        for member, raw in members.items()
        if _begins(raw, b"[")
    }
    return members, items


def _mended(body: bytes) -> bytes:
    """Write anew what a lenient reader takes, with U+FFFD for half a character."""
    try:
        plain = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    text = _HALF.sub("\ufffd", json.dumps(plain, ensure_ascii=False))
    return text.encode()


def _name_of(raw: msgspec.Raw, dialect: Dialect) -> str:
    """Return the id of an item, "" where it has none."""
    try:
        item = msgspec.json.decode(raw, type=_Item)
    except msgspec.ValidationError:  # it is no object
        return ""
    own = item.name if dialect is Dialect.GEMINI else None  # elsewhere a caller's word
    for name in (item.batch_id, item.id, own):
        if isinstance(name, str):
            return normal(name)
    return ""


def _begins(raw: msgspec.Raw, mark: bytes) -> bool:
    return bytes(memoryview(raw)[:1]) == mark


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
