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
_HAVE_RESULTS = frozenset(["batches", "fine_tuning"])
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
        ("file", "id"),
        ("file", "name"),
        ("response", "id"),
        ("interaction", "id"),
    ]
)
# What comes of a thing and is as much its owner's.
_RESULTS = frozenset(
    [
        ("output_file_id",),
        ("error_file_id",),
        ("result_files[]",),
        ("fine_tuned_model",),
    ]
)
_DEEPEST = max(map(len, _NAMING | _RESULTS))

# What a model's tools and long operations make stands anywhere in an answer. Their ids
# are told by how they begin, for models write JSON as well.
_AT_MOST = 1000  # bytes of one match
_CONTAINER = re.compile(
    rb'"container_id"\s{0,8}:\s{0,8}"(cntr_[\w\-]{1,200})"', re.ASCII
)
_EXECUTED = re.compile(
    rb'"id"\s{0,8}:\s{0,8}"(container_[\w\-]{1,200})"'
    rb'|"file_id"\s{0,8}:\s{0,8}"(file_[\w\-]{1,200})"'
    rb'[^{}]{0,200}?"type"\s{0,8}:\s{0,8}"[a-z_]{0,40}code_execution_output"'
    rb'|"type"\s{0,8}:\s{0,8}"[a-z_]{0,40}code_execution_output"'
    rb'[^{}]{0,200}?"file_id"\s{0,8}:\s{0,8}"(file_[\w\-]{1,200})"',
    re.ASCII,
)
_GENERATED = re.compile(
    rb'"(?:responsesFile|uri)"\s{0,8}:\s{0,8}"'
    rb"(?:https://generativelanguage\.googleapis\.com/(?:download/)?v1[a-z]{0,9}/)?"
    rb"(files/[a-z0-9\-]{1,200})",
    re.ASCII,
)


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
    return route.family in {*_HOLD_IDS, "chat"} and not any(in_path(route))


def changes_models(route: Route, method: str) -> bool:
    """Say whether a call deletes or changes a model, whose name all callers see."""
    return route.family == "models" and method not in {"GET", "HEAD", "POST"}


def source_of(route: Route, said: Mapping[str, object]) -> Mapping[str, object]:
    """Return from where a run of an eval has its data."""
    data = said.get("data_source") if route.family == "evals" else None
    source = data.get("source") if isinstance(data, dict) else None
    return source if isinstance(source, dict) else {}


def reads_all(route: Route, said: Mapping[str, object]) -> bool:
    """Say whether a call has an eval read what all have stored in the account."""
    source = source_of(route, said)
    return bool(source) and source.get("type") not in ("file_content", "file_id")


class Sight:
    """Looks for ids in an answer, as it comes: in its first bytes, and anywhere."""

    __slots__ = ("_anywhere", "_head", "_known", "_members", "_tail")

    def __init__(
        self,
        known: Iterable[str],
        members: frozenset[tuple[str, ...]] = _NAMING,
        anywhere: re.Pattern[bytes] | None = None,
    ) -> None:
        self._head = b""
        self._tail = b""
        self._known = set(known)  # what was there before: nobody gets it by naming it
        self._members = members  # none once they have all been seen
        self._anywhere = anywhere

    def feed(self, part: bytes) -> list[str]:
        """Return the ids that came in sight with a part."""
        made: list[str] = []
        if self._members:
            self._head = (self._head + part)[:HEAD]
            made, is_whole = made_in(self._head, self._members)
            if is_whole or len(self._head) == HEAD:
                self._members = frozenset()
        if self._anywhere is not None:
            text = self._tail + part
            self._tail = text[-_AT_MOST:]
            for match in self._anywhere.finditer(text):
                made.append(match[match.lastindex or 0].decode())
        names = [name for name in dict.fromkeys(made) if name not in self._known]
        self._known.update(names)
        return names


def is_word(name: str) -> bool:
    """Say whether a name is no id that was made: Anthropic's own skills are `pdf`."""
    return _WORD.fullmatch(name) is not None


def sight(
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
    members = _NAMING if makes(route, method, said) else frozenset()
    if is_own and route.family in _HAVE_RESULTS:
        members |= _RESULTS
    anywhere = _anywhere(route, said) if is_own or method == "POST" else None
    if not members and anywhere is None:
        return None
    return Sight(known, members, anywhere)


def _anywhere(route: Route, said: Mapping[str, object]) -> re.Pattern[bytes] | None:
    """Return how ids look that may stand anywhere in the answer of a call."""
    if route.dialect is Dialect.OPENAI and route.family == "responses":
        return _CONTAINER
    if route.dialect is Dialect.ANTHROPIC and route.family == "messages":
        is_batch = "/batches" in route.path
        return _EXECUTED if is_batch or _executes(said) else None
    if route.dialect is Dialect.GEMINI:
        is_long = route.family == "batches" or "/operations/" in route.path
        return _GENERATED if is_long else None
    return None


def _executes(said: Mapping[str, object]) -> bool:
    """Say whether a call has tools of the provider's own, which may run code."""
    tools = said.get("tools")
    return "container" in said or (
        isinstance(tools, list)
        and any(
            isinstance(tool, dict) and tool.get("type", "custom") != "custom"
            for tool in tools
        )
    )


def made_in(
    head: bytes, members: frozenset[tuple[str, ...]] = _NAMING
) -> tuple[list[str], bool]:
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
            name = _text(token[1]) if len(path) <= _DEEPEST else None
        elif mark.endswith(b'"') and len(mark) > len(token[1]) + 1:
            here = _here(path, name)
            if here in members and (text := normal(_text(token[1]))):
                found.append(text)
            name = None
    return found, False


def _here(path: list[str | None], name: str | None) -> tuple[str | None, ...]:
    """Return where in its document a string stands: under a name, or in a list."""
    if name is not None:
        return (*path[1:], name)
    is_item = bool(path) and path[-1] is not None and path[-1].endswith("[]")
    return tuple(path[1:]) if is_item else ()


class TooMany(Exception):
    """A request refers to more ids than any has reason to."""


def referred(route: Route, body: bytes) -> list[str]:
    """Return what a request refers to that may be an id, each once; raises `TooMany`."""
    found = dict.fromkeys(in_path(route))
    for count, text in enumerate(_in_body(body)):
        if count >= MOST:
            raise TooMany
        name = normal(text)
        if name:
            found[name] = None
    return list(found)


def in_path(route: Route) -> Iterator[str]:
    """Yield what may be an id in a path; the last one is of what the call is about."""
    is_google = route.dialect is Dialect.GEMINI
    if is_google and "/models/" in route.path and "/operations/" not in route.path:
        return
    family = route.family.partition(":")[0]
    whole = urllib.parse.unquote(route.path).split("/")
    parts = [part.partition(":")[0] for part in whole]
    at = parts.index(family) if family in parts else len(parts)
    for before, part in itertools.pairwise(parts[at:]):
        if is_google:
            yield from (part, f"{before}/{part}")
        elif not is_word(part):
            yield part
    if not is_google:  # a colon begins what is done with a thing of Google's
        yield from (part for part in whole[at:] if ":" in part)


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
