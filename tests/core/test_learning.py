"""What an account's answers teach about its limits."""

from __future__ import annotations

import pytest

from ratekeeper.core.learning import blamed, match
from ratekeeper.core.limits import Limit
from ratekeeper.core.meter import Meter
from ratekeeper.core.policy import Account, rules_of
from ratekeeper.core.reading import Reading
from ratekeeper.core.units import DAY, HOUR, MAX_AMOUNT, MINUTE, SECOND
from ratekeeper.core.waiter import Waiter
from ratekeeper.simulator.rules import (
    FixedWindow,
    QuantizedBucket,
    SlidingLog,
    TokenBucket,
)
from tests.core.room import START
from tests.core.taught import Client, Provider, Pupil, full_demand, left, refused_in

# The amount.


def test_of_the_amounts_told_and_shown_the_lower_is_in_force() -> None:
    pupil = Pupil("500 rpm")
    changes = []
    for shown in (300, 300, 800, 500, 200):
        changed = pupil.answer(pupil.send(), left(100, shown))
        changes.append((shown, pupil.amount, changed))

    assert [
        (300, 300, True),
        (300, 300, False),
        (800, 500, True),
        (500, 500, False),
        (200, 200, True),
    ] == changes
    assert "500 rpm" == pupil.meter.text


def test_an_amount_nobody_told_follows_the_headers_both_ways() -> None:
    pupil = Pupil("1 rpm", told=False)

    assert not pupil.meter.is_known
    assert not pupil.answer(pupil.send())
    assert not pupil.meter.is_known

    for shown in (300, 60, 500):
        assert pupil.answer(pupil.send(), left(40, shown))
        assert (True, shown) == (pupil.meter.is_known, pupil.amount)
        assert f"{shown} requests/minute (learned)" == pupil.meter.text


def test_what_was_used_is_kept_when_the_amount_is_learned() -> None:
    pupil = Pupil("1 rpm", told=False)
    for _ in range(7):
        pupil.send()
    pupil.answer(pupil.send(), left(292, 300))

    assert 8 == pupil.meter.used(pupil.now)
    assert 292 == pupil.meter.remaining(pupil.now)


def test_a_burst_that_was_told_is_cut_to_a_lower_amount() -> None:
    pupil = Pupil("500 rpm burst 100")
    pupil.asked(left(59, 60))

    assert 60 == pupil.meter.limit.burst

    pupil.asked(left(400, 500))

    assert 100 == pupil.meter.limit.burst


def test_an_operator_who_changes_the_amount_is_bounded_by_the_headers_still() -> None:
    pupil = Pupil("500 rpm")
    pupil.asked(left(299, 300))
    amounts = []
    for text in ("200 rpm", "1000 rpm"):
        pupil.learner.tell(Limit.parse(f"{text} using paced"), pupil.now)
        amounts.append(pupil.amount)

    assert [200, 300] == amounts


def test_an_absurd_amount_is_held_to_the_largest_there_is() -> None:
    pupil = Pupil("1 rpm", told=False)
    pupil.asked(left(5, 10**30))

    assert MAX_AMOUNT == pupil.amount


def test_a_limit_of_nothing_stops_nobody_for_ever() -> None:
    """Some relays write 0 where they mean that they do not know."""
    pupil = Pupil("60 rpm")
    pupil.asked(Reading(unit="requests", limit=1, remaining=0))

    assert MINUTE >= pupil.wait_us()


@pytest.mark.parametrize("shown", [0, -1])
def test_an_amount_below_one_is_no_amount(shown: int) -> None:
    """A transport of one's own may pass on what it read."""
    pupil = Pupil("60 rpm")
    pupil.asked(left(0, shown))

    assert 60 == pupil.amount


# Which reading speaks of which limit.


def meters(*limits: str, shows: tuple[tuple[str, int], ...] = ()) -> list[Meter]:
    account = Account(cold=False, shows=shows)
    return [rule.meter(START) for rule in rules_of(limits or ("learned",), account)]


def test_a_reading_speaks_of_the_limit_of_its_unit_and_window() -> None:
    own = meters("500 rpm", "9000 rpd", "100k tpm")
    tokens = Reading(unit="tokens", limit=80_000)
    daily = Reading(unit="requests", limit=400, window_us=DAY)

    assert [None, daily, tokens] == match([tokens, daily], own)


def test_a_reading_without_a_window_speaks_of_the_limit_of_its_amount() -> None:
    own = meters("500 rpm", "200 rpd")
    daily = Reading(unit="requests", limit=200, remaining=150)

    assert [None, daily] == match([daily], own)


def test_a_reading_without_a_window_speaks_else_of_the_minute() -> None:
    own = meters("9000 rpd", "50 requests/second", "500 rpm")
    reading = Reading(unit="requests", limit=450)

    assert [None, None, reading] == match([reading], own)


def test_a_limit_larger_than_was_told_is_another() -> None:
    """A day's, under the name of a minute's."""
    own = meters("500 rpm")

    assert [None] == match([Reading(unit="requests", limit=1000)], own)
    assert [None] == match([Reading(unit="input_tokens", limit=100)], own)


def test_a_limit_that_is_whole_only_after_the_window_is_another() -> None:
    own = meters(shows=(("requests", MINUTE), ("requests", DAY)))[1:]
    reading = Reading(unit="requests", limit=1000, full_after_us=HOUR)

    assert [None, reading] == match([reading], own)


def test_a_reading_speaks_of_no_limit_that_does_not_learn() -> None:
    ours = [rule.meter(START) for rule in rules_of(("500 rpm",))]

    assert [None] == match([Reading(unit="requests", limit=400)], ours)


# Others who use the account.


def test_less_left_than_the_own_count_leaves_slows_the_pace_down() -> None:
    pupil = Pupil("300 rpm")
    first = pupil.send()
    pupil.now += 2 * SECOND
    pupil.answer(first, left(299, 300))
    usual = pupil.wait_us()
    for remaining in (40, 30, 20, 10, 5, 0):
        pupil.now += MINUTE
        sent = pupil.send()
        pupil.now += 2 * SECOND
        pupil.answer(sent, left(remaining, 300))

    assert 0 == usual
    pupil.send()
    assert SECOND < pupil.wait_us() <= 7 * SECOND  # a thirty-second part


def test_the_whole_limit_is_ours_again_a_window_after_others_have_left() -> None:
    pupil = Pupil("300 rpm")
    for remaining in (299, 0):
        sent = pupil.send()
        pupil.now += 2 * SECOND
        pupil.answer(sent, left(remaining, 300))

    slow = pupil.rate(over_us=MINUTE, reading=lambda: left(0, 300))

    pupil.now += MINUTE + SECOND
    pupil.asked(left(299, 300))
    pupil.asked(left(299, 300))
    fast = pupil.rate(over_us=MINUTE, reading=lambda: left(299, 300))

    assert 1 <= slow <= 300 // 8
    assert 270 <= fast <= 300


def test_tokens_shown_in_thousands_are_nobody_elses() -> None:
    """Of 2100 that a bucket holds 2000 are shown, and of 900 none."""
    pupil = Pupil("40k tpm")
    pupil.asked(left(2000, 40_000, "tokens"), cost=100)
    pupil.now += MINUTE
    pupil.asked(left(0, 40_000, "tokens"), cost=1200)

    assert pupil.meter.pace is None

    pupil.now += MINUTE
    pupil.asked(left(0, 40_000, "tokens"), cost=200)

    assert pupil.meter.pace is not None


def daily(remaining: int) -> Reading:
    return Reading(unit="requests", window_us=DAY, limit=1000, remaining=remaining)


def test_a_days_limit_is_charged_what_others_used_of_it() -> None:
    """A day is not paced, so others are not left room: what is gone is gone."""
    pupil = Pupil("1000 rpd")
    pupil.asked(daily(999))
    pupil.asked(daily(400))

    assert 400 <= pupil.meter.remaining(pupil.now) <= 402


def test_what_others_used_of_a_day_comes_back_when_the_headers_say_so() -> None:
    """A day that ends at midnight is whole again before the own count says so."""
    pupil = Pupil("1000 rpd")
    pupil.asked(daily(5))

    assert 5 == pupil.meter.remaining(pupil.now)

    pupil.asked(daily(400))

    assert 400 == pupil.meter.remaining(pupil.now)

    pupil.asked(daily(997))

    assert 997 == pupil.meter.remaining(pupil.now)


def test_what_was_used_in_a_told_window_is_compared_with_what_is_left() -> None:
    pupil = Pupil("60 rpm using sliding-window")
    pupil.now += 2 * MINUTE
    for remaining in (59, 58, 57):
        pupil.asked(left(remaining, 60))

    assert pupil.meter.pace is None

    pupil.asked(left(0, 60))

    assert pupil.meter.pace is not None


def test_what_others_used_is_charged_once_however_many_calls_are_under_way() -> None:
    pupil = Pupil("1000 rpd")
    pupil.asked(daily(999))
    sent = [pupil.send() for _ in range(20)]
    for at, one in enumerate(sent):
        pupil.now += SECOND
        pupil.answer(one, daily(400 - at))

    assert 381 <= pupil.meter.remaining(pupil.now) <= 383


def test_no_trial_goes_where_the_provider_has_no_room_for_it() -> None:
    pupil = Pupil("60 rpm")

    assert pupil.learner.has_room(10**6)

    pupil.asked(left(3, 60))

    assert pupil.learner.has_room(3)
    assert not pupil.learner.has_room(4)

    pupil.send()

    assert not pupil.learner.has_room(3)


@pytest.mark.parametrize("capacity", [60, 300])
def test_two_programs_that_share_an_account_come_to_equal_shares(capacity: int) -> None:
    """They know of each other by headers alone, and answers take up to two seconds."""
    clients = [Client(Pupil("300 rpm", guard_us=SECOND), full_demand()) for _ in "ab"]
    provider = Provider(
        TokenBucket(300, capacity=capacity),
        clients,
        way_us=(0, SECOND // 5),
        back_us=(SECOND // 2, 2 * SECOND),
    )
    since_us = START + 3 * MINUTE
    provider.run(since_us + 5 * MINUTE)
    shares = [sum(1 for at in one.admitted if at >= since_us) for one in clients]

    assert 5 * 300 * 0.95 <= sum(shares)
    assert 0.8 <= shares[0] / shares[1] <= 1.25
    assert sum(refused_in(one, since_us) for one in clients) <= sum(shares) // 100


# A provider that does not say what is left.


def twice_refused() -> Pupil:
    pupil = Pupil("60 rpm")
    for _ in range(2):
        pupil.now += MINUTE
        pupil.refuse(pupil.send())
        pupil.now += SECOND
    return pupil


def test_one_refusal_alone_does_not_lower_the_rate() -> None:
    pupil = Pupil("60 rpm")
    pupil.refuse(pupil.send())

    assert pupil.meter.pace is None


def test_refused_again_the_rate_falls_and_half_of_it_comes_back_each_window() -> None:
    pupil = twice_refused()
    shares = []
    for _ in range(12):
        pupil.asked()
        pace = pupil.meter.pace
        shares.append(60 if pace is None else pace.limit.amount)
        pupil.now += MINUTE

    # To 70 %, then halfway to the rate that was refused, each minute.
    assert [41, 50, 55, 57] == shares[:4]
    assert shares == sorted(shares)
    assert 60 == shares[-1]


def test_a_rate_that_is_refused_once_more_is_the_next_bound() -> None:
    pupil = twice_refused()
    pupil.asked()
    pupil.now += MINUTE
    pupil.asked()
    pupil.refuse(pupil.send())
    pupil.now += MINUTE
    pupil.asked()

    assert pupil.meter.pace is not None
    # 70 % of 85 %, and half of the way back
    assert 42 <= pupil.meter.pace.limit.amount <= 44


def test_a_bound_is_felt_for_again_after_ten_quiet_windows() -> None:
    pupil = twice_refused()
    pupil.now += MINUTE
    pupil.asked()
    pupil.refuse(pupil.send())
    for _ in range(40):
        pupil.now += MINUTE
        pupil.asked()

    assert pupil.meter.pace is None


def test_a_bucket_of_one_call_that_shows_nothing_left_is_refused_less_and_less() -> (
    None
):
    """What it shows to be left is nothing after every call: it says no more than that.

    Calls a second apart that take up to a second to get there come two at once.
    """
    client = Client(Pupil("60 rpm", guard_us=SECOND), full_demand())
    provider = Provider(
        QuantizedBucket(60), [client], way_us=(0, SECOND), back_us=(0, SECOND)
    )
    provider.run(START + 30 * MINUTE)
    since_us = provider.now - 20 * MINUTE
    admitted = sum(1 for at in client.admitted if at >= since_us)

    assert refused_in(client, since_us) <= 6
    assert 20 * 60 * 0.4 <= admitted


def test_a_rate_that_fell_without_a_word_comes_back_when_headers_show_room() -> None:
    pupil = twice_refused()
    for _ in range(20):
        pupil.asked(left(50, 60))
        pupil.now += MINUTE

    assert pupil.meter.pace is None


def test_a_used_up_window_that_refuses_many_calls_is_one_rate_that_failed() -> None:
    """Else a minute of refusals without a hint would cost an hour of quota."""
    pupil = Pupil("60 rpm")
    pupil.asked()
    for _ in range(12):
        pupil.now += SECOND
        pupil.refuse(pupil.send())

    assert pupil.meter.pace is not None
    assert pupil.meter.pace.limit.amount <= 30

    for _ in range(6):
        pupil.now += MINUTE
        pupil.asked()

    assert pupil.meter.pace is None


# Ramps.


def test_a_rate_that_rose_too_steeply_goes_back_to_what_was_sent() -> None:
    pupil = Pupil("6000 rpm")
    for _ in range(60):
        pupil.asked()
        pupil.now += SECOND // 2
    pupil.refuse(pupil.send(), ramp=True)

    assert pupil.meter.pace is not None
    assert 60 <= pupil.meter.pace.limit.amount <= 6000 // 32 + 1


def test_a_ramp_grows_by_half_in_a_quarter_of_an_hour_and_ends_at_the_limit() -> None:
    pupil = Pupil("6000 rpm")
    for _ in range(1000):
        pupil.asked()
    pupil.refuse(pupil.send(), ramp=True)
    paces = []
    for _ in range(7):
        pace = pupil.meter.pace
        paces.append(6000 if pace is None else pace.limit.amount)
        for _ in range(15):
            pupil.now += MINUTE
            pupil.asked()
    start = paces[0]

    assert 900 <= start <= 1100
    for at in range(1, 5):
        assert 0.97 * start * 1.5**at <= paces[at] <= 1.01 * start * 1.5**at
    assert 6000 == paces[-1]


def test_a_ramp_is_learned_of_even_where_the_headers_say_there_is_room() -> None:
    pupil = Pupil("6000 rpm")
    for _ in range(1000):
        pupil.asked(left(5000, 6000))
    pupil.refuse(pupil.send(), left(5000, 6000), ramp=True)
    pupil.asked(left(5000, 6000))

    assert pupil.meter.pace is not None


# The guard.


def test_a_refusal_that_nothing_explains_widens_the_guard_to_a_bound() -> None:
    pupil = Pupil("600 requests/minute")
    guards = []
    for _ in range(7):
        pupil.now += MINUTE
        pupil.refuse(pupil.send(), left(300, 600))
        guards.append(pupil.meter.guard_us / SECOND)

    assert [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0] == guards


def test_a_guard_takes_no_more_than_a_quarter_of_the_window() -> None:
    pupil = Pupil("20 requests/2s using sliding-window")
    for _ in range(4):
        pupil.now += 2 * SECOND
        pupil.refuse(pupil.send())

    assert SECOND // 2 == pupil.meter.guard_us


def test_the_guard_shrinks_by_half_after_ten_quiet_windows_and_to_what_was_told() -> (
    None
):
    pupil = Pupil("600 requests/minute", guard_us=SECOND // 10)
    for _ in range(3):
        pupil.now += MINUTE
        pupil.refuse(pupil.send(), left(300, 600))
    guards = []
    for _ in range(55):
        pupil.asked(left(300, 600))
        guards.append(pupil.meter.guard_us)
        pupil.now += MINUTE

    assert [1_000_000, 500_000, 250_000, 125_000, 100_000] == list(
        dict.fromkeys(guards)
    )
    assert 11 == guards.index(500_000)


def test_calls_under_way_at_a_refusal_are_no_news() -> None:
    pupil = Pupil("600 requests/minute")
    sent = [pupil.send() for _ in range(4)]
    pupil.now += SECOND
    for one in sent:
        pupil.refuse(one, left(300, 600))

    assert SECOND // 4 == pupil.meter.guard_us


# When a call was counted.


def test_what_an_answer_takes_longer_than_the_quickest_may_have_been_the_way() -> None:
    pupil = Pupil("600 requests/minute")
    learner = pupil.learner

    assert START == learner.counted_us(START, START + 2 * SECOND)
    assert START + SECOND // 2 == learner.counted_us(START, START + 5 * SECOND // 2)
    # a long answer was not all that time on its way
    assert START + SECOND == learner.counted_us(START, START + MINUTE)


def test_the_quickest_answer_is_forgotten_after_some_minutes() -> None:
    """Else a provider that has become slow would look like a long way for ever."""
    learner = Pupil("600 requests/minute").learner
    learner.counted_us(START, START + SECOND // 10)
    late = []
    for minute in range(1, 15):
        at = START + minute * MINUTE
        late.append(learner.counted_us(at, at + SECOND) - at)

    assert 900_000 == late[0]
    assert 0 == late[-1]


# Who is blamed.


def blamed_units(own: list[Meter], *shown: Reading | None) -> list[str]:
    readings = list(shown) or [None] * len(own)
    costs = [1] * len(own)
    return [m.unit for m in blamed(own, costs, readings, START, START)]


def test_the_limit_that_the_headers_show_used_up_is_to_blame() -> None:
    own = meters("600 rpm", "600 tpm")

    assert ["tokens"] == blamed_units(own, left(5), left(0, unit="tokens"))


def test_a_limit_closest_to_its_bounds_is_to_blame_else() -> None:
    own = meters("600 rpm", "600 tpm")
    own[1].take(50, START - 10 * SECOND)

    assert ["tokens"] == blamed_units(own)

    own[0].take(70, START)

    assert ["requests"] == blamed_units(own)


def test_a_trial_is_to_blame_unless_the_headers_show_another_used_up() -> None:
    own = meters("600 rpm", "600 tpm")
    own[1].take(500, START - 10 * SECOND)
    for _ in range(11):
        own[0].grant(1, START)

    assert ["requests"] == blamed_units(own)
    assert ["requests"] == blamed_units(own, left(40), left(100, unit="tokens"))
    assert ["tokens"] == blamed_units(own, left(40), left(0, unit="tokens"))


def test_the_only_limit_is_to_blame_whatever_is_known() -> None:
    assert ["requests"] == blamed_units(meters("600 rpm"))
    assert [] == blamed_units([])


# Together.


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("shown", [120, 600])
def test_a_provider_that_changes_its_limit_is_followed_within_a_window(
    shown: int, *, told: bool
) -> None:
    rule = TokenBucket(300)
    client = Client(
        Pupil("600 rpm" if told else "1 rpm", told=told, guard_us=SECOND), full_demand()
    )
    provider = Provider(rule, [client], back_us=(SECOND // 2, SECOND))
    provider.run(START + 3 * MINUTE)
    rule.change(shown, provider.now)
    since_us = provider.now + MINUTE
    provider.run(since_us + 5 * MINUTE)
    admitted = sum(1 for at in client.admitted if at >= since_us)

    assert 5 * shown * 0.9 <= admitted <= 6 * shown
    assert 0 == refused_in(client, since_us)


@pytest.mark.parametrize("rule", [SlidingLog(240), FixedWindow(240)])
def test_a_told_amount_that_is_too_high_is_found_out_by_refusals(
    rule: SlidingLog | FixedWindow,
) -> None:
    """Without a header that shows it: only refusals speak."""
    client = Client(Pupil("300 rpm"), full_demand())
    provider = Provider(rule, [client], back_us=(SECOND // 5, SECOND), shows=False)
    provider.run(START + 30 * MINUTE)
    since_us = provider.now - 10 * MINUTE
    admitted = sum(1 for at in client.admitted if at >= since_us)

    assert 10 * 240 * 0.8 <= admitted
    assert refused_in(client, since_us) <= admitted // 20


def test_calls_in_line_hold_no_more_than_limits_that_came_to_be_known() -> None:
    own = meters(shows=(("requests", MINUTE), ("tokens", MINUTE)))
    waiter = Waiter([MINUTE, 1, 5000])
    waiter.arrive(own, START, 0)
    (learner,) = [m.learner for m in own if m.unit == "tokens"]
    assert learner is not None
    learner.heed(learner.mark(START), left(900, 1000, "tokens"), START)
    waiter.cut()

    assert [MINUTE, 1, 1000] == waiter.costs


def test_a_limit_that_was_told_how_it_is_enforced_learns_its_amount_alone() -> None:
    """Nothing is tried there; a refusal means that calls took longer to get there."""
    pupil = Pupil("60 rpm using sliding-window")
    for _ in range(20):
        pupil.asked()

    assert 0 == pupil.wait_us()

    pupil.refuse(pupil.send(), left(30, 50))

    assert 50 == pupil.amount
    assert SECOND // 4 == pupil.meter.guard_us
    assert not pupil.meter.is_probing(pupil.now)


def test_a_call_larger_than_a_slow_pace_allows_in_a_window_goes_at_its_turn() -> None:
    pupil = Pupil("1000 tpm")
    for _ in range(12):
        pupil.now += SECOND
        pupil.refuse(pupil.send(1))
    assert pupil.meter.pace is not None
    assert 100 > pupil.meter.pace.limit.amount

    pupil.send(900)

    assert MINUTE < pupil.wait_us(900) <= 32 * MINUTE

    pupil.send(900)
