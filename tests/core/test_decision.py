"""What a limiter answers."""

from __future__ import annotations

from decimal import Decimal, localcontext

from ratekeeper.core import line
from ratekeeper.core.decision import denied, never_possible, status_of
from ratekeeper.core.line import Waiter
from ratekeeper.core.units import HOUR, MINUTE, SECOND
from tests.core.room import START, Room, meters_of


def test_a_denial_is_false_and_says_the_limit_and_the_wait() -> None:
    (meter,) = meters_of("60 rpm")
    answer = denied(meter, 40 * SECOND, 40 * SECOND)

    assert not answer
    assert 40.0 == answer.retry_after_s
    assert str(answer) == (
        "the limit '60 requests/minute' is used up: try again in 40 s"
    )


def test_a_denial_by_slots_is_a_lower_bound_and_says_so() -> None:
    (meter,) = meters_of("5 concurrent")
    answer = denied(meter, 15 * MINUTE, 15 * MINUTE)

    assert not answer.exact
    assert SECOND == answer.retry_after_us
    assert str(answer).endswith("try again in at least 1 s")


def test_a_denial_by_what_is_only_held_is_a_lower_bound_and_says_so() -> None:
    (day,) = meters_of("100 tokens/day")
    (minute,) = meters_of("100 tpm")
    held, soon = denied(day, 24 * HOUR, 0), denied(minute, MINUTE, 0)

    assert (False, SECOND) == (held.exact, held.retry_after_us)
    assert "is held by calls under way: try again in at least 1 s" in str(held)
    assert (True, MINUTE) == (soon.exact, soon.retry_after_us)
    assert 2 * HOUR == denied(day, 24 * HOUR, 2 * HOUR).retry_after_us


def test_a_status_says_what_is_used_and_who_waits() -> None:
    room = Room("60 rpm")
    room.enter(Waiter([60]))
    room.enter(Waiter([1]))
    status = status_of(room.meters[0], START)

    assert (60, 0, 60.0, 1) == (
        status.used,
        status.remaining,
        status.reset_after_s,
        status.waiting,
    )
    assert [] == line.advance(room.meters, START)


def test_money_is_shown_in_its_currency_exactly_in_any_context() -> None:
    (meter,) = meters_of("$50/day")
    meter.take(12_345_678_901, START)
    with localcontext() as context:
        context.prec = 3
        status = status_of(meter, START)

    assert Decimal("12.345678901") == status.used
    assert Decimal("37.654321099") == status.remaining
    assert 0 == status.waiting


def test_a_call_that_never_fits_is_told_how_much_too_large_it_is() -> None:
    (tokens,), (dollars,) = meters_of("1k tpm"), meters_of("$5/day")

    assert str(never_possible(tokens, 1001)).startswith(
        "the call takes 1001 tokens, more than the limit '1000 tokens/minute' ever holds"
    )
    assert "takes 5.5 usd, more than the limit '$5/day'" in str(
        never_possible(dollars, 5_500_000_000)
    )
