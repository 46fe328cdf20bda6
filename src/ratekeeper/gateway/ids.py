"""Ids that a provider makes: which answers name one, and which a request refers to.

An id belongs to the account that made it. What is looked for is found however JSON or
a path writes it, so that no spelling gets round whose it is; what merely looks like an
id does no harm, for nobody has made it. Pure.
"""

from __future__ import annotations

import itertools
import json
import re
import urllib.parse
from typing import TYPE_CHECKING

from ratekeeper.providers.facts import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ratekeeper.gateway.route import Route

HEAD = 16 * 1024  # bytes of an answer in which its id is: all providers put it first

MOST = 2000  # times that one request may refer to ids; OpenAI takes 500 files at once
_LONGEST = 512  # characters of an id
_LONGEST_WRITTEN = 8192  # bytes of it: each character may be an escape
_HOLD_IDS = frozenset(
    [
        "assistants",
        "batches",
        "containers",
        "conversations",
        "evals",
        "files",
        "fine_tuning",
        "responses",
        "skills",
        "threads",
        "uploads",
        "vector_stores",
        "videos",
        # Gemini's
        "cachedContents",
        "fileSearchStores",
        "interactions",
        "operations",
        "tunedModels",
    ]
)
_MAKING = frozenset(["POST", "PUT"])
# Gemini's answers name what was made in these ways of calling a model.
_VERBS = (":batchGenerateContent", ":asyncBatchEmbedContent", ":predictLongRunning")

# Members of a request's JSON whose strings are ids, in lower case: some providers read
# them in any.
_REFERENCES = (
    "assistant_id|cached_?content|container|container_id|conversation|eval_id"
    "|file_?id|file_ids|file_?name|file_?uri|file_?search_?store_?names"
    "|input_file_id|previous_interaction_id|previous_response_id|response_id|skill_id"
    "|thread_id|training_file|validation_file|vector_store_ids?"
)
# Every one of them holds one of these.
_PARTS = (b"_id", b"file", b"cached", b'container"', b'conversation"')
_VALUE = rb'\s*:\s*(?=["\[])'
_MEMBER = re.compile(rf'"(?:{_REFERENCES})"'.encode() + _VALUE)
# Two of them may be objects, whose id it is then; no other id means anything there.
_OBJECT = re.compile(rb'"con(?:versation|tainer)"\s*:\s*\{')
_MEMBER_OR_ID = re.compile(rf'"(?:{_REFERENCES}|id)"'.encode() + _VALUE)
_ITEM = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)(?:"|\\?\Z)|\]', re.DOTALL)
# A letter of a member's name may be written by its number; of values JSON sees to it.
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")
# What escapes could put into the way of whoever looks for marks.
_MARKS = (rb"\u0022", rb"\u005c", rb"\u005C", rb"\U")
_WORD = re.compile("[a-z_]+")  # of a path: what is done, not to what

# A string to its end, or to where it breaks off.
_TOKEN = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)(?:"(\s*:)?|\\?\Z)|[{}\[\]]', re.DOTALL)
_NAMING = frozenset(
    [
        ("id",),
        ("name",),
        ("thread_id",),
        ("file", "name"),
        ("response", "id"),
        ("interaction", "id"),
    ]
)
_DEEPEST = max(map(len, _NAMING))


def makes(route: Route, method: str, said: Mapping[str, object]) -> bool:
    """Say whether the answer of a call may name an id that has not been there before."""
    if method not in _MAKING:
        return False
    family = route.family
    if family == "chat":
        return "store" in said
    if route.dialect is Dialect.ANTHROPIC and family == "messages":
        return "/batches" in route.path
    if route.dialect is Dialect.GEMINI and route.path.endswith(_VERBS):
        return True
    return family in _HOLD_IDS or "/upload/" in route.path


def lists(route: Route, method: str) -> bool:
    """Say whether the answer of a call lists what any of an account's callers made.

    The path alone decides: what else a call names does not make its answer another.
    """
    if method != "GET":
        return False
    if route.path.endswith("/operations"):  # of a model as well
        return True
    if route.dialect is Dialect.ANTHROPIC and route.family == "messages":
        return route.path.endswith("/batches")
    return route.family in {*_HOLD_IDS, "chat"} and not any(_in_path(route))


class Sight:
    """Looks for ids in the first bytes of an answer, as they come."""

    __slots__ = ("_head", "_is_over", "_known")

    def __init__(self, known: Iterable[str]) -> None:
        self._head = b""
        self._is_over = False
        self._known = set(known)  # what was there before: nobody gets it by naming it

    def feed(self, part: bytes) -> list[str]:
        """Return the ids that came in sight with a part."""
        if self._is_over:
            return []
        self._head = (self._head + part)[:HEAD]
        made, is_whole = made_in(self._head)
        self._is_over = is_whole or len(self._head) == HEAD
        names = [name for name in made if name not in self._known]
        self._known.update(names)
        return names


def made_in(head: bytes) -> tuple[list[str], bool]:
    """Return the ids that the first bytes of an answer name, and whether that is all.

    The answer is JSON, or a stream of it, whose first event alone is looked at.
    """
    if not head.lstrip().startswith(b"{"):
        head = head.partition(b"data:")[2]
    found: list[str] = []
    path: list[str | None] = []
    name: str | None = None
    for token in _TOKEN.finditer(head):
        mark = token[0]
        if mark in {b"{", b"["}:
            path.append(name if mark == b"{" else None)
            name = None
        elif mark in {b"}", b"]"}:
            name = None
            if path:
                path.pop()
            if not path:
                return found, True
        elif token[2]:
            name = _text(token[1]) if len(path) <= _DEEPEST else None
        elif name is not None and mark.endswith(b'"') and len(mark) > len(token[1]) + 1:
            if (*path[1:], name) in _NAMING and (text := normal(_text(token[1]))):
                found.append(text)
            name = None
    return found, False


class TooMany(Exception):
    """A request refers to more ids than any has reason to."""


def referred(route: Route, body: bytes) -> list[str]:
    """Return what a request refers to that may be an id, each once; raises `TooMany`."""
    found = dict.fromkeys(_in_path(route))
    for count, text in enumerate(_in_body(body)):
        if count >= MOST:
            raise TooMany
        name = normal(text)
        if name:
            found[name] = None
    return list(found)


def _in_path(route: Route) -> Iterator[str]:
    is_google = route.dialect is Dialect.GEMINI
    if is_google and "/models/" in route.path and "/operations/" not in route.path:
        return
    family = route.family.partition(":")[0]
    parts = urllib.parse.unquote(route.path).split("/")
    parts = [part.partition(":")[0] for part in parts]
    at = parts.index(family) if family in parts else len(parts)
    for before, part in itertools.pairwise(parts[at:]):
        if is_google:
            yield from (part, f"{before}/{part}")
        elif _WORD.fullmatch(part) is None:
            yield part


def _in_body(body: bytes) -> Iterator[str]:
    """Return the strings of all members that refer to ids, in one pass."""
    if b"\0" in body[:4]:  # JSON may be read in UTF-16 as well
        body = body.decode(json.detect_encoding(body), "replace").encode()
    if b"\\u00" in body and _ESCAPED_LETTER.search(body):
        body = _unescaped(body)
    lower = body.lower()
    if not any(part in lower for part in _PARTS):
        return
    member, at = _MEMBER_OR_ID if _OBJECT.search(lower) else _MEMBER, 0
    while (match := member.search(lower, at)) is not None:
        at = match.end()
        is_list = body[at : at + 1] == b"["
        if is_list:
            yield ""  # empty ones count as well
        for item in _ITEM.finditer(body, at):
            at = item.end()
            if item[1] is None:  # the end of the list
                break
            yield _text(item[1])
            if not is_list:
                break


def _unescaped(body: bytes) -> bytes:
    """Write what JSON escapes by number as it is, but for quotes and backslashes.

    Python knows the same escapes, and reads them in one pass. Characters that stand
    there themselves are escaped for it first; where two stand for one, they become it.
    """
    for mark in _MARKS:
        body = body.replace(mark, b"_" * len(mark))  # no id has any
    if not body.isascii():
        body = body.decode("utf-8", "replace").encode("raw_unicode_escape")
    text = body.decode("raw_unicode_escape", "replace")
    try:
        return text.encode()
    except UnicodeEncodeError:
        pairs = text.encode("utf-16", "surrogatepass")
        return pairs.decode("utf-16", "replace").encode()


def _text(raw: bytes) -> str:
    if len(raw) > _LONGEST_WRITTEN:
        return ""
    try:
        return json.loads(b'"' + raw + b'"', strict=False)  # type: ignore[no-any-return]
    except ValueError:
        return ""


def normal(text: str) -> str:
    """Return the one way to write an id: of a URI its last two parts."""
    text = urllib.parse.unquote(text.partition("?")[0]).strip("/ ")
    return "/".join(text.split("/")[-2:])[:_LONGEST]
