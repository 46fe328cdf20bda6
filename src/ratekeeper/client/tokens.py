"""Exact counts of tokens, where their tokenizer is to be had: OpenAI's and Qwen's.

The only home of toktok-rs, an extra. Counting by it takes as long as estimating, once
its vocabularies are loaded, which takes a moment and tens of megabytes. It refuses to
guess: what it does not know is estimated as ever.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ratekeeper.errors import ConfigError
from ratekeeper.providers.estimate import EXACT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_ENCODINGS = {"o200k": "o200k_base", "cl100k": "cl100k_base", "qwen": "qwen3.5"}
FAMILIES = tuple(_ENCODINGS)


def count_exactly(families: Iterable[str] = FAMILIES) -> None:
    """Count prompts of these families from now on, in this process, by toktok-rs.

    Loads their vocabularies at once, so that no call waits for them. Prompts of more
    than 256 K characters are still estimated. Without the extra, a `ConfigError`.
    """
    try:
        peer: Any = importlib.import_module("toktok")
    except ImportError:
        raise ConfigError(
            "counting tokens exactly needs toktok-rs: pip install 'ratekeeper[tokens]'"
        ) from None
    for family in families:
        encoding = _ENCODINGS.get(family)
        if encoding is None:
            raise ConfigError(
                f"{family[:80]!r} has no exact counter: expected one of "
                f"{', '.join(FAMILIES)}"
            )
        counter = _counter(peer.batch_count, encoding)
        counter(["loads the vocabulary"])
        EXACT[family] = counter


def _counter(
    batch_count: Callable[[Sequence[str], str], list[int]], encoding: str
) -> Callable[[Sequence[str]], int]:
    def count(texts: Sequence[str]) -> int:
        clean = [
            # It takes no lone halves of surrogate pairs, which JSON may hold.
            text if text.isascii() else text.encode("utf-8", "replace").decode()
            for text in texts
        ]
        return sum(batch_count(clean, encoding))

    return count
