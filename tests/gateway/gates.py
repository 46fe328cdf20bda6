"""A gateway for tests: real sockets, real files, and simulated providers behind it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import msgspec
import uvicorn

from ratekeeper.config.model import Config
from ratekeeper.gateway.app import Gateway
from ratekeeper.gateway.keys import Hasher
from ratekeeper.gateway.run import serving
from ratekeeper.simulator.cues import FaultPlan
from ratekeeper.simulator.server import Simulator
from ratekeeper.simulator.server import serving as simulating

T = TypeVar("T")

PEPPER = "0123456789abcdef" * 2
SECRET = "rk-" + "s" * 43
UPSTREAM_KEY = "sk-upstream-0123456789abcdefghijklmnop"
ENVIRON = {"RATEKEEPER_SECRET": PEPPER, "UPSTREAM_KEY": UPSTREAM_KEY}
PRICES = {
    "gpt-4o*": {"input": "2.50", "output": "10", "max_output": 16384},
    "claude*": {"input": "3", "output": "15", "max_output": 64000},
}


def digest(secret: str = SECRET) -> str:
    """Return the hash of a client key, as it stands in a config."""
    return Hasher(PEPPER.encode()).digest(secret)


def client_key(name: str = "app", secret: str = SECRET, **terms: Any) -> dict[str, Any]:
    """Return a client key as it stands in a config."""
    return {"name": name, "hash": digest(secret), **terms}


def account(url: str, *limits: str, **said: Any) -> dict[str, Any]:
    """Return an account as it stands in a config."""
    known = list(limits) or ["100k rpm", "1B tpm"]
    return {"api_key": "env:UPSTREAM_KEY", "base_url": url, "limits": known, **said}


def config(
    folder: Path,
    providers: Mapping[str, Any],
    keys: list[dict[str, Any]] | None = None,
    **said: Any,
) -> Config:
    """Return a config over a file in `folder`."""
    data = {
        "store": f"sqlite:///{folder / 'ratekeeper.db'}",
        "providers": {
            name: one if "accounts" in one else {"accounts": [one]}
            for name, one in providers.items()
        },
        "client_keys": [client_key()] if keys is None else keys,
        "prices": PRICES,
        **said,
    }
    return msgspec.convert(data, Config)


@dataclasses.dataclass(frozen=True, slots=True)
class Behind:
    """A simulated provider that is running."""

    url: str
    simulator: Simulator

    @property
    def requests(self) -> int:
        """How many have come."""
        return int(self.simulator.stats["requests"])


@contextlib.contextmanager
def behind(provider: str = "openai", *faults: str, **options: Any) -> Iterator[Behind]:
    """Run a simulated provider that accepts the account's key alone."""
    said = {"limits": ["100k rpm", "1B tpm"], "keys": [UPSTREAM_KEY], **options}
    simulator = Simulator(provider, faults=FaultPlan.parse(faults), **said)
    with simulating(simulator) as url:
        yield Behind(url, simulator)


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """A gateway that is running."""

    url: str
    gateway: Gateway

    def client(self, secret: str = SECRET, **options: Any) -> httpx2.Client:
        """Return a client that calls it with a client key."""
        headers = {"authorization": f"Bearer {secret}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=15, **options)

    def chat(self, client: httpx2.Client, **body: Any) -> httpx2.Response:
        """Ask for one chat completion."""
        asked = {"model": "gpt-4o", "max_tokens": 20, "messages": MESSAGES, **body}
        return client.post("/v1/chat/completions", json=asked)

    def do(self, do: Callable[[], T]) -> T:
        """Do something where its calls run."""

        async def there() -> T:
            return do()

        loop = self.gateway.ledger._loop
        return asyncio.run_coroutine_threadsafe(there(), loop).result(timeout=10)

    def reload(self, config: Config) -> None:
        """Put another config in force, where its calls run."""
        self.do(lambda: self.gateway.reload(config))


MESSAGES = [{"role": "user", "content": "Say hello"}]


@contextlib.contextmanager
def gate(config: Config, **options: Any) -> Iterator[Gate]:
    """Run a gateway in a thread of its own."""
    environ = {**ENVIRON, **options.pop("environ", {})}
    gateway = Gateway(config, environ=environ, **options)
    with serving(gateway) as url:
        yield Gate(url, gateway)


@contextlib.contextmanager
def asgi(app: Any) -> Iterator[str]:
    """Run an ASGI app as a provider that is none of ours."""
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        sock.close()
