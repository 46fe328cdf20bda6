"""All limits of an account together: all or none, settled both ways."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.enforcer import Admitted, Enforcement, Enforcer, Refused
from ratekeeper.simulator.rules import (
    MINUTE_US,
    SECOND_US,
    Concurrency,
    FixedWindow,
    QuantizedBucket,
    Rule,
    SlidingLog,
    TokenBucket,
)

START = 1_800_000_000 * SECOND_US


def admitted(verdict: Admitted | Refused) -> Admitted:
    assert isinstance(verdict, Admitted)
    return verdict


def refused(verdict: Admitted | Refused) -> Refused:
    assert isinstance(verdict, Refused)
    return verdict


def used(enforcer: Enforcer, now: int) -> list[int]:
    return [rule.used(now) for rule in enforcer.rules]


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(list(Enforcement)),
    st.lists(
        st.tuples(st.integers(0, 20 * SECOND_US), st.integers(0, 900)), max_size=50
    ),
)
def test_a_refused_call_takes_nothing_and_its_wait_is_exact(
    enforce: Enforcement, arrivals: list[tuple[int, int]]
) -> None:
    enforcer = Enforcer.from_limits(["20 rpm", "2000 tpm"], enforce=enforce)
    now = START
    for gap, tokens in arrivals:
        now += gap
        before = used(enforcer, now)
        verdict = enforcer.admit({"requests": 1, "tokens": tokens}, now)
        if isinstance(verdict, Admitted):
            continue
        costs = {"requests": 1, "tokens": tokens}

        assert before == used(enforcer, now)
        assert verdict.wait_us == enforcer.wait_us(costs, now)
        assert verdict.wait_us is not None
        assert 1 == enforcer.wait_us(costs, now + verdict.wait_us - 1)
        assert 0 == enforcer.wait_us(costs, now + verdict.wait_us)


def test_the_limit_that_keeps_a_call_out_longest_is_the_one_named() -> None:
    enforcer = Enforcer.from_limits(["60 rpm", "600 tpm"])
    enforcer.admit({"requests": 60, "tokens": 600}, START)
    verdict = refused(enforcer.admit({"requests": 1, "tokens": 300}, START))

    assert "600 tokens/minute" == verdict.rule.name
    assert 30 * SECOND_US == verdict.wait_us
    assert (300, 600) == (verdict.requested, verdict.used)
    assert not verdict.never


def test_a_call_larger_than_a_limit_is_never_admitted_and_says_so() -> None:
    enforcer = Enforcer.from_limits(["1 rpm", "600 tpm"])
    enforcer.admit({"requests": 1, "tokens": 1}, START)
    verdict = refused(enforcer.admit({"requests": 1, "tokens": 601}, START))

    assert verdict.never
    assert verdict.wait_us is None
    assert "tokens" == verdict.rule.unit


def test_a_rule_whose_unit_a_call_does_not_name_does_not_concern_it() -> None:
    enforcer = Enforcer.from_limits(["1 rpm", "600 tpm"])
    enforcer.admit({"requests": 1, "tokens": 600}, START)

    assert isinstance(enforcer.admit({}, START), Admitted)


def test_settling_is_cumulative_and_repeating_it_changes_nothing() -> None:
    enforcer = Enforcer.from_limits(["1000 tpm"])
    call = admitted(enforcer.admit({"tokens": 100}, START))
    figures = []
    for spent in (150, 150, 400):
        enforcer.settle(call, {"tokens": spent}, START)
        figures += used(enforcer, START)

    assert [150, 150, 400] == figures


@pytest.mark.parametrize(("refunds", "left"), [(True, 30), (False, 100)])
@pytest.mark.parametrize("enforce", list(Enforcement))
def test_unused_tokens_come_back_only_where_the_provider_gives_them_back(
    enforce: Enforcement, refunds: bool, left: int
) -> None:
    enforcer = Enforcer.from_limits(["1000 tpm"], enforce=enforce, refunds=refunds)
    call = admitted(enforcer.admit({"tokens": 100}, START))
    enforcer.settle(call, {"tokens": 30}, START)

    assert used(enforcer, START) == [left]


def test_refunds_can_be_named_by_unit() -> None:
    enforcer = Enforcer.from_limits(
        ["1000 itpm", "1000 otpm"], refunds=["input_tokens"]
    )
    costs = {"input_tokens": 100, "output_tokens": 100}
    call = admitted(enforcer.admit(costs, START))
    enforcer.settle(call, {"input_tokens": 10, "output_tokens": 10}, START)

    assert [10, 100] == used(enforcer, START)


def test_an_overrun_is_debt_that_keeps_later_calls_out() -> None:
    enforcer = Enforcer.from_limits(["600 tpm"])
    call = admitted(enforcer.admit({"tokens": 600}, START))
    enforcer.settle(call, {"tokens": 1200}, START)

    assert MINUTE_US + SECOND_US // 10 == enforcer.wait_us({"tokens": 1}, START)


def test_a_slot_is_freed_once_however_often_a_call_ends() -> None:
    enforcer = Enforcer.from_limits(["2 concurrent"])
    first = admitted(enforcer.admit({}, START))
    admitted(enforcer.admit({}, START))
    third = refused(enforcer.admit({}, START))
    enforcer.release(first)
    enforcer.release(first)

    assert third.wait_us is None
    assert not third.never
    assert [1] == used(enforcer, START)


@pytest.mark.parametrize(
    ("limit", "enforce", "kind"),
    [
        ("60 rpm", "token-bucket", TokenBucket),
        ("60 rpm", "quantized", QuantizedBucket),
        ("60 rpm", "sliding-log", SlidingLog),
        ("60 rpm", "fixed-window", FixedWindow),
        ("60k tpm", "quantized", TokenBucket),
        ("60 rpm burst 5", "sliding-log", TokenBucket),
        ("60 rpm using sliding-window", "token-bucket", SlidingLog),
        ("60 rpm using fixed-window", "token-bucket", FixedWindow),
        ("60 rpm using token-bucket", "fixed-window", TokenBucket),
        ("60 rpm using leaky-bucket", "fixed-window", QuantizedBucket),
        ("1000 rpd", "token-bucket", FixedWindow),
        ("1000 rpd using token-bucket", "fixed-window", TokenBucket),
        ("1000 requests/day resets 08:00 Asia/Shanghai", "quantized", FixedWindow),
        ("4 concurrent", "sliding-log", Concurrency),
    ],
)
def test_a_limit_becomes_the_rule_it_asks_for(
    limit: str, enforce: str, kind: type[Rule]
) -> None:
    (rule,) = Enforcer.from_limits([limit], enforce=enforce).rules

    assert type(rule) is kind


def test_a_leaky_bucket_lets_one_through_at_a_time() -> None:
    (rule,) = Enforcer.from_limits(["600 rpm using leaky-bucket"]).rules
    rule.take(1, START)

    assert 1 == rule.capacity
    assert START + SECOND_US // 10 == rule.ready_at(1, START)


def test_a_burst_is_the_most_that_goes_at_once() -> None:
    (rule,) = Enforcer.from_limits(["60 rpm burst 5"]).rules

    assert 5 == rule.capacity


def test_paced_is_refused_because_no_provider_enforces_so() -> None:
    with pytest.raises(ConfigError, match="paced is how Ratekeeper sends"):
        Enforcer.from_limits(["60 rpm using paced"])


def test_standing_tells_what_is_left_and_when_all_of_it_is_back() -> None:
    enforcer = Enforcer.from_limits(["60 rpm", "600 tpm"])
    enforcer.admit({"requests": 15, "tokens": 600}, START)
    requests, tokens = enforcer.standing(START)

    assert (60, 45) == (requests.limit, requests.remaining)
    assert START + 15 * SECOND_US == requests.full_at
    assert (600, 0) == (tokens.limit, tokens.remaining)
    assert START + MINUTE_US == tokens.full_at


def test_told_so_a_refused_call_counts_in_the_limits_that_had_room() -> None:
    limits = ["60 rpm", "10 tpm", "5 concurrent"]
    enforcer = Enforcer.from_limits(limits, counts_refused=True)
    enforcer.admit({"requests": 1, "tokens": 11}, START)

    assert [1, 0, 0] == used(enforcer, START)


def test_no_wait_is_named_for_what_never_fits_or_waits_for_a_slot() -> None:
    enforcer = Enforcer.from_limits(["10 tpm", "1 concurrent"])
    never = enforcer.wait_us({"tokens": 11}, START)
    enforcer.admit({"tokens": 1}, START)

    assert never is None
    assert enforcer.wait_us({"tokens": 1}, START) is None
    assert 0 == Enforcer.from_limits(["10 tpm"]).wait_us({"requests": 1}, START)
