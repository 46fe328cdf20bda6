"""Quotes: what a call may cost at most, and what it came to, in whole billionths.

A quote is a model's price in the currency of a limit, compiled to integers; what it has
no rate for is None and never 0. It refuses to know names, lists and other currencies.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import TYPE_CHECKING

from ratekeeper.core.units import NANO
from ratekeeper.providers.facts import Endpoint

if TYPE_CHECKING:
    from ratekeeper.providers.facts import RequestFacts, Usage

# A rate is so many parts of a billionth a token: more digits than any list has, and a
# thousand million tokens are priced less than a billionth too high.
SCALE = NANO

_HIDDEN = b"\\u00"  # JSON may write "a" as that and 61


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """The rates of a tier in parts of a billionth; `dearest` of all input."""

    above: int
    put: int
    read: int
    write: int
    write_1h: int
    out: int | None
    dearest: int


@dataclasses.dataclass(frozen=True, slots=True)
class Quote:
    """A model's price in one currency, in integers: what a limit counts by."""

    rows: tuple[Row, ...]
    fee: int | None  # parts of a billionth, each call; None where none is named
    max_output: int | None
    context: int | None

    def each(self, count: int) -> Quote:
        """Return the quote of a call whose fee is for each of so many things."""
        if count == 1 or not self.fee:
            return self
        return dataclasses.replace(self, fee=self.fee * count)

    def longest(self, facts: RequestFacts) -> int | None:
        """Return the most output tokens a call may come to, None where nobody knows."""
        one = facts.max_output
        if one == 0 and facts.endpoint is not Endpoint.EMBEDDINGS:
            one = None  # there are relays that drop a 0, and nothing bounds the answer
        if one is None:
            one = self.max_output
        if one is None and self.context is not None:
            one = self.context  # the prompt may come to far less than estimated
        return None if one is None else one * facts.choices

    def worst(self, put: int, out: int) -> int | None:
        """Return the most a call of so many tokens costs; None where it is unknown."""
        most = 0
        for row in self.rows:
            if row.above and row.above >= put:
                break
            if out and row.out is None:
                return None
            most = max(most, put * row.dearest + out * (row.out or 0))
        return -(-(most + (self.fee or 0)) // SCALE)

    def actual(self, usage: Usage) -> int:
        """Return what a call came to."""
        put, rows = usage.input_tokens, self.rows
        row = rows[0]
        if len(rows) > 1:
            row = [one for one in rows if put > one.above or not one.above][-1]
        total = put * row.put + usage.output_tokens * (row.out or 0)
        if usage.cache_read_tokens or usage.cache_write_tokens:
            total += _cached(row, usage)
        return -(-(total + (self.fee or 0)) // SCALE)


def _cached(row: Row, usage: Usage) -> int:
    """Return what caches add to a call's price or take from it."""
    read = min(usage.cache_read_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - read)
    long = usage.cache_write_1h_tokens
    # Not told apart: all of it may have been for an hour.
    long = written if long is None else min(long, written)
    return (
        read * (row.read - row.put)
        + (written - long) * (row.write - row.put)
        + long * (row.write_1h - row.put)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Quotes:
    """The quotes of one model: the usual one, and dearer ones by a request's words."""

    usual: Quote
    dearer: tuple[tuple[bytes, tuple[tuple[bytes, Quote], ...]], ...] = ()

    def of(self, body: bytes) -> Quote:
        """Return the quote that holds for a request; of several, the dearest of each."""
        if not self.dearer:
            return self.usual
        if b"\\" in body and _HIDDEN in body:  # one byte is found at once
            body = _bare(body)
        found = [
            quote
            for name, ways in self.dearer
            if name in body
            for word, quote in ways
            if word in body
        ]
        return functools.reduce(dearest, found) if found else self.usual


def dearest(one: Quote, other: Quote) -> Quote:
    """Lay two quotes over each other where nobody knows which holds: of all the higher."""
    rows = []
    for start in sorted({row.above for row in (*one.rows, *other.rows)}):
        mine, theirs = (
            [row for row in quote.rows if row.above <= start][-1]
            for quote in (one, other)
        )
        rates = {
            name: max(getattr(mine, name), getattr(theirs, name))
            for name in ("put", "read", "write", "write_1h", "dearest")
        }
        out = None
        if mine.out is not None and theirs.out is not None:
            out = max(mine.out, theirs.out)
        rows.append(Row(above=start, out=out, **rates))
    fees = [quote.fee for quote in (one, other) if quote.fee is not None]
    bounds = [quote.max_output or quote.context for quote in (one, other)]
    known = [bound for bound in bounds if bound is not None]
    most = max(known) if len(known) == len(bounds) else None
    return Quote(tuple(rows), max(fees, default=None), most, None)


def _bare(body: bytes) -> bytes:
    """Write JSON anew without the escapes that may hide a plain name."""
    try:
        return json.dumps(json.loads(body)).encode()
    except (ValueError, RecursionError):
        return body
