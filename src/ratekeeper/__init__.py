"""Use every bit of your AI quota, and never see a 429.

`http_client` and `async_http_client` put limits below an official SDK,
`Limiter` and `AsyncLimiter` around any call, `Client` and `AsyncClient` call an
OpenAI-compatible API themselves. Everything raised on purpose is a `RatekeeperError`.

    limiter = ratekeeper.Limiter("500 requests/minute", "120k tokens/minute")
    with limiter.acquire(tokens=500, timeout=30) as grant:
        ...  # the call
        grant.settle(tokens=180)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratekeeper.client.api import AsyncClient, Client
    from ratekeeper.client.hooks import anthropic_middleware
    from ratekeeper.client.http import async_http_client, http_client
    from ratekeeper.client.prices import price_book
    from ratekeeper.client.tokens import count_exactly
    from ratekeeper.client.transport import AsyncLimitedTransport, LimitedTransport
    from ratekeeper.core.decision import Denied, LimitStatus
    from ratekeeper.core.limits import Algorithm, Limit
    from ratekeeper.core.reading import Reading
    from ratekeeper.errors import (
        AnswerTooLarge,
        AuthenticationError,
        BillingStopped,
        BudgetExceeded,
        ConfigError,
        LimitExceeded,
        NeverPossible,
        PriceUnknown,
        ProviderError,
        ProviderOverloaded,
        ProviderThrottled,
        ProviderUnreachable,
        RatekeeperError,
        StoreUnavailable,
    )
    from ratekeeper.grant import Grant
    from ratekeeper.limiter import AsyncLimiter, Limiter
    from ratekeeper.providers.pricing import PriceBook
    from ratekeeper.stores.memory import MemoryStore

__all__ = [
    "Algorithm",
    "AnswerTooLarge",
    "AsyncClient",
    "AsyncLimitedTransport",
    "AsyncLimiter",
    "AuthenticationError",
    "BillingStopped",
    "BudgetExceeded",
    "Client",
    "ConfigError",
    "Denied",
    "Grant",
    "Limit",
    "LimitExceeded",
    "LimitStatus",
    "LimitedTransport",
    "Limiter",
    "MemoryStore",
    "NeverPossible",
    "PriceBook",
    "PriceUnknown",
    "ProviderError",
    "ProviderOverloaded",
    "ProviderThrottled",
    "ProviderUnreachable",
    "RatekeeperError",
    "Reading",
    "StoreUnavailable",
    "__version__",
    "anthropic_middleware",
    "async_http_client",
    "count_exactly",
    "http_client",
    "price_book",
]

__version__ = "0.1.0"

_HOMES = {
    "Algorithm": "ratekeeper.core.limits",
    "AsyncClient": "ratekeeper.client.api",
    "AsyncLimitedTransport": "ratekeeper.client.transport",
    "AsyncLimiter": "ratekeeper.limiter",
    "Client": "ratekeeper.client.api",
    "Denied": "ratekeeper.core.decision",
    "Grant": "ratekeeper.grant",
    "Limit": "ratekeeper.core.limits",
    "LimitStatus": "ratekeeper.core.decision",
    "LimitedTransport": "ratekeeper.client.transport",
    "Limiter": "ratekeeper.limiter",
    "MemoryStore": "ratekeeper.stores.memory",
    "PriceBook": "ratekeeper.providers.pricing",
    "anthropic_middleware": "ratekeeper.client.hooks",
    "async_http_client": "ratekeeper.client.http",
    "count_exactly": "ratekeeper.client.tokens",
    "http_client": "ratekeeper.client.http",
    "price_book": "ratekeeper.client.prices",
    "Reading": "ratekeeper.core.reading",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use: importing the package costs next to nothing."""
    if name not in __all__:
        msg = f"module 'ratekeeper' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(
        importlib.import_module(_HOMES.get(name, "ratekeeper.errors")), name
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
