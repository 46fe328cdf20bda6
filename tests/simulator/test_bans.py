"""A ban comes after so many refusals within a minute, and goes by itself."""

from __future__ import annotations

import pytest

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.bans import Bans
from ratekeeper.simulator.rules import MINUTE_US, SECOND_US

START = 1_800_000_000 * SECOND_US
HOUR_US = 3600 * SECOND_US


def test_the_refusal_of_that_number_brings_the_ban() -> None:
    bans = Bans(3, HOUR_US)
    brought = [bans.refused(START + n) for n in range(3)]

    assert [False, False, True] == brought
    assert HOUR_US == bans.wait_us(START + 2)
    assert 0 == bans.wait_us(START + 2 + HOUR_US)


def test_refusals_spread_over_more_than_a_minute_bring_none() -> None:
    bans = Bans(2, HOUR_US)
    brought = [bans.refused(START + n * MINUTE_US) for n in range(5)]

    assert not any(brought)
    assert 0 == bans.wait_us(START + 5 * MINUTE_US)


def test_refusals_during_a_ban_do_not_prolong_it() -> None:
    bans = Bans(1, HOUR_US)
    bans.refused(START)
    again = bans.refused(START + 1)

    assert not again
    assert 0 == bans.wait_us(START + HOUR_US)


def test_without_a_number_nobody_is_banned() -> None:
    bans = Bans(None, HOUR_US)
    brought = [bans.refused(START) for _ in range(1_000)]

    assert not any(brought)


@pytest.mark.parametrize(("after", "for_us"), [(0, 1), (-1, 1), (10**6, 1), (5, 0)])
def test_a_ban_that_makes_no_sense_is_a_config_error(after: int, for_us: int) -> None:
    with pytest.raises(ConfigError, match="ban"):
        Bans(after, for_us)
