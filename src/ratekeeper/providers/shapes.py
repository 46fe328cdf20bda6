"""Shapes: what the two families of APIs have in common, and small readers of JSON.

A dialect knows where a request holds its prompt and where an answer holds its usage.
It is told of parsed JSON, which may hold anything: what has another shape than expected
is not there.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ratekeeper.providers.facts import Endpoint, RequestFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.providers.facts import Usage

LONGEST_MODEL = 256  # longer names are cut
_LARGEST_COUNT = 10**9  # of tokens; no request or answer has as many
_MOST_CHOICES = 10_000
_BYTES_PER_TOKEN = 4
_YES = frozenset(["1", "on", "t", "true", "y", "yes"])  # as pydantic has it
_WHOLE = re.compile(r"\.0*$")  # and nothing behind it

Json = dict[str, object]


class Glimpse(NamedTuple):
    """What one JSON value of an answer shows.

    `usage` is the provider's own report, as it stands; `text` counts the bytes of
    generated text.
    """

    usage: Json | None = None
    text: int = 0
    error: Json | None = None


class Shapes(Protocol):
    """How one family of APIs writes requests, answers and errors.

    `usage_name` is the name of the report of usage in a whole answer.
    """

    usage_name: str

    def read_request(
        self, method: str, path: str, body: bytes | Json, margin: int
    ) -> RequestFacts:
        """Read a request; `margin` is what the input estimate is raised to, in %."""

    def read_event(self, value: Json) -> Glimpse:
        """Look at one event of a stream."""

    def read_answer(self, value: Json) -> Glimpse:
        """Look at a whole answer."""

    def usage(self, report: Json) -> Usage | None:
        """Translate the provider's own report; None where it counts no tokens."""

    def output(self, report: Json) -> int | None:
        """Return the output tokens that a report counts, None where it does not."""

    def refusal(self, message: str, code: str, unit: str | None) -> Json:
        """Write the body of an error that the provider's SDK raises as its own."""


def read_json(data: bytes | str) -> object:
    """Parse JSON that may be anything; None where it is none, or too deep."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def read_object(data: bytes | str | Json) -> Json | None:
    """Parse a JSON object; None where it is none. One that is parsed stays as it is."""
    value = data if isinstance(data, dict) else read_json(data)
    return value if isinstance(value, dict) else None


def inner(value: Mapping[str, object], name: str) -> Json:
    """Return the object under a name, an empty one where there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def count(value: Mapping[str, object], name: str) -> int | None:
    """Return the whole number under a name, None where there is none that makes sense."""
    found = value.get(name)
    if type(found) is int and 0 <= found <= _LARGEST_COUNT:
        return found
    return None


def text(value: Mapping[str, object], name: str) -> str:
    """Return the text under a name, or nothing."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def length(value: Mapping[str, object], name: str) -> int:
    """Return the length of the list under a name, 0 where there is none."""
    found = value.get(name)
    return len(found) if isinstance(found, list) else 0


def size(value: object) -> int:
    """Return the bytes of a text, 0 where it is none."""
    if not isinstance(value, str):
        return 0
    return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))


def model_of(request: Json) -> str:
    """Return the model's name, cut to a sensible length."""
    return text(request, "model")[:LONGEST_MODEL]


def choices_of(*said: object) -> int:
    """Return how many answers are asked for, by the largest of what is said.

    A number is one however it is written: Google takes "3", others 3.0, pydantic " 1_0".
    """
    return min(max([1, *map(_number, said)]), _MOST_CHOICES)


def is_true(value: object) -> bool:
    """Say whether a flag is set, for whoever takes "true" and 1 as well as true."""
    if isinstance(value, str):
        return value.strip().lower() in _YES
    return value == 1


def _number(value: object) -> int:
    if isinstance(value, str):
        try:
            return int(_WHOLE.sub("", value.strip()))
        except ValueError:
            return 0
    if isinstance(value, float) and value == value // 1:  # neither NaN nor infinite
        value = int(value)
    return value if type(value) is int else 0


def unreadable(endpoint: Endpoint, body: bytes | Json) -> RequestFacts:
    """Return the facts of a body that is no JSON object: a guess by its length."""
    return RequestFacts(
        endpoint=endpoint, input_tokens=-(-len(body) // _BYTES_PER_TOKEN)
    )


def clean_path(path: str) -> str:
    """Return a path without its query and its trailing slash."""
    return path.partition("?")[0].rstrip("/")
