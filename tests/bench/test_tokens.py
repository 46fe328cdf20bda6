"""Estimates against the exact counts, over texts that are installed here."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from benchmarks import corpus, counters, tokens
from ratekeeper.providers.estimate import text_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    Exact = dict[str, Callable[[str], int]]

FAMILIES = ("o200k", "cl100k", "qwen")  # those that toktok-rs counts


@pytest.fixture(scope="module")
def pieces() -> dict[str, list[str]]:
    """Return documentation, code, JSON, tables, noise and this project's Chinese."""
    return {kind: texts[:60] for kind, texts in corpus.pieces().items()}


@pytest.fixture(scope="module")
def exact() -> Exact:
    return counters.exact()[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_estimates_are_no_worse_than_two_points_above_the_regex(
    pieces: dict[str, list[str]], exact: Exact, family: str
) -> None:
    true = {kind: [*map(exact[family], texts)] for kind, texts in pieces.items()}
    ours = functools.partial(text_tokens, family=family)
    error = tokens.mape(tokens.errors(pieces, true, ours))
    regex = tokens.mape(tokens.errors(pieces, true, counters.regex(family)))
    quarter = tokens.mape(tokens.errors(pieces, true, counters.chars_by_four))

    assert {"English", "Python", "Chinese", "JSON"} <= pieces.keys()
    assert error <= regex + 0.02
    assert error < quarter / 2
    assert error < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_has_more_tokens_than_bytes(
    pieces: dict[str, list[str]], exact: Exact, family: str
) -> None:
    count = exact[family]

    assert all(
        count(text) <= len(text.encode()) for texts in pieces.values() for text in texts
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "text",
    [
        "a" * 50_000,
        "xqzjvkwp" * 5_000,
        " " * 50_000,
        "\t" * 50_000,
        "\n" * 50_000,
        "\r\n" * 20_000,
        "=" * 50_000,
        "!@#$%^&*()" * 5_000,
        "\x00\x01\x02" * 10_000,
        "7" * 30_000,
        "漢字" * 10_000,
        "😀" * 5_000,
    ],
    ids=lambda text: repr(text[:4]),
)
def test_nobody_hides_tokens_in_a_long_run(
    exact: Exact, family: str, text: str
) -> None:
    assert text_tokens(text, family) >= 0.6 * exact[family](text)


@pytest.mark.parametrize("family", FAMILIES)
def test_upper_figures_are_passed_by_one_call_in_fifty_at_most(
    pieces: dict[str, list[str]], exact: Exact, family: str
) -> None:
    true = {kind: [*map(exact[family], texts)] for kind, texts in pieces.items()}
    expected, upper = tokens.replay(pieces, true, family)
    below = [one < 0 for each in upper.values() for one in each]

    assert sum(below) / len(below) <= 0.02
    assert tokens.mape(expected) < 0.1


def test_tiktoken_is_used_only_where_its_vocabulary_is_here(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))

    assert isinstance(counters.tiktoken(), str)
