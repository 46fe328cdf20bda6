"""Presets: the limits that providers publish for a tier, each with its source and date.

Seeds, not truth: such figures move often, and an account's own may differ. A preset
brings along what its provider enforces, gives back and counts. No file, no network.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING

from ratekeeper.errors import ConfigError
from ratekeeper.providers.catalog import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratekeeper.core.policy import Account
    from ratekeeper.providers.facts import Counting

ANY = "*"
_LONGEST_WORD = 80


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The limits of one tier: for which models, by whom, as of when.

    A name in `models` that ends in `*` stands for all that begin so. `account` says
    what is enforced and given back, `counting` how a call's tokens are counted.
    """

    provider: str
    tier: str
    models: tuple[str, ...]
    limits: tuple[str, ...]
    source: str
    dated: str  # of the copy that was read: year and month, day where it is known

    @property
    def account(self) -> Account:
        """Return what the engine must know of the account."""
        return PROVIDERS[self.provider].account()

    @property
    def counting(self) -> Counting:
        """Return how the provider counts the tokens of a call."""
        return PROVIDERS[self.provider].counting

    def fits(self, model: str) -> bool:
        """Say whether the preset is for this model."""
        return any(
            model.startswith(name[:-1]) if name.endswith(ANY) else model == name
            for name in self.models
        )


_COMMON = "figures in common use for the tier; the provider's pages name others now"
_OPENAI = "developers.openai.com/api/docs/guides/rate-limits and the model's page"
_ANTHROPIC = "platform.claude.com/docs/en/api/rate-limits"
_DEEPSEEK = "api-docs.deepseek.com/quick_start/rate_limit"
_HOLYSHEEP = "holysheep.ai, the relay's own figures"
_GEMINI = "free-tier quota values seen in answers; ai.google.dev/gemini-api/docs"
_VERTEX = "docs.cloud.google.com/vertex-ai, standard pay-as-you-go: a baseline"
_GROQ = "console.groq.com/docs/rate-limits"
_MISTRAL = "help.mistral.ai, an older copy; the console shows a workspace's own"
_XAI = "docs.x.ai/developers/rate-limits.md"
_COHERE = "docs.cohere.com/docs/rate-limits, for chat"
_OPENROUTER = "OpenRouterTeam/docs, api_reference/limits.mdx, for models named :free"
_MOONSHOT = "platform.moonshot.ai/docs/pricing/limits"
_FIREWORKS = (
    "docs.fireworks.ai/serverless/rate-limits: where it starts, and adapts from"
)
_QWEN = "help.aliyun.com/zh/model-studio/rate-limit; a 60th of each holds by the second"

_GPT_4 = ("gpt-4", "gpt-4-*")
_GPT_54 = ("gpt-5.4", "gpt-5.4-20*")
_EMBEDDING = ("text-embedding-3-small",)
_CLAUDE = (
    "claude-opus-4*",
    "claude-opus-5*",
    "claude-sonnet-4*",
    "claude-sonnet-5*",
    "claude-haiku-4-5*",
)
_FABLE = ("claude-fable-5*",)
_HAIKU_35 = ("claude-3-5-haiku*", "claude-haiku-3-5*")
_GEMINI_PRO = ("gemini-2.5-pro*", "gemini-3-pro*")
_GEMINI_FLASH = ("gemini-2.5-flash*", "gemini-3-flash*", "gemini-3.5-flash*")
_GROK = ("grok-4.5*", "grok-4.6*", "grok-4.7*")
_FLASH = ("deepseek-v4-flash", "deepseek-flash*", "deepseek-chat")
_PRO = ("deepseek-v4-pro*", "deepseek-reasoner")

_Row = tuple[str, str, tuple[str, ...], tuple[str, ...], str, str]
_ROWS: tuple[_Row, ...] = (
    ("openai", "free", _GPT_4, ("50 rpm", "15k tpm"), _COMMON, "2026-11"),
    ("openai", "paid", _GPT_4, ("500 rpm", "120k tpm"), _COMMON, "2026-11"),
    ("openai", "1", _GPT_54, ("500 rpm", "500k tpm"), _OPENAI, "2026-09-29"),
    ("openai", "2", _GPT_54, ("5000 rpm", "1M tpm"), _OPENAI, "2026-09-29"),
    ("openai", "3", _GPT_54, ("5000 rpm", "2M tpm"), _OPENAI, "2026-09-29"),
    ("openai", "4", _GPT_54, ("10000 rpm", "4M tpm"), _OPENAI, "2026-09-29"),
    ("openai", "5", _GPT_54, ("15000 rpm", "40M tpm"), _OPENAI, "2026-09-29"),
    ("openai", "1", _EMBEDDING, ("3000 rpm", "1M tpm"), _OPENAI, "2026-09-29"),
    ("openai", "5", _EMBEDDING, ("10000 rpm", "10M tpm"), _OPENAI, "2026-09-29"),
    ("anthropic", "free", ("claude*",), ("25 rpm", "4k tpm"), _COMMON, "2026-11"),
    ("anthropic", "paid", ("claude*",), ("100 rpm", "40k tpm"), _COMMON, "2026-11"),
    (
        "anthropic",
        "start",
        _CLAUDE,
        ("1000 rpm", "2M itpm", "400k otpm"),
        _ANTHROPIC,
        "2026-10-09",
    ),
    (
        "anthropic",
        "start",
        _FABLE,
        ("1000 rpm", "500k itpm", "100k otpm"),
        _ANTHROPIC,
        "2026-10-09",
    ),
    (
        "anthropic",
        "start",
        _HAIKU_35,
        ("1000 rpm", "100k itpm", "20k otpm"),
        _ANTHROPIC,
        "2026-10-09",
    ),
    (
        "anthropic",
        "build",
        _CLAUDE,
        ("5000 rpm", "5M itpm", "1M otpm"),
        _ANTHROPIC,
        "2026-10-09",
    ),
    (
        "anthropic",
        "build",
        _FABLE,
        ("2000 rpm", "1500k itpm", "300k otpm"),
        _ANTHROPIC,
        "2026-10-09",
    ),
    (
        "anthropic",
        "scale",
        _CLAUDE,
        ("10000 rpm", "10M itpm", "2M otpm"),
        _ANTHROPIC,
        "2026-10-09",
    ),
    (
        "anthropic",
        "scale",
        _FABLE,
        ("4000 rpm", "4M itpm", "800k otpm"),
        _ANTHROPIC,
        "2026-10-09",
    ),
    (
        "anthropic",
        "scale",
        _HAIKU_35,
        ("4000 rpm", "400k itpm", "80k otpm"),
        _ANTHROPIC,
        "2026-10-09",
    ),
    (
        "gemini",
        "free",
        ("gemini-2.5-flash",),
        # the least that was seen: 5 to 10 rpm, 20 to 250 a day
        ("5 rpm", "250k tpm", "20 requests/day resets 00:00 America/Los_Angeles"),
        _GEMINI,
        "2026-08-18",
    ),
    ("gemini", "free", (ANY,), ("60 rpm", "60k tpm"), _COMMON, "2026-11"),
    ("gemini", "paid", (ANY,), ("300 rpm", "1M tpm"), _COMMON, "2026-11"),
    (
        "deepseek",
        "free",
        ("deepseek-v3*", "deepseek-chat"),
        ("120 rpm", "20k tpm"),
        _COMMON,
        "2026-11",
    ),
    (
        "deepseek",
        "paid",
        ("deepseek-v3*", "deepseek-chat"),
        ("1000 rpm", "200k tpm"),
        _COMMON,
        "2026-11",
    ),
    ("deepseek", "standard", _FLASH, ("2500 concurrent",), _DEEPSEEK, "2026-11"),
    ("deepseek", "standard", _PRO, ("500 concurrent",), _DEEPSEEK, "2026-11"),
    *(
        (
            "vertex",
            tier,
            models,
            ("30k rpm", tpm),
            _VERTEX,
            "2026-08-18",
        )
        for tier, pro, flash in (
            ("1", "500k tpm", "2M tpm"),
            ("2", "1M tpm", "4M tpm"),
            ("3", "2M tpm", "10M tpm"),
        )
        for models, tpm in ((_GEMINI_PRO, pro), (_GEMINI_FLASH, flash))
    ),
    (
        "groq",
        "free",
        ("gpt-oss-120b",),
        ("30 rpm", "1k rpd", "8k tpm", "200k tpd"),
        _GROQ,
        "2026-11",
    ),
    ("groq", "free", ("whisper*",), ("20 rpm", "2k rpd"), _GROQ, "2026-11"),
    (
        "mistral",
        "free",
        (ANY,),
        ("1 rps", "500k tpm", "1B tokens/month"),
        _MISTRAL,
        "2026-11",
    ),
    ("xai", "0", _GROK, ("150 rps", "50M tpm"), _XAI, "2026-10"),
    ("xai", "4", _GROK, ("500 rps", "100M tpm"), _XAI, "2026-10"),
    (
        "cohere",
        "trial",
        ("command*",),
        ("20 rpm", "1000 requests/month"),
        _COHERE,
        "2026-11",
    ),
    ("cohere", "production", ("command*",), ("500 rpm",), _COHERE, "2026-11"),
    (
        "openrouter",
        "free",
        (ANY,),
        ("20 rpm", "50 requests/day resets 00:00 UTC"),
        _OPENROUTER,
        "2026-10",
    ),
    (  # once ten credits have been bought
        "openrouter",
        "free-with-credits",
        (ANY,),
        ("20 rpm", "1000 requests/day resets 00:00 UTC"),
        _OPENROUTER,
        "2026-10",
    ),
    *(
        ("moonshot", tier, (ANY,), limits, _MOONSHOT, "2026-11")
        for tier, limits in (
            ("0", ("1 concurrent", "3 rpm", "500k tpm", "1500k tpd")),
            ("1", ("50 concurrent", "200 rpm", "2M tpm")),
            ("2", ("100 concurrent", "500 rpm", "3M tpm")),
            ("3", ("200 concurrent", "5000 rpm", "3M tpm")),
            ("4", ("400 concurrent", "5000 rpm", "4M tpm")),
            ("5", ("1000 concurrent", "10000 rpm", "5M tpm")),
        )
    ),
    # Its prompts have two limits; this is that of the uncached ones, the tighter.
    (
        "fireworks",
        "free",
        (ANY,),
        ("10 rpm", "900k itpm", "36k otpm"),
        _FIREWORKS,
        "2026-11",
    ),
    (
        "fireworks",
        "paid",
        (ANY,),
        ("6000 rpm", "900k itpm", "36k otpm"),
        _FIREWORKS,
        "2026-11",
    ),
    (
        "dashscope",
        "standard",
        ("qwen3-max*",),
        ("600 rpm", "1M tpm"),
        _QWEN,
        "2026-09-02",
    ),
    (
        "holysheep",
        "standard",
        (ANY,),
        ("1000 rpm", "200k tpm", "10M tpd"),
        _HOLYSHEEP,
        "2026-11",
    ),
)
_PRESETS = tuple(
    Preset(
        provider=provider,
        tier=tier,
        models=models,
        limits=limits,
        source=source,
        dated=dated,
    )
    for provider, tier, models, limits, source, dated in _ROWS
)


def presets() -> tuple[Preset, ...]:
    """Return every preset, in the order in which they are tried."""
    return _PRESETS


def preset(provider: str, *, tier: str, model: str | None = None) -> Preset:
    """Return the preset of a provider's tier, for a model where the tier has several.

    A name that is not known is a `ConfigError` that says which are.
    """
    of_tier = tier_presets(provider, tier=tier)
    if model is None:
        whole = [p for p in of_tier if ANY in p.models] or of_tier
        if len(whole) == 1:
            return whole[0]
        models = ", ".join(name for p in of_tier for name in p.models)
        raise ConfigError(
            f"tier '{tier}' of {provider} has limits for each model: say which with "
            f"model=, one of {models}"
        )
    bare = model.rpartition("/")[2].lower()
    for one in of_tier:
        if one.fits(bare):
            return one
    raise _unknown(
        f"model with limits in tier '{tier}' of {provider}",
        model,
        (name for p in of_tier for name in p.models),
    )


def tier_presets(provider: str, *, tier: str) -> tuple[Preset, ...]:
    """Return the presets of a provider's tier: one, or one for each group of models."""
    of_provider = [p for p in _PRESETS if p.provider == provider.lower()]
    if not of_provider:
        raise _unknown(
            "provider with presets", provider, (p.provider for p in _PRESETS)
        )
    name = _tier(tier)
    of_tier = tuple(p for p in of_provider if p.tier == name)
    if not of_tier:
        raise _unknown(f"tier of {provider}", tier, (p.tier for p in of_provider))
    return of_tier


def _tier(tier: str) -> str:
    """Read `1`, `T1`, `tier 1` and `tier-1` alike."""
    name = str(tier).strip().lower()
    for prefix in ("tier", "t"):
        rest = name.removeprefix(prefix).strip(" -_")
        if rest.isdigit():
            return rest
    return name


def _unknown(what: str, word: str, known: Iterable[str]) -> ConfigError:
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(word.lower(), names, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return ConfigError(
        f"no {what} is called {word[:_LONGEST_WORD]!r}{hint}: expected one of "
        f"{', '.join(names)}"
    )
