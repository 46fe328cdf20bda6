"""Ids that a provider makes: which calls make or list some, and which one refers to.

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
    from collections.abc import Iterator, Mapping

    from ratekeeper.gateway.route import Route

MOST = 2000  # ids that one request may refer to; OpenAI takes 500 files at once
MOST_TIMES = 20_000  # in all, though one be named in each request of a batch
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
_MEMBER_OR_URI = re.compile(rf'"(?:{_REFERENCES}|[a-z]*_?uri)"'.encode() + _VALUE)
# In some families, and for some verbs, other members are references as well.
_MORE = {
    "interactions": (_MEMBER_OR_URI, b'uri"'),  # of a file
    "predictLongRunning": (_MEMBER_OR_URI, b'uri"'),
    "videos": (_MEMBER_OR_ID, b'"id"'),  # of a video, of a character in one
}
# All repetitions are possessive: what is tried in one way only keeps no memory of it.
_ITEM = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"|\\?\Z)|\]', re.DOTALL)
# A letter of a member's name may be written by its number; of values JSON sees to it.
_ESCAPED = re.compile(
    rb'"[A-Za-z_]{0,30}+(?:\\u00[4-7][0-9A-Fa-f][A-Za-z_]{0,30}+){1,30}+"(?=\s*+:)'
)
_LETTER = re.compile(rb"\\u00(..)")
_BEHIND = re.compile("[?#]")  # the path of a URI
_CHECKPOINT = ":ckpt-"  # begins what follows the name of the model that it is of
_WORD = re.compile("[a-z_]+")  # of a path: what is done, not to what


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
    data = said.get("data_source") if route.family == "evals" else None
    source = data.get("source") if isinstance(data, dict) else data
    if isinstance(source, dict):
        return source.get("type") not in ("file_content", "file_id")
    return source is not None  # in another shape it may say anything


def is_word(name: str) -> bool:
    """Say whether a name is no id that was made: Anthropic's own skills are `pdf`."""
    return _WORD.fullmatch(name) is not None


class TooMany(Exception):
    """A request refers to more ids than any has reason to; says to how many."""


def referred(route: Route, body: bytes) -> list[str]:
    """Return what a request refers to that may be an id, each once; raises `TooMany`."""
    found = dict.fromkeys(in_path(route))
    seen: set[bytes] = set()
    for count, raw in enumerate(_in_body(body, _kind(route))):
        if count >= MOST_TIMES:
            raise TooMany(f"to ids more than {MOST_TIMES:,} times")
        if raw in seen:
            continue
        seen.add(raw)
        name = normal(text_of(raw))
        if name:
            found[name] = None
        if len(found) > MOST:
            raise TooMany(f"to more than {MOST:,} ids")
    return list(found)


def _kind(route: Route) -> str:
    """Return what a path does with a model of Google's, or its family."""
    is_google = route.dialect is Dialect.GEMINI and route.family == "models"
    return route.path.rpartition(":")[2] if is_google else route.family


def in_path(route: Route) -> Iterator[str]:
    """Yield what may be an id in a path; the last one is of what the call is about."""
    is_google = route.dialect is Dialect.GEMINI
    if is_google and "/models/" in route.path and "/operations/" not in route.path:
        return
    family = route.family.partition(":")[0]
    path = _visible(urllib.parse.unquote(route.path))
    whole = [part.strip(" ") for part in path.split("/")]
    parts = [part.partition(":")[0] for part in whole]
    at = parts.index(family) if family in parts else len(parts)
    for before, part in itertools.pairwise(parts[at:]):
        if is_google:
            yield from (part, f"{before}/{part}")
        elif not is_word(part):
            yield part
    if not is_google:  # a colon begins what is done with a thing of Google's
        for part in whole[at:]:
            if ":" in part:
                yield from (part, part.partition(_CHECKPOINT)[0])


def _in_body(body: bytes, kind: str) -> Iterator[bytes]:
    """Return the strings of all members that refer to ids as written, in one pass."""
    if b"\0" in body[:4]:  # JSON may be read in UTF-16 as well
        body = body.decode(json.detect_encoding(body), "replace").encode()
    if b"\\u00" in body:
        body, count = _ESCAPED.subn(_spelt_out, body, MOST_TIMES)
        if count == MOST_TIMES:
            raise TooMany(f"to members by escaped names {MOST_TIMES:,} times")
    lower = body.lower()
    member, mark = _MORE.get(kind, (_MEMBER, _PARTS[0]))
    if mark not in lower and not any(part in lower for part in _PARTS):
        return
    if _OBJECT.search(lower):
        member = _MEMBER_OR_ID
    at = 0
    while (match := member.search(lower, at)) is not None:
        at = match.end()
        is_list = body[at : at + 1] == b"["
        if is_list:
            yield b""  # empty ones count as well
        for item in _ITEM.finditer(body, at):
            at = item.end()
            if item[1] is None:  # the end of the list
                break
            yield item[1]
            if not is_list:
                break


def _spelt_out(name: re.Match[bytes]) -> bytes:
    """Write the letters of a member's name as they are."""
    return _LETTER.sub(lambda letter: bytes([int(letter[1], 16)]), name[0])


def text_of(raw: bytes) -> str:
    """Return what a string of JSON says, "" where it is none, or too long for an id."""
    if len(raw) > _LONGEST_WRITTEN:
        return ""
    try:
        if b"\\" not in raw:
            return raw.decode("utf-8", "surrogatepass")
        return json.loads(b'"' + raw + b'"', strict=False)  # type: ignore[no-any-return]
    except ValueError:
        return ""


def normal(text: str) -> str:
    """Return the one way to write an id: of a URI its last two parts."""
    text = urllib.parse.unquote(_BEHIND.split(text, 1)[0])
    before, slash, last = _visible(text).strip("/ ").rpartition("/")
    if slash:  # a colon begins what is done with a thing of Google's
        last = f"{before.rpartition('/')[2]}/{last.partition(':')[0]}"
    return last[:_LONGEST]


def _visible(text: str) -> str:
    """Leave out what nobody sees: it is no part of an id, nor is half a character."""
    return text if text.isprintable() else "".join(filter(str.isprintable, text))
