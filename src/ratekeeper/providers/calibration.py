"""Calibration: what the usage in answers teaches about our estimates.

For each stream of like calls, the ratio of the tokens counted to the tokens estimated,
in millionths: an average that follows it, and a bound that about one call in a hundred
passes; and the output that calls come to which set no bound of their own. Old lessons
fade: an average follows the last 50 calls, a bound the last 100 to 199. Streams are
told apart by whatever the caller names; their number is bounded, the one unused for
longest goes first. It refuses to know texts, and time.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import NamedTuple, TypeVar

from ratekeeper.providers.facts import ONE, UNSET_OUTPUT

STREAMS = 4096  # remembered at once, of either kind; each takes some 500 bytes
TRUSTED = 8  # answers before an average may lower a figure

LEAST, MOST = 3 * ONE // 10, 4 * ONE  # beyond is no tokenizer's doing
MOST_OUTPUT = 1_000_000  # tokens of one answer; no model writes as many
_MEMORY = 50  # calls that the average follows
_BLOCK = 100  # a bound is kept for this block of calls and the one before


class Stream(NamedTuple):
    """Which calls are alike: by whom they are counted, and what they are made of.

    `family` is that of the tokenizer, or a model's name; `route` the tenant, team or
    use; `script` the kind of text, as an `Estimate` tells it.
    """

    provider: str
    family: str = ""
    route: str = ""
    script: str = ""


@dataclasses.dataclass(slots=True)
class _Ratio:
    average: int = ONE
    highest: int = LEAST  # of this block
    before: int = LEAST  # the highest of the block before
    seen: int = 0

    def learn(self, ratio: int) -> None:
        """Let the average follow, and the bound keep to the last of them."""
        ratio = min(max(ratio, LEAST), MOST)
        self.average += (ratio - self.average) // min(_MEMORY, self.seen + 2)
        self.highest = max(self.highest, ratio)
        self.seen += 1
        if self.seen % _BLOCK == 0:
            self.before, self.highest = self.highest, LEAST

    def bound(self, margin: int) -> int:
        """Return the highest of the last 100 to 199: of as many more, one is higher.

        Until there were as many, the margin above the average as well, which shrinks
        with each; a margin of none asks for the average alone.
        """
        average = self.average if self.seen >= TRUSTED else max(ONE, self.average)
        slack = max(0, margin - 100) * max(0, _BLOCK - self.seen)
        if margin > 100:  # noqa: PLR2004 - per cent
            seen = max(self.highest, self.before)
            return max(seen, average + average * slack // (100 * _BLOCK))
        return average


@dataclasses.dataclass(slots=True)
class _Output:
    highest: int = 0  # of this block
    second: int = 0
    before: int = 0  # the second of the block before
    seen: int = 0

    def learn(self, tokens: int) -> None:
        """Keep the two highest of a block."""
        self.highest, self.second, _ = sorted(
            (self.highest, self.second, min(tokens, MOST_OUTPUT)), reverse=True
        )
        self.seen += 1
        if self.seen % _BLOCK == 0:
            self.before, self.highest, self.second = self.second, 0, 0

    def bound(self) -> int:
        """Return what one call in a hundred passes, a guess until there were as many.

        The second highest of a hundred, so that one strange answer says little.
        """
        if self.seen < _BLOCK:
            return max(self.highest, UNSET_OUTPUT * (_BLOCK - self.seen) // _BLOCK)
        return max(self.second, self.before)


_L = TypeVar("_L", _Ratio, _Output)


class Calibrator:
    """Remembers how far off the estimates of each stream are, and what they output.

    Reading is safe while another thread learns; only one may learn at a time.
    """

    def __init__(self, streams: int = STREAMS) -> None:
        if streams < 1:
            raise ValueError("a calibrator remembers one stream or more")
        self._most = streams
        self._ratios: OrderedDict[Stream, _Ratio] = OrderedDict()
        self._outputs: OrderedDict[Stream, _Output] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ratios) + len(self._outputs)

    def learn(self, stream: Stream, estimated: int, counted: int) -> None:
        """Learn what a text came to that was estimated, uncorrected, at so much.

        A count of 0 is none, and teaches nothing.
        """
        if estimated > 0 and counted > 0:
            self._of(self._ratios, stream, _Ratio()).learn(counted * ONE // estimated)

    def bound(self, stream: Stream, margin: int = 100) -> int | None:
        """Return the ratio that calls stay within; None before there was one.

        With a margin of 100 % it is the ratio to expect.
        """
        ratio = self._ratios.get(stream)
        return None if ratio is None else ratio.bound(margin)

    def learn_output(self, stream: Stream, counted: int) -> None:
        """Learn what a call that set no bound of its own has put out."""
        if counted > 0:
            self._of(self._outputs, stream, _Output()).learn(counted)

    def output(self, stream: Stream) -> int:
        """Return what calls that set no bound stay within."""
        output = self._outputs.get(stream)
        return UNSET_OUTPUT if output is None else output.bound()

    def _of(self, known: OrderedDict[Stream, _L], at: Stream, new: _L) -> _L:
        """Return the learner of a stream, which is now the last used."""
        found = known.setdefault(at, new)
        known.move_to_end(at)
        if len(known) > self._most:
            known.popitem(last=False)
        return found
