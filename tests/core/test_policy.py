"""Policies: what a call costs in each limit, and how their meters start."""

from __future__ import annotations

import pytest

from ratekeeper.core.gcra import Bucket
from ratekeeper.core.limits import Algorithm, Limit
from ratekeeper.core.paced import Paced
from ratekeeper.core.policy import HOLD, Account, costs_of, counted, rules_of
from ratekeeper.core.slots import Gate, Slots
from ratekeeper.core.units import DAY, MINUTE, NANO, SECOND
from ratekeeper.core.window import FixedWindow, SlidingWindow
from ratekeeper.errors import ConfigError
from tests.core.room import START


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("60 rpm", SlidingWindow),
        ("60 rpm burst 5", Bucket),
        ("60 rpm using token-bucket", Bucket),
        ("60 rpm using leaky-bucket", Bucket),
        ("60 rpm using fixed-window", FixedWindow),
        ("60 rpd resets 00:00", FixedWindow),
        ("60 rpm using paced", Paced),
        ("60 concurrent", Slots),
        ("$5/day", SlidingWindow),
    ],
)
def test_each_algorithm_has_its_meter(text: str, kind: type) -> None:
    (rule,) = rules_of([text])
    meter = rule.meter(START)

    assert type(meter) is kind
    assert text.replace("rpm", "requests/minute").split()[0] in meter.text
    assert meter.refunds
    assert not meter.attention


def test_a_limit_keeps_the_text_of_the_operator() -> None:
    (rule,) = rules_of([Limit.parse("500 rpm")])

    assert "500 requests/minute" == rule.text
    assert Algorithm.SLIDING_WINDOW is rule.limit.algorithm


def test_limits_of_an_account_mirror_a_provider_nobody_knows() -> None:
    requests, tokens, day, money, slots = rules_of(
        ["60 rpm", "10k tpm", "1M tpd", "$5/day", "20 concurrent"],
        Account(refunds=frozenset(["tokens"]), guard_us=SECOND),
    )

    assert [Algorithm.PACED, Algorithm.PACED] == [
        rule.limit.algorithm for rule in (requests, tokens)
    ]
    assert [Algorithm.SLIDING_WINDOW, Algorithm.SLIDING_WINDOW] == [
        rule.limit.algorithm for rule in (day, money)
    ]
    assert [False, True, True, True, True] == [
        rule.refunds for rule in (requests, tokens, day, money, slots)
    ]
    assert [True, True, False, False, False] == [
        rule.cold for rule in (requests, tokens, day, money, slots)
    ]
    assert [SECOND, SECOND, SECOND, 0, SECOND] == [
        rule.guard_us for rule in (requests, tokens, day, money, slots)
    ]
    assert not slots.meter(START).attention


def test_an_account_starts_cold_unless_told_otherwise() -> None:
    text = "600 rpm using token-bucket"
    (rule,) = rules_of([text], Account())
    (warm,) = rules_of([text], Account(cold=False))

    assert 10 == rule.meter(START).remaining(START)
    assert 600 == warm.meter(START).remaining(START)


def test_a_said_burst_does_not_make_a_cold_start_warm() -> None:
    (rule,) = rules_of(["600 rpm burst 300"], Account())

    assert 10 == rule.meter(START).remaining(START)
    assert 10 == rule.meter(START).remaining(START)


def test_a_call_costs_what_it_says_and_one_request() -> None:
    rules = rules_of(["60 rpm", "10k tpm", "$5/day", "20 concurrent"])
    cost = counted({"tokens": 500, "usd": "0.1"}, ["tokens", "usd"])

    assert [1, 500, NANO // 10, MINUTE] == costs_of(rules, cost, MINUTE)
    cost = counted({"tokens": 0, "usd": 0, "requests": 3}, [])
    assert [3, 0, 0, MINUTE] == costs_of(rules, cost, MINUTE)


def test_a_limit_that_counts_what_the_call_does_not_say_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"10k tokens/minute.* needs tokens="):
        costs_of(rules_of(["10k tpm"]), {}, MINUTE)


@pytest.mark.parametrize("unit", ["token", "concurrent", "timout", "xyzzy"])
def test_a_unit_that_nothing_counts_is_a_type_error(unit: str) -> None:
    with pytest.raises(TypeError):
        counted({unit: 5}, ["requests"])


@pytest.mark.parametrize("value", [-1, 10**16])
def test_a_cost_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(ConfigError):
        counted({"tokens": value}, ["tokens"])


def test_no_limits_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no limits given"):
        rules_of([])


@pytest.mark.parametrize("slip", ["learnd", "Leaned", "learned from refusal"])
def test_a_slip_of_learned_is_told_the_word_to_write(slip: str) -> None:
    with pytest.raises(ConfigError, match="expected 'learned' once, or 'learned from"):
        rules_of([slip], Account())


def test_learned_is_read_in_capitals_as_units_are() -> None:
    account = Account(shows=(("requests", MINUTE),))

    assert rules_of(["learned"], account) == rules_of(["LEARNED"], account)


SHOWS = Account(shows=(("requests", MINUTE), ("tokens", MINUTE), ("requests", DAY)))


def test_learned_stands_for_every_limit_that_headers_may_show() -> None:
    gate, minute, tokens, day = rules_of(["learned"], SHOWS)

    assert Gate is gate.kind
    assert [("requests", MINUTE), ("tokens", MINUTE), ("requests", DAY)] == [
        (rule.limit.unit, rule.limit.window_us) for rule in (minute, tokens, day)
    ]
    assert (True, True, False) == (minute.cold, tokens.cold, day.cold)
    assert not any(rule.is_told for rule in (minute, tokens, day))
    assert isinstance(minute.meter(START), Paced)
    assert isinstance(day.meter(START), SlidingWindow)


def test_limits_said_beside_learned_are_kept_too() -> None:
    rules = rules_of(["learned", "5 concurrent"], SHOWS)

    assert "5 concurrent" == rules[-1].text
    assert rules[-1].is_told


def test_learned_is_of_an_account() -> None:
    with pytest.raises(ConfigError, match="needs the account it is learned of"):
        rules_of(["learned"])


def test_what_no_header_shows_is_not_learned_from_headers() -> None:
    with pytest.raises(ConfigError, match="or say 'learned from refusals'"):
        rules_of(["learned"], Account())


def test_learned_is_said_once() -> None:
    with pytest.raises(ConfigError, match="expected 'learned' once"):
        rules_of(["learned", "learned from refusals"], SHOWS)


def test_a_call_need_not_state_what_may_turn_out_to_be_limited() -> None:
    rules = rules_of(["learned"], SHOWS)

    assert [HOLD, 1, 0, 1] == costs_of(rules, {}, HOLD)
    assert [HOLD, 1, 70, 1] == costs_of(rules, {"tokens": 70}, HOLD)
