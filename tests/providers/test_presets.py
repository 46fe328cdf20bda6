"""Presets: every row can be enforced, and is found by what people type."""

from __future__ import annotations

import re

import pytest

from ratekeeper.core.limits import Algorithm
from ratekeeper.core.policy import rules_of
from ratekeeper.errors import ConfigError
from ratekeeper.providers.facts import Counting
from ratekeeper.providers.presets import Preset, preset, presets


@pytest.mark.parametrize(
    ("provider", "tier", "model", "limits"),
    [
        ("openai", "free", "gpt-4", ("50 rpm", "15k tpm")),
        ("openai", "paid", "gpt-4", ("500 rpm", "120k tpm")),
        ("openai", "free", None, ("50 rpm", "15k tpm")),
        ("openai", "1", "gpt-5.4", ("500 rpm", "500k tpm")),
        ("openai", "T5", "gpt-5.4-2026-03-05", ("15000 rpm", "40M tpm")),
        ("openai", "tier 1", "text-embedding-3-small", ("3000 rpm", "1M tpm")),
        ("openai", "tier-5", "text-embedding-3-small", ("10000 rpm", "10M tpm")),
        ("OpenAI", "FREE", "openai/gpt-4", ("50 rpm", "15k tpm")),
        ("anthropic", "free", None, ("25 rpm", "4k tpm")),
        ("anthropic", "paid", "claude-3-opus", ("100 rpm", "40k tpm")),
        (
            "anthropic",
            "start",
            "claude-sonnet-4-6",
            ("1000 rpm", "2M itpm", "400k otpm"),
        ),
        ("anthropic", "scale", "claude-fable-5", ("4000 rpm", "4M itpm", "800k otpm")),
        (
            "anthropic",
            "start",
            "claude-3-5-haiku-latest",
            ("1000 rpm", "100k itpm", "20k otpm"),
        ),
        ("gemini", "free", None, ("60 rpm", "60k tpm")),
        ("gemini", "paid", "gemini-3-pro", ("300 rpm", "1M tpm")),
        ("deepseek", "free", None, ("120 rpm", "20k tpm")),
        ("deepseek", "paid", "deepseek-v3", ("1000 rpm", "200k tpm")),
        ("deepseek", "standard", "deepseek-v4-pro", ("500 concurrent",)),
        ("vertex", "2", "gemini-2.5-pro", ("30k rpm", "1M tpm")),
        ("vertex", "tier 3", "google/gemini-3-flash", ("30k rpm", "10M tpm")),
        (
            "groq",
            "free",
            "openai/gpt-oss-120b",
            ("30 rpm", "1k rpd", "8k tpm", "200k tpd"),
        ),
        ("groq", "free", "whisper-large-v3", ("20 rpm", "2k rpd")),
        ("mistral", "free", None, ("1 rps", "500k tpm", "1B tokens/month")),
        ("xai", "T0", "grok-4.6", ("150 rps", "50M tpm")),
        ("xai", "4", None, ("500 rps", "100M tpm")),
        ("cohere", "trial", None, ("20 rpm", "1000 requests/month")),
        ("cohere", "production", "command-a-03-2025", ("500 rpm",)),
        (
            "openrouter",
            "free",
            "deepseek/deepseek-r1:free",
            ("20 rpm", "50 requests/day resets 00:00 UTC"),
        ),
        (
            "moonshot",
            "0",
            None,
            ("1 concurrent", "3 rpm", "500k tpm", "1500k tpd"),
        ),
        ("moonshot", "T5", "kimi-k2", ("1000 concurrent", "10000 rpm", "5M tpm")),
        ("fireworks", "paid", None, ("6000 rpm", "900k itpm", "36k otpm")),
        ("dashscope", "standard", "qwen3-max", ("600 rpm", "1M tpm")),
        ("holysheep", "standard", None, ("1000 rpm", "200k tpm", "10M tpd")),
        ("holysheep", "standard", "gpt-4o", ("1000 rpm", "200k tpm", "10M tpd")),
    ],
)
def test_a_preset_is_found_by_what_people_type(
    provider: str, tier: str, model: str | None, limits: tuple[str, ...]
) -> None:
    assert limits == preset(provider, tier=tier, model=model).limits


def test_a_tier_written_as_a_number_is_found() -> None:
    """YAML reads `tier: 1` as one."""
    assert "1" == preset("openai", tier=1, model="gpt-5.4").tier  # type: ignore[arg-type]  # as YAML gives it


def test_a_finer_row_wins_over_the_providers_common_one() -> None:
    assert 3 == len(preset("gemini", tier="free", model="gemini-2.5-flash").limits)


@pytest.mark.parametrize(
    "one", presets(), ids=lambda p: f"{p.provider}-{p.tier}-{p.models[0]}"
)
def test_every_preset_can_be_enforced_and_says_whence_it_is(one: Preset) -> None:
    rules = rules_of(one.limits, one.account)

    assert len(one.limits) == len(rules)
    assert re.fullmatch(r"2026-(0[1-9]|1[0-2])(-[0-3][0-9])?", one.dated)
    assert len(one.source) > 10
    assert one.models
    assert one.counting in Counting


def test_no_row_is_hidden_behind_an_earlier_one() -> None:
    for one in presets():
        model = one.models[0].replace("*", "x")
        found = preset(one.provider, tier=one.tier, model=model)

        assert one is found


def test_a_preset_brings_what_its_provider_enforces_and_counts() -> None:
    claude = preset("anthropic", tier="free")
    gemini = preset("gemini", tier="free")

    assert (Algorithm.TOKEN_BUCKET, Counting.GENERATED) == (
        claude.account.unsaid,
        claude.counting,
    )
    assert "tokens" in claude.account.refunds
    assert (Algorithm.PACED, Counting.INPUT) == (gemini.account.unsaid, gemini.counting)
    assert not gemini.account.refunds


@pytest.mark.parametrize(
    ("provider", "tier", "model", "words"),
    [
        ("opnai", "free", None, ["did you mean 'openai'?", "anthropic, gemini"]),
        ("openai", "fre", None, ["did you mean 'free'?", "free, paid, 1, 2"]),
        ("openai", "9", None, ["no tier of openai is called '9'"]),
        ("openai", "1", None, ["model=", "gpt-5.4", "text-embedding-3-small"]),
        ("openai", "1", "gpt-5.5", ["did you mean 'gpt-5.4'?"]),
        ("openai", "free", "x" * 10**5, ["expected one of gpt-4, gpt-4-*"]),
        ("", "", "", ["expected one of openai"]),
    ],
)
def test_what_is_not_known_is_answered_with_what_is(
    provider: str, tier: str, model: str | None, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        preset(provider, tier=tier, model=model)

    assert all(word in str(caught.value) for word in words)
    assert len(str(caught.value)) < 400
