"""The words in which provider knowledge is told to the floors above.

A provider reads bytes and headers and answers in these types; it never waits, sends or
remembers. Amounts are whole numbers, times are integer microseconds.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Dialect(StrEnum):
    """Whose shapes a provider's requests and answers have."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    INTERACTIONS = "interactions"  # Gemini's newer one
    COHERE = "cohere"
    BEDROCK = "bedrock"


class Counting(StrEnum):
    """How a provider counts the tokens of a call."""

    GREATER = "greater"  # the greater of max_tokens and the input; never corrected
    RELAY = "relay"  # that at first; at the end the call's own tokens, if more
    SUM = "sum"  # input and max_tokens at first; what the call came to, at the end
    INPUT = "input"  # input alone
    GENERATED = "generated"  # input at first; output as it is generated
    FIXED = "fixed"  # input and max_tokens; never corrected
    BURNDOWN = "burndown"  # as SUM, output at the end times a factor of the model's


class Endpoint(StrEnum):
    """What a request asks for, as far as limits are concerned."""

    CHAT = "chat"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    GENERATE = "generate"  # Gemini's own
    INTERACTIONS = "interactions"  # Gemini's newer one
    COHERE_CHAT = "cohere_chat"  # Cohere's own
    CONVERSE = "converse"  # Bedrock's own
    OTHER = "other"  # counts as a request and takes no tokens


# What is served in a provider's own shape alone, beside OpenAI's.
NATIVE = frozenset(
    [
        Endpoint.GENERATE,
        Endpoint.INTERACTIONS,
        Endpoint.COHERE_CHAT,
        Endpoint.CONVERSE,
    ]
)


# Output held for a call that sets no bound of its own, until answers have taught better.
# The median answer of chat models is some 300 tokens; three times that covers most, and
# what is above is charged when the answer ends.
UNSET_OUTPUT = 1000

ONE = 1_000_000  # ratios are in millionths


class Estimate(NamedTuple):
    """What a prompt is thought to come to, taken apart so that it can be corrected.

    `text` is what its texts come to by the `family` of tokenizers, in the kind of text
    that `script` names; corrected or not, they are never below `least` nor above
    `most`. `frame` is what messages and tools add, `parts` what images, documents and
    sounds do, both upper figures. `margin` is in per cent.
    """

    family: str
    script: str
    text: int
    least: int
    most: int
    frame: int
    parts: int
    margin: int

    def upper(self, ratio: int | None = None) -> int:
        """Return the upper figure; `ratio` is what the texts have been seen to reach.

        In millionths; without one the margin stands in for it.
        """
        if ratio is None:
            ratio = self.margin * ONE // 100
        text = max(self.least, min(-(-self.text * ratio // ONE), self.most))
        rest = (self.frame + self.parts) * self.margin
        return max(1, text + -(-rest // 100))


class RequestFacts(NamedTuple):
    """What a request will take, before it is sent.

    `input_tokens` is an upper figure, `estimate` what it was made of, None where the
    body could not be read; `max_output` is the bound the caller set, None where none
    was set, and `likely_output` what a choice takes then; `choices` is `n`, of pictures as
    well; `others` are models that may answer in the place of this one; `background` says
    that it is answered before it is done, so that what flows shows nothing; `is_fast`
    that it is written faster than usual, at another price.
    """

    endpoint: Endpoint
    model: str = ""
    stream: bool = False
    input_tokens: int = 0
    estimate: Estimate | None = None
    max_output: int | None = None
    likely_output: int = UNSET_OUTPUT
    choices: int = 1
    others: tuple[str, ...] = ()
    background: bool = False
    is_fast: bool = False


class Costs(NamedTuple):
    """What a request takes from each unit, when it is sent.

    `charged` is what the provider itself counts at admission. `reserved` is at least
    that: what the call may come to, held as a precaution until it is settled. A caller
    reserves no more than a limit holds, but never less than is charged.
    """

    charged: Mapping[str, int]
    reserved: Mapping[str, int]


class Usage(NamedTuple):
    """What an answer says was used. Input includes cached tokens; output, reasoning.

    `cache_write_1h_tokens` are those of the written ones that are kept for an hour;
    None where they are not told apart.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int = 0


class Kind(StrEnum):
    """What an error answer means for whoever sent the call."""

    THROTTLED = "throttled"  # a limit: wait, then try again
    RAMP = "ramp"  # too steep a rise: wait, and rise more slowly
    STOPPED = "stopped"  # a day's or a plan's allowance is gone: wait long
    OVERLOADED = "overloaded"  # the provider's own trouble: back off, shrink nothing
    BILLING = "billing"  # credit or spend cap: nobody waits for that
    IMPOSSIBLE = "impossible"  # larger than a limit: no wait would help
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    TRANSIENT = "transient"  # 408, 409, 5xx: may be tried again
    REJECTED = "rejected"  # the request itself is wrong: the same again fails again


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An error answer, read: what it means, which limit it names and for how long.

    `retry_after_us` is the provider's own hint, None where it gave none or an absurd
    one. `unit` and `window_us` name the limit, None where the answer does not;
    `of_model` says that it is one of the model asked for, and not of the account.
    `retry` says whether the same call may be sent again.
    """

    kind: Kind
    retry: bool
    retry_after_us: int | None = None
    unit: str | None = None
    window_us: int | None = None
    of_model: bool = False


class Meter(Protocol):
    """Reads the usage out of an answer as it passes, byte by byte, keeping little."""

    def feed(self, data: bytes) -> None:
        """Look at bytes of the (decoded) body; never fails, whatever they are."""

    def usage(self) -> Usage | None:
        """Return what the answer said it used, so far; None where it has not."""

    def flowed(self) -> int:
        """Return an estimate of the output tokens seen so far, 0 if none."""

    def failure(self, now_us: int) -> Verdict | None:
        """Return the error that came inside a 200 answer, None where none did."""
