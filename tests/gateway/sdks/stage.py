"""The stage on which an SDK is tried: a provider, and the gateway before it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ratekeeper.client.pool import Pool
from ratekeeper.gateway.app import Gateway
from ratekeeper.gateway.run import serving
from tests.gateway import gates
from tests.gateway.gates import account, asgi, client_key
from tests.gateway.sdks.provider import MODEL, Provider

UNKNOWN, NARROW, POOR, SHORT = (f"rk-{letter * 43}" for letter in "unpq")
_TERMS: dict[tuple[str, str], dict[str, Any]] = {
    ("app", gates.SECRET): {"limits": ["1000 rpm", "1M tpm", "20 concurrent"]},
    ("narrow", NARROW): {"allow_models": ["another-model"]},
    ("poor", POOR): {"limits": ["1 request/day"], "max_wait": "0s"},
    ("short", SHORT): {"limits": ["1 request/s"], "max_wait": "0s"},
}
# One owner, who sees all that there is: as whoever calls the provider straight does.
_KEYS = [client_key(*who, team="all", **terms) for who, terms in _TERMS.items()]
_NOBODY = "http://127.0.0.1:1"  # nothing listens there
_SILENCE_S = 1.5
_PRICE = {"input": "2.50", "output": "10", "max_output": 4096}

# How each status comes about: below which path, with which key, what is asked.
ODDS: dict[int, tuple[str, str, str]] = {
    401: ("", UNKNOWN, "hi"),
    403: ("", NARROW, "hi"),
    404: ("/p/nobody", gates.SECRET, "hi"),
    413: ("", gates.SECRET, "x" * 1_100_000),
    429: ("", POOR, "hi"),
    502: ("/p/gone", gates.SECRET, "hi"),
    503: ("/p/shut", gates.SECRET, "hi"),
    504: ("/p/silent", gates.SECRET, "hi"),
}


class Impatient(Gateway):
    """A gateway that waits for no provider for long."""

    async def start(self) -> None:
        await super().start()
        await self.pool.close()
        self.pool = Pool(silence_s=_SILENCE_S)
        self._parts.push_async_callback(self.pool.close)


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """Where it is played: at the provider itself, and through the gateway."""

    provider: Provider
    straight: str
    through: str


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Run a provider and a gateway before it."""
    provider = Provider()
    with asgi(provider) as url:
        root = url.removesuffix("/v1")
        providers = {
            "openai": account(f"{root}/v1"),
            "anthropic": account(root),
            "gemini": account(f"{root}/v1beta"),
            "shut": account(f"{root}/shut/v1"),
            "silent": account(f"{root}/silent/v1"),
            "gone": account(_NOBODY),
        }
        prices = {**gates.PRICES, MODEL: _PRICE}
        more: dict[str, Any] = {
            "max_body": "1MiB",
            "prices": prices,
            "teams": {"all": {}},
        }
        said = gates.config(folder, providers, _KEYS, **more)
        gateway = Impatient(said, environ=gates.ENVIRON)
        with serving(gateway) as here:
            yield Stage(provider, root, here)


def look_at_headers(headers: Mapping[str, str]) -> None:
    """Look whether an answer tells what the gateway says of a call."""
    assert headers["x-ratekeeper-request-id"].startswith("rk_")
    assert "0" == headers["x-ratekeeper-waited-ms"]
    assert headers["x-ratekeeper-cost"].endswith(" usd")
    limits = "anthropic-ratelimit-requests-limit", "x-ratelimit-limit-requests"
    assert "1000" == next(headers[name] for name in limits if name in headers)
    assert "requests" in headers["ratelimit-policy"]
