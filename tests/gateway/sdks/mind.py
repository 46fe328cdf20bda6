"""What the model of the stand-in says: tools are called, forms are filled in.

It knows no API: each dialect reads what was asked into a `Turn` and writes what is said.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]

_PLAIN: Mapping[str, Any] = {
    "string": "Paris",
    "integer": 3,
    "number": 0.5,
    "boolean": True,
    "null": None,
}
_PIECE = 7  # characters of one delta


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """What a request asks for: tools by name, a form, what tools have said."""

    tools: Mapping[str, Json]
    form: Json | None = None
    results: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """What the model says: a text, or calls of tools with their arguments."""

    text: str = ""
    calls: tuple[tuple[str, Json], ...] = ()


def say(turn: Turn) -> Said:
    """Call every tool once; then fill in the form, or say what the tools have said."""
    if turn.tools and not turn.results:
        return Said(calls=tuple((n, filled(s)) for n, s in turn.tools.items()))
    if turn.form is not None:
        return Said(json.dumps(filled(turn.form)))
    return Said(", ".join(turn.results) or "Paris, où le café coûte 3 €.")


def filled(schema: Json, defs: Mapping[str, Json] | None = None) -> Any:
    """Return the plainest value that a JSON schema allows."""
    defs = schema.get("$defs", {}) if defs is None else defs
    if "$ref" in schema:
        return filled(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in schema:
        return filled(schema["anyOf"][0], defs)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object").lower()  # Gemini writes them in capitals
    if kind == "array":
        return [filled(schema["items"], defs)]
    if kind == "object":
        return {n: filled(s, defs) for n, s in schema.get("properties", {}).items()}
    return _PLAIN[kind]


def pieces(text: str) -> Iterator[str]:
    """Cut a text as a stream would."""
    for at in range(0, len(text), _PIECE):
        yield text[at : at + _PIECE]


def event(data: Json, name: str = "") -> bytes:
    """Write one server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
