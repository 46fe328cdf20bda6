"""What is expected in a place of a file, in the words that are written there.

Words alone: whether something fits is decided elsewhere. A wrong value that is text is
not repeated, since it may be a key.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from ratekeeper.config.source import Place

_DURATION = "a duration such as 20s"
_SIZE = "a size such as 32MiB"
_PRICE = 'a price such as "2.50"'
_URL = "a URL such as https://api.example.com/v1"
_OF_FIELDS = {
    "listen": "a host and a port such as 127.0.0.1:8080",
    "store": "an address such as sqlite:///ratekeeper.db",
    "max_body": _SIZE,
    "max_held": _SIZE,
    "max_wait": _DURATION,
    "notice": _DURATION,
    "drain": _DURATION,
    "base_url": _URL,
    "proxy": "a URL such as http://proxy.example.com:3128",
    "api_key": "env:NAME, the variable that holds the key",
    "limits": "limits such as [60 rpm, 10k tpm]",
    "limit": "a limit such as 60 rpm",
    "allow_models": "a list of models such as [gpt-4o*]",
    "hash": "64 hexadecimal digits in quotation marks",
    "expires": "a date such as 2026-12-31",
    **dict.fromkeys(["input", "output", "cache_read", "cache_write"], _PRICE),
    **dict.fromkeys(["cache_write_1h", "request"], _PRICE),
}
_OF_ELEMENTS = {  # of lists, by the field that holds them
    "limits": _OF_FIELDS["limit"],
    "allow_models": "a model or a pattern such as gpt-4o*",
}
_OF_KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "names with their values",
}
_LONGEST = 40  # characters of a value that are shown


def form(place: Place, kind: Any) -> str:
    """Say what is written in a place, which holds a value of this kind."""
    match place:
        case (*_, str(field), int()) if field in _OF_ELEMENTS:
            return _OF_ELEMENTS[field]
        case ("providers", _, "models", _):
            return _OF_FIELDS["limits"]
        case ("providers", _, "models", _, int()):
            return _OF_FIELDS["limit"]
        case ("fallbacks", _, int()):
            return "provider/model, such as openai/gpt-4o"
        case ("rates", _):
            return "a rate such as 0.92"
        case ("fallbacks", _):
            return "a list such as [openai/gpt-4o]"
        case (*_, str(field)) if field in _OF_FIELDS:
            return _OF_FIELDS[field]
        case _:
            return _of_kind(kind)


def shown(data: Any) -> str:
    """Say what stands there instead."""
    match data:
        case bool():
            return str(data).lower()
        case int() | float():
            return str(data)[:_LONGEST]
        case str():
            return "text"
        case list():
            return "a list" if data else "an empty list"
        case dict():
            return "names with values"
        case _:
            return "nothing"


def _of_kind(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"{', '.join(inner[:-1])} or {inner[-1]}"
    if origin in {Union, types.UnionType}:
        forms = (_of_kind(one) for one in inner if one is not types.NoneType)
        return " or ".join(dict.fromkeys(forms))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _OF_KINDS[dict]
    return _OF_KINDS[origin or kind]
