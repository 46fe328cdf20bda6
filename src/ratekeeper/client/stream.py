"""A streamed answer in the caller's hands: an iterator of chunks, closable at any time.

Both classes only fetch bytes; `Chunks` decides what they mean. Closing early, an error
and the end all close the answer, which settles the grant by what flowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import httpx2

if TYPE_CHECKING:
    from types import TracebackType

    from ratekeeper.client.chunks import Chunks
    from ratekeeper.client.terms import Turn


class Stream:
    """Iterates over the chunks of an answer, each a parsed dictionary.

    Example:
        >>> with ai.chat_completion(..., stream=True) as stream:
        ...     for chunk in stream:
        ...         print(chunk["choices"])
    """

    def __init__(self, answer: httpx2.Response, chunks: Chunks) -> None:
        self._answer = answer
        self._chunks = chunks
        self._pieces = answer.iter_bytes()

    def begun(self, turn: Turn) -> Self:
        """Read until the first chunk is there, by the call's deadline."""
        try:
            while not self._chunks.has_begun:
                self._chunks.feed(next(self._pieces, None))
                if turn.is_over() and not self._chunks.has_begun:
                    msg = "the deadline of the call has passed"
                    raise httpx2.ReadTimeout(msg)  # closed below
        except BaseException:
            self.close()
            raise
        if self._chunks.stillborn is not None:
            self.close()
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            while (chunk := self._chunks.take()) is None:
                if self._chunks.is_over:
                    raise StopIteration  # closed below
                self._pull()
        except BaseException:
            self.close()
            raise
        return chunk

    def _pull(self) -> None:
        try:
            self._chunks.feed(next(self._pieces, None))
        except httpx2.HTTPError as error:
            self._chunks.break_off(error)

    def close(self) -> None:
        """Stop reading; nothing more is delivered. A second close changes nothing."""
        self._chunks.close()
        self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncStream:
    """Iterates over the chunks of an answer with `async for`, each a dictionary.

    Example:
        >>> async with await ai.chat_completion(..., stream=True) as stream:
        ...     async for chunk in stream:
        ...         print(chunk["choices"])
    """

    def __init__(self, answer: httpx2.Response, chunks: Chunks) -> None:
        self._answer = answer
        self._chunks = chunks
        self._pieces = answer.aiter_bytes()

    async def begun(self) -> Self:
        """Read until the first chunk is there."""
        try:
            while not self._chunks.has_begun:
                self._chunks.feed(await anext(self._pieces, None))
        except BaseException:
            await self.close()
            raise
        if self._chunks.stillborn is not None:
            await self.close()
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        try:
            while (chunk := self._chunks.take()) is None:
                if self._chunks.is_over:
                    raise StopAsyncIteration  # closed below
                await self._pull()
        except BaseException:
            await self.close()
            raise
        return chunk

    async def _pull(self) -> None:
        try:
            self._chunks.feed(await anext(self._pieces, None))
        except httpx2.HTTPError as error:
            self._chunks.break_off(error)

    async def close(self) -> None:
        """Stop reading; nothing more is delivered. A second close changes nothing."""
        self._chunks.close()
        await self._answer.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
