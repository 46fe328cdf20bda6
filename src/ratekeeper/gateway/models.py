"""Models: what a request has run, wherever its path or its body names it.

It is for keys that may use some models only. What models read and write is stepped
over: there a member of any name may stand. What runs without being named in the
request, because it was named before, cannot be told. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.gateway import route
from ratekeeper.providers.facts import Dialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ratekeeper.gateway.route import Route

# Names of models, and of agents, which are models with something around them.
_NAMES = frozenset(["agent", "agent_id", "model", "models"])
_ENDS = ("model", "models")  # of members that tools and plugins have: analysis_models
_DECIDING = ("model", "models", "agent")  # at the top level
# What models read and write, and how tools describe themselves.
_FREE = frozenset(
    [
        "args",
        "arguments",
        "content",
        "contents",
        "input",
        "input_schema",
        "json_schema",
        "labels",
        "messages",
        "metadata",
        "parameters",
        "parametersjsonschema",
        "prompt",
        "responsejsonschema",
        "responseschema",
        "response_schema",
        "schema",
        "system",
        "system_instruction",
        "systeminstruction",
    ]
)
_RUNS_WHAT_A_FILE_SAYS = ("/batches", "/v1/batches")


class Ambiguous(Exception):
    """A body names two models in one object, or one in a way that is up to its reader."""


def is_needed(route_: Route) -> bool:
    """Say whether a POST there runs the model that it names."""
    if route_.path.endswith(("/cancel", "/batches")):  # each request in a batch does
        return False
    return route_.family in route.USES_MODELS or route_.path.endswith("/runs")


def is_hidden(route_: Route) -> bool:
    """Say whether a POST there runs models that are named elsewhere."""
    return (
        route_.family in {"dynamic", "evals"} or route_.path in _RUNS_WHAT_A_FILE_SAYS
    )


def decides(said: Mapping[str, object]) -> bool:
    """Say whether a body names the model that it asks."""
    return any(said.get(name) for name in _DECIDING)


def named(said: Mapping[str, object]) -> Iterator[str]:
    """Return every model that a body names; raises `Ambiguous`."""
    waiting: list[object] = [said]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, dict):
            yield from _in_object(one, waiting)


def _in_object(one: dict[str, object], waiting: list[object]) -> Iterator[str]:
    models = 0
    for name, value in one.items():
        word = name.lower()
        if word == "model":
            models += 1
        if word in _NAMES or word.endswith(_ENDS):
            listed = value if isinstance(value, list) else [value]
            yield from (each for each in listed if isinstance(each, str))
            if word in _NAMES and any(isinstance(one, dict | list) for one in listed):
                raise Ambiguous
        if word not in _FREE:
            waiting.append(value)
    if models > 1:
        raise Ambiguous


def bare(name: str, dialect: Dialect) -> str:
    """Return a model's name without what Google writes before it."""
    return name.rpartition("/")[2] if dialect is Dialect.GEMINI else name
