"""What was seen is counted right, in bounded memory, and without whole keys."""

from __future__ import annotations

from ratekeeper.simulator.rules import MINUTE_US, SECOND_US
from ratekeeper.simulator.stats import OTHERS, Stats, mask

START = 1_800_000_000 * SECOND_US


def test_the_busiest_minute_is_found_wherever_it_lies() -> None:
    stats = Stats(START)
    for second in (0, 10, 50, 61, 65, 69, 200):
        stats.admit(START + second * SECOND_US, 10)
    shown = stats.as_json(START + 300 * SECOND_US)

    assert 5 == shown["worst_minute_requests"]
    assert 50 == shown["worst_minute_tokens"]


def test_a_call_a_whole_minute_old_no_longer_counts() -> None:
    stats = Stats(START)
    stats.admit(START, 1)
    stats.admit(START + MINUTE_US, 1)

    assert 1 == stats.worst_minute


def test_a_flood_of_keys_is_counted_under_one_name() -> None:
    stats = Stats(START)
    for number in range(5_000):
        stats.answered(401, f"key-{number}")
    by_key = stats.as_json(START)["by_key"]

    assert len(by_key) <= 1_001
    assert 4_000 == by_key[OTHERS]["requests"]


def test_arrivals_kept_have_a_bound_and_the_count_has_none() -> None:
    stats = Stats(START)
    for number in range(20_000):
        stats.arrived(START + number)
    shown = stats.as_json(START)

    assert 10_000 == len(shown["arrivals_us"])
    assert 20_000 == shown["requests"]


def test_a_long_key_is_never_shown_whole() -> None:
    key = "sk-proj-0123456789abcdefghijklmnop"
    shown = mask(key)

    assert key not in shown
    assert "456789abcdef" not in shown


def test_counting_anew_keeps_what_is_in_flight() -> None:
    stats = Stats(START)
    stats.arrived(START)
    stats.entered()
    fresh = stats.renewed(START + 1)
    shown = fresh.as_json(START + 1)
    fresh.left()

    assert 0 == shown["requests"]
    assert 1 == shown["in_flight"]
    assert 0 == fresh.in_flight
