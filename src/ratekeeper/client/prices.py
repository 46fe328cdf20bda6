"""Where prices come from: the operator's own, a file in litellm's format, genai-prices.

The only home of genai-prices, an extra. Each source is asked once for a model and what
it says is compiled by the price book: no price library is on a request's way. Nothing
is fetched from anywhere. Where a list gives more than one price for the same thing (by
the time of day, by what a prompt holds), the highest counts, as a budget is never
passed.
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekeeper.errors import ConfigError
from ratekeeper.providers.pricing import (
    MILLION,
    MOST_FEE,
    MOST_RATE,
    MOST_TOKENS,
    Price,
    PriceBook,
    Rates,
    figure,
)
from ratekeeper.runtime.clock import MonotonicClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from fractions import Fraction

Prices = PriceBook | Mapping[str, Mapping[str, object]] | str | os.PathLike[str]

_LARGEST = 64 * 2**20  # bytes of a file; litellm's own has three million
_HEARD = (b"audio", b"video", b"youtu")  # a film's sound is paid for as sound
_SERVICE = b'"service'  # service_tier, and Google's serviceTier

# What the price lists call the providers. Of Azure no list can know which model is
# behind the name of a deployment.
_GENAI = {
    "anthropic": "anthropic",
    "bedrock": "aws",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "gemini": "google",
    "groq": "groq",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together",
    "vertex": "google",
    "xai": "x-ai",
    "zhipu": "zhipuai",
}
_LITELLM = {
    "fireworks": "fireworks_ai",
    "together": "together_ai",
    "vertex": "vertex_ai",
    "zhipu": "zai",
}


def price_book(
    models: Mapping[str, Mapping[str, object]] | None = None,
    *,
    rates: Mapping[str, object] | None = None,
    file: str | os.PathLike[str] | None = None,
) -> PriceBook:
    """Build a price book: your own prices first, then a file's, then genai-prices'.

    `models` maps a model (or a pattern, `provider/` in front or not) to what a million
    tokens cost: input, output, cache_read, cache_write, cache_write_1h; a fee for each
    `request`; its `max_output` and `context` in tokens; a `currency`, usd unless said.
    `rates` is how much of a currency buys what a dollar buys, for all providers or one.
    `file` is in litellm's format. genai-prices is asked where it is installed.

    Example:
        >>> price_book({"my-model": {"input": "2.50", "output": "10"}})
        >>> price_book(rates={"eur": "0.92", "holysheep/cny": "1"})
    """
    sources: list[Callable[[str, str], Price | None]] = []
    if file is not None:
        sources.append(_LitellmFile(Path(file)).find)
    sources.append(_genai)
    return PriceBook(models, rates=rates, sources=sources)


def book_of(prices: Prices | None) -> PriceBook:
    """Return the book a `prices=` argument stands for."""
    if isinstance(prices, PriceBook):
        return prices
    if isinstance(prices, str | os.PathLike):
        return price_book(file=prices)
    return price_book(prices)


def warm() -> bool:
    """Load the price list ahead of the first call; False where it is not installed."""
    return _snapshot() is not None


def _snapshot() -> Any:
    """Return the list that is installed with genai-prices, as it is."""
    try:
        lists: Any = importlib.import_module("genai_prices.data_snapshot")
    except ImportError:
        return None
    return lists.get_snapshot()


def _genai(provider: str, model: str) -> Price | None:
    """Ask genai-prices."""
    there = _GENAI.get(provider)
    snapshot = None if there is None else _snapshot()
    if snapshot is None:
        return None
    try:
        # Not asked for the model at once: it would remember every name for ever.
        maker = snapshot.find_provider(None, there, None)
    except LookupError:
        return None
    found = maker.find_model(_bare(model).lower(), all_providers=snapshot.providers)
    if found is None:
        return None
    prices = found.prices if isinstance(found.prices, list) else [found.prices]
    lists = [vars(one) for one in _in_force(prices)]
    tiers = _dearest(_tiers(said, _PARTS) for said in lists)
    heard = _dearest(_tiers(said, _WITH_AUDIO) for said in lists)
    dearer = [(name, b"", heard) for name in _HEARD]
    for variant in found.price_variants or ():
        name, word = (json.dumps(x).encode() for x in next(iter(variant.when.items())))
        name = _SERVICE if name.startswith(_SERVICE) else name
        said = [{**one, **vars(variant.prices)} for one in lists]
        rows = _dearest([tiers, *(_tiers(one, _PARTS) for one in said)])
        dearer.append((name, word, rows))
    fees = [figure(one.get("requests_kcount"), MOST_FEE) for one in lists]
    fee = max((fee for fee in fees if fee is not None), default=None)
    return Price(
        tiers=tiers,
        dearer=tuple(one for one in dearer if one[2] != tiers),
        request=None if fee is None else fee / 1000,
        context=_count(found.context_window),
    )


def _bare(model: str) -> str:
    """Return a model's name without the path that Google's APIs put before it."""
    return model.rpartition("models/")[2] if model.startswith(_PATHS) else model


_PATHS = ("models/", "publishers/google/models/", "projects/")


def _in_force(prices: list[Any]) -> list[Any]:
    """Return the prices of today, of any hour of the day, and of days to come.

    A later one of the list takes precedence, and a process may run for months.
    """
    today = datetime.datetime.fromtimestamp(
        MonotonicClock().now_us() / 1e6, datetime.UTC
    )
    current: Any = getattr(prices[0], "prices", prices[0])
    more: list[Any] = []
    for one in prices[1:]:
        begins = getattr(one.constraint, "start_date", None)
        if one.constraint is None or (begins and begins <= today.date()):
            current, more = one.prices, []
        else:
            more.append(one.prices)
    return [current, *more]


_PARTS = {
    "input": ("input_mtok", "input_text_mtok", "input_image_mtok", "input_video_mtok"),
    "output": (
        "output_mtok",
        "output_text_mtok",
        "output_image_mtok",
        "output_video_mtok",
        "output_reasoning_mtok",
        "output_citation_mtok",
    ),
    "cache_read": ("cache_read_mtok", "cache_text_read_mtok", "cache_image_read_mtok"),
    "cache_write": ("cache_write_mtok", "cache_write_5m_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok",),
}
_WITH_AUDIO = {
    **_PARTS,
    "input": (*_PARTS["input"], "input_audio_mtok"),
    "output": (*_PARTS["output"], "output_audio_mtok"),
    "cache_read": (*_PARTS["cache_read"], "cache_audio_read_mtok"),
}


def _tiers(
    said: Mapping[str, Any], parts: Mapping[str, tuple[str, ...]]
) -> tuple[Rates, ...]:
    """Turn one list of genai-prices into rates: for each part, the highest it names."""
    starts = {0}
    for name in (name for names in parts.values() for name in names):
        starts.update(tier.start for tier in getattr(said.get(name), "tiers", ()))
    return tuple(
        Rates(
            above=start,
            **{
                part: _highest(_at(said.get(name), start) for name in names)
                for part, names in parts.items()
            },
        )
        for start in sorted(starts)
    )


def _at(price: Any, start: int) -> Fraction | None:
    """Return what a token costs above so many of input."""
    for tier in reversed(getattr(price, "tiers", ())):
        if tier.start <= start:
            return _per_token(tier.price)
    return _per_token(getattr(price, "base", price))


def _per_token(price: object) -> Fraction | None:
    """Turn a price for a million into one; None where it is none."""
    found = figure(price, MOST_RATE * MILLION)
    return None if found is None else found / MILLION


def _highest(rates: Iterable[Fraction | None]) -> Fraction | None:
    return max((rate for rate in rates if rate is not None), default=None)


def _dearest(lists: Iterable[tuple[Rates, ...]]) -> tuple[Rates, ...]:
    """Put several lists into one: for each part, the highest of them."""
    all_ = [*lists]
    found = []
    for start in sorted({row.above for rows in all_ for row in rows}):
        rows = [[row for row in rows if row.above <= start][-1] for rows in all_]
        highest = {n: _highest(getattr(row, n) for row in rows) for n in _PARTS}
        found.append(Rates(above=start, **highest))
    return tuple(found)


class _LitellmFile:
    """A file in litellm's format, read once; an entry becomes a price when asked for."""

    def __init__(self, path: Path) -> None:
        self._entries = _read(path)

    def find(self, provider: str, model: str) -> Price | None:
        """Return what the file says of a model."""
        bare = _bare(model)
        there = _LITELLM.get(provider, provider)
        for name in (f"{there}/{bare}", f"{provider}/{bare}", bare):
            entry = self._entries.get(name)
            if isinstance(entry, dict) and (
                name != bare
                or str(entry.get("litellm_provider", there))
                in {there, provider, *_SAME.get(provider, ())}
            ):
                return None if _is_charged_otherwise(entry) else _entry(entry)
        return None


_SAME = {
    "bedrock": ("bedrock_converse",),
    "cohere": ("cohere_chat",),
    "openai": ("text-completion-openai",),
    "vertex": (
        "vertex_ai-language-models",
        "vertex_ai-anthropic_models",
        "vertex_ai-chat-models",
    ),
}
_COSTS = {
    "input": ("input_cost_per_token", "input_cost_per_image_token"),
    "output": (
        "output_cost_per_token",
        "output_cost_per_reasoning_token",
        "output_cost_per_image_token",
    ),
    "cache_read": ("cache_read_input_token_cost",),
    "cache_write": ("cache_creation_input_token_cost",),
    "cache_write_1h": ("cache_creation_input_token_cost_above_1hr",),
}
_COSTS_WITH_AUDIO = {
    **_COSTS,
    "input": (*_COSTS["input"], "input_cost_per_audio_token"),
    "output": (*_COSTS["output"], "output_cost_per_audio_token"),
}
_OTHER_COST = re.compile(r"(?:in|out)put_cost_per_(?!token|request)[a-z]", re.ASCII)
_ABOVE = re.compile(r"_above_([0-9]{1,6})k_tokens(_priority)?\Z", re.ASCII)


def _read(path: Path) -> Mapping[str, Any]:
    name = path.name
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= _LARGEST else b""
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"cannot read the prices in {path}: {why}") from error
    if size > _LARGEST:
        raise ConfigError(f"{name} is too large for a file of prices")
    try:
        # Figures stay as they are written: a float would round them.
        found = json.loads(raw, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        raise ConfigError(f"{name} is not JSON, as a file of prices is") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{name}: expected a mapping from models to their prices")
    return found


def _is_charged_otherwise(entry: Mapping[str, Any]) -> bool:
    """Say whether tokens cost nothing because seconds, images or letters cost."""
    if any(figure(entry.get(names[0]), MOST_RATE) for names in _COSTS.values()):
        return False
    return any(entry[name] for name in entry if _OTHER_COST.match(name))


def _entry(entry: Mapping[str, Any]) -> Price:
    tiers = _entry_tiers(entry, _COSTS, "")
    heard = _entry_tiers(entry, _COSTS_WITH_AUDIO, "")
    urgent = _dearest([tiers, _entry_tiers(entry, _COSTS, "_priority")])
    dearer = [(name, b"", heard) for name in _HEARD]
    dearer.append((_SERVICE, b'"priority"', urgent))
    return Price(
        tiers=tiers,
        dearer=tuple(one for one in dearer if one[2] != tiers),
        request=figure(entry.get("input_cost_per_request"), MOST_FEE),
        max_output=_count(entry.get("max_output_tokens")),
        context=_count(entry.get("max_input_tokens")),
    )


def _entry_tiers(
    entry: Mapping[str, Any], costs: Mapping[str, tuple[str, ...]], suffix: str
) -> tuple[Rates, ...]:
    """Turn an entry into rates; above a threshold, what it does not name stays."""
    found = [_rates(entry, costs, 0, suffix)]
    listed = entry.get("tiered_pricing")
    for one in listed if isinstance(listed, list) else ():
        bounds = one.get("range") if isinstance(one, dict) else None
        begins = bounds[0] if isinstance(bounds, list) and bounds else None
        if isinstance(begins, int | Decimal) and 0 <= begins <= MOST_TOKENS:
            found.append(_rates(one, costs, int(begins), suffix))
    starts = {int(match[1]) for name in entry if (match := _ABOVE.search(name))}
    for start in sorted(starts):
        tail = f"_above_{start}k_tokens{suffix}"
        found.append(_rates(entry, costs, start * 1000, tail))
    rows: dict[int, Rates] = {}
    last: dict[str, Fraction | None] = {}
    for rates in sorted(found, key=lambda rates: rates.above):
        said = {name: getattr(rates, name) for name in costs}
        last.update({name: rate for name, rate in said.items() if rate is not None})
        rows[rates.above] = Rates(above=rates.above, **last)
    return tuple(rows.values())


def _rates(
    entry: Mapping[str, Any],
    costs: Mapping[str, tuple[str, ...]],
    above: int,
    suffix: str,
) -> Rates:
    rates = {
        part: _highest(figure(entry.get(name + suffix), MOST_RATE) for name in names)
        for part, names in costs.items()
    }
    return Rates(above=above, **rates)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 < value <= MOST_TOKENS else None
