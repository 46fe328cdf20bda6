"""What the answers of a provider teach about one limit of an account.

The amount, where headers show it. Who else uses the account: `remaining` lower than the
own count leaves is believed, and the pace goes down so far that something is always
left. How long calls are under way. How much may go at once is `Paced`'s to learn; what
a refusal means for it is said here. Pure: every `now` is integer microseconds.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from ratekeeper.core.gcra import Bucket, second_of
from ratekeeper.core.meter import NEVER
from ratekeeper.core.units import HOUR, MAX_AMOUNT, MINUTE, SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ratekeeper.core.limits import Limit
    from ratekeeper.core.meter import Meter
    from ratekeeper.core.reading import Reading

_ONE = 1 << 20  # a share of the limit is counted in parts of this
_LEAST = _ONE >> 5  # what is sent to learn how things stand, whatever others do
_BELIEVED_US = SECOND  # of an answer's time, what may have been the way there
_LONGEST_GUARD_US = 4 * SECOND
_QUIET = 10  # windows without a refusal, after which the guard shrinks by half
_ANSWERS = 8  # the usual time of an answer is a mean over about so many
_AHEAD = 5  # answer times of the limit's rate that are left for others to use
_FRESH_US = 5 * MINUTE  # how long the quickest answer is remembered, at least
_RAMP_US = 15 * MINUTE  # in which traffic may grow by half: OpenAI's own figure
_ROUNDED = 1000  # tokens: Anthropic shows what is left in thousands
_TENTH = 10  # of a short window is the most that is given up to calls under way
_BACK_OFF = (7, 10)  # the share of a rate that was refused without a word


class _Pace(Bucket):
    """A pace below the limit's own: a call larger than its window goes at its turn."""

    def never(self, cost: int) -> bool:
        """Say no: the limit itself says what is too large."""
        del cost
        return False


class Mark(NamedTuple):
    """How one limit stood when a call was granted."""

    amount: int  # of the limit, at that time
    charged: int  # all that had been charged, this call included
    left: int  # what the own count left, at least


class Learner:
    """What has been learned of one limit; the meter it belongs to does the counting.

    `told` is the limit as the operator knows it: an upper bound. Without it the amount
    is what the provider shows.
    """

    __slots__ = (
        "_answer_us",
        "_corrected",
        "_failed",
        "_guard_us",
        "_least_us",
        "_meter",
        "_most",
        "_others_us",
        "_outside",
        "_quiet_us",
        "_ramp_us",
        "_refused_us",
        "_seen",
        "_share",
        "_shown",
        "_since_us",
        "_spare_us",
        "_stepped_us",
        "_tells",
        "_told",
        "_tried",
    )

    def __init__(self, meter: Meter, told: Limit | None) -> None:
        self._meter = meter
        self._told = told
        self._shown: int | None = None  # the amount in the headers
        self._most = 0  # the most that was ever seen to be left
        self._seen: tuple[int, int] | None = None  # left, and what was charged by then
        # Whether anything was ever left: of a bucket of one call nothing is.
        self._tells = False
        self._outside = 0, 0  # of a day's limit, charged for others; and when
        self._corrected = 0  # all that had been charged by then
        self._others_us: int | None = None  # when others were last seen to use it
        self._share = _ONE  # of the limit, what is ours for now
        self._failed = _ONE  # a share that was refused
        self._tried = False  # whether a call was let in since the last refusal
        self._stepped_us = 0  # when the share last changed for want of headers
        self._ramp_us: int | None = None  # since when it has been growing slowly
        self._refused_us = 0
        self._quiet_us = 0  # since when nothing has been refused, or the guard shrank
        self._guard_us = meter.guard_us  # as told
        self._least_us = self._spare_us = NEVER  # the quickest answers, two spans long
        self._since_us = 0
        self._answer_us = 0  # the usual time of an answer

    @property
    def is_known(self) -> bool:
        """Whether the amount is told, or has been shown."""
        return self._told is not None or self._shown is not None

    def may_be(self, reading: Reading) -> bool:
        """Say whether a reading of its unit may speak of this limit."""
        limit = self._meter.limit
        if reading.window_us is not None:
            return reading.window_us == limit.window_us
        if (reading.full_after_us or 0) > limit.window_us:
            return False
        told = None if self._told is None else self._told.amount
        return told is None or reading.limit is None or reading.limit <= told

    def mark(self, now: int) -> Mark:
        """Return how things stand for a call that has just been granted."""
        meter = self._meter
        limit = meter.limit
        left = limit.amount - meter.used(now)
        if self._most and limit.window_us <= HOUR:
            left = min(left, self._most - meter.owed(now))
        return Mark(limit.amount, meter.charged, left)

    def tell(self, limit: Limit, now: int) -> None:
        """Put an amount in force that the operator has changed."""
        self._told = limit
        self._apply(now)

    @property
    def capacity(self) -> int:
        """How much goes at once at most, as far as that has been seen."""
        if not self._most:
            return self._meter.limit.amount
        return self._most + (self._meter.unit == "requests")

    def has_room(self, cost: int) -> bool:
        """Say whether the provider, as far as it has said, has room for a call."""
        if self._seen is None:
            return True
        left, charged = self._seen
        return left - (self._meter.charged - charged) >= cost

    # Answers.

    def counted_us(self, taken_us: int, now: int) -> int:
        """Return when a call answered now was counted, at the latest.

        That was before its answer was made, which takes as long as the quickest answer
        at least. What all calls take to get there is the same for all, and no matter.
        """
        took_us = now - taken_us
        if now - self._since_us > _FRESH_US:
            self._since_us = now
            self._least_us, self._spare_us = took_us, self._least_us
        self._least_us = min(self._least_us, took_us)
        late_us = took_us - min(self._least_us, self._spare_us)
        most_us = max(_BELIEVED_US, 2 * self._meter.guard_us)
        return taken_us + min(late_us, most_us, self._meter.limit.window_us // _TENTH)

    def let_in(self, cost: int, taken_us: int, counted_us: int, now: int) -> None:
        """Learn from a call that was let in, and was counted then at the latest."""
        meter = self._meter
        self._tried = self._tried or taken_us > self._refused_us
        meter.let_in(taken_us, now)
        meter.redate(cost, taken_us, counted_us, now)
        self._answer_us += (now - taken_us - self._answer_us) // _ANSWERS
        self._relax(now)

    def heed(self, mark: Mark, reading: Reading | None, now: int) -> bool:
        """Learn from what an answer's headers show; True if that changes the amount."""
        is_changed = False
        if reading is not None and reading.limit is not None and reading.limit > 0:
            shown = min(reading.limit, MAX_AMOUNT)
            if self._shown != shown:
                known, amount = self.is_known, self._meter.limit.amount
                self._shown = shown
                self._apply(now)
                is_changed = not known or amount != self._meter.limit.amount
        if self._ramp_us is not None:
            self._grow(now)
        else:
            if reading is not None and reading.remaining is not None:
                self._remain(mark, reading.remaining, now)
            if self._others_us is None:
                self._step(now)
        return is_changed

    def _remain(self, mark: Mark, left: int, now: int) -> None:
        """Compare what is left with what the own count leaves."""
        meter = self._meter
        limit = meter.limit
        since = meter.charged - mark.charged
        if mark.amount != limit.amount:  # what was left of another limit
            return
        self._seen = left, mark.charged
        self._tells = self._tells or left > 0
        self._most = min(max(self._most, left), limit.amount)
        if self._others_us is None and self._share == _ONE:
            meter.confirm(left, mark.charged, now)
        if limit.window_us > HOUR:
            more = mark.left - left
            if mark.charged >= self._corrected and not 0 < more <= since:
                self._correct(more, now)
            return
        expected = min(mark.left, self._most) - since
        if left < expected and left < expected - self._slack():
            self._others_us = now
        if self._others_us is None:
            return
        if now - self._others_us > limit.window_us:
            self._others_us = None
            self._set_share(_ONE, now)
        else:
            self._set_share(self._fair(left), now)

    def _correct(self, more: int, now: int) -> None:
        """Charge to a day's limit what others used of it, as far as is known now.

        What is under way may be in the provider's figure or not, and what was sent
        before the last correction knows less than that.
        """
        had, at_us = self._outside
        outside = max(0, had + more)
        if abs(outside - had) <= self._slack():
            return
        if had:
            self._meter.back(had, at_us, now)
        if outside:
            self._meter.charge(outside, now)
        self._outside = outside, now
        self._corrected = self._meter.charged

    def _slack(self) -> int:
        """Return by how much what is left may be off.

        Tokens are shown in thousands, and a bucket that is full while a call is under
        way refills no further.
        """
        limit = self._meter.limit
        rounded = 0 if limit.unit == "requests" else min(_ROUNDED, limit.amount >> 3)
        return max(second_of(limit), rounded)

    def _fair(self, left: int) -> int:
        """Return the share at which several programs that do alike come to rest.

        It falls with what is left, so that they share the limit evenly and something
        is left for calls that are under way.
        """
        limit = self._meter.limit
        ahead_us = min(
            _AHEAD * self._answer_us + SECOND,
            self._most * limit.window_us // (2 * limit.amount),
        )
        full = max(1, limit.amount * ahead_us // limit.window_us)
        return max(_LEAST, min(_ONE, left * _ONE // full))

    # Refusals.

    def turned_away(self, taken_us: int, now: int, *, ramp: bool) -> None:
        """Learn from a refusal that this limit may have been the reason for."""
        meter = self._meter
        if ramp:
            self._begin_ramp(now)
            return
        if meter.turned_away(taken_us, now):
            return
        if taken_us <= self._refused_us:
            return  # it was under way when the last refusal was heard: no news
        again = now - self._refused_us < _QUIET * meter.limit.window_us
        self._refused_us = self._quiet_us = now
        if self._tells and self._seen is not None and meter.limit.window_us <= HOUR:
            self._others_us = now
            self._set_share(self._fair(self._seen[0]), now)
        if meter.shrink(now):
            return
        wider_us = max(2 * meter.guard_us, SECOND // 4)
        meter.widen(min(wider_us, _LONGEST_GUARD_US, meter.limit.window_us // 4), now)
        if again and not self._tells:
            self._fall(now)

    def _fall(self, now: int) -> None:
        """Send less: the limit must be lower than it was told, or shared.

        A share at which nothing has been let in yet was not what failed: a window that
        is used up refuses every call until it ends.
        """
        if self._tried:
            self._failed, self._tried = self._share, False
        part, whole = _BACK_OFF
        self._set_share(max(_LEAST, self._share * part // whole), now)
        self._stepped_us = now

    def _step(self, now: int) -> None:
        """Go halfway back to the share that was refused, once a window."""
        window_us = self._meter.limit.window_us
        if self._share == _ONE or now - self._stepped_us < window_us:
            return
        self._stepped_us = now
        if now - self._refused_us > _QUIET * window_us:
            self._failed = min(_ONE, self._failed * 11 // 10)
        share = (self._share + self._failed) // 2
        self._set_share(_ONE if share > _ONE - _LEAST else share, now)

    def _begin_ramp(self, now: int) -> None:
        """Go back to what was sent in the last window, and grow slowly from there."""
        used = self._meter.used(now)
        share = used * _ONE // self._meter.limit.amount
        self._ramp_us = now
        self._set_share(max(_LEAST, min(_ONE, self._share, share)), now)
        self._failed = self._share

    def _grow(self, now: int) -> None:
        """Grow by half in a quarter of an hour."""
        assert self._ramp_us is not None  # only then is it called
        gone_us = now - self._ramp_us
        share = self._failed + self._failed * gone_us // (2 * _RAMP_US)
        if gone_us >= _RAMP_US:
            self._ramp_us, self._failed = now, share
        if share >= _ONE:
            self._ramp_us, share = None, _ONE
        self._set_share(share, now)

    # What is put in force.

    def _relax(self, now: int) -> None:
        """Let the guard shrink after a long time without a refusal."""
        meter = self._meter
        if meter.guard_us <= self._guard_us:
            return
        if now - self._quiet_us > _QUIET * meter.limit.window_us:
            self._quiet_us = now
            meter.widen(max(self._guard_us, meter.guard_us // 2), now)

    def _apply(self, now: int) -> None:
        """Put the lower of the amounts told and shown in force."""
        limit = self._told or self._meter.limit
        amount = limit.amount
        if self._shown is not None:
            amount = self._shown if self._told is None else min(amount, self._shown)
        burst = None if limit.burst is None else min(limit.burst, amount)
        if amount != self._meter.limit.amount:
            self._most = 0
            self._seen = None
        self._meter.change(dataclasses.replace(limit, amount=amount, burst=burst), now)
        if self._told is None:
            limit = dataclasses.replace(self._meter.limit, algorithm=None)
            self._meter.text = f"{limit} (learned)"

    def _set_share(self, share: int, now: int) -> None:
        """Keep a pace below the limit's own; the whole limit needs none."""
        meter = self._meter
        self._share = share
        if share == _ONE:
            if meter.cold_until_us == NEVER:
                meter.pace, meter.cold_until_us = None, 0
            return
        amount = max(1, meter.limit.amount * share // _ONE)
        limit = dataclasses.replace(meter.limit, amount=amount, burst=None)
        if meter.pace is None:
            meter.pace = _Pace(limit, paced=True)
        else:
            meter.pace.change(limit, now)
        meter.cold_until_us = NEVER
        meter.attention = True


def match(readings: Iterable[Reading], meters: Sequence[Meter]) -> list[Reading | None]:
    """Return the reading that speaks of each limit, None where none does.

    One that does not say its window speaks of the limit of its amount, else of the one
    nearest to a minute. Some show a day's limit under the name of a minute's: one that
    is larger than was told, or whole again only after the window, is another.
    """
    found: list[Reading | None] = [None] * len(meters)
    learners = [
        (at, meter.unit, meter.learner)
        for at, meter in enumerate(meters)
        if meter.learner is not None
    ]
    for reading in readings:
        may = [
            at
            for at, unit, learner in learners
            if unit == reading.unit and learner.may_be(reading)
        ]
        if len(may) > 1:
            may.sort(key=lambda at: _fit(reading, meters[at].limit))
        if may:
            found[may[0]] = reading
    return found


def _fit(reading: Reading, limit: Limit) -> tuple[bool, int]:
    return reading.limit != limit.amount, abs(limit.window_us - MINUTE)


def blamed(
    meters: Sequence[Meter],
    costs: Sequence[int],
    readings: Sequence[Reading | None],
    taken_us: int,
    now: int,
) -> list[Meter]:
    """Return which of the limits of a call a refusal without a name is due to.

    Those that the headers show to have too little left; else a trial, if the call was
    one; else the one that is closest to its bounds.
    """
    found = [
        meter
        for meter, cost, reading in zip(meters, costs, readings, strict=True)
        if reading is not None
        and reading.remaining is not None
        and reading.remaining < cost
    ]
    if not found:
        found = [meter for meter in meters if meter.is_probing(taken_us)]
    if not found and len(meters) > 1:
        found = [max(meters, key=lambda meter: meter.fullness(now))]
    return found or [*meters]
