"""How the simulated provider counts tokens: its "true" tokenizer, and its estimate.

Written apart from Ratekeeper's own estimator on purpose: estimate and truth must differ
as they do in life. Deterministic: the truth is a quarter of a text's UTF-8 bytes, the
estimate a quarter of its characters, each rounded up; Chinese text is thus
underestimated threefold at admission. It refuses to know any real vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import random

BYTES_PER_TOKEN = 4
PER_MESSAGE = 3  # the frame OpenAI's cookbook gives for every chat message
PRIMING = 3  # and for the reply's own opening
IMAGE = 85  # one low-detail image, as OpenAI counts it

# Words of three letters: with the space after them exactly one token each.
_WORDS = (
    "the",
    "and",
    "for",
    "you",
    "all",
    "can",
    "her",
    "was",
    "one",
    "our",
    "out",
    "day",
    "had",
    "has",
    "his",
    "how",
    "man",
    "new",
    "now",
    "old",
    "see",
    "two",
    "way",
    "who",
    "boy",
    "did",
    "its",
    "let",
    "put",
    "say",
    "she",
    "too",
    "use",
    "dad",
    "mom",
    "sea",
    "sky",
    "sun",
    "far",
    "low",
)


def true_tokens(text: str) -> int:
    """Count a text's tokens as the provider bills them."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def estimated_tokens(text: str) -> int:
    """Guess a text's tokens as the provider reserves them, by characters."""
    return -(-len(text) // BYTES_PER_TOKEN)


def words(count: int, source: random.Random) -> list[str]:
    """Generate a text of exactly so many tokens, one a word."""
    return [f"{word} " for word in source.choices(_WORDS, k=count)]


def read_texts(content: object) -> Iterator[str | None]:
    """Find the texts of one message's content; None stands for an image.

    Content is a string or a list of parts; what has another shape counts as its JSON.
    """
    match content:
        case None:
            return
        case str():
            yield content
        case list():
            for part in content:
                yield from _read_part(part)
        case _:
            yield _as_json(content)


def _read_part(part: object) -> Iterator[str | None]:
    match part:
        case str():
            yield part
        case {"type": "image_url" | "input_image" | "image"}:
            yield None
        case {"text": str(text)} | {"input_text": str(text)}:
            yield text
        case {"content": (str() | list()) as inner}:
            # A tool's result: its parts lie one floor down, and no deeper.
            for piece in [inner] if isinstance(inner, str) else inner:
                match piece:
                    case str():
                        yield piece
                    case {"text": str(text)}:
                        yield text
                    case _:
                        yield _as_json(piece)
        case _:
            yield _as_json(part)


def _as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def count_prompt(
    messages: Sequence[object], extra: Mapping[str, object]
) -> tuple[int, int]:
    """Count a whole prompt: (what is billed, what is estimated at admission).

    `extra` holds what counts besides the messages: a system prompt, tools, a schema.
    """
    truth = PRIMING + PER_MESSAGE * len(messages)
    estimate = 0
    contents = [m.get("content") if isinstance(m, Mapping) else m for m in messages]
    contents += [v for v in extra.values() if isinstance(v, str)]
    contents += [
        _as_json(v) for v in extra.values() if v is not None and not isinstance(v, str)
    ]
    for content in contents:
        for text in read_texts(content):
            truth += IMAGE if text is None else true_tokens(text)
            estimate += IMAGE if text is None else estimated_tokens(text)
    return truth, max(1, estimate)
