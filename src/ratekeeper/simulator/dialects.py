"""Which providers the simulator can play, by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.anthropic import Anthropic
from ratekeeper.simulator.bedrock import Bedrock
from ratekeeper.simulator.cohere import Cohere
from ratekeeper.simulator.gemini import Gemini
from ratekeeper.simulator.openai import OpenAI
from ratekeeper.simulator.twist import Twisted
from ratekeeper.simulator.twists import TWISTS
from ratekeeper.simulator.variants import (
    Azure,
    DeepSeek,
    Groq,
    HolySheep,
    Mistral,
    OpenAIShaped,
)
from ratekeeper.simulator.vertex import Vertex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.simulator.dialect import Dialect

_KINDS: Mapping[str, type[OpenAI | Anthropic]] = {
    kind.name: kind
    for kind in (
        OpenAI,
        Anthropic,
        Azure,
        Bedrock,
        Cohere,
        DeepSeek,
        Gemini,
        Groq,
        HolySheep,
        Mistral,
        Vertex,
    )
}
KNOWN = tuple(sorted([*_KINDS, *TWISTS]))


def find_dialect(name: str) -> Dialect:
    """Return the dialect of a provider; a name nobody knows speaks as OpenAI does.

    A name that is nearly a known one is a `ConfigError`.
    """
    if name in _KINDS:
        return _KINDS[name]()
    if name in TWISTS:
        return Twisted(TWISTS[name])
    near = difflib.get_close_matches(name, KNOWN, n=1)
    if near or not name.replace("-", "").isalnum() or not name.isascii():
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        message = (
            f"{name[:60]!r} is not a provider{hint}: expected one of {', '.join(KNOWN)},"
            " or another name of letters and digits to play an OpenAI-shaped one"
        )
        raise ConfigError(message)
    return OpenAIShaped(name)
