"""Links: addresses in an answer that would lead its caller past the gateway.

Anthropic's SDKs fetch a batch's results where `results_url` says, and send their key
along: a client key would reach the provider, which does not know it. Without its host
the address is relative to wherever the caller has found the gateway. Pure.
"""

from __future__ import annotations

import re

_BATCHES = b"/messages/batches"
_RESULTS = b"/results"
_LINK = re.compile(
    rb'("results_url"\s{0,8}:\s{0,8}")https?://[^"\s]{1,400}?(?=/v1/mess)'
)
_LONGEST = 480  # bytes of one match: a whole one never spans more


def are_in(raw_path: bytes) -> bool:
    """Say whether the answer to a path has such addresses."""
    return _BATCHES in raw_path and not raw_path.endswith(_RESULTS)


def relative(body: bytes) -> bytes:
    """Return an answer whose addresses lead through the gateway."""
    return _LINK.sub(rb"\1", body)


class LinkFilter:
    """Makes the addresses of an answer relative that comes in parts."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, part: bytes) -> bytes:
        """Return what may go on; what may be the start of an address is kept."""
        kept = relative(self._kept + part)
        self._kept = kept[-_LONGEST:]
        return kept[:-_LONGEST]

    def end(self) -> bytes:
        """Return what is left."""
        kept, self._kept = self._kept, b""
        return kept
