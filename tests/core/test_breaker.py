"""The circuit breaker: when it opens, who probes, and how it closes."""

from ratekeeper.core.breaker import FAILURES, Breaker
from ratekeeper.core.units import SECOND


def _opened(now: int = 0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(now)
    return breaker


def test_a_breaker_is_closed_until_failures_come_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(0)
    breaker.succeeded()
    for _ in range(FAILURES - 1):
        breaker.failed(0)

    assert breaker.is_closed
    assert 0 == breaker.wait_us(0)


def test_an_open_breaker_lets_nothing_through_for_a_while() -> None:
    breaker = _opened()

    assert not breaker.is_closed
    assert 2 * SECOND == breaker.wait_us(0)
    assert 1 == breaker.wait_us(2 * SECOND - 1)
    assert 0 == breaker.wait_us(2 * SECOND)


def test_one_probe_at_a_time_goes() -> None:
    breaker = _opened()
    breaker.go(2 * SECOND)

    assert breaker.wait_us(2 * SECOND) > 0


def test_while_a_probe_is_out_it_is_worth_looking_again_soon() -> None:
    breaker = _opened()
    breaker.go(2 * SECOND)

    assert SECOND == breaker.wait_us(2 * SECOND)
    assert SECOND == breaker.wait_us(61 * SECOND)
    assert 0 == breaker.wait_us(62 * SECOND)


def test_a_good_probe_closes_it() -> None:
    breaker = _opened()
    breaker.go(2 * SECOND)
    breaker.succeeded()

    assert breaker.is_closed
    assert 0 == breaker.wait_us(2 * SECOND)


def test_each_failed_probe_opens_it_for_longer_up_to_a_minute() -> None:
    breaker, now, waits = _opened(), 0, []
    for _ in range(8):
        now += breaker.wait_us(now)
        breaker.go(now)
        breaker.failed(now)
        waits.append(breaker.wait_us(now) // SECOND)

    assert [4, 8, 16, 32, 60, 60, 60, 60] == waits


def test_a_call_that_had_gone_before_it_opened_does_not_open_it_for_longer() -> None:
    breaker = _opened()
    breaker.failed(SECOND)

    assert SECOND == breaker.wait_us(SECOND)


def test_a_probe_that_told_nothing_leaves_room_for_another() -> None:
    breaker = _opened()
    breaker.go(2 * SECOND)
    breaker.given_up()

    assert 0 == breaker.wait_us(2 * SECOND)


def test_a_call_through_a_closed_breaker_is_no_probe() -> None:
    breaker = Breaker()
    breaker.go(0)

    assert 0 == breaker.wait_us(0)
