"""Sight: the ids that an answer names, seen as its bytes pass.

What a call made stands first in its answer; what came of it, or what a model's tools
made on the way, may stand anywhere. It changes no byte, keeps a bounded few, and does
not know whose an id is. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ratekeeper.gateway import ids
from ratekeeper.providers.facts import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ratekeeper.gateway.route import Route

HEAD = 16 * 1024  # bytes of an answer in which its id is: all providers put it first
_HAVE_RESULTS = frozenset(["batches", "fine_tuning"])

# A string to its end, or to where it breaks off.
_TOKEN = re.compile(
    rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"(\s*+:)?|\\?\Z)|[{}\[\]]', re.DOTALL
)
_NAMING = frozenset(
    [
        ("id",),
        ("thread_id",),
        ("file", "id"),
        ("response", "id"),
        ("interaction", "id"),
        ("batch_id",),  # xAI
        ("job", "id"),  # Together
    ]
)
# Names that callers may choose are ids of Google's alone.
_CHOSEN = frozenset([("name",), ("file", "name")])
# What comes of a thing and is as much its owner's.
_RESULTS = frozenset(
    [
        ("output_file_id",),
        ("error_file_id",),
        ("result_files[]",),
        ("fine_tuned_model",),
    ]
)
# Beside these stands, deeper, what callers have written themselves.
_GOOGLES_RESULTS = frozenset(
    [
        ("response", "responsesFile"),
        ("output", "responsesFile"),
        ("metadata", "output", "responsesFile"),
    ]
)
_DEEPEST = max(map(len, _GOOGLES_RESULTS))


class Seen(NamedTuple):
    """An id that an answer names."""

    name: str
    is_chosen: bool = False  # by a caller: it may have been another's before


class _Look(NamedTuple):
    """How ids look in an answer: where none of the marks is, there is none."""

    marks: tuple[bytes, ...]
    pattern: re.Pattern[bytes]


# What a model's tools and long operations make stands anywhere in an answer. Their ids
# are told by how they begin, for models write JSON as well.
_AT_MOST = 1000  # bytes of one match
_CONTAINER = _Look(
    (b"cntr_",),
    re.compile(rb'"container_id"\s{0,8}:\s{0,8}"(cntr_[\w\-]{1,200})"', re.ASCII),
)
_EXECUTED = _Look(
    (b"container_", b"code_execution_output"),
    re.compile(
        rb'"id"\s{0,8}:\s{0,8}"(container_[\w\-]{1,200})"'
        rb'|"file_id"\s{0,8}:\s{0,8}"(file_[\w\-]{1,200})"'
        rb'[^{}]{0,200}?"type"\s{0,8}:\s{0,8}"[a-z_]{0,40}code_execution_output"'
        rb'|"type"\s{0,8}:\s{0,8}"[a-z_]{0,40}code_execution_output"'
        rb'[^{}]{0,200}?"file_id"\s{0,8}:\s{0,8}"(file_[\w\-]{1,200})"',
        re.ASCII,
    ),
)
_GENERATED = _Look(
    (b"files/",),
    re.compile(
        rb'"video"\s{0,8}:\s{0,8}\{[^{}]{0,300}?"uri"\s{0,8}:\s{0,8}"'
        rb"(?:https://generativelanguage\.googleapis\.com/"
        rb"(?:download/)?v1[a-z]{0,9}/)?(files/[a-z0-9\-]{1,200})",
        re.ASCII,
    ),
)


class Sight:
    """Looks for ids in an answer, as it comes: in its first bytes, and anywhere."""

    __slots__ = ("_anywhere", "_head", "_known", "_members", "_tail")

    def __init__(
        self,
        known: Iterable[str],
        members: frozenset[tuple[str, ...]] = _NAMING,
        anywhere: _Look | None = None,
    ) -> None:
        self._head = b""
        self._tail = b""
        self._known = set(known)  # what was there before: nobody gets it by naming it
        self._members = members  # none once they have all been seen
        self._anywhere = anywhere

    def feed(self, part: bytes) -> list[Seen]:
        """Return the ids that came in sight with a part, each once."""
        made = self._in_tail(part)
        if self._members:
            self._head = (self._head + part)[:HEAD]
            first, is_whole = made_in(self._head, self._members)
            made = [*first, *made]
            if is_whole or len(self._head) == HEAD:
                self._members = frozenset()
        return [one for one in made if self._is_new(one.name)]

    def _is_new(self, name: str) -> bool:
        if name in self._known or ids.is_word(name):
            return False
        self._known.add(name)
        return True

    def _in_tail(self, part: bytes) -> list[Seen]:
        if self._anywhere is None:
            return []
        text = self._tail + part
        self._tail = text[-_AT_MOST:]
        for mark in self._anywhere.marks:
            if mark in text:
                found = self._anywhere.pattern.finditer(text)
                return [Seen(match[match.lastindex or 0].decode()) for match in found]
        return []


def may_name(route: Route, method: str, said: Mapping[str, object]) -> bool:
    """Say whether the answer of a call may name new ids, whatever it refers to."""
    has_tools = method == "POST" and _anywhere(route) is not None
    return has_tools or ids.makes(route, method, said)


def sight_of(
    route: Route,
    method: str,
    said: Mapping[str, object],
    known: Iterable[str],
    *,
    is_own: bool,
) -> Sight | None:
    """Return what looks for ids in the answer of a call, None where it names no new ones.

    `is_own` says that the call is about what is its caller's already.
    """
    is_google = route.dialect is Dialect.GEMINI
    members: frozenset[tuple[str, ...]] = frozenset()
    if ids.makes(route, method, said):
        members = _NAMING | _CHOSEN if is_google else _NAMING
    if is_own and route.family in _HAVE_RESULTS:
        members |= _GOOGLES_RESULTS if is_google else _RESULTS
    anywhere = _anywhere(route) if is_own or method == "POST" else None
    if not members and anywhere is None:
        return None
    return Sight(known, members, anywhere)


def _anywhere(route: Route) -> _Look | None:
    """Return how ids look that may stand anywhere in the answer of a call."""
    if route.dialect is Dialect.OPENAI and route.family == "responses":
        return _CONTAINER
    if route.dialect is Dialect.ANTHROPIC and route.family == "messages":
        return _EXECUTED
    if route.dialect is Dialect.GEMINI and "/operations/" in route.path:
        return _GENERATED
    return None


def made_in(
    head: bytes, members: frozenset[tuple[str, ...]] = _NAMING
) -> tuple[list[Seen], bool]:
    """Return the ids that the first bytes of an answer name, and whether that is all.

    The answer is JSON, or a stream of it, whose first event alone is looked at.
    """
    if not head.lstrip().startswith(b"{"):
        head = head.partition(b"data:")[2]
    found: list[Seen] = []
    path: list[str | None] = []
    name: str | None = None
    for token in _TOKEN.finditer(head):
        mark = token[0]
        if mark in {b"{", b"["}:
            is_list = name is not None and mark == b"["
            path.append(f"{name}[]" if is_list else name)
            name = None
        elif mark in {b"}", b"]"}:
            name = None
            if path:
                path.pop()
            if not path:
                return found, True
        elif token[2]:
            name = ids.text_of(token[1]) if len(path) <= _DEEPEST else None
        elif mark.endswith(b'"') and len(mark) > len(token[1]) + 1:
            here = _here(path, name)
            if here in members:
                text = ids.text_of(token[1])
                if text.isprintable() and (text := ids.normal(text)):
                    found.append(Seen(text, here in _CHOSEN))
            name = None
    return found, False


def _here(path: list[str | None], name: str | None) -> tuple[str | None, ...]:
    """Return where in its document a string stands: under a name, or in a list."""
    if name is not None:
        return (*path[1:], name)
    is_item = bool(path) and path[-1] is not None and path[-1].endswith("[]")
    return tuple(path[1:]) if is_item else ()
