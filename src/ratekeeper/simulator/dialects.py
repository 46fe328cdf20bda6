"""Which providers the simulator can play, by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.anthropic import Anthropic
from ratekeeper.simulator.gemini import Gemini
from ratekeeper.simulator.openai import OpenAI
from ratekeeper.simulator.variants import (
    Azure,
    DeepSeek,
    Groq,
    HolySheep,
    Mistral,
    OpenAIShaped,
)

if TYPE_CHECKING:
    from ratekeeper.simulator.dialect import Dialect

NATIVE = (
    "openai",
    "anthropic",
    "azure",
    "deepseek",
    "gemini",
    "groq",
    "holysheep",
    "mistral",
)
OPENAI_SHAPED = (
    "dashscope",
    "fireworks",
    "moonshot",
    "openrouter",
    "together",
    "xai",
    "zhipu",
)
_NOT_YET = ("bedrock", "cohere", "vertex")


def find_dialect(name: str) -> Dialect:
    """Return the dialect of a provider; a name nobody knows speaks as OpenAI does.

    A name that is nearly a known one, or whose shapes are not built yet, is a
    `ConfigError`.
    """
    kinds: dict[str, type[OpenAI | Anthropic]] = {
        kind.name: kind
        for kind in (
            OpenAI,
            Anthropic,
            Azure,
            DeepSeek,
            Gemini,
            Groq,
            HolySheep,
            Mistral,
        )
    }
    if name in kinds:
        return kinds[name]()
    if name in _NOT_YET:
        message = (
            f"the simulator does not speak {name}'s own shapes yet: expected one of "
            f"{', '.join((*NATIVE, *OPENAI_SHAPED))}"
        )
        raise ConfigError(message)
    known = (*NATIVE, *OPENAI_SHAPED)
    near = [] if name in known else difflib.get_close_matches(name, known, n=1)
    if near or not name.replace("-", "").isalnum() or not name.isascii():
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        message = (
            f"{name[:60]!r} is not a provider{hint}: expected one of {', '.join(known)},"
            " or another name of letters and digits to play an OpenAI-shaped one"
        )
        raise ConfigError(message)
    return OpenAIShaped(name)
