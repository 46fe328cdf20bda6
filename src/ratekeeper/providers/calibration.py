"""Calibration: what a provider's own counts teach about our estimates.

For each stream of like calls, the ratio of the tokens counted to the tokens estimated,
in millionths: an average that follows it, and a bound that less than one call in a
hundred passes. Streams are told apart by whatever the caller names; their number is
bounded, the one unused for longest goes first. It refuses to know texts, and time.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

STREAMS = 4096  # remembered at once; each takes some 500 bytes
TRUSTED = 8  # answers before a stream's own ratios are used

_ONE = 1_000_000
LEAST, MOST = 3 * _ONE // 10, 4 * _ONE  # beyond is no tokenizer's doing
UNKNOWN = 3 * _ONE // 2  # the bound of a stream of which nothing is known
_MEMORY = 50  # calls that the average follows
_BLOCK = 100  # the bound is the highest of this block of calls and the one before


class Stream(NamedTuple):
    """Which calls are alike: by whom they are counted, and what they are made of.

    `family` is that of the tokenizer, `route` the tenant, team or use, `script` one of
    the four kinds of text that `classes.script` tells apart.
    """

    provider: str
    family: str = ""
    route: str = ""
    script: str = ""


@dataclasses.dataclass(slots=True)
class _Ratio:
    average: int = _ONE
    highest: int = LEAST  # of this block
    before: int = UNKNOWN  # of the block before
    seen: int = 0

    @property
    def bound(self) -> int:
        """The highest of the last 100 to 199: of as many more, one may be higher."""
        return max(self.average, self.highest, self.before)

    def learn(self, ratio: int) -> None:
        """Let the average follow, and the bound keep to the last of them."""
        ratio = min(max(ratio, LEAST), MOST)
        self.average += (ratio - self.average) // min(_MEMORY, self.seen + 2)
        self.highest = max(self.highest, ratio)
        self.seen += 1
        if self.seen % _BLOCK == 0:
            self.before, self.highest = self.highest, LEAST


class Calibrator:
    """Remembers how far off the estimates of each stream are.

    Not guarded: whoever shares one between threads holds a lock.
    """

    def __init__(self, streams: int = STREAMS) -> None:
        if streams < 1:
            raise ValueError("a calibrator remembers one stream or more")
        self._most = streams
        self._ratios: dict[Stream, _Ratio] = {}

    def __len__(self) -> int:
        return len(self._ratios)

    def learn(self, stream: Stream, estimated: int, counted: int) -> None:
        """Learn what a call came to that was estimated, uncorrected, at so much.

        A count of 0 is none, and teaches nothing.
        """
        if estimated <= 0 or counted <= 0:
            return
        ratio = self._ratios.pop(stream, None) or _Ratio()
        if len(self._ratios) >= self._most:
            del self._ratios[next(iter(self._ratios))]
        self._ratios[stream] = ratio  # the last used stands last
        ratio.learn(counted * _ONE // estimated)

    def expected(self, stream: Stream, estimated: int) -> int:
        """Return what a call will probably come to."""
        ratio = self._known(stream)
        return _times(estimated, ratio.average if ratio else _ONE)

    def upper(self, stream: Stream, estimated: int) -> int:
        """Return what all calls but one in a hundred or fewer stay within."""
        ratio = self._known(stream)
        return _times(estimated, ratio.bound if ratio else UNKNOWN)

    def _known(self, stream: Stream) -> _Ratio | None:
        ratio = self._ratios.get(stream)
        return ratio if ratio is not None and ratio.seen >= TRUSTED else None


def _times(tokens: int, ratio: int) -> int:
    return -(-tokens * ratio // _ONE)
