"""Paced: even spacing, and never more than the limit in any window."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.core.limits import Limit
from ratekeeper.core.meter import NEVER
from ratekeeper.core.paced import Paced
from ratekeeper.core.units import MINUTE, SECOND
from ratekeeper.simulator.rules import (
    FixedWindow,
    QuantizedBucket,
    Rule,
    SlidingLog,
    TokenBucket,
)
from tests.core.oracle import ExactBucket, ExactLog
from tests.core.room import START
from tests.core.taught import Client, Provider, Pupil, left, refused_in


def paced(text: str, guard_us: int = 0) -> Paced:
    return Paced(Limit.parse(f"{text} using paced"), guard_us=guard_us)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(0, 600)), max_size=60)
)
def test_both_a_bucket_and_a_log_would_grant_and_neither_waits_longer(
    calls: list[tuple[int, int]],
) -> None:
    meter = paced("600 tokens/minute")
    bucket, log = ExactBucket(10, 600, MINUTE), ExactLog(600, MINUTE)
    bucket.at_us = now = START
    for gap, cost in calls:
        now += gap
        wait = meter.wait_us(cost, now)
        if wait:
            assert meter.wait_us(cost, now + wait - 1) > 0
            now += wait
        assert 0 == meter.wait_us(cost, now)
        assert bucket.fits(cost, now)
        assert log.fits(cost, now)
        meter.admit(cost, now)
        bucket.take(cost, now)
        log.take(cost, now)

    assert log.worst() <= 600


@pytest.mark.parametrize("cost", [10, 500, 2000, 4000, 100_000])
@pytest.mark.parametrize("guard_us", [0, SECOND, 5 * SECOND])
def test_full_rate_flows_at_any_cost_whatever_the_guard(
    cost: int, guard_us: int
) -> None:
    meter = paced("120k tokens/minute", guard_us)
    now, used = START, 0
    while now < START + 5 * MINUTE:
        now += meter.wait_us(cost, now)
        meter.admit(cost, now)
        used += cost
    # what the log's guard takes, and a call that does not divide the limit
    whole = 120_000 // cost * cost / 120_000
    share = whole * 60 / (60 + guard_us / SECOND)

    assert 5 * 120_000 * share * 0.99 <= used


def test_those_behind_others_wait_for_the_pace_or_the_window() -> None:
    meter = paced("600 tokens/minute")
    meter.take(10, START)

    assert 11 * SECOND == meter.backlog_us(100, 10, START)
    assert MINUTE <= meter.backlog_us(600, 10, START)


def test_a_call_above_the_limit_never_goes() -> None:
    meter = paced("600 tokens/minute")

    assert meter.never(601)
    assert NEVER == meter.wait_us(601, START)


def test_a_refund_comes_back_to_both() -> None:
    meter = paced("600 tokens/minute")
    meter.take(600, START)
    assert MINUTE == meter.wait_us(10, START)
    meter.back(600, START, START)

    assert 0 == meter.wait_us(10, START)
    assert 0 == meter.used(START)


def test_the_window_says_what_is_used_and_the_larger_backlog_counts() -> None:
    meter = paced("600 tokens/minute")
    meter.take(20, START)

    assert 20 == meter.used(START)
    assert MINUTE == meter.reset_us(START)
    assert 5 * SECOND == meter.backlog_us(30, 10, START)
    assert 62 * SECOND == meter.backlog_us(600, 10, START)
    meter.take(580, START)
    assert MINUTE == meter.backlog_us(0, 10, START)


def test_a_key_whose_bucket_is_empty_is_not_forgotten() -> None:
    meter = paced("600 tokens/minute")
    assert not meter.is_binding(START)
    meter.take(10, START)

    assert meter.is_binding(START)
    assert not meter.is_binding(START + SECOND)
    meter.take(590, START + SECOND)
    assert meter.is_binding(START + MINUTE - 1)


def test_a_changed_amount_changes_both() -> None:
    meter = paced("600 tokens/minute")
    meter.take(10, START)
    meter.change(Limit.parse("1200 tokens/minute using paced"), START)

    assert 0 == meter.wait_us(10, START)
    assert SECOND // 20 == meter.wait_us(11, START)
    assert 1190 == meter.remaining(START)


def test_a_cold_start_changes_nothing_as_it_is_paced_already() -> None:
    meter = paced("600 tokens/minute")
    meter.start_cold(START, paced("600 tokens/minute"))
    meter.confirm(3, 0, START)

    assert not meter.attention
    assert 0 == meter.wait_us(10, START)


def test_what_was_refused_goes_on_evenly_without_a_burst() -> None:
    """A provider that counts seconds would refuse the burst again and again."""
    meter = paced("300 requests/minute")
    meter.admit(1, START)
    meter.pause(START + SECOND)
    meter.back(1, START, START)
    now = START + SECOND
    gaps = []
    for _ in range(10):
        gaps.append(meter.delay_us(1, now))
        now += gaps[-1]
        meter.admit(1, now)

    assert [0] + 9 * [SECOND // 5] == gaps


def test_a_pause_forgives_no_debt() -> None:
    meter = paced("300 tokens/minute")
    meter.admit(100, START)
    meter.pause(START + SECOND)

    assert 19 * SECOND + SECOND // 5 == meter.delay_us(1, START)

    meter.back(100, START, START)

    assert SECOND == meter.delay_us(1, START)


# What it learns by probes.


def learned_burst(pupil: Pupil) -> int:
    """Return how many calls go at once, each let in before the next."""
    calls = 0
    while not pupil.wait_us():
        pupil.asked()
        calls += 1
    return calls


def test_one_call_at_a_time_reaches_further_than_any_before() -> None:
    pupil = Pupil("60 rpm")
    pupil.asked()
    probe = pupil.send()

    assert pupil.meter.is_probing(probe.taken_us)
    assert 2 * SECOND == pupil.wait_us()

    pupil.answer(probe)

    assert not pupil.meter.is_probing(probe.taken_us)
    assert 0 == pupil.wait_us()


def test_what_was_let_in_once_may_go_at_once_from_then_on() -> None:
    """Ten at once after a rest, though nobody told of a burst."""
    pupil = Pupil("60 rpm")
    while learned_burst(pupil) < 12:
        pupil.now += 3 * MINUTE
    pupil.now += 3 * MINUTE
    went = []
    for _ in range(10):
        went.append(pupil.wait_us())
        pupil.send()

    assert 10 * [0] == went


@pytest.mark.parametrize(
    "pupil",
    [
        Pupil("60 rpm", cold=True),
        Pupil("60 rpm burst 1"),
        Pupil("60 rpm using sliding-window"),
    ],
    ids=["cold", "burst said", "not paced"],
)
def test_no_probe_goes_where_it_would_be_out_of_place(pupil: Pupil) -> None:
    sent = pupil.send()

    assert not pupil.meter.is_probing(sent.taken_us)

    pupil.answer(sent)
    again = pupil.send()

    assert not pupil.meter.is_probing(again.taken_us)


def test_no_probe_goes_where_the_provider_says_that_nothing_is_left() -> None:
    pupil = Pupil("60 rpm")
    pupil.asked(left(0, 60))

    assert SECOND == pupil.wait_us()


def test_a_probe_that_is_refused_is_not_repeated_for_an_hour() -> None:
    pupil = Pupil("60 rpm")
    pupil.asked()
    pupil.refuse(pupil.send())
    for _ in range(60):
        pupil.now += MINUTE - SECOND
        pupil.asked()
        assert SECOND == pupil.wait_us()
        pupil.now += SECOND
    pupil.now += MINUTE
    pupil.asked()

    assert 0 == pupil.wait_us()


def test_a_probe_nobody_spoke_of_holds_up_the_next_one_for_two_windows() -> None:
    pupil = Pupil("60 rpm")
    pupil.asked()
    pupil.send()
    waits = []
    for _ in range(3):
        pupil.now += MINUTE - 2 * SECOND
        pupil.asked()
        waits.append(pupil.wait_us())
        pupil.now += 2 * SECOND

    assert [SECOND, SECOND, 0] == waits


def test_a_burst_that_had_been_let_in_and_is_refused_becomes_less() -> None:
    pupil = Pupil("60 rpm")
    while learned_burst(pupil) < 20:
        pupil.now += 3 * MINUTE
    bursts = []
    for _ in range(40):
        pupil.now += 3 * MINUTE
        calls = 1
        sent = pupil.send()
        while not pupil.wait_us():
            sent = pupil.send()
            calls += 1
        pupil.now += 1
        pupil.refuse(sent)
        bursts.append(calls)

    assert bursts == sorted(bursts, reverse=True)
    assert 20 <= bursts[0]
    assert 1 == bursts[-1]


def test_a_burst_shrinks_with_the_amount_and_does_not_grow_with_it() -> None:
    pupil = Pupil("60 rpm")
    while learned_burst(pupil) < 20:
        pupil.now += 3 * MINUTE
    pupil.learner.tell(Limit.parse("30 rpm using paced"), pupil.now)
    pupil.now += 3 * MINUTE
    lowered = 1
    while not pupil.wait_us():
        pupil.send()
        lowered += 1

    # half of what a minute holds now
    assert 15 <= lowered <= 17


def test_calls_of_many_sizes_learn_how_much_a_window_holds_above_the_limit() -> None:
    """A bucket of a minute's worth lets in its capacity, and what flows in meanwhile."""
    client = Client(Pupil("6000 tpm"), every(3 * MINUTE, 30, calls=20, cost=490))
    rule = TokenBucket(6000, unit="tokens")
    Provider(rule, [client], back_us=(0, SECOND)).run(START + 95 * MINUTE)
    log = ExactLog(6000, MINUTE)
    for at in client.admitted:
        log.take(490, at)

    assert [] == client.refused
    assert 6000 < log.worst() < 12_000
    assert log.worst() <= 6000 + client.over


def test_a_window_that_holds_no_more_than_the_limit_is_found_out_by_a_refusal() -> None:
    client = Client(Pupil("6000 tpm"), every(3 * MINUTE, 30, calls=20, cost=490))
    rule = SlidingLog(6000, unit="tokens")
    provider = Provider(rule, [client], back_us=(0, SECOND), shows=False)
    provider.run(START + 95 * MINUTE)

    assert 1 <= len(client.refused) <= 3
    assert len(client.refused) + len(client.admitted) == 600


def over_learned() -> Pupil:
    """Return one whose window was let hold more than the limit."""
    pupil = Pupil("6000 tpm")
    pupil.now += 2 * MINUTE
    for _ in range(200):
        while not pupil.wait_us(490):
            pupil.asked(cost=490)
        if pupil.meter.used(pupil.now) > 6400:
            return pupil
        pupil.now += SECOND
    raise AssertionError(pupil.meter.used(pupil.now))


def test_what_a_window_was_let_hold_above_the_limit_is_taken_back_when_refused() -> (
    None
):
    pupil = over_learned()
    pupil.refuse(pupil.send(490))
    pupil.now += 1
    wait_us = pupil.wait_us(490)
    pupil.now += wait_us

    assert 0 < wait_us
    assert 6000 >= pupil.meter.used(pupil.now) + 490
    assert 0 == pupil.meter.guard_us


def test_a_window_that_holds_no_more_than_its_limit_takes_back_what_was_no_trial() -> (
    None
):
    pupil = over_learned()
    sent = pupil.send(490)
    while pupil.meter.is_probing(sent.taken_us) or pupil.meter.used(pupil.now) <= 6000:
        pupil.answer(sent)
        sent = pupil.send(490)
    pupil.refuse(sent)
    pupil.now += pupil.wait_us(490)

    assert 6000 >= pupil.meter.used(pupil.now) + 490


def test_a_small_bucket_that_refuses_is_sent_a_smaller_burst_all_the_same() -> None:
    """What its window holds has nothing to do with it."""
    pupil = over_learned()
    pupil.asked(left(1500, 6000, "tokens"))
    pupil.refuse(pupil.send(490), left(100, 6000, "tokens"))
    sizes = []
    for _ in range(2):
        pupil.now += 5 * MINUTE
        calls = 0
        while not pupil.wait_us(490):
            pupil.send(490)
            calls += 1
        sizes.append(calls)

    assert 1 <= sizes[0] <= 11
    assert sizes[0] >= sizes[1]


def every(
    gap_us: int, count: int, *, calls: int, cost: int
) -> Iterator[tuple[int, int]]:
    """So many calls at once, again and again."""
    for at in range(calls):
        yield from count * [(START + at * gap_us, cost)]


@pytest.mark.parametrize("capacity", [1, 2, 15, 60])
def test_a_bucket_of_any_size_is_used_up_and_refuses_no_more_once_learned(
    capacity: int,
) -> None:
    client = Client(Pupil("60 rpm"), itertools.repeat((START, 1)))
    provider = Provider(TokenBucket(60, capacity=capacity), [client])
    provider.run(START + 20 * MINUTE)
    since_us = START + 5 * MINUTE

    assert 15 * 60 * 0.98 <= sum(1 for at in client.admitted if at >= since_us)
    assert len(client.refused) <= 3
    assert 0 == refused_in(client, since_us)


def test_those_at_the_end_of_a_line_are_told_of_the_even_pace() -> None:
    pupil = Pupil("60 rpm")
    while learned_burst(pupil) < 30:
        pupil.now += 3 * MINUTE
    pupil.now += 3 * MINUTE

    # thirty of sixty may go at once, and the last of them all the same not before
    assert 55 * SECOND <= pupil.meter.backlog_us(59, 1, pupil.now) <= 60 * SECOND


def test_a_window_that_is_nearly_used_up_is_used_evenly() -> None:
    """A burst takes a half, waits until the pace has caught up, and goes on at it."""
    pupil = Pupil("60 rpm")
    while learned_burst(pupil) < 30:
        pupil.now += 3 * MINUTE
    pupil.now += 3 * MINUTE
    pupil.asked(left(0, 60))
    calls = 1
    while not pupil.wait_us():
        pupil.send()
        calls += 1

    assert 29 <= calls <= 31
    assert pupil.wait_us() <= 28 * SECOND

    pupil.now += pupil.wait_us()
    pupil.send()

    assert pupil.wait_us() <= SECOND


RULES = st.one_of(
    st.builds(
        lambda amount, part: TokenBucket(amount, capacity=max(1, amount * part // 100)),
        st.integers(1, 120),
        st.integers(0, 100),
    ),
    st.builds(SlidingLog, st.integers(1, 120)),
    st.builds(FixedWindow, st.integers(1, 120)),
    st.builds(QuantizedBucket, st.integers(1, 120)),
)
WAYS = st.tuples(st.just(0), st.integers(0, SECOND))
BACKS = st.tuples(st.just(0), st.integers(0, 3 * SECOND))
GAPS = st.lists(
    st.sampled_from([0, 0, 0, 1, SECOND // 3, SECOND, 5 * SECOND, MINUTE, 3 * MINUTE]),
    min_size=1,
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(RULES, GAPS, WAYS, BACKS, st.booleans(), st.integers(0, 999))
def test_whoever_enforces_however_calls_come_few_are_refused_and_none_waits_for_ever(
    rule: Rule,
    gaps: list[int],
    way_us: tuple[int, int],
    back_us: tuple[int, int],
    shows: bool,
    seed: int,
) -> None:
    """Answers come in any order, and each call takes up to a second to get there.

    A window of calls as they were sent never holds more than the limit and what was
    learned above it; a wait is never longer than two windows.
    """
    pupil = Pupil(f"{rule.amount} rpm", guard_us=SECOND)
    came = list(itertools.accumulate(gaps, initial=START))
    client = Client(pupil, iter([(at, 1) for at in came]))
    provider = Provider(
        rule, [client], way_us=way_us, back_us=back_us, shows=shows, seed=seed
    )
    provider.run(came[-1] + len(came) * 2 * MINUTE)
    log = ExactLog(rule.amount, MINUTE)
    for at in client.sent:
        log.take(1, at)
    # Calls that a bucket of one gets closer together than they were sent: it is found
    # out by refusals, and tried again now and then. A log or a minute refuses none.
    windows = (client.sent[-1] - START) // MINUTE + 1

    assert len(came) == len(client.sent) == len(client.admitted) + len(client.refused)
    assert log.worst() <= rule.amount + client.over
    assert client.longest_us <= 2 * MINUTE
    assert len(client.refused) <= 4 + windows // 2
