"""Routes: which API a call speaks, and which path below a provider it may reach.

A fixed table: a path that is not in it goes nowhere, however it is written. Ways round
it (dots, double slashes, encoded separators) are refused, not repaired. Paths that
give away an account itself (organizations, ephemeral tokens) are not in it. Pure.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import urllib.parse
from typing import NamedTuple

from ratekeeper.providers.catalog import PROVIDERS
from ratekeeper.providers.facts import Dialect

METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])

_OPENAI = frozenset(
    [
        "assistants",
        "audio",
        "batches",
        "chat",
        "completions",
        "containers",
        "conversations",
        "embeddings",
        "evals",
        "files",
        "fine_tuning",
        "images",
        "models",
        "moderations",
        "rerank",
        "responses",
        "threads",
        "uploads",
        "vector_stores",
        "videos",
    ]
)
_ANTHROPIC = frozenset(["files", "messages", "models", "skills"])
_GEMINI = frozenset(
    [
        "batches",
        "cachedContents",
        "dynamic",
        "fileSearchStores",
        "files",
        "interactions",
        "models",
        "operations",
        "tunedModels",
    ]
)
_UPLOADED = frozenset(["fileSearchStores", "files"])
# Told apart by the caller's headers.
_SHARED = _OPENAI & _ANTHROPIC
_SHARED_BELOW_ONE = _OPENAI & (_ANTHROPIC | _GEMINI)
_ANTHROPICS = frozenset([b"anthropic-version", b"anthropic-beta", b"x-api-key"])
_GOOGLES = frozenset([b"x-goog-api-key", b"x-goog-api-client"])

# Families whose POST is made by a model.
USES_MODELS = frozenset(
    [
        "audio",
        "chat",
        "completions",
        "embed",
        "embeddings",
        "images",
        "interactions",
        "messages",
        "moderations",
        "rerank",
        "responses",
        "videos",
    ]
)
# Families whose bodies may be files, which pass as they come.
TAKES_FILES = frozenset(
    ["audio", "containers", "files", "images", "skills", "upload", "uploads", "videos"]
)
# Of those, whose forms say more than a file: what they refer to, or how many to make.
READS_FORMS = frozenset(["containers", "images", "videos"])
# What a path may hold: RFC 3986's pchar without what could be read in two ways. Some
# servers take what follows a semicolon for no part of the path.
_PATH = re.compile(
    r"(?:/(?:[A-Za-z0-9._~!$&'()*+,=:@\-]|%[0-9A-Fa-f]{2})+)+/?", re.ASCII
)
# Escapes of what separates or ends something (# % ? / ; and the backslash), of controls,
# and of what nobody has to escape: so that a word is written in one way.
_DECEIVING = re.compile(
    r"%(?:[01].|2[35dDeEfF]|3[0-9bBfF]|[46][1-9a-fA-F]|[57][0-9aA]|5[cCfF]|7[eEfF])",
    re.ASCII,
)
# What stands after these words is known as well: there are servers to which capitals and
# small letters are the same, and our limits on tokens go by the path.
_AFTER = {
    "chat": re.compile(
        r"/completions(?:/[^/]+(?:/messages)?)?|/deferred-completion/[^/]+"
        r"|/moderations|/classifications"
    ),
    "messages": re.compile(r"(?:/count_tokens|/batches(?:/[^/]+(?:/[a-z]+)?)?)?"),
    **dict.fromkeys(
        ["completions", "embeddings", "moderations", "rerank"],
        re.compile(""),
    ),
}
_PREFIX = re.compile(r"/p/([A-Za-z0-9._\-]+)(/.+)", re.ASCII)
_GOOGLE = re.compile(
    r"/gemini(?P<upload>/upload)?/(?P<version>v1(?:beta|alpha)?)(?P<rest>/.+)"
)
# Azure's paths but the newest, which are those of OpenAI below its base URL; the name of
# a deployment is that of a model.
_AZURE = re.compile(r"/openai(?P<rest>(?:/deployments/[^/]+)?/(?P<family>[a-z_]+).*)")
_COHERE = re.compile(r"/v2/(?:chat|embed|rerank)|/v1/chat")
# What is done with a model, unlike the last part of a model's own name.
_VERB = re.compile(
    r":(?:asyncBatch|batch|compute|count|embed|generate|predict|stream)[A-Za-z]*$"
)
# Of PaLM's API, which has gone: nobody counts what they would cost.
_GONE = re.compile(r":(?:(?:batch)?embedText|generate(?:Text|Message))$", re.IGNORECASE)
_MODEL = re.compile(r"/(?:models|tunedModels|deployments)/([^/:]{1,256})")
_LONGEST = 2048
_COLON = "%3a"  # what follows one is done, at Google; elsewhere it is part of a name


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """Where a call goes: `path` is what comes below the base URL of a provider.

    `provider` is the one that the path names, "" where the model decides. `is_native`
    says that the path begins at the provider's own root, not at its base URL.
    """

    dialect: Dialect
    path: str
    provider: str = ""
    is_native: bool = False
    family: str = dataclasses.field(init=False)  # the first word: files, chat, batches

    def __post_init__(self) -> None:
        words = [*self.path.split("/"), "", "", ""]
        word = words[1]
        if word == "deployments":
            word = words[3]
        elif word.startswith(("v1", "v2")) and words[2]:
            word = words[2]
        object.__setattr__(self, "family", word)


class _Shared(NamedTuple):
    """A path below `/v1` that several APIs have: the caller's headers tell which."""

    path: str
    provider: str = ""

    def told(self, headers: list[tuple[bytes, bytes]]) -> Route | None:
        if _has(headers, _ANTHROPICS):
            return Route(Dialect.ANTHROPIC, self.path, self.provider)
        if self.provider and _has(headers, _GOOGLES):
            if _COLON in self.path.lower():
                return None
            return Route(Dialect.GEMINI, self.path, self.provider, is_native=True)
        return Route(Dialect.OPENAI, self.path.removeprefix("/v1"), self.provider)


def find(raw_path: bytes, headers: list[tuple[bytes, bytes]]) -> Route | None:
    """Return the route of a path, None where there is none."""
    found = _find(raw_path)
    return found.told(headers) if isinstance(found, _Shared) else found


@functools.lru_cache(maxsize=1024)  # most calls ask for a few paths
def _find(raw_path: bytes) -> Route | _Shared | None:
    path = raw_path.decode("latin-1")
    found = _leading(path.rstrip("/")) if is_plain(path) else None
    if isinstance(found, Route) and found.dialect is not Dialect.COHERE:
        return found if _is_known(found.path, found.family) else None
    return found


def _leading(path: str) -> Route | _Shared | None:
    if path.startswith("/v1/"):
        return _of_v1(path.removeprefix("/v1"))
    if path.startswith("/anthropic/v1/"):
        return _in(_ANTHROPIC, Dialect.ANTHROPIC, path.removeprefix("/anthropic"))
    if path.startswith("/p/"):
        return _of_provider(path)
    return _of_gemini(path)


def is_plain(path: str) -> bool:
    """Say whether a path means the same to everybody who reads it."""
    if len(path) > _LONGEST or _PATH.fullmatch(path) is None:
        return False
    if _DECEIVING.search(path):
        return False
    words = path.split("/")
    if (
        "%" in path
    ):  # some servers leave out spaces around a word, and what has no width
        words = [urllib.parse.unquote(word) for word in words]
        if not all(word.isprintable() and word == word.strip() for word in words):
            return False
    return not any(word in {".", ".."} for word in words)


def guessed(raw_path: bytes, headers: list[tuple[bytes, bytes]]) -> Dialect:
    """Return the dialect in which to refuse a path that leads nowhere."""
    if raw_path.startswith(b"/gemini"):
        return Dialect.GEMINI
    if raw_path.startswith(b"/anthropic") or _has(headers, _ANTHROPICS):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI


def _is_known(path: str, family: str) -> bool:
    """Say whether a family has a path that ends so."""
    after = _AFTER.get(family)
    if after is None:
        return True
    words = path.split("/")
    at = 3 if words[1] == "deployments" else words.index(family)
    return after.fullmatch("/".join(["", *words[at + 1 :]])) is not None


def _of_v1(rest: str) -> Route | _Shared | None:
    family = rest.split("/")[1]
    if family in _SHARED:
        return _Shared(f"/v1{rest}")
    if family in _ANTHROPIC:
        return Route(Dialect.ANTHROPIC, f"/v1{rest}")
    return _in(_OPENAI, Dialect.OPENAI, rest)


def _has(headers: list[tuple[bytes, bytes]], marks: frozenset[bytes]) -> bool:
    return any(name in marks for name, _ in headers)


def _in(families: frozenset[str], dialect: Dialect, path: str) -> Route | None:
    route = Route(dialect, path)
    return route if route.family in families else None


def _of_gemini(path: str) -> Route | None:
    match = _GOOGLE.fullmatch(path)
    if match is None or _COLON in path.lower() or _GONE.search(path):
        return None
    version, rest = match["version"], match["rest"]
    if rest.startswith("/openai/") and not match["upload"]:
        rest = rest.removeprefix("/openai")
        route = _in(_OPENAI, Dialect.OPENAI, rest)
        return None if route is None else dataclasses.replace(route, provider="gemini")
    family = rest.split("/")[1].partition(":")[0]
    if family not in _GEMINI or (match["upload"] and family not in _UPLOADED):
        return None
    upload = match["upload"] or ""
    return Route(
        Dialect.GEMINI, f"{upload}/{version}{rest}", provider="gemini", is_native=True
    )


def _of_provider(path: str) -> Route | _Shared | None:
    match = _PREFIX.fullmatch(path)
    if match is None:
        return None
    name, rest = urllib.parse.unquote(match[1]), match[2]
    for own in ("/openai/v1", _own_path(name)):
        if own and rest.startswith(f"{own}/"):
            rest = rest.removeprefix(own)
    if _COHERE.fullmatch(rest):
        return Route(Dialect.COHERE, rest, provider=name, is_native=True)
    azure = _AZURE.fullmatch(rest)
    if azure is not None:
        route = Route(Dialect.OPENAI, azure["rest"], provider=name, is_native=True)
        return route if azure["family"] in _OPENAI else None
    bare = rest.removeprefix("/v1") if rest.startswith("/v1/") else rest
    family = bare.split("/")[1]
    if _is_googles(name, rest, family):
        inner = _of_gemini(f"/gemini{rest}")
        return None if inner is None else dataclasses.replace(inner, provider=name)
    if family in _ANTHROPIC - _OPENAI:
        return Route(Dialect.ANTHROPIC, f"/v1{bare}", provider=name)
    if bare is not rest and family in _SHARED_BELOW_ONE:
        return _Shared(rest, name)
    if family not in _OPENAI:
        return None
    return Route(Dialect.OPENAI, bare, provider=name)


def _is_googles(name: str, rest: str, family: str) -> bool:
    """Say whether a path is one of Gemini's own, whatever the headers say."""
    if rest.startswith("/upload/"):
        return name == "gemini"  # where the URLs of uploads lead
    is_other_version = rest.startswith(("/v1beta/", "/v1alpha/"))
    return is_other_version or family in _GEMINI - _OPENAI or bool(_VERB.search(rest))


def _own_path(name: str) -> str:
    """Return what stands before the paths in a known provider's own URLs.

    Its own SDK may put that below the gateway as well.
    """
    known = PROVIDERS.get(name)
    return "" if known is None else urllib.parse.urlsplit(known.base_url).path


def model_in(path: str) -> str:
    """Return the model that a path names, "" where it names none."""
    match = _MODEL.search(path)
    return "" if match is None else urllib.parse.unquote(match[1])


def url_of(base_url: str, route: Route) -> str:
    """Return the URL of a call below a provider's base URL."""
    if route.is_native:
        root = base_url.removesuffix("/openai")
        root = re.sub(r"/v1(?:beta|alpha)?$", "", root)
        return root.removesuffix("/compatibility") + route.path
    if route.path.startswith("/v1/") and base_url.endswith("/v1"):
        return base_url + route.path.removeprefix("/v1")
    return base_url + route.path
