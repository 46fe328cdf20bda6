"""Plays one check with an SDK's sync client or its async one: both are written once."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar, Protocol

Check = Callable[[Any], Awaitable[Any]]  # of a client: what it got


class Sdk(Protocol):
    """An SDK: how a client is made, and how it is asked.

    `here` and `there` are the paths of its base URL below the gateway and below the
    provider; `errors` are the classes it raises by status; `variables` are those of its
    base URL and its key.
    """

    name: ClassVar[str]
    here: ClassVar[str]
    there: ClassVar[str]
    errors: ClassVar[Mapping[int, type[Exception]]]
    timeouts: ClassVar[tuple[type[Exception], ...]]
    variables: ClassVar[tuple[str, str]]
    checks: ClassVar[Mapping[str, Check]]

    def client(self, url: str, key: str, *, is_async: bool, **options: Any) -> Any:
        """Make a client; "" leaves the URL and the key to the environment.

        `retries` and `timeout_s` are as this SDK has them, both optional.
        """

    async def ask(self, ai: Any, *, model: str, text: str) -> Any:
        """Make a plain call."""

    async def stream(self, ai: Any, *, model: str) -> Any:
        """Begin a streamed call."""

    async def headers(self, ai: Any) -> Mapping[str, str]:
        """Return the headers of an answer, in lower case."""

    async def close(self, ai: Any) -> None:
        """Close a client."""


async def now(value: Any) -> Any:
    """Return what a call of a client comes to."""
    return await value if inspect.isawaitable(value) else value


async def each(values: Any) -> AsyncIterator[Any]:
    """Yield what a stream or a list of a client holds."""
    values = await now(values)
    if hasattr(values, "__aiter__"):
        async for value in values:
            yield value
    else:
        for value in values:
            yield value


async def all_of(values: Any) -> list[Any]:
    return [value async for value in each(values)]


@contextlib.asynccontextmanager
async def opened(manager: Any) -> AsyncIterator[Any]:
    """Enter what a client opens."""
    if hasattr(manager, "__aenter__"):
        async with manager as entered:
            yield entered
    else:
        with manager as entered:
            yield entered


def dumped(got: Any) -> Any:
    """Return an answer as plain data."""
    if isinstance(got, list | tuple):
        return [dumped(one) for one in got]
    return got.model_dump(warnings=False)


def valid(got: Any) -> Any:
    """Return it as plain data; raises where it is not all that its type says."""
    if isinstance(got, list | tuple):
        return [valid(one) for one in got]
    data = got.model_dump()
    type(got).model_validate(data)
    return data
