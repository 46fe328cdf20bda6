"""Counting: what a call takes from each unit, by the way its provider counts.

Knows seven ways of counting and nothing of bytes. Every answer names all four units, so
that any limit finds its own. Where nobody knows better, the figure is the larger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.providers.facts import UNSET_OUTPUT, Costs, Counting, Endpoint

if TYPE_CHECKING:
    from ratekeeper.providers.facts import RequestFacts, Usage

# Claude models whose cached input counts like any other.
_CACHE_COUNTS = ("claude-3-5-haiku", "claude-haiku-3-5")

# What Bedrock holds for a call that sets no bound: the model's own, which no table
# knows. The most that current Claude models write unasked.
_BEDROCK_UNSET = 64_000
# How much an output token counts on Bedrock, by the model's name; 1 for the rest.
_BURNDOWN = (  # the first that fits
    (15, ("claude-opus-4-8", "claude-sonnet-4-8", "claude-haiku-4-8")),
    (5, ("claude-3-7", "claude-opus-4", "claude-sonnet-4", "claude-haiku-4")),
    (10, ("claude-sonnet-5", "claude-opus-5", "claude-fable-5", "gpt-5.6")),
)

_COUNTED = {
    Endpoint.CHAT,
    Endpoint.RESPONSES,
    Endpoint.EMBEDDINGS,
    Endpoint.MESSAGES,
    Endpoint.GENERATE,
    Endpoint.INTERACTIONS,
    Endpoint.COHERE_CHAT,
    Endpoint.CONVERSE,
}


_BOTH = {Counting.SUM, Counting.FIXED, Counting.BURNDOWN}


def costs(counting: Counting, facts: RequestFacts) -> Costs:
    """Say what a call takes when it is sent, and what to reserve for it."""
    if facts.endpoint not in _COUNTED:
        one = 0 if facts.endpoint is Endpoint.COUNT_TOKENS else 1
        nothing = _units(one, 0, 0, 0)
        return Costs(charged=nothing, reserved=nothing)
    put = facts.input_tokens
    most = _most_output(facts)
    if counting is Counting.GENERATED:
        return Costs(
            charged=_units(1, put, put, 0),
            reserved=_units(1, put + most, put, most),
        )
    sure = _sure_output(facts)
    if counting is Counting.INPUT:
        return Costs(
            charged=_units(1, put, put, sure), reserved=_units(1, put, put, most)
        )
    if counting in _BOTH:
        if counting is Counting.BURNDOWN and facts.max_output is None:
            most = _BEDROCK_UNSET * facts.choices
        return Costs(
            charged=_units(1, put + sure, put, sure),
            reserved=_units(1, put + most, put, most),
        )
    greater = _greater(facts)
    held = greater if counting is Counting.GREATER else put + most
    return Costs(
        charged=_units(1, greater, put, sure), reserved=_units(1, held, put, most)
    )


def charged(
    counting: Counting, facts: RequestFacts, usage: Usage, *, cached_free: bool
) -> dict[str, int]:
    """Say what a call came to, now that its answer has told."""
    put = usage.input_tokens
    if cached_free and not facts.model.startswith(_CACHE_COUNTS):
        put = max(0, put - usage.cache_read_tokens)
    return _settled(counting, facts, put, usage.output_tokens)


def partial(counting: Counting, facts: RequestFacts, flowed: int) -> dict[str, int]:
    """Say what a call came to whose answer did not tell, from what has flowed.

    Empty where nothing flowed: the reservation stands.
    """
    if flowed <= 0:
        return {}
    if facts.max_output is not None:
        flowed = min(flowed, facts.max_output * facts.choices)
    return _settled(counting, facts, facts.input_tokens, flowed)


def _settled(
    counting: Counting, facts: RequestFacts, put: int, out: int
) -> dict[str, int]:
    if facts.endpoint not in _COUNTED:
        return dict(costs(counting, facts).charged)
    tokens = put + out
    if counting is Counting.FIXED:
        return dict(costs(counting, facts).charged)
    if counting is Counting.BURNDOWN:
        tokens = put + out * _burndown(facts.model)
    elif counting is Counting.INPUT:
        tokens = put
    elif counting is Counting.GREATER:
        tokens = _greater(facts)
    elif counting is Counting.RELAY:
        tokens = max(tokens, _greater(facts))
    return _units(1, tokens, put, out)


def _burndown(model: str) -> int:
    for factor, names in _BURNDOWN:
        if any(name in model for name in names):
            return factor
    return 1


def _greater(facts: RequestFacts) -> int:
    """Return the greater of max_tokens and the input: OpenAI's published rule."""
    return max((facts.max_output or 0) * facts.choices, facts.input_tokens)


def _most_output(facts: RequestFacts) -> int:
    one = facts.likely_output if facts.max_output is None else facts.max_output
    return one * facts.choices


def _sure_output(facts: RequestFacts) -> int:
    """Return what is charged at once: a guess, however high, makes no call impossible."""
    one = min(facts.likely_output, UNSET_OUTPUT)
    return (one if facts.max_output is None else facts.max_output) * facts.choices


def _units(requests: int, tokens: int, put: int, out: int) -> dict[str, int]:
    return {
        "requests": requests,
        "tokens": tokens,
        "input_tokens": put,
        "output_tokens": out,
    }
