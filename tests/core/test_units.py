"""Amounts, money and time at the public edge."""

from __future__ import annotations

import contextlib
import decimal
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core import units
from ratekeeper.core.units import HOUR, MAX_COST, MINUTE, NANO, SECOND
from ratekeeper.errors import ConfigError


@given(st.integers(0, 10**18))
def test_an_amount_reads_back_as_printed(amount: int) -> None:
    assert amount == units.parse_amount(units.format_amount(amount))


@given(st.integers(0, 10**24))
def test_money_reads_back_as_printed(nano: int) -> None:
    text = units.format_money(nano)

    assert nano == units.parse_amount(text, NANO)
    assert nano == units.decimal(nano) * NANO
    assert not text.endswith((".", "0")) or nano % (10 * NANO) == 0


@pytest.mark.parametrize(
    ("nano", "shown"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (10_000, "$0.00001"),
        (123_456, "$0.00012"),
        (9_960_000, "$0.01"),
        (34_567_890, "$0.035"),
        (100_000_000, "$0.10"),
        (1_234_000_001, "$1.23"),
        (1_235_000_000, "$1.24"),
        (12_000_000_000_000, "$12000.00"),
    ],
)
def test_a_sum_is_shown_to_the_cent_and_a_tiny_one_to_two_digits(
    nano: int, shown: str
) -> None:
    assert shown == units.show_money(nano, "usd")
    assert f"{shown[1:]} cny" == units.show_money(nano, "cny")


@given(st.integers(0, 10**24))
def test_a_sum_is_shown_within_a_twentieth_of_it_and_half_a_cent(nano: int) -> None:
    shown = units.parse_amount(units.show_money(nano, "usd")[1:], NANO)

    assert abs(nano - shown) <= min(nano // 20, NANO // 200)
    assert bool(nano) == bool(shown)


@pytest.mark.parametrize(
    ("word", "amount"),
    [
        ("500", 500),
        ("10_000", 10_000),
        ("120k", 120_000),
        ("120K", 120_000),
        ("1.5M", 1_500_000),
        ("2B", 2_000_000_000),
        ("0.001k", 1),
        ("1.50k", 1500),
    ],
)
def test_an_amount_is_read_exactly(word: str, amount: int) -> None:
    assert amount == units.parse_amount(word)


@pytest.mark.parametrize(
    "word",
    [
        *("", "k", "1.", ".5", "1.5", "1.0005k", "1e3", "-1", "1m", "٥"),
        *("1" * 41, "1.00000000000000000000000000000000001"),
    ],
)
def test_what_is_no_amount_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        units.parse_amount(word)


@given(st.text(max_size=60))
def test_reading_an_amount_never_fails_in_another_way(word: str) -> None:
    with contextlib.suppress(ValueError):
        assert units.parse_amount(word) >= 0


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (9999, "9999"), (10_000, "10k"), (12_345, "12345"), (2 * 10**6, "2M")],
)
def test_amounts_are_printed_short(amount: int, text: str) -> None:
    assert text == units.format_amount(amount)


@given(
    st.decimals(0, MAX_COST, allow_nan=False, places=None),
    st.sampled_from([3, 28]),
)
def test_money_is_counted_in_billionths_rounded_up_in_any_context(
    value: Decimal, precision: int
) -> None:
    if len(str(value)) > 100:
        return
    with decimal.localcontext() as context:
        context.prec = precision
        nano = units.money(value)

    exact = Fraction(value) * NANO
    assert exact <= nano < exact + 1


@pytest.mark.parametrize(
    ("value", "nano"),
    [
        (5, 5 * NANO),
        ("0.1", NANO // 10),
        ("1e-40", 1),
        ("0e-9999", 0),
        ("0e9999", 0),
        ("-0", 0),
        (Decimal("0.0000000001"), 1),
        (MAX_COST, MAX_COST * NANO),
        (f"{MAX_COST}.0", MAX_COST * NANO),
    ],
)
def test_a_sum_of_money_is_exact(value: str | int | Decimal, nano: int) -> None:
    assert nano == units.money(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "five",
        "NaN",
        "sNaN",
        "Infinity",
        "-1.5",
        -1,
        "1e999999999",
        "9" * 200,
        MAX_COST + 1,
        pytest.param(10**5000, id="huge"),
        pytest.param(-(10**5000), id="hugely negative"),
        Decimal("NaN"),
        Decimal("-Infinity"),
        Decimal(MAX_COST) + 1,
    ],
)
def test_what_is_no_sum_of_money_is_refused_at_once(
    value: str | int | Decimal,
) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match="money must be a finite sum") as caught:
        units.money(value)

    assert len(str(caught.value)) < 150
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("value", [True, 1.5, None, b"5", [5]])
def test_money_of_another_type_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="a Decimal, a string or an int"):
        units.money(value)  # type: ignore[arg-type]


@given(st.integers(0, MAX_COST))
def test_a_count_is_a_whole_number(value: int) -> None:
    assert value == units.count("tokens", value)


@pytest.mark.parametrize("value", [True, 1.0, "5", None, Decimal(5), float("nan")])
def test_a_count_of_another_type_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="tokens= takes a whole number"):
        units.count("tokens", value)


@pytest.mark.parametrize("value", [-1, MAX_COST + 1, pytest.param(10**5000, id="huge")])
def test_a_count_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(
        ConfigError, match=r"tokens=(-?\d+|a far larger number) is out of range"
    ) as caught:
        units.count("tokens", value)

    assert len(str(caught.value)) < 120


def test_a_count_of_a_currency_is_money() -> None:
    assert NANO // 4 == units.count("usd", "0.25")
    with pytest.raises(TypeError, match="money"):
        units.count("usd", 0.25)


@pytest.mark.parametrize(
    ("value_s", "us"),
    [(0, 0), (1, SECOND), (1e-7, 1), (0.5, 500_000), (2.0000001, 2_000_001)],
)
def test_seconds_become_microseconds_rounded_up(value_s: float, us: int) -> None:
    assert us == units.micros(value_s)


def test_microseconds_become_seconds() -> None:
    assert 1.5 == units.seconds(1_500_000)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 s"),
        (1, "0.001 s"),
        (40 * SECOND, "40 s"),
        (1_250_000, "1.25 s"),
        (59_999_999, "60 s"),
        (MINUTE, "1 min 0 s"),
        (MINUTE + 1, "1 min 1 s"),
        (3 * HOUR + 20 * MINUTE, "3 h 20 min"),
        (48 * HOUR, "2 d 0 h"),
        (100 * HOUR, "4 d 4 h"),
    ],
)
def test_a_wait_is_printed_for_a_person(us: int, text: str) -> None:
    assert text == units.format_wait(us)


def test_billionths_that_were_counted_already_are_taken_as_they_are() -> None:
    assert 7 == units.money(units.Nano(7))
    assert 7_000_000_000 == units.money(7)


@pytest.mark.parametrize("nano", [-1, units.MAX_COST * units.NANO + 1])
def test_billionths_out_of_range_are_refused(nano: int) -> None:
    with pytest.raises(ConfigError, match="money must be a finite sum"):
        units.money(units.Nano(nano))
